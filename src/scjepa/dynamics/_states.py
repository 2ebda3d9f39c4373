"""Terminal states: groups of late cells that walks stay in, found from the slow part of the walk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.linalg import schur
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, eigs

from scjepa._checks import require_positive_int
from scjepa._types import FloatArray
from scjepa.dynamics._walk import _require_stochastic, _square

DENSE = 1200
"""Cells up to which the whole Schur form is computed."""
MOST_STATES = 12
STABLE = 0.96
"""Probability of staying, a step, from which a state counts as terminal."""
SLOWEST = 1e-3
"""Rate of leaving below which states are kept apart for good, as far as their number is concerned."""
CORE = 0.5
"""Membership from which a cell is counted to a state."""


class TerminalStates(NamedTuple):
    """States that walks stay in."""

    labels: np.ndarray
    """``(n,)`` names ``"1"``, ``"2"``, ... from the largest state; ``""`` for cells in none."""
    memberships: FloatArray
    """``(n, states)`` rows of sum one for cells that stay among late cells, 0 for cells that move on."""
    stability: FloatArray
    """``(states,)`` probability of staying, a step."""
    eigenvalues: FloatArray
    """Largest eigenvalues of the walk, real parts, descending: a gap after the k-th speaks for k states."""


def terminal_states(
    transition: sp.csr_matrix,
    *,
    n_states: int | None = None,
    max_states: int = MOST_STATES,
    least_stability: float = STABLE,
    least_cells: int = 5,
) -> TerminalStates:
    r"""Find the states that a chain of cells ends in.

    Cells that are left for good (early ones) are set aside. Of the walk P among the others the slow part is taken: an orthonormal
    basis of the invariant subspace of the k largest eigenvalues (from the sorted real Schur form, so that P need not be
    reversible). In it the k cells that are farthest apart are the corners of a simplex, and a cell's memberships
    :math:`\chi` are its coordinates between them. A state is terminal when its cells stay in it:
    :math:`(\chi^\top \chi)^{-1} \chi^\top P \chi`, the walk between states, has at least ``least_stability`` on its diagonal.

    Parameters
    ----------
    transition
        ``(n, n)`` sparse, rows of sum one, with walks among the last cells:
        ``transition_matrix(z, times, last="graph")``.
    n_states
        k; by default the number before the largest gap in time scale, :math:`1 / (1 - \lambda)`, of eigenvalues of at least
        ``least_stability``, and no fewer than there are unconnected parts. Look at ``eigenvalues``: several gaps, several answers.
    max_states
        Most states.
    least_stability
        From which a state is terminal; others are left out.
    least_cells
        Fewest cells of a state.

    Returns
    -------
    Labels, memberships, stability and eigenvalues.

    Raises
    ------
    ValueError
        For rows that do not sum to one, and for a chain whose last cells stay where they are: each is its own state then.

    References
    ----------
    GPCCA: Reuter, Fackeldey, Weber 2019, *J Chem Phys* 150, with the inner simplex of Weber, Galliat 2002, ZIB-Report 02-12
    (here without their further optimisation of memberships); states of cells: Lange et al. 2022, *Nat Methods* 19.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.dynamics import terminal_states, transition_matrix
    >>> rng = np.random.default_rng(0)
    >>> z = np.vstack([rng.normal(0, 1, (20, 2)), rng.normal(0, 1, (40, 2)) + 9, rng.normal(0, 1, (30, 2)) - 9])
    >>> chain = transition_matrix(z, np.repeat([0, 1], [20, 70]), last="graph", n_neighbors=8)
    >>> found = terminal_states(chain)
    >>> [found.labels[i] for i in (0, 20, 59, 60, 89)], found.stability.round(3).tolist()
    (['', '1', '1', '2', '2'], [1.0, 1.0])
    """
    chain = _square(transition, "transition", None)
    _require_stochastic(chain)
    require_positive_int(max_states, "max_states")
    require_positive_int(least_cells, "least_cells")
    if n_states is not None:
        require_positive_int(n_states, "n_states")
    if isinstance(least_stability, bool) or not 0 <= least_stability <= 1:
        raise ValueError(f"least_stability={least_stability!r}: expected a number from 0 to 1, for example 0.96.")
    stay = _recurrent(chain)
    walk = chain[stay][:, stay]
    if (walk.diagonal() > 1 - 1e-12).all():
        raise ValueError(
            f"all {len(stay)} last cells stay where they are, so that each is a state of its own. Let them walk: "
            "transition_matrix(z, times, last='graph')."
        )
    most = min(max_states, len(stay) - 1)
    values, basis = _slow(walk, min(most + 1, len(stay)))
    k = min(n_states, values.shape[0]) if n_states is not None else _before_gap(values, most, least_stability)
    chi = _memberships(basis[:, :k])
    coarse = np.linalg.lstsq(chi.T @ chi, chi.T @ (walk @ chi), rcond=None)[0]
    stability = np.clip(np.diag(coarse), 0.0, 1.0)
    core = np.where(chi.max(1) > CORE, chi.argmax(1), -1)
    size = np.bincount(core[core >= 0], minlength=k)
    kept = np.flatnonzero((stability >= least_stability) & (size >= least_cells))
    kept = kept[np.argsort(-size[kept], kind="stable")]
    labels = np.full(chain.shape[0], "", dtype=object)
    memberships = np.zeros((chain.shape[0], len(kept)))
    memberships[stay] = chi[:, kept]
    for i, state in enumerate(kept):
        labels[stay[core == state]] = str(i + 1)
    return TerminalStates(labels, memberships, stability[kept], values)


def _recurrent(chain: sp.csr_matrix) -> np.ndarray:
    """Return cells in classes that are never left."""
    n_classes, of = connected_components(chain, directed=True, connection="strong")
    moves = chain.tocoo()
    left = np.zeros(n_classes, dtype=bool)
    left[of[moves.row[(of[moves.row] != of[moves.col]) & (moves.data > 0)]]] = True
    return np.flatnonzero(~left[of])


def _slow(walk: sp.csr_matrix, k: int) -> tuple[FloatArray, FloatArray]:
    """Return the largest eigenvalues (real parts) and an orthonormal basis of their invariant subspace, ordered alike."""
    n = walk.shape[0]
    if n > DENSE:
        try:
            # shifted a little beyond 1, where slow walks lie; the start is fixed, so that the result is
            values, vectors = eigs(
                walk, k=min(k, n - 2), which="LR", v0=np.ones(n) + 1e-3 * np.arange(n) / n, maxiter=5000
            )
        except ArpackNoConvergence as error:
            values, vectors = error.eigenvalues, error.eigenvectors
        order = np.argsort(-values.real, kind="stable")
        values, vectors = values[order], vectors[:, order]
        real = np.where(values.imag < 0, vectors.imag, vectors.real)  # a complex pair spans a plane
        return values.real, np.linalg.qr(real)[0]
    triangle, basis = schur(walk.toarray(), output="real")
    spectrum = np.sort(np.linalg.eigvals(triangle).real)[::-1]
    cut = spectrum[min(k, n) - 1] - 1e-9
    triangle, basis, found = schur(walk.toarray(), output="real", sort=lambda re, im: re >= cut)
    block = triangle[:found, :found]
    values, vectors = np.linalg.eig(block)
    order = np.argsort(-values.real, kind="stable")
    values, vectors = values[order], vectors[:, order]
    real = np.where(values.imag < 0, vectors.imag, vectors.real)
    turned = np.linalg.qr(basis[:, :found] @ real)[0]
    return values.real[:k], turned[:, :k]


def _before_gap(values: FloatArray, most: int, least: float) -> int:
    """Return the number of slow processes before the largest gap in time scale; no fewer than there are unconnected parts."""
    parts = max(1, int((values > 1 - 1e-8).sum()))
    slow = min(int((values >= least).sum()), most)
    first = max(parts, 2)  # that one part stays as it is says nothing of states within it
    if slow < first or len(values) <= first:
        return min(parts, most)
    scale = -np.log(np.maximum(1 - values, 0.0) + SLOWEST)
    gaps = scale[:-1] - scale[1:]
    return int(first + np.argmax(gaps[first - 1 : slow]))


def _memberships(basis: FloatArray) -> FloatArray:
    """Return coordinates between the corners of the simplex that rows of ``basis`` fill, clipped to rows of sum one."""
    k = basis.shape[1]
    rest, corners = basis.copy(), []
    corners.append(int(np.argmax((rest**2).sum(1))))
    rest = rest - rest[corners[0]]
    for _ in range(1, k):
        corner = int(np.argmax((rest**2).sum(1)))
        corners.append(corner)
        direction = rest[corner] / max(float(np.linalg.norm(rest[corner])), 1e-300)
        rest = rest - np.outer(rest @ direction, direction)
    chi = np.clip(basis @ np.linalg.pinv(basis[corners]), 0.0, None)
    return np.asarray(chi / np.maximum(chi.sum(1, keepdims=True), 1e-300))
