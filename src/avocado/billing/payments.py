"""Payments: everything that moves money between cards and the ledger, in one place to ask.

    payments = Payments(provider, reader, do, tax)
    payments.receive(body, signature)          a webhook
    payments.open_checkout("acme", net, …)     a page to pay on
    payments.refund("pi_…", …)                 back to the card, and out of the ledger
    payments.sync(since)                       what webhooks did not bring

It decides nothing itself: see ``events``, ``topup`` and ``disputes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, TypeAlias

from msgspec.structs import replace

from avocado.billing import events, topup
from avocado.billing import payment as p
from avocado.billing.events import ACTOR, Outcome, carry_out, reason_of
from avocado.billing.provider import Checkout, Provider, ProviderAway, ProviderRefused
from avocado.billing.record import Do, Refusals, busy, code_of, file, read
from avocado.billing.reversal import reverse
from avocado.billing.standing import Paid, look, paid_by
from avocado.billing.topup import TaxOf, ToppedUp
from avocado.errors import Refused
from avocado.ledger.operation import AnyOperation, Refund
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

Issue: TypeAlias = Callable[[str], object]
"""Issues the tax invoice of a deposit; the second time it changes nothing."""

ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Payments:
    """What belongs together for one ledger. ``issue`` makes the invoice of a top-up, right after it
    was credited; what a crash leaves out, :meth:`issue_missing` makes up for."""

    provider: Provider
    reader: Reader
    do: Do
    tax: TaxOf
    issue: Issue | None = None
    minimum: int = 0

    # -- paying ------------------------------------------------------------------------------------

    def order(self, tenant: str, net: int) -> p.Order:
        """A top-up with its tax, to be shown before it is paid. Raises Refused."""
        return topup.order_for(self.reader, self.provider, self.tax, tenant, net, self.minimum)

    def open_checkout(
        self, tenant: str, net: int, success_url: str, cancel_url: str, email: str | None = None
    ) -> Checkout:
        """A page to pay a top-up of ``net`` nano-units (and its tax) on. Raises Refused."""
        order = self.order(tenant, net)
        return topup.open_checkout(
            self.reader, self.do, self.provider, order, success_url, cancel_url, email
        )

    def confirm(self, tenant: str, checkout: str) -> Outcome | None:
        """For the page that the customer returns to; None while nothing is paid."""
        found = topup.confirm_checkout(self.reader, self.do, self.provider, tenant, checkout)
        return None if found is None else self._invoiced(found)

    def portal(self, tenant: str, return_url: str) -> str:
        """The address of the provider's page for a customer's cards."""
        return topup.portal_link(self.reader, self.do, self.provider, tenant, return_url)

    def set_auto(
        self, tenant: str, threshold: int, net: int, most: int, actor: str = ACTOR
    ) -> p.Account:
        """Turns automatic top-ups on; see :func:`topup.set_auto`."""
        return topup.set_auto(
            self.reader,
            self.do,
            self.provider,
            tenant,
            threshold,
            net,
            most,
            actor,
            self.minimum,
        )

    def top_up_due(self, now: int) -> tuple[ToppedUp, ...]:
        """Charges the saved cards of customers whose balance is too low. ``now`` is in ns."""
        done = topup.run_auto(self.reader, self.do, self.provider, self.tax, now)
        for each in done:
            if each.deposit:
                self._issue(each.deposit)
        return done

    # -- what the provider tells -------------------------------------------------------------------

    def receive(self, body: bytes, signature: str | None) -> Outcome:
        """A webhook: the raw body and its ``Stripe-Signature``. ``status`` is the answer to give."""
        found = events.receive(body, signature, self.provider, self.reader, self.do)
        return self._invoiced(found)

    def replay(self, body: bytes) -> Outcome:
        """An event from a file that the operator trusts; no signature is asked for."""
        return self._event(self.provider.read_trusted(body))

    def sync(self, since: int) -> Iterator[Outcome]:
        """Asks the provider for its events since ``since`` (Unix seconds) and carries out each as
        if it had just come; then takes up refunds that were cut off, and missing invoices."""
        for event in self.provider.recent(since):
            yield self._event(event)
        yield from self.resume()
        self.issue_missing()

    def _event(self, event: p.Event) -> Outcome:
        return self._invoiced(events.carry_out_event(event, self.provider, self.reader, self.do))

    def _invoiced(self, outcome: Outcome) -> Outcome:
        """The credit stands; its invoice follows. If it can't be issued now, it is later."""
        if outcome.deposit:
            self._issue(outcome.deposit)
        return outcome

    def _issue(self, deposit: str) -> bool:
        if self.issue is None:
            return False
        try:
            self.issue(deposit)
        except Refusals:
            return False
        return True

    def issue_missing(self) -> int:
        """Issues the invoices of top-ups that have none; returns how many."""
        made = 0
        for tenant in [each.tenant for each in self.reader.customers()]:
            sql = (
                "SELECT id FROM posting WHERE tenant = ? AND kind = 'Deposited'"
                " AND substr(id, 1, 4) = 'pay_' ORDER BY seq"
            )
            for deposit in [str(row[0]) for row in self.reader.rows(sql, (tenant,))]:
                if self.reader.document(f"invoice/{tenant}/topup/{deposit}") is None:
                    made += self._issue(deposit)
        return made

    # -- money that goes back ----------------------------------------------------------------------

    def refund(
        self,
        payment: str,
        reason: str,
        actor: str,
        gross: int | None = None,
        forced: bool = False,
        name: str | None = None,
    ) -> p.Return:
        """Sends money back to the card and takes it out of the ledger.

        The intent goes on record, then the credit leaves the wallet, then the money leaves the
        provider: wherever it is cut off, nothing can be spent twice, and :meth:`resume` finishes
        it. ``gross`` is what goes back (nano-units, tax included); None means all that is unused.
        ``forced`` may exceed what is unused: the rest is the seller's loss. The same ``name``
        again is the same refund.

        Raises:
            Refused: no such payment, it is disputed, more than is unused or left, or the provider
                said no; then the credit is back.
            ProviderAway: it is on record and will be taken up again.
        """
        name = name or token_hex(8)
        if read(self.reader, p.return_id(name), p.Return) is None:
            paid = paid_by(self.reader, payment)
            if paid is None:
                raise Refused(
                    f"there is no payment {payment!r} on record: avocado payments status "
                    "CUSTOMER lists them"
                )
            self._check_disputes(paid, payment)
            asked = _planned(self.reader, self.provider, paid, payment, gross, forced)
            value = replace(asked, reason=reason)
            file(self.do, p.return_id(name), "refund", paid.tenant, value, 1, actor)
        return self._carry_on(name)

    def _check_disputes(self, paid: Paid, payment: str) -> None:
        for document in list(self.reader.documents("dispute", paid.tenant)):
            content = document.content
            if content["payment"] == payment and content["state"] == "open":
                raise Refused(
                    f"payment {payment} is disputed: the provider has the money until that is "
                    "settled"
                )

    def _carry_on(self, name: str) -> p.Return:
        """Brings a refund that is on record to its end."""
        stored = read(self.reader, p.return_id(name), p.Return)
        assert stored is not None
        asked = stored.value
        if asked.state != "asked":
            return asked
        self._take(name, asked)
        found = self.provider.find_refund(asked.payment, name)
        what: p.RefundMade | p.RefundFailed
        if found is None:
            try:
                what = self.provider.refund(asked.payment, asked.gross, asked.currency, name)
            except ProviderRefused as no:
                what = p.RefundFailed(
                    f"none-{name}", asked.payment, asked.currency, asked.gross, str(no), name
                )
        else:
            what = found
        carry_out(what, self.reader, self.do, self.provider.find_payment)
        after = read(self.reader, p.return_id(name), p.Return)
        assert after is not None
        if after.value.state == "failed":
            raise Refused(f"not refunded, and the credit is back: {after.value.why}")
        return after.value

    def _take(self, name: str, asked: p.Return) -> None:
        """Takes the credit out of the wallet, before any money moves."""
        what = p.RefundMade("", asked.payment, asked.currency, asked.gross, name)
        posting = p.refund_posting(name)
        for _ in range(ROUNDS):
            now = look(self.reader, what)
            assert now.paid is not None
            reason = reason_of(what, now)
            if now.moved is not None or asked.forced:
                operations = reverse(now, now.paid, posting, asked.gross, reason)
            else:
                operations = (
                    Refund(id=posting, of=asked.deposit, amount=asked.net, reason=reason),
                )
            if not operations:
                return
            try:
                self._all(operations)
            except Refusals as error:
                if code_of(error) == "nothing_to_refund" and not asked.forced:
                    self._end(name, "the credit was used meanwhile")
                    raise Refused("not refunded: the credit was used meanwhile") from error
                if code_of(error) not in ("nothing_to_refund", "idempotency_conflict"):
                    raise
        raise busy(f"the wallet of payment {asked.payment}")

    def _all(self, operations: tuple[AnyOperation, ...]) -> None:
        for operation in operations:
            self.do(operation)

    def _end(self, name: str, why: str) -> None:
        stored, document = (
            read(self.reader, p.return_id(name), p.Return),
            self.reader.document(p.return_id(name)),
        )
        assert stored is not None and document is not None
        value = replace(stored.value, state="failed", why=why)
        file(
            self.do,
            document.id,
            "refund",
            document.tenant,
            value,
            stored.revision + 1,
            ACTOR,
        )

    def resume(self) -> Iterator[Outcome]:
        """Takes up refunds that were cut off."""
        for document in list(self.reader.documents("refund")):
            if document.content["state"] != "asked":
                continue
            name = document.id.removeprefix("refund/")
            try:
                done = self._carry_on(name)
            except ProviderAway as away:
                yield Outcome(503, str(away), tenant=document.tenant)
            except Refused as no:
                yield Outcome(200, str(no), tenant=document.tenant, changed=True)
            else:
                back = Money(done.gross, done.currency)
                words = f"{back} went back to the card of {document.tenant}"
                yield Outcome(200, words, tenant=document.tenant, changed=True)


