"""``split``: which cells train, validate and test, as a column of ``obs`` with a record of how it came about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData, ImplicitModificationWarning

from scjepa._checks import require_member
from scjepa._keys import Keys
from scjepa.tl.evaluation._inputs import check_anndata
from scjepa.tl.splitting._assign import assign, refuse_names, split_cells
from scjepa.tl.splitting._conditions import number_conditions, parts_table
from scjepa.tl.splitting._scaffolds import drug_scaffolds
from scjepa.tl.splitting._schemes import TEST, TRAIN, UNUSED, VALIDATION

logger = logging.getLogger(__name__)

Kind = Literal[
    "unseen_perturbation",
    "unseen_combination_0",
    "unseen_combination_1",
    "unseen_combination_2",
    "unseen_context",
    "unseen_dose",
    "unseen_cell",
    "unseen_drug",
    "unseen_scaffold",
    "drug_in_context",
    "inner_dose",
    "highest_dose",
    "lowest_dose",
    "gears_simulation",
    "perturbench_transfer",
    "perturbench_combination",
]
KINDS: tuple[str, ...] = get_args(Kind)
SIZES = {"gears_simulation": (0.25, 0.1), "perturbench_transfer": (0.15, 0.15), "perturbench_combination": (0.15, 0.15)}
"""Published shares of test and validation; (0.2, 0.1) for all others."""


def split(
    adata: AnnData,
    kind: Kind,
    *,
    perturbation_key: str,
    control: str = "control",
    separator: str = "+",
    context_key: str | None = None,
    dose_key: str | None = None,
    smiles_key: str | None = None,
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
        - ``"unseen_drug"``: a share of the drugs is never seen, alone or in combination.
        - ``"unseen_scaffold"``: whole Bemis-Murcko scaffolds (``smiles_key``) are never seen, so that no test drug has
          a close relative in training; shares are of drugs. A molecule without rings is a scaffold of its own; drugs
          without a readable structure are ``"unused"``. Needs RDKit (``pip install 'scjepa[drugs]'``).
        - ``"drug_in_context"``: in one context (or those of ``test``), a share of the drugs that other contexts know;
          its other drugs train. ``test_size=0.2`` asks for a context of which most drugs are known, 0.8 for one of
          which few are.
        - ``"highest_dose"``, ``"lowest_dose"``, ``"inner_dose"``: one dose of every perturbation that has enough of
          them (2, 2 and 3), in all contexts: beyond the measured range, or between. The perturbations are dealt to
          test and validation as ``test_size`` to ``validation_size``.
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
    smiles_key
        ``obs`` column of structures, for ``"unseen_scaffold"``; read from cells that got one drug alone.
    test_size, validation_size
        Shares in (0, 1) and [0, 1) of the genes, drugs, combinations, contexts, doses or cells that ``kind`` is about,
        at least one of each. By default 0.2 and 0.1; 0.25 and 0.1 for GEARS, 0.15 and 0.15 for PerturBench.
    test
        Names to test instead of a draw: genes, combinations, drugs, contexts or doses, for ``"unseen_perturbation"``,
        ``"unseen_combination_2"``, ``"unseen_drug"``, ``"unseen_scaffold"`` (drugs; all of their scaffolds are tested),
        ``"drug_in_context"`` and ``"unseen_context"`` (contexts), ``"unseen_dose"``. Validation is drawn from the rest.
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
    ImportError
        If ``"unseen_scaffold"`` is asked for without RDKit.

    References
    ----------
    GEARS: Roohani et al., Nat Biotechnol 2023. PerturBench: Wu et al., arXiv:2408.10609. Scaffolds: Bemis and Murcko,
    J Med Chem 1996.

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
    if kind == "unseen_scaffold" and smiles_key is None:
        raise ValueError("kind='unseen_scaffold' needs smiles_key: the obs column of structures.")
    conditions = number_conditions(adata.obs, kind, perturbation_key, control, separator, context_key, dose_key)
    if kind == "unseen_cell":
        refuse_names(test, kind)
        parts = split_cells(conditions, adata.obs_names.astype(str).to_numpy(), sizes, seed)
    else:
        scaffolds = None
        if kind == "unseen_scaffold" and smiles_key is not None:
            scaffolds = drug_scaffolds(adata.obs, smiles_key, conditions)
        named = None if test is None else list(test)
        assigned = assign(kind, conditions, sizes, seed, named, control, separator, scaffolds)
        parts = np.where(conditions.of < 0, TRAIN, assigned[conditions.of])
    table = parts_table(conditions, parts)
    _check_parts(table, kind, sizes)

    left_out = int((parts == UNUSED).sum())
    if left_out:
        why = "have no structure" if kind == "unseen_scaffold" else "must stay unseen"
        what = "drugs" if kind == "unseen_scaffold" else "genes"
        logger.info("%d cells are 'unused': their conditions hold %s that %s.", left_out, what, why)
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
        "smiles_key": smiles_key or "",
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
