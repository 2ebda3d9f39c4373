"""Sampling noise in measured effects: numbers by hand, and what simulated noise of a known size gives back."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.baselines._noise import (
    AMPLITUDE_FLOOR,
    GENE_FLOOR,
    GENE_STEPS,
    NoiseModel,
    amplitudes,
    effect_noise,
    gene_steps,
    misfit,
    noise_model,
    reliability,
    row_covariance,
    sampling_noise_alone,
)


def leave_one_out(n):
    """Return folds of one row each."""
    every = np.arange(n)
    return [(np.delete(every, i), every[[i]]) for i in every]


# ------------------------------------------------------------------ noise and reliability
def test_effect_noise_by_hand():
    variance, n = np.array([1.0, 2.0]), np.array([2, 6])
    np.testing.assert_allclose(
        effect_noise(variance, n, np.array([4.0, 3.0])), [3 * (1 / 2 + 1 / 4), 3 * (1 / 6 + 1 / 3)]
    )
    np.testing.assert_allclose(effect_noise(variance, n, None), [3 / 2, 3 / 6])  # as many controls as one likes
    np.testing.assert_allclose(effect_noise(variance, n, np.full(2, np.inf)), effect_noise(variance, n, None))


@pytest.mark.parametrize(
    ("variance", "n_cells"),
    [(None, np.array([3, 4])), (np.ones(2), np.zeros(0, int)), (np.ones(2), np.array([3, 0]))],
    ids=["no variance", "a table without counts", "a row without cells"],
)
def test_noise_is_unknown_without_cells(variance, n_cells):
    assert effect_noise(variance, n_cells, None) is None
    assert effect_noise(variance, n_cells, np.ones(len(n_cells))) is None


def test_effect_noise_is_the_mean_squared_error_of_a_measured_effect():
    rng = np.random.default_rng(0)
    variance = np.array([0.5, 1.0, 2.0])
    mean = lambda n: (rng.normal(size=(20_000, n, 3)) * np.sqrt(variance)).mean(1)
    square = ((mean(4) - mean(10)) ** 2).sum(1).mean()
    assert effect_noise(variance, np.array([4]), np.array([10.0])).item() == pytest.approx(square, rel=0.02)


def test_reliability_by_hand_and_without_units():
    square, noise = np.array([10.0, 4.0, 1.0, 0.0]), np.array([1.0, 4.0, 3.0, 2.0])
    assert reliability(square, noise).tolist() == [0.9, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(reliability(7 * square, 7 * noise), reliability(square, noise))
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400)
    measured = ((truth + rng.normal(scale=0.5, size=(2_000, 400))) ** 2).sum(1)
    found = measured * reliability(measured, np.full(2_000, 100.0))
    assert found.mean() == pytest.approx(truth @ truth, rel=0.01)  # the squared length of the true effect


# ------------------------------------------------------------------ misfit
def sums(seed, extra=0.0, n_genes=60, contexts=2):
    """Simulate singles and doubles in several contexts that add up but for noise and an error of known squared length."""
    rng = np.random.default_rng(seed)
    single = np.eye(6)
    double = np.stack([single[a] + single[b] for a in range(6) for b in range(a)])
    design = np.tile(np.vstack([single, double]), (contexts, 1))
    n = len(design)
    noise = rng.uniform(1.0, 6.0, n)
    error = rng.normal(size=(n, n_genes)) * np.sqrt((noise + extra) / n_genes)[:, None]
    effects = design @ rng.normal(size=(6, n_genes)) + error
    return design, effects @ effects.T, noise


def test_misfit_of_what_adds_up_is_nothing_beyond_noise():
    found = [misfit(*sums(seed), leave_one_out(42), np.ones(42, bool)) for seed in range(40)]
    # cut at zero, hence a little above it; the noise is 3.5 in the mean
    assert min(found) == 0.0 and np.mean(found) < 0.2
    # with the noise not taken off there would be 3.5
    blind = [misfit(*sums(seed)[:2], np.zeros(42), leave_one_out(42), np.ones(42, bool)) for seed in range(10)]
    assert np.mean(blind) == pytest.approx(3.5, rel=0.1)


@pytest.mark.parametrize("extra", [3.0, 20.0])
def test_misfit_of_a_known_size_is_found_without_bias(extra):
    found = [misfit(*sums(seed, extra), leave_one_out(42), np.ones(42, bool)) for seed in range(40)]
    assert np.mean(found) == pytest.approx(extra, rel=0.05)


def test_misfit_between_contexts_is_what_contexts_add():
    """Every context has an effect of its own: of two contexts that predict a third each has the same misfit."""
    rng = np.random.default_rng(0)
    design, context = np.tile(np.eye(8), (3, 1)), np.repeat(np.arange(3), 8)
    folds = [(np.flatnonzero(context != c), np.flatnonzero(context == c)) for c in range(3)]
    found = []
    for _ in range(40):
        effects = np.tile(rng.normal(size=(8, 50)), (3, 1)) + rng.normal(size=(24, 50)) * np.sqrt(4 / 50)
        found.append(misfit(design, effects @ effects.T, np.zeros(24), folds, np.ones(24, bool)))
    assert np.mean(found) == pytest.approx(4, rel=0.05)


def test_more_columns_than_rows_change_nothing():
    design, gram, noise = sums(0, extra=5.0)
    wide = np.hstack([design, np.zeros((42, 60))])  # perturbed nowhere: weights are the same, the other solve is used
    judged = np.ones(42, bool)
    found = misfit(design, gram, noise, leave_one_out(42), judged)
    assert misfit(wide, gram, noise, leave_one_out(42), judged) == pytest.approx(found, rel=1e-8)


def test_misfit_needs_two_judged_rows():
    design, gram, noise = sums(0, extra=5.0)
    judged = np.zeros(42, bool)
    assert misfit(design, gram, noise, leave_one_out(42), judged) is None
    judged[3] = True
    assert misfit(design, gram, noise, leave_one_out(42), judged) is None
    judged[4] = True
    assert misfit(design, gram, noise, leave_one_out(42), judged) is not None
    assert misfit(design, gram, noise, [], np.ones(42, bool)) is None


# ------------------------------------------------------------------ covariance of rows
def test_row_covariance_by_hand():
    own, shared = np.array([1.0, 2.0, 5.0]), np.array([4.0, 1.0, 3.0])
    found = row_covariance(own, shared, np.array(["x", "x", "y"]))
    np.testing.assert_allclose(found, np.array([[5.0, 2, 0], [2, 3, 0], [0, 0, 8]]) / (16 / 3))


def test_row_covariance_is_that_of_noise():
    """The mean of a context's controls is in the effects of all its rows."""
    rng = np.random.default_rng(0)
    own, contexts = rng.uniform(0.5, 2, 6), np.array(list("xxxyyy"))
    shared = np.repeat([0.5, 1.5], 3)
    controls = rng.normal(size=(2, 100_000)) * np.sqrt([[0.5], [1.5]])
    noise = rng.normal(size=(6, 100_000)) * np.sqrt(own)[:, None] - np.repeat(controls, 3, axis=0)
    np.testing.assert_allclose(row_covariance(own, shared, contexts), np.cov(noise) / (own + shared).mean(), atol=0.02)


