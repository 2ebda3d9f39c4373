"""Principal components of training cells, without densifying sparse data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA

from scjepa._types import FloatArray, Matrix


class Components(NamedTuple):
    """Mean ``(genes,)``, loadings ``(d, genes)`` with orthonormal rows, and standard deviations ``(d,)`` of the scores."""

    mean: FloatArray
    loadings: FloatArray
    std: FloatArray


def fit_components(x: Matrix, n_components: int, *, seed: int = 0) -> Components:
    """Fit principal components of ``x`` with implicit centring (:class:`sklearn.decomposition.PCA`).

    Parameters
    ----------
    x
        Training cells x genes, dense or sparse.
    n_components
        Number of components; those beyond the rank of the centred data (no variance but rounding, below 1e-6 of the
        first) come back as zeros, so shapes are fixed.
    seed
        Start of the Lanczos iteration; the result does not depend on it beyond rounding.

    Returns
    -------
    The components, float32.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import fit_components
    >>> x = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.1]])
    >>> fit_components(x, 1).loadings.astype(float).round(2).tolist()
    [[1.0, 0.02]]
    """
    n, genes = x.shape
    rank = min(n_components, n - 1, genes - (1 if sp.issparse(x) else 0))
    mean = np.asarray(x.mean(0), dtype=np.float64).ravel()
    loadings, std = np.zeros((n_components, genes), np.float32), np.zeros(n_components, np.float32)
    if rank > 0:
        with np.errstate(invalid="ignore"):  # no variance at all has no shares of variance
            if genes <= 600 and n > genes:  # one pass and a small eigenproblem; squares of values need double precision
                fitted = PCA(rank, svd_solver="covariance_eigh").fit(x.astype(np.float64))
            elif min(n, genes) <= 600 or rank > 0.8 * min(n, genes):  # Lanczos needs rank < min(shape)
                fitted = PCA(rank, svd_solver="full").fit(
                    np.asarray(sp.csr_matrix(x).toarray() if sp.issparse(x) else x, np.float64)
                )
            else:
                fitted = PCA(rank, svd_solver="arpack", random_state=seed).fit(x)
        kept = int((fitted.explained_variance_ > 1e-6 * fitted.explained_variance_[0]).sum())
        loadings[:kept] = fitted.components_[:kept]
        std[:kept] = np.sqrt(fitted.explained_variance_[:kept])
    return Components(mean.astype(np.float32), loadings, std)
