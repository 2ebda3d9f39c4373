"""The screen of the demo: simulated or read from a file, checked, log-normalised, reduced to the genes that vary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

from scjepa._checks import closest, require_column, require_labels, require_member, some
from scjepa._labels import parse_label, parse_labels
from scjepa._scale import check_scale, lognormalise
from scjepa.datasets import simulate_perturbseq
from scjepa.demo._messages import UserError, one_line, say

TARGET_SUM = 1e4

AT = " at "
"""Between a drug and its dose in the label of a condition."""

Condition = tuple[str, str]
"""(perturbation, context); the context is ``""`` in a screen without contexts."""


class Drugs(NamedTuple):
    """Columns of a screen of drugs."""

    drug_key: str
    smiles_key: str | None
    dose_key: str | None
    time_key: str | None


class Screen(NamedTuple):
    """Log-normalised cells of all genes, and the names of the columns that describe them."""

    adata: anndata.AnnData
    perturbation_key: str
    control: str
    context_key: str | None
    batch_key: str | None
    drugs: Drugs | None = None
    """Of a screen of drugs; ``perturbation_key`` is then a column that says the dose too."""

    def cells(self) -> pd.MultiIndex:
        """Perturbation and context of every cell."""
        obs = self.adata.obs
        contexts = obs[self.context_key].astype(str) if self.context_key else np.full(len(obs), "", dtype=object)
        return pd.MultiIndex.from_arrays([obs[self.perturbation_key].astype(str), contexts], names=["p", "c"])

    def conditions(self) -> pd.Series:
        """Perturbed cells per (perturbation, context), sorted by name."""
        cells = self.cells()
        return cells[cells.get_level_values("p") != self.control].value_counts().sort_index()

    def items(self, label: str) -> tuple[str, ...]:
        """Return the genes, or the drugs without their dose, of a label."""
        parts = parse_label(label, self.control)
        return parts if self.drugs is None else tuple(part.rsplit(AT, 1)[0] for part in parts)

    def drug_of(self, label: str) -> str:
        """Return the label without doses."""
        return "+".join(self.items(label)) or self.control

    def dose_of(self) -> dict[str, float]:
        """Return the dose of each label of a screen of drugs with doses."""
        assert self.drugs is not None and self.drugs.dose_key is not None
        one = self.adata.obs.drop_duplicates(self.perturbation_key)
        return dict(zip(one[self.perturbation_key].astype(str), one[self.drugs.dose_key].astype(float), strict=True))

    def with_structure(self) -> set[str]:
        """Return the drugs that have a SMILES."""
        if self.drugs is None or self.drugs.smiles_key is None:
            return set()
        one = self.adata.obs.drop_duplicates(self.drugs.drug_key)
        text = one[self.drugs.smiles_key].astype(object)
        return set(
            one.loc[(text.notna() & (text.astype(str).str.strip() != "")).to_numpy(), self.drugs.drug_key].astype(str)
        )


def simulated_screen(seed: int) -> Screen:
    """Simulate the screen of the demo without ``--data``."""
    adata = simulate_perturbseq(n_genes=300, n_regulators=30, n_single=16, n_double=16, n_cells=50, seed=seed)
    adata.X = lognormalise(adata.X, TARGET_SUM)
    return Screen(adata, "perturbation", "control", "context", "batch")


def read_screen(
    path: str | Path,
    perturbation_key: str,
    control: str = "control",
    context_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
    *,
    label: str = "--perturbation-key",
    more: Mapping[str, str | None] | None = None,
) -> Screen:
    """Read a screen from an ``.h5ad`` file, check it and log-normalise counts over all genes.

    ``label`` names the argument of the labels, and ``more`` holds arguments and columns that are kept as they are.

    Raises
    ------
    UserError, KeyError, ValueError
        If the file, a column, the control or the values are not usable; the text is one clear line.
    """
    raw = read_file(path)
    labels = require_labels(raw.obs, perturbation_key, label).str.strip()
    require_member(control, labels.unique(), "--control", where=f"the labels of obs[{perturbation_key!r}]")
    canonical = {name: "+".join(a) or control for name, a in parse_labels(labels.unique(), control).items()}
    obs = pd.DataFrame({perturbation_key: labels.map(canonical)}, index=raw.obs_names)
    for argument, key in {"--context-key": context_key, "--batch-key": batch_key}.items():
        if key is not None:
            if key == perturbation_key:
                raise UserError(f"{argument} and {label} are both {key!r}; give different columns.")
            obs[key] = require_labels(raw.obs, key, argument)
    for argument, key in (more or {}).items():
        if key is not None:
            obs[key] = require_column(raw.obs, key, argument)
    adata = with_values(raw, obs, layer, path)
    return Screen(adata, perturbation_key, control, context_key, batch_key)


def read_file(path: str | Path) -> anndata.AnnData:
    """Read an ``.h5ad`` file; raise UserError, one clear line, for whatever can't be read."""
    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.h5ad")] if path.parent.is_dir() else []
        raise UserError(f"--data {path}: no such file.{closest(path.name, beside, n=1)}")
    try:
        raw = anndata.read_h5ad(path) if h5py.is_hdf5(path) else None
    except Exception as error:  # whatever a broken file raises, the user must hear the same
        raise UserError(f"--data {path}: can't be read as .h5ad ({one_line(error)}).") from error
    if raw is None or 0 in raw.shape:
        raise UserError(
            f"--data {path}: {'not an .h5ad (HDF5) file' if raw is None else 'holds no cells or no genes'}."
        )
    return raw


