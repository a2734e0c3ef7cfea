"""Steps over the lines of a batch: each ends once, under the batch's epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from avocado.gateway.batches.rows import (
    ANSWERED,
    DONE,
    FAILED,
    PENDING,
    BatchRow,
    LineRow,
    columns,
    values,
)
from avocado.gateway.batches.store import row_of
from avocado.gateway.batches.stored_batches import ours
from avocado.gateway.shelf import Database
from avocado.terms.usage import Usage

_LINE: Final = columns(LineRow)
# What is put into SQL below are names of columns and states of ours, never what a client sent.
# ruff: noqa: S608


class _Body(msgspec.Struct):
    body: msgspec.Raw


_body_of = msgspec.json.Decoder(_Body).decode


def body_in(line: bytes) -> bytes:
    """What a line asks of the API, byte for byte."""
    return bytes(_body_of(line).body)


def add_lines(database: Database, batch: BatchRow, found: Sequence[LineRow]) -> None:
    if not ours(database, batch):
        return
    marks = ", ".join("?" * len(LineRow.__struct_fields__))
    sql = (
        f"INSERT INTO gateway_line ({_LINE}) VALUES ({marks}) ON CONFLICT (batch, line) DO NOTHING"
    )
    for row in found:
        database.run(sql, values(row))


def lines_of(
    database: Database, batch: str, state: str, after: int, limit: int, bodies: bool = False
) -> list[LineRow]:
    """Lines in a state, in the file's order; their answers only where ``bodies`` are wanted."""
    fields = _LINE if bodies else _LINE.replace("body", "NULL")
    found = database.run(
        f"SELECT {fields} FROM gateway_line WHERE batch = ? AND state = ? AND line > ?"
        " ORDER BY line LIMIT ?",
        (batch, state, after, limit),
    )
    return [row_of(LineRow, each) for each in found]


def line_of(database: Database, batch: str, line: int) -> LineRow | None:
    found = database.run(
        f"SELECT {_LINE} FROM gateway_line WHERE batch = ? AND line = ?", (batch, line)
    )
    return row_of(LineRow, found[0]) if found else None


def answer(database: Database, batch: BatchRow, line: int, hold: str, body: bytes) -> bool:
    """Keeps what was generated under ``hold``, before it is paid; False where it must not be,
    because another process runs the batch or the line has its answer."""
    if not ours(database, batch):
        return False
    found = database.run(
        "UPDATE gateway_line SET state = ?, hold = ?, body = ? WHERE batch = ? AND line = ?"
        " AND (state = ? OR (state = ? AND hold = ?)) RETURNING line",
        (ANSWERED, hold, body, batch.id, line, PENDING, ANSWERED, hold),
    )
    return bool(found)


def again(database: Database, batch: BatchRow, line: int) -> None:
    """The line's answer was not paid, or there was none: it is to be run once more."""
    if ours(database, batch):
        database.run(
            "UPDATE gateway_line SET state = ?, tries = tries + 1, hold = NULL, body = NULL"
            " WHERE batch = ? AND line = ? AND state IN (?, ?)",
            (PENDING, batch.id, line, PENDING, ANSWERED),
        )


def end_line(
    database: Database,
    batch: BatchRow,
    line: int,
    state: str,
    status: int,
    request: str | None,
    body: bytes,
    usage: Usage,
) -> bool:
    """The line is over, once: done with an answer that was paid, or failed with an error. False
    where it was over before, or the batch is another's."""
    if not ours(database, batch):
        return False
    if not database.run(
        "UPDATE gateway_line SET state = ?, status = ?, hold = ?, body = ? WHERE batch = ?"
        " AND line = ? AND state IN (?, ?) RETURNING line",
        (state, status, request, body, batch.id, line, PENDING, ANSWERED),
    ):
        return False
    counted = "completed" if state == DONE else "failed"
    database.run(
        f"UPDATE gateway_batch SET {counted} = {counted} + 1, prompt = prompt + ?,"
        " cached = cached + ?, completion = completion + ?, reasoning = reasoning + ?"
        " WHERE id = ?",
        (usage.prompt, usage.cached, usage.completion, usage.reasoning, batch.id),
    )
    return True


def expire_lines(database: Database, batch: BatchRow) -> None:
    """What has not begun fails; the error file says so."""
    if not ours(database, batch):
        return
    found = database.run(
        "UPDATE gateway_line SET state = ?, status = 0 WHERE batch = ? AND state = ?"
        " RETURNING line",
        (FAILED, batch.id, PENDING),
    )
    if found:
        database.run(
            "UPDATE gateway_batch SET failed = failed + ? WHERE id = ?", (len(found), batch.id)
        )


def has_expired(database: Database, batch: str) -> bool:
    """Whether the window ended before the last line."""
    return bool(
        database.run(
            "SELECT line FROM gateway_line WHERE batch = ? AND state = ? AND status = 0 LIMIT 1",
            (batch, FAILED),
        )
    )
