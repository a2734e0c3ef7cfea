"""RunFolder: where a run keeps what it needs to be resumed, and what it logged.

``run.json`` says what is trained on what, ``metrics.jsonl`` has a line for each optimizer step, and
``checkpoint-N`` is the last complete training checkpoint, present while the run is unfinished.
``checkpoint`` names the artifact that came of it, ``plan.json`` holds what the run was planned to
take and what it took.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.lineage import Json
from avocado.train.recipe import differences

_RUN: Final = "run.json"
_METRICS: Final = "metrics.jsonl"
_MADE: Final = "checkpoint"
_PLAN: Final = "plan.json"
_CHECKPOINT: Final = "checkpoint-"


@dataclass(frozen=True, slots=True)
class Point:
    """A complete training checkpoint: its folder, and the step after which it was saved."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, kept from start to end and reused by a resume."""

    path: Path

    def interrupted(self) -> Point | None:
        """The last complete training checkpoint of an unfinished run, or None."""
        if not (self.path / _RUN).is_file():
            return None
        numbers = [
            int(name)
            for path in self.path.glob(f"{_CHECKPOINT}*")
            if (name := path.name.removeprefix(_CHECKPOINT)).isdigit()
        ]
        if not numbers:
            return None
        return Point(self.path / f"{_CHECKPOINT}{max(numbers)}", max(numbers))

    def begin(self, described: Mapping[str, Json], *, restart: bool) -> None:
        """Clears the folder for a run of what ``described`` says.

        Raises:
            Refused: an interrupted run lies here and ``restart`` does not say to throw it away.
        """
        point = self.interrupted()
        if point is not None and not restart:
            raise Refused(
                f"a run of this name was interrupted after step {point.step}: "
                "go on with --resume, or throw it away with --restart"
            )
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        _write(self.path / _RUN, json.dumps(described, indent=1, ensure_ascii=False))
        _write(self.path / _METRICS, "")

    def resume(self, described: Mapping[str, Json]) -> Point:
        """The point to go on from; what was logged after it is dropped, for it will run again.

        Raises:
            Refused: there is none, or what is trained on what is no longer as ``described`` then;
                the reason names each thing that differs.
        """
        point = self.interrupted()
        if point is None:
            raise Refused(f"there is no interrupted run to resume in {self.path}")
        then = json.loads((self.path / _RUN).read_bytes())
        changed = differences(then, json.loads(json.dumps(described)))
        if changed:
            raise Refused(
                f"the run cannot be resumed, because this changed since it began: "
                f"{', '.join(map(_plain, changed))}; put it back, or begin anew with --restart"
            )
        kept = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= point.step]
        _write(self.path / _METRICS, "".join(kept))
        return point

    def metrics(self) -> Iterator[dict[str, Any]]:
        """What was logged, step by step; a line that a kill cut short is left out."""
        for line in (self.path / _METRICS).read_text("utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)

    def log(self, line: Mapping[str, Json]) -> None:
        """Appends one line to ``metrics.jsonl``."""
        with (self.path / _METRICS).open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def building(self) -> Path:
        """A fresh folder for a training checkpoint that is not complete yet."""
        folder = self.path / "building"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def keep(self, built: Path, step: int) -> None:
        """Syncs a complete training checkpoint, gives it its name, and drops older ones."""
        for path in [*built.rglob("*"), built]:
            _sync(path)
        older = list(self.path.glob(f"{_CHECKPOINT}*"))
        built.rename(self.path / f"{_CHECKPOINT}{step}")
        _sync(self.path)
        for folder in older:
            shutil.rmtree(folder)

    def described(self) -> dict[str, Any]:
        """What is trained on what, as :meth:`begin` was told.

        Raises:
            OSError, ValueError: there is no run here, or its file is damaged.
        """
        described: dict[str, Any] = json.loads((self.path / _RUN).read_bytes())
        return described

    def changed(self) -> float:
        """When a step was last logged, in seconds since 1970."""
        return (self.path / _METRICS).stat().st_mtime

    @contextmanager
    def hold(self) -> Iterator[None]:
        """One process at a time trains here: two would overwrite each other's steps.

        Raises:
            Refused: another process does.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(
                    f"the run {self.path.name} is being trained by another process"
                ) from None
            yield

    def held(self) -> bool:
        """Whether a process is training here now."""
        try:
            with self._lock.open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def _lock(self) -> Path:
        """Beside the folder, which a new run clears."""
        return self.path.with_name(f".{self.path.name}.lock")

    def keep_plan(self, planned: Mapping[str, Json], taken: Mapping[str, Json]) -> None:
        """Notes what the run was planned to take and what it took."""
        _write(self.path / _PLAN, json.dumps({"planned": planned, "actual": taken}, indent=1))

    def plan(self) -> dict[str, Any] | None:
        """``planned`` and ``actual``, as :meth:`keep_plan` was told, or None.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            kept: dict[str, Any] = json.loads((self.path / _PLAN).read_bytes())
        except FileNotFoundError:
            return None
        return kept

    def record(self, checkpoint: str) -> None:
        """Notes the id of the checkpoint that the run has made."""
        _write(self.path / _MADE, checkpoint)

    def checkpoint(self) -> str | None:
        """The id of the checkpoint that the run has made, or None."""
        try:
            return (self.path / _MADE).read_text("utf-8")
        except FileNotFoundError:
            return None

    def finish(self) -> None:
        """The run has ended well: there is nothing to resume any more; the log stays."""
        for folder in [*self.path.glob(f"{_CHECKPOINT}*"), self.path / "building"]:
            shutil.rmtree(folder, ignore_errors=True)


def _plain(changed: str) -> str:
    """``identity.corpus`` is the data, to those who write it."""
    return {"identity.corpus": "the data", "identity.base": "the base"}.get(changed, changed)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.building")
    temporary.write_text(text, "utf-8")
    _sync(temporary)
    temporary.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
