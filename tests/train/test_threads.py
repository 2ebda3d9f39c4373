"""Training runs on the threads it says, gives them back, and gives the same numbers whatever ran before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import lightning.pytorch as pl
import pytest
import torch
from tests.train.test_plain import batches, module

import scjepa
from scjepa.module import SETS
from scjepa.train import PlanConfig, pinned_threads, seeded, train_side_by_side

QUIET = {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


class Counter(pl.Callback):
    """Notes the number of threads of every step."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def on_train_batch_end(self, *args) -> None:
        self.seen.add(torch.get_num_threads())


def test_inside_and_after() -> None:
    with pinned_threads():
        assert torch.get_num_threads() == 1
        with pinned_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
        torch.set_num_threads(4)
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), pinned_threads():
        raise KeyError
    assert torch.get_num_threads() == 3
    with seeded(0):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("options", "threads"), [({}, 1), ({"plan_kwargs": {"threads": 2}}, 2)])
def test_a_model_trains_on_the_threads_it_is_told(options: dict, threads: int) -> None:
    adata = scjepa.datasets.simulate_perturbseq(40, 8, 4, 2, n_cells=10, n_control=20)
    scjepa.ExpressionJEPA.setup_anndata(adata)
    counter = Counter()
    scjepa.ExpressionJEPA(adata, n_latent=4).train(**QUIET, **options, callbacks=[counter])
    assert counter.seen == {threads}
    assert torch.get_num_threads() == 3


def test_a_training_that_fails_gives_the_threads_back() -> None:
    class Fails(pl.Callback):
        def on_train_batch_end(self, *args) -> None:
            assert torch.get_num_threads() == 1
            raise RuntimeError("no more")

    adata = scjepa.datasets.simulate_perturbseq(40, 8, 4, 2, n_cells=10, n_control=20)
    scjepa.ExpressionJEPA.setup_anndata(adata)
    with pytest.raises(RuntimeError, match="no more"):
        scjepa.ExpressionJEPA(adata, n_latent=4).train(**QUIET, callbacks=[Fails()])
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("fails", [False, True])
def test_networks_side_by_side(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, start = set(), module()
    draw = type(batches(1.0)).__iter__

    def noting(self):
        for batch in draw(self):
            seen.add(torch.get_num_threads())
            if fails:
                raise RuntimeError("no more")
            yield batch

    monkeypatch.setattr(type(batches(1.0)), "__iter__", noting)
    if fails:
        with pytest.raises(RuntimeError, match="no more"):
            train_side_by_side(start, SETS, PlanConfig(), [batches(1.0)], 1)
    else:
        train_side_by_side(start, SETS, PlanConfig(threads=2), [batches(1.0)], 1)
    assert seen == {1 if fails else 2}
    assert torch.get_num_threads() == 3 and not start.training


@pytest.mark.parametrize("threads", [0, 1.5, True])
def test_a_wrong_number_is_refused(threads: object) -> None:
    with pytest.raises(ValueError, match=r"threads=.*: expected a whole number of at least 1"):
        PlanConfig.from_kwargs(PlanConfig(), {"threads": threads})


SESSION = """
import logging, warnings
warnings.simplefilter("ignore")
import numba, numpy as np, torch, scjepa
from scjepa.train import digest
logging.disable(logging.CRITICAL)

def numbers():
    adata = scjepa.datasets.simulate_perturbseq(300, 20, 6, 4, n_cells=40, n_control=80)
    scjepa.PerturbJEPA.setup_anndata(adata, "perturbation", context_key="context")
    model = scjepa.PerturbJEPA(adata, n_latent=16)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    return digest(*model.module.state_dict().values(), sorted(model.gates_.items())), torch.get_num_threads()

@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(len(x)):
        s += x[i]
    return s

before = numbers()
assert before[1] == 1
total(np.ones(1000))  # what scanpy does
if torch.get_num_threads() == 1:  # another threading layer of numba
    torch.set_num_threads(4)
raised = torch.get_num_threads()
after = numbers()
assert after[0] == before[0], "other numbers"
assert after[1] == raised > 1
print(raised)
"""


def test_numbers_are_the_same_after_parallel_work_of_numba() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", SESSION], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == 4
