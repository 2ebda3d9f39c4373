"""Runs GEARS on a task: python run_gears.py TASK_FOLDER, in the environment of make_env.py.

Settings of its tutorial: hidden size 64, batches of 32, 20 epochs, of which the best on validation conditions is kept;
its learning rate is halved after every epoch, so hardly anything changes after the tenth. A tenth of the training
combinations validates (never a single: it may be needed by a combination that is asked for).

The graph of perturbations is built by GEARS from ``gene_sets`` of the task (it would download Gene Ontology terms
otherwise); a gene without terms is linked to itself only. GEARS returns the mean of the cells that it predicts from
controls; here the cells are kept, one for each control, so that they can be scored as cells.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

from task import Clock, as_prediction, combination_rows, controls_of, main


def rank_by_difference(cells: Any) -> None:
    """Rank genes of each condition by the distance from the control, which a t-test can't do with one profile each."""
    import numpy as np

    x = cells.X.toarray()
    start = x[(cells.obs["condition"] == "ctrl").to_numpy()].mean(0)
    order, expressed = {}, {}
    for name, profile in zip(cells.obs["condition_name"], x, strict=True):
        order[name] = cells.var_names[np.argsort(-np.abs(profile - start))].tolist()
        expressed[name] = np.flatnonzero(profile)
    cells.uns["rank_genes_groups_cov_all"], cells.uns["non_zeros_gene_idx"] = order, expressed


def run(cells: Any, task: dict, clock: Clock) -> tuple[Any, int]:
    """Train, then predict every combination from each control."""
    import anndata
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp
    import torch

    pd.Series.nonzero = lambda series: series.to_numpy().nonzero()  # GEARS calls what pandas has removed
    from gears import GEARS, PertData
    from gears.utils import create_cell_graph_for_prediction
    from torch_geometric.loader import DataLoader

    np.random.seed(task["seed"])
    torch.manual_seed(task["seed"])
    key, epochs = task["perturbation_key"], task["max_epochs"] or 20
    labels = cells.obs[key].astype(str)
    genes = sorted(set("+".join(labels).split("+")) - {task["control"]})

    def train() -> Any:
        data = anndata.AnnData(sp.csr_matrix(cells.X), obs=cells.obs[[]].copy(), var=cells.var[[]].copy())
        data.obs["condition"] = [
            "ctrl" if label == task["control"] else label if "+" in label else f"{label}+ctrl" for label in labels
        ]
        data.obs["cell_type"] = "all"
        data.var["gene_name"] = data.var_names
        os.makedirs("data", exist_ok=True)  # this folder is written into GEARS
        with open("data/gene2go_all.pkl", "wb") as file:
            pickle.dump({gene: set(task["gene_sets"].get(gene) or [f"only {gene}"]) for gene in genes}, file)
        screen = PertData("data", default_pert_graph=False)
        profiles = not labels.duplicated().any()
        if profiles:
            data.obs["condition_name"] = [f"all_{c}_{'1+1' if '+' in c else '1'}" for c in data.obs["condition"]]
            rank_by_difference(data)
        screen.new_data_process(dataset_name="task", adata=data, skip_calc_de=profiles)
        screen.load(data_path="data/task")
        combinations = np.unique(labels[combination_rows(cells, task)])
        validating = np.random.permutation(combinations)[: max(1, len(combinations) // 10)].tolist()
        training = [c for c in screen.adata.obs["condition"].unique() if c not in validating]
        with open("split.pkl", "wb") as file:
            pickle.dump({"train": training, "val": validating}, file)
        screen.prepare_split(split="custom", seed=task["seed"], split_dict_path="split.pkl")
        screen.split = "no_test"  # what is asked for is not among the cells
        screen.get_dataloader(batch_size=32, test_batch_size=128)
        model = GEARS(screen, device="cpu")
        model.model_initialize(hidden_size=64)
        model.train(epochs=epochs)
        return model

    def predict() -> Any:
        parts = []
        network = model.best_model.eval()
        for perturbation, context in task["predict"]:
            source = controls_of(cells, task, context)
            parts_of = perturbation.split("+")
            index = [model.pert_list.index(gene) for gene in parts_of]
            x = source.X.toarray() if sp.issparse(source.X) else np.asarray(source.X)
            graphs = [create_cell_graph_for_prediction(row[None], index, parts_of) for row in x]
            with torch.no_grad():
                moved = [network(batch).numpy() for batch in DataLoader(graphs, 100)]
            parts.append(as_prediction(np.concatenate(moved), source, task, perturbation, context))
        return anndata.concat(parts)

    model = clock.run("train", train)
    predicted = clock.run("predict", predict)
    return predicted, epochs


if __name__ == "__main__":
    main(__doc__, ["gears", "torch_geometric"], run)
