"""pl.history: stages, diagnostics, the names scvi-tools and scjepa use."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scjepa import pl


def frame(*values: float) -> pd.DataFrame:
    return pd.DataFrame({"v": values}, index=pd.RangeIndex(len(values), name="epoch"))


@pytest.fixture
def two_stages() -> dict[str, pd.DataFrame]:
    return {
        "encoder_train_loss": frame(3, 2, 1),
        "encoder_validation_loss": frame(4, 3, 2),
        "encoder_invariance_train": frame(1, 1, 1),
        "encoder_rankme": frame(5, 10, 20),
        "predictor_train_loss": frame(0.9, 0.5),
        "train_loss": frame(0.9, 0.5),
    }


def lines(axis) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.lines}


def test_one_panel_per_stage_and_one_for_diagnostics(two_stages):
    axes = pl.history(two_stages).axes
    assert [a.get_title() for a in axes] == ["encoder loss", "predictor loss", "collapse diagnostics"]
    assert lines(axes[0]) == {"training": [3, 2, 1], "validation": [4, 3, 2]}
    assert lines(axes[1]) == {"training": [0.9, 0.5]}
    assert lines(axes[2]) == {"encoder rankme: 20": [0.25, 0.5, 1.0]}


def test_model_with_a_history(two_stages):
    axes = pl.history(SimpleNamespace(history=two_stages)).axes
    assert lines(axes[0])["validation"] == [4, 3, 2]


def test_nested_stages_are_the_same(two_stages):
    nested = {
        "encoder": {"train_loss": [3, 2, 1], "validation_loss": [4, 3, 2], "rankme": [5, 10, 20]},
        "predictor": {"train_loss": [0.9, 0.5]},
    }
    a, b = pl.history(nested).axes, pl.history(two_stages).axes
    assert [x.get_title() for x in a] == [x.get_title() for x in b]
    assert [lines(x) for x in a] == [lines(x) for x in b]


def test_names_of_scvi_tools():
    record = {"train_loss_epoch": frame(2, 1), "train_loss_step": frame(9, 9, 9), "validation_loss": frame(3, 2)}
    axes = pl.history(record).axes
    assert len(axes) == 1
    assert lines(axes[0]) == {"training": [2, 1], "validation": [3, 2]}


def test_epochs_come_from_the_index_and_gaps_are_skipped():
    record = {"train_loss": pd.Series([2.0, np.nan, 1.0], index=[10, 11, 12])}
    line = pl.history(record).axes[0].lines[0]
    assert list(line.get_xdata()) == [10, 12] and list(line.get_ydata()) == [2, 1]


def test_zero_diagnostic_does_not_divide_by_zero():
    assert lines(pl.history({"train_loss": [1.0], "std": [0.0, 0.0]}).axes[1]) == {"std: 0": [0, 0]}


def test_file(two_stages, tmp_path):
    pl.history(two_stages, save=tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("source", [{}, SimpleNamespace(history=None), SimpleNamespace()])
def test_no_history(source):
    with pytest.raises(ValueError, match="no training history to draw: train the model first"):
        pl.history(source)


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="no losses or diagnostics.*Names found: train_loss_step"):
        pl.history({"train_loss_step": [1.0]})
