"""The output directory of the demo."""

from __future__ import annotations

import pytest

from scjepa.demo import Results


def test_results_appear_whole_or_not_at_all(tmp_path):
    results = Results(tmp_path)
    with results.write("a.csv") as path:
        path.write_text("first")
    with pytest.raises(RuntimeError), results.write("a.csv") as path:
        path.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.csv").read_text() == "first"
    for text in ("one", "two"):
        with results.write("model") as path:
            path.mkdir()
            (path / text).write_text(text)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["two"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "model"]
