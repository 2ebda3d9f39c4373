"""Agreement with cell-eval 0.8.2 and pertpy 1.0.3 where they define the same thing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.metrics.cell_eval_example import CONDITIONS, GENES, cells, de_tables, run_cell_eval

from scjepa import metrics

NAN = float("nan")

# printed by `python tests/metrics/cell_eval_example.py` with cell-eval 0.8.2 (pdex 0.3.0, polars 2.1.0)
CELL_EVAL = {
    "overlap_at_N": [0.5, 0.333333333, 0.416666667, 0.0, 0.0, 0.4375],
    "overlap_at_5": [0.4, 0.0, 0.6, 0.0, 0.0, 0.2],
    "precision_at_N": [0.5, 0.230769231, 0.363636364, 0.0, 0.0, 0.4],
    "precision_at_5": [0.4, 0.0, 0.6, 0.0, 0.0, 0.2],
    "de_spearman_sig": -0.447213595,
    "de_direction_match": [0.75, 0.692307692, 0.75, NAN, 0.875, 0.75],
    "de_spearman_lfc_sig": [0.714705882, 0.280607797, 0.902097902, NAN, 0.861764706, 0.797058824],
    "de_sig_genes_recall": [0.5, 0.333333333, 0.666666667, NAN, 0.0, 0.4375],
    "de_nsig_counts_real": [16.0, 15.0, 12.0, 0.0, 16.0, 16.0],
    "de_nsig_counts_pred": [16.0, 13.0, 22.0, 17.0, 0.0, 15.0],
    "pr_auc": [0.590679132, 0.480093079, 0.430828782, NAN, 0.712628693, 0.516528533],
    "roc_auc": [0.684895833, 0.576, 0.551282051, NAN, 0.768229167, 0.596354167],
    "pearson_delta": [0.205942122, 0.312403779, -0.004330567, 0.584935448, 0.581080421, 0.787472898],
    "mse": [0.058912095, 0.04964589, 0.083495699, 0.065196098, 0.114888695, 0.049830817],
    "mae": [0.191822888, 0.183298578, 0.19150556, 0.19110903, 0.245554301, 0.174017871],
    "mse_delta": [0.09409044, 0.100640407, 0.154409537, 0.099261268, 0.150384734, 0.058706815],
    "mae_delta": [0.251544636, 0.245339405, 0.287647723, 0.239772083, 0.274265884, 0.189378929],
    "discrimination_score_l1": [0.833333333, 0.833333333, 0.833333333, 1.0, 0.666666667, 1.0],
    "discrimination_score_l2": [0.833333333, 0.833333333, 0.666666667, 1.0, 0.666666667, 1.0],
    "discrimination_score_cosine": [0.666666667, 0.666666667, 0.666666667, 1.0, 1.0, 1.0],
    "pearson_edistance": 0.273735486,
}

# pertpy 1.0.3 (statsmodels 0.14): pertpy.tools.Distance(name)(predicted, true) of the cells of each condition;
# "mmd" through its metric_fct with kernel="rbf", gamma=0.05
PERTPY = {
    "edistance": [0.883018323, 0.774743803, 1.160414969, 0.967932127, 1.453600691, 0.826578842],
    "mse": [0.058912095, 0.04964589, 0.083495699, 0.065196098, 0.114888695, 0.049830817],
    "mean_absolute_error": [0.191822888, 0.183298578, 0.19150556, 0.19110903, 0.245554301, 0.174017871],
    "mmd": [0.141947937, 0.121509776, 0.193492273, 0.158496082, 0.244350683, 0.131526379],
}


@pytest.fixture(scope="module")
def ours():
    """Every score under the name that cell-eval has for it."""
    real, pred = cells()["real"], cells()["pred"]
    means = {side: np.array([x[c].mean(0) for c in CONDITIONS]) for side, x in (("real", real), ("pred", pred))}
    effects = {side: means[side] - x["control"].mean(0) for side, x in (("real", real), ("pred", pred))}
    target = np.array([[gene == condition for gene in GENES] for condition in CONDITIONS])
    tables = de_tables()
    (p_lfc, p_fdr), (t_lfc, t_fdr) = ((tables[s]["lfc"], tables[s]["fdr"]) for s in ("pred", "real"))
    out = {
        "de_spearman_sig": metrics.de_spearman_count(p_fdr, t_fdr),
        "de_direction_match": metrics.de_direction_match(p_lfc, t_lfc, t_fdr),
        "de_spearman_lfc_sig": metrics.de_spearman_lfc(p_lfc, t_lfc, t_fdr),
        "de_sig_genes_recall": metrics.de_recall(p_fdr, t_fdr),
        "de_nsig_counts_real": metrics.de_count(t_fdr),
        "de_nsig_counts_pred": metrics.de_count(p_fdr),
        "pr_auc": metrics.de_pr_auc(p_fdr, t_fdr),
        "roc_auc": metrics.de_roc_auc(p_fdr, t_fdr),
        "pearson_delta": metrics.pearson_delta(effects["pred"], effects["real"]),
        "mse": metrics.mse(means["pred"], means["real"]),
        "mae": metrics.mae(means["pred"], means["real"]),
        "mse_delta": metrics.mse(effects["pred"], effects["real"]),
        "mae_delta": metrics.mae(effects["pred"], effects["real"]),
        "pearson_edistance": metrics.pearson_edistance(
            [pred[c] for c in CONDITIONS], [real[c] for c in CONDITIONS], pred["control"], real["control"]
        ),
    }
    for k in (None, 5):
        out[f"overlap_at_{k or 'N'}"] = metrics.de_overlap(p_lfc, p_fdr, t_lfc, t_fdr, k)
        out[f"precision_at_{k or 'N'}"] = metrics.de_precision(p_lfc, p_fdr, t_lfc, t_fdr, k)
    for name in ("l1", "l2", "cosine"):
        out[f"discrimination_score_{name}"] = metrics.discrimination_score(
            effects["pred"], effects["real"], name, exclude=target
        )
    return out


def test_every_score_is_compared(ours):
    assert set(ours) == set(CELL_EVAL)


@pytest.mark.parametrize("name", CELL_EVAL)
def test_agreement_with_what_cell_eval_said(ours, name):
    assert ours[name] == pytest.approx(CELL_EVAL[name], abs=1e-6, nan_ok=True)


def test_agreement_with_cell_eval_itself(ours):
    pytest.importorskip("cell_eval", reason="cell-eval is not installed (pip install cell-eval==0.8.2)")
    theirs = run_cell_eval()
    for name, value in ours.items():
        expected = theirs[name.replace("_at_5", "_at_50")]  # the example asks for k=5 under this name
        expected = [NAN if v is None else v for v in expected] if isinstance(expected, list) else expected
        assert value == pytest.approx(expected, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("edistance", metrics.energy_distance),
        ("mmd", lambda p, t: metrics.mmd(p, t, gammas=[0.05])),
        ("mse", lambda p, t: metrics.mse(p.mean(0), t.mean(0))),
        ("mean_absolute_error", lambda p, t: metrics.mae(p.mean(0), t.mean(0))),
    ],
)
def test_agreement_with_what_pertpy_said(name, score):
    example = cells()
    found = [score(example["pred"][c], example["real"][c]) for c in CONDITIONS]
    assert found == pytest.approx(PERTPY[name], abs=1e-6)
