"""Profiles of tl.evaluate: every score of the full table equals the metric it names, computed by hand."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import ttest_ind

from scjepa import metrics as m
from scjepa.baselines import Additive
from scjepa.tl import embedding_metrics, evaluate, format_scores, summarize_scores
from scjepa.tl._modality import METRICS as MODALITY
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS, GOALS, METRICS, PROFILES, REGISTRY

KEY = {"perturbation_key": "p"}
LABELS = ["control", "A", "B", "C", "g5", "A+B", "A+C"]
HELD = ["g5", "A+B", "A+C"]


def draw(labels: np.ndarray, seed: int, names: str) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).gamma(1, 1, 60)
    own = {p: np.exp(np.random.default_rng(i).normal(0, 0.8, 60)) for i, p in enumerate(["A", "B", "C", "g5"], 1)}
    fold = np.stack([np.prod([own[q] for q in p.split("+") if q in own] or [np.ones(60)], axis=0) for p in labels])
    x = np.log1p(rng.poisson(base * fold)).astype(np.float32)
    obs = pd.DataFrame({"p": labels}, index=[f"{names}{i}" for i in range(len(labels))])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(60)]))


@pytest.fixture(scope="module")
def real() -> ad.AnnData:
    return draw(np.repeat(LABELS, 50), 1, "c")


@pytest.fixture(scope="module")
def pred() -> ad.AnnData:
    """Independent draws from the truth for two conditions, from a wrong one for A+C."""
    cells = draw(np.repeat(["g5", "A+B", "B"], 40), 2, "n")
    cells.obs["p"] = cells.obs["p"].replace({"B": "A+C"})
    return cells


@pytest.fixture(scope="module")
def full(pred, real) -> pd.DataFrame:
    return evaluate(pred, real, **KEY, profile="full", n_pcs=10)


@pytest.fixture(scope="module")
def means(pred, real) -> dict[str, np.ndarray]:
    mean = lambda a, p: np.asarray(a[a.obs["p"] == p].X.toarray().astype(np.float64).mean(0))
    control = mean(real, "control")
    found = {"pred": np.stack([mean(pred, p) for p in HELD]), "true": np.stack([mean(real, p) for p in HELD])}
    return found | {"control": control, "dp": found["pred"] - control, "dt": found["true"] - control}


def values(scores: pd.DataFrame, metric: str, method: str = "model") -> np.ndarray:
    rows = scores[(scores.method == method) & (scores.metric == metric)].set_index("perturbation")["value"]
    return rows.loc[HELD if REGISTRY[metric].source != "table" else [ALL_CONDITIONS]].to_numpy()


def test_the_table_has_every_metric_for_every_method(full):
    assert set(full["metric"]) == set(METRICS) == set(GOALS) - {"w1", "w2", *MODALITY}
    assert set(full["kind"]) == {"model", "baseline", "ceiling"}
    assert not full.duplicated(["method", "perturbation", "context", "metric"]).any()
    mine = full[full["method"] == "model"].set_index("metric")["value"]
    assert mine.drop(["perturbench_rank_cosine"]).notna().all()
    ceiling = full[full["kind"] == "ceiling"]
    assert set(ceiling["metric"]) == set(METRICS) and ceiling["value"].notna().all()


def test_scores_of_means(full, means):
    expected = {
        "mse": m.mse(means["pred"], means["true"]), "mae": m.mae(means["pred"], means["true"]),
        "mse_delta": m.mse(means["dp"], means["dt"]), "mae_delta": m.mae(means["dp"], means["dt"]),
        "l2": m.l2(means["pred"], means["true"]), "pearson_delta": m.pearson_delta(means["dp"], means["dt"]),
        "cosine_logfc": m.cosine(*(m.log_fold_change(means[s], np.tile(means["control"], (3, 1))) for s in ("pred", "true"))),
        "shift_ratio": m.shift_magnitude_ratio(means["dp"], means["dt"]),
    }  # fmt: skip
    for metric, value in expected.items():
        np.testing.assert_allclose(values(full, metric), value, rtol=1e-5, err_msg=metric)


def test_scores_of_ranks(full, means):
    exclude = np.zeros((3, 60), dtype=bool)
    exclude[0, 5] = True  # the perturbed gene g5 is measured; A, B and C are not
    for distance in ("l1", "l2", "cosine"):
        expected = m.discrimination_score(means["dp"], means["dt"], distance, exclude=exclude)
        np.testing.assert_allclose(values(full, f"discrimination_score_{distance}"), expected)
    np.testing.assert_allclose(values(full, "perturbench_rank"), m.perturbench_rank(means["pred"], means["true"]))
    np.testing.assert_allclose(values(full, "centroid_accuracy"), m.centroid_accuracy(means["pred"], means["true"]))
    np.testing.assert_allclose(values(full, "normalized_inverse_rank"), values(full, "centroid_accuracy"))
    assert values(full, "centroid_ami")[0] == pytest.approx(m.centroid_ami(means["dp"], means["dt"]))


def test_weights_are_the_response_against_all_other_perturbations(full, means, real):
    x, label = real.X.toarray().astype(np.float64), real.obs["p"].to_numpy()
    t = [ttest_ind(x[label == p], x[(label != p) & (label != "control")], equal_var=False).statistic for p in HELD]
    weights = m.de_weights(np.array(t))
    np.testing.assert_allclose(
        values(full, "weighted_mse"), m.weighted_mse(means["dp"], means["dt"], weights), rtol=1e-4
    )
    np.testing.assert_allclose(values(full, "weighted_r2"), m.weighted_r2(means["dp"], means["dt"], weights), rtol=1e-4)


def test_tests_of_genes_are_scanpys(full, pred, real):
    """Log fold changes and FDR of scanpy's Wilcoxon test give the same scores."""
    import scanpy as sc

    def tested(cells: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
        both = ad.concat([real[real.obs["p"] == "control"], cells[cells.obs["p"].isin(HELD)]])
        both.obs["p"] = both.obs["p"].astype("category")
        sc.tl.rank_genes_groups(both, "p", reference="control", method="wilcoxon", tie_correct=True)
        tables = [sc.get.rank_genes_groups_df(both, p).set_index("names").loc[real.var_names] for p in HELD]
        return tuple(np.stack([t[c] for t in tables]) for c in ("logfoldchanges", "pvals_adj"))

    (pl, pf), (tl, tf) = tested(pred), tested(real)
    expected = {
        "de_overlap_at_N": m.de_overlap(pl, pf, tl, tf), "de_precision_at_N": m.de_precision(pl, pf, tl, tf),
        "de_overlap_at_50": m.de_overlap(pl, pf, tl, tf, 50), "de_recall": m.de_recall(pf, tf),
        "de_direction_match": m.de_direction_match(pl, tl, tf), "de_pr_auc": m.de_pr_auc(pf, tf),
        "de_roc_auc": m.de_roc_auc(pf, tf), "de_count_ratio": m.de_count(pf) / m.de_count(tf),
        "de_spearman_lfc": m.de_spearman_lfc(pl, tl, tf), "de_spearman_count": np.array([m.de_spearman_count(pf, tf)]),
    }  # fmt: skip
    for metric, value in expected.items():
        np.testing.assert_allclose(values(full, metric), value, rtol=1e-3, err_msg=metric)


def test_right_predictions_beat_the_wrong_one_in_every_metric(full):
    for metric in METRICS:
        if REGISTRY[metric].source == "table":
            continue
        score = pd.Series(values(full, metric), HELD)
        if GOALS[metric] == "→1":
            continue
        right, wrong = score[["g5", "A+B"]].mean(), score["A+C"]
        assert right < wrong if GOALS[metric] == "↓" else right > wrong, metric


def test_zero_cells_of_baselines_do_not_make_every_gene_significant(full):
    counts = full[(full.method == "additive") & (full.metric == "de_count_ratio")]["value"]
    assert (counts < 1.5).all()


def test_order_of_cells_does_not_matter(pred, real, full):
    rng = np.random.default_rng(0)
    mixed = [a[rng.permutation(a.n_obs)].copy() for a in (pred, real)]
    again = evaluate(*mixed, **KEY, profile="full", n_pcs=10)
    exact = [name for name in METRICS if REGISTRY[name].source in ("means", "ranks")]
    a, b = (s[s["metric"].isin(exact)].reset_index(drop=True) for s in (full, again))
    pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-6)


