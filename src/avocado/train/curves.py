"""Curves: how a number fell or rose over the steps of runs, on a terminal or as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avocado.errors import Refused
from avocado.train.history import RunRecord

Points = tuple[list[int], list[float]]


def points(run: RunRecord, key: str, most: int = 400) -> Points:
    """(steps, values) of ``key``, each value the mean of its share of at most ``most`` points.

    Raises:
        Refused: the run logged no such number.
    """
    lines = [line for line in run.metrics if key in line]
    if not lines:
        known = sorted({name for line in run.metrics for name in line} - {"step"})
        raise Refused(f"run {run.name} logged no {key!r} (it has: {', '.join(known) or 'nothing'})")
    width = -(-len(lines) // most)
    groups = [lines[start : start + width] for start in range(0, len(lines), width)]
    steps = [int(group[-1]["step"]) for group in groups]
    return steps, [sum(line[key] for line in group) / len(group) for group in groups]


def terminal(runs: Sequence[RunRecord], key: str = "loss", width: int = 100) -> str:
    """The curves as text, ``width`` columns wide."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, 18)
    for run in runs:
        plotext.plot(*points(run, key, width), label=run.name)
    plotext.title(f"{key} by step")
    return str(plotext.uncolorize(plotext.build()))


def png(runs: Sequence[RunRecord], path: Path, key: str = "loss") -> None:
    """Writes the curves as an image.

    Raises:
        Refused: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for run in runs:
        axes.plot(*points(run, key), label=run.name, linewidth=1.4)
    axes.set_xlabel("step")
    axes.set_ylabel(key)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
