"""Payments: everything that moves money between cards and the ledger, in one place to ask.

    payments = Payments(provider, reader, do, tax)
    payments.receive(body, signature)          a webhook
    payments.open_checkout("acme", net, …)     a page to pay on
    payments.refund("pi_…", …)                 back to the card, and out of the ledger
    payments.sync(since)                       what webhooks did not bring

It decides nothing itself: see ``events``, ``topup``, ``refunds`` and ``disputes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from avocado.billing import auto_topup, events, refunds, topup
from avocado.billing import payment as p
from avocado.billing.auto_topup import ToppedUp
from avocado.billing.events import ACTOR, Outcome
from avocado.billing.papers import Papers, catch_up, without_invoice
from avocado.billing.provider import Checkout, Provider, ProviderAway, ProviderRefused
from avocado.billing.record import Do, Stored, busy, file, read
from avocado.billing.standing import paid_by
from avocado.billing.topup import TaxOf
from avocado.errors import Refused
from avocado.ledger.reader import Reader
from avocado.terms.money import NANO, Money, MoneyError

ROUNDS: Final = 8
HOUR: Final = 3600 * NANO
WEEK: Final = 7 * 24 * HOUR
SYNCED: Final = "payments-synced"


@dataclass(frozen=True, slots=True)
class Payments:
    """What belongs together for one ledger. ``papers`` writes invoices of top-ups and credit notes
    of refunds, right after the money moved; what a crash leaves out, :meth:`sync` makes up for."""

    provider: Provider
    reader: Reader
    do: Do
    tax: TaxOf
    papers: Papers | None = None
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
        return None if found is None else self._written(found)

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
                self.write(each.tenant)
        return done

    def upkeep(self, now: int) -> Iterator[ToppedUp | Outcome]:
        """What the clerk does now and then: automatic top-ups, refunds that were cut off, invoices
        that are missing, and once an hour the events that no webhook brought. ``now`` is in ns."""
        yield from self.top_up_due(now)
        yield from self.resume()
        if self.papers is not None:
            for tenant in without_invoice(self.reader, now - WEEK):
                self.write(tenant)
        stored = read(self.reader, SYNCED, p.Synced) or Stored(p.Synced(now - WEEK), 0)
        until = stored.value.until
        if now - until < HOUR:
            return
        try:
            yield from (each for each in self.sync((until - HOUR) // NANO) if each.changed)
        except (ProviderAway, ProviderRefused) as error:
            yield Outcome(503, f"the provider's events were not read: {error}")
            return
        file(self.do, SYNCED, SYNCED, "", p.Synced(now), stored.revision + 1, ACTOR)

    def collect(self, tenant: str, nanos: int, now: int) -> bool:
        """For a fee that the wallet cannot pay: whether any money may have come. See
        :func:`auto_topup.collect`."""
        done = auto_topup.collect(self.reader, self.do, self.provider, self.tax, tenant, nanos, now)
        if done is None or not done.deposit:
            return False
        self.write(tenant)
        return True

    # -- what the provider tells -------------------------------------------------------------------

    def receive(self, body: bytes, signature: str | None) -> Outcome:
        """A webhook: raw body and ``Stripe-Signature``. ``status`` is what to answer."""
        found = events.receive(body, signature, self.provider, self.reader, self.do)
        return self._written(found)

    def replay(self, body: bytes) -> Outcome:
        """An event from a file that the operator trusts; no signature is asked for."""
        return self._event(self.provider.read_trusted(body))

    def sync(self, since: int) -> Iterator[Outcome]:
        """Asks the provider for its events since ``since`` (Unix seconds) and carries out each as
        if it had just come; then takes up refunds that were cut off, and missing invoices."""
        for event in self.provider.recent(since):
            yield self._event(event)
        yield from self.resume()
        for customer in self.reader.customers():
            for words in self.write(customer.tenant):
                yield Outcome(200, words, tenant=customer.tenant)

    def _event(self, event: p.Event) -> Outcome:
        return self._written(events.carry_out_event(event, self.provider, self.reader, self.do))

    def _written(self, outcome: Outcome) -> Outcome:
        """The money moved; its paper follows. What can't be written now is written later."""
        if outcome.tenant and (outcome.changed or outcome.deposit):
            self.write(outcome.tenant)
        return outcome

    def write(self, tenant: str) -> tuple[str, ...]:
        """Writes the invoices and credit notes that a customer's card payments lack; returns why
        some could not be written."""
        if self.papers is None:
            return ()
        return catch_up(self.reader, self.papers, tenant)

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
        done = refunds.refund(self.reader, self.do, self.provider, asked, name)
        if (paid := paid_by(self.reader, payment)) is not None:
            self.write(paid.tenant)
        return done

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
            money = _money(content["received"], content["currency"])
            words = f"{money} by payment {content['payment']} not credited: {content['why']}"
            found.append(Trouble(each.id, content["tenant"], words))
    for each in list(reader.documents("dispute")):
        if each.content["state"] == "open" or each.content.get("freezes"):
            content = each.content
            money = _money(content["amount"], content["currency"])
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


def _money(nanos: int, currency: str) -> str:
    """In words, also of a currency that is none of ours."""
    try:
        return str(Money(nanos, currency))
    except MoneyError:
        return f"{nanos} nano-units of {currency}"


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
