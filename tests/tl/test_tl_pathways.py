"""tl.pathway_consistency: known enrichments, agreement with the hypergeometric test, rows beside the prediction."""

from __future__ import annotations

import builtins
import gzip

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from scjepa.baselines import Additive, NoChange
from scjepa.tl import evaluate, pathway_consistency
from scjepa.tl.evaluation._enrichment import read_gene_sets

pytest.importorskip("gseapy")
GENES = [f"g{i}" for i in range(60)]
SETS = {f"set{j}": GENES[10 * j : 10 * j + 10] for j in range(6)} | {"mixed": GENES[::6]}


def profiles(**up: list[int]) -> ad.AnnData:
    """Controls at one; genes of the named sets fivefold, with small steps so that ranks are unique."""
    x = np.ones((len(up) + 1, 60)) + np.linspace(0, 0.1, 60)
    for i, sets in enumerate(up.values(), 1):
        for j in sets:
            x[i, 10 * j : 10 * j + 10] *= 5 + np.linspace(0, 0.5, 10)
    x[1:] *= 1 + np.sin(np.arange(60)) * 0.02
    obs = pd.DataFrame({"p": ["control", *up]}, index=[f"c{i}" for i in range(len(up) + 1)])
    return ad.AnnData(np.log1p(x), obs=obs, var=pd.DataFrame(index=GENES))


def scores(table, perturbation, method, who="model") -> dict[str, float]:
    rows = table[(table.perturbation == perturbation) & (table.enrichment == method) & (table.method == who)]
    return rows.set_index("metric")["value"].to_dict()


def run(pred, real, sets=SETS, **kwargs):
    return pathway_consistency(
        pred, real, sets, perturbation_key="p", **{"top": 1, "permutations": 50, "baselines": None, **kwargs}
    )


def test_right_and_wrong_predictions():
    real = profiles(A=[0], B=[3])
    pred = profiles(A=[0], B=[4])[1:].copy()
    table = run(pred, real)
    for method in ("ora", "prerank"):
        assert scores(table, "A", method)["overlap_at_1"] == 1
        assert scores(table, "B", method)["overlap_at_1"] == 0
        assert scores(table, "A", method)["spearman"] == pytest.approx(1)
        assert scores(table, "B", method)["spearman"] < 0.5
    assert scores(table, "A", "ora")["jaccard"] == 1 and scores(table, "B", "ora")["jaccard"] == 0
    terms = pred.uns["jepa"]["pathway_terms"]
    assert len(terms) == 2 * 2 * 2 * len(SETS)
    first = terms[(terms.perturbation == "B") & (terms.side == "pred") & (terms.enrichment == "prerank")]
    assert first.loc[first["score"].idxmax(), "term"] == "set4"


def test_over_representation_is_the_hypergeometric_test():
    real = profiles(A=[0])
    pred = real[1:].copy()
    run(pred, real, enrichment="ora")
    terms = pred.uns["jepa"]["pathway_terms"].query("side == 'real'").set_index("term")
    full, two = hypergeom.sf(9, 60, 10, 10), hypergeom.sf(1, 60, 10, 10)
    assert terms.loc["set0", "score"] == pytest.approx(-np.log10(full), rel=1e-6)
    assert terms.loc["mixed", "score"] == pytest.approx(-np.log10(two), rel=1e-6)  # g0 and g6
    assert terms.loc["set0", "fdr"] == pytest.approx(full * 7, rel=1e-6)
    assert terms.loc["mixed", "fdr"] == 1  # two * 7 / 2 is above
    assert (terms.loc["set5", ["score", "fdr"]] == [0, 1]).all()


