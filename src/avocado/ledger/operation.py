"""What can be asked of the ledger, and what comes back: frozen values that also travel as JSON.

All amounts are integers of nano-units; times are nanoseconds since 1970 unless they say otherwise.
Callers pass token counts and usage, never the price of a request: the ledger computes money itself.
Every operation that moves money carries an id of the caller's; the same operation again, by the
same id, returns the first result with ``replayed`` set and changes nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from avocado.ledger.errors import LedgerError
from avocado.terms.price import Line
from avocado.terms.usage import Usage


class Operation(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag=True):
    """The base of all operations; ``do`` names the class in JSON."""


class OpenCustomer(Operation, frozen=True, kw_only=True):
    """Opens a book page for ``tenant``. ``credit_limit`` ≥ 0 is how far below zero it may go."""

    tenant: str
    name: str
    currency: str = "USD"
    credit_limit: int = 0


class SetCreditLimit(Operation, frozen=True, kw_only=True):
    tenant: str
    credit_limit: int


class SetSpendLimit(Operation, frozen=True, kw_only=True):
    """Limits what a customer, or one key of it, may spend. None takes a limit away."""

    tenant: str
    key_id: str | None = None
    month: int | None = None
    """Nano-units a calendar month, UTC."""
    total: int | None = None


class AddKey(Operation, frozen=True, kw_only=True):
    """Stores a key's digest (hex). What a key looks like is the gateway's business."""

    key_id: str
    tenant: str
    name: str
    digest: str
    created: int
    expires: int | None = None


class RevokeKey(Operation, frozen=True, kw_only=True):
    key_id: str


class PublishPrice(Operation, frozen=True, kw_only=True):
    """Publishes ``PriceSheet(**terms)``; its version is its hash, so twice is once."""

    terms: dict[str, Any]


class Deposit(Operation, frozen=True, kw_only=True):
    """Paid money arrives; ``reference`` names the payment.

    ``amount`` goes to the wallet; ``tax`` (nano-units) came with it and is owed to a tax office, so
    amount + tax was paid. ``pays`` is the id of the invoice on record that this settles.
    """

    id: str
    tenant: str
    amount: int
    currency: str
    reference: str = ""
    tax: int = 0
    pays: str | None = None


class Bill(Operation, frozen=True, kw_only=True):
    """Charges what is no request, such as a plan's fee, from the wallet and its credit limit.

    ``item`` says what is sold ("plan:pro@3"): the revenue account is named after it. Grants,
    allowances and spend limits are for requests; they play no part here.
    """

    id: str
    tenant: str
    amount: int
    currency: str
    item: str
    reason: str = ""


class Freeze(Operation, frozen=True, kw_only=True):
    """A frozen customer starts no request; running ones end as usual. Needs a reason and a name."""

    tenant: str
    frozen: bool
    reason: str = ""
    actor: str = ""


class Allow(Operation, frozen=True, kw_only=True):
    """Included tokens: requests use them before money, lowest ``priority`` first, then soonest
    ``expires`` (ns). ``offers`` names what they are good for; empty means every offer."""

    id: str
    tenant: str
    tokens: int
    offers: tuple[str, ...] = ()
    reason: str = ""
    expires: int | None = None
    priority: int = 0


class EndAllowance(Operation, frozen=True, kw_only=True):
    """Takes back what is left of an allowance; tokens reserved by running requests stay good."""

    id: str
    reason: str
    actor: str = ""


class File(Operation, frozen=True, kw_only=True):
    """Puts a document on record: a plan, an invoice, a profile; newer revisions replace older ones.

    Revision 1 is new; revision n replaces n − 1. The same revision with the same content returns
    the first result. ``content`` is JSON of at most 1 MiB whose numbers are integers. ``series``
    numbers documents without a gap, in the transaction that files them; a document keeps its number
    in all later revisions. ``tenant`` "" means the seller's own.
    """

    id: str
    kind: str
    tenant: str = ""
    content: dict[str, Any]
    series: str | None = None
    revision: int = 1
    actor: str = ""


class Grant(Operation, frozen=True, kw_only=True):
    """Given money: spent before paid money, lowest ``priority`` first, then soonest ``expires``."""

    id: str
    tenant: str
    amount: int
    currency: str
    reason: str = ""
    expires: int | None = None
    priority: int = 0


class Hold(Operation, frozen=True, kw_only=True):
    """Reserves the ceiling of a request before its first token.

    ``id`` is the request id. ``lifetime`` is a span in ns, on the ledger's monotonic clock:
    when it runs out the ledger settles the hold at its last progress or voids it, whatever the wall
    clock says. ``idempotency_key`` and ``fingerprint`` (a hash of the body) come from the customer.
    """

    id: str
    tenant: str
    offer: str
    release: str
    price_version: str
    prompt_tokens: int
    max_tokens: int
    n: int = 1
    lifetime: int = 900_000_000_000
    key_id: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    batch: bool = False
    """Billed at the sheet's batch multiplier."""


