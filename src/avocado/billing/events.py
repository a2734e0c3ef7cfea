"""Events: what a provider's event makes the ledger do. ``decide`` is pure; ``carry_out`` does it.

A payment makes one deposit, whose id is the payment's: the event and its credit are one row of the
ledger, posted in one transaction. So an event that comes twice, two events of one payment, and the
page that the customer returns to all find the same row. ``decide`` names what is still missing;
``carry_out`` does that, looks again, and ends when nothing is: a crash in between, an event out of
order and another process at the same work all come out the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from avocado.billing import disputes
from avocado.billing import payment as p
from avocado.billing.provider import BadSignature, Provider, ProviderAway
from avocado.billing.record import Do, Refusals, busy, code_of, content_of
from avocado.billing.reversal import give_back, reverse
from avocado.billing.standing import Standing, look, refund_failed_id
from avocado.errors import Refused
from avocado.ledger.operation import AnyOperation, Deposit, File
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

ACTOR: Final = "payments"
ROUNDS: Final = 8
FAILURES: Final = 3
"""Automatic top-ups that may fail in a row before they stop."""
RACES: Final = (
    "document_conflict",
    "idempotency_conflict",
    "insufficient_funds",
    "nothing_to_refund",
)
"""Refusals that tell of somebody else at the same work: look again."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is still to be done, and what to say. ``deposit`` is the payment's, once it stands.
    ``wants`` names a payment that has to be on record first."""

    operations: tuple[AnyOperation, ...] = ()
    words: str = ""
    deposit: str = ""
    wants: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a webhook. ``status`` is what to answer over HTTP: 200 done or of no matter,
    400 not the provider's (it will not be sent again), 503 to be sent again later."""

    status: int
    words: str
    event: str = ""
    kind: str = ""
    tenant: str = ""
    deposit: str = ""
    changed: bool = False


def decide(what: p.Happening, now: Standing) -> Decision:
    """What the ledger lacks of ``what``; no operations once it has it all. Pure."""
    match what:
        case p.PaymentSucceeded():
            return _succeeded(what, now)
        case p.PaymentFailed():
            return _failed(what, now)
        case p.RefundMade():
            return _refunded(what, now)
        case p.RefundFailed():
            return _refund_failed(what, now)
        case p.DisputeOpened() | p.DisputeClosed():
            if now.paid is None:
                return Decision(wants=what.payment)
            operations, words = disputes.decide(what, now, now.paid)
            return Decision(operations, words)
        case p.CardSaved():
            return _card(now, what.card, "")
        case p.CardRemoved():
            return _card(now, None, what.method)
    return Decision(words=what.why)


# -- payments --------------------------------------------------------------------------------------


def _succeeded(what: p.PaymentSucceeded, now: Standing) -> Decision:
    if trouble := _trouble(what, now):
        return _keep_for_operator(what, now, trouble)
    order = what.order
    assert order is not None
    operations: list[AnyOperation] = []
    if now.paid is None:
        if now.quote is not None and _fits(order, now.quote.value):
            name = p.taxes_id(p.deposit_id(what.payment))
            operations.append(filed(name, 0, now.quote.value, order.tenant, "top-up-taxes"))
        operations.append(deposit_of(what, order))
    if now.problem is not None and now.problem.value.state == "open":
        settled = replace(now.problem.value, state="settled", note="credited")
        operations.append(
            filed(p.problem_id(what.payment), now.problem.revision, settled, "", "payment-problem")
        )
    if now.attempt is not None and now.attempt.value.state != "paid":
        paid = replace(now.attempt.value, state="paid", payment=what.payment, code="", reason="")
        name = p.attempt_id(order.tenant, order.attempt)
        operations.append(filed(name, now.attempt.revision, paid, order.tenant, "auto-topup"))
    credit = Money(order.net, order.currency)
    return Decision(
        tuple(operations), f"{credit} credited to {order.tenant}", p.deposit_id(what.payment)
    )


def deposit_of(what: p.PaymentSucceeded, order: p.Order) -> Deposit:
    """The one deposit of a payment: every event of it makes this same one."""
    return Deposit(
        id=p.deposit_id(what.payment),
        tenant=order.tenant,
        amount=order.net,
        currency=order.currency,
        reference=what.payment,
        tax=order.tax,
    )


def _fits(order: p.Order, quote: p.Quote) -> bool:
    return (order.net, order.tax, order.currency) == (quote.net, quote.tax, quote.currency)


