"""``pathway_consistency``: do predicted and true effects point to the same pathways?"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import false_discovery_control, spearmanr

from scjepa._checks import require_member, require_positive_int, some
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.tl._deg_recovery import DEFINITIONS, Definition, beyond, check_rates
from scjepa.tl._differential import log_fold_changes, rank_genes, read_sides
from scjepa.tl._evaluate import _store
from scjepa.tl._inputs import check_anndata, resolve_labels

logger = logging.getLogger(__name__)

Method = Literal["ora", "prerank"]
METHODS: tuple[Method, ...] = ("ora", "prerank")


def pathway_consistency(
    pred: AnnData,
    real: AnnData,
    gene_sets: Mapping[str, Sequence[str]] | str | Path,
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    context_key: str | None = None,
    separator: str | None = None,
    layer: str | None = None,
    methods: Method | Sequence[Method] = METHODS,
    definition: Definition = "fold_change",
    threshold: float = 1.5,
    pseudocount: float = 1e-9,
    fdr: float = 0.05,
    top: int = 10,
    min_size: int = 5,
    max_size: int = 500,
    permutations: int = 200,
    key_added: str = Keys.uns.pathways,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the pathways that predicted and true effects are enriched for, by gseapy.

    Needs the extra ``pathways`` (``pip install 'scjepa[pathways]'``). Works offline with a dict or a GMT file.

    Parameters
    ----------
    pred, real, perturbation_key, control, context_key, separator, layer
        As for :func:`scjepa.tl.evaluate`.
    gene_sets
        Pathway -> genes, a GMT file (``.gmt`` or ``.gmt.gz``), or the name of an Enrichr library, which is downloaded.
    methods
        ``"ora"``: over-representation of differentially expressed genes among all genes of ``pred``.
        ``"prerank"``: enrichment along all genes ranked by log fold change.
    definition, threshold, pseudocount, fdr
        Which genes are differentially expressed, see :func:`scjepa.tl.deg_recovery`. ``fdr`` is the rate for pathways
        too.
    top
        Number of leading pathways that are compared.
    min_size, max_size
        Pathways with fewer or more measured genes are left out.
    permutations
        Of ``"prerank"``.
    key_added
        Key of the table in ``pred.uns["jepa"]``.
    seed
        Of the permutations.

    Returns
    -------
    Tidy table, one row per condition x method x metric: ``perturbation``, ``context``, ``method``, ``metric``,
    ``value``. ``"overlap_at_10"`` (with ``top=10``): share of the true leading pathways among the predicted leading
    ones; ``"jaccard"`` of the significant pathways; ``"spearman"`` of the scores of all pathways (minus log10 p-value
    for ``"ora"``, normalised enrichment for ``"prerank"``, whose leading pathways are those with the largest absolute
    value). NaN where undefined, for instance without any differentially expressed gene.
    Writes the same table to ``pred.uns["jepa"][key_added]``, and to ``pred.uns["jepa"]["pathway_terms"]`` the scores:
    ``perturbation``, ``context``, ``method``, ``side`` (``"pred"``, ``"real"``), ``term``, ``score``, ``fdr``.

    Raises
    ------
    ImportError
        If gseapy is not installed.
    KeyError, ValueError
        As for :func:`scjepa.tl.deg_recovery`, and when no pathway has enough measured genes.

    References
    ----------
    gseapy: Fang, Liu, Peltz, Bioinformatics 2023. Prerank: Subramanian et al., PNAS 2005.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> from scjepa.tl import pathway_consistency
    >>> obs = pd.DataFrame({"p": ["control", "A"]}, index=["c", "a"])
    >>> real = anndata.AnnData(np.log1p(np.array([[1.0] * 8, [4.0] * 3 + [1.0] * 5])), obs=obs)
    >>> real.var_names = [f"g{i}" for i in range(8)]
    >>> sets = {"up": ["g0", "g1", "g2"], "still": ["g4", "g5", "g6"]}
    >>> table = pathway_consistency(
    ...     real[1:].copy(), real, sets, perturbation_key="p", methods=["ora"], min_size=2, top=1
    ... )
    >>> table[["metric", "value"]].values.tolist()
    [['overlap_at_1', 1.0], ['jaccard', 1.0], ['spearman', 1.0]]
    """
    gseapy = _gseapy()
    chosen = [methods] if isinstance(methods, str) else list(methods)
    for method in chosen:
        require_member(method, METHODS, "methods", where="the enrichment methods")
    require_member(definition, DEFINITIONS, "definition", where="the definitions")
    check_rates(threshold, pseudocount, fdr)
    for name, number in (("top", top), ("min_size", min_size), ("permutations", permutations)):
        require_positive_int(number, name)
    labels = resolve_labels(check_anndata(pred, "pred"), perturbation_key, control, context_key, separator)
    sides = read_sides(pred, real, labels, layer)
    genes = pred.var_names.astype(str)
    sets = _measured(read_gene_sets(gene_sets), genes, min_size, max_size)

    changes = dict(zip(("pred", "real"), log_fold_changes(sides, pseudocount), strict=True))
    called = {side: beyond(values, threshold) for side, values in changes.items()}
    if definition == "test" and "ora" in chosen:
        called = {
            side: np.stack([t.adjusted < fdr for t in rank_genes(sides, "wilcoxon", predicted=side == "pred")])
            for side in changes
        }
    rows, terms = [], []
    for i, (action, context) in enumerate(sides.pred.conditions):
        where = (sides.real.names[action], context)
        for method in chosen:
            found = {}
            for side in ("pred", "real"):
                if method == "ora":
                    found[side] = _over_representation(gseapy, list(genes[called[side][i]]), sets, list(genes))
                else:
                    found[side] = _prerank(gseapy, changes[side][i], genes, sets, permutations, seed)
                place = dict(zip(("perturbation", "context", "method", "side"), (*where, method, side), strict=True))
                terms.append(found[side].reset_index().assign(**place))
            for metric, value in _compare(found["pred"], found["real"], top, fdr).items():
                rows.append((*where, method, metric, value))
    table = pd.DataFrame(rows, columns=["perturbation", "context", "method", "metric", "value"])
    columns = ["perturbation", "context", "method", "side", "term", "score", "fdr"]
    _store(pred, key_added, table.rename(index=str))
    _store(pred, Keys.uns.pathway_terms, pd.concat(terms, ignore_index=True)[columns].rename(index=str))
    return table


