"""Steps over batches. Whoever runs a batch writes under the ``epoch`` that it took it in; a process
that lost it changes nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from avocado.gateway.batches.rows import NANO, BatchRow, columns, values
from avocado.gateway.batches.store import LIVING, now_of, page_of, row_of
from avocado.gateway.shelf import Database, PostgresDatabase

_BATCH: Final = columns(BatchRow)
# What is put into SQL below are names of columns and states of ours, never what a client sent.
# ruff: noqa: S608


def add_batch(database: Database, row: BatchRow) -> None:
    marks = ", ".join("?" * len(BatchRow.__struct_fields__))
    database.run(
        f"INSERT INTO gateway_batch ({_BATCH}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING",
        values(row),
    )


def alive_of(database: Database, tenant: str) -> int:
    found = database.run(
        f"SELECT count(*) FROM gateway_batch WHERE tenant = ? AND status IN ({LIVING})", (tenant,)
    )
    return int(found[0][0])


def batch_of(database: Database, batch: str, tenant: str | None = None) -> BatchRow | None:
    """A batch; with a ``tenant`` only where it is that customer's."""
    found = database.run(f"SELECT {_BATCH} FROM gateway_batch WHERE id = ?", (batch,))
    row = row_of(BatchRow, found[0]) if found else None
    return None if row is None or (tenant is not None and row.tenant != tenant) else row


def all_batches(
    database: Database, front: str, tenant: str | None = None, limit: int = 2
) -> list[BatchRow]:
    """Of all customers, or of one, those whose ids begin with ``front``; newest first."""
    found = database.run(
        f"SELECT {_BATCH} FROM gateway_batch WHERE substr(id, 1, {len(front)}) = ?"
        " AND tenant = coalesce(?, tenant) ORDER BY at DESC, id DESC LIMIT ?",
        (front, tenant, limit),
    )
    return [row_of(BatchRow, each) for each in found]


def cancel(database: Database, batch: str) -> BatchRow | None:
    """Asks whoever runs it to stop; a batch that has ended or is being cancelled stays as it is."""
    database.run(
        "UPDATE gateway_batch SET status = 'cancelling', cancelling = ? WHERE id = ?"
        " AND status IN ('validating', 'in_progress', 'finalizing')",
        (int(time.time()), batch),
    )
    return batch_of(database, batch)


def claim(database: Database, owner: str, lease: float, most: int, each: int) -> list[BatchRow]:
    """Takes up to ``most`` batches that nobody runs, the oldest first, and of one customer so many
    that ``each`` of its batches run in all."""
    now = now_of(database)
    ranked = (
        "SELECT id, at, owner IS NULL OR lease < ? AS free, row_number() OVER (PARTITION BY tenant"
        " ORDER BY CASE WHEN owner IS NULL OR lease < ? THEN 1 ELSE 0 END, at) AS place"
        f" FROM gateway_batch WHERE status IN ({LIVING})"
    )
    free = database.run(
        f"SELECT id FROM ({ranked}) AS ranked WHERE free AND place <= ? ORDER BY place, at LIMIT ?",
        (now, now, each, most),
    )
    taken = []
    for (batch,) in free:
        found = database.run(
            "UPDATE gateway_batch SET owner = ?, epoch = epoch + 1, lease = ? WHERE id = ?"
            f" AND (owner IS NULL OR lease < ?) RETURNING {_BATCH}",
            (owner, now + int(lease * NANO), batch, now),
        )
        taken += [row_of(BatchRow, row) for row in found]
    return taken


def renew(database: Database, owner: str, lease: float) -> list[BatchRow]:
    """Keeps all that the owner runs, and returns it as it stands."""
    found = database.run(
        f"UPDATE gateway_batch SET lease = ? WHERE owner = ? AND status IN ({LIVING})"
        f" RETURNING {_BATCH}",
        (now_of(database) + int(lease * NANO), owner),
    )
    return [row_of(BatchRow, each) for each in found]


def release(database: Database, owner: str) -> None:
    """Lets go of all that the owner runs, so that another need not wait for its lease to end."""
    database.run("UPDATE gateway_batch SET owner = NULL, lease = 0 WHERE owner = ?", (owner,))


def turn(
    database: Database, batch: BatchRow, since: Sequence[str], status: str, /, **more: Any
) -> BatchRow | None:
    """Moves a batch on from one of the statuses ``since``, with ``more`` columns; None where it
    isn't ours any more or stands elsewhere. Where it stands at ``status`` already it is done."""
    names = "".join(f", {name} = ?" for name in more)
    marks = ", ".join("?" * len(since))
    database.run(
        f"UPDATE gateway_batch SET status = ?{names} WHERE id = ? AND epoch = ?"
        f" AND status IN ({marks})",
        (status, *more.values(), batch.id, batch.epoch, *since),
    )
    row = batch_of(database, batch.id)
    return row if row and row.epoch == batch.epoch and row.status == status else None


def note(database: Database, batch: BatchRow, said: str | None) -> None:
    database.run(
        "UPDATE gateway_batch SET note = ? WHERE id = ? AND epoch = ?",
        (said, batch.id, batch.epoch),
    )


def batches_of(database: Database, tenant: str, after: str, limit: int) -> list[BatchRow] | None:
    return page_of(
        database, BatchRow, "gateway_batch", ["tenant = ?"], [tenant], after, limit, True
    )


def ours(database: Database, batch: BatchRow) -> bool:
    """Whether the epoch that we took the batch in still stands; locked until the commit."""
    lock = " FOR UPDATE" if isinstance(database, PostgresDatabase) else ""
    found = database.run(f"SELECT epoch FROM gateway_batch WHERE id = ?{lock}", (batch.id,))
    return bool(found) and int(found[0][0]) == batch.epoch
