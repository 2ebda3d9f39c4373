"""pl.selective_risk: lines are the curves of tl.evaluate_intervals, the legend says what they are worth."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scjepa import pl
from scjepa.metrics import selective_risk_curve

ERROR = np.array([1.0, 4.0, 2.0, 3.0])
WIDTH = np.array([0.2, 0.9, 0.1, 0.5])


def curve(name: str, uncertainty: np.ndarray, level: float = 0.9, genes: str = "expressed") -> pd.DataFrame:
    kept, risk = selective_risk_curve(ERROR, uncertainty)
    return pd.DataFrame({"level": level, "genes": genes, "uncertainty": name, "kept": kept, "risk": risk})


@pytest.fixture
def curves() -> pd.DataFrame:
    worst = -ERROR
    parts = [curve("width", WIDTH), curve("distance", worst), curve("ideal", ERROR)]
    other = [
        curve("width", worst, 0.5),
        curve("ideal", ERROR, 0.5),
        curve("width", worst, genes="all"),
        curve("ideal", ERROR, genes="all"),
    ]
    return pd.concat([*other, *parts], ignore_index=True)  # fmt: skip


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.get_legend().get_texts()]


def test_lines_and_the_share_of_the_ideal_gain(curves):
    ax = pl.selective_risk(curves)
    width, distance, every, ideal = (line.get_xydata() for line in ax.lines)
    np.testing.assert_allclose(width, [[0.25, 2], [0.5, 1.5], [0.75, 2], [1, 2.5]])
    np.testing.assert_allclose(distance, [[0.25, 4], [0.5, 3.5], [0.75, 3], [1, 2.5]])
    np.testing.assert_allclose(ideal, [[0.25, 1], [0.5, 1.5], [0.75, 2], [1, 2.5]])
    assert set(every[:, 1]) == {2.5}
    # areas: 2 of the width, 3.25 of the distance, 1.75 at best, 2.5 with all kept
    assert texts(ax) == [
        "interval width: 67 % of the ideal gain",
        "distance from training: -100 % of the ideal gain",
        "all kept: 2.5",
        "ideal order: largest errors left out",
    ]
    assert ax.get_title() == "selective risk, 4 conditions"


def test_level_and_genes_are_chosen(curves):
    for kwargs in ({"level": 0.5}, {"genes": "all"}):
        ax = pl.selective_risk(curves, **kwargs)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [4, 3.5, 3, 2.5])
    assert "all genes" in ax.get_ylabel()


def test_equal_errors_leave_nothing_to_gain(curves):
    ax = pl.selective_risk(curves.assign(risk=1.0))
    assert texts(ax)[0] == "interval width: no ideal gain to compare with"


def test_anndata_after_a_file_own_axes_and_file(curves, tmp_path):
    cells = ad.AnnData(np.ones((1, 1)), uns={"jepa": {"selective_risk": curves}})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    _, ax = plt.subplots()
    assert pl.selective_risk(ad.read_h5ad(tmp_path / "cells.h5ad"), ax=ax, save=tmp_path / "r.png") is ax
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_errors(curves):
    with pytest.raises(ValueError, match="no table 'selective_risk'.*run scjepa.tl.evaluate_intervals first"):
        pl.selective_risk(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(TypeError, match="curves is a list: expected the AnnData or a table written by"):
        pl.selective_risk([1])
    with pytest.raises(ValueError, match=r"curves lacks the columns \['kept'\]"):
        pl.selective_risk(curves.drop(columns="kept"))
    with pytest.raises(ValueError, match="genes='top_5' is not among the sets of genes in curves"):
        pl.selective_risk(curves, genes="top_5")
    with pytest.raises(ValueError, match="level=0.8 is not among the levels in curves"):
        pl.selective_risk(curves, level=0.8)
    with pytest.raises(ValueError, match="curves lacks the uncertainty 'ideal'"):
        pl.selective_risk(curves[curves.uncertainty != "ideal"])
