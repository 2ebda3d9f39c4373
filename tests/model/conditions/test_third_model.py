"""A third model on cells whose effects are known: linear in a stimulus's features, and half as large after 6 h as after 24."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tests.conformance.stimulus import StimulusJEPA

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "embed": False}
GENES, NAMES = 40, [f"S{i:02d}" for i in range(16)]
UNSEEN, NAMELESS = NAMES[-1], "S99"
GROWTH = {0.0: 0.0, 6.0: 0.5, 24.0: 1.0}


def features() -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(len(NAMES), 3))
    return pd.DataFrame(values / np.linalg.norm(values, axis=1, keepdims=True), index=NAMES)


def truth(name: str, hours: float) -> np.ndarray:
    """Effect of a stimulus on every gene, log-normalised."""
    per_feature = np.random.default_rng(1).normal(size=(3, GENES))
    return GROWTH[hours] * features().loc[name].to_numpy() @ per_feature


def cells() -> ad.AnnData:
    """Log-normalised cells in two contexts, 30 of each condition."""
    rng = np.random.default_rng(2)
    base = {c: 5 + 0.3 * rng.normal(size=GENES) for c in ("x", "y")}
    x, rows = [], []
    for c in base:
        conditions = [("control", 0.0, 120), *((name, h, 30) for name in NAMES for h in (6.0, 24.0))]
        for name, hours, n in conditions:
            effect = 0 if name == "control" else truth(name, hours)
            x.append(base[c] + effect + 0.4 * rng.normal(size=(n, GENES)))
            rows += [(name, hours, c)] * n
    obs = pd.DataFrame(rows, columns=["stimulus", "hours", "context"]).rename(index=str)
    return ad.AnnData(np.maximum(np.concatenate(x), 0).astype(np.float32), obs=obs)


def fitted(gate: float | str, **train) -> StimulusJEPA:
    adata = cells()
    StimulusJEPA.setup_anndata(adata, "stimulus", "hours", context_key="context")
    model = StimulusJEPA(adata, features(), n_latent=4, n_pcs=8, gate=gate)
    model.train(holdout=[UNSEEN], **{**QUIET, **train})
    return model


@pytest.fixture(scope="module")
def network() -> StimulusJEPA:
    """The network counts in full."""
    return fitted(1.0)


def effect(model: StimulusJEPA, name: str, hours: float) -> np.ndarray:
    out = model.predict_stimulus(name, hours=hours, include_control=True)
    control = (out.obs["jepa_prediction"] == "control").to_numpy()
    return out.X[~control].mean(0) - out.X[control].mean(0)


def size(found: np.ndarray, name: str) -> float:
    """How large an effect is along the true one after 24 h."""
    true = truth(name, 24.0)
    return float(found @ true / (true @ true))


# ---------------------------------------------------------------- unseen stimuli
@pytest.mark.parametrize("hours", [6.0, 24.0])
def test_an_unseen_stimulus_is_predicted_by_its_features(network: StimulusJEPA, hours: float) -> None:
    true = truth(UNSEEN, hours)
    error = np.linalg.norm(effect(network, UNSEEN, hours) - true) / np.linalg.norm(true)
    # the anchor knows no hours: the effect lies between that of 6 h (1/2) and that of 24 h (1)
    assert error < 0.75
    assert np.corrcoef(effect(network, UNSEEN, hours), true)[0, 1] > 0.9


def test_a_stimulus_without_features_is_refused(network: StimulusJEPA) -> None:
    message = (
        rf"'{NAMELESS}' in '{NAMES[0]}\+{NAMELESS}' was not given in any training cell and has no features \(it is not "
        r"a row of stimulus_features\).*Add its row to StimulusJEPA\(stimulus_features=\)"
    )
    for ask in (network.predict_stimulus, network.predict_effect):
        with pytest.raises(ValueError, match=message):
            ask(f"{NAMES[0]}+{NAMELESS}")


# ---------------------------------------------------------------- hours
def test_effects_grow_with_the_hours_as_they_should(network: StimulusJEPA) -> None:
    """The anchor does not tell hours; with the network in full the ratio is 2 within a fifth, in every stimulus's mean."""
    found = np.array([[size(effect(network, name, h), name) for h in (6.0, 24.0)] for name in NAMES[:-1]])
    assert (found[:, 1] > found[:, 0]).all()
    assert found.mean(0) == pytest.approx([0.5, 1.0], rel=0.2)
    assert found[:, 1].mean() / found[:, 0].mean() == pytest.approx(2.0, rel=0.2)


