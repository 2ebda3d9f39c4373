"""The drug anchor on tables with known answers: what it recovers, what it falls back to, what it says of itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scjepa.baselines import DrugEffect
from scjepa.baselines.drugs._plain import Plain
from scjepa.baselines.drugs._rows import Rows
from scjepa.baselines.drugs._structure import Structure
from scjepa.data import ConditionTable

N_GENES, N_BITS = 40, 60
CONTEXTS = ("x", "y", "z")


def library(n: int, seed: int, n_families: int = 6) -> pd.DataFrame:
    """Make bit fingerprints of drugs from families that share most bits."""
    rng = np.random.default_rng(seed)
    family = rng.random((n_families, N_BITS)) < 0.3
    bits = family[np.arange(n) % n_families] ^ (rng.random((n, N_BITS)) < 0.04)
    return pd.DataFrame(bits.astype(float), index=[f"D{i:02d}" for i in range(n)])


def activity(
    bits: pd.DataFrame, seed: int, *, structured: bool = True, contexts: tuple[str, ...] = CONTEXTS, noise: float = 0.5
) -> ConditionTable:
    """Make responses: a profile a family (or a drug, where structure says nothing), scaled by context, a mean and noise."""
    rng = np.random.default_rng(seed)
    n = len(bits)
    profile = rng.normal(size=(6, N_GENES))[np.arange(n) % 6] if structured else rng.normal(size=(n, N_GENES))
    mean = 0.7 * rng.normal(size=(len(contexts), N_GENES))
    rows = [mean[k] + profile + noise * rng.normal(size=(n, N_GENES)) for k in range(len(contexts))]
    effects, where = np.vstack(rows), np.repeat(contexts, n)
    return ConditionTable(tuple((d,) for d in bits.index) * len(contexts), where, np.zeros_like(effects), effects)


def curves(
    bits: pd.DataFrame, seed: int, levels: tuple[float, ...], ec50: float = 0.3, noise: float = 0.3
) -> ConditionTable:
    """Make Hill curves of dose, a profile a drug."""
    rng = np.random.default_rng(seed)
    profile = rng.normal(size=(len(bits), N_GENES))
    dose = np.tile(levels, len(bits))
    drug = np.repeat(np.arange(len(bits)), len(levels))
    effects = profile[drug] * (dose / (dose + ec50))[:, None] + noise * rng.normal(size=(len(dose), N_GENES))
    actions = tuple((bits.index[i],) for i in drug)
    return ConditionTable(actions, np.array(["x"] * len(dose)), np.zeros_like(effects), effects, dose=dose)


def asked(table: ConditionTable, rows: np.ndarray) -> ConditionTable:
    return replace(table.rows(rows), perturbed=None)


def rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(((predicted - true) ** 2).mean(1)).mean())


def split(table: ConditionTable, drugs: int, where: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return training rows, and rows of the last drugs (in one context)."""
    names = np.array([a[0] for a in table.actions])
    out = np.isin(names, np.unique(names)[-drugs:])
    if where is not None:
        out &= table.contexts == where
    return np.flatnonzero(~out), np.flatnonzero(out)


