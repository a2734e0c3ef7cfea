"""Attestations: what a person has read and answers for, by name and date, about one thing. Pure.

They stand one JSON line each in a log that only grows. Each line is sealed with SHA-256 over the
seal before it, so a line that was changed, taken out or put in is found. What the chain cannot show
is that the newest lines were cut off; a release cites the seals that it rests on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final, Literal

from avocado.errors import Refused

GENESIS: Final = "0" * 64
"""The seal before the first line."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is attested.

    About a licence: ``subject`` is the component's name; ``scope`` its revision, or the hash of its
    content; ``text_sha256`` that of its LICENSE file; ``allows`` the purposes that the person
    answers for where the licence leaves them to a person. About the operator's size (``kind``
    "threshold"): ``values`` by measure. Dates are ISO; ``until`` is the last day that it holds.
    """

    kind: Literal["licence", "threshold"]
    by: str
    date: str
    reason: str
    until: str | None = None
    subject: str = ""
    scope: str = ""
    text_sha256: str | None = None
    licence: str = ""
    allows: tuple[str, ...] = ()
    values: tuple[tuple[str, int], ...] = ()

    def holds(self, today: str) -> bool:
        return self.date <= today and (self.until is None or today <= self.until)


@dataclass(frozen=True, slots=True)
class Attestation:
    """A line of the log: a statement, its place (from 1), and its seal."""

    seq: int
    statement: Statement
    seal: str

    def cited(self) -> dict[str, Any]:
        """As a release's facts name it."""
        said = self.statement
        return {"seq": self.seq, "seal": self.seal, "by": said.by, "date": said.date}


def _seal(before: str, body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def _body(seq: int, statement: Statement) -> dict[str, Any]:
    return {
        "seq": seq,
        **asdict(statement),
        "allows": list(statement.allows),
        "values": dict(statement.values),
    }


def check(statement: Statement, today: str) -> None:
    """Raises:
    Refused: nobody's name, no reason, or dates that are none or out of order.
    """
    if not statement.by.strip() or not statement.reason.strip():
        raise Refused("an attestation needs the name of who answers for it, and the reason")
    for day in filter(None, (statement.date, statement.until)):
        try:
            fine = date.fromisoformat(day).isoformat() == day
        except ValueError:
            fine = False
        if not fine:
            raise Refused(f"{day!r} is no date such as 2026-11-24")
    if statement.date > today:
        raise Refused(f"{statement.date} lies ahead: nobody has attested anything there yet")
    if statement.until is not None and statement.until < statement.date:
        raise Refused(f"it cannot hold until {statement.until}: it is of {statement.date}")


def line(before: Iterable[Attestation], statement: Statement) -> tuple[Attestation, bytes]:
    """The next line of a log: as a value, and as it is written."""
    seq, seal = 0, GENESIS
    for each in before:
        seq, seal = each.seq, each.seal
    body = _body(seq + 1, statement)
    made = Attestation(seq + 1, statement, _seal(seal, body))
    text = json.dumps({**body, "seal": made.seal}, ensure_ascii=False)
    return made, text.encode() + b"\n"


def parse(data: bytes, name: str = "attestations.jsonl") -> tuple[Attestation, ...]:
    """Reads a log and walks its chain. An unfinished last line was never acknowledged; it is left
    out.

    Raises:
        Refused: a line is no attestation, or does not fit the one before it.
    """
    found: list[Attestation] = []
    seal = GENESIS
    for number, text in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
        try:
            value = json.loads(text)
            stated = value.pop("seal")
            seq = value.pop("seq")
            value["allows"] = tuple(value["allows"])
            value["values"] = tuple(value["values"].items())
            statement = Statement(**value)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{name}, line {number} is no attestation: {error}") from error
        if seq != number or stated != _seal(seal, _body(seq, statement)):
            raise Refused(
                f"{name}, line {number} was changed, or a line before it was: the chain of "
                "attestations is broken there, and nothing that it says is believed"
            )
        seal = stated
        found.append(Attestation(seq, statement, seal))
    return tuple(found)