def with_values(raw: anndata.AnnData, obs: pd.DataFrame, layer: str | None, path: str | Path) -> anndata.AnnData:
    """Return checked, log-normalised cells with the given ``obs``; what is left out or renamed is said."""
    if layer is not None:
        require_member(layer, [k for k in raw.layers if k is not None], "--layer", where="adata.layers")
    x, name = (raw.X, "X") if layer is None else (raw.layers[layer], f"layers[{layer!r}]")
    if x is None:
        raise UserError(f"--data {path}: has no X. Name the matrix with --layer; layers: {some(list(raw.layers))}.")
    x = x.tocsr() if sp.issparse(x) else np.asarray(x)
    if check_scale(x, name=name) == "counts":
        x = lognormalise(x, TARGET_SUM)  # over all genes: totals after a selection of genes would mean something else
    adata = anndata.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=raw.var_names.astype(str)))
    empty = np.asarray(x.sum(1)).ravel() == 0
    if empty.any():
        say(f"left out: {int(empty.sum()):,} cells without any count")
        adata = adata[~empty].copy()
    if not adata.var_names.is_unique:
        say(f"gene names: {int(adata.var_names.duplicated().sum()):,} duplicates get a suffix")
        adata.var_names_make_unique()
    adata.obs_names_make_unique()
    return adata


def select_genes(screen: Screen, train: np.ndarray, n_top: int) -> Screen:
    """Keep the most variable genes of the training cells, and the perturbed genes that are measured.

    Held-out cells (``~train``) have no say: they would tell the model which genes respond.
    """
    adata = screen.adata
    if adata.n_vars <= n_top:
        return screen
    keep = adata.var_names.isin(list(measured_genes(screen, train)))
    perturbed = set() if screen.drugs else perturbed_genes(screen.conditions().index, screen.control)
    wanted = keep & adata.var_names.isin(list(perturbed))
    if keep.sum() > n_top:
        cells = anndata.AnnData(adata.X[train][:, keep], var=adata.var[keep])
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top, flavor="seurat")
        keep[keep] = cells.var["highly_variable"].to_numpy()
    return screen._replace(adata=adata[:, keep | wanted].copy())


def measured_genes(screen: Screen, train: np.ndarray) -> set[str]:
    """Return the genes that any training cell expresses: the model knows what goes with them."""
    return set(screen.adata.var_names[np.asarray(screen.adata.X[train].sum(0)).ravel() > 0])


def perturbed_genes(conditions: Iterable[Condition], control: str) -> set[str]:
    """Return every gene that is perturbed in one of the conditions."""
    return {gene for perturbation, _ in conditions for gene in parse_label(perturbation, control)}
