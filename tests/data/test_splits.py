"""Every branch of the split: who trains, who validates, who stays untouched."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa.data import CellGroups, Split, group_cells, held_out_conditions, split_cells
from scjepa.data._splits import fractions

LABELS = ["control", "A", "B", "C", "A+B"]


def screen() -> tuple[pd.DataFrame, CellGroups]:
    """Two contexts x five labels x six cells from three donors; 120 cells in shuffled order, one donor per pair."""
    rows = [(p, c, f"d{i % 3}") for p in LABELS for c in ("x", "CD34+") for i in range(12)]
    obs = pd.DataFrame(rows, columns=["p", "c", "donor"]).sample(frac=1, random_state=0).reset_index(drop=True)
    return obs, group_cells(obs["p"].to_numpy(), contexts=obs["c"].to_numpy())


def split(**options) -> Split:
    obs, groups = screen()
    got = split_cells(obs, groups, **options)
    everything = np.concatenate(got)
    assert sorted(everything) == list(range(len(obs)))  # no overlap, nobody lost
    for part in got:
        assert (np.diff(part) > 0).all()  # sorted
    again = split_cells(obs, groups, **options)
    for a, b in zip(got, again, strict=True):
        np.testing.assert_array_equal(a, b)
    return got


def cells(query: str) -> list[int]:
    return np.flatnonzero(screen()[0].eval(query)).tolist()


# ---------------------------------------------------------------- shares
@pytest.mark.parametrize(
    ("given", "want"),
    [
        ((None, None), (0.8, 0.2)),
        ((0.7, None), (0.7, 0.3)),
        ((None, 0.1), (0.9, 0.1)),
        ((0.5, 0.2), (0.5, 0.2)),
        ((1.0, None), (1.0, 0.0)),
        ((1, 0), (1.0, 0.0)),
    ],
)
def test_fractions(given, want) -> None:
    assert fractions(*given, default=0.8) == pytest.approx(want)


@pytest.mark.parametrize(
    "given", [(0.0, None), (1.5, None), (-0.1, None), (None, 1.0), (None, -0.1), (0.8, 0.3), (float("nan"), None)]
)
def test_fractions_errors(given) -> None:
    with pytest.raises(ValueError, match="expected 0 < train_size <= 1, 0 <= validation_size < 1 and a sum of at most"):
        fractions(*given, default=1.0)


# ---------------------------------------------------------------- by cell
def test_by_cell_everybody_trains_by_default() -> None:
    got = split()
    assert len(got.train) == 120 and not len(got.validation) and not len(got.test)


def test_by_cell_sizes() -> None:
    assert [len(part) for part in split(train_size=0.75)] == [90, 30, 0]
    assert [len(part) for part in split(train_size=0.5, validation_size=0.25)] == [60, 30, 30]
    assert [len(part) for part in split(train_size=0.9, holdout=["A"])] == [86, 10, 24]


def test_by_cell_shares_of_one_leave_no_cell_over() -> None:
    """Rounding 2.5 and 22.5 down would lose a cell of 25."""
    got = split_cells(pd.DataFrame(index=range(25)), train_size=0.9)
    assert [len(part) for part in got] == [23, 2, 0]


def test_seeds_differ() -> None:
    assert set(split(train_size=0.5, seed=0).train) != set(split(train_size=0.5, seed=1).train)


# ---------------------------------------------------------------- hold-outs
@pytest.mark.parametrize(
    ("holdout", "query"),
    [
        (["A"], "p == 'A'"),  # the single only, not the combination
        ("A", "p == 'A'"),
        (["B+A"], "p == 'A+B'"),
        (["A+ctrl"], "p == 'A'"),
        (["x"], "c == 'x' and p != 'control'"),  # a context: its controls stay
        (["CD34+"], "c == 'CD34+' and p != 'control'"),  # no perturbation label, though it holds the separator
        ([("A", "x")], "p == 'A' and c == 'x'"),
        ([("B+A", "CD34+"), "C"], "(p == 'A+B' and c == 'CD34+') or p == 'C'"),
        (np.array(["A", "C"]), "p in ['A', 'C']"),
    ],
)
@pytest.mark.parametrize("split_by", ["cell", "condition"])
def test_holdout(split_by: str, holdout, query: str) -> None:
    got = split(split_by=split_by, holdout=holdout, train_size=1.0)
    assert got.test.tolist() == cells(query)
    assert not len(got.validation)


def test_holdout_of_categories() -> None:
    assert split(split_by="donor", holdout=["d1"], train_size=1.0).test.tolist() == cells("donor == 'd1'")
    assert split(split_by="donor", holdout=["d1", "A"], train_size=1.0).test.tolist() == cells(
        "donor == 'd1' or p == 'A'"
    )
    obs = pd.DataFrame({"day": [1, 1, 2, 3]})
    assert split_cells(obs, split_by="day", holdout=[2], train_size=1.0).test.tolist() == [2]


def test_held_out_context_by_its_column_keeps_controls() -> None:
    got = split(split_by="c", context_key="c", holdout=["x"], train_size=1.0)
    assert got.test.tolist() == cells("c == 'x' and p != 'control'")


# ---------------------------------------------------------------- by condition
def test_by_condition_whole_conditions_validate() -> None:
    obs, groups = screen()
    got = split(split_by="condition")
    validating = {(obs["p"][i], obs["c"][i]) for i in got.validation}
    assert len(validating) == 2  # a fifth of 8, rounded
    assert len(got.validation) == 24 and not len(got.test)
    assert set(cells("p == 'control'")) <= set(got.train)


def test_by_condition_sizes() -> None:
    got = split(split_by="condition", train_size=0.5, validation_size=0.25)
    assert [len(part) for part in got] == [4 * 12 + 24, 2 * 12, 2 * 12]
    assert len(split(split_by="condition", validation_size=0.01).validation) == 12  # at least one
    one = split(split_by="condition", holdout=["A", "B", "C", ("A+B", "x")])
    assert not len(one.validation)  # the last condition trains


def test_validation_never_takes_what_is_held_out() -> None:
    for seed in range(5):
        got = split(split_by="condition", holdout=["A"], seed=seed)
        assert got.test.tolist() == cells("p == 'A'")
        assert len(got.validation) == 12  # a fifth of 6


# ---------------------------------------------------------------- by column
def test_by_column_whole_categories_validate() -> None:
    obs, _ = screen()
    got = split(split_by="donor")
    assert len(set(obs["donor"][got.validation])) == 1
    assert len(got.validation) == 40 and len(got.train) == 80
    got = split(split_by="donor", train_size=0.34, validation_size=0.33)
    assert [len(part) for part in got] == [40, 40, 40]


def test_by_column_with_held_out_conditions_still_validates() -> None:
    """Every donor has cells of A; that must not leave validation empty."""
    got = split(split_by="donor", holdout=["A"])
    assert got.test.tolist() == cells("p == 'A'")
    assert len(got.validation) == 32


def test_by_context_column_keeps_controls_in_training() -> None:
    obs, _ = screen()
    got = split(split_by="c", context_key="c", validation_size=0.5)
    assert set(cells("p == 'control'")) <= set(got.train)
    assert len(got.validation) == 48 and len(set(obs["c"][got.validation])) == 1


def test_without_groups_the_context_column_is_any_column() -> None:
    obs, _ = screen()
    got = split_cells(obs, split_by="c", context_key="c", holdout=["x"])
    assert got.test.tolist() == cells("c == 'x'")


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split_by": "donr"}, KeyError, "split_by='donr' is not a column of adata.obs. Did you mean 'donor'"),
        ({"holdout": ["D"]}, ValueError, "holdout entry 'D' matches no perturbed cells.*perturbations: 'A', 'A.B'"),
        ({"holdout": [("A", "y")]}, ValueError, r"holdout entry \('A', 'y'\) matches no perturbed cells"),
        ({"holdout": [("A", "x", 1)]}, ValueError, r"a tuple must be \(perturbation, context\)"),
        ({"holdout": ["control"]}, ValueError, "holdout entry 'control' matches no perturbed cells"),
        ({"holdout": ["CD8+"]}, ValueError, r"holdout entry 'CD8\+' matches no perturbed cells"),
        ({"holdout": ["x", "CD34+"]}, ValueError, "leaves no perturbed cells to train on. Hold out fewer conditions"),
        ({"train_size": 0.001}, ValueError, "the split leaves no training cells .*train_size=0.001"),
        ({"split_by": "donor", "holdout": ["d0", "d1", "d2"]}, ValueError, "the split leaves no training cells"),
    ],
)
def test_errors(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        split(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_by": "condition"}, "split_by='condition' needs perturbations; this model has none"),
        ({"holdout": ["A"]}, "names no category of any column: give its name in split_by"),
        ({"split_by": "donor", "holdout": ["d9"]}, r"names no category of adata.obs\['donor'\].*'d0', 'd1', 'd2'"),
    ],
)
def test_errors_without_groups(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_cells(screen()[0], **options)


def test_missing_categories_are_refused() -> None:
    obs = pd.DataFrame({"donor": ["a", None]})
    with pytest.raises(ValueError, match="split_by='donor': 1 of 2 cells have a missing value"):
        split_cells(obs, split_by="donor")


def test_held_out_conditions_mask() -> None:
    _, groups = screen()
    mask = held_out_conditions(groups, [("A", "x"), "C"])
    named = [(a, c) for a, c in zip(groups.actions, groups.contexts, strict=True)]
    assert [named[i] for i in np.flatnonzero(mask)] == [(("A",), "x"), (("C",), "CD34+"), (("C",), "x")]
    assert not held_out_conditions(groups, []).any()


def ready(words: dict[str, str], **options) -> tuple[pd.DataFrame, Split]:
    obs, groups = screen()
    obs["split"] = obs["donor"].map(words)
    return obs, split_cells(obs, groups, split_by="split", **options)


@pytest.mark.parametrize("valid", ["validation", "valid", "val"])
@pytest.mark.parametrize("test", ["test", "ood", "unused"])
def test_a_ready_split_is_taken_at_its_word(valid: str, test: str) -> None:
    obs, got = ready({"d0": "train", "d1": valid, "d2": test})
    for part, donor in zip(got, ("d0", "d1", "d2"), strict=True):
        assert set(obs["donor"].iloc[part]) == {donor}
        assert len(part) == (obs["donor"] == donor).sum()


def test_holdout_is_added_to_a_ready_split() -> None:
    obs, got = ready({"d0": "train", "d1": "validation", "d2": "train"}, holdout=["A"])
    assert (obs["p"].iloc[got.test] == "A").all() and len(got.test) == (obs["p"] == "A").sum()
    assert set(obs["donor"].iloc[got.validation]) == {"d1"}


def test_a_column_with_other_words_is_one_of_categories() -> None:
    obs, got = ready({"d0": "train", "d1": "test", "d2": "batch 7"}, train_size=0.67)
    assert len(got.validation) and obs["split"].iloc[got.validation].nunique() == 1


def test_a_ready_split_has_no_sizes() -> None:
    with pytest.raises(ValueError, match=r"says of every cell whether it trains: leave train_size"):
        ready({"d0": "train", "d1": "test", "d2": "test"}, train_size=0.5)
