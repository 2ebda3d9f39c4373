"""``pathway_consistency``: do predicted and true effects point to the same pathways?"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.stats import false_discovery_control, hypergeom, spearmanr

from scjepa._checks import require_member, require_positive_int, some
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.tl._contenders import Baselines, Contenders, contenders
from scjepa.tl._deg_recovery import DEFINITIONS, Definition, beyond, check_rates
from scjepa.tl._differential import Genes, compare_genes
from scjepa.tl._inputs import check_anndata, resolve_labels, store_table

logger = logging.getLogger(__name__)

Enrichment = Literal["ora", "prerank"]
ENRICHMENTS: tuple[Enrichment, ...] = ("ora", "prerank")
COLUMNS = ["method", "kind", "perturbation", "context", "enrichment", "metric", "value"]
TERM_COLUMNS = ["perturbation", "context", "enrichment", "side", "term", "score", "fdr"]


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
    pred, real, train, perturbation_key, control, context_key, separator, layer, baselines, method, max_cells
        As for :func:`scjepa.tl.deg_recovery`.
    gene_sets
        Pathway -> genes, a GMT file (``.gmt`` or ``.gmt.gz``), or the name of an Enrichr library, which is downloaded.
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
    ceiling
        Whether to add the row "replicate ceiling" to ``"ora"``: halves of the real cells, see
        :func:`scjepa.tl.deg_recovery`.
    key_added
        Key of the table in ``pred.uns["jepa"]``.
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
        _gseapy()  # an absent one is missed now, not after minutes
    pred, real = check_anndata(pred, "pred"), check_anndata(real, "real")
    labels = resolve_labels(pred, perturbation_key, control, context_key, separator)
    genes = pred.var_names.astype(str)
    sets = _measured(read_gene_sets(gene_sets), genes, min_size, max_size)
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

    over = _OverRepresentation(sets, genes)
    ranked = _Prerank(sets, genes, permutations, seed)
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


class _OverRepresentation:
    """Hypergeometric test of every set: score -log10 p; NaN without genes."""

    def __init__(self, sets: dict[str, list[str]], genes: pd.Index):
        rows = np.repeat(np.arange(len(sets)), [len(members) for members in sets.values()])
        columns = genes.get_indexer(pd.Index([g for members in sets.values() for g in members]))
        self.terms = pd.Index(sets, name="term")
        self.members = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(sets), len(genes)))

    def __call__(self, called: npt.NDArray[np.bool_]) -> list[pd.DataFrame]:
        """Score the genes of each condition, ``(conditions, genes)``."""
        return [self._one(row) for row in called]

    def _one(self, called: npt.NDArray[np.bool_]) -> pd.DataFrame:
        out = pd.DataFrame({"score": np.nan, "fdr": np.nan}, index=self.terms)
        n = int(called.sum())
        if n:
            shared = self.members @ called.astype(np.float64)
            hit = shared > 0
            p = np.ones(len(out))
            p[hit] = hypergeom.sf(shared[hit] - 1, len(called), np.diff(self.members.indptr)[hit], n)
            # over all sets, not only over those that share a gene with the list
            out["score"], out["fdr"] = np.abs(np.log10(np.maximum(p, 1e-300))), false_discovery_control(p)
        return out


class _Prerank:
    """Normalised enrichment of every set along the log fold changes by gseapy; NaN without any change.

    Every ranking is computed once: the truth is asked for again with each method.
    """

    def __init__(self, sets: dict[str, list[str]], genes: pd.Index, permutations: int, seed: int):
        self.sets, self.genes, self.permutations, self.seed = sets, genes, permutations, seed
        self.known: dict[bytes, pd.DataFrame] = {}

    def __call__(self, changes: FloatArray) -> list[pd.DataFrame]:
        """Rank the genes of each condition, ``(conditions, genes)``."""
        return [self._one(row) for row in changes]

    def _one(self, change: FloatArray) -> pd.DataFrame:
        key = change.tobytes()
        if key not in self.known:
            self.known[key] = self._ranked(change)
        return self.known[key]

    def _ranked(self, change: FloatArray) -> pd.DataFrame:
        out = pd.DataFrame({"score": np.nan, "fdr": np.nan}, index=pd.Index(self.sets, name="term"))
        if not np.any(change):
            return out
        ranked = pd.Series(change, index=self.genes).sort_values(ascending=False, kind="stable")
        before = logging.root.manager.disable
        # gseapy warns of ties at every call: genes that nobody expresses, without effect
        logging.disable(logging.WARNING)
        try:
            found = (
                _gseapy()
                .prerank(
                    ranked,
                    self.sets,
                    outdir=None,
                    no_plot=True,
                    min_size=1,
                    max_size=len(self.genes),
                    permutation_num=self.permutations,
                    threads=1,
                    seed=self.seed,
                )
                .res2d.set_index("Term")
            )
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
