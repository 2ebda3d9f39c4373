"""Which cells train, validate and stay untouched: by cell, by condition or by an obs column, with hold-outs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from scjepa._checks import closest, require_labels, some
from scjepa._labels import parse_label
from scjepa.data._groups import CellGroups

Holdout = Sequence["str | tuple[str, str]"]


class Split(NamedTuple):
    """Indices of cells, sorted. Nothing ever reads ``test`` during training."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def fractions(train_size: float | None, validation_size: float | None, *, default: float) -> tuple[float, float]:
    """Fill in the sizes of the training and validation sets.

    Raises
    ------
    ValueError
        If a size is outside [0, 1] (training: (0, 1]) or they add up to more than one.

    Examples
    --------
    >>> from scjepa.data._splits import fractions
    >>> fractions(0.75, None, default=1.0), fractions(None, None, default=1.0)
    ((0.75, 0.25), (1.0, 0.0))
    """
    if train_size is None:
        train_size = default if validation_size is None else 1.0 - validation_size
    if validation_size is None:
        validation_size = 1.0 - train_size
    if not 0 < train_size <= 1 or not 0 <= validation_size < 1 or train_size + validation_size > 1 + 1e-9:
        raise ValueError(
            f"train_size={train_size:g} and validation_size={validation_size:g}: expected 0 < train_size <= 1, "
            "0 <= validation_size < 1 and a sum of at most 1."
        )
    return float(train_size), float(validation_size)


def _entries(holdout: Holdout | None, contexts: np.ndarray | None) -> list:
    """Return the entries of ``holdout``; a bare pair whose second part is a context is one entry, not two."""
    if holdout is None:
        return []
    if isinstance(holdout, str):
        return [holdout]
    entries = [tuple(e) if isinstance(e, (list, tuple)) else e for e in holdout]
    bare = isinstance(holdout, tuple) and len(entries) == 2 and not any(isinstance(e, tuple) for e in entries)
    if bare and contexts is not None and str(entries[1]) in set(contexts.astype(str)):
        return [tuple(entries)]
    return entries


PARTS = {
    "train": "train",
    **dict.fromkeys(["validation", "valid", "val"], "validation"),
    **dict.fromkeys(["test", "ood", "unused"], "test"),
}
"""What a column that holds a ready split may say of a cell, and which part that means."""


def held_out_conditions(
    groups: CellGroups, holdout: Holdout, *, control: str = "control", separator: str = "+"
) -> np.ndarray:
    """Find the conditions that ``holdout`` names.

    Parameters
    ----------
    groups
        All conditions.
    holdout
        Each entry is a perturbation label (in every context), a context (all its perturbed cells; its controls stay,
        they are the input of predictions), or a tuple ``(perturbation, context)``.
    control, separator
        See :func:`scjepa._labels.parse_label`.

    Returns
    -------
    Boolean mask over the conditions.

    Raises
    ------
    ValueError
        If an entry matches nothing, or everything would be held out.
    """
    holdout = _entries(holdout, groups.contexts)
    mask = np.zeros(len(groups), bool)
    contexts = groups.contexts.astype(str)
    labels = [separator.join(a) for a in groups.actions]
    for entry in holdout:
        pair = isinstance(entry, tuple)
        if pair and len(entry) != 2:
            raise ValueError(f"holdout entry {entry!r}: a tuple must be (perturbation, context).")
        name, place = (str(entry[0]), str(entry[1])) if pair else (str(entry), None)
        try:
            action = parse_label(name, control, separator)
        except ValueError:  # a context such as "CD34+" is no perturbation label
            action = ()
        hit = np.array([a == action for a in groups.actions], dtype=bool)
        if pair:
            hit &= contexts == place
        elif not hit.any():
            hit = contexts == name
        if not hit.any():
            raise ValueError(
                f"holdout entry {entry!r} matches no perturbed cells.{closest(name, [*labels, *contexts])} Give a "
                f"perturbation label, a context, or (perturbation, context); perturbations: {some(sorted(set(labels)))}"
                f"; contexts: {some(sorted(set(contexts)))}."
            )
        mask |= hit
    if len(groups) and mask.all():
        raise ValueError(f"holdout={list(holdout)!r} leaves no perturbed cells to train on. Hold out fewer conditions.")
    return mask


