"""What left-out contexts tell: slopes by hand, simulated contexts that follow their controls or do not, cautious mode."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from scjepa.baselines import KernelEffect
from scjepa.baselines._contexts import ContextReport, slope, trusted_share
from scjepa.baselines._selection import CONTEXT, MARGIN, OF_TWO, GridErrors, averaged
from scjepa.data import ConditionTable

PLACES = "uvwxyz"


# ------------------------------------------------------------------ the slope
def test_slope_by_hand():
    """Inner products 1 and 2, squares 1 and 4; left out in turn the slopes are 2 / 4 and 1 / 1, and k = 2."""
    rest, difference = np.array([[1.0, 7.0], [5.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 2.0]])
    jackknife = 1 / 2 * (0.25**2 + 0.25**2)
    a, error = slope(rest, difference, np.array(["x", "y"]))
    assert a == pytest.approx(3 / 5)
    assert error == pytest.approx(np.sqrt(jackknife / 2 + 17 / 25))
    assert slope(rest, difference, np.array(["x", "y"]), prior=0.0)[1] == pytest.approx(np.sqrt(jackknife / 2))
    assert slope(rest, difference, np.array(["x", "y"]), prior=9.0)[1] == pytest.approx(
        np.sqrt(jackknife / 2 + 9 * 17 / 25)
    )


def test_rows_of_one_group_are_left_out_together():
    rng = np.random.default_rng(0)
    rest, difference, group = rng.normal(size=(9, 5)), rng.normal(size=(9, 5)), np.repeat(list("xyz"), 3)
    flat = lambda x: x.reshape(3, 15)
    a, error = slope(rest, difference, group, prior=0.0)
    assert slope(flat(rest), flat(difference), np.arange(3), prior=0.0) == pytest.approx((a, error))
    without = [slope(rest[group != g], difference[group != g], group[group != g])[0] for g in "xyz"]
    assert error == pytest.approx(np.sqrt(2 / 3 * 2 / 3 * 3 * np.var(without)))


def test_slope_does_not_depend_on_units_and_order():
    rng = np.random.default_rng(0)
    rest, difference, group = rng.normal(size=(9, 5)), rng.normal(size=(9, 5)), np.repeat(list("xyz"), 3)
    expected = slope(rest, difference, group)
    assert slope(10 * rest, 10 * difference, group) == pytest.approx(expected)
    order = rng.permutation(9)
    assert slope(rest[order], difference[order], group[order]) == pytest.approx(expected)
    assert slope(3 * rest, difference, group)[0] == pytest.approx(3 * expected[0])


def test_one_group_or_no_difference_tells_nothing():
    ones = np.ones((3, 2))
    assert slope(ones, ones, np.array(["x"] * 3)) == (0.0, float("inf"))
    assert slope(ones, np.zeros((3, 2)), np.arange(3)) == (0.0, float("inf"))


def test_trusted_share_by_hand():
    assert trusted_share(0.5, 0.25) == pytest.approx(0.5 * (1 - 1 / 4))
    assert trusted_share(1.0, 0.0) == 1.0 and trusted_share(4.0, 1.0) == 1.0  # never more than all of it
    assert trusted_share(0.5, 0.5) == trusted_share(0.5, 3.0) == 0.0
    assert trusted_share(-2.0, 0.1) == trusted_share(0.0, 0.1) == 0.0
    assert trusted_share(0.0, np.inf) == trusted_share(1.0, np.inf) == trusted_share(np.nan, np.inf) == 0.0
    shares = [trusted_share(0.9, e) for e in np.linspace(0, 1, 20)]
    assert shares == sorted(shares, reverse=True)


# ------------------------------------------------------------------ the note
@pytest.mark.parametrize(
    "silent",
    [
        ContextReport(4, 0.9, 0.2, 0.86, 5.0),  # control profiles tell
        ContextReport(4, 0.6, 0.2, 0.5, 5.0),
        ContextReport(4, 0.1, 0.4, 0.0, 1.0),  # contexts hardly differ
        ContextReport(4, 0.1, 0.4, 0.0, float("nan")),  # nobody knows whether they do
    ],
)
def test_note_is_empty_where_there_is_nothing_to_warn_of(silent):
    assert silent.note == ""


def test_note_has_the_numbers():
    note = ContextReport(4, 0.123, 0.456, 0.2, 3.21).note
    assert note.startswith("the 4 training contexts differ 3.2 times beyond sampling noise, and their control profiles")
    assert "(slope 0.12 +- 0.46, 1 where they do, 0 where they say nothing)" in note
    two = ContextReport(2, float("nan"), float("inf"), 0.0, 2.0).note
    assert "the 2 training contexts differ 2.0 times" in two and "(two contexts can't tell)" in two
    more = ContextReport(5, float("nan"), float("inf"), 0.0, 2.0).note
    assert "the 5 training contexts" in more and "two contexts" not in more and "nan" not in more


# ------------------------------------------------------------------ simulated contexts
def simulated(make_table, contexts, follows, *, seed=0, n_genes=40, **columns):
    """Simulate ten singles in several contexts; what contexts differ by follows from the control profile, or does not."""
    rng = np.random.default_rng(seed)
    place = rng.normal(size=(len(contexts), 2))
    control = 6 + 0.5 * place @ rng.normal(size=(2, n_genes))
    common, bend = rng.normal(size=(10, n_genes)), rng.normal(size=(2, 10, n_genes))
    own = np.tensordot(place, bend, 1) if follows else 1.4 * rng.normal(size=(len(contexts), 10, n_genes))
    effects = common + own + 0.05 * rng.normal(size=own.shape)
    labels = [f"G{i}" for i in range(10)] * len(contexts)
    return make_table(
        labels,
        effects.reshape(-1, n_genes),
        contexts=np.repeat(list(contexts), 10),
        control=np.repeat(control, 10, axis=0),
        **columns,
    )


COLUMNS = {"variance": np.full(40, 0.5), "n_cells": np.full(60, 50), "n_controls": np.full(60, 200.0)}


@pytest.fixture
def follows(make_table):
    return simulated(make_table, PLACES, True, **COLUMNS)


@pytest.fixture
def differs(make_table):
    return simulated(make_table, PLACES, False, **COLUMNS)


def plain(**kwargs):
    """Return an anchor with few candidates: quick, and the same in what is tested here."""
    return KernelEffect(links=(None,), lambdas=(0.01, 0.1, 1.0, 10.0), **kwargs)


def among(table, places):
    return table.rows(np.isin(table.contexts.astype(str), list(places)))


def test_contexts_that_follow_their_controls_have_slope_one(follows):
    report = plain().fit(follows).context_report()
    assert report.contexts == 6
    assert report.slope == pytest.approx(1, abs=0.15) and report.error < 0.4
    assert report.share > 0.7 and report.note == ""
    assert report.share == trusted_share(report.slope, report.error)


def test_contexts_of_their_own_have_a_small_share(differs):
    report = plain().fit(differs).context_report()
    assert report.share < 0.2 and np.isfinite(report.error)
    assert "the 6 training contexts differ" in report.note and "slope" in report.note


def test_misfit_to_noise_is_what_contexts_add_over_their_noise(differs):
    """Each adds 1.4^2 + .05^2 per gene; the noise is .5 (1 / 50 + 1 / 200)."""
    report = plain().fit(differs).context_report()
    assert report.misfit_to_noise == pytest.approx((1.4**2 + 0.05**2) / (0.5 * 0.025), rel=0.1)
    profiles = replace(differs, variance=None)
    silent = plain().fit(profiles).context_report()
    assert np.isnan(silent.misfit_to_noise) and silent.note == ""


def test_two_contexts_cannot_tell(differs):
    report = plain().fit(among(differs, "uv")).context_report()
    assert report.contexts == 2 and np.isnan(report.slope) and report.error == float("inf") and report.share == 0.0
    assert "two contexts can't tell" in report.note


def test_one_context_and_more_than_eight_have_no_report(make_table, differs):
    assert plain().fit(among(differs, "u")).context_report() is None
    small = lambda n: plain().fit(simulated(make_table, "abcdefghi"[:n], True, n_genes=8)).context_report()
    assert small(9) is None and small(8).contexts == 8


def test_an_anchor_that_does_not_look_at_contexts_says_so(differs):
    report = plain(context_kernel=False).fit(differs).context_report()
    assert np.isnan(report.slope) and report.share == 0.0
    assert "two contexts" not in report.note and "the 6 training contexts differ" in report.note


def test_the_report_is_made_once_and_survives_state(differs):
    model = plain().fit(differs)
    report = model.context_report()
    assert model.context_report() is report
    again = KernelEffect.from_state(model.state())
    assert again.context_report() == report
    text = json.dumps(model.state(), default=lambda array: array.tolist())
    assert KernelEffect.from_state(json.loads(text)).context_report() == report
    assert model.fit(among(differs, "uv")).context_report() != report  # another training, another report


# ------------------------------------------------------------------ cautious
def test_cautious_takes_the_share_that_was_confirmed(differs, follows):
    # half of what contexts differ by is their own: a share between
    between = replace(follows, perturbed=follows.control + (follows.effects + differs.effects) / 2)
    model, cautious = plain().fit(between), plain(cautious=True).fit(between)
    report = model.context_report()
    assert cautious.context_report() == report and 0.05 < report.share < 0.95
    pick, own = model.picks_["context"], cautious.picks_["context"]
    assert own["mixture"] == averaged((1 - report.share, pick["without"]), (report.share, pick["with"]))
    looks = sum(entry[3] for entry in own["mixture"] if CONTEXT in entry[1])
    assert looks == pytest.approx(report.share) and sum(entry[3] for entry in own["mixture"]) == pytest.approx(1)
    question = replace(
        between.rows(np.arange(3)),
        contexts=np.array(["new"] * 3, object),
        control=between.control[:3] + 0.3 * np.sin(np.arange(40)),
    )
    parts = []
    for name in ("without", "with"):
        part = KernelEffect.from_state(model.state())
        part.picks_["context"]["mixture"] = pick[name]
        parts.append(part.effects(question))
    expected = (1 - report.share) * parts[0] + report.share * parts[1]
    np.testing.assert_allclose(cautious.effects(question), expected, atol=1e-9)
    assert np.abs(parts[0] - parts[1]).max() > 0.05
    # questions about known contexts have the same answer
    np.testing.assert_array_equal(cautious.effects(between), model.effects(between))
    again = KernelEffect.from_state(cautious.state())
    assert again.cautious and again.picks_ == cautious.picks_
    np.testing.assert_array_equal(again.effects(question), cautious.effects(question))


def test_cautious_is_the_same_where_there_is_one_context(differs):
    table = among(differs, "u")
    question = replace(table, contexts=np.array(["new"] * 10, object))
    model, cautious = plain().fit(table), plain(cautious=True).fit(table)
    for cls, pick in model.picks_.items():
        assert cautious.picks_[cls]["mixture"] == pick["mixture"]
    np.testing.assert_array_equal(cautious.effects(question), model.effects(question))


def test_cautious_of_two_contexts_does_not_look(differs):
    mixture = plain(cautious=True).fit(among(differs, "uv")).picks_["context"]["mixture"]
    assert not any(CONTEXT in entry[1] for entry in mixture)


def test_cautious_is_no_worse_where_contexts_have_effects_of_their_own(make_table):
    errors = []
    for seed in range(4):
        table = simulated(make_table, PLACES, False, seed=seed, **COLUMNS)
        train, test = among(table, "uvw"), among(table, "xyz")
        for cautious in (False, True):
            out = plain(cautious=cautious).fit(train).effects(test)
            errors.append(((out - test.effects) ** 2).sum(1).mean())
    eager, cautious = np.reshape(errors, (4, 2)).mean(0)
    assert cautious <= 1.01 * eager


# ------------------------------------------------------------------ choosing
@pytest.mark.parametrize(("mean", "wins"), [(0.5, False), (0.7, False), (0.8, True), (1.5, True)])
def test_a_context_kernel_must_win_by_three_quarters_of_a_standard_error(mean, wins):
    """Errors that are smaller by a thousandth, in the mean over four contexts by some standard errors."""
    spread = np.array([-1.0, -0.5, 0.5, 1.0]) * 1e-3
    looking = 1 - spread - mean * spread.std(ddof=1) / 2
    errors = np.stack([np.ones(4), looking], 1)[:, None, :, None, None]
    grid = GridErrors((None,), ("additive", "additive" + CONTEXT), (1.0,), errors, np.arange(4))
    best = lambda **kwargs: grid.mixture([np.ones(4, bool)], temperature=1e-7, **kwargs)["kernel"]
    assert best() == "additive" + CONTEXT  # in the mean it is better
    assert MARGIN == 0.75 and best(margin=MARGIN) == "additive" + CONTEXT * wins


def test_the_margin_is_over_what_is_left_out_together():
    """Rows of one context are not independent: copies of them change nothing."""
    rng = np.random.default_rng(0)
    errors = rng.uniform(1, 2, size=(4, 1, 3, 2, 1))
    kernels = ("a", "a" + CONTEXT, "b" + CONTEXT)
    build = lambda errors, unit: GridErrors((None,), kernels, (0.1, 1.0), errors, unit).mixture(
        [np.ones(len(errors), bool)], margin=MARGIN
    )
    once, often = build(errors, np.arange(4)), build(np.repeat(errors, 5, axis=0), np.repeat(np.arange(4), 5))
    assert often["mixture"] == [[*entry[:3], pytest.approx(entry[3]), entry[4]] for entry in once["mixture"]]
    alone = build(errors, np.zeros(4, int))  # one context: no standard error, no margin
    free = GridErrors((None,), kernels, (0.1, 1.0), errors, np.zeros(4, int)).mixture([np.ones(4, bool)])
    assert alone["mixture"] == free["mixture"]


def test_of_two_contexts_three_tenths_look(differs):
    pick = plain().fit(among(differs, "uv")).picks_["context"]
    weights = {(entry[1], entry[2], entry[4]): entry[3] for entry in pick["mixture"]}
    looking = {key: weight for key, weight in weights.items() if CONTEXT in key[0]}
    assert OF_TWO == 0.3 and sum(looking.values()) == pytest.approx(0.3)
    assert sum(weights.values()) == pytest.approx(1)
    for (kernel, *rest), weight in looking.items():  # each candidate once with and once without
        assert weights[(kernel.removesuffix(CONTEXT), *rest)] == pytest.approx(weight * 0.7 / 0.3)
    assert "with" not in pick and len(looking) * 2 == len(weights)
    # three can tell
    assert "with" in plain().fit(among(differs, "uvw")).picks_["context"]


@pytest.mark.parametrize("n_contexts", [2, 3])
def test_what_was_measured_in_one_of_few_contexts_is_carried_to_another(n_contexts):
    """Identical effects everywhere: asked for in a known context where it was not measured, an effect is nearly whole."""
    rng = np.random.default_rng(0)
    places = list("uvw"[:n_contexts])
    effects = {f"P{i}": rng.normal(size=40) for i in range(8)}
    control = {place: 5 + rng.normal(size=40) for place in places}
    rows = [(p, c) for p in effects for c in places if (p, c) != ("P0", "u")]
    table = ConditionTable(
        tuple((p,) for p, _ in rows),
        np.array([c for _, c in rows], dtype=object),
        np.stack([control[c] for _, c in rows]),
        np.stack([control[c] + effects[p] + 0.05 * rng.normal(size=40) for p, c in rows]),
        n_cells=np.full(len(rows), 100),
        variance=np.full(40, 0.25),
        n_controls=np.full(len(rows), 200.0),
    )
    query = ConditionTable((("P0",),), np.array(["u"], dtype=object), control["u"][None])
    found = KernelEffect().fit(table).effects(query)[0]
    assert (found @ effects["P0"]) / (effects["P0"] @ effects["P0"]) > 0.9
