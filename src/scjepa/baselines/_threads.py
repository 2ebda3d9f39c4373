"""Closed forms on one thread of BLAS: hundreds of small decompositions wait for threads longer than they compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Method = TypeVar("Method", bound=Callable[..., Any])


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries once: looking for them takes longer than a small prediction."""
    return ThreadpoolController()


def on_one_thread(method: Method) -> Method:
    """Run a method on one thread of BLAS, and give the session's number back.

    On a busy machine an eigendecomposition of a few hundred rows takes up to a hundred times longer on all cores than on one;
    and last digits depend on the number of threads, which other packages set.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> from scjepa.baselines._threads import on_one_thread
    >>> @on_one_thread
    ... def threads():
    ...     return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    >>> threads()
    {1}
    """

    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _controller().limit(limits=1, user_api="blas"):
            return method(*args, **kwargs)

    return run  # type: ignore[return-value]
