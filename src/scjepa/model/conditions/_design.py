"""What was done to cells: the columns that say so, how labels are read, and questions put in the same terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data.fields import BaseAnnDataField, CategoricalObsField, LayerField, NumericalObsField

from scjepa._checks import require_labels, require_member, require_numbers
from scjepa._keys import Keys
from scjepa._labels import Action
from scjepa._types import FloatArray, InputScale
from scjepa.data import (
    CellGroups,
    ConditionTable,
    Dose,
    LabelKeys,
    as_matrix,
    check_keys,
    dose_column,
    group_cells,
    read_dose,
    write_dose,
)
from scjepa.model.core import check_cells


@dataclass(frozen=True)
class Question:
    """One thing to predict: an action in a context, at a dose, after a time, of a kind."""

    label: str
    action: Action
    context: str
    dose: Dose | None = None
    kind: str | None = None
    time: float | None = None


class Words(NamedTuple):
    """How a model speaks of what it acts with.

    Attributes
    ----------
    label
        Argument of ``setup_anndata`` that names the column of labels.
    asked
        Argument of the prediction methods.
    items
        What actions are made of, in the plural.
    item
        One of them.
    done
        What happens to an item.
    features
        What could have told the model about an item never trained on, and did not.
    mend
        What to do then.
    """

    label: str
    asked: str
    items: str
    item: str
    done: str
    features: str
    mend: str


@dataclass(frozen=True)
class Design:
    """Columns of ``obs`` that say what was done to a cell and where, and how labels are written.

    Attributes
    ----------
    label_key, control, separator
        Column of labels, the label of controls, what joins the parts of a combination.
    context_key, dose_key, time_key, kind_key, batch_key
        Further columns, or None.
    kinds
        Kinds that the model knows; empty without ``kind_key``.

    Examples
    --------
    >>> import pandas as pd
    >>> from scjepa.model.conditions._design import Design
    >>> obs = pd.DataFrame({"p": ["control", "A", "B+A"], "d": [0.0, 1.0, 1.0]})
    >>> Design("p", dose_key="d").groups(obs).actions
    (('A',), ('A', 'B'))
    >>> Design("p", dose_key="d").ask(["A"], ["all"], dose=[1, 2])[1].dose
    2.0
    """

    label_key: str
    control: str = "control"
    separator: str = "+"
    context_key: str | None = None
    dose_key: str | None = None
    time_key: str | None = None
    kind_key: str | None = None
    batch_key: str | None = None
    kinds: tuple[str, ...] = ()

    @classmethod
    def from_setup(cls, setup: Mapping[str, Any], label: str, kinds: Sequence[str] = ()) -> Design:
        """Read the arguments that ``setup_anndata`` was called with; ``label`` is that of the column of labels."""
        further = {f"{name}_key": setup.get(f"{name}_key") for name in ("context", "dose", "time", "kind", "batch")}
        separator = setup.get("separator", "+")
        return cls(setup[label], str(setup["control"]), separator, kinds=tuple(kinds), **further)

    @property
    def keys(self) -> LabelKeys:
        """Where labels and contexts stand."""
        return LabelKeys(self.label_key, self.control, self.context_key, self.separator)

    @property
    def columns(self) -> dict[str, str]:
        """Argument -> column, of all columns that there are; the label's under ``"label_key"``."""
        names = ("label_key", "context_key", "dose_key", "time_key", "kind_key", "batch_key")
        return {name: key for name in names if (key := getattr(self, name)) is not None}

    @property
    def covariates(self) -> dict[str, str]:
        """Field of a question -> column, of what further columns tell of a condition; in the order of the columns."""
        given = {name.removesuffix("_key"): key for name, key in self.columns.items()}
        return {name: given[name] for name in ("context", "dose", "time", "kind") if name in given}

    def check_columns(self, obs: pd.DataFrame, label: str = "label_key") -> None:
        """Raise when a column is absent, has missing labels, or numbers that are none or negative."""
        for argument, key in self.columns.items():
            if argument == "dose_key":
                self.doses(obs)
            elif argument == "time_key":
                require_numbers(obs, key, argument, minimum=0.0)
            else:
                require_labels(obs, key, label if argument == "label_key" else argument)

    def doses(self, obs: pd.DataFrame) -> FloatArray | None:
        """Read the column of doses, see :func:`scjepa.data.dose_column`; None without one."""
        if self.dose_key is None:
            return None
        return dose_column(obs, self.dose_key, self.label_key, control=self.control, separator=self.separator)

    def groups(self, obs: pd.DataFrame) -> CellGroups:
        """Group cells into conditions and controls."""
        labels = lambda key: None if key is None else obs[key].astype(str).to_numpy()
        numbers = lambda key: None if key is None else obs[key].to_numpy(dtype=np.float64)
        batches = labels(self.batch_key)
        return group_cells(
            obs[self.label_key].astype(str).to_numpy(),
            control=self.control,
            separator=self.separator,
            contexts=labels(self.context_key),
            dose=self.doses(obs),
            kind=labels(self.kind_key),
            time=numbers(self.time_key),
            batches=None if batches is None else np.unique(batches, return_inverse=True)[1],
        )

    def label(self, action: Action) -> str:
        """Write an action as a label."""
        return self.separator.join(action)

    def written_dose(self, question: Question) -> float | str | None:
        """Return the dose of a question as it stands in a column: a number, or ``"1+0.5"`` in the order of its label."""
        if question.dose is None:
            return None
        how = {"control": self.control, "separator": self.separator}
        return write_dose(question.label, question.action, question.dose, **how)

    def values(self, questions: Sequence[Question], name: str) -> np.ndarray:
        """Return what stands in a column (a field of questions) ``(m,)``: doses are text if any has one for each item."""
        if name != "dose":
            return np.array([getattr(q, name) for q in questions], dtype=float if name == "time" else object)
        found = [self.written_dose(q) for q in questions]
        if any(isinstance(dose, str) for dose in found):
            return np.array([dose if isinstance(dose, str) else f"{dose:.12g}" for dose in found], dtype=object)
        return np.array(found, dtype=float)

    # ---------------------------------------------------------------- questions
    def ask(
        self,
        labels: str | Sequence[str],
        contexts: Sequence[str],
        *,
        dose: Asked = None,
        time: float | Sequence[float] | None = None,
        kind: str | None = None,
        usual_dose: float = 1.0,
        usual_time: float = 1.0,
        usual_kind: Mapping[Action, str] | None = None,
        asked: str = "perturbations",
    ) -> list[Question]:
        """Check what is asked and spell it out, one question per label, dose, time and context.

        Parameters
        ----------
        labels
            One or several.
        contexts
            Where.
        dose, time, kind
            What the user gave, or None for what is usual. A dose is a number, or one for each item: ``"1+0.5"`` in the
            order of the label, or a mapping from item to number.
        usual_dose, usual_time, usual_kind
            What is taken then; kinds by action, ``()`` for the most frequent of all.
        asked
            Name of the argument, for errors.

        Raises
        ------
        ValueError
            For labels that are none or the control, doses and times that are no numbers of at least 0, unknown kinds, and
            anything given that the model was set up without.
        """
        actions = self.keys.parse(labels, asked)
        for name, value in (("dose", dose), ("time", time), ("kind", kind)):
            if getattr(self, f"{name}_key") is None and value is not None:
                raise ValueError(f"{name} was given, but the model was set up without {name}_key.")
        if kind is not None:
            require_member(kind, self.kinds, "kind", where="the kinds the model was set up with")
        doses: list[Any] = [None] if self.dose_key is None else _doses(usual_dose if dose is None else dose)
        times = [None] if self.time_key is None else _numbers(usual_time if time is None else time, "time")
        usual = dict(usual_kind or {})
        chosen = lambda action: None if self.kind_key is None else kind or usual.get(action, usual.get(()))
        given = {
            (label, i): self._given(label, action, d) for label, action in actions.items() for i, d in enumerate(doses)
        }
        return [
            Question(label, given[label, i][0], context, given[label, i][1], chosen(given[label, i][0]), t)
            for label in actions
            for i in range(len(doses))
            for t in times
            for context in contexts
        ]

    def _given(self, label: str, action: Action, dose: Any) -> tuple[Action, Dose | None]:
        """Return what is given, without items at dose 0 beside others, and at which dose."""
        if dose is None:
            return action, None
        return read_dose(dose, label, control=self.control, separator=self.separator)

    def table(self, questions: Sequence[Question], control: FloatArray, genes: Sequence[str] = ()) -> ConditionTable:
        """Write questions, with the control profiles ``(m, genes)`` they start from, as a table."""
        column = lambda name, key, kind: None if key is None else np.array([getattr(q, name) for q in questions], kind)
        return ConditionTable(
            actions=tuple(q.action for q in questions),
            contexts=np.array([q.context for q in questions], dtype=object),
            control=control,
            dose=None if self.dose_key is None else as_matrix([q.dose for q in questions if q.dose is not None]),
            kind=column("kind", self.kind_key, object),
            time=column("time", self.time_key, float),
            genes=tuple(genes),
        )

    def describe(self, question: Question, sources: pd.Index) -> pd.DataFrame:
        """Return ``obs`` of the cells predicted for one question, or (without an action) of its controls."""
        nothing = {"dose": 0.0, "time": 0.0, "kind": self.control}
        obs = pd.DataFrame({self.label_key: [question.label] * len(sources)})
        for name, key in self.covariates.items():
            value = self.written_dose(question) if name == "dose" else getattr(question, name)
            obs[key] = nothing[name] if value is None else value
        obs[Keys.obs.source] = sources.astype(str).to_numpy()
        obs[Keys.obs.kind] = "predicted" if question.action else "control"
        return obs


