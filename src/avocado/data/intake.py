"""Intake: sources become records, one by one, and nothing of them is lost without a word.

The shape of each file is detected from its first rows, and every row must have it. Knows no
tokens, no duplicates and no corpus: it says what was read, others say what is good.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec

from avocado.data import shapes
from avocado.data.example import Example
from avocado.data.record import PLURAL, SINGULAR, Record, RecordType
from avocado.data.rejection import InvalidRow, Rejection
from avocado.data.shapes import Shape
from avocado.data.sources import Source, SourceFile, find
from avocado.errors import Refused
from avocado.lineage import digest_file

LOOKED_AT: Final = 100
"""Rows from which a file's shape is detected."""


@dataclass
class Reading:
    """One file, what shape its rows have, and what was found in them so far."""

    file: SourceFile
    shape: Shape | None
    first: int
    """The row that showed the shape."""
    rows: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    """Columns that nothing reads, and in how many rows they stand."""
    content: Any = field(default_factory=hashlib.sha256, repr=False)
    """The hash of the rows of what is no one file."""

    def facts(self) -> dict[str, Any]:
        """What a corpus says of it; every row must have been read."""
        source, path = self.file.source, self.file.path
        return {
            "name": self.file.name,
            "sha256": digest_file(path) if path else self.content.hexdigest(),
            "format": self.file.format,
            "shape": self.shape.name if self.shape else None,
            "rows": self.rows,
            **({"unused": dict(sorted(self.unused.items()))} if self.unused else {}),
            **({"weight": source.weight} if source.weight != 1 else {}),
            **({"replay": True} if source.replay else {}),
        }


class Intake:
    """What sources hold, as records of one ``kind``; where that is None, the first file's own.

    Iterating reads everything, once. ``left_out`` names what folders hold besides data.

    Raises:
        Refused: a source is missing, empty or cannot be read, or holds what is no such record.
    """

    def __init__(self, sources: Iterable[Source], kind: RecordType | None = None) -> None:
        found = find(sources)
        self.left_out = found.left_out
        self.readings: list[Reading] = []
        for file in found.files:
            reading = _look(file, kind)
            if kind is None and reading.shape is not None:
                kind = reading.shape.kind
            self.readings.append(reading)
        self._wanted = kind
        self.kind: RecordType = kind or Example
        for reading in self.readings:
            _check_serves(reading, self.kind)
        self._sources = {file.name: file.source for file in found.files}

    def source(self, record: Record) -> Source:
        """The source that ``record`` was read from."""
        return self._sources[record.file]

    def __iter__(self) -> Iterator[Record | Rejection]:
        for reading in self.readings:
            yield from _records(reading, self.kind, shapes.serving(self._wanted))

    def facts(self) -> list[dict[str, Any]]:
        """What was read, file by file."""
        return [reading.facts() for reading in self.readings]


def lines(facts: Mapping[str, Any]) -> list[str]:
    """What was read, for a terminal, from a corpus's or a survey's ``facts``."""
    said = []
    for file in facts["files"]:
        shape = shapes.BY_NAME[file["shape"]].title if file["shape"] else "no known shape"
        said.append(f"{file['name']}: {_rows(file['rows'])}, {shape}")
        said += [
            f"  the column {column!r} of {_rows(count)} is not used"
            for column, count in file.get("unused", {}).items()
        ]
    return [*said, *(f"not read: {each}" for each in facts["left_out"])]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _look(file: SourceFile, kind: RecordType | None) -> Reading:
    """Detects the shape of ``file``: what most of its first rows have that serves ``kind``."""
    wanted = file.source.shape
    if wanted is not None and wanted not in shapes.BY_NAME:
        known = ", ".join(shapes.BY_NAME)
        raise Refused(f"{file.shown}: no shape is called {wanted!r} (known: {known})")
    empty = True
    seen: Counter[str] = Counter()
    firsts: dict[str, int] = {}
    for item in islice(file.rows(file.name), LOOKED_AT):
        empty = False
        shape = None if isinstance(item, Rejection) else _shape(item[1], kind)
        if shape is not None and not isinstance(item, Rejection):
            seen[shape.name] += 1
            firsts.setdefault(shape.name, item[0])
    if empty:
        raise Refused(f"{file.shown} is empty: it needs at least one row")
    if wanted is not None:
        return Reading(file, shapes.BY_NAME[wanted], firsts.get(wanted, 1))
    ranked = sorted(seen, key=lambda name: (not _serves(name, kind), -seen[name], firsts[name]))
    if not ranked:
        return Reading(file, None, 1)
    return Reading(file, shapes.BY_NAME[ranked[0]], firsts[ranked[0]])


def _shape(value: Any, kind: RecordType | None) -> Shape | None:
    return shapes.detect(shapes.columns(value), kind) if isinstance(value, dict) else None


def _serves(name: str, kind: RecordType | None) -> bool:
    return kind is None or kind in shapes.BY_NAME[name].readers


def _check_serves(reading: Reading, kind: RecordType) -> None:
    shape = reading.shape
    if shape is not None and kind not in shape.readers:
        raise Refused(
            f"{reading.file.shown} cannot be read as {PLURAL[kind]}: row {reading.first} is of the "
            f"shape {shape.title!r} (what can be: {shapes.serving(kind)})"
        )


def _records(reading: Reading, kind: RecordType, readable: str) -> Iterator[Record | Rejection]:
    file, source = reading.file, reading.file.source
    reason = f"not a {SINGULAR[kind]}"
    for item in file.rows(file.name):
        reading.rows += 1
        if isinstance(item, Rejection):
            yield item
            continue
        number, value = item
        if file.path is None:
            reading.content.update(msgspec.json.encode(value, order="deterministic"))
        try:
            row = shapes.columns(value)
            shape = reading.shape
            if shape is None or not shape.matches(row):
                yield _stranger(row, reading, kind, number, readable)
                continue
            if unused := shapes.unused(row, shape, kind):
                reading.unused.update(each for each in unused if each != source.group)
            origin = shapes.Origin(file.name, number, source.licence, source.group)
            yield shapes.parse(row, shape, kind, origin)
        except InvalidRow as error:
            yield Rejection(file.name, number, error.reason or reason, str(error))


def _stranger(
    row: Mapping[str, Any], reading: Reading, kind: RecordType, number: int, readable: str
) -> Rejection:
    """The rejection of a row that has not the shape of its file."""
    file, expected = reading.file.name, reading.shape
    shape = shapes.detect(row, kind)
    if shape is not None and expected is not None and shape is not expected:
        detail = (
            f"it is of the shape {shape.title!r}, and row {reading.first} of "
            f"{expected.title!r}: a file has one shape"
        )
        return Rejection(file, number, "another shape", detail)
    found = ", ".join(sorted(map(str, row))) or "nothing"
    needed = expected.title if expected is not None else readable
    detail = f"its columns are of no known shape ({found}); what can be read: {needed}"
    return Rejection(file, number, "no known shape", detail)
