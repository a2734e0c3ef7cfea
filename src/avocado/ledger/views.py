"""What a reader tells of a book: frozen values. Amounts are nano-units, times ns since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from avocado.ledger import entry as e
from avocado.ledger import transfer
from avocado.ledger.rows import AllowanceRow, DocumentRow, HoldRow
from avocado.terms.usage import Usage


@dataclass(frozen=True, slots=True)
class Balance:
    """In nano-units. ``available`` is what can be spent without credit."""

    tenant: str
    currency: str
    wallet: int
    granted: int
    held: int
    credit_limit: int

    @property
    def available(self) -> int:
        return self.wallet + self.granted

    @property
    def posted(self) -> int:
        return self.wallet + self.granted + self.held


@dataclass(frozen=True, slots=True)
class Charge:
    """One settled request. ``at`` is when it was settled, ns; ``seq`` its journal entry."""

    seq: int
    at: int
    request: str
    tenant: str
    key_id: str | None
    offer: str
    release: str
    price_version: str
    currency: str
    usage: Usage
    charge: int
    refunded: int
    finish: str
    batch: bool
    volume: int
    """The customer's tokens of that month when the request began: what its price tier rests on."""
    covered: int = 0
    """Tokens of the usage that allowances paid."""
    granted: int = 0
    """Nano-units of the charge that came from grants, before any refund."""


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Settled requests of one day (UTC, ``2026-11-24``), customer, key and release, summed."""

    day: str
    tenant: str
    key_id: str | None
    offer: str
    release: str
    currency: str
    requests: int
    prompt: int
    cached: int
    completion: int
    reasoning: int
    charge: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """A lot of included tokens: tokens = left + reserved + used + expired.

    ``left`` is free to use until ``expires`` (ns; None: for ever); ``reserved`` belongs to running
    requests. ``offers`` empty means every offer. ``at`` is when it was given.
    """

    id: str
    tenant: str
    tokens: int
    left: int
    reserved: int
    used: int
    expired: int
    offers: tuple[str, ...]
    priority: int
    expires: int | None
    reason: str
    at: int
    seq: int


@dataclass(frozen=True, slots=True)
class Document:
    """One revision of a document. ``at`` and ``seq`` are those of this revision's filing."""

    id: str
    kind: str
    tenant: str
    revision: int
    series: str | None
    number: int | None
    content: dict[str, Any]
    at: int
    seq: int
    actor: str


@dataclass(frozen=True, slots=True)
class Record:
    """One journal entry as it is stored."""

    seq: int
    at: int
    entry: e.AnyEntry


def charge_of(row: HoldRow) -> Charge:
    """A settled hold, as a charge."""
    granted = 0
    if row.parts:  # only holds that took granted money spell their parts out
        eaten = transfer.consumed(row.sources(), row.charge)
        granted = sum(nanos for name, nanos in eaten if name.startswith("grant:"))
    return Charge(
        seq=row.closed_seq or 0,
        at=row.closed or 0,
        request=row.id,
        tenant=row.tenant,
        key_id=row.key_id,
        offer=row.offer,
        release=row.release,
        price_version=row.price_version,
        currency=row.currency,
        usage=row.usage(),
        charge=row.charge,
        refunded=row.refunded,
        finish=row.finish or "",
        batch=bool(row.batch),
        volume=row.volume,
        covered=row.covered,
        granted=granted,
    )


def usage_line(row: Any) -> UsageLine:
    day = datetime.fromtimestamp(int(row[0]) * 86_400, UTC).date().isoformat()
    numbers = [int(value) for value in row[6:]]
    return UsageLine(day, row[1], row[2], row[3], row[4], row[5], *numbers)


def document_of(row: DocumentRow) -> Document:
    """The newest revision of a document."""
    return Document(
        id=row.id,
        kind=row.kind,
        tenant=row.tenant,
        revision=row.revision,
        series=row.series,
        number=row.number,
        content=msgspec.json.decode(row.content),
        at=row.at,
        seq=row.seq,
        actor=row.actor,
    )


def document_in(record: Record) -> Document:
    """The revision that a journal entry filed. Raises TypeError for another entry."""
    entry = record.entry
    if not isinstance(entry, e.DocumentFiled):
        raise TypeError(f"journal entry {record.seq} files no document")
    return Document(
        id=entry.id,
        kind=entry.sort,
        tenant=entry.tenant,
        revision=entry.revision,
        series=entry.series,
        number=entry.number,
        content=entry.content,
        at=record.at,
        seq=record.seq,
        actor=entry.actor,
    )


def allowance_of(row: AllowanceRow) -> Allowance:
    return Allowance(
        id=row.id,
        tenant=row.tenant,
        tokens=row.tokens,
        left=row.free,
        reserved=row.reserved,
        used=row.used,
        expired=row.expired,
        offers=row.good_for(),
        priority=row.priority,
        expires=row.expires,
        reason=row.reason,
        at=row.at,
        seq=row.seq,
    )
