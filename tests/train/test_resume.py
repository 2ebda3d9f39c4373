"""Resuming: a training that is killed ends with the numbers of one that was not; other trainings are refused."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch

import scjepa
from scjepa import ExpressionJEPA, PerturbJEPA
from scjepa.train import digest

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
STAGES = {"encoder": "1-encoder.pt", "predictor": "2-predictor.pt"}


def screen() -> ad.AnnData:
    return scjepa.datasets.simulate_perturbseq(60, 8, 5, 3, n_cells=20, n_control=40)


def made(adata: ad.AnnData | None = None, **init) -> PerturbJEPA:
    adata = screen() if adata is None else adata
    PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context", batch_key="batch")
    return PerturbJEPA(adata, n_latent=6, n_pcs=10, n_hidden=32, predictor_hidden=16, **init)


def same(a, b) -> None:
    for name, tensor in a.module.state_dict().items():
        assert torch.equal(tensor, b.module.state_dict()[name]), name
    assert a.history.keys() == b.history.keys()
    for name, frame in a.history.items():
        assert frame.index.tolist() == b.history[name].index.tolist(), name
        np.testing.assert_array_equal(frame.to_numpy(dtype=float), b.history[name].to_numpy(dtype=float))
    if isinstance(a, PerturbJEPA):
        label = a.trained_on_["perturbation"].iloc[-1]
        np.testing.assert_array_equal(a.predict_perturbation(label).X, b.predict_perturbation(label).X)
    np.testing.assert_array_equal(a.get_latent(), b.get_latent())


OPTIONS = {"max_epochs": 3, "train_size": 0.8, **QUIET}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PerturbJEPA:
    """Trained in one go, without checkpoints."""
    torch.set_num_threads(1)
    model = made()
    model.train(**OPTIONS)
    return model


class Stop(Exception):
    """Stands for a power cut, where no process needs to die."""


def broken_at(stage: str, epoch: int, step: int = 1):
    """Return a callback that stops a stage in the middle of an epoch."""
    import lightning.pytorch as pl

    class Break(pl.Callback):
        def on_train_batch_end(self, trainer, plan, outputs, batch, index) -> None:
            name = {"views": "encoder", "sets": "predictor", "joint": "joint"}[plan.objective]
            if (name, trainer.current_epoch) == (stage, epoch) and index >= min(step, trainer.num_training_batches - 1):
                raise Stop

    return Break()


@pytest.mark.parametrize("stage", ["encoder", "predictor"])
def test_a_killed_process_goes_on_and_ends_alike(stage: str, whole: PerturbJEPA, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            import torch
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            import lightning.pytorch as pl
            from test_resume import OPTIONS, made

            torch.set_num_threads(1)

            class Slow(pl.Callback):  # so that the kill falls into an epoch
                def on_train_batch_end(self, trainer, plan, *_):
                    if plan.objective == {"views" if stage == "encoder" else "sets"!r} and trainer.current_epoch == 2:
                        print("now", flush=True)
                        time.sleep(60)

            made().train(**OPTIONS, checkpoint_dir={str(tmp_path / "kept")!r}, callbacks=[Slow()])
            """
        )
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script)], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and any(line == "now\n" for line in process.stdout)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    file = tmp_path / "kept" / STAGES[stage]
    held = torch.load(file, weights_only=True)
    assert held["epoch"] == 2 and not held["done"]  # two epochs were finished, none is lost
    assert not json.loads((tmp_path / "kept" / "training.json").read_text())["finished"]
    model = made()
    model.train(**OPTIONS, checkpoint_dir=tmp_path / "kept")
    same(model, whole)
    assert len(model.history["encoder_train_loss"]) == len(model.history["predictor_train_loss"]) == 3


