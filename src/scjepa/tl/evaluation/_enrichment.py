"""Enrichment of gene sets: sets from dicts, files or Enrichr, over-representation, and gseapy along a ranking."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from scipy.stats import false_discovery_control, hypergeom

from scjepa._checks import some
from scjepa._types import FloatArray

logger = logging.getLogger(__name__)


def import_gseapy() -> Any:
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
        return import_gseapy().get_library(name=str(gene_sets))
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as lines:
        fields = [line.rstrip("\n").split("\t") for line in lines if line.strip()]
    if not fields or any(len(f) < 3 for f in fields):
        raise ValueError(
            f"gene_sets={path.name!r} is no GMT file: expected lines of name, description and genes, split by tabs."
        )
    # Enrichr writes weights behind some genes: "KLF1,1.0"
    return {f[0]: [g.split(",")[0] for g in f[2:] if g] for f in fields}


def measured_sets(sets: dict[str, list[str]], genes: pd.Index, min_size: int, max_size: int) -> dict[str, list[str]]:
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


class OverRepresentation:
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


class Prerank:
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
                import_gseapy()
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
