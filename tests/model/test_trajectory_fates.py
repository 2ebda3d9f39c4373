"""Transitions, terminal states, fates, drivers and lineages of TrajectoryJEPA, against simulated truth."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from scjepa import TrajectoryJEPA
from scjepa.datasets import simulate_trajectory
from scjepa.dynamics import absorption_probabilities
from scjepa.metrics import auroc


def fitted(adata, **setup):
    TrajectoryJEPA.setup_anndata(adata, "time", **setup)
    model = TrajectoryJEPA(adata, residual=False)
    model.train(embed=False, enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model():
    return fitted(simulate_trajectory(100, times=[0, 1, 2, 3], n_cells=60, seed=1))


def test_cells_move_to_the_next_time_only(model):
    chain, times = model.transition_matrix(), model.adata.obs["time"].to_numpy(float)
    assert np.allclose(np.asarray(chain.sum(1)).ravel(), 1)
    row, column = chain.nonzero()
    moved = times[row] < 3
    assert (times[column] - times[row])[moved].tolist() == [1.0] * int(moved.sum())
    assert (row == column)[~moved].all()


def test_order_of_cells_does_not_matter(model):
    order = np.random.default_rng(0).permutation(model.adata.n_obs)
    chain = model.transition_matrix(method="graph")
    again = model.transition_matrix(indices=order, method="graph")
    np.testing.assert_allclose(again.toarray(), chain.toarray()[np.ix_(order, order)], atol=1e-9)


def test_fates_are_those_of_the_simulator(model):
    obs = model.adata.obs
    found = model.fate_probabilities("fate")
    assert found.index.equals(model.adata.obs_names) and np.allclose(found.sum(1), 1)
    late = (obs["time"] == 2).to_numpy()
    name = found.columns[0]
    assert auroc((obs.loc[late, "fate"].astype(str) == name).to_numpy(), found.loc[late, name].to_numpy()) > 0.9
    # labels of earlier cells are not looked at
    model.adata.obs["other"] = obs["fate"].astype(str).where(obs["time"] == 3, "something else")
    pd.testing.assert_frame_equal(found, model.fate_probabilities("other"))


def test_terminal_states_are_the_fates(model):
    obs = model.adata.obs
    found = model.terminal_states()
    labelled = found.notna().to_numpy()
    assert found.nunique() == 2 and (obs.loc[labelled, "time"] == 3).all() and labelled.sum() > 40
    agree = pd.crosstab(found[labelled], obs.loc[labelled, "fate"].astype(str)).to_numpy()
    assert agree.max(1).sum() / agree.sum() > 0.9
    by_default = model.fate_probabilities()
    pd.testing.assert_frame_equal(by_default, model.fate_probabilities(terminal_states=found))


def test_drivers_are_genes_of_early_cells(model):
    probabilities = model.fate_probabilities("fate")
    name = probabilities.columns[0]
    found = model.driver_genes(name, probabilities=probabilities)
    early = (model.adata.obs["time"] < 3).to_numpy()
    x = model._read(model.adata).values[early].toarray()
    gene = model.adata.var_names.get_loc(found["gene"].iloc[0])
    r = np.corrcoef(x[:, gene], probabilities.loc[early, name])[0, 1]
    assert found["correlation"].iloc[0] == pytest.approx(r, abs=1e-5) and set(found["fate"]) == {name}
    assert set(model.driver_genes(terminal_key="fate")["fate"]) == set(probabilities.columns)


def test_clusters_descend_from_each_other(model):
    obs = model.adata.obs
    obs["cluster"] = np.where(obs["time"] < 2, "stem", obs["fate"].astype(str))
    flows = model.lineage_relations("cluster")
    assert {("stem", f) for f in obs["fate"].astype(str).unique()} <= set(
        zip(flows["source"], flows["target"], strict=True)
    )
    assert flows.attrs["parents"]


def test_conditions_do_not_mix_and_growth_weighs():
    adata = simulate_trajectory(60, times=[0, 1], n_cells=30, conditions=("control", "drug"), seed=0)
    plain = fitted(adata, condition_key="condition").transition_matrix()
    label = adata.obs["condition"].astype(str).to_numpy()
    row, column = plain.nonzero()
    assert (label[row] == label[column]).all()
    adata.obs["growth"] = np.where(np.arange(adata.n_obs) % 2, 1.0, 8.0)
    grown = fitted(adata, condition_key="condition", growth_key="growth").transition_matrix()
    assert np.allclose(np.asarray(grown.sum(1)).ravel(), 1) and abs(grown - plain).max() > 0.01


def test_held_out_cells_take_no_part_unless_they_are_named():
    adata = simulate_trajectory(60, times=[0, 1, 2], n_cells=30, seed=0)
    TrajectoryJEPA.setup_anndata(adata, "time")
    model = TrajectoryJEPA(adata, residual=False)
    model.train(embed=False, enable_progress_bar=False, holdout=[1])
    kept = np.flatnonzero(adata.obs["time"] != 1)
    found = model.fate_probabilities("fate")
    assert found.index.tolist() == adata.obs_names[kept].tolist()
    assert model.transition_matrix().shape == (60, 60) and model.fate_probabilities("fate", adata=adata).shape[0] == 90
    # what is measured at the time left out changes nothing, components of the walk included
    other = adata.copy()
    other.X[np.flatnonzero(adata.obs["time"] == 1)] = other.X[kept[:30]]
    TrajectoryJEPA.setup_anndata(other, "time")
    again = TrajectoryJEPA(other)
    again.train(embed=False, enable_progress_bar=False, holdout=[1])
    pd.testing.assert_frame_equal(again.fate_probabilities("fate"), found)


def test_fates_after_loading_are_the_same(model, tmp_path):
    model.save(str(tmp_path / "m"))
    again = TrajectoryJEPA.load(str(tmp_path / "m"), model.adata)
    pd.testing.assert_frame_equal(again.fate_probabilities("fate"), model.fate_probabilities("fate"))


def test_arrows_point_to_the_next_time(model):
    obs = model.adata.obs
    side = np.where(obs["fate"].astype(str) == "fate 1", 1.0, -1.0)
    model.adata.obsm["X_map"] = np.stack([obs["time"].to_numpy(float), side * (obs["time"] >= 2)], 1)
    arrows = model.velocity_arrows("X_map", key_added="velocity")
    early = (obs["time"] < 3).to_numpy()
    np.testing.assert_allclose(arrows.loc[early, "map_1"], 1.0)  # one unit of time, from each cell
    assert arrows[~early].isna().all(axis=None)
    np.testing.assert_array_equal(model.adata.obsm["velocity_map"], arrows.to_numpy())
    parted = (obs["time"] == 2).to_numpy()
    assert arrows.loc[parted, "map_2"].abs().mean() < 0.5  # a cell stays on its side
    some = np.flatnonzero(obs["time"] < 2)[::-1]
    model.velocity_arrows("X_map", indices=some, key_added="part")
    assert (
        np.isfinite(model.adata.obsm["part_map"][:, 0]).nonzero()[0].tolist()
        == np.flatnonzero(obs["time"] == 0).tolist()
    )
    with pytest.raises(KeyError, match="basis='X_mab' is not in adata.obsm.*Did you mean 'X_map'"):
        model.velocity_arrows("X_mab")


def test_cellrank_is_handed_moves_and_cells(model, monkeypatch):
    class Kernel:
        def __init__(self, chain, adata):
            self.chain, self.adata = chain, adata

    fake = ModuleType("cellrank.kernels")
    fake.PrecomputedKernel = Kernel
    monkeypatch.setitem(sys.modules, "cellrank", ModuleType("cellrank"))
    monkeypatch.setitem(sys.modules, "cellrank.kernels", fake)
    order = np.random.default_rng(0).permutation(model.adata.n_obs)
    kernel = model.to_cellrank(indices=order, method="graph")
    assert kernel.adata.obs_names.tolist() == model.adata.obs_names[order].tolist() and not kernel.adata.is_view
    chain = model.transition_matrix(indices=order, method="graph", last="graph")
    np.testing.assert_array_equal(kernel.chain.toarray(), chain.toarray())
    monkeypatch.setitem(sys.modules, "cellrank.kernels", None)
    with pytest.raises(ImportError, match=r"to_cellrank needs CellRank: pip install 'scjepa\[cellrank\]'"):
        model.to_cellrank()


def test_cellrank_finds_the_fates(model):
    estimators = pytest.importorskip("cellrank.estimators", reason="CellRank is not installed")
    estimator = estimators.GPCCA(model.to_cellrank())
    states = pd.Series(np.where(model.adata.obs["time"] == 3, model.adata.obs["fate"].astype(str), None)).astype(
        "category"
    )
    states.index = model.adata.obs_names
    estimator.set_terminal_states(states)
    estimator.compute_fate_probabilities(solver="direct", use_petsc=False)
    found = estimator.fate_probabilities
    ours = absorption_probabilities(model.transition_matrix(last="graph"), states.astype(object))
    np.testing.assert_allclose(np.asarray(found[list(ours.names)].X), ours.probabilities, atol=1e-6)


def test_errors(model):
    with pytest.raises(ValueError, match="terminal_key and terminal_states both say"):
        model.fate_probabilities("fate", terminal_states=pd.Series(["a"], index=["x"]))
    with pytest.raises(ValueError, match="terminal_states names none of the 240 cells"):
        model.fate_probabilities(terminal_states=pd.Series(["a"], index=["x"]))
    with pytest.raises(KeyError, match="fat"):
        model.fate_probabilities("fat")
    with pytest.raises(KeyError, match="fate='Z' is not one of the fates"):
        model.driver_genes("Z", terminal_key="fate")
    with pytest.raises(ValueError, match="probabilities are of none of the 240 cells"):
        model.driver_genes(probabilities=pd.DataFrame({"a": [1.0]}, index=["x"]))
    with pytest.raises(ValueError, match="transition_matrix: all cells are of one time"):
        model.transition_matrix(indices=np.flatnonzero(model.adata.obs["time"] == 0))
    untrained = TrajectoryJEPA(model.adata)
    with pytest.raises(RuntimeError, match="terminal_states needs a trained model"):
        untrained.terminal_states()


def test_cells_that_reach_no_fate_are_missing():
    adata = simulate_trajectory(60, times=[0, 1], n_cells=30, conditions=("control", "drug"), seed=0)
    adata.obs["late"] = np.where((adata.obs["condition"] == "drug") & (adata.obs["time"] == 1), "end", None)
    model = fitted(adata, condition_key="condition")
    with pytest.warns(UserWarning, match="from 60 of 120 cells no fate can be reached"):
        found = model.fate_probabilities("late")
    assert found["end"].isna().to_numpy().tolist() == (adata.obs["condition"] == "control").tolist()


def test_early_query_cells_end_where_training_cells_do():
    adata = simulate_trajectory(100, times=[0, 1, 2, 3], n_cells=60, seed=1)
    query = (np.arange(adata.n_obs) % 4 == 0) & (adata.obs["time"] == 2).to_numpy()
    model = fitted(adata[~query].copy())
    early = adata[query].copy()
    found = model.fate_probabilities("fate", adata=early)
    assert found.index.equals(early.obs_names) and np.allclose(found.sum(1), 1)
    name = found.columns[0]
    assert auroc((early.obs["fate"].astype(str) == name).to_numpy(), found[name].to_numpy()) > 0.85
    # as if they had been there all along
    whole = model.fate_probabilities("fate", adata=adata)
    np.testing.assert_allclose(found, whole.loc[found.index], atol=0.15)
    with pytest.raises(ValueError, match="are of one time"):
        model.fate_probabilities("fate", adata=early, with_training=False)
