"""Public screens by name: downloaded once, with the same columns of labels in all of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from scjepa._checks import require_column, require_member
from scjepa._compat import as_text
from scjepa.datasets._download import Source, fetch

logger = logging.getLogger(__name__)

SCPERTURB = "https://zenodo.org/records/10044268/files/"
PERTURBATION, CONTEXT, BATCH, CONTROL = "perturbation", "context", "batch", "control"
"""Columns written to ``obs``, and the label of control cells."""

ADAMSON_CONTROLS = ("62(mod)_pBA581", "63(mod)_pBA580", "Gal4-4(mod)_pBA582")
"""Vectors of the Adamson screen whose guides target nothing in human cells (Gal4-4: a gene of yeast)."""


class Screen(NamedTuple):
    """A public screen: its file, and how the labels in it read."""

    source: Source
    perturbation: str
    """``obs`` column of the original labels"""
    label: Callable[[pd.Series], pd.Series]
    """original labels -> ``"A"``, ``"A+B"``, ``"control"``, or missing for cells without a known perturbation"""
    context: str
    """``obs`` column, or with ``=`` in front the one context of all cells"""
    batch: str | None = None
    """``obs`` column"""


def _norman_labels(labels: pd.Series) -> pd.Series:
    return labels.str.replace("_", "+", regex=False)


def _adamson_labels(labels: pd.Series) -> pd.Series:
    control = labels.isin(ADAMSON_CONTROLS)
    named = labels.str.replace(r"_p[A-Z]+\d+(-\d+)?$", "", regex=True)
    return named.mask(control, CONTROL).mask(labels.isin(["*", "nan"]))


def _kang_labels(labels: pd.Series) -> pd.Series:
    return labels.map({"ctrl": CONTROL, CONTROL: CONTROL, "stim": "IFN-beta", "stimulated": "IFN-beta"})


def _as_written(labels: pd.Series) -> pd.Series:
    return labels


SCREENS = {
    "norman2019": Screen(
        Source(
            SCPERTURB + "NormanWeissman2019_filtered.h5ad",
            "NormanWeissman2019_filtered.h5ad",
            "md5:c870e6967d91c017d9da827bab183cd6",
            "0.7 GB",
        ),
        "perturbation",
        _norman_labels,
        "=K562",
        "gemgroup",
    ),
    "adamson2016": Screen(
        Source(
            SCPERTURB + "AdamsonWeissman2016_GSM2406681_10X010.h5ad",
            "AdamsonWeissman2016_GSM2406681_10X010.h5ad",
            "md5:2fa44ea61a8dd35742af618638ec65fc",
            "0.5 GB",
        ),
        "perturbation",
        _adamson_labels,
        "=K562",
    ),
    "replogle2022_k562_essential": Screen(
        Source(
            SCPERTURB + "ReplogleWeissman2022_K562_essential.h5ad",
            "ReplogleWeissman2022_K562_essential.h5ad",
            "md5:d8cba17576d1a8afc0f7d71b79cad0f7",
            "1.5 GB",
        ),
        "perturbation",
        _as_written,
        "=K562",
        "batch",
    ),
    "replogle2022_rpe1": Screen(
        Source(
            SCPERTURB + "ReplogleWeissman2022_rpe1.h5ad",
            "ReplogleWeissman2022_rpe1.h5ad",
            "md5:cc7f1ec50aeb3a3e1b4a6cfa713d80fa",
            "1.2 GB",
        ),
        "perturbation",
        _as_written,
        "=RPE1",
        "batch",
    ),
    "kang2018": Screen(
        Source(
            "https://exampledata.scverse.org/pertpy/kang_2018.h5ad",
            "kang_2018.h5ad",
            "sha256:e6a5adac64dcdeb36eaba27db49b63e0c64bb0ed4a64c6705971506b41c39830",
            "38 MB",
        ),
        "label",
        _kang_labels,
        "cell_type",
        "replicate",
    ),
}
"""Every public screen that :func:`load_perturbseq_data` knows."""


def load_perturbseq_data(
    name: str, *, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True
) -> ad.AnnData:
    """Load a public screen, downloading it first if it is not in the cache folder.

    Parameters
    ----------
    name
        ``"norman2019"``, ``"adamson2016"``, ``"replogle2022_k562_essential"``, ``"replogle2022_rpe1"`` or
        ``"kang2018"``.
    cache_dir
        Folder of downloads; by default the environment variable ``SCJEPA_CACHE``, else the cache folder of the system.
    progressbar
        Whether to show one while downloading.

    Returns
    -------
    Counts in ``X``, and in ``obs`` besides the original columns:

    - ``perturbation``: perturbed genes (combinations ``"A+B"``) or ``"control"``,
    - ``context``: cell line or cell type,
    - ``batch``: batch or donor, where the file has one.

    An original column of one of these names that reads differently is kept as ``<name>_original``. Cells whose
    perturbation is unknown are left out.

    Raises
    ------
    ConnectionError
        If the file is neither in the cache folder nor to be had; the message says how to place it by hand.
    ValueError
        For an unknown name, or a file with the wrong checksum.
    ImportError
        If pooch is not installed (``pip install 'scjepa[datasets]'``).

    Notes
    -----
    *Not verified here*: addresses and checksums were not tried against the servers when this was written. The addresses
    are those of pertpy; the checksums are those that several users of these files have published, and agree with one
    another. A wrong checksum is refused, so what is loaded is the file that they had.

    Genetic screens: files of scPerturb (Peidli et al. 2024, *Nature Methods*, 10.1038/s41592-023-02144-y; Zenodo record
    10044268, CC BY 4.0).

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.load_perturbseq_data("norman2019")  # doctest: +SKIP
    >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", batch_key="batch")  # doctest: +SKIP
    """
    require_member(name, SCREENS, "name", where="the public screens")
    screen = SCREENS[name]
    path = fetch(screen.source, cache_dir, progressbar=progressbar)
    return _standardise(ad.read_h5ad(path), screen)


def _standardise(adata: ad.AnnData, screen: Screen) -> ad.AnnData:
    """Write the columns ``perturbation``, ``context`` and ``batch``; leave out cells without a known perturbation."""
    obs = adata.obs
    original = require_column(obs, screen.perturbation, "perturbation")
    new = {PERTURBATION: screen.label(as_text(original)).mask(original.isna().to_numpy())}
    if screen.context.startswith("="):
        new[CONTEXT] = pd.Series(screen.context[1:], index=obs.index)
    else:
        new[CONTEXT] = as_text(require_column(obs, screen.context, "context"))
    if screen.batch is not None:
        new[BATCH] = as_text(require_column(obs, screen.batch, "batch"))
    write_columns(adata, new)
    return keep_known(adata, obs[PERTURBATION].notna().to_numpy(), "perturbation")


def write_columns(adata: ad.AnnData, new: Mapping[str, pd.Series], *, numbers: Collection[str] = ()) -> None:
    """Write columns of labels (and of ``numbers``) to ``obs``; what stood there and reads differently is kept."""
    obs = adata.obs
    for name, values in new.items():
        if name in obs and not np.array_equal(as_text(obs[name]), as_text(values)):
            obs[f"{name}_original"] = obs[name]
        obs[name] = values.to_numpy() if name in numbers else pd.Categorical(values)


def keep_known(adata: ad.AnnData, known: np.ndarray, what: str) -> ad.AnnData:
    """Leave out the cells that are not ``known``, with their number in the log."""
    if known.all():
        return adata
    logger.info("%d of %d cells have no known %s and are left out.", int((~known).sum()), adata.n_obs, what)
    return adata[known].copy()


def norman2019(*, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True) -> ad.AnnData:
    """Load the CRISPRa screen of Norman et al. 2019: 105 genes and 131 pairs of them activated in K562 cells.

    See :func:`load_perturbseq_data` for the parameters, the columns and what is not verified about the download
    (0.7 GB).

    References
    ----------
    Norman et al. (2019). Exploring genetic interaction manifolds constructed from rich single-cell phenotypes.
    *Science* 365, 786-793. 10.1126/science.aax4438

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.norman2019()  # doctest: +SKIP
    """
    return load_perturbseq_data("norman2019", cache_dir=cache_dir, progressbar=progressbar)


def adamson2016(*, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True) -> ad.AnnData:
    """Load the CRISPRi screen of Adamson et al. 2016: regulators of the unfolded protein response in K562 cells.

    The main screen (GSM2406681). Guides that target nothing in human cells are the controls; cells without an
    identified guide (``"*"``) are left out. See :func:`load_perturbseq_data` for the parameters, the columns and what
    is not verified about the download (0.5 GB).

    References
    ----------
    Adamson et al. (2016). A multiplexed single-cell CRISPR screening platform enables systematic dissection of the
    unfolded protein response. *Cell* 167, 1867-1882. 10.1016/j.cell.2016.11.048

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.adamson2016()  # doctest: +SKIP
    """
    return load_perturbseq_data("adamson2016", cache_dir=cache_dir, progressbar=progressbar)


def replogle2022(
    cell_line: str = "k562_essential", *, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True
) -> ad.AnnData:
    """Load a CRISPRi screen of Replogle et al. 2022: about 2,000 essential genes in K562 or RPE1 cells.

    See :func:`load_perturbseq_data` for the other parameters, the columns and what is not verified about the download
    (1.5 and 1.2 GB; about 10 GB of memory, the files hold dense matrices).

    Parameters
    ----------
    cell_line
        ``"k562_essential"`` or ``"rpe1"``.
    cache_dir, progressbar
        As in :func:`load_perturbseq_data`.

    References
    ----------
    Replogle et al. (2022). Mapping information-rich genotype-phenotype landscapes with genome-scale Perturb-seq. *Cell*
    185, 2559-2575. 10.1016/j.cell.2022.05.013

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.replogle2022("rpe1")  # doctest: +SKIP
    """
    require_member(cell_line, ["k562_essential", "rpe1"], "cell_line")
    return load_perturbseq_data(f"replogle2022_{cell_line}", cache_dir=cache_dir, progressbar=progressbar)


def kang2018(*, cache_dir: str | os.PathLike[str] | None = None, progressbar: bool = True) -> ad.AnnData:
    """Load blood cells of eight donors with and without interferon beta (Kang et al. 2018).

    ``perturbation`` is ``"IFN-beta"`` or ``"control"``, ``context`` the cell type, ``batch`` the donor. See
    :func:`load_perturbseq_data` for the parameters and what is not verified about the download (38 MB).

    References
    ----------
    Kang et al. (2018). Multiplexed droplet single-cell RNA-sequencing using natural genetic variation. *Nature
    Biotechnology* 36, 89-94. 10.1038/nbt.4042

    Examples
    --------
    >>> import scjepa
    >>> adata = scjepa.datasets.kang2018()  # doctest: +SKIP
    """
    return load_perturbseq_data("kang2018", cache_dir=cache_dir, progressbar=progressbar)
