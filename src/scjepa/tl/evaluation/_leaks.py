"""Leak checks: signs that a prediction has seen what it is scored on."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray, IntArray, Matrix
from scjepa.tl.evaluation._contenders import Contenders, dense

COLUMNS = ["check", "perturbation", "context", "cells", "share"]
MATCHED = 400
"""Pairs of cells per condition that are correlated."""
THRESHOLD = 0.1
"""Mean correlation, above that of cells paired at random, beyond which predicted cells follow the real ones."""


def find_leaks(who: Contenders) -> pd.DataFrame:
    r"""Look for predictions that were made from the cells they are scored on; warn of each kind that is found.

    - ``"trained on"``: conditions that the record of the prediction counts among the training conditions (warned of
      where the record is read; an explicit ``train=`` with such conditions is an error).
    - ``"identical cells"``: predicted cells that equal a real cell of the same condition in every gene.
    - ``"reconstruction"``: predicted cells that follow the real cells of the condition one by one (as the output of an
      autoencoder does that was given the perturbed cells instead of controls). Cells are paired by name, or by position
      where the numbers agree; what pairs share beyond the mean of the condition has a correlation near zero for
      any counterfactual. Found where its mean exceeds that of pairs shifted by one by 0.1 and by five standard errors.
    - ``"held-out cells in train"``: training cells (``train=``) that equal a real cell of a predicted condition.
    - ``"one profile"``: two or more predicted cells of a condition that are all the same. No leak, but scores of
      cells and tests of genes mean nothing then.

    Parameters
    ----------
    who
        Prediction and truth.

    Returns
    -------
    One row per finding: ``check``, ``perturbation``, ``context``, ``cells`` (how many), ``share`` (of the predicted
    cells; for ``"reconstruction"`` the correlation). Empty if nothing was found.
    """
    rows: list[tuple] = []
    directions = np.random.default_rng(0).normal(size=(who.measured.x.shape[1], 2))
    code_pred, code_real = (_codes(x, directions) for x in (who.predicted.x, who.measured.x))
    code_train = None if who.seen is who.measured else _codes(who.seen.x, directions)
    trained = set(who.trained.tolist()) if who.seen is who.measured else set()
    for i, (name, context) in enumerate(zip(who.names, who.contexts, strict=True)):
        if int(who.rows[i]) in trained:
            rows.append(("trained on", name, context, len(who.predicted.groups.cells[i]), 1.0))
        mine, real = who.predicted.groups.cells[i], who.true_cells(i)
        if len(mine) > 1 and np.ptp(code_pred[mine], axis=0).max() == 0:
            rows.append(("one profile", name, context, len(mine), 1.0))
        same = _equal(code_pred[mine], code_real[real])
        # a profile per condition is compared with profiles: equality is a perfect prediction there
        if same.any() and len(real) > 1:
            rows.append(("identical cells", name, context, int(same.sum()), float(same.mean())))
        else:
            r = _following(who, mine, real)
            if r is not None:
                rows.append(("reconstruction", name, context, len(mine), r))
        if code_train is not None:
            again = _equal(code_real[real], code_train)
            if again.any():
                rows.append(("held-out cells in train", name, context, int(again.sum()), float(again.mean())))
    leaks = pd.DataFrame(rows, columns=COLUMNS)
    _warn(leaks, len(who.rows))
    return leaks.rename(index=str)


MEANING = {
    "identical cells": "hold predicted cells that equal measured ones in every gene: the answer was copied",
    "reconstruction": "have predicted cells that follow the measured ones cell by cell: they look reconstructed from "
    "the perturbed cells, not predicted from controls",
    "held-out cells in train": "have measured cells that are also among those of train, under another label",
    "one profile": "have predicted cells that are all the same: scores of cells and tests of genes mean nothing",
}


def _warn(leaks: pd.DataFrame, n: int) -> None:
    for check, part in leaks[leaks["check"] != "trained on"].groupby("check", sort=False):
        names = list(dict.fromkeys(part["perturbation"]))
        warnings.warn(
            f"{len(part)} of {n} predicted conditions {MEANING[str(check)]}: {some(names)}.", UserWarning, stacklevel=4
        )


def _codes(x: Matrix, directions: FloatArray) -> FloatArray:
    """Return two numbers per cell that equal cells share, and practically no others: random projections."""
    x = x.astype(np.float32)  # files and concatenation change the precision of cells that are the same
    return np.asarray(x @ directions)


def _equal(codes: FloatArray, among: FloatArray) -> np.ndarray:
    """Return which ``codes`` are, up to rounding, in ``among``; cells without any expression don't count."""
    among = among[np.argsort(among[:, 0], kind="stable")]
    place = np.searchsorted(among[:, 0], codes[:, 0])
    near = [np.abs(among[np.clip(place - k, 0, len(among) - 1)] - codes).max(1) for k in (0, 1)]
    return (np.minimum(*near) <= 1e-7 * np.abs(among).max()) & (codes != 0).any(1)


def _following(who: Contenders, mine: IntArray, real: IntArray) -> float | None:
    """Return the mean correlation of predicted cells with those they are paired with, if it gives them away."""
    pairs = _pairs(who, mine, real)
    if pairs is None:
        return None
    a, b = (_standard(dense(x[cells])) for x, cells in zip((who.predicted.x, who.measured.x), pairs, strict=True))
    paired, shifted = (a * b).sum(1), (a * np.roll(b, 1, axis=0)).sum(1)
    difference = paired - shifted
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    excess = float(difference.mean())
    return float(paired.mean()) if excess > THRESHOLD and excess > 5 * error else None


def _pairs(who: Contenders, mine: IntArray, real: IntArray) -> tuple[IntArray, IntArray] | None:
    """Pair cells by name or, where the numbers agree, by position; None with fewer than five pairs."""
    names = who.predicted_names[mine]
    place = pd.Index(who.real_names[real])
    if place.is_unique:
        found = place.get_indexer(names)
        if (found >= 0).sum() >= 5:
            return mine[found >= 0][:MATCHED], real[found[found >= 0]][:MATCHED]
    return (mine[:MATCHED], real[:MATCHED]) if len(mine) == len(real) >= 5 else None


def _standard(cells: FloatArray) -> FloatArray:
    """Take the mean of the condition off, and scale each cell to length one."""
    rest = cells - cells.mean(0)
    rest -= rest.mean(1, keepdims=True)
    size = np.linalg.norm(rest, axis=1, keepdims=True)
    return np.divide(rest, size, out=np.zeros_like(rest), where=size > 1e-9)
