"""get_reliability: known answers by hand, null conditions, what noise depends on and what not, and bad input."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scjepa
from scjepa import PerturbJEPA
from scjepa.model.conditions._reliability import LEAST_PAIRS, cell_pairs, noise_p_value, spectrum

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}
NOISY = ["effect_size", "noise", "reliability", "p_value"]


def model_of(adata: ad.AnnData, **setup) -> PerturbJEPA:
    PerturbJEPA.setup_anndata(adata, **{"perturbation_key": "perturbation", "input_scale": "lognorm", **setup})
    return PerturbJEPA(adata, n_pcs=2, n_latent=2)


def cells(x: np.ndarray, labels: list[str], **obs) -> ad.AnnData:
    names = [f"c{i}" for i in range(len(x))]
    return ad.AnnData(np.asarray(x, np.float32), obs=pd.DataFrame({"perturbation": labels, **obs}, index=names))


def screen(**options) -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(
        **{"n_genes": 60, "n_regulators": 8, "n_single": 4, "n_double": 2, "n_cells": 20, "n_control": 40, **options}
    )


def null_screen(seed: int, *, n: int = 20, m: int = 100, conditions: int = 10, factor: float = 1.0) -> ad.AnnData:
    """Relabelled controls: skewed counts of 40 genes that share a factor."""
    rng = np.random.default_rng(seed)
    common = rng.gamma(4, factor / 4, (m + n * conditions, 1))
    x = np.log1p(rng.poisson(common * np.geomspace(0.1, 4, 40)))
    return cells(x, ["control"] * m + [f"N{i:02d}" for i in range(conditions) for _ in range(n)])


def tiny(repeat: int = 3) -> ad.AnnData:
    """Two genes. Within every group of four the values are mean +- 1 in each gene, so the sums of squares are 4 and 4."""
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    block = lambda mean: np.asarray(mean) + np.tile(corners, (repeat, 1))
    n = 4 * repeat
    x = np.concatenate([block([2.25, 2.25]), block([5.25, 6.25]), block([2.25, 2.25])])
    return cells(x, ["control"] * n + ["strong"] * n + ["null"] * n)


# ---------------------------------------------------------------- known answers


def test_a_screen_calculated_by_hand() -> None:
    """36 cells in 3 groups: V = 36/33 in each gene, nu = 2 V (1/12 + 1/12), |d| = 5."""
    table = model_of(tiny()).get_reliability().set_index("perturbation")
    nu = 2 * (36 / 33) * (2 / 12)
    assert table.index.tolist() == ["strong", "null"]
    assert table["n_cells"].tolist() == [12, 12]
    np.testing.assert_allclose(table["n_controls"], 12)
    np.testing.assert_allclose(table["noise"], np.sqrt(nu))
    np.testing.assert_allclose(table["measured"], [5, 0], atol=1e-6)
    np.testing.assert_allclose(table["effect_size"], [np.sqrt(25 - nu), 0], atol=1e-6)
    np.testing.assert_allclose(table["reliability"], [1 - nu / 25, 0], atol=1e-6)
    assert not table["trained"].any()


def test_columns_and_order() -> None:
    adata = screen()
    adata.obs["amount"] = np.where(adata.obs["perturbation"] == "control", 0.0, np.arange(adata.n_obs) % 2 + 1.0)
    model = model_of(adata, input_scale="auto", context_key="context", dose_key="amount", kind_key="kind")
    table = model.get_reliability()
    assert list(table) == [
        *("perturbation", "context", "amount", "kind", "n_cells", "n_controls"),
        *("effect_size", "noise", "measured", "reliability", "p_value", "trained"),
    ]
    assert table["reliability"].is_monotonic_decreasing
    assert table["amount"].unique().tolist() in ([1.0, 2.0], [2.0, 1.0])
    assert not table.duplicated(["perturbation", "context", "amount", "kind"]).any()
    assert table["reliability"].between(0, 1).all() and table["p_value"].between(0, 1).all()
    assert "jepa" not in adata.uns or set(adata.uns["jepa"]) == {"simulation"}


def test_noise_is_that_of_the_context() -> None:
    """Cells of the second context vary a third as much, and so does their mean."""
    one, narrow = tiny(6), tiny(6)
    narrow.X = narrow.X / 3
    both = ad.concat([one, narrow], index_unique="-")
    both.obs["line"] = ["x"] * one.n_obs + ["y"] * narrow.n_obs
    noise = model_of(both, context_key="line").get_reliability().groupby("line")["noise"].unique()
    assert len(noise["x"]) == len(noise["y"]) == 1
    assert noise["y"][0] == pytest.approx(noise["x"][0] / 3)


def test_a_context_of_few_cells_borrows_the_variance_of_all() -> None:
    few = cells(0.25 + np.array([[2.0, 2], [2, 4], [6, 3], [6, 3]]), ["control", "control", "strong", "strong"])
    both = ad.concat([tiny(), few], index_unique="-")
    both.obs["line"] = ["x"] * 36 + ["y"] * 4
    table = model_of(both, context_key="line").get_reliability().set_index(["line", "perturbation"])
    pooled = (72 + 2) / (40 - 5)  # sums of squares over both genes, degrees of freedom
    assert table.loc[("y", "strong"), "noise"] == pytest.approx(np.sqrt(pooled * (1 / 2 + 1 / 2)))
    assert table.loc[("x", "strong"), "noise"] == pytest.approx(np.sqrt(72 / 33 * (2 / 12)))


def test_controls_are_matched_by_batch() -> None:
    """A batch that is shifted as a whole is no effect, and its controls alone count."""
    adata = tiny(6)
    adata.obs["batch"] = np.tile(["a", "b"], adata.n_obs // 2)
    adata = adata[~((adata.obs["perturbation"] == "null") & (adata.obs["batch"] == "b"))].copy()
    adata.X[(adata.obs["batch"] == "a").to_numpy()] += 3
    table = model_of(adata, batch_key="batch").get_reliability().set_index("perturbation")
    assert table.loc["null", "n_controls"] == pytest.approx(12)
    assert table.loc["null", "measured"] < 1.1 * table.loc["null", "noise"]


# ---------------------------------------------------------------- what it depends on


def test_null_conditions_are_not_reliable() -> None:
    table = pd.concat([model_of(null_screen(seed)).get_reliability() for seed in range(4)])
    assert table["reliability"].mean() < 0.12
    assert np.mean(table["measured"] ** 2 / table["noise"] ** 2) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("n", "factor"), [(5, 1.0), (20, 1.0), (20, 5.0)])
def test_p_values_of_relabelled_controls_are_uniform(n: int, factor: float) -> None:
    """Of 300 null conditions about 15 are below 0.05, 30 below 0.1, 150 below 0.5. Controls are shared, so not exactly."""
    p = np.concatenate(
        [model_of(null_screen(s, n=n, factor=factor, m=200)).get_reliability()["p_value"] for s in range(30)]
    )
    assert len(p) == 300
    for level, least, most in ((0.05, 0.015, 0.1), (0.1, 0.05, 0.16), (0.5, 0.4, 0.6), (0.9, 0.84, 0.95)):
        assert least <= np.mean(p < level) <= most


def test_half_the_cells_double_the_noise() -> None:
    """nu = V (1/n + 1/m): with n and m halved it is twice as large, whatever cells are taken."""
    half, full = (model_of(null_screen(0, n=n, m=5 * n)).get_reliability() for n in (40, 80))
    assert np.mean(half["noise"] ** 2) / np.mean(full["noise"] ** 2) == pytest.approx(2, rel=0.1)
    twice = ad.concat([null_screen(0)] * 2, index_unique="-")
    once = model_of(null_screen(0)).get_reliability()["noise"][0] ** 2
    assert once / model_of(twice).get_reliability()["noise"][0] ** 2 == pytest.approx(2, rel=0.02)


def test_order_of_cells_and_genes_does_not_matter() -> None:
    adata = screen()
    model = model_of(adata, input_scale="auto", context_key="context", batch_key="batch")
    rng = np.random.default_rng(0)
    shuffled = adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()
    pd.testing.assert_frame_equal(model.get_reliability(shuffled), model.get_reliability(), rtol=1e-5)


def test_sparse_and_dense_are_the_same() -> None:
    dense, sparse = null_screen(1), null_screen(1)
    sparse.X = sp.csr_matrix(sparse.X)
    pd.testing.assert_frame_equal(model_of(sparse).get_reliability(), model_of(dense).get_reliability(), rtol=1e-5)


def test_training_changes_nothing_but_says_what_was_trained_on(tmp_path) -> None:
    adata = screen()
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    held_out = next(p for p in sorted(adata.obs["perturbation"].unique()) if "+" in p)
    for anchor in ("kernel", None):
        model = PerturbJEPA(adata, n_pcs=5, n_latent=4, anchor=anchor)
        before = model.get_reliability()
        model.train(**QUIET, holdout=[held_out])
        after = model.get_reliability()
        pd.testing.assert_frame_equal(after.drop(columns="trained"), before.drop(columns="trained"))
        assert not before["trained"].any()
        assert (after["trained"] == (after["perturbation"] != held_out)).all()
    model.save(tmp_path / "m")
    again = PerturbJEPA.load(tmp_path / "m", adata=False)
    pd.testing.assert_frame_equal(again.get_reliability(adata), after)


def test_profiles_have_no_noise_to_tell_and_the_log_says_why(caplog) -> None:
    profiles = cells(np.random.default_rng(0).random((6, 4)), ["control", "A", "B", "C", "A+B", "A+C"])
    with caplog.at_level(logging.WARNING, logger="scjepa"):
        table = model_of(profiles).get_reliability()
    assert table[NOISY].isna().all(axis=None)
    assert (table["measured"] > 0).all()
    assert table["perturbation"].tolist() == ["A", "A+B", "A+C", "B", "C"]
    assert "6 rows for 5 conditions and their controls, too few" in caplog.text
    assert "Give single cells, or replicates" in caplog.text


def test_replicates_of_profiles_tell_the_noise(caplog) -> None:
    rng = np.random.default_rng(0)
    labels = [p for p in ("control", "A", "B", "C", "D", "E") for _ in range(6)]
    x = 5 + rng.normal(0, 0.1, (36, 30)) + 3 * (np.array(labels) == "A")[:, None]
    with caplog.at_level(logging.WARNING, logger="scjepa"):
        table = model_of(cells(x, labels)).get_reliability().set_index("perturbation")
    assert table.index[0] == "A" and table.loc["A", "reliability"] > 0.99
    assert (table["reliability"][1:] < 0.4).all()
    assert 3 * 6 < LEAST_PAIRS and table["p_value"].isna().all()  # 18 pairs tell no spectrum
    assert "NaN" not in caplog.text


# ---------------------------------------------------------------- the parts of the p-value


def test_spectrum_of_a_known_covariance() -> None:
    eigenvalues = np.array([4.0, 2.0, 1.0, 1.0])
    rng = np.random.default_rng(0)
    found = np.mean([spectrum(rng.normal(size=(300, 4)) * np.sqrt(eigenvalues)) for _ in range(20)], axis=0)
    np.testing.assert_allclose(found, [22 / 8**2, 74 / 8**3], rtol=0.05)


def test_p_value_is_exact_for_equal_variances_and_near_for_others() -> None:
    """Against 400,000 draws of a sum of chi-squares with the weights 4, 2, 1, 1."""
    draws = np.random.default_rng(0).chisquare(1, (400_000, 4)) @ np.array([4.0, 2.0, 1.0, 1.0]) / 8
    for ratio in (0.5, 1.0, 2.0, 3.0, 4.0):
        p = noise_p_value(np.array([ratio]), 22 / 8**2, 74 / 8**3)[0]
        assert p == pytest.approx(np.mean(draws >= ratio), abs=0.02, rel=0.12)


def test_pairs_hold_each_cell_once_and_controls_first() -> None:
    model = model_of(null_screen(0, n=5, m=50))
    groups = model._design.groups(model.adata.obs)
    pairs = cell_pairs(groups, np.arange(100))
    assert len(pairs) == 25 + 10 * 2
    assert len(np.unique(pairs)) == pairs.size
    label = model.adata.obs["perturbation"].to_numpy()
    assert (label[pairs[:, 0]] == label[pairs[:, 1]]).all()
    assert (label[pairs[:25]] == "control").all() and (label[pairs[25:]] != "control").all()


# ---------------------------------------------------------------- bad input


def test_what_is_no_data_is_refused(tmp_path) -> None:
    adata = null_screen(0)
    adata.obs["line"] = "x"
    model = model_of(adata, context_key="line")
    with pytest.raises(TypeError, match="expected an AnnData, got DataFrame"):
        model.get_reliability(adata.to_df())
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"adata is backed.*to_memory"):
        model.get_reliability(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"))
    with pytest.raises(KeyError, match="context_key='line' is not a column of adata.obs"):
        model.get_reliability(ad.AnnData(adata.X, obs=adata.obs[["perturbation"]], var=adata.var))
    with pytest.raises(KeyError, match="perturbation_key='perturbation' is not a column"):
        model.get_reliability(ad.AnnData(adata.X, obs=adata.obs[["line"]], var=adata.var))
    with pytest.raises(ValueError, match="1 of the model's 40 genes are missing"):
        model.get_reliability(adata[:, 1:].copy())
    with pytest.raises(ValueError, match="control='control' is not among the perturbation labels"):
        model.get_reliability(adata[adata.obs["perturbation"] != "control"].copy())
    with pytest.raises(ValueError, match="no perturbed cells: all labels .* are the control 'control'"):
        model.get_reliability(adata[adata.obs["perturbation"] == "control"].copy())
    adata.obs.loc[adata.obs_names[:3], "line"] = np.nan
    with pytest.raises(ValueError, match="3 of 300 cells have a missing value"):
        model.get_reliability()


def test_columns_of_the_user_are_not_overwritten() -> None:
    adata = null_screen(0)
    adata.obs["noise"] = "x"
    with pytest.raises(ValueError, match="context_key='noise': the result has a column of its own by this name"):
        model_of(adata, context_key="noise").get_reliability()
