"""The baseline "kernel anchor": kernel ridge on effects of action x context, the closed form PerturbJEPA starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from scjepa._checks import require_positive_int, some
from scjepa._types import FloatArray
from scjepa.baselines._base import SelfJudging, table_from_state, table_state
from scjepa.baselines._choosing import SELECTION_ROWS, Chooser, link_name, link_value, noise_of, renamed
from scjepa.baselines._contexts import FEW_CONTEXTS, ContextReport
from scjepa.baselines._design import check_features
from scjepa.baselines._folds import condition_folds, context_folds, folds_of, supported_rows
from scjepa.baselines._noise import NoiseModel
from scjepa.baselines._selection import Rows, averaged, described
from scjepa.baselines._support import left_together, rows_like
from scjepa.baselines._threads import on_one_thread
from scjepa.baselines._training import Training, measured_in
from scjepa.data import ConditionTable

DERIVED = (
    "_training",
    "_report",
    "_noises",
    "_design",
    "_control",
    "_perturbed",
    "_axes",
    "_gram",
    "_targets",
    "_factors",
)
"""Attributes, some of them of 0.1.0, that follow from the others."""


class KernelEffect(SelfJudging):
    r"""Kernel ridge regression of effects that knows their noise, averaged over candidates by left-out error.

    .. math::
        \hat\mu = \eta^{-1}\bigl(\eta(\mu_0) + k_q (K + \lambda_g S)^{-1} (\eta(\mu_1) - \eta(\mu_0))\bigr),\quad
        K = K_{\text{action}} \circ K_{\text{context}},\quad \eta(m) = \log(e^m - 1 + \epsilon)

    with :math:`\mu_0` the control and :math:`\mu_1` the perturbed mean profiles; :math:`\eta` may also be the identity.
    Action kernels are listed under :func:`scjepa.baselines._kernels.action_kernels`; the context kernel is
    1 + the scaled linear kernel of centered control profiles.

    *Noise.* Where the table has the variance within conditions (tables made from cells do), a row is believed as far as
    its cells tell: :math:`S` has the sampling noise of each row plus the *misfit*, what plain sums miss of left-out rows
    beyond noise (:func:`scjepa.baselines._noise.misfit`); for new contexts rows of one context share the noise of their
    controls. Kernels with ``"~"`` behind their name give every perturbation a prior variance of its own, so that strong
    and null ones are not shrunken alike (:func:`scjepa.baselines._noise.amplitudes`); of ``additive`` and
    ``additive+rbf`` only these are candidates, where cells tell. And candidates with strengths
    :math:`\lambda_g` that differ between genes shrink noisy genes more (:func:`scjepa.baselines._noise.gene_steps`). In
    tables of profiles :math:`S` is the identity, and the spread between contexts is the only noise that can be seen.

    Predictions are averaged over the candidates (link, kernel, :math:`\lambda`, by gene or not), each weighted by
    :math:`\exp(-r / 0.1)` where its score over left-out training rows is a share :math:`r` above the least. The score is the
    mean of :math:`\log(e_i + \bar e)`, :math:`e_i` being the squared error on the log-normalised scale and :math:`\bar e` the
    least mean one: relative for large errors, absolute for small ones (for ``unseen`` genes :math:`\bar e` is left out, and
    no kernel has amplitudes). The best 32 count at most, and only those that
    weigh a hundredth of the best or more. Which candidates do well depends on the question, so weights are found for
    each class of query rows:

    =============== ========================================== ==========================================
    class           a query row is of this class when          left out
    =============== ========================================== ==========================================
    ``combination`` it perturbs two genes or more              one combination, everywhere
    ``single``      it perturbs one gene                       one condition
    ``context``     its context has no training rows           one context
    ``unseen``      a gene was never perturbed in training     one gene, with all rows it is part of
    =============== ========================================== ==========================================

    The last two take precedence, ``unseen`` first. ``combination`` judges by left-out combinations whose genes are all
    measured alone in the rest; if there are fewer than three, two shrunken candidates, chosen on Norman and CaRPool,
    count by half each. ``single`` and ``context`` judge by rows of the class whose genes are seen in the rest (genes of
    combinations alone, if three such rows exist), else by all rows whose genes are. With fewer than two, or three for
    ``unseen``, effects add up, each shrunken by its own reliability (empirical Bayes); without cells hardly at all. More
    than 32 conditions, contexts or genes are left out in 32 folds (more than 320 in 10). Components of single effects
    are computed anew inside every fold.

    *New contexts.* A kernel that looks at control profiles must be better than the best one that does not by three
    quarters of a standard error over left-out contexts; of two training contexts, which can't tell, three tenths of the
    prediction do. See :meth:`context_report`. For questions about known contexts kernels that don't look at control profiles
    are candidates beside the others where there are two or three contexts, between which those carry little.

    Parameters
    ----------
    context_kernel
        Whether effects may depend on the control profile; without it contexts share one effect (under the link).
    links
        Candidates of :math:`\epsilon`; None is the identity, the only one used for tables with negative values.
    lambdas
        Candidates of the ridge strength; 3 and 10 times the largest are tried too for ``context`` and ``unseen``.
    features
        Gene x features, for genes that were never perturbed in training; adds kernels on the summed features of the
        perturbed genes, scaled to length one. Without it rows with such genes are NaN.
    n_components
        Number of principal components of single effects in the action kernels.
    cautious
        In a new context, take of what control profiles say only the share that left-out contexts confirm
        (:attr:`ContextReport.share`), for up to eight training contexts: rarely worse than carrying mean effects over,
        and less good where control profiles do tell.

    Attributes
    ----------
    picks_
        Class of rows to ``{"link", "kernel", "lambda", "error", "mixture", "basis", "misfit"}``. ``"mixture"`` lists all
        candidates that count, best first, as ``[link, kernel, lambda, weight, by gene]``; weights sum to one. The first
        four are about the best one: its error is the mean L2 distance of left-out rows (over the 1,000 most variable
        genes in large tables), NaN where there was nothing to choose by. ``"basis"``: ``"left out"`` rows judged,
        ``"sampling noise"`` alone, or ``"none"``. With two or three contexts also ``"measured"``: what predicts conditions
        that were measured themselves, by kernels that look at contexts. For ``context`` ``"with"`` and ``"without"``:
        mixtures of kernels that look at control profiles, and of those that do not.
    supported_
        ``(n,)`` training rows whose genes are seen without them; for others :meth:`left_out_effects` answers a harder
        question than :meth:`effects` would.

    Notes
    -----
    This project's own recipe; kernel ridge and its leave-one-out selection are classic (Saunders, Gammerman and Vovk
    1998, *ICML*), and so is shrinking by reliability (James and Stein 1961; Efron and Morris 1973, *JASA* 68). Few
    conditions tell candidates apart poorly: averaging those that do about as well is steadier than trusting the best. The
    link makes effects multiplicative on expression. In training tables of more than 1,000 conditions a random 1,000 of
    them (seed 0) choose. In those of more than 2,000 what conditions have in common is read through 1,000 of them, seed 0
    (:class:`scjepa.baselines._landmarks.LandmarkRidge`): predictions differ from the exact ones by a few per cent.

    Examples
    --------
    Two singles and a query for both at once; with so few rows nothing can be chosen, and the answer is a shrunken sum.

    >>> import numpy as np
    >>> from scjepa.baselines import KernelEffect
    >>> from scjepa.data import ConditionTable
    >>> effects = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> table = ConditionTable((("A",), ("B",)), np.array(["all"] * 2), np.ones((2, 2)), 1 + effects)
    >>> query = ConditionTable((("A", "B"), ("A", "C")), np.array(["all"] * 2), np.ones((2, 2)))
    >>> model = KernelEffect().fit(table)
    >>> model.effects(query).round(2).tolist()
    [[0.63, 1.24], [nan, nan]]
    >>> model.picks_["combination"]["mixture"]
    [[0.03, 'additive', 0.3, 0.5, False], [0.03, 'components', 0.3, 0.5, False]]
    """

    name: ClassVar[str] = "kernel anchor"

    def __init__(
        self,
        *,
        context_kernel: bool = True,
        links: Sequence[float | None] = (None, 0.03, 0.1, 0.3, 1.0),
        lambdas: Sequence[float] = (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0),
        features: pd.DataFrame | None = None,
        n_components: int = 8,
        cautious: bool = False,
    ) -> None:
        if not len(links) or any(e is not None and not (np.isfinite(e) and e > 0) for e in links):
            raise ValueError(f"links={links!r}: expected one or more positive numbers or None (the identity).")
        if not len(lambdas) or not all(np.isfinite(v) and v > 0 for v in lambdas):
            raise ValueError(f"lambdas={lambdas!r}: expected one or more positive numbers.")
        if features is not None:
            check_features(features)
        self.context_kernel = bool(context_kernel)
        self.links = tuple(None if e is None else float(e) for e in links)
        self.lambdas = tuple(float(v) for v in lambdas)
        self.features = features
        self.n_components = require_positive_int(n_components, "n_components")
        self.cautious = bool(cautious)

    @on_one_thread
    def fit(self, table: ConditionTable) -> KernelEffect:
        """Weigh links, kernels and strengths for every class of query rows.

        Parameters
        ----------
        table
            Measured conditions.

        Returns
        -------
        Itself.
        """
        self._remember(table)
        self._prepare()
        self.picks_ = self._choose()
        if self.cautious and (report := self.context_report()) is not None:
            pick = self.picks_["context"]
            parts = ((1 - report.share, pick["without"]), (report.share, pick.get("with", [])))
            pick |= described(averaged(*parts), pick["error"])
        return self

    @on_one_thread
    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects.

        Parameters
        ----------
        query
            Questions: actions, contexts and control profiles; doses and kinds if the training table has them.

        Returns
        -------
        ``(m, genes)``; NaN for rows with a gene that was neither perturbed in training nor has features.
        """
        self._trained(query)
        rows, classes = self._training.rows_of(query), self.classes(query)
        measured = measured_in(self.table_, query)
        out = np.full(query.control.shape, np.nan)
        out[query.order == 0] = 0.0  # nothing was done
        for cls in self.picks_:
            here = (classes == cls) & (query.order > 0)
            own = measured & ("measured" in self.picks_[cls])
            for part, name in ((here & ~own, "mixture"), (here & own, "measured")):
                index = np.flatnonzero(part)
                if len(index):
                    out[index] = self._predict(rows.take(index), query.control[index], cls, name)
        return out

    def classes(self, query: ConditionTable) -> np.ndarray:
        """Return the class of each query row, ``(m,)``; ``""`` for rows without a prediction."""
        table = self._trained(query)
        out = np.where(query.order >= 2, "combination", "single").astype(object)
        out[~np.isin(query.contexts.astype(str), table.contexts.astype(str))] = "context"
        known = self._training.design.known(query)
        featured = set() if self.features is None else {str(g) for g in self.features.index}
        reachable = featured | set(self._training.design.vocabulary)
        out[~known] = ["unseen" if reachable.issuperset(query.actions[i]) else "" for i in np.flatnonzero(~known)]
        return out

    @on_one_thread
    def fitted_effects(self, cls: str | None = None) -> FloatArray:
        """Return in-sample predictions of the training rows, ``(n, genes)``.

        Parameters
        ----------
        cls
            Whose mixture to use for every row; by default each row's own (``"combination"`` or ``"single"``).
        """
        classes = self._row_classes(cls)
        out = np.empty(self.table_.control.shape)
        for c in dict.fromkeys(classes):
            index, own = np.flatnonzero(classes == c), cls is None and "measured" in self.picks_[c]
            out[index] = self._ask(index, c, None, "measured" if own else "mixture")
        return out

    @on_one_thread
    def left_out_effects(self, cls: str | None = None) -> FloatArray:
        """Return the prediction of every training row when it is left out, ``(n, genes)``.

        Parameters
        ----------
        cls
            Whose mixture, and whose way of leaving out, to use for every row; by default each row's own.

        Returns
        -------
        Rows that can't be left out (nothing else to train on) are NaN; see also ``supported_``.
        """
        return self._left_out(cls, self._ask, wide=True)

    @on_one_thread
    def distances(self, query: ConditionTable) -> FloatArray:
        """Return the share of predictive variance that training leaves, ``(m,)`` between 0 and 1; NaN as in effects.

        Parameters
        ----------
        query
            Questions, as for :meth:`effects`.
        """
        table = self._trained(query)
        rows, classes = self._training.rows_of(query), self.classes(query)
        unknown = query.order - query.design(table.vocabulary()).sum(1)
        out = np.full(len(query), np.nan)
        out[query.order == 0] = 0.0
        for cls in self.picks_:
            index = np.flatnonzero((classes == cls) & (query.order > 0))
            if len(index):
                out[index] = self._distance(rows.take(index), cls, unknown[index])
        return out

    @on_one_thread
    def left_out_distances(self, cls: str | None = None) -> FloatArray:
        """Return :meth:`distances` of the training rows, left out as in :meth:`left_out_effects`, ``(n,)``."""
        ask = lambda rows, c, train: self._distance(self._training.rows.take(rows), c, train=train)[:, None]
        return self._left_out(cls, ask, wide=False)[:, 0]

    def rows_like(self, cls: str, *, combinations: bool, usable: np.ndarray) -> np.ndarray:
        """Return the usable rows most like questions of a class, see :func:`scjepa.baselines._support.rows_like`."""
        return rows_like(self.table_, cls, combinations=combinations, usable=usable)

    def left_together(self, cls: str) -> np.ndarray:
        """Return which rows are left out together, see :func:`scjepa.baselines._support.left_together`."""
        return left_together(self.table_, cls)

    def again(self, table: ConditionTable) -> KernelEffect:
        """Return the same baseline fitted to another table; the choice of candidates is kept."""
        return self.from_state({**self.state(), "table": table_state(table)})

    def blind(self) -> KernelEffect:
        """Return one like it, to be fitted, that does not look at contexts."""
        return self.from_state({**self.state(), "context_kernel": False})

    def knowing(self, features: pd.DataFrame) -> KernelEffect:
        """Return a kernel anchor of its own for genes that were never perturbed, fitted to the same table."""
        return KernelEffect(features=features).fit(self.table_)

    def state(self) -> dict[str, Any]:
        """Return arguments, picks and training table as plain data; predictions are recomputed from them."""
        state: dict[str, Any] = {
            "context_kernel": self.context_kernel,
            "links": [link_name(e) for e in self.links],
            "lambdas": list(self.lambdas),
            "n_components": self.n_components,
            "cautious": self.cautious,
        }
        if self.features is not None:
            names = [str(g) for g in self.features.index]
            state["features"] = {"names": names, "values": self.features.to_numpy(dtype=float)}
        if hasattr(self, "picks_"):
            state["table"] = table_state(self.table_)
            state["picks"] = {c: renamed(pick, link_name) for c, pick in self.picks_.items()}
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> KernelEffect:
        """Rebuild a baseline, fitted or not, from :meth:`state`."""
        features = None
        if "features" in state:
            features = pd.DataFrame(np.asarray(state["features"]["values"]), index=list(state["features"]["names"]))
        new = cls(
            context_kernel=bool(state["context_kernel"]),
            links=[link_value(e) for e in state["links"]],
            lambdas=[float(v) for v in state["lambdas"]],
            features=features,
            n_components=int(state["n_components"]),
            cautious=bool(state["cautious"]),
        )
        if "picks" in state:
            new.table_ = table_from_state(state["table"])
            new._prepare()
            new.picks_ = {c: renamed(pick, link_value) for c, pick in state["picks"].items()}
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in DERIVED}

    def __setstate__(self, held: dict[str, Any]) -> None:
        """Take what was pickled, perhaps by an older version; what follows from the table is computed anew."""
        vars(self).update({name: value for name, value in held.items() if name not in DERIVED})
        if "picks_" in held:
            self._prepare()

    def _prepare(self) -> None:
        """Compute what all predictions share."""
        table = self.table_
        self._training = Training(table, self.features, self.n_components, self.context_kernel)
        self._report: ContextReport | None = None
        self._noises: dict[str, NoiseModel] = {}
        self.supported_ = supported_rows(table, condition_folds(table))

    def _row_classes(self, cls: str | None) -> np.ndarray:
        """Return the class of each training row, or ``cls`` for all."""
        if not hasattr(self, "picks_"):
            raise RuntimeError("KernelEffect is not fitted yet: call fit(table) first.")
        if cls is not None and cls not in self.picks_:
            raise ValueError(f"cls={cls!r}: expected one of {some(list(self.picks_))}.")
        own = np.where(self.table_.order >= 2, "combination", "single").astype(object)
        return own if cls is None else np.full(len(own), cls, dtype=object)

    def _choose(self) -> dict[str, dict[str, Any]]:
        """Weigh the candidates by their left-out error, for every class."""
        n, data = len(self.table_), self._training
        subset = np.arange(n)
        if n > SELECTION_ROWS:
            subset = np.sort(np.random.default_rng(0).choice(n, SELECTION_ROWS, replace=False))
        chooser = Chooser(
            table=self.table_.rows(subset),
            rows=data.dense_rows(subset),
            gram=data.gram_of(subset),
            links=(None,) if min(data.control.min(), data.perturbed.min()) < 0 else self.links,
            strengths=self.lambdas,
            n_components=self.n_components,
            use_context=self.context_kernel,
            large=data.large,
        )
        classes = ["combination", "single", "context", *["unseen"] * (self.features is not None)]
        return {cls: chooser.pick(cls) for cls in classes}

    @on_one_thread
    def context_report(self) -> ContextReport | None:
        """Return what left-out contexts say of predictions in another one; None with one context, or more than eight.

        The best candidates that look at control profiles are compared with the best that do not, each predicting every
        training context from the others.
        """
        pick = self.picks_["context"]
        contexts = self.table_.contexts.astype(str)
        n = len(set(contexts))
        if "without" not in pick or not 1 < n <= FEW_CONTEXTS:
            return None
        if self._report is None:
            noise = self._noise_of("context")
            far = noise.misfit / max(float(noise.rows.mean()), 1e-12) if noise.by_gene else float("nan")
            found = None
            if "with" in pick:
                judged = supported_rows(self.table_, context_folds(self.table_))
                ask = lambda name: self._left_out("context", partial(self._ask, name=name), wide=True)[judged]
                found = (self._training.effects()[judged], ask("without"), ask("with"), contexts[judged])
            self._report = ContextReport.of(n, float(far), found)
        return self._report

    def _noise_of(self, cls: str) -> NoiseModel:
        """Return the noise of all training rows as it was found for a class."""
        if cls not in self._noises:
            pick, dense = self.picks_[cls], not self._training.large
            self._noises[cls] = noise_of(self.table_, cls, pick["basis"], lambda rows: pick["misfit"], dense)
        return self._noises[cls]

    def _left_out(self, cls: str | None, ask: Callable[..., FloatArray], wide: bool) -> FloatArray:
        """Ask every training row to the rest, by ``ask(rows, class, train)``; the mean where that happens often."""
        classes = self._row_classes(cls)
        count = np.zeros((len(classes), 1))
        out = np.zeros(self.table_.control.shape if wide else count.shape)
        for train, test in folds_of(cls or "single", self.table_):
            for c in dict.fromkeys(classes[test]):
                part = test[classes[test] == c]
                out[part] += ask(part, c, train)
                count[part] += 1
        return out / np.where(count > 0, count, np.nan)

    def _ask(self, rows: np.ndarray, cls: str, train: np.ndarray | None, name: str = "mixture") -> FloatArray:
        """Return effects of training rows under a mixture of a class, predicted from all of them or from ``train``."""
        return self._predict(self._training.rows.take(rows), self._training.control[rows], cls, name, train)

    def _predict(
        self, query: Rows, control: FloatArray, cls: str, name: str = "mixture", train: np.ndarray | None = None
    ) -> FloatArray:
        """Return effects of ``query`` under a mixture of a class, predicted from all training rows or from ``train``."""
        return self._training.predict(query, control, self.picks_[cls][name], self._noise_of(cls), cls, train)

    def _distance(
        self, query: Rows, cls: str, extra: FloatArray | float = 0.0, train: np.ndarray | None = None
    ) -> FloatArray:
        """Return distances of ``query`` under the mixture of a class, from all training rows or from ``train``."""
        return self._training.distance(query, self.picks_[cls]["mixture"], self._noise_of(cls), extra, train)
