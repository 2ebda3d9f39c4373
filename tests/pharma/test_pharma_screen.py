"""Screens: the same answer as sorting everything, whatever the blocks; every form of library."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.pharma import Block, TopK, fingerprints, library_blocks, screen

SMILES = ["CCO", "CCN", "CCC", "CCCC", "c1ccccc1"]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_equals_a_stable_sort_of_everything(block, largest):
    scores = np.random.default_rng(0).integers(0, 40, 500).astype(float)  # many ties
    best = TopK(30, largest=largest)
    for i in range(0, 500, block):
        best.update([str(j) for j in range(i, min(i + block, 500))], scores[i : i + block])
    order = np.argsort(-scores if largest else scores, kind="stable")[:30]
    table = best.table()
    assert table["name"].tolist() == [str(i) for i in order]
    assert table["score"].tolist() == scores[order].tolist() and table["rank"].tolist() == list(range(1, 31))


def test_memory_is_bounded():
    best = TopK(5)
    for i in range(200):
        best.update([f"{i}_{j}" for j in range(100)], np.full(100, float(i)))
        assert sum(map(len, best._keys)) <= 4 * 5 + 5
    assert best.table()["name"].tolist() == [f"199_{j}" for j in range(5)]


def test_undefined_scores_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.INFO, logger="scjepa"):
        table = screen(library_blocks(np.array([[1.0], [np.nan], [3.0]])), lambda x: x[:, 0])
    assert table["name"].tolist() == ["2", "0"]
    assert caplog.messages == ["1 of 3 drugs have no score (NaN) and are left out."]


def test_all_forms_of_smiles_give_the_same_fingerprints():
    expected = fingerprints(SMILES, size=128).to_numpy()
    named = {f"d{i}": s for i, s in enumerate(SMILES)}
    forms = {
        "list": SMILES,
        "array": np.array(SMILES),
        "iterator": iter(SMILES),
        "mapping": named,
        "series": pd.Series(named),
        "table": pd.DataFrame({"smiles": named, "vendor": "x"}),
        "pairs": iter(named.items()),
    }
    for form, library in forms.items():
        blocks = list(library_blocks(library, block_size=2, size=128))
        assert [len(b.names) for b in blocks] == [2, 2, 1], form
        assert sum((b.names for b in blocks), []) == (SMILES if form in ("list", "array", "iterator") else list(named))
        np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), expected)
    blocks = library_blocks(np.array(SMILES), names=list("abcde"), size=128)
    assert next(blocks).names == list("abcde")


def test_all_forms_of_features_give_the_same_values():
    x = np.random.default_rng(0).normal(size=(5, 3))
    for library, names in (
        (x, list("01234")),
        (sp.csc_matrix(x), list("01234")),
        (pd.DataFrame(x, index=list("abcde")), list("abcde")),
        (iter([x[:2], x[2:4], x[4:]]), list("01234")),
        (iter([(["a", "b"], x[:2]), (["c", "d"], x[2:4]), (["e"], sp.csr_array(x[4:]))]), list("abcde")),
    ):
        blocks = list(library_blocks(library, block_size=2))
        assert [len(b.names) for b in blocks] == [2, 2, 1]
        assert sum((b.names for b in blocks), []) == names
        got = [b.values.toarray() if sp.issparse(b.values) else b.values for b in blocks]
        np.testing.assert_array_equal(np.concatenate(got), x)


def test_structures_that_cannot_be_read_are_counted_at_the_end(caplog):
    with caplog.at_level(logging.INFO, logger="scjepa"):
        blocks = list(library_blocks([("a", "CCO"), ("b", "C1CC"), ("c", None), ("d", "CCN")], block_size=2, size=64))
    assert [b.names for b in blocks] == [["a"], ["d"]]
    assert caplog.messages == ["2 of 4 SMILES can't be read and are left out, for example 'b (C1CC)', 'c (None)'."]


def test_a_library_is_read_only_as_far_as_asked():
    def endless():
        while True:
            yield "CCO"

    blocks = library_blocks(endless(), block_size=3, size=64)
    assert next(blocks).values.shape == next(blocks).values.shape == (3, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TopK(0), "k=0"),
        (lambda: TopK().update(["a"], [1.0, 2.0]), r"scores has shape \(2,\): expected \(1,\)"),
        (lambda: screen([], len), "no drug of the library could be read"),
        (lambda: screen([Block(["a"], np.eye(1))], lambda x: x), r"scores has shape \(1, 1\): expected \(1,\)"),
        (lambda: library_blocks("CCO"), r"library is the string 'CCO': expected a list"),
        (lambda: library_blocks(3), "library is a int: expected SMILES"),
        (lambda: library_blocks(np.eye(3), names=["a"]), "names has 1 entries and library 3 rows"),
        (lambda: library_blocks(["CCO"], names=["a"]), "names has 1 entries and library a list"),
        (lambda: library_blocks(np.zeros((2, 2, 2))), r"library has shape \(2, 2, 2\)"),
        (lambda: library_blocks(pd.DataFrame({"x": ["a"]})), "library has columns that are no numbers: 'x'"),
        (lambda: library_blocks(["CCO"], block_size=0), "block_size=0"),
        (lambda: library_blocks(["CCO"], kind="x"), "kind='x'"),
        (lambda: list(library_blocks([1.0])), r"an item of library has shape \(\) and type float64"),
        (lambda: list(library_blocks([(["a"], np.eye(2))])), "a block of library has 1 names and 2 rows"),
    ],
)
def test_wrong_libraries_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_further_columns_stay_with_their_drugs():
    best = TopK(3)
    for i in range(0, 40, 4):
        names = [str(j) for j in range(i, i + 4)]
        scores = np.arange(i, i + 4) % 17.0
        best.update(
            names, np.where(scores == 3, np.nan, scores), {"twice": 2 * scores, "of": np.array(names, dtype=object)}
        )
    table = best.table()
    assert table["name"].tolist() == ["16", "33", "15"] and table["of"].tolist() == table["name"].tolist()
    assert table["twice"].tolist() == [32.0, 32.0, 30.0]
    with pytest.raises(ValueError, match="further columns 'twice' don't fit"):
        best.update(["a"], [1.0], {"twice": [1.0]})
    with pytest.raises(ValueError, match="further columns 'of' don't fit"):
        TopK().update(["a"], [1.0], {"of": ["a", "b"]})


def test_a_score_may_say_more():
    blocks = library_blocks(np.eye(3), block_size=2, names=list("abc"))
    table = screen(blocks, lambda x: {"score": x @ [1.0, 3.0, 2.0], "at": x.argmax(1)}, top_k=2)
    assert table["name"].tolist() == ["b", "c"] and table["at"].tolist() == [1, 2]


def test_progress_is_shown_when_asked_for(monkeypatch, capsys):
    monkeypatch.setattr("scjepa.pharma._screen.DELAY", 0)
    screen(library_blocks(np.eye(3)), lambda x: x[:, 0], total=3, enable_progress_bar=True)
    assert "3.00/3.00" in capsys.readouterr().err
    screen(library_blocks(np.eye(3)), lambda x: x[:, 0])
    assert not capsys.readouterr().err
