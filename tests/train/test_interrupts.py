"""Errors and Ctrl-C in training: raised as they are, nothing printed, nothing left behind."""

from __future__ import annotations

import signal

import lightning.pytorch as pl
import pytest

import scjepa


class Raises(pl.Callback):
    """Raises, or presses Ctrl-C, after the first epoch."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.error is None:
            signal.raise_signal(signal.SIGINT)
        else:
            raise self.error


@pytest.fixture
def model() -> scjepa.PerturbJEPA:
    adata = scjepa.datasets.simulate_perturbseq(30, 4, 3, 1, n_cells=8, n_control=12, kinds=("KD",))
    scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    return scjepa.PerturbJEPA(adata)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt("by hand"), SystemExit(3), RuntimeError("broken")])
def test_errors_come_out_as_they_are_and_silently(model, capfd, error):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt if error is None else type(error)) as raised:
        model.train(max_epochs=3, callbacks=[Raises(error)], enable_progress_bar=False)
    assert error is None or raised.value is error
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGINT) is before  # the next Ctrl-C works
    assert not model.is_trained
    model.train(max_epochs=1, enable_progress_bar=False)
    assert model.is_trained and "fit" not in vars(model.trainer)


def test_the_progress_bar_and_prints_of_callbacks_are_left_alone(model, capfd):
    class Talks(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            print("one epoch")

    with pytest.raises(RuntimeError):
        model.train(max_epochs=3, callbacks=[Talks(), Raises(RuntimeError())])
    out, err = capfd.readouterr()
    assert out.count("one epoch") == 1 and "Exception raised" not in out
    assert "Epoch 1/3" in out + err
    print("still heard")
    assert capfd.readouterr().out == "still heard\n"
