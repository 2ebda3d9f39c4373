"""Conditions and matched controls, against numbers worked out by hand and against pandas."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.baselines._base import check_query, condition_keys, table_from_state, table_state
from scjepa.data import CellGroups, ConditionTable, condition_means, condition_table, group_cells


def described(groups: CellGroups) -> list[tuple]:
    """Conditions with everything that names them."""
    n = len(groups)
    dose = [None] * n if groups.dose is None else groups.dose.tolist()
    kind = [None] * n if groups.kind is None else groups.kind.tolist()
    return list(zip(groups.actions, groups.contexts.tolist(), dose, kind, strict=True))


def weight_of(groups: CellGroups, i: int) -> dict[int, float]:
    return dict(zip(*(a.tolist() for a in groups.control_weights(i)), strict=True))


# ---------------------------------------------------------------- grouping
def test_spellings_are_one_condition() -> None:
    groups = group_cells(["B+A", "control", "A+B", "A+ctrl", "A", "ctrl+ctrl", " A "])
    assert groups.actions == (("A",), ("A", "B"))
    assert [c.tolist() for c in groups.cells] == [[3, 4, 6], [0, 2]]
    assert {c: i.tolist() for c, i in groups.controls.items()} == {"all": [1, 5]}
    assert groups.contexts.tolist() == ["all", "all"]
    assert groups.dose is None and groups.kind is None


def test_contexts_doses_and_kinds_split_conditions() -> None:
    groups = group_cells(
        ["A", "A", "A", "A", "A", "c", "c"],
        control="c",
        contexts=np.array(list("xxxxyxy")),
        dose=np.array([1.0, 1, 10, 1, 1, 0, 0]),
        kind=np.array(["KO", "KO", "KO", "OE", "KO", "-", "-"]),
    )
    assert described(groups) == [
        (("A",), "x", 1.0, "KO"),
        (("A",), "x", 1.0, "OE"),
        (("A",), "x", 10.0, "KO"),
        (("A",), "y", 1.0, "KO"),
    ]
    assert [c.tolist() for c in groups.cells] == [[0, 1], [3], [2], [4]]
    assert {c: i.tolist() for c, i in groups.controls.items()} == {"x": [5], "y": [6]}


def test_times_split_conditions_after_everything_else() -> None:
    groups = group_cells(
        ["A", "A", "A", "A", "c"],
        control="c",
        dose=np.array([2.0, 1, 1, 1, 0]),
        kind=np.array(["x", "y", "x", "x", "-"]),
        time=np.array([1.0, 2, 24, 6, 0]),
    )
    order = [(1.0, "x", 6.0), (1.0, "x", 24.0), (1.0, "y", 2.0), (2.0, "x", 1.0)]
    assert list(zip(groups.dose.tolist(), groups.kind.tolist(), groups.time.tolist(), strict=True)) == order
    assert [c.tolist() for c in groups.cells] == [[3], [2], [1], [0]]
    assert groups.rows([2, 0]).time.tolist() == [2.0, 6.0]
    assert groups.within(np.array([True, True, False, True, True])).time.tolist() == [6.0, 2.0, 1.0]
    means = condition_means(np.eye(5), groups)
    assert means.time.tolist() == groups.time.tolist() and means.rows([3]).time.tolist() == [1.0]


def test_one_time_for_all_changes_nothing_but_the_column() -> None:
    rng = np.random.default_rng(0)
    labels, dose = rng.choice(["control", "A", "B", "A+B"], 200), rng.choice([0.5, 1.0, 2.0], 200)
    plain, timed = group_cells(labels, dose=dose), group_cells(labels, dose=dose, time=np.full(200, 6.0))
    assert plain.time is None and set(timed.time) == {6.0}
    assert described(plain) == described(timed)
    for a, b in zip(plain.cells, timed.cells, strict=True):
        np.testing.assert_array_equal(a, b)


def test_keys_have_the_time_only_where_the_table_has_it() -> None:
    assert condition_keys(table()) == [(("A",), "KO", 1.0), (("A", "B"), "KO", 2.0), (("C",), "OE", 3.0)]
    timed = replace(table(), time=np.array([6.0, 6.0, 24.0]))
    assert condition_keys(timed)[2] == (("C",), "OE", 3.0, 24.0)


def test_saved_tables_keep_the_time_and_load_without() -> None:
    timed = replace(table(), time=np.array([6.0, 6.0, 24.0]))
    assert table_from_state(table_state(timed)).time.tolist() == [6.0, 6.0, 24.0]
    bare = table_state(table())
    assert "time" not in bare and table_from_state(bare).time is None


def test_questions_and_tables_must_both_have_times() -> None:
    timed = replace(table(), time=np.array([6.0, 6.0, 24.0]))
    check_query(timed, timed)
    with pytest.raises(ValueError, match="the training table has a time for every row, the query has none"):
        check_query(table(), timed)
    with pytest.raises(ValueError, match="the query has a time for every row, the training table has none"):
        check_query(timed, table())


def test_order_of_cells_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(["control", "A", "B", "B+A", "A+B", "C"], 200)
    contexts, dose = rng.choice(["x", "y"], 200), rng.choice([0.5, 1.0, 2.0], 200)
    groups = group_cells(labels, contexts=contexts, dose=dose)
    order = rng.permutation(200)
    other = group_cells(labels[order], contexts=contexts[order], dose=dose[order])
    assert described(groups) == described(other)
    for a, b in zip(groups.cells, other.cells, strict=True):
        np.testing.assert_array_equal(a, np.sort(order[b]))
    assert sum(map(len, groups.cells)) + sum(map(len, groups.controls.values())) == 200  # nobody is lost


def test_only_controls_is_no_condition() -> None:
    groups = group_cells(["control", "control"])
    assert len(groups) == 0 and groups.cells == ()
    assert len(condition_means(np.ones((2, 3)), groups)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control": "contrl"}, "control='contrl' is not among the perturbation labels. Did you mean 'control'?"),
        ({"control": "DMSO"}, "control='DMSO' is not among the perturbation labels"),  # not silently "control"
        ({"contexts": np.array(list("xxyx"))}, r"1 contexts have perturbed cells but no control cells .*'y'"),
        ({"contexts": np.array(["x"])}, "contexts has 1 values for 4 labels: give one for each cell"),
        ({"batches": np.zeros(5, int)}, "batches has 5 values for 4 labels"),
        ({"time": np.zeros(3)}, "time has 3 values for 4 labels"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_cells(["control", "A", "B", "control"], **options)


def test_context_of_controls_only_is_kept() -> None:
    groups = group_cells(["control", "control", "A"], contexts=np.array(list("xyx")))
    assert set(groups.controls) == {"x", "y"}


# ---------------------------------------------------------------- control matching
def test_control_weights_match_batches_by_hand() -> None:
    """Condition A: 3 of 4 cells in batch 0 (2 controls), 1 of 4 in batch 1 (1 control), none in batch 2."""
    labels = ["control"] * 4 + ["A"] * 4 + ["B"]
    batches = np.array([0, 0, 1, 2, 0, 0, 0, 1, 2])
    groups = group_cells(labels, batches=batches)
    assert weight_of(groups, 0) == pytest.approx({0: 3 / 8, 1: 3 / 8, 2: 1 / 4, 3: 0})
    assert weight_of(groups, 1) == pytest.approx({0: 0, 1: 0, 2: 0, 3: 1})


def test_orphan_batches_are_matched_by_all_controls() -> None:
    """Half of A is in batch 1, half in batch 5, which has no control here: its half goes to all four controls."""
    labels = ["control"] * 4 + ["A"] * 2
    groups = group_cells(labels, batches=np.array([0, 0, 0, 1, 1, 5]))
    assert weight_of(groups, 0) == pytest.approx({0: 1 / 8, 1: 1 / 8, 2: 1 / 8, 3: 1 / 8 + 1 / 2})
    all_orphan = group_cells(labels, batches=np.array([0, 0, 0, 1, 7, 5]))
    assert weight_of(all_orphan, 0) == pytest.approx(dict.fromkeys(range(4), 1 / 4))


def test_controls_are_of_the_same_context() -> None:
    """Batch 1 has a control, but in another context: for x it is an orphan."""
    groups = group_cells(
        ["control", "control", "A", "A"], contexts=np.array(list("xyxy")), batches=np.array([0, 1, 1, 1])
    )
    assert weight_of(groups, 0) == pytest.approx({0: 1})
    assert weight_of(groups, 1) == pytest.approx({1: 1})


def test_without_batches_controls_count_alike() -> None:
    groups = group_cells(["control", "A", "control"])
    assert weight_of(groups, 0) == pytest.approx({0: 0.5, 2: 0.5})


def test_weights_sum_to_one() -> None:
    rng = np.random.default_rng(1)
    groups = group_cells(
        rng.choice(["control", "A", "B", "C"], 300),
        contexts=rng.choice(["x", "y"], 300),
        batches=rng.integers(0, 40, 300),
    )
    for i in range(len(groups)):
        cells, weights = groups.control_weights(i)
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()
        assert set(cells) == set(groups.controls[groups.contexts[i]])


# ---------------------------------------------------------------- subsets
def test_rows_and_within() -> None:
    groups = group_cells(
        ["control", "control", "A", "A", "B"], dose=np.array([0, 0, 1.0, 1.0, 2.0]), batches=np.array([0, 1, 0, 1, 1])
    )
    assert described(groups.rows([1])) == [(("B",), "all", 2.0, None)]
    assert described(groups.rows(np.array([True, False]))) == [(("A",), "all", 1.0, None)]
    kept = groups.within(np.array([True, False, True, False, False]))
    assert kept.actions == (("A",),)
    assert kept.cells[0].tolist() == [2] and kept.controls["all"].tolist() == [0]
    assert weight_of(kept, 0) == {0: 1.0}
    borrowed = groups.within(np.array([False] * 4 + [True]), np.array([True, True, False, False, False]))
    assert borrowed.actions == (("B",),)
    assert weight_of(borrowed, 0) == pytest.approx({0: 0, 1: 1})


def test_within_refuses_contexts_without_controls() -> None:
    groups = group_cells(["control", "A", "control", "A"], contexts=np.array(list("xxyy")))
    with pytest.raises(ValueError, match="1 contexts keep perturbed cells but no control cells after the split: 'y'"):
        groups.within(np.array([True, True, False, True]))
    left = groups.within(np.array([True, True, False, False]))
    assert left.contexts.tolist() == ["x"] and set(left.controls) == {"x"}


# ---------------------------------------------------------------- means
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_means_equal_pandas_groupby(form) -> None:
    rng = np.random.default_rng(2)
    x = rng.poisson(1.0, (120, 5)).astype(np.float32)
    obs = pd.DataFrame({"p": rng.choice(["control", "A", "B", "A+B"], 120), "c": rng.choice(["x", "y"], 120)})
    groups = group_cells(obs["p"].to_numpy(), contexts=obs["c"].to_numpy())
    table = condition_means(form(x), groups, list("abcde"))
    means = pd.DataFrame(x.astype(float)).groupby([obs["p"], obs["c"]]).mean()
    size = obs.groupby(["p", "c"]).size()
    for i in range(len(table)):
        name = "+".join(table.actions[i]), table.contexts[i]
        np.testing.assert_allclose(table.perturbed[i], means.loc[name], rtol=1e-12)
        np.testing.assert_allclose(table.control[i], means.loc[("control", name[1])], rtol=1e-12)
        assert table.n_cells[i] == size[name]
    assert table.genes == tuple("abcde")
    np.testing.assert_allclose(table.effects, table.perturbed - table.control)


def test_control_means_are_batch_weighted() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((150, 4))
    labels, batches = rng.choice(["control", "A", "B"], 150), rng.integers(0, 6, 150)
    groups = group_cells(labels, batches=batches)
    table = condition_means(sp.csr_matrix(x), groups)
    for i in range(2):
        cells, weights = groups.control_weights(i)
        np.testing.assert_allclose(table.control[i], weights @ x[cells], rtol=1e-12)
    # a batch effect alone is no effect of the perturbation
    table = condition_means(np.eye(6)[batches], groups)
    np.testing.assert_allclose(table.effects, 0, atol=1e-12)


# ---------------------------------------------------------------- what there is of noise
def noisy(seed: int = 4, n: int = 160) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values, labels, contexts and batches; batches and contexts shift the values."""
    rng = np.random.default_rng(seed)
    labels, contexts = rng.choice(["control", "control", "A", "B"], n), rng.choice(["x", "y"], n)
    batches = rng.integers(0, 3, n)
    x = rng.gamma(1.0, 1.0, (n, 5)) * rng.integers(0, 2, (n, 5)) + batches[:, None] + 3 * (contexts == "y")[:, None]
    return x, labels, contexts, batches


