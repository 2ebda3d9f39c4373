"""Attributes of a model as JSON values plus named arrays, and back, without pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from scjepa._checks import some
from scjepa._compat import TEXT
from scjepa.baselines import BASELINES, Baseline


class Packer:
    """Turn values into JSON values; numeric arrays and tensors are put aside under the path where they stood.

    What JSON does not have is written as a dictionary with one key that begins with ``$``. Objects are known by name
    only: baselines by that of their row in score tables.

    Parameters
    ----------
    strict
        Refuse baselines that are not known by name. False is for comparing, not for reading back.

    Examples
    --------
    >>> from scjepa.model.core._plain import Packer, unpack
    >>> packer = Packer()
    >>> packer.pack({"a": (1, float("inf"))}, "x")
    {'a': {'$tuple': [1, {'$float': 'inf'}]}}
    >>> unpack(_, packer.arrays)
    {'a': (1, inf)}
    """

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.arrays: dict[str, torch.Tensor] = {}
        self._baselines: dict[int, str] = {}

    def pack(self, value: Any, path: str) -> Any:
        """Return ``value``, which stands at ``path``, as JSON; raise a :class:`TypeError` for what has no such form."""
        if value is None or isinstance(value, (bool, str)):
            return str(value) if isinstance(value, str) else value
        if isinstance(value, np.generic):
            return self.pack(value.item(), path)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, torch.Tensor):
            self.arrays[path] = value.detach().cpu().contiguous()
            return {"$tensor": path}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, Mapping):
            if all(isinstance(k, str) and not k.startswith("$") for k in value):
                return {str(k): self.pack(v, f"{path}/{k}") for k, v in value.items()}
            items = [
                [self.pack(k, f"{path}/{i}/key"), self.pack(v, f"{path}/{i}")] for i, (k, v) in enumerate(value.items())
            ]
            return {"$dict": items}
        if isinstance(value, (list, tuple)):
            items = [self.pack(v, f"{path}/{i}") for i, v in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, pd.DataFrame):
            return {"$frame": self._frame(value, path)}
        if isinstance(value, Baseline):
            return self._baseline(value, path)
        raise TypeError(
            f"{path.replace('/', '.')} is a {type(value).__name__}, which can't be written without pickle. "
            "Use model.save instead."
        )

    def _array(self, value: np.ndarray, path: str) -> Any:
        if value.dtype.kind in "OUST":
            items = [self.pack(v, f"{path}/{i}") for i, v in enumerate(value.ravel().tolist())]
            kind = "object" if value.dtype.kind == "O" else "str"
            return {"$strings": {"values": items, "shape": list(value.shape), "dtype": kind}}
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        self.arrays[path] = torch.tensor(native)
        return {"$array": path}

    def _frame(self, frame: pd.DataFrame, path: str) -> dict[str, Any]:
        kinds = set(frame.dtypes)
        one = len(kinds) == 1 and isinstance(next(iter(kinds)), np.dtype) and next(iter(kinds)).kind in "fiub"
        if one and frame.shape[1] > 1:  # a table of features: one array
            values: Any = {"matrix": self.pack(frame.to_numpy(), f"{path}/values")}
        else:
            columns = [frame.iloc[:, i] for i in range(frame.shape[1])]
            values = {
                "columns": [self.pack(_plain_values(c), f"{path}/{i}") for i, c in enumerate(columns)],
                "dtypes": [_dtype_name(c.dtype) for c in columns],
            }
        return {
            "names": self.pack(frame.columns.tolist(), f"{path}/names"),
            "index": self.pack(frame.index.tolist(), f"{path}/index"),
            "index_name": self.pack(frame.index.name, f"{path}/index_name"),
            **values,
        }

    def _baseline(self, value: Baseline, path: str) -> dict[str, Any]:
        if id(value) in self._baselines:  # two anchors that are one stay one
            return {"$same": self._baselines[id(value)]}
        name = getattr(value, "name", None)
        if self.strict and BASELINES.get(str(name)) is not type(value):
            raise TypeError(
                f"{path.replace('/', '.')} is a {type(value).__name__}, not one of the baselines that an exported model "
                f"can name ({some(sorted(BASELINES), 9)}). Use model.save instead."
            )
        self._baselines[id(value)] = path
        return {"$baseline": {"name": name, "path": path, "state": self.pack(value.state(), path)}}


def _dtype_name(dtype: Any) -> str:
    """Return ``"str"`` for text of pandas 3 (objects before), and ``"object"`` for what is not numpy's otherwise."""
    return "str" if isinstance(dtype, pd.StringDtype) else dtype.name if isinstance(dtype, np.dtype) else "object"


def _plain_values(column: pd.Series) -> list[Any]:
    """Return the values; missing text as None, which every pandas reads as missing."""
    values = column.astype(object).tolist()
    if not isinstance(column.dtype, pd.StringDtype):
        return values
    return [None if missing else value for value, missing in zip(values, column.isna(), strict=True)]


def unpack(value: Any, arrays: Mapping[str, torch.Tensor], made: dict[str, Baseline] | None = None) -> Any:
    """Return what :meth:`Packer.pack` was given."""
    made = {} if made is None else made
    if isinstance(value, list):
        return [unpack(v, arrays, made) for v in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return {k: unpack(v, arrays, made) for k, v in value.items()}
    held = value[tag]
    if tag == "$float":
        return float(held)
    if tag == "$tensor":
        return arrays[held]
    if tag == "$array":
        return arrays[held].numpy()
    if tag == "$strings":
        out = np.empty(len(held["values"]), dtype=object)
        out[:] = [unpack(v, arrays, made) for v in held["values"]]
        return (out if held["dtype"] == "object" else out.astype(str)).reshape(held["shape"])
    if tag == "$dict":
        return {unpack(k, arrays, made): unpack(v, arrays, made) for k, v in held}
    if tag == "$tuple":
        return tuple(unpack(v, arrays, made) for v in held)
    if tag == "$frame":
        return _frame(held, arrays, made)
    if tag == "$same":
        return made[held]
    if tag == "$baseline":
        made[held["path"]] = BASELINES[held["name"]].from_state(unpack(held["state"], arrays, made))
        return made[held["path"]]
    raise ValueError(f"{tag!r} is not known to this scjepa. Update it: pip install -U scjepa.")


def _frame(held: dict[str, Any], arrays: Mapping[str, torch.Tensor], made: dict[str, Baseline]) -> pd.DataFrame:
    index = pd.Index(unpack(held["index"], arrays, made), name=unpack(held["index_name"], arrays, made))
    names = unpack(held["names"], arrays, made)
    if "matrix" in held:
        return pd.DataFrame(unpack(held["matrix"], arrays, made), index=index, columns=names)
    columns = {
        i: pd.Series(unpack(values, arrays, made), index=index, dtype=object).astype(TEXT if dtype == "str" else dtype)
        for i, (values, dtype) in enumerate(zip(held["columns"], held["dtypes"], strict=True))
    }
    return pd.DataFrame(columns, index=index).set_axis(names, axis=1)
