"""Evaluation of predictions by any tool: AnnData in, tidy DataFrames out (also written to ``uns``)."""

from scjepa.tl._cell_eval import to_cell_eval
from scjepa.tl._deg_recovery import deg_recovery
from scjepa.tl._embedding_metrics import embedding_metrics
from scjepa.tl._evaluate import evaluate
from scjepa.tl._fates import evaluate_fates, format_fates
from scjepa.tl._format import format_scores
from scjepa.tl._intervals import evaluate_intervals
from scjepa.tl._linear_probe import linear_probe
from scjepa.tl._modality import evaluate_modality
from scjepa.tl._pathways import pathway_consistency
from scjepa.tl._split import split
from scjepa.tl._summary import summarize_scores
from scjepa.tl._trajectory import evaluate_trajectory
from scjepa.tl._verdict import verdict

__all__ = [
    "deg_recovery",
    "embedding_metrics",
    "evaluate",
    "evaluate_fates",
    "evaluate_intervals",
    "evaluate_modality",
    "evaluate_trajectory",
    "format_fates",
    "format_scores",
    "linear_probe",
    "pathway_consistency",
    "split",
    "summarize_scores",
    "to_cell_eval",
    "verdict",
]
