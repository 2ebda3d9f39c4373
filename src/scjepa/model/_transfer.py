"""What PerturbJEPA takes over from other models: a pretrained encoder, or everything (as the reference of query data)."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scjepa._checks import some
from scjepa.baselines._base import condition_keys, table_from_state, table_state
from scjepa.data import CellGroups, ConditionTable, ExpressionMatrix, Split, aligned
from scjepa.model._expression import ExpressionJEPA
from scjepa.model._perturb_training import PerturbTrainingMixin
from scjepa.model._query import names_in_order
from scjepa.train import record_split

logger = logging.getLogger(__name__)

MIN_OVERLAP = 0.5
"""Share of the smaller of two gene sets that must be in the other one as well."""
ENCODER = ("n_latent", "encoder", "gene_sets", "n_modules", "n_hidden", "n_layers")
LAST = ("mean", "membership", "skip.weight", "body.0.weight")
"""Tensors of the encoder whose last dimension is genes."""


class TransferMixin(PerturbTrainingMixin):
    """Pretrained encoders and query data for :class:`PerturbJEPA`.

    Attributes
    ----------
    pretrained_
        What the pretrained encoder is and saw (see :meth:`from_pretrained`), or None.
    """

    # ---------------------------------------------------------------- pretrained encoder
    @classmethod
    def from_pretrained(
        cls, expression_jepa: ExpressionJEPA | str | os.PathLike, adata: AnnData, **kwargs: Any
    ) -> Self:
        """Make a model whose encoder is a trained :class:`ExpressionJEPA`, perhaps of more cells and more genes.

        ``train()`` then skips the encoder stage and runs anchor and predictor; ``train(fine_tune=True)`` trains the
        encoder on. The embedding is the pretrained one: its dimensions have mean 0 and variance 1 over the cells that
        it was trained on, not over these.

        Parameters
        ----------
        expression_jepa
            A trained model, or the folder that it was saved or exported to.
        adata
            Set up with ``setup_anndata`` of this class.
        **kwargs
            Further arguments of this class, other than those of the encoder (``n_latent``, ``encoder``,
            ``gene_sets``, ``n_modules``, ``n_hidden``, ``n_layers``).

        Raises
        ------
        RuntimeError
            When the pretrained model is not trained.
        TypeError
            When it is not an :class:`ExpressionJEPA`.
        ValueError
            When fewer than half of the genes of the smaller gene set are in the other one, or an argument of the
            encoder is given.

        Notes
        -----
        Genes are matched by name. A gene that only the encoder knows is absent: it counts as if every cell had its
        mean, and so adds nothing. A gene that only ``adata`` has is not read by the encoder until fine-tuning. Cells
        are brought to the depth that the encoder was trained at, over the genes in common. A batch-aware encoder
        encodes with its mean batch.

        *Leaks.* The pretrained encoder saw no perturbation labels, but it may have seen cells that are held out here.
        ``pretrained_`` records how many cells and genes it saw and, when the model still holds its AnnData, which
        cells of ``adata`` (by ``obs_names``) were among them; ``train`` warns when held-out cells were.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.ExpressionJEPA.setup_anndata(adata)
        >>> encoder = scjepa.ExpressionJEPA(adata, n_latent=8)
        >>> encoder.train(max_epochs=1, enable_progress_bar=False)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA.from_pretrained(encoder, adata)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> bool((model.get_latent() == encoder.get_latent(adata)).all())
        True
        """
        source: Any = expression_jepa
        if isinstance(source, (str, os.PathLike)):
            source = ExpressionJEPA.load(str(source), False)
        if not isinstance(source, ExpressionJEPA):
            raise TypeError(
                f"expression_jepa: expected an ExpressionJEPA or its folder, got {type(expression_jepa).__name__}."
            )
        if not source.is_trained_:
            raise RuntimeError("from_pretrained needs a trained ExpressionJEPA. Run its train() first.")
        given = [name for name in ENCODER if name in kwargs]
        if given:
            raise ValueError(f"{some(given)} can't be chosen: the encoder is the pretrained one. Leave out.")
        model = cls(adata, **kwargs)
        place = pd.Index(source.var_names).get_indexer(model.var_names)
        common, smaller = int((place >= 0).sum()), min(len(place), len(source.var_names))
        n_latent = source.module.encoder.n_latent
        if common < MIN_OVERLAP * smaller or common < n_latent:
            raise ValueError(
                f"{common} of adata's {len(place)} genes are among the {len(source.var_names)} that the pretrained "
                f"encoder knows: expected at least {max(int(np.ceil(MIN_OVERLAP * smaller)), n_latent)}. Genes of "
                f"adata: {some(list(model.var_names), 3)}; of the encoder: {some(list(source.var_names), 3)}. Use the "
                "same kind of names (symbols or Ensembl ids), or pretrain on these genes."
            )
        model._take_encoder(source, place, chosen=set(kwargs))
        absent, unread = len(source.var_names) - common, len(place) - common
        if absent or unread:
            logger.info(
                "%d genes in common; %d of the encoder are absent from adata, %d of adata are not read by the encoder.",
                *(common, absent, unread),
            )
        return model

    def _take_encoder(self, source: ExpressionJEPA, place: np.ndarray, chosen: set[str]) -> None:
        """Cut the encoder of ``source`` to this model's genes, ``place`` being where they are in it (-1: nowhere)."""
        names = (*ENCODER, "regularizer", "regularizer_weight", "mask_rate")
        kept = {k: v for k, v in source.module_arguments_.items() if k in names and k not in chosen}
        state = {k: v.detach().cpu().clone() for k, v in source.module.state_dict().items()}
        encoder, known = source.module.encoder, torch.from_numpy(place >= 0)
        where = torch.from_numpy(place[place >= 0])

        def cut(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            shape = list(tensor.shape)
            shape[dim] = len(place)
            out = tensor.new_zeros(shape)
            out.movedim(dim, 0)[known] = tensor.movedim(dim, 0)[where]
            return out

        if encoder.offset is not None:
            state["encoder.mean"] = state["encoder.mean"] + state.pop("encoder.offset.weight").mean(0)
        for name in LAST:
            if f"encoder.{name}" in state:
                state[f"encoder.{name}"] = cut(state[f"encoder.{name}"], -1)
        for name in ("encoder.body.gene", "decoder.weight", "decoder.bias"):
            if name in state:
                state[name] = cut(state[name], 0)
        if "encoder.body.gene" in state:
            # a token is divided by the root of its module's size: keep the pretrained size
            membership = state["encoder.membership"].float()
            before = encoder.membership.detach().cpu().float().sum(1)
            ratio = (membership.sum(1) / before.clamp_min(1)).sqrt()
            each = (membership.T @ ratio) / membership.sum(0).clamp_min(1)
            state["encoder.body.gene"] = state["encoder.body.gene"] * each[:, None]
        self.start_ = {k: v for k, v in state.items() if k.startswith(("encoder.", "decoder.", "view_predictor."))}
        self.module_arguments_ |= {**kept, "gene_modules": self.start_["encoder.membership"]}
        self.module_names_ = list(source.module_names_)
        self.module = self._build_module()
        self.module.load_state_dict(self.start_, strict=False)
        seen, own = source.train_indices_, source.adata
        among = None
        if own is not None and seen is not None:
            among = np.flatnonzero(self.adata.obs_names.isin(own.obs_names[np.asarray(seen)]))
        share = torch.expm1(encoder.mean.detach().cpu().double())
        self.pretrained_ = {
            "n_cells": None if seen is None else len(seen),
            "n_genes": len(source.var_names),
            "n_common": int(known.sum()),
            "cells_seen": among,
            "reference_unit": source.reference_unit_,
            "target_sum": source._setup["target_sum"] if source._setup["input_scale"] == "counts" else None,
            "typical_total": source.typical_total_,
            "share": float(share[where].sum() / share.sum().clamp_min(1e-12)),
            "known": known.numpy(),
        }

    def _restart(self, matrix: ExpressionMatrix, train: np.ndarray) -> None:
        super()._restart(matrix, train)
        given = self.pretrained_
        if given is None or self.reference_ is not None:
            return
        known = given["known"]
        raw = matrix.values[train].expm1()
        self.typical_total_ = float(np.median(np.asarray(raw.sum(1)).ravel()))
        unit = given["reference_unit"]
        if known.all() and given["n_genes"] == len(known):  # the same genes: the pretrained embedding itself
            if given["target_sum"] is not None and self._setup["input_scale"] == "counts":
                unit *= self._setup["target_sum"] / given["target_sum"]
        else:
            # the encoder expects its own typical total over the genes in common: bring that of these cells there
            total = float(np.median(np.asarray(raw[:, known].sum(1)).ravel()))
            unit *= total / max(given["typical_total"] * given["share"], 1e-12)
        self.reference_unit_ = unit
        if not known.all():
            mean = np.asarray(matrix.at_depth(unit, train).mean(0)).ravel().astype(np.float32)
            self.module.encoder.mean[torch.from_numpy(~known)] = aligned(mean[~known]).to(self.device)

    def _note_leaks(self, split: Split) -> None:
        """Say that the pretrained encoder saw cells which are held out."""
        among = None if self.pretrained_ is None else self.pretrained_["cells_seen"]
        if among is None:
            return
        for name, cells in (("held-out", split.test), ("validation", split.validation)):
            n = int(np.isin(cells, among).sum())
            if n:
                logger.warning(
                    "the pretrained encoder saw %d of the %d %s cells (without labels). For an honest test pretrain "
                    "without them.",
                    *(n, len(cells), name),
                )

    # ---------------------------------------------------------------- query data
    def _grow(self, reference: Self) -> None:
        super()._grow(reference)
        self.actions_ = names_in_order(reference.actions_, self._known_actions())
        table = None if reference.anchor_ is None else table_state(reference.anchor_.table_)
        self.reference_ |= {  # type: ignore[operator]
            "table": table,
            "max_expression": reference.max_expression_,
            "residual": reference.residual_,
            "gates": getattr(reference, "gates_", {}),
            "trained_actions": reference.trained_actions_,
            "trained_on": reference.trained_on_,
            "usual_kind": reference.usual_kind_,
            "n_kinds": len(reference._kinds()),
        }

    def _new_rows(self, rows: dict[str, torch.Tensor], reference: Self) -> dict[str, torch.Tensor]:
        """Add the rows of actions that the reference had labels of, but no training cells."""
        untrained = [name not in reference.trained_actions_ for name in self.actions_]
        for name, parameter in self.module.named_parameters():
            if name.endswith("action_encoder.embedding.weight") and any(untrained):
                rows[name] = torch.tensor(untrained).expand(parameter.shape).clone()
        return rows

    def _to_learn(self, known: CellGroups) -> np.ndarray:
        """Return the conditions that the network is trained on; of a frozen query model those with something new."""
        if self.rows_ is None or self.reference_ is None:
            return np.arange(len(known))
        old = set(self.reference_["trained_actions"])
        kinds = set(self._kinds()[: self.reference_["n_kinds"]])
        new = [not old.issuperset(action) for action in known.actions]
        if known.kind is not None:
            new = [n or str(k) not in kinds for n, k in zip(new, known.kind, strict=True)]
        return np.flatnonzero(np.array(new) & np.array([len(c) >= 5 for c in known.cells]))

    def _wants_residual(self, known: CellGroups) -> bool:
        if self.rows_ is None or self.reference_ is None:
            return super()._wants_residual(known)
        return self.reference_["residual"]

    def _train_predictor(self, matrix: ExpressionMatrix, groups: CellGroups, split: Split, *args: Any) -> Any:
        if not len(self._to_learn(self._split_groups(groups, split)[0])):
            logger.info("no new perturbation or kind to learn: the network stays as it is.")
            record_split(self, split)
            return {}
        return super()._train_predictor(matrix, groups, split, *args)

    def _with_reference(self, table: ConditionTable) -> ConditionTable:
        """Put the reference's conditions behind those of ``table``."""
        held = None if self.reference_ is None else self.reference_["table"]
        return table if held is None else joined(table, table_from_state(held))

    def _remember(self, known: CellGroups) -> None:
        super()._remember(known)
        held = self.reference_
        if held is None:
            return
        learned = {name for i in self._to_learn(known) for name in known.actions[i]}
        if self.rows_ is None:
            learned = set(self.trained_actions_)
        self.trained_actions_ = tuple(sorted(learned | set(held["trained_actions"])))
        self.trained_on_ = pd.concat([held["trained_on"], self.trained_on_], ignore_index=True)
        self.usual_kind_ |= held["usual_kind"]


def joined(first: ConditionTable, second: ConditionTable) -> ConditionTable:
    """Append the rows of ``second`` to ``first``; conditions in both are averaged, weighted by their cells.

    So is the variance within conditions; controls of a condition in both add up.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.data import ConditionTable
    >>> from scjepa.model._transfer import joined
    >>> row = lambda name, value, n: ConditionTable(
    ...     ((name,),), np.array(["all"]), np.zeros((1, 1)), np.full((1, 1), value), np.array([n])
    ... )
    >>> both = joined(row("A", 4.0, 1), row("A", 0.0, 3))
    >>> both.perturbed.tolist(), both.n_cells.tolist()
    ([[1.0]], [4])
    >>> joined(row("A", 4.0, 1), row("B", 0.0, 3)).actions
    (('A',), ('B',))
    """
    key = lambda table: [(str(c), *k) for c, k in zip(table.contexts, condition_keys(table), strict=True)]
    place = {k: i for i, k in enumerate(key(first))}
    twin = np.array([place.get(k, -1) for k in key(second)], dtype=int)
    mine, same, rest = twin[twin >= 0], second.rows(twin >= 0), second.rows(twin < 0)
    assert first.perturbed is not None and same.perturbed is not None and rest.perturbed is not None
    control, perturbed, n = first.control.copy(), first.perturbed.copy(), first.n_cells.copy()
    variance, controls = first.variance, first.n_controls
    if variance is not None and second.variance is not None:
        new = second.n_cells.sum() / max(second.n_cells.sum() + first.n_cells.sum(), 1)
        variance = variance + new * (second.variance - variance)
    if controls is not None and same.n_controls is not None:
        controls = controls.copy()
        controls[mine] += same.n_controls
    weight = (same.n_cells / np.maximum(same.n_cells + n[mine], 1))[:, None]
    control[mine] += weight * (same.control - control[mine])
    perturbed[mine] += weight * (same.perturbed - perturbed[mine])
    n[mine] += same.n_cells
    end = lambda a, b: None if a is None or b is None else np.concatenate([a, b])
    return replace(
        first,
        actions=first.actions + rest.actions,
        contexts=np.concatenate([first.contexts, rest.contexts]).astype(object),
        control=np.concatenate([control, rest.control]),
        perturbed=np.concatenate([perturbed, rest.perturbed]),
        n_cells=np.concatenate([n, rest.n_cells]),
        dose=end(first.dose, rest.dose),
        kind=end(first.kind, rest.kind),
        variance=variance if second.variance is not None else None,
        n_controls=end(controls, rest.n_controls),
    )
