"""Runs scVI on a task: python run_scvi.py TASK_FOLDER, in the environment of make_env.py.

scvi-tools' defaults: 10 latent dimensions, batches of 128, as many epochs as its rule gives (400 up to 20,000 cells,
then fewer), no early stopping.

With ``layers["counts"]`` the perturbation is the batch, and a perturbation in an unseen context is predicted by the
model's counterfactual: controls decoded as if they were of the perturbed batch (``transform_batch``). Counts are drawn
from the decoded distribution and normalised by the size of the control cell, so that predicted cells are like measured
ones; the denoised expectation would have too little variance and, on the log scale, too high a mean. What it never saw
in any context it can't predict.

Without that layer ``X`` holds counts; then scVI is trained and embeds all cells, and predicts nothing (for ``speed.py``).
"""

from __future__ import annotations

from typing import Any

from task import Clock, as_prediction, asks_for_unseen, controls_of, main


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train and predict, or embed all cells."""
    import anndata
    import numpy as np
    import scvi

    scvi.settings.seed = task["seed"]
    predicts = "counts" in cells.layers
    if predicts and asks_for_unseen(cells, task):
        raise SystemExit("scVI predicts no perturbation that it has not seen in some context")
    layer, batch_key = ("counts", task["perturbation_key"]) if predicts else (None, None)

    def train() -> Any:
        scvi.model.SCVI.setup_anndata(cells, layer=layer, batch_key=batch_key)
        model = scvi.model.SCVI(cells)
        model.train(max_epochs=task["max_epochs"], enable_progress_bar=False)
        return model

    def predict() -> Any:
        if not predicts:
            model.get_latent_representation()
            return None
        parts = []
        for perturbation, context in task["predict"]:
            source = controls_of(cells, task, context)
            drawn = np.asarray(model.posterior_predictive_sample(source, transform_batch=[perturbation]).todense())
            # what one count became when the cell was normalised by its size in all genes, also those not in the task
            unit = np.ravel(np.expm1(source.X).sum(1)) / np.ravel(source.layers["counts"].sum(1))
            parts.append(as_prediction(np.log1p(drawn * unit[:, None]), source, task, perturbation, context))
        return anndata.concat(parts)

    model = clock.run("train", train)
    predicted = clock.run("predict", predict)
    return predicted, int(model.trainer.current_epoch)


if __name__ == "__main__":
    main(__doc__, ["scvi"], run)
