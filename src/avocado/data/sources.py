"""Sources: files of OpenAI ``messages`` JSONL, read row by row into examples or rejections.

Streams: a file of any size needs the memory of its longest row. Knows the shape of a file; what a
row must hold is ``example``'s, and what a corpus accepts is ``checks``'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from avocado.data.example import Example, parse
from avocado.data.provenance import UNKNOWN
from avocado.data.rejection import InvalidRow, Rejection
from avocado.errors import Refused

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
"""A longer row is rejected unread: it is no conversation, and it would not fit in memory twice."""

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read and the ``name`` that it goes by: relative, so no machine's path is kept."""

    path: Path
    name: str


def find(sources: Iterable[Path]) -> list[SourceFile]:
    """The files of ``sources`` in the order given; a folder means its ``*.jsonl`` by name.

    Raises:
        Refused: a source is missing, is a folder without ``*.jsonl``, or holds no row.
    """
    found: list[SourceFile] = []
    for source in sources:
        if source.is_dir():
            files = sorted(path for path in source.rglob("*.jsonl") if path.is_file())
            if not files:
                raise Refused(f"{source} has no *.jsonl file: name a file or a folder of them")
            found += [SourceFile(path, path.relative_to(source).as_posix()) for path in files]
        elif source.is_file():
            found.append(SourceFile(source, source.name))
        else:
            raise Refused(f"there is no data file or folder {source}")
    if not found:
        raise Refused("no data is named: give at least one JSONL file")
    for file in found:
        if not _has_rows(file.path):
            raise Refused(f"{file.path} is empty: it needs one JSON object a line")
    return _told_apart(found)


def _told_apart(files: list[SourceFile]) -> list[SourceFile]:
    """Two files of one name get a number each, so that a row's origin stays unambiguous."""
    seen: Counter[str] = Counter()
    apart = []
    for file in files:
        seen[file.name] += 1
        number = seen[file.name]
        apart.append(file if number == 1 else SourceFile(file.path, f"{file.name} ({number})"))
    return apart


def read(file: SourceFile, licence: str = UNKNOWN) -> Iterator[Example | Rejection]:
    """Yields every row of ``file``, blank lines left out; ``licence`` holds where a row has none.

    Raises:
        Refused: the file cannot be opened.
    """
    try:
        with file.path.open("rb") as handle:
            for row, line in _lines(handle):
                if line is None:
                    detail = f"it is longer than {MAX_ROW_BYTES // 2**20} MiB"
                    yield Rejection(file.name, row, "row too long", detail)
                elif line.strip():
                    yield _row(line, file.name, row, licence)
    except OSError as error:
        raise Refused(f"{file.path} cannot be read: {error.strerror}") from error


def _has_rows(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            return any(line is None or line.strip() for _, line in _lines(handle))
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error


def _lines(handle: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Row number from 1 and its bytes, or None for a row beyond :data:`MAX_ROW_BYTES`."""
    row = 0
    while line := handle.readline(MAX_ROW_BYTES + 1):
        row += 1
        if len(line) > MAX_ROW_BYTES:
            while line and not line.endswith(b"\n"):
                line = handle.readline(MAX_ROW_BYTES)
            yield row, None
        else:
            yield row, line.removeprefix(_BOM) if row == 1 else line


def _row(line: bytes, name: str, row: int, licence: str) -> Example | Rejection:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            line.decode()
        except UnicodeDecodeError as bad:
            detail = f"byte {bad.start + 1} is not valid UTF-8"
            return Rejection(name, row, "not UTF-8", detail)
        return Rejection(name, row, "not JSON", f"it is not JSON: {error}")
    try:
        return parse(value, file=name, row=row, licence=licence)
    except InvalidRow as error:
        return Rejection(name, row, "not a conversation", str(error))
