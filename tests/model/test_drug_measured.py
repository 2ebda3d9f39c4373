"""Responses of measured conditions, and targets on simulated screens that are fast to check."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa import DrugJEPA
from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable
from scjepa.datasets import simulate_drug_screen
from scjepa.model._drug_measured import measured_responses
from scjepa.model._drug_parts import Responses
from scjepa.model.conditions._design import Question


def test_responses_are_drawn_to_what_was_measured_as_far_as_it_is_more_than_noise() -> None:
    genes, times = 50, np.array([2.0, 8.0, 24.0])
    effects = np.zeros((3, genes))
    effects[:, 0] = [4.0, 4.0, 1.0]
    table = ConditionTable(
        (("A",),) * 3,
        np.array(["x"] * 3),
        np.zeros((3, genes)),
        effects,
        n_cells=np.array([10, 10, 10]),
        variance=np.full(genes, 1.0),
        n_controls=np.full(3, 10.0),
        time=times,
    )
    anchor = DrugEffect().fit(table)
    questions = [Question("A", ("A",), "x", time=t) for t in (2.0, 24.0, 48.0)]
    predicted = np.zeros((3, genes))
    predicted[:, 0] = 3.0
    found, along = Responses(questions, predicted, predicted, None), np.tile(2 * np.eye(genes)[0], (3, 1))
    out = measured_responses(found, anchor, along, predicted[:, 0])
    # differences 1 and -2: mean square 2.5, noise 1 / 10 + 1 / 10, so 2.3 / 2.5 of the way; 48 h was not measured
    assert out.tolist() == pytest.approx([3 + 0.92, 3 - 1.84, 3.0])
    nothing = measured_responses(found, anchor, np.zeros_like(along), predicted[:, 0])
    assert nothing.tolist() == [3.0] * 3 and measured_responses(found, None, along, predicted[:, 0])[0] == 3.0
    quiet = measured_responses(found, anchor, along, np.array([4.0, 1.0, 0.0]))
    assert quiet.tolist() == [4.0, 1.0, 0.0]


def trained(adata, **keys: str) -> DrugJEPA:
    DrugJEPA.setup_anndata(adata, "drug", dose_key="dose", **keys)
    model = DrugJEPA(adata, residual=False, n_latent=4, n_pcs=8)
    model.train(embed=False, enable_progress_bar=False, accelerator="cpu")
    return model


def test_simulated_half_maximal_doses_are_within_a_factor_of_two() -> None:
    doses = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
    adata = simulate_drug_screen(
        80, 8, 2, doses=doses, contexts=("one",), n_combinations=0, null_fraction=0.25, n_cells=25, off_target=0.0
    )
    drugs = adata.uns["jepa"]["simulation"]["drugs"]
    model = trained(adata, context_key="context")
    curves = {d: model.dose_response(d, doses).iloc[0] for d in drugs.index}
    active = drugs.index[~drugs["null"]]
    off = [abs(np.log2(curves[d]["ec50"] / drugs.loc[d, "ec50"])) for d in active]
    assert np.mean(np.array(off) <= 1) >= 0.8
    assert all(curves[d]["flat"] for d in drugs.index[drugs["null"]]) and not any(curves[d]["flat"] for d in active)
