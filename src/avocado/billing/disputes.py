"""Disputes: a card's owner contests a payment. Pure decisions, and what the operator sees of them.

The customer is frozen until it is settled, whoever is right. Lost: the credit is taken back, as far
as it is there; what was used is our loss, and the customer stays frozen until the operator lets it
go. Won: as before. An inquiry only asks; it freezes nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from avocado.billing import payment as p
from avocado.billing import reversal
from avocado.billing.record import Do, busy, content_of, file, read
from avocado.billing.standing import Paid, Standing
from avocado.errors import Refused
from avocado.ledger.operation import AnyOperation, File, Freeze
from avocado.ledger.reader import Reader

ACTOR: Final = "payments"
REASON: Final = "dispute of a payment"
"""How our freezes begin: one of the operator's is not ours to lift."""


def decide(
    what: p.DisputeOpened | p.DisputeClosed, now: Standing, paid: Paid
) -> tuple[tuple[AnyOperation, ...], str]:
    """What the ledger lacks of a dispute, and what to say."""
    before = now.dispute.value if now.dispute is not None else None
    if isinstance(what, p.DisputeOpened):
        after = _opened(what, before)
        money: tuple[AnyOperation, ...] = ()
    else:
        after = _closed(what, before, now)
        money = _money(what, now, paid)
    operations: list[AnyOperation] = []
    if not money and after != before:  # money first: the document says when it is done
        operations.append(
            File(
                id=p.dispute_id(what.dispute),
                kind="dispute",
                tenant=paid.tenant,
                content=content_of(after),
                revision=1 if now.dispute is None else now.dispute.revision + 1,
                actor=ACTOR,
            )
        )
    frozen = after.freezes or now.other_freezes
    if frozen and not now.frozen:  # before all else: nothing more is used up meanwhile
        operations.insert(0, _freeze(paid.tenant, True, f"{REASON}: {what.dispute}"))
    operations += money
    if not money and not frozen and now.frozen.startswith(REASON):
        operations.append(_freeze(paid.tenant, False, f"{REASON} is settled: {what.dispute}"))
    return tuple(operations), f"dispute {what.dispute} of {paid.tenant}: {after.state}"


def _opened(what: p.DisputeOpened, before: p.Dispute | None) -> p.Dispute:
    """An inquiry may become a dispute, never the reverse; what is closed stays closed."""
    if before is not None and (before.state != "open" or not before.inquiry or what.inquiry):
        return before
    return p.Dispute(
        payment=what.payment,
        amount=what.amount,
        currency=what.currency,
        reason=what.reason,
        inquiry=what.inquiry,
        freezes=not what.inquiry,
    )


def _closed(what: p.DisputeClosed, before: p.Dispute | None, now: Standing) -> p.Dispute:
    if before is not None and before.state == what.outcome:
        return before  # an operator may have let the customer go since
    inquiry = before.inquiry if before is not None else what.outcome == "withdrawn"
    lost = what.outcome == "lost"
    return p.Dispute(
        payment=what.payment,
        amount=what.amount,
        currency=what.currency,
        reason=what.reason,
        inquiry=inquiry and not lost,
        state=what.outcome,
        freezes=lost and reversal.loss(now) > 0,
        loss=reversal.loss(now) if lost else 0,
    )


def _money(what: p.DisputeClosed, now: Standing, paid: Paid) -> tuple[AnyOperation, ...]:
    """Lost: the deposit is reversed. Won after it had been lost: it comes back."""
    posting, reason = p.refund_posting(what.dispute), f"dispute {what.dispute}"
    if what.outcome == "lost":
        return reversal.reverse(now, paid, posting, what.amount, f"{reason} lost")
    if what.outcome == "won":
        return reversal.give_back(now, paid, what.payment, posting, reason)
    return ()


def _freeze(tenant: str, frozen: bool, reason: str) -> Freeze:
    return Freeze(tenant=tenant, frozen=frozen, reason=reason, actor=ACTOR)


@dataclass(frozen=True, slots=True)
class Listed:
    """A dispute as the operator sees it; ``at`` is when it last changed, ns."""

    id: str
    tenant: str
    at: int
    value: p.Dispute


def disputes(reader: Reader, tenant: str | None = None) -> list[Listed]:
    """Every dispute, oldest first."""
    found = [read(reader, each.id, p.Dispute) for each in reader.documents("dispute", tenant)]
    documents = list(reader.documents("dispute", tenant))
    return [
        Listed(document.id.removeprefix("dispute/"), document.tenant, document.at, stored.value)
        for document, stored in zip(documents, found, strict=False)
        if stored is not None
    ]


def let_go(reader: Reader, do: Do, dispute: str, actor: str) -> p.Dispute:
    """The operator ends the freeze that a lost dispute left. Twice is once.

    Raises:
        Refused: there is no such dispute, or it is still open.
    """
    for _ in range(8):
        document = reader.document(p.dispute_id(dispute))
        stored = read(reader, p.dispute_id(dispute), p.Dispute)
        if document is None or stored is None:
            raise Refused(f"there is no dispute {dispute!r}: avocado payments disputes lists them")
        if stored.value.state == "open":
            raise Refused(
                f"dispute {dispute} is open; its customer stays frozen until it is settled"
            )
        value = replace(stored.value, freezes=False)
        tenant, name = document.tenant, document.id
        if value == stored.value or file(
            do, name, "dispute", tenant, value, stored.revision + 1, actor
        ):
            _thaw(reader, do, tenant, dispute, actor)
            return value
    raise busy(f"dispute {dispute}")


def _thaw(reader: Reader, do: Do, tenant: str, dispute: str, actor: str) -> None:
    if any(each.value.freezes for each in disputes(reader, tenant)):
        return
    if reader.customer(tenant).frozen.startswith(REASON):
        reason = f"{REASON} is settled: {dispute}"
        do(Freeze(tenant=tenant, frozen=False, reason=reason, actor=actor))
