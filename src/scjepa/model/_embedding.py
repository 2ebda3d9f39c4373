"""The embedding of PerturbJEPA trained by itself, for models that were trained without it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from scjepa._checks import require_positive_int
from scjepa.data import Split
from scjepa.model._perturb_state import PerturbState
from scjepa.train import describe, digest, extend_history, merge_histories, seeded


class EmbeddingMixin(PerturbState):
    """Stage 1 alone, for :class:`PerturbJEPA`."""

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
        plan_kwargs
            Options of :class:`scjepa.train.PlanConfig`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`.

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
        require_positive_int(batch_size, "batch_size", minimum=2)
        if max_epochs is not None:
            require_positive_int(max_epochs, "max_epochs")
        self._check_own_encoder()
        split = self._last_split()
        matrix = self._read(self._own_or_given(None))
        weights = self.module.state_dict()
        predictor = digest(*(weights[k] for k in sorted(weights) if k.startswith(("space.", "predictors."))))
        given = {"max_epochs": max_epochs, "batch_size": batch_size, "early_stopping": early_stopping, "seed": seed,
                 "plan_kwargs": plan_kwargs, "predictor": predictor, **describe(trainer_kwargs)}  # fmt: skip
        checkpoints, goes_on = self._checkpoints(checkpoint_dir, self.embedded_, split, given, matrix.values)
        earlier = self.history_
        with self._keeping_what_was_trained(), seeded(seed):
            if not goes_on:
                self._start_encoder(matrix, split.train, seed)
            found = self._train_encoder(
                matrix, split, max_epochs=max_epochs, batch_size=batch_size, plan_kwargs=plan_kwargs, seed=seed,
                accelerator=accelerator, devices=devices, early_stopping=early_stopping, checkpoints=checkpoints,
                **trainer_kwargs,
            )  # fmt: skip
        # the losses of the whole remain those of the predictor, where there is one
        stages = [("encoder", found), ("predictor", {})] if self.residual_ else [("encoder", found)]
        self.history_ = extend_history(earlier, merge_histories(stages))
        if checkpoints is not None:
            checkpoints.finish()

    def _check_own_encoder(self) -> None:
        """Raise where the encoder is not to be trained by itself."""
        reads = self.module_arguments_["predictor_input"]
        if self.joint_ or reads != "z":
            why = "joint=True" if self.joint_ else f"predictor_input={reads!r}"
            raise ValueError(
                f"predictions of this model read its embedding ({why}): train_embedding would change them. Train "
                "both on with train()."
            )
        if self.frozen_encoder_:
            raise ValueError(
                "the encoder of this model is the pretrained one (from_pretrained): it has an embedding already. "
                "train(fine_tune=True) trains it on."
            )
        if self.rows_ is not None and self._given_embedding:
            raise ValueError(
                "the encoder of these query data is the reference's and stays as it is: it has an embedding already. "
                "load_query_data(..., freeze=False) gives one that trains on."
            )

    def _last_split(self) -> Split:
        """Return the cells of the last training; raise when the model does not hold them."""
        if self.train_indices is None:
            raise RuntimeError(
                "train_embedding trains on the training cells of the last training, and there was none on these query "
                "data. Run model.train() first."
            )
        parts = (self.train_indices, self.validation_indices, self.test_indices)
        split = Split(*(np.zeros(0, int) if cells is None else np.asarray(cells) for cells in parts))
        n = sum(map(len, split))
        same = self.adata is not None and self.adata.n_obs == n
        if same and self.cell_names_ is not None:
            same = digest(self.adata.obs_names.to_numpy()) == self.cell_names_
        if not same:
            held = "no AnnData" if self.adata is None else f"{self.adata.n_obs} cells that are not these"
            raise ValueError(
                f"train_embedding trains on the training cells of the last training, an AnnData of {n} cells; the model "
                f"holds {held}. Load it with that AnnData: {type(self).__name__}.load(folder, adata)."
            )
        return split
