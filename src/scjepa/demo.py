"""``python -m scjepa demo``: train on a perturbation screen, predict held-out conditions, show it beside the baselines."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import anndata
import h5py
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp

from scjepa import pl, tl
from scjepa._checks import closest, require_labels, require_member, some
from scjepa._labels import parse_label, parse_labels
from scjepa._scale import check_scale, lognormalise
from scjepa.datasets import simulate_perturbseq
from scjepa.model import PerturbJEPA

TARGET_SUM = 1e4
MAX_COMBINATIONS = 5
MAX_SCATTERS = 6

Condition = tuple[str, str]
"""(perturbation, context); the context is ``""`` in a screen without contexts."""


class UserError(Exception):
    """Something only the user can mend; its text is the one line that is shown."""


class Screen(NamedTuple):
    """Log-normalised cells of all genes, and the names of the columns that describe them."""

    adata: anndata.AnnData
    perturbation_key: str
    control: str
    context_key: str | None
    batch_key: str | None

    def cells(self) -> pd.MultiIndex:
        """Perturbation and context of every cell."""
        obs = self.adata.obs
        contexts = obs[self.context_key].astype(str) if self.context_key else np.full(len(obs), "", dtype=object)
        return pd.MultiIndex.from_arrays([obs[self.perturbation_key].astype(str), contexts], names=["p", "c"])

    def conditions(self) -> pd.Series:
        """Perturbed cells per (perturbation, context), sorted by name."""
        cells = self.cells()
        return cells[cells.get_level_values("p") != self.control].value_counts().sort_index()


# ---------------------------------------------------------------------------------------------------- the screen


def simulated_screen(seed: int) -> Screen:
    """Simulate the screen of the demo without ``--data``."""
    adata = simulate_perturbseq(n_genes=300, n_regulators=30, n_single=16, n_double=16, n_cells=50, seed=seed)
    adata.X = lognormalise(adata.X, TARGET_SUM)
    return Screen(adata, "perturbation", "control", "context", "batch")


def read_screen(
    path: str | Path,
    perturbation_key: str,
    control: str = "control",
    context_key: str | None = None,
    batch_key: str | None = None,
    layer: str | None = None,
) -> Screen:
    """Read a screen from an ``.h5ad`` file, check it and log-normalise counts over all genes.

    Raises
    ------
    UserError, KeyError, ValueError
        If the file, a column, the control or the values are not usable; the text is one clear line.
    """
    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.glob("*.h5ad")] if path.parent.is_dir() else []
        raise UserError(f"--data {path}: no such file.{closest(path.name, beside, n=1)}")
    try:
        raw = anndata.read_h5ad(path) if h5py.is_hdf5(path) else None
    except Exception as error:  # whatever a broken file raises, the user must hear the same
        raise UserError(f"--data {path}: can't be read as .h5ad ({_one_line(error)}).") from error
    if raw is None or 0 in raw.shape:
        raise UserError(
            f"--data {path}: {'not an .h5ad (HDF5) file' if raw is None else 'holds no cells or no genes'}."
        )
    labels = require_labels(raw.obs, perturbation_key, "--perturbation-key").str.strip()
    require_member(control, labels.unique(), "--control", where=f"the labels of obs[{perturbation_key!r}]")
    canonical = {label: "+".join(a) or control for label, a in parse_labels(labels.unique(), control).items()}
    obs = pd.DataFrame({perturbation_key: labels.map(canonical)}, index=raw.obs_names)
    for argument, key in {"--context-key": context_key, "--batch-key": batch_key}.items():
        if key is not None:
            if key == perturbation_key:
                raise UserError(f"{argument} and --perturbation-key are both {key!r}; give different columns.")
            obs[key] = require_labels(raw.obs, key, argument)
    if layer is not None:
        require_member(layer, [k for k in raw.layers if k is not None], "--layer", where="adata.layers")
    x, name = (raw.X, "X") if layer is None else (raw.layers[layer], f"layers[{layer!r}]")
    if x is None:
        raise UserError(f"--data {path}: has no X. Name the matrix with --layer; layers: {some(list(raw.layers))}.")
    x = x.tocsr() if sp.issparse(x) else np.asarray(x)
    if check_scale(x, name=name) == "counts":
        x = lognormalise(x, TARGET_SUM)  # over all genes: totals after a selection of genes would mean something else
    adata = anndata.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=raw.var_names.astype(str)))
    empty = np.asarray(x.sum(1)).ravel() == 0
    if empty.any():
        _say(f"left out: {int(empty.sum()):,} cells without any count")
        adata = adata[~empty].copy()
    if not adata.var_names.is_unique:
        _say(f"gene names: {int(adata.var_names.duplicated().sum()):,} duplicates get a suffix")
        adata.var_names_make_unique()
    adata.obs_names_make_unique()
    return Screen(adata, perturbation_key, control, context_key, batch_key)


def select_genes(screen: Screen, train: np.ndarray, n_top: int) -> Screen:
    """Keep the most variable genes of the training cells, and the perturbed genes that are measured.

    Held-out cells (``~train``) have no say: they would tell the model which genes respond.
    """
    adata = screen.adata
    if adata.n_vars <= n_top:
        return screen
    keep = np.asarray(adata.X[train].sum(0)).ravel() > 0
    wanted = keep & adata.var_names.isin(list(_perturbed_genes(screen.conditions().index, screen.control)))
    if keep.sum() > n_top:
        cells = anndata.AnnData(adata.X[train][:, keep], var=adata.var[keep])
        sc.pp.highly_variable_genes(cells, n_top_genes=n_top, flavor="seurat")
        keep[keep] = cells.var["highly_variable"].to_numpy()
    return screen._replace(adata=adata[:, keep | wanted].copy())


def _perturbed_genes(conditions: Iterable[Condition], control: str) -> set[str]:
    return {gene for perturbation, _ in conditions for gene in parse_label(perturbation, control)}


# ------------------------------------------------------------------------------------------------ what is held out


def resolve_holdout(items: Sequence[str], screen: Screen) -> list[Condition]:
    """Turn ``--holdout`` items into conditions.

    Parameters
    ----------
    items
        Each is a perturbation (``"A+B"``, in all contexts), a context (all its perturbed cells) or
        ``"CONTEXT:PERTURBATION"``.
    screen
        The screen.

    Raises
    ------
    UserError
        If an item matches nothing, is the control or has two meanings, or if nothing is left to train on.
    """
    known = list(screen.conditions().index)
    held: dict[Condition, None] = {}
    for item in items:
        text = item.strip()
        name = _canonical(text, screen.control)
        if name == screen.control:
            raise UserError(f"--holdout {item!r}: controls can't be held out, predictions start from them.")
        by_name, by_context = ([c for c in known if c[i] == v] for i, v in ((0, name), (1, text)))
        if by_name and by_context:
            raise UserError(f"--holdout {item!r} is a perturbation and a context. Write 'CONTEXT:PERTURBATION'.")
        # names may hold colons themselves: try each
        cuts = [(text[i + 1 :].strip(), text[:i].strip()) for i, sign in enumerate(text) if sign == ":"]
        pairs = [(_canonical(perturbation, screen.control), context) for perturbation, context in cuts]
        hits = by_name or by_context or [c for c in known if c in pairs]
        if not hits:
            names, contexts = (sorted({c[i] for c in known} - {""}) for i in (0, 1))
            near = closest(text, [*names, *contexts, *(f"{c[1]}:{c[0]}" for c in known if c[1])])
            found = f"perturbations: {some(names)}" + (f"; contexts: {some(contexts)}" if contexts else "")
            hint = " Contexts need --context-key." if cuts and not contexts else ""
            raise UserError(f"--holdout {item!r} matches no perturbed cells.{near}{hint} Found {found}.")
        held |= dict.fromkeys(hits)
    if len(held) == len(known):
        raise UserError("--holdout leaves no perturbed cells to train on. Hold out fewer conditions.")
    lost = sorted({name for name, _ in set(held) - set(_predictable(list(held), screen))})
    if lost:
        raise UserError(
            f"--holdout leaves {some(lost)} without any training cells of the perturbed gene, which isn't measured "
            "either: nothing is known about it. Hold out other conditions."
        )
    return list(held)


def _canonical(label: str, control: str) -> str:
    """Write a label as the screen does, in any order of genes; what is no label stays as it is."""
    try:
        return "+".join(parse_label(label, control)) or control
    except ValueError:
        return label


def default_holdout(screen: Screen, seed: int) -> tuple[list[Condition], str]:
    """Choose what to hold out, and say why in words.

    Up to five combinations whose single perturbations are measured in the same contexts; else the context with most
    perturbed cells; else a tenth of the perturbations.
    """
    size, rng = screen.conditions(), np.random.default_rng(seed)
    present = set(size.index)
    where: dict[str, list[Condition]] = {}
    for condition in size.index:
        where.setdefault(condition[0], []).append(condition)
    genes = {name: parse_label(name, screen.control) for name in where}

    def singles_measured(name: str) -> bool:
        return all((gene, context) in present for _, context in where[name] for gene in genes[name])

    combinations = [name for name in where if len(genes[name]) > 1 and singles_measured(name)]
    if combinations:
        chosen = sorted(rng.choice(combinations, min(MAX_COMBINATIONS, len(combinations)), replace=False).tolist())
        reason = f"{len(chosen)} of {len(combinations)} combinations whose single perturbations are measured"
        return [condition for name in chosen for condition in where[name]], reason
    by_context = size.groupby(level="c").sum()
    if len(by_context) > 1:
        largest = str(by_context.idxmax())
        in_largest = [condition for condition in size.index if condition[1] == largest]
        held = _predictable(in_largest, screen)
        if held:
            lost = len(in_largest) - len(held)
            kept = f" (without {lost} perturbations that no other context has)" if lost else ""
            return held, f"the perturbed cells of the largest context, {largest!r}{kept}"
    names = [
        name
        for name, here in where.items()
        if len(here) < len(size) and set(genes[name]) <= set(screen.adata.var_names)
    ]
    if not names:
        raise UserError(
            "nothing can be held out by default: no combination with measured singles, no perturbation shared with a "
            "second context, no perturbed gene that is measured. Name conditions with --holdout, or give --context-key."
        )
    chosen = sorted(rng.choice(names, max(1, round(0.1 * len(names))), replace=False).tolist())
    return [condition for name in chosen for condition in where[name]], f"{len(chosen)} of {len(where)} perturbations"


def _predictable(held: Sequence[Condition], screen: Screen) -> list[Condition]:
    """Keep the conditions whose perturbed genes are all measured, or perturbed in training."""
    seen = _perturbed_genes(set(screen.conditions().index) - set(held), screen.control)
    seen |= set(screen.adata.var_names)
    return [c for c in held if set(parse_label(c[0], screen.control)) <= seen]


# --------------------------------------------------------------------------------------------------- the results


class Results:
    """The output directory: every artefact appears whole (written aside, then renamed) and is remembered."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.written: list[str] = []
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory):
                pass
        except OSError as error:
            raise UserError(f"--out {self.directory}: can't be written ({error.strerror or error}).") from error

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Give a path to write ``name`` to (a file or a directory); it takes its place when all went well."""
        part, target = self.directory / f".part-{name}", self.directory / name
        _remove(part)
        try:
            yield part
            if part.is_dir():
                _remove(target)  # a directory can't be renamed onto another
            os.replace(part, target)
            self.written.append(name)
        finally:
            _remove(part)

    def remove_stale(self, pattern: str) -> None:
        """Remove what an earlier run left under ``pattern`` and this one did not write."""
        for path in self.directory.glob(pattern):
            if path.name not in self.written:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------ the stages


def run(args: argparse.Namespace, results: Results) -> None:
    """Run all stages; each result is on disk before the next stage starts."""
    start = time.monotonic()
    if args.data is None:
        _say("[1/5] data: simulated Perturb-seq screen")
        screen = simulated_screen(args.seed)
    else:
        _say(f"[1/5] data: {args.data}")
        screen = read_screen(
            args.data, args.perturbation_key, args.control, args.context_key, args.batch_key, args.layer
        )
    conditions = screen.conditions()
    if conditions.empty:
        raise UserError("the screen holds control cells only: there is nothing to learn.")
    if args.holdout:
        held, reason = resolve_holdout(args.holdout, screen), "as asked"
    else:
        held, reason = default_holdout(screen, args.seed)
    n_genes = screen.adata.n_vars
    screen = select_genes(screen, ~screen.cells().isin(held), args.n_top_genes)
    names, contexts = conditions.index.get_level_values("p"), conditions.index.get_level_values("c").unique()
    _say(
        f"      {screen.adata.n_obs:,} cells, {names.nunique()} perturbations, {len(contexts)} "
        f"context{'s' * (len(contexts) > 1)}, {screen.adata.n_vars:,} of {n_genes:,} genes"
    )
    _say(f"      held out: {reason}: {some([f'{c}: {p}' if c else p for p, c in held], 10)}")

    _say("[2/5] train")
    PerturbJEPA.setup_anndata(
        screen.adata,
        screen.perturbation_key,
        control=screen.control,
        context_key=screen.context_key,
        batch_key=screen.batch_key,
    )
    model = PerturbJEPA(screen.adata)
    # without contexts a condition is named by its perturbation alone
    model.train(max_epochs=args.max_epochs, holdout=[c if c[1] else c[0] for c in held], seed=args.seed)
    with results.write("model") as path:
        model.save(str(path))
    with results.write("history.png") as path:
        pl.history(model, save=path)

    _say("[3/5] predict")
    predicted = predict(model, held, args.seed)
    with results.write("predictions.h5ad") as path:
        predicted.write_h5ad(path, compression="gzip")

    _say("[4/5] evaluate")
    columns: dict[str, Any] = {
        "perturbation_key": screen.perturbation_key, "control": screen.control, "context_key": screen.context_key or ""
    }  # fmt: skip
    scores = tl.evaluate(predicted, screen.adata, **columns, seed=args.seed)
    with results.write("scores.csv") as path:
        scores.to_csv(path, index=False)
    _say(tl.format_scores(scores))

    _say("[5/5] figures")
    with results.write("scores.png") as path:
        pl.scores(scores, save=path)
    for perturbation, context in held[:MAX_SCATTERS]:
        label = re.sub(r"[^\w.+-]+", "_", f"{context}_{perturbation}".strip("_"))
        with results.write(f"predicted_vs_true_{label}.png") as path:
            pl.predicted_vs_true(predicted, screen.adata, perturbation, context=context or None, **columns, save=path)
    results.remove_stale("predicted_vs_true_*.png")
    _say(f"done in {time.monotonic() - start:.0f} s; {results.directory}: {', '.join(results.written)}")


def predict(model: PerturbJEPA, held: Sequence[Condition], seed: int) -> anndata.AnnData:
    """Predict cells of the held-out conditions from the controls of their contexts."""
    parts = [
        model.predict_perturbation([p for p, c in held if c == context], context=context or None, seed=seed)
        for context in dict.fromkeys(c for _, c in held)
    ]
    predicted = parts[0]
    if len(parts) > 1:
        predicted = anndata.concat(parts, merge="same")
        predicted.obs_names_make_unique()
        predicted.uns = parts[0].uns  # the model's record: the same for all contexts
    return predicted


# ------------------------------------------------------------------------------------------------- the command line


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _whole_number(minimum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {minimum}")
        return int(text)

    return read


def parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m scjepa``."""
    top = _Parser(prog="python -m scjepa", description="Joint-embedding predictive models of single cells.")
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    demo = commands.add_parser(
        "demo",
        help="train on a perturbation screen and predict held-out conditions",
        description=(
            "Train PerturbJEPA on a perturbation screen (without --data: a simulated one), predict held-out "
            "conditions and show the scores beside the baselines."
        ),
    )
    demo.add_argument("--data", type=Path, metavar="FILE.h5ad", help="cells x genes: counts or log-normalised values")
    demo.add_argument("--perturbation-key", metavar="KEY", help="obs column of labels: 'A', 'A+B', the control")
    demo.add_argument("--control", metavar="LABEL", help="label of the control cells (default: control)")
    demo.add_argument("--context-key", metavar="KEY", help="obs column of cell types or lines")
    demo.add_argument("--batch-key", metavar="KEY", help="obs column of batches; controls are matched within them")
    demo.add_argument("--layer", metavar="NAME", help="layer to use in place of X")
    demo.add_argument(
        "--holdout",
        nargs="+",
        action="extend",
        metavar="WHAT",
        help="what to predict and never train on: a perturbation, a context or CONTEXT:PERTURBATION; repeatable. "
        "Default: up to 5 combinations whose singles are measured, else the largest context, else 10%% of "
        "the perturbations",
    )
    demo.add_argument(
        "--n-top-genes", type=_whole_number(1), default=2000, metavar="N", help="variable genes (default: 2000)"
    )
    demo.add_argument("--max-epochs", type=_whole_number(1), metavar="N", help="training epochs (default: the model's)")
    demo.add_argument(
        "--seed", type=_whole_number(0), default=0, metavar="N", help="seed of all random draws (default: 0)"
    )
    demo.add_argument("--out", type=Path, default=Path("scjepa-demo"), metavar="DIR", help="default: scjepa-demo")
    demo.add_argument("--verbose", action="store_true", help="show warnings, and tracebacks of errors")
    return top


