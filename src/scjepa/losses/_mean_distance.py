"""Squared distance between the means of two sets: keeps the size of the average effect right beside a set loss."""

from __future__ import annotations

from torch import Tensor

from scjepa.losses._inputs import check_sets


def mean_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Return :math:`\lVert \bar x - \bar y \rVert^2`, summed over dimensions, for each pair of sets.

    Parameters
    ----------
    x
        ``(..., m, d)``.
    y
        ``(..., n, d)``; the sets may differ in size, leading dimensions are broadcast.

    Returns
    -------
    ``(...)``, one value for each pair of sets.

    Raises
    ------
    ValueError
        When the shapes don't fit, or a set is empty.

    Examples
    --------
    >>> import torch
    >>> from scjepa.losses import mean_distance
    >>> mean_distance(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 3.0]])).item()
    9.0
    """
    x, y = check_sets(x, y)
    return (x.mean(-2) - y.mean(-2)).square().sum(-1)
