"""Walks: graphs, fates, absorption, moves in time; against closed forms and dense solutions."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.neighbors import kneighbors_graph

from scjepa.dynamics import _walk as walk
from scjepa.dynamics import (
    absorption_probabilities,
    fate_probabilities,
    neighbor_graph,
    potency,
    transition_matrix,
    transport_plan,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def lines(rng):
    """Two separated lines of cells from early to late, times and the fates of late cells."""
    way = np.tile(np.arange(30.0), 2)
    z = np.stack([way, np.repeat([0.0, 1000.0], 30)], 1) + rng.normal(0, 0.1, (60, 2))
    fates = np.where(way >= 25, np.repeat(["low", "high"], 30), "")
    return z, np.floor(way / 10), fates


# ------------------------------------------------------------------------------------------------------------- graph
def test_graph_is_that_of_scikit_learn_made_symmetric(rng):
    z = rng.normal(size=(50, 3))
    one_way = kneighbors_graph(z, 4)
    np.testing.assert_array_equal(neighbor_graph(z, n_neighbors=4).toarray(), one_way.maximum(one_way.T).toarray())


def test_equal_cells_are_no_neighbours_of_themselves():
    graph = neighbor_graph(np.zeros((6, 2)), n_neighbors=3)
    assert graph.diagonal().sum() == 0 and (graph.sum(1) >= 3).all()


def test_memory_of_the_graph_is_linear(rng):
    assert neighbor_graph(rng.normal(size=(3000, 2)), n_neighbors=5).nnz <= 2 * 5 * 3000


# ------------------------------------------------------------------------------------------------------------- fates
def test_fates_of_two_lines_are_exact(lines):
    z, _, fates = lines
    found = fate_probabilities(z, fates, n_neighbors=3)
    assert found.names == ("high", "low") and found.reached.all()
    np.testing.assert_array_equal(found.probabilities, np.repeat([[0.0, 1.0], [1.0, 0.0]], 30, axis=0))


def test_walk_on_a_path_is_the_closed_form():
    # three cells in a row, A and B at the ends: the middle is drawn to both alike, whatever the restart
    graph = sp.csr_matrix([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=float)
    found = fate_probabilities(np.zeros((3, 1)), ["A", "", "B"], graph=graph, restart=0.3)
    np.testing.assert_allclose(found.probabilities[1], [0.5, 0.5])


def test_walk_with_weights_is_the_series(rng):
    weights = rng.uniform(size=(6, 6)) * (1 - np.eye(6))
    fates = ["", "", "", "A", "B", "B"]
    found = fate_probabilities(np.zeros((6, 1)), fates, graph=sp.csr_matrix(weights), restart=0.4)
    steps = weights / weights.sum(1, keepdims=True)
    start = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [0, 0.5], [0, 0.5]])
    mass = sum(np.linalg.matrix_power(0.6 * steps, k) @ start for k in range(200))
    np.testing.assert_allclose(found.probabilities[:3], (mass / mass.sum(1, keepdims=True))[:3], rtol=1e-9)


def test_iteration_is_the_exact_solution(rng, monkeypatch):
    z = rng.normal(size=(300, 3))
    fates = np.where(np.arange(300) < 250, "", np.where(z[:, 0] > 0, "A", "B"))
    exact = fate_probabilities(z, fates).probabilities
    monkeypatch.setattr(walk, "SMALL", 10)
    np.testing.assert_allclose(fate_probabilities(z, fates).probabilities, exact, atol=1e-7)


def test_iteration_goes_on_until_far_cells_are_reached(monkeypatch):
    path = sp.diags([np.ones(199), np.ones(199)], [-1, 1])
    monkeypatch.setattr(walk, "SMALL", 10)
    found = fate_probabilities(np.zeros((200, 1)), ["A", *[""] * 198, "B"], graph=path, restart=0.5)
    assert found.reached.all()
    np.testing.assert_allclose(found.probabilities[[1, 99, 100, 198], 0], [1, 1, 0, 0], atol=0.3)


def test_abundant_fates_draw_no_more_than_their_share(rng):
    z = np.concatenate([rng.normal(-3, 1, 20), rng.normal(3, 1, 200), rng.normal(0, 0.1, 1)])[:, None]
    fates = ["A"] * 20 + ["B"] * 200 + [""]
    graph = sp.csr_matrix(np.ones((221, 221)))  # a walk that says nothing
    np.testing.assert_allclose(fate_probabilities(z, fates, graph=graph).probabilities[-1], [0.5, 0.5], atol=1e-12)


def test_order_of_cells_and_missing_words_do_not_matter(rng, lines):
    z, _, fates = lines
    z = z + rng.normal(0, 300, z.shape)  # mixed, so that probabilities are inner
    found = fate_probabilities(z, fates).probabilities
    order = rng.permutation(60)
    text = pd.Series(fates).replace("", None)[order]
    np.testing.assert_allclose(fate_probabilities(z[order], text).probabilities, found[order], atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)
    assert 0.01 < found[fates == "", 0].min() < 0.99


def test_cells_that_reach_no_fate_say_so():
    z = np.array([[0.0], [0.1], [50.0], [50.1]])
    found = fate_probabilities(z, ["A", "", "", ""], n_neighbors=1)
    assert found.reached.tolist() == [True, True, False, False]
    two = fate_probabilities(np.vstack([z, [[100.0], [100.1]]]), ["A", "", "", "", "B", "B"], n_neighbors=1)
    assert two.probabilities[2].tolist() == [0.5, 0.5] and not two.reached[2]


# -------------------------------------------------------------------------------------------------------- absorption
def test_absorption_is_the_product_of_moves(rng):
    z, times = rng.normal(size=(60, 2)), np.repeat([0, 1, 2], 20)
    chain = transition_matrix(z, times)
    fates = np.where(times == 2, np.where(z[:, 0] > 0, "A", "B"), "")
    found = absorption_probabilities(chain, fates).probabilities
    end = np.stack([fates[40:] == "A", fates[40:] == "B"], 1)
    dense = chain.toarray()
    np.testing.assert_allclose(found[20:40], dense[20:40, 40:] @ end, atol=1e-12)
    np.testing.assert_allclose(found[:20], dense[:20, 20:40] @ dense[20:40, 40:] @ end, atol=1e-12)


def test_absorption_is_gamblers_ruin():
    n = 7
    up = np.diag(np.full(n - 1, 0.5), 1) + np.diag(np.full(n - 1, 0.5), -1)
    up[0], up[-1] = np.eye(n)[0], np.eye(n)[-1]
    found = absorption_probabilities(sp.csr_matrix(up), ["lost", *[""] * 5, "won"])
    np.testing.assert_allclose(found.probabilities[:, 1], np.arange(7) / 6, atol=1e-12)


def test_cells_that_are_never_absorbed_do_not_make_the_chain_singular():
    chain = sp.csr_matrix([[0.0, 0.5, 0.5], [0, 1.0, 0], [0, 0, 1.0]])
    found = absorption_probabilities(chain, ["", "A", ""])
    assert found.probabilities.tolist() == [[1.0], [1.0], [1.0]] and found.reached.tolist() == [True, True, False]


# ------------------------------------------------------------------------------------------------------------- moves
@pytest.mark.parametrize("method", ["transport", "graph"])
def test_moves_go_to_the_next_time_and_sum_to_one(rng, method):
    times = rng.permutation(np.repeat([1.0, 2.5, 7.0], [10, 25, 15]))
    chain = transition_matrix(rng.normal(size=(50, 3)), times, method=method).tocoo()
    np.testing.assert_allclose(np.bincount(chain.row, chain.data, 50), 1)
    step = {1.0: 2.5, 2.5: 7.0, 7.0: 7.0}
    assert [step[t] for t in times[chain.row]] == times[chain.col].tolist()
    last = times[chain.row] == 7
    assert (chain.row[last] == chain.col[last]).all()


def test_transport_moves_are_rows_of_the_plan(rng):
    p, q = rng.normal(size=(12, 2)), rng.normal(size=(18, 2))
    chain = transition_matrix(np.vstack([p, q]), np.repeat([0, 1], [12, 18])).toarray()
    plan = transport_plan(p, q, method="entropic")
    dense = np.zeros((12, 18))
    dense[plan.source, plan.target] = plan.mass
    np.testing.assert_allclose(chain[:12, 12:], dense / dense.sum(1, keepdims=True), rtol=1e-9)


def test_growing_cells_take_more_of_the_next_time():
    z = np.array([[0.0], [10.0], [0.0], [0.0], [0.0], [10.0]])
    grown = transition_matrix(z, [0, 0, 1, 1, 1, 1], growth=np.array([3, 1, 1, 1, 1, 1.0]), epsilon=0.001).toarray()
    np.testing.assert_allclose(grown[:2, 2:], [[1 / 3, 1 / 3, 1 / 3, 0], [0, 0, 0, 1]], atol=1e-3)


def test_moves_do_not_depend_on_the_order_of_cells(rng):
    z, times = rng.normal(size=(40, 2)), np.repeat([0, 1], 20)
    order = rng.permutation(40)
    for method in ("transport", "graph"):
        found = transition_matrix(z, times, method=method).toarray()
        again = transition_matrix(z[order], times[order], method=method).toarray()
        np.testing.assert_allclose(again, found[np.ix_(order, order)], atol=1e-6)


def test_last_cells_may_walk(rng):
    chain = transition_matrix(rng.normal(size=(40, 2)), np.repeat([0, 1], 20), last="graph", n_neighbors=3)
    assert chain.diagonal().sum() == 0
    np.testing.assert_allclose(chain.sum(1), 1)


# ----------------------------------------------------------------------------------------------------------- potency
def test_potency_is_entropy_over_its_most():
    p = np.array([[0.2, 0.3, 0.5], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    expected = -(p[0] * np.log(p[0])).sum() / np.log(3)
    np.testing.assert_allclose(potency(p), [expected, 0, 1], atol=1e-12)
    assert potency([[1.0]]).tolist() == [0.0]


# ------------------------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: neighbor_graph(z[:1]), "1 cell: a graph needs"),
        (lambda z: neighbor_graph(z[0]), "expected \\(cells, coordinates\\)"),
        (lambda z: neighbor_graph(z * np.nan), "missing or infinite"),
        (lambda z: fate_probabilities(z, ["A"]), "fates has 1 values: expected 4"),
        (lambda z: fate_probabilities(z, [None, "", np.nan, ""]), "no cell has a fate"),
        (lambda z: fate_probabilities(z, ["A", "", "", ""], restart=1), "restart=1: expected"),
        (lambda z: fate_probabilities(z, ["A", "", "", ""], graph=sp.eye(3)), r"graph has shape \(3, 3\): expected \(4, 4\)"),
        (lambda z: fate_probabilities(z, ["A", "", "", ""], graph=-sp.eye(4)), "weights of at least 0"),
        (lambda z: absorption_probabilities(sp.eye(4) * 2, ["A", "", "", ""]), "4 of 4 rows do not sum to one"),
        (lambda z: transition_matrix(z, [0, 0, 0, 0]), "all cells are of one time"),
        (lambda z: transition_matrix(z, [0, 1]), r"times has shape \(2,\)"),
        (lambda z: transition_matrix(z, [0, 0, 1, 1], growth=np.zeros(4)), "numbers above 0"),
        (lambda z: transition_matrix(z, [0, 0, 1, 1], method="exact"), "method='exact' is not among"),
        (lambda z: transition_matrix(z, [0, 0, 1, 1], last="walk"), "last='walk' is not among"),
        (lambda z: potency([[0.5, 0.2]]), "1 of 1 rows are no probabilities"),
        (lambda z: potency([0.5, 0.5]), r"expected \(cells, fates\)"),
    ],
)  # fmt: skip
def test_errors_say_what_was_found(rng, call, message):
    with pytest.raises(ValueError, match=message):
        call(rng.normal(size=(4, 2)))