def _check_arguments(args: argparse.Namespace) -> None:
    if args.data is not None and args.perturbation_key is None:
        raise UserError("--data needs --perturbation-key: the obs column that says how each cell was perturbed.")
    if args.data is None:
        for name in ("perturbation_key", "control", "context_key", "batch_key", "layer"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name.replace('_', '-')} needs --data; the simulated screen has its own columns.")
    args.control = "control" if args.control is None else args.control


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; those of the process by default.

    Returns
    -------
    Exit code: 0 done; 2 an error of use, told in one line on stderr; 130 interrupted; 1 anything else.
    """
    args = parser().parse_args(argv)
    results: Results | None = None
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _quiet(args.verbose):
            _check_arguments(args)
            results = Results(args.out)
            run(args, results)
        return 0
    except (KeyboardInterrupt, SystemExit) as stop:
        # the trainer turns Ctrl-C into an exit of its own
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        kept = ", ".join(results.written) if results and results.written else "nothing yet"
        print(f"\ninterrupted; {args.out} holds of this run: {kept}", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - the last resort of a command line: one line in place of a traceback
        if args.verbose:
            traceback.print_exc()
        of_use = isinstance(error, (UserError, ValueError, KeyError, TypeError, OSError))
        kind = "" if isinstance(error, UserError | ValueError | KeyError) else f"{type(error).__name__}: "
        hint = "" if of_use or args.verbose else " (--verbose shows where)"
        print(f"scjepa demo: error: {kind}{_one_line(error)}{hint}", file=sys.stderr)
        return 2 if of_use else 1
    finally:
        if signal.getsignal(signal.SIGINT) is not handler:  # the trainer leaves Ctrl-C ignored
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Keep adverts and warnings of the libraries below out of the stage messages."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "scvi")]
    levels = [log.level for log in loggers]
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            for log in loggers:
                log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(loggers, levels, strict=True):
                log.setLevel(level)


def _one_line(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _say(text: str) -> None:
    print(text, flush=True)