def test_row_covariance_has_mean_one_and_can_be_inverted():
    rng = np.random.default_rng(1)
    contexts = rng.choice(list("abc"), 30)
    for own in (rng.uniform(0, 2, 30), np.full(30, 1e-3), 10.0 ** rng.uniform(-9, 0, 30)):
        found = row_covariance(own, rng.uniform(0, 2, 30), contexts)
        np.testing.assert_array_equal(found, found.T)
        assert found.diagonal().mean() == pytest.approx(1)
        np.linalg.cholesky(found)
    assert row_covariance(np.array([2.0, 0.0]), np.zeros(2), np.array(["x", "x"])).tolist() == [[2.0, 0], [0, 1e-6]]
    np.testing.assert_array_equal(row_covariance(np.zeros(2), np.zeros(2), np.array(["x", "x"])), np.eye(2))


# ------------------------------------------------------------------ genes
def test_gene_steps_by_hand():
    # equal signal: noise over its mean, log10 in quarters, -1.2 and .7; then -.17 and .15
    assert gene_steps(np.array([1.0, 3]) + 2, np.array([1.0, 3]), 0.0).tolist() == [-1, 1]
    assert gene_steps(np.array([1.0, 1.2]) + 2, np.array([1.0, 1.2]), 0.0).tolist() == [0, 0]
    # misfit is spread like the signal, and so makes genes alike
    assert gene_steps(np.array([1.0, 3]) + 2, np.array([1.0, 3]), 100.0).tolist() == [0, 0]
    assert gene_steps(np.array([1.0, 1]), np.zeros(2), 0.0).tolist() == [0, 0]


