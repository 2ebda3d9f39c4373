"""Responses of measured conditions, and targets on simulated screens that are fast to check."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa import DrugJEPA
from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable
from scjepa.datasets import simulate_drug_screen
from scjepa.model._drug_measured import is_noise, measured_course, measured_responses, seen_elsewhere
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


TIMES = (2.0, 8.0, 24.0, 48.0)


@pytest.fixture(scope="module")
def watched() -> DrugJEPA:
    adata = simulate_drug_screen(
        80, 8, 2, doses=(10.0,), times=TIMES, contexts=("one", "two"), n_combinations=0, null_fraction=0.25,
        n_cells=25, n_control=200, fading_fraction=0.5, off_target=0.0, seed=1,
    )  # fmt: skip
    return trained(adata, context_key="context", time_key="time")


def test_simulated_resistance_is_found_within_one_time_step_and_only_where_it_is(watched: DrugJEPA) -> None:
    truth = watched.adata.uns["jepa"]["simulation"]
    fading = truth["fading"].set_index(["drug", "context"])["time"]
    step = lambda t: np.interp(t, TIMES, range(len(TIMES)))
    hits, false = [], []
    for drug in truth["drugs"].index:
        table = watched.resistance_emergence(drug, TIMES, dose=10.0).set_index("context")
        for context, onset in table["onset"].items():
            if (drug, context) in fading.index:
                hits.append(abs(step(onset) - step(fading[drug, context])) <= 1)
                assert not hits[-1] or table.loc[context, "lower"] <= onset <= table.loc[context, "upper"]
            else:
                false.append(np.isfinite(onset))
    assert len(hits) >= 4 and np.mean(hits) >= 0.75, hits
    assert len(false) >= 8 and not any(false), false


def test_noise_is_told_by_other_contexts(watched: DrugJEPA) -> None:
    drugs = watched.adata.uns["jepa"]["simulation"]["drugs"]
    anchor = watched.anchor_
    sure = {d: seen_elsewhere(anchor, (d,), "one")[1] for d in drugs.index}
    assert max(sure[d] for d in drugs.index[drugs["null"]]) < 3 < np.median([sure[d] for d in drugs.index])
    along, none = seen_elsewhere(anchor, (drugs.index[0],), "three")
    assert np.linalg.norm(along) == pytest.approx(1) and np.isnan(none)
    assert [is_noise(anchor, (d,), "one") for d in drugs.index] == drugs["null"].tolist()
    assert not is_noise(None, ("A",), "one") and not is_noise(anchor, ("A",), "one")


def test_courses_need_three_measured_times_and_follow_a_signature(watched: DrugJEPA) -> None:
    drug = watched.adata.uns["jepa"]["simulation"]["fading"]["drug"].iloc[0]
    found = watched._respond(drug, None, context="one", dose=10.0, time=list(TIMES))
    rows = np.arange(len(TIMES))
    times, course = measured_course(found, watched.anchor_, rows, 0.5)
    assert times.tolist() == list(TIMES) and course.course.shape == (4,)
    table = watched.anchor_.table_
    mine = [a == (drug,) and c == "one" for a, c in zip(table.actions, table.contexts, strict=True)]
    gene = np.eye(80)[int(np.abs(table.effects[mine]).mean(0).argmax())]
    own = table.effects[mine][np.argsort(table.time[mine])] @ gene
    if own.mean() < 0:
        gene, own = -gene, -own
    _, along = measured_course(found, watched.anchor_, rows, 0.5, 3 * gene)
    assert np.corrcoef(along.course, own)[0, 1] > 0.5 and abs(along.course.mean() - own.mean()) < 0.3
    assert measured_course(found, watched.anchor_, rows[:2], 0.5) is None
    assert measured_course(found, None, rows, 0.5) is None
    unmeasured = watched._respond(drug, None, context="one", dose=3.0, time=list(TIMES))
    assert measured_course(unmeasured, watched.anchor_, rows, 0.5) is None


def test_times_in_between_lie_on_the_course(watched: DrugJEPA) -> None:
    drug = watched.adata.uns["jepa"]["simulation"]["drugs"].index[0]
    whole = watched.resistance_emergence(drug, TIMES, dose=10.0).attrs["curve"]
    more = watched.resistance_emergence(drug, (*TIMES, 36.0), dose=10.0).attrs["curve"]
    for _, part in more.groupby("context"):
        at = part.set_index("time")["response"]
        assert at[36.0] == pytest.approx((at[24.0] + at[48.0]) / 2)
    assert len(more) == len(whole) + 2
