"""Fragments of docstrings: all filled in, all used, none written out again."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scjepa
from scjepa import _docs
from scjepa._docs import Docs, docs

SOURCE = Path(scjepa.__file__).parent
KEY = re.compile(r"%\((\w+)\)s")


def words(text: str) -> str:
    return " ".join(text.split())


def docstrings() -> dict[str, str]:
    """Docstrings as they stand in the source: file and line -> text."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        if path.name == "_docs.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                found[f"{path.relative_to(SOURCE)}:{node.lineno}"] = text
    return found


def described() -> dict[str, str]:
    """Docstrings as users see them: functions, classes and their methods in all modules of scjepa."""
    found = {}
    for info in pkgutil.walk_packages(scjepa.__path__, "scjepa."):
        if info.name.endswith("__main__") or info.name == _docs.__name__:
            continue
        module = importlib.import_module(info.name)
        for name, thing in vars(module).items():
            if not (inspect.isfunction(thing) or inspect.isclass(thing)) or thing.__module__ != info.name:
                continue
            members = vars(thing).items() if inspect.isclass(thing) else ()
            for label, part in [(name, thing), *((f"{name}.{member}", value) for member, value in members)]:
                if text := getattr(part, "__doc__", None):
                    found[f"{info.name}.{label}"] = text
    return found


def test_no_docstring_has_a_hole():
    left = {where: KEY.findall(text) or "%(" for where, text in described().items() if "%(" in text}
    assert left == {}, "unknown key, or no @docs above"


def test_every_fragment_is_used():
    used = {key for text in docstrings().values() for key in KEY.findall(text)}
    whole = {key for key in docs.fragments if any(docs.fragments[key] in docs.fragments[other] for other in used)}
    assert set(docs.fragments) - whole == set()


def test_no_fragment_is_written_out_again():
    again = [
        f"{where}: {key}"
        for where, text in docstrings().items()
        for key, fragment in docs.fragments.items()
        if words(fragment) in words(text)
    ]
    assert again == []


def test_a_fragment_is_one_paragraph_of_a_parameter():
    for key, text in docs.fragments.items():
        lines = text.split("\n")
        assert re.match(r"[*\w]", lines[0]) and text == text.rstrip(), key
        assert all(re.match(r"    \S", line) for line in lines[1:] if key != "encoder_arguments"), key
        assert all(len(line) <= 120 for line in lines), key


def test_help_shows_the_whole_text():
    text = inspect.getdoc(scjepa.tl.deg_recovery)
    assert "\npred\n    Predicted cells (or one profile per condition) x genes of *any* tool" in text
    assert "0.1 % in\nevery condition" in inspect.getdoc(scjepa.tl.verdict), "a percent sign is text"
    assert (
        scjepa.tl.deg_recovery.__name__ == "deg_recovery"
        and "top_k" in inspect.signature(scjepa.tl.deg_recovery).parameters
    )


def test_classes_and_class_methods_are_filled_in():
    fill = Docs({"x": "x\n    A number."})

    @fill
    class Thing:
        """A thing.

        Parameters
        ----------
        %(x)s
            Above 0.
        """

        @classmethod
        @fill
        def make(cls):
            """Make 50 % sure, 5 %.

            Parameters
            ----------
            %(x)s
            """

    assert Thing.__doc__ == "A thing.\n\nParameters\n----------\nx\n    A number.\n    Above 0."
    assert Thing.make.__doc__ == "Make 50 % sure, 5 %.\n\nParameters\n----------\nx\n    A number."


def test_an_unknown_key_is_told_and_stays():
    def wrong():
        """%(save)s and %(nothing)s."""

    with pytest.warns(SyntaxWarning, match="'nothing' is not a valid key"):
        docs(wrong)
    assert wrong.__doc__ == "save\n    File to write. and %(nothing)s."


def test_python_without_docstrings():
    """``-OO`` takes them away. The file runs alone: what scjepa stands on can't be imported that way."""
    code = f"import runpy; docs = runpy.run_path({_docs.__file__!r})['docs']\n@docs\ndef f():\n    '%(save)s'\nprint(f.__doc__)"
    run = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert run.stdout == "None\n", run.stderr
