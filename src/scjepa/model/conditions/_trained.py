"""Models of unpaired conditions: how they are trained."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from anndata import AnnData

from scjepa._docs import docs
from scjepa.data import ExpressionMatrix, split_cells
from scjepa.data._splits import Holdout
from scjepa.model._expression import ExpressionJEPA, pretrained
from scjepa.model.conditions._held import HeldParts
from scjepa.model.conditions._training import Steps, check_own_encoder, check_request
from scjepa.model.core import TrainingRun, check_sizes, goes_on, last_split
from scjepa.model.core._pretrained import fit_depth, note_leaks, take_encoder
from scjepa.train import digest


class TrainedConditions(HeldParts):
    """Training of a :class:`ConditionModel`."""

    @docs
    def train(
        self,
        max_epochs: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 512,
        train_size: float | None = None,
        validation_size: float | None = None,
        split_by: str = "cell",
        holdout: Holdout | None = None,
        early_stopping: bool = True,
        joint: bool = False,
        seed: int = 0,
        plan_kwargs: dict[str, Any] | None = None,
        fine_tune: bool = False,
        embed: bool = True,
        checkpoint_dir: str | os.PathLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train both stages: the encoder on cells, then the predictor on sets of embedded cells.

        Parameters
        ----------
        %(max_epochs)s
        %(devices)s
        %(train_batch_size)s
            In joint training sets of controls and perturbed cells.
        train_size, validation_size
            Shares of cells, conditions or categories. By default every cell that is not held out trains and nothing
            validates (``split_by="condition"`` or a column: a fifth validates).
        split_by
            ``"cell"``, ``"condition"`` (validation perturbations are not seen by anything but early stopping) or a
            column of ``adata.obs``.
        holdout
            Conditions that nothing touches, neither PCA nor anchor nor early stopping: perturbation labels, contexts
            (their perturbed cells), or tuples ``(perturbation, context)``.
        %(early_stopping)s
        joint
            Train encoder and predictor together in the embedding instead (the classic formulation). The anchor is
            then not used.
        %(train_seed)s
        %(plan_kwargs)s
            For both stages, or ``{"encoder": {...}, "predictor": {...}}``.
        fine_tune
            Train a pretrained encoder (see :meth:`from_pretrained`) on; by default it stays as it is.
        embed
            Train the embedding (stage 1). False leaves it out, for those who only predict: predictions are the same to the
            last bit, but come without ``obsm["X_jepa"]``, and there are no latents until :meth:`train_embedding`. Not
            possible where predictions read the embedding (``joint=True``, ``predictor_input`` other than ``"z"``); an
            embedding that is there already, such as a pretrained one, stays.
        %(checkpoint_dir)s
        %(trainer_kwargs)s

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata)
        >>> model.train(max_epochs=1, holdout=["state B"], enable_progress_bar=False)
        >>> sorted(model.history)[:2]
        ['encoder_agreement_train', 'encoder_embedding_std']
        """
        adata, design = self._own_or_given(None), self._design
        check_sizes(batch_size, max_epochs)
        plans = dict(plan_kwargs or {})
        if not set(plans) <= {"encoder", "predictor"}:
            plans = {"encoder": plans, "predictor": plans}
        groups = design.groups(adata.obs)
        split = split_cells(
            adata.obs,
            groups,
            split_by=split_by,
            holdout=holdout,
            train_size=train_size,
            validation_size=validation_size,
            control=design.control,
            separator=design.separator,
            context_key=design.context_key,
            seed=seed,
        )
        member = np.zeros(adata.n_obs, bool)
        member[split.train] = True
        known = groups.within(member)
        if not len(known):
            raise ValueError("the split leaves no perturbed training cells. Hold out less or raise train_size.")
        matrix = self._read(adata)
        check_request(self, joint=joint, fine_tune=fine_tune, embed=embed)
        note_leaks(self.pretrained_, split)
        given = {"max_epochs": max_epochs, "batch_size": batch_size, "plan_kwargs": plan_kwargs, "joint": joint,
                 "fine_tune": fine_tune, **({} if embed else {"embed": False})}  # fmt: skip
        run = TrainingRun(
            self,
            split,
            seed=seed,
            goes_on=goes_on(self, split) and joint == self.joint_,
            checkpoint_dir=checkpoint_dir,
            arguments=given,
            data=(matrix.values, adata.obs[list(design.columns.values())]),
            early_stopping=early_stopping,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        steps = Steps(self, run, matrix, groups, known, max_epochs, plans, seed)
        with run:
            self.frozen_encoder_ = self.pretrained_ is not None and not fine_tune
            if run.fresh:
                steps.begin(joint)
            stage = self._encoder_stage(matrix, seed)
            if embed and not self.embedded_:
                self._start_encoder(stage, split.train)
            table = steps.fit_anchors()
            if joint:
                steps.train_joint(stage, batch_size)
            else:
                if embed or self.frozen_encoder_:
                    options = {"max_epochs": max_epochs, "batch_size": batch_size, "plan_kwargs": plans.get("encoder")}
                    self._train_encoder(run, stage, **options)
                else:
                    run.note("encoder")
                steps.train_network(table)
            steps.remember()
            self.cell_names_ = digest(adata.obs_names.to_numpy())

    @docs
    def train_embedding(
        self,
        max_epochs: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        batch_size: int = 512,
        early_stopping: bool = True,
        seed: int = 0,
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the embedding of a model that was trained without it, on the training cells of its last training.

        After ``train(embed=False)`` it is the embedding that ``train()`` with the same arguments would have made. A model
        that has an embedding already trains it on. Predicted cells and effects stay as they are, to the last bit.

        Parameters
        ----------
        max_epochs, accelerator, devices, batch_size, early_stopping, seed, checkpoint_dir
            As in :meth:`train`.
        %(plan_kwargs)s
        %(trainer_kwargs)s

        Raises
        ------
        RuntimeError
            When the model is not trained.
        ValueError
            When predictions read the embedding (``joint=True``, ``predictor_input`` other than ``"z"``), when the encoder
            is another model's, or when the model holds other cells than those it was trained on.

        Examples
        --------
        >>> import scjepa
        >>> adata = scjepa.datasets.simulate_perturbseq(60, 8, 4, 2, n_cells=20, n_control=40)
        >>> scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
        >>> model = scjepa.PerturbJEPA(adata, n_latent=8)
        >>> model.train(max_epochs=1, embed=False, enable_progress_bar=False)
        >>> model.train_embedding(max_epochs=1, enable_progress_bar=False)
        >>> model.get_latent().shape == (adata.n_obs, 8)
        True
        """
        self._require_trained("train_embedding")
        check_sizes(batch_size, max_epochs)
        check_own_encoder(self)
        split = last_split(self)
        matrix = self._read(self._own_or_given(None))
        weights = self.module.state_dict()
        predictor = digest(*(weights[k] for k in sorted(weights) if k.startswith(("space.", "predictors."))))
        options = {"max_epochs": max_epochs, "batch_size": batch_size, "plan_kwargs": plan_kwargs}
        run = TrainingRun(
            self,
            split,
            seed=seed,
            goes_on=self.embedded_,
            checkpoint_dir=checkpoint_dir,
            arguments={**options, "predictor": predictor},
            data=(matrix.values,),
            early_stopping=early_stopping,
            accelerator=accelerator,
            devices=devices,
            **trainer_kwargs,
        )
        with run:
            stage = self._encoder_stage(matrix, seed)
            if run.fresh:
                self._start_encoder(stage, split.train)
            self._train_encoder(run, stage, **options)
            if self.residual_:  # the losses of the whole remain those of the predictor
                run.note("predictor")
            run.extends = True

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
        source = pretrained(expression_jepa, kwargs)
        model = cls(adata, **kwargs)
        take_encoder(model, source, set(kwargs))
        return model

    def _restart(self, matrix: ExpressionMatrix, train: np.ndarray) -> None:
        super()._restart(matrix, train)
        if self.pretrained_ is not None and self.reference_ is None:
            fit_depth(self, matrix, train)
