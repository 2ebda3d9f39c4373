"""tl.linear_probe: known answers, folds that don't leak, and agreement with scikit-learn."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scjepa.tl import linear_probe


@pytest.fixture
def adata() -> ad.AnnData:
    rng = np.random.default_rng(0)
    kind = np.repeat(["a", "b", "c"], 40)
    z = rng.normal(size=(120, 4))
    z[:, 0] += 2.0 * (kind == "b")
    z[:, 1] += 2.0 * (kind == "c")
    obs = pd.DataFrame({"cell_type": kind, "donor": np.tile(list("uvwx"), 30)}, index=[f"cell{i}" for i in range(120)])
    obs["age"] = 3 * z[:, 2] - z[:, 3]
    out = ad.AnnData(rng.uniform(0.5, 2, size=(120, 12)), obs=obs)
    out.obsm["X_jepa"], out.obsm["X_noise"] = z, rng.normal(size=(120, 2))
    return out


def mean(table, representation, probe, metric="balanced_accuracy") -> float:
    rows = table[(table.representation == representation) & (table.probe == probe) & (table.metric == metric)]
    assert len(rows)
    return rows["value"].mean()


def test_logistic_agrees_with_scikit_learn(adata):
    table = linear_probe(adata, "cell_type", compare=[], seed=3)
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    args = (adata.obsm["X_jepa"], adata.obs["cell_type"])
    for metric, scoring in (("balanced_accuracy", "balanced_accuracy"), ("macro_f1", "f1_macro")):
        expected = cross_val_score(model, *args, cv=folds, scoring=scoring)
        rows = table[(table.probe == "logistic") & (table.metric == metric)]
        assert rows.sort_values("fold")["value"].tolist() == pytest.approx(expected.tolist())


def test_rows_beside_the_embeddings_and_their_sizes(adata):
    table = linear_probe(adata, "cell_type", obsm=["X_jepa", "X_noise"], n_repeats=2, n_splits=3)
    sizes = table.drop_duplicates("representation").set_index("representation")["n_features"].to_dict()
    assert sizes == {"X_jepa": 4, "X_noise": 2, "PCA (2)": 2, "PCA (4)": 4, "expression": 12}
    assert len(table) == 5 * 2 * 2 * 3 * 2
    assert table["representation"].iloc[0] == "X_jepa"
    assert mean(table, "X_jepa", "logistic") > 0.7 > 0.5 > mean(table, "X_noise", "knn")
    assert mean(table, "X_jepa", "knn") > 0.6
    assert adata.uns["jepa"]["linear_probe"]["value"].tolist() == table["value"].tolist()


def test_pca_and_expression_read_what_expression_holds(adata):
    adata.X[:, 0] = np.where(adata.obs["cell_type"] == "a", 9.0, adata.X[:, 0])
    adata.X[:, 1] = np.where(adata.obs["cell_type"] == "b", 9.0, adata.X[:, 1])
    table = linear_probe(adata, "cell_type")
    for name in ("PCA (4)", "expression"):
        assert mean(table, name, "logistic") == 1.0
        assert mean(table, name, "knn") == 1.0


def test_numbers_are_regressed(adata):
    table = linear_probe(adata, "age", n_splits=3)
    assert mean(table, "X_jepa", "ridge", "r2") > 0.99, "age is linear in the embedding"
    assert mean(table, "expression", "ridge", "r2") < 0.1
    assert set(table["probe"]) == {"ridge", "knn"} and set(table["metric"]) == {"r2"}


@pytest.mark.parametrize("target", ["cell_type", "age"])
def test_groups_are_never_in_both_folds(adata, target):
    """An embedding that only says who the donor is can't help with donors never seen."""
    code = pd.get_dummies(adata.obs["donor"]).to_numpy(float)
    adata.obsm["X_donor"] = code
    rng = np.random.default_rng(1)
    effect = dict(zip("uvwx", rng.permutation([-2.0, -1.0, 1.0, 2.0]), strict=True))
    adata.obs["age"] = adata.obs["donor"].map(effect).astype(float) + rng.normal(size=120) * 0.01
    adata.obs["cell_type"] = adata.obs["donor"].map({"u": "a", "v": "b", "w": "a", "x": "b"})
    args = {"obsm": "X_donor", "compare": [], "n_splits": 4, "probes": ["knn"]}
    metric = "r2" if target == "age" else "balanced_accuracy"
    assert mean(linear_probe(adata, target, **args), "X_donor", "knn", metric) > 0.99
    assert mean(linear_probe(adata, target, group_key="donor", **args), "X_donor", "knn", metric) < 0.9


def test_same_seed_same_folds(adata):
    a, b, c = (linear_probe(adata, "cell_type", compare=[], seed=s)["value"].tolist() for s in (0, 0, 1))
    assert a == b and a != c


def test_counts_are_normalised_and_booleans_are_labels(adata):
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 50, size=(120, 1))
    adata.obs["is_a"] = adata.obs["cell_type"] == "a"
    adata.X = np.where(adata.obs["is_a"], 1, 2)[:, None] ** np.arange(2).repeat(6) * depth  # profiles up to depth
    table = linear_probe(adata, "is_a", probes="logistic")
    assert mean(table, "expression", "logistic") == 1.0


@pytest.mark.parametrize(
    ("target", "kwargs", "error", "match"),
    [
        ("celltype", {}, KeyError, "target_key='celltype'.*Did you mean 'cell_type'"),
        ("cell_type", {"obsm": "X_jep"}, KeyError, "obsm='X_jep' is not in adata.obsm.*Did you mean 'X_jepa'"),
        ("cell_type", {"probes": ["ridge"]}, ValueError, "probes='ridge'.*holds labels"),
        ("age", {"probes": "logistic"}, ValueError, "probes='logistic'.*holds numbers"),
        ("cell_type", {"compare": ["scvi"]}, ValueError, "compare='scvi'"),
        ("cell_type", {"n_splits": 1}, ValueError, "n_splits=1: expected a whole number of at least 2"),
        ("cell_type", {"n_splits": 50}, ValueError, "3 labels have fewer cells than n_splits=50: 'a', 'b', 'c'"),
        ("age", {"n_splits": 121}, ValueError, "adata has 120 cells for n_splits=121"),
        ("cell_type", {"group_key": "donor"}, ValueError, "group_key='donor' has 4 groups for n_splits=5"),
        ("one", {}, ValueError, "target_key='one' has one label only"),
        ("holes", {}, ValueError, "target_key='holes': 1 of 120 values are missing"),
    ],
)
def test_errors(adata, target, kwargs, error, match):
    adata.obs["one"] = "x"
    adata.obs["holes"] = np.r_[np.nan, np.arange(119.0)]
    with pytest.raises(error, match=match):
        linear_probe(adata, target, **kwargs)


def test_embedding_with_nan(adata):
    adata.obsm["X_jepa"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"adata.obsm\['X_jepa'\] has shape \(120, 4\): expected finite numbers"):
        linear_probe(adata, "cell_type")
