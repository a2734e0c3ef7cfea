"""Steps over files: rows, and contents in chunks. ``store`` says what a step is."""

from __future__ import annotations

import time
from typing import Final

from avocado.gateway.batches.rows import CHUNK, GONE, READY, UPLOADING, FileRow, columns, values
from avocado.gateway.batches.store import LIVING, page_of, row_of
from avocado.gateway.shelf import Database

_FILE: Final = columns(FileRow)
# What is put into SQL below are names of columns and states of ours, never what a client sent.
# ruff: noqa: S608


def add_file(database: Database, row: FileRow) -> None:
    marks = ", ".join("?" * len(FileRow.__struct_fields__))
    database.run(
        f"INSERT INTO gateway_file ({_FILE}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING",
        values(row),
    )


def append(database: Database, file: str, place: int, body: bytes) -> bool:
    """Stores chunk ``place``; False where the file is gone meanwhile."""
    if not database.run(
        "UPDATE gateway_file SET bytes = ? WHERE id = ? AND state = ? RETURNING id",
        (place * CHUNK + len(body), file, UPLOADING),
    ):
        return False
    database.run(
        "INSERT INTO gateway_chunk (file, place, body) VALUES (?, ?, ?)"
        " ON CONFLICT (file, place) DO UPDATE SET body = excluded.body",
        (file, place, body),
    )
    return True


def space_of(database: Database, tenant: str) -> int:
    """Bytes of all that the customer keeps, uploads that run included."""
    found = database.run(
        "SELECT coalesce(sum(bytes), 0) FROM gateway_file WHERE tenant = ? AND state <> ?",
        (tenant, GONE),
    )
    return int(found[0][0])


def finish_file(database: Database, file: str, purpose: str, name: str, expires: int) -> FileRow:
    """The file is whole."""
    found = database.run(
        "UPDATE gateway_file SET state = ?, purpose = ?, filename = ?, expires = ? WHERE id = ?"
        f" RETURNING {_FILE}",
        (READY, purpose, name, expires, file),
    )
    return row_of(FileRow, found[0])


def forsake(database: Database, file: str) -> None:
    """The file is seen by nobody from now on."""
    database.run("UPDATE gateway_file SET state = ? WHERE id = ?", (GONE, file))


def file_of(database: Database, tenant: str, file: str) -> FileRow | None:
    """The customer's own file, while its time has not come."""
    found = database.run(
        f"SELECT {_FILE} FROM gateway_file WHERE id = ? AND tenant = ? AND state = ?"
        " AND expires > ?",
        (file, tenant, READY, int(time.time())),
    )
    return row_of(FileRow, found[0]) if found else None


def remove_file(database: Database, tenant: str, file: str) -> bool | str:
    """True where it is deleted, the batch that still reads it, or False: no such file."""
    if file_of(database, tenant, file) is None:
        return False
    reading = database.run(
        f"SELECT id FROM gateway_batch WHERE input = ? AND status IN ({LIVING}) LIMIT 1", (file,)
    )
    if reading:
        return str(reading[0][0])
    forsake(database, file)
    return True


def files_of(
    database: Database, tenant: str, purpose: str, after: str, limit: int, newest_first: bool
) -> list[FileRow] | None:
    """A page, or None where ``after`` is no file of the customer's."""
    where, given = ["tenant = ?", "state = ?", "expires > ?"], [tenant, READY, int(time.time())]
    if purpose:
        where.append("purpose = ?")
        given.append(purpose)
    return page_of(database, FileRow, "gateway_file", where, given, after, limit, newest_first)


def read(database: Database, file: str, start: int, size: int) -> bytes:
    """``size`` bytes from ``start`` on, less where the file ends."""
    found = database.run(
        "SELECT place, body FROM gateway_chunk WHERE file = ? AND place >= ? AND place <= ?"
        " ORDER BY place",
        (file, start // CHUNK, (start + max(size, 1) - 1) // CHUNK),
    )
    if not found:
        return b""
    whole = b"".join(bytes(body) for _, body in found)
    first = start - int(found[0][0]) * CHUNK
    return whole[first : first + size]
