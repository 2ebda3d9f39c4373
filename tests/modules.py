"""Small modules for tests: parts as the models put them together, with every option by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from scjepa.module import (
    JOINT,
    SETS,
    VIEWS,
    ExpressionSpace,
    JEPAModule,
    JointPrediction,
    SetMatching,
    action_predictors,
    state_size,
    view_parts,
)
from scjepa.nn import ActionEncoder, GeneExpressionEncoder, InverseDynamicsHead


def jepa(
    n_genes: int,
    *,
    actions: int | Callable[[], ActionEncoder] | None = None,
    joint: bool = False,
    n_latent: int = 4,
    n_pcs: int = 5,
    reads: str = "z",
    seed: int = 0,
    **options: Any,
) -> JEPAModule:
    """Module of small parts; ``actions`` is their number or makes an action encoder, ``options`` go where they belong."""
    torch.manual_seed(seed)
    options = {"n_hidden": 8, "n_layers": 1, "n_modules": 2, "predictor_hidden": 8} | options
    sizes = {"n_hidden": options.pop("predictor_hidden"), "n_ensemble": options.pop("n_ensemble", 2)}
    encoder = GeneExpressionEncoder(n_genes, n_latent, **taken(GeneExpressionEncoder, options))
    parts = view_parts(encoder, **taken(view_parts, options))
    parts["space"] = ExpressionSpace(n_genes, n_pcs)
    if actions is not None:
        make = actions if callable(actions) else lambda: ActionEncoder(actions)
        n_state, n_out = (n_latent, n_latent) if joint else (state_size(reads, n_pcs, n_latent), n_pcs)
        parts["predictors"] = action_predictors(make, n_state, n_out, **sizes)
        both = {name: options[name] for name in ("set_loss", "mean_weight") if name in options}
        parts["objectives"][SETS] = SetMatching(**taken(SetMatching, options))
        if joint:
            parts["inverse_dynamics"] = InverseDynamicsHead(n_latent, parts["predictors"][0].action_encoder.n_actions)
            parts["objectives"][JOINT] = JointPrediction(parts["objectives"][VIEWS].regularizer, **both)
    assert not options, options
    return JEPAModule(encoder, reads=reads, **parts)


def taken(made: Callable, options: dict[str, Any]) -> dict[str, Any]:
    """Take from ``options`` what ``made`` has arguments for."""
    return {name: options.pop(name) for name in list(inspect.signature(made).parameters) if name in options}
