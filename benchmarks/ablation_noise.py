"""Claim: every part of the anchor that knows its noise pays; each is switched off in turn, all else at its default.

Closed forms only. Sets: settings of ``perturb_noisy.py`` and the clean benchmarks (Norman in turn and together, CaRPool's
first half split, Kang's types in turn). Printed and saved (``ablation_noise.csv``): L2 over that of the default, of all
held-out conditions and of strong ones; the last columns are geometric means over the noisy, the clean, and all sets.

=============================  =========================================================================================
part switched off               what is done instead
=============================  =========================================================================================
all of it                       the table does not know its variance: rows, genes and the rule for nothing left out go
noise of rows                   every row is believed alike
misfit                          rows differ by sampling noise alone
amplitudes                      one prior variance for all perturbations
genes                           one strength for all genes
score                           geometric mean of errors over rows, as in 0.1
nothing left out                effects are hardly shrunken, as in 0.1
contexts must earn their place  kernels that look at control profiles compete like others
two contexts                    of two training contexts nothing looks at control profiles
=============================  =========================================================================================

Example::

    python benchmarks/ablation_noise.py --quick
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import perturb_context
import perturb_doubles
from _common import Columns, Run, parser, save, start
from _noisy_settings import settings

from scjepa.baselines import KernelEffect, _choosing, _kernel_effect, _noise, _selection
from scjepa.data import ConditionTable, condition_table

NOISY = (
    "norman-doubles-20", "norman-doubles-null-80", "replicates-2", "replicates-3-null-50", "replicates-3-10-cells",
    "pairs-3-null-50", "kang-20-null-50", "kang-2-types", "kang-half-swapped", "simulated-shared", "programmes-own-3",
    "programmes-told-3",
)  # fmt: skip
Split = tuple[ConditionTable, ConditionTable, np.ndarray, np.ndarray]
"""Training table, question, measured effects, which conditions are strong."""


def ignorant(table: ConditionTable) -> ConditionTable:
    """Return a table that does not know its variance."""
    return replace(table, variance=None)


def alike(model: _noise.NoiseModel) -> _noise.NoiseModel:
    """Return a model of noise in which all rows have the same."""
    return replace(model, covariance=None, parts=None)


@contextmanager
def patched(**constants: object) -> Iterator[None]:
    """Give constants of the anchor's files other values."""
    with ExitStack() as stack:
        for name, value in constants.items():
            for room in (_noise, _selection, _choosing, _kernel_effect):
                if hasattr(room, name):
                    stack.enter_context(patch.object(room, name, value))
        yield


def without_misfit(*args: object) -> float:
    """Stand in for the misfit."""
    return 0.0


def geometric(errors: np.ndarray, absolute: float) -> np.ndarray:
    """Return the logarithms of errors alone."""
    return np.log(errors + 1e-9 * errors.mean() + 1e-300)


def barely(links: object, strengths: object, **_: object) -> dict:
    """Return effects that are hardly shrunken."""
    return _selection.described([[links[0], "additive", min(strengths), 1.0, False]])  # type: ignore[index, arg-type]


def parts() -> dict[str, tuple[Callable[[ConditionTable], ConditionTable], dict[str, object]]]:
    """Return what is switched off: how the table is changed, and which constants."""
    same = lambda table: table
    real = _choosing.noise_of
    return {
        "nothing: the default": (same, {}),
        "all of it": (ignorant, {}),
        "noise of rows": (same, {"noise_of": lambda *args: alike(real(*args))}),
        "misfit": (same, {"misfit": without_misfit}),
        "amplitudes": (same, {"AMPLITUDE_FLOOR": 1.0}),
        "genes": (same, {"GENE_STEPS": 0}),
        "score": (same, {"log_errors": geometric}),
        "nothing left out": (same, {"unjudged": barely}),
        "contexts must earn their place": (same, {"MARGIN": 0.0}),
        "two contexts": (same, {"OF_TWO": 0.0}),
    }


def clean(folder: Path) -> dict[str, list[Split]]:
    """Return the clean benchmarks as tables."""

    def splits(runs: Iterator[Run] | list[Run], columns: Columns) -> list[Split]:
        out = []
        for run in runs:
            key, where, held = columns.perturbation, columns.context, run.held_out(columns)
            train, every = (condition_table(c, key, context_key=where) for c in (run.cells[~held], run.cells))
            known = {("+".join(a), str(c)) for a, c in zip(train.actions, train.contexts, strict=True)}
            asked = [("+".join(a), str(c)) not in known for a, c in zip(every.actions, every.contexts, strict=True)]
            truth = every.rows(np.array(asked))
            out.append((train, replace(truth, perturbed=None), truth.effects, np.ones(len(truth), bool)))
        return out

    return {
        "Norman in turn": splits(perturb_doubles.norman(folder, False), Columns("condition")),
        "Norman together": splits(perturb_doubles.norman(folder, True), Columns("condition")),
        "CaRPool": splits([next(perturb_doubles.carpool(folder, 1))], Columns("perturbation")),
        "Kang": splits(perturb_context.kang(folder), Columns("condition", context="cell_type")),
    }


def errors(splits: list[Split], change: Callable[[ConditionTable], ConditionTable]) -> np.ndarray:
    """Return mean L2 of all and of strong conditions, over splits."""
    found = []
    for table, query, truth, strong in splits:
        error = np.linalg.norm(KernelEffect().fit(change(table)).effects(query) - truth, axis=1)
        found.append([error.mean(), error[strong].mean() if strong.any() else np.nan])
    return np.nanmean(found, axis=0)


def main() -> None:
    """Run the benchmark."""
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="a third of the seeds")
    args = options.parse_args()
    start(args)
    sets = clean(args.data)
    n_clean = len(sets)
    for name in NOISY:
        setting = settings()[name]
        seeds = math.ceil(setting.seeds / (9 if args.quick else 3))
        cases = [case for seed in range(seeds) for case in setting.cases(args.data, seed)]
        sets[name] = [(c.table, c.query, c.truth, c.strong) for c in cases]
    rows: dict[str, list[np.ndarray]] = {}
    begin = time.perf_counter()
    for name, splits in sets.items():
        for part, (change, constants) in parts().items():
            with patched(**constants):
                rows.setdefault(part, []).append(errors(splits, change))
        print(f"   {name}: {len(splits)} splits, {time.perf_counter() - begin:.0f} s", flush=True)
    ratio = pd.DataFrame({p: np.array(v)[:, 0] for p, v in rows.items()}, index=list(sets)).T
    strong = pd.DataFrame({p: np.array(v)[:, 1] for p, v in rows.items()}, index=list(sets)).T
    table = ratio / ratio.iloc[0]
    mean = lambda part: np.exp(np.log(part).mean(axis=1))
    table["noisy"], table["clean"] = mean(table.iloc[:, n_clean : len(sets)]), mean(table.iloc[:, :n_clean])
    table["all"] = mean(table.iloc[:, : len(sets)])
    table["strong, noisy"] = mean((strong / strong.iloc[0]).iloc[:, n_clean:])
    table.index.name = "switched off"
    save(table.reset_index(), args.out, "ablation_noise.csv")
    print(table.T.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
