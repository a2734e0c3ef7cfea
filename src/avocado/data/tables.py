"""Tables: CSV, TSV and Parquet, read in small batches; a cell without a value is no column.

Knows how cells become values; no shape of a row. Parquet needs pyarrow, imported only then.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import date, time
from pathlib import Path
from typing import Any, BinaryIO, Final

from avocado.data import lines
from avocado.data.lines import Row
from avocado.data.rejection import Rejection
from avocado.errors import Refused

BATCH: Final = 64
"""Rows of a columnar file that are in memory at once."""


def delimited(path: Path, name: str, delimiter: str) -> Iterator[Row | Rejection]:
    """The rows of a CSV or TSV file under its header, numbered from 1.

    Raises:
        Refused: its header names a column twice or not at all.
    """
    csv.field_size_limit(lines.MAX_ROW_BYTES)
    with lines.opened(path) as handle:
        reader = csv.reader(_texts(handle), delimiter=delimiter, strict=True)
        header: list[str] | None = None
        row = 0
        try:
            for cells in reader:
                if header is None:
                    header = _header(path, cells) if any(map(str.strip, cells)) else None
                    continue
                if not cells:
                    continue
                row += 1
                yield _cells(header, cells, name, row)
        except (csv.Error, _LineTooLong) as error:
            detail = f"{error}; nothing from there on can be read"
            yield Rejection(name, row + 1, "not a table", detail)


class _LineTooLong(ValueError):
    """A line that is longer than a row may be."""


def _texts(handle: BinaryIO) -> Iterator[str]:
    """Lines as text. A byte that is no UTF-8 becomes a surrogate, which no cell may hold."""
    for number, line in lines.lines(handle):
        if line is None:
            raise _LineTooLong(f"line {number} is longer than {lines.MAX_ROW_BYTES // 2**20} MiB")
        yield line.decode("utf-8", "surrogateescape")


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if not name or not name.isprintable():
            raise Refused(f"{path}: its first line must name every column, and {name!r} is no name")
        if names.count(name) > 1:
            raise Refused(f"{path}: its first line names the column {name!r} twice")
    return names


def _cells(header: list[str], cells: list[str], name: str, row: int) -> Row | Rejection:
    if len(cells) != len(header):
        detail = f"it has {len(cells)} cells where the first line names {len(header)} columns"
        return Rejection(name, row, "not a table", detail)
    for column, cell in zip(header, cells, strict=True):
        if not cell.isascii() and any("\udc80" <= each <= "\udcff" for each in cell):
            return Rejection(name, row, "not UTF-8", f"{column} is not valid UTF-8")
    return row, {column: cell for column, cell in zip(header, cells, strict=True) if cell}


def parquet(path: Path, name: str) -> Iterator[Row | Rejection]:
    """The rows of a Parquet file, numbered from 1.

    Raises:
        Refused: pyarrow is not installed, or it is no Parquet file.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError:
        raise Refused(f"{path}: Parquet needs pyarrow: pip install 'avocado-llm[models]'") from None
    try:
        with path.open("rb") as handle:
            file = pq.ParquetFile(handle, pre_buffer=False, buffer_size=1 << 20)
            yield from batches(file.iter_batches(BATCH), name)
    except pa.ArrowInvalid as error:
        raise Refused(f"{path} is no Parquet file: {error}") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error


def batches(found: Iterable[Any], name: str) -> Iterator[Row | Rejection]:
    """The rows of Arrow batches or tables, numbered from 1.

    A struct's field without a value is left out: a columnar file cannot tell it from one that was
    never there.
    """
    row = 0
    for batch in found:
        try:
            values = batch.to_pylist()
        except UnicodeDecodeError:
            values = [_one(batch, place) for place in range(batch.num_rows)]
        for value in values:
            row += 1
            if value is None:
                yield Rejection(name, row, "not UTF-8", "a text in it is not valid UTF-8")
            else:
                yield row, _plain(value)


def _one(batch: Any, place: int) -> Any:
    try:
        return batch.slice(place, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _plain(value: Any) -> Any:
    """Nothing but what JSON has, where that is possible; dates become ISO 8601 texts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date | time) else value
