"""Baselines on AnnData: fitted on cells, asked for predicted cells, with the signatures of the models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import closest, require_labels, require_member, require_positive_int, some
from scjepa._scale import check_scale, lognormalise
from scjepa._types import FloatArray, IntArray
from scjepa.data import (
    ConditionTable,
    condition_table,
    group_cells,
    held_out_conditions,
    largest_values,
    shift_cells,
)
from scjepa.data._counterfactuals import LabelKeys, PredictedSet, check_keys, control_cells, predictions_anndata
from scjepa.data._splits import Holdout

TARGET_SUM = 1e4
"""Library size that counts are scaled to, as in :func:`scjepa.data.condition_table`."""

Self = TypeVar("Self", bound="CellMethods")


class CellMethods:
    """The methods of :class:`scjepa.baselines.Baseline` that take and give cells."""

    name: ClassVar[str]
    table_: ConditionTable
    _cells: AnnData | None = None
    _layer: str | None = None
    _keys: LabelKeys | None = None
    _highest: FloatArray | None = None

    @abstractmethod
    def fit(self, table: ConditionTable) -> Any:
        """Fit on training conditions."""

    @abstractmethod
    def effects(self, query: ConditionTable) -> FloatArray:
        """Return predicted effects."""

    def fit_anndata(
        self: Self,
        adata: AnnData,
        perturbation_key: str,
        control: str = "control",
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        context_key: str | None = None,
        separator: str = "+",
        holdout: Holdout | None = None,
    ) -> Self:
        """Fit on cells: mean profiles of the conditions against matched controls.

        Parameters
        ----------
        adata
            Cells x genes; counts (normalised to 10,000 per cell and log1p'd here) or log-normalised values. Kept (not
            copied) as the source of controls for :meth:`predict_perturbation`.
        perturbation_key, control, separator
            Column of perturbation labels, label of controls, what joins combinations.
        layer
            Layer with the expression values, by default ``X``.
        batch_key, context_key
            Columns of batches (controls are weighted to the batches of the perturbed cells) and contexts.
        holdout
            Perturbations, contexts or ``(perturbation, context)`` that are not trained on, as in the ``train`` of the
            models.

        Returns
        -------
        The fitted baseline.

        Raises
        ------
        KeyError, ValueError
            For unknown columns or labels, contexts without controls, bad values, an entry of ``holdout`` that matches
            nothing.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(seed=0)
        >>> double = next(p for p in adata.obs["perturbation"].unique() if "+" in p)
        >>> baseline = scjepa.baselines.Additive()
        >>> baseline = baseline.fit_anndata(adata, "perturbation", context_key="context", holdout=[double])
        >>> predicted = baseline.predict_perturbation(double)
        >>> scores = scjepa.tl.evaluate(predicted, adata, metrics=["l2"], method="mine")
        """
        check_keys(perturbation_key=perturbation_key, context_key=context_key)
        control = str(control)
        table = condition_table(
            adata,
            perturbation_key,
            control,
            layer=layer,
            batch_key=batch_key,
            context_key=context_key,
            separator=separator,
            target_sum=TARGET_SUM,
        )
        groups = group_cells(
            require_labels(adata.obs, perturbation_key, "perturbation_key").to_numpy(),
            control=control,
            separator=separator,
            contexts=None if context_key is None else adata.obs[context_key].astype(str).to_numpy(),
        )
        if holdout is not None:
            kept = ~held_out_conditions(groups, holdout, control=control, separator=separator)
            table, groups = table.rows(kept), groups.rows(kept)
        self.fit(table)
        self._cells, self._layer = adata, layer
        self._highest = largest_values(self._read(adata, np.arange(adata.n_obs)), groups)
        self._keys = LabelKeys(perturbation_key, control, context_key, separator)
        return self

    def predict_perturbation(
        self,
        perturbations: str | Sequence[str],
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        context: str | Sequence[str] | None = None,
        n_cells: int | None = None,
        include_control: bool = False,
        seed: int = 0,
    ) -> AnnData:
        """Predict cells under perturbations: control cells moved by the predicted effect.

        Parameters
        ----------
        perturbations
            ``"A"``, ``"A+B"`` (any number of genes, any order), or a list of such labels.
        adata
            Where control cells come from, with the genes of training in any order and possibly a new context; by
            default the AnnData given to :meth:`fit_anndata`. Without the perturbation column all its cells count as
            controls.
        indices
            Positions or boolean mask of the cells to use; those that are not controls are left out.
        context
            Contexts to predict in, by default all that have control cells.
        n_cells
            Cells per perturbation and context; by default each control once.
        include_control
            Put the controls used in front.
        seed
            Of the draw of controls when ``n_cells`` is given.

        Returns
        -------
        Predicted cells like those of the models (without embeddings): ``X`` float32, log-normalised, between 0 and the
        largest value of the gene in training cells or in the controls that are moved; ``obs``: perturbation and context columns, ``source`` and ``jepa_prediction``; ``uns["jepa"]["prediction"]``:
        keys and training conditions, so that :func:`scjepa.tl.evaluate` needs no more arguments.

        Raises
        ------
        RuntimeError
            If the baseline was not fitted with :meth:`fit_anndata`.
        ValueError
            If the baseline has no prediction for a perturbation, or for a selection without controls.
        """
        keys = self._keys
        if keys is None or self._cells is None:
            raise RuntimeError(
                f"{type(self).__name__} was not fitted on cells: call fit_anndata(adata, perturbation_key) first."
            )
        adata = self._cells if adata is None else adata
        if not isinstance(adata, AnnData):
            raise TypeError(f"adata: expected an AnnData, got {type(adata).__name__}.")
        if n_cells is not None:
            require_positive_int(n_cells, "n_cells")
        actions = keys.parse(perturbations)
        sources = control_cells(adata, keys, indices=indices, context=context)
        rng = np.random.default_rng(seed)
        start: dict[str, FloatArray] = {}
        mean: dict[str, FloatArray] = {}
        names: dict[str, pd.Index] = {}
        for place, positions in sources.items():
            x = self._read(adata, positions)
            mean[place] = np.asarray(x.mean(0), dtype=np.float64).ravel()
            pick = np.arange(len(positions))
            if n_cells is not None:
                pick = np.sort(rng.choice(pick, n_cells, replace=n_cells > len(pick)))
            start[place] = x[pick].toarray()
            names[place] = adata.obs_names[positions[pick]]
        asked = [(label, place) for label in actions for place in sources]
        query = ConditionTable(
            actions=tuple(actions[label] for label, _ in asked),
            contexts=np.array([place for _, place in asked], dtype=object),
            control=np.stack([mean[place] for _, place in asked]),
            genes=self.table_.genes,
        )
        effects = self.effects(query)
        lost = [asked[i] for i in np.flatnonzero(~np.isfinite(effects).all(1))]
        if lost:
            written = [f"{label} in {place}" if keys.context_key else label for label, place in lost]
            raise ValueError(
                f"the baseline {self.name!r} has no prediction for {len(written)} of {len(asked)} conditions: "
                f"{some(written)}. Ask for those that it applies to, or use another baseline."
            )
        sets = [
            PredictedSet(label, place, shift_cells(start[place], effect, self._highest), names[place])
            for (label, place), effect in zip(asked, effects, strict=True)
        ]
        if include_control:
            sets = [PredictedSet(keys.control, c, start[c], names[c]) for c in sources] + sets
        train = pd.DataFrame(
            {
                "perturbation": [keys.separator.join(action) for action in self.table_.actions],
                "context": self.table_.contexts.astype(str),
            }
        )
        return predictions_anndata(sets, self.table_.genes, keys, method=self.name, train=train)

    def _read(self, adata: AnnData, cells: IntArray) -> sp.csr_matrix:
        """Return log-normalised ``cells`` in the training genes."""
        if self._layer is not None:
            require_member(self._layer, adata.layers, "layer", where="adata.layers")
        x = adata.X if self._layer is None else adata.layers[self._layer]
        counts = check_scale(x) == "counts"
        x = sp.csr_matrix(x[cells])
        if counts:
            x = lognormalise(x, TARGET_SUM)
        genes = pd.Index(self.table_.genes)
        if adata.n_vars == len(genes) and (adata.var_names.astype(str) == genes).all():
            return x
        order = adata.var_names.astype(str).get_indexer(genes)
        if (order < 0).any():
            missing = list(genes[order < 0])
            raise ValueError(
                f"{len(missing)} of the {len(genes)} training genes are missing from adata.var_names: {some(missing)}."
                f"{closest(missing[0], adata.var_names)} Give cells with these genes, in any order."
            )
        return x[:, order]
