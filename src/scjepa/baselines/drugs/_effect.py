"""The baseline "drug anchor": what drugs do in contexts, at doses and times, the closed form DrugJEPA starts from."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.baselines._threads import on_one_thread
from scjepa.baselines.drugs._few import FewContexts
from scjepa.baselines.drugs._held import DrugRows
from scjepa.baselines.drugs._questions import classify
from scjepa.baselines.drugs._remarks import remarks, silent
from scjepa.baselines.drugs._rows import Rows, nothing_done
from scjepa.baselines.drugs._screener import Screener, nothing_to_screen, screener
from scjepa.baselines.drugs._support import distances, support
from scjepa.data import ConditionTable


class DrugEffect(DrugRows):
    r"""Responses to drugs from drugs alike, other contexts, doses and times; never far from the best simple prediction.

    A Gaussian process over rows of drug x context x dose x time,

    .. math:: \delta_j \sim N\bigl(m_{c},\; s_j [h_j K + (1 - h_j) \Sigma]\bigr),\quad
        K = \bigl[(c + (1 - k)\, I) \circ T + k\, S \circ (T + \ell\, H)\bigr] \circ D \circ E

    for every principal component :math:`j` of the effects. :math:`I` is one for the same drug and :math:`S` the squared
    similarity of structures, both summed over the drugs of a combination; :math:`T` how alike contexts are, learned from drugs
    seen in both; :math:`H` one within a context; :math:`D` a Hill gate times a Gaussian in decades of dose, :math:`E` a power
    times a Gaussian in decades of time. Contexts have a mean each (:math:`m_c`, projected out); with doses or times the curve
    that drugs have in common is a part of the kernel instead (:math:`c = 1`). Kernels are averaged by their evidence.

    *Shrinkage.* Every component has a signal share :math:`h_j` of its own, averaged over its posterior under a distribution
    that is learned over components (empirical Bayes): what does not reproduce between drugs alike, contexts or doses is not
    carried over. One eigendecomposition a kernel. Components are coordinates of the rows, so nothing but rounding is lost.

    *Noise.* Where the table has the variance within conditions, :math:`\Sigma` holds the sampling noise of each row plus
    what plain sums miss beyond it (:func:`scjepa.baselines._noise.misfit`); else it is the identity.

    *Guard.* Evidence alone does not protect: it keeps structure where structure hurts. So the process, the same without
    structure, what drugs with like responses in other contexts do (:func:`scjepa.baselines.drugs._alike.responses_alike`: a
    programme may come out as another one elsewhere), and simple rules (no change, the mean, the mean per context and dose, the mean per drug, the nearest dose and
    time, straight lines in their logarithms, ridge on structures) are weighed by the errors of rows left out as questions
    of the class are asked (:func:`scjepa.baselines.drugs._guard.weigh`); for molecules never given, of which little can be
    known, whatever leaves the mean per context must win surely (:func:`scjepa.baselines.drugs._guard.weigh_cautiously`):

    ================== =========================================================== ==================================
    class              a question is of this class when                            left out
    ================== =========================================================== ==================================
    ``single``         its drug was given in its context, at its dose and for its  rows
                       time, perhaps not together
    ``elsewhere``      its drug was given in other contexts, not in this one       drugs in one context each; those
                                                                                   in the question's count most
    ``together``       it has several drugs that were given together               rows with several drugs
    ``combination``    it has several drugs, never given together                  combinations, everywhere
    ``context``        its context has no training rows                            contexts
    ``dose``           its dose lies between those of the drug                     inner doses of all drugs
    ``dose above``     its dose is above those of the drug                         highest doses
    ``dose below``     its dose is below those of the drug                         lowest doses
    ``time``           its time lies between those of the drug                     inner times
    ``time beyond``    its time lies outside of those of the drug                  first and last times
    ``unseen``         a drug was never given                                      drugs
    ``unseen context`` neither drug nor context was seen                           drugs in contexts
    ================== =========================================================== ==================================

    *Few contexts.* Three to eight contexts of up to three drugs tell little when one is left out: for new ones see
    :class:`scjepa.baselines.drugs._few.FewContexts`, which keeps the size that transfer shows.

    Later rows of the table take precedence over earlier ones except that the classes of dose and time are of single drugs
    in contexts where they were given. Where a class can't be left out, the nearest one's weights count, or fixed ones.

    Parameters
    ----------
    similarity
        Drug x drug, from 0 to 1 with ones on the diagonal, for instance Tanimoto similarities; several tables by name are
        candidates beside each other and beside their mean. It is squared in the kernel.
    features
        Drug x features: counts or bits of fingerprints (Tanimoto similarity), or features of any sign (a Gaussian of the
        scaled distance); several tables by name. Drugs without a structure are like themselves only, and can't be
        predicted unless they were given in training.

    Attributes
    ----------
    picks_
        Class to ``{"weights", "error", "plain", "errors", "follow", "kernels", "basis", "n"}``: weights of predictions by name,
        their left-out error (mean over rows of the root mean square over genes; NaN if there is none), the best simple
        prediction, the error of each, how far the weights are followed from there, the process's kernels in words, and
        ``"left out"`` rows (how many) or ``"none"`` as what judged. The class ``"elsewhere"`` also has ``"contexts"``: weights by
        context, which are those used there.
    kernels_
        ``[kernel, weight]`` of the process, as plain data.

    Notes
    -----
    Rows at dose or time zero have no effect, and are not trained on. ``kind`` of a table is not looked at. Where drugs have
    more than 16 dose levels among them, doses are compared between drugs as shares of each drug's highest.

    This project's own recipe. Gaussian processes over molecules with Tanimoto kernels: Ralaivola et al. 2005, *Neural Networks*
    18; Griffiths et al. 2023, *GAUCHE*. Products of kernels over drug, cell and dose: Julkunen et al. 2020, *Nature
    Communications* 11 (comboFM has the idea for tensors). Empirical Bayes: Efron and Morris 1973, *JASA* 68; stacking:
    Wolpert 1992, Breiman 1996.

    Examples
    --------
    Six drugs in two contexts; the last one is asked where it was not given.

    >>> import numpy as np
    >>> from scjepa.baselines import DrugEffect
    >>> from scjepa.data import ConditionTable
    >>> does = np.random.default_rng(0).normal(size=(6, 20))
    >>> names = [*"ABCDEF", *"ABCDE"]
    >>> where = np.array(["x"] * 6 + ["y"] * 5)
    >>> table = ConditionTable(tuple((n,) for n in names), where, np.zeros((11, 20)), np.vstack([does, does[:5]]))
    >>> model = DrugEffect().fit(table)
    >>> asked = ConditionTable((("F",), ("G",)), np.array(["y", "y"]), np.zeros((2, 20)))
    >>> bool(np.corrcoef(model.effects(asked)[0], does[5])[0, 1] > 0.9), model.classes(asked).tolist()
    (True, ['elsewhere', ''])
    """

    name: ClassVar[str] = "drug anchor"
    own_classes: ClassVar[bool] = True

    @on_one_thread
    def fit(self, table: ConditionTable) -> DrugEffect:
        """Choose kernels by evidence, and weigh predictions for every class of question by left-out error.

        Parameters
        ----------
        table
            Measured conditions; for signatures, which are differences already, the control profiles are zero.

        Returns
        -------
        Itself.

        Raises
        ------
        ValueError
            For tables with nothing to fit on: no rows, no profiles, NaN, doses of zero only.
        """
        self._remember(table)
        self._prepare()
        self.kernels_ = [[spec, weight] for spec, weight in self._judge.choose()]
        self.picks_ = self._judge.picks(self._classes())
        self._few = FewContexts.of(table.rows(self._active))
        if self._few is not None:
            left = self._few.left_out()
            judged = np.isfinite(left).all(1)
            wrong = (left - np.asarray(table.effects)[self._active])[judged]
            self.picks_["context"] |= {"few": self._few.state(), "error": float(np.sqrt((wrong**2).mean(1)).mean())}
        return self

    @on_one_thread
    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects.

        Parameters
        ----------
        query
            Questions: actions, contexts; doses and times if the training table has them.

        Returns
        -------
        ``(m, genes)``; NaN for rows with a drug that was neither given in training nor has a structure.
        """
        classes = self.classes(query)
        out = np.full(query.control.shape, np.nan)
        nothing = nothing_done(query)
        out[nothing] = 0.0
        index = np.flatnonzero((classes != "") & ~nothing)
        if len(index):
            predicted = self._judge.experts().predict(self._questions(query.rows(index)))
            for cls in dict.fromkeys(classes[index]):
                here = classes[index] == cls
                said = {k: v[here] for k, v in predicted.items()}
                out[index[here]] = self._mixed(said, cls, query.contexts[index[here]]) @ self._axes.T
            new = index[classes[index] == "context"]
            if self._few is not None and len(new):
                out[new] = _filled(self._few.effects(query.rows(new)), out[new])
        return out

    def classes(self, query: ConditionTable) -> np.ndarray:
        """Return the class of each question, ``(m,)``; ``""`` for rows without a prediction."""
        self._fitted(query)
        able = set(self._rows.drugs) | self.structure.names
        out = np.full(len(query), "", dtype=object)
        nothing = nothing_done(query)
        out[nothing] = "single"
        asked = [i for i, action in enumerate(query.actions) if not nothing[i] and able.issuperset(action)]
        if asked:
            out[asked] = classify(self._rows, self._questions(query.rows(asked)))
        return out

    @on_one_thread
    def fitted_effects(self, cls: str | None = None) -> FloatArray:
        """Return predictions of the training rows themselves, ``(n, genes)``.

        Parameters
        ----------
        cls
            Whose weights to use for every row; by default each row's own (``"together"``, ``"combination"`` or ``"single"``).
        """
        classes = self._row_classes(cls)
        out = np.zeros(self.table_.control.shape)
        predicted = self._judge.experts().predict(self._rows)
        for c in dict.fromkeys(classes):
            here = classes == c
            said = {k: v[here] for k, v in predicted.items()}
            out[self._active[here]] = self._mixed(said, c, self._rows.contexts[here]) @ self._axes.T
        return out

    @on_one_thread
    def left_out_effects(self, cls: str | None = None) -> FloatArray:
        """Return the prediction of training rows when they are left out, ``(n, genes)``.

        Parameters
        ----------
        cls
            Class of the questions that they are left out as; by default each row's own (``"together"``, ``"combination"`` or ``"single"``).

        Returns
        -------
        NaN for rows that, left out, are no question of the class.
        """
        own = self._row_classes(cls)
        out = np.full(self.table_.control.shape, np.nan)
        for c in dict.fromkeys(own):
            index, predicted = self._judge.left_out(c)
            if not len(index):
                continue
            here = own[index] == c
            rows = self._active[index[here]]
            said = {k: v[here] for k, v in predicted.items()}
            out[rows] = self._mixed(said, c, self._rows.contexts[index[here]]) @ self._axes.T
            if c == "context" and self._few is not None:
                at = np.full(len(out), -1)
                at[self._active] = np.arange(len(self._active))
                out[rows] = _filled(self._few.left_out()[at[rows]], out[rows])
        return out

    @on_one_thread
    def distances(self, query: ConditionTable) -> FloatArray:
        """Return how far questions are from training, ``(m,)`` from 0 (measured) to 1; NaN as in :meth:`effects`.

        See :func:`scjepa.baselines.drugs._support.distances`; for unseen drugs in a known context, one less the similarity
        to the nearest one.
        """
        out = np.full(len(query), np.nan)
        classes, nothing = self.classes(query), nothing_done(query)
        out[nothing] = 0.0
        index = np.flatnonzero((classes != "") & ~nothing)
        if len(index):
            out[index] = distances(self._rows, self._questions(query.rows(index)), self.structure)
        return out

    @on_one_thread
    def left_out_distances(self, cls: str | None = None) -> FloatArray:
        """Return :meth:`distances` of the training rows, left out as in :meth:`left_out_effects`, ``(n,)``."""
        own = self._row_classes(cls)
        out = np.full(len(self.table_), np.nan)
        for c in dict.fromkeys(own):
            for train, test in self._judge.folds(c):
                test = test[own[test] == c]
                if len(test):
                    rows = self._rows.take(train)
                    out[self._active[test]] = distances(rows, self._rows.take(test), self.structure)
        return out

    def support(self, query: ConditionTable) -> pd.DataFrame:
        """Return what is nearest to each question.

        Parameters
        ----------
        query
            Questions that have a prediction.

        Returns
        -------
        A row a question with columns ``class``; ``nearest_drug`` and its ``similarity`` (1 for a drug given in training; of
        combinations the least); ``dose_ratio``, the dose asked for over the nearest one of that drug, and ``inside_dose``,
        whether it lies in the measured range (the same for ``time``); ``context_seen`` and ``drug_seen_there``.

        Raises
        ------
        ValueError
            For drugs that were neither given in training nor have a structure.
        """
        classes = self.classes(query)
        if (classes == "").any():
            bad = ["+".join(query.actions[i]) for i in np.flatnonzero(classes == "")]
            raise ValueError(
                f"{len(bad)} of {len(query)} questions are about drugs that were neither given in training nor have a "
                f"structure: {some(bad)}. Hand structures in: also(similarity=, features=)."
            )
        if nothing_done(query).any():
            raise ValueError("there is nothing near to questions without a drug, at dose zero or for no time.")
        return support(self._rows, self._questions(query), self.structure)

    @on_one_thread
    def screener(self, context: str, *, dose: float | None = None, time: float | None = None) -> Screener:
        """Return what predicts molecules never given, by the million, in one context at one dose and time.

        Parameters
        ----------
        context
            Seen in training or not.
        dose, time
            If the training table has them.

        Returns
        -------
        Its ``effects({description: features})`` are those of :meth:`effects` after :meth:`also`.

        Raises
        ------
        ValueError
            Without features of drugs (similarities can't be computed for others), and as :meth:`effects`.

        Examples
        --------
        >>> import numpy as np
        >>> import pandas as pd
        >>> from scjepa.baselines import DrugEffect
        >>> from scjepa.data import ConditionTable
        >>> bits = pd.DataFrame(np.random.default_rng(0).integers(0, 2, (8, 20)), index=list("ABCDEFGH"))
        >>> effects = bits.to_numpy(dtype=float)[:, :5]
        >>> table = ConditionTable(tuple((n,) for n in bits.index), np.array(["x"] * 8), np.zeros((8, 5)), effects)
        >>> DrugEffect(features=bits).fit(table).screener("x").effects({"features": np.ones((1000, 20))}).shape
        (1000, 5)
        """
        of = lambda value: None if value is None else np.array([value], dtype=float)
        genes = self.table_.control.shape[1] if hasattr(self, "picks_") else 0
        asked = ConditionTable(((),), np.array([context], object), np.zeros((1, genes)), dose=of(dose), time=of(time))
        self._fitted(asked)
        if all(part.kind == "similarity" for part in self.structure.parts.values()):
            raise ValueError(
                "a screener compares molecules by their features, and this baseline has none of its drugs: make it with "
                "DrugEffect(features=)."
            )
        known = self._rows.drugs
        if any(value is not None and value <= 0 for value in (dose, time)):
            return nothing_to_screen(self.structure, known, genes)
        log = lambda value: None if value is None else np.log10(np.array([value], dtype=float))
        place = Rows(known, np.zeros((1, len(known))), np.array([str(context)]), log(dose), log(time))
        one = replace(place, drugs=(*known, "a molecule"), design=np.eye(1, len(known) + 1, len(known)))
        cls = str(classify(self._rows, one)[0])
        return screener(
            self._judge.experts(), self.structure, lambda said: self._mixed(said, cls), place, cls, self._axes
        )

    def remarks(self, query: ConditionTable) -> pd.DataFrame:
        """Return where predictions rest on little: new molecules unlike all others, doses and times out of range.

        Parameters
        ----------
        query
            Any questions.

        Returns
        -------
        A row a question: ``class``, ``nearest_drug`` and ``similarity`` as in :meth:`support`; ``support``, a word:
        ``"structure uninformative"`` (a molecule never given whose nearest one in training is less alike than .35: its
        prediction is the mean response), ``"dose beyond"`` or ``"time beyond"`` (outside of what was measured of the drug), else
        ``""``; and ``remark``, the same in a sentence.

        Examples
        --------
        >>> import numpy as np
        >>> from scjepa.baselines import DrugEffect
        >>> from scjepa.data import ConditionTable
        >>> dose, where = np.array([1.0, 10.0]), np.array(["x", "x"])
        >>> table = ConditionTable((("A",), ("A",)), where, np.zeros((2, 3)), np.ones((2, 3)), dose=dose)
        >>> asked = ConditionTable((("A",), ("A",)), where, np.zeros((2, 3)), dose=np.array([3.0, 30.0]))
        >>> DrugEffect().fit(table).remarks(asked)["remark"].tolist()
        ['', 'dose 30 is above the highest measured, 10']
        """
        out = silent(len(query))
        able = (self.classes(query) != "") & ~nothing_done(query)
        if able.any():
            rows = self._questions(query.rows(np.flatnonzero(able)))
            told = remarks(self._rows, rows, support(self._rows, rows, self.structure))
            out.loc[able, :] = told.to_numpy()
        return out.astype({"similarity": float})


def _filled(effects: FloatArray, otherwise: FloatArray) -> FloatArray:
    """Return ``effects``, and other ones for rows without."""
    able = np.asarray(np.isfinite(effects).all(1))
    return np.where(able[:, None], effects, otherwise)
