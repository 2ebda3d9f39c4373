"""Models on disk: a folder of safetensors and JSON that needs no pickle, and loading of saved and exported models."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import torch
from anndata import AnnData
from scvi.model.base import BaseModelClass

from scjepa.model._plain import Packer, unpack
from scjepa.model._reading import gene_order

FORMAT = 1
"""Version of the layout of an exported folder."""
RECORD, WEIGHTS = "scjepa.json", "scjepa.safetensors"


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(
            "exported models need safetensors, which is not installed. Run: pip install 'scjepa[export]'"
        ) from error
    return safetensors.torch


def is_exported(folder: str | os.PathLike, prefix: str | None = None) -> bool:
    """Whether ``folder`` holds an exported model; raise when it holds a saved one as well."""
    if prefix or not (Path(folder) / RECORD).is_file():
        return False
    if (Path(folder) / "model.pt").exists():
        raise ValueError(
            f"{str(folder)!r} holds an exported model ({RECORD}) and a saved one (model.pt), which may differ. "
            "Remove one of them."
        )
    return True


def read_record(folder: str | os.PathLike) -> dict[str, Any]:
    """Read the JSON part of an exported model, and check that this scjepa understands it."""
    record = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{str(folder)!r} was exported by scjepa {record.get('versions', {}).get('scjepa', '?')} in format "
            f"{record.get('format')}; this scjepa reads format {FORMAT}. Update it: pip install -U scjepa."
        )
    return record


class ExportMixin(BaseModelClass):
    """Export without pickle, and loading."""

    def export(self, dir_path: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the trained model as safetensors and JSON: all that is needed to embed and predict, and no cells.

        Nothing in the folder can run code when it is loaded, and other programs can read it. ``load`` of the same
        class recognizes it. Needs ``pip install 'scjepa[export]'``.

        Parameters
        ----------
        dir_path
            Folder to write to: ``scjepa.json`` (setup, arguments, genes, training conditions, history) and
            ``scjepa.safetensors`` (weights and other arrays).
        overwrite
            Write into a folder that is not empty.

        Raises
        ------
        FileExistsError
            When the folder is not empty.
        ImportError
            When safetensors is not installed.
        RuntimeError
            When the model is not trained.
        TypeError
            When an anchor is not one of :data:`scjepa.baselines.BASELINES`.

        Examples
        --------
        >>> import tempfile, scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        >>> model = scjepa.ExpressionJEPA(adata, n_latent=8)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.export(folder)
        ...     again = scjepa.ExpressionJEPA.load(folder)
        >>> again.adata is None, again.get_latent(adata).shape == (adata.n_obs, 8)
        (True, True)
        """
        if not self.is_trained_:
            raise RuntimeError("export needs a trained model. Run model.train() first.")
        tensors = _safetensors()
        folder = Path(dir_path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
            raise FileExistsError(f"{str(folder)!r} is not empty. Give a new folder, or pass overwrite=True.")
        packer = Packer()
        attributes = {k: packer.pack(v, k) for k, v in self._get_user_attributes() if k.endswith("_")}
        arrays = {f"attributes/{k}": v for k, v in packer.arrays.items()}
        arrays |= {f"module/{k}": v.detach().cpu().contiguous() for k, v in self.module.state_dict().items()}
        record = {
            "format": FORMAT,
            "class": type(self).__name__,
            "versions": {name: version(name) for name in ("scjepa", "scvi-tools", "torch")}
            | {"python": platform.python_version()},
            "attributes": attributes,
        }
        folder.mkdir(parents=True, exist_ok=True)
        # clones: arrays that are one in memory are refused, and the record is written last: without it nothing is there
        (folder / RECORD).unlink(missing_ok=True)
        tensors.save_file({k: v.clone() for k, v in arrays.items()}, folder / WEIGHTS)
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        (folder / RECORD).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, dir_path: str, adata: AnnData | bool | None = None, *args: Any, **kwargs: Any) -> Self:
        """Load a saved or an exported model.

        Parameters
        ----------
        dir_path
            Folder written by ``save`` or by :meth:`export`.
        adata
            Data to attach, with the model's genes in any order (further genes are left out of a copy); None takes the
            AnnData saved with the model, if there is one (never in an exported folder); False attaches none: pass data
            to the methods instead.
        *args, **kwargs
            As in :meth:`scvi.model.base.BaseModelClass.load`.

        Raises
        ------
        KeyError, ValueError
            When ``adata`` lacks genes or columns, or has labels that the model does not know; when an exported model
            is of another class or of a newer format.
        """
        exported = is_exported(dir_path, kwargs.get("prefix"))
        if exported:
            record = read_record(dir_path)
            if record["class"] != cls.__name__:
                raise ValueError(
                    f"{str(dir_path)!r} holds a {record['class']}, not a {cls.__name__}. "
                    f"Load it with scjepa.{record['class']}.load."
                )
            tensors = _safetensors().load_file(Path(dir_path) / WEIGHTS)
            part = lambda room: {k.removeprefix(room): v for k, v in tensors.items() if k.startswith(room)}
            attributes = unpack(record["attributes"], part("attributes/"))
        if isinstance(adata, AnnData):
            registry = attributes["registry_"] if exported else cls.load_registry(dir_path, kwargs.get("prefix"))
            order = gene_order(adata, registered_genes(registry))
            adata = adata if order is None else adata[:, order].copy()
        try:
            if exported:
                return cls._rebuild(attributes, part("module/"), adata, *args, **kwargs)
            return super().load(dir_path, adata, *args, **kwargs)
        except (KeyError, ValueError) as error:
            if not isinstance(adata, AnnData):
                raise
            message = error.args[0] if error.args else error
            raise type(error)(
                f"{message} To use the model on data with other labels or columns, load it with adata=False and pass "
                "the data to its methods."
            ) from error

    @classmethod
    def _rebuild(
        cls,
        attributes: dict[str, Any],
        weights: dict[str, torch.Tensor],
        adata: AnnData | bool | None,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Make a model from what an exported folder holds, as scvi-tools does from a saved one."""
        from scvi.model._utils import parse_device_args

        *_, place = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)
        model = remade(cls, attributes, adata if isinstance(adata, AnnData) else None)
        model.module.on_load(model)  # type: ignore[operator]
        model.module.load_state_dict(weights)
        model.to_device(place)
        model.module.eval()
        return model


def remade(cls: Any, attributes: dict[str, Any], adata: AnnData | None, **transfer: Any) -> Any:
    """Make a model of ``cls`` with the attributes of another, set up on ``adata`` as that one was (or on no data)."""
    attributes = dict(attributes)
    registry, init = attributes.pop("registry_"), attributes.pop("init_params_")
    if adata is not None:
        cls.setup_anndata(adata, source_registry=registry, **transfer, **registry["setup_args"])
    extra = {k: v for part in init["kwargs"].values() for k, v in part.items()}
    model = cls(adata, registry=None if adata is not None else registry, **init["non_kwargs"], **extra)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def registered_genes(registry: dict[str, Any]) -> np.ndarray:
    """Return the genes that a model was set up with."""
    return np.asarray(registry["field_registries"]["X"]["state_registry"]["column_names"]).astype(str)
