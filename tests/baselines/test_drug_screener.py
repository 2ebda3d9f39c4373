"""Screeners: to rounding what the drug anchor says of molecules asked one by one, whatever describes them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scjepa.baselines import DrugEffect
from scjepa.baselines.drugs import _screener
from scjepa.baselines.drugs._compare import Compared, rows_of
from scjepa.baselines.drugs._experts import PROCESS
from scjepa.baselines.drugs._structure import Description, tanimoto
from scjepa.data import ConditionTable

N_GENES, N_DRUGS, N_BITS = 30, 12, 50


def bits(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    family = np.random.default_rng(0).random((5, N_BITS)) < 0.3
    return (family[np.arange(n) % 5] ^ (rng.random((n, N_BITS)) < 0.05)).astype(float)


def counts(n: int, seed: int) -> np.ndarray:
    return bits(n, seed) * np.random.default_rng(seed).integers(1, 6, (n, N_BITS))


def table(seed: int, *, doses: tuple[float, ...] = (), times: tuple[float, ...] = ()) -> ConditionTable:
    """Responses of families, in two contexts, perhaps by dose and time; the last drug is never given in ``y``."""
    rng = np.random.default_rng(seed)
    profile = rng.normal(size=(5, N_GENES))[np.arange(N_DRUGS) % 5]
    rows = [
        (i, c, d, t) for c in "xy" for i in range(N_DRUGS) for d in doses or (1.0,) for t in times or (1.0,)
        if not (c == "y" and i == N_DRUGS - 1)
    ]  # fmt: skip
    drug, where, dose, time = (np.array(column) for column in zip(*rows, strict=True))
    effects = profile[drug] * (dose / (dose + 1) * np.sqrt(time))[:, None] + 0.3 * rng.normal(size=(len(rows), N_GENES))
    effects[where == "y"] += rng.normal(size=N_GENES)
    return ConditionTable(
        tuple((f"D{i}",) for i in drug), where, np.zeros_like(effects), effects,
        dose=dose if doses else None, time=time if times else None,
    )  # fmt: skip


def named(x: np.ndarray, prefix: str = "D") -> pd.DataFrame:
    return pd.DataFrame(x, index=[f"{prefix}{i}" for i in range(len(x))])


def slowly(model: DrugEffect, molecules: dict[str, np.ndarray], context: str, **place: float) -> np.ndarray:
    """Tell the anchor of the molecules by new names, and ask it."""
    n = len(next(iter(molecules.values())))
    more = model.also(features={name: named(x, "new ") for name, x in molecules.items()})
    columns = {axis: np.full(n, value) for axis, value in place.items()}
    actions, where = tuple((f"new {i}",) for i in range(n)), np.array([context] * n)
    return more.effects(ConditionTable(actions, where, np.zeros((n, N_GENES)), **columns))


def believed(model: DrugEffect, *names: str) -> DrugEffect:
    """Return the anchor with the same weight on each of some predictions, in all classes."""
    state = model.state()
    state["picks"] = {c: {**pick, "weights": {n: 1 / len(names) for n in names}} for c, pick in state["picks"].items()}
    return DrugEffect.from_state(state)


CASES = {
    "bits": (bits, {}, {}),
    "counts": (counts, {}, {}),
    "dose": (counts, {"doses": (0.1, 10.0)}, {"dose": 2.0}),
    "dose and time": (bits, {"doses": (0.1, 10.0), "times": (1.0, 4.0)}, {"dose": 100.0, "time": 2.0}),
}


@cache
def fitted(case: str) -> DrugEffect:
    prints, shape, _ = CASES[case]
    return DrugEffect(features=named(prints(N_DRUGS, 1))).fit(table(2, **shape))


@pytest.mark.parametrize("context", ["x", "never"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_questions_asked_one_by_one(case, context):
    (prints, _, place), model = CASES[case], fitted(case)
    known = prints(N_DRUGS, 1)
    names = [*model._judge.experts().predict(model._rows.take(np.arange(2)))]
    new = np.vstack([prints(12, 3), known[:2], np.zeros((1, N_BITS))])  # two of training and an empty one among them
    for some in ([], names, [PROCESS], ["structure ridge"]):
        asked = believed(model, *some) if some else model
        made = asked.screener(context, **place)
        expected = slowly(asked, {"features": new}, context, **place)
        assert made.cls == ("unseen" if context == "x" else "unseen context")
        np.testing.assert_allclose(made.effects({"features": new}), expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(made.effects({"features": sp.csr_array(new)}), expected, rtol=0, atol=1e-10)
        if some == [PROCESS] or some == ["structure ridge"]:
            assert made.tells_apart and np.ptp(expected, axis=0).max() > 1e-3, "structure has a part in it"


def test_several_descriptions_and_molecules_that_have_one_of_them():
    rng = np.random.default_rng(4)
    known, own = counts(N_DRUGS, 1), named(rng.normal(size=(N_DRUGS, 6)) + bits(N_DRUGS, 1)[:, :6])
    model = DrugEffect(features={"prints": named(known), "own": own.drop(index=["D3", "D4"])}).fit(table(2))
    new, more = counts(9, 5), rng.normal(size=(9, 6))
    specs = {spec["structure"] for spec, _ in model.kernels_}
    for asked in (model, believed(model, PROCESS, "structure ridge")):
        made = asked.screener("y")
        for molecules in ({"prints": new, "own": more}, {"prints": new}, {"own": more}):
            expected = slowly(asked, molecules, "y")
            np.testing.assert_allclose(made.effects(molecules), expected, rtol=0, atol=1e-10)
        assert {term.kernel for term in made.terms} <= specs | {"mean of all", "prints", "own"}
    alike = made.similarities({"prints": new, "own": more})
    similarity, drug = made.nearest(alike)
    expected = np.maximum(alike["prints"], alike["own"])
    assert np.array_equal(similarity, expected.max(1))
    assert not alike["own"][:, [made.names.index(name) for name in ("D3", "D4")]].any()
    assert drug.tolist() == [made.names[i] for i in expected.argmax(1)]


def test_nothing_is_done_at_dose_zero_and_means_do_not_tell_molecules_apart():
    model = fitted("dose")
    assert not model.screener("x", dose=0.0).effects({"features": bits(3, 2)}).any()
    made = believed(model, "mean per context").screener("x", dose=1.0)
    effects = made.effects({"features": bits(3, 2)})
    assert not made.tells_apart and np.ptp(effects, axis=0).max() == 0 and np.abs(effects).max() > 0.1


@pytest.mark.parametrize("values", ["bits", "bytes", "counts", "shares"])
def test_products_are_the_sums_of_minima(values):
    rng = np.random.default_rng(0)
    draw = {
        "bits": lambda n: (rng.random((n, 40)) < 0.2).astype(float),
        "bytes": lambda n: (rng.random((n, 40)) < 0.2).astype(np.uint8),
        "counts": lambda n: (
            rng.poisson(0.5, (n, 40)).astype(np.uint16) * rng.integers(1, 50, (n, 40)).astype(np.uint16)
        ),
        "shares": lambda n: np.round(rng.random((n, 40)), 1) * (rng.random((n, 40)) < 0.4),
    }[values]
    drugs, molecules = draw(7), np.vstack([draw(30), np.zeros((1, 40), draw(1).dtype)])
    made = Compared.of(Description(tuple("abcdefg"), drugs.astype(float), "counts"))
    expected = tanimoto(molecules.astype(float), drugs.astype(float))
    for form in (molecules, sp.csr_matrix(molecules), sp.coo_array(molecules), np.asfortranarray(molecules)):
        if values == "shares":
            np.testing.assert_allclose(made.to(form), expected, rtol=0, atol=1e-14)
        else:  # whole numbers: to the last bit
            assert np.array_equal(made.to(form), expected)
    np.testing.assert_allclose(
        made.to(molecules * 0.5), tanimoto(molecules * 0.5, drugs.astype(float)), rtol=0, atol=1e-14
    )
    many = Compared.of(Description(tuple("abcdefg"), rng.random((7, 80)), "counts"))
    assert not len(many.levels) and np.allclose(many.to(many.known.values).diagonal(), 1)


def test_rows_without_zeros():
    x = np.array([[0, 2, 0], [0, 0, 0], [1, 0, 3]])
    stored = sp.csr_array((np.array([2, 0, 1, 3]), np.array([1, 2, 0, 2]), np.array([0, 2, 2, 4])), shape=(3, 3))
    for form in (x, x.astype(np.uint8), x.astype(np.int8), x.astype(float), x[:, ::-1].copy()[:, ::-1], stored):
        found = rows_of(form)
        assert np.array_equal(found.toarray(), x) and found.nnz == 3


def test_what_is_no_sum_over_drugs_is_refused(monkeypatch):
    model = believed(fitted("bits"), "structure ridge")
    between = _screener.Alike.between
    monkeypatch.setattr(_screener.Alike, "between", lambda *args: between(*args) ** 3)  # as if a rule used a cube
    with pytest.raises(RuntimeError, match=r"is no sum over drugs of a \+ b s \+ c s\^2 \(missed by"):
        model.screener("x")


@pytest.mark.parametrize(
    ("molecules", "message"),
    [
        ({}, "molecules are described by nothing, those of training by 'features'"),
        ({"prints": np.ones((1, N_BITS))}, "molecules are described by 'prints', those of training by 'features'"),
        ({"features": np.ones((1, 3))}, r"features: molecules have shape \(1, 3\), but 50 features are known"),
        ({"features": np.ones(N_BITS)}, r"features: molecules have shape \(50,\)"),
        ({"features": np.full((1, N_BITS), np.nan)}, "features: molecules have values that are missing or infinite"),
        ({"features": np.full((1, N_BITS), -1)}, "features: negative values, but those of other drugs are counts"),
        ({"features": np.full((1, N_BITS), "C")}, "features: molecules have values of type <U1: expected numbers"),
    ],
)
def test_molecules_are_checked(molecules, message):
    made = fitted("bits").screener("x")
    with pytest.raises(ValueError, match=message):
        made.effects(molecules)


def test_screeners_need_features_and_what_questions_need():
    with pytest.raises(RuntimeError, match="DrugEffect is not fitted yet"):
        DrugEffect(features=named(bits(N_DRUGS, 1))).screener("x")
    with pytest.raises(ValueError, match="a screener compares molecules by their features"):
        DrugEffect().fit(table(2)).screener("x")
    with pytest.raises(ValueError, match="dose"):
        fitted("bits").screener("x", dose=1.0)
