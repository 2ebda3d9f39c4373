"""``pathway_consistency``: do predicted and true effects point to the same pathways?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from scipy.stats import spearmanr

from scjepa._checks import require_member, require_positive_int
from scjepa._docs import docs
from scjepa._keys import Keys
from scjepa.tl.evaluation._contenders import Baselines, Contenders, contenders
from scjepa.tl.evaluation._differential import DEFINITIONS, Definition, Genes, beyond, check_rates, compare_genes
from scjepa.tl.evaluation._enrichment import OverRepresentation, Prerank, import_gseapy, measured_sets, read_gene_sets
from scjepa.tl.evaluation._inputs import check_anndata, resolve_labels, store_table

Enrichment = Literal["ora", "prerank"]
ENRICHMENTS: tuple[Enrichment, ...] = ("ora", "prerank")
COLUMNS = ["method", "kind", "perturbation", "context", "enrichment", "metric", "value"]
TERM_COLUMNS = ["perturbation", "context", "enrichment", "side", "term", "score", "fdr"]


@docs
def pathway_consistency(
    pred: AnnData,
    real: AnnData,
    gene_sets: Mapping[str, Sequence[str]] | str | Path,
    *,
    train: AnnData | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    enrichment: Enrichment | Sequence[Enrichment] = ENRICHMENTS,
    definition: Definition = "fold_change",
    threshold: float = 1.5,
    pseudocount: float = 1e-9,
    fdr: float = 0.05,
    top: int = 10,
    min_size: int = 5,
    max_size: int = 500,
    permutations: int = 200,
    baselines: Baselines = "auto",
    ceiling: bool = True,
    method: str = "model",
    max_cells: int = 2000,
    key_added: str = Keys.uns.pathways,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the pathways that predicted and true effects are enriched for, beside baselines and ceiling.

    Works offline with a dict or a GMT file. ``"prerank"`` and Enrichr libraries need the extra ``pathways``
    (``pip install 'scjepa[pathways]'``).

    Parameters
    ----------
    %(pred)s
    %(real)s
    gene_sets
        Pathway -> genes, a GMT file (``.gmt`` or ``.gmt.gz``), or the name of an Enrichr library, which is downloaded.
    %(train)s
    %(labels_of_pred)s
    %(measured_layer)s
    enrichment
        ``"ora"``: over-representation of differentially expressed genes among all genes of ``pred``, for the
        prediction, all baselines and the ceiling.
        ``"prerank"``: enrichment along all genes ranked by log fold change, by permutations. That takes long (about a
        second a condition for 50 pathways, minutes for thousands), so with ``baselines="auto"`` only the baseline with
        the lowest mean L2 (among those with most conditions) is ranked beside the prediction, and no ceiling. Baselines
        that you list are all ranked.
    definition, threshold, pseudocount, fdr
        Which genes are differentially expressed, see :func:`scjepa.tl.deg_recovery`. ``fdr`` is the rate for pathways
        too.
    top
        Number of leading pathways that are compared.
    min_size, max_size
        Pathways with fewer or more measured genes are left out.
    permutations
        Of ``"prerank"``.
    %(baselines)s
    ceiling
        Whether to add the row "replicate ceiling" to ``"ora"``: halves of the real cells, see
        :func:`scjepa.tl.deg_recovery`.
    %(method)s
    %(max_cells)s
    %(key_added)s
    seed
        Of permutations, subsets and halves.

    Returns
    -------
    Tidy table, one row per method x condition x enrichment x metric: ``method``, ``kind`` (``"model"``,
    ``"baseline"`` or ``"ceiling"``), ``perturbation``, ``context``, ``enrichment``, ``metric``, ``value``.
    ``"overlap_at_10"`` (with ``top=10``): share of the true leading pathways among the predicted leading ones;
    ``"jaccard"`` of the significant pathways; ``"spearman"`` of the scores of all pathways (minus log10 p-value
    for ``"ora"``, normalised enrichment for ``"prerank"``, whose leading pathways are those with the largest absolute
    value). NaN where undefined, for instance without any differentially expressed gene.
    Writes the same table to ``pred.uns["jepa"][key_added]``, and to ``pred.uns["jepa"]["pathway_terms"]`` the scores
    of the prediction and of the truth, for :func:`scjepa.pl.pathways`: ``perturbation``, ``context``, ``enrichment``,
    ``side`` (``"pred"``, ``"real"``), ``term``, ``score``, ``fdr``.

    Raises
    ------
    ImportError
        If gseapy is needed and not installed.
    KeyError, ValueError
        As for :func:`scjepa.tl.deg_recovery`, and when no pathway has enough measured genes.

    References
    ----------
    Prerank by gseapy: Fang, Liu, Peltz, Bioinformatics 2023; Subramanian et al., PNAS 2005. Over-representation is the
    hypergeometric test, as in gseapy's ``enrich``, with the rates of Benjamini and Hochberg over all pathways.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import pathway_consistency
    >>> obs = pd.DataFrame({"p": ["control", "A"]}, index=["c", "a"])
    >>> real = anndata.AnnData(np.log1p(np.array([[1.0] * 8, [4.0] * 3 + [1.0] * 5])), obs=obs)
    >>> real.var_names = [f"g{i}" for i in range(8)]
    >>> sets = {"up": ["g0", "g1", "g2"], "still": ["g4", "g5", "g6"]}
    >>> table = pathway_consistency(
    ...     real[1:].copy(), real, sets, perturbation_key="p", enrichment="ora", baselines=None, min_size=2, top=1
    ... )
    >>> table[["metric", "value"]].values.tolist()
    [['overlap_at_1', 1.0], ['jaccard', 1.0], ['spearman', 1.0]]
    """
    chosen = [enrichment] if isinstance(enrichment, str) else list(enrichment)
    for name in chosen:
        require_member(name, ENRICHMENTS, "enrichment", where="the kinds of enrichment")
    require_member(definition, DEFINITIONS, "definition", where="the definitions")
    check_rates(threshold, pseudocount, fdr)
    for argument, number, least in (
        ("top", top, 1),
        ("min_size", min_size, 1),
        ("permutations", permutations, 1),
        ("max_cells", max_cells, 2),
    ):
        require_positive_int(number, argument, minimum=least)
    if "prerank" in chosen:
        import_gseapy()  # an absent one is missed now, not after minutes
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    labels = resolve_labels(pred, perturbation_key, control, context_key, separator)
    genes = pred.var_names.astype(str)
    sets = measured_sets(read_gene_sets(gene_sets), genes, min_size, max_size)
    who = contenders(
        pred,
        real,
        labels,
        train=train if train is None else check_anndata(train, "train"),
        layer=layer,
        baselines=baselines,
        method=method,
        max_cells=max_cells,
        seed=seed,
    )

    def called(side: Genes) -> npt.NDArray[np.bool_]:
        if definition == "fold_change":
            return beyond(side.lfc, threshold)
        assert side.fdr is not None  # tested, since this definition was asked for
        return side.fdr < fdr

    over = OverRepresentation(sets, genes)
    ranked = Prerank(sets, genes, permutations, seed)
    slow = {method, *(_closest_baseline(who) if isinstance(baselines, str) else who.effects)}
    test = "wilcoxon" if definition == "test" and "ora" in chosen else None
    rows, terms = [], []
    for side in compare_genes(who, pseudocount=pseudocount, test=test, ceiling=ceiling and "ora" in chosen):
        for name in chosen:
            if name == "prerank" and side.method not in slow:
                continue
            guess = over(called(side.pred)) if name == "ora" else ranked(side.pred.lfc)
            true = over(called(side.true)) if name == "ora" else ranked(side.true.lfc)
            for j, i in enumerate(side.rows):
                where = {"perturbation": who.names[i], "context": who.contexts[i], "enrichment": name}
                for metric, value in _compare(guess[j], true[j], top, fdr).items():
                    rows.append((side.method, side.kind, *where.values(), metric, value))
                if side.kind == "model":
                    for label, found in (("pred", guess[j]), ("real", true[j])):
                        terms.append(found.reset_index().assign(**where, side=label)[TERM_COLUMNS])
    table = pd.DataFrame(rows, columns=COLUMNS)
    # the ceiling comes once for each split of the cells
    table = table.groupby(COLUMNS[:-1], sort=False, observed=True)["value"].mean().reset_index()
    store_table(pred, key_added, table.rename(index=str))
    store_table(pred, Keys.uns.pathway_terms, pd.concat(terms, ignore_index=True).rename(index=str))
    return table


