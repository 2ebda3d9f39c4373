"""Predicted cells without a model: which controls are moved, how far they may go, and the AnnData that comes out."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scjepa.model.conditions._design import Design, Question
from scjepa.model.conditions._mover import Answers
from scjepa.model.conditions._prediction import Sources, highest, move_cells, predicted_anndata, provenance
from scjepa.model.core import Reader

GENES = np.array(["a", "b", "c"])
QUESTIONS = [Question("A", ("A",), "y"), Question("A", ("A",), "x"), Question("B", ("B",), "y")]


def cells() -> ad.AnnData:
    x = np.random.default_rng(0).random((6, 3)).astype(np.float32) + 0.5
    return ad.AnnData(
        sp.csr_matrix(x), obs=pd.DataFrame(index=[f"cell {i}" for i in range(6)]), var=pd.DataFrame(index=GENES)
    )


@pytest.fixture
def sources() -> Sources:
    return Sources.read(cells(), Reader(GENES), {"x": np.array([5, 0]), "y": np.array([1, 2, 4])})


class ByAnchor:
    """Moves all cells as the full anchor says, and each a little more than the one before."""

    device = torch.device("cpu")

    def shift(self, x: torch.Tensor, question: Question, full, base, network: float) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        return torch.tensor(full, dtype=torch.float32) + network * torch.arange(len(x))[:, None]


# ---------------------------------------------------------------- sources
def test_controls_are_read_by_context(sources: Sources) -> None:
    x = cells().X.toarray()
    np.testing.assert_array_equal(sources.matrices["x"].rows(slice(None)), x[[5, 0]])
    np.testing.assert_array_equal(sources.matrices["y"].rows(slice(None)), x[[1, 2, 4]])
    assert sources.names[sources.positions["x"]].tolist() == ["cell 5", "cell 0"]


def test_profiles_are_the_means_that_questions_start_from(sources: Sources) -> None:
    x = cells().X.toarray().astype(np.float64)
    found = sources.profiles(QUESTIONS)
    np.testing.assert_allclose(found, [x[[1, 2, 4]].mean(0), x[[5, 0]].mean(0), x[[1, 2, 4]].mean(0)], rtol=1e-6)
    assert found.dtype == np.float64


def test_all_controls_are_drawn_unless_said(sources: Sources) -> None:
    assert {c: i.tolist() for c, i in sources.drawn(None, 0).items()} == {"x": [0, 1], "y": [0, 1, 2]}


def test_draws_repeat_only_where_there_are_too_few(sources: Sources) -> None:
    for seed in range(5):
        drawn = sources.drawn(2, seed)
        assert drawn["x"].tolist() == [0, 1] and len(set(drawn["y"])) == 2 and (np.diff(drawn["y"]) > 0).all()
    many = sources.drawn(50, 0)
    assert set(many["x"]) == {0, 1} and len(many["y"]) == 50 and (np.diff(many["y"]) >= 0).all()
    np.testing.assert_array_equal(many["y"], sources.drawn(50, 0)["y"])
    assert not np.array_equal(many["y"], sources.drawn(50, 1)["y"])


# ---------------------------------------------------------------- bounds and moving
def test_the_highest_mean_is_what_training_or_the_controls_show(sources: Sources) -> None:
    controls = sources.matrices["y"]
    own = controls.rows(slice(None)).max(0)
    trained = own + np.array([1.0, -1.0, 0.0], np.float32)
    np.testing.assert_allclose(highest(controls, trained), own + [1, 0, 0], rtol=1e-6)
    assert (highest(controls, None) == np.inf).all()
    assert highest(controls, trained).dtype == np.float64


def test_cells_are_moved_question_by_question(sources: Sources) -> None:
    start = {c: m.rows(slice(None)) for c, m in sources.matrices.items()}
    full = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    x, moved = move_cells(ByAnchor(), QUESTIONS, Answers(full, full, np.zeros(3)), start, None)
    np.testing.assert_allclose(x[:3], start["y"] + full[0], rtol=1e-6)
    np.testing.assert_allclose(x[3:5], start["x"] + full[1], rtol=1e-6)
    np.testing.assert_allclose(x[5:], start["y"] + full[2], rtol=1e-6)
    np.testing.assert_allclose(moved, full, atol=1e-6)


def test_shares_and_effects_belong_to_their_question(sources: Sources) -> None:
    start = {c: m.rows(slice(None)) for c, m in sources.matrices.items()}
    full = np.arange(9.0).reshape(3, 3) / 9
    network = np.array([0.0, 0.5, 1.0])
    whole = move_cells(ByAnchor(), QUESTIONS, Answers(full, full, network), start, None)
    order = [2, 0, 1]
    again = move_cells(
        ByAnchor(), [QUESTIONS[i] for i in order], Answers(full[order], full[order], network[order]), start, None
    )
    np.testing.assert_allclose(again[1], whole[1][order], atol=1e-6)
    np.testing.assert_allclose(whole[1] - full, [[0] * 3, [0.25] * 3, [1] * 3], atol=1e-6)  # mean of 0, .5; of 0, 1, 2


def test_moved_means_are_those_of_possible_cells(sources: Sources) -> None:
    """Beyond what is possible cells are not moved, and the effect says how far they came."""
    start = {c: m.rows(slice(None)) for c, m in sources.matrices.items()}
    full = np.tile([[9.0, -9.0, 0.1]], (3, 1))
    most = np.full(3, 2.0, np.float32)
    x, moved = move_cells(ByAnchor(), QUESTIONS, Answers(full, full, np.zeros(3)), start, most)
    assert (x >= 0).all() and (x <= 2).all()
    for i, q in enumerate(QUESTIONS):
        mean = start[q.context].mean(0)
        np.testing.assert_allclose(moved[i], [2 - mean[0], -mean[1], 0.1], atol=1e-5)


# ---------------------------------------------------------------- AnnData
DESIGN = Design("p", "ctl", context_key="line", dose_key="uM")


def predicted(design: Design = DESIGN, latents: np.ndarray | None = None) -> ad.AnnData:
    parts = [
        design.describe(Question("ctl", (), "x"), pd.Index(["c0", "c1"])),
        design.describe(Question("A", ("A",), "x", 2.0), pd.Index(["c0", "c0", "c1"])),
    ]
    return predicted_anndata(
        np.arange(15, dtype=np.float32).reshape(5, 3), pd.concat(parts), GENES, design, latents=latents,
        record={"model": "M"},
    )  # fmt: skip


def test_predictions_are_an_anndata_that_can_be_written(tmp_path) -> None:
    out = predicted(latents=np.ones((5, 2), np.float32))
    assert out.obs_names.tolist() == [f"prediction-{i}" for i in range(5)]
    assert out.var_names.tolist() == ["a", "b", "c"] and out.X.dtype == np.float32
    assert out.obs["p"].tolist() == ["ctl"] * 2 + ["A"] * 3 and out.obs["uM"].tolist() == [0, 0, 2, 2, 2]
    assert out.obs["source"].tolist() == ["c0", "c1", "c0", "c0", "c1"]
    assert out.obs["jepa_prediction"].tolist() == ["control"] * 2 + ["predicted"] * 3
    assert {n for n, t in out.obs.dtypes.items() if t == "category"} == {"p", "line", "jepa_prediction"}
    assert out.uns["jepa"] == {"prediction": {"model": "M"}}
    out.write_h5ad(tmp_path / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(again.X, out.X)
    np.testing.assert_array_equal(again.obsm["X_jepa"], out.obsm["X_jepa"])


def test_without_an_embedding_there_are_no_latents() -> None:
    assert list(predicted().obsm) == []


def test_provenance_says_who_what_and_from_what() -> None:
    frame = pd.DataFrame({"perturbation": ["A"], "context": ["x"], "n_cells": [3]}, index=[7])
    found = provenance("M", DESIGN, frame)
    train = found.pop("train")
    assert found.pop("scale") == "lognorm" and provenance("M", DESIGN, frame, "signature")["scale"] == "signature"
    keys = {"dose_key": "uM", "time_key": ""}
    assert found == {
        "model": "M",
        "perturbation_key": "p",
        "control": "ctl",
        "context_key": "line",
        "separator": "+",
        **keys,
    }
    assert train.to_dict("list") == {"perturbation": ["A"], "context": ["x"]} and train.index.tolist() == ["0"]
    assert provenance("M", Design("p"), frame)["context_key"] == ""  # h5ad has no None
