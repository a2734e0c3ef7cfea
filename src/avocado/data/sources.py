"""Sources: the files, folders and data sets that a recipe names, found in an order of their own.

What is found is the same on any machine: by name, whatever order a file system lists. Knows the
formats of files by their names; reading rows as records is ``intake``'s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from avocado.data import hugging_face, json_list, lines, tables
from avocado.data.lines import Row
from avocado.data.provenance import UNKNOWN
from avocado.data.rejection import Rejection
from avocado.errors import Refused

Rows = Iterator[Row | Rejection]

FORMATS: Final[dict[str, Callable[[Path, str], Rows]]] = {
    ".jsonl": lines.json_lines,
    ".ndjson": lines.json_lines,
    ".json": json_list.rows,
    ".csv": partial(tables.delimited, delimiter=","),
    ".tsv": partial(tables.delimited, delimiter="\t"),
    ".parquet": tables.parquet,
}
"""How a file is read, by how its name ends; all but Parquet may also end in ``.gz``."""

_SHARD: Final = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}\.")
_SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words that name a split in a file's name, as ``datasets`` reads them."""

_NO_DATA: Final = frozenset(("dataset_infos.json", "dataset_info.json", "state.json"))


@dataclass(frozen=True, slots=True)
class Source:
    """What a recipe says of one source of data.

    ``path`` is a file, a folder or ``hf://owner/name``. ``weight`` is how often its rows come into
    the corpus, ``replay`` marks general data that is mixed in, ``shape`` names the rows' form where
    it should not be detected, ``split`` that of a data set, ``licence`` holds for rows that state
    none, and rows with one value in the column ``group`` are held out together.
    """

    path: Path | str
    weight: float = 1.0
    replay: bool = False
    shape: str | None = None
    split: str = "train"
    licence: str = UNKNOWN
    group: str | None = None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """Something to read rows from.

    ``name`` is what it goes by: relative, so no machine's path is kept. ``rows`` reads it, given
    the name to call it by; ``path`` is its file, where it is one; ``shown`` is a refusal's word.
    """

    source: Source
    name: str
    format: str
    rows: Callable[[str], Rows]
    shown: str
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """``files`` to read in order, and what was left out of folders: names and why."""

    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...] = ()


def find(sources: Iterable[Source]) -> Found:
    """What ``sources`` name, in the order given; a folder means its data files by name.

    Raises:
        Refused: a source is missing, of no known format or split, or a folder without data.
    """
    files: list[SourceFile] = []
    left_out: list[str] = []
    for source in sources:
        if str(source.path).startswith(hugging_face.PREFIX):
            hub = hugging_face.at(str(source.path), source.split)
            files.append(SourceFile(source, hub.name, "hub", hub.rows, hub.name))
            continue
        path = Path(source.path)
        if path.is_dir() and hugging_face.is_saved(path):
            files.append(_saved(source, path, path.resolve().name))
        elif path.is_dir():
            inside, others = _folder(source, path)
            files += inside
            left_out += others
        elif path.is_file():
            files.append(_file(source, path, unicodedata.normalize("NFC", path.name)))
        else:
            raise Refused(f"there is no data file or folder {path}")
    if not files:
        raise Refused("no data is named: give at least one file")
    return Found(tuple(_told_apart(files)), tuple(left_out))


def _format(path: Path) -> str:
    """The end of a name that says how a file is read, or an empty text."""
    ends = [end.lower() for end in path.suffixes]
    packed = ends[-1:] == [".gz"]
    end = next(iter(ends[-2:-1] if packed else ends[-1:]), "")
    return end if end in FORMATS and not (packed and end == ".parquet") else ""


def _file(source: Source, path: Path, name: str) -> SourceFile:
    end = _format(path)
    if not end:
        known = ", ".join(FORMATS)
        raise Refused(f"{path}: its name does not end in a format that is read ({known})")
    return SourceFile(source, name, end[1:], partial(FORMATS[end], path), str(path), path)


def _saved(source: Source, folder: Path, name: str) -> SourceFile:
    split = hugging_face.saved_split(folder, source.split)
    if split != folder:
        name = f"{name}/{source.split}"
    rows = partial(hugging_face.saved_rows, split)
    return SourceFile(source, name, "saved data set", rows, str(folder))


def _folder(source: Source, folder: Path) -> tuple[list[SourceFile], list[str]]:
    """The data in ``folder`` that is of the wanted split or of none, and what else is there."""
    read: list[SourceFile] = []
    others: list[str] = []
    splits: dict[str, str] = {}
    for name, path in _walk(folder):
        split = _split(name, source.split)
        if hugging_face.is_saved(path):
            read.append(_saved(source, path, name))
        elif not path.is_file():
            others.append(f"{name}: a link to a folder or to nothing")
        elif not _format(path) or path.name in _NO_DATA:
            others.append(f"{name}: no data format")
        elif split not in (None, source.split):
            others.append(f"{name}: of the split {split!r}")
            splits.setdefault(str(split), name)
        else:
            read.append(_file(source, path, name))
    if not read and splits:
        found = ", ".join(f"{split!r} ({name})" for split, name in splits.items())
        raise Refused(f"{folder} has no file of the split {source.split!r}, but of {found}")
    if not read:
        raise Refused(f"{folder} has no data file ({', '.join(f'*{end}' for end in FORMATS)})")
    return read, others


def _walk(folder: Path) -> list[tuple[str, Path]]:
    """Files below ``folder`` and saved data sets, by name; what begins with a dot is hidden."""
    found: list[tuple[str, Path]] = []
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix())
            if path.name.startswith("."):
                continue
            if path.is_dir() and not path.is_symlink() and not hugging_face.is_saved(path):
                waiting.append(path)
            else:
                found.append((name, path))
    return sorted(found)


def _split(name: str, wanted: str) -> str | None:
    """The split that a file's name or its folders' names say, the nearest first."""
    for part in reversed(name.split("/")):
        shard = _SHARD.match(part)
        if shard:
            return shard["split"]
        words = re.split(r"[-._ 0-9]+", part.lower())
        if wanted in words:
            return wanted
        for word in words:
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def _told_apart(files: list[SourceFile]) -> Iterator[SourceFile]:
    """Two files of one name get a number each, so that a row's origin stays unambiguous."""
    taken: set[str] = set()
    for file in files:
        name, number = file.name, 1
        while name in taken:
            number += 1
            name = f"{file.name} ({number})"
        taken.add(name)
        yield replace(file, name=name)
