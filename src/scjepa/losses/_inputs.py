"""What the losses ask of their tensors, and random directions for the sliced ones."""

from __future__ import annotations

import torch
from torch import Tensor


def check_batch(z: Tensor, name: str = "z") -> Tensor:
    """Return ``z`` in at least single precision; raise unless it is ``(n, d)`` with two rows or more.

    Half precision is raised because the statistics are differences of nearly equal means.
    """
    if z.ndim != 2:
        raise ValueError(f"{name} has shape {tuple(z.shape)}: expected embeddings of shape (n_cells, n_latent).")
    if z.shape[0] < 2:
        raise ValueError(
            f"{name} has {z.shape[0]} row(s): the spread of a batch needs at least 2 cells. "
            "Use a larger batch_size or drop the last incomplete batch."
        )
    return z if z.dtype == torch.float64 else z.float()


def check_sets(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets in at least single precision, with leading dimensions broadcast to each other.

    Raises :class:`ValueError` unless they are ``(..., m, d)`` and ``(..., n, d)`` with at least one row each.
    """
    shapes = f"x has shape {tuple(x.shape)}, y has shape {tuple(y.shape)}"
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{shapes}: expected sets of cells (..., m, d) and (..., n, d) with the same d.")
    if 0 in (x.shape[-2], y.shape[-2]):
        raise ValueError(f"{shapes}: an empty set has no distance. Give at least one cell on each side.")
    try:
        lead = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except RuntimeError as error:
        raise ValueError(f"{shapes}: the leading dimensions don't match. Give as many sets in x as in y.") from error
    x, y = (s if s.dtype == torch.float64 else s.float() for s in (x, y))
    return x.expand(*lead, *x.shape[-2:]), y.expand(*lead, *y.shape[-2:])


def random_directions(z: Tensor, n_slices: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw ``n_slices`` directions, uniform on the unit sphere, as columns ``(d, n_slices)`` on the device of ``z``."""
    device = z.device if generator is None else generator.device
    directions = torch.randn(z.shape[1], n_slices, generator=generator, device=device, dtype=z.dtype)
    return torch.nn.functional.normalize(directions.to(z.device), dim=0)
