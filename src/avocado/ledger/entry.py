"""Journal entries: the facts that the ledger decided, in the order in which it decided them.

The journal is the truth; every other table can be rebuilt from it (``state.State.apply``). An
entry's JSON is hashed together with its sequence, its time and the hash before it, so a changed,
missing or reordered row is found and named. Pure; knows no store.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from avocado.ledger.transfer import Legs, Parts
from avocado.terms.usage import Usage

GENESIS: Final = b"\0" * 32
"""The hash before the first entry."""


class Entry(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=True
):
    """The base of all entries. Money entries have ``legs`` in one ``currency``."""


class CustomerOpened(Entry, frozen=True, kw_only=True):
    tenant: str
    name: str
    currency: str
    credit_limit: int = 0


class CreditLimitSet(Entry, frozen=True, kw_only=True):
    tenant: str
    credit_limit: int


class SpendLimitSet(Entry, frozen=True, kw_only=True):
    """``spent_month`` and ``spent_total`` are what the holds so far amount to, to count on from."""

    tenant: str
    key_id: str | None = None
    month: int | None = None
    total: int | None = None
    period: str
    spent_month: int = 0
    spent_total: int = 0


class KeyAdded(Entry, frozen=True, kw_only=True):
    key_id: str
    tenant: str
    name: str
    digest: str
    created: int
    expires: int | None = None


class KeyRevoked(Entry, frozen=True, kw_only=True):
    key_id: str
    tenant: str


class PricePublished(Entry, frozen=True, kw_only=True):
    version: str
    terms: dict[str, Any]


class Deposited(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    amount: int
    currency: str
    reference: str = ""
    tax: int = 0
    pays: str | None = None
    legs: Legs


class Granted(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    amount: int
    currency: str
    reason: str = ""
    expires: int | None = None
    priority: int = 0
    legs: Legs


class GrantExpired(Entry, frozen=True, kw_only=True):
    """What was left of a grant, ``id``, when its time was over."""

    id: str
    tenant: str
    currency: str
    amount: int
    legs: Legs


class Billed(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    amount: int
    currency: str
    item: str
    reason: str = ""
    legs: Legs


class CustomerFrozen(Entry, frozen=True, kw_only=True):
    """``frozen`` False: the customer may start requests again."""

    tenant: str
    frozen: bool
    reason: str = ""
    actor: str = ""


class AllowanceGiven(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    tokens: int
    offers: tuple[str, ...] = ()
    reason: str = ""
    expires: int | None = None
    priority: int = 0


class AllowanceExpired(Entry, frozen=True, kw_only=True):
    """``tokens`` of the allowance ``id`` were unused when its time was over, or when ``actor``
    ended it (``ended``)."""

    id: str
    tenant: str
    tokens: int
    ended: bool = False
    reason: str = ""
    actor: str = ""


class DocumentFiled(Entry, frozen=True, kw_only=True):
    """Revision ``revision`` of the document ``id``, of the kind ``sort``."""

    id: str
    sort: str
    tenant: str = ""
    revision: int = 1
    series: str | None = None
    number: int | None = None
    actor: str = ""
    content: dict[str, Any]


class HoldPlaced(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    key_id: str | None = None
    offer: str
    release: str
    price_version: str
    prompt_tokens: int
    max_tokens: int
    n: int = 1
    batch: bool = False
    volume: int = 0
    """Tokens that a tiered price counts: what the customer had used when this began."""
    lifetime: int
    epoch: str
    idempotency_key: str | None = None
    fingerprint: str | None = None
    amount: int
    currency: str
    legs: Legs = ()
    lots: Parts = ()
    """(allowance, tokens) that are reserved, in the order in which they are used."""


class HoldSettled(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    usage: Usage
    finish: str
    charge: int
    currency: str
    legs: Legs = ()
    covered: int = 0
    """Tokens of the usage that the hold's lots paid, first lot first."""


class HoldVoided(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    reason: str
    currency: str
    legs: Legs = ()


class UsageFlagged(Entry, frozen=True, kw_only=True):
    """Usage that was not believed; the hold ``id`` was kept."""

    id: str
    tenant: str
    usage: Usage
    detail: str


class Refunded(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    of: str
    amount: int
    currency: str
    reason: str
    legs: Legs
    tax: int = 0
    """The tax of a deposit that went back on top of ``amount``."""


class Adjusted(Entry, frozen=True, kw_only=True):
    id: str
    tenant: str
    amount: int
    currency: str
    reason: str
    actor: str
    legs: Legs


AnyEntry = (
    CustomerOpened
    | CreditLimitSet
    | SpendLimitSet
    | KeyAdded
    | KeyRevoked
    | PricePublished
    | Deposited
    | Granted
    | GrantExpired
    | Billed
    | CustomerFrozen
    | AllowanceGiven
    | AllowanceExpired
    | DocumentFiled
    | HoldPlaced
    | HoldSettled
    | HoldVoided
    | UsageFlagged
    | Refunded
    | Adjusted
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEntry] = msgspec.json.Decoder(AnyEntry)


def encode(entry: Entry) -> bytes:
    """The entry's JSON, as it is stored and hashed."""
    return _encoder.encode(entry)


def decode(body: bytes) -> AnyEntry:
    """Raises msgspec.ValidationError or DecodeError for a damaged body."""
    return _decoder.decode(body)


def seal(before: bytes, seq: int, at: int, body: bytes) -> bytes:
    """SHA-256 over the hash before, the sequence, the time (ns) and the body: 32 bytes."""
    return hashlib.sha256(b"%b%d %d %b" % (before, seq, at, body)).digest()


_OF_KEYS: Final = (KeyAdded, KeyRevoked)
_OF_CUSTOMERS: Final = (CustomerOpened, CreditLimitSet, SpendLimitSet, CustomerFrozen)


def labels(entry: AnyEntry) -> tuple[str, str, str]:
    """(kind, id, tenant) of an entry, as the journal's columns show them."""
    if isinstance(entry, PricePublished):
        return "PricePublished", entry.version, ""
    if isinstance(entry, _OF_KEYS):
        return type(entry).__name__, entry.key_id, entry.tenant
    if isinstance(entry, _OF_CUSTOMERS):
        return type(entry).__name__, entry.tenant, entry.tenant
    return type(entry).__name__, entry.id, entry.tenant
