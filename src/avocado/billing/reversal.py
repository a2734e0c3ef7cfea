"""Reversal: money of a payment that has gone back, taken out of the ledger, and put in again. Pure.

A wallet never falls below its limit, so what was used already cannot be taken from it. That
part is our loss: an adjustment (write-offs → wallet) covers it, and the refund (wallet → payments)
is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avocado.billing import payment as p
from avocado.ledger.operation import Adjust, AnyOperation, Deposit, Refund
from avocado.terms.money import Money

if TYPE_CHECKING:
    from avocado.billing.standing import Moved, Paid, Standing


def reverse(
    now: Standing, paid: Paid, posting: str, gross: int, reason: str
) -> tuple[AnyOperation, ...]:
    """What the ledger lacks of the refund ``posting``, whose money (``gross``) is gone already."""
    if now.moved is not None:
        return _restore(now, paid, now.moved, posting, reason)
    net = p.net_back(paid.net, paid.tax, paid.returned, gross)
    if net == 0:
        return ()
    operations: list[AnyOperation] = []
    short = net - now.wallet
    if short > 0:
        lost = Money(min(short, net), paid.currency)
        why = f"{reason}: {lost} of it were used already and are our loss"
        operations.append(_adjust(paid, p.cover_posting(posting, now.covers + 1), short, why))
    return (*operations, Refund(id=posting, of=paid.id, amount=net, reason=reason))


def _restore(
    now: Standing, paid: Paid, moved: Moved, posting: str, reason: str
) -> tuple[AnyOperation, ...]:
    """A wallet on credit had to be lifted to zero first; it owes that again."""
    debt = now.covered - moved.net
    if debt <= 0 or now.restored:
        return ()
    return (_adjust(paid, p.restore_posting(posting), -debt, f"{reason}: owed as before"),)


def loss(now: Standing) -> int:
    """What a refund that is posted cost us, nano-units."""
    return min(now.covered, now.moved.net) if now.moved is not None else 0


def _adjust(paid: Paid, id_: str, amount: int, reason: str) -> Adjust:
    return Adjust(
        id=id_,
        tenant=paid.tenant,
        amount=amount,
        currency=paid.currency,
        reason=reason,
        actor="payments",
    )


def give_back(now: Standing, paid: Paid, posting: str, reason: str) -> tuple[AnyOperation, ...]:
    """What the ledger lacks to undo a refund whose money is with us again."""
    if now.moved is None:
        return ()
    operations: list[AnyOperation] = []
    if not now.given_back:
        deposit = Deposit(
            id=p.give_back(posting),
            tenant=paid.tenant,
            amount=now.moved.net,
            currency=paid.currency,
            reference=f"{reason} came back",
            tax=now.moved.tax,
        )
        operations.append(deposit)
    if (borne := loss(now)) and not now.uncovered:
        why = f"{reason} came back: nothing was lost"
        operations.append(_adjust(paid, p.uncover_posting(posting), -borne, why))
    return tuple(operations)
