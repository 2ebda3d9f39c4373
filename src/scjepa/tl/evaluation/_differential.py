"""Differential expression of predictions, baselines, halves of the real cells and the truth, against their controls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.stats import false_discovery_control, ttest_ind_from_stats

from scjepa._types import FloatArray, IntArray, Matrix
from scjepa.data._conditions import weighted_means
from scjepa.tl.evaluation._ceiling import FEW_REPEATS, MIN_CELLS, split_in_halves
from scjepa.tl.evaluation._contenders import Contenders, dense
from scjepa.tl.evaluation._gene_tests import compare, prepare_controls
from scjepa.tl.evaluation._profiles import CEILING

logger = logging.getLogger(__name__)

Definition = Literal["fold_change", "test"]
DEFINITIONS: tuple[Definition, ...] = ("fold_change", "test")
GeneTest = Literal["wilcoxon", "t-test", "t-test_overestim_var"]
TESTS: tuple[str, ...] = get_args(GeneTest)


class Genes(NamedTuple):
    """``(conditions, genes)`` each: log2 fold changes and, if tested, false discovery rates (NaN: too few cells)."""

    lfc: FloatArray
    fdr: FloatArray | None

    def of(self, rows: IntArray) -> Genes:
        """Return some of the conditions."""
        return Genes(self.lfc[rows], None if self.fdr is None else self.fdr[rows])


class Compared(NamedTuple):
    """One method on the conditions ``rows`` of ``pred`` that it has a prediction for, and the truth of these.

    The replicate ceiling comes several times, one half of the cells as the prediction of the other.
    """

    method: str
    kind: str
    rows: IntArray
    pred: Genes
    true: Genes


def check_rates(threshold: float, pseudocount: float, fdr: float) -> None:
    """Raise unless the definition of a differentially expressed gene makes sense."""
    if not threshold > 1:
        raise ValueError(f"threshold={threshold:g}: expected a fold change above 1, for example 1.5.")
    if not pseudocount > 0:
        raise ValueError(f"pseudocount={pseudocount:g}: expected a number above 0; 1e-9 is what scanpy adds.")
    if not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr:g}: expected a rate between 0 and 1, for example 0.05.")


def beyond(log2fc: FloatArray, threshold: float) -> npt.NDArray[np.bool_]:
    """Return which genes change by more than ``threshold`` times, up or down."""
    return np.abs(log2fc) > np.log2(threshold)


def compare_genes(who: Contenders, *, pseudocount: float, test: str | None, ceiling: bool) -> Iterator[Compared]:
    r"""Yield the predicted and the true changes of genes, method by method.

    Log fold changes are :math:`\log_2 (e^{\bar x} - 1 + \epsilon) - \log_2 (e^{\bar x_{ctrl}} - 1 + \epsilon)` with
    means of log-normalised values, as in scanpy; a baseline needs no cells for them.

    Parameters
    ----------
    who
        Predicted and real cells, effects of baselines.
    pseudocount
        :math:`\epsilon`.
    test
        Test of cells against controls, None for fold changes only. A baseline moves the real controls, as many as
        cells were measured: a test knows their number.
    ceiling
        Whether to split the real cells in halves, which are compared with the same controls.
    """
    linear = lambda mean: np.log2(np.maximum(np.expm1(mean), 0) + pseudocount)
    base = linear(who.truth.control)
    tests = None if test is None else _Tests(who, test)
    true = Genes(linear(who.true_means) - base, None if tests is None else tests.of("", np.arange(len(who.rows))))
    for method in who.methods:
        rows = np.flatnonzero(who.predicts(method))
        if not len(rows):
            continue
        mean, _, control = who.mean_effects(method)
        lfc = linear(mean[rows]) - linear(control[rows])
        yield Compared(
            method,
            "model" if method == who.method else "baseline",
            rows,
            Genes(lfc, None if tests is None else tests.of(method, rows)),
            true.of(rows),
        )
    cells = [who.true_cells(i) for i in range(len(who.rows))]
    rows = np.flatnonzero([len(c) >= MIN_CELLS for c in cells])
    if not ceiling or not len(rows):
        return
    first = {i: split_in_halves(who.real_names[cells[i]], who.seed) for i in rows}
    for r in range(FEW_REPEATS):
        sides = []
        for of_first in (True, False):
            half = [cells[i][first[i][r] == of_first] for i in rows]
            mean = weighted_means(who.measured.x, [(c, np.full(len(c), 1 / len(c))) for c in half])
            fdr = None if tests is None else tests.fdr(rows, partial(_subset, who, half))
            sides.append(Genes(linear(mean) - base[rows], fdr))
        yield Compared(CEILING, "ceiling", rows, *sides)


def _subset(who: Contenders, groups: list[IntArray], j: int) -> Matrix:
    return who.measured.x[who.some(groups[j])]


class _Tests:
    """Tests of cells against the controls of their context, which are prepared once."""

    def __init__(self, who: Contenders, test: str):
        self.who, self.test = who, test
        self.controls: dict[tuple[str, bool], Callable[[Matrix], FloatArray | None]] = {}
        self.start: dict[str, FloatArray] = {}

    def of(self, method: str, rows: IntArray) -> FloatArray:
        """Return the rates of a method, of the truth for ``""``."""
        who = self.who
        if not method:
            return self.fdr(rows, lambda j: who.measured.x[who.some(who.true_cells(rows[j]))])
        if method == who.method:
            nothing = np.empty((0, 0))
            return self.fdr(rows, lambda j: who.cells(method, rows[j], nothing), own=True)
        return self.fdr(rows, lambda j: self._moved(method, rows[j]))

    def _moved(self, method: str, i: int) -> Matrix:
        """Return controls moved by a baseline, as many as cells were measured."""
        context = self.who.contexts[i]
        if context not in self.start:
            self.start[context] = dense(self.who.controls(context))
        start, n = self.start[context], len(self.who.some(self.who.true_cells(i)))
        return self.who.cells(method, i, start[np.random.default_rng(self.who.seed).permutation(len(start))[:n]])

    def fdr(self, rows: IntArray, cells: Callable[[int], Matrix], *, own: bool = False) -> FloatArray:
        """Test ``cells(j)`` of each row; NaN where there are fewer than two cells on a side."""
        out = np.full((len(rows), self.who.true_means.shape[1]), np.nan)
        for j, i in enumerate(rows):
            against = self._against(self.who.contexts[i], own)
            found = against(cells(j))
            if found is not None:
                out[j] = found
        few = int(np.isnan(out).all(1).sum())
        if few:
            logger.info("%d of %d conditions have fewer than 2 cells or controls: no test.", few, len(out))
        return out

    def _against(self, context: str, own: bool) -> Callable[[Matrix], FloatArray | None]:
        own = own and context in self.who.predicted.groups.controls
        if (context, own) not in self.controls:
            control = self.who.controls(context, own=own)
            self.controls[context, own] = _wilcoxon(control) if self.test == "wilcoxon" else _welch(control, self.test)
        return self.controls[context, own]


def _wilcoxon(control: Matrix) -> Callable[[Matrix], FloatArray | None]:
    prepared = prepare_controls(control)

    def test(cells: Matrix) -> FloatArray | None:
        found = compare(cells, prepared)
        return None if found is None else found[1]

    return test


def _welch(control: Matrix, name: str) -> Callable[[Matrix], FloatArray | None]:
    """Welch's t-test as scanpy computes it; ``"t-test_overestim_var"`` gives the controls the size of the cells."""
    mean, std, n = _moments(control)

    def test(cells: Matrix) -> FloatArray | None:
        if cells.shape[0] < 2 or n < 2:
            return None
        own_mean, own_std, own_n = _moments(cells)
        m = own_n if name == "t-test_overestim_var" else n
        with np.errstate(divide="ignore", invalid="ignore"):
            p = ttest_ind_from_stats(own_mean, own_std, own_n, mean, std, m, equal_var=False).pvalue
        return false_discovery_control(np.nan_to_num(p, nan=1.0))  # genes that are equal everywhere are not found

    return test


def _moments(x: Any) -> tuple[FloatArray, npt.NDArray[np.float64], int]:
    """Return means and standard deviations of genes, and the number of cells."""
    n = x.shape[0]
    mean = np.asarray(x.mean(0, dtype=np.float64), dtype=np.float64).ravel()
    square = x.multiply(x) if sp.issparse(x) else np.square(np.asarray(x, dtype=np.float64))
    second = np.asarray(square.mean(0, dtype=np.float64), dtype=np.float64).ravel()
    variance = np.maximum(second - mean**2, 0) * n / max(n - 1, 1)
    return mean, np.sqrt(variance), n
