"""Metrics: numpy arrays in, numbers out, one per condition. Each names its formula and source; undefined values are NaN."""

from scjepa.metrics._auroc import auroc
from scjepa.metrics._calibration import dynamic_range_fraction, systematic_variation
from scjepa.metrics._de import (
    de_count,
    de_direction_match,
    de_overlap,
    de_precision,
    de_recall,
    de_spearman_count,
    de_spearman_lfc,
)
from scjepa.metrics._de_areas import de_pr_auc, de_roc_auc
from scjepa.metrics._distributions import (
    energy_distance,
    mmd,
    pearson_edistance,
    sliced_wasserstein,
    variance_ratio,
)
from scjepa.metrics._effects import cosine, l2, log_fold_change, pearson_delta, shift_magnitude_ratio, spearman
from scjepa.metrics._embeddings import alpha_req, lidar, rankme
from scjepa.metrics._errors import de_weights, mae, mse, weighted_mse, weighted_r2
from scjepa.metrics._intervals import coverage_by_level, interval_coverage, interval_width
from scjepa.metrics._rank_sum import rank_sum_test
from scjepa.metrics._ranking import (
    centroid_accuracy,
    centroid_ami,
    discrimination_score,
    normalized_inverse_rank,
    perturbench_rank,
)
from scjepa.metrics._uncertainty import selective_risk_curve, uncertainty_spearman

__all__ = [
    "auroc",
    "alpha_req",
    "centroid_accuracy",
    "centroid_ami",
    "cosine",
    "coverage_by_level",
    "de_count",
    "de_direction_match",
    "de_overlap",
    "de_pr_auc",
    "de_precision",
    "de_recall",
    "de_roc_auc",
    "de_spearman_count",
    "de_spearman_lfc",
    "de_weights",
    "discrimination_score",
    "dynamic_range_fraction",
    "energy_distance",
    "interval_coverage",
    "interval_width",
    "l2",
    "lidar",
    "log_fold_change",
    "mae",
    "mmd",
    "mse",
    "normalized_inverse_rank",
    "pearson_delta",
    "pearson_edistance",
    "perturbench_rank",
    "rank_sum_test",
    "rankme",
    "selective_risk_curve",
    "shift_magnitude_ratio",
    "sliced_wasserstein",
    "spearman",
    "systematic_variation",
    "uncertainty_spearman",
    "variance_ratio",
    "weighted_mse",
    "weighted_r2",
]
