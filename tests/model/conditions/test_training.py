"""A training that fails gives the model back with all its parts as they were."""

from __future__ import annotations

import numpy as np
import pytest
from lightning.pytorch.callbacks import LambdaCallback

import scjepa
from scjepa import PerturbJEPA

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "max_epochs": 1}


def stop(*_: object) -> None:
    raise InterruptedError


@pytest.mark.parametrize("context_key", ["context", None])
def test_parts_are_given_back_too(context_key: str | None) -> None:
    """On other cells coordinates and anchors are fitted anew before anything is trained."""
    adata = scjepa.datasets.simulate_perturbseq(40, 8, 4, 2, n_cells=20, n_control=40)
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key=context_key)
    model = PerturbJEPA(adata, n_pcs=6, n_latent=4, gate=0.5)
    model.train(**QUIET)
    asked = sorted(p for p in adata.obs["perturbation"].unique() if "+" in p)
    x, effects = model.predict_perturbation(asked, n_cells=9).X, model.predict_effect(asked)
    parts = {name: getattr(model, name) for name in model._parts}
    with pytest.raises(InterruptedError):
        model.train(holdout=asked, callbacks=[LambdaCallback(on_train_epoch_end=stop)], **QUIET)
    assert all(getattr(model, name) is part for name, part in parts.items())
    assert len(model.anchors_.table) == len(model.known_.conditions)
    np.testing.assert_array_equal(model.predict_perturbation(asked, n_cells=9).X, x)
    assert model.predict_effect(asked).equals(effects)
