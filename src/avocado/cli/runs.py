"""``avocado runs``: what was trained in this workspace, how it went, and how runs differ."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.cli.arguments import EXISTING, workspace_here
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from avocado.train.history import RunRecord

PLOT = click.option("--plot", type=EXISTING, metavar="FILE.png", help="Also write the curves.")
KEY = click.option("--key", default="loss", show_default=True, help="The number to plot.")


def _find(name: str) -> RunRecord:
    from avocado.train.history import read_run, read_runs

    root = workspace_here().state / "runs"
    if (root / name / "run.json").is_file() and Path(name).name == name:
        return read_run(root / name)
    known = ", ".join(run.name for run in read_runs(root)) or "none"
    raise Refused(f"there is no run {name!r} in this workspace (there are: {known})")


def _loss(run: RunRecord) -> str:
    return "" if run.loss is None else f"{run.loss:.4f}"


def _plot(out: Output, runs: Sequence[RunRecord], key: str, path: Path | None) -> None:
    from avocado.train import curves

    if not out.json and all(run.metrics for run in runs):
        out.say(curves.terminal(runs, key))
    if path is not None:
        curves.png(runs, path, key)
        out.say(f"wrote {path}")


@click.group()
def runs() -> None:
    """List, show and compare training runs."""


@runs.command("list")
@with_output
def list_(out: Output) -> None:
    """The runs of this workspace, newest first."""
    from avocado.train.history import read_runs

    found = read_runs(workspace_here().state / "runs")
    if out.json:
        out.result([run.to_json() for run in found])
        return
    if not found:
        out.say("no run yet: avocado train RECIPE")
        return
    rows = [
        (
            run.name,
            run.state,
            f"{run.steps:,}",
            _loss(run),
            f"{run.tokens:,}",
            datetime.fromtimestamp(run.changed, UTC).strftime("%Y-%m-%d %H:%M"),
            short(run.checkpoint) if run.checkpoint else "",
        )
        for run in found
    ]
    out.table(("run", "state", "steps", "loss", "tokens", "last step, UTC", "checkpoint"), rows)


@runs.command()
@click.argument("name")
@KEY
@PLOT
@with_output
def show(out: Output, name: str, key: str, plot: Path | None) -> None:
    """The run NAME with its curve."""
    run = _find(name)
    lines = [
        f"{run.name}: {run.state}, {run.steps:,} steps, {run.tokens:,} tokens, "
        f"loss {_loss(run) or 'none yet'}",
    ]
    if run.checkpoint:
        lines.append(f"made {short(run.checkpoint)}")
    if run.plan is not None:
        from avocado.train.budget import compared

        lines += compared(run.plan["planned"], run.plan["actual"])
    if run.state == "interrupted":
        lines.append(f"it can go on from step {run.resumable_from}: avocado train … --resume")
    out.result({**run.to_json(), "metrics": list(run.metrics)}, *lines)
    _plot(out, [run], key, plot)


@runs.command()
@click.argument("names", nargs=-1, required=True)
@KEY
@PLOT
@with_output
def compare(out: Output, names: tuple[str, ...], key: str, plot: Path | None) -> None:
    """How the runs NAMES differ in recipe and result, with their curves in one plot."""
    from avocado.train.history import compared

    if len(set(names)) < 2:
        raise click.UsageError("name at least two different runs")
    found = [_find(name) for name in names]
    differing = compared(found)
    if out.json:
        out.result(
            {
                "runs": [run.to_json() for run in found],
                "differences": {
                    name: dict(zip(names, values, strict=True)) for name, values in differing
                },
            }
        )
    else:
        results: list[tuple[str, list[str]]] = [
            ("state", [str(run.state) for run in found]),
            ("steps", [f"{run.steps:,}" for run in found]),
            ("tokens", [f"{run.tokens:,}" for run in found]),
            ("loss", [_loss(run) for run in found]),
        ]
        rows = [[label, *values] for label, values in differing + results]
        out.table(("", *names), rows)
    _plot(out, found, key, plot)
