"""``split``: which cells train, validate and test, as a column of ``obs`` with a record of how it came about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from anndata import AnnData, ImplicitModificationWarning

from scjepa._checks import closest, require_labels, require_member, require_numbers, some
from scjepa._keys import Keys
from scjepa._labels import Action, parse_labels
from scjepa.data._conditions import SINGLE_CONTEXT
from scjepa.tl._inputs import check_anndata
from scjepa.tl._split_schemes import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    draw_units,
    gears_simulation,
    group_name,
    perturbench,
    seen_combinations,
    unseen_genes,
)

logger = logging.getLogger(__name__)

Kind = Literal[
    "unseen_perturbation",
    "unseen_combination_0",
    "unseen_combination_1",
    "unseen_combination_2",
    "unseen_context",
    "unseen_dose",
    "unseen_cell",
    "gears_simulation",
    "perturbench_transfer",
    "perturbench_combination",
]
KINDS: tuple[str, ...] = get_args(Kind)
SIZES = {"gears_simulation": (0.25, 0.1), "perturbench_transfer": (0.15, 0.15), "perturbench_combination": (0.15, 0.15)}
"""Published shares of test and validation; (0.2, 0.1) for all others."""


class _Conditions(NamedTuple):
    """One entry per condition (perturbation x context x dose); ``of`` is the condition of each cell, -1 for controls."""

    actions: list[Action]
    labels: list[str]
    contexts: np.ndarray
    doses: np.ndarray | None
    of: np.ndarray


def split(
    adata: AnnData,
    kind: Kind,
    *,
    perturbation_key: str,
    control: str = "control",
    separator: str = "+",
    context_key: str | None = None,
    dose_key: str | None = None,
    test_size: float | None = None,
    validation_size: float | None = None,
    test: Sequence[str | float] | None = None,
    key_added: str = Keys.obs.split,
    seed: int = 0,
) -> pd.DataFrame:
    """Divide cells into training, validation and test cells, in one of the ways the field asks for.

    The draw depends on labels and the seed only, never on the order of cells. **Control cells always train**: they are
    the input of predictions, in unseen contexts too.

    Parameters
    ----------
    adata
        Cells with perturbation labels.
    kind
        What the test asks of a predictor:

        - ``"unseen_perturbation"``: a share of the perturbed genes is never seen; every condition with one of them is
          held out, alone or in combination.
        - ``"unseen_combination_2"``: a share of the combinations whose genes were all measured alone; these singles
          train.
        - ``"unseen_combination_1"``, ``"unseen_combination_0"``: combinations of which some, or none, of the genes
          occur in any training condition. Other conditions with the unseen genes would leak, so they are
          ``"unused"``; genes are made unseen one by one until there are enough such combinations.
        - ``"unseen_context"``: all perturbed cells of a share of the contexts (``context_key``).
        - ``"unseen_dose"``: all perturbed cells at a share of the doses (``dose_key``).
        - ``"unseen_cell"``: a share of the perturbed cells of each condition.
        - ``"gears_simulation"``: the split of that name in GEARS, the same conditions for the same seed (if labels are
          written as there). ``test_size`` is the share of unseen genes and of fully seen combinations in the test;
          the same is done again with ``validation_size``. GEARS reports each ``group`` alone.
        - ``"perturbench_transfer"``: PerturBench's covariate transfer: perturbations measured in several contexts are
          held out in one or two of them, up to a share of ``test_size + validation_size`` of each context.
        - ``"perturbench_combination"``: PerturBench's combination task: this share of the combinations of each context
          is held out. (PerturBench halves controls too; here they train.)
    perturbation_key, control, separator
        ``obs`` column of perturbations, label of controls, what joins combinations.
    context_key, dose_key
        ``obs`` columns of contexts (cell type, line, donor) and of doses (numbers).
    test_size, validation_size
        Shares in (0, 1) and [0, 1) of the genes, combinations, contexts, doses or cells that ``kind`` is about, at least
        one of each. By default 0.2 and 0.1; 0.25 and 0.1 for GEARS, 0.15 and 0.15 for PerturBench.
    test
        Names to test instead of a draw: genes, combinations, contexts or doses, for ``"unseen_perturbation"``,
        ``"unseen_combination_2"``, ``"unseen_context"`` and ``"unseen_dose"``. Validation is drawn from the rest.
    key_added
        Column of ``adata.obs`` and name of the record.
    seed
        Of the draw.

    Returns
    -------
    One row per condition and part: ``perturbation``, ``context``, ``dose`` (with ``dose_key``), ``split``, ``n_cells``
    and ``group``: ``"unseen_single"``, ``"seen_single"`` or ``"combo_seen0"``, ``1``, ``2`` (none, some or all genes
    of the combination occur in a training condition).
    Writes ``adata.obs[key_added]`` (``"train"``, ``"validation"``, ``"test"``, and ``"unused"`` where needed) and
    ``adata.uns["jepa"]["split"][key_added]``: all arguments and this table (``"conditions"``).

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a part would be empty, names are unknown, or a column that this function did not write would be replaced.

    References
    ----------
    GEARS: Roohani et al., Nat Biotechnol 2023. PerturBench: Wu et al., arXiv:2408.10609.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import split
    >>> labels = np.repeat(["control", "A", "B", "C", "A+B", "A+C", "B+C"], 2)
    >>> adata = anndata.AnnData(np.ones((14, 1)), obs=pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(14)]))
    >>> table = split(adata, "unseen_combination_2", perturbation_key="p", test=["C+A"])
    >>> table[table["split"] != "train"][["perturbation", "split", "n_cells", "group"]].values.tolist()
    [['A+B', 'validation', 2, 'combo_seen2'], ['A+C', 'test', 2, 'combo_seen2']]
    >>> adata.obs.loc[adata.obs["p"] == "A+C", "split"].tolist()
    ['test', 'test']
    """
    check_anndata(adata, "adata")
    require_member(kind, KINDS, "kind", where="the kinds of split")
    sizes = _sizes(kind, test_size, validation_size)
    _check_column(adata, key_added)
    conditions = _conditions(adata.obs, kind, perturbation_key, control, separator, context_key, dose_key)
    if kind == "unseen_cell":
        _refuse_names(test, kind)
        parts = _split_cells(conditions, adata.obs_names.astype(str).to_numpy(), sizes, seed)
    else:
        assigned = _assign(kind, conditions, sizes, seed, None if test is None else list(test), control, separator)
        parts = np.where(conditions.of < 0, TRAIN, assigned[conditions.of])
    table = _table(conditions, parts)
    _check_parts(table, kind, sizes)

    left_out = int((parts == UNUSED).sum())
    if left_out:
        logger.info("%d cells are 'unused': their conditions hold genes that must stay unseen.", left_out)
    order = [p for p in (TRAIN, VALIDATION, TEST, UNUSED) if p in set(parts)]
    record = {
        "kind": str(kind),
        "seed": int(seed),
        "test_size": sizes[0],
        "validation_size": sizes[1],
        "test": [] if test is None else [str(name) for name in test],
        "perturbation_key": perturbation_key,
        "control": control,
        "separator": separator,
        "context_key": context_key or "",
        "dose_key": dose_key or "",
        "conditions": table.rename(index=str),
    }
    root = adata.uns.get(Keys.uns.root, {})
    records = {**root.get(Keys.uns.split, {}), key_added: record}
    with warnings.catch_warnings():  # anndata copies views that are written to, and warns: here it is meant
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        adata.obs[key_added] = pd.Categorical(parts, categories=order)
        adata.uns[Keys.uns.root] = {**root, Keys.uns.split: records}
    return table


def _sizes(kind: str, test_size: float | None, validation_size: float | None) -> tuple[float, float]:
    default = SIZES.get(kind, (0.2, 0.1))
    sizes = (default[0] if test_size is None else test_size, default[1] if validation_size is None else validation_size)
    if not 0 < sizes[0] < 1 or not 0 <= sizes[1] < 1 or sum(sizes) >= 1:
        raise ValueError(
            f"test_size={sizes[0]:g} and validation_size={sizes[1]:g}: expected 0 < test_size < 1, "
            "0 <= validation_size < 1 and a sum below 1, so that something trains."
        )
    return float(sizes[0]), float(sizes[1])


def _check_column(adata: AnnData, key: str) -> None:
    """Refuse to replace a column that is not a split of ours."""
    ours = adata.uns.get(Keys.uns.root, {}).get(Keys.uns.split, {})
    if key in adata.obs.columns and key not in ours:
        raise ValueError(
            f"adata.obs[{key!r}] is there already and was not written by scjepa.tl.split. Give another key_added, or "
            f"drop the column first: del adata.obs[{key!r}]."
        )


def _refuse_names(test: object, kind: str) -> None:
    if test is not None:
        raise ValueError(
            f"test={test!r} can't be used with kind={kind!r}, whose test cells are always drawn. Leave it out, or use "
            "'unseen_perturbation', 'unseen_combination_2', 'unseen_context' or 'unseen_dose'."
        )


def _conditions(
    obs: pd.DataFrame,
    kind: str,
    perturbation_key: str,
    control: str,
    separator: str,
    context_key: str | None,
    dose_key: str | None,
) -> _Conditions:
    """Number the conditions, sorted by action, context and dose."""
    if kind in ("unseen_context", "perturbench_transfer") and context_key is None:
        raise ValueError(f"kind={kind!r} needs context_key: the obs column of contexts, for example cell types.")
    if kind == "unseen_dose" and dose_key is None:
        raise ValueError("kind='unseen_dose' needs dose_key: the obs column of doses.")
    column = require_labels(obs, perturbation_key, "perturbation_key")
    parsed = parse_labels(sorted(set(column)), control, separator)
    require_member(control, [label.strip() for label in parsed], "control", where="the perturbation labels")
    labels: dict[Action, str] = {}
    for label, action in parsed.items():
        labels.setdefault(action, label)
    known = sorted(labels)
    number = {action: i for i, action in enumerate(known)}
    perturbed = column.map({label: bool(action) for label, action in parsed.items()}).to_numpy(dtype=bool)
    if not perturbed.any():
        raise ValueError(f"adata has no perturbed cells: every label in obs[{perturbation_key!r}] is a control.")
    obs, column = obs[perturbed], column[perturbed]  # controls need no dose
    frame = pd.DataFrame({"action": column.map({label: number[action] for label, action in parsed.items()}).to_numpy()})
    frame["context"] = SINGLE_CONTEXT
    if context_key is not None:
        frame["context"] = require_labels(obs, context_key, "context_key").to_numpy()
    frame["dose"] = 0.0 if dose_key is None else require_numbers(obs, dose_key, "dose_key", minimum=0)
    of = np.full(len(perturbed), -1)
    of[perturbed] = frame.groupby(["action", "context", "dose"], sort=True).ngroup().to_numpy()
    distinct = frame.drop_duplicates().sort_values(["action", "context", "dose"])
    actions = [known[i] for i in distinct["action"]]
    return _Conditions(
        actions,
        [labels[action] for action in actions],
        distinct["context"].to_numpy(dtype=object),
        None if dose_key is None else distinct["dose"].to_numpy(dtype=float),
        of,
    )


def _assign(
    kind: str,
    conditions: _Conditions,
    sizes: tuple[float, float],
    seed: int,
    test: list | None,
    control: str,
    separator: str,
) -> np.ndarray:
    """Return the part of every condition."""
    actions = conditions.actions
    known = sorted(set(actions))
    rng = np.random.default_rng([seed, 11])
    by_action: Callable[[dict[Action, str]], np.ndarray] = lambda part: np.array([part[a] for a in actions])
    if kind == "unseen_perturbation":
        genes = sorted({gene for action in known for gene in action})
        wanted = None if test is None else _named([str(t) for t in test], genes, "genes")
        part = draw_units(genes, sizes, rng, wanted, "perturbed genes")
        worst = lambda action: min((part[g] for g in action), key=[TEST, VALIDATION, TRAIN].index)
        return by_action({a: worst(a) for a in known})
    if kind == "unseen_combination_2":
        candidates = seen_combinations(known)
        if test is not None:
            parsed = list(parse_labels(test, control, separator).values())
            written = dict(zip((separator.join(a) for a in candidates), candidates, strict=True))
            names = _named([separator.join(a) for a in parsed], list(written), "combinations of genes measured alone")
            test = [written[name] for name in names]
        what = "combinations whose genes were all measured alone"
        part = draw_units(candidates, sizes, rng, test, what, spare=0)  # their singles train
        return by_action({a: part.get(a, TRAIN) for a in known})
    if kind in ("unseen_context", "unseen_dose"):
        values = conditions.contexts if kind == "unseen_context" else conditions.doses
        assert values is not None  # for the type checker: dose_key was asked for
        units = sorted(set(values.tolist()))
        what = "contexts" if kind == "unseen_context" else "doses"
        if test is not None:
            test = [float(t) for t in test] if kind == "unseen_dose" else [str(t) for t in test]
            test = _named(test, units, f"{what} of perturbed cells")
        part = draw_units(units, sizes, rng, test, f"{what} of perturbed cells")
        return np.array([part[v] for v in values.tolist()])
    _refuse_names(test, kind)
    if kind == "gears_simulation":
        return by_action(gears_simulation(dict(zip(actions, conditions.labels, strict=True)), sizes, seed))
    if kind.startswith("perturbench"):
        return perturbench(actions, conditions.contexts, sizes, rng, combinations=kind.endswith("combination"))
    return by_action(unseen_genes(known, sizes, rng, some_seen=kind.endswith("1")))


def _named(names: list, options: list, what: str) -> list:
    unknown = [name for name in names if name not in options]
    if unknown:
        raise ValueError(
            f"test={some(unknown)}: not among the {what}.{closest(unknown[0], options)} Found: {some(options, 8)}."
        )
    return names


def _split_cells(conditions: _Conditions, names: np.ndarray, sizes: tuple[float, float], seed: int) -> np.ndarray:
    """Draw a share of the cells of each condition; which cells does not depend on their order."""
    parts = np.full(len(names), TRAIN, dtype=object)
    rng = np.random.default_rng([seed, 13])
    cells = np.argsort(names, kind="stable")
    cells = cells[np.argsort(conditions.of[cells], kind="stable")]
    cells = cells[conditions.of[cells] >= 0]
    for members in np.split(cells, np.flatnonzero(np.diff(conditions.of[cells])) + 1):
        members = rng.permutation(members)
        n_test, n_validation = (round(share * len(members)) for share in sizes)
        parts[members[:n_test]] = TEST
        parts[members[n_test : n_test + n_validation]] = VALIDATION
    return parts


def _table(conditions: _Conditions, parts: np.ndarray) -> pd.DataFrame:
    """One row per condition and part."""
    perturbed = conditions.of >= 0
    counts = pd.DataFrame({"condition": conditions.of[perturbed], "split": parts[perturbed]})
    counts = counts.groupby(["condition", "split"], sort=True).size().rename("n_cells").reset_index()
    row = counts["condition"].to_numpy()
    seen = {g for i in row[counts["split"] == TRAIN] for g in conditions.actions[i]}
    columns = {
        "perturbation": [conditions.labels[i] for i in row],
        "context": conditions.contexts[row],
        **({} if conditions.doses is None else {"dose": conditions.doses[row]}),
        "split": counts["split"].astype(str).to_numpy(),
        "n_cells": counts["n_cells"].to_numpy(),
        "group": [group_name(conditions.actions[i], seen) for i in row],
    }
    return pd.DataFrame(columns)


def _check_parts(table: pd.DataFrame, kind: str, sizes: tuple[float, float]) -> None:
    """Raise when a part that was asked for is empty."""
    found = set(table["split"])
    wanted = [TRAIN, TEST] + ([VALIDATION] if sizes[1] > 0 else [])
    empty = [part for part in wanted if part not in found]
    if empty:
        raise ValueError(
            f"kind={kind!r} with test_size={sizes[0]:g} and validation_size={sizes[1]:g} leaves no perturbed cells for "
            f"{' and '.join(empty)}: {table.groupby('perturbation').ngroups} perturbations are too few, or too tightly "
            "combined. Change the sizes (validation_size=0 for no validation), the seed or the kind."
        )
