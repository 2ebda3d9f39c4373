"""The kernel anchor: hand-computed predictions, classes of questions, no leakage, degenerate tables, state."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.kernel_ridge import KernelRidge

from scjepa.baselines import BASELINES, KernelEffect, MeanEffect
from scjepa.baselines._design import ActionDesign
from scjepa.baselines._folds import condition_folds
from scjepa.baselines._kernels import action_kernels, apply_link, invert_link
from scjepa.baselines._noise import amplitudes
from scjepa.baselines._selection import CONTEXT, UNTRIED_COMBINATIONS


def fixed(strength=1.0, link=None, **kwargs):
    """Return an anchor with one link and one strength."""
    return KernelEffect(links=(link,), lambdas=(strength,), **kwargs)


def mixed(table, query, mixture):
    """Average scikit-learn's kernel ridge over a mixture; tables of one context."""
    design = ActionDesign.of(table)
    train, asked = design.rows(table), design.rows(query)
    gram = table.effects @ table.effects.T
    variances = amplitudes(train, gram, np.full(len(table), 1e-12))[0]
    kernels = action_kernels(train, asked, table.order, query.order, gram, variances=variances)
    out = 0
    for eps, kernel, strength, weight, by_gene in mixture:
        assert not by_gene
        among, across = kernels[kernel]
        target = apply_link(table.perturbed, eps) - apply_link(table.control, eps)
        shift = KernelRidge(alpha=strength, kernel="precomputed").fit(among, target).predict(across)
        out = out + weight * (invert_link(apply_link(query.control, eps) + shift, eps) - query.control)
    return out


