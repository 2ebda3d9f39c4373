"""Kernel ridge regression whose penalties are found by leaving each cell out, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from scjepa._types import FloatArray

LAMBDAS = np.logspace(-2, 3, 11)
POOL = 1.0
"""Weight of the mean error of all features against a feature's own, when its penalty is chosen."""
LANDMARKS = 2500
"""More cells than these are read through so many of them (Nystroem)."""
LEAST = 1e-9


class KernelFit(NamedTuple):
    """A fitted kernel ridge regression."""

    centers: FloatArray
    """``(m, d)`` cells that kernels are taken to."""
    weights: FloatArray
    """``(m, q)``."""
    mean: FloatArray
    """``(q,)``."""
    penalty: FloatArray
    """``(q,)``."""
    error: float
    """Mean relative squared error of cells left out."""
    scale: float
    """Median squared distance, the unit of the kernel."""


def matern(a: FloatArray, b: FloatArray, scale: float) -> FloatArray:
    r"""Return the Matern-3/2 kernel :math:`(1 + r) e^{-r}`, :math:`r = 1.7 |a - b| / \sqrt{s}`, ``(n, m)``."""
    r = 1.7 * cdist(a, b) / np.sqrt(scale)
    return (1 + r) * np.exp(-r)


def gaussian(a: FloatArray, b: FloatArray, scale: float) -> FloatArray:
    r"""Return the Gaussian kernel :math:`e^{-|a - b|^2 / s}`, ``(n, m)``."""
    return np.exp(-cdist(a, b, "sqeuclidean") / scale)


def median_distance(z: FloatArray, rng: np.random.Generator, most: int = 1000) -> float:
    """Return the median squared distance of (at most 1,000) cells."""
    kept = z if len(z) <= most else z[rng.permutation(len(z))[:most]]
    d = cdist(kept, kept, "sqeuclidean")
    d = d[d > 0]
    return float(np.median(d)) if len(d) else 1.0


def kernel_ridge(kernel: FloatArray, centers: FloatArray, inner: FloatArray, y: FloatArray, scale: float) -> KernelFit:
    r"""Fit with a penalty for each feature, the one of least error of cells left out.

    With the kernel :math:`K` of cells to centers and :math:`C` among centers, :math:`\Phi = K C^{-1/2}` and
    :math:`H = \Phi (\Phi^\top \Phi + \lambda)^{-1} \Phi^\top`, the error of a cell that is left out is
    :math:`(y_i - \hat y_i) / (1 - S_{ii})`, with :math:`S = 1/n + H (I - 1/n)` since features are centred first.

    Parameters
    ----------
    kernel
        ``(n, m)`` of cells to centers.
    centers
        ``(m, d)``.
    inner
        ``(m, m)`` of centers to each other.
    y
        ``(n, q)``.
    scale
        Kept with the fit.

    References
    ----------
    Allen 1974, *Technometrics* 16 (PRESS); Williams & Seeger 2001, *NIPS* 13 (Nystroem).
    """
    value, vector = np.linalg.eigh(inner)
    kept = value > LEAST * value.max()
    root = vector[:, kept] / np.sqrt(value[kept])
    phi = kernel @ root
    gram, basis = np.linalg.eigh(phi.T @ phi)
    gram = np.maximum(gram, 0.0)
    rotated = phi @ basis
    mean = y.mean(0)
    centred = y - mean
    moment, squares, ones = rotated.T @ centred, rotated**2, rotated.sum(0)
    variance = np.maximum(centred.var(0), 1e-12)
    errors = []
    for penalty in LAMBDAS:
        fitted = rotated @ (moment / (gram + penalty)[:, None])
        # the smoother takes the mean off first: S = 1/n + H (I - 1/n)
        leverage = squares @ (1 / (gram + penalty)) + (1 - rotated @ (ones / (gram + penalty))) / len(y)
        leverage = np.minimum(leverage, 0.999)
        errors.append((((centred - fitted) / (1 - leverage)[:, None]) ** 2).mean(0) / variance)
    table = np.array(errors)
    pooled = table + POOL * table.mean(1, keepdims=True)
    chosen = LAMBDAS[pooled.argmin(0)]
    weights = root @ (basis @ (moment / (gram[:, None] + chosen)))
    return KernelFit(centers, weights, mean, chosen, float(table.mean(1).min()), scale)


def gradient_product(z: FloatArray, fit: KernelFit) -> FloatArray:
    """Return the average gradient outer product ``(d, d)`` of a Matern regression, summed over features.

    References
    ----------
    Radhakrishnan et al. 2024, *Science* 383 (recursive feature machines).
    """
    r = 1.7 * cdist(z, fit.centers) / np.sqrt(fit.scale)
    decay = np.exp(-r)
    out = np.zeros((z.shape[1], z.shape[1]))
    for weight in fit.weights.T:
        w = decay * weight
        gradient = z * w.sum(1, keepdims=True) - w @ fit.centers
        out += gradient.T @ gradient
    return out