def _closest_baseline(who: Contenders) -> list[str]:
    """Return the baseline with the lowest mean L2 among those that predict a change of most conditions, if any."""
    error = {
        name: np.linalg.norm(effect - who.truth.effects, axis=1)
        for name, effect in who.effects.items()
        if who.predicts(name).mean() >= 0.5 and np.nan_to_num(effect).any()
    }
    return sorted(error, key=lambda name: float(np.nanmean(error[name])))[:1]


def _compare(pred: pd.DataFrame, real: pd.DataFrame, top: int, fdr: float) -> dict[str, float]:
    """Compare leading and significant sets and all scores."""
    nan = float("nan")
    if pred["score"].isna().all() or real["score"].isna().all():
        return {f"overlap_at_{top}": nan, "jaccard": nan, "spearman": nan}
    leading = [set(_leading(side, top)) for side in (pred, real)]
    significant = [set(side.index[side["fdr"] < fdr]) for side in (pred, real)]
    union = significant[0] | significant[1]
    a, b = (side["score"].fillna(0.0).to_numpy() for side in (pred, real))
    varied = np.ptp(a) > 0 and np.ptp(b) > 0
    return {
        f"overlap_at_{top}": len(leading[0] & leading[1]) / len(leading[1]) if leading[1] else nan,
        "jaccard": len(significant[0] & significant[1]) / len(union) if union else nan,
        "spearman": float(spearmanr(a, b).statistic) if varied else nan,
    }


def _leading(side: pd.DataFrame, top: int) -> list[str]:
    """Return the ``top`` sets with the largest absolute score above zero; ties in the order of names."""
    size = side["score"].abs()
    return list(size[size > 0].sort_values(ascending=False, kind="stable").index[:top])
