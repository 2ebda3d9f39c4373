"""The output directory of the demo: every artefact appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scjepa.demo._messages import UserError


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
