"""``avocado invoices export``: invoices as files, for customers and for the accountant."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EEXIST
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
@click.option(
    "--month",
    type=Month(),
    help="Usage invoices for this month, top-ups and credit notes issued in it (UTC).",
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="pdf", show_default=True)
@click.option(
    "--decimal",
    type=click.Choice(("point", "comma")),
    default="point",
    show_default=True,
    help="Of a CSV table. comma: as spreadsheets open it where people write 1,50.",
)
@click.option("--out", "target", type=EXISTING, required=True, help="A file; or a folder for many.")
@with_output
def export(
    out: Output,
    invoice: str | None,
    customer: str | None,
    month: tuple[int, int] | None,
    form: str,
    decimal: str,
    target: Path,
) -> int:
    """Write INVOICE, or many, as files: PDF, Factur-X (PDF with EN 16931 XML in it), EN 16931 XML,
    JSON, or one CSV table with a row a line.

    Nothing is overwritten. Of many, what is there already stays as it is, so an export that was
    cut off goes on; what cannot be written in this format is said, and makes the exit code 1.
    """
    if invoice is not None and (customer is not None or month is not None):
        raise click.UsageError("give an INVOICE, or --customer and --month, not both")
    if decimal == "comma" and form != "csv":
        raise click.UsageError("--decimal is of --format csv")
    done = Done()
    with reading(workspace_here()) as reader:
        documents = _wanted(reader, invoice, customer, month)
        try:
            if form == "csv":
                _write_csv(documents, target, decimal == "comma", done)
            elif invoice is None or target.is_dir():
                _write_many(reader, documents, form, target, done)
            else:
                _write_one(reader, documents, form, target, done)
        except OSError as error:
            raise _unwritable(target, error, done) from error
    value = {
        "documents": done.written,
        "there": done.there,
        "refused": [{"number": number, "reason": reason} for number, reason in done.refused],
        "out": str(target),
    }
    there = f"; {done.there:,} were there already" if done.there else ""
    lines = [f"Wrote {done.written:,} document{'s'[: done.written != 1]} to {target}{there}"]
    lines += [f"refused: {number}: {reason}" for number, reason in done.refused]
    out.result(value, *lines)
    return 1 if done.refused else 0


@dataclass(slots=True)
class Done:
    """How far an export came. ``refused`` are (number, reason)."""

    written: int = 0
    there: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


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


def _write_csv(documents: Iterator[Document], target: Path, comma: bool, done: Done) -> None:
    from avocado.billing.accounting import write_table
    from avocado.billing.invoices import shown_number
    from avocado.cli.invoice_view import content

    with _fresh(target) as path, path.open("w", newline="", encoding="utf-8") as file:
        table = ((content(each), shown_number(each)) for each in documents)
        done.written = write_table(file, table, comma)


def _write_one(
    reader: Reader, documents: Iterator[Document], form: str, target: Path, done: Done
) -> None:
    render = _renderer(reader, form)
    for document in documents:
        with _fresh(target) as path:
            path.write_bytes(render(document))
        done.written += 1


def _write_many(
    reader: Reader, documents: Iterator[Document], form: str, folder: Path, done: Done
) -> None:
    from avocado.billing.invoices import shown_number

    render = _renderer(reader, form)
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
        number = shown_number(document)
        file = folder / f"{number.replace('/', '-')}.{SUFFIX.get(form, form)}"
        if file.exists():
            done.there += 1
            continue
        try:
            made = render(document)
        except Refused as refused:
            done.refused.append((number, "; ".join(refused.reasons)))
            continue
        with _fresh(file) as path:
            path.write_bytes(made)
        done.written += 1


@contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """A file beside the target that becomes it at the end, so that no half of one is left behind.

    Raises:
        FileExistsError: the target is there.
    """
    if target.exists():
        raise FileExistsError(EEXIST, "exists", str(target))
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


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


def _unwritable(target: Path, error: OSError, done: Done) -> Refused:
    if isinstance(error, FileExistsError):
        return Refused(f"{error.filename or target} exists: an export never overwrites")
    kept = f" ({done.written:,} documents were written before)" if done.written else ""
    return Refused(f"{target} cannot be written: {error.strerror}{kept}")
