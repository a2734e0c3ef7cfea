"""Answers that were given before, on disk: a run that was killed, or a second one, asks for the
rest only.

What was asked is the key: the model (every file of it), the question and how it was to be sampled.
The folder may be deleted at any time. Knows no engine and no suite.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final

from avocado.lineage import Json, canonical, digest

BYTES: Final = 2**28
"""What all models' answers may take; those not used for longest go first."""

_CHECK: Final = 16
"""Characters of a line's own hash, at its beginning."""


class Cache:
    """The answers of one ``model``, a name for exactly these weights in exactly this engine.

    A line that was cut off or changed is as if it were not there. Where the folder cannot be
    written, nothing is kept.
    """

    def __init__(self, folder: Path, model: Json, *, limit: int = BYTES) -> None:
        self._path = folder / f"{digest(canonical(model))}.jsonl"
        self._known: dict[str, Json] = {}
        self._handle: int | None = None
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_room(folder, limit, self._path)
            self._read()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._handle = os.open(self._path, flags, 0o600)
            os.utime(self._path)  # used last: first to stay

    def get(self, *asked: Json) -> Json | None:
        """What was answered to ``asked``; None where nothing was."""
        return self._known.get(_key(asked))

    def put(self, answer: Json, *asked: Json) -> None:
        """Keeps ``answer``; the line is whole or, after a crash, ignored."""
        key = _key(asked)
        self._known[key] = answer
        if self._handle is None:
            return
        body = canonical([key, answer])
        try:
            os.write(self._handle, digest(body)[:_CHECK].encode() + b" " + body + b"\n")
        except OSError:  # a full disk: the run goes on without
            self.close()

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __len__(self) -> int:
        return len(self._known)

    def _read(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in data.split(b"\n"):
            check, _, body = line.partition(b" ")
            if check.decode(errors="replace") == digest(body)[:_CHECK]:
                key, answer = json.loads(body)
                self._known[key] = answer
        if data and not data.endswith(b"\n"):  # a writer was killed within a line
            with self._path.open("ab") as handle:
                handle.write(b"\n")


def _key(asked: tuple[Json, ...]) -> str:
    return digest(canonical(list(asked)))


def _make_room(folder: Path, limit: int, wanted: Path) -> None:
    """Deletes the files that were used longest ago, until the rest fits; ``wanted`` goes last."""
    found: list[tuple[Any, Path, int]] = []
    for path in folder.glob("*.jsonl"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append(((path == wanted, stat.st_mtime_ns), path, stat.st_size))
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
