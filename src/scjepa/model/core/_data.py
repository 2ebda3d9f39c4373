"""AnnData or MuData: what models need to know of either, without asking which it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from scjepa.model.core._reading import gene_order


def is_data(data: Any) -> bool:
    """Whether ``data`` is an AnnData or a MuData."""
    return isinstance(data, AnnData) or is_mudata(data)


def is_mudata(data: Any) -> bool:
    """Whether ``data`` is a MuData; told by its name, so that mudata is imported by those only who have one."""
    return type(data).__name__ == "MuData" and hasattr(data, "mod")


def modalities(data: Any) -> Mapping[str | None, AnnData]:
    """Return the AnnData of each modality; that of an AnnData has no name.

    Examples
    --------
    >>> import anndata, numpy as np
    >>> from scjepa.model.core._data import modalities
    >>> list(modalities(anndata.AnnData(np.ones((2, 3)))))
    [None]
    """
    return data.mod if is_mudata(data) else {None: data}


def is_backed(data: Any) -> bool:
    """Whether any matrix is left on disk."""
    return any(part.isbacked for part in modalities(data).values())


def registered_features(registry: dict[str, Any]) -> dict[str | None, np.ndarray]:
    """Return the features that a model was set up with, by modality (None in an AnnData)."""
    out: dict[str | None, np.ndarray] = {}
    for field in registry["field_registries"].values():
        names = field["state_registry"].get("column_names")
        if names is not None and field["data_registry"].get("attr_name") in ("X", "layers"):
            out[field["data_registry"].get("mod_key")] = np.asarray(names).astype(str)
    return out


def set_up_with(registry: dict[str, Any]) -> str:
    """Return the name of the setup method that a registry is of."""
    return registry.get("setup_method_name", "setup_anndata")


def check_data(data: Any, registry: dict[str, Any]) -> None:
    """Raise a :class:`TypeError` unless ``data`` is what the model was set up with: an AnnData, or a MuData."""
    wanted = "MuData" if set_up_with(registry) == "setup_mudata" else "AnnData"
    if not is_data(data) or is_mudata(data) != (wanted == "MuData"):
        raise TypeError(f"adata: expected {'a' if wanted == 'MuData' else 'an'} {wanted}, got {type(data).__name__}.")


def in_order(data: Any, registry: dict[str, Any]) -> Any:
    """Bring features to the order of a setup; further ones are left out of a copy, missing ones raise.

    ``data`` itself where nothing is to be done.
    """
    wanted, held = registered_features(registry), modalities(data)
    changed = {}
    for name, features in wanted.items():
        if name not in held:
            raise KeyError(f"the model was set up with modality {name!r}; found: {sorted(map(str, held))}.")
        order = gene_order(held[name], features)
        if order is not None:
            changed[name] = held[name][:, order].copy()
    if not changed:
        return data
    if None in changed:
        return changed[None]
    new = type(data)({name: changed.get(name, part) for name, part in held.items()})
    for column in data.obs.columns.difference(new.obs.columns):
        new.obs[column] = data.obs[column]
    return new
