"""What the demo says: lines on stdout, and errors that only the user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something only the user can mend; its text is the one line that is shown."""


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line, or its kind when it has none."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)