def test_variance_is_pooled_within_conditions_and_batches_of_controls() -> None:
    x, labels, contexts, batches = noisy()
    got = condition_means(x, group_cells(labels, contexts=contexts, batches=batches))
    control = labels == "control"
    groups = [x[(labels == p) & (contexts == c)] for p in "AB" for c in "xy"]
    groups += [x[control & (contexts == c) & (batches == b)] for c in "xy" for b in range(3)]
    assert sum(map(len, groups)) == len(x)
    squares = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups)
    np.testing.assert_allclose(got.variance, squares / (len(x) - len(groups)), rtol=1e-10)
    # cells of conditions differ between batches too, and that is part of what is unknown of their mean
    without = condition_means(x, group_cells(labels, contexts=contexts))
    groups[4:] = [x[control & (contexts == c)] for c in "xy"]
    squares = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups)
    np.testing.assert_allclose(without.variance, squares / (len(x) - 6), rtol=1e-10)
    assert (without.variance > got.variance).all()


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array])
@pytest.mark.parametrize("block", [8192, 7])
def test_variance_of_sparse_cells_is_that_of_dense_ones(form, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, contexts, batches = noisy()
    groups = group_cells(labels, contexts=contexts, batches=batches)
    expected = condition_means(x, groups).variance
    monkeypatch.setattr("scjepa.data._conditions.BLOCK", block)
    np.testing.assert_allclose(condition_means(form(x), groups).variance, expected, rtol=1e-10)
    np.testing.assert_allclose(condition_means(x, groups).variance, expected, rtol=1e-10)
    np.testing.assert_allclose(condition_means(form(x.astype(np.float32)), groups).variance, expected, rtol=1e-5)


def test_noise_does_not_depend_on_the_order_of_cells() -> None:
    x, labels, contexts, batches = noisy()
    order = np.random.default_rng(0).permutation(len(x))
    got = condition_means(x, group_cells(labels, contexts=contexts, batches=batches))
    other = condition_means(x[order], group_cells(labels[order], contexts=contexts[order], batches=batches[order]))
    np.testing.assert_allclose(other.variance, got.variance, rtol=1e-10)
    np.testing.assert_allclose(other.n_controls, got.n_controls, rtol=1e-10)


def test_only_cells_in_use_count_for_the_variance() -> None:
    x, labels, contexts, _ = noisy()
    groups = group_cells(labels, contexts=contexts)
    some = np.random.default_rng(0).random(len(x)) < 0.6
    kept = condition_means(x[some], group_cells(labels[some], contexts=contexts[some]))
    np.testing.assert_allclose(condition_means(x, groups.within(some)).variance, kept.variance, rtol=1e-10)
    # a context of which only controls are left takes no part
    alone = group_cells(np.where((contexts == "y") & (labels != "control"), "control", labels), contexts=contexts)
    first = contexts == "x"
    kept = condition_means(x[first], group_cells(labels[first]))
    np.testing.assert_allclose(condition_means(x, alone).variance, kept.variance, rtol=1e-10)


def test_constant_genes_have_no_variance() -> None:
    x, labels, contexts, batches = noisy()
    x[:, 0] = 7.123456789 + (contexts == "y")
    got = condition_means(x, group_cells(labels, contexts=contexts, batches=batches)).variance
    assert 0 <= got[0] < 1e-10 and (got[1:] > 0.1).all()


def test_variance_is_unknown_below_twenty_degrees_of_freedom() -> None:
    labels = ["control"] * 12 + ["A"] * 10
    x = np.random.default_rng(0).random((22, 3))
    assert condition_means(x, group_cells(labels)).variance is not None  # 22 cells in two groups
    assert condition_means(x[1:], group_cells(labels[1:])).variance is None
    batches = np.array([0] * 11 + [1] + [0] * 10)
    assert condition_means(x, group_cells(labels, batches=batches)).variance is None  # in three groups
    profiles = condition_means(np.ones((40, 3)), group_cells(["control"] + [f"p{i}" for i in range(39)]))
    assert profiles.variance is None and profiles.n_controls.tolist() == [1.0] * 39


def test_effective_number_of_controls_by_hand() -> None:
    """A: 3 of 4 cells in batch 0 (2 controls), 1 in batch 1 (1 control). Weights 3/8, 3/8, 1/4: 1 / sum of squares."""
    labels = ["control"] * 4 + ["A"] * 4 + ["B"]
    groups = group_cells(labels, batches=np.array([0, 0, 1, 2, 0, 0, 0, 1, 2]))
    got = condition_means(np.ones((9, 1)), groups)
    np.testing.assert_allclose(got.n_controls, [1 / (2 * 9 / 64 + 1 / 16), 1.0])
    by_cell = [1 / (groups.control_weights(i)[1] ** 2).sum() for i in range(2)]
    np.testing.assert_allclose(got.n_controls, by_cell)
    assert condition_means(np.ones((9, 1)), group_cells(labels)).n_controls.tolist() == [4.0, 4.0]  # all alike


def test_effective_controls_say_how_noisy_the_control_mean_is() -> None:
    """The variance of the control profile is that of a cell over them."""
    rng = np.random.default_rng(0)
    labels = np.array(["control"] * 40 + ["A"] * 8)
    batches = np.r_[np.repeat([0, 1], [35, 5]), np.repeat([0, 1], [2, 6])]
    groups = group_cells(labels, batches=batches)
    got = condition_means(rng.normal(size=(48, 20_000)), groups)
    assert got.control.var() == pytest.approx(1 / got.n_controls[0], rel=0.05)
    assert got.n_controls[0] < 10
    assert got.variance.mean() == pytest.approx(1, rel=0.01)


def test_rows_keep_the_noise() -> None:
    x, labels, contexts, batches = noisy()
    got = condition_means(x, group_cells(labels, contexts=contexts, batches=batches))
    part = got.rows([3, 0])
    assert part.n_controls.tolist() == got.n_controls[[3, 0]].tolist() and len(set(got.n_controls)) > 1
    assert part.variance is got.variance
    mask = got.rows(np.array([True, False, False, True]))
    assert mask.n_controls.tolist() == got.n_controls[[0, 3]].tolist()
    assert table().rows([0]).n_controls is None and table().rows([0]).variance is None


def test_tables_written_as_plain_data_keep_the_noise() -> None:
    x, labels, contexts, batches = noisy()
    got = condition_means(x, group_cells(labels, contexts=contexts, batches=batches))
    again = table_from_state(table_state(got))
    np.testing.assert_array_equal(again.variance, got.variance)
    np.testing.assert_array_equal(again.n_controls, got.n_controls)
    bare = table_state(table())
    assert "variance" not in bare and "n_controls" not in bare
    assert table_from_state(bare).variance is None and table_from_state(bare).n_controls is None


def table() -> ConditionTable:
    return ConditionTable(
        actions=(("A",), ("A", "B"), ("C",)),
        contexts=np.array(["x", "x", "y"], dtype=object),
        control=np.zeros((3, 2)),
        perturbed=np.arange(6.0).reshape(3, 2),
        n_cells=np.array([5, 6, 7]),
        dose=np.array([1.0, 2.0, 3.0]),
        kind=np.array(["KO", "KO", "OE"], dtype=object),
    )


def test_table_rows_design_and_order() -> None:
    assert table().vocabulary() == ("A", "B", "C")
    assert table().order.tolist() == [1, 2, 1]
    assert table().design(["B", "A"]).tolist() == [[0, 1], [1, 1], [0, 0]]
    picked = table().rows(np.array([False, True, True]))
    assert picked.actions == (("A", "B"), ("C",))
    assert (picked.n_cells.tolist(), picked.dose.tolist(), picked.kind.tolist()) == ([6, 7], [2, 3], ["KO", "OE"])
    assert picked.effects.tolist() == [[2, 3], [4, 5]]
    assert picked.rows([1, 0]).contexts.tolist() == ["y", "x"]


def test_a_question_has_no_effects() -> None:
    question = ConditionTable((("A",),), np.array(["x"]), np.zeros((1, 2)))
    assert len(question.rows([0])) == 1
    with pytest.raises(ValueError, match="is a question: it has no perturbed profiles"):
        _ = question.effects


def cells() -> ad.AnnData:
    obs = pd.DataFrame(
        {"p": ["ctrl", "A", "A", "ctrl"], "b": list("xxyy"), "d": ["0", "1", "1", "0"], "k": ["n", "KO", "KO", "n"]},
        index=list("abcd"),
    )
    adata = ad.AnnData(np.log1p(np.array([[1.5, 2], [4, 2], [6, 2], [0.5, 2]])), obs=obs)
    adata.layers["counts"] = sp.csr_matrix(np.array([[1.0, 3], [1, 1], [3, 1], [2, 2]]))
    return adata


def test_condition_table_reads_anndata() -> None:
    got = condition_table(cells(), "p", "ctrl", layer="counts", batch_key="b", dose_key="d", kind_key="k", target_sum=4)
    assert got.actions == (("A",),)
    assert (got.dose.tolist(), got.kind.tolist(), got.n_cells.tolist()) == ([1.0], ["KO"], [2])
    np.testing.assert_allclose(got.control, [np.log1p([[1, 3], [2, 2]]).mean(0)], rtol=1e-6)
    np.testing.assert_allclose(got.perturbed, [np.log1p([[2, 2], [3, 1]]).mean(0)], rtol=1e-6)
    np.testing.assert_allclose(
        condition_table(cells(), "p", "ctrl").perturbed, [np.log1p([[4, 2], [6, 2]]).mean(0)], rtol=1e-6
    )


def test_condition_table_reads_times() -> None:
    adata = cells()
    adata.obs["t"] = [0.0, 6, 24, 0]
    got = condition_table(adata, "p", "ctrl", time_key="t")
    assert got.time.tolist() == [6.0, 24.0] and got.n_cells.tolist() == [1, 1]
    adata.obs["t"] = [0.0, -6, 24, 0]
    with pytest.raises(ValueError, match="time_key='t': 1 values are below 0"):
        condition_table(adata, "p", "ctrl", time_key="t")


def test_condition_table_errors() -> None:
    with pytest.raises(KeyError, match="perturbation_key='q' is not a column"):
        condition_table(cells(), "q", "ctrl")
    with pytest.raises(ValueError, match="layer='count' is not among adata.layers. Did you mean 'counts'"):
        condition_table(cells(), "p", "ctrl", layer="count")
    adata = cells()
    adata.obs["d"] = [0.0, -1, 1, 0]
    with pytest.raises(ValueError, match="dose_key='d': 1 values are below 0"):
        condition_table(adata, "p", "ctrl", dose_key="d")
