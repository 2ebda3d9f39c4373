"""Growth and death between snapshots, from transport whose marginals may give."""

from __future__ import annotations

import numpy as np

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray
from scjepa.dynamics._branching import check_snapshots
from scjepa.dynamics._transport import BLOCK, nearest, transport_plan

LEAST = 1e-3
"""Least number of descendants of a cell from one time to the next: death is not told from a rare state."""


def growth_rates(
    z: FloatArray,
    times: FloatArray,
    *,
    marginal: float = 0.2,
    n_neighbors: int = 15,
    block: int = BLOCK,
    seed: int = 0,
) -> FloatArray:
    r"""Estimate how many descendants each cell has after one unit of time, relative to the mean cell of its time.

    Unbalanced transport between neighbouring times lets cells have more or less mass than others where the next snapshot has more or
    fewer cells of their kind. With :math:`m_i` the mass that leaves cell i over that of a mean cell, averaged over neighbours, and
    :math:`\Delta t` the time to the next snapshot, the rate is :math:`m_i^{1 / \Delta t}`.

    Parameters
    ----------
    z
        ``(n, d)`` cells in coordinates of one scale.
    times
        ``(n,)``.
    marginal
        Penalty on marginals that give, in mean costs: small ones follow the snapshots' shares, large ones hold all rates at 1.
    n_neighbors
        How many cells masses are averaged over.
    block, seed
        See :func:`transport_plan`.

    Returns
    -------
    ``(n,)`` rates, 1 for the mean cell; NaN at the last time.

    Raises
    ------
    ValueError
        For shapes that don't fit, missing values, one time only, and a penalty that is not positive.

    Notes
    -----
    Snapshots tell shares only: rates are relative, a whole culture that doubles has rates of 1, and sampling that prefers a state
    looks like growth. On simulated courses whose second fate outgrows the first by a log rate of 2 (4; 0) per unit of time, rates
    differ by 1.7 (3.7; 0.2).

    References
    ----------
    Chizat et al. 2018, *Mathematics of Computation* 87(314); growth from transport: Schiebinger et al. 2019, *Cell* 176.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import growth_rates
    >>> rng = np.random.default_rng(0)
    >>> side = np.repeat([0, 5, 0, 5], [50, 50, 20, 80])  # the right side grows from a half to four fifths
    >>> z = rng.normal(size=(200, 2)) + np.column_stack([side, np.zeros(200)])
    >>> rates = growth_rates(z, np.repeat([0.0, 1.0], 100))
    >>> bool(np.median(rates[:50]) < 0.7), bool(np.median(rates[50:100]) > 1.3)
    (True, True)
    """
    cells, moments, levels = check_snapshots(z, times, least=2)
    require_positive_int(n_neighbors, "n_neighbors")
    if isinstance(marginal, bool) or not marginal > 0:
        raise ValueError(f"marginal={marginal!r}: expected a positive number, for example 0.2.")
    out = np.full(len(cells), np.nan)
    for t, later in zip(levels[:-1], levels[1:], strict=True):
        here, there = np.flatnonzero(moments == t), np.flatnonzero(moments == later)
        plan = transport_plan(
            cells[here], cells[there], method="unbalanced", marginal=float(marginal), block=block, seed=seed
        )
        mass = np.bincount(plan.source, plan.mass, len(here)) * len(here)
        mass = mass[nearest(cells[here], cells[here], n_neighbors)].mean(1)
        out[here] = np.maximum(mass / mass.mean(), LEAST) ** (1 / (later - t))
    return out