def split_cells(
    obs: pd.DataFrame,
    groups: CellGroups | None = None,
    *,
    split_by: str = "cell",
    holdout: Holdout | None = None,
    train_size: float | None = None,
    validation_size: float | None = None,
    control: str = "control",
    separator: str = "+",
    context_key: str | None = None,
    seed: int = 0,
) -> Split:
    """Split cells into training, validation and untouched test cells.

    Parameters
    ----------
    obs
        Annotation of all cells.
    groups
        Conditions, for models that have them.
    split_by
        ``"cell"``: validation cells are drawn from all cells, by default none. ``"condition"``: validation
        conditions (all their perturbed cells), by default a fifth. Any other string is a column of ``obs``: whole
        categories validate; when it is the context column only their perturbed cells do, the controls stay. A column
        that says ``"train"``, ``"validation"``, ``"test"`` (or ``"unused"``) of every cell, as
        :func:`scjepa.tl.split` writes it, is taken at its word.
    holdout
        What is never touched: see :func:`held_out_conditions`; with an ``obs`` column in ``split_by`` the entries
        may also be categories of it.
    train_size, validation_size
        Shares of cells, conditions or categories. What is left of ``1 - train_size - validation_size`` joins the
        test cells.
    control, separator, context_key
        As given to ``setup_anndata``.
    seed
        Of the random draw.

    Returns
    -------
    The split.

    Raises
    ------
    KeyError, ValueError
        For an unknown column, entries that match nothing, or a split without training cells.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.data import split_cells
    >>> obs = pd.DataFrame({"donor": list("aabbc")})
    >>> split_cells(obs, split_by="donor", holdout=["c"], train_size=1.0).test.tolist()
    [4]
    """
    n = len(obs)
    rng = np.random.default_rng([seed, 7])
    test = np.zeros(n, bool)
    by_column = split_by not in ("cell", "condition")
    values = require_labels(obs, split_by, "split_by").to_numpy() if by_column else None
    perturbed = np.zeros(n, bool)
    if groups is not None:
        for cells in groups.cells:
            perturbed[cells] = True
    movable = perturbed if by_column and split_by == context_key and groups is not None else np.ones(n, bool)
    if split_by == "condition" and groups is None:
        raise ValueError("split_by='condition' needs perturbations; this model has none. Use 'cell' or an obs column.")
    rest = _entries(holdout, None if groups is None else groups.contexts)
    wanted = list(rest)
    if values is not None:
        known = set(values)
        for entry in [e for e in rest if not isinstance(e, tuple) and str(e) in known]:
            test |= (values == str(entry)) & movable
            rest.remove(entry)
    if rest:
        if groups is None:
            where = f"adata.obs[{split_by!r}]" if by_column else "any column: give its name in split_by"
            options = sorted(set(values)) if values is not None else list(obs.columns)
            raise ValueError(
                f"holdout={some(rest)} names no category of {where}.{closest(rest[0], options)} Found: {some(options)}."
            )
        for i in np.flatnonzero(held_out_conditions(groups, rest, control=control, separator=separator)):
            test[groups.cells[i]] = True
    validation = np.zeros(n, bool)
    given = values is not None and "train" in values and set(values) <= set(PARTS)
    if given and not (train_size is None and validation_size is None):
        raise ValueError(
            f"adata.obs[{split_by!r}] says of every cell whether it trains: leave train_size and validation_size out."
        )
    share, valid_share = fractions(train_size, validation_size, default=1.0 if split_by == "cell" or given else 0.8)
    if given and values is not None:
        validation = np.isin(values, [v for v, part in PARTS.items() if part == "validation"]) & ~test
        test |= np.isin(values, [v for v, part in PARTS.items() if part == "test"])
    elif split_by == "cell":
        units = np.flatnonzero(~test)
        order = rng.permutation(len(units))
        n_valid = round(valid_share * len(units))
        n_train = len(units) - n_valid if share + valid_share > 1 - 1e-9 else round(share * len(units))
        validation[units[order[:n_valid]]] = True
        test[units[order[n_valid + n_train :]]] = True
    else:
        if values is not None:
            units_cells = [np.flatnonzero((values == v) & movable & ~test) for v in np.unique(values)]
        else:
            members = () if groups is None else groups.cells
            units_cells = [cells for cells in members if not test[cells].any()]
        units_cells = [cells for cells in units_cells if len(cells)]
        order = rng.permutation(len(units_cells))
        count = len(units_cells)
        n_valid = min(max(round(valid_share * count), 1 if valid_share > 0 else 0), max(count - 1, 0))
        n_train = count - n_valid if share + valid_share > 1 - 1e-9 else max(round(share * count), 1)
        for u in order[:n_valid]:
            validation[units_cells[u]] = True
        for u in order[n_valid + n_train :]:
            test[units_cells[u]] = True
    train = ~test & ~validation
    if not train.any():
        raise ValueError(
            f"the split leaves no training cells (holdout={wanted!r}, train_size={share:g}). "
            "Hold out less or raise train_size."
        )
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(test))
