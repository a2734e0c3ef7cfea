"""What a command says: text for people, one JSON value for programs, progress for the patient."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

P = ParamSpec("P")
R = TypeVar("R")

Report = Callable[[int, int, str], None]
"""Tells progress: (done, total, a few words)."""


PIPE_WIDTH = 120
"""Columns of a table that nobody's terminal bounds."""


@dataclass(frozen=True)
class Output:
    """Where a command's words go. With ``json`` only :meth:`result` prints to standard output."""

    json: bool = False

    def say(self, text: str = "") -> None:
        """A line for people; with ``--json`` it goes to standard error, so that output is JSON."""
        click.echo(text, err=self.json)

    def result(self, value: Any, *lines: str) -> None:
        """The command's result: ``value`` with ``--json``, else ``lines``."""
        if self.json:
            click.echo(json.dumps(value, indent=2, ensure_ascii=False))
        else:
            for line in lines:
                click.echo(line)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
    ) -> None:
        """A table for people. Columns that hold only numbers stand to the right."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
        for index, column in enumerate(columns):
            cells = [row[index] for row in rows]
            numeric = bool(cells) and all(cell[:1] in "+-0123456789" for cell in cells if cell)
            table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))  # Text: a customer's [brackets] are no markup
        self.show(table)

    def show(self, renderable: RenderableType) -> None:
        """Prints something that rich draws."""
        from rich.console import Console

        console = Console(stderr=self.json, highlight=False)
        if not console.is_terminal:
            console.width = PIPE_WIDTH
        console.print(renderable)

    @contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        """A moving bar on a terminal; elsewhere a plain line every few seconds and at the end."""
        if sys.stderr.isatty():
            yield from self._bar(title)
        else:
            yield self._lines(title)

    def _bar(self, title: str) -> Iterator[Report]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            Remaining(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=None, note="")
            yield lambda done, total, note: bar.update(task, completed=done, total=total, note=note)

    def _lines(self, title: str, every: float = 5.0) -> Report:
        said = [0.0]

        def report(done: int, total: int, note: str) -> None:
            now = time.monotonic()
            if done >= total or now - said[0] >= every:
                said[0] = now
                click.echo(f"  {title} {done}/{total}  {note}".rstrip(), err=True)

        return report


class Silent(Output):
    """Says nothing: what a process prints when another one of its team speaks for all."""

    def say(self, text: str = "") -> None: ...

    def result(self, value: Any, *lines: str) -> None: ...

    def show(self, renderable: RenderableType) -> None: ...

    @contextmanager
    def progress(self, title: str) -> Iterator[Report]:
        yield lambda _done, _total, _note: None


def with_output(command: Callable[Concatenate[Output, P], R]) -> Callable[P, R]:
    """Gives a command ``--json`` and an :class:`Output` as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")
    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        as_json = bool(kwargs.pop("as_json"))
        return command(Output(as_json), *args, **kwargs)

    return wrapped
