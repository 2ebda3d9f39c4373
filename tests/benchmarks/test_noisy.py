"""The noisy screens of perturb_noisy.py: few cells, promised shares of nulls, nothing held out in training, full truth."""

import importlib
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("benchmarks/ is not part of this installation", allow_module_level=True)


@pytest.fixture
def load(monkeypatch):
    """Import a script or helper as the scripts import each other."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def noisy(load):
    return load("_noisy")


@pytest.fixture
def source():
    """300 controls and 60 cells of A, B, C and A+B; the first gene is a number that no other cell has."""
    rng = np.random.default_rng(0)
    labels = ["control"] * 300 + [p for p in ("A", "B", "C", "A+B") for _ in range(60)]
    x = rng.gamma(1.0, 1.0, (len(labels), 30)).astype(np.float32)
    x[:, 0] = (1 + np.arange(len(x))) / 1000
    obs = pd.DataFrame({"perturbation": labels}, index=[f"s{i}" for i in range(len(x))])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(30)]))


@pytest.fixture
def types(source):
    """The source with two cell types, alternating."""
    source.obs["context"] = ["x", "y"] * (source.n_obs // 2)
    return source


def serial(cells):
    """Which cells of the source these are."""
    return np.rint(cells[:, "g0"].X.toarray().ravel() * 1000).astype(int) - 1


def sizes(screen, kept=True):
    """Kept (or spare) cells per perturbation and context."""
    obs = screen.cells.obs
    return obs[obs["kept"] == kept].groupby(["perturbation", "context"]).size()


def same(a, b):
    """Whether two cases are the same."""
    return a.name == b.name and all(
        np.array_equal(x, y)
        for x, y in [(a.table.perturbed, b.table.perturbed), (a.query.control, b.query.control), (a.truth, b.truth)]
    )


# ------------------------------------------------------------------------------------------------------- screens
@pytest.fixture
def screen(noisy, source):
    return noisy.replicates(
        source, 0, real=["A", "B"], contexts=["r0", "r1"], n_null=4, cells=(5, 9), n_control=20, pooled=["C"]
    )


def test_replicates_have_few_cells_and_every_cell_once(noisy, source, screen):
    kept, spare = sizes(screen), sizes(screen, kept=False)
    conditions = kept.drop("control")
    assert conditions.between(5, 9).all() and conditions.nunique() > 1
    assert set(conditions.index) == {(p, r) for p in ("A", "B", "N0", "N1", "N2", "N3") for r in ("r0", "r1")}
    assert kept["control"].tolist() == [20, 20]
    assert set(spare.index) == {("A", "spare"), ("B", "spare")}
    assert (kept[["A", "B"]].groupby("perturbation").sum() + spare.droplevel("context") == 60).all()
    cells = serial(screen.cells)
    assert len(set(cells)) == len(cells)
    origin = source.obs["perturbation"].to_numpy()[cells]
    labels = screen.cells.obs["perturbation"].to_numpy()
    real = np.isin(labels, ["A", "B"])
    assert (origin[real] == labels[real]).all()
    assert set(origin[~real]) == {"control", "C"}  # pooled
    assert screen.strong == {"A", "B"}


def test_replicates_share_out_what_there_is(noisy, source):
    screen = noisy.replicates(source, 0, real=["A"], contexts=["r0", "r1", "r2"], cells=(50, 50), n_control=5)
    assert sizes(screen)["A"].tolist() == [20, 20, 20]
    with pytest.raises(ValueError, match="301 cells wanted, 300 left"):
        noisy.replicates(source, 0, real=["A"], n_control=301)


def test_seeds_are_deterministic(noisy, source, screen):
    how = {"real": ["A", "B"], "contexts": ["r0", "r1"], "n_null": 4, "cells": (5, 9), "n_control": 20, "pooled": ["C"]}
    again, other = (noisy.replicates(source, seed, **how) for seed in (0, 1))
    assert (serial(again.cells) == serial(screen.cells)).all()
    assert not np.array_equal(serial(other.cells), serial(screen.cells))


def test_thinned_types(noisy, types):
    screen = noisy.thinned_types(types, 0, n_cells=7, n_control=30, n_null=2, n_variable=10)
    kept = sizes(screen)
    assert (kept[["A", "B", "C", "A+B"]] == 7).all() and (kept["control"] == 30).all()
    assert (kept[["N0", "N1"]] == 10).all() and screen.strong == {"A", "B", "C", "A+B"}
    assert (sizes(screen, kept=False) == 23).all()  # 30 of a type, 7 kept
    cells = serial(screen.cells)
    assert len(set(cells)) == len(cells)
    assert (types.obs["context"].to_numpy()[cells] == screen.cells.obs["context"]).all()


@pytest.mark.parametrize(("share", "n_null"), [(0.0, 0), (0.5, 10), (0.8, 40)])
def test_share_of_nulls(load, share, n_null):
    assert load("_noisy_settings").nulls(10, share) == n_null


# --------------------------------------------------------------------------------------------------------- splits
def test_held_out_cells_are_in_no_training_table(noisy, source, screen):
    cases = list(noisy.each_context(screen))
    assert [case.name for case in cases] == ["r0", "r1"]
    for case in cases:
        obs = case.cells.obs
        assert obs["kept"].all() and set(obs.loc[obs["context"] == case.name, "perturbation"]) == {"control"}
        assert case.name not in case.table.contexts and set(case.query.contexts) == {case.name}
        assert case.query.perturbed is None and not case.query.n_cells.any()
        labels = ["+".join(a) for a in case.query.actions]
        assert labels == ["A", "B", "N0", "N1", "N2", "N3"] and case.strong.tolist() == [True, True] + [False] * 4
        i = case.table.actions.index(("A",))
        mine = (obs["perturbation"] == "A").to_numpy()
        np.testing.assert_allclose(case.table.perturbed[i], np.asarray(case.cells.X[mine].mean(0)).ravel(), rtol=1e-5)


def test_question_keeps_no_measurement(noisy, screen):
    """Whatever held-out cells are, training table and question stay the same; only the truth changes."""
    held = {(p, "r0") for p in noisy.labels_of(screen)}
    case = noisy.make_case(screen, held, "")
    cells = screen.cells.copy()
    obs = cells.obs
    out = ((obs["context"] == "r0") & (obs["perturbation"] != "control")).to_numpy()
    x = cells.X.toarray()
    x[out | ~obs["kept"].to_numpy()] = 1.5
    cells.X = sp.csr_matrix(x)
    other = noisy.make_case(replace(screen, cells=cells), held, "")
    for a, b in ((case.table, other.table), (case.query, other.query)):
        for key, value in vars(a).items():
            np.testing.assert_array_equal(value, getattr(b, key), err_msg=key)
    np.testing.assert_allclose(other.truth + other.query.control, 1.5, rtol=1e-5)
    assert not np.allclose(case.truth, other.truth)


def test_truth_has_all_cells_of_a_condition(noisy, source, screen):
    case = noisy.make_case(screen, {("A", "r0"), ("N0", "r0")}, "")
    mine = screen.cells[(screen.cells.obs["perturbation"] == "A").to_numpy()]
    place = mine.obs["context"].to_numpy()
    mean = lambda *places: np.asarray(mine.X[np.isin(place, places)].mean(0)).ravel()
    np.testing.assert_allclose(case.truth[0], mean("r0", "spare") - case.query.control[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(case.measured[0], mean("r0") - case.query.control[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(case.truth[1], case.measured[1], rtol=1e-4, atol=1e-6)  # a null has no spare cells
    assert ("A",) in case.table.actions  # in the other replicate


def test_thinned_cells_count_as_truth(noisy, types):
    screen = noisy.thinned_types(types, 0, n_cells=4, n_control=30, n_variable=None)
    (case,) = noisy.each_context(screen, ["x"])
    row = case.query.actions.index(("B",))
    where = ((types.obs["perturbation"] == "B") & (types.obs["context"] == "x")).to_numpy()
    full = np.asarray(types.X[where].mean(0)).ravel()
    np.testing.assert_allclose(case.truth[row] + case.query.control[row], full, rtol=1e-4)


def test_variable_genes_are_chosen_without_held_out_cells(noisy, types):
    screen = noisy.thinned_types(types, 0, n_cells=20, n_variable=5)
    obs = screen.cells.obs
    x = screen.cells.X.toarray()
    unseen = (obs["context"] == "x") & (obs["perturbation"] != "control") | ~obs["kept"]
    rng = np.random.default_rng(0)
    before = next(noisy.each_context(screen, ["x"]))
    x[unseen.to_numpy(), 7] = 8 * rng.random(unseen.sum())
    screen.cells.X = sp.csr_matrix(x)
    after = next(noisy.each_context(screen, ["x"]))
    assert 5 <= len(before.table.genes) < 30  # scanpy keeps ties
    assert before.table.genes == after.table.genes


def test_doubles_in_turn(noisy, source):
    screen = noisy.replicates(source, 0, real=["A", "B", "C", "A+B"], cells=(8, 8))
    assert noisy.measured_doubles(screen) == ["A+B"]
    (case,) = noisy.each_label(screen, ["A+B"])
    assert case.query.actions == (("A", "B"),) and case.table.actions == (("A",), ("B",), ("C",))
    assert case.table.n_cells.tolist() == [8, 8, 8]


def test_pairs(noisy, screen):
    (case,) = noisy.some_pairs(screen, 3)
    pairs = lambda table: set(zip(table.actions, table.contexts.astype(str), strict=True))
    assert len(case.query) == 6 and len(case.table) == 6
    assert {a for a, _ in pairs(case.query)} == {a for a, _ in pairs(case.table)}
    assert not pairs(case.query) & pairs(case.table) and set(case.query.contexts) == {"r0", "r1"}


def test_unknown_genes_are_asked_only_with_features(noisy, source):
    screen = noisy.replicates(source, 0, real=["A", "B", "C"], cells=(8, 8))
    features = pd.DataFrame(np.eye(3), index=["A", "B", "C"])
    with pytest.raises(ValueError):
        noisy.make_case(screen, {("A", "all")}, "A")  # nothing is left to ask
    (case,) = noisy.each_label(replace(screen, features=features), ["A"])
    assert case.query.actions == (("A",),) and "A" not in case.table.vocabulary() and case.features is features


def test_few_types(noisy, source):
    source.obs["context"] = ["x", "y", "z", "w"] * (source.n_obs // 4)
    cases = list(noisy.few_types(source, 0, 2, n_variable=None))
    assert [case.name for case in cases] == ["w", "x", "y", "z"]
    for case in cases:
        assert len(set(case.table.contexts)) == 2 and case.name not in case.table.contexts
    again = noisy.few_types(source, 0, 2, n_variable=None)
    assert all(same(a, b) for a, b in zip(cases, again, strict=True))


def test_swapped_effects(noisy, types):
    types = types[types.obs["perturbation"].isin(["control", "A"])].copy()
    types.obs["kept"] = True
    case = next(noisy.each_context(noisy.Screen(types, frozenset("A")), ["x"]))
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(noisy.swapped(case, 1.0, rng).truth, case.truth, atol=1e-12)
    other = noisy.swapped(case, 0.0, rng)  # of two contexts each gets the other's, cut at zero
    np.testing.assert_allclose(other.truth, np.clip(case.table.effects, -case.query.control, None), atol=1e-12)
    np.testing.assert_allclose(other.table.effects, np.clip(case.truth, -case.table.control, None), atol=1e-12)
    assert other.cells is None and (other.table.control == case.table.control).all()


# ---------------------------------------------------------------------------------------------------- simulations
def test_simulated_knock_downs(load, noisy):
    how = {"n_contexts": 2, "n_real": 3, "n_null": 6, "n_truth": 30, "cells": (4, 8), "n_genes": 40}
    screen = load("_noisy_simulated").simulated(0, context_effect=0.0, **how)
    kept = sizes(screen)
    assert noisy.contexts_of(screen) == ["c0", "c1"] and len(screen.strong) == 3
    assert kept.drop("control").between(4, 8).all() and len(kept.drop("control")) == 2 * 9
    total = kept.add(sizes(screen, kept=False), fill_value=0)
    assert (total[sorted(screen.strong)] == 30).all() and (total[[f"N{j}" for j in range(6)]] == 8).all()
    again = load("_noisy_simulated").simulated(0, context_effect=0.0, **how)
    assert (screen.cells.X != again.cells.X).nnz == 0


@pytest.mark.parametrize("fold", [False, True])
def test_programmes(load, noisy, fold):
    programmes = load("_noisy_simulated").programmes
    how = {"n_contexts": 3, "n_perturbations": 2, "n_genes": 40, "cells": (5, 9), "fold": fold}
    screen = programmes(1, own=1.0, **how)
    assert screen.cells.X.min() >= 0 and screen.strong == {"P0", "P1"}
    assert sizes(screen).drop("control").between(5, 9).all() and sizes(screen)["control"].between(80, 300).all()
    cases = list(noisy.each_context(screen))
    assert [len(case.table) for case in cases] == [4, 4, 4]
    assert all(same(a, b) for a, b in zip(cases, noisy.each_context(programmes(1, own=1.0, **how)), strict=True))


def test_own_amplitudes_differ_from_context_to_context(load, noisy):
    def likeness(own):
        r = []
        for seed in range(5):
            screen = load("_noisy_simulated").programmes(seed, n_contexts=2, own=own, cells=(200, 200))
            case = next(noisy.each_context(screen))
            r.append(np.corrcoef(case.table.effects[0], case.truth[0])[0, 1])
        return np.mean(r)

    assert likeness(0.0) > 0.9 > 0.7 > likeness(2.0)


def test_gamma_cells_keep_the_mean(load):
    mean = np.array([0.02, 0.5, 3.0])
    cells = load("_noisy_simulated").gamma_cells(mean, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(cells.mean(0), mean, rtol=0.1)
    assert cells.min() >= 0 and (cells[:, 0] < 0.01).mean() > 0.9


# ----------------------------------------------------------------------------------------------- scores and verdicts
@pytest.fixture
def script(load):
    return load("perturb_noisy")


@pytest.fixture
def scores():
    """Two splits of two conditions, one of them null; additive applies to one split only."""
    rows = []
    for method, l2, r in [
        ("kernel anchor", (1.0, 3.0), (0.5, 0.1)),
        ("no change", (4.0, 2.0), (0.0, 0.0)),
        ("context transfer", (1.5, 4.0), (0.6, 0.2)),
        ("additive", (0.1, 0.1), (1.0, 1.0)),
    ]:
        for split in ("x",) if method == "additive" else ("x", "y"):
            for strong, error, corr in zip((True, False), l2, r, strict=True):
                rows.append(
                    {"method": method, "seed": 0, "split": split, "strong": strong, "l2": error, "pearson": corr}
                )
    return pd.DataFrame(rows)


def test_best_simple_baseline_and_verdict(script, load, scores):
    setting = load("_noisy_settings").Setting(cases=None)
    table, verdict = script.summarise("s", setting, scores)
    assert table.index.tolist() == ["kernel anchor", "no change", "context transfer"]
    assert verdict["best"] == "context transfer" and verdict["ratio"] == pytest.approx(2 / 2.75)
    assert verdict["pearson_difference"] == pytest.approx(0.3 - 0.4)
    assert verdict["strong_to_transfer"] == pytest.approx(1 / 1.5)
    assert verdict["fails"] == "r" and verdict["limit"] == 1.01
    assert table.loc["no change", "ratio"] == pytest.approx(3 / 2.75)


@pytest.mark.parametrize(
    ("ratio", "n_differ", "strong", "has_null", "fails"),
    [
        (1.009, 0, 0.9, True, ""),
        (1.02, 0, 0.9, True, "L2"),
        (1.02, 2, 0.9, True, "L2"),
        (1.02, 3, 0.9, True, ""),
        (1.02, 5, 0.9, True, "L2"),
        (1.04, 4, 1.1, True, "L2 strong"),
        (1.0, 0, 1.1, False, ""),
        (1.0, 0, np.nan, True, ""),
    ],
)
def test_limits(script, load, ratio, n_differ, strong, has_null, fails):
    setting = load("_noisy_settings").Setting(cases=None, n_differ=n_differ)
    found = {"ratio": ratio, "pearson_difference": 0.0, "strong_to_transfer": strong}
    assert script.judge(found, setting, has_null)["fails"] == fails


def test_scores_of_a_case(script, noisy, screen):
    case = next(noisy.each_context(screen))
    predicted = script.closed_forms(case)
    assert not np.isfinite(predicted["additive"]).any()  # no combinations here
    scores = script.score(case, predicted | {"truth": case.truth})
    assert set(scores["method"]) == {"kernel anchor", "no change", "mean", "context transfer", "ridge", "truth"}
    perfect = scores[scores["method"] == "truth"]
    assert (perfect["l2"] == 0).all() and np.allclose(perfect["pearson"], 1) and perfect["strong"].sum() == 2
    nothing = scores[scores["method"] == "no change"]
    assert (nothing["pearson"] == 0).all() and np.allclose(nothing["l2"], np.linalg.norm(case.truth, axis=1))


def test_model_sees_training_cells_only_and_rows_find_their_places(script, noisy, screen, monkeypatch):
    class Fake:
        """Predicts a number that tells the perturbation and the context."""

        def setup_anndata(adata, perturbation_key, context_key):
            assert (perturbation_key, context_key) == ("perturbation", "context")

        def __init__(self, adata, gene_embeddings):
            assert adata is case.cells and gene_embeddings is None
            self.genes = adata.var_names

        def train(self, seed, embed, enable_progress_bar):
            assert not embed
            assert seed == 5

        def predict_effect(self, perturbations, context):
            rows = [
                (p, len(p) * 10 + ord(p[-1]) + 1000 * int(context[1])) for p in perturbations[::-1] for _ in self.genes
            ]
            frame = pd.DataFrame(rows, columns=["perturbation", "effect"])
            return frame.assign(
                lower=frame["effect"] - 1, upper=frame["effect"] + 1, abstain=frame["perturbation"] == "N0"
            )

    monkeypatch.setattr(script, "PerturbJEPA", Fake)
    (case,) = noisy.some_pairs(screen, 3)
    found = script.train_and_predict(case, 5)
    labels = ["+".join(a) for a in case.query.actions]
    wanted = [len(p) * 10 + ord(p[-1]) + 1000 * int(c[1]) for p, c in zip(labels, case.query.contexts, strict=True)]
    assert (found["effect"] == np.array(wanted)[:, None]).all() and found["effect"].shape == case.truth.shape
    assert found["abstain"].any(1).tolist() == [p == "N0" for p in labels]


def test_intervals_of_a_case(script, noisy, screen):
    case = next(noisy.each_context(screen))
    found = {"effect": case.truth, "lower": case.measured - 1, "upper": case.measured + 1}
    found["abstain"] = np.repeat(~case.strong[:, None], case.truth.shape[1], axis=1)
    table = script.score_intervals(case, found)
    assert (table["coverage"] == 1).all() and np.allclose(table["width"], 2) and (table["l2"] == 0).all()
    assert table["abstain"].tolist() == (~case.strong).tolist()


def test_model_settings_exist(load):
    settings = load("_noisy_settings").settings()
    assert set(load("perturb_noisy").MODEL_SETTINGS) <= set(settings)
    assert all(setting.seeds > 1 for setting in settings.values())


# ------------------------------------------------------------------------------------------------------ real data
def test_settings_on_real_data(load, shared_data):
    """The promises of the settings' names; only where the data are."""
    if not (shared_data / "perturbench_norman19_mcfaline23.h5ad").is_file():
        pytest.skip("no Norman 2019 data")
    settings = load("_noisy_settings").settings()
    first = lambda name: next(iter(settings[name].cases(shared_data, 0)))
    thin = first("norman-doubles-10")
    assert (thin.table.n_cells == 10).all() and len(thin.table) == 32
    for share in (0, 50, 80):
        case = first(f"replicates-3-null-{share}")
        assert 1 - case.strong.mean() == pytest.approx(share / 100)
        assert len(set(case.table.contexts)) == 2
    assert len(set(first("replicates-2").table.contexts)) == 1
    null = [a for a in first("norman-doubles-null-80").table.actions if a[0].startswith("N") and a[0][1:].isdigit()]
    assert len(null) / (len(first("norman-doubles-null-80").table) + 1) == pytest.approx(0.8)
