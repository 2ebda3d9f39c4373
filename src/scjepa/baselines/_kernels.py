"""Parts of the kernel anchor: links, kernels of actions and contexts, ridge weights. Functions of arrays only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from scjepa._types import FloatArray

Pair = tuple[np.ndarray, np.ndarray]
"""A kernel as two blocks: training x training and query x training."""

ACTION_KERNELS = {"additive": (1.0, 0.0, 0.0), "additive+rbf": (1.0, 0.0, 2.0), "components": (0.3, 1.0, 3.0)}
"""Kernels of actions by name: how much of the additive, the linear and the Gaussian part they have."""
FEATURE_KERNELS = ("constant", "features", "additive+features")
AMPLITUDE = "~"
"""Behind the name of a kernel whose additive part has a prior variance of its own for every column of the design."""


def apply_link(mean: FloatArray, eps: float | None) -> FloatArray:
    r"""Return :math:`\eta(m) = \log(e^m - 1 + \epsilon)`, or ``mean`` itself for ``eps=None``.

    On :math:`\log(1+x)` values this is the log of the normalised mean plus a pseudocount, so what is added under the
    link multiplies expression.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._kernels import apply_link, invert_link
    >>> apply_link(np.log1p([0.0, 3.0]), 1.0).round(4).tolist()
    [0.0, 1.3863]
    >>> invert_link(apply_link(np.array([0.0, 0.7]), 0.1), 0.1).round(4).tolist()
    [0.0, 0.7]
    """
    return mean if eps is None else np.log(np.expm1(np.clip(mean, 0, None)) + eps)


def invert_link(value: FloatArray, eps: float | None) -> FloatArray:
    r"""Return :math:`\log(1 + \max(e^\eta - \epsilon, 0))`, the inverse of :func:`apply_link`."""
    return value if eps is None else np.log1p(np.clip(np.exp(value) - eps, 0, None))


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the ``(n, m)`` squared distances between rows of two matrices."""
    return np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T, 0)


def length_scale(among: FloatArray) -> float:
    """Return the median of squared distances above zero, one where there are none."""
    positive = among[among > 1e-10 * max(float(among.max(initial=0.0)), 1e-300)]
    return float(np.median(positive)) if len(positive) else 1.0


def rbf(train: FloatArray, query: FloatArray) -> Pair:
    """Return a Gaussian kernel whose squared length scale is the median of the training distances above zero."""
    among, across = squared_distances(train, train), squared_distances(query, train)
    scale = length_scale(among)
    return np.exp(-among / scale), np.exp(-across / scale)


def single_components(design: FloatArray, gram: FloatArray, n_components: int) -> FloatArray:
    """Return ``(columns, n_components)`` principal components of ridge estimates of single effects.

    The estimates are ``W = (A'A + I)^-1 A'Y``; only ``gram = Y Y'`` is needed, so nothing here grows with the number
    of genes. Columns without a training row get zeros, the place of the mean effect. Rows have mean length one.
    """
    out = np.zeros((design.shape[1], n_components))
    seen = np.flatnonzero(np.abs(design).sum(0) > 0)
    k = min(n_components, len(seen))
    if not k:
        return out
    a = design[:, seen]
    hat = np.linalg.solve(a @ a.T + np.eye(len(a)), a).T
    hat -= hat.mean(0)
    values, vectors = scipy.linalg.eigh(hat @ gram @ hat.T, subset_by_index=[len(seen) - k, len(seen) - 1])
    scores = vectors * np.sqrt(np.maximum(values, 0))
    length = np.linalg.norm(scores, axis=1).mean()
    if length > 1e-9 * np.sqrt(max(np.trace(gram), 1e-300)):
        out[seen, :k] = scores[:, ::-1] / length
    return out


