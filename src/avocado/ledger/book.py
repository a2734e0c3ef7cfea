"""The book's decisions: what an operation does to a state, or why it is refused. Pure.

``decide`` raises a LedgerError before it changes anything (except for flags, which are entries of
their own), so one refused operation never spoils the batch that it came with. Holds are decided in
``holds``; here are customers, keys, prices and money that comes and goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from avocado.ledger import documents, errors, holds, transfer
from avocado.ledger import entry as e
from avocado.ledger import operation as o
from avocado.ledger.holds import Now, available, balance_of, customer_of
from avocado.ledger.periods import month_of, month_start
from avocado.ledger.rows import OPEN, Customer, HoldRow, Key, Posting, Price
from avocado.ledger.state import Overdrawn, State
from avocado.terms.money import MAX_NANOS, Money, MoneyError
from avocado.terms.price import PriceSheet

_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_ID_LENGTH: Final = 200


class Close(o.Operation, frozen=True, kw_only=True):
    """Internal: ends an orphaned hold. It never comes through a socket."""

    hold: str
    cause: str


class ExpireGrants(o.Operation, frozen=True, kw_only=True):
    """Internal: posts the end of a customer's overdue grants."""

    tenant: str


AnyInternal = o.AnyOperation | Close | ExpireGrants


def decide(state: State, op: AnyInternal, now: Now) -> o.AnyResult:
    """Applies one operation to the state and returns what its caller is told after the commit.

    Raises:
        LedgerError: the operation is refused, and the state is as it was.
    """
    try:
        return _DECIDE[type(op)](state, op, now)
    except Overdrawn as error:
        raise holds.overdrawn(error) from None


def check(op: o.Operation) -> None:
    """Refuses what no database or JSON can carry, before it is queued. Runs in the caller.

    Raises:
        NotAllowed: an id that is not short printable ASCII, NUL or lone surrogates in a text, a
            number beyond int64.
    """
    if type(op) is o.File:
        documents.check_document(op)
    for name in op.__struct_fields__:
        value = getattr(op, name)
        if type(value) is str:
            if not (value.isascii() and value.isprintable() and len(value) <= _ID_LENGTH):
                _check_text(name, value)
        elif type(value) is int and abs(value) > MAX_NANOS:
            raise errors.NotAllowed(f"{name} is beyond int64")


def _check_text(name: str, value: str) -> None:
    if name not in ("name", "reason", "reference", "actor", "finish", "cause"):
        raise errors.NotAllowed(f"{name} must be at most {_ID_LENGTH} printable ASCII characters")
    if "\0" in value or len(value) > 2000 or any("\ud800" <= c <= "\udfff" for c in value):
        raise errors.NotAllowed(f"{name} must be Unicode text of at most 2000 characters")


def _check_amount(amount: int, least: int = 1) -> None:
    if type(amount) is not int or not least <= amount <= MAX_NANOS:
        raise errors.NotAllowed(f"an amount of {amount} nano-units is out of range")


def _check_currency(customer: Customer, currency: str) -> None:
    if customer.currency != currency:
        raise errors.CurrencyMismatch(customer.currency, currency)


def _recorded(seq: int, id_: str, replayed: bool = False) -> o.Recorded:
    return o.Recorded(seq=seq, id=id_, replayed=replayed)


# -- customers, keys, prices -----------------------------------------------------------------------


def _open_customer(state: State, op: o.OpenCustomer, now: Now) -> o.Recorded:
    known = state.get(Customer, op.tenant)
    if known is not None:
        if (known.name, known.currency) != (op.name, op.currency):
            raise errors.IdempotencyConflict(op.tenant)
        return _recorded(known.seq, op.tenant, replayed=True)
    if not _TENANT.fullmatch(op.tenant):
        raise errors.NotAllowed(
            f"{op.tenant!r} is no customer id: use up to 64 letters, digits, dots, - and _"
        )
    try:
        Money(0, op.currency)
    except MoneyError as error:
        raise errors.NotAllowed(str(error)) from None
    _check_amount(op.credit_limit, least=0)
    seq = state.post(
        e.CustomerOpened(
            tenant=op.tenant, name=op.name, currency=op.currency, credit_limit=op.credit_limit
        ),
        now.at,
    )
    return _recorded(seq, op.tenant)


def _set_credit_limit(state: State, op: o.SetCreditLimit, now: Now) -> o.Recorded:
    customer_of(state, op.tenant)
    _check_amount(op.credit_limit, least=0)
    balance = balance_of(state, transfer.wallet(op.tenant))
    if balance < -op.credit_limit:
        raise errors.InsufficientFunds(balance + op.credit_limit, 0)
    seq = state.post(e.CreditLimitSet(tenant=op.tenant, credit_limit=op.credit_limit), now.at)
    return _recorded(seq, op.tenant)


