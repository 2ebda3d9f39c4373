"""Runs biolord on a task: python run_biolord.py TASK_FOLDER, in the environment of make_env.py.

Settings that its authors publish for log-normalised cells with categorical attributes (tutorials of biolord 0.0.3): a
decoder of 4 x 1,024, attribute networks of 2 x 512, 32 latent dimensions; at most 500 epochs, batches of 512, early
stopping with patience 20 at every tenth epoch. A tenth of the training cells validates.
"""

from __future__ import annotations

import tempfile
from typing import Any

from task import Clock, as_prediction, controls_of, main

MODULE = {
    "decoder_width": 1024,
    "decoder_depth": 4,
    "attribute_nn_width": 512,
    "attribute_nn_depth": 2,
    "n_latent_attribute_categorical": 4,
    "gene_likelihood": "normal",
    "reconstruction_penalty": 1e2,
    "unknown_attribute_penalty": 1e1,
    "unknown_attribute_noise_param": 1e-1,
    "attribute_dropout_rate": 0.1,
    "use_batch_norm": False,
    "use_layer_norm": False,
}
PLAN = {
    "n_epochs_warmup": 0,
    "latent_lr": 1e-4,
    "latent_wd": 1e-4,
    "decoder_lr": 1e-4,
    "decoder_wd": 1e-4,
    "attribute_nn_lr": 1e-2,
    "attribute_nn_wd": 4e-8,
    "step_size_lr": 45,
    "cosine_scheduler": True,
    "scheduler_final_lr": 1e-5,
}


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train, then swap the perturbation of the controls of a context for the one that is asked for."""
    import anndata
    import biolord
    import numpy as np
    import scvi

    scvi.settings.seed = task["seed"]
    epochs, key = task["max_epochs"], task["perturbation_key"]

    def train() -> Any:
        validates = np.random.default_rng(task["seed"]).random(cells.n_obs) < 0.1
        cells.obs["split"] = np.where(validates, "test", "train")
        biolord.Biolord.setup_anndata(cells, categorical_attributes_keys=[key, task["context_key"]])
        model = biolord.Biolord(
            cells,
            n_latent=32,
            model_name="task",
            split_key="split",
            train_split="train",
            valid_split="test",
            module_params=MODULE | {"seed": task["seed"]},
        )
        with tempfile.TemporaryDirectory() as folder:
            model.train(
                max_epochs=epochs or 500,
                batch_size=512,
                plan_kwargs=PLAN,
                early_stopping=epochs is None,
                early_stopping_patience=20,
                check_val_every_n_epoch=10,
                num_workers=0,
                enable_checkpointing=False,
                enable_progress_bar=False,
                default_root_dir=folder,
            )
        return model

    def predict() -> Any:
        parts = []
        for perturbation, context in task["predict"]:
            source = controls_of(cells, task, context)
            target = cells[(cells.obs[key] == perturbation).to_numpy()]
            # only the values of the attribute are read from the reference: a cell with each label is enough
            reference = anndata.concat([source[:1], target[:1]], merge="same")
            found = model.compute_prediction_adata(reference, source, target_attributes=[key])
            moved = found[(found.obs[key] == perturbation).to_numpy()]
            parts.append(as_prediction(moved.X, source, task, perturbation, context))
        return anndata.concat(parts)

    model = clock.run("train", train)
    predicted = clock.run("predict", predict)
    return predicted, int(model.trainer.current_epoch)


if __name__ == "__main__":
    main(__doc__, ["biolord"], run)
