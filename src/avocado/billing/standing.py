"""Standing: how matters stand in the ledger, as far as an event of a provider concerns them.

Read afresh before every decision. Nothing about payments is kept anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from avocado.billing import payment as p
from avocado.billing.record import Stored, read
from avocado.ledger import entry as e
from avocado.ledger.errors import UnknownCustomer
from avocado.ledger.reader import Reader

COVERS: Final = 20
"""How often we look for adjustments of one refund; each needs a race to come about."""


@dataclass(frozen=True, slots=True)
class Paid:
    """The deposit of a payment: ``net`` went to the wallet, of which ``returned`` was refunded."""

    id: str
    tenant: str
    currency: str
    net: int
    tax: int
    returned: int = 0

    @property
    def left(self) -> int:
        """What went back neither to the card nor anywhere else, tax included."""
        return self.net - self.returned + self.tax - self.tax * self.returned // self.net


@dataclass(frozen=True, slots=True)
class Moved:
    """A refund that is posted in ``parts``: ``net`` left the wallet, ``tax`` is owed no longer."""

    net: int
    tax: int
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """What ``events.decide`` decides on. ``tenant`` is whom the event is about; ``currency`` is
    its book's, None where there is no such customer."""

    tenant: str = ""
    currency: str | None = None
    wallet: int = 0
    credit_limit: int = 0
    frozen: str = ""
    payer_of: str = ""
    """The tenant that the event's payer is."""
    paid: Paid | None = None
    again: tuple[Paid, ...] = ()
    """More deposits of the same payment: refunds whose money came back."""
    moved: Moved | None = None
    """The event's refund, or its lost dispute's, in the ledger."""
    given_back: bool = False
    covers: int = 0
    covered: int = 0
    """Adjustments by which we bear the event's refund, and their sum."""
    restored: bool = False
    uncovered: bool = False
    failed_before: bool = False
    """The event's refund is known to have failed."""
    problem: Stored[p.Problem] | None = None
    quote: Stored[p.Quote] | None = None
    attempt: Stored[p.Attempt] | None = None
    failures: int = 0
    """Automatic top-ups that failed in a row, up to the event's own."""
    account: Stored[p.Account] | None = None
    asked: Stored[p.Return] | None = None
    dispute: Stored[p.Dispute] | None = None
    other_freezes: bool = False
    """Another dispute keeps the customer frozen."""


def refund_failed_id(refund: str) -> str:
    """The document that remembers a refund that came back, should its making be told later."""
    return f"refund-failed/{refund}"


def look(reader: Reader, what: p.Happening) -> Standing:
    """How matters stand for ``what``."""
    match what:
        case p.PaymentSucceeded():
            return _payment(reader, what)
        case p.PaymentFailed():
            return _failed(reader, what)
        case p.RefundMade() | p.RefundFailed():
            return _refund(reader, what)
        case p.DisputeOpened() | p.DisputeClosed():
            return _dispute(reader, what)
        case p.CardSaved() | p.CardRemoved():
            tenant = tenant_of(reader, what.payer)
            account = read(reader, p.account_id(tenant), p.Account) if tenant else None
            return Standing(tenant=tenant, account=account)
    return Standing()


def tenant_of(reader: Reader, payer: str) -> str:
    """Whose the provider's customer is; empty if nobody's."""
    found = reader.document(p.payer_id(payer)) if payer else None
    return found.tenant if found is not None else ""


def paid_by(reader: Reader, payment: str) -> Paid | None:
    """The deposit that a payment made, if it made one."""
    return _deposit(reader, p.deposit_id(payment))


def _deposit(reader: Reader, id_: str) -> Paid | None:
    sql = (
        "SELECT tenant, currency, amount, tax, refunded FROM posting"
        " WHERE id = ? AND kind = 'Deposited'"
    )
    for tenant, currency, net, tax, returned in reader.rows(sql, (id_,)):
        return Paid(id_, tenant, currency, int(net), int(tax), int(returned))
    return None


def came_back(reader: Reader, paid: Paid, payment: str) -> tuple[Paid, ...]:
    """Deposits of refunds of a payment that came back."""
    named = p.came_back(payment)
    found = [
        _deposit(reader, record.entry.id)
        for record in reader.postings(paid.tenant)
        if isinstance(record.entry, e.Deposited) and record.entry.reference == named
    ]
    return tuple(each for each in found if each is not None)


