"""Lines: text files opened, unpacked where they end in ``.gz``, and read line by line.

A file of any size needs the memory of its longest line, and a line longer than
:data:`MAX_ROW_BYTES` is passed over unread. Knows JSON Lines; no shape of a row.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from avocado.data.rejection import Rejection
from avocado.errors import Refused

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
"""A longer row is rejected unread: it is no conversation, and it would not fit in memory twice."""

BOM: Final = b"\xef\xbb\xbf"

Row = tuple[int, Any]
"""A row's number from 1 and its decoded value."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of ``path``, unpacked where its name ends in ``.gz``.

    Raises:
        Refused: it cannot be opened, read or unpacked, whenever that comes to light.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix.lower() == ".gz":
                with gzip.open(raw) as unpacked:
                    yield cast("BinaryIO", unpacked)
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"{path} cannot be unpacked: {error}") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error


def lines(handle: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Line number from 1 and its bytes, or None for a line beyond :data:`MAX_ROW_BYTES`."""
    number = 0
    while line := handle.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            while line and not line.endswith(b"\n"):
                line = handle.readline(MAX_ROW_BYTES)
            yield number, None
        else:
            yield number, line.removeprefix(BOM) if number == 1 else line


def too_long(name: str, row: int) -> Rejection:
    """The rejection of a row beyond :data:`MAX_ROW_BYTES`."""
    detail = f"it is longer than {MAX_ROW_BYTES // 2**20} MiB"
    return Rejection(name, row, "row too long", detail)


def decode(data: bytes, name: str, row: int) -> Row | Rejection:
    """One JSON value."""
    try:
        return row, msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            data.decode()
        except UnicodeDecodeError as bad:
            detail = f"byte {bad.start + 1} is not valid UTF-8"
            return Rejection(name, row, "not UTF-8", detail)
        return Rejection(name, row, "not JSON", f"it is not JSON: {error}")


def json_lines(path: Path, name: str) -> Iterator[Row | Rejection]:
    """The rows of a JSON Lines file; blank lines are none, and rows have their lines' numbers."""
    with opened(path) as handle:
        for number, line in lines(handle):
            if line is None:
                yield too_long(name, number)
            elif line.strip():
                yield decode(line, name, number)
