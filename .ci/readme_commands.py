"""Print a set-up command of README.md, verbatim: the README is what is tested, not a copy of it.

Usage: ``python3 .ci/readme_commands.py NAME [README]``. A command is the one line of a ``bash`` block that follows the
comment ``<!-- ci:NAME -->``. There must be exactly two, ``demo`` and ``test``, and no other ``bash`` block.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NAMES = ["demo", "test"]
_MARKED = re.compile(r"^<!-- ci:(\S+) -->\s*^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> dict[str, str]:
    """Return the marked commands of a README by name; raise a ValueError when they are not as announced above."""
    found = _MARKED.findall(text)
    names = [name for name, _ in found]
    if names != NAMES:
        raise ValueError(f"README marks the commands {names}; expected exactly {NAMES}, in this order.")
    marks, blocks = text.count("<!-- ci:"), len(re.findall(r"^```bash", text, re.MULTILINE))
    if marks != len(NAMES) or blocks != len(NAMES):
        raise ValueError(f"README has {marks} ci comments and {blocks} bash blocks; expected {len(NAMES)} of each.")
    out = {}
    for name, block in found:
        lines = block.strip().splitlines()
        if len(lines) != 1 or not lines[0].strip():
            raise ValueError(f"README command {name!r} has {len(lines)} lines; expected one, chained with '&&'.")
        out[name] = lines[0].strip()
    return out


def main(argv: list[str]) -> int:
    readme = Path(argv[2]) if len(argv) > 2 else Path(__file__).resolve().parents[1] / "README.md"
    try:
        print(commands(readme.read_text(encoding="utf-8"))[argv[1]])
    except (IndexError, KeyError, OSError, ValueError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
