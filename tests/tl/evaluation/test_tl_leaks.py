"""Leak checks of tl.evaluate: what was copied or reconstructed is found, honest predictions are not."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.data import shift_cells
from scjepa.tl import evaluate

ARGUMENTS = {"perturbation_key": "p", "metrics": ["l2"], "baselines": None, "ceiling": False}


@pytest.fixture
def screen() -> ad.AnnData:
    """Sparse log-normalised cells with two directions of variation, and one perturbation held out."""
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "A", "B"], 60)
    mean = np.exp(rng.normal(0, 1, 80) + rng.normal(size=(180, 2)) @ rng.normal(0, 0.4, (2, 80)))
    mean[label == "A", :10] *= 4
    x = np.log1p(rng.poisson(mean)).astype(np.float32)
    return ad.AnnData(sp.csr_matrix(x), obs=pd.DataFrame({"p": label}, index=[f"c{i}" for i in range(180)]))


def predicted(screen: ad.AnnData, x: np.ndarray, names: list[str] | None = None) -> ad.AnnData:
    index = names or [f"n{i}" for i in range(x.shape[0])]
    return ad.AnnData(x, obs=pd.DataFrame({"p": ["A"] * x.shape[0]}, index=index), var=screen.var)


def cells(screen: ad.AnnData, label: str) -> np.ndarray:
    return screen[screen.obs["p"] == label].X.toarray()


def leaks(pred: ad.AnnData, screen: ad.AnnData, **more) -> pd.DataFrame:
    evaluate(pred, screen, **ARGUMENTS, **more)
    return pred.uns["jepa"]["leak_checks"]


def test_honest_predictions_pass_without_a_warning(screen):
    rng = np.random.default_rng(1)
    effect = cells(screen, "A").mean(0) - cells(screen, "control").mean(0)
    moved = shift_cells(cells(screen, "control"), effect)
    noise = np.maximum(cells(screen, "A").mean(0) + rng.normal(0, 0.3, (60, 80)), 0)  # right mean, nobody's cells
    for x in (moved, noise, cells(screen, "A").mean(0, keepdims=True)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = leaks(predicted(screen, x), screen)
        assert len(found) == 0 and list(found.columns) == ["check", "perturbation", "context", "cells", "share"]


def test_copied_cells_are_found_in_any_order_and_form(screen):
    x = cells(screen, "A").astype(np.float64)[::-1].copy()
    x[:15] = shift_cells(cells(screen, "control")[:15], np.full(80, 0.1))
    for form in (x, sp.csc_matrix(x)):
        with pytest.warns(UserWarning, match="1 of 1 predicted conditions hold predicted cells that equal measured"):
            found = leaks(predicted(screen, form), screen)
        assert found[["check", "cells", "share"]].values.tolist() == [["identical cells", 45, 0.75]]


def test_reconstructions_are_found_by_position_and_by_name(screen):
    x = cells(screen, "A")
    u, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    smooth = np.maximum(x.mean(0) + (u[:, :5] * s[:5]) @ v[:5], 0)  # what an autoencoder gives back
    with pytest.warns(UserWarning, match="follow the measured ones cell by cell: they look reconstructed"):
        found = leaks(predicted(screen, smooth), screen)
    assert found["check"].tolist() == ["reconstruction"] and found["share"].item() > 0.3
    names = screen.obs_names[screen.obs["p"] == "A"].tolist()
    order = np.random.default_rng(2).permutation(60)[:40]
    with pytest.warns(UserWarning, match="cell by cell"):
        found = leaks(predicted(screen, smooth[order], [names[i] for i in order]), screen)
    assert found["check"].tolist() == ["reconstruction"]


def test_held_out_cells_under_another_label_in_train(screen):
    train = screen[screen.obs["p"] != "A"].copy()
    smuggled = screen[screen.obs["p"] == "A"][:7].copy()
    smuggled.obs["p"] = "B"
    train = ad.concat([train, smuggled])
    train.obs_names_make_unique()
    pred = predicted(screen, shift_cells(cells(screen, "control"), np.full(80, 0.1)))
    with pytest.warns(UserWarning, match="have measured cells that are also among those of train"):
        found = leaks(pred, screen, train=train)
    assert found[["check", "cells"]].values.tolist() == [["held-out cells in train", 7]]


def test_one_profile_repeated(screen):
    x = np.repeat(cells(screen, "A").mean(0, keepdims=True), 20, axis=0)
    with pytest.warns(UserWarning, match="have predicted cells that are all the same"):
        found = leaks(predicted(screen, x), screen)
    assert found["check"].tolist() == ["one profile"]


def test_conditions_of_the_record_are_listed(screen):
    pred = predicted(screen, shift_cells(cells(screen, "control"), np.full(80, 0.1)))
    pred.uns["jepa"] = {"prediction": {"perturbation_key": "p", "context_key": "", "train": ["A", "B"]}}
    with pytest.warns(UserWarning, match="1 predicted conditions were seen in training: 'A'") as caught:
        found = leaks(pred, screen)
    assert found[["check", "perturbation", "cells"]].values.tolist() == [["trained on", "A", 60]]
    assert sum("predicted conditions" in str(w.message) for w in caught) == 1  # said once
