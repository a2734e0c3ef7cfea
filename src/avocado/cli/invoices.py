"""``avocado invoices``: close months, list and show what was issued, record payments, credit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from avocado.billing.months import after, day_at, month_at
from avocado.cli.arguments import Amount, Month, workspace_here
from avocado.cli.book import operator, reading, writing
from avocado.cli.invoice_files import export
from avocado.cli.invoice_view import document_json, document_lines, open_row, row_of
from avocado.cli.issuer import issuer_of
from avocado.cli.output import Output, with_output
from avocado.errors import Refused
from avocado.terms.money import Money

if TYPE_CHECKING:
    from avocado.billing.closing_run import Outcome
    from avocado.billing.receivables import Receivable
    from avocado.gateway.admin import Submit
    from avocado.ledger.reader import Document, Reader
    from avocado.workspace import Workspace

SHOWN = 20
"""Refusals of a closing run that are listed; the rest are counted."""

CLOSED_MONTH = click.option(
    "--month", type=Month(), help="Such as 2026-10 (UTC); the last one that is over if left out."
)


@click.group()
def invoices() -> None:
    """Close, list, show, export, credit invoices, and record what was paid."""


invoices.add_command(export)


@invoices.command("close")
@CLOSED_MONTH
@click.option("--customer", help="Of one customer only.")
@with_output
def close(out: Output, month: tuple[int, int] | None, customer: str | None) -> int:
    """Make the invoices of a month, each once: closing again changes nothing.

    Months before it that were not closed are closed first. A customer that used nothing gets no
    invoice. Exit code 1 if an invoice was refused; all others are made.
    """
    workspace = workspace_here()
    now = time.time_ns()
    wanted = after(month_at(now), -1) if month is None else month_at(month[0])
    if customer is not None:
        return _close_one(out, workspace, wanted, customer, now)
    begun = time.monotonic()
    outcomes, made = _close_all(out, workspace, wanted, now)
    seconds = time.monotonic() - begun
    refused = [each for each in outcomes if each.refused is not None]
    each = f", {1000 * seconds / made:.1f} ms each" if made else ""
    value = {
        "month": wanted,
        "closed": made,
        "seconds": round(seconds, 3),
        "refused": [{"customer": one.tenant, "reason": one.refused} for one in refused],
    }
    lines = [f"{wanted}: {made:,} invoices made in {seconds:.1f} s{each}"]
    lines += [f"refused: {one.tenant}, {one.month}: {one.refused}" for one in refused[:SHOWN]]
    if len(refused) > SHOWN:
        lines.append(f"and {len(refused) - SHOWN:,} more were refused")
    out.result(value, *lines)
    return 1 if refused else 0


def _close_one(out: Output, workspace: Workspace, month: str, customer: str, now: int) -> int:
    from avocado.billing.closing import close_period

    with reading(workspace) as reader, writing(workspace) as do:
        issuer = issuer_of(workspace)
        document = close_period(reader, do, issuer, customer, month, now, operator())
        if document is None:
            value = {"month": month, "customer": customer, "closed": 0}
            out.result(value, f"{customer} used nothing in {month}: no invoice")
        else:
            _tell(out, reader, document)
    return 0


def _close_all(
    out: Output, workspace: Workspace, month: str, now: int
) -> tuple[list[Outcome], int]:
    """(refusals, invoices made). Of what was made only the number is kept."""
    from avocado.billing.closing_run import close_all
    from avocado.cli.lanes import writing_at_once

    refused: list[Outcome] = []
    made = 0
    with (
        reading(workspace) as reader,
        writing_at_once(workspace) as do,
        out.progress("customers") as report,
    ):
        total = next(iter(reader.rows("SELECT count(*) FROM customer", ())))[0]

        def seen(count: int) -> None:
            report(count, total, f"{made} invoices")

        issuer = issuer_of(workspace)
        for each in close_all(reader, do, issuer, month, now, operator(), seen):
            if each.refused is not None:
                refused.append(each)
            else:
                made += each.new
    return refused, made


@invoices.command("list")
@click.argument("customer", required=False)
@click.option("--month", type=Month(), help="Issued for this month (UTC), or in it if a top-up's.")
@with_output
def list_(out: Output, customer: str | None, month: tuple[int, int] | None) -> None:
    """Invoices and credit notes of CUSTOMER, or of all, in order of issue."""
    with reading(workspace_here()) as reader:
        if customer is not None:
            reader.customer(customer)
        wanted = None if month is None else month_at(month[0])
        found = [row_of(document) for document in issued(reader, customer, wanted)]
    if out.json:
        out.result(found)
    elif not found:
        out.say("No invoices. Make those of the last month with: avocado invoices close")
    else:
        columns = ["number", "customer", "for", "issued", "net", "tax", "gross", "currency"]
        for row in found:  # a deposit's id would leave no room for the number
            row["for"] = "top-up" if row["for"].startswith("top-up ") else row["for"]
        out.table(columns, [[str(row[column]) for column in columns] for row in found])


def issued(reader: Reader, customer: str | None, month: str | None) -> list[Document]:
    """Invoices and credit notes, in order of issue; of one month if one is given."""
    found = [*reader.documents("invoice", customer), *reader.documents("credit-note", customer)]
    if month is not None:
        found = [each for each in found if _day_of(each).startswith(month)]
    return sorted(found, key=lambda document: document.seq)


def _day_of(document: Document) -> str:
    content = document.content
    return str(content.get("period_end") or content["issued"])


@invoices.command("show")
@click.argument("invoice")
@with_output
def show(out: Output, invoice: str) -> None:
    """Show INVOICE, or a credit note, by its number or id."""
    from avocado.billing.books import find_document

    with reading(workspace_here()) as reader:
        _tell(out, reader, find_document(reader, invoice))


def _tell(out: Output, reader: Reader, document: Document) -> None:
    """A document on record: all of it as JSON, or lines and sums."""
    if out.json:
        out.result(document_json(reader, document))
        return
    head, columns, rows, foot = document_lines(reader, document)
    for line in head:
        out.say(line)
    if rows:
        out.table(columns, rows)
    for line in foot:
        out.say(line)


@invoices.command("open")
@click.argument("customer", required=False)
@with_output
def open_(out: Output, customer: str | None) -> None:
    """Invoices of CUSTOMER, or of all, that are not paid."""
    from avocado.billing.receivables import open_invoices

    today = day_at(time.time_ns())
    with reading(workspace_here()) as reader:
        if customer is not None:
            reader.customer(customer)
        rows = [open_row(each, today) for each in open_invoices(reader, customer)]
    if out.json:
        out.result(rows)
    elif not rows:
        out.say("No invoice is open.")
    else:
        columns = ["number", "customer", "due", "days_late", "gross", "paid", "credited", "open"]
        out.table(columns, [[str(row[column]) for column in columns] for row in rows])


@invoices.command("pay")
@click.argument("invoice")
@click.argument("amount", type=Amount(), required=False)
@click.option("--reference", required=True, help="Names the payment, such as the bank's line.")
@with_output
def pay(out: Output, invoice: str, amount: Money | None, reference: str) -> None:
    """Record that INVOICE was paid, with tax: all that is due, or AMOUNT of it.

    The same reference for the same invoice again changes nothing.
    """
    from avocado.billing.receivables import pay_invoice

    row, left = _move(invoice, amount, reference, pay_invoice, "it is not paid")
    left = left or "it is paid"
    out.result(row, f"Recorded a payment of {row['number']} ({reference}); {left}")


@invoices.command("pay-back")
@click.argument("invoice")
@click.argument("amount", type=Amount(), required=False)
@click.option("--reference", required=True, help="Names the transfer, such as the bank's line.")
@with_output
def pay_back_(out: Output, invoice: str, amount: Money | None, reference: str) -> None:
    """Record that you paid back, with tax, what INVOICE was paid too much since a credit note: all
    of that, or AMOUNT of it. The transfer is yours to make.

    The same reference for the same invoice again changes nothing.
    """
    from avocado.billing.repayment import pay_back

    hint = "name the invoice that it is of"
    row, left = _move(invoice, amount, reference, pay_back, hint)
    left = left or "it is settled"
    out.result(row, f"Recorded a repayment of {row['number']} ({reference}); {left}")


def _move(
    invoice: str,
    amount: Money | None,
    reference: str,
    record: Callable[[Reader, Submit, Document, int | None, str], Receivable],
    hint: str,
) -> tuple[dict[str, Any], str]:
    """Records money of an invoice, either way: how it stands now, and what is open in words.

    Raises:
        Refused: there is no such invoice, it is a credit note (``hint`` says more), or ``record``
            says no.
    """
    from avocado.billing.books import find_document

    workspace = workspace_here()
    with reading(workspace) as reader, writing(workspace) as do:
        document = find_document(reader, invoice)
        if document.kind != "invoice":
            raise Refused(f"{invoice} is a credit note: {hint}")
        coins = None if amount is None else in_coins(amount, document.content["currency"])
        now = record(reader, do, document, coins, reference)
    row = open_row(now, day_at(time.time_ns()))
    return row, f"{row['open']} {row['currency']} are open" if now.due_minor else ""


def in_coins(amount: Money, currency: str) -> int:
    """An amount in the smallest coins of a currency. Raises Refused for parts of a coin."""
    from avocado.billing.rounding import unit_of

    coins, rest = divmod(amount.nanos, unit_of(currency))
    if rest:
        raise Refused(f"{amount.decimal()} {currency} is no whole number of coins")
    return coins


@invoices.command("credit")
@click.argument("invoice")
@click.option("--reason", required=True, help="Stands on the credit note.")
@click.option("--amount", type=Amount(), help="Net; all that is left of it if left out.")
@click.option("--line", help="Credit one line, by its id (avocado invoices show --json).")
@with_output
def credit(out: Output, invoice: str, reason: str, amount: Money | None, line: str | None) -> None:
    """Make a credit note for INVOICE and give the money back: to the wallet, for what was used on
    credit; out of it, for a top-up that is paid back."""
    from avocado.billing.books import find_document
    from avocado.billing.credit_notes import issue_credit_note

    workspace = workspace_here()
    with reading(workspace) as reader, writing(workspace) as do:
        document = find_document(reader, invoice)
        if document.kind != "invoice":
            raise Refused(f"{invoice} is a credit note: credit the invoice that it is of")
        note = issue_credit_note(
            reader,
            do,
            issuer_of(workspace),
            document.id,
            reason,
            operator(),
            time.time_ns(),
            net_minor=None if amount is None else in_coins(amount, document.content["currency"]),
            line=line,
        )
        _tell(out, reader, note)


@invoices.command("topup")
@click.argument("customer")
@click.argument("deposit", required=False)
@click.option("--gross", type=Amount(), help="What CUSTOMER paid, with tax.")
@click.option("--net", type=Amount(), help="Or the credit that it gets; its tax comes on top.")
@click.option("--reference", help="Names the payment, such as the bank's line.")
@with_output
def top_up(
    out: Output,
    customer: str,
    deposit: str | None,
    gross: Money | None,
    net: Money | None,
    reference: str | None,
) -> None:
    """Record that CUSTOMER bought prepaid credit, by bank transfer for instance: the credit, its
    tax, and its invoice, which is paid. The same reference again changes nothing.

    With DEPOSIT, the id of one that came with its tax: only the invoice is made. Payment providers'
    top-ups have theirs already.
    """
    from avocado.billing.bank_topup import net_of_gross, record_topup
    from avocado.billing.topups import issue_topup_invoice

    if [deposit, gross, net].count(None) != 2:
        raise click.UsageError("give --gross, --net or a DEPOSIT: one of them")
    if (deposit is None) != (reference is not None):
        raise click.UsageError("--reference names the payment of --gross or --net")
    workspace = workspace_here()
    with reading(workspace) as reader, writing(workspace) as do:
        now, issuer = time.time_ns(), issuer_of(workspace)
        if deposit is not None:
            made = issue_topup_invoice(reader, do, issuer, customer, deposit, now, actor=operator())
        else:
            currency, day = reader.customer(customer).currency, day_at(now)
            given = gross or net
            assert given is not None
            assert reference is not None
            coins = in_coins(given, currency)
            if gross is not None:
                coins = net_of_gross(reader, issuer, customer, coins, day)
            made = record_topup(reader, do, issuer, customer, coins, reference, now, operator())
        _tell(out, reader, made)