def _planned(
    reader: Reader,
    provider: Provider,
    paid: Paid,
    payment: str,
    gross: int | None,
    forced: bool,
) -> p.Return:
    """What a refund will move.

    Raises:
        Refused: more than is left, or than is unused and not forced.
    """
    currency, wallet = paid.currency, max(reader.balance(paid.tenant).wallet, 0)
    left = paid.net - paid.returned
    unused = left if forced else min(left, wallet)
    most = gross_of(paid, unused, provider.smallest(currency))
    if most <= 0:
        raise Refused(
            f"nothing of payment {payment} is left to refund"
            if not left
            else f"the credit of payment {payment} is used up; --force refunds it all the same"
        )
    wanted = most if gross is None else gross
    provider.check_amount(wanted, currency)
    if wanted > most:
        hint = "" if forced else "; --force refunds what was used too"
        raise Refused(f"at most {Money(most, currency)} of payment {payment} can go back{hint}")
    net = p.net_back(paid.net, paid.tax, paid.returned, wanted)
    return p.Return(payment, paid.id, min(net, unused), wanted, currency, "", forced)


def gross_of(paid: Paid, net: int, step: int) -> int:
    """The most that can go back to the card for ``net`` of what is left, in whole steps."""
    if net >= paid.net - paid.returned:
        back = paid.net + paid.tax - paid.returned - paid.tax * paid.returned // paid.net
    else:
        upto = paid.returned + net
        back = net + paid.tax * upto // paid.net - paid.tax * paid.returned // paid.net
    # What went back before may be a nano-unit off its coins (net_back).
    return (back + 2) // step * step


