"""The charts of a scorecard as PNG, for slides and papers (matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from avocado.evaluate.report import Row, points, regressions_first
from avocado.evaluate.scorecard import Scorecard

_COLOURS: Final = {"better": "#3f7d2c", "worse": "#b3372c", "undecided": "#96700f"}
_BASE, _INK, _BLUR = "#a9b3a4", "#1d2a1c", "#eef1ea"


def write_plots(scorecard: Scorecard, folder: Path) -> tuple[Path, ...]:
    """Writes ``differences.png`` and ``scores.png`` into ``folder``."""
    rows = regressions_first(scorecard)[::-1]  # matplotlib counts from the bottom
    return (
        _differences(rows, scorecard.confidence, folder / "differences.png"),
        _scores(rows, folder / "scores.png"),
    )


def _figure(rows: list[Row]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False, colors=_INK)
    axes.set_yticks(range(len(rows)), [_plain(row.name) for row in rows])
    return figure, axes


def _plain(text: str) -> str:
    """A name is no formula: matplotlib would set ``$…$`` as mathematics."""
    return text.replace("$", r"\$")


def _differences(rows: list[Row], confidence: float, path: Path) -> Path:
    figure, axes = _figure(rows)
    for place, row in enumerate(rows):
        each, colour = row.compared, _COLOURS[row.word]
        blur = 100 * each.detectable
        axes.barh(place, 2 * blur, left=-blur, height=0.62, color=_BLUR, zorder=0)
        axes.plot([100 * each.low, 100 * each.high], [place, place], color=colour, lw=2, zorder=2)
        axes.plot(100 * each.difference, place, "o", color=colour, zorder=3)
        axes.annotate(
            points(each.difference),
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
        )
    axes.axvline(0, color=_INK, lw=1, zorder=1)
    axes.set_xlabel(
        f"difference to the base in points, {100 * confidence:g}% intervals; grey: smaller than "
        "this suite can show",
        color=_INK,
    )
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path


def _scores(rows: list[Row], path: Path) -> Path:
    figure, axes = _figure(rows)
    for place, row in enumerate(rows):
        each = row.compared
        base, other = 100 * each.base / each.n, 100 * each.other / each.n
        axes.barh(place + 0.2, base, height=0.36, color=_BASE)
        axes.barh(place - 0.2, other, height=0.36, color=_COLOURS[row.word])
        axes.text(base + 0.8, place + 0.2, f"{base:.1f}", va="center", fontsize=8, color=_INK)
        axes.text(other + 0.8, place - 0.2, f"{other:.1f}", va="center", fontsize=8, color=_INK)
    axes.set_xlim(0, 106)
    axes.set_xlabel("mean score in points; grey: base, coloured: refined", color=_INK)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    return path
