"""Content addresses: every artifact is named by the hash of what it is and of what it came from.

An id is ``kind-`` and the SHA-256 of the artifact's manifest in canonical JSON. The manifest names
its parents by id and its files by SHA-256, so an id pins the whole history. This module computes
and walks; it stores nothing (``workspace`` does).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

KINDS: Final = ("base", "corpus", "checkpoint", "suite", "scorecard", "release", "offer")
"""Kinds of artifact, in the order in which they come about."""

Json = Any
"""A JSON value: dict, list, str, int, float, bool or None."""


def canonical(value: Json) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON has no word for.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file in hex, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_folder(folder: Path) -> dict[str, str]:
    """Relative POSIX path → SHA-256 of every file below ``folder``, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Manifest:
    """What an artifact is: JSON ``facts``, ``parents`` (role → id), ``files`` (path → SHA-256)."""

    kind: str
    facts: Mapping[str, Json]
    parents: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of artifact")

    def to_json(self) -> dict[str, Json]:
        return {
            "schema": 1,
            "kind": self.kind,
            "facts": dict(self.facts),
            "parents": dict(self.parents),
            "files": dict(self.files),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Manifest:
        return cls(value["kind"], value["facts"], value["parents"], value["files"])

    @property
    def id(self) -> str:
        return f"{self.kind}-{digest(canonical(self.to_json()))}"


def short(artifact: str) -> str:
    """An id for people: the kind and the first twelve hex digits; any unique prefix is accepted."""
    kind, _, hash_ = artifact.partition("-")
    return f"{kind}-{hash_[:12]}"


@dataclass(frozen=True)
class Step:
    """One artifact met on a walk: its ``role`` for the child it was reached from, and its depth."""

    id: str
    role: str
    depth: int
    manifest: Manifest


def walk(start: str, load: Callable[[str], Manifest], role: str = "") -> Iterator[Step]:
    """Yields ``start`` and every ancestor, depth first, each artifact once."""
    seen: set[str] = set()
    stack = [(start, role, 0)]
    while stack:
        artifact, part, depth = stack.pop()
        if artifact in seen:
            continue
        seen.add(artifact)
        manifest = load(artifact)
        yield Step(artifact, part, depth, manifest)
        for parent_role, parent in reversed(list(manifest.parents.items())):
            stack.append((parent, parent_role, depth + 1))
