"""Charts: bars, lines and sparklines as SVG, drawn by the server and coloured by the style sheet.

No inline styles and no script, so the strictest content policy shows them. The drawing stretches
with its place; words stand in HTML around it and keep their size. Every value has a ``<title>``,
and each chart the same figures as a table below it, for readers who do not see it. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

WIDTH: Final = 1000
HEIGHT: Final = 200
WIDEST: Final = 80
"""Of a bar: a few of them are no walls."""
FEW: Final = 6
"""Labels of an axis that all have room in the middle of their bars."""
COLOURS: Final = 6
"""Classes of the style sheet: ``bar-1`` … ``bar-6``; the last is grey, for "others"."""
MOST_LABELS: Final = 5
MOST_POINTS: Final = 600
"""A line of more points is drawn by so many."""

Say = Callable[[float], str]
"""Writes a value for people, such as ``€1.20``."""


@dataclass(frozen=True)
class Series:
    """One value a slot; ``name`` stands in the legend."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Caption:
    """What is said around a chart. ``title`` names it for a screen reader, ``slot`` the column of
    labels in the table, ``as_table`` is the label of the fold that holds it."""

    title: str
    slot: str
    as_table: str


def bars(
    labels: Sequence[str],
    series: Sequence[Series],
    say: Say,
    caption: Caption,
    *,
    low: bool = False,
) -> Markup:
    """Stacked bars, one a label. Values are not negative."""
    heights = [sum(each.values[place] for each in series) for place in range(len(labels))]
    top = nice(max(heights, default=0))
    slots = [
        _slot(place, len(labels), label, series, say, top) for place, label in enumerate(labels)
    ]
    shown = _thinned(labels)
    axis = Markup("").join(Markup("<span>{}</span>").format(each) for each in shown)
    few = " few" if len(labels) <= FEW else ""
    return _chart(
        Markup("").join(slots),
        [say(value) for value in (top, top / 2, 0)],
        Markup('<div class="x{}" aria-hidden="true">{}</div>').format(few, axis),
        _legend([each.name for each in series], "bar"),
        _table(labels, series, say, caption),
        caption,
        low,
    )


def _slot(
    place: int, count: int, label: str, series: Sequence[Series], say: Say, top: float
) -> Markup:
    step = WIDTH / count
    width = min(step * 0.68, WIDEST)
    left = place * step + (step - width) / 2
    told = [
        f"{each.name}: {say(each.values[place])}" if each.name else say(each.values[place])
        for each in series
        if each.values[place] or len(series) == 1
    ]
    parts, floor = [], float(HEIGHT)
    for number, each in enumerate(series):
        height = each.values[place] / top * HEIGHT
        if height > 0:
            floor -= height
            parts.append(
                Markup('<rect class="bar-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    _colour(number), _n(left), _n(floor), _n(width), _n(height)
                )
            )
    return Markup(
        '<g class="slot"><title>{}</title><rect class="hit" x="{}" y="0" width="{}" height="{}"/>'
        "{}</g>"
    ).format("\n".join([label, *told]), _n(place * step), _n(step), HEIGHT, Markup("").join(parts))


def lines(
    curves: Sequence[Curve],
    say_x: Say,
    say_y: Say,
    caption: Caption,
    *,
    low: bool = False,
    from_zero: bool = False,
) -> Markup:
    """Curves over a common x, such as the loss of runs by step."""
    points = [point for curve in curves for point in curve.points if math.isfinite(point[1])]
    if not points:
        points = [(0.0, 0.0)]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    bottom, top = _span([y for _, y in points], from_zero)

    def at(point: tuple[float, float]) -> str:
        x = (point[0] - left) / ((right - left) or 1) * WIDTH
        y = (top - point[1]) / ((top - bottom) or 1) * HEIGHT
        return f"{_n(x)},{_n(y)}"

    drawn = []
    for number, curve in enumerate(curves):
        path = " ".join(at(each) for each in _fewer(curve.points) if math.isfinite(each[1]))
        last = f"{curve.name}: {say_y(curve.points[-1][1])}" if curve.points else curve.name
        drawn.append(
            Markup('<g><title>{}</title><polyline class="line line-{}" points="{}"/></g>').format(
                last, _colour(number), path
            )
        )
    ticks = [left + (right - left) * part / 4 for part in range(5)] if right > left else [left]
    axis = Markup("").join(Markup("<span>{}</span>").format(say_x(each)) for each in ticks)
    return _chart(
        Markup("").join(drawn),
        [say_y(value) for value in (top, (top + bottom) / 2, bottom)],
        Markup('<div class="x even" aria-hidden="true">{}</div>').format(axis),
        _legend([each.name for each in curves], "bar"),
        _points_table(curves, say_x, say_y, caption),
        caption,
        low,
    )


