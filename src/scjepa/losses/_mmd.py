"""Maximum mean discrepancy between sets of cells with Gaussian kernels of several widths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scjepa.losses._inputs import check_sets

_SCALE = 8.0
"""Part of the recipe: the weights beside it (mean distance, weight decay) were found with this factor."""


def mmd(x: Tensor, y: Tensor, bandwidths: Sequence[float] = (0.5, 1.0, 2.0, 4.0)) -> Tensor:
    r"""Return the multi-bandwidth MMD of each pair of sets, **times 8** and summed (not averaged) over bandwidths.

    .. math::

        8 \sum_b \left( \overline{k_b(x_i, x_j)} + \overline{k_b(y_i, y_j)} - 2\, \overline{k_b(x_i, y_j)} \right),
        \qquad k_b(u, v) = \exp\!\left(-\frac{\lVert u - v \rVert^2}{2 b d}\right)

    Squared distances are divided by the number of dimensions d, so that the same bandwidths serve any d when
    coordinates are of order one. Means run over all pairs, i = j included (V-statistic): never negative. Divide by
    ``8 * len(bandwidths)`` for the squared MMD of the mean kernel.

    Parameters
    ----------
    x
        ``(..., m, d)``.
    y
        ``(..., n, d)``; the sets may differ in size, leading dimensions are broadcast.
    bandwidths
        The b of the formula, in units of mean squared coordinate difference.

    Returns
    -------
    ``(...)``, one value for each pair of sets.

    Raises
    ------
    ValueError
        When the shapes don't fit, a set is empty, or a bandwidth is not positive.

    References
    ----------
    Gretton et al. A kernel two-sample test. JMLR 13, 2012.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import mmd
    >>> round(mmd(torch.tensor([[0.0]]), torch.tensor([[2.0]]), bandwidths=(2.0,)).item(), 4)  # 16 (1 - 1/e)
    10.1139
    """
    if not len(bandwidths) or min(bandwidths) <= 0:
        raise ValueError(f"bandwidths={tuple(bandwidths)!r}: expected one or more positive numbers.")
    x, y = check_sets(x, y)
    m = x.shape[-2]
    cells = torch.cat([x, y], -2)
    cells = cells - cells.detach().mean(-2, keepdim=True)  # the expansion below cancels least near the origin
    norms = cells.square().sum(-1)
    squared = (norms[..., :, None] + norms[..., None, :] - 2 * cells @ cells.mT).clamp_min(0) / cells.shape[-1]
    kernel = torch.stack([torch.exp(-squared / (2 * b)) for b in bandwidths]).sum(0)
    within = kernel[..., :m, :m].mean((-2, -1)) + kernel[..., m:, m:].mean((-2, -1))
    return _SCALE * (within - 2 * kernel[..., :m, m:].mean((-2, -1)))
