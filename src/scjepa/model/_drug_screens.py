"""Screens of libraries: molecules by the million, ranked by what they are predicted to do to some cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scjepa._checks import closest, require_member, require_positive_int, some
from scjepa._types import FloatArray
from scjepa.baselines import DrugEffect
from scjepa.data import control_cells
from scjepa.model._drug_parts import DrugParts, Responses
from scjepa.model._drug_scores import Aim, Scorer
from scjepa.model._drug_structures import FEATURES, PRINTS
from scjepa.model.conditions._design import Question
from scjepa.model.conditions._prediction import Sources, highest
from scjepa.pharma import Block, library_blocks, parse_smiles, screen
from scjepa.pharma._connectivity import METHODS


class DrugScreens(DrugParts):
    """The screen of :class:`DrugJEPA`."""

    def _signature(self, signature: pd.Series | Mapping[str, float], name: str = "signature") -> FloatArray:
        """Return a signature in the model's genes; those that it does not name are zero."""
        if not isinstance(signature, (pd.Series, Mapping)):
            raise TypeError(
                f"{name} is {type(signature).__name__}: expected a pandas Series with gene names as its index, or gene -> value."
            )
        given = pd.Series(signature, dtype=float)
        given.index = given.index.astype(str)
        if not given.index.is_unique:
            raise ValueError(
                f"{name} has genes twice: {some(list(given.index[given.index.duplicated()]))}. Keep one of each."
            )
        bad = given.index[~np.isfinite(given)]
        if len(bad):
            raise ValueError(
                f"{name} has {len(bad)} missing or infinite values ({some(list(bad), 3)}). Leave these genes out: {name}.dropna()."
            )
        known = given.index.isin(self.var_names)
        if not known.any():
            raise ValueError(
                f"{name} names none of the model's genes ({some(list(given.index), 3)}).{closest(given.index[0], self.var_names)}"
                " Give a pandas Series with gene names as its index."
            )
        if not given[known].any():
            raise ValueError(
                f"{name} is 0 for all of the model's genes that it names: there is nothing to compare with."
            )
        return given[known].reindex(self.var_names).fillna(0.0).to_numpy()

    def screen_drugs(
        self,
        library: Any,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        context: str | None = None,
        dose: float | None = None,
        time: float | None = None,
        signature: pd.Series | Mapping[str, float] | None = None,
        target: AnnData | None = None,
        score: str | Callable[[FloatArray], FloatArray] = "cosine",
        top_k: int | None = None,
        batch_size: int = 4096,
        enable_progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Rank a library of molecules by what they are predicted to do to some cells.

        The library streams: it is read, predicted and scored in blocks, so that memory does not grow with it. All that does
        not depend on the molecule is computed once; a molecule costs little more than the product of its fingerprint with
        those of training. SMILES cost far more to read than to predict: of a library that is screened again, keep
        ``scjepa.pharma.fingerprints(smiles, counts=True)``.

        Parameters
        ----------
        library
            - SMILES: a list, an iterator, name -> SMILES, a DataFrame with a column ``smiles``;
            - fingerprints as those of the model (Morgan counts by default): a DataFrame named by its index, an array,
              memory-mapped or sparse, an iterator of such blocks or of ``(names, block)``; for models without SMILES the
              features that they were made with;
            - names of drugs that the model was trained on.
        adata, indices
            The cells to be treated: those that are controls, by default of the model's AnnData. Their mean is predicted.
        context
            Which context they are of; may be left out if there is one only.
        dose, time
            By default the median of training.
        signature
            Gene -> value, for example disease minus healthy: drugs are ranked by how well they reverse it.
        target
            Cells to be reached: drugs are ranked by the share of the way from the untreated to the target mean.
        score
            ``"cosine"``, ``"extreme"``, ``"ks"`` or ``"weighted"``: how a signature is compared
            (:func:`scjepa.pharma.reversal`); or a function of effects ``(drugs, genes)``, the higher the better. Without
            signature, target and function drugs are ranked by the size of their effect.
        top_k
            How many to return, by default all. Memory holds no more than some of these.
        batch_size
            Molecules predicted at a time.
        enable_progress_bar
            Show how far the screen is, if it takes more than two seconds.

        Returns
        -------
        ``rank``, ``name``, ``score``, best first (ties in the order of the library), with ``similarity`` and ``nearest_drug``:
        the greatest Tanimoto similarity to a drug given in training (1 for these themselves), and which one; and ``support``, of
        drugs of training as of :meth:`predict_effect`, with ``abstain``; of molecules ``"structure uninformative"`` (similarity
        below .35: the mean response is predicted), ``"near"``, or ``"far"`` where no drugs could be left out to judge.

        Raises
        ------
        ValueError
            For several contexts, doses or times, a signature and a target at once, a model that knows no structures, an
            empty library, fingerprints of another size.

        Warns
        -----
        Where left-out error gives structure no weight, so that all molecules score the same; and where the library has bits
        but the model counts, so that similarities come out too low.

        Notes
        -----
        Effects are those of :meth:`predict_effect` (bounded by what expression is possible). For molecules never measured
        these are the anchor's alone, also where their structure is that of a drug of training: only names are known. Of
        several descriptions (structures and ``drug_features``) a library has one; by the other its molecules are like
        nothing, which draws predictions to the mean. New molecules gain little over the mean drug on real data: a rank is a
        suggestion, and drugs measured elsewhere rank far better. Predictions of a fold must not be pooled into one library
        with those of another: that leaks.
        """
        self._require_trained("screen_drugs")
        require_positive_int(batch_size, "batch_size")
        if signature is not None and target is not None:
            raise ValueError("signature and target were both given: they rank differently. Give one.")
        if not callable(score):
            require_member(score, METHODS, "score")
        adata = self._own_or_given(adata)
        places = control_cells(adata, self._design.keys, indices=indices, context=context)
        if len(places) > 1:
            raise ValueError(
                f"the cells are of {len(places)} contexts ({some(sorted(places))}): name one, context='...'."
            )
        sources = Sources.read(adata, self._reader, places)
        where = next(iter(places))
        wanted = None if signature is None else self._signature(signature)
        aim = Aim(
            sources.profiles([Question("", (), where)])[0],
            wanted,
            None if target is None else np.asarray(self._read(target).values.mean(0), dtype=float).ravel(),
            score,
        )
        show: dict[str, Any] = {"top_k": top_k, "enable_progress_bar": enable_progress_bar}
        show["total"] = _size(library)
        names = self._trained_library(library)
        if names is not None:

            def known(labels: Any) -> dict[str, Any]:
                questions = self._one_place(labels.tolist(), where, dose, time)
                effects, control, _, network = self._mean_effects(questions, sources)
                trust = self._judge(
                    self._design.table(questions, control, tuple(self.var_names)), effects, network, intervals=False
                )
                found = Responses(questions, effects, control, trust)
                sure = {"support": found.words, "abstain": found.doubts}
                return {"score": aim(effects), "similarity": np.ones(len(labels)), "nearest_drug": labels, **sure}

            parts = (names[i : i + batch_size] for i in range(0, len(names), batch_size))
            return screen((Block(part, np.array(part, dtype=object)) for part in parts), known, **show)
        blocks, described = self._library(library, batch_size)
        asked = self._one_place(["a molecule"], where, dose, time)[0]
        anchor = self.anchor_
        assert isinstance(anchor, DrugEffect)
        dose = None if asked.dose is None else float(np.max(asked.dose))  # a number: there is one molecule
        made = anchor.screener(where, dose=dose, time=asked.time)
        if not made.tells_apart:
            warnings.warn(
                "structure gets no weight for molecules never measured: what is predicted of them by left-out error is the "
                "same for all, and so is their score.",
                UserWarning,
                stacklevel=2,
            )
        if self._signatures:  # of any sign and size
            most, least = np.full(len(self.var_names), np.inf), -np.inf
        else:
            most, least = highest(sources.matrices[where], self.max_expression_), 0.0
        judged = anchor.picks_.get(made.cls, {}).get("basis") == "left out"
        return screen(blocks, Scorer(made, aim, most, described, least=least, judged=judged), **show)

    def _trained_library(self, library: Any) -> list[str] | None:
        """Return the library as names of drugs that the model knows, or None if it is something else."""
        if isinstance(library, np.ndarray) and library.dtype.kind in "OUS":
            library = library.ravel().astype(str).tolist()
        elif isinstance(library, Set):
            library = sorted(map(str, library))
        if not isinstance(library, (list, tuple, pd.Index, pd.Series)):
            return None
        names, design = [str(x) for x in library], self._design
        known = self.known_.named
        given = [n in known or all(p.strip() in known for p in n.split(design.separator)) for n in names]
        if not any(given):
            return None
        odd = [name for name, there in zip(names, given, strict=True) if not there]
        if odd and all(_reads(name) for name, there in zip(names, given, strict=True) if there):
            return None  # drugs that are named by their SMILES, and other molecules
        if odd:
            raise ValueError(
                f"{len(odd)} of {len(names)} names of the library are no drugs of training: {some(odd)}."
                f"{closest(odd[0], sorted(known))} Give names of drugs that were trained on, or SMILES, in a screen each."
            )
        return names

    def _one_place(self, names: list[str], where: str, dose: Any, time: Any) -> list[Question]:
        """Return one question a drug; raise for several doses or times."""
        for name, value in (("dose", dose), ("time", time)):
            if np.size(value) > 1:
                raise ValueError(f"{name}={value!r}: a screen is at one {name}. Screen once for each.")
        return self._ask(names, [where], dose, None, time)

    def _library(self, library: Any, batch_size: int) -> tuple[Iterator[Block], str]:
        """Return blocks of molecules never measured, and the name of the description that their features are of."""
        known = self.structures_.tables() if isinstance(self.anchor_, DrugEffect) and not self.joint_ else {}
        described = PRINTS if PRINTS in known else FEATURES
        if described not in known or (described == FEATURES and _smiles(library)):
            none = self._setup["smiles_key"] is not None and PRINTS not in self.structures_.tables()
            raise ValueError(
                "screen_drugs needs structures"
                + (f", and no SMILES could be read in obs[{self._setup['smiles_key']!r}]" if none else "")
                + ": set the model up with smiles_key= and make it with anchor='drug', or give "
                "names of drugs that it was trained on"
                + (", or a table of the features that it was made with." if FEATURES in known else ".")
            )
        table = known[described]
        if isinstance(library, pd.DataFrame) and set(table.columns) <= set(library.columns):
            library = library[list(table.columns)]
        size = table.shape[1] if described == PRINTS else 8
        blocks = library_blocks(library, block_size=batch_size, **{**self.structures_.print_, "size": size})
        counted = described == PRINTS and table.to_numpy().max() > 1 and not _smiles(library)
        return _split(_warned(blocks) if counted else blocks, batch_size), described


def _size(library: Any) -> int | None:
    """Return how many molecules a library has, if it says so."""
    if hasattr(library, "shape"):
        return int(library.shape[0])
    return len(library) if hasattr(library, "__len__") else None


def _smiles(library: Any) -> bool:
    """Return whether a library holds SMILES; iterators are not looked into."""
    if isinstance(library, pd.DataFrame):
        return "smiles" in library
    if isinstance(library, np.ndarray):
        return library.dtype.kind in "OUS"
    if isinstance(library, (Mapping, pd.Series)):
        return True
    return isinstance(library, (list, tuple)) and bool(library) and isinstance(library[0], (str, tuple))


def _reads(smiles: str) -> bool:
    """Return whether a text is a SMILES."""
    try:
        return bool(parse_smiles({smiles: smiles}))
    except ValueError:
        return False


def _split(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Cut blocks that are larger than asked for."""
    for names, values in blocks:
        for i in range(0, len(names), size):
            yield Block(names[i : i + size], values[i : i + size])


def _warned(blocks: Iterable[Block]) -> Iterator[Block]:
    """Pass blocks on; warn if the first one has bits only."""
    first = True
    for block in blocks:
        values: Any = block.values.data if sp.issparse(block.values) else block.values
        if first and values.size and values.max() <= 1:
            warnings.warn(
                "the library has bits, and the model compares counts: similarities come out too low. Give "
                "scjepa.pharma.fingerprints(smiles, counts=True), or SMILES.",
                UserWarning,
                stacklevel=2,
            )
        first = False
        yield block
