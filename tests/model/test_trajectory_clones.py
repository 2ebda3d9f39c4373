"""Clones of TrajectoryJEPA: they judge or they teach, never both; growth rates of conditions."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa import TrajectoryJEPA, tl
from scjepa.datasets import simulate_trajectory


@pytest.fixture(scope="module")
def model():
    adata = simulate_trajectory(100, times=[0, 1, 2], n_cells=80, n_clones=12, clone_fidelity=1.0, seed=1)
    adata.obs["clone"] = adata.obs["clone"].astype(str)
    adata.obs.loc[adata.obs_names[:20], "clone"] = ""
    TrajectoryJEPA.setup_anndata(adata, "time", lineage_key="clone")
    model = TrajectoryJEPA(adata, residual=False)
    model.train(embed=False, enable_progress_bar=False)
    return model


def test_truth_is_the_share_of_fates_of_the_clone_at_the_last_time(model):
    obs = model.adata.obs
    truth = model.clonal_fates("fate")
    late = obs[(obs["time"] == 2) & (obs["clone"] != "")]
    cell = obs.index[(obs["time"] == 0) & (obs["clone"] == late["clone"].iloc[0])][0]
    mine = late.loc[late["clone"] == obs.loc[cell, "clone"], "fate"]
    assert truth.loc[cell, "fate 1"] == pytest.approx((mine == "fate 1").mean())
    assert truth[(obs["time"] == 2) | (obs["clone"] == "")].isna().all(axis=None)
    assert truth.attrs["clones"] == obs.loc[truth.dropna().index, "clone"].nunique()


def test_clones_teach_or_judge(model):
    obs = model.adata.obs
    names = sorted(model.clonal_fates("fate").dropna().index.map(obs["clone"]).unique())
    taught = model.fate_probabilities("fate", train_clones=names[:6])
    truth = model.clonal_fates("fate", taught)
    judged = set(obs.loc[truth.dropna().index, "clone"])
    assert judged == set(names[6:]) and taught.attrs["train_clones"] == names[:6]
    early = obs.index[(obs["time"] < 2) & obs["clone"].isin(names[:6])]
    assert set(np.unique(taught.loc[early].to_numpy())) == {0.0, 1.0}  # they have their clone's fate
    plain = model.fate_probabilities("fate")
    assert not np.allclose(plain.loc[truth.dropna().index], taught.loc[truth.dropna().index])
    scores = tl.evaluate_fates(taught, truth, clone_key=obs["clone"], n_boot=100)
    assert scores["n_clones"].max() == len(judged)
    with pytest.raises(ValueError, match="learned from all 12 clones|learned from all"):
        model.clonal_fates("fate", model.fate_probabilities("fate", train_clones=names))
    with pytest.raises(ValueError, match="1 of 2 clones have no cells both"):
        model.fate_probabilities("fate", train_clones=[names[0], "C9999"])
    with pytest.raises(ValueError, match="needs a terminal_key"):
        model.fate_probabilities(train_clones=names[:2])


def test_without_clones():
    adata = simulate_trajectory(60, times=[0, 1, 2], n_cells=30, growth=(0, 3), conditions=("a", "b"), seed=0)
    adata.obs["other"] = [f"{t:g} {i}" for i, t in enumerate(adata.obs["time"])]
    TrajectoryJEPA.setup_anndata(adata, "time", condition_key="condition")
    model = TrajectoryJEPA(adata, residual=False)
    model.train(embed=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match="lineage_key='clone'"):
        model.clonal_fates("fate")
    rates = model.get_growth_rates()
    assert rates.index.equals(adata.obs_names) and (rates.isna() == (adata.obs["time"] == 2)).all()
    TrajectoryJEPA.setup_anndata(adata, "time", lineage_key="other")
    alone = TrajectoryJEPA(adata, residual=False)
    alone.train(embed=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match="no clone has cells both"):
        alone.clonal_fates("fate")
