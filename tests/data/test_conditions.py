"""Conditions and matched controls, against numbers worked out by hand and against pandas."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

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


def test_condition_table_errors() -> None:
    with pytest.raises(KeyError, match="perturbation_key='q' is not a column"):
        condition_table(cells(), "q", "ctrl")
    with pytest.raises(ValueError, match="layer='count' is not among adata.layers. Did you mean 'counts'"):
        condition_table(cells(), "p", "ctrl", layer="count")
    adata = cells()
    adata.obs["d"] = [0.0, -1, 1, 0]
    with pytest.raises(ValueError, match="dose_key='d': 1 values are below 0"):
        condition_table(adata, "p", "ctrl", dose_key="d")