# ------------------------------------------------------------------------------------------------ known answers
def test_structure_predicts_molecules_never_seen_where_it_tells():
    bits = library(36, 0)
    table = activity(bits, 1)
    train, test = split(table, 9)
    model = DrugEffect(features=bits).fit(table.rows(train))
    true = table.effects[test]
    mean = np.array([table.effects[train][table.contexts[train] == c].mean(0) for c in table.contexts[test]])
    assert rmse(model.effects(asked(table, test)), true) < 0.75 * rmse(mean, true)  # the noise alone is half of it
    pick = model.picks_["unseen"]
    assert pick["basis"] == "left out" and pick["n"] == len(train)
    assert pick["error"] < min(pick["errors"]["mean per context"], pick["errors"]["process without structure"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_structure_activity_molecules_never_seen_get_the_mean(seed):
    bits = library(24, seed)
    table = activity(bits, seed + 10, structured=False)
    train, test = split(table, 8)
    predicted = DrugEffect(features=bits).fit(table.rows(train)).effects(asked(table, test))
    mean = np.array([table.effects[train][table.contexts[train] == c].mean(0) for c in table.contexts[test]])
    assert rmse(predicted, table.effects[test]) < 1.01 * rmse(mean, table.effects[test])


def test_a_drug_is_carried_to_a_context_where_others_were_measured():
    table = activity(library(24, 3), 4, structured=False)
    train, test = split(table, 8, "z")
    model = DrugEffect().fit(table.rows(train))
    y, names = table.effects, np.array([a[0] for a in table.actions])
    drug = np.array([y[train][names[train] == n].mean(0) for n in names[test]])
    here = np.tile(y[train][table.contexts[train] == "z"].mean(0), (len(test), 1))
    error = rmse(model.effects(asked(table, test)), y[test])
    assert error < 0.8 * min(rmse(drug, y[test]), rmse(here, y[test]))
    assert (model.classes(asked(table, test)) == "elsewhere").all()


def test_a_context_never_seen_gets_what_reproduces():
    table = activity(library(24, 5), 6, structured=False)
    train, test = np.flatnonzero(table.contexts != "z"), np.flatnonzero(table.contexts == "z")
    model = DrugEffect().fit(table.rows(train))
    drug = (table.effects[train][:24] + table.effects[train][24:]) / 2
    assert rmse(model.effects(asked(table, test)), table.effects[test]) < 1.01 * rmse(drug, table.effects[test])
    assert (model.classes(asked(table, test)) == "context").all()


@pytest.mark.parametrize(("level", "cls"), [(0.3, "dose"), (10.0, "dose above"), (0.01, "dose below")])
def test_doses_left_out_are_better_than_the_nearest(level, cls):
    table = curves(library(20, 7), 8, (0.01, 0.1, 0.3, 1.0, 10.0))
    dose = np.asarray(table.dose)
    train, test = np.flatnonzero(dose != level), np.flatnonzero(dose == level)
    model = DrugEffect().fit(table.rows(train))
    assert set(model.classes(asked(table, test))) == {cls} and model.picks_[cls]["basis"] == "left out"
    rows = Plain(model._rows, model._judge.values, Structure({}), {})
    nearest = rows.predict(Rows.of(table.rows(test), model._rows.drugs))["nearest"]
    assert rmse(model.effects(asked(table, test)), table.effects[test]) < rmse(nearest, table.effects[test])


def test_times_and_doses_of_the_drugs_own_scale():
    rng = np.random.default_rng(0)
    top = 10 ** rng.uniform(0, 3, 25)
    rows = [(i, t * share, h) for i, t in enumerate(top) for share in (0.04, 0.2, 1.0) for h in (2.0, 8.0, 24.0)]
    drug, dose, time = (np.array(v) for v in zip(*rows, strict=True))
    profile = rng.normal(size=(25, N_GENES))
    size = (dose / top[drug]) ** 0.5 * (time / 24) ** 0.5
    y = profile[drug] * size[:, None] + 0.1 * rng.normal(size=(len(rows), N_GENES))
    where = np.array(["x"] * len(rows))
    table = ConditionTable(tuple((f"D{i:02d}",) for i in drug), where, np.zeros_like(y), y, dose=dose, time=time)
    for out, cls in ((time == 8, "time"), (time == 24, "time beyond"), (np.isclose(dose, 0.2 * top[drug]), "dose")):
        train, test = np.flatnonzero(~out), np.flatnonzero(out)
        model = DrugEffect().fit(table.rows(train))
        assert set(model.classes(asked(table, test))) == {cls}
        assert model._judge.experts().process.frame.scale.tops is not None
        none = rmse(np.zeros_like(y[test]), y[test])
        assert rmse(model.effects(asked(table, test)), y[test]) < (0.9 if cls == "time beyond" else 0.6) * none


def test_combinations_are_sums_where_left_out_ones_say_so():
    rng = np.random.default_rng(1)
    names = [f"D{i}" for i in range(10)]
    profile = dict(zip(names, rng.normal(size=(10, N_GENES)), strict=True))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    actions = [(n,) for n in names] + pairs
    y = np.array([sum(profile[n] for n in a) for a in actions]) + 0.2 * rng.normal(size=(len(actions), N_GENES))
    table = ConditionTable(tuple(actions), np.array(["x"] * len(y)), np.zeros_like(y), y)
    train, test = np.arange(35), np.arange(35, len(y))
    model = DrugEffect().fit(table.rows(train))
    assert set(model.classes(asked(table, test))) == {"combination"}
    none = rmse(np.zeros_like(y[test]), y[test])
    assert rmse(model.effects(asked(table, test)), y[test]) < 0.45 * none
    assert model.picks_["combination"]["basis"] == "left out"


def test_one_drug_in_several_contexts_is_carried_over_in_full():
    rng = np.random.default_rng(2)
    y = rng.normal(size=N_GENES) + 0.1 * rng.normal(size=(5, N_GENES))
    table = ConditionTable((("A",),) * 5, np.array([*"abcde"]), np.zeros_like(y), y)
    model = DrugEffect().fit(table.rows(np.arange(4)))
    predicted = model.effects(asked(table, np.array([4])))[0]
    assert np.allclose(predicted, y[:4].mean(0), atol=0.1)


def test_rows_of_few_cells_are_believed_less():
    table = activity(library(24, 3), 4, structured=False, noise=0.1)
    rng, noisy = np.random.default_rng(0), np.arange(len(table)) % 3 == 0
    y = table.effects + np.where(noisy, 2.0, 0.05)[:, None] * rng.normal(size=table.effects.shape)
    cells = np.where(noisy, 5, 8000)
    known = replace(table, perturbed=y, n_cells=cells, n_controls=np.full(len(y), 1e6), variance=np.full(N_GENES, 20.0))
    train, test = split(table, 8, "z")
    ask = asked(table, test)
    error = [
        rmse(DrugEffect().fit(t.rows(train)).effects(ask), table.effects[test])
        for t in (known, replace(known, variance=None))
    ]
    assert error[0] < 0.95 * error[1]


def test_no_drug_no_dose_or_no_time_is_no_effect():
    table = curves(library(6, 0), 1, (0.0, 0.1, 1.0))
    model = DrugEffect().fit(table)
    none = asked(table, np.flatnonzero(np.asarray(table.dose) == 0))
    assert not model.effects(none).any() and not model.distances(none).any()
    assert not model.fitted_effects()[np.asarray(table.dose) == 0].any()


# ------------------------------------------------------------------------------------------------ what it says of itself
@pytest.fixture(scope="module")
def fitted() -> tuple[DrugEffect, pd.DataFrame, ConditionTable]:
    bits = library(18, 0)
    table = activity(bits, 1)
    names = np.array([a[0] for a in table.actions])
    kept = table.rows(~np.isin(names, ["D16", "D17"]) & ~((names == "D00") & (table.contexts == "z")))
    return DrugEffect(features=bits).fit(kept), bits, kept


def question(actions, contexts, **columns) -> ConditionTable:
    return ConditionTable(tuple(actions), np.array(contexts), np.zeros((len(actions), N_GENES)), **columns)


def test_classes(fitted):
    model = fitted[0]
    ask = question(
        [("D01",), ("D00",), ("D00", "D01"), ("D01",), ("D16",), ("D16",), ("nameless",)], [*"xzxn", "x", "n", "x"]
    )
    expected = ["single", "elsewhere", "combination", "context", "unseen", "unseen context", ""]
    assert model.classes(ask).tolist() == expected
    effects = model.effects(ask)
    assert np.isfinite(effects[:-1]).all() and np.isnan(effects[-1]).all()
    assert set(model.picks_) == {
        "single",
        "elsewhere",
        "together",
        "combination",
        "context",
        "unseen",
        "unseen context",
    }
    assert all(abs(sum(pick["weights"].values()) - 1) < 1e-9 for pick in model.picks_.values())


def test_support_and_distances(fitted):
    model, bits, _ = fitted
    ask = question([("D01",), ("D00",), ("D16",), ("D01",)], [*"xzxn"])
    assert model.distances(question([("D01", "D02")], ["x"])) == [0.25]
    found = model.support(ask)
    similarity = Structure.of(None, bits).between("features", ["D16"], list(model._rows.drugs))[0]
    assert found["nearest_drug"].tolist() == ["D01", "D00", model._rows.drugs[similarity.argmax()], "D01"]
    assert found["similarity"].tolist() == [1.0, 1.0, similarity.max(), 1.0]
    assert found["context_seen"].tolist() == [True, True, True, False]
    assert found["drug_seen_there"].tolist() == [True, False, True, False]
    assert np.allclose(model.distances(ask), [0.0, 0.25, 1 - similarity.max(), 0.5])
    with pytest.raises(ValueError, match="1 of 1 questions are about drugs that were neither .* 'nameless'"):
        model.support(question([("nameless",)], ["x"]))


def test_support_of_doses():
    model = DrugEffect().fit(curves(library(5, 0), 1, (0.1, 1.0, 10.0)))
    found = model.support(question([("D00",)] * 3, ["x"] * 3, dose=np.array([1.0, 2.0, 100.0])))
    assert found["dose_ratio"].round(6).tolist() == [1.0, 2.0, 10.0]
    assert found["inside_dose"].tolist() == [True, True, False]
    assert found["class"].tolist() == ["single", "dose", "dose above"]


def test_left_out_predictions_are_of_rows_that_were_not_seen(fitted):
    model, _, table = fitted
    for cls in model.picks_:
        left, distance = model.left_out_effects(cls), model.left_out_distances(cls)
        assert left.shape == table.effects.shape
        assert (np.isfinite(left).all(1) == np.isfinite(distance)).all(), cls
        if model.picks_[cls]["basis"] == "left out":
            error = rmse(left[np.isfinite(distance)], table.effects[np.isfinite(distance)])
            assert error == pytest.approx(model.picks_[cls]["error"], rel=1e-9), cls
    # a row left out as a new context does not know its own profile: change it, and nothing else changes
    changed = table.perturbed.copy()
    changed[0] += 100.0
    again = model.again(replace(table, perturbed=changed))
    assert np.allclose(again.left_out_effects("context")[0], model.left_out_effects("context")[0])
    together = model.left_together("context")
    assert (together == (table.contexts[:, None] == table.contexts[None])).all()
    assert model.new_context("context") and not model.new_context("unseen")


def same_picks(one: DrugEffect, other: DrugEffect) -> bool:
    return json.dumps(one.picks_) == json.dumps(other.picks_)  # NaN is not itself


def test_state_round_trip_is_bit_equal(fitted):
    model, _, table = fitted
    json.dumps(model.state()["picks"]), json.dumps(model.state()["kernels"])
    again = DrugEffect.from_state(model.state())
    ask = question([("D00",), ("D16",), ("D01",), ("D01", "D02")], [*"zxnx"])
    assert np.array_equal(again.effects(ask), model.effects(ask))
    assert np.array_equal(again.fitted_effects(), model.fitted_effects())
    assert np.array_equal(again.left_out_effects("unseen"), model.left_out_effects("unseen"), equal_nan=True)
    assert same_picks(again, model)
    unfitted = DrugEffect.from_state(DrugEffect(features=fitted[1]).state())
    assert np.array_equal(unfitted.fit(table).effects(ask), model.effects(ask))


def test_the_order_of_rows_does_not_matter(fitted):
    model, bits, table = fitted
    order = np.random.default_rng(0).permutation(len(table))
    again = DrugEffect(features=bits).fit(table.rows(order))
    ask = question([("D00",), ("D16",)], [*"zx"])
    assert np.array_equal(again.effects(ask), model.effects(ask))
    assert np.array_equal(again.fitted_effects(), model.fitted_effects()[order])
    assert same_picks(again, model)


def test_more_structures_can_be_handed_in(fitted):
    model, bits, table = fitted
    less = DrugEffect(features=bits.drop(index=["D16", "D17"])).fit(table)
    ask = question([("D16",)], ["x"])
    assert less.classes(ask).tolist() == [""]
    more = less.also(features=bits.loc[["D16"]])
    assert np.allclose(more.effects(ask), model.effects(ask)) and less.classes(ask).tolist() == [""]


def test_fitted_effects_are_those_of_a_question_about_training(fitted):
    model, _, table = fitted
    assert np.allclose(model.fitted_effects(), model.effects(replace(table, perturbed=None)))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_rows(n):
    table = activity(library(6, 0), 1, contexts=("x",)).rows(np.arange(n))
    model = DrugEffect().fit(table)
    assert np.isfinite(model.effects(asked(table, np.arange(n)))).all()
    assert np.isfinite(model.effects(question([(table.actions[0][0],)], ["n"]))).all()


def test_nothing_varies():
    table = question([("A",), ("B",), ("C",)], [*"xxx"])
    model = DrugEffect(features=pd.DataFrame(np.eye(4), index=[*"ABCD"])).fit(replace(table, perturbed=table.control))
    assert not model.effects(question([("A",), ("D",)], ["x", "y"])).any()


# ------------------------------------------------------------------------------------------------ structures, errors
def test_kinds_of_structures_agree():
    bits = library(24, 0)
    table = activity(bits, 1)
    train, test = split(table, 6)
    k = Structure.of(None, bits).between("features", list(bits.index), list(bits.index))
    similarity = pd.DataFrame(k, index=bits.index, columns=bits.index)
    one = DrugEffect(similarity={"features": similarity}).fit(table.rows(train)).effects(asked(table, test))
    other = DrugEffect(features=bits).fit(table.rows(train)).effects(asked(table, test))
    assert np.allclose(one, other)
    real = DrugEffect(features=bits - 0.5).fit(table.rows(train)).effects(asked(table, test))
    both = DrugEffect(features={"bits": bits, "real": bits - 0.5}).fit(table.rows(train))
    assert "mean of all" in both.structure.kernels
    none = rmse(np.zeros_like(real), table.effects[test])
    assert max(rmse(p, table.effects[test]) for p in (one, real, both.effects(asked(table, test)))) < 0.6 * none


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.eye(2), "similarity: expected a pandas DataFrame, drug x drug; found ndarray"),
        (pd.DataFrame(np.eye(2), index=["A", "B"], columns=["A", "C"]), "only on one side: 'B', 'C'"),
        (
            pd.DataFrame([[1, 2], [2, 1]], index=["A", "B"], columns=["A", "B"]),
            "values from 1 to 2; similarities lie in 0..1",
        ),
        (pd.DataFrame([[1, 0], [0.5, 1]], index=["A", "B"], columns=["A", "B"]), "not symmetric"),
        (pd.DataFrame([[1, 0], [0, 0]], index=["A", "B"], columns=["A", "B"]), "1 drugs are not like themselves .*'B'"),
        (pd.DataFrame(np.eye(2), index=["A", "A"], columns=["A", "A"]), "1 drugs have more than one row: 'A'"),
        ({}, "expected one table or more by name"),
    ],
)
def test_similarities_are_checked(similarity, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DrugEffect(similarity=similarity)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.eye(2), "features: expected a pandas DataFrame, drug x features; found ndarray"),
        (pd.DataFrame([[1.0], [np.nan]], index=["A", "B"]), "1 of 2 drugs have values that are missing .*'B'"),
        (pd.DataFrame(index=["A", "B"]), "features: no columns"),
    ],
)
def test_features_are_checked(features, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DrugEffect(features=features)


def test_more_structures_are_checked(fitted):
    model, bits, _ = fitted
    with pytest.raises(ValueError, match="59 features, but 60 are known of other drugs"):
        model.also(features=bits.iloc[:, 1:])
    with pytest.raises(ValueError, match="structures are described by 'features', those of more drugs by 'similarity'"):
        model.also(similarity=pd.DataFrame(np.eye(1), index=["N"], columns=["N"]))


def test_tables_are_checked(make_table):
    table = make_table(["A", "B"], [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(RuntimeError, match="DrugEffect is not fitted yet"):
        DrugEffect().effects(table)
    with pytest.raises(RuntimeError, match="DrugEffect is not fitted yet"):
        DrugEffect().left_out_effects()
    with pytest.raises(ValueError, match="DrugEffect.fit: the table has no perturbed profiles"):
        DrugEffect().fit(replace(table, perturbed=None))
    with pytest.raises(ValueError, match="all 2 rows have dose or time zero"):
        DrugEffect().fit(replace(table, dose=np.zeros(2)))
    with pytest.raises(ValueError, match="dose has values that are no finite numbers"):
        DrugEffect().fit(replace(table, dose=np.array([1.0, np.nan])))
    model = DrugEffect().fit(table)
    with pytest.raises(
        ValueError, match="cls='unseen': expected one of 'single', 'elsewhere', 'together', 'combination', 'context'"
    ):
        model.left_out_effects("unseen")
    with pytest.raises(ValueError, match="the query has a dose for every row, the training table has none"):
        model.effects(replace(table, dose=np.ones(2)))
