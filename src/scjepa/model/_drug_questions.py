"""What chemists and clinicians ask a model of drugs next: which molecule, at which dose, for how long, in which patient?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_column, require_positive_int
from scjepa._types import FloatArray
from scjepa.data import control_cells
from scjepa.model._drug_measured import is_noise, measured_course, measured_responses
from scjepa.model._drug_parts import Responses, least_sure
from scjepa.model._drug_patients import stratified
from scjepa.model._drug_screens import DrugScreens
from scjepa.model._drug_structures import check_patients
from scjepa.model._drug_widths import response_widths
from scjepa.model.conditions._effects import check_free
from scjepa.model.conditions._prediction import Sources
from scjepa.pharma import (
    effect_size,
    fit_hill,
    resistance_onset,
    signature_score,
)

COLUMNS = ("perturbation", "response", "lower", "upper", "support", "abstain", "toxicity", "expected", "synergy")
"""Of the tables of this model and its curves: no column of the user's may be called so."""


class DrugQuestions(DrugScreens):
    """Questions to :class:`DrugJEPA` that are answered by mean effects."""

    def _respond(
        self,
        drugs: str | Sequence[str],
        adata: AnnData | None,
        *,
        indices: Any = None,
        context: str | Sequence[str] | None = None,
        dose: Any = None,
        time: Any = None,
        smiles: Mapping[str, str] | None = None,
    ) -> Responses:
        """Return the mean effects of drugs on the controls of each context, and what is known of them."""
        adata, design = self._own_or_given(adata), self._design
        check_free(design, COLUMNS)
        places = control_cells(adata, design.keys, indices=indices, context=context)
        with self._knowing(smiles):
            questions = self._ask(drugs, places, dose, None, time)
            effects, control, _, network = self._mean_effects(questions, Sources.read(adata, self._reader, places))
            table = design.table(questions, control, tuple(self.var_names))
            return Responses(questions, effects, control, self._judge(table, effects, network, intervals=False))

    def dose_response(
        self,
        drug: str,
        doses: Sequence[float],
        adata: AnnData | None = None,
        *,
        context: str | Sequence[str] | None = None,
        time: float | None = None,
        smiles: Mapping[str, str] | None = None,
        signature: pd.Series | Mapping[str, float] | None = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the response to a drug at several doses, and fit a Hill curve to it.

        Parameters
        ----------
        drug
            A drug or a combination.
        doses
            At least four, in the unit of training.
        adata, context, time, smiles
            As in :meth:`DrugJEPA.predict_drug_response`.
        signature
            Gene -> value: the response is the effect along it. By default along the effect of the highest dose.
        level
            Of the intervals. Those of the fit tell how well a Hill curve describes the predictions, not how good these are;
            those of the curve tell that.

        Returns
        -------
        A row a context: ``perturbation``, the context's column, ``ec50``, ``slope``, ``top`` (Emax), ``auc``, with
        ``_lower`` and ``_upper``, ``r2``, ``flat`` (no response to dose, or what was measured there is all noise),
        ``extrapolated`` (EC50 outside ``doses``), ``support`` (the least sure word of any dose) and ``abstain``: the share of
        doses where the model had better not be asked. ``attrs["curve"]``: the predictions, tidy, with the dose's column,
        ``response``, ``lower`` and ``upper`` (what would be measured, by errors of left-out conditions along their effects; NaN
        where none could be left out), ``support`` and ``abstain``.

        Raises
        ------
        ValueError
            When the model was set up without ``dose_key``, for too few doses.
        """
        self._require_trained("dose_response")
        design = self._design
        if design.dose_key is None:
            raise ValueError("dose_response needs doses, and the model was set up without dose_key.")
        one_drug(drug)
        one_number(time, "time", "Ask for each by itself.")
        doses = levels(doses, "doses")
        if len([d for d in doses if d > 0]) < 4:
            raise ValueError(f"doses={doses}: expected at least four different ones above 0, to fit a Hill curve.")
        found = self._respond(drug, adata, context=context, dose=doses, time=time, smiles=smiles)
        curve = self._course(found, "dose", signature, level=level)
        key = design.context_key or "context"
        rows = []
        for where, part in curve.groupby(key, sort=False, observed=True):
            fit = fit_hill(part[design.dose_key], part["response"], bottom=0.0, level=level, alpha=1.0).iloc[0]
            if is_noise(self.anchor_, found.questions[0].action, str(where)):
                fit["flat"] = True
            rows.append({"perturbation": drug, key: where, **fit.to_dict(), **stated(part)})
        out = pd.DataFrame(rows)
        out.attrs["curve"] = curve
        return out

    def resistance_emergence(
        self,
        drug: str,
        times: Sequence[float],
        adata: AnnData | None = None,
        *,
        context: str | Sequence[str] | None = None,
        dose: float | None = None,
        smiles: Mapping[str, str] | None = None,
        signature: pd.Series | Mapping[str, float] | None = None,
        share: float = 0.5,
    ) -> pd.DataFrame:
        """Predict when the response to a drug fades, and in which contexts.

        Parameters
        ----------
        drug, adata, context, dose, smiles
            As in :meth:`DrugJEPA.predict_drug_response`.
        times
            Exposure times, at least three, in the unit of training.
        signature
            Gene -> value: the response is the effect along it. By default along the largest effect over time.
        share
            Of the largest response: below it the response has faded.

        Notes
        -----
        In contexts where the drug was measured at three of these times or more, the curve between them is the best of courses
        that rise and then stay, or fall to a level, and a fall must be more than noise
        (:func:`scjepa.pharma.fading_course`), in a response that is more than noise along its direction in other contexts.

        Returns
        -------
        A row a context: ``perturbation``, the context's column, ``onset`` (NaN where nothing fades), ``lower``, ``upper`` (the
        times around it), ``peak`` (the largest response), ``support`` and ``abstain``. ``attrs["curve"]``: the predictions, tidy,
        as of :meth:`dose_response`, with intervals of level .9.

        Raises
        ------
        ValueError
            When the model was set up without ``time_key``, for too few times.
        """
        self._require_trained("resistance_emergence")
        design = self._design
        if design.time_key is None:
            raise ValueError("resistance_emergence needs exposure times, and the model was set up without time_key.")
        one_drug(drug)
        one_number(dose, "dose", "Ask for each by itself.")
        times = levels(times, "times")
        if len(times) < 3:
            raise ValueError(f"times={times}: expected at least three different ones, to see a response come and go.")
        found = self._respond(drug, adata, context=context, dose=dose, time=times, smiles=smiles)
        curve = self._course(found, "time", signature)
        key, places = design.context_key or "context", np.array([str(q.context) for q in found.questions], dtype=object)
        direction = None if signature is None else self._signature(signature)
        rows = []
        for where, part in curve.groupby(key, sort=False, observed=True):
            mine = np.flatnonzero(places == str(where))
            measured = measured_course(found, self.anchor_, mine, share, direction)
            sizes = np.maximum(part["response"].to_numpy(), 0)
            onset = resistance_onset(times, sizes[None], share=share)
            if measured is not None:  # predictions are smooth, and the maximum of noise is large
                at, course = measured
                inside = (np.array(times) >= at[0]) & (np.array(times) <= at[-1])
                sizes[inside] = np.interp(np.array(times)[inside], at, course.course)
                onset = resistance_onset(at, course.course[None], share=share)
                curve.loc[part.index, "response"] = sizes
            rows.append({
                "perturbation": drug, key: where, "onset": onset.onset, "lower": onset.lower, "upper": onset.upper,
                "peak": float(sizes.max()), **stated(part),
            })  # fmt: skip
        out = pd.DataFrame(rows)
        out.attrs["curve"] = curve
        return out

    def _course(
        self,
        found: Responses,
        axis: str,
        signature: pd.Series | Mapping[str, float] | None,
        *,
        level: float = 0.9,
        **more: FloatArray,
    ) -> pd.DataFrame:
        """Return responses along a signature, or along the largest effect of each context, over doses or times, tidy.

        ``more`` are further columns.
        """
        design, given = self._design, None if signature is None else self._signature(signature)
        where = np.array([q.context for q in found.questions], dtype=object)
        size = effect_size(found.effects)
        response: FloatArray = np.zeros(len(where))
        directions = np.zeros_like(found.effects)
        for c in dict.fromkeys(where):
            rows = np.flatnonzero(where == c)
            along = found.effects[rows[np.argmax(size[rows])]] if given is None else given
            if np.abs(along).max() > 0:
                response[rows] = signature_score(found.effects[rows], along)
                directions[rows] = along
        if axis == "time":  # smooth predictions don't see a response end
            response = measured_responses(found, self.anchor_, directions, response)
        frame = pd.DataFrame({design.context_key or "context": where})
        for name in ("dose", "time"):
            if getattr(design, f"{name}_key") is not None:
                frame[getattr(design, f"{name}_key")] = design.values(found.questions, name)
        table = design.table(found.questions, found.control, tuple(self.var_names))
        none = found.trust is None or not np.abs(directions).max() > 0
        half = np.full(len(where), np.nan) if none else response_widths(self.anchor_, table, given, level)
        frame["response"], frame["lower"], frame["upper"] = response, response - half, response + half
        for name, values in more.items():
            frame[name] = values
        frame["support"], frame["abstain"] = found.words.astype(str), found.doubts
        return frame.sort_values([design.context_key or "context", getattr(design, f"{axis}_key")], ignore_index=True)

    def stratify_patients(
        self,
        drug: str,
        patient_key: str | None = None,
        adata: AnnData | None = None,
        *,
        dose: float | None = None,
        time: float | None = None,
        smiles: Mapping[str, str] | None = None,
        signature: pd.Series | Mapping[str, float] | None = None,
        max_groups: int = 4,
        level: float = 0.9,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Predict the response of each patient to a drug, and group patients that respond alike.

        Parameters
        ----------
        drug, adata, dose, time, smiles
            As in :meth:`DrugJEPA.predict_drug_response`; each patient with vehicle cells is predicted.
        patient_key
            Column of patients, by default the one that the model was set up with.
        signature
            Gene -> value: the response is the effect along it. By default along the mean effect over patients.
        max_groups, seed
            See :func:`scjepa.pharma.responder_groups`.
        level
            Share of measured responses that the intervals should cover, between 0 and 1.

        Returns
        -------
        A row a patient, strongest response first: ``perturbation``, the patient's column, ``response``, ``lower`` and ``upper`` (the interval of
        what would be measured in a patient who was not treated, by errors in contexts left out; NaN where none could be),
        ``size`` (length of the effect),
        ``group`` (0 is the weakest; all 0 where there are no groups), ``stability`` (how often the patient falls into its group
        over resamples), ``support`` and ``abstain``. ``attrs["biomarkers"]``: genes that tell the groups apart in *untreated* cells (empty without
        groups); ``attrs["stability"]``: what was tried.

        Raises
        ------
        ValueError
            For fewer than four patients, or a model without them.
        """
        self._require_trained("stratify_patients")
        key = patient_key or self._setup["patient_key"] or self._design.context_key
        if key is None:
            raise ValueError("stratify_patients needs patients: set the model up with patient_key= (or context_key=).")
        one_drug(drug)
        for name, value in (("dose", dose), ("time", time)):
            one_number(value, name, "Ask for each by itself.")
        require_positive_int(max_groups, "max_groups")
        data, context_key = self._own_or_given(adata), self._design.context_key
        if key != context_key:
            require_column(data.obs, key, "patient_key")
            if context_key is None:
                raise ValueError(
                    f"patient_key={key!r}: the model was set up without patients. Pass patient_key to setup_anndata, and train anew."
                )
            check_patients(data, context_key, key)
        return stratified(
            self._respond(drug, data, dose=dose, time=time, smiles=smiles),
            data,
            self.anchor_,
            key=key,
            context_key=context_key,
            genes=self.var_names,
            signature=None if signature is None else self._signature(signature),
            max_groups=max_groups,
            level=level,
            seed=seed,
        )