# -- what the operator looks at --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that waits for a person. ``id`` names the document."""

    id: str
    tenant: str
    words: str


def troubles(reader: Reader) -> list[Trouble]:
    """Money that could not be credited, open disputes, refunds that are not done, automatic
    top-ups that stopped."""
    found: list[Trouble] = []
    for each in list(reader.documents("payment-problem")):
        if each.content["state"] == "open":
            content = each.content
            money = Money(content["received"], content["currency"])
            words = f"{money} by payment {content['payment']} not credited: {content['why']}"
            found.append(Trouble(each.id, content["tenant"], words))
    for each in list(reader.documents("dispute")):
        if each.content["state"] == "open" or each.content.get("freezes"):
            content = each.content
            money = Money(content["amount"], content["currency"])
            words = f"dispute of {money} ({content['reason']}): {content['state']}"
            found.append(Trouble(each.id, each.tenant, words))
    for each in list(reader.documents("refund")):
        if each.content["state"] == "asked":
            found.append(Trouble(each.id, each.tenant, "a refund is not done yet"))
    for each in list(reader.documents("payment")):
        auto = each.content.get("auto") or {}
        if auto.get("off"):
            found.append(Trouble(each.id, each.tenant, f"automatic top-ups stopped: {auto['off']}"))
    return found


def settle_problem(reader: Reader, do: Do, payment: str, note: str, actor: str) -> p.Problem:
    """Notes that a person dealt with money that could not be credited.

    Raises:
        Refused: there is no such problem.
    """
    for _ in range(ROUNDS):
        stored = read(reader, p.problem_id(payment), p.Problem)
        if stored is None:
            raise Refused(f"there is no problem of payment {payment!r}")
        value = replace(stored.value, state="settled", note=note)
        if value == stored.value or file(
            do, p.problem_id(payment), "payment-problem", "", value, stored.revision + 1, actor
        ):
            return value
    raise busy(f"the problem of payment {payment}")