def _set_spend_limit(state: State, op: o.SetSpendLimit, now: Now) -> o.Recorded:
    customer_of(state, op.tenant)
    subject = f"customer:{op.tenant}"
    if op.key_id is not None:
        key = state.get(Key, op.key_id)
        if key is None or key.tenant != op.tenant:
            raise errors.UnknownKey(op.key_id)
        subject = f"key:{op.key_id}"
    for limit in (op.month, op.total):
        if limit is not None:
            _check_amount(limit, least=0)
    period = month_of(now.at)
    seq = state.post(
        e.SpendLimitSet(
            tenant=op.tenant,
            key_id=op.key_id,
            month=op.month,
            total=op.total,
            period=period,
            spent_month=state.measure(subject, month_start(now.at)),
            spent_total=state.measure(subject, 0),
        ),
        now.at,
    )
    return _recorded(seq, op.key_id or op.tenant)


def _add_key(state: State, op: o.AddKey, now: Now) -> o.Recorded:
    customer_of(state, op.tenant)
    known = state.get(Key, op.key_id)
    if known is not None:
        if (known.tenant, known.digest) != (op.tenant, op.digest):
            raise errors.IdempotencyConflict(op.key_id)
        return _recorded(known.seq, op.key_id, replayed=True)
    if state.key_by_digest(op.digest) is not None:
        raise errors.IdempotencyConflict(op.key_id)
    seq = state.post(
        e.KeyAdded(
            key_id=op.key_id,
            tenant=op.tenant,
            name=op.name,
            digest=op.digest,
            created=op.created,
            expires=op.expires,
        ),
        now.at,
    )
    return _recorded(seq, op.key_id)


def _revoke_key(state: State, op: o.RevokeKey, now: Now) -> o.Recorded:
    key = state.get(Key, op.key_id)
    if key is None:
        raise errors.UnknownKey(op.key_id)
    if key.revoked is not None:
        return _recorded(key.seq, op.key_id, replayed=True)
    return _recorded(
        state.post(e.KeyRevoked(key_id=op.key_id, tenant=key.tenant), now.at), key.key_id
    )


def price_version(op: o.PublishPrice) -> str:
    """The version of a price to publish. Raises NotAllowed for terms that are no price sheet."""
    try:
        return PriceSheet(**op.terms).version
    except (TypeError, ValueError) as error:
        raise errors.NotAllowed(f"these terms are no price sheet: {error}") from None


def _publish_price(state: State, op: o.PublishPrice, now: Now) -> o.Recorded:
    version = price_version(op)
    known = state.get(Price, version)
    if known is not None:
        return _recorded(known.seq, version, replayed=True)
    terms = PriceSheet(**op.terms).terms()
    return _recorded(state.post(e.PricePublished(version=version, terms=terms), now.at), version)


# -- money that comes and goes ---------------------------------------------------------------------


def _again(
    state: State, op: o.Deposit | o.Grant | o.Refund | o.Adjust, now: Now
) -> o.Posted | None:
    """The first result, if this id was posted before with this content."""
    row = state.get(Posting, op.id)
    if row is None:
        return None
    if not _same(row, op):
        raise errors.IdempotencyConflict(op.id)
    left = available(state, row.tenant, now.at)
    return o.Posted(seq=row.seq, replayed=True, id=op.id, amount=row.amount, available=left)


def _same(row: Posting, op: o.Deposit | o.Grant | o.Refund | o.Adjust) -> bool:
    """Whether a stored posting says what this operation asks for."""
    if isinstance(op, o.Refund):
        amount = row.amount if op.amount is None else op.amount
        return (row.kind, row.amount, row.content) == ("Refunded", amount, f"{op.of} {op.reason}")
    if isinstance(op, o.Deposit):
        kind, content = "Deposited", op.reference
    elif isinstance(op, o.Grant):
        kind, content = "Granted", f"{op.priority} {op.expires} {op.reason}"
    else:
        kind, content = "Adjusted", f"{op.actor}: {op.reason}"
    stored = (row.kind, row.tenant, row.currency, row.amount, row.content)
    return stored == (kind, op.tenant, op.currency, op.amount, content)


def _post(
    state: State, tenant: str, entry: e.Deposited | e.Granted | e.Refunded | e.Adjusted, now: Now
) -> o.Posted:
    seq = state.post(entry, now.at)
    left = available(state, tenant, now.at)
    return o.Posted(seq=seq, id=entry.id, amount=entry.amount, available=left)