def _trouble(what: p.PaymentSucceeded, now: Standing) -> str:
    """Why a payment cannot be credited; empty if it can."""
    order = what.order
    if order is None or order.net <= 0:
        return "what it is for cannot be read from the provider's record of it"
    if now.currency is None:
        return f"there is no customer {order.tenant!r}"
    if now.currency != what.currency:
        return f"it is in {what.currency}, and the customer's book in {now.currency}"
    if order.gross != what.received:
        got, due = Money(what.received, what.currency), Money(order.gross, what.currency)
        return f"{got} came in, and {due} were agreed"
    if now.payer_of != order.tenant:
        return f"who paid ({what.payer or 'nobody known'}) is not this customer at the provider"
    paid = now.paid
    if paid is not None and (paid.tenant, paid.net, paid.tax) != (
        order.tenant,
        order.net,
        order.tax,
    ):
        return "it was credited before with another amount or to somebody else"
    return ""


def _keep_for_operator(what: p.PaymentSucceeded, now: Standing, why: str) -> Decision:
    """Money is there and nobody can be credited: it is put on record, and the operator is told."""
    words = f"payment {what.payment} is not credited: {why}"
    if now.problem is not None:
        return Decision(words=words)
    problem = p.Problem(what.payment, what.payer, now.tenant, what.received, what.currency, why)
    operation = filed(p.problem_id(what.payment), 0, problem, "", "payment-problem")
    return Decision((operation,), words)


def _failed(what: p.PaymentFailed, now: Standing) -> Decision:
    """An automatic top-up failed. After some failures, or one of no hope, they stop."""
    attempt, tenant = now.attempt, what.order.tenant
    words = f"automatic top-up {what.order.attempt} of {tenant} failed: {what.reason}"
    if attempt is None:
        return Decision(words="an automatic top-up that this ledger does not know of")
    if attempt.value.state == "paid":
        return Decision(words="paid meanwhile")
    operations: list[AnyOperation] = []
    if attempt.value.state != "failed":
        failed = replace(
            attempt.value,
            state="failed",
            payment=what.payment,
            code=what.code,
            reason=what.reason[:500],
        )
        name = p.attempt_id(tenant, what.order.attempt)
        operations.append(filed(name, attempt.revision, failed, tenant, "auto-topup"))
    why = ""
    if what.needs_customer:
        why = f"the card cannot be charged: {what.reason[:300]}"
    elif now.failures >= FAILURES:
        why = f"{now.failures} charges in a row failed, last: {what.reason[:300]}"
    account = now.account
    auto = account.value.auto if account is not None else None
    fresh = auto is not None and not auto.off and what.order.attempt > auto.armed
    if why and account is not None and auto is not None and fresh:
        stopped = replace(account.value, auto=replace(auto, off=why))
        operations.append(filed(p.account_id(tenant), account.revision, stopped, tenant, "payment"))
    return Decision(tuple(operations), words)


# -- refunds ---------------------------------------------------------------------------------------


def _refunded(what: p.RefundMade, now: Standing) -> Decision:
    if now.paid is None:
        return Decision(wants=what.payment)
    if now.failed_before:  # it failed, and that was told first
        known = (what.refund, what.payment, what.currency, what.amount)
        return _refund_failed(p.RefundFailed(*known, "it came back", what.ours), now)
    operations: list[AnyOperation] = []
    posting = p.refund_posting(what.ours or what.refund)
    operations += reverse(now, now.paid, posting, what.amount, reason_of(what, now))
    if now.asked is not None and now.asked.value.state == "asked":
        done = replace(now.asked.value, state="done", refund=what.refund)
        operations.append(
            filed(p.return_id(what.ours), now.asked.revision, done, now.tenant, "refund")
        )
    back = Money(what.amount, what.currency)
    return Decision(tuple(operations), f"{back} went back to the card of {now.tenant}")


def reason_of(what: p.RefundMade | p.RefundFailed, now: Standing) -> str:
    """What stands in the ledger beside a refund."""
    said = f": {now.asked.value.reason}" if now.asked is not None else ""
    return f"refund {what.ours or what.refund}{said}"


