"""Every branch on the versions of the libraries underneath lives here."""

from __future__ import annotations

from typing import Any


def prepare_scvi() -> None:
    """Import what scvi-tools 1.4 uses without importing: ``view_anndata_setup`` reads ``rich.pretty`` (fixed in 1.5)."""
    import rich.pretty  # noqa: F401


def layer_names(adata: Any) -> list[str]:
    """Return the names of the layers; anndata 0.13 lists X itself as a layer named None."""
    return [name for name in adata.layers if name is not None]
