"""Refunds: money that the operator sends back to a card, and out of the ledger, whatever crashes.

The intent goes on record, then the credit leaves the wallet, then the money leaves the provider.
Wherever that is cut off, nothing can be spent twice, and :func:`resume` goes on from there: every
step has an id of its own, and the provider is asked first whether it has the refund already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from avocado.billing import payment as p
from avocado.billing.events import RACES, Outcome, carry_out, reason_of
from avocado.billing.provider import Provider, ProviderAway, ProviderRefused
from avocado.billing.record import Do, Refusals, busy, code_of, file, read
from avocado.billing.reversal import reverse
from avocado.billing.standing import Paid, came_back, look, paid_by
from avocado.errors import Refused
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Asked:
    """``gross`` is what goes back (nano-units, tax included); None means all that is unused.
    ``forced`` may exceed what is unused: what was used is the seller's loss then."""

    payment: str
    reason: str
    actor: str
    gross: int | None = None
    forced: bool = False


def refund(
    reader: Reader, do: Do, provider: Provider, asked: Asked, name: str | None = None
) -> p.Return:
    """Refunds a payment. The same ``name`` again is the same refund.

    Raises:
        Refused: no such payment, it is disputed, more than is unused or left, or the provider said
            no; then the credit is back.
        ProviderAway: it is on record and will be taken up again.
    """
    name = name or token_hex(8)
    if read(reader, p.return_id(name), p.Return) is None:
        paid = paid_by(reader, asked.payment)
        if paid is None:
            raise Refused(f"there is no payment {asked.payment!r} on record")
        _check_disputes(reader, paid, asked.payment)
        planned = _planned(reader, provider, paid, asked)
        file(do, p.return_id(name), "refund", paid.tenant, planned, 1, asked.actor)
    return carry_on(reader, do, provider, name)


def _check_disputes(reader: Reader, paid: Paid, payment: str) -> None:
    for document in list(reader.documents("dispute", paid.tenant)):
        content = document.content
        if content["payment"] == payment and content["state"] == "open":
            raise Refused(
                f"payment {payment} is disputed: the provider has the money until that is settled"
            )


def _planned(reader: Reader, provider: Provider, paid: Paid, asked: Asked) -> p.Return:
    """What a refund will move. Raises Refused for more than is left, or unused if not forced."""
    currency, wallet = paid.currency, max(reader.balance(paid.tenant).wallet, 0)
    deposits = (paid, *came_back(reader, paid, asked.payment))
    left = sum(each.net - each.returned for each in deposits)
    unused = left if asked.forced else min(left, wallet)
    most = gross_of(deposits, unused, provider.smallest(currency))
    if most <= 0:
        raise Refused(
            f"the credit of payment {asked.payment} is used up; --force refunds it all the same"
            if left
            else f"nothing of payment {asked.payment} is left to refund"
        )
    wanted = most if asked.gross is None else asked.gross
    provider.check_amount(wanted, currency)
    if wanted > most:
        hint = "" if asked.forced else "; --force refunds what was used too"
        raise Refused(
            f"at most {Money(most, currency)} of payment {asked.payment} can go back{hint}"
        )
    net = min(net_of(deposits, wanted), unused)
    return p.Return(asked.payment, paid.id, net, wanted, currency, asked.reason, asked.forced)


def gross_of(deposits: Sequence[Paid], net: int, step: int) -> int:
    """The most that can go back to the card for ``net`` of what is left, in whole steps."""
    gross, everything = 0, net >= sum(each.net - each.returned for each in deposits)
    for each in deposits:
        part = min(net, each.net - each.returned)
        upto, net = each.returned + part, net - part
        gross += part + each.tax * upto // each.net - each.tax * each.returned // each.net
    # What went back before may be some nano-units off its coins (``payment.net_back``).
    return (gross + (p.CRUMBS if everything else 0)) // step * step


def net_of(deposits: Sequence[Paid], gross: int) -> int:
    """What leaves the wallet when ``gross`` goes back."""
    net = 0
    for each in deposits:
        part = min(gross, each.left)
        net += p.net_back(each.net, each.tax, each.returned, part)
        gross -= part
    return net


def carry_on(reader: Reader, do: Do, provider: Provider, name: str) -> p.Return:
    """Brings a refund that is on record to its end."""
    stored = read(reader, p.return_id(name), p.Return)
    assert stored is not None
    asked = stored.value
    if asked.state != "asked":
        return asked
    _take(reader, do, name, asked, provider.find_payment)
    what: p.RefundMade | p.RefundFailed | None = provider.find_refund(asked.payment, name)
    try:
        if what is None:
            what = provider.refund(asked.payment, asked.gross, asked.currency, name)
    except ProviderRefused as no:
        _undo(reader, do, name, asked, str(no), provider.find_payment)
    else:
        carry_out(what, reader, do, provider.find_payment)
    after = read(reader, p.return_id(name), p.Return)
    assert after is not None
    if after.value.state == "failed":
        raise Refused(f"not refunded, and the credit is back: {after.value.why}")
    return after.value


def _take(
    reader: Reader,
    do: Do,
    name: str,
    asked: p.Return,
    find: Callable[[str], p.PaymentSucceeded | None],
) -> None:
    """Takes the credit out of the wallet, before any money moves."""
    what = p.RefundMade("", asked.payment, asked.currency, asked.gross, name)
    posting = p.refund_posting(name)
    for _ in range(ROUNDS):
        now = look(reader, what)
        assert now.paid is not None
        reason = reason_of(what, now)
        operations = reverse(now, now.paid, posting, asked.gross, reason, asked.forced)
        if not operations:
            return
        try:
            for operation in operations:
                do(operation)
        except Refusals as error:
            if code_of(error) == "nothing_to_refund" and not asked.forced:
                _undo(reader, do, name, asked, "the credit was used meanwhile", find)
                raise Refused("not refunded: the credit was used meanwhile") from error
            if code_of(error) not in RACES:
                raise
    raise busy(f"the wallet of payment {asked.payment}")


def _undo(
    reader: Reader,
    do: Do,
    name: str,
    asked: p.Return,
    why: str,
    find: Callable[[str], p.PaymentSucceeded | None],
) -> None:
    """Ends a refund that never was, and gives back what was taken for it."""
    none = p.RefundFailed(f"none-{name}", asked.payment, asked.currency, asked.gross, why, name)
    carry_out(none, reader, do, find)


def resume(reader: Reader, do: Do, provider: Provider) -> Iterator[Outcome]:
    """Takes up refunds that were cut off."""
    for document in list(reader.documents("refund")):
        if document.content["state"] != "asked":
            continue
        try:
            done = carry_on(reader, do, provider, document.id.removeprefix("refund/"))
        except ProviderAway as away:
            yield Outcome(503, str(away), tenant=document.tenant)
        except Refused as no:
            yield Outcome(200, str(no), tenant=document.tenant, changed=True)
        else:
            words = f"{Money(done.gross, done.currency)} went back to the card of {document.tenant}"
            yield Outcome(200, words, tenant=document.tenant, changed=True)
