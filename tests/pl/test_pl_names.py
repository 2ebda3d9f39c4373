"""Names beside dots and lines: none covers another, none leaves the axes, lines don't cross."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from scjepa.pl._names import _meets, name_dots, spread


@pytest.fixture
def crowd():
    """One heap of dots of which thirty are to be named, and one dot alone."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 0.1, size=(2, 60))
    x[0], y[0] = 1.5, -1.5
    _, ax = plt.subplots(figsize=(4, 4))
    ax.set_xlim(-2, 2)
    ax.set_ylim(-2, 2)
    name_dots(ax, x, y, np.arange(30), [f"GENE{i}" for i in range(30)])
    return ax, x, y


def test_no_name_covers_another_or_a_named_dot_or_leaves(crowd):
    ax, x, y = crowd
    boxes = [Text.get_window_extent(t) for t in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    dots = ax.transData.transform(np.column_stack([x, y])[:30])
    assert not any(box.contains(*dot) for box in boxes for dot in dots)
    frame = ax.get_window_extent()
    assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)


def test_names_without_room_are_left_out_the_first_ones_stay(crowd):
    ax, *_ = crowd
    named = [t.get_text() for t in ax.texts]
    assert 5 < len(named) < 30
    assert named[:3] == ["GENE0", "GENE1", "GENE2"]


def test_lines_only_where_a_name_is_far_and_none_crosses_another(crowd):
    ax, x, y = crowd
    shown = [t for t in ax.texts if t.arrow_patch.get_visible()]
    assert shown and "GENE0" not in [t.get_text() for t in shown]
    ends = []
    for text in shown:
        box = Text.get_window_extent(text)
        dot = ax.transData.transform(text.xy)
        near = np.clip(dot, box.min, box.max)
        others = ax.transData.transform(np.column_stack([x, y]))
        rival = np.sort(np.hypot(*(np.clip(others, box.min, box.max) - others).T))[1]
        point = ax.get_figure().dpi / 72
        assert np.hypot(*(near - dot)) > min(5 * point, rival - 4 * point)
        ends.append((dot, (box.min + box.max) / 2))
    for i, (a, b) in enumerate(ends):
        assert not any(_meets(a, b[None], c, d)[0] for c, d in ends[:i])


def test_a_name_is_nearest_to_its_own_dot_or_has_a_line():
    x, y = np.array([0.0, 0.1, 0.2, 0.3]), np.zeros(4)  # four dots in a row, two of them to be named
    _, ax = plt.subplots(figsize=(4, 4))
    ax.set_xlim(-1, 1)
    ax.set_ylim(-1, 1)
    name_dots(ax, x, y, np.array([1, 2]), ["FIRST", "SECOND"])
    dots = ax.transData.transform(np.column_stack([x, y]))
    assert len(ax.texts) == 2
    for text, mine in zip(ax.texts, (1, 2), strict=True):
        box = Text.get_window_extent(text)
        gap = np.hypot(*(np.clip(dots, box.min, box.max) - dots).T)
        assert text.arrow_patch.get_visible() or np.argmin(gap) == mine


def test_segments_meet():
    a, c, d = np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0])
    assert _meets(a, np.array([[1.0, 1.0], [0.4, 0.4], [-1.0, -1.0]]), c, d).tolist() == [True, False, False]


def test_spread_moves_no_more_than_needed():
    np.testing.assert_allclose(spread(np.array([1.0, 3.0]), 1, 0, 10), [1, 3])
    np.testing.assert_allclose(spread(np.array([2.0, 2.0, 2.0]), 1, 0, 10), [1, 2, 3])
    np.testing.assert_allclose(spread(np.array([0.0, 0.0]), 1, 0, 10), [0, 1])  # not below the lowest place
    np.testing.assert_allclose(spread(np.array([9.9, 10.0]), 1, 0, 10), [9, 10])
    rng = np.random.default_rng(1)
    for _ in range(20):
        at = rng.uniform(0, 10, 8)
        out = spread(at, 1.0, 0, 10)
        assert (np.diff(np.sort(out)) >= 1 - 1e-9).all() and out.min() >= -1e-9 and out.max() <= 10 + 1e-9
        assert (np.argsort(out) == np.argsort(at)).all()
