"""Why the ledger said no. Each error has a stable ``code`` and plain fields, so it can travel."""

from __future__ import annotations

from typing import ClassVar


class LedgerError(Exception):
    """The base of every refusal. ``code`` is stable; the message is one sentence for people."""

    code: ClassVar[str] = "ledger_error"

    def fields(self) -> dict[str, object]:
        """What a caller may want to show or to send: the instance's public attributes."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


# -- the caller asked for something that the book does not allow ---------------------------------


class InsufficientFunds(LedgerError):
    """``available`` (nano-units, credit limit included) is less than ``needed``."""

    code = "insufficient_funds"

    def __init__(self, available: int, needed: int) -> None:
        super().__init__(f"{needed} nano-units are needed and {available} are available")
        self.available = available
        self.needed = needed


class SpendLimitReached(LedgerError):
    """A spend limit (``scope`` key or customer, ``period`` month or total) would be passed."""

    code = "spend_limit_reached"

    def __init__(self, scope: str, period: str, limit: int, spent: int, needed: int) -> None:
        super().__init__(
            f"the {period} limit of this {scope} is {limit} nano-units, "
            f"{spent} are spent or held, and {needed} more are needed"
        )
        self.scope = scope
        self.period = period
        self.limit = limit
        self.spent = spent
        self.needed = needed


class UnknownCustomer(LedgerError):
    code = "unknown_customer"

    def __init__(self, tenant: str) -> None:
        super().__init__(f"there is no customer {tenant!r}")
        self.tenant = tenant


class UnknownKey(LedgerError):
    """No such key, or a key of another customer."""

    code = "unknown_key"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id!r} of this customer")
        self.key_id = key_id


class KeyRevoked(LedgerError):
    code = "key_revoked"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id!r} is revoked")
        self.key_id = key_id


class UnknownPrice(LedgerError):
    code = "unknown_price"

    def __init__(self, version: str) -> None:
        super().__init__(f"no price sheet {version!r} was published")
        self.version = version


class PriceNotInForce(LedgerError):
    """The sheet is not effective yet, or no longer."""

    code = "price_not_in_force"

    def __init__(self, version: str) -> None:
        super().__init__(f"price sheet {version!r} is not in force now")
        self.version = version


class CurrencyMismatch(LedgerError):
    code = "currency_mismatch"

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"this customer's book is in {expected}, not {got}")
        self.expected = expected
        self.got = got


class IdempotencyConflict(LedgerError):
    """The same key or id again with another content."""

    code = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} was used before with another content")
        self.key = key


class Duplicate(LedgerError):
    """The same idempotency key and fingerprint again: ``hold`` is the original, in ``state``
    ``open`` or ``settled``. A voided original frees the key, because nothing was delivered."""

    code = "duplicate"

    def __init__(self, hold: str, state: str) -> None:
        super().__init__(f"this request was made before as {hold!r}, which is {state}")
        self.hold = hold
        self.state = state


class HoldNotOpen(LedgerError):
    """``state`` is ``unknown``, ``settled`` or ``voided``."""

    code = "hold_not_open"

    def __init__(self, hold: str, state: str) -> None:
        super().__init__(f"hold {hold!r} is {state}")
        self.hold = hold
        self.state = state


class UsageBeyondHold(LedgerError):
    """Usage above what the hold allowed. It is flagged in the journal; the hold stays open."""

    code = "usage_beyond_hold"

    def __init__(self, hold: str, detail: str) -> None:
        super().__init__(f"usage of hold {hold!r} is not believed: {detail}")
        self.hold = hold
        self.detail = detail


class NothingToRefund(LedgerError):
    """The thing to reverse is unknown, or reversed already as far as the amount goes."""

    code = "nothing_to_refund"

    def __init__(self, of: str, left: int) -> None:
        super().__init__(f"of {of!r} at most {left} nano-units can be refunded")
        self.of = of
        self.left = left


class AccountFrozen(LedgerError):
    """The customer may start no requests. ``reason`` is the operator's, not for the customer."""

    code = "account_frozen"

    def __init__(self, tenant: str, reason: str) -> None:
        super().__init__(f"customer {tenant!r} is frozen: {reason}")
        self.tenant = tenant
        self.reason = reason


class DocumentConflict(LedgerError):
    """Document ``id`` cannot be filed so: ``revision`` is the newest on record (0: none), and
    ``differs`` names what is not as it is there (``revision``: another one must come next)."""

    code = "document_conflict"

    def __init__(self, id_: str, revision: int, differs: tuple[str, ...]) -> None:
        if differs == ("revision",):
            why = f"the next one to file is revision {revision + 1}"
        else:
            why = f"it differs in {', '.join(differs)}"
        super().__init__(f"document {id_!r} is on record at revision {revision}, and {why}")
        self.id = id_
        self.revision = revision
        self.differs = list(differs)


class NotAllowed(LedgerError):
    """An operation whose content makes no sense, such as a negative deposit."""

    code = "not_allowed"


# -- the ledger itself cannot answer -------------------------------------------------------------


class LedgerUnavailable(LedgerError):
    """The store did not commit. Nothing was acknowledged; asking again with the same id is safe."""

    code = "ledger_unavailable"


class LedgerFull(LedgerUnavailable):
    """Too many operations wait already."""

    code = "ledger_full"


class LedgerClosed(LedgerUnavailable):
    code = "ledger_closed"


class Fenced(LedgerUnavailable):
    """Another process declared this one dead and took over its holds; it must start again."""

    code = "fenced"


class LedgerCorrupt(LedgerUnavailable):
    """The stored book contradicts itself, first at ``seq``. Writes stop until it is looked at."""

    code = "ledger_corrupt"

    def __init__(self, detail: str, seq: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.seq = seq


class LedgerLocked(LedgerError):
    """Another process (``pid``, 0 if it did not say) has this book open for writing."""

    code = "ledger_locked"

    def __init__(self, path: str, pid: int) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is open for writing in {who}; stop it first, or ask it")
        self.path = path
        self.pid = pid


class UnsafeLibrary(LedgerError):
    """The database library, or the server's settings, can lose acknowledged commits."""

    code = "unsafe_library"