def action_kernels(
    train: FloatArray,
    query: FloatArray,
    train_order: np.ndarray,
    query_order: np.ndarray,
    gram: FloatArray,
    n_components: int = 8,
    features: tuple[FloatArray, FloatArray] | None = None,
    variances: FloatArray | None = None,
) -> dict[str, Pair]:
    """Build every candidate kernel of actions.

    Parameters
    ----------
    train, query
        Designs ``(n, columns)`` and ``(m, columns)`` (:class:`scjepa.baselines._design.ActionDesign`).
    train_order, query_order
        Numbers of perturbed genes, ``(n,)`` and ``(m,)``.
    gram
        ``(n, n)`` inner products of the training effects.
    n_components
        Number of components of single effects.
    features
        Summed gene features of both, ``(n, features)`` and ``(m, features)``, or None.
    variances
        ``(columns,)`` prior variance of each column's own effect (:func:`scjepa.baselines._noise.amplitudes`), or None.

    Returns
    -------
    Blocks by name: ``"additive"``, ``A A'``; ``"additive+rbf"``, ``A A' + c + 2 r``; ``"components"``,
    ``.3 A A' + c + F F' + 3 r``; and with features ``"constant"``, ``1``; ``"features"``, ``1 + P P' + r_P``;
    ``"additive+features"``, ``A A' + 1 + P P' + r_P``. Here ``c = 1 + 2 [both are combinations]``, ``F`` are the
    components of single effects summed over the action, ``r`` and ``r_P`` are Gaussian kernels on ``F`` and on the
    summed features ``P``. With variances ``t`` each kernel that has ``A A'`` comes once more, with ``A diag(t) A'`` and
    ``"~"`` behind its name. With a single column the kernel is ``A A'`` alone: a constant, unless doses differ.
    """
    additive = (train @ train.T, query @ train.T)
    out, weight = {"additive": additive}, {"additive": 1.0}
    if train.shape[1] > 1:
        axes = single_components(train, gram, n_components)
        f, g = train @ axes, query @ axes
        near, linear = rbf(f, g), (f @ f.T, g @ f.T)
        many, asked = (train_order >= 2).astype(float), (query_order >= 2).astype(float)
        both = (1 + 2 * np.outer(many, many), 1 + 2 * np.outer(asked, many))
        for name in ("additive+rbf", "components"):
            of_action, of_linear, of_near = ACTION_KERNELS[name]
            weight[name] = of_action
            among, across = (
                of_action * a + c + of_linear * k + of_near * r
                for a, c, k, r in zip(additive, both, linear, near, strict=True)
            )
            out[name] = among, across
    if features is not None:
        p, q = features
        near = rbf(p, q)
        similar = (1 + p @ p.T + near[0], 1 + q @ p.T + near[1])
        out["constant"] = (np.ones_like(additive[0]), np.ones_like(additive[1]))
        out["features"] = similar
        out["additive+features"] = (similar[0] + additive[0], similar[1] + additive[1])
        weight["additive+features"] = 1.0
    if variances is not None and train.shape[1] > 1:
        change = ((train * (variances - 1)) @ train.T, (query * (variances - 1)) @ train.T)
        for name, of_action in weight.items():
            among, across = (k + of_action * c for k, c in zip(out[name], change, strict=True))
            out[name + AMPLITUDE] = among, across
    return out


def control_axes(control: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean ``(genes,)`` and principal axes ``(genes, rank)`` of training control profiles.

    Nothing that kernels of training rows read is lost by the projection, and there are few axes when few control
    profiles differ.
    """
    center = control.mean(0)
    _, size, axes = np.linalg.svd(np.unique(control, axis=0) - center, full_matrices=False)
    return center, axes[size > 1e-7 * max(float(size.max(initial=0.0)), 1e-2)].T


def context_kernel(train: FloatArray, query: FloatArray) -> Pair:
    """Return 1 + the centered linear kernel of control profiles, scaled to mean one on the training diagonal.

    Control profiles that are all alike give a kernel of ones.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._kernels import context_kernel
    >>> [block.tolist() for block in context_kernel(np.array([[0.0], [2.0]]), np.array([[3.0]]))]
    [[[2.0, 0.0], [0.0, 2.0]], [[-1.0, 3.0]]]
    """
    center = train.mean(0)
    a, b = train - center, query - center
    among, across = a @ a.T, b @ a.T
    scale = float(among.diagonal().mean()) if len(among) else 0.0
    if scale < 1e-9:
        return np.ones_like(among), np.ones_like(across)
    return 1 + among / scale, 1 + across / scale


def ridge_weights(
    among: FloatArray,
    across: FloatArray,
    strengths: Sequence[float] | FloatArray,
    noise: FloatArray | None = None,
    *,
    dtype: type = np.float64,
) -> FloatArray:
    """Return ``(..., strengths, m, n)``: rows of ``K_q (K + strength S)^-1``, all strengths from one decomposition.

    Parameters
    ----------
    among, across
        One kernel or a stack of them: ``(..., n, n)`` and ``(..., m, n)``.
    strengths
        Ridge strengths.
    noise
        ``(n, n)`` covariance of the noise of rows, ``S``, by default the identity, or ``(n,)`` its diagonal: with its
        Cholesky factor ``L`` the eigenvalues of ``L^-1 K L^-T`` are shifted instead.
    dtype
        Of the result, and of the products after the decomposition.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.baselines._kernels import ridge_weights
    >>> ridge_weights(np.eye(2), np.array([[1.0, 0.0]]), [1.0, 3.0]).tolist()
    [[[0.5, 0.0]], [[0.25, 0.0]]]
    >>> ridge_weights(np.eye(2), np.array([[1.0, 0.0]]), [1.0], np.diag([3.0, 1.0])).round(6).tolist()
    [[[0.25, 0.0]]]
    >>> ridge_weights(np.eye(2), np.array([[1.0, 0.0]]), [1.0], np.array([3.0, 1.0])).round(6).tolist()
    [[[0.25, 0.0]]]
    """
    if noise is None:
        values, outside = np.linalg.eigh(among)
    elif noise.ndim == 1:
        scale = 1 / np.sqrt(noise)
        values, vectors = np.linalg.eigh(scale[:, None] * among * scale)
        outside = scale[:, None] * vectors
    else:
        whiten = scipy.linalg.solve_triangular(np.linalg.cholesky(noise), np.eye(len(noise)), lower=True)
        values, vectors = np.linalg.eigh(whiten @ among @ whiten.T)
        outside = whiten.T @ vectors
    shrink = 1 / (np.maximum(values, 0)[..., None, :] + np.asarray(strengths)[:, None])
    inside, shrink, outside = ((across @ outside).astype(dtype), shrink.astype(dtype), outside.astype(dtype))
    left = inside[..., None, :, :] * shrink[..., :, None, :]
    flat = left.reshape(*left.shape[:-3], -1, left.shape[-1]) @ np.swapaxes(outside, -1, -2)
    return np.asarray(flat.reshape(left.shape))
