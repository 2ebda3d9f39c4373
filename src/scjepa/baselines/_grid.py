"""Left-out errors of all candidates of the kernel anchor: one decomposition a kernel and fold serves all strengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scjepa._types import FloatArray
from scjepa.baselines._kernels import AMPLITUDE, apply_link, ridge_weights
from scjepa.baselines._noise import Fold, NoiseModel
from scjepa.baselines._selection import CONTEXT, GridErrors, Rows, joint_kernels

SPARED = ("additive", "additive+rbf")
"""Kernels that are not tried where there are those with amplitudes, told from noise by cells: they never made a difference."""
SINGLE = np.float32
"""Precision in which candidates are compared."""


def strength_steps(strengths: Sequence[float], steps: np.ndarray) -> tuple[FloatArray, dict[int, np.ndarray]]:
    """Return all strengths in use when those of genes differ, and where those of a step (half decades) are among them.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._grid import strength_steps
    >>> found, where = strength_steps([0.1, 1.0], np.array([0, 2]))
    >>> found.tolist(), {k: at.tolist() for k, at in where.items()}
    ([0.1, 1.0, 10.0], {0: [0, 1], 2: [1, 2]})
    """
    place: dict[float, int] = {}
    found: list[float] = []
    where = {}
    for step in dict.fromkeys([0, *steps.tolist()]):
        at = []
        for strength in strengths:
            value = float(strength) * 10 ** (step / 2)
            key = round(2 * np.log10(value), 2)
            if key not in place:
                place[key] = len(found)
                found.append(value)
            at.append(place[key])
        where[step] = np.array(at)
    return np.array(found), where


def grid_errors(
    rows: Rows,
    control: FloatArray,
    perturbed: FloatArray,
    folds: Sequence[Fold],
    *,
    gram: FloatArray,
    noise: NoiseModel,
    steps: Sequence[np.ndarray],
    links: Sequence[float | None],
    strengths: Sequence[float],
    n_components: int,
    use_context: bool,
    use_plain: bool = True,
    use_amplitudes: bool = True,
) -> GridErrors:
    """Return the squared error of every left-out row under every candidate.

    Components of single effects, amplitudes, kernel widths and centering are computed again inside each fold. Single
    precision is enough to compare candidates.

    Parameters
    ----------
    rows
        Kernel inputs of the ``n`` training conditions.
    control, perturbed
        Their profiles, ``(n, genes)``; errors are summed over these genes.
    folds
        Training and left-out rows.
    gram
        ``(n, n)`` inner products of effects.
    noise
        Of the rows.
    steps
        For each fold ``(genes,)``: how far the strength of each gene lies from the common one, in quarter decades. Half
        decades are used: neighbouring strengths are candidates themselves, and so are computed once.
    links, strengths
        Pseudocounts of the link (None: identity) and ridge strengths.
    n_components, use_context
        As in :class:`scjepa.baselines.KernelEffect`.
    use_plain
        Whether kernels that do not look at contexts are candidates where there are others.
    use_amplitudes
        Whether kernels with a prior variance of its own for every perturbation are candidates.

    Returns
    -------
    The candidates with their errors.
    """
    names = tuple(dict(joint_kernels(rows, rows, gram, n_components, use_context, noise.rows)))
    spared = {name for name in names if AMPLITUDE in name}
    if use_amplitudes:
        able = SPARED if noise.by_gene else ()
        spared = {name + end for name in able for end in ("", CONTEXT) if name + AMPLITUDE in names}
    names = tuple(name for name in names if name not in spared)
    if not use_plain and any(CONTEXT in name for name in names):
        names = tuple(name for name in names if CONTEXT in name)
    genes, n_links, width = control.shape[1], len(links), len(strengths)
    base = np.concatenate([apply_link(control, eps) for eps in links], axis=1, dtype=SINGLE)
    target = np.concatenate([apply_link(perturbed, eps) for eps in links], axis=1) - base
    target, after = target.astype(SINGLE), perturbed.astype(SINGLE)
    total = np.zeros((len(control), n_links, len(names), width, 1 + noise.by_gene))
    count, unit = np.zeros(len(control)), np.full(len(control), -1)
    for number, ((train, test), step) in enumerate(zip(folds, steps, strict=True)):
        kernels = dict(
            joint_kernels(
                rows.take(train), rows.take(test), gram[np.ix_(train, train)], n_components, use_context,
                noise.rows[train],
            )
        )  # fmt: skip
        if not use_plain:  # where one context is left it says nothing about others
            kernels |= {name + CONTEXT: pair for name, pair in kernels.items() if name + CONTEXT not in kernels}
        here = [j for j, name in enumerate(names) if name in kernels]
        among, across = (np.stack([kernels[names[j]][block] for j in here]) for block in (0, 1))
        step = np.rint(step / 2).astype(int) if noise.by_gene else np.zeros(genes, int)
        used, where = strength_steps(strengths, step)
        weight = ridge_weights(among, across, used, noise.among(train), dtype=SINGLE)
        found = np.zeros((len(test), n_links, len(here), width, 1 + noise.by_gene))
        for value, own in where.items():
            chosen = np.flatnonzero(step == value)
            if not len(chosen):
                continue
            columns = (genes * np.arange(n_links)[:, None] + chosen).ravel()
            needed, back = np.unique(np.concatenate([where[0], own]), return_inverse=True)
            shift = weight[:, needed].reshape(-1, len(train)) @ target[np.ix_(train, columns)]
            shift = shift.reshape(len(here), len(needed), len(test), n_links, len(chosen))
            shift += base[np.ix_(test, columns)].reshape(len(test), n_links, len(chosen))
            square = _squared_errors(shift, links, after[np.ix_(test, chosen)])
            for way, at in enumerate((back[:width], back[width:])[: 1 + noise.by_gene]):
                found[..., way] += square[..., at]
        whole = np.full((len(test), *total.shape[1:]), np.nan)
        whole[:, :, here] = found
        total[test] += whole
        count[test] += 1
        unit[test] = number
    errors = total / np.where(count > 0, count, np.nan)[:, None, None, None, None]
    return GridErrors(tuple(links), names, tuple(strengths), errors, unit)


def _squared_errors(value: FloatArray, links: Sequence[float | None], after: FloatArray) -> FloatArray:
    """Return ``(m, links, kernels, strengths)`` squared errors of predictions under the links, which are overwritten.

    Parameters
    ----------
    value
        ``(kernels, strengths, m, links, genes)``.
    links
        Pseudocounts; None is the identity.
    after
        ``(m, genes)`` measured means.
    """
    first = next((j for j, eps in enumerate(links) if eps is not None), len(links))
    parts = [slice(first, len(links))] if None not in links[first:] else [slice(j, j + 1) for j in range(len(links))]
    for part in parts:  # invert_link, in place; all links at once where the identity comes first
        eps, linked = [e for e in links[part] if e is not None], value[..., part, :]
        if not eps:
            continue
        np.exp(linked, out=linked)
        linked -= np.array(eps, dtype=SINGLE)[:, None]
        np.maximum(linked, 0, out=linked)
        linked += 1
        np.log(linked, out=linked)
    value -= after[:, None]
    return np.einsum("klmjg,klmjg->mjkl", value, value)
