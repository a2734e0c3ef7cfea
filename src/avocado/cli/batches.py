"""``avocado batches``: what customers have given in files to be run, how far it is, and an end to
it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avocado.cli.arguments import workspace_here
from avocado.cli.output import Output, with_output
from avocado.errors import Refused

if TYPE_CHECKING:
    from avocado.gateway.batches.rows import BatchRow
    from avocado.gateway.shelf import Database


@contextmanager
def _files() -> Iterator[Database | None]:
    """The tables of files and batches, which may be changed beside a running server; None where no
    server has made them yet."""
    from avocado.gateway.batches.store import prepare
    from avocado.gateway.shelf import ShelfUnavailable, open_database

    workspace = workspace_here()
    target: Path | str = workspace.config.ledger.url or workspace.state / "files.sqlite"
    if isinstance(target, Path) and not target.exists():
        yield None
        return
    try:
        database = open_database(target)
        try:
            prepare(database)
            yield database
        finally:
            database.close()
    except ShelfUnavailable as error:
        raise Refused(str(error)) from error


def _find(database: Database | None, name: str) -> BatchRow:
    """A batch by its id, or by the front of it."""
    from avocado.gateway.batches.stored_batches import all_batches

    found = [] if database is None else all_batches(database, name)
    exact = [row for row in found if row.id == name]
    if not exact and len(found) != 1:
        which = f"{len(found)} batches begin with" if found else "there is no batch"
        raise Refused(f"{which} {name!r}: see avocado batches list")
    return (exact or found)[0]


def _json(row: BatchRow) -> dict[str, Any]:
    from avocado.gateway.batches.wire import batch_shown, encode

    shown: dict[str, Any] = json.loads(encode(batch_shown(row)))
    return {"customer": row.tenant, "key": row.key_id, **shown}


def _when(seconds: int | None) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M") if seconds else ""


@click.group()
def batches() -> None:
    """List, show and cancel customers' batches of requests."""


@batches.command("list")
@click.option("--customer", metavar="NAME", help="Only this customer's.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most."
)
@with_output
def list_(out: Output, customer: str | None, limit: int) -> None:
    """The batches of all customers, newest first."""
    from avocado.gateway.batches.stored_batches import all_batches

    with _files() as database:
        found = [] if database is None else all_batches(database, "", customer, limit)
    if out.json:
        out.result([_json(row) for row in found])
        return
    if not found:
        out.say("no batch yet: customers send them to POST /v1/batches")
        return
    rows = [
        (
            row.id,
            row.tenant,
            row.status + (" (paused)" if row.note and row.ended is None else ""),
            f"{row.total:,}",
            f"{row.completed:,}",
            f"{row.failed:,}",
            _when(row.created),
            _when(row.ended),
        )
        for row in found
    ]
    columns = ("batch", "customer", "status", "lines", "done", "failed", "made, UTC", "ended, UTC")
    out.table(columns, rows)


@batches.command()
@click.argument("batch")
@with_output
def show(out: Output, batch: str) -> None:
    """One batch, by its id or the front of it."""
    with _files() as database:
        row = _find(database, batch)
    lines = [
        f"{row.id}  {row.status}",
        f"customer {row.tenant}, key {row.key_id}, {row.endpoint}, model {row.model or '-'}",
        f"{row.total:,} lines: {row.completed:,} done, {row.failed:,} failed",
        f"{row.prompt:,} prompt tokens, {row.completion:,} completion tokens",
        f"made {_when(row.created)}, its window ends {_when(row.expires)} UTC",
    ]
    if row.note and row.ended is None:
        lines.append(f"paused: {row.note}")
    for error in json.loads(row.errors)["data"] if row.errors != "null" else ():
        lines.append(f"line {error['line']}: {error['message']}")
    out.result(_json(row), *lines)


@batches.command()
@click.argument("batch")
@with_output
def cancel(out: Output, batch: str) -> None:
    """End a batch: what runs is finished and paid, nothing more begins."""
    from avocado.gateway.batches import stored_batches

    with _files() as database:
        row = _find(database, batch)
        assert database is not None, "there is a batch"
        if row.ended is not None:
            raise Refused(f"{row.id} has ended already: {row.status}")
        with database.transaction():
            row = stored_batches.cancel(database, row.id) or row
    out.result(_json(row), f"{row.id} is {row.status}: the server that runs it ends it in a moment")
