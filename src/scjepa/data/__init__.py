"""From AnnData to tensors: fields, control matching, splits, samplers and the embedding cache."""

from scjepa.data._cache import EmbeddingCache
from scjepa.data._chains import Chain, ChainBatches
from scjepa.data._conditions import ConditionTable, condition_means, condition_table
from scjepa.data._counterfactuals import LabelKeys, cell_positions, check_keys, control_cells
from scjepa.data._doses import (
    Dose,
    as_matrix,
    dose_column,
    dose_matrix,
    dose_values,
    is_text,
    joined_doses,
    no_dose,
    read_dose,
    write_dose,
)
from scjepa.data._groups import CellGroups, group_cells
from scjepa.data._matrix import ExpressionMatrix, aligned
from scjepa.data._pca import Components, fit_components
from scjepa.data._predictions import largest_values, shift_cells
from scjepa.data._samplers import ConditionSampler, SeededBatches, SetBatches, ViewBatches
from scjepa.data._signatures import signatures_to_conditions
from scjepa.data._splits import Split, held_out_conditions, split_cells

__all__ = [
    "CellGroups",
    "Chain",
    "ChainBatches",
    "Components",
    "ConditionSampler",
    "ConditionTable",
    "Dose",
    "EmbeddingCache",
    "ExpressionMatrix",
    "SeededBatches",
    "SetBatches",
    "LabelKeys",
    "Split",
    "ViewBatches",
    "aligned",
    "as_matrix",
    "cell_positions",
    "check_keys",
    "condition_means",
    "condition_table",
    "control_cells",
    "dose_column",
    "dose_matrix",
    "dose_values",
    "fit_components",
    "group_cells",
    "held_out_conditions",
    "is_text",
    "joined_doses",
    "largest_values",
    "no_dose",
    "read_dose",
    "shift_cells",
    "signatures_to_conditions",
    "split_cells",
    "write_dose",
]
