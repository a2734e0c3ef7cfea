"""``avocado payments``: money by card, as the operator sees it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avocado.billing.record import Do
from avocado.cli.arguments import EXISTING, Amount, workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.output import Output, with_output
from avocado.cli.payers import auto_in_words, show_customer
from avocado.errors import Refused
from avocado.terms.money import Money, MoneyError
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from avocado.billing.events import Outcome
    from avocado.billing.invoices import TaxSum
    from avocado.billing.issuer import Issuer
    from avocado.billing.payments import Payments
    from avocado.billing.provider import Provider
    from avocado.billing.topup import TaxOf
    from avocado.ledger.reader import Reader


# -- putting it together ---------------------------------------------------------------------------


def provider_of(workspace: Workspace) -> Provider | None:
    """Who takes money for this workspace; None where payments are off.

    Raises:
        Refused: [payments] cannot be right, or Stripe's library is not installed.
    """
    from avocado.billing.provider import PaymentsOff

    try:
        return _provider(workspace)
    except PaymentsOff:
        return None


def _provider(workspace: Workspace) -> Provider:
    """Raises PaymentsOff, or Refused as :func:`provider_of` does."""
    from avocado.billing.provider import PaymentsOff, open_provider

    config = workspace.config.payments
    if config is None:
        raise PaymentsOff(
            "payments are off: avocado.toml has no [payments]. Give credit by hand with: "
            "avocado credit CUSTOMER AMOUNT"
        )
    return open_provider(config.provider, os.environ, config.api_base)


def tax_of(workspace: Workspace, reader: Reader, issuer: Issuer | None = None) -> TaxOf:
    """The taxes on a top-up of today, as [tax] says. Without [seller] there are none to speak of,
    unless [tax] wants some: then a top-up is refused until the seller is named."""
    from avocado.billing.invoices import TaxSum
    from avocado.billing.months import day_at
    from avocado.billing.topups import quote_topup
    from avocado.cli.issuer import issuer_of

    known, tax = issuer or issuer_of(workspace), workspace.config.tax

    def taxes(tenant: str, coins: int) -> tuple[TaxSum, ...]:
        if known.seller is None and tax.kind == "none":
            category, code = ("E", "exempt") if tax.note else ("O", "none")
            return (TaxSum(0, category, coins, 0, code, note=tax.note or ""),)  # type: ignore[arg-type]
        return quote_topup(reader, known, tenant, coins, day_at(time.time_ns()))

    return taxes


def payments_of(workspace: Workspace, reader: Reader, do: Do) -> Payments:
    """Everything that moves money between cards and this workspace's ledger.

    Raises:
        PaymentsOff: no provider is set up.
        Refused: [payments], [tax] or [seller] cannot be right.
    """
    from avocado.billing.payments import Payments
    from avocado.cli.issuer import issuer_of

    provider, issuer = _provider(workspace), issuer_of(workspace)
    papers = _Papers(reader, do, issuer) if issuer.seller is not None else None
    config = workspace.config.payments
    assert config is not None
    try:
        minimum = Money.parse(config.minimum).nanos
    except MoneyError as error:
        raise Refused(f"[payments] minimum: {error}") from error
    tax = tax_of(workspace, reader, issuer)
    return Payments(provider, reader, do, tax, papers, minimum)


class _Papers:
    """Implements :class:`avocado.billing.papers.Papers`."""

    def __init__(self, reader: Reader, do: Do, issuer: Issuer) -> None:
        self._reader, self._do, self._issuer = reader, do, issuer

    def invoice(self, tenant: str, deposit: str, taxes: tuple[TaxSum, ...] | None) -> object:
        from avocado.billing.topups import issue_topup_invoice

        now = time.time_ns()
        return issue_topup_invoice(
            self._reader, self._do, self._issuer, tenant, deposit, now, taxes, "payments"
        )

    def credit(self, tenant: str, invoice: str, refund: str, reason: str) -> object:
        from avocado.billing.credit_notes import issue_credit_note

        return issue_credit_note(
            self._reader,
            self._do,
            self._issuer,
            invoice,
            reason,
            "payments",
            time.time_ns(),
            refund=refund,
        )


# -- the verbs -------------------------------------------------------------------------------------


@click.group()
def payments() -> None:
    """Money by card: top-ups, refunds, disputes, automatic top-ups."""


@payments.command()
@click.argument("customer", required=False)
@with_output
def status(out: Output, customer: str | None) -> None:
    """Are payments on, and what waits for a person; or how CUSTOMER pays, and what it paid."""
    workspace = workspace_here()
    if customer is not None:
        show_customer(out, workspace, customer)
        return
    from avocado.billing.payments import troubles
    from avocado.billing.stripe_events import KINDS

    said, mode = _mode(workspace)
    found = []
    if workspace.has_ledger:
        with reading(workspace) as reader:
            found = troubles(reader)
    value = {
        "payments": mode,
        "events": list(KINDS),
        "waiting": [{"id": each.id, "customer": each.tenant, "what": each.words} for each in found],
    }
    waiting = [f"{each.tenant or '-'}  {each.id}: {each.words}" for each in found]
    out.result(value, *said, *(waiting or ["Nothing waits for you."]))


def _mode(workspace: Workspace) -> tuple[list[str], str]:
    """(lines for people, a word): off, deaf (no webhooks), test or live."""
    from avocado.billing.provider import WEBHOOK_SECRET, PaymentsOff

    try:
        provider = _provider(workspace)
    except PaymentsOff as off:
        return list(off.reasons), "off"
    money = "real money" if provider.live else "test money"
    lines = [f"Payments are on: {provider.name}, {money}."]
    if not provider.listens:
        lines.append(
            f"Webhooks are refused, because {WEBHOOK_SECRET} is not set: credit comes by "
            "`avocado payments sync` alone."
        )
        return lines, "deaf"
    return lines, "live" if provider.live else "test"


@payments.command()
@click.argument("customer")
@click.argument("amount", type=Amount())
@click.option("--back", help="Where the customer goes afterwards; the console if left out.")
@with_output
def link(out: Output, customer: str, amount: Money, back: str | None) -> None:
    """The address of a page where CUSTOMER pays AMOUNT (and its tax) by card."""
    workspace = workspace_here()
    home = back or _console(workspace)
    with writing(workspace) as do, reading(workspace) as reader:
        made = payments_of(workspace, reader, do)
        quoted = made.quote(customer, amount.nanos)
        checkout = made.open_checkout(customer, amount.nanos, home, home)
    total = Money(quoted.net + quoted.tax, quoted.currency)
    value = {"url": checkout.url, "id": checkout.id, "total": total.decimal()}
    out.result(value, f"{customer} pays {total} here:", checkout.url)


@payments.command()
@click.argument("customer")
@click.option("--back", help="Where the customer goes afterwards; the console if left out.")
@with_output
def portal(out: Output, customer: str, back: str | None) -> None:
    """The address of a page where CUSTOMER sees and removes its cards."""
    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        made = payments_of(workspace, reader, do)
        url = made.portal(customer, back or _console(workspace))
    out.result({"url": url}, url)


def _console(workspace: Workspace) -> str:
    config = workspace.config.console
    return f"{config.public_url or f'http://{config.host}:{config.port}'}/billing"


@payments.command()
@click.argument("payment")
@click.option("--amount", type=Amount(), help="Tax included; all that is unused if left out.")
@click.option("--reason", required=True, help="Stands in the ledger and on the credit note.")
@click.option("--force", is_flag=True, help="What was used goes back too, at your loss.")
@with_output
def refund(out: Output, payment: str, amount: Money | None, reason: str, force: bool) -> None:
    """Send PAYMENT back to its card, and take the credit out of the ledger."""
    workspace = workspace_here()
    gross = None if amount is None else amount.nanos
    with writing(workspace) as do, reading(workspace) as reader:
        made = payments_of(workspace, reader, do)
        done = made.refund(payment, reason, operator(), gross, force)
    back, net = Money(done.gross, done.currency), Money(done.net, done.currency)
    value = {
        "payment": payment,
        "refund": done.refund,
        "amount": back.decimal(),
        "credit": net.decimal(),
        "currency": done.currency,
    }
    out.result(value, f"{back} went back to the card; {net} of credit left the ledger")


@payments.command()
@click.option("--days", type=click.IntRange(1, 30), default=7, help="How far back to look.")
@with_output
def sync(out: Output, days: int) -> None:
    """Credit what lost webhooks did not bring, and finish what was cut off.

    The provider is asked for its events of the last days (it keeps them for 30), and each is
    carried out as if it had just come: what was done already stays as it is.
    """
    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        made = payments_of(workspace, reader, do)
        outcomes = list(made.sync(int(time.time()) - days * 86_400))
    changed = [each for each in outcomes if each.changed or each.status != 200]
    value = {"events": len(outcomes), "changed": [_shown(each) for each in changed]}
    lines = [each.words for each in changed]
    out.result(value, *lines, f"{len(outcomes)} events looked at, {len(changed)} brought something")


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "event": outcome.event,
        "kind": outcome.kind,
        "customer": outcome.tenant,
        "what": outcome.words,
    }


@payments.command("auto-topup")
@click.argument("customer")
@click.option("--below", type=Amount(), help="Charge the saved card below this balance.")
@click.option("--amount", type=Amount(), help="How much credit each time; tax comes on top.")
@click.option("--most", type=Amount(), help="At most so much a month; ten times --amount else.")
@click.option("--off", is_flag=True, help="Turn them off.")
@with_output
def auto_topup(
    out: Output,
    customer: str,
    below: Money | None,
    amount: Money | None,
    most: Money | None,
    off: bool,
) -> None:
    """Top CUSTOMER up from its saved card whenever its balance is low. `avocado billing run` does
    the charging. Only with the customer's consent: it is the customer's card.
    """
    workspace = workspace_here()
    if off == (below is not None or amount is not None or most is not None):
        raise click.UsageError("give --below and --amount, or --off")
    if not off and (below is None or amount is None):
        raise click.UsageError("give both --below and --amount")
    with writing(workspace) as do, reading(workspace) as reader:
        currency = reader.customer(customer).currency
        if off:
            from avocado.billing.topup import stop_auto

            account = stop_auto(reader, do, customer, operator())
        else:
            assert below is not None
            assert amount is not None
            limit = most.nanos if most is not None else 10 * amount.nanos
            made = payments_of(workspace, reader, do)
            account = made.set_auto(customer, below.nanos, amount.nanos, limit, operator())
    value = {"customer": customer, "on": account.auto is not None}
    out.result(value, auto_in_words(account.auto, currency))


@payments.command()
@click.argument("customer", required=False)
@with_output
def disputes(out: Output, customer: str | None) -> None:
    """Disputed payments of CUSTOMER or of all. Evidence is given in the provider's own pages."""
    from avocado.billing.disputes import disputes as listed

    with reading(workspace_here()) as reader:
        found = listed(reader, customer)
    rows = [
        {
            "dispute": each.id,
            "customer": each.tenant,
            "payment": each.value.payment,
            "amount": str(Money(each.value.amount, each.value.currency)),
            "reason": each.value.reason,
            "state": "inquiry" if each.value.inquiry and _open(each.value) else each.value.state,
            "frozen": "yes" if each.value.freezes else "",
            "loss": Money(each.value.loss, each.value.currency).decimal(),
        }
        for each in found
    ]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No disputes.")
    else:
        out.table(list(rows[0]), [list(row.values()) for row in rows])


