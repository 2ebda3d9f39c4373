"""Runs scGen (pertpy's) on a task: python run_scgen.py TASK_FOLDER, in the environment of make_env.py.

Settings of pertpy's tutorial on the Kang data: 100 epochs, batches of 32, early stopping with patience 25.

scGen knows no combinations. For one never seen, the latent shifts of its single perturbations are added up, the
arithmetic that it is made for.
"""

from __future__ import annotations

from typing import Any

from task import Clock, as_prediction, controls_of, main


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train, then predict every perturbation that is asked for from the controls of its context."""
    import anndata
    import numpy as np
    import scvi
    from pertpy.tools import Scgen

    scvi.settings.seed = task["seed"]
    epochs, seen = task["max_epochs"], set(cells.obs[task["perturbation_key"]])

    def train() -> Any:
        Scgen.setup_anndata(cells, batch_key=task["perturbation_key"], labels_key=task["context_key"])
        model = Scgen(cells)
        model.train(
            max_epochs=epochs or 100,
            batch_size=32,
            early_stopping=epochs is None,
            early_stopping_patience=25,
            enable_progress_bar=False,
        )
        return model

    def predict() -> Any:
        parts = []
        shifts: dict[str, Any] = {}
        for perturbation, context in task["predict"]:
            source = controls_of(cells, task, context)
            if perturbation in seen:
                moved = model.predict(task["control"], perturbation, celltype_to_predict=context)[0].X
            else:
                singles = perturbation.split("+")
                for single in singles:  # each costs a compilation
                    if single not in shifts:
                        shifts[single] = model.predict(task["control"], single, adata_to_predict=source)[1]
                latent = model.get_latent_representation(source) + sum(shifts[single] for single in singles)
                moved = np.asarray(model.module.as_bound().generative(latent)["px"])
            parts.append(as_prediction(moved, source, task, perturbation, context))
        return anndata.concat(parts)

    model = clock.run("train", train)
    predicted = clock.run("predict", predict)
    return predicted, len(model.history_["elbo_train"]) if model.history_ and "elbo_train" in model.history_ else -1


if __name__ == "__main__":
    main(__doc__, ["pertpy"], run)
