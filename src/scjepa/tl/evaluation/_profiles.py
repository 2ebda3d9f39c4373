"""Which scores exist, what a good value of each is, what they are made of, and which belong to a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from scjepa._checks import require_member

Profile = Literal["minimal", "full", "vcc", "embedding"]
Source = Literal["means", "ranks", "cells", "genes", "table"]

TOP = (50, 100, 200, 500)
"""Lengths of lists of differentially expressed genes, as in cell-eval."""


class Metric(NamedTuple):
    """What is known about a score before it is computed."""

    goal: Literal["↑", "↓", "→1"]
    source: Source
    """Mean profiles of one condition; ranks among the mean profiles of all; cells in principal components; tests of
    genes; all conditions at once."""


REGISTRY: dict[str, Metric] = {
    "l2": Metric("↓", "means"),
    "pearson_delta": Metric("↑", "means"),
    "pearson_delta_systema": Metric("↑", "means"),
    "e_distance": Metric("↓", "cells"),
    "discrimination_score_l1": Metric("↑", "ranks"),
    "variance_ratio": Metric("→1", "cells"),
    "shift_ratio": Metric("→1", "means"),
    "mse": Metric("↓", "means"),
    "mae": Metric("↓", "means"),
    "mse_delta": Metric("↓", "means"),
    "mae_delta": Metric("↓", "means"),
    "weighted_mse": Metric("↓", "means"),
    "weighted_r2": Metric("↑", "means"),
    "cosine_logfc": Metric("↑", "means"),
    "discrimination_score_l2": Metric("↑", "ranks"),
    "discrimination_score_cosine": Metric("↑", "ranks"),
    "perturbench_rank": Metric("↓", "ranks"),
    "perturbench_rank_cosine": Metric("↓", "ranks"),
    "centroid_accuracy": Metric("↑", "ranks"),
    "normalized_inverse_rank": Metric("↑", "ranks"),
    "mmd": Metric("↓", "cells"),
    "sliced_wasserstein": Metric("↓", "cells"),
    "de_overlap_at_N": Metric("↑", "genes"),
    **{f"de_overlap_at_{k}": Metric("↑", "genes") for k in TOP},
    "de_precision_at_N": Metric("↑", "genes"),
    **{f"de_precision_at_{k}": Metric("↑", "genes") for k in TOP},
    "de_recall": Metric("↑", "genes"),
    "de_direction_match": Metric("↑", "genes"),
    "de_spearman_lfc": Metric("↑", "genes"),
    "de_pr_auc": Metric("↑", "genes"),
    "de_roc_auc": Metric("↑", "genes"),
    "de_count_ratio": Metric("→1", "genes"),
    "de_spearman_count": Metric("↑", "table"),
    "centroid_ami": Metric("↑", "table"),
    "pearson_edistance": Metric("↑", "table"),
}
"""Every score of :func:`scjepa.tl.evaluate`, in the order of tables."""

METRICS = tuple(REGISTRY)
GOALS = {name: metric.goal for name, metric in REGISTRY.items()} | {
    "w1": "↓", "w2": "↓", "rmse": "↓", "rmse_feature": "↓", "pearson_feature": "↑", "pearson_cell": "↑", "coverage": "",
}  # fmt: skip
"""What good values are, also of the scores of :func:`scjepa.tl.evaluate_trajectory` and :func:`scjepa.tl.evaluate_modality`."""

PROFILES: dict[str, tuple[str, ...]] = {
    "minimal": METRICS[: METRICS.index("mse")],
    "full": METRICS,
    "vcc": ("mae", "discrimination_score_l1", "de_overlap_at_N"),
}
"""``"minimal"`` takes seconds and no tests of genes; ``"vcc"`` holds the three scores of the Virtual Cell Challenge."""

CLAIMS = (
    "l2", "mae", "w1", "pearson_delta", "pearson_delta_systema", "e_distance", "discrimination_score_l1", "de_overlap_at_N",
    "rmse_feature", "pearson_feature",
)  # fmt: skip
"""Scores about which a verdict is given: one for each thing that a prediction can be good at."""

ERRORS = ("l2", "mse", "mae", "mse_delta", "mae_delta", "rmse_feature")
"""Scores that every prediction has, so that they say which is stronger where another score is undefined."""

CEILING = "replicate ceiling"
"""Name of its rows in score tables."""

ALL_CONDITIONS = "(all conditions)"
"""Stands for the perturbation where a score is one number for all of them."""


def choose_metrics(profile: str, metrics: Sequence[str] | str | None) -> list[str]:
    """Return the scores that are asked for, by name or by profile (none for embeddings); raise for unknown names."""
    require_member(profile, [*PROFILES, "embedding"], "profile", where="the profiles")
    if metrics is None:
        return list(PROFILES.get(profile, ()))
    chosen = [metrics] if isinstance(metrics, str) else list(metrics)
    for metric in chosen:
        require_member(metric, METRICS, "metrics", where="the metrics of scjepa.tl.evaluate")
    return chosen