def test_profiles_choose_metrics(pred, real):
    quick = {"baselines": [Additive()], "ceiling": False, "n_pcs": 5}
    for profile, names in PROFILES.items():
        assert set(evaluate(pred, real, **KEY, profile=profile, **quick)["metric"]) == set(names)
    assert set(evaluate(pred, real, **KEY, profile="vcc", metrics="mae", **quick)["metric"]) == {"mae"}
    with pytest.raises(ValueError, match="profile='ful'"):
        evaluate(pred, real, **KEY, profile="ful")


def test_embedding_profile(pred, real):
    rng = np.random.default_rng(0)
    for cells in (pred, real):
        cells.obsm["X_jepa"] = rng.normal(size=(cells.n_obs, 4))
    got = evaluate(pred, real, **KEY, profile="embedding")
    pd.testing.assert_frame_equal(got, embedding_metrics(pred, real, **KEY))
    assert set(got["method"]) == {"model", "no change", "shuffled conditions"}


def test_wide_tables_are_printed_with_methods_as_columns(full):
    means = summarize_scores(full)
    assert means.loc["model", "n_conditions"] == 2  # those that the additive baseline has too
    assert "pearson_edistance" in means
    assert means.loc["model", "centroid_ami"] == values(full, "centroid_ami")[0]
    lines = format_scores(full, verdicts=False).splitlines()
    assert lines[0].split()[:2] == ["metric", "model"] and lines[2].startswith("l2 ↓")
    assert len(lines) == len(means.columns) + 4  # header, rule, and two notes
    assert lines[-1].startswith("Better than the replicate ceiling in some row: ")


@pytest.mark.parametrize("metric", ["centroid_ami", "de_spearman_count", "pearson_edistance", "centroid_accuracy"])
def test_a_metric_alone_is_that_of_the_full_table(metric, pred, real, full):
    alone = evaluate(pred, real, **KEY, metrics=metric, n_pcs=10)
    for method in ("model", "replicate ceiling"):
        np.testing.assert_allclose(values(alone, metric, method), values(full, metric, method), rtol=1e-6)
