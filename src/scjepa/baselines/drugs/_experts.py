"""All predictions that compete, fitted to the same rows and asked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scjepa._types import FloatArray
from scjepa.baselines.drugs._alike import responses_alike
from scjepa.baselines.drugs._kernels import Spec
from scjepa.baselines.drugs._plain import Plain
from scjepa.baselines.drugs._process import Fitted, Ground
from scjepa.baselines.drugs._rows import Rows
from scjepa.baselines.drugs._structure import Structure

PROCESS, WITHOUT, ALIKE = "process", "process without structure", "responses alike"
"""The Gaussian process, the same without what structures say, and what drugs with like responses elsewhere do."""
ELABORATE = (PROCESS, WITHOUT, ALIKE)
"""Predictions that must win over the simple ones."""


@dataclass(frozen=True)
class Experts:
    """The process, with and without structure, and simple rules.

    Attributes
    ----------
    plain, process, without
        Fitted parts; ``without`` is None where the process has no structure anyway.
    """

    plain: Plain
    process: Fitted
    without: Fitted | None

    @classmethod
    def fit(
        cls,
        rows: Rows,
        values: FloatArray,
        noise: FloatArray,
        structure: Structure,
        *,
        common: bool,
        mixture: Sequence[tuple[Spec, float]] | None,
        cache: dict[Any, FloatArray],
    ) -> Experts:
        """Fit all of them; see :class:`scjepa.baselines.drugs._process.Ground`."""
        ground = Ground(rows, values, noise, structure, common=common, cache=cache)
        process = ground.fit(mixture)
        without = None
        if any(spec["share"] for spec, _ in process.mixture):
            best = process.mixture[0][0]
            bare = [({**best, "structure": "", "share": 0.0, "local": 0.0}, 1.0)]
            without = ground.fit(bare)
        return cls(Plain(rows, values, structure, cache), process, without)

    def predict(self, query: Rows) -> dict[str, FloatArray]:
        """Return predictions ``(m, columns)`` by name, simple ones first."""
        out = self.plain.predict(query)
        where, beyond = out["mean per context"], self.plain.values - self.plain.by_place(self.plain.rows)
        out[ALIKE] = where + responses_alike(self.plain.rows, beyond, query)
        if self.without is not None:
            out[WITHOUT] = self.without.predict(query)
        out[PROCESS] = self.process.predict(query)
        return out
