"""Decisions about money that comes and goes: deposits, grants, fees, adjustments, refunds. Pure.

Each has an id of the caller's. The same again returns the first result; another content under the
same id is a conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from avocado.ledger import entry as e
from avocado.ledger import errors, transfer
from avocado.ledger import operation as o
from avocado.ledger.grants import available, balance_of
from avocado.ledger.holds import Now, customer_of
from avocado.ledger.projection import Posted
from avocado.ledger.rows import OPEN, Customer, DocumentRow, HoldRow, Posting
from avocado.ledger.state import State
from avocado.terms.money import MAX_NANOS

Incoming: TypeAlias = o.Deposit | o.Grant | o.Bill | o.Refund | o.Adjust


def check_amount(amount: int, least: int = 1) -> None:
    """Raises NotAllowed for an amount (nano-units) below ``least`` or beyond int64."""
    if type(amount) is not int or not least <= amount <= MAX_NANOS:
        raise errors.NotAllowed(f"an amount of {amount} nano-units is out of range")


def _check_currency(customer: Customer, currency: str) -> None:
    if customer.currency != currency:
        raise errors.CurrencyMismatch(customer.currency, currency)


def _again(state: State, op: Incoming, now: Now) -> o.Posted | None:
    """The first result, if this id was posted before with this content."""
    row = state.get(Posting, op.id)
    if row is None:
        return None
    if not _same(row, op):
        raise errors.IdempotencyConflict(op.id)
    left = available(state, row.tenant, now.at)
    return o.Posted(seq=row.seq, replayed=True, id=op.id, amount=row.amount, available=left)


def _same(row: Posting, op: Incoming) -> bool:
    """Whether a stored posting says what this operation asks for."""
    if isinstance(op, o.Refund):
        amount = row.amount if op.amount is None else op.amount
        return (row.kind, row.amount, row.content) == ("Refunded", amount, f"{op.of} {op.reason}")
    if isinstance(op, o.Deposit):
        if (row.tax, row.pays) != (op.tax, op.pays or ""):
            return False
        kind, content = "Deposited", op.reference
    elif isinstance(op, o.Bill):
        kind, content = "Billed", f"{op.item} {op.reason}"
    elif isinstance(op, o.Grant):
        kind, content = "Granted", f"{op.priority} {op.expires} {op.reason}"
    else:
        kind, content = "Adjusted", f"{op.actor}: {op.reason}"
    stored = (row.kind, row.tenant, row.currency, row.amount, row.content)
    return stored == (kind, op.tenant, op.currency, op.amount, content)


def _post(state: State, tenant: str, entry: Posted, now: Now) -> o.Posted:
    seq = state.post(entry, now.at)
    left = available(state, tenant, now.at)
    return o.Posted(seq=seq, id=entry.id, amount=entry.amount, available=left)


def deposit(state: State, op: o.Deposit, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    check_amount(op.amount)
    check_amount(op.tax, least=0)
    check_amount(op.amount + op.tax)
    if op.pays is not None:
        _check_paid(state, op.tenant, op.pays)
    entry = e.Deposited(
        id=op.id,
        tenant=op.tenant,
        amount=op.amount,
        currency=op.currency,
        reference=op.reference,
        tax=op.tax,
        pays=op.pays,
        legs=transfer.deposit(op.tenant, op.currency, op.amount, op.tax),
    )
    return _post(state, op.tenant, entry, now)


def _check_paid(state: State, tenant: str, document: str) -> None:
    row = state.get(DocumentRow, document)
    if row is None or row.tenant != tenant:
        raise errors.NotAllowed(f"there is no document {document!r} of this customer to pay")


def bill(state: State, op: o.Bill, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    check_amount(op.amount)
    if not op.item or " " in op.item:
        raise errors.NotAllowed("a fee needs the item that it is for, a word without spaces")
    wallet, income = transfer.wallet(op.tenant), transfer.revenue(op.item, op.currency)
    room = balance_of(state, wallet) + customer.credit_limit
    if op.amount > room:
        raise errors.InsufficientFunds(room, op.amount)
    entry = e.Billed(
        id=op.id,
        tenant=op.tenant,
        amount=op.amount,
        currency=op.currency,
        item=op.item,
        reason=op.reason,
        legs=transfer.move(wallet, income, op.amount),
    )
    return _post(state, op.tenant, entry, now)


def grant(state: State, op: o.Grant, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    check_amount(op.amount)
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


def adjust(state: State, op: o.Adjust, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    customer = customer_of(state, op.tenant)
    _check_currency(customer, op.currency)
    check_amount(abs(op.amount))
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


def refund(state: State, op: o.Refund, now: Now) -> o.Posted:
    if before := _again(state, op, now):
        return before
    if op.amount is not None:
        check_amount(op.amount)
    hold, row = state.get(HoldRow, op.of), state.get(Posting, op.of)
    subject: HoldRow | Posting
    if hold is not None and hold.state != OPEN:
        subject, left, reverse = hold, hold.charge - hold.refunded, _back_to_payers(hold)
    elif row is not None and row.kind in _REVERSE:
        subject, (left, reverse) = row, _REVERSE[row.kind](state, row)
    else:
        raise errors.NothingToRefund(op.of, 0)
    amount = left if op.amount is None else op.amount
    if not 0 < amount <= left:
        raise errors.NothingToRefund(op.of, left)
    entry = e.Refunded(
        id=op.id,
        tenant=subject.tenant,
        of=op.of,
        amount=amount,
        currency=subject.currency,
        reason=op.reason,
        legs=reverse(amount),
        tax=_tax_share(row, amount) if subject is row and row is not None else 0,
    )
    return _post(state, subject.tenant, entry, now)


# -- what a refund reverses: (nano-units left to reverse, the legs of a reversal) ----------------

Reverse: TypeAlias = Callable[[int], transfer.Legs]


def _back_to_payers(hold: HoldRow) -> Reverse:
    """A charge goes back to the accounts that paid it, the last one first."""
    income = transfer.revenue(hold.release, hold.currency)
    eaten = transfer.consumed(hold.sources(), hold.charge)
    return lambda amount: ((income, -amount), *transfer.unwind(eaten, hold.refunded, amount))


def _tax_share(row: Posting, amount: int) -> int:
    """The tax that goes back with ``amount`` of a deposit: all of it once all went back."""
    return row.tax * (row.refunded + amount) // row.amount - row.tax * row.refunded // row.amount


def _deposited(state: State, row: Posting) -> tuple[int, Reverse]:
    room = balance_of(state, transfer.wallet(row.tenant))
    if row.pays:  # what it paid was used on credit, and is owed again
        room += state.need(Customer, row.tenant).credit_limit
    left = min(row.amount - row.refunded, max(room, 0))

    def back(amount: int) -> transfer.Legs:
        legs = transfer.deposit(row.tenant, row.currency, amount, _tax_share(row, amount))
        return tuple((name, -delta) for name, delta in reversed(legs))

    return left, back


def _granted(state: State, row: Posting) -> tuple[int, Reverse]:
    lot, pool = transfer.grant(row.id), transfer.grants(row.currency)
    left = min(row.amount - row.refunded, balance_of(state, lot))
    return left, lambda amount: transfer.move(lot, pool, amount)


def _billed(state: State, row: Posting) -> tuple[int, Reverse]:
    income = transfer.revenue(row.content.partition(" ")[0], row.currency)
    wallet = transfer.wallet(row.tenant)
    return row.amount - row.refunded, lambda amount: transfer.move(income, wallet, amount)


def _adjusted(state: State, row: Posting) -> tuple[int, Reverse]:
    wallet, pool = transfer.wallet(row.tenant), transfer.writeoffs(row.currency)
    sign = 1 if row.amount > 0 else -1
    left = abs(row.amount) - row.refunded
    return left, lambda amount: transfer.move(wallet, pool, sign * amount)


_REVERSE: dict[str, Callable[[State, Posting], tuple[int, Reverse]]] = {
    "Deposited": _deposited,
    "Granted": _granted,
    "Billed": _billed,
    "Adjusted": _adjusted,
}