def test_checkpoints_change_nothing_and_a_finished_training_is_not_repeated(
    whole: PerturbJEPA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = made()
    first.train(**OPTIONS, checkpoint_dir=tmp_path)
    same(first, whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1-encoder.pt", "2-predictor.pt", "training.json"]
    again = made()
    with caplog.at_level(logging.INFO):
        again.train(**OPTIONS, checkpoint_dir=tmp_path, callbacks=[broken_at("encoder", 0), broken_at("predictor", 0)])
    assert "is finished: its result is taken, nothing is trained anew" in caplog.text
    same(again, whole)
    again.train(**OPTIONS, checkpoint_dir=tmp_path)  # the same cell of a notebook, run twice
    same(again, whole)


@pytest.mark.parametrize("stage", ["encoder", "predictor"])
def test_several_interruptions(stage: str, whole: PerturbJEPA, tmp_path: Path) -> None:
    for epoch in (0, 1, 1, 2):
        with pytest.raises(Stop):
            made().train(**OPTIONS, checkpoint_dir=tmp_path, callbacks=[broken_at(stage, epoch)])
    model = made()
    model.train(**OPTIONS, checkpoint_dir=tmp_path)
    same(model, whole)


@pytest.mark.parametrize("options", [{"joint": True}, {"early_stopping_patience": 1, "early_stopping_min_delta": 1e3}])
def test_joint_training_and_early_stopping_go_on(options: dict, tmp_path: Path) -> None:
    wanted, model = made(), made()
    wanted.train(**OPTIONS, **options)
    stage = "joint" if "joint" in options else "encoder"
    with pytest.raises(Stop):
        made().train(**OPTIONS, **options, checkpoint_dir=tmp_path, callbacks=[broken_at(stage, 1)])
    model.train(**OPTIONS, **options, checkpoint_dir=tmp_path)
    same(model, wanted)
    assert len(model.history["train_loss"]) == (2 if stage == "encoder" else 3)


def test_a_second_training_has_checkpoints_of_its_own(whole: PerturbJEPA, tmp_path: Path) -> None:
    def second(**options) -> PerturbJEPA:
        model = made()
        model.train(**OPTIONS)
        model.train(**OPTIONS, **options)
        return model

    wanted = second()
    with pytest.raises(Stop):
        second(checkpoint_dir=tmp_path, callbacks=[broken_at("predictor", 2)])
    again = second(checkpoint_dir=tmp_path)
    same(again, wanted)
    assert len(again.history["encoder_train_loss"]) == 6
    with pytest.raises(ValueError, match="what differs: the weights that training starts from"):
        again.train(**OPTIONS, checkpoint_dir=tmp_path)


def test_expression_jepa_with_a_slow_target_goes_on(tmp_path: Path) -> None:
    def model() -> ExpressionJEPA:
        adata = screen()
        ExpressionJEPA.setup_anndata(adata, batch_key="batch")
        return ExpressionJEPA(adata, n_latent=6, regularizer="ema", batch_aware=True)

    wanted, again = model(), model()
    wanted.train(max_epochs=3, **QUIET)
    with pytest.raises(Stop):
        model().train(max_epochs=3, checkpoint_dir=tmp_path, callbacks=[broken_at("encoder", 2, 0)], **QUIET)
    again.train(max_epochs=3, checkpoint_dir=tmp_path, **QUIET)
    same(again, wanted)


def test_other_trainings_are_refused(tmp_path: Path) -> None:
    adata = screen()
    options = {"max_epochs": 1, **QUIET}
    made(adata).train(**options, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"holds another training; what differs: max_epochs='1' there, '2' here"):
        made(adata).train(**{**options, "max_epochs": 2}, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"what differs: seed='0' there, '1' here"):
        made(adata).train(**options, seed=1, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"what differs: the split\. "):
        made(adata).train(**options, holdout=["state B"], checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"what differs: the model\. "):
        made(adata, noise=0.1).train(**options, checkpoint_dir=tmp_path)
    changed = screen()
    changed.X[0, 0] += 1
    with pytest.raises(ValueError, match=r"what differs: the data\. .*or give another folder"):
        made(changed).train(**options, checkpoint_dir=tmp_path)
    relabelled = screen()
    relabelled.obs["context"] = relabelled.obs["context"].to_numpy()[::-1]
    with pytest.raises(ValueError, match=r"what differs: the data"):
        made(relabelled).train(**options, checkpoint_dir=tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps({**record, "format": 9}))
    with pytest.raises(ValueError, match=r"was written in format 9, this scjepa reads 1. Give another folder"):
        made(adata).train(**options, checkpoint_dir=tmp_path)


def test_how_the_training_looks_does_not_matter(tmp_path: Path) -> None:
    made().train(max_epochs=1, accelerator="cpu", enable_progress_bar=False, checkpoint_dir=tmp_path)
    made().train(max_epochs=1, accelerator="auto", enable_progress_bar=True, checkpoint_dir=tmp_path)


def test_digests_tell_contents_apart() -> None:
    a = np.arange(6)
    assert digest(a) == digest(a.copy()) != digest(a.reshape(2, 3))
    assert digest(a) != digest(a.astype(float))
    assert digest(np.array(["a", "b"], object)) == digest(np.array(["a", "b"], object)) != digest(np.array(["a", "c"]))
    assert digest(torch.zeros(2)) != digest(torch.ones(2))
    assert digest(1, None) != digest(1, 0)
