"""Distances from training and the choice of calibration rows, on tables with known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import KernelEffect, MeanEffect
from scjepa.baselines._selection import joint_kernels
from scjepa.baselines._support import left_out_predictions, left_together, own_values, rows_like, unexplained


@pytest.fixture
def featured(make_screen):
    table = make_screen(0)
    rng = np.random.default_rng(1)
    features = pd.DataFrame(rng.normal(size=(10, 4)), index=[f"G{i}" for i in range(8)] + ["near", "far"])
    features.loc["near"] = features.loc["G0"]
    features.loc["far"] = 0.0
    return table, KernelEffect(features=features).fit(table)


def test_own_values_are_the_diagonal_of_the_training_block(featured) -> None:
    table, model = featured
    rows, gram = model._training.rows, table.effects @ table.effects.T
    noise = np.full(len(table), 0.1)
    kernels = dict(joint_kernels(rows, rows, gram, 8, True, noise))
    own = own_values(rows, rows, gram, 8, True, 0.0, noise)
    assert list(own) == list(kernels)
    for name, (among, _) in kernels.items():
        assert np.allclose(own[name], among.diagonal()), name


def test_own_values_with_contexts(make_table) -> None:
    control = np.arange(12.0).reshape(4, 3) ** 1.5
    table = make_table(["A", "B", "A", "A+B"], np.ones((4, 3)), contexts=["x", "x", "y", "y"], control=control)
    model = KernelEffect().fit(table)
    inputs = (model._training.rows, model._training.rows, model._training.gram, 8, True)
    kernels = dict(joint_kernels(*inputs, np.full(4, 0.1)))
    own = own_values(*inputs, 0.0, np.full(4, 0.1))
    assert list(own) == list(kernels) and "additive~ x context" in own
    for name, value in own.items():
        assert np.allclose(value, kernels[name][0].diagonal()), name


def test_distance_is_the_share_of_variance_left_by_hand(make_table) -> None:
    """One single measured twice, additive kernel, lambda 1: K = [[1, 1], [1, 1]], k K^-1 k = 2/3, d = 1 - (2/3) / 2."""
    model = KernelEffect().fit(make_table(["A", "A"], np.ones((2, 2))))
    rows = model._training.rows
    inputs = (rows, rows.take(np.array([0])), model._training.gram, [[None, "additive", 1.0, 1.0, False]], 8, True, 0.0)
    assert unexplained(*inputs, np.ones(2), None) == pytest.approx([2 / 3])
    # of two rows the first has twice the noise: k (K + S)^-1 k' = (1/2 + 1) / (1 + 1/2 + 1)
    assert unexplained(*inputs, np.ones(2), np.diag([2.0, 1.0])) == pytest.approx([1 - 0.6 / 2])


def test_trained_rows_are_nearer_than_when_left_out(featured) -> None:
    table, model = featured
    inside, outside = model.distances(table), model.left_out_distances()
    assert ((inside > 0) & (inside < outside) & (outside <= 1)).all()


def test_features_tell_near_from_far(featured, make_table) -> None:
    """Where the mixture reads features; by the additive kernel alone all unseen genes are equally far."""
    _, model = featured
    model.picks_["unseen"]["mixture"] = [[None, "features", 0.1, 1.0, False]]
    near, far, lost = model.distances(make_table(["near", "far", "nobody"], n_genes=40))
    assert 0 < near < far <= 1
    assert np.isnan(lost)
    model.picks_["unseen"]["mixture"] = [[None, "additive", 0.1, 1.0, False]]
    assert model.distances(make_table(["near", "far"], n_genes=40)).tolist() == [1.0, 1.0]


def test_left_out_rows_of_a_gene_and_of_a_context(make_table) -> None:
    table = make_table(["A", "A+B", "B", "C"], np.ones((4, 2)), contexts=["x", "x", "y", "y"])
    assert left_together(table, "unseen").tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert left_together(table, "context")[0].tolist() == [True, True, False, False]


def test_rows_most_like_the_question_come_first(make_table) -> None:
    labels = ["A", "B", "C", "A+B", "A+C", "B+C", "D+E", "D+A"]
    table = make_table(labels, np.arange(16.0).reshape(8, 2))
    every = np.ones(8, bool)
    like = lambda cls, combinations, usable=every: np.flatnonzero(
        rows_like(table, cls, combinations=combinations, usable=usable)
    ).tolist()
    assert like("combination", True) == [3, 4, 5]  # both genes alone in the rest
    assert like("combination", True, np.array([1, 1, 1, 1, 1, 0, 1, 1], bool)) == [
        3,
        4,
        7,
    ]  # two are too few; E is only in D+E
    assert like("single", False) == [0, 1, 2]
    assert like("unseen", False) == [0, 1, 2]
    assert like("unseen", True) == [3, 4, 5, 6, 7]


def test_other_baselines_are_fitted_again_without_the_row(make_table) -> None:
    table = make_table(["A", "B", "C"], [[0.0, 3.0], [2.0, 3.0], [4.0, 9.0]])
    assert left_out_predictions(MeanEffect, table, "single").tolist() == [[3.0, 6.0], [2.0, 6.0], [1.0, 3.0]]