def test_baselines_and_ceiling_stand_beside_the_prediction(make_screen):
    real = make_screen(n=40)
    pred = real[real.obs["perturbation"] == "C"].copy()
    pred.obs["perturbation"] = "A+B"  # of the wrong genes
    sets = {"of A": ["g1", "g4"], "of B": ["g2", "g5"], "of C": ["g3", "g6"]}
    ask = lambda **kwargs: pathway_consistency(
        pred, real, sets, perturbation_key="perturbation", min_size=2, top=2, permutations=20, fdr=0.9, **kwargs
    )
    table = ask(baselines=[Additive(), NoChange()])
    assert list(table.columns) == ["method", "kind", "perturbation", "context", "enrichment", "metric", "value"]
    ora = {m: scores(table, "A+B", "ora", m) for m in ("model", "additive", "replicate ceiling", "no change")}
    assert ora["model"] == {"overlap_at_2": 0, "jaccard": 0, "spearman": pytest.approx(-1)}
    assert (
        ora["additive"] == ora["replicate ceiling"] == {"overlap_at_2": 1, "jaccard": 1, "spearman": pytest.approx(1)}
    )
    assert np.isnan(list(ora["no change"].values())).all()
    ranked = table[table.enrichment == "prerank"]
    assert list(ranked["method"].unique()) == ["model", "additive", "no change"]  # listed: all of them, no ceiling
    assert scores(table, "A+B", "prerank", "additive")["overlap_at_2"] == 1
    terms = pred.uns["jepa"]["pathway_terms"]
    assert len(terms) == 2 * 2 * 3 and set(terms["side"]) == {"pred", "real"}


def test_of_auto_baselines_only_the_closest_is_ranked(make_screen):
    real = make_screen(n=40)
    pred = real[real.obs["perturbation"] == "A+B"].copy()
    sets = {"of A": ["g1", "g4"], "of B": ["g2", "g5"], "of C": ["g3", "g6"]}
    table = pathway_consistency(
        pred, real, sets, perturbation_key="perturbation", min_size=2, top=2, permutations=20, ceiling=False
    )
    error = evaluate(pred, real, perturbation_key="perturbation", metrics="l2", ceiling=False).set_index("method")[
        "value"
    ]
    closest = error.drop("model").idxmin()
    assert list(table.loc[table.enrichment == "prerank", "method"].unique()) == ["model", closest]
    assert set(table.loc[table.enrichment == "ora", "method"]) == set(error.index)


def test_no_change_has_no_enrichment():
    real = profiles(A=[0])
    pred = real[1:].copy()
    pred.X[:] = real.X[0]
    table = run(pred, real)
    assert table["value"].isna().all() and len(table) == 6


def test_same_seed_same_scores():
    real = profiles(A=[0, 2], B=[3])
    pred = profiles(A=[0, 1], B=[3, 4])[1:].copy()
    a, b = (run(pred, real, enrichment="prerank")["value"].to_numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_files_and_dicts_are_the_same(tmp_path):
    text = "".join(f"{name}\tnote\t" + "\t".join(genes) + "\n" for name, genes in SETS.items())
    (tmp_path / "sets.gmt").write_text(text)
    with gzip.open(tmp_path / "sets.gmt.gz", "wt") as file:
        file.write(text.replace("g0\t", "g0,1.0\t", 1) + "\n")
    assert read_gene_sets(tmp_path / "sets.gmt") == read_gene_sets(str(tmp_path / "sets.gmt.gz")) == SETS
    real = profiles(A=[0])
    a, b = (run(real[1:].copy(), real, s, enrichment="ora") for s in (SETS, tmp_path / "sets.gmt"))
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"sets": {"x": ["a", "b"]}}, "none of the 1 gene sets has 5 to 500 genes of pred.var_names .most: 0"),
        ({"sets": "missing.gmt"}, "gene_sets='missing.gmt': there is no such file"),
        ({"enrichment": "gsea"}, "enrichment='gsea' is not among the kinds of enrichment"),
        ({"definition": "tests"}, "definition='tests'.*Did you mean 'test'"),
        ({"top": 0}, "top=0: expected a whole number"),
    ],
)
def test_errors(kwargs, match):
    real = profiles(A=[0])
    with pytest.raises(ValueError, match=match):
        run(real[1:].copy(), real, **kwargs)


def test_without_gseapy(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "gseapy":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    real = profiles(A=[0])
    with pytest.raises(ImportError, match=r"pip install 'scjepa\[pathways\]'"):
        run(real[1:].copy(), real)
    assert scores(run(real[1:].copy(), real, enrichment="ora"), "A", "ora")["jaccard"] == 1  # needs scipy only