def _payment(reader: Reader, what: p.PaymentSucceeded) -> Standing:
    tenant = what.order.tenant if what.order is not None else ""
    attempt = quote = None
    if what.order is not None and what.order.quote:
        quote = read(reader, what.order.quote, p.Quote)
    if what.order is not None and what.order.attempt:
        attempt = read(reader, p.attempt_id(tenant, what.order.attempt), p.Attempt)
    return Standing(
        tenant=tenant,
        currency=currency_of(reader, tenant),
        payer_of=tenant_of(reader, what.payer),
        paid=paid_by(reader, what.payment),
        problem=read(reader, p.problem_id(what.payment), p.Problem),
        quote=quote,
        attempt=attempt,
    )


def _failed(reader: Reader, what: p.PaymentFailed) -> Standing:
    tenant, number = what.order.tenant, what.order.attempt
    account = read(reader, p.account_id(tenant), p.Account)
    armed = account.value.auto.armed if account is not None and account.value.auto else 0
    return Standing(
        tenant=tenant,
        currency=currency_of(reader, tenant),
        attempt=read(reader, p.attempt_id(tenant, number), p.Attempt),
        failures=1 + failures_before(reader, tenant, number, armed),
        account=account,
    )


def failures_before(reader: Reader, tenant: str, number: int, armed: int) -> int:
    """Attempts that failed in a row just before ``number``, after the one numbered ``armed``."""
    count = 0
    while number - 1 - count > armed:
        before = read(reader, p.attempt_id(tenant, number - 1 - count), p.Attempt)
        if before is None or before.value.state != "failed":
            break
        count += 1
    return count


def _refund(reader: Reader, what: p.RefundMade | p.RefundFailed) -> Standing:
    paid = paid_by(reader, what.payment)
    if paid is None:
        return Standing()
    posting = p.refund_posting(what.ours or what.refund)
    failed = reader.document(refund_failed_id(what.refund))
    asked = read(reader, p.return_id(what.ours), p.Return) if what.ours else None
    standing = Standing(
        tenant=paid.tenant,
        paid=paid,
        again=came_back(reader, paid, what.payment),
        failed_before=failed is not None,
        asked=asked,
    )
    return _with_reversal(reader, posting, standing)


def _dispute(reader: Reader, what: p.DisputeOpened | p.DisputeClosed) -> Standing:
    paid = paid_by(reader, what.payment)
    if paid is None:
        return Standing()
    name = p.dispute_id(what.dispute)
    others = [
        document.id
        for document in reader.documents("dispute", paid.tenant)
        if document.content.get("freezes") and document.id != name
    ]
    return _with_reversal(
        reader,
        p.refund_posting(what.dispute),
        Standing(
            tenant=paid.tenant,
            paid=paid,
            again=came_back(reader, paid, what.payment),
            frozen=reader.customer(paid.tenant).frozen,
            dispute=read(reader, name, p.Dispute),
            other_freezes=bool(others),
        ),
    )


def _with_reversal(reader: Reader, posting: str, standing: Standing) -> Standing:
    """Adds what is known of a refund's posting, and the wallet that it would come from."""
    covers = covered = 0
    for number in range(1, COVERS + 1):
        amount = _amount(reader, p.cover_posting(posting, number))
        if amount is None:
            break
        covers, covered = number, covered + amount
    balance = reader.balance(standing.tenant)
    return replace(
        standing,
        wallet=balance.wallet,
        credit_limit=balance.credit_limit,
        moved=_moved(reader, posting),
        given_back=_amount(reader, p.give_back(posting)) is not None,
        covers=covers,
        covered=covered,
        restored=_amount(reader, p.restore_posting(posting)) is not None,
        uncovered=_amount(reader, p.uncover_posting(posting)) is not None,
    )


def _amount(reader: Reader, posting: str) -> int | None:
    for (amount,) in reader.rows("SELECT amount FROM posting WHERE id = ?", (posting,)):
        return int(amount)
    return None


def _moved(reader: Reader, posting: str) -> Moved | None:
    net = tax = 0
    number = 1
    while (part := _refunded(reader, p.part_posting(posting, number))) is not None:
        net, tax, number = net + part.amount, tax + part.tax, number + 1
    return Moved(net, tax, number - 1) if number > 1 else None


def _refunded(reader: Reader, posting: str) -> e.Refunded | None:
    for (seq,) in reader.rows("SELECT seq FROM posting WHERE id = ?", (posting,)):
        record = reader.entry(int(seq))
        if record is not None and isinstance(record.entry, e.Refunded):
            return record.entry
    return None


def currency_of(reader: Reader, tenant: str) -> str | None:
    """The currency of a customer's book; None if there is no such customer."""
    if not tenant:
        return None
    try:
        return reader.customer(tenant).currency
    except UnknownCustomer:
        return None
