"""The kernel anchor on tables that know their noise: what is shrunken how far, by hand and by comparison."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import KernelEffect
from scjepa.baselines._noise import AMPLITUDE_FLOOR, effect_noise, gene_steps
from scjepa.data import ConditionTable, condition_table

GENES = 64


def signs(n, seed=0):
    """Return effects of length one that are alike in every gene and orthogonal, nearly: random signs."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], (n, GENES)) / np.sqrt(GENES)


def measured(size, cells, *, contexts=("x",), variance=None, controls=np.inf, seed=0, noisy=True):
    """Return singles with effects of squared length ``size``, each measured in ``cells`` cells in every context."""
    rng = np.random.default_rng(seed + 100)
    size, cells = np.asarray(size, dtype=float), np.asarray(cells)
    variance = np.full(GENES, 1 / GENES) if variance is None else variance
    n, k = len(size), len(contexts)
    truth = np.tile(signs(n, seed) * np.sqrt(size)[:, None], (k, 1))
    cells = np.tile(cells, k)
    error = rng.normal(size=truth.shape) * np.sqrt(variance / cells[:, None]) * noisy
    return ConditionTable(
        tuple((f"G{i:02d}",) for i in range(n)) * k,
        np.repeat(np.array(contexts, dtype=object), n),
        np.full(truth.shape, 9.0),
        9.0 + truth + error,
        cells,
        variance=variance,
        n_controls=np.full(n * k, float(controls)),
    )


def elsewhere(table):
    """Return the conditions of the first context as questions about another one."""
    first = table.rows(table.contexts == table.contexts[0])
    return replace(first, perturbed=None, contexts=np.array(["elsewhere"] * len(first), dtype=object))


def kept(model, table, question=None):
    """Return which share of each measured effect a prediction keeps."""
    first = table.rows(table.contexts == table.contexts[0])
    out = model.effects(elsewhere(table) if question is None else question)
    return (out * first.effects).sum(1) / (first.effects**2).sum(1)


# ------------------------------------------------------------------ by hand
def test_each_effect_is_shrunken_by_its_own_reliability():
    """Orthogonal singles in one context, asked about another: tau^2 / (tau^2 + nu), nu = V (1 / n + 1 / m)."""
    size, cells = np.array([40.0, 10.0, 4.0, 4.0, 1.5]), np.array([1, 1, 1, 4, 1])
    table = measured(size, cells, controls=2.0, noisy=False)
    nu = 1 / cells + 1 / 2
    np.testing.assert_allclose(effect_noise(table.variance, table.n_cells, table.n_controls), nu)
    model = KernelEffect().fit(table)
    pick = model.picks_["context"]
    assert pick["basis"] == "sampling noise" and pick["misfit"] == 0.0 and pick["kernel"] == "additive~"
    tau = size - nu
    assert pick["lambda"] == pytest.approx(nu.mean() / tau.mean(), rel=1e-2)
    prior = AMPLITUDE_FLOOR * tau.mean() + (1 - AMPLITUDE_FLOOR) * tau
    np.testing.assert_allclose(kept(model, table), prior / (prior + nu), rtol=1e-2)
    np.testing.assert_allclose(kept(model, table)[:2], (tau / (tau + nu))[:2], rtol=1e-2)  # the floor lifts small ones
    # the share is the same for all genes, and all of the effect is the gene's own
    np.testing.assert_allclose(model.effects(elsewhere(table)), kept(model, table)[:, None] * table.effects, atol=1e-3)


def test_shares_do_not_depend_on_units():
    table = measured([40.0, 10.0, 4.0], [1, 2, 3], controls=2.0)
    scaled = replace(table, perturbed=9.0 + table.effects / 3, variance=table.variance / 9)
    np.testing.assert_allclose(
        kept(KernelEffect().fit(scaled), scaled), kept(KernelEffect().fit(table), table), rtol=1e-6
    )


