"""Runs scVI on a task (training and latents only: it predicts no perturbations): python run_scvi.py TASK_FOLDER.

scvi-tools' defaults: 10 latent dimensions, batches of 128, as many epochs as its rule gives (400 up to 20,000 cells,
then fewer), no early stopping. scVI needs counts in ``X``.
"""

from __future__ import annotations

from typing import Any

from task import Clock, main


def run(cells: Any, task: dict, clock: Clock) -> tuple[None, int]:
    """Train and embed all cells."""
    import scvi

    scvi.settings.seed = task["seed"]

    def train() -> Any:
        scvi.model.SCVI.setup_anndata(cells)
        model = scvi.model.SCVI(cells)
        model.train(max_epochs=task["max_epochs"], enable_progress_bar=False)
        return model

    model = clock.run("train", train)
    clock.run("predict", model.get_latent_representation)
    return None, int(model.trainer.current_epoch)


if __name__ == "__main__":
    main(__doc__, ["scvi"], run)
