"""Patients: intervals cover those who were left out, groups come with what tells them apart, nulls have none."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scjepa import DrugJEPA
from scjepa.baselines import DrugEffect
from scjepa.data import ConditionTable
from scjepa.model._drug_parts import Responses
from scjepa.model._drug_patients import half_width, left_out_errors
from scjepa.model.conditions._design import Question

QUIET = {"max_epochs": 1, "embed": False, "enable_progress_bar": False, "accelerator": "cpu"}
GENES = 40


def trial(n: int, seed: int, *, strength: float = 1.0, spread: float = 0.4, weak: tuple[int, ...] = ()) -> ad.AnnData:
    """Cells of patients under one drug: a programme of a patient's own strength; the weak ones lack gene 3."""
    rng = np.random.default_rng(seed)
    programme, base = strength * rng.normal(size=GENES), rng.uniform(2.0, 4.0, GENES)
    rows, obs = [], []
    for i in range(n):
        size = 0.05 if i in weak else 1 + spread * rng.normal()
        start = base + 0.2 * rng.normal(size=GENES)
        start[3] = 0.1 if i in weak else 3.0
        for label, cells in (("DMSO", 12), ("drug", 10)):
            shift = size * programme if label == "drug" else 0.0
            rows.append(np.maximum(start + shift + 0.3 * rng.normal(size=(cells, GENES)), 0))
            obs += [(label, f"P{i:02d}")] * cells
    frame = pd.DataFrame(obs, columns=["drug", "patient"], index=[f"c{i}" for i in range(len(obs))])
    return ad.AnnData(
        np.vstack(rows).astype(np.float32), obs=frame, var=pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    )


def fitted(adata: ad.AnnData, held: list[str] | None = None) -> DrugJEPA:
    DrugJEPA.setup_anndata(adata, "drug", patient_key="patient", input_scale="lognorm")
    model = DrugJEPA(adata, residual=False, n_latent=4, n_pcs=8)
    model.train(holdout=[("drug", p) for p in held or []] or None, **QUIET)
    return model


def test_intervals_cover_the_response_of_patients_who_were_not_treated() -> None:
    covered, width = [], []
    for seed in range(6):
        adata = trial(14, seed)
        out = [f"P{i:02d}" for i in range(10, 14)]
        model = fitted(adata, out)
        table = model.stratify_patients("drug", level=0.8).set_index("patient")
        mean = lambda p, d, a=adata: a.X[((a.obs["patient"] == p) & (a.obs["drug"] == d)).to_numpy()].mean(0)
        effects = {p: mean(p, "drug") - mean(p, "DMSO") for p in table.index}
        predicted = model.predict_effect("drug").pivot_table(index="patient", columns="gene", values="effect")
        along = predicted[list(adata.var_names)].to_numpy().mean(0)
        along /= np.linalg.norm(along)
        for p in out:
            true = effects[p] @ along
            covered.append(table.loc[p, "lower"] <= true <= table.loc[p, "upper"])
            width.append((table.loc[p, "upper"] - table.loc[p, "lower"]) / np.linalg.norm(effects[p]))
    assert 0.6 <= np.mean(covered) <= 0.96  # 24 patients, .8 wanted
    assert np.median(width) < 2.5  # and that is not for being endless


def test_levels_are_nested_and_a_signature_changes_the_response() -> None:
    adata = trial(6, 0)
    model = fitted(adata)
    narrow, wide = (model.stratify_patients("drug", level=level) for level in (0.5, 0.95))
    assert (wide["lower"] < narrow["lower"]).all() and (narrow["upper"] < wide["upper"]).all()
    assert (narrow["lower"] < narrow["response"]).all() and narrow["response"].is_monotonic_decreasing
    one = model.stratify_patients("drug", signature={"g5": 2.0}).set_index("patient")["response"]
    effect = model.predict_effect("drug", genes="g5").set_index("patient")["effect"]
    np.testing.assert_allclose(one.sort_index(), effect.sort_index(), rtol=1e-5)
    with pytest.raises(ValueError, match="level=90: expected a number between 0 and 1"):
        model.stratify_patients("drug", level=90)


