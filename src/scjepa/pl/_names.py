"""Names beside dots and lines of a figure that neither cover one another nor leave the axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from scjepa._types import FloatArray
from scjepa.pl._figure import INK, laid_out

LEADER = "#8A8A8A"
"""Thin lines from a name to its dot, paler than both."""

BESIDE = 6.0
"""Points between a name and its dot up to which nobody needs a line to see that they belong together."""

CROWD = 100
"""With more dots, those without a name are background."""

RADII = (3.5, 8, 13, 19, 26, 34, 43)
"""Points between a dot and the places that its name tries."""


def name_dots(ax: Axes, x: FloatArray, y: FloatArray, named: np.ndarray, names: Sequence[str]) -> None:
    """Write the names of the dots ``named``, one after the other, each where it is in the way of least.

    A name tries places around its dot, near ones first. It must stay inside the axes, off other names, named dots and
    their lines, and its line must not cross another; it covers as little as possible of the other dots and of the
    diagonal, and is nearer to its dot than to others. Where no place is free the name is left out: a dot in a crowd
    can't be told from its neighbours anyway.
    All in pixels, since the size of a name does not depend on the data.

    Parameters
    ----------
    ax
        Axes whose limits are final.
    x, y
        Coordinates of all dots.
    named
        Positions of the dots to name, the most important first.
    names
        Their names.
    """
    point = laid_out(ax).dpi / 72
    dots = ax.transData.transform(np.column_stack([x, y]))
    diagonal = np.linspace(*ax.get_xlim(), 200)
    soft = np.vstack([dots, ax.transData.transform(np.column_stack([diagonal, diagonal]))])
    angle = np.arange(0, 2 * np.pi, np.pi / 12)
    direction = np.tile(np.column_stack([np.cos(angle), np.sin(angle)]), (len(RADII), 1))
    radius = np.repeat(RADII, len(angle)) * point
    # dots that a name could be taken for: in a cloud of genes only those with a name stand out
    rivals = np.arange(len(dots)) if len(dots) <= CROWD else named
    frame = ax.get_window_extent().padded(-point).get_points()
    boxes: list[np.ndarray] = []
    leaders: list[np.ndarray] = []
    for i, name in zip(named, names, strict=True):
        label = ax.annotate(
            name,
            (x[i], y[i]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            color=INK,
            va="center",
            ha="center",
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": LEADER, "shrinkA": 0, "shrinkB": 3},
            zorder=4,
        )
        half = np.array(label.get_window_extent().size) / 2 + 0.5 * point
        # as far out as the box reaches in that direction, so that the gap to the dot is the radius
        reach = 1 / np.maximum(np.abs(direction) / half, 1e-9).max(1)
        center = dots[i] + direction * (radius + reach)[:, None]
        low, high = center - half, center + half
        gap = _gaps(dots[i][None], low, high)[:, 0]
        others = np.setdiff1d(rivals, [i])
        unclear = (_gaps(dots[others], low, high) < gap[:, None] + 2 * point).any(1)
        far = (gap > BESIDE * point) | unclear  # their lines go to the center of the name, up to its edge
        bad = ((low < frame[0]) | (high > frame[1])).any(1) + _inside(dots[named], low - 2 * point, high + 2 * point)
        for box in boxes:
            bad += ((low < box[1]) & (high > box[0])).all(1) + far * _crosses(dots[i], center, box)
        for leader in leaders:
            bad += _crosses(leader[0], leader[1], np.stack([low, high])) + far * _meets(dots[i], center, *leader)
        cost = 2 * _inside(soft, low, high) + radius / point + 12 * unclear
        cost = np.where(bad > 0, np.inf, cost)
        best = int(np.argmin(cost))
        if not np.isfinite(cost[best]):
            label.remove()
            continue
        label.set_position(tuple((center[best] - dots[i]) / point))
        boxes.append(np.stack([low[best], high[best]]))
        assert label.arrow_patch is not None  # for the type checker: arrowprops are given
        label.arrow_patch.set_visible(bool(far[best]))
        if far[best]:
            leaders.append(np.stack([dots[i], center[best]]))


def _inside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the number of ``(n, 2)`` points inside each of the boxes from ``low`` to ``high``, both ``(boxes, 2)``."""
    return ((points > low[:, None]) & (points < high[:, None])).all(2).sum(1)


def _gaps(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return ``(boxes, points)`` distances from points to the nearest edge of boxes, 0 inside."""
    away = np.clip(points, low[:, None], high[:, None]) - points
    return np.hypot(away[..., 0], away[..., 1])


def _crosses(start: np.ndarray, end: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return whether segments pass through boxes; ``box`` holds the lower and the upper corners."""
    step = np.linspace(0, 1, 25)[:, None, None]
    points = start + step * (np.atleast_2d(end) - start)
    return ((points > box[0]) & (points < box[1])).all(2).any(0)


def _meets(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return whether the segments from ``a`` to each of ``b`` meet the one from ``c`` to ``d``."""
    side = lambda p, q, r: np.sign((q - p)[..., 0] * (r - p)[..., 1] - (q - p)[..., 1] * (r - p)[..., 0])
    return (side(a, b, c) != side(a, b, d)) & (side(c, d, a) != side(c, d, b))


def spread(at: FloatArray, gap: float, low: float, high: float) -> FloatArray:
    """Move numbers as little as needed so that neighbours are ``gap`` apart, inside ``low`` to ``high`` if they fit.

    Parameters
    ----------
    at
        Wanted places.
    gap
        Least distance of two places.
    low, high
        Limits.

    Examples
    --------
    >>> import numpy as np
    >>> from scjepa.pl._names import spread
    >>> spread(np.array([5.0, 1.0, 1.0]), gap=1.0, low=0.0, high=10.0).tolist()
    [5.0, 0.5, 1.5]
    """
    order = np.argsort(at, kind="stable")
    blocks: list[tuple[float, int]] = []  # neighbours that touch: where the first wants to be (a mean), and how many

    def first(wanted: float, n: int) -> float:
        return max(min(wanted, high - gap * (n - 1)), low)

    for place in at[order]:
        blocks.append((float(place), 1))
        while len(blocks) > 1 and first(*blocks[-2]) + gap * blocks[-2][1] > first(*blocks[-1]):
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((n * a + m * (b - n * gap)) / (n + m), n + m)]
    out = np.empty(len(at))
    out[order] = [first(*block) + gap * i for block in blocks for i in range(block[1])]
    return out
