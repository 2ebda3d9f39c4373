"""Screens of libraries of any size: blocks of drugs in, the best k out, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from tqdm.auto import tqdm  # comes with scanpy, lightning and scvi-tools

from scjepa._checks import require_positive_int, some
from scjepa._types import FloatArray, Matrix
from scjepa.pharma._molecules import Fingerprint, canonical, fingerprint_rows

logger = logging.getLogger(__name__)

Library: TypeAlias = (
    "Mapping[str, str] | pd.Series | pd.DataFrame | np.ndarray | sp.sparray | sp.spmatrix | Iterable[Any]"
)

BLOCK = 4096
DELAY = 2.0
"""Seconds before a progress bar is shown."""
NAMED = 5
"""Molecules that can't be read and are named in the log; of the rest only the number is kept."""


class Block(NamedTuple):
    """Some drugs of a library."""

    names: list[str]
    values: Matrix
    """``(drugs, features)``."""


class TopK:
    """The best drugs of a stream of scores; holds k of them, however many come.

    Parameters
    ----------
    k
        How many to keep; None for all.
    largest
        Whether high scores are good.

    Examples
    --------
    >>> from scjepa.pharma import TopK
    >>> best = TopK(2)
    >>> best.update(["a", "b"], [1.0, 3.0])
    >>> best.update(["c", "d"], [3.0, 2.0])
    >>> best.table()
       rank name  score
    0     1    b    3.0
    1     2    c    3.0
    """

    def __init__(self, k: int | None = None, *, largest: bool = True) -> None:
        self.k = None if k is None else require_positive_int(k, "k")
        self.sign = 1.0 if largest else -1.0
        self.seen, self.undefined = 0, 0
        self._names: list[list[str]] = []
        self._keys: list[FloatArray] = []
        self._more: list[dict[str, np.ndarray]] = []
        self._held = 0

    def update(
        self, names: Sequence[str], scores: npt.ArrayLike, more: Mapping[str, npt.ArrayLike] | None = None
    ) -> None:
        """Take in the scores of one block; NaN is counted and left out.

        Parameters
        ----------
        names, scores
            Of the block.
        more
            Further columns of the table, one value per drug; the same ones for every block.

        Raises
        ------
        ValueError
            If there is not one score per name, or further columns don't fit.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != (len(names),):
            raise ValueError(f"scores has shape {values.shape}: expected ({len(names)},), one per name of the block.")
        told = {name: np.asarray(column) for name, column in (more or {}).items()}
        wrong = [name for name, column in told.items() if column.shape != values.shape]
        if wrong or (self._more and set(told) != set(self._more[0])):
            raise ValueError(
                f"further columns {some(wrong or sorted(told)) or '(none)'} don't fit: expected one value per name, and the "
                "same columns for every block."
            )
        self.seen += len(values)
        known = np.flatnonzero(~np.isnan(values))
        self.undefined += len(values) - len(known)
        keys = -self.sign * values[known]
        if self.k is not None and len(keys) > self.k:
            # all up to the k-th smallest; more than k only when tied with it, and then the first ones stay
            within = np.flatnonzero(keys <= np.partition(keys, self.k - 1)[self.k - 1])
            within = np.sort(within[np.argsort(keys[within], kind="stable")[: self.k]])
            keys, known = keys[within], known[within]
        self._names.append([str(names[i]) for i in known.tolist()])
        self._keys.append(keys)
        self._more.append({name: column[known] for name, column in told.items()})
        self._held += len(keys)
        if self.k is not None and self._held > 4 * self.k:
            self._shrink()

    def table(self) -> pd.DataFrame:
        """Return the best so far: ``rank`` from 1, ``name``, ``score``; of tied drugs the one that came first is first."""
        self._shrink()
        names, keys, more = (self._names[0], self._keys[0], self._more[0]) if self._keys else ([], np.zeros(0), {})
        ranks = np.arange(1, len(keys) + 1)
        return pd.DataFrame({"rank": ranks, "name": names, "score": -self.sign * keys + 0.0, **more})

    def _shrink(self) -> None:
        if not self._keys:
            return
        keys, names = np.concatenate(self._keys), [n for part in self._names for n in part]
        order = np.argsort(keys, kind="stable")[: self.k]  # parts are in the order in which they came
        self._names, self._keys = [[names[i] for i in order]], [keys[order]]
        self._more = [{name: np.concatenate([part[name] for part in self._more])[order] for name in self._more[0]}]
        self._held = len(order)


def screen(
    blocks: Iterable[Block],
    score: Callable[[Matrix], npt.ArrayLike | Mapping[str, npt.ArrayLike]],
    *,
    top_k: int | None = None,
    largest: bool = True,
    total: int | None = None,
    enable_progress_bar: bool = False,
) -> pd.DataFrame:
    """Score a library block by block and return the best drugs.

    Parameters
    ----------
    blocks
        From :func:`library_blocks`, or any iterable of :class:`Block`.
    score
        What a block's ``(drugs, features)`` values are worth: one number per drug; or a mapping with these under ``"score"``
        and further columns beside. NaN is left out, with a log line.
    top_k
        How many to return; None for all, which holds one number and name per drug.
    largest
        Whether high scores are good.
    total
        How many drugs there are, for the progress bar; None if that is not known.
    enable_progress_bar
        Show how far the screen is, if it takes more than two seconds.

    Returns
    -------
    DataFrame ``rank``, ``name``, ``score`` and further columns, best first; ties in the order of the library.

    Raises
    ------
    ValueError
        If the library is empty, or a block has not one score per drug.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.pharma import library_blocks, screen
    >>> screen(library_blocks(np.eye(3), names=["a", "b", "c"]), lambda x: x @ [1.0, 5.0, 2.0], top_k=2)
       rank name  score
    0     1    b    5.0
    1     2    c    2.0
    """
    best = TopK(top_k, largest=largest)
    with tqdm(total=total, unit=" drugs", unit_scale=True, delay=DELAY, disable=not enable_progress_bar) as bar:
        for block in blocks:
            found = score(block.values)
            told = dict(found) if isinstance(found, Mapping) else {"score": found}
            best.update(block.names, told.pop("score"), told)
            bar.update(len(block.names))
    if not best.seen:
        raise ValueError("no drug of the library could be read: it is empty, or its SMILES are wrong (see the log).")
    if best.undefined:
        logger.info("%d of %d drugs have no score (NaN) and are left out.", best.undefined, best.seen)
    return best.table()


def library_blocks(
    library: Library,
    *,
    names: Sequence[str] | None = None,
    block_size: int = BLOCK,
    kind: str = "morgan",
    radius: int = 2,
    size: int = 2048,
    counts: bool = False,
    chirality: bool = False,
) -> Iterator[Block]:
    """Read a library of drugs in blocks, whatever its form.

    Parameters
    ----------
    library
        - SMILES: a list or iterator of strings, whose names they are, or of ``(name, SMILES)``; a mapping or Series by
          name; a DataFrame with a column ``smiles``, named by its index;
        - features: a numeric DataFrame, named by its index; a (memory-mapped) array or sparse matrix;
        - an iterator of ``(names, array)`` or arrays, each a block of features, passed on as they are.
    names
        Of the rows of an array or sparse matrix; None for their numbers.
    block_size
        Drugs in a block.
    kind, radius, size, counts, chirality
        The fingerprint of SMILES, as in :func:`fingerprints`.

    Yields
    ------
    Blocks of names and values. Structures that can't be read are left out, and counted in one log line at the end.

    Raises
    ------
    ValueError
        If the library has no such form, names don't fit, or an option is out of range.

    Examples
    --------
    >>> from scjepa.pharma import library_blocks
    >>> [(b.names, b.values.shape) for b in library_blocks(["CCO", "CCN", "nonsense"], block_size=2, size=64)]
    [(['CCO', 'CCN'], (2, 64))]
    """
    step = require_positive_int(block_size, "block_size")
    spec = Fingerprint(kind, radius, size, counts, chirality).checked()
    given_rows: Any = library if isinstance(library, np.ndarray) or sp.issparse(library) else None
    rows = None if given_rows is None else int(given_rows.shape[0])
    if names is not None and len(names) != rows:
        given = f"a {type(library).__name__}" if rows is None else f"{rows} rows"
        raise ValueError(
            f"names has {len(names)} entries and library {given}: names belong to the rows of an array, one each."
        )
    if isinstance(library, str):
        raise ValueError(
            f"library is the string {library!r}: expected a list, [{library!r}], or another form of library."
        )
    if isinstance(library, pd.DataFrame) and "smiles" in library:
        library = library["smiles"]
    if isinstance(library, pd.DataFrame):
        wrong = [c for c in library.columns if not pd.api.types.is_numeric_dtype(library[c])]
        if wrong:
            raise ValueError(
                f"library has columns that are no numbers: {some(wrong)}. Expected features only, or structures in a "
                "column named 'smiles'."
            )
        table = library
        return (
            Block([str(n) for n in table.index[i : i + step]], table.iloc[i : i + step].to_numpy())
            for i in range(0, len(table), step)
        )
    if isinstance(library, np.ndarray) and library.dtype.kind in "OUS" and library.ndim == 1:  # an array of SMILES
        return _structures(zip(library if names is None else names, library.tolist(), strict=True), spec, step)
    if rows is not None:
        return _rows(library, names, step)
    if isinstance(library, (Mapping, pd.Series)):
        return _structures(iter(library.items()), spec, step)
    return _items(library, spec, step)


def _rows(library: Any, names: Sequence[str] | None, step: int) -> Iterator[Block]:
    x = sp.csr_matrix(library) if sp.issparse(library) else library
    if x.ndim != 2:
        raise ValueError(f"library has shape {x.shape}: expected drugs x features.")
    label = (
        (lambda i, j: [str(n) for n in names[i:j]]) if names is not None else (lambda i, j: list(map(str, range(i, j))))
    )
    return (Block(label(i, min(i + step, x.shape[0])), x[i : i + step]) for i in range(0, x.shape[0], step))


def _items(library: Iterable[Any], spec: Fingerprint, step: int) -> Iterator[Block]:
    """Tell what an iterable yields by its first item."""
    try:
        items = iter(library)
    except TypeError as error:
        raise ValueError(
            f"library is a {type(library).__name__}: expected SMILES, a table of features, an array or an iterator of blocks."
        ) from error
    first = list(islice(items, 1))
    if not first:
        return iter(())
    rest = (x for part in (first, items) for x in part)
    kind = first[0]
    if isinstance(kind, str) or kind is None:
        return _structures(((s, s) for s in rest), spec, step)
    if isinstance(kind, tuple) and len(kind) == 2 and isinstance(kind[1], (str, type(None))):
        return _structures(rest, spec, step)
    return _given(rest)


def _structures(pairs: Iterator[tuple[Any, Any]], spec: Fingerprint, step: int) -> Iterator[Block]:
    seen, lost = 0, 0
    named: list[str] = []
    while chunk := list(islice(pairs, step)):
        clean = [canonical(s) if isinstance(s, str) else None for _, s in chunk]
        for (name, smiles), found in zip(chunk, clean, strict=True):
            if found is None:
                lost += 1
                if len(named) < NAMED:
                    named.append(str(name) if name == smiles else f"{name} ({smiles})")
        seen += len(chunk)
        kept = [(str(name), found) for (name, _), found in zip(chunk, clean, strict=True) if found is not None]
        if kept:
            yield Block([n for n, _ in kept], fingerprint_rows((s for _, s in kept), spec))
    if lost:
        logger.info("%d of %d SMILES can't be read and are left out, for example %s.", lost, seen, some(named))


def _given(blocks: Iterator[Any]) -> Iterator[Block]:
    start = 0
    for item in blocks:
        names, values = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
        values = sp.csr_matrix(values) if sp.issparse(values) else np.asarray(values)
        if values.ndim != 2 or values.dtype.kind not in "buif":
            raise ValueError(
                f"an item of library has shape {values.shape} and type {values.dtype}: expected a SMILES, (name, SMILES), "
                "an array drugs x features, or (names, array)."
            )
        labels = [str(start + i) for i in range(values.shape[0])] if names is None else [str(n) for n in names]
        if len(labels) != values.shape[0]:
            raise ValueError(
                f"a block of library has {len(labels)} names and {values.shape[0]} rows: expected one name each."
            )
        start += values.shape[0]
        yield Block(labels, values)
