"""Every key that scjepa writes into an AnnData or MuData is named here, and nowhere else."""

from __future__ import annotations

from typing import NamedTuple


class _Obs(NamedTuple):
    source: str = "source"
    path: str = "path"
    """``obs`` of predictions: name of the control cell that a predicted cell started from."""
    kind: str = "jepa_prediction"
    """``obs`` of predictions: ``"predicted"`` or ``"control"``."""
    split: str = "split"
    """``obs``: ``"train"``, ``"validation"`` or ``"test"``, written by :func:`scjepa.tl.split`."""
    n_profiles: str = "n_profiles"
    """``obs``: signatures behind a row of :func:`scjepa.data.signatures_to_conditions`, 0 of untreated ones."""


class _Obsm(NamedTuple):
    latent: str = "X_jepa"
    """``obsm``: embedding of a cell (or of a predicted cell)."""


class _Uns(NamedTuple):
    root: str = "jepa"
    """``uns``: the one dictionary under which everything below is written."""
    prediction: str = "prediction"
    """what a prediction was made with: keys, training and held-out conditions, scale."""
    scores: str = "scores"
    """table written by :func:`scjepa.tl.evaluate`."""
    leaks: str = "leak_checks"
    """what :func:`scjepa.tl.evaluate` found of predictions that saw what they are scored on."""
    deg_recovery: str = "deg_recovery"
    """table written by :func:`scjepa.tl.deg_recovery`."""
    linear_probe: str = "linear_probe"
    """table written by :func:`scjepa.tl.linear_probe`."""
    embedding_metrics: str = "embedding_metrics"
    """table written by :func:`scjepa.tl.embedding_metrics`."""
    pathways: str = "pathway_consistency"
    """table written by :func:`scjepa.tl.pathway_consistency`."""
    pathway_terms: str = "pathway_terms"
    """scores of single pathways, written by :func:`scjepa.tl.pathway_consistency`."""
    intervals: str = "intervals"
    """table written by :func:`scjepa.tl.evaluate_intervals`."""
    selective_risk: str = "selective_risk"
    """curves written by :func:`scjepa.tl.evaluate_intervals`."""
    trajectory_scores: str = "trajectory_scores"
    """table written by :func:`scjepa.tl.evaluate_trajectory`."""
    modality_scores: str = "modality_scores"
    """table written by :func:`scjepa.tl.evaluate_modality`."""
    fate_scores: str = "fate_scores"
    """table written by :func:`scjepa.tl.evaluate_fates`."""
    split: str = "split"
    """how the columns of :func:`scjepa.tl.split` were made, one entry per column."""
    simulation: str = "simulation"
    """true parameters written by the simulators of :mod:`scjepa.datasets`."""


class _Registry(NamedTuple):
    perturbation: str = "perturbation"
    context: str = "context"
    dose: str = "dose"
    kind: str = "kind"
    time: str = "time"
    library: str = "library"


class Keys:
    """Names of everything written to ``obs``, ``obsm``, ``uns`` and to the scvi-tools registry.

    Examples
    --------
    >>> from scjepa._keys import Keys
    >>> Keys.obsm.latent
    'X_jepa'
    """

    obs = _Obs()
    obsm = _Obsm()
    uns = _Uns()
    registry = _Registry()
