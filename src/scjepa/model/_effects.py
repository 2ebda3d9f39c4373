"""predict_effect: mean effects with intervals, their distance from training, and where the model had better not answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._checks import closest, some
from scjepa.data import aligned, control_cells
from scjepa.model._predict import PredictionMixin

COLUMNS = ("perturbation", "gene", "effect", "lower", "upper", "distance", "support", "abstain")


class EffectsMixin(PredictionMixin):
    """Effects with intervals, for :class:`PerturbJEPA`."""

    def predict_effect(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        context: str | Sequence[str] | None = None,
        dose: float | Sequence[float] | None = None,
        kind: str | None = None,
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
        self._require_trained("predict_effect")
        if isinstance(level, bool) or not (isinstance(level, (float, int, np.floating)) and 0 < level < 1):
            raise ValueError(f"level={level!r}: expected a number between 0 and 1, for example 0.9.")
        if self.anchor_ is None or self.joint_:
            why = "joint=True" if self.joint_ else "anchor=None"
            raise ValueError(
                f"the model was trained with {why}: intervals come from training conditions left out under the anchor, "
                "which is not used then. Train with an anchor (anchor='kernel', joint=False), or use "
                "predict_perturbation for predictions without intervals."
            )
        columns = self._gene_positions(genes)
        adata = self._own_or_given(adata)
        sources = control_cells(adata, self._keys, context=context)
        questions = self._questions(perturbations, list(sources), dose, kind)
        self._check_columns()
        matrices = {place: self._read(adata, positions) for place, positions in sources.items()}
        means = {p: np.asarray(m.values.mean(0), dtype=np.float64).ravel() for p, m in matrices.items()}
        control = np.stack([means[q.context] for q in questions])
        full, base, network = self._effects(questions, control)
        highest = {p: self._upper(m.values) for p, m in matrices.items()}
        upper = np.stack([highest[q.context] for q in questions])
        effect = np.empty_like(control)
        for i, q in enumerate(questions):
            cells = matrices[q.context]
            n = len(sources[q.context])
            total = np.zeros(control.shape[1])
            with torch.inference_mode():
                for start in range(0, n, 2048):
                    x = aligned(cells.rows(slice(start, start + 2048))).to(self.device)
                    shift = self._shift(x, q, full[i], base[i], float(network[i]))
                    if len(shift) == 1:  # the same for every cell
                        total = n * shift[0].cpu().numpy().astype(np.float64)
                        break
                    total += shift.sum(0).cpu().numpy()
            effect[i] = np.clip(control[i] + total / n, 0, upper[i]) - control[i]  # as predicted cells are
        trust = self._trust(self._question_table(questions, control), effect, network, intervals=True)
        assert trust is not None  # there is an anchor
        trust.warn()
        half = trust.half_widths(effect, control, float(level))
        lower = np.maximum(effect - half, -(1 + 1e-5) * control)  # no mean expression is below zero, but for rounding
        most = np.maximum(upper, np.log1p(self.reference_unit_))  # a gene that no cell showed may be found yet
        upper = np.minimum(effect + half, (1 + 1e-5) * most - control)
        m, g = len(questions), len(columns)
        names = np.asarray(self.var_names, dtype=object)[columns]
        out = pd.DataFrame({"perturbation": np.repeat([q.label for q in questions], g)})
        for key, values in (
            ("context_key", [q.context for q in questions]),
            ("dose_key", [q.dose for q in questions]),
            ("kind_key", [q.kind for q in questions]),
        ):
            if self._setup[key] is not None:
                out[self._setup[key]] = np.repeat(np.array(values, dtype=None if key == "dose_key" else object), g)
        out["gene"] = np.tile(names, m)
        for name, matrix in (("effect", effect), ("lower", lower), ("upper", upper)):
            out[name] = matrix[:, columns].ravel()
        for name in ("distance", "support", "abstain"):
            out[name] = np.repeat(getattr(trust, name), g)
        return out

    def _gene_positions(self, genes: str | Sequence[str] | None) -> np.ndarray:
        """Return the positions of the genes asked for."""
        if genes is None:
            return np.arange(len(self.var_names))
        asked = [str(g) for g in np.atleast_1d(np.asarray(genes, dtype=object))]
        found = pd.Index(self.var_names).get_indexer(asked)
        missing = [g for g, at in zip(asked, found, strict=True) if at < 0]
        if missing or not asked:
            raise ValueError(
                f"genes: {some(missing) or 'none'} asked for, not among the {len(self.var_names)} genes of the model."
                f"{closest(missing[0], self.var_names) if missing else ''} Leave genes out for all of them."
            )
        return found

    def _check_columns(self) -> None:
        """Raise when a column of the user's would be overwritten by one of the result."""
        for argument in ("context_key", "dose_key", "kind_key"):
            key = self._setup[argument]
            if key in COLUMNS:
                raise ValueError(
                    f"{argument}={key!r}: the result has a column of its own by this name. Rename yours in obs "
                    "and set the model up again."
                )
