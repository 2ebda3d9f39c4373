"""Transforms of one modality: fitted on training cells, applied to any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD

from scjepa._checks import require_positive_int
from scjepa._scale import check_scale, check_target_sum, lognormalise
from scjepa._types import FloatArray, Matrix

DEPTH = 0.9
"""A component that correlates so much with the log number of open peaks is depth, and left out."""


class Transform(ABC):
    """Features of a modality.

    :meth:`fit` looks at training cells only; :meth:`transform` takes any cells with the same features.
    """

    def fit(self, x: Matrix) -> Self:
        """Learn what there is to learn from training cells ``(n, p)``."""
        matrix = _matrix(x)
        self.n_features_: int = matrix.shape[1]
        self._fit(matrix)
        return self

    def transform(self, x: Matrix) -> Matrix:
        """Return features of cells ``(m, p)``.

        Raises
        ------
        RuntimeError, ValueError
            Before :meth:`fit`; for another number of features, and values that the transform can't take.
        """
        if not hasattr(self, "n_features_"):
            raise RuntimeError(f"{type(self).__name__} has seen no cells yet. Run fit(x) on training cells first.")
        matrix = _matrix(x)
        if matrix.shape[1] != self.n_features_:
            raise ValueError(
                f"x has {matrix.shape[1]} features, training cells had {self.n_features_}: expected the same."
            )
        return self._transform(matrix)

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"kind": type(self).__name__, **vars(self)}

    @abstractmethod
    def _fit(self, x: Matrix) -> None: ...

    @abstractmethod
    def _transform(self, x: Matrix) -> Matrix: ...


class LogNormalize(Transform):
    """Counts of RNA scaled to one total and logged, ``log1p(target_sum * x / total)``; logged values stay as they are.

    Parameters
    ----------
    target_sum
        Total of each cell.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.omics import LogNormalize
    >>> LogNormalize(10).fit(np.array([[1, 3], [2, 2]])).transform(np.array([[5, 5]])).round(4).tolist()
    [[1.7918, 1.7918]]
    """

    def __init__(self, target_sum: float = 1e4) -> None:
        self.target_sum = check_target_sum(target_sum)

    def _fit(self, x: Matrix) -> None:
        self.counts_ = check_scale(x, "auto", name="x") == "counts"

    def _transform(self, x: Matrix) -> Matrix:
        _same_scale(x, self.counts_)
        return lognormalise(x, target_sum=self.target_sum) if self.counts_ else x


class CLR(Transform):
    r"""Protein counts as log ratios to the cell's own mean log: ``log1p(x) - mean(log1p(x))``; transformed values stay as they are.

    A cell's depth cancels; what is left is relative to the other proteins of the cell.

    References
    ----------
    Stoeckius et al. 2017, *Nature Methods* 14 (CITE-seq); Aitchison 1982, *Journal of the Royal Statistical Society B* 44(2).

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.omics import CLR
    >>> counts = np.array([[0, 3], [7, 7]])
    >>> CLR().fit(counts).transform(counts).round(3).tolist()
    [[-0.693, 0.693], [0.0, 0.0]]
    """

    def _fit(self, x: Matrix) -> None:
        self.counts_ = _whole(x)

    def _transform(self, x: Matrix) -> Matrix:
        if not self.counts_:
            return _dense(x)
        if not _whole(x):
            raise ValueError("x holds no whole counts, the training cells did: give raw counts of proteins.")
        logged = np.log1p(_dense(x))
        return np.asarray(logged - logged.mean(1, keepdims=True))


class TFIDF(Transform):
    r"""Open chromatin as weighted peaks, :math:`\log(1 + s \cdot \mathrm{tf} \cdot \mathrm{idf})`; sparse in, sparse out.

    tf is a cell's share of its open peaks (counts are read as open or not), idf the number of training cells over those in which the
    peak is open. Peaks that are open in fewer than ``least`` of the training cells are left out.

    Parameters
    ----------
    least
        Share of training cells.
    scale
        s.

    Attributes
    ----------
    kept_
        Indices of the peaks that are kept.

    References
    ----------
    Cusanovich et al. 2018, *Cell* 174; variants compared by Luecken et al. 2022, *Nature Methods* 19.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from scjepa.omics import TFIDF
    >>> peaks = sp.csr_matrix(np.array([[2, 0, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]]))
    >>> found = TFIDF(least=0.2, scale=1).fit(peaks)
    >>> found.kept_.tolist(), found.transform(peaks).toarray().round(3)[0].tolist()
    ([0, 1, 2], [0.405, 0.0, 1.099])
    """

    def __init__(self, least: float = 0.01, scale: float = 100.0) -> None:
        if isinstance(least, bool) or not 0 <= least < 1:
            raise ValueError(f"least={least!r}: expected a share from 0 to below 1.")
        if isinstance(scale, bool) or not scale > 0:
            raise ValueError(f"scale={scale!r}: expected a positive number.")
        self.least, self.scale = float(least), float(scale)

    def _fit(self, x: Matrix) -> None:
        open_ = _open(x)
        cells = np.asarray(open_.sum(0)).ravel()
        self.kept_ = np.flatnonzero((cells > 0) & (cells >= self.least * open_.shape[0]))
        if not len(self.kept_):
            raise ValueError(f"no peak is open in {self.least:.1%} of {open_.shape[0]} cells. Use a smaller least.")
        self.idf_ = open_.shape[0] / cells[self.kept_]

    def _transform(self, x: Matrix) -> Matrix:
        open_ = _open(x)
        total = np.maximum(np.asarray(open_.sum(1)).ravel(), 1.0)
        weighted = sp.diags_array(self.scale / total) @ open_[:, self.kept_] @ sp.diags_array(self.idf_)
        return sp.csr_matrix(weighted).log1p()


class LSI(Transform):
    """Open chromatin in few dimensions: a truncated singular value decomposition of :class:`TFIDF`, without the one that is depth.

    Parameters
    ----------
    n_components
        Dimensions, before depth is left out.
    least
        See :class:`TFIDF`.
    seed
        Of the decomposition.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from scjepa.omics import LSI
    >>> peaks = sp.random(200, 300, 0.1, format="csr", random_state=0)
    >>> LSI(10).fit(peaks).transform(peaks).shape[1] in (9, 10)
    True
    """

    def __init__(self, n_components: int = 50, *, least: float = 0.01, seed: int = 0) -> None:
        self.n_components, self.seed = require_positive_int(n_components, "n_components"), seed
        self.least = least
        self._weigh = TFIDF(least)

    def _fit(self, x: Matrix) -> None:
        weighted = self._weigh.fit(x).transform(x)
        k = min(self.n_components, min(weighted.shape) - 1)
        found = TruncatedSVD(
            max(k, 1), algorithm="arpack" if k < min(weighted.shape) - 1 else "randomized", random_state=self.seed
        )
        scores = found.fit_transform(weighted)
        depth = np.log1p(np.asarray(_open(x).sum(1)).ravel())
        centred = depth - depth.mean()
        spread = scores.std(0) * depth.std()
        r = np.divide(
            ((scores - scores.mean(0)) * centred[:, None]).mean(0), spread, out=np.zeros_like(spread), where=spread > 0
        )
        kept = np.abs(r) < DEPTH
        self.loadings_ = found.components_[kept if kept.any() else slice(None)]

    def _transform(self, x: Matrix) -> Matrix:
        return np.asarray(self._weigh.transform(x) @ self.loadings_.T)

    def state(self) -> dict[str, Any]:
        """Return it as plain data."""
        held = {k: v for k, v in vars(self).items() if k != "_weigh"}
        return {"kind": type(self).__name__, **held, "weigh": self._weigh.state()}


def transform_from_state(state: Mapping[str, Any]) -> Transform:
    """Rebuild any transform from its :meth:`Transform.state`.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.omics import CLR, transform_from_state
    >>> type(transform_from_state(CLR().fit(np.eye(3)).state())).__name__
    'CLR'
    """
    kinds: dict[str, type[Transform]] = {kind.__name__: kind for kind in (LogNormalize, CLR, TFIDF, LSI)}
    held = {k: v for k, v in state.items() if k not in ("kind", "weigh")}
    new = kinds[str(state["kind"])].__new__(kinds[str(state["kind"])])
    vars(new).update(held)
    if "weigh" in state:
        vars(new)["_weigh"] = transform_from_state(state["weigh"])
    return new


def _matrix(x: Any) -> Matrix:
    """Return a finite matrix with non-negative or signed values, sparse as CSR."""
    matrix: Any = sp.csr_matrix(x) if sp.issparse(x) else np.asarray(x)
    if matrix.ndim != 2 or not matrix.shape[0] or not matrix.shape[1]:
        raise ValueError(f"x has shape {matrix.shape}: expected (cells, features), at least one of each.")
    values = matrix.data if sp.issparse(matrix) else matrix
    if not np.isfinite(values).all():
        raise ValueError(f"x has {int((~np.isfinite(values)).sum())} missing or infinite values: expected numbers.")
    return matrix


def _open(x: Matrix) -> sp.csr_matrix:
    """Return which peaks are open, as ones."""
    matrix = sp.csr_matrix(x)
    if matrix.nnz and matrix.data.min() < 0:
        raise ValueError("x has negative values: expected counts of fragments, or 0 and 1, in peaks.")
    out = sp.csr_matrix(((matrix.data > 0).astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape)
    out.eliminate_zeros()
    return out


def _whole(x: Any) -> bool:
    """Return whether values are counts."""
    values = x.data if sp.issparse(x) else np.asarray(x)
    return bool((values >= 0).all() and (values == np.rint(values)).all())


def _same_scale(x: Matrix, counts: bool) -> None:
    found = check_scale(x, "auto", name="x") == "counts"
    if found != counts:
        is_, was = ("counts", "logged values") if found else ("logged values", "counts")
        raise ValueError(f"x holds {is_}, the training cells {was}: give cells on the scale of training.")


def _dense(x: Any) -> FloatArray:
    return np.asarray(x.toarray() if sp.issparse(x) else x, dtype=np.float64)
