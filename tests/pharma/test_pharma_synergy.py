"""Synergy: hand-computed values, surfaces without interaction, agreement with the package `synergy` where it is there."""

from __future__ import annotations

import numpy as np
import pytest

from scjepa.pharma import hill, synergy

A = np.array([0.0, 0.1, 0.3, 1.0, 3.0, 10.0])
B = np.array([0.0, 0.05, 0.2, 1.0, 5.0, 20.0])


def bliss_surface() -> np.ndarray:
    a, b = hill(A, 0, 0.9, 1.0, 1.5), hill(B, 0, 0.6, 0.7, 1.0)
    return a[:, None] + b - np.outer(a, b)


# ---------------------------------------------------------------- by hand


def test_bliss_and_hsa_by_hand():
    surface = np.array([[0.0, 0.2, 0.5], [0.4, 0.6, 0.6]])
    bliss, hsa = (synergy([0, 1], [0, 1, 2], surface, r) for r in ("bliss", "hsa"))
    np.testing.assert_allclose(bliss.expected, [[0, 0.2, 0.5], [0.4, 0.52, 0.7]])
    np.testing.assert_allclose(bliss.excess, [[0, 0, 0], [0, 0.08, -0.1]], atol=1e-12)
    assert bliss.score == pytest.approx(-0.01)
    np.testing.assert_allclose(hsa.expected[1], [0.4, 0.4, 0.5])
    assert hsa.score == pytest.approx(0.15) and bliss.combination_index is None


def test_bliss_without_bound_is_the_sum_and_percent_are_fractions():
    surface = np.array([[0.0, 2.0], [3.0, 4.0]])
    assert synergy([0, 1], [0, 1], surface, maximum=np.inf).expected[1, 1] == 5
    assert synergy([0, 1], [0, 1], surface, maximum=100.0).expected[1, 1] == pytest.approx(4.94)


def test_a_drug_with_itself_is_additive_by_loewe():
    surface = hill(A[:, None] + A[None, :], 0, 0.8, 1.0, 2.0)
    found = synergy(A, A, surface, "loewe")
    np.testing.assert_allclose(found.expected, surface, atol=1e-7)
    assert abs(found.score) < 1e-7
    np.testing.assert_allclose(np.delete(found.combination_index.ravel(), 0), 1, atol=1e-5)
    low = synergy(A[:4], A[:4], surface[:4, :4], "bliss")
    assert low.score > 0.02, "Bliss takes a steep drug at low doses for synergistic with itself"


def test_loewe_isobole_by_hand():
    """Hill slope 1 and one reach: the equation a / D_a + b / D_b = 1 has the solution E = r / (1 + r), r = a/C_a + b/C_b."""
    ratio = A[:, None] / 0.5 + B / 2.0
    expected = ratio / (1 + ratio)
    surface = expected + np.where(np.outer(A, B) > 0, 0.05 * expected * (1 - expected), 0)
    found = synergy(A, B, surface, "loewe")
    np.testing.assert_allclose(found.expected, expected, atol=1e-6)
    assert found.score > 0 and (found.combination_index[1:, 1:] < 1).all()


def test_above_the_reach_of_the_weaker_drug_the_stronger_acts_alone():
    strong, weak = hill(A, 0, 0.9, 0.3, 1.0), hill(B, 0, 0.2, 0.3, 1.0)
    found = synergy(A, B, np.maximum(strong[:, None], weak), "loewe")
    np.testing.assert_allclose(found.expected[-1], strong[-1], atol=1e-6)


def test_a_drug_that_does_nothing_changes_nothing():
    surface = np.tile(hill(A, 0, 0.9, 0.3, 1.0)[:, None], len(B))
    for reference in ("bliss", "hsa", "loewe", "zip"):
        assert abs(synergy(A, B, surface, reference).score) < 1e-6, reference


def test_zip_without_interaction_is_zero_and_shifted_potency_is_found():
    assert abs(synergy(A, B, bliss_surface(), "zip").score) < 1e-9
    a, b = A[:, None], B[None, :]
    stronger = hill(a, 0, 0.9, 1.0 / (1 + b), 1.5)  # b makes a more potent, and does nothing alone
    found = synergy(A, B, stronger, "zip")
    np.testing.assert_allclose(found.expected[1:, 1:], np.repeat(hill(A, 0, 0.9, 1.0, 1.5)[1:, None], 5, 1), atol=1e-6)
    assert found.score > 0.05