def _gseapy() -> Any:
    try:
        import gseapy
    except ImportError as error:
        raise ImportError("pathway_consistency needs gseapy: pip install 'scjepa[pathways]'.") from error
    return gseapy


def read_gene_sets(gene_sets: Mapping[str, Sequence[str]] | str | Path) -> dict[str, list[str]]:
    """Return pathway -> genes from a dict, a GMT file or (online) an Enrichr library.

    Raises
    ------
    ValueError
        If a file that was named is not there or holds no gene sets.
    """
    if isinstance(gene_sets, Mapping):
        return {str(name): [str(g) for g in genes] for name, genes in gene_sets.items()}
    path = Path(gene_sets)
    if not path.is_file():
        if path.name.endswith((".gmt", ".gmt.gz")) or len(path.parts) > 1:
            raise ValueError(f"gene_sets={str(gene_sets)!r}: there is no such file. Give a GMT file or a dict.")
        return _gseapy().get_library(name=str(gene_sets))
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        fields = [line.rstrip("\n").split("\t") for line in lines if line.strip()]
    if not fields or any(len(f) < 3 for f in fields):
        raise ValueError(
            f"gene_sets={path.name!r} is no GMT file: expected lines of name, description and genes, split by tabs."
        )
    # Enrichr writes weights behind some genes: "KLF1,1.0"
    return {f[0]: [g.split(",")[0] for g in f[2:] if g] for f in fields}


def _measured(sets: dict[str, list[str]], genes: pd.Index, min_size: int, max_size: int) -> dict[str, list[str]]:
    """Keep the measured genes of each set, and sets of a size between the limits."""
    known = set(genes)
    cut = {name: sorted(known.intersection(members)) for name, members in sets.items()}
    kept = {name: members for name, members in sorted(cut.items()) if min_size <= len(members) <= max_size}
    if not kept:
        largest = max(map(len, cut.values()), default=0)
        raise ValueError(
            f"none of the {len(sets)} gene sets has {min_size} to {max_size} genes of pred.var_names (most: {largest}). "
            f"Use the same gene names in both (pred has {some(list(genes), 3)}), or lower min_size."
        )
    logger.info("%d of %d gene sets have %d to %d measured genes.", len(kept), len(sets), min_size, max_size)
    return kept


def _over_representation(gseapy: Any, called: list[str], sets: dict[str, list[str]], genes: list[str]) -> pd.DataFrame:
    """Score every set by -log10 of its hypergeometric p-value; NaN without genes."""
    out = pd.DataFrame({"score": 0.0, "fdr": 1.0}, index=pd.Index(sets, name="term"))
    if not called:
        return out * np.nan
    members = set(called)
    if any(members.intersection(s) for s in sets.values()):  # gseapy complains of an empty result
        found = gseapy.enrich(called, sets, background=genes, outdir=None, no_plot=True).results.set_index("Term")
        p = found["P-value"].astype(float).clip(lower=1e-300).reindex(out.index, fill_value=1.0)
        # over all sets, not only over those that share a gene with the list
        out = pd.DataFrame({"score": np.abs(np.log10(p)), "fdr": false_discovery_control(p)}, index=out.index)
    return out


def _prerank(
    gseapy: Any, change: FloatArray, genes: pd.Index, sets: dict[str, list[str]], permutations: int, seed: int
) -> pd.DataFrame:
    """Score every set by its normalised enrichment along the log fold changes; NaN without any change."""
    out = pd.DataFrame({"score": np.nan, "fdr": np.nan}, index=pd.Index(sets, name="term"))
    if not np.any(change):
        return out
    ranked = pd.Series(change, index=genes).sort_values(ascending=False, kind="stable")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # gseapy warns of ties at every call: genes that nobody expresses, without effect
    try:
        found = gseapy.prerank(
            ranked,
            sets,
            outdir=None,
            no_plot=True,
            min_size=1,
            max_size=len(genes),
            permutation_num=permutations,
            threads=1,
            seed=seed,
        ).res2d.set_index("Term")
    finally:
        logging.disable(before)
    out.loc[found.index, "score"] = found["NES"].astype(float)
    out.loc[found.index, "fdr"] = found["FDR q-val"].astype(float)
    return out


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
