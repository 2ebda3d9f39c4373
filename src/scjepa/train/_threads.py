"""Training on a fixed number of threads, whatever else ran in the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

THREADS = 1
"""Threads of a training, unless ``plan_kwargs={"threads": ...}`` says otherwise. Networks this small wait for their threads
longer than they compute, and the numbers depend, in the last digits, on how many there are."""


@contextmanager
def pinned_threads(n: int = THREADS) -> Iterator[None]:
    """Let torch use ``n`` threads inside, and as many as before afterwards.

    Whatever ``OMP_NUM_THREADS`` or :func:`torch.set_num_threads` said, the first parallel function of numba that runs in a
    session (``scanpy.pp.normalize_total`` is enough) sets the number of all that share its OpenMP, torch among them, to that of
    the cores: the same training would give other last digits after it than before, and, on a busy machine, take ten times as
    long.

    Examples
    --------
    >>> import torch
    >>> from scjepa.train import pinned_threads
    >>> before = torch.get_num_threads()
    >>> with pinned_threads():
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
