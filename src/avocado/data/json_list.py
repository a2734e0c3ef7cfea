"""JSON files: a list of rows, or an object with one such list, read element by element.

The bounds of each element are found in its bytes and the element is decoded by itself, so a file
of any size needs the memory of its longest row, and one bad row does not hide those after it. A
``.json`` file of JSON Lines, as many are, is read as that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from avocado.data import lines, shapes
from avocado.data.lines import Row
from avocado.data.rejection import Rejection
from avocado.errors import Refused

CHUNK: Final = 1 << 20

_PARTS: Final = re.compile(rb'[\[{]|[\]}]|"[^"\\]*(?:\\.[^"\\]*)*("?)', re.DOTALL)
"""What opens, what closes, and strings (group 1 is empty where the string does not end)."""

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_SCALAR: Final = re.compile(rb"[^,\]}\s:\[{\"]+")


class _Broken(ValueError):
    """The list cannot be followed any further."""


def rows(path: Path, name: str) -> Iterator[Row | Rejection]:
    """The rows of a ``.json`` file, numbered from 1.

    Raises:
        Refused: it holds no list of rows, or two of them.
    """
    if _is_json_lines(path):
        yield from lines.json_lines(path, name)
        return
    with lines.opened(path) as handle:
        reader = _Reader(handle)
        reader.take(lines.BOM)
        first = reader.peek()
        if first == b"[":
            yield from _elements(reader, name, end=True)
        elif first == b"{":
            yield from _object(reader, path, name)
        elif first:
            raise Refused(f"{path} is no JSON: it begins with {first.decode(errors='replace')!r}")


def _is_json_lines(path: Path) -> bool:
    """Whether the first line is an object by itself, and either a row or not the only line."""
    with lines.opened(path) as handle:
        begin = handle.read(CHUNK).removeprefix(lines.BOM).lstrip()
        if not begin.startswith(b"{"):
            return False
        handle.seek(0)
        found = (line for _, line in lines.lines(handle) if line is None or line.strip())
        first = next(found, None)
        if first is None:
            return False
        try:
            value = msgspec.json.decode(first)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return shapes.detect(value) is not None or next(found, None) is not None


def _object(reader: _Reader, path: Path, name: str) -> Iterator[Row | Rejection]:
    """The rows of the one list of an object whose other values are no lists."""
    listed: str | None = None
    reader.take(b"{")
    try:
        while reader.peek() not in (b"}", b""):
            key = _key(reader.value())
            if not reader.take(b":"):
                raise _Broken(f"a colon is missing after {key!r}")
            if reader.peek() != b"[":
                reader.value()
            elif listed is not None:
                raise Refused(f"{path} holds two lists, {listed!r} and {key!r}: keep one of them")
            elif shapes.detect({key: []}) is not None:
                raise Refused(f"{path} is one row, not a list of rows: put it into [ ]")
            else:
                listed = key
                yield from _elements(reader, name, end=False)
            reader.take(b",")
        if not reader.take(b"}"):
            raise _Broken("the file ends inside an object")
    except _Broken as error:
        raise Refused(f"{path} is no JSON: {error}") from error
    if listed is None:
        raise Refused(f"{path} holds no list of rows")


def _key(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Broken(f"a key is no text: {error}") from error


def _elements(reader: _Reader, name: str, *, end: bool) -> Iterator[Row | Rejection]:
    """The elements of the list that comes next; ``end`` says that nothing may follow it."""
    row = 0
    reader.take(b"[")
    try:
        while (following := reader.peek()) != b"]":
            row += 1
            if not following:
                raise _Broken("the file ends inside the list")
            yield lines.decode(reader.value(), name, row)
            if not reader.take(b",") and reader.peek() not in (b"]", b""):
                row += 1
                raise _Broken("a comma is missing before it")
        reader.take(b"]")
        if end and reader.peek():
            row += 1
            raise _Broken("something follows after the list's end")
    except _TooLong:
        rejected = lines.too_long(name, row)
        yield _and_no_more(rejected.reason, name, row, rejected.detail)
    except _Broken as error:
        if not end:
            raise
        yield _and_no_more("not JSON", name, row, str(error))


def _and_no_more(reason: str, name: str, row: int, detail: str) -> Rejection:
    return Rejection(name, row, reason, f"{detail}; nothing from there on can be read")


class _TooLong(_Broken):
    """An element is longer than a row may be."""


class _Reader:
    """A window that moves over the file: it holds one element, or a chunk of many."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._data = b""
        self._at = 0

    def _more(self) -> bool:
        """Reads on, and forgets what lies behind; twice as much where an element is long."""
        read = self._handle.read(max(CHUNK, len(self._data) - self._at))
        self._data = self._data[self._at :] + read
        self._at = 0
        return bool(read)

    def peek(self) -> bytes:
        """The next byte that is no white space; empty at the end."""
        while True:
            found: Any = _SPACE.match(self._data, self._at)
            self._at = found.end()
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def take(self, wanted: bytes) -> bool:
        """Steps over ``wanted`` where it comes next."""
        self.peek()
        if self._data.startswith(wanted, self._at):
            self._at += len(wanted)
            return True
        return False

    def value(self) -> bytes:
        """The bytes of the value that comes next.

        Raises:
            _Broken: the file ends inside it, or no value comes.
            _TooLong: it is longer than a row may be.
        """
        self.peek()
        depth = place = 0
        while True:
            end, depth, place = self._end(depth, place)
            if end is not None:
                found = self._data[self._at : end]
                if len(found) > lines.MAX_ROW_BYTES:
                    raise _TooLong
                self._at = end
                return found
            if len(self._data) - self._at > lines.MAX_ROW_BYTES:
                raise _TooLong
            if not self._more():
                raise _Broken("the file ends inside a row")

    def _end(self, depth: int, place: int) -> tuple[int | None, int, int]:
        """Where the value ends, if that is in sight; else the depth and place (from the value's
        begin) to go on from."""
        if not depth and (scalar := _SCALAR.match(self._data, self._at)):
            return (scalar.end() if scalar.end() < len(self._data) else None), 0, 0
        for part in _PARTS.finditer(self._data, self._at + place):
            sort = part[0][:1]
            if sort == b'"':
                if not part[1]:
                    return None, depth, part.start() - self._at
            else:
                depth += 1 if sort in b"[{" else -1
                if depth < 0:
                    raise _Broken("a value is missing")
            if depth == 0:
                return part.end(), 0, 0
            place = part.end() - self._at
        return None, depth, place
