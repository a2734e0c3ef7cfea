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
    from avocado.billing.standing import Paid, Standing


def reverse(
    now: Standing, paid: Paid, posting: str, gross: int, reason: str, bear: bool = True
) -> tuple[AnyOperation, ...]:
    """What the ledger lacks of the refund ``posting`` of ``gross``. Not to ``bear`` what was used
    leaves it to the ledger to refuse a refund that the wallet cannot give."""
    done = now.moved
    wanted = gross - (done.net + done.tax if done is not None else 0)
    source = next((each for each in (paid, *now.again) if each.left > p.CRUMBS), None)
    if wanted <= p.CRUMBS or source is None:
        return _restore(now, paid, posting, reason)
    net = p.net_back(source.net, source.tax, source.returned, min(wanted, source.left))
    if net == 0:
        return ()
    part = p.part_posting(posting, done.parts + 1 if done is not None else 1)
    refund = Refund(id=part, of=source.id, amount=net, reason=reason)
    short = net - now.wallet
    if short <= 0 or not bear:
        return (refund,)
    lost = Money(min(short, net), paid.currency)
    why = f"{reason}: {lost} of it were used already and are our loss"
    return (_adjust(paid, p.cover_posting(posting, now.covers + 1), short, why), refund)


def _restore(now: Standing, paid: Paid, posting: str, reason: str) -> tuple[AnyOperation, ...]:
    """A wallet on credit had to be lifted to zero first; it owes that again."""
    if now.moved is None or now.restored:
        return ()
    room = max(now.wallet + now.credit_limit, 0)
    debt = min(now.covered - now.moved.net, room)
    if debt <= 0:
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


def give_back(
    now: Standing, paid: Paid, payment: str, posting: str, reason: str
) -> tuple[AnyOperation, ...]:
    """What the ledger lacks to undo a refund whose money is with us again."""
    if now.moved is None:
        return ()
    wallet = now.wallet
    operations: list[AnyOperation] = []
    if not now.given_back:
        deposit = Deposit(
            id=p.give_back(posting),
            tenant=paid.tenant,
            amount=now.moved.net,
            currency=paid.currency,
            reference=p.came_back(payment),
            tax=now.moved.tax,
        )
        operations.append(deposit)
        wallet += now.moved.net
    borne = min(loss(now), max(wallet + now.credit_limit, 0))
    if borne and not now.uncovered:
        why = f"{reason} came back: nothing was lost"
        operations.append(_adjust(paid, p.uncover_posting(posting), -borne, why))
    return tuple(operations)