def test_the_anchor_alone_does_not_tell_hours() -> None:
    model = fitted(0.0, max_epochs=1)
    model.gate_.shares |= {"trained single": 0.0}
    short, long = (effect(model, NAMES[0], h) for h in (6.0, 24.0))
    np.testing.assert_array_equal(short, long)
    assert 0.5 < size(short, NAMES[0]) < 1  # of both


def test_hours_left_out_are_the_typical_ones(network: StimulusJEPA) -> None:
    assert network.time_ref_ == 15.0  # the median of 6 and 24
    np.testing.assert_array_equal(effect(network, NAMES[0], 15.0), effect(network, NAMES[0], None))


# ---------------------------------------------------------------- tables
def test_tables_have_the_hours(network: StimulusJEPA) -> None:
    asked = network.predict_effect(NAMES[:2], context="x", time=[6, 24])
    assert list(asked)[:4] == ["perturbation", "context", "hours", "gene"]
    each = asked.drop_duplicates(["perturbation", "hours"])
    assert each["hours"].tolist() == [6, 24, 6, 24] and set(each["support"]) == {"trained"}
    assert len(asked) == 4 * GENES and (asked["lower"] <= asked["effect"]).all()
    known = network.get_reliability()
    assert list(known)[:3] == ["perturbation", "context", "hours"]
    assert len(known) == 2 * 2 * len(NAMES) and set(known["hours"]) == {6.0, 24.0}
    by_hours = known.groupby("hours")["effect_size"].mean()
    assert by_hours[24.0] / by_hours[6.0] == pytest.approx(2, rel=0.1)
    assert not known.loc[known["perturbation"] == UNSEEN, "trained"].any()
    assert known.loc[known["perturbation"] != UNSEEN, "trained"].all()


def test_predictions_carry_the_hours(network: StimulusJEPA) -> None:
    out = network.predict_stimulus(NAMES[0], hours=[6, 24], n_cells=3, context="y", include_control=True)
    assert out.obs["hours"].tolist() == [0.0] * 3 + [6.0] * 3 + [24.0] * 3
    assert out.uns["jepa"]["prediction"]["conditions"]["time"].tolist() == [6, 24]


# ---------------------------------------------------------------- kept
@pytest.mark.filterwarnings("ignore:No training condition could be left out")
@pytest.mark.parametrize("how", ["save", "export"])
def test_what_is_kept_predicts_the_same(how: str, network: StimulusJEPA, tmp_path: Path) -> None:
    if how == "export":
        pytest.importorskip("safetensors")
    asked, options = [NAMES[0], UNSEEN, f"{NAMES[1]}+{NAMES[2]}"], {"n_cells": 5}
    x, effects = network.predict_stimulus(asked, hours=[6, 24], **options).X, network.predict_effect(asked, time=24)
    getattr(network, how)(str(tmp_path / "m"))
    again = StimulusJEPA.load(str(tmp_path / "m"), network.adata)
    np.testing.assert_array_equal(again.predict_stimulus(asked, hours=[6, 24], **options).X, x)
    pd.testing.assert_frame_equal(again.predict_effect(asked, time=24), effects)
    pd.testing.assert_frame_equal(again.get_reliability(), network.get_reliability())
