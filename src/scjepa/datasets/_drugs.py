"""Public drug screens by name: downloaded once, with the same columns of labels in all of them."""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique

from scjepa._checks import require_column, require_positive_int, some
from scjepa._compat import as_text
from scjepa.datasets._download import Source, fetch
from scjepa.datasets._drugscreen import CONTROL
from scjepa.datasets._screens import keep_known, write_columns

DRUG, DOSE, TIME, CONTEXT, SMILES, BATCH = "drug", "dose", "time", "context", "smiles", "batch"
"""Columns written to ``obs``."""

MICROMOLAR = {"nM": 1e-3, "uM": 1.0, "µM": 1.0, "mM": 1e3}

SCIPLEX3 = Source(
    "https://zenodo.org/records/7041849/files/SrivatsanTrapnell2020_sciplex3.h5ad",
    "SrivatsanTrapnell2020_sciplex3.h5ad",
    "md5:d1f51b9f8de35ca07638132539da9a99",
    "2.4 GB",
)
OP3 = Source(
    "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE279nnn/GSE279945/suppl/GSE279945_sc_counts_processed.h5ad",
    "GSE279945_sc_counts_processed.h5ad",
    "",
    "a few GB",
)
TAHOE = "https://huggingface.co/datasets/tahoebio/Tahoe-100M/resolve/2dc57900b7981cfcf5e211527169a0b006546a95/"
"""One revision: what is fetched doesn't change, though no checksums are published."""
N_SHARDS = 3388
TAHOE_CONTROL, TAHOE_TIME = "DMSO_TF", 24.0
HEADER = "gene_short_name"
"""A word of the header line of sci-Plex's gene table, which the public file may hold as if it were a gene."""


def sciplex3(
    *,
    smiles: Mapping[str, str] | pd.Series | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progressbar: bool = True,
) -> ad.AnnData:
    """Load sci-Plex 3 (Srivatsan et al. 2020): 188 compounds at four doses in A549, K562 and MCF7 cells.

    Fetches ``SrivatsanTrapnell2020_sciplex3.h5ad`` of scPerturb (Zenodo record 7041849, 2.4 GB, CC BY 4.0).

    Parameters
    ----------
    smiles
        Structures by name of the drug, as in ``obs["drug"]``; the file has none. Without them there is no column
        ``smiles``.
    cache_dir
        Folder of downloads; by default the environment variable ``SCJEPA_CACHE``, else the cache folder of the system.
    progressbar
        Whether to show one while downloading.

    Returns
    -------
    Counts in ``X``, and in ``obs`` besides the original columns:

    - ``drug``: name, or ``"DMSO"`` for vehicle; a ``+`` in a name, which elsewhere joins combinations, reads ``plus``,
    - ``dose``: µM, 0 for vehicle; ``time``: exposure in hours,
    - ``context``: cell line; ``batch``: replicate,
    - ``smiles``: structure, empty for vehicle and where it is not known.

    An original column of one of these names that reads differently is kept as ``<name>_original``. Cells without a known
    drug, dose or time are left out.

    Raises
    ------
    ConnectionError
        If the file is neither in the cache folder nor to be had; the message says how to place it by hand.
    ValueError
        If a file has the wrong checksum.
    ImportError
        If pooch is not installed (``pip install 'scjepa[datasets]'``).

    Notes
    -----
    *Not verified here*: addresses and the checksum are those that users of the files have published; they were not
    tried against the servers when this was written. A user of this file reports that its genes are named one row too
    early, because a header line was read as a gene; a file that holds such a line is loaded with a warning.

    References
    ----------
    Srivatsan et al. (2020). Massively multiplex chemical transcriptomics at single-cell resolution. *Science* 367,
    45-51. 10.1126/science.aax6234

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.sciplex3()  # doctest: +SKIP
    >>> scjepa.tl.split(
    ...     adata, "unseen_drug", perturbation_key="drug", control="DMSO", context_key="context"
    ... )  # doctest: +SKIP
    """
    adata = ad.read_h5ad(fetch(SCIPLEX3, cache_dir, progressbar=progressbar))
    obs = adata.obs
    label = as_text(require_column(obs, "perturbation", "drug"))
    unit = as_text(obs["dose_unit"]) if "dose_unit" in obs else pd.Series("nM", index=obs.index)
    dose = pd.to_numeric(obs["dose_value"].astype(object), errors="coerce") * unit.map(MICROMOLAR).fillna(1e-3)
    adata = _labelled(
        adata,
        label.mask(require_column(obs, "perturbation", "drug").isna().to_numpy()),
        vehicle=(label == "control").to_numpy(),
        dose=dose,
        time=obs["time"],
        context=require_column(obs, "cell_line", "context"),
        batch=obs["replicate"],
        smiles=None if smiles is None else label.map(dict(smiles)),
    )
    named = pd.concat([as_text(adata.var[c]) for c in adata.var] + [pd.Series(adata.var_names[:1])])
    if adata.n_vars and named.str.contains(HEADER, regex=False).any():
        warnings.warn(
            f"a header line ({HEADER!r}) stands among the names of the genes of this file: they are reported to be one row "
            "too early. Check a marker of a cell line before you trust names of genes.",
            UserWarning,
            stacklevel=2,
        )
    return adata


