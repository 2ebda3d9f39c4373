"""The replicate ceiling: known values, what the corrections promise on simulated cells, where it is absent."""

from __future__ import annotations

import itertools
import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.special import gamma

from scjepa.metrics import energy_distance, l2
from scjepa.tl import evaluate, format_scores, summarize_scores
from scjepa.tl.evaluation._ceiling import REPEATS, corrected, split_in_halves
from scjepa.tl.evaluation._profiles import CEILING

# copies of measured cells are the simplest predictions with known scores; the warning has tests of its own
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*the answer was copied"),
    pytest.mark.filterwarnings("ignore:.*cell by cell"),
]
KEY = "perturbation"


def ceiling_of(scores: pd.DataFrame, metric: str) -> float:
    return scores[(scores.method == CEILING) & (scores.metric == metric)]["value"].mean()


def share_of(n: int) -> np.ndarray:
    return np.array([(n // 2) * (n - n // 2) / n**2])


def four_cells(effects: np.ndarray) -> ad.AnnData:
    """Controls at 3 in every gene, four perturbed cells, another perturbation to learn from."""
    rng = np.random.default_rng(0)
    control = np.full((6, effects.shape[1]), 3.0)
    other = control + rng.uniform(0, 1, effects.shape[1])
    obs = pd.DataFrame({"p": ["control"] * 6 + ["A"] * len(effects) + ["B"] * 6})
    obs.index = obs.index.astype(str)
    return ad.AnnData(np.vstack([control, 3.0 + effects, other]), obs=obs)


def test_known_values_of_four_cells():
    """Four cells have three splits into pairs; every score of the ceiling is an average over them."""
    effects = np.array([[0.0, 1.0, 0.5], [0.4, 0.6, 0.1], [0.2, 1.4, -0.5], [-0.4, 0.8, 0.3]])
    real = four_cells(effects)
    scores = evaluate(real[real.obs["p"] == "A"].copy(), real, perturbation_key="p", baselines=None)
    first = split_in_halves(real.obs_names.to_numpy().astype(str)[6:10], seed=0)
    pairs = [(effects[m].mean(0), effects[~m].mean(0)) for m in first]
    assert len({tuple(sorted([tuple(np.flatnonzero(m)), tuple(np.flatnonzero(~m))])) for m in first}) == 3
    distance = np.mean([np.linalg.norm(a - b) for a, b in pairs])
    assert ceiling_of(scores, "l2") == pytest.approx(distance / 2)
    r = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    assert r > 0
    assert ceiling_of(scores, "pearson_delta") == pytest.approx(2 * r / (1 + r))
    reference = real.X[-1] - 3.0
    r = np.mean([np.corrcoef(a - reference, b - reference)[0, 1] for a, b in pairs])
    expected = 2 * r / (1 + r) if r > 0 else r
    assert ceiling_of(scores, "pearson_delta_systema") == pytest.approx(expected)
    ratio = np.mean([np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    assert ceiling_of(scores, "shift_ratio") == pytest.approx(ratio)


def test_l2_is_what_a_perfect_prediction_scores():
    """Known mean, many experiments: the ceiling estimates the distance of the measured mean from the truth."""
    rng = np.random.default_rng(1)
    for n in (20, 21, 41):
        truth, ceiling = [], []
        for _ in range(60):
            cells = rng.normal(size=(n, 50))
            halves = split_in_halves(np.arange(n).astype(str), seed=0)
            distance = np.mean([l2(cells[m].mean(0), cells[~m].mean(0)) for m in halves])
            truth.append(np.linalg.norm(cells.mean(0)))
            ceiling.append(corrected("l2", np.array([distance]), share_of(n)))
        assert np.mean(ceiling) == pytest.approx(np.mean(truth), rel=0.03)


@pytest.fixture
def noisy_screen():
    """Return the simulator of screens with one effect of known size in noise, and the mean of its condition."""

    def make(seed: int, n: int = 40, genes: int = 60) -> tuple[ad.AnnData, np.ndarray]:
        effect = 0.3 * np.random.default_rng(99).normal(size=genes)  # the same in every experiment
        rng = np.random.default_rng(seed)
        labels = ["control"] * 200 + ["A"] * n + ["B"] * 40
        x = 6.0 + rng.normal(size=(len(labels), genes))
        x[200 : 200 + n] += effect
        obs = pd.DataFrame({"p": labels}, index=[f"c{i}" for i in range(len(labels))])
        return ad.AnnData(x, obs=obs), 6.0 + effect

    return make


def test_correlation_is_that_of_a_second_experiment(noisy_screen):
    """The corrected correlation of halves is that of two full experiments with the same controls."""
    ceiling, second = [], []
    for seed in range(12):
        real, mean = noisy_screen(seed)
        again = mean + np.random.default_rng(1000 + seed).normal(size=(40, len(mean)))
        pred = ad.AnnData(again, obs=pd.DataFrame({"p": ["A"] * 40}, index=[f"n{i}" for i in range(40)]))
        pred.var_names = real.var_names
        scores = evaluate(pred, real, perturbation_key="p", baselines=None, metrics=["pearson_delta"])
        ceiling.append(ceiling_of(scores, "pearson_delta"))
        second.append(scores.query("method == 'model'")["value"].item())
    assert np.mean(ceiling) == pytest.approx(np.mean(second), abs=0.03)
    assert 0.6 < np.mean(second) < 0.9  # the noise matters


def test_l2_of_the_table_is_the_noise_of_the_mean(noisy_screen):
    got = []
    for seed in range(10):
        real, _ = noisy_screen(seed)
        pred = real[real.obs["p"] == "A"].copy()
        scores = evaluate(pred, real, perturbation_key="p", baselines=None, metrics=["l2"])
        got.append(ceiling_of(scores, "l2"))
    assert np.mean(got) == pytest.approx(np.sqrt(60 / 40), rel=0.05)  # 60 genes of variance one, 40 cells


@pytest.mark.parametrize("n", [20, 21])
def test_energy_distance_is_that_of_a_perfect_prediction(n):
    """Of n cells predicted from the true distribution the score has the mean 2 / n E|x - x'|."""
    rng = np.random.default_rng(2)
    names = np.arange(n).astype(str)
    got = []
    for _ in range(60):
        cells = rng.normal(size=(n, 5))
        score = np.mean([energy_distance(cells[m], cells[~m]) for m in split_in_halves(names, seed=0)])
        got.append(corrected("e_distance", np.array([score]), share_of(n)))
    distance = 2 * gamma(3) / gamma(2.5)  # mean distance of two standard normal points in five dimensions
    assert np.mean(got) == pytest.approx(2 / n * distance, rel=0.05)


def test_expectation_of_the_energy_distance_of_one_distribution():
    """The factor 2 n1 n2 / n^2: the V-statistic of two sets of one distribution has mean (1/n + 1/m) E|x - x'|."""
    rng = np.random.default_rng(0)
    for n, m in itertools.product((4, 9), (6, 20)):
        values = [energy_distance(rng.normal(size=(n, 1)), rng.normal(size=(m, 1))) for _ in range(1500)]
        assert np.mean(values) == pytest.approx((1 / n + 1 / m) * 2 / np.sqrt(np.pi), rel=0.08)


def test_ratios_are_about_one(screen, prediction):
    scores = evaluate(prediction, screen, perturbation_key=KEY)
    assert ceiling_of(scores, "variance_ratio") == pytest.approx(1, abs=0.1)
    assert ceiling_of(scores, "shift_ratio") == pytest.approx(1, abs=0.05)
    assert ceiling_of(scores, "pearson_delta") > 0.99


def test_rows_of_the_table(screen, prediction):
    scores = evaluate(prediction, screen, perturbation_key=KEY)
    rows = scores[scores.kind == "ceiling"]
    assert set(rows["method"]) == {"replicate ceiling"}
    assert set(rows["perturbation"]) == {"A+B", "A+C"} and set(rows["metric"]) == set(scores["metric"])
    assert rows["value"].notna().all()
    assert "ceiling" not in set(evaluate(prediction, screen, perturbation_key=KEY, ceiling=False)["kind"])


def test_seeded_and_independent_of_the_prediction(screen, prediction):
    first = evaluate(prediction, screen, perturbation_key=KEY, seed=3).query("kind == 'ceiling'")
    worse = prediction.copy()
    worse.X = worse.X + 1.0
    second = evaluate(worse, screen, perturbation_key=KEY, seed=3, baselines=None).query("kind == 'ceiling'")
    pd.testing.assert_frame_equal(first.reset_index(drop=True), second.reset_index(drop=True))
    other = evaluate(prediction, screen, perturbation_key=KEY, seed=4).query("kind == 'ceiling'")
    assert not np.allclose(first["value"], other["value"])


def test_only_one_condition_asked_gives_the_same_ceiling(screen, prediction):
    both = evaluate(prediction, screen, perturbation_key=KEY, metrics=["l2", "e_distance"], train=screen[
        screen.obs[KEY].isin(["control", "A", "B"])].copy())  # fmt: skip
    one = evaluate(prediction[prediction.obs[KEY] == "A+C"].copy(), screen, perturbation_key=KEY,
                   metrics=["l2", "e_distance"], train=screen[screen.obs[KEY].isin(["control", "A", "B"])].copy())  # fmt: skip
    rows = [s[(s.kind == "ceiling") & (s.perturbation == "A+C")]["value"].to_numpy() for s in (both, one)]
    np.testing.assert_allclose(*rows)


def test_too_few_cells_have_no_ceiling(screen, prediction, caplog):
    keep = screen.obs.groupby(KEY).cumcount().to_numpy()
    few = screen[(screen.obs[KEY] != "A+B") | (keep < 3)].copy()
    with caplog.at_level(logging.INFO, logger="scjepa"):
        scores = evaluate(prediction, few, perturbation_key=KEY)
    assert set(scores.loc[scores.kind == "ceiling", "perturbation"]) == {"A+C"}
    assert "No replicate ceiling for 1 of 2 conditions: fewer than 4 real cells." in caplog.text
    table = summarize_scores(scores)
    assert table["n_conditions"].drop(CEILING).eq(2).all() and table.loc[CEILING, "n_conditions"] == 1
    assert format_scores(scores, verdicts=False).endswith(
        "Over fewer conditions, not comparable: replicate ceiling (1)."
    )


def test_one_profile_per_condition_has_no_ceiling(screen, prediction):
    means = screen.to_df().groupby(screen.obs[KEY].astype(str)).mean()
    bulk = ad.AnnData(means.to_numpy(), obs=pd.DataFrame({KEY: means.index}, index=means.index))
    bulk.var_names = screen.var_names
    pred = bulk[bulk.obs[KEY] == "A+B"].copy()
    assert "ceiling" not in set(evaluate(pred, bulk, perturbation_key=KEY)["kind"])


def test_method_can_not_have_its_name(screen, prediction):
    with pytest.raises(ValueError, match="method='replicate ceiling' is the name of a baseline or ceiling"):
        evaluate(prediction, screen, perturbation_key=KEY, method="replicate ceiling")


def test_splits_are_halves_that_follow_the_names():
    names = np.array(list("abcdefg"))
    first = split_in_halves(names, seed=0)
    assert first.shape == (REPEATS, 7) and (first.sum(1) == 3).all()
    order = np.random.default_rng(0).permutation(7)
    np.testing.assert_array_equal(split_in_halves(names[order], seed=0), first[:, order])
    assert len({tuple(row) for row in first}) > 5


def test_corrections_by_hand():
    half = np.array([0.25])
    for metric, halves, expected in (
        ("pearson_delta", 0.8, 1.6 / 1.8), ("cosine_logfc", -0.3, -0.3), ("pearson_delta_systema", 0.0, 0.0),
        ("mae", 1.0, 0.5), ("mse_delta", 1.0, 0.25), ("weighted_r2", 0.6, 0.9), ("mmd", 1.0, 0.5),
        ("de_overlap_at_N", 0.7, 0.7), ("shift_ratio", 1.1, 1.1),
    ):  # fmt: skip
        assert corrected(metric, np.array([halves]), half)[0] == pytest.approx(expected), metric
    assert np.isnan(corrected("pearson_delta", np.array([np.nan]), half)[0])
