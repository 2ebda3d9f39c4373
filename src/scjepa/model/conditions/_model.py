"""What users ask of models of unpaired conditions: predicted cells, effects with intervals, reliability, diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa.baselines._base import condition_keys
from scjepa.data import ConditionTable
from scjepa.model.conditions._answering import Answering
from scjepa.model.conditions._design import Asked, Question
from scjepa.model.conditions._diagnostics import condition_diagnostics, trained_conditions
from scjepa.model.conditions._effects import check_free
from scjepa.model.conditions._reliability import COLUMNS as RELIABILITY
from scjepa.model.conditions._reliability import reliability_table
from scjepa.model.core import Diagnostic


class ConditionModel(Answering):
    """Base of models that learn what actions do to cells from unpaired controls and treated cells.

    A model class writes its words, ``setup_anndata``, ``__init__`` and the method that predicts cells, and where they differ
    from the usual its encoder of actions (``_new_action_encoder``) and what it knows of items that were never trained on
    (``_item_features``).
    """

    def predict_effect(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        context: str | Sequence[str] | None = None,
        dose: Asked = None,
        kind: str | None = None,
        time: float | Sequence[float] | None = None,
        level: float = 0.9,
        genes: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Predict mean effects with intervals, how far each question is from training, and whether to trust it.

        Parameters
        ----------
        perturbations, adata, context, dose, kind
            As in :meth:`predict_perturbation`; all controls of ``adata`` are used.
        level
            Share of measured effects that the intervals should cover, between 0 and 1.
        genes
            Genes to report, by default all; intervals don't depend on it.

        Returns
        -------
        One row per perturbation, dose, context and gene:

        ``perturbation``, ``gene``
            What was asked; the context, dose and kind stand in columns named as in ``obs``, if the model has them.
        ``effect``
            Mean of the predicted cells minus mean of the controls, log-normalized scale. The mean is between 0 and the
            largest value of the gene in training cells or controls.
        ``lower``, ``upper``
            The interval; finite, and no mean in it is below zero or beyond the larger of that value and of one count.
        ``distance``
            Share of the predictive variance that training leaves, 0 to 1.
        ``support``
            ``"trained"`` (the condition was trained on), ``"near"``, or ``"far"``: farther than any training condition
            was when left out, or no training condition could be left out in this way.
        ``abstain``
            True where the effect should not be used: support is far; the prediction is expected to take less than 5 %
            off the squared error of "no change", by the size of left-out predictions and of their errors; or the
            condition was trained on in one or two cells only.

        Raises
        ------
        ValueError
            As in :meth:`predict_perturbation`; for a level that is not between 0 and 1, unknown genes, and models
            without an anchor, which have no left-out predictions.

        Notes
        -----
        The interval is about the mean effect measured in a new condition with about as many cells as the training
        conditions have. Training conditions are predicted while left out in the way that the question demands: one
        condition, one combination, one context, or one gene with all conditions it is part of. Their errors give each
        gene its scale and, with conditions (not genes) as exchangeable units, the quantile (Lee, Barber and Willett 2023,
        arXiv:2306.06342; with few conditions a predictive t distribution for how well a new one is predicted).
        Intervals widen with the distance and never fall below what was calibrated. Trained conditions get those of their
        class when left out: narrower ones, by the kernel's variance, covered replicates too rarely. Errors are those of
        the anchor: where the network improves on it, intervals are too wide rather than too narrow. The noise of the
        controls is part of it in new contexts only: elsewhere all conditions share them. Coverage holds on average over
        conditions; one condition may be covered far better than another.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 5, 4, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> double = next(p for p in adata.obs["perturbation"].unique() if "+" in p)
        >>> model.train(max_epochs=1, holdout=[double], enable_progress_bar=False)
        >>> effects = model.predict_effect(double, context="state A")
        >>> effects.shape, effects["abstain"].dtype
        ((60, 9), dtype('bool'))
        >>> bool((effects["lower"] <= effects["effect"]).all() and (effects["effect"] <= effects["upper"]).all())
        True
        """
        return self._effects(
            perturbations, adata, context=context, dose=dose, kind=kind, time=time, level=level, genes=genes
        )

    def get_reliability(self, adata: AnnData | None = None) -> pd.DataFrame:
        r"""Tell how much of each measured effect is more than the noise of having drawn a limited number of cells.

        A statement about the data, to be read before training and before any score: an effect that is all noise can't be
        predicted, and no model is to blame. Nothing is written to ``adata``. :func:`scjepa.pl.reliability` draws the table.

        Parameters
        ----------
        adata
            Cells with the columns that the model was set up with and its genes, in any order; by default the AnnData of
            the model.

        Returns
        -------
        One row per condition, the most reliable first:

        ``perturbation``
            What was done; the context, dose and kind stand in columns named as in ``obs``, if the model has them.
        ``n_cells``, ``n_controls``
            Perturbed cells :math:`n`, and the effective number of controls :math:`m`, matched by context and batch.
        ``effect_size``
            Length of the effect without the noise, :math:`\sqrt{\max(0, |\hat\delta|^2 - \nu)}`; L2 over genes, log-normalized
            scale, as the next two.
        ``noise``
            Length that sampling alone gives, :math:`\sqrt\nu` with :math:`\nu = \sum_g V_g (1/n + 1/m)` and :math:`V` the variance
            within the conditions of this context (of all contexts where this one has too few cells to tell).
        ``measured``
            Length of the measured mean effect, :math:`|\hat\delta|`: perturbed minus control means.
        ``reliability``
            :math:`\max(0, 1 - \nu / |\hat\delta|^2)`, the share of the squared length that is not noise, 0 to 1 (James and
            Stein 1961); one half is where effect and noise are of one size. Null perturbations get 0, or a little more by chance.
        ``p_value``
            How often sampling alone makes a :math:`|\hat\delta|` as large as this one. Not adjusted for the number of rows.
        ``trained``
            Whether this model was trained on the condition; False before training.

        Raises
        ------
        KeyError, TypeError, ValueError
            For absent columns or genes, missing labels, no controls, and what is no AnnData in memory.

        Warns
        -----
        Where there are too few rows to tell the variance within conditions, as with one profile per condition, noise,
        effect size, reliability and p-value are NaN, and the log says so.

        Notes
        -----
        The noise is that of drawing cells. Differences between wells, guides or donors are in it only as far as they are
        within conditions, and are best matched by ``batch_key``: with one donor a small p-value does not promise another one.

        :math:`|\hat\delta|^2 / \nu` under the null is a weighted sum of chi-squares, with the eigenvalues of the covariance
        :math:`\Sigma` within conditions for weights: genes that vary together count as few. It is matched in three moments
        by a scaled and shifted chi-square (Pearson 1959; Zhang et al. 2020 in two moments), which need the traces
        of :math:`\Sigma`, :math:`\Sigma^2` and :math:`\Sigma^3` alone. The latter are averages of products of
        differences between two cells of a condition, unbiased whatever the distribution (Chen and Qin 2010). For relabelled
        controls p-values are close to uniform from about five cells on.

        References
        ----------
        James and Stein. Estimation with quadratic loss. Proc. 4th Berkeley Symp. Math. Stat. Prob., 1961.
        Pearson. Note on an approximation to the distribution of non-central chi-square. Biometrika 46, 1959.
        Chen and Qin. A two-sample test for high-dimensional data with applications to gene-set testing. Ann. Stat. 38, 2010.
        Zhang, Guo, Zhou and Cheng. A simple two-sample test in high dimensions based on L2-norm. JASA 115, 2020.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> table = scjepa.PerturbJEPA(adata).get_reliability()
        >>> table.shape, bool(table["reliability"].is_monotonic_decreasing)
        ((12, 10), True)
        """
        adata, design = self._own_or_given(adata), self._design
        design.check_columns(adata.obs, self._words.label)
        check_free(design, ("perturbation", *RELIABILITY))
        groups = design.groups(adata.obs)
        if not len(groups):
            raise ValueError(
                f"adata has no {self._words.done} cells: all labels in adata.obs[{design.label_key!r}] are the control "
                f"{design.control!r}."
            )
        order = np.empty(adata.n_obs, dtype=int)
        order[np.argsort(adata.obs_names.to_numpy(dtype=str), kind="stable")] = np.arange(adata.n_obs)
        return reliability_table(self._read(adata).values, groups, design, order, self._trained_among)

    def _trained_among(self, table: ConditionTable) -> np.ndarray:
        """Return which conditions this model was trained on."""
        if not self.is_trained_:
            return np.zeros(len(table), bool)
        seen = self.anchors_.table
        if seen is None:  # what is remembered then knows neither dose nor kind
            return np.array(self.known_.among(table), dtype=bool)
        keys = lambda of: zip(condition_keys(of), of.contexts.astype(str), strict=True)
        fitted = set(keys(seen))
        return np.array([key in fitted for key in keys(table)], dtype=bool)

    def _diagnostics(self, rng: np.random.Generator) -> list[Diagnostic]:
        """Add what earlier cell JEPAs failed: are predicted sets as wide, and predicted effects as large, as true ones?"""
        rows = super()._diagnostics(rng) if self.embedded_ else []
        adata, design = self._own_or_given(None), self._design
        groups = design.groups(adata.obs)
        axes, pairs = self.module.space.loadings.T.cpu().numpy(), []
        for i in trained_conditions(groups, self.known_, rng):
            label = design.label(groups.actions[i])
            predicted = self._predict(
                label,
                None,
                context=None if design.context_key is None else str(groups.contexts[i]),
                dose=None
                if groups.dose is None
                else design.written_dose(Question(label, groups.actions[i], "", groups.doses[i])),
                kind=None if groups.kind is None else str(groups.kind[i]),
                time=None if groups.time is None else float(groups.time[i]),
                include_control=True,
            )
            cells = np.sort(rng.choice(groups.cells[i], min(len(groups.cells[i]), 500), replace=False))
            pairs.append((predicted, self._read(adata, cells).rows(slice(None))))
        return rows + condition_diagnostics(pairs, axes, self.gate_, self.anchor_)
