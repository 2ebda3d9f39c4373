"""tl.evaluate_intervals: coverage, width and error of each condition and pooled, and what uncertainty is worth."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr

from scjepa import metrics
from scjepa.tl import evaluate_intervals
from scjepa.tl.evaluation._profiles import ALL_CONDITIONS

GENES = [f"g{i}" for i in range(6)]
BASE = np.array([2.0, 2, 2, 2, 2, 0])  # the last gene is silent everywhere
TRUE = {"A": [1.0, 0.2, -0.5, 0.0, 0.1, 0.0], "B": [0.0, 0.4, 0.3, -1.5, 0.2, 0.0], "A+B": [2.0, 0.5, 0, 0, 0, 0.0]}
ERROR = {"A": 0.1, "B": 0.3, "A+B": 0.2}
HALF = {"A": 0.2, "B": 0.15, "A+B": 0.5}


@pytest.fixture
def real() -> ad.AnnData:
    """Two cells per condition around its mean."""
    rows = {"control": BASE} | {p: BASE + np.array(e) for p, e in TRUE.items()}
    x = np.vstack([m + d for m in rows.values() for d in (np.where(m > 0, 0.5, 0), np.where(m > 0, -0.5, 0))])
    obs = pd.DataFrame({"p": np.repeat(list(rows), 2)}, index=[f"c{i}" for i in range(8)])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def effects() -> pd.DataFrame:
    """Every effect of an expressed gene is too large by one number, every interval has one width."""
    rows = []
    for p, true in TRUE.items():
        for j, (g, e) in enumerate(zip(GENES, true, strict=True)):
            guess = e + ERROR[p] * (j < 5)
            rows.append((p, g, guess, guess - HALF[p], guess + HALF[p], {"A": 0.1, "B": 0.5, "A+B": 0.9}[p]))
    return pd.DataFrame(rows, columns=["perturbation", "gene", "effect", "lower", "upper", "distance"])


def look(table: pd.DataFrame, metric: str, genes: str = "expressed", perturbation: str = ALL_CONDITIONS) -> float:
    rows = table[(table.metric == metric) & (table.genes == genes) & (table.perturbation == perturbation)]
    assert len(rows) == 1
    return rows["value"].item()


def test_each_condition(effects, real):
    table = evaluate_intervals(effects, real, perturbation_key="p", n_top=2)
    assert list(table.columns) == ["level", "kind", "perturbation", "context", "genes", "metric", "value"]
    assert table["level"].unique().tolist() == [0.9]
    for p, covered in (("A", 1.0), ("B", 0.0), ("A+B", 1.0)):
        assert look(table, "coverage", perturbation=p) == covered
        assert look(table, "coverage", "all", p) == pytest.approx((5 * covered + 1) / 6)  # silent: covered for nothing
        assert look(table, "width", perturbation=p) == pytest.approx(2 * HALF[p])
        assert look(table, "l2", perturbation=p) == pytest.approx(ERROR[p] * np.sqrt(5))
        assert look(table, "l2", "top_2", p) == pytest.approx(ERROR[p] * np.sqrt(2))
        assert [look(table, "n_genes", s, p) for s in ("all", "expressed", "top_2")] == [6, 5, 2]
    assert look(table, "distance", "all", "B") == 0.5


def test_top_genes_have_the_largest_measured_effects(effects, real):
    missed = (effects.perturbation == "B") & (effects.gene == "g3")
    effects[["lower", "upper"]] = [-9.0, 9.0]
    effects.loc[missed, ["lower", "upper"]] = [-1.0, 9.0]  # the largest effect of B is -1.5
    table = evaluate_intervals(effects, real, perturbation_key="p", n_top=2)
    assert look(table, "coverage", "top_2", "B") == 0.5
    assert look(table, "coverage", "expressed", "B") == 0.8
    assert look(table, "coverage", "top_2") == pytest.approx(5 / 6)


def test_pooled_rows_and_curves(effects, real):
    table = evaluate_intervals(effects, real, perturbation_key="p")
    assert look(table, "coverage") == pytest.approx(10 / 15)
    assert look(table, "width") == pytest.approx(2 * np.mean(list(HALF.values())))
    error = np.array(list(ERROR.values())) * np.sqrt(5)
    assert look(table, "l2") == pytest.approx(error.mean())
    # widths rank B, A, A+B; errors A, A+B, B; distances A, B, A+B
    assert look(table, "spearman_width") == pytest.approx(-0.5)
    assert look(table, "spearman_distance") == pytest.approx(0.5)
    curves = real.uns["jepa"]["selective_risk"]
    curves = curves[curves.genes == "expressed"].set_index("uncertainty")
    unit = np.sqrt(5)
    for name, risk in (("width", [0.3, 0.2, 0.2]), ("distance", [0.1, 0.2, 0.2]), ("ideal", [0.1, 0.15, 0.2])):
        np.testing.assert_allclose(curves.loc[name, "kept"], [1 / 3, 2 / 3, 1])
        np.testing.assert_allclose(curves.loc[name, "risk"], unit * np.array(risk))
        assert look(table, f"risk_area_{name}") == pytest.approx(unit * np.mean(risk))
    assert set(table.loc[table.kind == "pooled", "perturbation"]) == {ALL_CONDITIONS}


def test_random_intervals_agree_with_the_metrics(real):
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 3, size=(60, 30))
    label = np.repeat(["control", "A", "B", "C"], 15)
    cells = ad.AnnData(x, obs=pd.DataFrame({"p": label}, index=[f"c{i}" for i in range(60)]))
    true = np.stack([x[label == p].mean(0) - x[label == "control"].mean(0) for p in "ABC"])
    effect, half = true + rng.normal(0, 0.2, true.shape), rng.uniform(0, 0.4, true.shape)
    tables = {}
    for level, scale in ((0.5, 0.5), (0.9, 1.0)):
        tables[level] = pd.DataFrame(
            {"perturbation": np.repeat(list("ABC"), 30), "gene": np.tile(cells.var_names, 3), "effect": effect.ravel(),
             "lower": (effect - scale * half).ravel(), "upper": (effect + scale * half).ravel()}
        )  # fmt: skip
    table = evaluate_intervals(tables, cells, perturbation_key="p")
    for level, scale in ((0.5, 0.5), (0.9, 1.0)):
        part = table[table.level == level]
        low, high = effect - scale * half, effect + scale * half
        assert look(part, "coverage") == metrics.interval_coverage(true, low, high)
        assert look(part, "width", "all", "B") == pytest.approx(metrics.interval_width(low[1], high[1]))
        assert look(part, "l2", "all", "C") == pytest.approx(metrics.l2(effect[2], true[2]))
        expected = spearmanr(half[0], np.abs(effect - true)[0]).statistic
        assert look(part, "gene_spearman", "all", "A") == pytest.approx(expected)
    assert np.isnan(look(table[table.level == 0.5], "risk_area_distance"))  # no distances were given


def test_contexts_have_their_own_controls_and_spelling_does_not_matter(effects, real):
    other = real.copy()
    other.X[:, :5] += 3  # all means are higher, effects are the same
    other.obs_names = [f"d{i}" for i in range(8)]
    both = ad.concat({"x": real, "y": other}, label="type")
    table = pd.concat([effects.assign(type="x"), effects.assign(type="y")])[["type", *effects.columns]]
    found = evaluate_intervals(table.replace("A+B", "B+A"), both, perturbation_key="p", context_key="type")
    alone = evaluate_intervals(effects, real, perturbation_key="p")
    for metric in ("coverage", "width", "l2"):
        assert look(found, metric) == pytest.approx(look(alone, metric))
    rows = found[(found.metric == "l2") & (found.genes == "all") & (found.kind == "condition")]
    assert list(zip(rows.perturbation, rows.context, strict=True)) == [(p, c) for c in "xy" for p in ("A", "B", "B+A")]
    renamed = evaluate_intervals(
        table.rename(columns={"type": "context"}), both, perturbation_key="p", context_key="type"
    )
    pd.testing.assert_frame_equal(renamed.replace("A+B", "B+A"), found)


def test_order_of_rows_sparse_cells_and_order_of_genes_do_not_matter(effects, real):
    expected = evaluate_intervals(effects, real, perturbation_key="p")
    same = real[::-1, ::-1].copy()
    same.X = sp.csr_matrix(same.X)
    found = evaluate_intervals(effects.sample(frac=1, random_state=0), same, perturbation_key="p")
    keys = ["perturbation", "genes", "metric"]
    pd.testing.assert_frame_equal(
        found.sort_values(keys).reset_index(drop=True), expected.sort_values(keys).reset_index(drop=True)
    )


def test_missing_genes_of_a_condition_count_nowhere(effects, real):
    found = evaluate_intervals(
        effects[(effects.perturbation != "A") | (effects.gene != "g0")], real, perturbation_key="p"
    )
    assert look(found, "n_genes", "all", "A") == 5
    assert look(found, "l2", "expressed", "A") == pytest.approx(0.1 * 2)
    assert look(found, "n_genes", "all") == 17


def test_written_and_saved(effects, real, tmp_path):
    table = evaluate_intervals({0.5: effects, 0.9: effects}, real, perturbation_key="p", key_added="mine")
    pd.testing.assert_frame_equal(real.uns["jepa"]["mine"], table)
    real.write_h5ad(tmp_path / "real.h5ad")
    back = ad.read_h5ad(tmp_path / "real.h5ad").uns["jepa"]
    assert back["mine"].shape == table.shape
    assert sorted(back["selective_risk"]["level"].unique()) == [0.5, 0.9]


def test_errors(effects, real):
    check = lambda table, cells=real, **kwargs: evaluate_intervals(table, cells, perturbation_key="p", **kwargs)
    with pytest.raises(TypeError, match="effects is a list: expected the DataFrame of PerturbJEPA.predict_effect"):
        check([1])
    with pytest.raises(TypeError, match="effects holds nothing"):
        check({})
    with pytest.raises(ValueError, match="levels '90': expected numbers between 0 and 1"):
        check(effects, level=90)
    with pytest.raises(ValueError, match=r"effects\[0.5\] lacks the columns \['upper'\]"):
        check({0.5: effects.drop(columns="upper")})
    with pytest.raises(ValueError, match="effects has no rows"):
        check(effects.iloc[:0])
    with pytest.raises(ValueError, match="n_top=0: expected a whole number"):
        check(effects, n_top=0)
    with pytest.raises(ValueError, match=r"1 of 3 conditions of effects have no perturbed cells in real: 'A\+C'"):
        check(effects.replace("A+B", "A+C"))
    with pytest.raises(
        ValueError, match="1 of the 6 genes of effects are not in real.var_names: 'G5'.*Did you mean 'g5'"
    ):
        check(effects.replace("g5", "G5"))
    with pytest.raises(ValueError, match="18 rows that repeat a condition and gene"):
        check(pd.concat([effects, effects]))
    with pytest.raises(ValueError, match="the column 'type', which tells conditions apart.*context_key='type'"):
        check(effects.assign(type="x")[["perturbation", "type", *effects.columns[1:]]])
    two = real.copy()
    two.obs["type"] = ["x", "y"] * 4
    with pytest.raises(ValueError, match="effects has no column 'type', and real has 2 contexts: 'x', 'y'"):
        check(effects, two, context_key="type")
    with pytest.raises(ValueError, match="lower ends lie above their upper ends"):
        check(effects.rename(columns={"lower": "upper", "upper": "lower"}))
    with pytest.raises(KeyError, match="perturbation_key='q' is not a column"):
        evaluate_intervals(effects, real, perturbation_key="q")
    with pytest.raises(TypeError, match="real is a DataFrame: expected an AnnData"):
        check(effects, effects)
