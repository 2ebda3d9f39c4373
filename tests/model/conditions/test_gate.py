"""The network's gate: its value on known evidence, what is left out, and that noise closes it."""

from __future__ import annotations

import numpy as np
import pytest

import scjepa
from scjepa import PerturbJEPA
from scjepa.data import ConditionTable
from scjepa.model.conditions._gate import LEAST_GATE, MOST_GATE, Evidence, classes_of, weigh
from scjepa.model.conditions._judging import gate_folds

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def table(rows: list[tuple[str, str]]) -> ConditionTable:
    actions = tuple(tuple(label.split("+")) for label, _ in rows)
    return ConditionTable(
        actions, np.array([c for _, c in rows], dtype=object), np.zeros((len(rows), 3)), np.ones((len(rows), 3))
    )


def evidence(share: float, n: int, noise: float = 0.0, seed: int = 0) -> list[Evidence]:
    rng = np.random.default_rng(seed)
    added = rng.normal(size=(n, 20))
    missing = share * added + noise * rng.normal(size=(n, 20))
    return [Evidence("context", str(i), m, a) for i, (m, a) in enumerate(zip(missing, added, strict=True))]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_a_share_that_all_agree_on_is_found(share: float) -> None:
    found = weigh(evidence(share, 6))
    assert found.share == pytest.approx(share, abs=1e-3)
    assert found.gain == pytest.approx(1.0, abs=1e-3)  # nothing of the error is left


def test_shares_are_clipped_and_small_ones_closed() -> None:
    assert weigh(evidence(3.0, 6)).share == MOST_GATE
    assert weigh(evidence(-1.0, 6)) == (0.0, 0.0)
    assert weigh(evidence(0.9 * LEAST_GATE, 6)) == (0.0, 0.0)


def test_noise_alone_closes_the_gate_and_nothing_left_out_does_so_too() -> None:
    closed = [weigh(evidence(0.0, 200, noise=1.0, seed=s)).share for s in range(10)]
    assert closed == [0.0] * 10
    for nothing in (weigh([]), weigh(evidence(1.0, 1))):
        assert nothing.share == 0.0 and np.isnan(nothing.gain)


def test_what_the_units_do_not_agree_on_is_shrunken_by_hand() -> None:
    """Two units of slopes 1 and .4, alike in size: estimate .7, jackknife variance (.3 ** 2 * 2) / 2."""
    rows = [Evidence("context", u, s * np.ones(2), np.ones(2)) for u, s in (("a", 1.0), ("b", 0.4))]
    length = np.array([2.0, 0.32])
    weight = 1 / np.sqrt(length + length.mean())
    estimate = (weight @ [1.0, 0.4]) / weight.sum()
    variance = 0.5 * ((np.array([0.4, 1.0]) - 0.7) ** 2).sum()
    assert weigh(rows).share == pytest.approx(estimate * 0.16 / (0.16 + variance))


