"""The four parts of a model of unpaired conditions, put together from its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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

MODULE: dict[str, Any] = {
    "encoder": "mlp",
    "n_hidden": 256,
    "n_layers": 2,
    "regularizer": "visreg",
    "regularizer_weight": None,
    "target_encoder": "shared",
    "mask_rate": 0.15,
    "set_loss": "mmd",
    "predictor_hidden": 128,
    "predictor_layers": 2,
    "mean_weight": 0.2,
    "noise": 0.3,
    "inverse_dynamics": 1.0,
}
"""What a model's module is built from unless the model says otherwise."""


def condition_module(
    encoder: GeneExpressionEncoder,
    n_actions: int,
    new_action_encoder: Callable[[], ActionEncoder],
    of: Mapping[str, Any],
    *,
    joint: bool,
) -> JEPAModule:
    """Put a module together.

    Parameters
    ----------
    encoder
        Of cells.
    n_actions
        Number of items that actions are made of.
    new_action_encoder
        Makes an encoder of actions, one for each predictor.
    of
        :data:`MODULE`, ``n_latent``, ``n_pcs``, ``predictor_input`` and ``n_ensemble``.
    joint
        Whether predictors live in the embedding and are trained together with the encoder.
    """
    n_latent, n_pcs, reads = of["n_latent"], of["n_pcs"], of["predictor_input"]
    learning = ("regularizer", "regularizer_weight", "target_encoder", "mask_rate")
    views = view_parts(encoder, **{name: of[name] for name in learning})
    predictors = action_predictors(
        new_action_encoder,
        n_latent if joint else state_size(reads, n_pcs, n_latent),
        n_latent if joint else n_pcs,
        n_ensemble=of["n_ensemble"],
        n_hidden=of["predictor_hidden"],
        n_layers=of["predictor_layers"],
    )
    objectives, head = views["objectives"], None
    objectives[SETS] = SetMatching(of["set_loss"], mean_weight=of["mean_weight"], noise=of["noise"])
    if joint:
        head = InverseDynamicsHead(n_latent, n_actions)
        objectives[JOINT] = JointPrediction(
            objectives[VIEWS].regularizer,
            of["set_loss"],
            mean_weight=of["mean_weight"],
            inverse_dynamics=of["inverse_dynamics"],
        )
    space = ExpressionSpace(encoder.n_genes, n_pcs)
    return JEPAModule(encoder, space=space, predictors=predictors, inverse_dynamics=head, reads=reads, **views)