Asked = float | str | Mapping[str, float] | Sequence[float | str | Mapping[str, float]] | None
"""Doses as they are asked for."""


def _doses(values: Any) -> list[Any]:
    """Return doses as a list, each a number, text or mapping; raise where there is none, or a number that is no dose."""
    found = [values] if isinstance(values, (str, Mapping)) else np.atleast_1d(np.asarray(values, dtype=object)).tolist()
    plain = [value for value in found if not isinstance(value, (str, Mapping))]
    if plain or not found:
        _numbers(plain, "dose")
    return [value if isinstance(value, (str, Mapping)) else float(value) for value in found]


def _numbers(values: Any, name: str) -> list[float]:
    """Return numbers as a list; raise unless they are finite and not negative."""
    found = np.atleast_1d(values).tolist()
    if not found:
        raise ValueError(f"{name} is empty. Name at least one, or leave it out for what is usual.")
    for value in found:
        if isinstance(value, bool) or not (isinstance(value, (int, float)) and np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}={value!r}: expected numbers of at least 0.")
    return [float(value) for value in found]


# -------------------------------------------------------------------------------------------------------------- setup
def check_setup(
    adata: AnnData, design: Design, layer: str | None, input_scale: InputScale, *, label: str, query: bool = False
) -> InputScale:
    """Check an AnnData at the door of ``setup_anndata``; returns the scale of its matrix.

    Parameters
    ----------
    adata, layer, input_scale
        As in ``setup_anndata``.
    design
        Its columns.
    label
        Argument with the column of labels, for errors.
    query
        Whether a trained model is given these data: they may lack controls.

    Raises
    ------
    KeyError, ValueError
        For absent columns, missing labels, an absent control, contexts without controls, wrong numbers, and a matrix
        that is neither counts nor log-normalized.
    """
    given = {name: key for name, key in design.columns.items() if name != "batch_key"}
    check_keys(**{label if name == "label_key" else name: key for name, key in given.items()})
    scale = check_cells(adata, layer, input_scale)
    design.check_columns(adata.obs, label)
    if not query and not len(design.groups(adata.obs)):
        raise ValueError(f"{label}={design.label_key!r}: all cells are controls ({design.control!r}).")
    return scale


def fields(design: Design, layer: str | None) -> list[BaseAnnDataField]:
    """Return what scvi-tools registers of a design."""
    out: list[BaseAnnDataField] = [
        LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False),
        CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, design.batch_key),
        CategoricalObsField(Keys.registry.perturbation, design.label_key),
        CategoricalObsField(Keys.registry.context, design.context_key),
        CategoricalObsField(Keys.registry.kind, design.kind_key),
    ]
    for name, key in ((Keys.registry.dose, design.dose_key), (Keys.registry.time, design.time_key)):
        if key is not None:
            out.append(NumericalObsField(name, key))
    return out
