"""One modality from another in closed form: known answers, leave-one-out in closed form, stacks that don't lose."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.kernel_ridge import KernelRidge

from scjepa.baselines.modalities import (
    KernelAnchor,
    KernelModality,
    MeanModality,
    NearestModality,
    RidgeModality,
    Stack,
)
from scjepa.baselines.modalities._kernels import LAMBDAS, gaussian, kernel_ridge
from scjepa.baselines.modalities._regressions import _most_correlated

ALL = (MeanModality, RidgeModality, NearestModality, KernelModality, KernelAnchor, Stack)


def paired(n=150, p=40, seed=0, noise=0.3):
    """Sparse counts-like features of a few states, and three targets of them."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(n, 3))
    x = np.maximum(state @ rng.normal(size=(3, p)) + rng.normal(size=(n, p)), 0)
    y = np.stack([state[:, 0] ** 2, state[:, 1], state[:, 0] * state[:, 2]], 1) + noise * rng.normal(size=(n, 3))
    return x, y


def rmse(a, b):
    return float(np.sqrt(((a - b) ** 2).mean()))


@pytest.mark.parametrize("make", ALL)
def test_better_than_the_mean_and_the_same_sparse_and_rebuilt(make):
    x, y = paired(250)
    fitted = make().fit(x[:200], y[:200])
    predicted = fitted.predict(x[200:])
    assert predicted.shape == (50, 3)
    mean = rmse(np.tile(y[:200].mean(0), (50, 1)), y[200:])
    assert rmse(predicted, y[200:]) <= (mean if make is MeanModality else 0.95 * mean) + 1e-12
    sparse = make().fit(sp.csr_matrix(x[:200]), y[:200]).predict(sp.csr_matrix(x[200:]))
    np.testing.assert_allclose(sparse, predicted, atol=1e-4)
    again = make.from_state(fitted.state())
    np.testing.assert_array_equal(again.predict(x[200:]), predicted)


@pytest.mark.parametrize("make", ALL)
def test_order_of_cells_asked_does_not_matter(make):
    x, y = paired(120)
    fitted = make().fit(x[:80], y[:80])
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_allclose(fitted.predict(x[80:][order]), fitted.predict(x[80:])[order], atol=1e-9)


def test_kernel_ridge_is_that_of_scikit_learn_and_its_penalty_is_the_best_of_leaving_cells_out():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(40, 2)), rng.normal(size=(40, 1))
    y += np.sin(2 * z[:, :1]) * 3
    kernel = gaussian(z, z, 2.0)
    fit = kernel_ridge(kernel, z, kernel, y, 2.0)
    penalty = float(fit.penalty[0])
    known = KernelRidge(alpha=penalty, kernel="precomputed").fit(kernel, y - y.mean(0)).predict(kernel) + y.mean(0)
    np.testing.assert_allclose(kernel @ fit.weights + fit.mean, known, atol=1e-6)

    def left_out(lam):
        errors = []
        for i in range(40):
            rest = np.arange(40) != i
            model = KernelRidge(alpha=lam, kernel="precomputed").fit(
                kernel[np.ix_(rest, rest)], y[rest] - y[rest].mean()
            )
            errors.append(float((model.predict(kernel[i : i + 1, rest]) + y[rest].mean() - y[i])[0, 0]) ** 2)
        return np.mean(errors)

    table = [left_out(lam) for lam in LAMBDAS]
    assert abs(int(np.argmin(table)) - int(np.argmin(np.abs(LAMBDAS - penalty)))) <= 1
    assert fit.error == pytest.approx(min(table) / y.var(), rel=0.1)


def test_landmarks_that_are_all_cells_change_nothing_and_fewer_change_little(monkeypatch):
    x, y = paired(200)
    exact = KernelModality().fit(x[:160], y[:160]).predict(x[160:])
    monkeypatch.setattr("scjepa.baselines.modalities._regressions.LANDMARKS", 120)
    few = KernelModality().fit(x[:160], y[:160]).predict(x[160:])
    assert not np.allclose(few, exact) and np.corrcoef(few.ravel(), exact.ravel())[0, 1] > 0.98