def test_what_buys_next_to_nothing_is_not_asked() -> None:
    """Of what is missing the network adds a part at a right angle to most of it: the slope is .5, the gain 2 %."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        added, other = rng.normal(size=20), rng.normal(size=20)
        other -= (other @ added) / (added @ added) * added
        other *= 3.4 * np.linalg.norm(added) / np.linalg.norm(other)
        rows.append(Evidence("context", str(i), 0.5 * added + other, added))
    assert weigh(rows) == (0.0, 0.0)
    nearer = [e._replace(missing=0.5 * e.added + (e.missing - 0.5 * e.added) / 2) for e in rows]
    assert weigh(nearer).share == pytest.approx(0.5, abs=1e-6)
    assert weigh(nearer).gain == pytest.approx(0.25 / (0.25 + 1.7**2), rel=1e-3)


def test_errors_are_cleared_of_noise() -> None:
    """Where the anchor misses nothing but noise the network has nothing to win; what it wins is not diluted by noise."""
    rows = evidence(0.5, 6)
    lost = [e._replace(noise=2 * float(e.missing @ e.missing)) for e in rows]
    assert weigh(lost) == (0.0, 0.0)
    noisy = evidence(0.5, 400, noise=0.5)
    cleared = [e._replace(noise=20 * 0.25) for e in noisy]
    assert weigh(cleared).gain == pytest.approx(1.0, abs=0.05)
    assert weigh(noisy).gain < 0.6


def test_a_large_condition_does_not_decide_alone() -> None:
    """Thirty conditions say .7, one with ten times the length says minus one: its weight falls with its length."""
    big = [Evidence("context", "big", -10 * e.missing, 10 * e.added) for e in evidence(1.0, 1, seed=1)]
    slope = lambda rows: sum(e.missing @ e.added for e in rows) / sum(e.added @ e.added for e in rows)
    rows = evidence(0.7, 60) + big
    assert slope(rows) < 0.2 < 0.4 < weigh(rows).share


def test_order_does_not_matter() -> None:
    rows = evidence(0.5, 8, noise=1.0)
    assert weigh(rows) == pytest.approx(weigh(rows[::-1]), abs=1e-12)


def test_what_is_left_out() -> None:
    rows = [("A", "x"), ("B", "x"), ("A", "y"), ("B", "y"), ("C", "y"), ("A+B", "x"), ("A+B", "y"), ("A+C", "y")]
    folds = gate_folds(table(rows))
    contexts = [mask for way, mask in folds if way == "context"]
    assert sorted(tuple(np.flatnonzero(m)) for m in contexts) == [(0, 1, 5), (2, 3, 4, 6, 7)]
    conditions = [mask for way, mask in folds if way == "condition"]
    assert all(m[5] == m[6] for m in conditions)  # a combination leaves with all its rows
    assert not any(m[4] for m in conditions)  # C was measured in one context only
    np.testing.assert_array_equal(sum(m.astype(int) for m in conditions), [1, 1, 1, 1, 0, 1, 1, 1])


def test_nothing_to_leave_out() -> None:
    assert gate_folds(table([("A", "x"), ("B", "x")])) == []


def test_classes_of_questions() -> None:
    asked = table([("A", "x"), ("A+B", "x"), ("A", "z"), ("A+B", "z"), ("D", "x")])
    assert classes_of(asked, ["x", "y"], ["A", "B"]).tolist() == ["single", "combination", "context", "context", ""]


@pytest.fixture(scope="module")
def noise() -> PerturbJEPA:
    """Three contexts and no effect at all: what a network learns here is noise."""
    adata = scjepa.datasets.simulate_perturbseq(
        60, 8, 6, 0, n_cells=25, n_control=60, contexts=("a", "b", "c", "d"), seed=0
    )
    control = np.flatnonzero(adata.obs["perturbation"] == "control")
    rng = np.random.default_rng(0)
    for context in adata.obs["context"].unique():
        here = np.flatnonzero(adata.obs["context"] == context)
        adata.X[here] = adata.X[rng.choice(np.intersect1d(control, here), len(here))]
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    model = PerturbJEPA(adata, n_pcs=10, n_latent=6, n_ensemble=1)
    model.train(holdout=["d"], max_epochs=5, **QUIET)
    return model


def test_without_effects_the_network_is_not_trusted_in_a_new_context(noise: PerturbJEPA) -> None:
    assert noise.gates_["context"] == 0.0
    label = noise.trained_on_["perturbation"].iloc[0]
    out = noise.predict_perturbation(label, context="d", include_control=True)
    control = (out.obs["jepa_prediction"] == "control").to_numpy()
    effect = out.X[~control].mean(0) - out.X[control].mean(0)
    noise.gates_ = {**noise.gates_, "context": 1.0}
    full = noise.predict_perturbation(label, context="d").X.mean(0) - out.X[control].mean(0)
    noise.gates_ = {**noise.gates_, "context": 0.0}
    assert np.linalg.norm(effect) < 0.5 * np.linalg.norm(full)


@pytest.mark.parametrize(("gate", "kept"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_a_given_gate_is_taken_and_mixes_linearly(gate: float, kept: float) -> None:
    adata = scjepa.datasets.simulate_perturbseq(40, 6, 4, 2, n_cells=20, n_control=40, contexts=("a", "b"))
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    model = PerturbJEPA(adata, gate=gate, n_pcs=8, n_latent=4, n_ensemble=1)
    model.train(max_epochs=2, holdout=["b"], **QUIET)
    assert set(model.gates_.values()) == {kept}
    label = model.trained_on_["perturbation"].iloc[0]
    questions = model._design.ask(label, ["b"])
    x = np.zeros((1, adata.n_vars))
    full, base, share = model._answer(questions, x)
    assert share.tolist() == [kept]
    import torch

    cells = torch.zeros(3, adata.n_vars)
    at = lambda g: model._mover.shift(cells, questions[0], full[0], base[0], g).detach().numpy()
    wanted = (1 - kept) * at(0.0) + kept * at(1.0)
    np.testing.assert_allclose(np.broadcast_to(at(kept), wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize("gate", ["often", -0.1, 1.5, None, True])
def test_bad_gates(gate: object) -> None:
    adata = scjepa.datasets.simulate_perturbseq(40, 6, 4, 2, n_cells=20, n_control=40)
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    with pytest.raises(ValueError, match=r"gate=.*expected 'auto' or a number from 0"):
        PerturbJEPA(adata, gate=gate)


def test_an_anchor_given_as_an_object_has_a_context_blind_twin() -> None:
    adata = scjepa.datasets.simulate_perturbseq(40, 6, 4, 2, n_cells=20, n_control=40, contexts=("a", "b"))
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    model = PerturbJEPA(adata, anchor=scjepa.baselines.KernelEffect(links=(None,)), gate=0.5, n_pcs=8, n_latent=4)
    model.train(max_epochs=1, **QUIET)
    assert (model.anchor_.context_kernel, model.base_anchor_.context_kernel) == (True, False)
    assert model.anchor_.links == model.base_anchor_.links == (None,)
