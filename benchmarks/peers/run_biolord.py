"""Runs biolord on a task: python run_biolord.py TASK_FOLDER, in the environment of make_env.py.

Perturbations seen elsewhere: settings that its authors publish for log-normalised cells with categorical attributes
(tutorials of biolord 0.0.3): a decoder of 4 x 1,024, attribute networks of 2 x 512, 32 latent dimensions; at most 500
epochs, batches of 512, early stopping with patience 20 at every tenth epoch.

Combinations never seen: the perturbation is an ordered attribute, 1 for each perturbed gene and 0 for the others, with
the settings that its authors publish for the Norman screen (a decoder of 2 x 32, attribute network of 2 x 64, 200 epochs,
batches of 32, no early stopping in effect). They train on one profile per condition, without unknown attributes; so does
this runner where it gets profiles. Where it gets cells, unknown attributes are kept, for else all cells of a prediction
would be equal.

A tenth of the training cells validates (of profiles: only combinations).
"""

from __future__ import annotations

import tempfile
from typing import Any

from task import Clock, as_prediction, asks_for_unseen, controls_of, main, multi_hot, validation_rows

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

COMBINATIONS_MODULE = MODULE | {
    "decoder_width": 32,
    "decoder_depth": 2,
    "attribute_nn_width": 64,
    "n_latent_attribute_ordered": 32,
    "n_latent_attribute_categorical": 16,
    "reconstruction_penalty": 1e4,
    "unknown_attribute_noise_param": 0.2,
    "attribute_dropout_rate": 0.0,
}
COMBINATIONS_PLAN = PLAN | {
    "latent_lr": 1e-2,
    "latent_wd": 1e-5,
    "decoder_lr": 1e-2,
    "decoder_wd": 1e-2,
    "attribute_nn_lr": 1e-3,
}


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train, then swap the perturbation of the controls of a context for the one that is asked for."""
    import anndata
    import biolord
    import numpy as np
    import scvi

    scvi.settings.seed = task["seed"]
    epochs, key = task["max_epochs"], task["perturbation_key"]
    combining = asks_for_unseen(cells, task)
    genes = sorted(set("+".join(cells.obs[key].astype(str)).split("+")) - {task["control"]})
    profiles = not cells.obs[key].duplicated().any()

    def train() -> Any:
        cells.obs["split"] = np.where(validation_rows(cells, task), "test", "train")
        module = (COMBINATIONS_MODULE if combining else MODULE) | {"seed": task["seed"]}
        if combining:
            cells.obsm["genes"] = multi_hot(cells.obs[key].astype(str), genes)
            module |= {"unknown_attributes": not profiles}
            biolord.Biolord.setup_anndata(cells, ordered_attributes_keys=["genes"])
        else:
            biolord.Biolord.setup_anndata(cells, categorical_attributes_keys=[key, task["context_key"]])
        model = biolord.Biolord(
            cells,
            n_latent=32,
            model_name="task",
            split_key="split",
            train_split="train",
            valid_split="test",
            module_params=module,
        )
        with tempfile.TemporaryDirectory() as folder:
            model.train(
                max_epochs=epochs or (200 if combining else 500),
                batch_size=32 if combining else 512,
                plan_kwargs=COMBINATIONS_PLAN if combining else PLAN,
                early_stopping=epochs is None and not combining,
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
            if combining:
                source.obsm["genes"] = multi_hot([perturbation] * source.n_obs, genes)
                moved, _ = model.predict(source)
                parts.append(as_prediction(moved.X, source, task, perturbation, context))
                continue
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
