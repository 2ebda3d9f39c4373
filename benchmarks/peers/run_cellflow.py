"""Runs CellFlow on a task: python run_cellflow.py TASK_FOLDER, in the environment of make_env.py.

Flow matching between controls and perturbed cells of the same context in 50 centered principal components, as in its
tutorials. Its networks are made for a GPU (hidden layers 3 x 2,048, decoder 3 x 4,096, 1,024 cells a step, gradients of
20 steps added up, some 100,000 steps); here they are 3 x 256 wide, with 256 cells a step and Adam at 1e-3. An "epoch" of
``max_epochs`` is 100 steps; 20 by default.

Perturbed genes are one-hot (its tutorials embed them by a protein language model, which only matters for genes never
perturbed), a set of up to as many as the largest combination has. Contexts get no vector of their own: nothing could be
learned about the one that is asked for. The flow starts from its controls.
"""

from __future__ import annotations

from typing import Any

from task import Clock, as_prediction, controls_of, main

NONE = "none"
STEPS = 100
WIDTH = (256, 256, 256)


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train, then move the controls of each context."""
    import anndata
    import cellflow.preprocessing as cfpp
    import numpy as np
    import optax
    import pandas as pd
    from cellflow.model import CellFlow

    key, context_key, epochs = task["perturbation_key"], task["context_key"], task["max_epochs"] or 20
    labels = cells.obs[key].astype(str).tolist()
    asked = [perturbation for perturbation, _ in task["predict"]]
    genes = sorted(set("+".join([*labels, *asked]).split("+")) - {task["control"]})
    length = max(len(label.split("+")) for label in [*labels, *asked])
    slots = [f"perturbation_{i}" for i in range(length)]

    def slotted(obs: pd.DataFrame, perturbations: list[str]) -> pd.DataFrame:
        """Add a column for each member of the combination, and whether it is a control."""
        sets = [[] if p == task["control"] else p.split("+") for p in perturbations]
        columns = {
            slot: pd.Categorical([s[i] if i < len(s) else NONE for s in sets], [*genes, NONE])
            for i, slot in enumerate(slots)
        }
        return obs.assign(**columns, is_control=[not s for s in sets])

    def train() -> Any:
        np.random.seed(task["seed"])
        cells.obs = slotted(cells.obs.astype("category"), labels)
        vectors = dict(zip(genes, np.eye(len(genes), dtype=np.float32), strict=True))
        cells.uns["vectors"] = vectors | {NONE: np.zeros(len(genes), np.float32)}
        cfpp.centered_pca(cells, n_comps=min(50, min(cells.shape) - 1), keep_centered_data=False)
        goals = cells.obs.loc[~cells.obs["is_control"], context_key].unique()
        pairs = cells[cells.obs[context_key].isin(goals).to_numpy()].copy()  # controls without a goal are refused
        model = CellFlow(pairs, solver="otfm")
        model.prepare_data(
            sample_rep="X_pca",
            control_key="is_control",
            perturbation_covariates={"perturbation": slots},
            perturbation_covariate_reps={"perturbation": "vectors"},
            split_covariates=[context_key],
            max_combination_length=length,
        )
        model.prepare_model(
            condition_embedding_dim=64,
            hidden_dims=WIDTH,
            decoder_dims=WIDTH,
            time_encoder_dims=WIDTH,
            time_freqs=128,
            optimizer=optax.adam(1e-3),
            seed=task["seed"],
        )
        model.train(num_iterations=STEPS * epochs, batch_size=256, valid_freq=10**9)
        return model

    def predict() -> Any:
        parts = []
        questions = pd.DataFrame(task["predict"], columns=["perturbation", context_key])
        for context, here in questions.groupby(context_key):
            source = controls_of(cells, task, context)
            found = model.predict(source, slotted(here, here["perturbation"].tolist()), condition_id_key="perturbation")
            for perturbation, coordinates in found.items():
                source.obsm["X_flow"] = np.asarray(coordinates)
                cfpp.reconstruct_pca(source, use_rep="X_flow", ref_adata=cells, layers_key_added="moved")
                parts.append(as_prediction(source.layers["moved"], source, task, perturbation, context))
        return anndata.concat(parts)

    model = clock.run("train", train)
    predicted = clock.run("predict", predict)
    return predicted, epochs


if __name__ == "__main__":
    main(__doc__, ["cellflow"], run)
