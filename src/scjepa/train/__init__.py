"""Training: the plan, the callbacks, and stages run on scvi-tools' trainer."""

from scjepa.train._callbacks import BestWeights, CollapseMonitor
from scjepa.train._plain import train_side_by_side
from scjepa.train._plan import JEPATrainingPlan, PlanConfig
from scjepa.train._resume import Checkpoints, describe, digest
from scjepa.train._rows import OnlyRows
from scjepa.train._stages import (
    Stage,
    epochs_for,
    extend_history,
    merge_histories,
    quiet_lightning,
    record_split,
    run_stage,
    seeded,
)
from scjepa.train._threads import pinned_threads

__all__ = [
    "BestWeights",
    "Checkpoints",
    "CollapseMonitor",
    "JEPATrainingPlan",
    "OnlyRows",
    "PlanConfig",
    "Stage",
    "describe",
    "digest",
    "epochs_for",
    "extend_history",
    "merge_histories",
    "pinned_threads",
    "quiet_lightning",
    "record_split",
    "run_stage",
    "seeded",
    "train_side_by_side",
]