class Progress(Operation, frozen=True, kw_only=True):
    """What an open hold has consumed so far. No result; a closed hold ignores it."""

    hold: str
    usage: Usage


class Settle(Operation, frozen=True, kw_only=True):
    """Charges ``usage`` under the price that the hold pinned and gives back the rest."""

    hold: str
    usage: Usage
    finish: str = "stop"


class Void(Operation, frozen=True, kw_only=True):
    """Gives the whole hold back."""

    hold: str
    reason: str


class Refund(Operation, frozen=True, kw_only=True):
    """Reverses ``of`` in whole or in part: a settled hold, deposit, grant, fee or adjustment.

    Money only: tokens that an allowance paid for stay used. Of a deposit with tax the same share
    of the tax goes back, on top of ``amount``.
    """

    id: str
    of: str
    reason: str
    amount: int | None = None
    """Nano-units; None means all that is left."""


class Adjust(Operation, frozen=True, kw_only=True):
    """Moves ``amount`` (either sign) by hand. Who and why are required and stay in the journal."""

    id: str
    tenant: str
    amount: int
    currency: str
    reason: str
    actor: str


AnyOperation = (
    OpenCustomer
    | SetCreditLimit
    | SetSpendLimit
    | AddKey
    | RevokeKey
    | PublishPrice
    | Deposit
    | Grant
    | Bill
    | Freeze
    | Allow
    | EndAllowance
    | File
    | Hold
    | Progress
    | Settle
    | Void
    | Refund
    | Adjust
)


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag=True):
    """The base of all results. ``seq`` is the journal entry that made it so."""

    seq: int
    replayed: bool = False


class Recorded(Result, frozen=True, kw_only=True):
    """A customer, key, limit or price is on record under ``id`` (for a price, its version)."""

    id: str


class Posted(Result, frozen=True, kw_only=True):
    """Money moved; ``available`` is what the customer can spend now."""

    id: str
    amount: int
    available: int


class Held(Result, frozen=True, kw_only=True):
    hold: str
    amount: int
    currency: str
    available: int


class Settled(Result, frozen=True, kw_only=True):
    hold: str
    charge: int
    currency: str
    usage: Usage
    lines: tuple[Line, ...]
    available: int
    covered: int = 0
    """Tokens of the usage that allowances paid."""


class Voided(Result, frozen=True, kw_only=True):
    hold: str
    available: int


class Filed(Result, frozen=True, kw_only=True):
    """A document is on record; ``number`` is its place in its series, if it has one."""

    id: str
    revision: int
    number: int | None = None


class Allowed(Result, frozen=True, kw_only=True):
    """An allowance is on record; ``left`` tokens of it can be used now."""

    id: str
    tokens: int
    left: int


class Noted(Result, frozen=True, kw_only=True):
    """Progress is durable, or came too late to matter."""


AnyResult = Recorded | Posted | Held | Settled | Voided | Filed | Allowed | Noted


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag=True):
    """A LedgerError on its way through a socket."""

    code: str
    message: str
    fields: dict[str, Any] = {}


def encode(value: Operation | Result | Failure) -> bytes:
    """JSON, one line."""
    return msgspec.json.encode(value)


_operation: msgspec.json.Decoder[AnyOperation] = msgspec.json.Decoder(AnyOperation)
_answer: msgspec.json.Decoder[AnyResult | Failure] = msgspec.json.Decoder(AnyResult | Failure)


def decode_operation(data: bytes) -> AnyOperation:
    """Raises msgspec.ValidationError for what is no operation."""
    return _operation.decode(data)


def decode_answer(data: bytes) -> AnyResult | Failure:
    """The inverse of ``encode`` for results and failures."""
    return _answer.decode(data)


def failure(error: LedgerError) -> Failure:
    return Failure(code=error.code, message=str(error), fields=error.fields())


class Book(Protocol):
    """What a gateway needs of a ledger. Every await returns only after the commit is durable.

    Raises:
        LedgerError: a subclass that says why; nothing was acknowledged then.
    """

    async def hold(self, operation: Hold) -> Held: ...

    async def settle(self, hold: str, usage: Usage, finish: str = "stop") -> Settled: ...

    async def void(self, hold: str, reason: str) -> Voided: ...

    def progress(self, hold: str, usage: Usage) -> None:
        """Fire and forget: rides along with the next commit, within a second at the latest."""

    async def do(self, operation: AnyOperation) -> AnyResult: ...
