"""The simulated trajectories have the courses they state, and counts that agree with them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scjepa._keys import Keys
from scjepa._scale import lognormalise
from scjepa.datasets import simulate_trajectory, true_drug_effects, true_trajectory

SMALL = {"n_genes": 60, "n_cells": 60, "n_times": 5}
EXACT = {"depth": 1e7, "depth_sd": 0.0, "dispersion": 0.0}


def truth(adata: ad.AnnData) -> dict:
    return adata.uns[Keys.uns.root][Keys.uns.simulation]


def share_of(adata: ad.AnnData, fate: str) -> np.ndarray:
    return (adata.obs["fate"] == fate).groupby(adata.obs["time"]).mean().to_numpy()


def test_counts_agree_with_the_stated_means():
    adata = simulate_trajectory(60, 3, n_cells=1500, **EXACT)
    values = lognormalise(adata.X, target_sum=1e4).toarray()
    for time in (0.0, 0.5, 1.0):
        mean = values[adata.obs["time"] == time].mean(0)
        assert np.abs(mean - true_trajectory(adata, [time]).to_numpy()[0]).mean() < 0.04
    fate = (adata.obs["time"] == 1) & (adata.obs["fate"] == "fate 2")
    assert np.abs(values[fate].mean(0) - true_trajectory(adata, [1.0], fate="fate 2").to_numpy()[0]).mean() < 0.05
    between = true_trajectory(adata, [0.25]).to_numpy()
    assert np.abs(between - true_trajectory(adata, [0.0, 0.5]).to_numpy()).max() > 0.3, "a time of its own"


def test_fates_part_at_their_time_and_not_before():
    adata = simulate_trajectory(**SMALL, branch_times=0.6)
    drivers = adata.var["driver"].to_numpy()
    apart = np.abs(
        true_trajectory(adata, [0.3, 0.9], fate="fate 1") - true_trajectory(adata, [0.3, 0.9], fate="fate 2")
    ).to_numpy()[:, drivers]
    assert apart[0].mean() < 0.02 < 0.5 < apart[1].mean()
    s = adata.obs["pseudotime"]
    assert set(adata.obs["branch"][s < 0.6]) == {"fate 1+fate 2"}
    assert (adata.obs["branch"].astype(str) == adata.obs["fate"].astype(str))[s > 0.6].all()
    chance = truth(adata)["fate_probabilities"]
    np.testing.assert_allclose(chance[s < 0.6], 0.5)
    assert set(np.unique(chance[s > 0.6])) == {0.0, 1.0}


def test_nested_fates_leave_one_after_another():
    adata = simulate_trajectory(**SMALL, n_fates=3, branch_times=(0.2, 0.7), fate_proportions=(2, 1, 1))
    splits = truth(adata)["splits"]
    assert splits["time"].tolist() == pytest.approx([0.2, 0.2, 0.7, 0.7])
    assert splits["fates"].tolist() == ["fate 1", "fate 2+fate 3", "fate 2", "fate 3"]
    middle = adata.obs["pseudotime"].between(0.2, 0.7, inclusive="neither")
    assert set(adata.obs["branch"][middle]) == {"fate 1", "fate 2+fate 3"}
    rows = truth(adata)["fate_probabilities"][middle & (adata.obs["fate"] != "fate 1")]
    np.testing.assert_allclose(rows, np.tile([0, 0.5, 0.5], (len(rows), 1)))


def test_times_have_any_unit_and_distance():
    adata = simulate_trajectory(20, times=(2, 4, 12), n_cells=(5, 10, 20), depth=(300, 3000, 3000))
    assert adata.obs["time"].value_counts().to_dict() == {2: 5, 4: 10, 12: 20}
    assert truth(adata)["splits"]["time"].tolist() == pytest.approx([6.5, 6.5])
    depth = adata.obs.groupby("time")["n_counts"].mean()
    assert depth[4] / depth[2] == pytest.approx(10, rel=0.3)


def test_growth_changes_proportions_after_the_branch_only():
    options = {**SMALL, "n_cells": 2000, "n_genes": 5, "n_module": 2}
    adata = simulate_trajectory(**options, growth=(2.0, 0.0), asynchrony=0.0)
    share = share_of(adata, "fate 1")
    odds = np.exp(2 * np.maximum(np.linspace(0, 1, 5) - 0.45, 0))
    np.testing.assert_allclose(share, odds / (1 + odds), atol=0.035)
    minority = simulate_trajectory(**options, fate_proportions=(0.9, 0.1))
    np.testing.assert_allclose(share_of(minority, "fate 2"), 0.1, atol=0.025)


def test_conditions_and_groups_shift_fates_or_speed():
    options = {**SMALL, "n_cells": 500, "n_genes": 20}
    fates = simulate_trajectory(**options, conditions=("control", "treated"), condition_shift=np.log(4))
    share = (fates.obs["fate"] == "fate 2").groupby(fates.obs["condition"], observed=True).mean()
    assert share["control"] == pytest.approx(0.5, abs=0.03) and share["treated"] == pytest.approx(0.8, abs=0.03)
    slow = simulate_trajectory(**{**options, "n_cells": 50}, n_donors=4, n_groups=2, group_shift=np.log(2))
    table = truth(slow)["donors"]
    assert table["group"].tolist() == ["group 1", "group 2"] * 2
    assert table["speed"].tolist() == pytest.approx([1, 0.5, 1, 0.5])
    last = slow.obs[slow.obs["time"] == 1].groupby("donor", observed=True)["pseudotime"].mean()
    np.testing.assert_allclose(last, [1, 0.5, 1, 0.5], atol=0.03)
    mine = [true_trajectory(slow, [t], donor=d).to_numpy() for t, d in ((0.5, "D01"), (1.0, "D02"))]
    assert (
        np.abs(mine[0] - mine[1]).mean()
        < 0.2
        < np.abs(mine[0] - true_trajectory(slow, [1.0], donor="D01")).mean(axis=None)
    )


def test_clones_share_a_preferred_fate():
    adata = simulate_trajectory(20, 3, n_cells=1000, n_clones=10, clone_fidelity=0.9, depth=100)
    assert adata.obs["clone"].nunique() == 10
    table = adata.obs.groupby(["clone", "fate"], observed=False).size().unstack()
    assert (table.max(1) / table.sum(1)).mean() == pytest.approx(0.95, abs=0.02), ".9, and half of the rest"
    early = adata.obs["time"] == 0
    chance = truth(adata)["fate_probabilities"][early]
    assert sorted(np.unique(chance.round(6))) == [0.05, 0.95]


def test_a_module_fluctuates_most_at_the_tipping_point():
    adata = simulate_trajectory(60, 5, n_cells=400, n_fates=0, tipping="peak", tip_time=0.25, n_module=6, **EXACT)
    values = lognormalise(adata.X, target_sum=1e4).toarray()[:, adata.var["module"]]
    spread = [values[adata.obs["time"] == t].std(0).mean() for t in np.linspace(0, 1, 5)]
    assert int(np.argmax(spread)) == 1 and spread[1] > 1.5 * spread[4]
    assert truth(adata)["tip_time"] == 0.25 and adata.var["module"].sum() == 6
    rise = simulate_trajectory(60, 5, n_cells=20, n_fates=0, tipping="rise")
    assert np.isnan(truth(rise)["tip_time"])


def test_systems_without_events():
    static = simulate_trajectory(**SMALL, n_fates=0, static=True)
    middle = static.obs.groupby("time")["pseudotime"].mean()
    assert middle.between(0.35, 0.65).all() and set(static.obs["fate"]) == {""}
    separate = simulate_trajectory(**SMALL, priming=1.0)
    assert (separate.obs["branch"] == separate.obs["fate"]).all()
    ways = [true_trajectory(separate, [0.0], fate=f) for f in ("fate 1", "fate 2")]
    assert np.abs(ways[0] - ways[1]).to_numpy()[:, separate.var["driver"]].mean() > 0.5
    wide = simulate_trajectory(**SMALL, n_fates=0, asynchrony=0.2)
    assert (wide.obs["pseudotime"] - wide.obs["time"]).std() == pytest.approx(0.2, abs=0.03)
    switch = simulate_trajectory(**SMALL, n_fates=0, switch=True)
    means = true_trajectory(switch, [0.0, 0.3, 0.7, 1.0]).to_numpy()
    assert np.abs(means[1] - means[2]).mean() > 10 * np.abs(means[0] - means[1]).mean()


def test_batches_shift_snapshots():
    plain, shifted = (
        lognormalise(
            simulate_trajectory(40, 2, n_cells=300, n_fates=0, static=True, batch_effect=b, **EXACT).X, target_sum=1e4
        )
        for b in (0.0, 0.8)
    )
    times = simulate_trajectory(40, 2, n_cells=300, n_fates=0, static=True, batch_effect=0.8).obs["time"].to_numpy()
    gap = [np.abs(x[times == 0].mean(0) - x[times == 1].mean(0)).mean() for x in (plain, shifted)]
    assert gap[1] > 4 * gap[0]


def test_seed_streams_sparsity_and_files(tmp_path):
    a, b = simulate_trajectory(**SMALL, n_donors=2), simulate_trajectory(**SMALL, n_donors=2)
    assert (a.X != b.X).nnz == 0 and a.obs.equals(b.obs)
    more = simulate_trajectory(**{**SMALL, "n_cells": 5}, n_donors=2, depth=50.0)
    np.testing.assert_array_equal(truth(a)["programmes"], truth(more)["programmes"])
    assert not np.array_equal(truth(a)["programmes"], truth(simulate_trajectory(**SMALL, seed=1))["programmes"])
    dense = simulate_trajectory(**SMALL, n_donors=2, sparse=False)
    assert sp.issparse(a.X) and np.array_equal(a.X.toarray(), dense.X)
    a.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")[:, ["G003", "G001"]]
    expected = true_trajectory(a, [0.1, 0.9], donor="D02", fate="fate 1")
    np.testing.assert_allclose(
        true_trajectory(again, [0.1, 0.9], donor="D02", fate="fate 1"), expected[["G003", "G001"]]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_genes": 2}, "n_genes=2: expected a whole number of at least 5"),
        ({"n_times": 1}, "n_times=1"),
        ({"times": (0, 2, 1)}, "times: expected two or more ascending numbers, found '0', '2', '1'"),
        ({"n_cells": (5, 5)}, "n_cells has 2 values: expected one, or one for each of the 7 times"),
        ({"depth": 0.1}, "depth=0.1"),
        ({"fate_proportions": (0.5, 0.3, 0.2)}, "fate_proportions=.*positive numbers, one for each of the n_fates=2"),
        ({"fate_proportions": (1.0, 0.0)}, "fate_proportions=.*positive numbers"),
        ({"growth": (1.0,)}, "growth=.*numbers, one for each"),
        ({"n_fates": 4, "branch_times": (0.2, 0.4)}, "expected one time, when all fates part, or n_fates - 1 = 3"),
        ({"branch_times": 3.0}, "expected times from 0 to 1, the first"),
        ({"tip_time": 2.0}, "tip_time=2.0"),
        ({"tipping": "pek"}, "tipping='pek' is not among .* Did you mean 'peak'"),
        ({"group_effect": "sped"}, "Did you mean 'speed'"),
        ({"condition_effect": "x"}, "condition_effect='x'"),
        ({"conditions": "treated"}, "conditions='treated': expected a sequence of distinct names"),
        ({"n_groups": 3}, "n_groups=3: expected at most n_donors=1"),
        ({"n_module": 300}, "n_module=300: expected at most n_genes=200"),
        ({"priming": 1.5}, "priming=1.5"),
        ({"asynchrony": -1}, "asynchrony=-1"),
        ({"group_shift": 99.0}, "group_shift=99.0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_trajectory(**options)


def test_only_simulated_trajectories_have_a_true_course():
    adata = simulate_trajectory(10, 2, n_cells=2, n_module=2)
    with pytest.raises(ValueError, match="condition='treated' is not among those that were simulated"):
        true_trajectory(adata, [0], condition="treated")
    with pytest.raises(ValueError, match="holds no course"):
        true_trajectory(ad.AnnData(np.ones((2, 2))), [0])
    with pytest.raises(ValueError, match="holds no drugs"):
        true_drug_effects(adata)
