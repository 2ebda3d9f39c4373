"""Models of unpaired conditions: the parts they hold, and the module they put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch

from scjepa._checks import check_gate, require_positive_int
from scjepa._keys import Keys
from scjepa._labels import parse_labels
from scjepa._types import FloatArray
from scjepa.baselines import Baseline
from scjepa.model.conditions._anchors import Anchors
from scjepa.model.conditions._design import Design, Words
from scjepa.model.conditions._gate import Gate
from scjepa.model.conditions._growth import held_of
from scjepa.model.conditions._intervals import Intervals
from scjepa.model.conditions._known import Known
from scjepa.model.conditions._module import MODULE, condition_module
from scjepa.model.conditions._network import Vocabulary
from scjepa.model.core import JEPAModel, Part, Through, names_in_order
from scjepa.module import JEPAModule
from scjepa.nn import ActionEncoder
from scjepa.train import seeded


class HeldParts(JEPAModel):
    """What a :class:`ConditionModel` holds, and how it is made and grown.

    Attributes
    ----------
    actions_
        Names of the items in any label, sorted: the columns of the network's actions.
    anchors_
        The closed forms that predictions start from; ``anchor_`` is the one that predicts, ``base_anchor_`` the one that the
        network corrects, often the same.
    axes_std_
        Standard deviations of the training cells along the coordinates' axes.
    cell_names_
        Hash of the ``obs_names`` that it was trained on; None for models saved before it was recorded.
    dose_ref_, time_ref_
        Median positive training dose and time (1 without).
    gate_
        How much the network's correction counts; ``gates_``: class of question -> share, ``gate_gains_``: class -> share of
        the anchor's squared error of left-out conditions that the network removed.
    intervals_
        Judges answers by conditions left out.
    joint_
        Whether encoder and predictor were trained together.
    known_
        What was trained on; ``trained_on_``: conditions (perturbation, context, number of cells), ``trained_actions_``: items
        that the network knows, ``usual_kind_``: most frequent kind of each action, under ``()`` of all.
    max_expression_
        ``(genes,)`` float32: the largest log-normalised value of each gene in the training cells, which predictions do
        not exceed (:func:`scjepa.data.largest_values`). None for models saved before it was recorded: no bound.
    residual_
        Whether a network was trained.
    """

    _parts: ClassVar[Mapping[str, type[Part]]] = {
        "anchors_": Anchors,
        "gate_": Gate,
        "intervals_": Intervals,
        "known_": Known,
    }
    _words: ClassVar[Words]
    """How the model speaks, and which argument of ``setup_anndata`` names the labels."""
    anchor_, base_anchor_ = Through("anchors_", "full"), Through("anchors_", "base")
    gates_, gate_gains_ = Through("gate_", "shares"), Through("gate_", "gains")
    trained_on_, trained_actions_ = Through("known_", "conditions"), Through("known_", "items")
    usual_kind_ = Through("known_", "usual_kind")

    actions_: tuple[str, ...]
    anchors_: Anchors
    axes_std_: FloatArray
    cell_names_: str | None = None
    dose_ref_: float = 1.0
    gate_: Gate
    intervals_: Intervals
    joint_: bool = False
    known_: Known
    max_expression_: FloatArray | None = None
    residual_: bool
    time_ref_: float = 1.0

    # ---------------------------------------------------------------- parts
    def _make(
        self,
        *,
        anchor: str | Baseline | None = "kernel",
        residual: bool | str = "auto",
        gate: float | str = "auto",
        gene_sets: Mapping[str, Sequence[str]] | None = None,
        n_latent: int = 32,
        n_modules: int = 32,
        n_pcs: int = 50,
        predictor_input: str = "z",
        n_ensemble: int = 2,
        **arguments: Any,
    ) -> None:
        """Check the arguments of a model, and make its parts and its module; the last line of ``__init__``."""
        if predictor_input not in ("z", "h", "both"):
            raise ValueError(f"predictor_input={predictor_input!r}: expected 'z', 'h' or 'both'.")
        if not (isinstance(residual, bool) or residual == "auto"):
            raise ValueError(f"residual={residual!r}: expected True, False or 'auto'.")
        check_gate(gate)
        n_genes, n_cells = self.summary_stats["n_vars"], self.summary_stats["n_cells"]
        self.module_arguments_ = {
            **MODULE,
            **arguments,
            "n_latent": min(require_positive_int(n_latent, "n_latent"), n_genes),
            "n_pcs": min(require_positive_int(n_pcs, "n_pcs"), n_genes, n_cells),
            "predictor_input": predictor_input,
            "n_ensemble": require_positive_int(n_ensemble, "n_ensemble"),
            **self._encoder_arguments(gene_sets, min(n_modules, n_genes)),
        }
        self._residual, self._gate = residual, gate
        self.anchors_, self.gate_ = Anchors(anchor), Gate()
        self.intervals_, self.known_ = Intervals(self.anchors_), Known.nothing(self._design.separator)
        self.actions_ = self._items()
        self.embedded_ = True
        self.module = self._build_module()
        self._model_summary_string = (
            f"{type(self).__name__}: {n_genes} genes, {len(self.actions_)} {self._words.done} {self._words.items}, anchor "
            f"{getattr(anchor, 'name', anchor)}, {self.module_arguments_['n_pcs']} coordinates, "
            f"{self.module_arguments_['n_latent']} latent dimensions"
        )

    def _rebuild_parts(self) -> None:
        super()._rebuild_parts()
        self.intervals_.anchors = self.anchors_

    @property
    def _design(self) -> Design:
        """What was done to cells, as the model was set up."""
        kinds = self._categories(Keys.registry.kind) if self._setup.get("kind_key") is not None else ()
        return Design.from_setup(self._setup, self._words.label, kinds)

    @property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.actions_, self._design.kinds)

    def _items(self) -> tuple[str, ...]:
        """Names of the items in any label, sorted."""
        labels, design = self._categories(Keys.registry.perturbation), self._design
        parsed = parse_labels(labels, design.control, design.separator)
        return tuple(sorted({name for action in parsed.values() for name in action}))

    def _new_action_encoder(self) -> ActionEncoder:
        """Return a fresh encoder of actions; by default learned vectors, told what the columns tell."""
        design = self._design
        return ActionEncoder(
            len(self.actions_),
            n_kinds=len(design.kinds),
            dose_gate=design.dose_key is not None,
            dose_ref=float(self.dose_ref_),
            time=design.time_key is not None,
            time_ref=float(self.time_ref_),
        )

    def _build_module(self) -> JEPAModule:
        with seeded(0):
            return condition_module(
                self._new_encoder(),
                len(self.actions_),
                self._new_action_encoder,
                self.module_arguments_,
                joint=self.joint_,
            )

    # ---------------------------------------------------------------- query data
    def _grow(self, reference: Self) -> None:
        super()._grow(reference)
        self.actions_ = names_in_order(reference.actions_, self._items())
        self.reference_ |= held_of(reference)  # type: ignore[operator]

    def _new_rows(self, rows: dict[str, torch.Tensor], reference: Self) -> dict[str, torch.Tensor]:
        """Add the rows of actions that the reference had labels of, but no training cells."""
        untrained = [name not in reference.known_.items for name in self.actions_]
        for name, parameter in self.module.named_parameters():
            if name.endswith("action_encoder.embedding.weight") and any(untrained):
                rows[name] = torch.tensor(untrained).expand(parameter.shape).clone()
        return rows
