"""Predictions for millions of molecules in one place: what does not depend on the molecule is computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from scjepa._checks import some
from scjepa._types import FloatArray
from scjepa.baselines.drugs._compare import Compared
from scjepa.baselines.drugs._experts import Experts
from scjepa.baselines.drugs._rows import Rows
from scjepa.baselines.drugs._structure import ALL, Structure

PROBES = 512
"""Questions asked at a time while a screener is made."""
TURNED = 2000
"""With more parts and axes than this, axes stay as they are: turning them takes longer than it saves."""
SAME = 1e-9
"""How far, of the largest prediction, a probe may miss what the screener says of it."""


@dataclass(frozen=True)
class Alike(Structure):
    """Structures, and molecules whose similarities to the drugs of training are given as numbers.

    Attributes
    ----------
    given
        Name of a similarity -> ``(molecules, drugs)``; none is zero.
    n
        How many molecules there are: the last ones of any list of drugs that is not the list of training.
    """

    given: Mapping[str, FloatArray]
    n: int

    def between(self, name: str, a: Sequence[str], b: Sequence[str]) -> FloatArray:
        """Return a similarity ``(a, b)``; that of drugs of training in front of molecules is not asked for, and is zero."""
        if tuple(a) == tuple(b):
            return super().between(name, a, b)
        out = np.zeros((len(a), len(b)))
        if name in self.given:
            out[len(a) - self.n :] = self.given[name]
        return out


class Term(NamedTuple):
    """One part of a prediction: a power of a similarity to drugs, times weights."""

    kernel: str
    power: int
    drugs: np.ndarray
    """``(drugs,)`` those that have a weight."""


@dataclass(frozen=True)
class Screener:
    r"""What a fitted drug anchor predicts of molecules never given, in one context at one dose and time.

    Everything that is said of such a molecule, by the process and by simple rules, is a sum over the drugs of training of
    :math:`a_d + b_d\, s_d + c_d\, s_d^2` with its similarities :math:`s_d`. The weights are asked of the predictions
    themselves (molecules that are like one drug only), and tried on a molecule that is like all. So a block of a library
    costs two products: fingerprints with those of training, similarities with weights.

    Attributes
    ----------
    cls
        Class of the questions, see :class:`scjepa.baselines.DrugEffect`.
    names
        Drugs of training.
    constant
        ``(genes,)`` what is predicted of a molecule that is like no drug.
    terms, weights
        What similarities are weighed, and their weights ``(terms x drugs, k)``.
    axes
        ``(genes, k)`` orthonormal; a prediction is ``constant + axes @ coordinates``.
    compared
        Name of a description -> its drugs.
    places
        Name of a description -> the number of each of its drugs in ``names``.
    n_parts
        How many descriptions training has.
    """

    cls: str
    names: tuple[str, ...]
    constant: FloatArray
    terms: tuple[Term, ...]
    weights: FloatArray
    axes: FloatArray
    compared: dict[str, Compared]
    places: dict[str, np.ndarray]
    n_parts: int = 1

    @property
    def tells_apart(self) -> bool:
        """Whether molecules differ at all: False where structure is not believed and all get the same prediction."""
        return bool(self.terms)

    def similarities(self, molecules: Mapping[str, Any]) -> dict[str, FloatArray]:
        """Return similarities ``(m, drugs)`` by name.

        Parameters
        ----------
        molecules
            Name of a description -> ``(m, features)``, dense or sparse; what is not described is like nothing.

        Raises
        ------
        ValueError
            For unknown descriptions, another number of features, missing values, or negative ones among counts.
        """
        check(molecules, self.compared)
        out: dict[str, FloatArray] = {}
        for name, values in molecules.items():
            alike, at = self.compared[name].to(values), self.places[name]
            if not np.array_equal(at, np.arange(len(self.names))):  # some drugs are not described
                whole = np.zeros((len(alike), len(self.names)))
                whole[:, at] = alike
                alike = whole
            out[name] = alike
        if self.n_parts > 1:
            out[ALL] = np.asarray(sum(out.values()) / self.n_parts)
        return out

    def coordinates(self, similarities: Mapping[str, FloatArray]) -> FloatArray:
        """Return coordinates ``(m, k)`` of predictions along ``axes``, from :meth:`similarities`."""
        m = len(next(iter(similarities.values())))
        if not self.terms:
            return np.zeros((m, self.axes.shape[1]))
        said = [_part(similarities, term, m) for term in self.terms]
        return (np.hstack(said) if len(said) > 1 else said[0]) @ self.weights

    def effects(self, molecules: Mapping[str, Any]) -> FloatArray:
        """Return predicted effects ``(m, genes)``, as :meth:`scjepa.baselines.DrugEffect.effects` does."""
        return np.asarray(self.constant + self.coordinates(self.similarities(molecules)) @ self.axes.T)

    def nearest(self, similarities: Mapping[str, FloatArray]) -> tuple[FloatArray, np.ndarray]:
        """Return the greatest similarity to a drug of training by any description, and the name of that drug, ``(m,)``."""
        most = np.maximum.reduce([values for name, values in similarities.items() if name != ALL])
        at = most.argmax(1)
        return most[np.arange(len(most)), at], np.array(self.names, dtype=object)[at]


def check(molecules: Mapping[str, Any], compared: Mapping[str, Compared]) -> None:
    """Raise unless molecules can be compared with the drugs that are described."""
    lost = sorted(set(molecules) - set(compared))
    if lost or not molecules:
        raise ValueError(
            f"molecules are described by {some(sorted(molecules)) or 'nothing'}, those of training by "
            f"{some(sorted(compared))}: describe them in one of these ways."
        )
    for name, values in molecules.items():
        width = compared[name].known.values.shape[1]
        if values.ndim != 2 or values.shape[1] != width:
            raise ValueError(
                f"{name}: molecules have shape {values.shape}, but {width} features are known of other drugs: expected "
                f"(molecules, {width})."
            )
        data = values.data if hasattr(values, "indptr") else np.asarray(values)
        if data.dtype.kind not in "buif":
            raise ValueError(f"{name}: molecules have values of type {data.dtype}: expected numbers.")
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise ValueError(f"{name}: molecules have values that are missing or infinite. Leave these molecules out.")
        if data.dtype.kind in "if" and compared[name].known.kind == "counts" and data.size and data.min() < 0:
            raise ValueError(f"{name}: negative values, but those of other drugs are counts.")


def screener(
    experts: Experts,
    structure: Structure,
    mixed: Callable[[dict[str, FloatArray]], FloatArray],
    place: Rows,
    cls: str,
    axes: FloatArray,
) -> Screener:
    """Find what predictions are made of.

    Parameters
    ----------
    experts
        Fitted predictions.
    structure
        What is known of the drugs of training.
    mixed
        What weighs the experts' predictions for questions of the class.
    place
        One question without any drug, whose context, dose and time are those of the screen; its drugs are those of training.
    cls
        Class of the questions.
    axes
        ``(genes, r)`` axes of the experts' predictions.
    """
    names = place.drugs
    able = [name for name, part in structure.parts.items() if part.kind != "similarity"]
    kernels = tuple(name for name in structure.kernels if name in able or name == ALL)
    described = [structure.names if k == ALL else set(structure.parts[k].names) for k in kernels]
    probes = [
        (k, j, v)
        for k, who in zip(kernels, described, strict=True)
        for j, n in enumerate(names)
        if n in who
        for v in (1.0, 0.5)
    ]

    def ask(given: Mapping[str, FloatArray], m: int) -> FloatArray:
        """Return what is said of molecules of given similarities, in coordinates."""
        like = Alike(structure.parts, given, m)
        told = replace(
            experts,
            plain=replace(experts.plain, structure=like),
            process=replace(experts.process, frame=replace(experts.process.frame, structure=like)),
        )
        new = tuple(f"\0{i}" for i in range(m))
        design = np.hstack([np.zeros((m, len(names))), np.eye(m)])
        rows = replace(place.take(np.zeros(m, int)), drugs=names + new, design=design)
        return mixed(told.predict(rows))

    constant = ask({}, 1)[0]
    said = np.zeros((len(probes), len(constant)))
    for start in range(0, len(probes), PROBES):
        part = probes[start : start + PROBES]
        given = {k: np.zeros((len(part), len(names))) for k in kernels}
        for i, (k, j, v) in enumerate(part):
            given[k][i, j] = v
        said[start : start + PROBES] = ask(given, len(part)) - constant
    one, half = said[0::2], said[1::2]
    by_power = {1: 4 * half - one, 2: 2 * one - 4 * half}
    scale = max(float(np.abs(constant).max(initial=0)), float(np.abs(said).max(initial=0)), 1e-300)
    terms, weights = [], []
    kernel_of, drug_of = ([p[i] for p in probes[0::2]] for i in (0, 1))
    for k in kernels:
        mine = np.array([name == k for name in kernel_of], dtype=bool)
        drugs = np.array(drug_of, dtype=int)[mine]
        for power, w in by_power.items():
            if np.abs(w[mine]).max(initial=0) > 1e-13 * scale:
                terms.append(Term(k, power, drugs))
                weights.append(w[mine])
    together = np.vstack(weights) if weights else np.zeros((0, len(constant)))

    rng = np.random.default_rng(0)
    tried = {
        k: rng.random((2, len(names))) * np.array([n in who for n in names])
        for k, who in zip(kernels, described, strict=True)
    }
    if terms:
        told = np.hstack([_part(tried, t, 2) for t in terms]) @ together + constant
        missed = float(np.abs(ask(tried, 2) - told).max())
        size = max(float(np.abs(told).max()), scale)
        if missed > SAME * size:
            raise RuntimeError(
                f"what is predicted of molecules never given is no sum over drugs of a + b s + c s^2 (missed by {missed / size:.1g} of "
                "the largest value): a prediction was added that a screener can't follow."
            )
    base = axes @ constant
    if len(together) and min(together.shape) <= TURNED:
        # no more coordinates than there are parts, and those that matter come first
        left, spread, turn = np.linalg.svd(together, full_matrices=False)
        together, axes = left * spread, axes @ turn.T
    elif not len(together):
        together, axes = together[:, :0], axes[:, :0]
    return Screener(cls, names, base, tuple(terms), together, axes, *_described(structure, names))


def nothing_to_screen(structure: Structure, names: tuple[str, ...], n_genes: int) -> Screener:
    """Return what is predicted at dose zero or for no time: nothing, of whatever molecule."""
    none: FloatArray = np.zeros((n_genes, 0))
    return Screener("single", names, np.zeros(n_genes), (), np.zeros((0, 0)), none, *_described(structure, names))


def _described(structure: Structure, names: tuple[str, ...]) -> tuple[dict[str, Compared], dict[str, np.ndarray], int]:
    """Return descriptions of drugs of training that others can be compared with, whose they are, and how many there are."""
    at = {name: i for i, name in enumerate(names)}
    compared, places = {}, {}
    for key, part in structure.parts.items():
        if part.kind == "similarity":
            continue
        kept = [i for i, drug in enumerate(part.names) if drug in at]
        drugs = tuple(part.names[i] for i in kept)
        compared[key] = Compared.of(replace(part, names=drugs, values=part.values[kept]))
        places[key] = np.array([at[drug] for drug in drugs], dtype=int)
    return compared, places, len(structure.parts)


def _part(similarities: Mapping[str, FloatArray], term: Term, m: int) -> FloatArray:
    """Return what a term's weights are multiplied with, ``(m, drugs)``."""
    if term.kernel not in similarities:
        return np.zeros((m, len(term.drugs)))
    values = similarities[term.kernel]
    values = values if len(term.drugs) == values.shape[1] else values[:, term.drugs]
    return values * values if term.power == 2 else values
