"""Matching mean, linear, kNN: hand-computed answers, independent implementations, where they apply."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import Additive, KNNEffect, Linear, MatchingMean, MeanEffect
from scjepa.data import ConditionTable

# ------------------------------------------------------------------ matching mean


def test_matching_mean_averages_the_singles_of_the_context(make_table):
    table = make_table(["A", "A", "B", "B", "C"], [1, 10, 2, 20, 6], contexts=["x", "y", "x", "y", "x"])
    query = make_table(["A+B", "A+B", "A+C", "A+B", "A+B+C"], contexts=["x", "y", "y", "new", "x"], n_genes=1)
    # A+C in y: A was measured there (10), C only in x (6); a new context: means 5.5 and 11
    assert MatchingMean().fit(table).effects(query).ravel().tolist() == pytest.approx([1.5, 15, 8, 8.25, 3])


def test_matching_mean_of_an_unseen_gene_is_the_overall_mean(make_table):
    table = make_table(["A", "B", "C+D"], [1, 2, 9])  # overall mean 4; C and D were not measured alone
    out = MatchingMean().fit(table).effects(make_table(["Z", "A+Z", "C+D", "A"], n_genes=1))
    assert out.ravel().tolist() == pytest.approx([4, 2.5, 4, 1])
    unseen = make_table(["Z", "Y+Z"], n_genes=1)
    np.testing.assert_allclose(MatchingMean().fit(table).effects(unseen), MeanEffect().fit(table).effects(unseen))


def test_matching_mean_is_half_of_additive_for_pairs(make_screen):
    table = make_screen(1)
    doubles = table.rows(table.order == 2)
    singles = table.rows(table.order == 1)
    half = Additive().fit(singles).effects(doubles) / 2
    np.testing.assert_allclose(MatchingMean().fit(singles).effects(doubles), half)


def test_matching_mean_uses_singles_of_the_same_kind_and_dose(make_table):
    kinds, doses = np.array(["KO", "OE", "KO", "KO"]), np.array([1.0, 1.0, 5.0, 1.0])
    table = make_table(["A", "A", "A", "B"], [1, -1, 7, 2], kind=kinds, dose=doses)
    query = make_table(["A+B", "A+B"], n_genes=1, kind=np.array(["KO", "OE"]), dose=np.ones(2))
    overall = ((1 - 1 + 7) / 3 + 2) / 2  # B as OE was not measured
    assert MatchingMean().fit(table).effects(query).ravel().tolist() == pytest.approx([1.5, (overall - 1) / 2])


# ------------------------------------------------------------------ linear


def screen_with_measured_targets(seed: int, n_genes: int = 30, n_perturbed: int = 12) -> ConditionTable:
    """Singles of measured genes whose effects depend linearly on hidden gene vectors, plus two doubles."""
    rng = np.random.default_rng(seed)
    genes = tuple(f"g{i}" for i in range(n_genes))
    actions = [(g,) for g in genes[:n_perturbed]] + [("g0", "g1"), ("g2", "g3")]
    control = rng.uniform(0, 3, n_genes)
    hidden = rng.normal(size=(n_genes, 3))
    vectors = np.array([sum(hidden[int(g[1:])] for g in a) for a in actions])
    effects = vectors @ rng.normal(size=(3, 3)) @ hidden.T / 5 + 0.05 * rng.normal(size=(len(actions), n_genes))
    n = len(actions)
    return ConditionTable(
        tuple(actions), np.array(["all"] * n), np.tile(control, (n, 1)), control + effects, genes=genes
    )


def literal_linear(table: ConditionTable, asked: list[tuple[str, ...]], d: int = 10, ridge: float = 0.1) -> np.ndarray:
    """The published script line by line: pseudobulks with the control, prcomp, solve_y_axb with explicit inverses."""
    x = np.vstack([table.perturbed, table.control[:1]]).T  # genes x conditions, the last is the control
    change = x - table.control[0][:, None]
    centered = x - x.mean(axis=0, keepdims=True)
    values, axes = np.linalg.eigh(centered.T @ centered)
    emb = centered @ axes[:, np.argsort(values)[::-1][:d]]  # prcomp(x)$x
    row = {g: emb[i] for i, g in enumerate(table.genes)}
    b_matrix = np.array([sum(row[g] for g in a) for a in table.actions] + [np.zeros(emb.shape[1])]).T
    center = change.mean(axis=1, keepdims=True)
    y = change - center
    left = np.linalg.inv(emb.T @ emb + ridge * np.eye(emb.shape[1]))
    right = np.linalg.inv(b_matrix @ b_matrix.T + ridge * np.eye(emb.shape[1]))
    k = left @ emb.T @ y @ b_matrix.T @ right
    return np.array([(emb @ k @ sum(row[g] for g in a)[:, None] + center)[:, 0] for a in asked])


@pytest.mark.parametrize(("d", "ridge"), [(10, 0.1), (3, 2.0)])
def test_linear_is_the_published_formula(d, ridge):
    table = screen_with_measured_targets(0)
    asked = [("g20",), ("g0", "g5"), ("g0",)]
    query = ConditionTable(tuple(asked), np.array(["all"] * 3), table.control[:3], genes=table.genes)
    expected = literal_linear(table, asked, d, ridge)
    np.testing.assert_allclose(Linear(d, ridge).fit(table).effects(query), expected, rtol=1e-7, atol=1e-9)


def test_linear_predicts_unseen_measured_genes_better_than_the_mean():
    table = screen_with_measured_targets(3, n_genes=60, n_perturbed=40)
    test = np.isin(np.arange(len(table)), [5, 11, 17, 23])
    train, query = table.rows(~test), table.rows(test)
    errors = [np.linalg.norm(cls().fit(train).effects(query) - query.effects) for cls in (Linear, MeanEffect)]
    assert errors[0] < 0.5 * errors[1]


def test_linear_does_not_apply_to_genes_that_are_not_measured():
    table = screen_with_measured_targets(0)
    actions = (("g20",), ("other",), ("g0", "other"))
    query = ConditionTable(actions, np.array(["all"] * 3), table.control[:3], genes=table.genes)
    assert Linear().fit(table).applies(query).tolist() == [True, False, False]


def test_linear_leaves_out_training_rows_of_unmeasured_genes():
    """They shape the gene vectors, as in the published script, but nothing is regressed on them."""
    table = screen_with_measured_targets(0)
    renamed = ConditionTable((("other",), *table.actions[1:]), table.contexts, table.control, table.perturbed,
                             genes=table.genes)  # fmt: skip
    x = np.vstack([table.perturbed, table.control[:1]]).T
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    emb = (u * s)[:, :10]
    usable = renamed.rows(np.arange(1, len(renamed)))
    p = np.array([sum(emb[int(g[1:])] for g in a) for a in usable.actions] + [np.zeros(10)]).T
    y = np.vstack([usable.effects, np.zeros(30)]).T
    center = y.mean(1)
    penalty = 0.1 * np.eye(10)
    k = np.linalg.inv(emb.T @ emb + penalty) @ emb.T @ (y - center[:, None]) @ p.T @ np.linalg.inv(p @ p.T + penalty)
    query = table.rows([0])
    np.testing.assert_allclose(Linear().fit(renamed).effects(query)[0], emb @ k @ emb[0] + center, rtol=1e-7, atol=1e-9)


def test_linear_without_any_measured_target_or_gene_names_is_nan(make_table):
    table = make_table(["A", "B"], [[1.0, 2.0], [0.0, 1.0]], genes=("g1", "g2"))
    assert np.isnan(Linear().fit(table).effects(table)).all()
    measured = make_table(["g1"], genes=("g1", "g2"))
    assert np.isnan(Linear().fit(table).effects(measured)).all()  # only controls to learn from
    assert np.isnan(Linear().fit(make_table(["A"], [[1.0, 2.0]])).effects(make_table(["A"]))).all()


# ------------------------------------------------------------------ kNN


def test_knn_averages_the_nearest_by_cosine(make_table):
    features = pd.DataFrame([[1, 0], [1, 1], [0, 3], [-1, 0], [2, 1]], index=list("ABCDQ"), dtype=float)
    table = make_table(["A", "B", "C", "D"], [1.0, 2.0, 4.0, 100.0])
    query = make_table(["Q"], n_genes=1)
    # cosines of Q: A .894, B .949, C .447, D negative
    got = [KNNEffect(features, k=k).fit(table).effects(query).item() for k in (1, 2, 3, 4)]
    assert got == pytest.approx([2.0, 1.5, 7 / 3, 7 / 3])  # D is never a neighbor


def test_knn_sums_features_of_combinations(make_table):
    features = pd.DataFrame(np.eye(3), index=list("ABC"))
    table = make_table(["A+B", "A", "C"], [5.0, 1.0, 3.0])
    # A+B+C is nearest to A+B (2 / sqrt(6)), then to A and C (1 / sqrt(3))
    query = make_table(["A+B+C"], n_genes=1)
    assert KNNEffect(features, k=1).fit(table).effects(query).item() == 5.0
    assert KNNEffect(features, k=3).fit(table).effects(query).item() == 3.0


def test_knn_without_features_knows_shared_genes_only(make_table):
    table = make_table(["A", "B", "C", "A+C"], [1.0, 2.0, 50.0, 6.0])
    query = make_table(["A+B", "Z", "A+Z", "A"], n_genes=1)
    out = KNNEffect(k=3).fit(table).effects(query).ravel()
    # A+B: A and B (.71), A+C (.5), not C; A: itself and A+C
    np.testing.assert_allclose(out, [3.0, np.nan, np.nan, 3.5])


def test_knn_agrees_with_scikit_learn(make_screen):
    neighbors = pytest.importorskip("sklearn.neighbors")
    table = make_screen(2, n_doubles=0)
    rng = np.random.default_rng(0)
    names = [*table.vocabulary(), "new1", "new2"]
    values = rng.uniform(0.1, 1, size=(len(names), 4))  # positive features: every similarity is positive
    query = ConditionTable((("new1",), ("new2",)), np.array(["all"] * 2), table.control[:2])
    place = [names.index(action[0]) for action in table.actions]
    reference = neighbors.KNeighborsRegressor(5, metric="cosine").fit(values[place], table.effects)
    got = KNNEffect(pd.DataFrame(values, index=names)).fit(table).effects(query)
    np.testing.assert_allclose(got, reference.predict(values[-2:]))


def test_knn_takes_the_effect_of_the_context_else_the_mean(make_table):
    table = make_table(["A", "A", "B"], [1.0, 3.0, 10.0], contexts=["x", "y", "x"])
    query = make_table(["A", "A", "B"], contexts=["x", "new", "y"], n_genes=1)
    assert KNNEffect(k=1).fit(table).effects(query).ravel().tolist() == [1.0, 2.0, 10.0]


def test_knn_neighbors_have_the_kind_and_dose_of_the_question(make_table):
    kinds, doses = np.array(["KO", "OE", "KO"]), np.array([1.0, 1.0, 2.0])
    table = make_table(["A", "A", "A"], [1.0, 5.0, 7.0], kind=kinds, dose=doses)
    query = make_table(["A"] * 3, n_genes=1, kind=np.array(["KO", "OE", "OE"]), dose=np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(KNNEffect().fit(table).effects(query).ravel(), [1.0, 5.0, np.nan])


def test_knn_is_nan_without_a_positive_similarity_or_features(make_table):
    features = pd.DataFrame([[1.0], [-1.0]], index=["A", "Q"])
    model = KNNEffect(features).fit(make_table(["A"], [1.0]))
    assert np.isnan(model.effects(make_table(["Q", "nobody", "A+nobody"], n_genes=1))).all()


def test_knn_state_keeps_features(make_table):
    features = pd.DataFrame([[1.0, 0.0], [0.5, 1.0]], index=["A", "Q"])
    before = KNNEffect(features, k=2).fit(make_table(["A"], [1.0]))
    after = KNNEffect.from_state(before.state())
    query = make_table(["Q"], n_genes=1)
    assert after.effects(query).item() == before.effects(query).item() == 1.0


# ------------------------------------------------------------------ arguments


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="n_components=0: expected a whole number of at least 1"):
        Linear(0)
    with pytest.raises(ValueError, match="strength=-1: expected a positive number"):
        Linear(strength=-1)
    with pytest.raises(ValueError, match="k=0: expected a whole number of at least 1"):
        KNNEffect(k=0)
    with pytest.raises(TypeError, match="features: expected a pandas DataFrame"):
        KNNEffect(np.eye(2))
