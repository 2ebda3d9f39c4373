"""Training: the plan, the callbacks, and stages run on scvi-tools' trainer."""

from scjepa.train._callbacks import BestWeights, CollapseMonitor
from scjepa.train._plan import JEPATrainingPlan, PlanConfig
from scjepa.train._stages import Stage, epochs_for, extend_history, merge_histories, quiet_lightning, run_stage, seeded

__all__ = [
    "BestWeights",
    "CollapseMonitor",
    "JEPATrainingPlan",
    "PlanConfig",
    "Stage",
    "epochs_for",
    "extend_history",
    "merge_histories",
    "quiet_lightning",
    "run_stage",
    "seeded",
]
