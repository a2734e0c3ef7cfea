"""Licences as facts: may it be sold, may it be published, and what must be said.

The facts stand in ``licences.toml`` with clause, source and the date when they were read. What no
fact covers is refused: a licence is never guessed from a family's name. Pure but for reading that
file once.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

UNKNOWN: Final = "unknown"
Purpose = Literal["sale", "publication"]

_DOES: Final = {"sale": "sell its outputs", "publication": "publish what came of it"}


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licence says. ``sale`` and ``publication`` are allowed, refused, or ask (a person)."""

    id: str
    name: str
    sale: str
    publication: str
    clause: str
    source: str
    read: str
    terms_sha256: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Component:
    """Something that a release is made of: its ``role`` (base, data, teacher …) and its licence."""

    role: str
    name: str
    licence: str
    text_sha256: str | None = None
    """SHA-256 of the LICENSE file that lay beside it, where there was one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The most restrictive answer over all components, with a reason for each no."""

    purpose: Purpose
    reasons: tuple[str, ...]
    notices: tuple[str, ...]
    components: tuple[Component, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


@cache
def _facts() -> Mapping[str, Any]:
    text = resources.files("avocado.terms").joinpath("licences.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def licences() -> Mapping[str, Licence]:
    """Every licence that we have read, by SPDX id (or ``LicenseRef-…``)."""
    return {key: _licence(key, entry) for key, entry in _facts().items() if key != "checkpoints"}


def _licence(key: str, entry: Mapping[str, Any]) -> Licence:
    lists = ("terms_sha256", "notices")
    return Licence(id=key, **{**entry, **{name: tuple(entry.get(name, ())) for name in lists}})


def licence_of_checkpoint(repository: str) -> str | None:
    """The licence of a known repository such as ``Qwen/Qwen3-8B``, or None."""
    found = _facts()["checkpoints"].get(repository)
    return str(found) if found else None


def fingerprint(text: str) -> str:
    """SHA-256 of a licence's terms: white space folded, from the title to the end of the terms.

    Copies of one licence differ in copyright lines before the title and in an appendix after the
    terms; those are not terms.
    """
    folded = " ".join(text.split())
    start = folded.find("Apache License Version 2.0")
    mark = "END OF TERMS AND CONDITIONS"
    end = folded.find(mark)
    if start >= 0 and end > start:
        folded = folded[start : end + len(mark)]
    return hashlib.sha256(folded.encode()).hexdigest()


def licence_of_text(text: str) -> str | None:
    """The id of the licence whose terms these are, or None: unknown text is never guessed."""
    mark = fingerprint(text)
    return next((each.id for each in licences().values() if mark in each.terms_sha256), None)


def judge(components: Iterable[Component], purpose: Purpose) -> Verdict:
    """May a model made of ``components`` be sold (or published)? The most restrictive wins."""
    parts = tuple(components)
    reasons: list[str] = []
    notices: dict[str, None] = {}
    for part in parts:
        licence = licences().get(part.licence)
        if licence is None:
            reasons.append(
                f"licence: {part.role} {part.name} has the licence {part.licence!r}, which is not "
                "known: a person must read it before anyone may " + _DOES[purpose]
            )
            continue
        answer = licence.sale if purpose == "sale" else licence.publication
        if answer == "refused":
            reasons.append(
                f"licence: {part.role} {part.name} is under {licence.name}, which does not let "
                f"you {_DOES[purpose]} ({licence.clause}; {licence.source}, read {licence.read})"
            )
        elif answer == "ask":
            reasons.append(
                f"licence: {part.role} {part.name} is under {licence.name}: a person must decide "
                f"whether you may {_DOES[purpose]} ({licence.clause}; {licence.source})"
            )
        notices.update(dict.fromkeys(f"{part.name}: {notice}" for notice in licence.notices))
    return Verdict(purpose, tuple(reasons), tuple(notices), parts)