def stated(curve: pd.DataFrame) -> dict[str, object]:
    """Return what a row of a table says of the predictions that it was made of: least sure support, share of abstention."""
    return {"support": least_sure(curve["support"]), "abstain": float(curve["abstain"].mean())}


def one_drug(drug: object, name: str = "drug") -> None:
    """Raise unless a drug, or a combination, is named."""
    if isinstance(drug, (bool, float)) or not isinstance(drug, (str, int, np.integer)):
        raise TypeError(
            f"{name}={drug!r}: expected one drug, or a combination 'A+B'. Ask for each of several by itself."
        )


def one_number(value: object, name: str, mend: str) -> None:
    """Raise where several doses or times were given; None is for what is usual."""
    if not isinstance(value, Mapping) and np.size(value) > 1:  # type: ignore[arg-type]
        raise ValueError(f"{name}={value!r}: expected one {name}. {mend}")


def levels(values: object, name: str) -> list[float]:
    """Return doses or times ascending, each once; raise unless they are numbers of at least 0."""
    try:
        found = np.atleast_1d(np.asarray(values, dtype=float)).ravel()
        good = values is not None and bool((np.isfinite(found) & (found >= 0)).all())
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name}={values!r}: expected numbers of at least 0.")
    return sorted(set(found.tolist()))