def test_the_features_that_tell_most_are_chosen():
    x, y = paired(200)
    x[:, 7] = y[:, 1] + 5
    assert 7 in _most_correlated(x, y, 1) and 7 in _most_correlated(sp.csr_matrix(x), y, 1)
    np.testing.assert_array_equal(_most_correlated(x, y, 3), _most_correlated(sp.csr_matrix(x), y, 3))


def test_a_stack_is_as_good_as_its_best_member_with_signal_and_as_the_mean_without():
    x, y = paired(520, seed=1)
    known = {
        make.name: rmse(make().fit(x[:360], y[:360]).predict(x[360:]), y[360:])
        for make in (RidgeModality, KernelModality, KernelAnchor)
    }
    stack = Stack().fit(x[:360], y[:360])
    assert rmse(stack.predict(x[360:]), y[360:]) <= 1.04 * min(known.values())
    noise = np.random.default_rng(0).permutation(y)
    mean = rmse(np.tile(noise[:360].mean(0), (160, 1)), noise[360:])
    assert rmse(Stack().fit(x[:360], noise[:360]).predict(x[360:]), noise[360:]) <= 1.02 * mean
    assert rmse(stack.left_out_, y[:360]) == pytest.approx(rmse(stack.residuals_, 0))


def test_whole_batches_are_left_out_and_intervals_cover():
    x, y = paired(300, seed=2)
    batch = np.repeat(["a", "b", "c"], 100)
    stack = Stack().fit(x, y, groups=batch)
    assert all(len(set(stack.fold_[batch == b])) == 1 for b in "abc") and len(set(stack.fold_)) == 3
    half = stack.half_widths(0.8)
    inside = np.abs(stack.residuals_) <= half
    np.testing.assert_allclose(inside.mean(0), 0.8, atol=0.02)
    new_x, new_y = paired(200, seed=2)
    assert (stack.half_widths(0.95) > half).all() and new_x.shape[1] == x.shape[1] and new_y.shape[1] == 3
    again = Stack().fit(x, y, groups=batch)
    np.testing.assert_array_equal(again.predict(x), stack.predict(x))


def test_cells_without_a_target_take_part_in_components():
    x, y = paired(200)
    alone = RidgeModality().fit(x[:40], y[:40])
    helped = RidgeModality().fit(x[:40], y[:40], extra=x[40:150])
    assert helped.axes_.loadings.shape[0] > alone.axes_.loadings.shape[0]
    np.testing.assert_allclose(RidgeModality().fit(x[:40], y[:40], extra=x[:0]).predict(x), alone.predict(x))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda x, y: RidgeModality().fit(x, y[:-1]), ValueError, "of the same cells"),
        (lambda x, y: RidgeModality().fit(x[0], y), ValueError, "expected \\(cells, features\\)"),
        (lambda x, y: RidgeModality().fit(x, y * np.nan), ValueError, "y has 450 missing"),
        (lambda x, y: RidgeModality().fit(np.where(x > 2, np.inf, x), y), ValueError, "x has .* missing or infinite"),
        (lambda x, y: RidgeModality().fit(x[:2], y[:2]), ValueError, "at least three"),
        (lambda x, y: RidgeModality().fit(x, y, extra=x[:, 1:]), ValueError, "extra has 39 features"),
        (lambda x, y: RidgeModality().predict(x), RuntimeError, "learned nothing yet"),
        (lambda x, y: RidgeModality().fit(x, y).predict(x[:, 1:]), ValueError, "x has 39 features, 40"),
        (lambda x, y: KernelAnchor(smooth=1.0), ValueError, "smooth=1.0"),
        (lambda x, y: Stack({}), ValueError, "members is empty"),
        (lambda x, y: Stack().fit(x, y, groups=["a"]), ValueError, "one batch for each of 150"),
        (lambda x, y: Stack().fit(x[:30], y[:30]).half_widths(1.0), ValueError, "level=1.0"),
    ],
)
def test_errors(ask, error, message):
    with pytest.raises(error, match=message):
        ask(*paired())
