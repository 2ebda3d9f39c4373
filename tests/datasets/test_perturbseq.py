"""The simulator's counts agree with the truth it states, and that truth has the stated biology."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa._keys import Keys
from scjepa._scale import lognormalise
from scjepa.datasets import simulate_perturbseq, true_effects
from scjepa.datasets._network import draw_epistasis, draw_network, propagate

SMALL = {
    "n_genes": 60,
    "n_regulators": 8,
    "n_single": 5,
    "n_double": 3,
    "kinds": ("KD",),
    "n_cells": 10,
    "n_control": 20,
}
NOISE_FREE = {"depth": 1e8, "depth_sd": 0.0, "dispersion": 0.0, "batch_effect": 0.0}


def truth(adata: ad.AnnData) -> dict:
    return adata.uns[Keys.uns.root][Keys.uns.simulation]


def empirical(adata: ad.AnnData) -> pd.DataFrame:
    """Mean log-normalised perturbed minus control profile, straight from the counts."""
    x = pd.DataFrame(lognormalise(adata.X, 1e4).toarray().astype(float), columns=adata.var_names)
    mean = x.groupby([adata.obs["perturbation"].astype(str).values, adata.obs["context"].astype(str).values]).mean()
    index = true_effects(adata).index
    return pd.DataFrame([mean.loc[(p, c)] - mean.loc[("control", c)] for p, c in index], index=index)


def test_counts_without_noise_and_states_show_the_true_effect():
    adata = simulate_perturbseq(**SMALL, **NOISE_FREE, state_effect=0.0)
    # 1e8 counts per cell: relative Poisson error below 1e-3 for all but the rarest genes
    np.testing.assert_allclose(empirical(adata), true_effects(adata), atol=5e-3)
    assert true_effects(adata).abs().to_numpy().max() > 0.5


def test_true_effect_averages_over_cell_states():
    adata = simulate_perturbseq(
        **(SMALL | {"n_cells": 1500, "n_control": 3000, "n_single": 2, "n_double": 1}),
        **NOISE_FREE,
        contexts=("K562",),
        state_effect=0.5,
    )
    difference = empirical(adata) - true_effects(adata)
    # sd of a log-normalised value is at most ~0.8 here: 5 standard errors of a difference of means
    assert difference.abs().to_numpy().max() < 5 * 0.8 * np.sqrt(1 / 1500 + 1 / 3000)
    assert true_effects(adata).abs().to_numpy().max() > 0.5


def test_true_control_profile_is_the_mean_of_controls():
    adata = simulate_perturbseq(**SMALL, **NOISE_FREE, state_effect=0.0)
    x = lognormalise(adata.X, 1e4).toarray()
    for name, profile in zip(truth(adata)["contexts"], truth(adata)["control"], strict=True):
        cells = (adata.obs["perturbation"] == "control") & (adata.obs["context"] == name)
        np.testing.assert_allclose(x[cells.to_numpy()].mean(0), profile, atol=5e-3)


def test_log_fold_changes_are_additive_without_epistasis():
    adata = simulate_perturbseq(**SMALL, epistasis=0.0)
    table, change = truth(adata)["conditions"], truth(adata)["log_fold_change"]
    row = {key: i for i, key in enumerate(zip(table["perturbation"], table["context"], strict=True))}
    doubles = [key for key in row if "+" in key[0]]
    assert len(doubles) == 6
    for name, context in doubles:
        a, b = name.split("+")
        np.testing.assert_allclose(change[row[name, context]], change[row[a, context]] + change[row[b, context]])
    assert not truth(adata)["epistasis"].any()
    assert set(table["interaction"]) == {"none"}


def test_epistasis_is_what_departs_from_additivity():
    given = SMALL | {"n_single": 6, "n_double": 8}
    adata, plain = simulate_perturbseq(**given, epistasis=0.5), simulate_perturbseq(**given, epistasis=0.0)
    table = truth(adata)["conditions"]
    additive = truth(plain)["log_fold_change"]
    extra = truth(adata)["log_fold_change"] - additive
    np.testing.assert_allclose(extra, truth(adata)["epistasis"], atol=1e-12)
    interacting = table["interaction"] != "none"
    assert table.loc[interacting, "perturbation"].nunique() == 4  # half of 8 pairs
    assert np.array_equal(np.abs(extra).sum(1) > 0, interacting.to_numpy())
    for kind, sign in {"synergistic": 1.0, "buffering": -1.0}.items():
        rows = (table["interaction"] == kind).to_numpy()
        ratio = (extra[rows] / np.where(additive[rows] == 0, np.inf, additive[rows]))[extra[rows] != 0]
        assert rows.sum() == 4  # two pairs in two contexts
        assert ((ratio * sign >= 0.4) & (ratio * sign <= 0.8)).all()


@pytest.mark.parametrize(("kind", "factor"), [("KD", 0.2), ("OE", 4.0)])
def test_perturbed_gene_changes_by_the_stated_factor(kind, factor):
    adata = simulate_perturbseq(**(SMALL | {"kinds": (kind,)}))
    table, change = truth(adata)["conditions"], truth(adata)["log_fold_change"]
    effects = true_effects(adata).to_numpy()
    for i, name in enumerate(table["perturbation"]):
        if "+" not in name:
            own = list(adata.var_names).index(name)
            assert change[i, own] == pytest.approx(np.log(factor))
            assert np.sign(effects[i, own]) == np.sign(np.log(factor))
    assert set(adata.obs["kind"]) == {kind, "control"}


def test_activation_moves_targets_opposite_to_knock_down():
    down, up = (simulate_perturbseq(**(SMALL | {"kinds": (k,)}), epistasis=0.0) for k in ("KD", "OE"))
    scale = np.log(4.0) / np.log(0.2)
    np.testing.assert_allclose(truth(up)["log_fold_change"], scale * truth(down)["log_fold_change"], atol=1e-12)


def test_propagation_by_hand():
    weights = np.array([[0.0, 0.5, 0.0, 0.25], [0.0, 0.0, -1.0, 0.0]])
    direct = np.array([[-2.0, 0.0], [-2.0, 3.0]])
    assert propagate(weights, direct, 1).tolist() == [[-2.0, -1.0, 0.0, -0.5], [-2.0, 2.0, -3.0, -0.5]]
    assert propagate(weights, direct, 2).tolist() == [[-2.0, -1.0, 1.0, -0.5], [-2.0, 2.0, -2.0, -0.5]]


def test_network_is_sparse_signed_and_without_loops():
    weights = draw_network(20, 300, np.random.default_rng(0), share=0.1)
    assert (weights != 0).sum(1).tolist() == [30] * 20
    assert not np.tril(weights[:, :20]).any()
    strength = np.abs(weights[weights != 0])
    assert 0.2 <= strength.min() <= strength.max() <= 0.8
    assert 0.4 < (weights[weights != 0] > 0).mean() < 0.6


def test_epistasis_leaves_perturbed_and_silent_genes_alone():
    additive = np.array([[1.0, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 2, 0, 1]])
    factor, mode = draw_epistasis(additive, [(0,), (1,), (0, 1)], 1.0, np.random.default_rng(0))
    assert mode.tolist() == [0, 0, 1]
    assert not factor[:2].any() and not factor[2, [0, 1, 3]].any()
    assert np.count_nonzero(factor[2]) == 1  # 30 % of two responding genes, at least one


def test_contexts_respond_differently_only_if_asked():
    same, other = (simulate_perturbseq(**SMALL, context_effect=e) for e in (0.0, 0.5))
    by_context = {n: [truth(a)["log_fold_change"][(truth(a)["conditions"]["context"] == c).to_numpy()]
                      for c in ("state A", "state B")] for n, a in (("same", same), ("other", other))}  # fmt: skip
    np.testing.assert_allclose(*by_context["same"])
    assert np.abs(by_context["other"][0] - by_context["other"][1]).max() > 0.1


def test_library_size_and_dispersion():
    kw = {"n_genes": 40, "n_regulators": 2, "n_single": 0, "n_double": 0, "contexts": ("K562",), "n_control": 4000,
          "n_batches": 1, "state_effect": 0.0}  # fmt: skip
    adata = simulate_perturbseq(**kw, depth=2000.0, depth_sd=0.5, dispersion=0.0)
    total = adata.obs["total_counts"].to_numpy()
    assert total.mean() == pytest.approx(2000.0, rel=0.05)
    assert np.log(total).std() == pytest.approx(0.5, rel=0.06)
    counts = simulate_perturbseq(**kw, depth=4000.0, depth_sd=0.0, dispersion=0.25).X.toarray()
    mean, variance = counts.mean(0), counts.var(0)
    assert np.median((variance - mean) / mean**2) == pytest.approx(0.25, rel=0.1)


def test_dropout_loses_the_stated_share():
    kw = SMALL | {"n_control": 500, "depth": 1e5}
    full, lost = simulate_perturbseq(**kw), simulate_perturbseq(**kw, dropout=0.3)
    assert full.X.nnz / np.prod(full.shape) > 0.99
    assert lost.X.nnz / full.X.nnz == pytest.approx(0.7, abs=0.01)


def test_batches_are_balanced_and_shift_genes():
    quiet, loud = (simulate_perturbseq(**SMALL, depth=1e6, batch_effect=b) for b in (0.0, 1.0))
    table = pd.crosstab([loud.obs["perturbation"], loud.obs["context"]], loud.obs["batch"])
    assert (table["batch 1"] == table["batch 2"]).all()

    def distance(adata: ad.AnnData) -> float:
        x = lognormalise(adata.X, 1e4).toarray()
        first = (adata.obs["batch"] == "batch 1").to_numpy()
        return float(np.abs(x[first].mean(0) - x[~first].mean(0)).mean())

    assert distance(loud) > 5 * distance(quiet)
    np.testing.assert_array_equal(true_effects(quiet), true_effects(loud))


def test_same_seed_same_numbers_and_sparse_equals_dense():
    first, second = simulate_perturbseq(**SMALL, seed=3), simulate_perturbseq(**SMALL, seed=3)
    dense, other = simulate_perturbseq(**SMALL, seed=3, sparse=False), simulate_perturbseq(**SMALL, seed=4)
    assert sp.isspmatrix_csr(first.X) and isinstance(dense.X, np.ndarray)
    np.testing.assert_array_equal(first.X.toarray(), second.X.toarray())
    np.testing.assert_array_equal(first.X.toarray(), dense.X)
    pd.testing.assert_frame_equal(first.obs, second.obs)
    assert not np.array_equal(first.X.toarray(), other.X.toarray())


def test_numbers_of_cells_do_not_change_the_truth():
    few, many = (
        simulate_perturbseq(**SMALL),
        simulate_perturbseq(**(SMALL | {"n_cells": 17, "n_batches": 3}), depth=500.0),
    )
    pd.testing.assert_frame_equal(true_effects(few), true_effects(many))


def test_layout_of_a_screen():
    adata = simulate_perturbseq(**SMALL)
    assert adata.shape == (2 * (20 + 8 * 10), 60)
    assert adata.obs["perturbation"].value_counts()["control"] == 40
    assert set(adata.obs["perturbation"].value_counts().drop("control")) == {20}
    assert adata.var["regulator"].sum() == 8
    assert adata.X.dtype == np.float32 and (adata.X.data == np.rint(adata.X.data)).all()
    np.testing.assert_array_equal(adata.obs["total_counts"], adata.X.toarray().sum(1))
    doubles = [p for p in adata.obs["perturbation"].unique() if "+" in p]
    assert len(doubles) == 3 and all(p == "+".join(sorted(p.split("+"))) for p in doubles)
    assert not adata.obs["perturbation"].iloc[:20].eq("control").all()  # cells come in random order
    assert adata.obs_names.is_unique and adata.var_names.is_unique and "dose" not in adata.obs


def test_doses_scale_the_log_fold_change():
    adata = simulate_perturbseq(**SMALL, doses=(0.5, 1.0))
    table, change = truth(adata)["conditions"], truth(adata)["log_fold_change"]
    np.testing.assert_allclose(change[(table["dose"] == 0.5).to_numpy()] * 2, change[(table["dose"] == 1.0).to_numpy()])
    assert sorted(adata.obs["dose"].unique()) == [0.0, 0.5, 1.0]
    assert (adata.obs["dose"] == 0).equals(adata.obs["perturbation"] == "control")
    assert true_effects(adata).index.names == ["perturbation", "context", "dose"]


def test_controls_only():
    adata = simulate_perturbseq(30, 4, 0, 0, n_control=15, contexts=("K562",))
    assert adata.shape == (15, 30)
    assert set(adata.obs["perturbation"]) == set(adata.obs["kind"]) == {"control"}
    assert true_effects(adata).shape == (0, 30)


def test_round_trip_through_a_file(tmp_path):
    adata = simulate_perturbseq(**SMALL, doses=(0.5, 1.0))
    adata.write_h5ad(tmp_path / "screen.h5ad")
    back = ad.read_h5ad(tmp_path / "screen.h5ad")
    np.testing.assert_array_equal(back.X.toarray(), adata.X.toarray())
    pd.testing.assert_frame_equal(true_effects(back), true_effects(adata))
    assert truth(back)["parameters"]["seed"] == 0
    assert list(truth(back)["contexts"]) == ["state A", "state B"]
    part = back[:50, ["G003", "R01"]].copy()
    pd.testing.assert_frame_equal(true_effects(part), true_effects(adata)[["G003", "R01"]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_genes": 1}, "n_genes=1: expected a whole number of at least 2"),
        ({"n_cells": 2.5}, "n_cells=2.5: expected a whole number"),
        ({"n_control": 0}, "n_control=0: expected a whole number of at least 1"),
        ({"n_genes": 10, "n_regulators": 11}, "Raise n_genes or lower n_regulators"),
        ({"n_regulators": 5, "n_single": 6}, "Raise n_regulators or lower n_single"),
        ({"n_single": 3, "n_double": 4, "kinds": ("KD",)}, "only 3 pairs of one kind"),
        ({"n_steps": 3}, r"expected 1 \(targets\) or 2"),
        ({"epistasis": 1.5}, "epistasis=1.5: expected a finite number between 0 and 1"),
        ({"dropout": "high"}, "dropout='high': expected a finite number"),
        ({"depth": 0.0}, "depth=0.0: expected a finite number of at least 1"),
        ({"dispersion": float("nan")}, "dispersion=nan"),
        ({"batch_effect": -1.0}, "batch_effect=-1.0"),
        ({"contexts": "K562"}, "contexts='K562': expected a sequence of distinct names"),
        ({"contexts": ("a", "a")}, "expected a sequence of distinct names"),
        ({"contexts": ()}, "at least one"),
        ({"kinds": ("OEE",)}, "Did you mean 'OE'"),
        ({"doses": (0.0, 1.0)}, "expected distinct positive numbers"),
        ({"seed": -1}, "seed=-1: expected a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        simulate_perturbseq(**given)


def test_true_effects_of_other_cells_are_refused():
    with pytest.raises(ValueError, match="only cells made by"):
        true_effects(ad.AnnData(np.ones((2, 2))))
