"""A web server on this machine, in place of those that public screens come from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest


class Served(NamedTuple):
    folder: Path
    url: str
    requests: list[str]


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Served]:
    """A web server on the loopback interface that keeps a list of what it was asked for."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield Served(folder, f"http://127.0.0.1:{httpd.server_port}/", asked)
    httpd.shutdown()
    httpd.server_close()
