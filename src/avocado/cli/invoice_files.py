"""``avocado invoices export``: invoices as files, for customers and for the accountant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.billing.invoices import INVOICE
from avocado.billing.months import month_at
from avocado.cli.arguments import EXISTING, Month, workspace_here
from avocado.cli.book import reading
from avocado.cli.output import Output, with_output
from avocado.errors import Refused

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader

FORMATS = ("json", "csv", "pdf", "factur-x", "xml")
SUFFIX = {"factur-x": "pdf"}


@click.command("export")
@click.argument("invoice", required=False)
@click.option("--customer", help="All of one customer, instead of one invoice.")
@click.option("--month", type=Month(), help="Those of one month (UTC) only.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="pdf", show_default=True)
@click.option("--out", "target", type=EXISTING, required=True, help="A file; or a folder for many.")
@with_output
def export(
    out: Output,
    invoice: str | None,
    customer: str | None,
    month: tuple[int, int] | None,
    form: str,
    target: Path,
) -> None:
    """Write INVOICE, or many, as files: PDF, Factur-X (PDF with EN 16931 XML in it), EN 16931 XML,
    JSON, or one CSV table with a row a line. Nothing is overwritten."""
    if invoice is not None and (customer is not None or month is not None):
        raise click.UsageError("give an INVOICE, or --customer and --month, not both")
    with reading(workspace_here()) as reader:
        documents = _wanted(reader, invoice, customer, month)
        if form == "csv":
            count = _write_csv(documents, target)
        else:
            many = invoice is None or target.is_dir()
            count = _write_each(reader, documents, form, target, many)
    out.result({"documents": count, "out": str(target)}, f"Wrote {count:,} documents to {target}")


def _wanted(
    reader: Reader, invoice: str | None, customer: str | None, month: tuple[int, int] | None
) -> Iterator[Document]:
    """What was asked for, one by one. Credit notes come after invoices."""
    from avocado.billing.books import find_document

    if invoice is not None:
        yield find_document(reader, invoice)
        return
    if customer is not None:
        reader.customer(customer)
    wanted = None if month is None else month_at(month[0])
    for kind in (INVOICE, "credit-note"):
        for document in reader.documents(kind, customer):
            content = document.content
            day = str(content.get("period_end") or content["issued"])
            if wanted is None or day.startswith(wanted):
                yield document


def _write_csv(documents: Iterator[Document], target: Path) -> int:
    import csv

    from avocado.billing.accounting import COLUMNS, rows
    from avocado.billing.invoices import shown_number
    from avocado.cli.invoice_view import content

    count = 0
    try:
        with target.open("x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for document in documents:
                writer.writerows(rows(content(document), shown_number(document)))
                count += 1
    except OSError as error:
        raise _unwritable(target, error) from error
    return count


def _write_each(
    reader: Reader, documents: Iterator[Document], form: str, target: Path, many: bool
) -> int:
    from avocado.billing.invoices import shown_number

    render = _renderer(reader, form)
    count = 0
    try:
        if many:
            target.mkdir(parents=True, exist_ok=True)
        for document in documents:
            name = shown_number(document).replace("/", "-")
            file = target / f"{name}.{SUFFIX.get(form, form)}" if many else target
            if file.exists():
                raise Refused(f"{file} exists: an export never overwrites")
            file.write_bytes(render(document))
            count += 1
    except OSError as error:
        raise _unwritable(target, error) from error
    return count


def _renderer(reader: Reader, form: str) -> Callable[[Document], bytes]:
    """What makes a file of a document."""
    from avocado.billing.invoices import shown_number
    from avocado.cli.invoice_view import content, document_json

    if form == "json":

        def as_json(document: Document) -> bytes:
            value = document_json(reader, document)
            return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"

        return as_json
    if form == "xml":
        from avocado.billing.einvoice import einvoice_xml

        return lambda document: einvoice_xml(content(document), shown_number(document))
    from avocado.billing.pdf import facturx_pdf, render_pdf

    paper = facturx_pdf if form == "factur-x" else render_pdf
    return lambda document: paper(content(document), shown_number(document))


def _unwritable(target: Path, error: OSError) -> Refused:
    if isinstance(error, FileExistsError):
        return Refused(f"{target} exists: an export never overwrites")
    return Refused(f"{target} cannot be written: {error.strerror}")
