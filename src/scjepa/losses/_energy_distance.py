"""Energy distance between sets of cells: the default loss for unpaired source and target."""

from __future__ import annotations

import torch
from torch import Tensor

from scjepa.losses._inputs import check_sets


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the energy distance of each pair of sets.

    .. math::

        E(X, Y) = 2\, \overline{\lVert x_i - y_j \rVert} - \overline{\lVert x_i - x_j \rVert}
        - \overline{\lVert y_i - y_j \rVert}

    with Euclidean norms and means over all pairs, i = j included (V-statistic): never negative, zero for equal sets,
    biased upwards by about the mean distance within a set times (1/m + 1/n). A pair at distance zero has gradient zero.

    Parameters
    ----------
    x
        ``(..., m, d)``.
    y
        ``(..., n, d)``; the sets may differ in size, leading dimensions are broadcast.

    Returns
    -------
    ``(...)``, one distance for each pair of sets.

    Raises
    ------
    ValueError
        When the shapes don't fit, or a set is empty.

    References
    ----------
    Székely, Rizzo. Energy statistics. J Stat Plan Inference 143, 2013.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import energy_distance
    >>> energy_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0]])).item()
    1.0
    """
    x, y = check_sets(x, y)
    # large sets go through |x|^2 + |y|^2 - 2xy: near the origin that cancels least
    origin = x.detach().mean(-2, keepdim=True)
    x, y = x - origin, y - origin
    between = torch.cdist(x, y).mean((-2, -1))
    within = torch.cdist(x, x).mean((-2, -1)) + torch.cdist(y, y).mean((-2, -1))
    return 2 * between - within
