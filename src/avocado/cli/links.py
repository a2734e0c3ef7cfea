"""The chain behind money and models, link by link: what ``avocado trace`` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from avocado.billing.invoice import InvoiceLine
from avocado.cli.accounts import invoice_of
from avocado.cli.book import reading
from avocado.cli.provenance import Paper, describe, papers_of
from avocado.errors import Refused
from avocado.lineage import KINDS, walk
from avocado.release.attestations import NAME, Log
from avocado.terms.money import Money
from avocado.workspace import Store, Workspace

if TYPE_CHECKING:
    from avocado.billing.invoices import DocumentLine
    from avocado.ledger.reader import Charge, Document, Reader

SHOWN: Final = 5
"""Requests of an invoice line that are listed; the rest are counted."""


@dataclass(frozen=True)
class Link:
    """One step of the chain: how deep, what it is, its id, and what to know of it."""

    depth: int
    role: str
    id: str
    facts: tuple[str, ...]
    papers: tuple[Paper, ...] = ()
    """Texts that say what may be done with it."""

    def lines(self) -> list[str]:
        pad = "  " * self.depth
        told = list(self.facts)
        folder = None
        for each in self.papers:
            if each.folder not in (None, folder):
                folder = each.folder
                told.append(f"in {folder}:")
            told.append(str(each))
        return [f"{pad}{self.role}  {self.id}", *(f"{pad}    {fact}" for fact in told)]

    def value(self) -> dict[str, Any]:
        papers = [each.value() for each in self.papers]
        return {
            "depth": self.depth,
            "role": self.role,
            "id": self.id,
            "facts": list(self.facts),
            "papers": papers,
        }


SHORT: Final = 20


def artifact_links(store: Store, start: str, depth: int = 0) -> Iterator[Link]:
    """The chain of an artifact, itself first: every base, corpus and teacher of every stage."""
    for step in walk(start, lambda each: store.load(each).manifest):
        role = step.role or step.manifest.kind
        facts = tuple(describe(step.manifest))
        papers = tuple(papers_of(store.load(step.id), Log(store.root / NAME)))
        yield Link(depth + step.depth, role, step.id, facts, papers)


def charge_link(charge: Charge, depth: int) -> Link:
    usage = charge.usage
    amount = Money(charge.charge, charge.currency)
    return Link(
        depth,
        "request",
        charge.request,
        (
            f"{usage.prompt} prompt and {usage.completion} completion tokens, {amount}, "
            f"journal entry {charge.seq}",
        ),
    )


def line_links(
    workspace: Workspace, reader: Reader, wanted: str, period: tuple[int, int]
) -> Iterator[Link]:
    """An invoice line, its requests, and the chain of the release that served them."""
    line, tenant, currency = find_line(reader, wanted, period)
    yield Link(
        0,
        "invoice line",
        line.id,
        (
            f"{tenant}: {line.tokens:,} {line.kind} tokens of {line.offer} at "
            f"{Money(line.price, currency)} per million = {Money(line.nanos, currency)}",
            f"price version {line.price_version}",
        ),
    )
    same = [
        charge
        for charge in reader.charges(tenant, *period)
        if (charge.offer, charge.release, charge.price_version)
        == (line.offer, line.release, line.price_version)
    ]
    yield from (charge_link(charge, 1) for charge in same[:SHOWN])
    if len(same) > SHOWN:
        yield Link(1, "request", f"… and {len(same) - SHOWN:,} more", ())
    yield from release_links(workspace, line.offer, line.release, line.price_version, 1)


def release_links(
    workspace: Workspace, name: str, release: str, price_version: str, depth: int
) -> Iterator[Link]:
    """The offer under which a release was sold, and the release's chain."""
    from avocado.release.offer import Offer

    store = workspace.store
    for each in store.ids("offer"):
        offer = Offer.from_manifest(store.load(each).manifest)
        if (offer.name, offer.release, offer.price.version) == (name, release, price_version):
            yield from artifact_links(store, offer.id, depth)
            return
    yield from artifact_links(store, release, depth)


