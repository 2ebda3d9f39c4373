"""Parts of the kernel anchor: links, designs, kernels, folds, left-out errors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel

from scjepa.baselines._design import ActionDesign, summed_features
from scjepa.baselines._folds import condition_folds, context_folds, gene_folds, supported_rows, unit_folds
from scjepa.baselines._grid import grid_errors, strength_steps
from scjepa.baselines._kernels import (
    action_kernels,
    apply_link,
    context_kernel,
    control_axes,
    invert_link,
    rbf,
    ridge_weights,
    single_components,
)
from scjepa.baselines._noise import NoiseModel, amplitudes
from scjepa.baselines._selection import (
    CONTEXT,
    GridErrors,
    Rows,
    averaged,
    untried_combinations,
)


@pytest.mark.parametrize("eps", [None, 0.03, 1.0])
def test_link_and_its_inverse(eps):
    mean = np.array([0.0, 0.2, 3.0])
    np.testing.assert_allclose(invert_link(apply_link(mean, eps), eps), mean, atol=1e-12)


def test_link_makes_shifts_multiplicative():
    # with eps -> 0 a shift by log 2 doubles the normalised mean
    mean = np.log1p([1.0, 5.0])
    np.testing.assert_allclose(np.expm1(invert_link(apply_link(mean, 1e-12) + np.log(2), 1e-12)), [2.0, 10.0])
    assert invert_link(np.array([-50.0]), 0.1).item() == 0.0  # never below zero expression


def test_design_has_gene_and_kind_blocks_times_dose(make_table):
    table = make_table(["A", "A", "A+B"], [1, 2, 3], kind=np.array(["KO", "OE", "KO"]), dose=np.array([1.0, 1.0, 3.0]))
    design = ActionDesign.of(table)
    assert design.kinds == (("A", "KO"), ("A", "OE"), ("B", "KO"))
    # columns A, B, A|KO, A|OE, B|KO; log1p(3) is twice log1p(1), the median
    assert design.rows(table).tolist() == [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [2, 2, 2, 0, 2]]
    assert design.known(make_table(["A", "C"], n_genes=1)).tolist() == [True, False]


def test_summed_features_have_length_one_and_ignore_order(make_table):
    values = np.array([[1.0, 2.0], [3.0, -1.0]])
    out = summed_features(make_table(["A+B", "B+A", "A"]), ["A", "B"], values)
    np.testing.assert_allclose(out[0], np.array([4.0, 1.0]) / np.sqrt(17))
    np.testing.assert_array_equal(out[0], out[1])
    assert np.linalg.norm(out[2]) == pytest.approx(1.0)


def test_rbf_scale_is_the_median_distance():
    train, query = np.array([[0.0], [1.0], [3.0]]), np.array([[2.0]])
    among, across = rbf(train, query)  # squared distances 1, 4, 9: scale 4
    np.testing.assert_allclose(among, rbf_kernel(train, gamma=1 / 4))
    np.testing.assert_allclose(across, rbf_kernel(query, train, gamma=1 / 4))
    assert (rbf(np.ones((2, 1)), np.ones((1, 1)))[0] == 1).all()


def test_single_components_agree_with_the_explicit_decomposition():
    rng = np.random.default_rng(0)
    design = (rng.random((9, 6)) < 0.4).astype(float)
    design[:, 5] = 0.0  # a gene without a training row
    effects = rng.normal(size=(9, 30))
    out = single_components(design, effects @ effects.T, 3)
    a = design[:, :5]
    single = np.linalg.solve(a.T @ a + np.eye(5), a.T @ effects)
    left, size, _ = np.linalg.svd(single - single.mean(0), full_matrices=False)
    expected = left[:, :3] * size[:3]
    expected /= np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(out[:5] @ out[:5].T, expected @ expected.T, atol=1e-8)
    assert (out[5] == 0).all()


def test_action_kernels_are_the_documented_sums():
    design = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    effects = np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 2.0]])
    gram, order = effects @ effects.T, np.array([1, 1, 2])
    kernels = action_kernels(design, design[2:], order, order[2:], gram)
    additive = design @ design.T
    f = design @ single_components(design, gram, 8)
    near, c = rbf(f, f)[0], 1 + 2 * np.outer(order == 2, order == 2)
    np.testing.assert_allclose(kernels["additive"][0], additive)
    np.testing.assert_allclose(kernels["additive+rbf"][0], additive + c + 2 * near)
    np.testing.assert_allclose(kernels["components"][0], 0.3 * additive + c + f @ f.T + 3 * near)
    for among, across in kernels.values():  # the query is the third training row
        np.testing.assert_allclose(across[0], among[2])


def test_one_column_gives_one_kernel_and_features_give_three_more():
    column, order = np.ones((2, 1)), np.array([1, 1])
    assert list(action_kernels(column, column, order, order, np.eye(2))) == ["additive"]
    p = np.eye(2)
    kernels = action_kernels(np.eye(2), np.eye(2), order, order, np.eye(2), features=(p, p))
    assert list(kernels)[3:] == ["constant", "features", "additive+features"]
    assert (kernels["constant"][0] == 1).all()
    np.testing.assert_allclose(kernels["features"][0], 1 + p + rbf(p, p)[0])
    np.testing.assert_allclose(kernels["additive+features"][0], 1 + 2 * p + rbf(p, p)[0])


def test_context_kernel_keeps_its_values_on_the_control_axes():
    rng = np.random.default_rng(1)
    control = np.repeat(rng.normal(size=(3, 20)), 2, axis=0)
    query = rng.normal(size=(2, 20))
    center, axes = control_axes(control)
    assert axes.shape == (20, 2)
    for a, b in zip(
        context_kernel(control, query), context_kernel((control - center) @ axes, (query - center) @ axes), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_context_kernel_of_equal_controls_is_constant():
    control = np.full((3, 4), 2.0)
    among, across = context_kernel(control, np.arange(4.0)[None])
    assert (among == 1).all() and (across == 1).all()
    assert control_axes(control)[1].shape == (4, 0)


def test_ridge_weights_agree_with_the_inverse():
    rng = np.random.default_rng(2)
    x, q = rng.normal(size=(5, 3)), rng.normal(size=(2, 3))
    for weight, strength in zip(ridge_weights(x @ x.T, q @ x.T, [0.1, 2.0]), [0.1, 2.0], strict=True):
        np.testing.assert_allclose(weight, q @ x.T @ np.linalg.inv(x @ x.T + strength * np.eye(5)), atol=1e-10)


def test_unit_folds_cover_every_unit_once_and_share_strata():
    strata = [1] * 20 + [2] * 20
    folds = unit_folds([[i] for i in range(40)], strata, 10)
    assert sorted(sum(folds, [])) == list(range(40))
    assert {tuple(sorted(strata[u] for u in fold)) for fold in folds} == {(1, 1, 2, 2)}


def test_folds_leave_out_what_they_say(make_table):
    table = make_table(["A", "A", "B", "A+B", "A+B"], [1, 2, 3, 4, 5], contexts=["x", "y", "x", "x", "y"])
    left_out = lambda folds: [test.tolist() for _, test in folds]
    assert left_out(condition_folds(table)) == [[0], [1], [2], [3, 4]]
    assert left_out(context_folds(table)) == [[0, 2, 3], [1, 4]]
    assert left_out(gene_folds(table)) == [[0, 1, 3, 4], [2, 3, 4]]
    for train, test in condition_folds(table) + context_folds(table) + gene_folds(table):
        assert sorted([*train, *test]) == [0, 1, 2, 3, 4]
    assert context_folds(table.rows([0, 2])) == []


def test_supported_rows_have_their_genes_elsewhere(make_table):
    table = make_table(["A", "B", "A+B", "A+C", "C+D", "D"], [1, 2, 3, 4, 5, 6])
    folds = condition_folds(table)
    assert supported_rows(table, folds).tolist() == [True, True, True, True, True, True]
    # C was never measured alone
    assert supported_rows(table, folds, alone=True).tolist() == [True, True, True, False, False, True]


@pytest.mark.parametrize("eps", [None, 0.1])
def test_grid_errors_agree_with_scikit_learn(make_screen, eps):
    table = make_screen(3)
    design, folds = table.design(table.vocabulary()), condition_folds(table)
    rows = Rows(design, table.order, table.contexts, np.zeros((len(table), 0)))
    grid = grid_errors(
        rows,
        table.control,
        table.perturbed,
        folds,
        gram=table.effects @ table.effects.T,
        noise=NoiseModel(np.full(len(table), 1e-12)),
        steps=[np.zeros(40, int)] * len(folds),
        links=[eps],
        strengths=[0.3, 3.0],
        n_components=8,
        use_context=True,
    )
    names = ("additive", "additive+rbf", "components")
    assert grid.kernels == (*names, *(name + "~" for name in names))
    variances = lambda rows: amplitudes(
        design[rows], table.effects[rows] @ table.effects[rows].T, np.full(len(rows), 1e-12)
    )[0]
    target = apply_link(table.perturbed, eps) - apply_link(table.control, eps)
    for s, strength in enumerate(grid.strengths):
        for train, test in folds[:5]:
            scaled = design[train] * variances(train)
            model = KernelRidge(alpha=strength, kernel="precomputed").fit(scaled @ design[train].T, target[train])
            shift = model.predict(design[test] @ scaled.T)
            predicted = invert_link(apply_link(table.control[test], eps) + shift, eps)
            expected = np.square(predicted - table.perturbed[test]).sum(1)
            np.testing.assert_allclose(grid.errors[test, 0, 3, s, 0], expected, rtol=1e-4)  # single precision


def test_noisy_rows_and_genes_are_believed_less_by_hand(make_screen):
    table = make_screen(3)
    n, design, folds = len(table), table.design(table.vocabulary()), condition_folds(table)
    rng = np.random.default_rng(0)
    noise = NoiseModel(np.ones(n), 0.0, np.diag(rng.uniform(0.5, 2, n)), np.ones(40), np.ones(n))
    step = rng.choice([-4, -2, 0, 2, 4], 40)
    grid = grid_errors(
        Rows(design, table.order, table.contexts, np.zeros((n, 0))),
        table.control,
        table.perturbed,
        folds,
        gram=table.effects @ table.effects.T,
        noise=noise,
        steps=[step] * len(folds),
        links=[None],
        strengths=[0.3, 3.0],
        n_components=8,
        use_context=True,
    )
    assert grid.errors.shape == (n, 1, 4, 2, 2)
    train, test = folds[7]
    variances = amplitudes(design[train], table.effects[train] @ table.effects[train].T, np.ones(len(train)))[0]
    among, across = ((d * variances) @ design[train].T for d in (design[train], design[test]))
    for s, strength in enumerate(grid.strengths):
        for way, own in enumerate((np.zeros(40), step / 4)):
            predicted = np.stack(
                [
                    across @ np.linalg.solve(among + strength * 10**k * noise.among(train), table.effects[train, g])
                    for g, k in enumerate(own)
                ],
                axis=1,
            )
            expected = np.square(predicted - table.effects[test]).sum(1)
            np.testing.assert_allclose(grid.errors[test, 0, 1, s, way], expected, rtol=1e-4)


def test_strengths_of_neighbouring_genes_are_computed_once():
    used, where = strength_steps([0.1, 0.316, 1.0], np.array([1, 0, -1, 1]))
    np.testing.assert_allclose(used, [0.1, 0.316, 1.0, 3.16, 0.0316], rtol=1e-2)
    assert {k: at.tolist() for k, at in where.items()} == {0: [0, 1, 2], 1: [1, 2, 3], -1: [4, 0, 1]}


# ------------------------------------------------------------------ weighing candidates
def strengths_grid(errors, rows=3):
    """Return a grid over strengths 0, 1, 2, ...; each row has the same errors on another scale."""
    errors = np.outer(10.0 ** np.arange(rows), errors)[:, None, None, :, None]
    strengths = tuple(float(s) for s in range(errors.shape[3]))
    return GridErrors((None,), ("additive",), strengths, errors, np.arange(rows))


def score(errors):
    """Return the score of candidates, by hand: rows x candidates."""
    errors = np.asarray(errors, dtype=float)
    return np.log(errors + errors.mean(0).min()).mean(0)


def test_weights_fall_with_the_relative_excess_error_by_hand():
    errors = np.outer([1.0, 10.0, 100.0], [1.1, 1.0, 1.2])
    pick = strengths_grid([1.1, 1.0, 1.2]).mixture([np.ones(3, bool)])
    raw = np.exp(-(np.exp(score(errors) - score(errors).min()) - 1) / 0.1)
    assert [entry[:3] for entry in pick["mixture"]] == [[None, "additive", s] for s in (1.0, 0.0, 2.0)]
    np.testing.assert_allclose([entry[3] for entry in pick["mixture"]], raw[[1, 0, 2]] / raw.sum())
    assert (pick["link"], pick["kernel"], pick["lambda"]) == (None, "additive", 1.0)
    assert pick["error"] == pytest.approx((1 + 10**0.5 + 10) / 3)  # mean distance of the best candidate alone


def test_null_rows_do_not_choose_alone():
    # three null rows are predicted twice as well by the first, a strong one loses two thirds of its effect by it
    errors = np.array([[1.0, 2.0]] * 3 + [[400.0, 100.0]])[:, None, None, :, None]
    pick = GridErrors((None,), ("additive",), (10.0, 0.1), errors, np.arange(4)).mixture([np.ones(4, bool)])
    assert np.log(errors).mean(0).ravel().argmin() == 0  # by the geometric mean they would
    assert pick["lambda"] == 0.1


def test_candidates_below_one_percent_of_the_best_do_not_count():
    errors = [1.0, 1.6, 2.0, 9.0]
    pick = strengths_grid(errors).mixture([np.ones(3, bool)])
    expected = score(np.outer([1.0, 10, 100], errors))
    raw = np.exp(-np.expm1(expected - expected.min()) / 0.1)
    assert [entry[2] for entry in pick["mixture"]] == np.flatnonzero(raw >= 0.01).tolist()
    assert 1 < len(pick["mixture"]) < 4


def test_at_most_the_best_32_candidates_count():
    pick = strengths_grid(1.04 - 0.001 * np.arange(40)).mixture([np.ones(3, bool)])
    assert [entry[2] for entry in pick["mixture"]] == [float(s) for s in range(39, 7, -1)]
    assert sum(entry[3] for entry in pick["mixture"]) == pytest.approx(1.0, abs=1e-12)


def test_a_perfect_candidate_counts_alone():
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        pick = strengths_grid([1.0, 0.0]).mixture([np.ones(3, bool)])
    assert pick["mixture"] == [[None, "additive", 1.0, 1.0, False]] and pick["error"] == 0.0


def test_mixture_uses_the_first_mask_with_three_rows():
    errors = np.array([[1.0, 4.0], [1.0, 4.0], [9.0, 1.0], [9.0, 1.0], [9.0, 1.0]])[:, None, None, :, None]
    grid = GridErrors((None,), ("additive",), (0.1, 1.0), errors, np.arange(5))
    first, last = np.array([1, 1, 0, 0, 0], bool), np.array([0, 0, 1, 1, 1], bool)
    assert grid.mixture([first, last])["lambda"] == 1.0  # two rows are too few
    assert grid.mixture([last | first])["lambda"] == 1.0
    assert grid.mixture([last, first])["lambda"] == 1.0  # three are enough
    assert grid.mixture([np.zeros(5, bool), first])["lambda"] == 0.1  # the last resort needs two
    assert grid.mixture([first]) is None  # but a mask on its own three
    assert grid.mixture([first, np.array([1, 0, 0, 0, 0], bool)]) is None
    errors[2] = np.nan  # a row that was never left out tells nothing
    assert grid.mixture([last]) is None


def context_grid(plain, looking):
    """Return a grid of one candidate without and one with the context kernel; four left-out contexts."""
    errors = np.stack([plain, looking], 1)[:, None, :, None, None]
    return GridErrors((None,), ("additive", "additive" + CONTEXT), (1.0,), errors, np.arange(4))


def test_kernels_that_look_at_contexts_must_win_by_a_margin():
    names = lambda grid, **kw: [
        entry[1] for entry in grid.mixture([np.ones(4, bool)], temperature=1e-3, **kw)["mixture"]
    ]
    luck = context_grid([1.0, 1.0, 1.0, 1.0], [0.1, 1.2, 1.2, 1.2])  # better by one context
    assert names(luck) == ["additive" + CONTEXT] and names(luck, margin=0.5) == ["additive"]
    steady = context_grid([1.0, 1.0, 1.0, 1.0], [0.8, 0.9, 0.8, 0.9])
    assert names(steady, margin=0.5) == ["additive" + CONTEXT]


def test_candidates_that_a_fold_could_not_try_do_not_count():
    grid = context_grid([1.0] * 4, [0.1, 0.1, 0.1, np.nan])
    assert [entry[1] for entry in grid.mixture([np.ones(4, bool)])["mixture"]] == ["additive"]
    assert grid.only(context=True) is None and grid.only(context=False).kernels == ("additive",)
    assert context_grid([1.0] * 4, [1.0] * 4).only(links=(0.1,)) is None


def test_averaged_mixtures_join_what_is_the_same():
    one = [[None, "additive", 1.0, 0.75, False], [0.1, "additive", 1.0, 0.25, False]]
    other = [[0.1, "additive", 1.0, 1.0, False]]
    assert averaged((0.5, one), (0.5, other)) == [
        [0.1, "additive", 1.0, 0.625, False],
        [None, "additive", 1.0, 0.375, False],
    ]
    assert averaged((1.0, one), (0.0, other)) == one


def test_untried_combinations_get_the_fixed_mixture():
    default = untried_combinations((None, 0.03), (0.01, 10.0), n_columns=3, by_gene=True)
    assert default["mixture"] == [[0.03, "additive", 0.3, 0.5, True], [0.03, "components", 0.3, 0.5, True]]
    assert (default["link"], default["kernel"], default["lambda"]) == (0.03, "additive", 0.3)
    assert np.isnan(default["error"])


def test_untried_combinations_stay_among_the_candidates():
    entries = lambda *args, n_columns=3: untried_combinations(*args, n_columns=n_columns, by_gene=False)["mixture"]
    assert [entry[0] for entry in entries((0.1, None), (0.3,))] == [0.1, 0.1]
    assert [entry[2] for entry in entries((None,), (0.01, 0.1))] == [0.1, 0.1]
    assert [entry[2] for entry in entries((None,), (1.0, 10.0))] == [1.0, 1.0]
    assert [entry[1] for entry in entries((None,), (0.3,), n_columns=1)] == ["additive", "additive"]
