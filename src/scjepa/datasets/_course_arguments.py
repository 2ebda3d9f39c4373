"""Arguments of the simulator of trajectories, checked at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scjepa._checks import require_member, require_positive_int, some
from scjepa._types import FloatArray
from scjepa.datasets._counts import check_number

TIPPING = ("peak", "rise")
EFFECTS = ("speed", "fate")


def check_arguments(given: dict[str, Any]) -> FloatArray:
    """Return the times; raise a :class:`ValueError` that names the first argument out of range."""
    for name, minimum in {"n_genes": 5, "n_times": 2, "n_fates": 0, "n_module": 1, "n_donors": 1, "n_groups": 1,
                          "n_clones": 0, "seed": 0}.items():  # fmt: skip
        require_positive_int(given[name], name, minimum=minimum)
    for name in ("priming", "clone_fidelity"):
        check_number(given[name], name, 0.0, 1.0)
    for name in ("fate_effect", "asynchrony", "tip_size", "donor_effect", "state_effect", "batch_effect", "depth_sd",
                 "dispersion"):  # fmt: skip
        check_number(given[name], name, 0.0, np.inf)
    for name in ("group_shift", "condition_shift"):
        check_number(given[name], name, -10.0, 10.0)
    for name, high, what in (("n_module", given["n_genes"], "n_genes"), ("n_groups", given["n_donors"], "n_donors")):
        if given[name] > high:
            raise ValueError(f"{name}={given[name]}: expected at most {what}={high}.")
    require_member(given["group_effect"], EFFECTS, "group_effect", where="what groups can differ in")
    require_member(given["condition_effect"], EFFECTS, "condition_effect", where="what conditions can differ in")
    if "tipping" in given:
        require_member(given["tipping"], TIPPING, "tipping", where="how fluctuations can change")
    arms = given["conditions"]
    if isinstance(arms, str) or not len(arms) or len({str(v) for v in arms}) < len(arms):
        raise ValueError(f"conditions={arms!r}: expected a sequence of distinct names, at least one.")
    moments: FloatArray = np.linspace(0.0, 1.0, given["n_times"])
    if "times" in given:
        moments = _numbers(given["times"], "times", -np.inf)
        if len(moments) < 2 or (np.diff(moments) <= 0).any():
            raise ValueError(
                f"times: expected two or more ascending numbers, found {some(list(given['times'])) or 'none'}."
            )
    for cells in _one_or_each(given["n_cells"], "n_cells", len(moments)):
        require_positive_int(cells, "n_cells")
    for depth in _one_or_each(given["depth"], "depth", len(moments)):
        check_number(depth, "depth", 1.0, np.inf)
    if "tip_time" in given:
        check_number(given["tip_time"], "tip_time", float(moments[0]), float(moments[-1]))
    _check_fates(given, moments)
    return moments


def _check_fates(given: dict[str, Any], moments: FloatArray) -> None:
    n_fates = given["n_fates"]
    for name, low in {"fate_proportions": 0.0, "growth": -100.0}.items():
        if name in given:
            values = _numbers(given[name], name, low)
            if len(values) != n_fates or (name == "fate_proportions" and (values <= 0).any()):
                sort = "positive numbers" if name == "fate_proportions" else "numbers"
                raise ValueError(
                    f"{name}={list(given[name])}: expected {sort}, one for each of the n_fates={n_fates} fates."
                )
    if "branch_times" in given:
        when = given["branch_times"]
        when = _numbers(when if isinstance(when, (Sequence, np.ndarray)) else [when], "branch_times", -np.inf)
        if len(when) not in (1, n_fates - 1) or (np.diff(when) <= 0).any():
            raise ValueError(
                f"branch_times={given['branch_times']!r}: expected one time, when all fates part, or n_fates - 1 = "
                f"{n_fates - 1} ascending ones, at each of which one fate parts."
            )
        if when[0] < moments[0] or when[-1] > moments[-1]:
            raise ValueError(
                f"branch_times={given['branch_times']!r}: expected times from {moments[0]:g} to {moments[-1]:g}, the first "
                "and the last snapshot."
            )


def _one_or_each(value: object, name: str, n: int) -> list[object]:
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str):
        return [value]
    if len(value) != n:
        raise ValueError(f"{name} has {len(value)} values: expected one, or one for each of the {n} times.")
    return list(value)


def _numbers(values: Any, name: str, low: float) -> FloatArray:
    if isinstance(values, (str, int, float)):
        raise ValueError(f"{name}={values!r}: expected a sequence of numbers.")
    for value in values:
        check_number(value, name, low, np.inf)
    return np.array(values, dtype=np.float64)