def find_line(reader: Reader, wanted: str, period: tuple[int, int]) -> tuple[InvoiceLine, str, str]:
    """(line, customer, currency) of an invoice line's id in ``period``."""
    for page in reader.customers():
        for line in invoice_of(reader, page.tenant, period).lines:
            if line.id == wanted:
                return line, page.tenant, page.currency
    raise Refused(f"no invoice of this month has the line {wanted!r}: give its --month")


def document_links(workspace: Workspace, reader: Reader, document: Document) -> Iterator[Link]:
    """An invoice or credit note, its lines, and what each rests on: a release's chain, once, a plan
    as it was agreed, or the journal entry of a deposit."""
    from avocado.billing.invoices import CREDIT_NOTE, shown_number
    from avocado.cli.invoice_view import content

    made = content(document)
    what = "credit note" if document.kind == CREDIT_NOTE else "invoice"
    said = f"{document.tenant}: filed as {document.id}, journal entry {document.seq}"
    yield Link(0, what, shown_number(document), (said,))
    shown: set[tuple[str, str, str]] = set()
    for line in made.lines:
        yield Link(1, f"{line.kind} line", line.id, (_in_words(line, made.currency),))
        sold = (line.offer, line.release, line.price_version)
        if line.release and sold not in shown:
            shown.add(sold)
            yield from release_links(workspace, *sold, 2)
        elif line.release:
            yield Link(2, "offer", f"{line.offer}, {line.release[:SHORT]}: as above", ())
        elif line.item:
            yield from _item_links(reader, line.item)


def _in_words(line: DocumentLine, currency: str) -> str:
    amount = Money(line.nanos, currency)
    if line.token_kind:
        price = Money(line.price, currency)
        return f"{line.tokens:,} {line.token_kind} tokens at {price} per million = {amount}"
    return f"{line.text or line.item}: {amount}"


def _item_links(reader: Reader, item: str) -> Iterator[Link]:
    """What a fee or a top-up rests on: a plan's version on record, or money that came."""
    from avocado.billing.books import posting

    plan, _, version = item.removeprefix("plan:").partition("@")
    if item.startswith("plan:") and (found := reader.document(f"plan/{plan}/{version}")):
        said = f"journal entry {found.seq}, filed by {found.actor or 'nobody named'}"
        yield Link(2, "plan", found.id, (said,))
    elif (record := posting(reader, item)) is not None:
        kind = type(record.entry).__name__.lower()
        yield Link(2, kind, item, (f"journal entry {record.seq}",))


def trace_links(workspace: Workspace, id_: str, period: tuple[int, int]) -> list[Link]:
    """The chain behind an invoice, an invoice line, a request, an artifact or a model's name."""
    from avocado.billing.books import find_document

    store = workspace.store
    if id_.partition("-")[0] in KINDS:
        return list(artifact_links(store, store.resolve(id_)))
    if id_ in (offers := store.pointed("offer")):
        return list(artifact_links(store, offers[id_]))
    with reading(workspace) as reader:
        if id_.startswith("line-"):
            return list(line_links(workspace, reader, id_, period))
        id_ = id_.removeprefix("chatcmpl-")  # a response's id is its request's, so dressed
        hold = reader.hold(id_)
        if hold is None:
            try:
                document = find_document(reader, id_)
            except Refused:
                raise Refused(
                    f"{id_!r} is no id of this workspace: give an invoice, a line of one, a "
                    "request, a release, a checkpoint or a model's name"
                ) from None
            return list(document_links(workspace, reader, document))
        charge = next((c for c in reader.charges(hold.tenant) if c.request == id_), None)
        first = (
            charge_link(charge, 0)
            if charge is not None
            else Link(0, "request", id_, (f"{hold.state}: nothing was charged",))
        )
        chain = release_links(workspace, hold.offer, hold.release, hold.price_version, 1)
        return [first, *chain]
