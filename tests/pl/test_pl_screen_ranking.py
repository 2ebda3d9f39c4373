"""pl.screen_ranking: scores by rank, names of the first, rings around hits, colors by similarity."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from tests.pl.drug_tables import dots, overlaps, texts

from scjepa import pl
from scjepa.pl._figure import COLORS


def ranking(n: int = 6, **columns) -> pd.DataFrame:
    """Scores that fall from 1 to -1."""
    names = [f"drug {i}" for i in range(n)]
    return pd.DataFrame({"rank": np.arange(n) + 1, "name": names, "score": np.linspace(1, -1, n), **columns})


def names(ax) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_scores_by_rank_with_the_names_of_the_first():
    ax = pl.screen_ranking(ranking(), n_labels=2)
    np.testing.assert_allclose(dots(ax), np.column_stack([np.arange(1, 7), np.linspace(1, -1, 6)]))
    assert names(ax) == ["drug 0", "drug 1"]
    assert (ax.get_title(), ax.get_legend()) == ("6 molecules by predicted response", None)
    assert ax.get_xscale() == "linear"
    assert names(pl.screen_ranking(ranking(), n_labels=0)) == []


def test_rows_in_any_order():
    assert names(pl.screen_ranking(ranking().iloc[::-1], n_labels=1)) == ["drug 0"]


def test_highlighted_names_are_ringed_and_written_wherever_they_rank():
    ax = pl.screen_ranking(ranking(), highlight=["drug 5", "drug 1"], n_labels=1)
    rings = next(c for c in ax.collections if to_hex(c.get_edgecolor()[0]).upper() == COLORS[1])
    np.testing.assert_allclose(rings.get_offsets(), [[2, 0.6], [6, -1]])
    assert set(names(ax)) == {"drug 0", "drug 1", "drug 5"}
    assert texts(ax.get_legend()) == ["highlighted: ranks 2, 6 of 6"]
    assert texts(pl.screen_ranking(ranking(), highlight="drug 2").get_legend()) == ["highlighted: rank 3 of 6"]
    many = pl.screen_ranking(ranking(), highlight=[f"drug {i}" for i in range(6)])
    assert texts(many.get_legend()) == ["highlighted: ranks 1, 2, 3, 4 and 2 more of 6"]


def test_colors_are_similarities_from_none_to_one_and_gray_where_unknown():
    ax = pl.screen_ranking(ranking(3, similarity=[0.0, np.nan, 1.0]))
    drawn = ax.collections[0]
    assert drawn.get_clim() == (0, 1) and drawn.colorbar.ax.get_ylabel() == "similarity to the nearest drug of training"
    ax.figure.canvas.draw()
    assert [to_hex(c) for c in drawn.get_facecolor()] == ["#440154", "#b8b8b8", "#fde725"]


@pytest.mark.parametrize("columns", [{}, {"similarity": [0.0, 0.5, 1.0]}])
def test_hollow_where_the_model_abstains(columns):
    ax = pl.screen_ranking(ranking(3, abstain=[False, True, False], **columns))
    np.testing.assert_allclose(dots(ax, hollow=True), [[2, 0]])
    assert texts(ax.get_legend()) == ["hollow: the model abstains"]


def test_large_libraries_have_a_log_axis_and_names_that_do_not_overlap():
    table = ranking(5000)
    table["name"] = [f"CC(C)c1ccc(cc1)N2CCN(CC2)C(=O)c1ccccc1{i}" for i in range(5000)]
    ax = pl.screen_ranking(table, highlight=[table["name"][4000]])
    assert ax.get_xscale() == "log"
    assert 2 <= len(names(ax)) <= 11 and all(len(name) <= 22 and name.endswith("…") for name in names(ax))
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()][1:4] == ["1", "10", "100"]
    assert overlaps([*ax.texts, *ax.get_legend().get_texts(), ax.xaxis.label]) == []


def test_one_molecule():
    np.testing.assert_allclose(dots(pl.screen_ranking(ranking(1))), [[1, 1]])


def test_own_axes_and_file(tmp_path):
    _, ax = plt.subplots()
    assert pl.screen_ranking(ranking(), ax=ax, save=tmp_path / "s.png") is ax
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_errors():
    with pytest.raises(TypeError, match="table is a list: expected the DataFrame of DrugJEPA.screen_drugs"):
        pl.screen_ranking([1])
    with pytest.raises(ValueError, match=r"table lacks the columns \['score'\]"):
        pl.screen_ranking(ranking().drop(columns="score"))
    with pytest.raises(ValueError, match="highlight: 'drug 9' not in table. Did you mean 'drug"):
        pl.screen_ranking(ranking(), highlight=["drug 1", "drug 9"])
    with pytest.raises(ValueError, match="6 of 6 values of 'score' are missing"):
        pl.screen_ranking(ranking().assign(score=np.nan))
