"""Reading cells without a model: genes by name, layers, scales, pieces and batches."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.model.core import _reading
from scjepa.model.core._reading import Reader, check_cells, gene_order

GENES = np.array(["a", "b", "c"])


def cells(n: int = 5, *, genes=("a", "b", "c"), form=np.asarray, seed: int = 0) -> ad.AnnData:
    x = np.random.default_rng(seed).poisson(3.0, (n, len(genes))).astype(np.float32) + 1
    obs = pd.DataFrame({"batch": ["x", "y"] * (n // 2) + ["x"] * (n % 2)}, index=[f"cell {i}" for i in range(n)])
    return ad.AnnData(form(x), obs=obs, var=pd.DataFrame(index=list(genes)))


def lognorm(x: np.ndarray, target: float = 1e4) -> np.ndarray:
    return np.log1p(x / x.sum(1, keepdims=True) * target)


# ---------------------------------------------------------------- the matrix
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_counts_are_normalized_to_the_target(form) -> None:
    adata = cells(form=form)
    raw = cells().X
    np.testing.assert_allclose(Reader(GENES, target_sum=50).read(adata).rows(slice(None)), lognorm(raw, 50), rtol=1e-5)


def test_lognormalized_values_are_taken_as_they_are() -> None:
    adata = cells()
    adata.X = lognorm(adata.X)
    assert Reader(GENES).door(adata).scale == "lognorm"
    np.testing.assert_array_equal(Reader(GENES, target_sum=1).read(adata).rows(slice(None)), adata.X)


def test_order_is_none_where_nothing_is_to_be_moved() -> None:
    assert Reader(GENES).door(cells()).order is None
    assert Reader(GENES).door(cells(genes=("a", "b", "c", "d"))).order.tolist() == [0, 1, 2]


def test_permuted_and_further_genes_are_matched_by_name(caplog: pytest.LogCaptureFixture) -> None:
    adata = cells()
    adata.X = lognorm(adata.X)
    more = ad.concat([adata, cells(genes=("z",))], axis=1, join="outer")
    more.X[:, 3] = 0.5
    with caplog.at_level(logging.INFO):
        read = Reader(GENES).read(more[:, ["c", "z", "a", "b"]].copy())
    np.testing.assert_array_equal(read.rows(slice(None)), adata.X)
    assert "1 further genes are not used" in caplog.text


def test_only_the_models_genes_count_for_the_depth() -> None:
    """Counts are normalized over the genes that the model has, whatever else was measured."""
    adata = cells()
    more = ad.concat([adata, cells(genes=("z",), seed=1)], axis=1)
    one, other = (Reader(GENES).read(a).rows(slice(None)) for a in (adata, more))
    np.testing.assert_array_equal(one, other)


def test_cells_are_taken_in_the_order_asked() -> None:
    reader, adata = Reader(GENES), cells(7)
    every = reader.read(adata).rows(slice(None))
    asked = np.array([5, 0, 5, 2])
    np.testing.assert_array_equal(reader.read(adata, asked).rows(slice(None)), every[asked])


def test_a_layer_is_read_in_place_of_x() -> None:
    adata = cells()
    adata.layers["counts"], adata.X = adata.X.copy(), None
    np.testing.assert_allclose(
        Reader(GENES, layer="counts").read(adata).rows(slice(None)), lognorm(adata.layers["counts"]), rtol=1e-5
    )


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_pieces_are_the_whole(form, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "CHUNK", chunk)
    reader, adata = Reader(GENES[::-1]), cells(8, form=form)
    asked = np.array([7, 1, 4, 0])
    parts = list(reader.chunks(adata, asked))
    assert [len(p) for p, _ in parts] == {1: [1] * 4, 3: [3, 1], 100: [4]}[chunk]
    np.testing.assert_array_equal(np.concatenate([p for p, _ in parts]), asked)
    whole = reader.read(adata, asked).rows(slice(None))
    np.testing.assert_array_equal(np.concatenate([m.rows(slice(None)) for _, m in parts]), whole)


def test_the_scale_is_that_of_all_cells_not_of_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of log-normalised cells that looks like counts is not taken for counts."""
    adata = cells(4)
    adata.X = np.array([[1, 2, 0], [0, 1, 1], [0.5, 1.5, 0.25], [1.0, 0.75, 0.0]], np.float32)
    monkeypatch.setattr(_reading, "CHUNK", 2)
    parts = [m.rows(slice(None)) for _, m in Reader(GENES).chunks(adata, np.arange(4))]
    np.testing.assert_array_equal(np.concatenate(parts), adata.X)