def plain(value):
    """Return whether a state is arrays, numbers, strings, lists and dicts only; arrays must not hold objects."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(plain(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return type(value) in (int, float, str, bool)


# ------------------------------------------------------------------ predictions
def test_two_contexts_by_hand(make_table):
    # controls 0 and 2: K = 1 + [[1, -1], [-1, 1]]; plus lambda 1 it is 3 on the diagonal, 0 beside it
    table = make_table(["A", "A"], [3.0, 6.0], contexts=["x", "y"], control=[[0.0], [2.0]])
    query = make_table(["A"], contexts=["z"], control=[[3.0]], n_genes=1)
    # k = (1 - 2, 1 + 2): (-1 * 3 + 3 * 6) / (2 + lambda); two contexts can't judge it, so it has three tenths
    model = fixed().fit(table)
    mixture = model.picks_["context"]["mixture"]
    looks = [CONTEXT in entry[1] for entry in mixture]
    assert sum(entry[3] for entry, look in zip(mixture, looks, strict=True) if look) == pytest.approx(0.3)
    by_hand = sum((15 if look else 9) / (2 + entry[2]) * entry[3] for entry, look in zip(mixture, looks, strict=True))
    assert model.effects(query).item() == pytest.approx(by_hand)
    # without the context kernel: (3 + 6) / (2 + lambda)
    blind = fixed(context_kernel=False).fit(table)
    by_hand = sum(9 / (2 + entry[2]) * entry[3] for entry in blind.picks_["context"]["mixture"])
    assert blind.effects(query).item() == pytest.approx(by_hand)


def test_link_carries_fold_changes_over(make_table):
    control, perturbed, elsewhere = np.log1p([1.0, 3.0, 7.0])
    table = make_table(["A"], [perturbed - control], control=control)
    query = make_table(["A"], contexts=["z"], control=elsewhere, n_genes=1)
    expected = np.log1p((7.0 + 0.1) * (3.1 / 1.1) - 0.1) - elsewhere
    assert fixed(1e-9, 0.1).fit(table).effects(query).item() == pytest.approx(expected, rel=1e-6)


def test_dose_scales_the_action(make_table):
    # log1p of 1, 3, 7 is 1 : 2 : 3
    table = make_table(["A", "A"], [2.0, 4.0], dose=np.array([1.0, 3.0]))
    query = make_table(["A"], n_genes=1, dose=np.array([7.0]))
    assert fixed(1e-9).fit(table).effects(query).item() == pytest.approx(6.0, rel=1e-6)


def test_kind_separates_knock_out_from_activation(make_table):
    kind = np.array(["KO", "OE", "KO", "OE"])
    table = make_table(["A", "A", "B", "B"], [-2.0, 2.0, -1.0, 1.0], kind=kind)
    model = fixed(0.01).fit(table)
    np.testing.assert_allclose(model.effects(table).ravel(), [-2, 2, -1, 1], atol=0.05)


def test_nothing_done_has_no_effect(make_table):
    model = fixed().fit(make_table(["A", "B"], [1.0, 2.0]))
    query = replace(make_table(["A"], n_genes=1), actions=((),))
    assert model.effects(query).item() == 0.0


def test_order_of_rows_and_company_of_queries_do_not_matter(make_screen, make_table):
    table = make_screen(0)
    query = make_table(["G0+G7", "G1+G6", "G2"], control=np.full(40, 3.0), n_genes=40)
    out = KernelEffect().fit(table).effects(query)
    shuffled = KernelEffect().fit(table.rows(np.random.default_rng(0).permutation(len(table)))).effects(query)
    np.testing.assert_allclose(shuffled, out, atol=1e-8)
    np.testing.assert_allclose(KernelEffect().fit(table).effects(query.rows([1])), out[[1]], atol=1e-10)


def test_prediction_is_the_weighted_mean_of_the_candidates(make_screen):
    table = make_screen(0, n_doubles=18)
    train, query = table.rows(np.arange(22)), table.rows(np.arange(22, 26))
    model = KernelEffect().fit(train)
    mixture = model.picks_["combination"]["mixture"]
    assert len({entry[0] for entry in mixture}) > 1 and np.isfinite(model.picks_["combination"]["error"])
    np.testing.assert_allclose(model.effects(query), mixed(train, query, mixture), atol=1e-8)
    best = mixed(train, query, [[*mixture[0][:3], 1.0, False]])
    assert np.abs(model.effects(query) - best).max() > 1e-3  # the others count


def test_untried_combination_of_two_singles_by_hand(make_table):
    # singles are orthogonal under the additive kernel: shrunken by 1 / 1.3 each, they multiply under the link
    table = make_table(["A", "B"], [0.5, 0.2], control=1.0)
    query = make_table(["A+B"], control=1.0, n_genes=1)
    model = KernelEffect().fit(table)
    base = np.log(np.e - 1 + 0.03)
    shift = (np.log(np.exp([1.5, 1.2]) - 1 + 0.03) - base).sum() / 1.3
    additive = np.log1p(np.exp(base + shift) - 0.03) - 1
    components = mixed(table, query, [(0.03, "components", 0.3, 1.0, False)]).item()
    assert model.effects(query).item() == pytest.approx((additive + components) / 2)
    assert abs(additive - components) > 0.01


# ------------------------------------------------------------------ choosing
def test_shrunken_combinations_are_predicted_better_than_by_adding(make_screen):
    errors = []
    for seed in range(3):
        table = make_screen(seed, n_doubles=18)
        held_out = np.arange(len(table)) >= len(table) - 6
        query = table.rows(held_out)
        for name in ("additive", "ridge", "kernel anchor"):
            predicted = BASELINES[name]().fit(table.rows(~held_out)).effects(query)
            errors.append(np.linalg.norm(predicted - query.effects, axis=1).mean())
    additive, ridge, kernel = np.mean(np.reshape(errors, (3, 3)), axis=0)
    assert kernel < ridge < additive


def test_link_is_chosen_where_effects_multiply(make_table):
    rng = np.random.default_rng(0)
    fold = np.exp(rng.normal(size=30))
    # the same fold change on five very different control profiles
    control = np.log1p(np.exp(rng.normal(1.0, 1.5, size=(5, 30))))
    labels, contexts = ["A"] * 5, list("vwxyz")
    multiplied = make_table(labels, np.log1p(np.expm1(control) * fold) - control, contexts=contexts, control=control)
    added = make_table(labels, np.tile(np.log(fold), (5, 1)), contexts=contexts, control=control + 4)
    pick = lambda table: KernelEffect(context_kernel=False).fit(table).picks_["context"]
    assert pick(multiplied)["link"] == 0.03
    assert pick(added)["link"] is None
    assert {entry[0] for entry in pick(multiplied)["mixture"]} == {0.03}  # no other comes near


def test_noise_is_shrunken_as_far_as_possible(make_table):
    rng = np.random.default_rng(0)
    labels = [g for g in "ABCDEF" for _ in range(3)]
    table = make_table(labels, rng.normal(size=(18, 50)), contexts=list("xyz") * 6, control=5.0)
    picks = KernelEffect().fit(table).picks_
    assert picks["single"]["lambda"] == 10.0
    assert picks["context"]["lambda"] == 100.0  # elsewhere, further still


def test_each_class_of_query_has_its_pick(make_table):
    table = make_table(["A", "B", "A+B"], [1, 2, 3], contexts=["x", "x", "y"])
    features = pd.DataFrame(np.eye(3), index=["A", "B", "C"])
    query = make_table(["A", "A+B", "A", "A+B", "C", "A+D"], contexts=["x", "x", "z", "z", "x", "x"], n_genes=1)
    model = KernelEffect(features=features).fit(table)
    assert model.classes(query).tolist() == ["single", "combination", "context", "context", "unseen", ""]
    assert sorted(model.picks_) == ["combination", "context", "single", "unseen"]
    assert np.isfinite(model.effects(query)).all(1).tolist() == [True] * 5 + [False]
    without = KernelEffect().fit(table)
    assert without.classes(query).tolist() == ["single", "combination", "context", "context", "", ""]
    assert set(without.picks_["single"]) == {"link", "kernel", "lambda", "error", "mixture", "basis", "misfit"}


def test_weights_of_every_class_sum_to_one_and_the_best_is_first(make_screen):
    table = make_screen(4, n_doubles=18)
    table = replace(table, contexts=np.array(["x", "y"] * 13, object))
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(8, 3)), index=table.vocabulary())
    picks = KernelEffect(features=features).fit(table).picks_
    assert sorted(picks) == ["combination", "context", "single", "unseen"]
    for pick in picks.values():
        weights = [entry[3] for entry in pick["mixture"]]
        assert sum(weights) == pytest.approx(1.0, abs=1e-12) and weights == sorted(weights, reverse=True)
        assert pick["mixture"][0][:3] == [pick["link"], pick["kernel"], pick["lambda"]]


def test_combinations_choose_by_three_combinations_of_measured_singles_or_not_at_all(make_screen):
    table, default = make_screen(0, n_doubles=12), [[*entry, False] for entry in UNTRIED_COMBINATIONS]
    pick = lambda rows: KernelEffect().fit(table.rows(np.array(rows))).picks_["combination"]
    assert np.isfinite(pick(range(11))["error"]) and pick(range(11))["mixture"] != default
    two = pick(range(10))
    assert two["mixture"] == default and np.isnan(two["error"])
    assert (two["link"], two["kernel"], two["lambda"]) == tuple(default[0][:3])
    assert pick(range(8))["mixture"] == default
    # twelve combinations, many of them of genes seen in others, but no gene measured alone
    assert pick(range(8, 20))["mixture"] == default


def test_one_gene_is_enough_for_the_class_of_combinations(make_table):
    table = make_table(["A", "A", "A"], [1.0, 1.0, 2.0], dose=np.array([1.0, 1.0, 3.0]), control=5.0)
    # one column, hence the additive kernel only: K = (1, 1, 2)' (1, 1, 2), so all are shrunken by 6 / (6 + .3)
    fitted = fixed(0.3).fit(table).fitted_effects("combination").ravel()
    np.testing.assert_allclose(fitted, np.array([1.0, 1.0, 2.0]) * 6 / 6.3)


@pytest.mark.parametrize("n_rows", [8, 20])  # without and with combinations to choose by
def test_negative_values_use_the_identity(make_screen, n_rows):
    table = make_screen(0).rows(np.arange(n_rows))
    signatures = replace(table, control=np.zeros_like(table.control), perturbed=table.effects)
    model = KernelEffect().fit(signatures)
    for pick in model.picks_.values():
        assert {pick["link"], *(entry[0] for entry in pick["mixture"])} == {None}
    assert {entry[0] for entry in KernelEffect().fit(table).picks_["combination"]["mixture"]} != {None}
    query = replace(make_screen(0).rows([19]), control=np.zeros((1, 40)))
    expected = mixed(signatures, query, model.picks_["combination"]["mixture"])
    np.testing.assert_allclose(model.effects(query), expected, atol=1e-8)


def test_large_tables_choose_on_the_most_variable_genes_and_some_rows(make_screen, monkeypatch):
    table = make_screen(0)
    quiet = np.hstack([table.control, np.full((len(table), 200), 1.0)])
    wide = replace(table, control=quiet, perturbed=np.hstack([table.perturbed, quiet[:, 40:]]))
    expected = KernelEffect().fit(table).picks_["combination"]
    monkeypatch.setattr("scjepa.baselines._choosing.MAX_VALUES", 1)
    monkeypatch.setattr("scjepa.baselines._choosing.SELECTION_GENES", 40)
    found = KernelEffect().fit(wide).picks_["combination"]
    # the genes that vary are the 40 of the narrow table
    assert found["error"] == pytest.approx(expected["error"], rel=1e-4)  # single precision
    weights = lambda pick: {tuple(entry[:3]): entry[3] for entry in pick["mixture"]}
    assert weights(found) == pytest.approx(weights(expected), rel=1e-2)
    monkeypatch.setattr("scjepa.baselines._kernel_effect.SELECTION_ROWS", 15)
    model = KernelEffect().fit(wide)
    assert model.left_out_effects().shape == wide.control.shape
    assert np.isfinite(model.left_out_effects()).all()


# ------------------------------------------------------------------ leaving out
def test_left_out_effects_are_those_of_a_fit_without_the_row(make_screen):
    table = make_screen(1)
    model = KernelEffect().fit(table)
    left_out = model.left_out_effects()
    for i in (0, len(table) - 1):
        rest = KernelEffect().fit(table.rows(np.arange(len(table)) != i))
        rest.picks_ = model.picks_
        np.testing.assert_allclose(left_out[[i]], rest.effects(table.rows([i])), atol=1e-8)


def test_a_row_does_not_leak_into_its_own_left_out_prediction(make_screen):
    table = make_screen(2)
    i = len(table) - 1
    changed = table.perturbed.copy()
    changed[i] += 1.0
    model, other = KernelEffect().fit(table), KernelEffect().fit(replace(table, perturbed=changed))
    other.picks_ = model.picks_
    np.testing.assert_allclose(model.left_out_effects()[i], other.left_out_effects()[i], atol=1e-10)
    assert np.abs(model.fitted_effects()[i] - other.fitted_effects()[i]).max() > 0.05


def test_left_out_contexts_are_predicted_from_the_others(make_table):
    rng = np.random.default_rng(0)
    table = make_table(["A", "B"] * 3, rng.normal(size=(6, 5)), contexts=list("xxyyzz"), control=rng.random((6, 5)) + 4)
    model = KernelEffect().fit(table)
    out = model.left_out_effects("context")
    inside = table.contexts == "x"
    rest = KernelEffect().fit(table.rows(~inside))
    rest.picks_ = model.picks_
    np.testing.assert_allclose(out[inside], rest.effects(table.rows(inside)), atol=1e-8)
    assert model.supported_.all()


def test_fitted_effects_use_the_pick_of_each_row_or_of_a_class(make_screen):
    table = make_screen(3)
    model = KernelEffect().fit(table)
    np.testing.assert_allclose(model.fitted_effects(), model.effects(table), atol=1e-12)
    model.picks_["context"] = {**model.picks_["context"], "mixture": [[None, "additive", 1e9, 1.0, False]]}
    np.testing.assert_allclose(model.fitted_effects("context"), 0, atol=1e-6)


def test_combinations_are_left_out_in_all_their_contexts(make_table):
    table = make_table(["A", "B", "A+B", "A+B"], [1, 2, 3, 30], contexts=["x", "x", "x", "y"])
    assert [test.tolist() for _, test in condition_folds(table)] == [[0], [1], [2, 3]]
    model = fixed(0.01).fit(table)
    expected = mixed(table.rows([0, 1]), table.rows([2]), model.picks_["combination"]["mixture"])
    assert model.left_out_effects()[2].item() == pytest.approx(expected.item())
    assert 2.0 < expected.item() < 3.0  # nearly the sum of A and B, not drawn to the 30 elsewhere


# ------------------------------------------------------------------ features
def test_unseen_genes_follow_their_features(make_table):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(2), 8, axis=0)
    names = [f"G{i}" for i in range(16)]
    features = pd.DataFrame(groups + 0.05 * rng.normal(size=groups.shape), index=names)
    effects = groups @ rng.normal(size=(2, 20)) + 0.1 * rng.normal(size=(16, 20))
    seen = np.array([i % 8 < 6 for i in range(16)])
    labels = [n for n, s in zip(names, seen, strict=True) if s]
    model = KernelEffect(features=features).fit(make_table(labels, effects[seen], control=5.0))
    unseen = [n for n, s in zip(names, seen, strict=True) if not s]
    query = make_table(unseen, control=5.0, n_genes=20)
    error = np.linalg.norm(model.effects(query) - effects[~seen], axis=1)
    mean = MeanEffect().fit(model.table_).effects(query)
    assert model.picks_["unseen"]["kernel"] in ("features", "additive+features")
    assert (error < 0.35 * np.linalg.norm(mean - effects[~seen], axis=1)).all()


def test_unseen_genes_with_useless_features_are_shrunken_far(make_table):
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(12)]
    features = pd.DataFrame(rng.normal(size=(13, 4)), index=[*names, "new"])
    table = make_table(names, rng.normal(size=(12, 60)), control=6.0)
    out = KernelEffect(features=features).fit(table).effects(make_table(["new"], control=6.0, n_genes=60))
    assert np.linalg.norm(out) < 0.2 * np.linalg.norm(table.effects, axis=1).mean()


# ------------------------------------------------------------------ degenerate tables
def test_one_row_is_carried_over_almost_whole(make_table):
    model = KernelEffect().fit(make_table(["A"], [[2.0, -1.0]], control=3.0))
    query = make_table(["A"], contexts=["new"], control=4.0)
    np.testing.assert_allclose(model.effects(query), [[2 / 1.01, -1 / 1.01]])
    assert np.isnan(model.left_out_effects()).all()
    assert np.isnan(model.picks_["context"]["error"])


@pytest.mark.parametrize("contexts", [["x", "x", "x"], ["x", "y", "z"]])
def test_equal_control_profiles(make_table, contexts):
    table = make_table(["A", "B", "A+B"], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], contexts=contexts, control=2.0)
    out = KernelEffect().fit(table).effects(make_table(["A+B", "A"], contexts=["new", "x"], control=2.0))
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out[0], [1.0, 1.0], atol=0.15)


def test_one_condition_in_every_context(make_table):
    table = make_table(["A+B"] * 3, [1.0, 1.0, 1.0], contexts=list("xyz"), control=[[1.0], [2.0], [4.0]])
    out = KernelEffect().fit(table).effects(make_table(["A+B"], contexts=["w"], control=[[3.0]], n_genes=1))
    assert out.item() == pytest.approx(1.0, abs=0.1)


# ------------------------------------------------------------------ state
@pytest.mark.parametrize("name", list(BASELINES))
def test_state_is_plain_and_rebuilds_the_baseline(make_table, name):
    table = make_table(
        ["A", "B", "A+B", "A"],
        [1.0, 2.0, 4.0, 1.5],
        contexts=["x", "x", "x", "y"],
        control=[[1.0], [1.0], [1.0], [3.0]],
        kind=np.array(["KO"] * 4),
        dose=np.ones(4),
        genes=("g1",),
        n_cells=np.arange(4),
    )
    query = make_table(
        ["A+B", "B"], contexts=["y", "y"], control=3.0, n_genes=1, kind=np.array(["KO"] * 2), dose=np.ones(2)
    )
    before = BASELINES[name]().fit(table)
    assert plain(before.state())
    after = BASELINES[name].from_state(before.state())
    np.testing.assert_array_equal(after.effects(query), before.effects(query))
    assert after.table_.genes == ("g1",) and after.table_.actions == table.actions


def test_kernel_state_survives_json_with_picks_and_features(make_screen):
    table = make_screen(0)
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(9, 3)), index=[*table.vocabulary(), "new"])
    model = KernelEffect(features=features, links=(None, 0.1), n_components=4).fit(table)
    assert {entry[0] for entry in model.picks_["combination"]["mixture"]} == {None, 0.1}
    text = json.dumps(model.state(), default=lambda array: array.tolist())
    stored = json.loads(text)["picks"]["combination"]
    assert {entry[0] for entry in stored["mixture"]} == {"identity", 0.1}
    assert stored["link"] == stored["mixture"][0][0]
    again = KernelEffect.from_state(json.loads(text))
    assert again.picks_ == model.picks_ and again.links == (None, 0.1) and again.n_components == 4
    question = replace(table.rows([0, 1]), actions=(("new",), ("G0", "new")), perturbed=None)
    np.testing.assert_allclose(again.effects(question), model.effects(question), atol=1e-12)
    np.testing.assert_allclose(again.left_out_effects(), model.left_out_effects(), atol=1e-10)


def test_an_unfitted_kernel_anchor_keeps_its_arguments():
    again = KernelEffect.from_state(KernelEffect(context_kernel=False, lambdas=(2.0,)).state())
    assert again.context_kernel is False and again.lambdas == (2.0,) and not hasattr(again, "picks_")
