"""Literals and aliases shared by all rooms."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Matrix: TypeAlias = "np.ndarray | sp.csr_matrix"
FloatArray: TypeAlias = npt.NDArray[np.floating]
IntArray: TypeAlias = npt.NDArray[np.integer]

InputScale = Literal["auto", "counts", "lognorm", "signature"]
Regularizer = Literal["visreg", "sigreg", "vicreg", "ema"]
SplitBy = Literal["cell", "condition"]
"""or the name of an ``obs`` column"""
