"""What was done to cells, without a model: columns, groups, questions and their tables."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scvi.data.fields import CategoricalObsField, LayerField, NumericalObsField

from scjepa.model.conditions._design import Design, Question, check_setup, fields

FULL = Design("p", "ctl", context_key="line", dose_key="uM", time_key="h", kind_key="how", kinds=("KO", "OE"))
OBS = pd.DataFrame(
    {
        "p": ["ctl", "B+A", "A+ctl", "A", "ctl", "A+B", "A"],
        "line": ["x", "x", "x", "x", "y", "y", "y"],
        "uM": [0, 1, 1, 2, 0, 1, 1.0],
        "h": [0, 6, 6, 6, 0, 6, 24.0],
        "how": ["-", "KO", "KO", "KO", "-", "KO", "OE"],
        "plate": ["1", "1", "2", "2", "1", "1", "2"],
    },
    index=[f"cell {i}" for i in range(7)],
)


def cells(**changes: Any) -> ad.AnnData:
    obs = OBS.copy()
    for name, values in changes.items():
        obs[name] = values
    x = np.random.default_rng(0).poisson(3.0, (7, 4)).astype(np.float32) + 1
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=list("abcd")))


# ---------------------------------------------------------------- columns
def test_columns_and_covariates_in_order() -> None:
    assert list(FULL.columns) == ["label_key", "context_key", "dose_key", "time_key", "kind_key"]
    assert FULL.covariates == {"context": "line", "dose": "uM", "time": "h", "kind": "how"}
    assert Design("p", batch_key="plate").columns == {"label_key": "p", "batch_key": "plate"}
    assert Design("p", batch_key="plate").covariates == {}
    assert tuple(FULL.keys) == ("p", "ctl", "line", "+")


def test_a_design_is_read_off_the_setup() -> None:
    setup = {"drug_key": "p", "control": "ctl", "dose_key": "uM", "context_key": "line", "separator": "_", "layer": "c"}
    found = Design.from_setup(setup, "drug_key", ["KO"])
    assert found == Design("p", "ctl", "_", context_key="line", dose_key="uM", kinds=("KO",))
    assert Design.from_setup({"p_key": "p", "control": 0}, "p_key") == Design("p", "0")  # no separator, no columns


def test_labels_are_written_as_they_are_read() -> None:
    assert FULL.label(("A", "B")) == "A+B" and Design("p", separator="_").label(("A", "B")) == "A_B"


# ---------------------------------------------------------------- groups
def test_groups_by_everything_that_was_done() -> None:
    groups = FULL.groups(OBS)
    rows = list(zip(groups.actions, groups.contexts, groups.dose, groups.time, groups.kind, strict=True))
    assert rows == [
        (("A",), "x", 1, 6, "KO"),
        (("A",), "x", 2, 6, "KO"),
        (("A",), "y", 1, 24, "OE"),
        (("A", "B"), "x", 1, 6, "KO"),
        (("A", "B"), "y", 1, 6, "KO"),
    ]
    assert [c.tolist() for c in groups.cells] == [[2], [3], [6], [1], [5]]
    assert {c: i.tolist() for c, i in groups.controls.items()} == {"x": [0], "y": [4]} and groups.batches is None


def test_groups_know_only_the_columns_of_the_design() -> None:
    groups = Design("p", "ctl", batch_key="plate").groups(OBS)
    assert groups.actions == (("A",), ("A", "B")) and groups.dose is groups.kind is groups.time is None
    assert set(groups.controls) == {"all"} and groups.batches.tolist() == [0, 0, 1, 1, 0, 0, 1]


def test_columns_may_be_categories_and_text() -> None:
    there = FULL.groups(OBS)
    obs = OBS.astype({"p": "category", "line": "category", "uM": "category", "how": "category"})
    obs["h"] = obs["h"].astype(str)
    again = FULL.groups(obs)
    assert again.actions == there.actions and again.dose.tolist() == there.dose.tolist()
    assert again.time.tolist() == there.time.tolist() and again.kind.tolist() == there.kind.tolist()


# ---------------------------------------------------------------- questions
def test_questions_run_over_labels_doses_times_and_contexts() -> None:
    asked = FULL.ask(["B+A", "C"], ["x", "y"], dose=[1, 2], time=[6, 24], kind="OE")
    assert len(asked) == 16
    assert asked[:3] == [
        Question("B+A", ("A", "B"), "x", 1.0, "OE", 6.0),
        Question("B+A", ("A", "B"), "y", 1.0, "OE", 6.0),
        Question("B+A", ("A", "B"), "x", 1.0, "OE", 24.0),
    ]
    assert [q.dose for q in asked[:8]] == [1] * 4 + [2] * 4
    assert [q.label for q in asked] == ["B+A"] * 8 + ["C"] * 8  # as they were asked


def test_what_is_not_said_is_what_is_usual() -> None:
    usual = {("A",): "OE", (): "KO"}
    asked = FULL.ask(["A", "A+B"], ["x"], usual_dose=3.0, usual_time=12, usual_kind=usual)
    assert [(q.dose, q.time, q.kind) for q in asked] == [(3.0, 12.0, "OE"), (3.0, 12.0, "KO")]
    (alone,) = FULL.ask("A", ["x"])
    assert (alone.dose, alone.time, alone.kind) == (1.0, 1.0, None)


def test_what_there_is_no_column_for_is_not_asked() -> None:
    (asked,) = Design("p", "ctl").ask("A", ["all"], usual_dose=3.0, usual_time=2.0, usual_kind={(): "KO"})
    assert asked == Question("A", ("A",), "all")


def test_numbers_of_any_type() -> None:
    for dose in (2, 2.0, np.float32(2), np.int64(2), np.array([2])):
        (asked,) = FULL.ask("A", ["x"], dose=dose)
        assert asked.dose == 2.0 and type(asked.dose) is float
    assert FULL.ask("A", ["x"], dose=0)[0].dose == 0.0  # nothing may be asked for


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ("ctl", {}, "'ctl' is the control, not a perturbation"),
        ("A+ctl", {"dose": -1}, r"dose=-1: expected numbers of at least 0"),
        ("A", {"dose": "1 uM"}, "dose='1 uM' of 'A': expected numbers of at least 0, one for all parts"),
        ("A", {"time": [6, np.nan]}, "time=nan: expected numbers of at least 0"),
        ("A", {"time": [6, None]}, "time=None: expected numbers of at least 0"),
        ("A", {"dose": np.inf}, "dose=inf: expected numbers of at least 0"),
        ("A", {"dose": []}, "dose is empty. Name at least one"),
        ("A", {"time": []}, "time is empty. Name at least one"),
        ("A", {"kind": "KD"}, "kind='KD' is not among the kinds the model was set up with.*Found: 'KO', 'OE'"),
        ([], {}, "drugs is empty. Name at least one"),
        (None, {}, "drugs is None. Name at least one"),
        (["A", "B", "A"], {}, "drugs names 'A' more than once"),
        ("A++B", {}, r"label 'A\+\+B' has an empty part"),
    ],
)
def test_questions_that_are_refused(labels: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FULL.ask(labels, ["x"], asked="drugs", **options)


@pytest.mark.parametrize(("name", "value"), [("dose", 1.0), ("time", 2.0), ("kind", "KO")])
def test_what_the_model_was_set_up_without_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} was given, but the model was set up without {name}_key"):
        Design("p").ask("A", ["all"], **{name: value})


def test_the_table_of_questions() -> None:
    asked = FULL.ask(["A+B", "A"], ["x"], dose=[1, 2], kind="KO", time=6)
    control = np.arange(16.0).reshape(4, 4)
    found = FULL.table(asked, control, list("abcd"))
    assert found.actions == (("A", "B"), ("A", "B"), ("A",), ("A",)) and found.genes == ("a", "b", "c", "d")
    assert found.dose.tolist() == [1, 2, 1, 2] and found.time.tolist() == [6] * 4
    assert found.kind.tolist() == ["KO"] * 4 and found.contexts.tolist() == ["x"] * 4
    assert found.perturbed is None and found.control is control
    bare = Design("p").table(Design("p").ask(["A"], ["all"]), control[:1])
    assert bare.dose is bare.kind is bare.time is None and bare.genes == ()


# ---------------------------------------------------------------- annotation of predictions
def test_predicted_cells_are_described() -> None:
    obs = FULL.describe(Question("B+A", ("A", "B"), "x", 2.0, "KO", 6.0), pd.Index(["cell 1", "cell 0"]))
    assert obs.to_dict("list") == {
        "p": ["B+A"] * 2,
        "line": ["x"] * 2,
        "uM": [2.0] * 2,
        "h": [6.0] * 2,
        "how": ["KO"] * 2,
        "source": ["cell 1", "cell 0"],
        "jepa_prediction": ["predicted"] * 2,
    }


def test_controls_are_described_as_nothing_done() -> None:
    obs = FULL.describe(Question("ctl", (), "y"), pd.Index([7]))
    assert obs.iloc[0].to_dict() == {
        "p": "ctl", "line": "y", "uM": 0.0, "h": 0.0, "how": "ctl", "source": "7", "jepa_prediction": "control",
    }  # fmt: skip
    assert list(Design("p").describe(Question("control", (), "all"), pd.Index(["a"]))) == [
        "p", "source", "jepa_prediction",
    ]  # fmt: skip


def test_descriptions_have_the_columns_that_predictions_are_made_from() -> None:
    """Predicted cells can be grouped by the design that they were asked with."""
    parts = [FULL.describe(q, pd.Index(["a", "b"])) for q in FULL.ask(["A"], ["x", "y"], dose=[1, 2], kind="KO")]
    controls = [FULL.describe(Question("ctl", (), c), pd.Index(["a"])) for c in "xy"]
    groups = FULL.groups(pd.concat([*controls, *parts], ignore_index=True))
    assert groups.dose.tolist() == [1, 2, 1, 2] and [len(c) for c in groups.cells] == [2] * 4


# ---------------------------------------------------------------- setup
def test_setup_returns_the_scale() -> None:
    assert check_setup(cells(), FULL, None, "auto", label="drug_key") == "counts"
    adata = cells()
    adata.X = np.log1p(adata.X / 3)
    assert check_setup(adata, FULL, None, "auto", label="drug_key") == "lognorm"


@pytest.mark.parametrize(
    ("design", "changes", "error", "message"),
    [
        (Design("q", "ctl"), {}, KeyError, "drug_key='q' is not a column of adata.obs"),
        (Design("p", "ctl", context_key="lines"), {}, KeyError, "context_key='lines'.*Did you mean 'line'"),
        (Design("p", "ctl", batch_key="plates"), {}, KeyError, "batch_key='plates'.*Did you mean 'plate'"),
        (Design("p", "ctl", kind_key="p"), {}, ValueError, "kind_key='p' is the same column as drug_key"),
        (Design("source", "ctl"), {"source": OBS["p"]}, ValueError, "drug_key='source': predictions write a column"),
        (FULL, {"p": [None] * 7}, ValueError, "drug_key='p': all 7 values are missing"),
        (FULL, {"line": [None, *"xxxyyy"]}, ValueError, "context_key='line': 1 of 7 cells have a missing value"),
        (FULL, {"uM": [0, -1, 1, 2, 0, 1, 1]}, ValueError, "dose_key='uM': 1 values are below 0"),
        (FULL, {"h": [0, 6, 6, np.nan, 0, 6, 24]}, ValueError, "time_key='h': 1 of 7 values are missing or not"),
        (FULL, {"uM": ["0", "low", "1", "2", "0", "1", "1"]}, ValueError, "dose_key='uM': 1 of 7.*'low'"),
        (FULL, {"p": ["A"] * 7}, ValueError, "control='ctl' is not among the perturbation labels"),
        (FULL, {"p": ["ctl"] * 7}, ValueError, r"drug_key='p': all cells are controls \('ctl'\)"),
        (FULL, {"line": list("xxxxzyy")}, ValueError, "1 contexts have perturbed cells but no control cells.*'y'"),
    ],
)
def test_setups_that_are_refused(design: Design, changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_setup(cells(**changes), design, None, "auto", label="drug_key")


def test_one_column_may_be_batch_and_context() -> None:
    assert check_setup(cells(), Design("p", "ctl", context_key="line", batch_key="line"), None, "auto", label="k")


def test_query_data_may_lack_controls() -> None:
    only = cells(p=["A"] * 7)
    assert check_setup(only, FULL, None, "auto", label="drug_key", query=True) == "counts"
    with pytest.raises(ValueError, match="below 0"):  # everything else is checked
        check_setup(cells(uM=[-1.0] * 7), FULL, None, "auto", label="drug_key", query=True)


def test_fields_of_a_design() -> None:
    found = {field.registry_key: field for field in fields(FULL, "counts")}
    assert list(found) == ["X", "batch", "perturbation", "context", "kind", "dose", "time"]
    assert isinstance(found["X"], LayerField) and isinstance(found["dose"], NumericalObsField)
    assert all(isinstance(found[name], CategoricalObsField) for name in ("batch", "perturbation", "context", "kind"))
    keys = {name: found[name]._original_attr_key for name in ("perturbation", "context", "kind")}
    assert keys == {"perturbation": "p", "context": "line", "kind": "how"}
    assert (found["dose"].attr_key, found["time"].attr_key) == ("uM", "h")
    assert [f.registry_key for f in fields(Design("p"), None)] == ["X", "batch", "perturbation", "context", "kind"]
