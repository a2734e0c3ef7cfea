"""``avocado usage`` and ``avocado invoice``: what was used, and what is owed for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from avocado.billing.invoice import Invoice, draw_up
from avocado.cli.arguments import Month, this_month, workspace_here
from avocado.cli.book import reading
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.lineage import short
from avocado.terms.money import NANO, Money

if TYPE_CHECKING:
    from avocado.ledger.reader import Reader

MONTH = click.option(
    "--month", type=Month(), help="The month, such as 2026-11 (UTC); the current one if left out."
)


def invoice_of(reader: Reader, tenant: str, period: tuple[int, int]) -> Invoice:
    """What a customer used in a month, from the ledger: in the bounds of its invoice, if it has
    one, else between the journal's cuts at the month's two ends."""
    from avocado.billing.books import Sheets, cut, movement
    from avocado.billing.invoices import invoice_from, month_id
    from avocado.billing.months import month_at

    page = reader.customer(tenant)
    issued = reader.document(month_id(tenant, month_at(period[0])))
    if issued is not None:
        made = invoice_from(issued)
        start, until = made.after_seq, made.until_seq
    else:
        start, until = (cut(reader, end) for end in period)
    charges = reader.charges_between(tenant, start, until)
    moved = movement(reader, tenant, start, until)
    return draw_up(tenant, page.currency, charges, Sheets(reader), *period, moved)


def invoice_rows(invoice: Invoice) -> list[list[str]]:
    """The lines for a table, and the total below them."""
    currency = invoice.currency
    rows = [
        [
            line.id,
            line.offer,
            line.kind,
            f"{line.tokens:,}",
            Money(line.price, currency).decimal(),
            Money(line.nanos, currency).decimal(),
        ]
        for line in invoice.lines
    ]
    rows += [
        [line.id, line.offer or line.item, line.kind, "", "", Money(line.nanos, currency).decimal()]
        for line in invoice.others
    ]
    total = Money(invoice.total, currency).decimal()
    return [*rows, ["total", "", "", "", "", total]]


INVOICE_COLUMNS = ["line", "model", "tokens of", "tokens", "per million", "amount"]


@click.command()
@click.argument("customer", required=False)
@MONTH
@with_output
def usage(out: Output, customer: str | None, month: tuple[int, int] | None) -> None:
    """What CUSTOMER, or everybody, used: by day, model and key."""
    with reading(workspace_here()) as reader:
        if customer is not None:
            reader.customer(customer)
        lines = reader.usage(customer, *(month or this_month()))
    rows = [
        {
            "day": line.day,
            "customer": line.tenant,
            "model": line.offer,
            "key": line.key_id or "",
            "requests": line.requests,
            "prompt_tokens": line.prompt,
            "cached_tokens": line.cached,
            "completion_tokens": line.completion,
            "reasoning_tokens": line.reasoning,
            "amount": Money(line.charge, line.currency).decimal(),
            "currency": line.currency,
        }
        for line in lines
    ]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No requests in this month.")
    else:
        columns = ["day", "customer", "model", "requests", "prompt", "completion", "amount"]
        keys = [*columns[:4], "prompt_tokens", "completion_tokens", "amount"]
        out.table(columns, [[str(row[key]) for key in keys] for row in rows])


@click.command()
@click.argument("customer")
@MONTH
@with_output
def invoice(out: Output, customer: str, month: tuple[int, int] | None) -> None:
    """What CUSTOMER used in a month, with fees and refunds; lines sum to the ledger, to the last
    nano-unit. Nothing is issued: avocado invoices close does that.
    """
    period = month or this_month()
    if period[0] > time.time_ns():
        begins = time.strftime("%Y-%m", time.gmtime(period[0] // NANO))
        raise Refused(f"{begins} has not begun (UTC)")
    with reading(workspace_here()) as reader:
        drawn = invoice_of(reader, customer, period)
    if out.json:
        out.result(drawn.to_json())
        return
    begin = time.strftime("%Y-%m", time.gmtime(period[0] // NANO))
    out.say(f"{customer}, {begin}: {drawn.requests} requests, in {drawn.currency}")
    out.table(INVOICE_COLUMNS, invoice_rows(drawn))
    for release in dict.fromkeys(line.release for line in drawn.lines):
        out.say(f"served by {short(release)}")
