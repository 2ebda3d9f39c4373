"""Metrics of one embedding that raise the alarm when it collapses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scjepa._types import FloatArray
from scjepa.metrics._shapes import matrix

LIDAR_RIDGE = 1e-4
"""Added to the within-group covariance, as in the LiDAR paper, so that it can be inverted."""


def _entropy_rank(p: FloatArray) -> float:
    """Exponential of the entropy of non-negative weights (``0 log 0 = 0``)."""
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def rankme(z: npt.ArrayLike) -> float:
    r"""Effective rank of an embedding: :math:`\exp(-\sum_k p_k \log p_k)`, :math:`p_k = s_k / \sum_j s_j + 10^{-5}`.

    :math:`s_k` are the singular values of ``z``, **not** centered, so a constant embedding scores about 1.

    Parameters
    ----------
    z
        ``(n, d)`` embedding.

    Returns
    -------
    A number between 1 and about ``min(n, d)``; NaN when ``z`` is all zero or not finite.

    Raises
    ------
    ValueError
        If ``z`` is not a matrix.

    Notes
    -----
    An alarm, not a score: high values do not rank recipes.

    References
    ----------
    Garrido et al., RankMe, ICML 2023, arXiv:2210.02885; the 1e-5 of rbalestr-lab/stable-pretraining.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.metrics import rankme
    >>> round(rankme(np.eye(4)), 2)
    4.0
    """
    values = matrix(z, "z")
    if not np.isfinite(values).all() or not values.any():
        return float("nan")
    s = np.linalg.svd(values, compute_uv=False)
    return _entropy_rank(s / s.sum() + 1e-5)


def lidar(z: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    r"""Effective rank of what separates groups of cells, measured in units of the spread within them.

    .. math::
        \Lambda = \Sigma_w^{-1/2} \Sigma_b \Sigma_w^{-1/2}, \quad
        \mathrm{LiDAR} = \exp\Big(-\sum_k p_k \log p_k\Big), \quad p_k = \lambda_k / \sum_j \lambda_j

    :math:`\Sigma_b` is the covariance of the group means (divisor groups - 1), :math:`\Sigma_w` the pooled covariance
    within groups (divisor cells - groups) plus :math:`10^{-4} I`.

    Parameters
    ----------
    z
        ``(n, d)`` embedding.
    groups
        ``(n,)`` labels: perturbations, or cells when the rows of ``z`` are several views of each cell.

    Returns
    -------
    A number between 1 and ``min(d, groups - 1)``; NaN when all group means are equal, when no group has two cells or
    when ``z`` is not finite.

    Raises
    ------
    ValueError
        If there is not one label per row or fewer than two groups.

    References
    ----------
    Thilak et al., LiDAR, ICLR 2024, arXiv:2312.04000.

    Examples
    --------
    >>> from scjepa.metrics import lidar
    >>> z = [[0.0, 0.0], [0.0, 0.2], [5.0, 0.0], [5.0, 0.2]]
    >>> round(lidar(z, ["a", "a", "b", "b"]), 6)
    1.0
    """
    values, labels = matrix(z, "z"), np.asarray(groups)
    if labels.shape != (len(values),):
        raise ValueError(f"groups has shape {labels.shape}, z has {len(values)} rows: expected one label per row.")
    names, code = np.unique(labels.astype(str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"groups has one label only ({str(names[0])!r}): LiDAR compares two or more groups.")
    if len(names) == len(values) or not np.isfinite(values).all():
        return float("nan")
    order = np.argsort(code, kind="stable")
    count = np.bincount(code)
    means = np.add.reduceat(values[order], np.cumsum(count) - count) / count[:, None]
    within = values - means[code]
    spread = within.T @ within / (len(values) - len(names)) + LIDAR_RIDGE * np.eye(values.shape[1])
    between = means - means.mean(0)
    if np.linalg.norm(between) <= 1e-9 * np.linalg.norm(means):
        return float("nan")
    # eigenvalues of the LiDAR matrix = squared singular values of the group means whitened by the within spread
    whitened = np.linalg.solve(np.linalg.cholesky(spread), between.T)
    eigenvalues = np.linalg.svd(whitened, compute_uv=False) ** 2
    return _entropy_rank(eigenvalues / eigenvalues.sum())


def alpha_req(z: npt.ArrayLike) -> float:
    r"""Decay of the covariance spectrum: :math:`\alpha` in :math:`\lambda_k \propto k^{-\alpha}`. About 1 is healthy.

    Minus the least-squares slope of log eigenvalue on log rank; large values mean that few directions hold all
    variance, values near 0 that the spectrum is flat (noise or whitening).

    Parameters
    ----------
    z
        ``(n, d)`` embedding.

    Returns
    -------
    The exponent; NaN when fewer than two eigenvalues are above rounding (1e-10 of the largest), as for a constant.

    Raises
    ------
    ValueError
        If ``z`` is not a matrix.

    References
    ----------
    Agrawal et al., alpha-ReQ, NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.metrics import alpha_req
    >>> z = np.vstack([np.diag([4.0, 2.0]), -np.diag([4.0, 2.0])])
    >>> round(alpha_req(z), 6)  # eigenvalues 8 and 2: a factor 4 from rank 1 to rank 2
    2.0
    """
    values = matrix(z, "z")
    if not np.isfinite(values).all():
        return float("nan")
    s = np.linalg.svd(values - values.mean(0), compute_uv=False)
    eigenvalues = s**2
    # a constant leaves only the rounding of the mean, which is no spectrum
    if s[0] <= 1e-9 * np.linalg.norm(values):
        return float("nan")
    eigenvalues = eigenvalues[eigenvalues > 1e-10 * eigenvalues[0]]
    if len(eigenvalues) < 2:
        return float("nan")
    rank = np.log(np.arange(1, len(eigenvalues) + 1))
    rank -= rank.mean()
    return float(-(rank @ np.log(eigenvalues)) / (rank @ rank))
