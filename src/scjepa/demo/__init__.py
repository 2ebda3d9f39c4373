"""``python -m scjepa demo``: train on a perturbation screen, predict held-out conditions, show it beside the baselines."""

from scjepa.demo._cli import main
from scjepa.demo._holdout import default_holdout, resolve_holdout
from scjepa.demo._messages import UserError
from scjepa.demo._results import Results
from scjepa.demo._screen import Screen, read_screen, select_genes

__all__ = [
    "Results",
    "Screen",
    "UserError",
    "default_holdout",
    "main",
    "read_screen",
    "resolve_holdout",
    "select_genes",
]
