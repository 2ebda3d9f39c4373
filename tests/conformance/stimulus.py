"""A third model, for tests only: a stimulus with a feature vector, for some hours. It touches neither core nor conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi.data import AnnDataManager

from scjepa._scale import check_target_sum
from scjepa.baselines import KernelEffect
from scjepa.model.conditions import ConditionModel, Design, Words, check_setup, fields
from scjepa.nn import ActionEncoder


class StimulusJEPA(ConditionModel):
    """What a stimulus does to cells: known by its features, in the anchor and in the network, and by how long it lasts."""

    _words = Words(
        label="stimulus_key",
        asked="stimuli",
        items="stimuli",
        item="stimulus",
        done="given",
        features="it is not a row of stimulus_features",
        mend="Add its row to StimulusJEPA(stimulus_features=).",
    )

    def __init__(
        self,
        adata: AnnData | None = None,
        stimulus_features: pd.DataFrame | None = None,
        registry: dict | None = None,
        *,
        n_latent: int = 32,
        n_pcs: int = 50,
        gate: float | str = "auto",
    ) -> None:
        super().__init__(adata, registry)
        self.init_params_ = self._get_init_params(locals())
        if stimulus_features is None:
            raise ValueError("stimulus_features is missing: a stimulus is known by its features. Give one row each.")
        self._features = stimulus_features
        anchor = KernelEffect(features=stimulus_features)
        self._make(anchor=anchor, gate=gate, n_latent=n_latent, n_pcs=n_pcs)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        stimulus_key: str,
        hours_key: str | None = None,
        control: str = "control",
        *,
        layer: str | None = None,
        batch_key: str | None = None,
        context_key: str | None = None,
        input_scale: Any = "auto",
        target_sum: float = 1e4,
        **kwargs: Any,
    ) -> None:
        """Tell the model where to find what in ``adata``."""
        time_key, target_sum = hours_key, check_target_sum(target_sum)
        setup = {"stimulus_key": stimulus_key, "control": control, "time_key": time_key, "batch_key": batch_key}
        design = Design.from_setup({**setup, "context_key": context_key}, cls._words.label)
        query = "source_registry" in kwargs
        input_scale = check_setup(adata, design, layer, input_scale, label=cls._words.label, query=query)
        registered = {k: v for k, v in locals().items() if k not in ("setup", "design", "query", "time_key")}
        manager = AnnDataManager(
            fields=fields(design, layer), setup_method_args=cls._get_setup_method_args(**registered)
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    @property
    def _design(self) -> Design:
        return Design.from_setup({**self._setup, "time_key": self._setup["hours_key"]}, self._words.label)

    def _new_action_encoder(self) -> ActionEncoder:
        lost = [name for name in self.actions_ if name not in self._features.index]
        if lost:
            raise ValueError(f"stimulus_features has no row for {lost}. {self._words.mend}")
        rows = self._features.loc[list(self.actions_)].to_numpy(np.float32)
        timed = self._design.time_key is not None
        return ActionEncoder(len(rows), features=rows, time=timed, time_ref=self.time_ref_)

    def _item_features(self) -> pd.DataFrame:
        return self._features

    def predict_stimulus(self, stimuli: str | Sequence[str], adata: AnnData | None = None, **options: Any) -> AnnData:
        """Predict cells under stimuli; ``hours`` is how long they last, the rest is as in PerturbJEPA."""
        self._require_trained("predict_stimulus")
        return self._predict(stimuli, adata, time=options.pop("hours", None), **options)
