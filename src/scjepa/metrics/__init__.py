"""Metrics: numpy arrays in, one number out. Each names its formula and source; undefined values are NaN."""

from scjepa.metrics._distributions import energy_distance, variance_ratio
from scjepa.metrics._effects import l2, pearson_delta, shift_magnitude_ratio
from scjepa.metrics._embeddings import alpha_req, lidar, rankme
from scjepa.metrics._intervals import coverage_by_level, interval_coverage, interval_width

__all__ = [
    "alpha_req",
    "coverage_by_level",
    "energy_distance",
    "interval_coverage",
    "interval_width",
    "l2",
    "lidar",
    "pearson_delta",
    "rankme",
    "shift_magnitude_ratio",
    "variance_ratio",
]
