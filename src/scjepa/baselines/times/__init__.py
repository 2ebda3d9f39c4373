"""Cells at times that were not measured, in closed form: the interpolant, copies of neighbours, transport."""

from scjepa.baselines.times._interpolant import Cloud, Interpolant, systematic

__all__ = ["Cloud", "Interpolant", "systematic"]
