"""``avocado alerts``: thresholds that customers hear of, by mail and by webhook."""

from __future__ import annotations

import time
from secrets import token_hex
from typing import Any

import click
import msgspec

from avocado.billing import alerts as billing
from avocado.billing import notices, outbox, webhook
from avocado.billing.alert import Alert
from avocado.billing.plan import LANGUAGES
from avocado.cli.arguments import Amount, workspace_here
from avocado.cli.billing import postman_of, seller_name
from avocado.cli.book import operator, reading, writing
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.money import Money


@click.group()
def alerts() -> None:
    """Tell customers when they have spent so much, or have so little left."""


@alerts.command("add")
@click.argument("customer")
@click.option("--spend", type=Amount(), help="Once the month's spend reaches this.")
@click.option(
    "--percent", type=click.IntRange(1, 100), help="Once it reaches this part of the month's limit."
)
@click.option("--balance", type=Amount(), help="Once less than this is left.")
@click.option("--email", help="Where mail goes.")
@click.option("--webhook", "url", help="Where a signed webhook goes, such as https://….")
@click.option("--language", type=click.Choice(LANGUAGES), help="Of mails; the customer's own.")
@with_output
def add(
    out: Output,
    customer: str,
    spend: Money | None,
    percent: int | None,
    balance: Money | None,
    email: str | None,
    url: str | None,
    language: str | None,
) -> None:
    """Add an alert for CUSTOMER. A webhook's secret is shown once for each address."""
    if sum(each is not None for each in (spend, percent, balance)) != 1:
        raise click.UsageError("say when: one of --spend, --percent and --balance")
    workspace = workspace_here()
    if url is not None:
        webhook.check_url(url, workspace.config.billing.webhook_networks)
    amount = spend or balance
    with writing(workspace) as do, reading(workspace) as reader:
        known = {each.webhook: each.serial for each in billing.active(reader, customer)}
        content = {
            "tenant": customer,
            "number": 0,
            "kind": "spend" if balance is None else "balance",
            "currency": reader.customer(customer).currency,
            "amount": None if amount is None else amount.nanos,
            "percent": percent,
            "email": email,
            "webhook": url,
            "language": language or _language(reader, customer),
            "serial": (known.get(url) or token_hex(8)) if url else "",
        }
        try:
            made = msgspec.convert(content, Alert)
        except (msgspec.ValidationError, ValueError) as error:
            raise Refused(str(error)) from error
        made = billing.add(reader, do, made, operator())
    row = shown(made)
    lines = [f"Added alert {made.number}: {in_words(made)}"]
    if url and url not in known:
        row["secret"] = webhook.secret_of(workspace.pepper(), made.serial)
        lines.append(f"The webhook's secret, shown once: {row['secret']}")
    if email and workspace.config.mail is None:
        lines.append("Mail cannot go yet: write [mail] into avocado.toml")
    out.result(row, *lines, f"Next: avocado alerts test {customer} {made.number}")


def _language(reader: Any, customer: str) -> str:
    from avocado.billing.profile import profile_of

    return profile_of(reader, customer).language


@alerts.command("list")
@click.argument("customer", required=False)
@with_output
def list_(out: Output, customer: str | None) -> None:
    """List alerts of CUSTOMER, or of all, and what could not be sent."""
    with reading(workspace_here()) as reader:
        if customer is not None:
            reader.customer(customer)
        found = billing.active(reader, customer)
        boxes = {tenant: outbox.load(reader, tenant).value for tenant in {a.tenant for a in found}}
    waiting = [each for box in boxes.values() for each in (*box.waiting, *box.failed) if each.error]
    if out.json:
        out.result([shown(each) for each in found])
    elif not found:
        out.say("No alerts yet. Next: avocado alerts add CUSTOMER --spend 100 --email ADDRESS")
    else:
        rows = [[each.tenant, str(each.number), in_words(each)] for each in found]
        out.table(["customer", "number", "alert"], rows)
        for each in waiting:
            out.say(f"not sent to {each.target}, tried {each.tries} times: {each.error}")


@alerts.command("remove")
@click.argument("customer")
@click.argument("number", type=int)
@with_output
def remove(out: Output, customer: str, number: int) -> None:
    """Remove alert NUMBER of CUSTOMER."""
    workspace = workspace_here()
    with writing(workspace) as do, reading(workspace) as reader:
        gone = billing.remove(reader, do, customer, number, operator())
    out.result(shown(gone), f"Removed alert {number}: {in_words(gone)}")


@alerts.command("test")
@click.argument("customer")
@click.argument("number", type=int)
@with_output
def test(out: Output, customer: str, number: int) -> None:
    """Send what alert NUMBER of CUSTOMER would send, now."""
    workspace = workspace_here()
    with reading(workspace) as reader:
        name = reader.customer(customer).name
        chosen = [each for each in billing.active(reader, customer) if each.number == number]
    if not chosen:
        raise Refused(f"{customer} has no alert {number}: avocado alerts list {customer}")
    send, wrong = postman_of(workspace), []
    messages = notices.of_test(chosen[0], name, seller_name(workspace), time.time_ns())
    for message in messages:
        try:
            send(message)
        except Exception as error:  # whatever a mail server or a receiver does
            wrong.append(f"{message.target}: {error}")
    if wrong:
        raise Refused(*wrong)
    targets = [each.target for each in messages]
    out.result({"sent": targets}, *(f"Sent to {each}" for each in targets))


def shown(alert: Alert) -> dict[str, Any]:
    """An alert as one flat value, without its secret."""
    amount = None if alert.amount is None else Money(alert.amount, alert.currency).decimal()
    return {
        "customer": alert.tenant,
        "number": alert.number,
        "kind": alert.kind,
        "amount": amount,
        "percent": alert.percent,
        "currency": alert.currency,
        "email": alert.email,
        "webhook": alert.webhook,
        "language": alert.language,
    }


def in_words(alert: Alert) -> str:
    """When it fires and where it goes."""
    level = f"{alert.percent} % of the limit"
    if alert.amount is not None:
        level = str(Money(alert.amount, alert.currency))
    when = f"less than {level} left" if alert.kind == "balance" else f"{level} spent in a month"
    return f"{when}, to {' and '.join(filter(None, (alert.email, alert.webhook)))}"
