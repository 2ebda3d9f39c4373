"""The command line of the demo: arguments, exit codes, errors on one line."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from scjepa.demo._messages import UserError, one_line
from scjepa.demo._results import Results
from scjepa.demo._run import run
from scjepa.demo._trajectories import run_course

KEYS = {
    "perturb": ("perturbation_key", "how each cell was perturbed"),
    "drug": ("drug_key", "which drug each cell got"),
    "trajectory": ("time_key", "when each cell was taken"),
}
"""The column that each model needs, and what it says."""
FOR = {
    "perturbation_key": ("perturb",), "drug_key": ("drug",), "smiles_key": ("drug",), "dose_key": ("drug",),
    "time_key": ("drug", "trajectory"), "control": ("perturb", "drug"), "context_key": ("perturb", "drug"),
}  # fmt: skip
"""Which models an argument is for; the others are for all."""


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
            "Train PerturbJEPA (or DrugJEPA: --model drug) on a screen, or TrajectoryJEPA (--model trajectory) on a time course "
            "(without --data: simulated ones), predict held-out conditions or times and show the scores beside the baselines."
        ),
    )
    demo.add_argument("--model", choices=list(KEYS), default="perturb", help="default: perturb")
    demo.add_argument("--data", type=Path, metavar="FILE.h5ad", help="cells x genes: counts or log-normalised values")
    demo.add_argument("--perturbation-key", metavar="KEY", help="obs column of labels: 'A', 'A+B', the control")
    demo.add_argument(
        "--drug-key", metavar="KEY", help="with --model drug: obs column of drugs: 'A', 'A+B', the control"
    )
    demo.add_argument("--smiles-key", metavar="KEY", help="with --model drug: obs column of structures")
    demo.add_argument("--dose-key", metavar="KEY", help="with --model drug: obs column of doses (numbers)")
    demo.add_argument(
        "--time-key",
        metavar="KEY",
        help="with --model drug: obs column of exposure times (numbers); with --model "
        "trajectory: of times (numbers, '6h', 'day 4', ordered categories)",
    )
    demo.add_argument("--control", metavar="LABEL", help="label of the control cells (default: control; of drugs DMSO)")
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
        "the perturbations. Of drugs: one in a context (others have it), and an inner dose of another. Of a time course: times "
        "(the one in the middle)",
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
    key, says = KEYS[args.model]
    for name, models in FOR.items():
        if args.model not in models and getattr(args, name) is not None:
            raise UserError(f"{_option(name)} is not for --model {args.model}; {_option(key)} says {says}.")
    if args.data is not None and getattr(args, key) is None:
        raise UserError(f"--data needs {_option(key)}: the obs column that says {says}.")
    if args.data is None:
        for name in (*FOR, "batch_key", "layer"):
            if getattr(args, name) is not None:
                raise UserError(f"{_option(name)} needs --data; the simulated data have their own columns.")
    if args.model != "trajectory" and args.control is None:
        args.control = "DMSO" if args.model == "drug" else "control"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
    try:
        with _quiet(args.verbose):
            _check_arguments(args)
            results = Results(args.out)
            (run_course if args.model == "trajectory" else run)(args, results)
        return 0
    except KeyboardInterrupt:
        kept = ", ".join(results.written) if results and results.written else "nothing yet"
        print(f"\ninterrupted; {args.out} holds of this run: {kept}", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - the last resort of a command line: one line in place of a traceback
        if args.verbose:
            traceback.print_exc()
        of_use = isinstance(error, (UserError, ValueError, KeyError, TypeError, OSError))
        kind = "" if isinstance(error, UserError | ValueError | KeyError) else f"{type(error).__name__}: "
        hint = "" if of_use or args.verbose else " (--verbose shows where)"
        print(f"scjepa demo: error: {kind}{one_line(error)}{hint}", file=sys.stderr)
        return 2 if of_use else 1


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
