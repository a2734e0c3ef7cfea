"""The chart of a scorecard as inline SVG: two bars a language, each with its Wilson interval."""

from __future__ import annotations

from html import escape

from avocado.evaluate.compare import wilson
from avocado.evaluate.report import percent, rows, verdict
from avocado.evaluate.scorecard import Scorecard

_LEFT, _WIDTH, _BAR, _ROW, _TOP = 110, 640, 13, 46, 26
"""Pixels: room for names, length of 100%, a bar's and a row's height, room for the axis."""


def chart(scorecard: Scorecard) -> str:
    """Colours come from the page's classes, so the chart follows light and dark."""
    shown = list(rows(scorecard))
    height = _TOP + _ROW * len(shown) + 4
    parts = [
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 70} {height}" role="img" '
        f'aria-label="Right answers of base and refined model per language">'
    ]
    for share in (0, 25, 50, 75, 100):
        x = _x(share / 100)
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{height}"/>')
        parts.append(f'<text class="soft" x="{x}" y="14" text-anchor="middle">{share}%</text>')
    for place, (name, each) in enumerate(shown):
        top = _TOP + place * _ROW + 6
        label = name if len(name) <= 14 else name[:13] + "…"
        parts.append(f'<text x="0" y="{top + _BAR + 4}">{escape(label)}</text>')
        parts.append(_bar(top, each.base, each.n, "base", scorecard.confidence))
        parts.append(_bar(top + _BAR + 3, each.other, each.n, verdict(each), scorecard.confidence))
    return "".join(parts) + "</svg>"


def _x(rate: float) -> float:
    return round(_LEFT + rate * _WIDTH, 1)


def _bar(top: int, right: int, n: int, mark: str, confidence: float) -> str:
    low, high = wilson(right, n, confidence)
    middle = top + _BAR / 2
    width = round(max(right / n * _WIDTH, 1.5), 1)
    return (
        f'<rect class="{mark}" x="{_LEFT}" y="{top}" width="{width}" height="{_BAR}" rx="2"/>'
        f'<line class="range" x1="{_x(low)}" x2="{_x(high)}" y1="{middle}" y2="{middle}"/>'
        f'<text class="soft" x="{_x(high) + 6}" y="{middle + 4}">{percent(right / n)}</text>'
    )