def sparkline(values: Sequence[float], title: str) -> Markup:
    """A small line without words, with its area. ``title`` says what it shows."""
    top = max([*values, 0.0]) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    points = " ".join(
        f"{_n(place * step)},{_n(100 - value / top * 96)}" for place, value in enumerate(values)
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} 100" preserveAspectRatio="none" role="img"'
        ' aria-label="{title}"><title>{title}</title>'
        '<polygon class="area" points="0,100 {points} {w},100"/>'
        '<polyline class="line line-1" points="{points}"/></svg>'
    ).format(w=WIDTH, title=title, points=points)


def nice(value: float) -> float:
    """The least of 1, 2, 2.5, 4, 5, 8 and 10 × 10ⁿ that is no less: where an axis ends."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 2, 2.5, 4, 5, 8, 10, 20) if step * power >= value * 0.999999
    )


# -- the parts ------------------------------------------------------------------------------------


def _chart(
    drawn: Markup,
    scale: Sequence[str],
    axis: Markup,
    legend: Markup,
    table: Markup,
    caption: Caption,
    low: bool,
) -> Markup:
    grid = Markup("").join(
        Markup('<line class="gridline" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, y, y)
        for y in (0, HEIGHT // 2, HEIGHT)
    )
    y = Markup("").join(Markup("<span>{}</span>").format(each) for each in scale)
    return Markup(
        '<figure><div class="chart{low}"><div class="y" aria-hidden="true">{y}</div>'
        '<div class="plot"><svg viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img"'
        ' aria-label="{title}">{grid}{drawn}</svg></div>{axis}</div>{legend}{table}</figure>'
    ).format(
        low=" low" if low else "",
        y=y,
        w=WIDTH,
        h=HEIGHT,
        title=caption.title,
        grid=grid,
        drawn=drawn,
        axis=axis,
        legend=legend,
        table=table,
    )


def _legend(names: Sequence[str], kind: str) -> Markup:
    if len(names) < 2:
        return Markup("")
    entries = Markup("").join(
        Markup(
            '<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{}-{}" width="10"'
            ' height="10" rx="2.5"/></svg>{}</li>'
        ).format(kind, _colour(number), name)
        for number, name in enumerate(names)
    )
    return Markup('<ul class="legend">{}</ul>').format(entries)


def _table(labels: Sequence[str], series: Sequence[Series], say: Say, caption: Caption) -> Markup:
    rows = [
        [label, *(say(each.values[place]) for each in series)] for place, label in enumerate(labels)
    ]
    return _fold([caption.slot, *(each.name or caption.title for each in series)], rows, caption)


def _points_table(curves: Sequence[Curve], say_x: Say, say_y: Say, caption: Caption) -> Markup:
    """At most 50 rows of each curve: a table is read, not plotted."""
    rows = [
        [curve.name, say_x(x), say_y(y)]
        for curve in curves
        for x, y in curve.points[:: max(1, math.ceil(len(curve.points) / 50))]
    ]
    return _fold(["", caption.slot, caption.title], rows, caption)


def _fold(head: Sequence[str], rows: Sequence[Sequence[str]], caption: Caption) -> Markup:
    heads = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(
            Markup(' class="num"') if place else Markup(""), each
        )
        for place, each in enumerate(head)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="num">{}</td>').format(cell)
                if place
                else Markup('<th scope="row">{}</th>').format(cell)
                for place, cell in enumerate(row)
            )
        )
        for row in rows
    )
    return Markup(
        '<details class="more as-table"><summary>{}</summary><div class="scroll" tabindex="0"'
        ' role="region" aria-label="{}"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
        "</div></details>"
    ).format(caption.as_table, caption.title, heads, body)


def _thinned(labels: Sequence[str]) -> list[str]:
    """At most :data:`MOST_LABELS` of the labels, evenly; the others empty."""
    step = max(1, math.ceil(len(labels) / MOST_LABELS))
    return [
        label if (len(labels) - 1 - place) % step == 0 else "" for place, label in enumerate(labels)
    ]


def _fewer(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most :data:`MOST_POINTS`, each the mean of its neighbours, with both ends as they are."""
    if len(points) <= MOST_POINTS:
        return points
    edges = [round(part * len(points) / MOST_POINTS) for part in range(MOST_POINTS + 1)]
    found = [
        (
            sum(x for x, _ in points[begin:end]) / (end - begin),
            sum(y for _, y in points[begin:end]) / (end - begin),
        )
        for begin, end in pairwise(edges)
    ]
    return [points[0], *found[1:-1], points[-1]]


def _span(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero and low >= 0:
        return 0.0, nice(high)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _colour(number: int) -> int:
    return min(number, COLOURS - 1) + 1


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
