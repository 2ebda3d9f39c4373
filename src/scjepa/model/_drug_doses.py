"""At which dose, with which partner, until when? Questions about doses of a drug against its toxicity, and of two drugs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

from scjepa._checks import require_member
from scjepa._types import FloatArray
from scjepa.model._drug_questions import DrugQuestions, levels, one_drug, one_number, stated
from scjepa.pharma import optimal_dose, signature_score, synergy, treatment_window
from scjepa.pharma._synergy import REFERENCES, Reference

Signature: TypeAlias = "pd.Series | Mapping[str, float]"


class DrugDoses(DrugQuestions):
    """Questions to :class:`DrugJEPA` about doses and times."""

    def synergy(
        self,
        a: str,
        b: str,
        doses_a: Sequence[float],
        doses_b: Sequence[float],
        adata: AnnData | None = None,
        *,
        reference: Reference = "bliss",
        context: str | Sequence[str] | None = None,
        time: float | None = None,
        smiles: Mapping[str, str] | None = None,
        signature: Signature | None = None,
        maximum: float | None = None,
    ) -> pd.DataFrame:
        """Predict the response to two drugs on a grid of doses, and compare it with drugs that do not interact.

        Parameters
        ----------
        a, b
            Two drugs.
        doses_a, doses_b
            Their doses, in the unit of training; 0 is added. Loewe and ZIP need three above 0.
        adata, context, time, smiles
            As in :meth:`DrugJEPA.predict_drug_response`.
        reference
            ``"bliss"``, ``"hsa"``, ``"loewe"`` or ``"zip"``, see :func:`scjepa.pharma.synergy`.
        signature
            Gene -> value: the response is the effect along it. By default along the effect of both drugs at their highest
            doses.
        maximum
            Largest possible response, of Bliss and ZIP; ``numpy.inf`` for none, when responses add up. By default the
            largest response along the signature to one drug: any drug of training, in the context if it was seen there, or
            the two asked for.

        Returns
        -------
        A row a context and pair of doses: ``perturbation``, the context's column, ``dose_a``, ``dose_b``, ``response``, ``expected``,
        ``synergy`` (excess over the reference; above 0 synergy, below 0 antagonism), ``support`` and ``abstain``; for Loewe
        ``combination_index``. ``attrs["scores"]``: mean synergy over pairs of doses above 0 by context, with ``maximum`` and
        the share of these pairs that had better not be asked; ``attrs["drugs"]``, ``attrs["reference"]``.

        Raises
        ------
        ValueError
            When the model was set up without ``dose_key``, for twice the same drug, combinations, and too few doses.

        Notes
        -----
        What two drugs do beyond their sum can't be foretold from what each does alone: combinations never measured are
        predicted as sums, shrunk, and ``abstain`` says so at all doses (their score is no synergy: sums exceed Bliss where
        responses saturate). A synergy is predicted where the pair was measured at other doses or
        in other contexts.
        """
        self._require_trained("synergy")
        require_member(reference, REFERENCES, "reference")
        design = self._design
        self._require_axis("synergy", "dose")
        one_number(time, "time", "Ask for each by itself.")
        for argument, name in (("a", a), ("b", b)):
            one_drug(name, argument)
        a, b = str(a), str(b)
        for name in (a, b):
            if design.separator in name or name == design.control:
                raise ValueError(f"{name!r} is not one drug: synergy compares two, a and b.")
        if a == b:
            raise ValueError(f"a and b are both {a!r}: synergy compares two drugs.")
        grid = [_with_zero(doses_a, "doses_a"), _with_zero(doses_b, "doses_b")]
        least = 3 if reference in ("loewe", "zip") else 1
        for name, doses in zip(("doses_a", "doses_b"), grid, strict=True):
            if len(doses) - 1 < least:
                raise ValueError(
                    f"{name} has {len(doses) - 1} doses above 0: reference={reference!r} needs at least {least}."
                )
        asked = [{a: x, b: y} for x in grid[0] for y in grid[1] if x or y]
        pair = design.separator.join([a, b])
        found = self._respond(pair, adata, context=context, dose=asked, time=time, smiles=smiles)
        where = np.array([q.context for q in found.questions], dtype=object)
        places = list(dict.fromkeys(where))
        key, parts, scores = design.context_key or "context", [], []
        for place in places:
            mine = np.flatnonzero(where == place)  # one for each pair of doses but (0, 0), in their order
            along = found.effects[mine[-1]] if signature is None else self._signature(signature)
            response = np.zeros((len(grid[0]), len(grid[1])))
            if np.abs(along).max() > 0:
                response.flat[1:] = signature_score(found.effects[mine], along)
            alone = max(response[0].max(), response[:, 0].max(), self._largest_response(place, along))
            most = maximum if maximum is not None else (alone if alone > 0 else np.inf)
            result = synergy(grid[0], grid[1], response, reference, maximum=most)
            doubt = np.array([False, *found.doubts[mine]]).reshape(response.shape)
            if not self._given_together(a, b):  # no other pair tells what this one does beyond its sum
                doubt[1:, 1:] = True
            words = np.array(["trained" if found.trust else "none", *found.words[mine]], dtype=object)
            part = pd.DataFrame({"dose_a": np.repeat(grid[0], len(grid[1])), "dose_b": np.tile(grid[1], len(grid[0]))})
            part.insert(0, "perturbation", pair)
            part.insert(1, key, place)
            part["response"], part["expected"] = response.ravel(), result.expected.ravel()
            part["synergy"], part["support"], part["abstain"] = result.excess.ravel(), words, doubt.ravel()
            if result.combination_index is not None:
                part["combination_index"] = result.combination_index.ravel()
            parts.append(part)
            scores.append({
                key: place, "synergy": float(result.score), "maximum": float(most),
                "abstain": float(doubt[1:, 1:].mean()),
            })  # fmt: skip
        out = pd.concat(parts, ignore_index=True)
        out.attrs |= {"scores": pd.DataFrame(scores), "drugs": (a, b), "reference": reference}
        return out

    def _given_together(self, a: str, b: str) -> bool:
        """Return whether two drugs were measured together, at any doses in any context."""
        table = self.anchors_.table if self.anchors_ else None
        return table is not None and any({a, b} == set(action) for action in table.actions)

    def _largest_response(self, place: str, along: FloatArray) -> float:
        """Return the largest response along a signature to one drug that was measured in a context, or else anywhere."""
        table = self.anchors_.table if self.anchors_ else None
        if table is None or not np.abs(along).max() > 0:
            return 0.0
        use = (table.order == 1) & ~table.untreated
        here = use & (table.contexts.astype(str) == place)
        use = here if here.any() else use
        return float(signature_score(table.rows(use).effects, along).max()) if use.any() else 0.0

    def optimal_dose(
        self,
        drug: str,
        doses: Sequence[float],
        toxicity: Signature,
        adata: AnnData | None = None,
        *,
        signature: Signature | None = None,
        max_toxicity: float = np.inf,
        weight: float = 1.0,
        context: str | Sequence[str] | None = None,
        time: float | None = None,
        smiles: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Find the dose with the largest predicted benefit minus weighted toxicity, of those that are tolerated.

        Parameters
        ----------
        drug, adata, context, time, smiles
            As in :meth:`DrugJEPA.dose_response`.
        doses
            At least two, in the unit of training; 0, no treatment, may be among them.
        toxicity
            Gene -> value: toxicity is the effect along it.
        signature
            Gene -> value: benefit is the effect along it. By default along the largest effect of the drug in the context.
        max_toxicity, weight
            Largest toxicity tolerated, and what a unit of it costs, see :func:`scjepa.pharma.optimal_dose`.

        Returns
        -------
        A row a context: ``perturbation``, the context's column, ``dose`` (NaN where none is tolerated), ``benefit``,
        ``toxicity``, ``support`` and ``abstain``, the share of doses where the model had better not be asked. ``attrs["curve"]``: the
        predictions, tidy.

        Raises
        ------
        ValueError
            When the model was set up without ``dose_key``, for fewer than two doses, and signatures without known genes.
        """
        self._require_trained("optimal_dose")
        curve = self._balance("optimal_dose", "dose", drug, doses, toxicity, adata, signature,
                              context=context, time=time, smiles=smiles)  # fmt: skip
        rows, key, axis = [], self._design.context_key or "context", str(self._design.dose_key)
        for where, part in curve.groupby(key, sort=False, observed=True):
            best = optimal_dose(
                part[axis], part["response"], part["toxicity"], max_toxicity=max_toxicity, weight=weight
            )
            rows.append({"perturbation": drug, key: where, **best._asdict(), **stated(part)})
        out = pd.DataFrame(rows)
        out.attrs["curve"] = curve
        return out

    def treatment_window(
        self,
        drug: str,
        toxicity: Signature,
        adata: AnnData | None = None,
        *,
        min_benefit: float,
        max_toxicity: float,
        doses: Sequence[float] | None = None,
        times: Sequence[float] | None = None,
        signature: Signature | None = None,
        context: str | Sequence[str] | None = None,
        dose: float | None = None,
        time: float | None = None,
        smiles: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Find the doses, or the exposure times, at which the predicted benefit is large and the toxicity small enough.

        Parameters
        ----------
        drug, adata, context, smiles
            As in :meth:`DrugJEPA.predict_drug_response`.
        toxicity, signature
            As in :meth:`optimal_dose`.
        min_benefit, max_toxicity
            Thresholds, on the scale of effects along signatures (:func:`scjepa.pharma.signature_score`).
        doses, times
            Where to look, at least two of either.
        dose, time
            What the other one is held at, by default the median of training.

        Returns
        -------
        A row a window: ``perturbation``, the context's column, ``lower``, ``upper``, ``support`` and ``abstain``, the share of asked
        doses or times where the model had better not be asked. Contexts without a window have no row. ``attrs["curve"]``: the
        predictions, tidy.

        Raises
        ------
        ValueError
            For both doses and times or none, fewer than two of them, and a model that was set up without them.
        """
        self._require_trained("treatment_window")
        if (doses is None) == (times is None):
            raise ValueError(
                "treatment_window looks along doses or along times: give one of doses=[...] and times=[...]."
            )
        axis = "dose" if doses is not None else "time"
        if (dose if axis == "dose" else time) is not None:
            raise ValueError(
                f"treatment_window looks along {axis}s: leave {axis} out, which says where the other one is held."
            )
        fixed: dict[str, Any] = {"time": time} if axis == "dose" else {"dose": dose}
        at = doses if doses is not None else times
        assert at is not None
        curve = self._balance("treatment_window", axis, drug, at, toxicity, adata, signature,
                              context=context, smiles=smiles, **fixed)  # fmt: skip
        key, column = self._design.context_key or "context", str(getattr(self._design, f"{axis}_key"))
        scale: Any = "log" if axis == "dose" else "linear"
        rows = []
        for where, part in curve.groupby(key, sort=False, observed=True):
            limits: dict[str, Any] = {"min_benefit": min_benefit, "max_toxicity": max_toxicity, "scale": scale}
            for low, high in treatment_window(part[column], part["response"], part["toxicity"], **limits)[
                ["lower", "upper"]
            ].to_numpy():
                rows.append((drug, where, low, high, *stated(part).values()))
        out = pd.DataFrame(rows, columns=["perturbation", key, "lower", "upper", "support", "abstain"])
        out.attrs["curve"] = curve
        return out

    def _balance(
        self,
        method: str,
        axis: str,
        drug: str,
        at: Sequence[float],
        toxicity: Signature,
        adata: AnnData | None,
        signature: Signature | None,
        **fixed: Any,
    ) -> pd.DataFrame:
        """Return response and toxicity over doses or times, tidy."""
        self._require_axis(method, axis)
        one_drug(drug)
        for name in ("dose", "time"):
            one_number(fixed.get(name), name, "Ask for each by itself.")
        found_at = levels(at, f"{axis}s")
        if len(found_at) < 2:
            raise ValueError(f"{axis}s={found_at}: expected at least two different ones.")
        asked: dict[str, Any] = {axis: found_at, **fixed}
        found = self._respond(drug, adata, **asked)
        harm = signature_score(found.effects, self._signature(toxicity, "toxicity"))
        return self._course(found, axis, signature, toxicity=harm)

    def _require_axis(self, method: str, axis: str) -> None:
        if getattr(self._design, f"{axis}_key") is None:
            raise ValueError(f"{method} needs {axis}s, and the model was set up without {axis}_key.")


def _with_zero(doses: Sequence[float], name: str) -> list[float]:
    """Return doses ascending, with 0 among them; raise for those that are no numbers of at least 0."""
    return sorted({0.0, *levels(doses, name)})