def op3(*, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True) -> ad.AnnData:
    """Load OP3 (Szałata et al. 2024): blood cells of three donors with 144 compounds, the NeurIPS 2023 competition.

    Fetches ``GSE279945_sc_counts_processed.h5ad`` from GEO (series GSE279945). ``context`` is the cell type, ``batch``
    the donor, and all drugs have a structure. See :func:`sciplex3` for the parameters, the columns, the errors and what
    is not verified; GEO publishes no checksum.

    References
    ----------
    Szałata et al. (2024). A benchmark for prediction of transcriptomic responses to chemical perturbations across cell
    types. *NeurIPS Datasets and Benchmarks*.

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.op3()  # doctest: +SKIP
    """
    adata = ad.read_h5ad(fetch(OP3, cache_dir, progressbar=progressbar))
    obs = adata.obs
    label = as_text(require_column(obs, "sm_name", "drug"))
    return _labelled(
        adata,
        label.mask(obs["sm_name"].isna().to_numpy()),
        vehicle=(label == "Dimethyl Sulfoxide").to_numpy(),
        dose=obs["dose_uM"],
        time=obs["timepoint_hr"],
        context=require_column(obs, "cell_type", "context"),
        batch=obs["donor_id"],
        smiles=obs["SMILES"],
    )


def tahoe_subset(
    shards: Sequence[int] = (0,), *, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True
) -> ad.AnnData:
    """Load a subset of Tahoe-100M (Zhang et al. 2025): some of the 3,388 files of about 28,000 cells each.

    Fetches ``data/train-<shard>-of-03388.parquet`` (about 70 MB each) and the tables of genes, samples and cell lines
    from Hugging Face (``tahoebio/Tahoe-100M``, CC0, one fixed revision). Files are sorted by plate and mixed within: one
    holds a few cells of nearly every drug and of all 50 lines of one plate, at (almost) one dose, with vehicle cells.
    So take several files of a plate for more cells, and of several plates for more doses.

    Parameters
    ----------
    shards
        Numbers of the files, 0 to 3387.
    cache_dir, progressbar
        As in :func:`sciplex3`.

    Returns
    -------
    As :func:`sciplex3`: ``context`` is the name of the cell line, ``batch`` the plate, ``time`` 24 h for all; genes are
    named by symbol (made unique), with ``var["ensembl_id"]``.

    Raises
    ------
    ValueError
        If a shard does not exist.
    ConnectionError, ImportError
        As in :func:`sciplex3`; pyarrow reads the files.

    Notes
    -----
    *Not verified here*: see :func:`sciplex3`.

    References
    ----------
    Zhang et al. (2025). Tahoe-100M: a giga-scale single-cell perturbation atlas for context-dependent gene function and
    cellular modeling. *bioRxiv* 2025.02.20.639398.

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.tahoe_subset([0, 1])  # doctest: +SKIP
    """
    numbers = list(dict.fromkeys(require_positive_int(i, "shards", minimum=0) for i in shards))
    if not numbers or max(numbers) >= N_SHARDS:
        raise ValueError(f"shards={some(numbers) or 'none'}: expected numbers of files, 0 to {N_SHARDS - 1}.")

    def table(name: str, size: str) -> pd.DataFrame:
        source = Source(TAHOE + name, f"tahoe100m_{name.split('/')[-1]}", "", size)
        return _parquet(fetch(source, cache_dir, progressbar=progressbar))

    genes = table("metadata/gene_metadata.parquet", "2 MB").sort_values("token_id", ignore_index=True)
    samples = table("metadata/sample_metadata.parquet", "1 MB").drop_duplicates("sample").set_index("sample")
    lines = table("metadata/cell_line_metadata.parquet", "1 MB").drop_duplicates("Cell_ID_Cellosaur")
    parts = [table(f"data/train-{i:05d}-of-{N_SHARDS:05d}.parquet", "70 MB") for i in numbers]
    counts = sp.vstack([_tahoe_counts(part, genes["token_id"].to_numpy()) for part in parts], format="csr")
    obs = pd.concat([part.drop(columns=["genes", "expressions"]) for part in parts], ignore_index=True)
    obs.index = obs["BARCODE_SUB_LIB_ID"].astype(str)
    obs.index.name = None
    var = genes[["ensembl_id"]].set_index(make_index_unique(pd.Index(genes["gene_symbol"].astype(str), name=None)))
    adata = ad.AnnData(counts, obs=obs, var=var)
    label = as_text(obs["drug"])
    cell_lines = lines.set_index("Cell_ID_Cellosaur")["cell_name"]
    return _labelled(
        adata,
        label.mask(obs["drug"].isna().to_numpy()),
        vehicle=(label == TAHOE_CONTROL).to_numpy(),
        dose=obs["sample"].map(samples["drugname_drugconc"].map(_tahoe_dose)),
        time=pd.Series(TAHOE_TIME, index=obs.index),
        context=obs["cell_line_id"].map(cell_lines).fillna(obs["cell_line_id"]),
        batch=obs["plate"],
        smiles=obs["canonical_smiles"],
    )


