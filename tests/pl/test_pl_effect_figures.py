"""pl.effects and pl.effect_intervals: colors, dots, bars and diamonds are the numbers of the table."""

from __future__ import annotations

import logging

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from scjepa import pl
from scjepa.pl._effects import PALE, UNSURE
from scjepa.pl._figure import COLORS

GENES = [f"g{i}" for i in range(6)]


@pytest.fixture
def table() -> pd.DataFrame:
    """A and A+B in two contexts; the effect of gene i is known, intervals are +-0.5; A+B in u is abstained from."""
    rows = []
    for k, (p, c) in enumerate([("A", "t"), ("A", "u"), ("A+B", "t"), ("A+B", "u")]):
        for i, g in enumerate(GENES):
            effect = (i - 2) * (1 + k)
            rows.append((p, c, g, effect, effect - 0.5, effect + 0.5, 0.1, "near", (p, c) == ("A+B", "u")))
    names = ["perturbation", "type", "gene", "effect", "lower", "upper", "distance", "support", "abstain"]
    frame = pd.DataFrame(rows, columns=names)
    frame["effect"] /= 10.0
    frame["lower"] = frame["effect"] - 0.15
    frame["upper"] = frame["effect"] + 0.15
    return frame


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def wide(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index=["perturbation", "type"], columns="gene", values="effect")


# ---------------------------------------------------------------- heat map


def test_colors_are_effects_and_rows_are_conditions(table):
    ax = pl.effects(table, genes=GENES)
    expected = [[(i - 2) * (1 + k) / 10 for i in range(6)] for k in range(4)]
    np.testing.assert_allclose(ax.images[0].get_array(), expected, atol=1e-12)
    assert ticks(ax.yaxis) == ["A, t", "A, u", "A+B, t", "A+B, u"]
    assert ticks(ax.xaxis) == GENES
    low, high = ax.images[0].get_clim()
    assert low == -high
    assert high == pytest.approx(1.2)


def test_dots_where_the_interval_excludes_zero(table):
    dots = pl.effects(table, genes=GENES).collections[0].get_offsets()
    expected = {(i, k) for k in range(4) for i in range(6) if abs((i - 2) * (1 + k) / 10) > 0.15}
    assert {(int(x), int(y)) for x, y in dots} == expected


def test_what_is_abstained_from_is_pale_and_gray(table):
    ax = pl.effects(table)
    opacity = ax.images[0].get_alpha()
    assert opacity.shape == (4, 6)
    assert (opacity[:3] == 1).all() and (opacity[3] == PALE).all()
    assert [to_hex(label.get_color()).upper() == UNSURE for label in ax.get_yticklabels()] == [False] * 3 + [True]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["interval excludes 0", "pale: the model abstains"]


def test_no_legend_for_what_is_not_there(table):
    plain = table.assign(lower=-9.0, upper=9.0).drop(columns="abstain")
    assert pl.effects(plain).get_legend() is None


def test_genes_are_chosen_by_size_without_what_is_abstained_from_and_sorted_by_mean(table):
    table.loc[(table.gene == "g2") & table.abstain, "effect"] = 99.0  # would be first
    table.loc[(table.gene == "g1") & ~table.abstain, "effect"] = -5.0
    assert ticks(pl.effects(table, n_genes=3).xaxis) == ["g5", "g0", "g1"]
    table["abstain"] = True
    assert "g2" in ticks(pl.effects(table, n_genes=1).xaxis)


def test_one_huge_effect_does_not_leave_the_others_white():
    rows = [("A", f"g{i}", 0.1, 0.0, 0.2) for i in range(99)] + [("A", "big", 50.0, 49.0, 51.0)]
    table = pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper"])
    ax = pl.effects(table, n_genes=100)
    assert ax.images[0].get_clim() == pytest.approx((-0.1, 0.1))
    assert ax.images[0].colorbar.extend == "both"


def test_missing_genes_stay_empty(table):
    shown = pl.effects(table[~((table.gene == "g5") & (table.type == "t"))], genes=GENES).images[0].get_array()
    assert np.ma.getmaskarray(shown)[:, 5].tolist() == [True, False, True, False]