def test_a_matrix_that_was_spoiled_since_is_refused() -> None:
    adata = cells()
    reader = Reader(GENES)
    reader.read(adata)
    adata.X[1, 1] = np.nan
    with pytest.raises(ValueError, match="1 NaN or infinite values"):
        reader.read(adata)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (("a", "b", "d"), r"1 of the model's 3 genes are missing from adata.var_names: 'c'"),
        (("a", "bb", "cc"), r"2 of the model's 3 genes are missing.*'b', 'c'.*Did you mean 'bb'\?.*as zeros"),
        (("a", "b", "c", "c"), "adata.var_names are not unique"),
    ],
)
def test_genes_that_cannot_be_matched(genes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Reader(GENES).read(cells(genes=genes))


def test_a_layer_or_matrix_that_is_absent() -> None:
    adata = cells()
    adata.layers["counts"] = adata.X
    with pytest.raises(KeyError, match="layer='count', which the model was set up with.*Did you mean 'counts'"):
        Reader(GENES, layer="count").read(adata)
    adata.X = None
    with pytest.raises(ValueError, match="adata.X is None, but the model was set up to read it"):
        Reader(GENES).read(adata)


def test_gene_order_by_hand() -> None:
    assert gene_order(cells(genes=("c", "a", "x", "b")), GENES).tolist() == [1, 3, 0]


# ---------------------------------------------------------------- batches
def test_batch_codes_follow_the_order_of_the_model() -> None:
    reader = Reader(GENES, batch_key="batch", batches=("y", "x", "never seen"))
    assert reader.batch_codes(cells(5)).tolist() == [1, 0, 1, 0, 1]
    assert reader.batch_codes(cells(5), np.array([3, 0, 1])).tolist() == [0, 1, 0]


def test_batches_may_be_numbers_and_categories() -> None:
    adata = cells(4)
    adata.obs["batch"] = pd.Categorical([2, 1, 2, 2])
    assert Reader(GENES, batch_key="batch", batches=("1", "2")).batch_codes(adata).tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    "reader",
    [Reader(GENES), Reader(GENES, batch_key="batch"), Reader(GENES, batch_key="plate", batches=("x",))],
    ids=["no key", "an encoder that looks at none", "no column"],
)
def test_without_batches_there_are_no_codes(reader: Reader) -> None:
    assert reader.batch_codes(cells()) is None


def test_missing_batches_count_only_among_the_cells_asked_for() -> None:
    adata = cells(4)
    adata.obs["batch"] = ["x", None, "x", np.nan]
    reader = Reader(GENES, batch_key="batch", batches=("x",))
    with pytest.raises(ValueError, match=r"adata.obs\['batch'\] is missing for 2 of 4 cells.*drop the column"):
        reader.batch_codes(adata)
    assert reader.batch_codes(adata, np.array([2, 0])).tolist() == [0, 0]


def test_unknown_batches_are_named() -> None:
    reader = Reader(GENES, batch_key="batch", batches=("xx", "y"))
    with pytest.raises(ValueError, match=r"has 1 batches that the model does not know: 'x'.*Drop the column"):
        reader.batch_codes(cells())
    assert reader.batch_codes(cells(), np.array([1, 3])).tolist() == [1, 1]


# ---------------------------------------------------------------- setup
def test_setup_finds_the_scale() -> None:
    adata = cells()
    assert check_cells(adata, None, "auto") == "counts"
    adata.layers["log"] = lognorm(adata.X)
    assert check_cells(adata, "log", "auto") == "lognorm"


def test_a_view_becomes_data_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    view = cells()[:3]
    with caplog.at_level(logging.INFO):
        check_cells(view, None, "auto")
    assert not view.is_view and "adata is a view" in caplog.text


@pytest.mark.parametrize(
    ("adata", "error", "message"),
    [
        (np.ones((2, 3)), TypeError, "expected an AnnData, got ndarray"),
        (cells()[:0].copy(), ValueError, "adata is empty: 0 cells x 3 genes"),
        (cells(genes=("a", "a", "b")), ValueError, "var_names are not unique"),
        (ad.AnnData(obs=cells().obs, var=cells().var), ValueError, "adata.X is None. Name the layer"),
    ],
)
def test_setup_refuses(adata, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_cells(adata, None, "auto")


def test_empty_cells_pass_where_their_depth_is_known() -> None:
    adata = cells()
    adata.X[0] = 0
    with pytest.raises(ValueError, match="1 cells have no counts at all"):
        check_cells(adata, None, "auto")
    assert check_cells(adata, None, "auto", library=np.full(5, 10.0)) == "counts"