def _refund_failed(what: p.RefundFailed, now: Standing) -> Decision:
    if now.paid is None:
        return Decision(wants=what.payment)
    operations: list[AnyOperation] = []
    if not now.failed_before:
        remembered = File(
            id=refund_failed_id(what.refund),
            kind="refund-failed",
            tenant=now.tenant,
            content={"payment": what.payment, "reason": what.reason},
            actor=ACTOR,
        )
        operations.append(remembered)
    posting = p.refund_posting(what.ours or what.refund)
    operations += give_back(now, now.paid, what.payment, posting, reason_of(what, now))
    if now.asked is not None and now.asked.value.state != "failed":
        failed = replace(now.asked.value, state="failed", refund=what.refund, why=what.reason)
        operations.append(
            filed(p.return_id(what.ours), now.asked.revision, failed, now.tenant, "refund")
        )
    words = f"refund {what.refund} of {now.tenant} came back: {what.reason}"
    return Decision(tuple(operations), words)


# -- cards -----------------------------------------------------------------------------------------


REMEMBERED: Final = 20


def _card(now: Standing, card: p.Card | None, removed: str) -> Decision:
    """The newest card is the one that is charged; one that is gone stops automatic top-ups."""
    if now.account is None:
        return Decision(words="a card of somebody who is no customer here")
    before = now.account.value
    if card is None:
        after, words = _without(before, removed), f"a card of {now.tenant} was removed"
    else:
        after, words = _with(before, card), f"{now.tenant} pays with {card}"
    if after == before:
        return Decision(words=words)
    name, revision = p.account_id(now.tenant), now.account.revision
    return Decision((filed(name, revision, after, now.tenant, "payment"),), words)


def _with(before: p.Account, card: p.Card) -> p.Account:
    known = before.card
    newer = (card.created, card.method)  # of two of one second, always the same one
    older = known is not None and (known.created, known.method) > newer
    return before if older or card.method in before.gone else replace(before, card=card)


def _without(before: p.Account, removed: str) -> p.Account:
    gone = before.gone
    if removed not in gone:
        gone = (*gone, removed)[-REMEMBERED:]
    if before.card is None or before.card.method != removed:
        return replace(before, gone=gone)
    auto = before.auto
    if auto is not None and not auto.off:
        auto = replace(auto, off="the card was removed")
    return replace(before, card=None, auto=auto, gone=gone)


def filed(
    id_: str, revision: int, value: p.Kept, tenant: str, kind: str, actor: str = ACTOR
) -> File:
    """The next revision of a document that stands at ``revision`` (0: there is none yet)."""
    return File(
        id=id_,
        kind=kind,
        tenant=tenant,
        content=content_of(value),
        revision=revision + 1,
        actor=actor,
    )


# -- doing it --------------------------------------------------------------------------------------


def carry_out(
    what: p.Happening, reader: Reader, do: Do, find: Callable[[str], p.PaymentSucceeded | None]
) -> Outcome:
    """Brings the ledger to where ``what`` is done. ``find`` asks the provider for a payment whose
    own event has not come yet.

    Raises:
        LedgerError, Refused: the ledger cannot do it now; the same event later is safe.
        ProviderAway: from ``find``.
    """
    changed = False
    for _ in range(ROUNDS):
        standing = look(reader, what)
        decision = decide(what, standing)
        if decision.wants:
            payment = find(decision.wants)
            if payment is None:
                return Outcome(200, f"payment {decision.wants} is not one of ours")
            first = carry_out(payment, reader, do, find)
            if not first.deposit:
                return first
            changed = True
            continue
        if not decision.operations:
            return Outcome(
                200,
                decision.words,
                tenant=standing.tenant,
                deposit=decision.deposit,
                changed=changed,
            )
        try:
            for operation in decision.operations:
                do(operation)
                changed = True
        except Refusals as error:
            if code_of(error) not in RACES:
                raise
    raise busy("the ledger's record of this payment")


def receive(
    body: bytes, signature: str | None, provider: Provider, reader: Reader, do: Do
) -> Outcome:
    """A webhook: verified, then carried out. Never raises for what a sender can cause."""
    try:
        event = provider.read_event(body, signature)
    except BadSignature as error:
        return Outcome(400, str(error))
    except Refused as error:
        return Outcome(400, str(error))
    return carry_out_event(event, provider, reader, do)


def carry_out_event(event: p.Event, provider: Provider, reader: Reader, do: Do) -> Outcome:
    """A verified event. 503 where the ledger or the provider cannot answer at the moment."""
    from dataclasses import replace as with_fields

    try:
        outcome = carry_out(event.what, reader, do, provider.find_payment)
    except (*Refusals, ProviderAway) as error:
        return Outcome(503, f"not now: {error}", event.id, event.kind)
    return with_fields(outcome, event=event.id, kind=event.kind)
