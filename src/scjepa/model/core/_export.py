"""Models on disk: a folder of safetensors and JSON that needs no pickle, and loading of saved and exported models."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from anndata import AnnData

from scjepa.model.core._data import in_order, is_data, set_up_with
from scjepa.model.core._parts import written
from scjepa.model.core._plain import Packer, unpack

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


def write(model: Any, dir_path: str | os.PathLike, *, overwrite: bool = False) -> None:
    """Write a trained model as safetensors and JSON; see :meth:`JEPAModel.export`."""
    tensors = _safetensors()
    folder = Path(dir_path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise FileExistsError(f"{str(folder)!r} is not empty. Give a new folder, or pass overwrite=True.")
    packer = Packer()
    attributes = {k: packer.pack(v, k) for k, v in written(vars(model), model._parts).items() if k.endswith("_")}
    arrays = {f"attributes/{k}": v for k, v in packer.arrays.items()}
    arrays |= {f"module/{k}": v.detach().cpu().contiguous() for k, v in model.module.state_dict().items()}
    record = {
        "format": FORMAT,
        "class": type(model).__name__,
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


def read(
    cls: Any, load_saved: Callable[..., Any], dir_path: str, adata: AnnData | bool | None, *args: Any, **kwargs: Any
) -> Any:
    """Read a saved model (by ``load_saved``) or an exported one; see :meth:`JEPAModel.load`."""
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
    if is_data(adata):
        registry = attributes["registry_"] if exported else cls.load_registry(dir_path, kwargs.get("prefix"))
        adata = in_order(adata, registry)
    try:
        if exported:
            return _rebuild(cls, attributes, part("module/"), adata, *args, **kwargs)
        return load_saved(dir_path, adata, *args, **kwargs)
    except (KeyError, ValueError) as error:
        if not is_data(adata):
            raise
        message = error.args[0] if error.args else error
        raise type(error)(
            f"{message} To use the model on data with other labels or columns, load it with adata=False and pass "
            "the data to its methods."
        ) from error


def _rebuild(
    cls: Any,
    attributes: dict[str, Any],
    weights: dict[str, torch.Tensor],
    adata: AnnData | bool | None,
    accelerator: str = "auto",
    device: int | str = "auto",
) -> Any:
    """Make a model from what an exported folder holds, as scvi-tools does from a saved one."""
    from scvi.model._utils import parse_device_args

    *_, place = parse_device_args(accelerator, device, return_device="torch", validate_single_device=True)
    model = remade(cls, attributes, adata if is_data(adata) else None)
    model.module.on_load(model)
    model.module.load_state_dict(weights)
    model.to_device(place)
    model.module.eval()
    return model


def remade(cls: Any, attributes: dict[str, Any], adata: AnnData | None, **transfer: Any) -> Any:
    """Make a model of ``cls`` with the attributes of another, set up on ``adata`` as that one was (or on no data)."""
    attributes = dict(attributes)
    registry, init = attributes.pop("registry_"), attributes.pop("init_params_")
    if adata is not None:
        setup = getattr(cls, set_up_with(registry))
        setup(adata, source_registry=registry, **transfer, **registry["setup_args"])
    extra = {k: v for part in init["kwargs"].values() for k, v in part.items()}
    model = cls(adata, registry=None if adata is not None else registry, **init["non_kwargs"], **extra)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model
