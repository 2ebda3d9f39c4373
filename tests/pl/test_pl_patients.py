"""pl.patients: rows by response, colors by group, hollow abstentions, genes beside them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from tests.pl.drug_tables import dots, overlaps, texts

from scjepa import pl
from scjepa.pl._figure import COLORS, UNSURE


def table(n: int = 4, groups: int = 2, **columns) -> pd.DataFrame:
    """Patients whose responses are 0, 1, 2, ... and whose groups rise with them, out of order."""
    at = np.arange(n)
    out = pd.DataFrame({"donor": [f"P{i}" for i in at], "response": at * 1.0, "size": 9.0, "group": at * groups // n})
    return out.assign(support=1.0, **columns).iloc[::-1].sample(frac=1, random_state=0)


def genes(**columns) -> pd.DataFrame:
    rows = {"gene": ["IL6", "TNF", "MYC"], "group": 1, "difference": [1.5, -0.5, 0.2], "auc": 1.0, "p_value": 0.01}
    return pd.DataFrame(rows | {"q_value": [0.01, 0.05, 0.5]} | columns)


def colors(ax) -> dict[float, str]:
    """Color of the dot at each response."""
    found = [(y, c) for d in ax.collections if len(d.get_offsets()) and not isinstance(d, LineCollection)
             for (y, _), c in zip(d.get_offsets(), d.get_edgecolor() if len(d.get_facecolor()) == 1
                                  and to_hex(d.get_facecolor()[0]) == "#ffffff" else d.get_facecolor(), strict=False)]  # fmt: skip
    return {float(y): to_hex(c).upper() for y, c in found}


def test_rows_are_patients_the_strongest_first_in_the_color_of_their_group():
    (ax,) = pl.patients(table()).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["P3", "P2", "P1", "P0"] and ax.yaxis_inverted()
    np.testing.assert_allclose(dots(ax), [[3, 0], [2, 1], [1, 2], [0, 3]])
    assert colors(ax) == {0: COLORS[0], 1: COLORS[0], 2: COLORS[1], 3: COLORS[1]}
    assert texts(ax.get_legend()) == ["group 1, the strongest: 2", "group 0, the weakest: 2"]


def test_three_groups_and_none():
    (ax,) = pl.patients(table(6, 3)).axes
    assert texts(ax.get_legend()) == ["group 2, the strongest: 2", "group 1: 2", "group 0, the weakest: 2"]
    (ax,) = pl.patients(table(5, 1)).axes
    assert texts(ax.get_legend()) == ["no groups: 5 patients"]


def test_abstentions_are_hollow_and_gray():
    data = table()
    (ax,) = pl.patients(data.assign(abstain=data["donor"] == "P2")).axes
    np.testing.assert_allclose(dots(ax, hollow=True), [[2, 1]])
    assert [to_hex(t.get_color()).upper() == UNSURE for t in ax.get_yticklabels()] == [False, True, False, False]
    assert texts(ax.get_legend())[-1] == "hollow: the model abstains"


def test_whiskers_are_intervals():
    data = table()
    (ax,) = pl.patients(data.assign(lower=data["response"] - 0.5, upper=data["response"] + 0.25)).axes
    (whiskers,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose([[s[0][0], s[1][0]] for s in whiskers.get_segments()],
                               [[2.5, 3.25], [1.5, 2.25], [0.5, 1.25], [-0.5, 0.25]])  # fmt: skip


def test_genes_are_bars_beside_the_patients_pale_where_they_may_be_chance():
    data = table()
    data.attrs["biomarkers"] = genes()
    _, ax = pl.patients(data).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["IL6", "TNF", "MYC"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [1.5, -0.5, 0.2])
    assert [bar.get_facecolor()[3] for bar in ax.patches] == [1.0, 1.0, 0.35]
    assert "group 1 minus group 0" in ax.get_xlabel()
    assert len(pl.patients(data, n_genes=2).axes[1].patches) == 2
    assert len(pl.patients(data, n_genes=0).axes) == 1


def test_genes_of_several_groups_say_which():
    data = table(6, 3)
    data.attrs["biomarkers"] = genes(group=[2, 0, 1])
    _, ax = pl.patients(data).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["IL6 (group 2)", "TNF (group 0)", "MYC (group 1)"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [COLORS[2], COLORS[0], COLORS[1]]
    assert "against the others" in ax.get_xlabel()


def test_empty_biomarkers_have_no_panel():
    data = table()
    data.attrs["biomarkers"] = pd.DataFrame()
    assert len(pl.patients(data).axes) == 1


def test_names_do_not_overlap_and_many_patients_are_numbered():
    data = table(40)
    data.attrs["biomarkers"] = genes()
    figure = pl.patients(data)
    figure.canvas.draw()
    left, right = figure.axes
    assert overlaps([*left.get_yticklabels(), *left.get_legend().get_texts(), left.xaxis.label]) == []
    assert overlaps([*right.get_yticklabels(), right.xaxis.label]) == []
    (ax,) = pl.patients(table(41)).axes
    assert ax.get_ylabel() == "donors by response"
    np.testing.assert_allclose(dots(ax)[[0, -1]], [[40, 1], [0, 41]])


def test_own_axes_and_file(tmp_path):
    figure, axes = plt.subplots(1, 2)
    data = table()
    data.attrs["biomarkers"] = genes()
    assert pl.patients(data, ax=axes, save=tmp_path / "p.png") is figure
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="ax holds 1 axes, 2 panels are to be drawn"):
        pl.patients(data, ax=axes[0])


def test_errors():
    with pytest.raises(TypeError, match="table is a list: expected the DataFrame of DrugJEPA.stratify_patients"):
        pl.patients([1])
    with pytest.raises(ValueError, match=r"table lacks the columns \['group'\]"):
        pl.patients(table().drop(columns="group"))
    with pytest.raises(ValueError, match="table starts with 'response': expected the column of patients first"):
        pl.patients(table().drop(columns="donor"))
    with pytest.raises(ValueError, match="4 of 4 values of 'response' are missing"):
        pl.patients(table().assign(response=np.nan))
    data = table()
    data.attrs["biomarkers"] = genes().drop(columns="difference")
    with pytest.raises(ValueError, match=r"table.attrs\['biomarkers'\] lacks the columns \['difference'\]"):
        pl.patients(data)
    data.attrs["biomarkers"] = genes()
    with pytest.raises(ValueError, match="n_genes=-1: expected a whole number"):
        pl.patients(data, n_genes=-1)


def test_the_drug_in_front_names_no_patient() -> None:
    table = pd.DataFrame({"perturbation": "D", "patient": ["P1", "P2"], "response": [1.0, 0.0], "lower": [0.5, -0.5],
                          "upper": [1.5, 0.5], "group": [0, 0], "stability": 1.0, "support": "near", "abstain": False})  # fmt: skip
    figure = pl.patients(table)
    axes = figure.axes if hasattr(figure, "axes") and isinstance(figure.axes, list) else [figure]
    assert {t.get_text() for t in axes[0].get_yticklabels()} == {"P1", "P2"}
