"""Terminal states, driver genes and descent, against known answers and scipy."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import false_discovery_control, norm, pearsonr

from scjepa.dynamics import _states as states
from scjepa.dynamics import driver_genes, lineage_relations, terminal_states, transition_matrix


@pytest.fixture
def rng():
    return np.random.default_rng(1)


# ---------------------------------------------------------------------------------------------------- terminal states
def clouds(rng, apart):
    center = apart * np.array([[0, 0], [1, 0], [0, 1.0]])
    z = np.vstack(
        [rng.normal(size=(20, 2)), *(rng.normal(size=(n, 2)) + c for n, c in zip((60, 100, 80), center, strict=True))]
    )
    return z, np.repeat([0, 1], [20, 240]), np.repeat(["", "c", "a", "b"], [20, 60, 100, 80])


@pytest.mark.parametrize("apart", [5, 30])
@pytest.mark.parametrize("dense", [True, False])
def test_states_are_the_clouds_touching_or_not(rng, apart, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(states, "DENSE", 10)
    z, times, truth = clouds(rng, apart)
    found = terminal_states(transition_matrix(z, times, last="graph"))
    assert (found.labels[:20] == "").all() and not found.memberships[:20].any()
    table = pd.crosstab(truth[20:], found.labels[20:])
    named = table.drop(columns="", errors="ignore")
    assert named.columns.tolist() == ["1", "2", "3"]  # from the largest
    assert named.idxmax().tolist() == ["a", "b", "c"]
    assert named.max().sum() >= 0.94 * 240
    assert (found.stability > 0.96).all()
    np.testing.assert_allclose(found.memberships[20:].sum(1), 1)


def test_one_cloud_is_one_state(rng):
    z = rng.normal(size=(220, 5))
    found = terminal_states(transition_matrix(z, np.repeat([0, 1], [20, 200]), last="graph"))
    assert found.labels[20:].tolist() == ["1"] * 200 and found.stability.tolist() == pytest.approx([1.0])


def test_number_and_stability_can_be_asked_for(rng):
    z, times, _ = clouds(rng, 5)
    chain = transition_matrix(z, times, last="graph")
    assert len(terminal_states(chain, n_states=2).stability) == 2
    assert len(terminal_states(chain, n_states=3, least_stability=1.0).stability) == 0


def test_stability_is_that_of_a_known_chain():
    # two groups of two cells, left with probability .1
    walk = np.kron([[0.9, 0.1], [0.1, 0.9]], np.full((2, 2), 0.5))
    found = terminal_states(sp.csr_matrix(walk), n_states=2, least_stability=0.5, least_cells=1)
    np.testing.assert_allclose(found.stability, [0.9, 0.9], atol=1e-9)
    np.testing.assert_allclose(found.eigenvalues[:2], [1, 0.8], atol=1e-9)
    assert len(set(found.labels[:2])) == 1 and found.labels[0] != found.labels[2]


def test_order_of_cells_does_not_matter(rng):
    z, times, _ = clouds(rng, 5)
    order = rng.permutation(len(z))
    a = terminal_states(transition_matrix(z, times, last="graph")).labels
    b = terminal_states(transition_matrix(z[order], times[order], last="graph")).labels
    assert (a[order] == b).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"last": "self"}, "each is a state of its own"),
        ({"least_stability": 2}, "least_stability=2: expected"),
        ({"n_states": 0}, "n_states=0: expected a whole number"),
    ],
)
def test_errors_of_states(rng, change, message):
    z, times, _ = clouds(rng, 5)
    chain = transition_matrix(z, times, last=change.pop("last", "graph"))
    with pytest.raises(ValueError, match=message):
        terminal_states(chain, **change)


# ------------------------------------------------------------------------------------------------------------ drivers
def test_correlations_and_p_values_are_those_of_scipy(rng):
    x, p = rng.normal(size=(40, 6)), rng.uniform(size=40)
    x[:, 0] += 4 * p
    found = driver_genes(x, np.stack([p, 1 - p], 1), fates=["A", "B"])
    mine = found[found["fate"] == "A"].set_index("gene")
    for g in range(6):
        r = pearsonr(x[:, g], p)
        low, high = r.confidence_interval(0.95)
        row = mine.loc[str(g)]
        np.testing.assert_allclose([row.correlation, row.lower, row.upper], [r.statistic, low, high], atol=1e-12)
        assert row.p_value == pytest.approx(2 * norm.cdf(-abs(np.arctanh(r.statistic)) * np.sqrt(37)))
    np.testing.assert_allclose(mine["fdr"], false_discovery_control(mine["p_value"]))
    assert found["gene"].iloc[0] == "0" and mine["correlation"].is_monotonic_decreasing
    other = found[found["fate"] == "B"].set_index("gene")["correlation"]
    np.testing.assert_allclose(other, -mine["correlation"].reindex(other.index), atol=1e-12)


def test_sparse_is_dense(rng):
    x = sp.random(50, 8, 0.3, format="csr", random_state=0)
    p = rng.uniform(size=(50, 1))
    pd.testing.assert_frame_equal(driver_genes(x, p), driver_genes(x.toarray(), p))


def test_permutation_agrees_with_fisher_and_finds_nothing_in_noise(rng):
    x, p = rng.normal(size=(60, 30)), rng.uniform(size=(60, 1))
    x[:, 3] += 4 * p[:, 0]
    shuffled = driver_genes(x, p, test="permutation", n_permutations=999).set_index("gene")
    fisher = driver_genes(x, p).set_index("gene")
    assert np.corrcoef(shuffled["p_value"], fisher["p_value"].reindex(shuffled.index))[0, 1] > 0.99
    assert shuffled.loc["3", "p_value"] == pytest.approx(1 / 1000)
    assert (shuffled["fdr"] < 0.05).sum() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, p: driver_genes(x, p[:3]), "expected the same cells"),
        (lambda x, p: driver_genes(x[:3], p[:3]), "at least four"),
        (lambda x, p: driver_genes(x * np.nan, p), "missing or infinite"),
        (lambda x, p: driver_genes(x, p, genes=["a"]), "1 genes and 1 fates are named: expected 2 and 1"),
        (lambda x, p: driver_genes(x, p, level=1), "level=1: expected"),
        (lambda x, p: driver_genes(x, p, test="t"), "test='t' is not among"),
    ],
)
def test_errors_of_drivers(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(rng.normal(size=(5, 2)), rng.uniform(size=(5, 1)))


# ------------------------------------------------------------------------------------------------------------ lineage
def test_descent_of_a_split_is_counted():
    chain = np.zeros((7, 7))
    chain[0, [3, 4]] = [0.5, 0.5]
    chain[1, 4] = 1
    chain[2, [5, 6]] = [0.25, 0.75]
    chain[3:, 3:] = np.eye(4)
    found = lineage_relations(list("aabABBC"), np.array([0, 0, 0, 1, 1, 1, 1]), sp.csr_matrix(chain))
    flows = found.flows.set_index(["source", "target"])
    expected = {("a", "A"): (0.5, 0.25, 1), ("a", "B"): (1.5, 0.75, 1.5 / 1.75), ("b", "B"): (0.25, 0.25, 0.25 / 1.75)}
    for edge, (flow, descent, ancestry) in expected.items():
        np.testing.assert_allclose(
            flows.loc[edge, ["flow", "descent", "ancestry"]].astype(float), [flow / 3, descent, ancestry]
        )
    assert flows["flow"].sum() == pytest.approx(1)
    tree = found.parents.set_index("cluster")
    assert tree.loc[["a", "A", "B", "C"], "parent"].tolist() == ["", "a", "a", "b"]
    assert tree.loc["B", "second"] == "b" and tree.loc["B", "second_share"] == pytest.approx(0.25 / 1.75)
    assert tree["cells"].tolist() == [2, 1, 1, 2, 1]


def test_weak_edges_are_left_out_and_order_does_not_matter(rng):
    z = np.vstack([rng.normal(size=(25, 2)) + [9 * (i % 2), 0] for i in range(4)])
    times, clusters = np.repeat([0, 0, 1, 1], 25), np.repeat(["x", "y", "x", "y"], 25)
    chain = transition_matrix(z, times)
    found = lineage_relations(clusters, times, chain).flows
    assert found[["source", "target"]].values.tolist() == [["x", "x"], ["y", "y"]]
    order = rng.permutation(100)
    again = lineage_relations(clusters[order], times[order], transition_matrix(z[order], times[order])).flows
    pd.testing.assert_frame_equal(found, again, atol=1e-6)


def test_errors_of_lineage():
    with pytest.raises(ValueError, match="1 of 2 cells have none"):
        lineage_relations(["a", None], np.array([0, 1]), sp.eye(2))
    with pytest.raises(ValueError, match="least=2"):
        lineage_relations(["a", "b"], np.array([0, 1]), sp.eye(2), least=2)