def _deposit(state: State, op: o.Deposit, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    _check_amount(op.amount)
    legs = transfer.move(transfer.payments(op.currency), transfer.wallet(op.tenant), op.amount)
    entry = e.Deposited(
        id=op.id,
        tenant=op.tenant,
        amount=op.amount,
        currency=op.currency,
        reference=op.reference,
        legs=legs,
    )
    return _post(state, op.tenant, entry, now)


def _grant(state: State, op: o.Grant, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    _check_amount(op.amount)
    if op.expires is not None and op.expires <= now.at:
        raise errors.NotAllowed("a grant must expire later than now")
    legs = transfer.move(transfer.grants(op.currency), transfer.grant(op.id), op.amount)
    entry = e.Granted(
        id=op.id,
        tenant=op.tenant,
        amount=op.amount,
        currency=op.currency,
        reason=op.reason,
        expires=op.expires,
        priority=op.priority,
        legs=legs,
    )
    return _post(state, op.tenant, entry, now)


def _adjust(state: State, op: o.Adjust, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    _check_amount(abs(op.amount))
    if not op.reason.strip() or not op.actor.strip():
        raise errors.NotAllowed("an adjustment needs a reason and the name of who makes it")
    legs = transfer.move(transfer.writeoffs(op.currency), transfer.wallet(op.tenant), op.amount)
    entry = e.Adjusted(
        id=op.id,
        tenant=op.tenant,
        amount=op.amount,
        currency=op.currency,
        reason=op.reason,
        actor=op.actor,
        legs=legs,
    )
    return _post(state, op.tenant, entry, now)


def _refund(state: State, op: o.Refund, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    if op.amount is not None:
        _check_amount(op.amount)
    tenant, currency, left, reverse = _reversible(state, op.of)
    amount = left if op.amount is None else op.amount
    if not 0 < amount <= left:
        raise errors.NothingToRefund(op.of, left)
    entry = e.Refunded(
        id=op.id,
        tenant=tenant,
        of=op.of,
        amount=amount,
        currency=currency,
        reason=op.reason,
        legs=reverse(amount),
    )
    return _post(state, tenant, entry, now)


def _reversible(state: State, of: str) -> tuple[str, str, int, Callable[[int], transfer.Legs]]:
    """(tenant, currency, nano-units left to reverse, legs of a reversal) of what ``of`` names."""
    hold = state.get(HoldRow, of)
    if hold is not None and hold.state != OPEN:
        income = transfer.revenue(hold.release, hold.currency)
        eaten = transfer.consumed(hold.sources(), hold.charge)

        def back(amount: int) -> transfer.Legs:
            return ((income, -amount), *transfer.unwind(eaten, hold.refunded, amount))

        return hold.tenant, hold.currency, hold.charge - hold.refunded, back
    row = state.get(Posting, of)
    if row is None:
        raise errors.NothingToRefund(of, 0)
    wallet = transfer.wallet(row.tenant)
    left = abs(row.amount) - row.refunded
    if row.kind == "Deposited":
        left = min(left, max(balance_of(state, wallet), 0))
        target = transfer.payments(row.currency)
        return row.tenant, row.currency, left, lambda amount: transfer.move(wallet, target, amount)
    if row.kind == "Granted":
        lot, pool = transfer.grant(of), transfer.grants(row.currency)
        left = min(left, balance_of(state, lot))
        return row.tenant, row.currency, left, lambda amount: transfer.move(lot, pool, amount)
    if row.kind == "Adjusted":
        pool, sign = transfer.writeoffs(row.currency), (1 if row.amount > 0 else -1)
        return (
            row.tenant,
            row.currency,
            left,
            lambda amount: transfer.move(wallet, pool, sign * amount),
        )
    raise errors.NothingToRefund(of, 0)


def _close(state: State, op: Close, now: Now) -> o.AnyResult:
    return holds.close(state, op.hold, op.cause, now)


def _expire(state: State, op: ExpireGrants, now: Now) -> o.AnyResult:
    holds.expire_grants(state, op.tenant, now.at)
    return o.Noted(seq=state.seq)


_DECIDE: Final[dict[type[o.Operation], Callable[[State, Any, Now], o.AnyResult]]] = {
    o.OpenCustomer: _open_customer,
    o.SetCreditLimit: _set_credit_limit,
    o.SetSpendLimit: _set_spend_limit,
    o.AddKey: _add_key,
    o.RevokeKey: _revoke_key,
    o.PublishPrice: _publish_price,
    o.Deposit: _deposit,
    o.Grant: _grant,
    o.Refund: _refund,
    o.Adjust: _adjust,
    o.File: documents.file,
    o.Hold: holds.place,
    o.Settle: holds.settle,
    o.Void: holds.void,
    o.Progress: holds.progress,
    Close: _close,
    ExpireGrants: _expire,
}
