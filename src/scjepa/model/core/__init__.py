"""What every model has: reading and checking cells, the encoder stage, latents, keeping and growing, diagnostics."""

from scjepa.model.core._diagnostics import Diagnostic, embedding_diagnostics
from scjepa.model.core._encoder import BLOCK, EncoderStage, at_depth, encode
from scjepa.model.core._model import JEPAModel
from scjepa.model.core._parts import Part, Through
from scjepa.model.core._query import names_in_order
from scjepa.model.core._reading import Reader, check_cells
from scjepa.model.core._run import TrainingRun, check_sizes, goes_on, last_split

__all__ = [
    "BLOCK",
    "Diagnostic",
    "EncoderStage",
    "JEPAModel",
    "Part",
    "Reader",
    "Through",
    "TrainingRun",
    "at_depth",
    "check_cells",
    "check_sizes",
    "embedding_diagnostics",
    "encode",
    "goes_on",
    "last_split",
    "names_in_order",
]
