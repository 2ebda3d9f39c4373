"""Cells measured in several modalities, with known links between peaks, genes and proteins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scjepa._checks import require_member, require_positive_int
from scjepa._keys import Keys
from scjepa._types import FloatArray
from scjepa.datasets._counts import share

MODALITIES = ("rna", "protein", "atac")
SPACING = 20_000
"""Bases between neighbouring genes on the simulated chromosomes."""
LINKED = 0.6
"""Share of genes that a peak regulates."""


def simulate_multiomics(
    n_cells: int = 600,
    n_genes: int = 200,
    n_proteins: int = 20,
    n_peaks: int = 400,
    *,
    n_types: int = 4,
    modalities: Sequence[str] = MODALITIES,
    missing: Mapping[str, float] | None = None,
    n_batches: int = 1,
    batch_effect: float = 0.3,
    link_strength: float = 1.5,
    delay: float = 0.3,
    state_effect: float = 0.5,
    depth: float = 3000.0,
    protein_depth: float = 1500.0,
    openness: float = 0.15,
    seed: int = 0,
) -> Any:
    r"""Simulate cells in up to three modalities whose features are linked.

    A peak is open with odds that depend on the cell's type and on a continuous state; a gene that it regulates is transcribed
    :math:`e^{\pm s}` times as much where it is open (s the link strength, half of the links negative). A protein follows its gene's
    transcription, a share ``delay`` of it as it was in an earlier state of the cell. Counts of RNA and protein are negative binomial, peaks are
    cut once or twice.

    Parameters
    ----------
    n_cells, n_genes, n_proteins, n_peaks
        Sizes; proteins are of the first genes.
    n_types
        Cell types.
    modalities
        Which of ``"rna"``, ``"protein"`` and ``"atac"`` are returned.
    missing
        Modality -> share of the cells that lack it.
    n_batches, batch_effect
        Batches, and the standard deviation of their shifts of each feature (log scale).
    link_strength
        s.
    delay
        Share of a protein's level that comes from an earlier state.
    state_effect
        Standard deviation of the log rates' loadings on the continuous state.
    depth, protein_depth
        Mean counts per cell.
    openness
        Mean share of cells in which a peak is open.
    seed
        Seed.

    Returns
    -------
    MuData with raw counts; ``obs`` of each modality holds ``cell_type``, ``batch`` and ``state``; ``var`` of genes and peaks
    ``chromosome``, ``start`` and ``end``. The truth is in ``uns["jepa"]["simulation"]``: ``peak_gene`` (``source``, ``target``, ``sign``),
    ``gene_protein`` (``source``, ``target``), ``parameters``.

    Raises
    ------
    ImportError
        Without mudata (``pip install 'scjepa[multiomics]'``).
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> from scjepa.datasets import simulate_multiomics
    >>> mdata = simulate_multiomics(100, 50, 10, 80, missing={"atac": 0.3})
    >>> {name: part.shape for name, part in mdata.mod.items()}
    {'rna': (100, 50), 'protein': (100, 10), 'atac': (70, 80)}
    """
    given = {name: value for name, value in locals().items() if name not in ("missing", "modalities")}
    sizes = ("n_cells", "n_genes", "n_proteins", "n_peaks", "n_types", "n_batches")
    for name in sizes:
        require_positive_int(given[name], name)
    for name in modalities:
        require_member(name, MODALITIES, "modalities", where="the modalities")
    if not modalities:
        raise ValueError("modalities is empty: ask for at least one.")
    if n_proteins > n_genes:
        raise ValueError(f"n_proteins={n_proteins} of n_genes={n_genes}: a protein needs a gene. Ask for fewer.")
    lacks = dict(missing or {})
    for name, part in lacks.items():
        require_member(name, modalities, "missing", where="the modalities that are returned")
        if not 0 <= part < 1:
            raise ValueError(f"missing[{name!r}]={part!r}: expected a share from 0 to below 1.")
    for name, low, high in (("delay", 0, 1), ("openness", 0, 1)):
        if not low <= given[name] <= high:
            raise ValueError(f"{name}={given[name]!r}: expected a number from {low} to {high}.")
    try:
        import mudata
    except ImportError as error:
        raise ImportError("simulate_multiomics returns a MuData: pip install 'scjepa[multiomics]'.") from error

    gene_rng, link_rng, cell_rng, batch_rng = np.random.default_rng(seed).spawn(4)
    kind = cell_rng.integers(0, n_types, n_cells)
    state = cell_rng.normal(size=(n_cells, 2))
    earlier = 0.6 * state + 0.8 * cell_rng.normal(size=(n_cells, 2))  # as alike as states a while apart are
    batch = cell_rng.integers(0, n_batches, n_cells)

    # peaks: open or not, by type and state; each gene lies on a chromosome, with peaks around
    level = np.log(openness / (1 - openness)) if 0 < openness < 1 else (np.inf if openness else -np.inf)
    logit = level + gene_rng.normal(0, 1.2, (n_types, n_peaks))[kind] + state @ gene_rng.normal(0, 0.5, (2, n_peaks))
    shift = lambda n: batch_effect * batch_rng.normal(size=(n_batches, n))[batch] if n_batches > 1 else 0.0
    open_ = cell_rng.random((n_cells, n_peaks)) < 1 / (1 + np.exp(-(logit + shift(n_peaks))))
    chromosome = np.array([f"chr{1 + 2 * j // n_genes}" for j in range(n_genes)])
    start = (np.arange(n_genes) % max(n_genes // 2, 1)) * SPACING + 10_000
    near = link_rng.integers(0, n_genes, n_peaks)
    at = start[near] + link_rng.integers(-8_000, 8_000, n_peaks)
    links = _links(near, n_genes, link_rng)

    base, by_type = (
        gene_rng.normal(0, 1, n_genes),
        gene_rng.normal(0, 0.5, (n_types, n_genes)) * (gene_rng.random(n_genes) < 0.3),
    )
    loading = state_effect * gene_rng.normal(size=(2, n_genes))
    regulated = np.zeros((n_cells, n_genes))
    for gene, peak, sign in zip(links["gene"], links["peak"], links["sign"], strict=True):
        regulated[:, gene] += sign * link_strength * (open_[:, peak] - open_[:, peak].mean())
    common = base + by_type[kind] + regulated
    rate = common + state @ loading
    before = common + earlier @ loading
    rna = _counts(share(rate + shift(n_genes)), depth, cell_rng)
    made = (1 - delay) * rate[:, :n_proteins] + delay * before[:, :n_proteins]
    protein = _counts(share(made + gene_rng.normal(0, 1, n_proteins) + shift(n_proteins)), protein_depth, cell_rng)
    cuts = open_ * (1 + (cell_rng.random(open_.shape) < 0.2))

    genes = [f"G{j + 1:04d}" for j in range(n_genes)]
    peaks = [f"{chromosome[near[k]]}:{at[k]}-{at[k] + 500}" for k in range(n_peaks)]
    peaks = [f"{name}_{k}" for k, name in enumerate(peaks)] if len(set(peaks)) < n_peaks else peaks
    proteins = [f"P-{name}" for name in genes[:n_proteins]]
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical([f"type {t + 1}" for t in kind]), "batch": pd.Categorical([f"batch {b + 1}" for b in batch]), "state": state[:, 0]},
        index=[f"cell{i:0{len(str(n_cells))}d}" for i in range(n_cells)],
    )  # fmt: skip
    var = {
        "rna": pd.DataFrame({"chromosome": chromosome, "start": start, "end": start + 5_000}, index=genes),
        "protein": pd.DataFrame({"gene": genes[:n_proteins]}, index=proteins),
        "atac": pd.DataFrame({"chromosome": chromosome[near], "start": at, "end": at + 500}, index=peaks),
    }
    values: dict[str, Any] = {
        "rna": sp.csr_matrix(rna),
        "protein": protein,
        "atac": sp.csr_matrix(cuts.astype(np.float32)),
    }
    parts = {}
    for name in modalities:
        kept = np.sort(cell_rng.permutation(n_cells)[: round(n_cells * (1 - lacks.get(name, 0.0)))])
        parts[name] = ad.AnnData(values[name][kept], obs=obs.iloc[kept].copy(), var=var[name])
    mdata = mudata.MuData(parts)
    mdata.uns[Keys.uns.root] = {
        Keys.uns.simulation: {
            "peak_gene": pd.DataFrame({
                "source": np.array(peaks, dtype=object)[links["peak"]], "target": np.array(genes, dtype=object)[links["gene"]], "sign": links["sign"],
            }),
            "gene_protein": pd.DataFrame({"source": genes[:n_proteins], "target": proteins}),
            "parameters": given,
        }
    }  # fmt: skip
    return mdata


def _links(near: np.ndarray, n_genes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return which peak regulates which gene: one near it, for a share of the genes that have any."""
    rows = []
    for gene in range(n_genes):
        mine = np.flatnonzero(near == gene)
        if len(mine) and rng.random() < LINKED:
            rows.append((gene, int(rng.choice(mine)), 1.0 if rng.random() < 0.5 else -1.0))
    return pd.DataFrame(rows, columns=["gene", "peak", "sign"]).astype({"gene": int, "peak": int, "sign": float})


def _counts(shares: FloatArray, depth: float, rng: np.random.Generator, dispersion: float = 0.1) -> np.ndarray:
    """Draw negative binomial counts of cells of log-normal depth."""
    library = depth * np.exp(0.3 * rng.normal(size=len(shares)) - 0.045)
    mean = library[:, None] * shares
    return rng.poisson(rng.gamma(1 / dispersion, dispersion * mean)).astype(np.float32)