def test_noisy_genes_are_shrunken_as_their_step_says():
    variance = np.repeat([1.9, 0.1], GENES // 2) / GENES
    table = measured([6.0, 6.0, 6.0], [1, 1, 1], variance=variance, noisy=False)
    model = KernelEffect().fit(table)
    step = gene_steps((table.effects**2).mean(0), variance, 0.0)
    assert set(step[: GENES // 2]) == {1} and set(step[GENES // 2 :]) == {-4}
    tau, nu = 5.0, 1.0
    expected = tau / (tau + nu * 10.0 ** (step / 4))
    found = model.effects(elsewhere(table)) / table.effects
    np.testing.assert_allclose(found, np.tile(expected, (3, 1)), rtol=1e-2)


def test_of_a_single_condition_its_own_size_is_all_there_is():
    table = measured([4.0], [1], controls=1.0, noisy=False)  # nu = 2
    model = KernelEffect().fit(table)
    assert kept(model, table) == pytest.approx(0.5, rel=1e-6)
    nothing = measured([1.0], [1], controls=1.0, noisy=False)
    assert abs(kept(KernelEffect().fit(nothing), nothing)) < 1e-3


# ------------------------------------------------------------------ by comparison
@pytest.mark.parametrize("contexts", [("x",), ("x", "y")])
def test_an_effect_of_two_cells_is_shrunken_more_than_one_of_two_hundred(contexts):
    """Noise is half the squared effect with two cells; what is kept is along the true effect."""
    size, cells = [1.0] * 24, [2] * 12 + [200] * 12
    table, truth = measured(size, cells, contexts=contexts, controls=500), signs(24)
    for question in (elsewhere(table), table.rows(np.arange(24))):
        along = lambda model, question=question: (model.effects(question) * truth).sum(1).reshape(2, 12).mean(1)
        few, many = along(KernelEffect().fit(table))
        assert many > 0.9 and few < many - 0.08
        few, many = along(KernelEffect().fit(replace(table, variance=None)))
        assert few == pytest.approx(many, abs=0.05)  # without the variance they are alike


def test_of_two_measurements_the_better_one_counts():
    """One perturbation in two contexts that contradict each other; the one of many cells says what it does elsewhere."""
    table = measured([4.0] * 40, [100] * 40, contexts=("x", "y"))
    changed, cells = table.perturbed.copy(), table.n_cells.copy()
    changed[40] = 9.0 - table.effects[0]
    cells[40] = 1
    table = replace(table, perturbed=changed, n_cells=cells)
    assert kept(KernelEffect().fit(table), table)[0] > 0.6
    # in a table of profiles the two cancel
    assert kept(KernelEffect().fit(replace(table, variance=None)), table)[0] < 0.2


@pytest.mark.parametrize("contexts", [("x",), ("x", "y")])
def test_nulls_do_not_change_how_far_strong_effects_are_shrunken(contexts):
    size = np.r_[np.full(8, 6.0), np.zeros(32)]
    table = measured(size, [2] * 40, contexts=contexts, controls=50)
    strong = np.tile(np.arange(40) < 8, len(contexts))
    alone = table.rows(strong)
    known = table.contexts == "x"
    for ask in (elsewhere, lambda t: t.rows(t.contexts == "x")):
        with_nulls = kept(KernelEffect().fit(table), table, ask(table))
        without = kept(KernelEffect().fit(alone), alone, ask(alone))
        assert without.mean() > 0.8
        np.testing.assert_allclose(with_nulls[:8], without, atol=0.06)
        assert np.linalg.norm(KernelEffect().fit(table).effects(ask(table))[8:], axis=1).max() < 0.5
    assert np.linalg.norm(table.effects[known][8:], axis=1).min() > 0.5


def test_noisy_genes_are_shrunken_more_where_conditions_judge_too():
    variance = np.repeat([1.95, 0.05], GENES // 2) / GENES
    table = measured([1.0] * 12, [2] * 12, contexts=("x", "y"), variance=variance)
    model = KernelEffect().fit(table)
    assert model.picks_["single"]["basis"] == "left out"
    assert any(entry[4] for entry in model.picks_["single"]["mixture"])
    truth = signs(12)
    share = (model.effects(table.rows(np.arange(12))) * truth).reshape(12, 2, -1).sum((0, 2)) / 6
    assert share[0] < share[1] - 0.1 and share[1] > 0.8


def test_controls_of_few_cells_are_noise_for_another_context_only():
    size = [2.0] * 10
    few, many = (measured(size, [20] * 10, controls=m, noisy=False) for m in (1, 1000))
    shares = [kept(KernelEffect().fit(t), t).mean() for t in (few, many)]
    assert shares[0] < shares[1] - 0.2
    own = [kept(KernelEffect().fit(t), t, t).mean() for t in (few, many)]
    assert own[0] == pytest.approx(own[1], abs=1e-6)


# ------------------------------------------------------------------ what judged
def test_basis_says_what_judged(make_screen, make_table):
    two, one = measured([1.0] * 4, [5] * 4, contexts=("x", "y")), measured([1.0] * 4, [5] * 4)
    basis = lambda table, **kw: {c: pick["basis"] for c, pick in KernelEffect(**kw).fit(table).picks_.items()}
    assert basis(two) == {"combination": "sampling noise", "single": "left out", "context": "left out"}
    assert basis(one) == dict.fromkeys(("combination", "single", "context"), "sampling noise")
    assert basis(replace(one, variance=None)) == dict.fromkeys(("combination", "single", "context"), "none")
    assert basis(replace(two, variance=None))["context"] == "left out"
    screen = make_screen(0, n_doubles=18)
    noisy = replace(screen, variance=np.full(40, 0.05), n_cells=np.full(26, 20), n_controls=np.full(26, 100.0))
    # genes recur in combinations, but a new context there is none to leave out
    assert basis(noisy) == {"combination": "left out", "single": "left out", "context": "sampling noise"}
    assert basis(screen) == {"combination": "left out", "single": "left out", "context": "none"}
    features = pd.DataFrame(np.random.default_rng(0).normal(size=(4, 3)), index=two.vocabulary())
    assert basis(two, features=features)["unseen"] == "left out"
    pair = two.rows(np.isin(np.arange(8), (0, 1)))
    assert basis(pair, features=features)["unseen"] == "sampling noise"


def test_picks_tell_the_misfit(make_screen):
    """Replicates that differ by an error of squared length 3 each, beyond their noise."""
    table = measured([4.0] * 30, [10] * 30, contexts=("x", "y"), controls=1000)
    rng = np.random.default_rng(0)
    table = replace(table, perturbed=table.perturbed + rng.normal(size=table.perturbed.shape) * np.sqrt(3 / GENES))
    picks = KernelEffect().fit(table).picks_
    assert picks["context"]["misfit"] == pytest.approx(3, rel=0.1) == picks["single"]["misfit"]
    exact = measured([4.0] * 30, [10] * 30, contexts=("x", "y"), controls=1000)
    assert KernelEffect().fit(exact).picks_["context"]["misfit"] < 0.02


# ------------------------------------------------------------------ invariances and state
@pytest.fixture
def mixed_screen(make_screen) -> ConditionTable:
    """Singles and doubles in two contexts with noise of different sizes in genes and rows."""
    one, other = make_screen(0), make_screen(0)
    rng = np.random.default_rng(0)
    n = 2 * len(one)
    control = np.vstack([one.control, other.control + 0.3 * rng.normal(size=40)])
    cells = rng.integers(2, 60, n)
    variance = 10.0 ** rng.uniform(-1.5, 0, 40)
    effects = np.tile(one.effects, (2, 1)) + rng.normal(size=(n, 40)) * np.sqrt(variance / cells[:, None])
    return ConditionTable(
        one.actions * 2,
        np.repeat(np.array(["x", "y"], object), len(one)),
        control,
        control + effects,
        cells,
        genes=tuple(f"g{j}" for j in range(40)),
        variance=variance,
        n_controls=np.repeat([80.0, 30.0], len(one)),
    )


def questions(table):
    """Return combinations, singles and a new context as questions."""
    rows = table.rows([0, 10, 25, 3, 12])
    where = np.array(["x", "x", "y", "new", "new"], object)
    control = np.vstack([rows.control[:3], rows.control[3:] + 0.2 * np.cos(np.arange(40))])
    return replace(rows, perturbed=None, contexts=where, control=control)


def test_order_of_genes_does_not_matter(mixed_screen):
    order = np.random.default_rng(1).permutation(40)
    take = lambda t: replace(
        t,
        control=t.control[:, order],
        perturbed=None if t.perturbed is None else t.perturbed[:, order],
        genes=tuple(np.array(t.genes)[order]),
        variance=t.variance[order],
    )
    question = questions(mixed_screen)
    out = KernelEffect().fit(mixed_screen).effects(question)
    assert np.isfinite(out).all()
    found = KernelEffect().fit(take(mixed_screen)).effects(take(question))
    np.testing.assert_allclose(found, out[:, order], atol=1e-4)  # candidates are compared in single precision


def test_order_of_rows_does_not_matter(mixed_screen):
    question = questions(mixed_screen)
    out = KernelEffect().fit(mixed_screen).effects(question)
    rows = mixed_screen.rows(np.random.default_rng(1).permutation(len(mixed_screen)))
    np.testing.assert_allclose(KernelEffect().fit(rows).effects(question), out, atol=1e-4)


def test_state_rebuilds_predictions_to_the_last_bit(mixed_screen):
    model = KernelEffect().fit(mixed_screen)
    assert any(entry[4] for pick in model.picks_.values() for entry in pick["mixture"])
    again = KernelEffect.from_state(model.state())
    np.testing.assert_array_equal(again.table_.variance, mixed_screen.variance)
    np.testing.assert_array_equal(again.table_.n_controls, mixed_screen.n_controls)
    question = questions(mixed_screen)
    np.testing.assert_array_equal(again.effects(question), model.effects(question))
    np.testing.assert_array_equal(again.left_out_effects("context"), model.left_out_effects("context"))
    np.testing.assert_array_equal(again.distances(question), model.distances(question))


def test_left_out_rows_are_predicted_from_the_others_alone(mixed_screen):
    """Neither the effect of a row nor its number of cells is in its own left-out prediction."""
    model = KernelEffect().fit(mixed_screen)
    perturbed, cells = mixed_screen.perturbed.copy(), mixed_screen.n_cells.copy()
    perturbed[4] += 1.0
    cells[4] = 1000
    other = KernelEffect().fit(replace(mixed_screen, perturbed=perturbed, n_cells=cells))
    other.picks_ = model.picks_
    # rows of S are scaled to mean one over all rows, hence the strength by what the row's own cells are of the mean
    for cls in model.picks_:
        here = model._noise_of(cls).rows.mean() + model._noise_of(cls).misfit
        there = other._noise_of(cls).rows.mean() + other._noise_of(cls).misfit
        assert here == pytest.approx(there, rel=0.05)
    np.testing.assert_allclose(model.left_out_effects()[4], other.left_out_effects()[4], atol=0.01)
    assert np.abs(model.fitted_effects()[4] - other.fitted_effects()[4]).max() > 0.1


def test_doses_of_zero_are_no_obstacle(make_table):
    """Left out the last row, the others have no dose, and so a design of zeros."""
    table = make_table(
        ["A", "B", "A", "B"],
        np.ones((4, 3)),
        control=5.0,
        dose=np.array([0.0, 0, 0, 5]),
        variance=np.ones(3),
        n_cells=np.full(4, 9),
    )
    model = KernelEffect().fit(table)
    assert np.isfinite(model.effects(table)).all() and np.isfinite(model.left_out_effects()).all()


# ------------------------------------------------------------------ from cells
def test_cells_carry_their_noise_to_the_anchor():
    """The same mean effect in two cells and in two hundred, from cells."""
    rng = np.random.default_rng(0)
    sizes = {"control": 400, **{f"N{i}": 40 for i in range(8)}, "FEW": 2, "MANY": 200}
    shift = np.r_[np.full(20, 0.6), np.zeros(20)]
    x, labels = [], []
    for name, n in sizes.items():
        cells = 5 + rng.normal(size=(n, 40))
        if name != "control":
            cells += shift * (1.0 if name in ("FEW", "MANY") else rng.choice([-1, 1], 40)) - cells.mean(0) + 5
        x.append(cells)
        labels += [name] * n
    obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))])
    adata = ad.AnnData(np.maximum(np.concatenate(x), 0.0), obs=obs)
    table = condition_table(adata, "p")
    np.testing.assert_allclose(table.variance, 1, atol=0.2)
    assert table.n_controls.tolist() == [400.0] * 10
    model = KernelEffect().fit(table)
    share = dict(zip([a[0] for a in table.actions], kept(model, table), strict=True))
    assert share["MANY"] > 0.9 and share["FEW"] < share["MANY"] - 0.3
