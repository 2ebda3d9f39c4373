"""The kernel anchor on large tables: parts of a screen, landmarks, and what they cost; sizes are lowered to test it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.baselines import KernelEffect
from scjepa.baselines._folds import supported_rows
from scjepa.baselines._kernels import single_components
from scjepa.baselines._landmarks import LandmarkRidge
from scjepa.baselines._large import Blocks, blocks_of, connected, grouped, large_components
from scjepa.baselines._noise import NoiseModel, amplitudes, large_amplitudes, row_covariance, row_variances
from scjepa.baselines._selection import joint_kernels
from scjepa.baselines._support import own_values
from scjepa.baselines._training import Training
from scjepa.data import ConditionTable


def screen(
    n_genes: int = 40, n_singles: int = 60, n_doubles: int = 20, contexts: tuple[str, ...] = ("x",)
) -> ConditionTable:
    """Simulate a noisy screen of programs: singles in every context, doubles in the first."""
    rng = np.random.default_rng(0)
    single = rng.normal(size=(n_singles, 4)) @ rng.normal(size=(4, n_genes)) * rng.gamma(1, 0.2, (n_singles, 1))
    pairs = [sorted(rng.choice(n_singles, 2, replace=False).tolist()) for _ in range(n_doubles)]
    actions = [(j,) for _ in contexts for j in range(n_singles)] + [tuple(pair) for pair in pairs]
    place = np.repeat(np.arange(len(contexts)), n_singles).tolist() + [0] * n_doubles
    control = 2 + 0.2 * rng.normal(size=(len(contexts), n_genes))[place]
    cells = rng.integers(10, 100, len(actions))
    effects = np.array([single[[*a]].sum(0) * (1 + 0.3 * c) for a, c in zip(actions, place, strict=True)])
    noise = rng.normal(size=effects.shape) * np.sqrt(0.2 / cells)[:, None]
    return ConditionTable(
        tuple(tuple(f"G{j:03d}" for j in a) for a in actions),
        np.array([contexts[c] for c in place], dtype=object),
        control,
        np.maximum(control + effects + noise, 0),
        cells,
        variance=np.full(n_genes, 0.2),
        n_controls=np.full(len(actions), 30.0),
    )


@pytest.fixture
def shrink(monkeypatch):
    """Return what lowers the sizes from which tables are large and the number of landmarks."""

    def lower(landmarks: int, large: int = 20) -> None:
        monkeypatch.setattr("scjepa.baselines._large.LARGE", large)
        monkeypatch.setattr("scjepa.baselines._landmarks.LANDMARKS", landmarks)

    return lower


def questions(table: ConditionTable) -> ConditionTable:
    """Doubles never measured, singles measured elsewhere, a new context, a gene never perturbed, and one nobody knows."""
    actions = (("G000", "G005"), ("G001", "G007"), ("G003",), ("G002",), ("new",), ("nobody",))
    contexts = np.array(["x", "x", "x", "elsewhere", "x", "x"], dtype=object)
    return ConditionTable(actions, contexts, table.control[: len(actions)] * 1.01)


def answers(model: KernelEffect, query: ConditionTable) -> dict[str, np.ndarray]:
    """Everything that is asked of an anchor."""
    return {
        "effects": model.effects(query),
        "distances": model.distances(query),
        "fitted": model.fitted_effects(),
        "left out": model.left_out_effects(),
        "left out distances": model.left_out_distances(),
    }


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """Lengths of differences, of effects as shares of the expected; what is NaN must be so in both.

    Distances are shares themselves, near zero for what was measured: their mean absolute difference counts.
    """
    for name, value in expected.items():
        np.testing.assert_array_equal(np.isfinite(found[name]), np.isfinite(value), err_msg=name)
    size = lambda a: float(np.linalg.norm(np.nan_to_num(a)))
    return {
        name: float(np.nanmean(abs(found[name] - value)))
        if "distances" in name
        else size(found[name] - value) / size(value)
        for name, value in expected.items()
    }


# ------------------------------------------------------------------ parts of a screen
def test_blocks_are_the_inverse():
    rng = np.random.default_rng(0)
    design = sp.csr_array([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    rows, columns = connected(design)
    assert [sorted(index.tolist()) for index in grouped(rows)] == [[[1], [3]], [[0, 2, 4]]]
    assert columns[0] == columns[2] and len(set(columns.tolist())) == 3
    matrix, ridge = design @ design.T, rng.uniform(0.5, 1, 5)
    inverse = np.linalg.inv(matrix.toarray() + np.diag(ridge))
    for batched in (64, 2):  # small blocks together, larger ones by Cholesky
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("scjepa.baselines._large.BATCHED", batched)
            blocks = Blocks.of(blocks_of(matrix, grouped(rows)), ridge)
        assert len(blocks.large) == (batched == 2)
        right = rng.normal(size=(5, 3))
        np.testing.assert_allclose(blocks.solve(right), inverse @ right)
        first, second = blocks.diagonals()
        np.testing.assert_allclose(first, inverse.diagonal())
        np.testing.assert_allclose(second, (inverse @ inverse).diagonal())


@pytest.mark.parametrize("n_doubles", [0, 20, 200])
def test_amplitudes_and_components_are_the_exact_ones(n_doubles):
    table = screen(n_doubles=n_doubles)
    design, effects = Training(table, None, 8, True).rows.design, table.effects
    gram, noise = effects @ effects.T, np.random.default_rng(0).uniform(0.5, 2, len(table))
    found, expected = large_amplitudes(sp.csr_array(design), effects, noise), amplitudes(design, gram, noise)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-7)
    assert found[1] == pytest.approx(expected[1])
    ours, theirs = large_components(sp.csr_array(design), effects, 8), single_components(design, gram, 8)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-7)


def test_row_variances_add_up_to_the_covariance():
    contexts, own, shared = np.array(["x", "x", "y"]), np.array([1.0, 0.0, 3.0]), np.array([2.0, 1e-9, 1.0])
    alone, root = row_variances(own, shared)
    whole = np.diag(alone) + np.outer(root, root) * (contexts[:, None] == contexts)
    np.testing.assert_allclose(whole, row_covariance(own, shared, contexts))


def test_rows_that_a_fold_supports_by_hand():
    table = ConditionTable((("A",), ("B",), ("A", "B"), ("A", "C")), np.array(["x"] * 4), np.zeros((4, 1)))
    every = np.arange(4)
    folds = [(np.delete(every, test), np.array(test)) for test in ([0], [1, 2], [3])]
    assert supported_rows(table, folds).tolist() == [True, False, False, False]
    assert supported_rows(table, folds[:1] + [(np.delete(every, 2), np.array([2]))]).tolist() == [
        True,
        False,
        True,
        False,
    ]


# ------------------------------------------------------------------ through landmarks
@pytest.mark.parametrize("contexts", [("x",), ("x", "y", "z")])
def test_kernels_of_a_few_rows_by_every_name(contexts, shrink):
    """With as many landmarks as rows nothing is approximated: weights are those of the kernel as it stands."""
    shrink(1000)
    table, rng = screen(n_singles=20, n_doubles=8, contexts=contexts), np.random.default_rng(1)
    features = pd.DataFrame(rng.normal(size=(21, 3)), index=[*table.vocabulary(), "new"])
    data = Training(table, features, 8, True)
    asked = data.rows_of(questions(table))
    own, shared = rng.uniform(0.5, 2, len(table)), rng.uniform(0.5, 2, len(table))
    labels = table.contexts.astype(str)
    noise = NoiseModel(own + shared, parts=row_variances(own, shared))
    ridge = LandmarkRidge(data.rows, table.effects, noise, 8, True)
    dense, query = (replace(r, design=r.design.toarray()) for r in (data.rows, asked))
    gram = table.effects @ table.effects.T
    kernels = dict(joint_kernels(dense, query, gram, 8, True, noise.rows))
    itself = own_values(dense, query, gram, 8, True, 0.5, noise.rows)
    assert set(ridge.names) == set(kernels)
    for name, (among, across) in kernels.items():
        weights = across @ np.linalg.inv(among + 0.3 * row_covariance(own, shared, labels))
        np.testing.assert_allclose(ridge.weights(asked, name, 0.3), weights, atol=2e-4, err_msg=name)
        left = 1 - (weights * across).sum(1) / (itself[name] + 0.3)
        np.testing.assert_allclose(ridge.unexplained(asked, name, 0.3, 0.5), left, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("contexts", [("x",), ("x", "y", "z")])
@pytest.mark.parametrize(("landmarks", "most"), [(1000, 1e-3), (80, 0.08)])
def test_large_tables_are_answered_almost_as_the_exact_form_does(contexts, landmarks, most, shrink):
    table = screen(contexts=contexts)
    features = pd.DataFrame(np.random.default_rng(1).normal(size=(61, 3)), index=[*table.vocabulary(), "new"])
    exact = KernelEffect(features=features).fit(table)
    expected = answers(exact, questions(table))
    shrink(landmarks)
    large = KernelEffect(features=features).fit(table)
    for cls, pick in exact.picks_.items():  # the choice is made by the exact form; columns of the subset are fewer
        assert large.picks_[cls]["error"] == pytest.approx(pick["error"], rel=1e-3, nan_ok=True)
        assert large.picks_[cls]["misfit"] == pytest.approx(pick["misfit"], rel=1e-3)
    for name, difference in differences(answers(large, questions(table)), expected).items():
        assert difference < most, name
    assert large.supported_.tolist() == exact.supported_.tolist()


def test_combinations_that_connect_everything_are_exact(shrink):
    table = screen(n_singles=10, n_doubles=40)
    exact = KernelEffect().fit(table)
    query = questions(table)
    expected = answers(exact, query)
    shrink(15)
    large = KernelEffect().fit(table)
    large.picks_ = exact.picks_
    found = differences(answers(large, query), expected)
    assert max(found["fitted"], found["effects"], found["distances"]) < 1e-3


def test_answers_do_not_depend_on_portions_or_on_what_is_kept(shrink, monkeypatch):
    table = screen(contexts=("x", "y"))
    shrink(40)
    model = KernelEffect().fit(table)
    expected = model.fitted_effects()
    np.testing.assert_array_equal(model.fitted_effects(), expected)  # decompositions are there already
    monkeypatch.setattr("scjepa.baselines._training.MAX_WEIGHTS", 20_000)
    monkeypatch.setattr("scjepa.baselines._landmarks.CACHED", 1.0)
    again = KernelEffect.from_state(model.state())
    np.testing.assert_allclose(again.fitted_effects(), expected, atol=1e-5)
    np.testing.assert_allclose(again.distances(table), model.distances(table), atol=1e-8)


def test_profiles_without_cells_and_a_single_perturbation(shrink):
    shrink(15)
    table = replace(screen(contexts=("x", "y")), variance=None)
    assert np.isfinite(KernelEffect().fit(table).fitted_effects()).all()
    same = replace(table, actions=(("A",),) * len(table), dose=np.linspace(1, 5, len(table)))
    model = KernelEffect().fit(same)
    assert np.isfinite(model.fitted_effects()).all()
    assert np.isfinite(model.distances(same)).all()


# ------------------------------------------------------------------ memory
def test_nothing_of_size_conditions_by_conditions(shrink):
    """A screen of singles: fit and predictions stay below two matrices of conditions x conditions; were 20 of them."""
    table = screen(n_genes=30, n_singles=2_000, n_doubles=100)
    n = len(table)
    shrink(50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scjepa.baselines._kernel_effect.SELECTION_ROWS", 150)
        tracemalloc.start()
        model = KernelEffect(lambdas=(0.1, 1.0)).fit(table)
        model.effects(questions(table))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert model._training.gram is None
    assert peak < 2 * 8 * n**2