@pytest.mark.parametrize("reference", ["bliss", "hsa", "loewe", "zip"])
def test_drugs_may_be_swapped_doses_reordered_and_surfaces_stacked(reference):
    surface = bliss_surface() + 0.1 * np.outer(A > 0, B > 0)
    found = synergy(A, B, surface, reference)
    swapped = synergy(B, A, surface.T, reference)
    np.testing.assert_allclose(swapped.excess.T, found.excess, atol=1e-6)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(synergy(A[order], B, surface[order], reference).excess, found.excess[order], atol=1e-6)
    stacked = synergy(A, B, np.stack([surface, 0.5 * surface])[None], reference)
    assert stacked.score.shape == (1, 2)
    np.testing.assert_allclose(stacked.excess[0, 0], found.excess, atol=1e-9)


# ---------------------------------------------------------------- another package


def test_agrees_with_the_synergy_package():
    combination = pytest.importorskip("synergy.combination")
    single = pytest.importorskip("synergy.single")
    a, b = (v.ravel() for v in np.meshgrid(A, B, indexing="ij"))
    effect = bliss_surface()
    effect = effect + 0.15 * np.outer(hill(A, 0, 0.9, 1.0, 1.5), hill(B, 0, 0.6, 0.7, 1.0)) * (1 - effect)
    # there E is what survives
    drugs = {
        "drug1_model": single.Hill(E0=1, Emax=0.1, h=1.5, C=1.0),
        "drug2_model": single.Hill(E0=1, Emax=0.4, h=1.0, C=0.7),
    }
    for reference, model in {
        "bliss": combination.Bliss(**drugs),
        "hsa": combination.HSA(**drugs),
        "loewe": combination.Loewe(mode="delta_HSA", **drugs),
        "zip": combination.ZIP(**drugs),
    }.items():
        with np.errstate(all="ignore"):
            model.fit(a, b, 1 - effect.ravel())
        got = synergy(A, B, effect, reference)
        np.testing.assert_allclose(got.excess.ravel(), model.synergy, atol=1e-5, err_msg=reference)
    index = combination.Loewe(**drugs)
    index.fit(a, b, 1 - effect.ravel())
    both = np.isfinite(index.synergy) & (a + b > 0)
    np.testing.assert_allclose(
        synergy(A, B, effect, "loewe").combination_index.ravel()[both], index.synergy[both], rtol=1e-5
    )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (([0, 1], [0, 1], np.zeros((2, 3))), {}, r"doses_a has shape \(2,\), doses_b \(2,\) and effect \(2, 3\)"),
        (([1, 2], [0, 1], np.zeros((2, 2))), {}, r"doses_a is \[1.0, 2.0\]: expected 0"),
        (([0, 1], [0, 0], np.zeros((2, 2))), {}, "doses_b has repeated doses"),
        (([0, -1], [0, 1], np.zeros((2, 2))), {}, "doses_a has 1 negative doses"),
        (([0, 1], [0, 1], [[0, np.nan], [0, 1]]), {}, "effect has 1 missing or infinite values"),
        (([0, 1], [0, 1], [[1, 0.5], [0.4, 0.1]]), {}, "effect without drug is 1, .*1 - viability"),
        (([0, 1], [0, 1], np.zeros((2, 2))), {"maximum": 0}, "maximum=0: expected a number above 0"),
        (
            ([0, 1], [0, 1], np.zeros((2, 2))),
            {"reference": "blis"},
            "reference='blis' is not among .*Did you mean 'bliss'",
        ),
        (([0, 1], [0, 1], [[0, 0.1], [0.1, 0.2]]), {"reference": "loewe"}, "doses_a has 1 doses above 0: .*at least 3"),
    ],
)
def test_wrong_surfaces_are_refused(args, options, message):
    with pytest.raises(ValueError, match=message):
        synergy(*args, **options)