def test_gene_steps_are_cut():
    noise = np.array([1e-6, 1.0, 1e6])
    assert gene_steps(noise + 1, noise, 0.0).tolist() == [-GENE_STEPS, -GENE_STEPS, 2]
    one_bad = np.append(np.ones(999), 500.0)
    assert gene_steps(one_bad + 1, one_bad, 0.0)[-1] == GENE_STEPS  # 333 times the mean would be ten


def test_genes_without_signal_get_a_tenth_of_the_mean():
    noise, square = np.ones(4), np.array([5.0, 5.0, 0.3, 1.0])  # the last two: less than noise, and noise
    signal = np.array([4.0, 4, 0, 0]) + GENE_FLOOR * 2
    ratio = noise / signal / (4 / signal.sum())
    found = gene_steps(square, noise, 0.0)
    np.testing.assert_array_equal(found, np.rint(4 * np.log10(ratio)))
    assert found[2] == found[3] > 0 > found[0]
    assert gene_steps(np.ones(3), np.ones(3), 0.0).tolist() == [0, 0, 0]  # no signal anywhere: all alike


def test_gene_steps_do_not_depend_on_units_or_order():
    rng = np.random.default_rng(0)
    noise, signal = rng.uniform(0.1, 5, 50), rng.gamma(0.5, 1, 50)
    found = gene_steps(signal + noise, noise, 3.0)
    assert len(set(found.tolist())) > 3
    np.testing.assert_array_equal(gene_steps(1e4 * (signal + noise), 1e4 * noise, 3e4), found)
    order = rng.permutation(50)
    np.testing.assert_array_equal(gene_steps((signal + noise)[order], noise[order], 3.0), found[order])
    # weighed by signal the strengths have the mean one, but for rounding and cutting
    weight = signal + GENE_FLOOR * signal.mean()
    assert weight @ 10 ** (found / 4) / weight.sum() == pytest.approx(1, abs=0.2)


# ------------------------------------------------------------------ amplitudes
def test_amplitudes_of_strong_and_null_columns_by_hand():
    variance, mean = amplitudes(np.eye(3), np.diag([100.0, 9.0, 0.5]), np.array([1.0, 3.0, 1.0]))
    square = np.array([99.0, 6.0, 0.0])
    assert mean == pytest.approx(35, rel=5e-3)
    np.testing.assert_allclose(variance, AMPLITUDE_FLOOR + (1 - AMPLITUDE_FLOOR) * square / 35, rtol=1e-2)
    assert variance.mean() == pytest.approx(1) and variance[2] == AMPLITUDE_FLOOR


def test_amplitudes_weigh_rows_by_their_noise():
    """A is measured twice with noise 1 and 3: weights 3/4 and 1/4, noise 3/4. B comes in a sum with A only."""
    effects = np.array([[4.0, 0, 0], [0, 4, 0], [3, 1, 5]])
    design, noise = np.array([[1.0, 0], [1, 0], [1, 1]]), np.array([1.0, 3.0, 2.0])
    a = np.array([3.0, 1, 0])
    square = np.array([a @ a - 0.75, 25 - (2 + 0.75)])
    variance, mean = amplitudes(design, effects @ effects.T, noise)
    assert mean == pytest.approx(square.mean(), rel=1e-2)
    np.testing.assert_allclose(variance, AMPLITUDE_FLOOR + (1 - AMPLITUDE_FLOOR) * square / square.mean(), rtol=1e-2)


def test_columns_without_rows_get_the_mean():
    variance, mean = amplitudes(np.eye(2, 4), np.diag([11.0, 3.0]), np.ones(2))
    assert variance[2:].tolist() == [1.0, 1.0] and mean == pytest.approx(6, rel=1e-2)
    np.testing.assert_allclose(variance[:2], 0.03 + 0.97 * np.array([10, 2]) / 6, rtol=1e-2)


def test_null_columns_are_alike():
    variance, mean = amplitudes(np.eye(3), np.diag([1.0, 0.2, 0.9]), np.ones(3))
    assert variance.tolist() == [1.0, 1.0, 1.0] and mean == 0.0
    assert amplitudes(np.zeros((2, 3)), np.eye(2), np.ones(2))[0].tolist() == [1.0, 1.0, 1.0]  # rows of dose zero