def test_responders_are_found_with_their_marker_and_patients_alike_are_one_group() -> None:
    weak = (1, 4, 6, 7, 9)
    table = fitted(trial(12, 0, spread=0.1, weak=weak)).stratify_patients("drug")
    assert set(table.loc[table["group"] == 0, "patient"]) == {f"P{i:02d}" for i in weak}
    assert table["group"].nunique() == 2 and (table["stability"] > 0.9).all()
    marker = table.attrs["biomarkers"].iloc[0]
    assert marker["gene"] == "g3" and marker["auc"] == 1.0 and marker["q_value"] < 0.2
    assert (table.attrs["stability"].loc[2, ["stability", "p_value"]] - [1.0, 0.0]).abs().max() < 0.1
    alike = fitted(trial(12, 2, spread=0.0)).stratify_patients("drug")
    assert alike["group"].nunique() == 1 and alike.attrs["biomarkers"].empty


def test_a_drug_that_does_nothing_has_no_responders() -> None:
    adata = trial(8, 0, strength=0.0)
    out = ["P00", "P01"]
    table = fitted(adata, out).stratify_patients("drug").set_index("patient")
    assert table["group"].nunique() == 1
    assert (table.loc[out, "lower"] < 0).all() and (table.loc[out, "upper"] > 0).all()
    assert table.loc[out, "size"].max() < 0.3 * table["size"].max()


def test_errors_are_of_the_drug_asked_for_at_the_nearest_dose() -> None:
    rng = np.random.default_rng(0)
    base = {"A": rng.normal(size=GENES), "B": 10 * rng.normal(size=GENES)}
    rows = [(d, f"P{i}", dose) for d in "AB" for i in range(9) for dose in (1.0, 10.0)]
    effects = np.array([base[d] * dose + dose * 0.2 * rng.normal(size=GENES) for d, _, dose in rows])
    table = ConditionTable(
        tuple((d,) for d, _, _ in rows),
        np.array([p for _, p, _ in rows]),
        np.zeros_like(effects),
        effects,
        dose=np.array([dose for _, _, dose in rows]),
    )
    anchor = DrugEffect().fit(table)
    asked = lambda dose: Responses([Question("A", ("A",), "new", dose=dose)], effects[:1], effects[:1], None)
    low, high = (left_out_errors(asked(dose), anchor, None) for dose in (2.0, 8.0))
    assert len(low[0]) == len(high[0]) == 9 and set(low[1]) == {f"P{i}" for i in range(9)}
    mine = [i for i, row in enumerate(rows) if row[0] == "A" and row[2] == 10.0]
    along = np.eye(GENES)[0]
    errors, _ = left_out_errors(asked(10.0), anchor, along)
    np.testing.assert_allclose(errors, (effects - anchor.left_out_effects("context"))[mine, 0])
    assert len(left_out_errors(asked(1.0), object(), None)[0]) == 0


def test_half_widths() -> None:
    assert np.isnan(half_width(np.zeros(0), [], 0.9))
    rng, hits = np.random.default_rng(0), []
    for _ in range(2000):  # normal errors, six units
        errors = rng.normal(size=7)
        hits.append(abs(errors[6]) <= half_width(errors[:6], np.arange(6), 0.9))
    assert 0.9 <= np.mean(hits) <= 0.95  # for whom errors are centred it is a little wide
    values = rng.random(99)
    assert half_width(values, np.arange(99), 0.9) == np.sort(values)[89]
    # rows of one unit count once
    assert half_width([3.0, 4.0, 5.0], ["a", "a", "b"], 0.8) == pytest.approx(
        stats.t.ppf(0.9, 2) * np.sqrt(1.5 * (12.5 + 25) / 2)
    )
