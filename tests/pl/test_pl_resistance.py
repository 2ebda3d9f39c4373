"""pl.resistance: courses over time, and marks where they fade."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from tests.pl.drug_tables import dots, texts, time_table

from scjepa import pl
from scjepa.pl._figure import COLORS

NEVER = (np.nan, np.nan, np.nan)


def test_the_course_and_the_mark_on_it():
    (ax,) = pl.resistance(time_table({"K562": (48.0, 24.0, 72.0)}, abstain=True)).axes
    course, bar = (line.get_xydata() for line in ax.lines[:2])
    np.testing.assert_allclose(course, [[6, 2], [24, 4], [48, 2], [72, 1]])
    np.testing.assert_allclose(bar, [[24, 2], [72, 2]])
    np.testing.assert_allclose(dots(ax, hollow=True), [[72, 1]])
    np.testing.assert_allclose(dots(ax)[-1], [48, 2])
    assert (ax.get_xlabel(), ax.get_title()) == ("hours", "D01")
    assert texts(ax.get_legend()) == [
        "K562: fades at 48 (24 to 72)",
        "onset of resistance, interval",
        "hollow: the model abstains",
    ]


def test_an_onset_between_times_lies_on_the_line():
    (ax,) = pl.resistance(time_table({"K562": (36.0, 24.0, 48.0)})).axes
    np.testing.assert_allclose(dots(ax)[-1], [36, 3])


def test_an_open_interval_ends_with_the_times():
    (ax,) = pl.resistance(time_table({"K562": (60.0, 48.0, np.inf)})).axes
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [48, 72])
    assert texts(ax.get_legend())[0] == "K562: fades at 60 (from 48)"
    (ax,) = pl.resistance(time_table({"K562": (60.0, np.nan, np.nan)})).axes
    assert texts(ax.get_legend())[0] == "K562: fades at 60"


def test_what_does_not_fade_has_no_mark():
    (ax,) = pl.resistance(time_table({"K562": NEVER})).axes
    assert len(dots(ax)) == 4
    assert texts(ax.get_legend()) == ["K562: does not fade"]


def test_contexts_share_a_panel_or_have_their_own():
    (ax,) = pl.resistance(time_table({"a": NEVER, "b": (36.0, 24.0, 48.0)})).axes
    marks = [c for c in ax.collections if len(c.get_offsets()) == 1]
    assert [to_hex(c.get_facecolor()[0]).upper() for c in marks] == [COLORS[1]]
    figure = pl.resistance(time_table({f"P{i}": NEVER for i in range(12)} | {"P3": (36.0, 24.0, 48.0)}))
    assert len(figure.axes) == 12 and len({ax.get_ylim() for ax in figure.axes}) == 1
    assert figure.axes[3].get_title() == "P3\nfades at 36 (24 to 48)"
    assert figure.axes[4].get_title() == "P4\ndoes not fade"
    assert texts(figure.legends[0]) == ["onset of resistance, interval"]


def test_own_axes_and_file(tmp_path):
    figure, ax = plt.subplots()
    assert pl.resistance(time_table({"a": NEVER}), ax=ax, save=tmp_path / "r.png") is figure
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_errors():
    table = time_table({"a": NEVER})
    with pytest.raises(
        ValueError, match=r"table lacks the columns \['onset'\]: expected the table of DrugJEPA.resistance"
    ):
        pl.resistance(table.drop(columns="onset"))
    table.attrs.clear()
    with pytest.raises(ValueError, match="is missing: expected the predictions that DrugJEPA.resistance_emergence"):
        pl.resistance(table)
