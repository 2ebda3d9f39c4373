"""Transitions, terminal states, fates, drivers and lineages of TrajectoryJEPA, against simulated truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scjepa import TrajectoryJEPA
from scjepa.datasets import simulate_trajectory
from scjepa.metrics import auroc


def fitted(adata, **setup):
    TrajectoryJEPA.setup_anndata(adata, "time", **setup)
    model = TrajectoryJEPA(adata)
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
