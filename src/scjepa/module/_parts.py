"""The parts that most models use, made in one place: what learns from views, and an ensemble of predictors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from scjepa._checks import require_positive_int
from scjepa.module._predictor import ActionPredictor
from scjepa.module._regularizer import Regularizer
from scjepa.module._views import VIEWS, ViewAgreement
from scjepa.nn import ActionEncoder, ConditionalPredictor, EMATarget, GeneExpressionEncoder, JEPAPredictor


def view_parts(
    encoder: GeneExpressionEncoder,
    *,
    regularizer: str = "visreg",
    regularizer_weight: float | None = None,
    target_encoder: str = "shared",
    mask_rate: float = 0.15,
    reconstruction: float = 0.3,
) -> dict[str, Any]:
    """Make what an encoder learns with from two views of a cell.

    Parameters
    ----------
    encoder
        The encoder.
    regularizer, regularizer_weight
        See :class:`Regularizer`.
    target_encoder
        ``"shared"`` or ``"ema"`` (slow copy); the regularizer ``"ema"`` implies the latter.
    mask_rate, reconstruction
        See :class:`ViewAgreement`.

    Returns
    -------
    Keyword arguments of :class:`JEPAModule`: ``target_encoder``, ``view_predictor``, ``decoder`` and ``objectives``
    (a dict, to which others may be added).

    Raises
    ------
    ValueError
        For names that are not known.

    Examples
    --------
    >>> from scjepa.module import JEPAModule, view_parts
    >>> from scjepa.nn import GeneExpressionEncoder
    >>> encoder = GeneExpressionEncoder(40, n_latent=4)
    >>> list(JEPAModule(encoder, **view_parts(encoder)).objectives)
    ['views']
    """
    if target_encoder not in ("shared", "ema"):
        raise ValueError(f"target_encoder={target_encoder!r}: expected 'shared' or 'ema'.")
    term = Regularizer(regularizer, regularizer_weight)
    slow = target_encoder == "ema" or regularizer == "ema"
    return {
        "target_encoder": EMATarget(encoder) if slow else None,
        "view_predictor": JEPAPredictor(encoder.n_latent) if slow else None,
        "decoder": nn.Linear(encoder.n_latent, encoder.n_genes),
        "objectives": {VIEWS: ViewAgreement(term, mask_rate=mask_rate, reconstruction=reconstruction)},
    }


def state_size(reads: str, n_pcs: int, n_latent: int) -> int:
    """Return the size of what a predictor reads: ``"z"`` (coordinates), ``"h"`` (embedding) or ``"both"``.

    Examples
    --------
    >>> from scjepa.module import state_size
    >>> [state_size(reads, n_pcs=50, n_latent=32) for reads in ("z", "h", "both")]
    [50, 32, 82]
    """
    sizes = {"z": n_pcs, "h": n_latent, "both": n_pcs + n_latent}
    if reads not in sizes:
        raise ValueError(f"reads={reads!r}: expected 'z', 'h' or 'both'.")
    return sizes[reads]


def action_predictors(
    action_encoder: Callable[[], ActionEncoder],
    n_state: int,
    n_out: int,
    *,
    n_ensemble: int = 2,
    n_hidden: int = 128,
    n_layers: int = 2,
) -> list[ActionPredictor]:
    """Make an ensemble of predictors, each with an action encoder of its own.

    Parameters
    ----------
    action_encoder
        Makes one action encoder.
    n_state, n_out
        Sizes of the state that is read and of the shift.
    n_ensemble
        Number of predictors.
    n_hidden, n_layers
        Width and depth of each :class:`scjepa.nn.ConditionalPredictor`.

    Returns
    -------
    The predictors, for ``JEPAModule(predictors=)``.

    Examples
    --------
    >>> from scjepa.module import action_predictors
    >>> from scjepa.nn import ActionEncoder
    >>> len(action_predictors(lambda: ActionEncoder(3), n_state=5, n_out=5))
    2
    """
    out = []
    for _ in range(require_positive_int(n_ensemble, "n_ensemble")):
        encoder = action_encoder()
        predictor = ConditionalPredictor(n_state, n_out, n_cond=encoder.n_cond, n_hidden=n_hidden, n_layers=n_layers)
        out.append(ActionPredictor(encoder, predictor))
    return out
