"""Ridge on perturbed genes: agreement with scikit-learn and a hand-computed shrinkage."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from scjepa.baselines import Ridge
from scjepa.baselines._ridge import STRENGTHS


def test_agrees_with_scikit_learn_when_all_directions_are_kept(make_screen):
    table = make_screen(0)
    design = table.design(table.vocabulary())
    model = Ridge(n_pcs=50).fit(table)
    errors = []
    for strength in STRENGTHS:
        estimator = sklearn.linear_model.Ridge(alpha=strength, fit_intercept=False)
        left_out = cross_val_predict(estimator, design, table.effects, cv=LeaveOneOut())
        errors.append(np.square(left_out - table.effects).sum())
    assert model.strength_ == STRENGTHS[int(np.argmin(errors))]
    expected = sklearn.linear_model.Ridge(alpha=model.strength_, fit_intercept=False).fit(design, table.effects)
    np.testing.assert_allclose(model.effects(table), expected.predict(design), atol=1e-8)


def test_predictions_stay_in_the_leading_directions(make_screen):
    table = make_screen(1)
    out = Ridge(n_pcs=2).fit(table).effects(table)
    assert np.linalg.matrix_rank(out, tol=1e-8) == 2
    axes = np.linalg.svd(table.effects, full_matrices=False)[2][:2]
    np.testing.assert_allclose(out @ axes.T @ axes, out, atol=1e-8)


def test_single_gene_is_shrunken_by_the_count(make_table, monkeypatch):
    # one gene in three rows of effect 4: 3 * 4 / (3 + strength)
    table = make_table(["A"] * 3, [4.0, 4.0, 4.0], contexts=["x", "y", "z"])
    monkeypatch.setattr("scjepa.baselines._ridge.STRENGTHS", (1.0,))
    assert Ridge().fit(table).effects(table.rows([0])).item() == pytest.approx(3.0)


def test_unseen_gene_is_nan(make_table):
    model = Ridge().fit(make_table(["A", "B", "A+B"], [1.0, 2.0, 3.0]))
    assert model.applies(make_table(["A+B", "A+C", "C"], n_genes=1)).tolist() == [True, False, False]


@pytest.mark.parametrize("n_pcs", [0, 2.5, True])
def test_refuses_numbers_of_pcs_that_are_none(n_pcs):
    with pytest.raises(ValueError, match=r"n_pcs=.*: expected a whole number of at least 1"):
        Ridge(n_pcs=n_pcs)