def test_effects_of_zero_have_colors():
    rows = [("A", "g", 0.0, -1.0, 1.0)]
    ax = pl.effects(pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper"]))
    assert ax.images[0].get_clim() == (-1, 1)


def test_names_do_not_overlap_on_a_large_table(table):
    rng = np.random.default_rng(0)
    many = pd.DataFrame(
        [(f"GENE{k}+OTHER{k}", f"LONGNAME{i}", rng.normal(), -1.0, 1.0) for k in range(25) for i in range(30)],
        columns=["perturbation", "gene", "effect", "lower", "upper"],
    )
    ax = pl.effects(many)
    ax.get_figure().canvas.draw()
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))


# ---------------------------------------------------------------- forest plot


def forest(ax) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals and the predicted dots."""
    lines = next(c for c in ax.collections if isinstance(c, LineCollection))
    ends = np.array([[segment[0][0], segment[1][0]] for segment in lines.get_segments()])
    dots = next(c for c in ax.collections if isinstance(c, PathCollection))
    return ends, np.asarray(dots.get_offsets())


def test_bars_are_intervals_and_dots_effects_of_the_largest(table):
    ax = pl.effect_intervals(table[table.type == "t"], "A", n_genes=3)
    assert ticks(ax.yaxis) == ["g5", "g0", "g4"]
    ends, dots = forest(ax)
    np.testing.assert_allclose(dots, [[0.3, 0], [-0.2, 1], [0.2, 2]])
    np.testing.assert_allclose(ends, [[0.15, 0.45], [-0.35, -0.05], [0.05, 0.35]])
    assert ax.get_title() == "A, t (support: near)"


def test_intervals_that_include_zero_are_gray(table):
    ax = pl.effect_intervals(table[table.type == "t"], "A", genes=["g5", "g1"])
    lines = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert [to_hex(c).upper() for c in lines.get_colors()] == [COLORS[0], UNSURE]


def test_measured_effects_are_diamonds_counted_when_inside(table):
    here = table[table.type == "t"]
    true = pd.Series({"g5": 0.4, "g4": 0.9, "g3": 0.1})
    ax = pl.effect_intervals(here, "A", true=true, genes=["g3", "g4", "g5", "g0"])
    diamonds = ax.collections[-1].get_offsets()
    np.testing.assert_allclose(np.ma.filled(diamonds[:, 0], np.nan), [0.1, 0.9, 0.4, np.nan])
    assert ax.get_legend().get_texts()[-1].get_text() == "measured (2 of 3 inside)"


@pytest.mark.parametrize("form", ["wide", "levels swapped", "tidy", "only the perturbation"])
def test_measured_effects_in_any_form(table, form):
    here = table[(table.type == "u") & (table.perturbation == "A+B")]
    true = wide(table.assign(perturbation=table.perturbation.replace("A+B", "B+A"), effect=table.effect + 0.05))
    forms = {
        "wide": true,
        "levels swapped": true.swaplevel(),
        "tidy": true.stack().rename("effect").reset_index(),
        "only the perturbation": true.xs("u", level="type").rename_axis("condition"),
    }
    diamonds = pl.effect_intervals(here, "A+B", true=forms[form], genes=GENES).collections[-1].get_offsets()
    np.testing.assert_allclose(diamonds[:, 0], here["effect"] + 0.05)


def test_a_missing_context_is_one_like_others(table):
    table["type"] = table["type"].astype(object).where(table.type == "t", None)
    ax = pl.effects(table, genes=GENES)
    np.testing.assert_allclose(ax.images[0].get_array()[1], [(i - 2) * 2 / 10 for i in range(6)], atol=1e-12)
    here = table[table.type.isna() & (table.perturbation == "A")]
    true = table.assign(effect=table.effect + 0.05)
    diamonds = pl.effect_intervals(here, "A", true=true, genes=GENES).collections[-1].get_offsets()
    np.testing.assert_allclose(diamonds[:, 0], here["effect"] + 0.05)


def test_an_abstention_is_in_the_title(table):
    title = pl.effect_intervals(table[table.type == "u"], "A+B").get_title()
    assert title == "A+B, u (support: near)\nthe model abstains"


def test_one_perturbation_need_not_be_named(table):
    here = table[(table.type == "t") & (table.perturbation == "A")]
    assert pl.effect_intervals(here).get_title().startswith("A, t")


def test_own_axes_and_file(table, tmp_path):
    _, axes = plt.subplots(1, 2)
    assert pl.effects(table, ax=axes[0], save=tmp_path / "a.png") is axes[0]
    assert pl.effect_intervals(table[table.type == "t"], "A", ax=axes[1], save=tmp_path / "b.png") is axes[1]
    assert all((tmp_path / n).read_bytes().startswith(b"\x89PNG") for n in ("a.png", "b.png"))


# ---------------------------------------------------------------- messages


def test_errors_of_the_table(table):
    with pytest.raises(TypeError, match="effects is a dict: expected the DataFrame of PerturbJEPA.predict_effect"):
        pl.effects({})
    with pytest.raises(ValueError, match=r"effects lacks the columns \['lower'\].*Columns found: 'perturbation'"):
        pl.effects(table.drop(columns="lower"))
    with pytest.raises(ValueError, match="effects has no rows"):
        pl.effects(table[:0])
    with pytest.raises(ValueError, match=r"24 rows that repeat a condition \(perturbation, type\) and gene.*one level"):
        pl.effects(pd.concat([table, table]))
    with pytest.raises(ValueError, match="genes: 'G5' asked for, not in effects. Did you mean 'g5'"):
        pl.effects(table, genes=["g1", "G5"])
    with pytest.raises(ValueError, match="genes: none asked for"):
        pl.effects(table, genes=[])
    with pytest.raises(ValueError, match="n_genes=0: expected a whole number"):
        pl.effects(table, n_genes=0)


def test_errors_of_the_perturbation(table):
    with pytest.raises(ValueError, match="effects has 2 perturbations: give one of 'A', 'A[+]B'"):
        pl.effect_intervals(table)
    with pytest.raises(ValueError, match="effects has no perturbation 'A[+]b'. Did you mean 'A[+]B'"):
        pl.effect_intervals(table, "A+b")
    with pytest.raises(ValueError, match=r"'A' with 2 values of 'type' \('t', 'u'\): keep one, .*\['type'\] == 't'\]"):
        pl.effect_intervals(table, "A")


def test_errors_of_measured_effects(table):
    here = table[(table.type == "t") & (table.perturbation == "A")]
    true = wide(table)
    draw = lambda t, e=here: pl.effect_intervals(e, "A", true=t)
    with pytest.raises(TypeError, match="true is a list: expected a DataFrame of measured effects"):
        draw([1.0])
    with pytest.raises(ValueError, match="true has row numbers for an index"):
        draw(true.reset_index(drop=True))
    with pytest.raises(ValueError, match="apart by 'line', which is not a column of effects"):
        draw(true.rename_axis(["perturbation", "line"]))
    with pytest.raises(ValueError, match="true has 1 rows that repeat a condition"):
        draw(pd.concat([true, true[:1]]))
    with pytest.raises(ValueError, match="none of the 1 conditions of effects: 'A'.*Perturbations found: 'A[+]B'"):
        draw(true.loc[["A+B"]])
    with pytest.raises(ValueError, match="true has none of the genes of effects: 'g0'"):
        draw(true.rename(columns=str.upper))
    with pytest.raises(ValueError, match="all are missing"):
        draw(true * np.nan)


def test_true_must_tell_apart_what_effects_tell_apart(table):
    levels = {0.5: table}
    with pytest.raises(ValueError, match="effects differ by 'type', and true does not say of which type"):
        pl.calibration(levels, wide(table).xs("t", level="type"))
    with pytest.raises(ValueError, match="true is a Series, the effects of one condition, but effects has 4"):
        pl.calibration(levels, pd.Series({"g1": 1.0}))


def test_conditions_without_measurement_are_named_in_the_log(table, caplog):
    with caplog.at_level(logging.INFO, logger="scjepa"):
        pl.calibration({0.5: table}, wide(table).drop(("A+B", "u")) + 1)
    assert "true has no measured effects of 1 of 4 conditions: 'A+B, u'" in caplog.text
