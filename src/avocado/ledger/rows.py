"""The rows of the book: one flat struct a table, its fields are the columns, its first the key.

Rows are projections: the journal can rebuild each of them. They are mutable, because the state of
one batch edits them in place; nothing outside a batch keeps one.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from avocado.ledger import transfer
from avocado.ledger.transfer import Parts
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

OPEN: Final = "open"
SETTLED: Final = "settled"
VOIDED: Final = "voided"

PROMISED: Final = 24 * 3600 * 1_000_000_000
"""Ns after its request has ended for which an idempotency key stands for it; then it is free."""


R = TypeVar("R", bound="Row")


class Row(msgspec.Struct):
    """The base of all rows. Fields are int, str or None, so a row is its own SQL parameters."""


class Customer(Row):
    tenant: str
    name: str
    currency: str
    credit_limit: int
    month_limit: int | None
    total_limit: int | None
    opened: int
    seq: int
    frozen: str = ""
    """Why the customer may start no requests; empty when it may."""
    allowed: int = 0
    """1 once the customer was ever given an allowance: nobody else's requests look for one."""


class Key(Row):
    key_id: str
    tenant: str
    name: str
    digest: str
    created: int
    expires: int | None
    revoked: int | None
    month_limit: int | None
    total_limit: int | None
    seq: int


class Price(Row):
    version: str
    terms: str
    published: int
    seq: int


class Account(Row):
    """``floor`` is the least that the balance may be; None for accounts without one."""

    name: str
    currency: str
    balance: int
    floor: int | None


class GrantRow(Row):
    """``closed`` is 1 while nothing is left in the grant's account."""

    id: str
    tenant: str
    amount: int
    priority: int
    expires: int | None
    closed: int
    seq: int


class HoldRow(Row):
    """A request's hold, and once closed its charge. ``progress`` is JSON and not journalled."""

    id: str
    tenant: str
    key_id: str | None
    offer: str
    release: str
    price_version: str
    currency: str
    prompt_tokens: int
    max_tokens: int
    n: int
    batch: int
    lifetime: int
    epoch: str
    idempotency_key: str | None
    fingerprint: str | None
    amount: int
    parts: str
    opened: int
    seq: int
    volume: int
    lots: str = ""
    state: str = OPEN
    progress: str | None = None
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    charge: int = 0
    refunded: int = 0
    finish: str | None = None
    closed: int | None = None
    closed_seq: int | None = None
    covered: int = 0

    def sources(self) -> Parts:
        """Where the money came from. Only holds that took granted money spell it out."""
        if not self.parts:
            return ((transfer.wallet(self.tenant), self.amount),) if self.amount else ()
        return tuple((name, amount) for name, amount in json.loads(self.parts))

    def reserved(self) -> Parts:
        """(allowance, tokens) that the hold reserved, in the order in which they are used."""
        if not self.lots:
            return ()
        return tuple((lot, tokens) for lot, tokens in json.loads(self.lots))

    def tokens(self) -> int:
        """How many tokens of allowances the hold reserved."""
        return sum(tokens for _, tokens in self.reserved())

    def usage(self) -> Usage:
        return Usage(self.prompt, self.completion, self.cached, self.reasoning)


class Posting(Row):
    """A deposit, grant, adjustment or refund, by the caller's id, and how much was reversed."""

    id: str
    kind: str
    tenant: str
    currency: str
    amount: int
    refunded: int
    content: str
    seq: int
    tax: int = 0
    pays: str = ""


class Movement(Row):
    """That journal entry ``seq`` moved a customer's money and is no hold: what a period's money is
    found by. An index of the journal would cost every request something; this costs it nothing."""

    seq: int
    tenant: str


class DocumentRow(Row):
    """The newest revision of a document; ``filed`` is the sequence of its first one."""

    id: str
    kind: str
    tenant: str
    revision: int
    series: str | None
    number: int | None
    content: str
    actor: str
    at: int
    seq: int
    filed: int


class Filing(Row):
    """One revision of a document, ``name`` = id@revision; ``digest`` is of what was asked for."""

    name: str
    document: str
    revision: int
    number: int | None
    digest: str
    seq: int


class Series(Row):
    """A counter of documents that are numbered without a gap."""

    name: str
    last: int


class AllowanceRow(Row):
    """A lot of tokens: tokens = free + reserved + used + expired. ``offers`` is a JSON list.

    ``closed`` is 1 while nothing is free, ``ended`` once it was taken back before its time.
    """

    id: str
    tenant: str
    tokens: int
    free: int
    reserved: int
    used: int
    expired: int
    offers: str
    priority: int
    expires: int | None
    reason: str
    closed: int
    ended: int
    at: int
    seq: int

    def good_for(self) -> tuple[str, ...]:
        """The offers whose requests may use it; empty means all."""
        return tuple(json.loads(self.offers))

    def over(self, at: int) -> bool:
        """Whether its time has come, or it was ended, whatever the clock says now."""
        return self.ended == 1 or (self.expires is not None and self.expires <= at)

    def serves(self, offer: str) -> bool:
        return self.offers == "[]" or offer in self.good_for()


class Promise(Row):
    """An idempotency key, ``name`` = tenant/key, and the request that it stands for."""

    name: str
    fingerprint: str
    hold: str


class Spent(Row):
    """Counters: what counts against a spend limit, nano-units (``customer:<tenant>/<period>``,
    ``key:<id>/<period>``), and for tiered prices tokens (``volume:<tenant>/<price>/<month>``)."""

    name: str
    amount: int


TABLES: Final[dict[type[Row], str]] = {
    Customer: "customer",
    Key: "apikey",
    Price: "price",
    Account: "account",
    GrantRow: "grant_lot",
    HoldRow: "hold",
    Posting: "posting",
    Movement: "movement",
    DocumentRow: "document",
    Filing: "filing",
    Series: "series",
    AllowanceRow: "allowance",
    Promise: "promise",
    Spent: "spent",
}
COLUMNS: Final[dict[type[Row], tuple[str, ...]]] = {kind: kind.__struct_fields__ for kind in TABLES}


@lru_cache(maxsize=4096)
def sheet_of(terms: str) -> PriceSheet:
    """The price sheet behind a stored row's JSON."""
    return PriceSheet(**json.loads(terms))