def test_amplitudes_find_the_size_of_true_effects():
    rng = np.random.default_rng(0)
    size = np.array([0.0, 1.0, 4.0, 16.0])
    found = np.zeros(4)
    for _ in range(50):
        truth = rng.normal(size=(4, 100)) * np.sqrt(size / 100)[:, None]
        measured = np.repeat(truth, 3, axis=0) + rng.normal(size=(12, 100)) * np.sqrt(3 / 100)
        variance, mean = amplitudes(np.repeat(np.eye(4), 3, axis=0), measured @ measured.T, np.full(12, 3.0))
        found += (variance - AMPLITUDE_FLOOR) / (1 - AMPLITUDE_FLOOR) * mean / 50
    np.testing.assert_allclose(found[1:], size[1:], rtol=0.05)
    assert found[0] < 0.1


# ------------------------------------------------------------------ the noise of a class of questions
def test_profiles_have_no_noise_but_what_differs_between_contexts():
    contexts, asked = np.array(["x", "y", "x"]), []

    def unexplained(rows):
        asked.append(rows.tolist())
        return 5.0

    build = lambda **kw: noise_model(contexts, None, np.zeros(3, int), None, unexplained=unexplained, **kw)
    known, new = build(new_context=False), build(new_context=True)
    assert known.rows.tolist() == [1e-12] * 3 and known.misfit == 0.0
    assert new.rows.tolist() == [5.0] * 3 and new.misfit == 5.0
    assert asked == [[0.0] * 3]  # the first did not ask
    for model in (known, new):
        assert model.covariance is None and not model.by_gene and model.among(np.array([0, 2])) is None
        assert model.steps(np.array([1.0, 9.0]), np.arange(3)).tolist() == [0, 0]
    nothing = noise_model(contexts, None, np.zeros(3, int), None, new_context=True, unexplained=lambda rows: None)
    assert nothing.rows.tolist() == [1e-12] * 3


def test_controls_count_for_questions_about_another_context_only():
    contexts, variance = np.array(["x", "x", "y"]), np.array([1.0, 3.0])
    n, m = np.array([2, 4, 8]), np.array([4.0, 4.0, 2.0])
    own, shared = 4 / n, 4 / m
    known = noise_model(contexts, variance, n, m, new_context=False, unexplained=lambda rows: 0.25)
    np.testing.assert_allclose(known.rows, own)
    np.testing.assert_allclose(known.covariance, np.diag(own + 0.25) / (own + 0.25).mean())
    new = noise_model(contexts, variance, n, m, new_context=True, unexplained=lambda rows: 0.25)
    np.testing.assert_allclose(new.rows, own + shared)
    np.testing.assert_allclose(new.covariance, row_covariance(own + 0.25, shared, contexts))
    assert new.covariance[0, 1] > 0 == new.covariance[0, 2]
    np.testing.assert_allclose(new.among(np.array([0, 2])), new.covariance[[0, 2]][:, [0, 2]])
    assert new.by_gene and (known.misfit, new.misfit) == (0.25, 0.25)
    for model in (known, new):  # the variance of a gene in a row
        np.testing.assert_allclose(np.outer(model.share, variance).sum(1), model.rows)


def test_what_cannot_be_judged_counts_as_much_as_noise():
    build = lambda found: noise_model(
        np.array(["x", "x"]), np.ones(2), np.array([1, 2]), None, new_context=False, unexplained=lambda rows: found
    )
    assert build(None).misfit == pytest.approx(1.5) and build(0.0).misfit == 0.0


def test_steps_are_those_of_the_mean_row():
    variance, square = np.array([1.0, 0.1, 5.0]), np.array([3.0, 3.0, 9.0])
    model = noise_model(
        np.array(["x"] * 3), variance, np.array([1, 2, 50]), None, new_context=False, unexplained=lambda rows: 2.0
    )
    for rows in (np.arange(3), np.array([1, 2])):
        expected = gene_steps(square, variance * (1 / np.array([1, 2, 50]))[rows].mean(), 2.0)
        np.testing.assert_array_equal(model.steps(square, rows), expected)
    assert len(set(expected.tolist())) > 1


def test_sampling_noise_alone_has_neither_misfit_nor_shared_parts():
    n, m = np.array([2, 4]), np.array([4.0, 4.0])
    model = noise_model(np.array(["x", "x"]), np.ones(2), n, m, new_context=True, unexplained=lambda rows: 3.0)
    alone = sampling_noise_alone(model)
    assert model.misfit == 3.0 and alone.misfit == 0.0
    np.testing.assert_allclose(alone.covariance, np.diag([1.5, 1.0]) / 1.25)
    assert alone.rows is model.rows and alone.variance is model.variance and alone.share is model.share
    assert sampling_noise_alone(NoiseModel(np.zeros(2))).covariance is None
