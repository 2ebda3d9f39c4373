"""Parts that a model holds: saved as plain data, rebuilt when it is loaded, and reached by the model's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self


class Part(Protocol):
    """What a model holds: an object that can be written as plain data (arrays, numbers, strings, lists, dicts)."""

    def state(self) -> dict[str, Any]:
        """Return what :meth:`from_state` needs."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild a part from :meth:`state`."""


class Through:
    """An attribute of a model that one of its parts holds under another name.

    Users keep the names of 0.1.0, and models saved by it, which had no parts, are loaded through them.

    Parameters
    ----------
    part
        Attribute of the model with the part.
    name
        Attribute of the part.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from scjepa.model.core._parts import Through
    >>> class Model:
    ...     gates_ = Through("gate_", "shares")
    >>> model = Model()
    >>> model.gate_ = SimpleNamespace(shares={"single": 0.5})
    >>> model.gates_
    {'single': 0.5}
    """

    def __init__(self, part: str, name: str) -> None:
        self.part, self.name = part, name

    def __get__(self, model: Any, owner: type) -> Any:
        return self if model is None else getattr(getattr(model, self.part), self.name)

    def __set__(self, model: Any, value: Any) -> None:
        setattr(getattr(model, self.part), self.name, value)


def written(attributes: Mapping[str, Any], parts: Mapping[str, type[Part]]) -> dict[str, Any]:
    """Return attributes with the parts among them as plain data."""
    return {k: v.state() if k in parts and isinstance(v, parts[k]) else v for k, v in attributes.items()}


def rebuild(model: Any, parts: Mapping[str, type[Part]]) -> None:
    """Turn the attributes of a model that are parts written as plain data into parts again."""
    for name, kind in parts.items():
        held = vars(model).get(name)
        if isinstance(held, dict):
            setattr(model, name, kind.from_state(held))
