"""pl.dose_response: dots, the Hill curve, its EC50, dose 0 and measured responses are where the numbers say."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from tests.pl.drug_tables import dose_table, dots, overlaps, texts

from scjepa import pl
from scjepa.pl._figure import COLORS


def lines(ax, color: str = COLORS[0]) -> list[np.ndarray]:
    return [
        line.get_xydata() for line in ax.lines if to_hex(line.get_color()).upper() == color and len(line.get_xdata())
    ]


def test_predictions_are_dots_and_hollow_where_the_model_abstains():
    (ax,) = pl.dose_response(dose_table()).axes
    zero = ax.get_xticks()[0]
    np.testing.assert_allclose(dots(ax, hollow=False), [[zero, 0], [0.1, 2 / 11], [1, 1]])
    np.testing.assert_allclose(dots(ax, hollow=True), [[10, 20 / 11]])
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "conc" and ax.get_title() == "D01"
    assert texts(ax.get_legend()) == [
        "K562: EC50 1 (0.5 to 4)",
        "EC50, interval of the fit",
        "hollow: the model abstains",
    ]


def test_dose_zero_has_a_place_of_its_own_left_of_the_others():
    (ax,) = pl.dose_response(dose_table()).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "0.1", "1", "10"]
    zero = ax.get_xticks()[0]
    assert ax.get_xlim()[0] < zero <= 0.1 / 10**0.5 * 1.001
    (ax,) = pl.dose_response(dose_table(doses=(0.1, 1.0, 10.0))).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.1", "1", "10"]
    assert ax.get_xlim() == pytest.approx((0.1 / 1.5, 15))


def test_close_doses_are_named_themselves():
    (ax,) = pl.dose_response(dose_table(doses=(1.0, 2.0, 5.0))).axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "5"]


def test_the_curve_is_that_of_the_fit_and_the_bar_the_ec50_with_its_interval():
    (ax,) = pl.dose_response(dose_table()).axes
    curve, bar, mark = lines(ax)[:3]
    np.testing.assert_allclose(curve[:, 1], 2 * curve[:, 0] / (curve[:, 0] + 1))
    assert curve[[0, -1], 0] == pytest.approx([0.1, 10])
    np.testing.assert_allclose(bar, [[0.5, 1], [4, 1]])  # half of the largest response
    np.testing.assert_allclose(mark, [[1, 1]])


def test_intervals_end_where_the_axis_ends():
    table = dose_table().assign(ec50_lower=1e-9, ec50_upper=1e9)
    (ax,) = pl.dose_response(table).axes
    np.testing.assert_allclose(lines(ax)[1][:, 0], [0.1 / 1.5, 15])


@pytest.mark.parametrize("ec50", [100.0, 0.001])
def test_an_ec50_outside_the_doses_is_told_and_not_marked(ec50):
    (ax,) = pl.dose_response(dose_table().assign(ec50=ec50, ec50_lower=np.nan)).axes
    assert len(lines(ax)) == 1
    assert texts(ax.get_legend())[0] == f"K562: EC50 {ec50:.2g}, outside the doses"


def test_without_an_ec50_the_curve_is_level():
    (ax,) = pl.dose_response(dose_table().assign(ec50=np.nan, slope=np.nan, top=0.3)).axes
    (level,) = lines(ax)
    assert (level[:, 1] == 0.3).all()
    assert texts(ax.get_legend()) == ["K562: no EC50", "hollow: the model abstains"]


def test_measured_responses_are_diamonds_with_intervals():
    rows = [(0.0, 0.1, 0.0, 0.2), (1.0, 1.5, 1.2, 1.8)]
    measured = pd.DataFrame(rows, columns=["dose", "response", "lower", "upper"])
    (ax,) = pl.dose_response(dose_table(doses=(0.1, 1.0, 10.0)), measured=measured).axes
    zero = ax.get_xticks()[0]
    assert ax.get_xticklabels()[0].get_text() == "0"  # only measured, and has its place
    np.testing.assert_allclose(dots(ax, hollow=True)[-2:], [[zero, 0.1], [1, 1.5]])
    segments = next(
        c for c in ax.collections if c.get_label() == "_child_lines" or hasattr(c, "get_segments")
    ).get_segments()
    np.testing.assert_allclose(segments, [[[zero, 0], [zero, 0.2]], [[1, 1.2], [1, 1.8]]])
    assert texts(ax.get_legend())[-1] == "measured"


def test_intervals_of_predictions_are_a_band():
    table = dose_table(lower=-0.5, upper=2.5)
    (ax,) = pl.dose_response(table).axes
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    corners = band.get_paths()[0].get_extents()
    assert (corners.ymin, corners.ymax) == (-0.5, 2.5)
    assert ax.get_ylim()[0] < -0.5 and ax.get_ylim()[1] > 2.5
    assert "interval of the prediction" in texts(ax.get_legend())


def test_up_to_three_contexts_share_a_panel_in_their_colors():
    measured = pd.DataFrame({"line": ["b", "c", "elsewhere"], "conc": 1.0, "response": [0.7, 0.8, 9.0]})
    (ax,) = pl.dose_response(dose_table(("a", "b", "c")), measured=measured).axes
    assert texts(ax.get_legend())[:3] == ["a: EC50 1 (0.5 to 4)", "b: EC50 2 (1 to 8)", "c: EC50 3 (1.5 to 12)"]
    for i in range(3):
        curve = lines(ax, COLORS[i])[0]
        np.testing.assert_allclose(curve[:, 1], 2 * curve[:, 0] / (curve[:, 0] + 1 + i))
    diamonds = [tuple(c.get_offsets()[0]) for c in ax.collections if len(c.get_offsets()) == 1]
    assert (1.0, 0.7) in diamonds and (1.0, 0.8) in diamonds and (1.0, 9.0) not in diamonds


def test_many_contexts_have_panels_on_the_same_axes():
    table = dose_table(tuple(f"line {i}" for i in range(12)), drug="4-[(4-methylpiperazin-1-yl)methyl]-" * 8)
    figure = pl.dose_response(table, measured=pd.DataFrame({"line": ["line 3"], "dose": [1.0], "response": [5.0]}))
    assert [ax.get_title() for ax in figure.axes][:2] == ["line 0\nEC50 1 (0.5 to 4)", "line 1\nEC50 2 (1 to 8)"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert figure.axes[0].get_ylim()[1] > 5
    assert figure.get_suptitle().count("\n") == 1 and figure.get_suptitle().endswith("…")
    figure.canvas.draw()
    (below,) = figure.legends
    assert "measured" in texts(below)
    words = [ax.title for ax in figure.axes] + [ax.xaxis.label for ax in figure.axes] + list(below.get_texts())
    assert overlaps(words) == []


def test_own_axes_and_file(tmp_path):
    figure, axes = plt.subplots(1, 4)
    assert pl.dose_response(dose_table(), ax=axes[0], save=tmp_path / "d.png") is figure
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert pl.dose_response(dose_table(tuple("abcd")), ax=axes) is figure
    assert not figure.legends and axes[0].get_legend() is not None  # what is not ours stays as it is
    with pytest.raises(ValueError, match="ax holds 4 axes, 5 panels are to be drawn"):
        pl.dose_response(dose_table(tuple("abcde")), ax=axes)


def test_errors_of_the_table():
    table = dose_table()
    with pytest.raises(TypeError, match="table is a dict: expected the DataFrame of DrugJEPA.dose_response"):
        pl.dose_response({})
    with pytest.raises(ValueError, match=r"table lacks the columns \['ec50'\]"):
        pl.dose_response(table.drop(columns="ec50"))
    lost = dose_table()
    lost.attrs.clear()
    with pytest.raises(
        ValueError, match=r"table.attrs\['curve'\] is missing: expected the predictions that DrugJEPA.dose"
    ):
        pl.dose_response(lost)
    lost.attrs["curve"] = [1]
    with pytest.raises(ValueError, match=r"table.attrs\['curve'\] is a list"):
        pl.dose_response(lost)
    lost.attrs["curve"] = pd.DataFrame({"response": [1.0]})
    with pytest.raises(ValueError, match=r"is a DataFrame with the columns 'response'"):
        pl.dose_response(lost)
    two = dose_table(("a", "b"))
    two["perturbation"] = ["A", "B"]
    with pytest.raises(ValueError, match="table is of 2 drugs .*draw them one by one"):
        pl.dose_response(two)
    other = dose_table()
    other.attrs["curve"] = other.attrs["curve"].rename(columns={"line": "cell"})
    with pytest.raises(ValueError, match="table has no column 'cell', which tells contexts apart"):
        pl.dose_response(other)
    other = dose_table()
    other.attrs["curve"] = other.attrs["curve"].assign(line="A549")
    with pytest.raises(ValueError, match="has no predictions of 'K562'"):
        pl.dose_response(other)
    other.attrs["curve"] = dose_table().attrs["curve"].assign(response=np.nan)
    with pytest.raises(ValueError, match="4 of 4 values of 'response' are missing or no finite numbers"):
        pl.dose_response(other)
    with pytest.raises(ValueError, match="'conc' has doses below 0, or none above"):
        pl.dose_response(dose_table(doses=(-3.0, 1.0)))


def test_errors_of_what_was_measured():
    rows = pd.DataFrame({"dose": [1.0], "response": [1.0]})
    with pytest.raises(TypeError, match="measured is a list: expected a DataFrame"):
        pl.dose_response(dose_table(), measured=[1])
    with pytest.raises(ValueError, match=r"measured lacks the columns \['response'\]"):
        pl.dose_response(dose_table(), measured=rows[["dose"]])
    with pytest.raises(ValueError, match="measured: 'conc' has doses below 0"):
        pl.dose_response(dose_table(), measured=rows.assign(dose=-1.0))
    with pytest.raises(ValueError, match="table has 2 contexts, and measured does not say of which .*column 'line'"):
        pl.dose_response(dose_table(("a", "b")), measured=rows)
    with pytest.raises(ValueError, match=r"measured has none of the contexts of table \('K562'\). Found: 'HeLa'"):
        pl.dose_response(dose_table(), measured=rows.assign(line="HeLa"))
    with pytest.raises(ValueError, match="measured: 1 of 1 values of 'response' are missing"):
        pl.dose_response(dose_table(), measured=rows.assign(response=np.nan))
