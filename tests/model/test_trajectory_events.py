"""Branch points, critical transitions and groups of donors of TrajectoryJEPA, against simulated truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from scjepa import TrajectoryJEPA
from scjepa.datasets import simulate_trajectory


def fitted(adata, key="time", train=None, **setup):
    TrajectoryJEPA.setup_anndata(adata, key, **setup)
    model = TrajectoryJEPA(adata, residual=False)  # events do not read it
    model.train(embed=False, enable_progress_bar=False, **(train or {}))
    return model


@pytest.fixture(scope="module")
def branching():
    return fitted(simulate_trajectory(150, times=[0, 1, 2, 3, 4], n_cells=80, branch_times=2.0, seed=2))


@pytest.fixture(scope="module")
def donors():
    adata = simulate_trajectory(80, times=[0, 1, 2, 3], n_cells=25, n_donors=8, n_groups=2, seed=2)
    return fitted(adata, sample_key="donor")


def test_branch_point_of_the_simulator(branching):
    adata = branching.adata
    table = branching.branch_points(n_runs=5, label_key="fate", key_added="end")
    assert len(table) == 1 and table.loc[0, "stable"] and table.attrs["start"] == {"all": 1}
    point = table.iloc[0]
    assert abs(point["to_time"] - 3) <= 1 and point["n_ways"] == 2 and sum(point["shares"]) == pytest.approx(1)
    assert sorted(name for way in point["branches"] for name in way) == ["fate 1", "fate 2"]
    assert (adata.obs.loc[list(point["cells"]), "time"] == point["from_time"]).all()
    last = adata.obs["end"].notna()
    assert (last == (adata.obs["time"] == 4)).all()
    assert (adata.obs.loc[last, "end"].astype(str) == adata.obs.loc[last, "fate"].astype(str)).mean() > 0.9
    np.testing.assert_allclose(adata.obsm["end"].sum(1), 1)
    # shares are those of the last snapshot
    assert dict(zip([w[0] for w in point["branches"]], point["shares"], strict=True))["fate 1"] == pytest.approx(
        (adata.obs.loc[last, "end"] == "fate 1").mean()
    )


def test_no_branch_is_an_empty_table():
    table = fitted(simulate_trajectory(80, times=[0, 1, 2, 3], n_cells=50, n_fates=0)).branch_points(n_runs=3)
    assert len(table) == 0 and list(table.columns[:2]) == ["from_time", "to_time"]


def test_the_tipping_time_stands_out_and_counts_are_read():
    adata = simulate_trajectory(
        200, times=[0, 1, 2, 3, 4], n_cells=80, n_fates=0, tipping="peak", depth=[1500, 800] * 2 + [1500]
    )
    model = fitted(adata)
    table = model.critical_transitions(n_permutations=39)
    assert table["p_value"].iloc[0] < 0.05 and table.loc[table["peak"], "time"].tolist() == [2.0]
    at = int(np.flatnonzero(table["peak"])[0])
    assert table["index"][at] > table["null_high"][at] and np.isnan(table["prominence"].iloc[[0, -1]]).all()
    strongest = list(table.attrs["module"])[:8]
    assert adata.var.loc[strongest, "module"].mean() > 0.8
    # normalised cells of other depth can't be thinned
    other = adata.copy()
    from scanpy.pp import log1p, normalize_total

    normalize_total(other, target_sum=1e4)
    log1p(other)
    with pytest.raises(ValueError, match="times as deep"):
        fitted(other).critical_transitions(n_permutations=19)


def test_groups_of_donors_are_recovered(donors):
    adata = donors.adata
    table = donors.stratify_samples()
    truth = adata.uns["jepa"]["simulation"]["donors"]["group"]
    assert adjusted_rand_score(truth.loc[table["sample"]], table["group"]) == 1
    assert table.groupby("group")["medoid"].sum().tolist() == [1, 1] and (table["silhouette"] > 0).all()
    assert (table["n_cells"] == 100).all() and table["measured"][0] == (0.0, 1.0, 2.0, 3.0)
    assert np.shape(table.attrs["distances"]) == (8, 8) and len(table.attrs["courses"]["D01"]) == 4
    order = np.random.default_rng(0).permutation(adata.n_obs)
    again = donors.stratify_samples(indices=order)
    np.testing.assert_allclose(again.attrs["distances"], table.attrs["distances"])


def test_donors_measured_at_one_time_follow_the_course(donors):
    adata = donors.adata
    adata.obs["lone"] = np.where(
        (adata.obs["donor"] == "D01") & (adata.obs["time"] != 1), "D03", adata.obs["donor"].astype(str)
    )
    table = donors.stratify_samples("lone").set_index("sample")
    assert table.loc["D01", "measured"] == (1.0,) and len(table.attrs["courses"]["D01"]) == 4
    assert table.loc["D01", "group"] == table.loc["D03", "group"]


def test_one_group_where_donors_do_not_differ():
    adata = simulate_trajectory(60, times=[0, 1, 2], n_cells=20, n_donors=6, seed=3)
    model = fitted(adata)
    table = model.stratify_samples("donor")
    assert set(table["group"]) == {"1"} and table["silhouette"].isna().all() and table["medoid"].sum() == 1
    forced = model.stratify_samples("donor", n_groups=2)
    assert forced["group"].nunique() == 2
    pd.testing.assert_frame_equal(forced, model.stratify_samples("donor", n_groups=2))


def test_conditions_have_events_of_their_own():
    adata = simulate_trajectory(
        80, times=[0, 1, 2, 3], n_cells=60, branch_times=1.5, conditions=("control", "drug"), condition_effect="speed"
    )
    model = fitted(adata, condition_key="condition")
    table = model.branch_points(n_runs=3)
    assert "condition" in table and set(table["condition"]) <= {"control", "drug"} and len(table) >= 1
    tipping = model.critical_transitions(n_permutations=19)
    assert tipping.groupby("condition").size().tolist() == [4, 4] and set(tipping.attrs["module"]) == {
        "control",
        "drug",
    }
    with pytest.raises(ValueError, match="no common names"):
        model.branch_points(key_added="end")


def test_errors(branching, donors):
    few = branching.adata.obs.groupby("time", observed=True).head(8).index
    with pytest.raises(ValueError, match="Too few cells.*Condition: all"):
        branching.branch_points(indices=branching.adata.obs_names.get_indexer(few))
    with pytest.raises(ValueError, match="sample_key is missing"):
        branching.stratify_samples()
    branching.adata.obs["one"] = "same"
    with pytest.raises(ValueError, match="there is one sample"):
        branching.stratify_samples("one")
    with pytest.raises(ValueError, match="there are 8 samples"):
        donors.stratify_samples(n_groups=9)
