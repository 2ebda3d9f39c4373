"""Evaluation of predictions by any tool: AnnData in, tidy DataFrames out (also written to ``uns``)."""

from scjepa.tl._evaluate import evaluate
from scjepa.tl._split import split
from scjepa.tl._summary import format_scores, summarize_scores

__all__ = ["evaluate", "format_scores", "split", "summarize_scores"]
