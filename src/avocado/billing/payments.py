"""Payments: everything that moves money between cards and the ledger, in one place to ask.

    payments = Payments(provider, reader, do, tax)
    payments.receive(body, signature)          a webhook
    payments.open_checkout("acme", net, …)     a page to pay on
    payments.refund("pi_…", …)                 back to the card, and out of the ledger
    payments.sync(since)                       what webhooks did not bring

It decides nothing itself: see ``events``, ``topup``, ``refunds`` and ``disputes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from msgspec.structs import replace

from avocado.billing import auto_topup, events, refunds, topup
from avocado.billing import payment as p
from avocado.billing.auto_topup import ToppedUp
from avocado.billing.events import ACTOR, Outcome
from avocado.billing.invoices import TaxSum
from avocado.billing.provider import Checkout, Provider
from avocado.billing.record import Do, Refusals, busy, file, read
from avocado.billing.topup import TaxOf
from avocado.billing.topups import topup_id
from avocado.errors import Refused
from avocado.ledger.reader import Reader
from avocado.terms.money import Money

Issue: TypeAlias = Callable[[str, str, tuple[TaxSum, ...] | None], object]
"""(customer, deposit, taxes as they were quoted) → its invoice; the second time the same one."""

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

    def quote(self, tenant: str, net: int) -> p.Quote:
        """What a top-up costs, to be shown before it is paid. Nothing is filed. Raises Refused."""
        return topup.quote(self.reader, self.provider, self.tax, tenant, net, self.minimum)

    def open_checkout(
        self, tenant: str, net: int, success_url: str, cancel_url: str, email: str | None = None
    ) -> Checkout:
        """A page to pay a top-up of ``net`` nano-units (and its tax) on. Raises Refused."""
        quoted = self.quote(tenant, net)
        return topup.open_checkout(
            self.reader, self.do, self.provider, tenant, quoted, success_url, cancel_url, email
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
        """Turns automatic top-ups on; see :func:`auto_topup.set_auto`."""
        return auto_topup.set_auto(
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
        done = auto_topup.run_auto(self.reader, self.do, self.provider, self.tax, now)
        for each in done:
            if each.deposit:
                self._issue(each.tenant, each.deposit)
        return done

    def collect(self, tenant: str, nanos: int, now: int) -> bool:
        """For a fee that the wallet cannot pay: whether any money may have come. See
        :func:`auto_topup.collect`."""
        done = auto_topup.collect(self.reader, self.do, self.provider, self.tax, tenant, nanos, now)
        if done is None or not done.deposit:
            return False
        self._issue(tenant, done.deposit)
        return True

    # -- what the provider tells -------------------------------------------------------------------

    def receive(self, body: bytes, signature: str | None) -> Outcome:
        """A webhook: raw body and ``Stripe-Signature``. ``status`` is what to answer."""
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
            self._issue(outcome.tenant, outcome.deposit)
        return outcome

    def _issue(self, tenant: str, deposit: str) -> bool:
        if self.issue is None:
            return False
        quoted = read(self.reader, p.taxes_id(deposit), p.Quote)
        try:
            self.issue(tenant, deposit, quoted.value.taxes if quoted is not None else None)
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
                if self.reader.document(topup_id(tenant, deposit)) is None:
                    made += self._issue(tenant, deposit)
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
        """Back to the card, and out of the ledger; see :func:`refunds.refund`."""
        asked = refunds.Asked(payment, reason, actor, gross, forced)
        return refunds.refund(self.reader, self.do, self.provider, asked, name)

    def resume(self) -> Iterator[Outcome]:
        """Takes up refunds that were cut off."""
        return refunds.resume(self.reader, self.do, self.provider)


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