def _labelled(
    adata: ad.AnnData,
    drug: pd.Series,
    *,
    vehicle: np.ndarray,
    dose: pd.Series,
    time: pd.Series,
    context: pd.Series,
    batch: pd.Series,
    smiles: pd.Series | None,
) -> ad.AnnData:
    """Write the columns that all drug screens have; leave out cells without a known drug, dose or time."""
    number = lambda values: pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64)
    new: dict[str, Any] = {
        DRUG: drug.str.replace("+", "plus", regex=False).mask(vehicle, CONTROL),
        DOSE: number(dose).mask(vehicle, 0.0),
        TIME: number(time),
        CONTEXT: as_text(context),
        BATCH: as_text(batch),
    }
    if smiles is not None:
        new[SMILES] = as_text(smiles).mask(smiles.isna().to_numpy() | vehicle, "")
    known = new[DRUG].notna() & new[DOSE].notna() & new[TIME].notna()
    write_columns(adata, new, numbers=(DOSE, TIME))
    return keep_known(adata, known.to_numpy(), "drug, dose and time")


def _parquet(path: os.PathLike[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise ImportError("Tahoe-100M comes in parquet files: pip install 'scjepa[datasets]' (or pyarrow).") from error


def _tahoe_dose(text: str) -> float:
    """Read a dose in µM from ``"[('Bestatin', 0.05, 'uM')]"``; not a number if it can't be read."""
    try:
        _, value, unit = ast.literal_eval(text)[0]
        return float(value) * MICROMOLAR[unit]
    except (ValueError, SyntaxError, KeyError, IndexError, TypeError):
        return float("nan")


def _tahoe_counts(cells: pd.DataFrame, tokens: np.ndarray) -> sp.csr_matrix:
    """Build counts from lists of genes and values; a negative value marks the start of a cell and is no gene."""
    length = cells["genes"].map(len).to_numpy()
    token, value = (np.concatenate([*cells[c], np.empty(0)]) for c in ("genes", "expressions"))
    row = np.repeat(np.arange(len(cells)), length)
    column = np.minimum(np.searchsorted(tokens, token), len(tokens) - 1)
    is_gene = (value >= 0) & (tokens[column] == token)
    triplets = (value[is_gene].astype(np.float32), (row[is_gene], column[is_gene]))
    return sp.csr_matrix(triplets, shape=(len(cells), len(tokens)))
