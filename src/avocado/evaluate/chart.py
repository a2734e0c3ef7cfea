"""The charts of a scorecard as inline SVG. Colours come from the page's classes, so that they
follow light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from avocado.evaluate.intervals import wilson
from avocado.evaluate.report import Row, percent, points

_LEFT, _WIDTH, _RIGHT = 190, 520, 90
"""Pixels: room for names, length of the scale, room for values."""

_BAR, _ROW, _TOP = 12, 44, 26
"""Pixels: a bar's and a row's height, room for the axis."""


def differences(rows: Sequence[Row], confidence: float) -> str:
    """A dot with its interval a row, against the line of no difference; a pale band shows what the
    row could not have told from nothing."""
    height = _TOP + 30 * len(rows) + 6
    reach = max(0.05, *(max(abs(r.compared.low), abs(r.compared.high)) for r in rows))
    reach = min(1.0, next(each for each in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if reach <= each))

    def x(difference: float) -> float:
        return round(_LEFT + (difference / reach + 1) / 2 * _WIDTH, 1)

    label = f"Difference to the base in points, with {100 * confidence:g}% intervals"
    parts = [_open(height, label)]
    for share in (-1, -0.5, 0, 0.5, 1):
        mark = "axis zero" if share == 0 else "axis"
        parts.append(_line(mark, x(share * reach), height))
        text = "0" if share == 0 else f"{100 * share * reach:+g}".replace("-", "−")
        parts.append(_text(x(share * reach), 14, text, "middle", "soft"))
    for place, row in enumerate(rows):
        middle = _TOP + 30 * place + 15
        each, word = row.compared, row.word
        blur = min(each.detectable, reach)
        parts.append(_name(row, middle + 4))
        parts.append(
            f'<rect class="blur" x="{x(-blur)}" y="{middle - 9}" height="18" '
            f'width="{round(x(blur) - x(-blur), 1)}" rx="3"/>'
            f'<line class="whisker {word}" x1="{x(each.low)}" x2="{x(each.high)}" '
            f'y1="{middle}" y2="{middle}"/>'
            f'<circle class="{word}" cx="{x(each.difference)}" cy="{middle}" r="5"/>'
        )
        parts.append(_text(_LEFT + _WIDTH + 12, middle + 4, points(each.difference), "start", word))
    return "".join(parts) + "</svg>"


def scores(rows: Sequence[Row], confidence: float) -> str:
    """Two bars a row, base and refined, each with its Wilson interval."""
    height = _TOP + _ROW * len(rows) + 4
    parts = [_open(height, "Scores of base and refined model per suite and language")]
    for share in (0, 25, 50, 75, 100):
        at = _x(share / 100)
        parts.append(_line("axis", at, height))
        parts.append(_text(at, 14, f"{share}%", "middle", "soft"))
    for place, row in enumerate(rows):
        top = _TOP + place * _ROW + 6
        each = row.compared
        parts.append(_name(row, top + _BAR + 4))
        parts.append(_bar(top, each.base, each.n, "base", confidence))
        parts.append(_bar(top + _BAR + 3, each.other, each.n, row.word, confidence))
    return "".join(parts) + "</svg>"


def _open(height: int, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img" '
        f'aria-label="{escape(label)}">'
    )


def _line(mark: str, x: float, height: int) -> str:
    return f'<line class="{mark}" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{height}"/>'


def _text(x: float, y: float, text: str, anchor: str, mark: str) -> str:
    return f'<text class="{mark}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def _name(row: Row, y: float) -> str:
    name = row.name
    shown = name if len(name) <= 25 else name[:24] + "…"
    weight = ' class="whole"' if row.whole else ""
    return f'<text{weight} x="0" y="{y}">{escape(shown)}<title>{escape(name)}</title></text>'


def _x(rate: float) -> float:
    return round(_LEFT + rate * _WIDTH, 1)


def _bar(top: int, right: float, n: int, mark: str, confidence: float) -> str:
    low, high = wilson(right, n, confidence)
    middle = top + _BAR / 2
    width = round(max(right / n * _WIDTH, 1.5), 1)
    return (
        f'<rect class="{mark}" x="{_LEFT}" y="{top}" width="{width}" height="{_BAR}" rx="2"/>'
        f'<line class="range" x1="{_x(low)}" x2="{_x(high)}" y1="{middle}" y2="{middle}"/>'
        f'<text class="soft" x="{_x(high) + 6}" y="{middle + 4}">{percent(right / n)}</text>'
    )
