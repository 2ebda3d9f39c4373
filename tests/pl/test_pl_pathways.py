"""pl.pathways: a dot per pathway and side, where and as large as the table says."""

from __future__ import annotations

import logging

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scjepa import pl
from scjepa.pl._pathways import AREA, LIMITS

COLUMNS = ["perturbation", "context", "enrichment", "side", "term", "score", "fdr"]


@pytest.fixture
def terms() -> pd.DataFrame:
    """Two conditions x two sides x four pathways; in B the prediction finds nothing."""
    rows = []
    for side, shift in (("pred", 0.0), ("real", 1.0)):
        for term, score, fdr in (
            ("X_ONE", 6.0, 1e-6),
            ("HALLMARK_TWO", 3.0, 1e-2),
            ("THREE", 1.0, 0.1),
            ("FOUR", 0.0, 1.0),
        ):
            rows.append(("A", "x", "ora", side, term, score + shift * (score > 0), fdr))
            rows.append(("B", "x", "ora", side, term, np.nan if side == "pred" else score / 2, 0.5))
    return pd.DataFrame(rows, columns=COLUMNS)  # fmt: skip


def names(ax) -> list[str]:
    return [t.get_text() for t in ax.get_yticklabels()]


def test_dots_have_place_area_color_and_ring(terms):
    ax = pl.pathways(terms)
    assert names(ax) == ["X ONE", "TWO", "THREE"]  # FOUR is enriched nowhere
    assert [t.get_text() for t in ax.get_xticklabels()] == ["predicted", "measured"] * 2
    assert [t.get_text() for t in ax.texts] == ["A", "B"]
    (dots,) = ax.collections
    column = {x: i for i, x in enumerate(ax.get_xticks())}
    found = {
        (column[x], int(y)): (size, value, ring)
        for (x, y), size, value, ring in zip(
            dots.get_offsets(), dots.get_sizes(), dots.get_array(), dots.get_linewidths(), strict=True
        )
    }
    assert set(found) == {(c, r) for c in (0, 1, 3) for r in range(3)}  # nothing predicted in B
    for r, (score, fdr) in enumerate([(6.0, 1e-6), (3.0, 1e-2), (1.0, 0.1)]):
        for c, value in ((0, score), (1, score + 1)):
            size, color, ring = found[c, r]
            assert size == pytest.approx(AREA * -np.log10(fdr) / 6)
            assert color == pytest.approx(value)
            assert ring == (1.0 if fdr < 0.05 else 0.3)
        assert found[3, r][0] == pytest.approx(AREA * -np.log10(0.5) / 6)
    assert dots.get_clim() == (0, 7)


def test_signed_scores_have_a_symmetric_scale_and_permutations_a_floor(terms):
    signed = terms.assign(enrichment="prerank", score=terms["score"] - 4, fdr=terms["fdr"] * (terms["score"] < 6))
    ax = pl.pathways(signed)
    (dots,) = ax.collections
    assert dots.get_clim() == (-4, 4) and dots.get_cmap().name == "RdBu_r"
    assert dots.get_sizes().max() == AREA  # FDR 0
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels[-2:] == ["≤ 10$^{-3}$", "below 0.05"] and LIMITS["prerank"] == 3


def test_n_terms_keeps_the_leading_ones_of_any_column(terms):
    assert names(pl.pathways(terms, n_terms=1)) == ["X ONE"]
    lone = pd.DataFrame([("A", "x", "ora", "pred", "WRONG", 9.0, 1e-9)], columns=COLUMNS)
    assert names(pl.pathways(pd.concat([terms, lone]), n_terms=2)) == ["X ONE", "WRONG"]  # false leads show


def test_perturbations_and_n_conditions(terms, caplog):
    title = lambda ax: [t.get_text() for t in ax.texts]
    assert title(pl.pathways(terms, perturbations=["B", "A"])) == ["B", "A"]
    with caplog.at_level(logging.INFO, logger="scjepa.pl._pathways"):
        assert title(pl.pathways(terms, n_conditions=1)) == ["A"]
    assert "1 of 2 conditions are not drawn: 'B in x'" in caplog.text


def test_enrichment_is_chosen(terms):
    both = pd.concat([terms, terms.assign(enrichment="prerank", term=terms["term"] + "_P")])
    assert names(pl.pathways(both))[0] == "X ONE"
    assert names(pl.pathways(both, enrichment="prerank"))[0] == "X ONE P"


def test_long_names_are_wrapped(terms):
    long = "GOBP:negative regulation of a very long process that nobody can read in one line of a figure (GO:0001234)"
    (name,) = names(pl.pathways(terms[terms.term == "X_ONE"].replace("X_ONE", long)))
    assert name.count("\n") == 1 and max(map(len, name.split("\n"))) <= 42
    assert name.startswith("negative regulation") and name.endswith(" …")


def test_anndata_after_a_file_own_axes_and_file(terms, tmp_path):
    cells = ad.AnnData(np.ones((1, 1)), uns={"jepa": {"pathway_terms": terms}})
    cells.write_h5ad(tmp_path / "cells.h5ad")
    _, ax = plt.subplots()
    assert pl.pathways(ad.read_h5ad(tmp_path / "cells.h5ad"), ax=ax, save=tmp_path / "p.png") is ax
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_errors(terms):
    with pytest.raises(ValueError, match="no table 'pathway_terms'.*run scjepa.tl.pathway_consistency first"):
        pl.pathways(ad.AnnData(np.ones((1, 1))))
    with pytest.raises(ValueError, match="terms lacks the column 'enrichment'"):
        pl.pathways(terms.drop(columns="enrichment"))
    with pytest.raises(ValueError, match="no scores to draw"):
        pl.pathways(terms.assign(score=np.nan))
    with pytest.raises(ValueError, match="enrichment='prerank' is not among"):
        pl.pathways(terms, enrichment="prerank")
    with pytest.raises(ValueError, match="perturbations='C' is not among the perturbations in terms"):
        pl.pathways(terms, perturbations="C")
    with pytest.raises(ValueError, match="n_terms=0: expected a whole number"):
        pl.pathways(terms, n_terms=0)
