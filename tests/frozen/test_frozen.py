"""Models of every released version, saved and exported, load and answer as they did when they were written.

Folders are written by ``make.py``. ``SCJEPA_FROZEN`` names one more: models that another environment of the same
machine wrote with the same torch. Their answers must agree but for the order in which another numpy adds: single precision's
last bits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.frozen.cases import CASE, EXPECTED, EXPORTED, SAVED, TRAIN, ask, load, part, read_case, read_cells

HERE = Path(__file__).parent
VERSIONS = sorted(p for p in HERE.iterdir() if p.is_dir() and p.name[0].isdigit())
if os.environ.get("SCJEPA_FROZEN"):
    VERSIONS.append(Path(os.environ["SCJEPA_FROZEN"]))
MODELS = [p.parent for version in VERSIONS for p in sorted(version.glob(f"*/{CASE}"))]
NAMES = [f"{p.parent.name}/{p.name}" for p in MODELS]

pytest.importorskip("safetensors")
every_model = pytest.mark.parametrize("model", MODELS, ids=NAMES)
every_folder = pytest.mark.parametrize("kind", [SAVED, EXPORTED])


def same(answers: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    """Raise unless numbers agree within ``tolerance`` and labels agree."""
    assert answers.keys() == expected.keys()
    for name, values in expected.items():
        assert answers[name].shape == values.shape, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(answers[name], values, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(answers[name], values, err_msg=name)


def expected_of(model: Path) -> dict[str, np.ndarray]:
    with np.load(model / EXPECTED) as held:
        return {name: held[name] for name in held.files}


def tolerance_of(model: Path) -> float:
    """The last bits of single precision between environments of one machine; else what other processors and torch add up to."""
    return 1e-6 if str(model.parent) == os.environ.get("SCJEPA_FROZEN") else 1e-5


def joint(model: Any) -> dict[str, bool]:
    return {"joint": True} if getattr(model, "joint_", False) else {}


def test_every_kind_of_model_is_frozen() -> None:
    assert {"0.1.0"} <= {p.name for p in VERSIONS}
    assert {read_case(p)["class"] for p in MODELS} == {"ExpressionJEPA", "PerturbJEPA"}
    assert len(MODELS) >= 10


@every_folder
@every_model
def test_answers_are_those_of_the_day(model: Path, kind: str) -> None:
    cells, questions = read_cells(model.parent), read_case(model)["questions"]
    without = ask(load(model / kind), cells, questions)
    same(without, expected_of(model), tolerance_of(model))
    held = load(model / kind, part(read_cells(model.parent), read_case(model)["cells"]))
    same(ask(held, cells, questions), without, 0.0)


@every_model
def test_saved_and_exported_are_one_model(model: Path) -> None:
    saved, exported = load(model / SAVED), load(model / EXPORTED)
    assert saved.module.state_dict().keys() == exported.module.state_dict().keys()
    for name, tensor in saved.module.state_dict().items():
        assert torch.equal(tensor, exported.module.state_dict()[name]), name
    assert saved.history.keys() == exported.history.keys()


@every_folder
@every_model
def test_training_goes_on(model: Path, kind: str) -> None:
    again = load(model / kind, part(read_cells(model.parent), read_case(model)["cells"]))
    again.train(**TRAIN, **joint(again))
    latent = again.get_latent()
    assert latent.shape == (again.adata.n_obs, 4) and np.isfinite(latent).all()


@every_folder
@every_model
def test_query_data_can_be_added(model: Path, kind: str) -> None:
    cells = part(read_cells(model.parent), "query")
    cells.obs["batch"] = cells.obs["batch"].replace("new batch", "newer batch")
    cells.obs["context"] = "newer context"
    reference = load(model / kind)
    query = type(reference).load_query_data(cells, str(model / kind), accelerator="cpu")
    query.train(**TRAIN, **joint(reference))
    if getattr(reference, "embedded_", True):
        assert query.get_latent().shape == (cells.n_obs, 4) and np.isfinite(query.get_latent()).all()
    assert query.is_trained and query.adata.n_obs == cells.n_obs
    if hasattr(reference, "trained_on_"):
        assert set(reference.trained_on_["perturbation"]) <= set(query.trained_on_["perturbation"])
