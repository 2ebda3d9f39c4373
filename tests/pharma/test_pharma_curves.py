"""Hill curves: closed forms, parameters recovered, flat curves told, intervals that cover."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad

from scjepa.pharma import dose_auc, fit_hill, hill, hill_auc

DOSES = np.array([0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])


def curves(n: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    p = {
        "bottom": rng.uniform(-0.5, 0.5, n),
        "top": rng.choice([-1, 1], n) * rng.uniform(1, 3, n),
        "ec50": 10 ** rng.uniform(-1.5, 0.5, n),
        "slope": rng.uniform(0.7, 2, n),
    }
    return p, hill(DOSES, *(v[:, None] for v in p.values()))


# ---------------------------------------------------------------- closed forms


def test_hill_at_none_half_and_all():
    got = hill([0.0, 2.0, 1e12], bottom=1.0, top=5.0, ec50=2.0, slope=1.7)
    np.testing.assert_allclose(got, [1, 3, 5], rtol=1e-12)
    np.testing.assert_allclose(hill(4.0, 0, 1, 2, 2), 16 / (4 + 16))
    assert np.isnan(hill(1.0, ec50=np.nan))


def test_hill_swapped_is_the_curve_of_minus_slope():
    d = DOSES[1:]
    np.testing.assert_allclose(hill(d, 3.0, 1.0, 0.5, 1.3), 1 + 2 * (1 - d**1.3 / (0.5**1.3 + d**1.3)))


def test_auc_is_the_integral():
    args = (0.2, -1.5, 0.7, 1.6)
    integral = quad(lambda x: float(hill(10**x, *args)), -2, 1)[0]
    assert hill_auc(*args, 0.01, 10.0) == pytest.approx(integral / 3, rel=1e-9)
    x = np.logspace(-2, 1, 3001)
    assert dose_auc(x, hill(x, *args)) == pytest.approx(integral / 3, rel=1e-5)


def test_auc_of_replicates_leaves_out_the_vehicle():
    got = dose_auc([0, 1, 1, 10], [[9.0, 0.0, 2.0, 3.0], [9.0, np.nan, 2.0, 3.0]])
    np.testing.assert_array_equal(got, [2.0, np.nan])


# ---------------------------------------------------------------- fits


def test_exact_curves_are_recovered():
    truth, y = curves(40)
    table = fit_hill(DOSES, y)
    for name, values in truth.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(table["auc"], hill_auc(*truth.values(), 0.01, 10.0), rtol=1e-6)
    assert not table["flat"].any() and not table["extrapolated"].any()
    np.testing.assert_allclose(table["r2"], 1)


def test_noisy_curves_are_recovered_and_intervals_cover():
    truth, y = curves(150)
    noisy = y + np.random.default_rng(1).normal(0, 0.1, y.shape)
    table = fit_hill(DOSES, noisy)
    assert (np.abs(np.log2(table["ec50"] / truth["ec50"])) < 1).mean() >= 0.9
    for name in ("ec50", "top"):
        covered = (table[f"{name}_lower"] <= truth[name]) & (truth[name] <= table[f"{name}_upper"])
        assert covered.mean() >= 0.9, name
    area = hill_auc(*truth.values(), 0.01, 10.0)
    assert 0.9 <= ((table["auc_lower"] <= area) & (area <= table["auc_upper"])).mean() <= 0.99


def test_units_of_dose_and_response_do_not_matter():
    _, y = curves(3)
    y = y + np.random.default_rng(2).normal(0, 0.1, y.shape)
    one, other = fit_hill(DOSES, y), fit_hill(DOSES * 1000, 5 - 100 * y)
    np.testing.assert_allclose(other["ec50"], one["ec50"] * 1000, rtol=1e-5)
    np.testing.assert_allclose(other["ec50_upper"], one["ec50_upper"] * 1000, rtol=1e-3)
    np.testing.assert_allclose(other["top"], 5 - 100 * one["top"], rtol=1e-5)
    np.testing.assert_allclose(other["top_lower"], 5 - 100 * one["top_upper"], rtol=1e-3)
    order = np.random.default_rng(3).permutation(len(DOSES))
    np.testing.assert_allclose(fit_hill(DOSES[order], y[:, order])["ec50"], one["ec50"], rtol=1e-5)


@pytest.mark.parametrize("doses", [DOSES, DOSES[1:6], np.repeat(DOSES, 3)])
def test_noise_is_flat(doses):
    table = fit_hill(doses, np.random.default_rng(0).normal(size=(100, len(doses))))
    assert table["flat"].mean() >= 0.93
    flat = table[table["flat"]]
    assert flat[["ec50", "slope", "ec50_lower", "top_upper"]].isna().all(axis=None)
    assert (flat["bottom"] == flat["top"]).all() and (flat["bottom"] == flat["auc"]).all()


def test_constant_and_small_curves_are_flat():
    y = np.stack([np.full(8, 3.0), hill(DOSES, 0, 0.05, 0.3), hill(DOSES, 0, 1, 0.3)])
    assert fit_hill(DOSES, y, min_effect=0.2)["flat"].tolist() == [True, True, False]
    assert fit_hill(DOSES, y)["flat"].tolist() == [True, False, False]


def test_held_bottom_and_top():
    y = hill(DOSES, 0.0, 1.0, 0.2, 1.5)
    table = fit_hill(DOSES, np.stack([y, 2 * y]), bottom=0.0, top=[1.0, 2.0])
    np.testing.assert_allclose(table["ec50"], 0.2, rtol=1e-6)
    assert table["top"].tolist() == [1, 2] and (table["top_lower"] == table["top"]).all()


def test_an_ec50_beyond_the_doses_is_told():
    table = fit_hill(DOSES, hill(DOSES, 0, 1, 40.0, 1.0), top=1.0, bottom=0.0)
    assert table["extrapolated"].item() and table["ec50"].item() == pytest.approx(40, rel=1e-5)


def test_missing_responses_are_left_out_and_names_stay():
    truth, y = curves(2)
    y[0, 3] = np.nan
    table = fit_hill(DOSES, pd.DataFrame(y, index=["x", "y"]))
    np.testing.assert_allclose(table["ec50"], truth["ec50"], rtol=1e-6)
    assert list(table.index) == ["x", "y"]


def test_bootstrap_is_seeded_and_near_the_delta_method():
    y = hill(DOSES, 0, 2, 0.3, 1.2) + np.random.default_rng(4).normal(0, 0.05, 8)
    options = {"bottom": 0.0, "intervals": "bootstrap", "n_boot": 60}
    one, again, other = (fit_hill(DOSES, y, **options, seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(one, again)
    assert one["ec50_lower"].item() != other["ec50_lower"].item()
    delta = fit_hill(DOSES, y, bottom=0.0)
    width = lambda t: np.log(t["ec50_upper"] / t["ec50_lower"]).item()
    assert 0.4 < width(one) / width(delta) < 1.5


def test_without_degrees_of_freedom_there_is_no_interval():
    table = fit_hill(DOSES[[0, 2, 4, 6]], hill(DOSES[[0, 2, 4, 6]], 0, 1, 0.3), alpha=1.0)
    assert not table["flat"].item() and np.isnan(table["ec50_lower"].item())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hill([-1.0]), "dose has 1 negative doses, the lowest is -1.*10\\*\\*x"),
        (lambda: hill(["1 uM"]), "dose has values that are no numbers"),
        (lambda: hill([np.nan]), "dose has 1 missing or infinite doses"),
        (lambda: hill(1.0, ec50=0.0), "ec50 has a value of 0: expected numbers above 0"),
        (lambda: hill(1.0, slope=-1.0), "slope has a value of -1"),
        (lambda: hill_auc(0, 1, 1, 1, 0, 10), "low=0 and high=10: expected doses 0 < low < high"),
        (lambda: dose_auc([0, 1], [0, 1]), "1 distinct doses above 0: expected at least 2"),
        (lambda: fit_hill([0, 1, 10], [0, 1, 2]), "2 distinct doses above 0: expected at least 3"),
        (lambda: fit_hill([1, 2, 3], [0, 1, 2]), "1 curves have fewer responses than the 4 parameters"),
        (lambda: fit_hill(DOSES, np.ones(5)), r"doses has shape \(8,\) and responses has shape \(5,\)"),
        (lambda: fit_hill(DOSES, np.full(8, np.inf)), "responses has 8 infinite values"),
        (lambda: fit_hill(DOSES, np.ones(8), bottom=[0.0, 1.0]), "bottom=.*one per curve"),
        (lambda: fit_hill(DOSES, np.ones(8), alpha=0), "alpha=0: expected"),
        (lambda: fit_hill(DOSES, np.ones(8), min_effect=-1), "min_effect=-1: expected"),
        (lambda: fit_hill(DOSES, np.ones(8), level=1.5), "level has the levels '1.5'"),
        (
            lambda: fit_hill(DOSES, np.ones(8), intervals="delt"),
            "intervals='delt' is not among the methods. Did you mean",
        ),
        (lambda: fit_hill(DOSES, np.ones(8), n_boot=1), "n_boot=1"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