def _open(dispute: Any) -> bool:
    return bool(dispute.state == "open")


@payments.command()
@click.argument("dispute")
@with_output
def release(out: Output, dispute: str) -> None:
    """Let a customer go that stayed frozen because DISPUTE was lost and its credit was used."""
    from avocado.billing.disputes import let_go

    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        value = let_go(reader, do, dispute, operator())
    lost = Money(value.loss, value.currency)
    out.result({"dispute": dispute, "state": value.state}, f"released; {lost} stay our loss")


@payments.command()
@click.argument("payment")
@click.option("--note", required=True, help="What became of the money.")
@with_output
def settle(out: Output, payment: str, note: str) -> None:
    """Note that you dealt with a PAYMENT that could not be credited to anybody."""
    from avocado.billing.payments import settle_problem

    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        settle_problem(reader, do, payment, note, operator())
    out.result({"payment": payment, "state": "settled"}, f"{payment} is settled: {note}")


@payments.command("replay-event")
@click.argument("file", type=EXISTING)
@with_output
def replay_event(out: Output, file: Path) -> None:
    """Carry out the event in FILE, as Stripe's pages show it. No signature is asked for: trust it.

    An event that was carried out before changes nothing.
    """
    workspace = workspace_here()
    try:
        body = file.read_bytes()
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error
    with writing(workspace) as do, reading(workspace) as reader:
        outcome = payments_of(workspace, reader, do).replay(body)
    if outcome.status != 200:
        raise Refused(outcome.words)
    out.result(_shown(outcome) | {"changed": outcome.changed}, outcome.words)
