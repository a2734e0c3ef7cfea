"""Credit notes: an invoice on record is never changed; what was wrong with it is credited.

The rule that keeps a refund from being credited twice: money of a charge goes back once, and the
ledger, which counts what of each charge went back, is the judge.

- A *refund* (``avocado ledger refund``) is a negative line of the next invoice. No credit note.
- A *credit note* gives back the same charges, by refunds whose ids begin with the note's own; those
  are left out of every invoice's lines, lower the customer's debt and not its next invoice, and
  can't be had a second time, because the ledger refuses to refund more than was charged.

A usage invoice can be credited up to its net, what was used on credit. What prepaid credit paid is
refunded to prepaid credit instead: its tax was paid with the top-up. An invoice of a top-up is
credited by paying the deposit back.

A note is filed before its refunds are made. What an interrupted one still owes is made up by the
clerk (``finish``), or when the next note of the invoice is issued.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from avocado.billing.books import posting, read_invoice
from avocado.billing.closing import file_once
from avocado.billing.invoices import (
    CREDIT_NOTE,
    CreditNoteDocument,
    DocumentLine,
    InvoiceDocument,
    TaxSum,
    content_of,
    credit_note_from,
    shown_number,
)
from avocado.billing.issuer import Issuer
from avocado.billing.months import day_at
from avocado.billing.receivables import credit_notes_of
from avocado.billing.record import Do, Refusals, code_of
from avocado.billing.rounding import decimal, nearest, unit_of
from avocado.billing.tax import split_gross
from avocado.errors import Refused
from avocado.ledger import entry as e
from avocado.ledger.operation import Adjust, File, Refund

if TYPE_CHECKING:
    from avocado.ledger.reader import Document, Reader


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a note is about, and what was credited before."""

    document: Document
    invoice: InvoiceDocument
    notes: tuple[CreditNoteDocument, ...]

    @property
    def credited(self) -> int:
        return sum(note.net_minor for note in self.notes)

    @property
    def credited_tax(self) -> int:
        return sum(note.gross_minor - note.net_minor for note in self.notes)

    @property
    def left(self) -> int:
        return self.invoice.net_minor - self.credited

    def left_of(self, line: DocumentLine | None) -> int:
        """Coins of one line that no note of it credited yet, and no more than is left of all."""
        if line is None:
            return self.left
        done = sum(note.net_minor for note in self.notes if note.lines[0].id == line.id)
        return min(line.minor - done, self.left)

    @property
    def next_id(self) -> str:
        return f"{CREDIT_NOTE}/{self.document.id}/{len(self.notes) + 1}"


def issue_credit_note(
    reader: Reader,
    do: Do,
    issuer: Issuer,
    invoice_id: str,
    reason: str,
    actor: str,
    now: int,
    net_minor: int | None = None,
    line: str | None = None,
    refund: str | None = None,
) -> Document:
    """Credits an invoice: whole (what is left of it), ``net_minor`` coins of it, or one ``line``.

    ``refund`` is the id of a refund of the deposit that was made already, by a payment provider:
    its amount is what is credited, and asking again gives the note that there is.

    Raises:
        Refused: there is no such invoice or line, nothing (or less) of it is left to credit, or
            prepaid credit paid it.
    """
    found = read_invoice(reader, invoice_id)
    if found is None:
        raise Refused(f"there is no invoice {invoice_id!r}: see avocado invoices list")
    for note, content in credit_notes_of(reader, invoice_id):
        if refund is not None and content.refund == refund:
            return note
        complete(reader, do, note, content, actor)
    subject = _subject(reader, *found)
    if not reason.strip():
        raise Refused("a credit note needs a reason")
    if subject.invoice.type == "top-up":
        return _credit_topup(reader, do, issuer, subject, reason, actor, now, net_minor, refund)
    wanted = _line(subject.invoice, line) if line is not None else None
    coins = net_minor if net_minor is not None else subject.left_of(wanted)
    _check_left(subject, coins, wanted)
    room = sum(amount for _, amount in _refundable(reader, subject.invoice, wanted))
    unit = unit_of(subject.invoice.currency)
    if room <= (coins - 1) * unit:  # a coin is not missed: rounding gave or took as much
        shown = decimal(nearest(room, unit)[0], subject.invoice.digits)
        raise Refused(
            f"of what {shown_number(subject.document)} charged, {shown} {subject.invoice.currency} "
            "were not refunded yet: credit at most that; a refund stands on the next invoice"
        )
    made = _lay_down(issuer, subject, wanted, coins, reason, day_at(now))
    document = _file(reader, do, subject, made, actor)
    missing = complete(reader, do, document, made, actor)
    if missing:
        raise Refused(
            f"{document.id} is on record, but {missing} nano-units of its charges were refunded by "
            "somebody else at this very moment, and are a part of the next invoice as well: take "
            "them back with avocado ledger adjust"
        )
    return document


def _subject(reader: Reader, document: Document, invoice: InvoiceDocument) -> _Subject:
    notes = [note for _, note in credit_notes_of(reader, document.id)]
    return _Subject(document, invoice, tuple(notes))


def _check_left(subject: _Subject, coins: int, line: DocumentLine | None = None) -> None:
    """Raises Refused where ``coins`` cannot be credited."""
    invoice, id_ = subject.invoice, shown_number(subject.document)
    if not invoice.net_minor:
        raise Refused(
            f"{id_} was paid by prepaid or granted credit: nothing on it is to be credited; give "
            "credit back by refunding its requests: avocado ledger refund REQUEST"
        )
    if not 0 < coins <= subject.left_of(line):
        what = id_ if line is None else f"line {line.id} of {id_}"
        left = decimal(max(subject.left_of(line), 0), invoice.digits)
        raise Refused(f"of {what} {left} {invoice.currency} net are left to credit: at most that")


def _line(invoice: InvoiceDocument, id_: str) -> DocumentLine:
    for line in invoice.lines:
        if line.id == id_:
            if line.minor > 0:
                return line
            raise Refused(f"line {id_} charged nothing")
    raise Refused(f"the invoice has no line {id_!r}: see avocado invoices show")


def _lay_down(
    issuer: Issuer,
    subject: _Subject,
    line: DocumentLine | None,
    coins: int,
    reason: str,
    issued: str,
    tax: int | None = None,
) -> CreditNoteDocument:
    """``tax`` is what went back of it already, if it did."""
    invoice = subject.invoice
    taxes = _taxes(subject, coins)
    if taxes and tax is not None:
        gap = tax - sum(each.amount_minor for each in taxes)
        taxes = (replace(taxes[0], amount_minor=taxes[0].amount_minor + gap), *taxes[1:])
    nanos = coins * unit_of(invoice.currency)
    what = line if line is not None else DocumentLine("credit", "credit", 0, 0)
    credited = replace(what, kind="credit", nanos=nanos, minor=coins, text=reason)
    return CreditNoteDocument(
        series=issuer.credit_series,
        invoice=subject.document.id,
        invoice_number=shown_number(subject.document),
        invoice_issued=invoice.issued,
        seller=invoice.seller,
        buyer=invoice.buyer,
        language=invoice.language,
        currency=invoice.currency,
        digits=invoice.digits,
        issued=issued,
        reason=reason,
        lines=(credited,),
        net_minor=coins,
        taxes=taxes,
        gross_minor=coins + sum(tax.amount_minor for tax in taxes),
    )


def _taxes(subject: _Subject, coins: int) -> tuple[TaxSum, ...]:
    """The invoice's taxes on a part of it. Parts add up to the whole: what was credited before is
    taken off what is credited altogether now."""
    invoice = subject.invoice
    before, after = subject.credited, subject.credited + coins
    made = []
    for tax in invoice.taxes:
        base, amount = (
            _share(part, after, invoice.net_minor) - _share(part, before, invoice.net_minor)
            for part in (tax.base_minor, tax.amount_minor)
        )
        made.append(replace(tax, base_minor=base, amount_minor=amount))
    gap = coins - sum(tax.base_minor for tax in made)
    if made and gap:  # several rates: the first takes what rounding left
        made[0] = replace(made[0], base_minor=made[0].base_minor + gap)
    return tuple(made)


def _share(part: int, of: int, whole: int) -> int:
    """part × of ÷ whole, half up."""
    return (2 * part * of + whole) // (2 * whole)


def _file(
    reader: Reader, do: Do, subject: _Subject, note: CreditNoteDocument, actor: str
) -> Document:
    id_ = subject.next_id
    operation = File(
        id=id_,
        kind=CREDIT_NOTE,
        tenant=subject.document.tenant,
        content=content_of(note),
        series=note.series,
        actor=actor,
    )
    if not file_once(do, operation):
        raise Refused(f"somebody else is crediting {subject.document.id} now: look, and try again")
    filed = reader.document(id_)
    assert filed is not None
    return filed


# -- a usage invoice: refunds of its charges -----------------------------------------------------


def complete(
    reader: Reader, do: Do, document: Document, note: CreditNoteDocument, actor: str
) -> int:
    """Makes the refunds that a note of a usage invoice still owes: none, if it was not interrupted.

    The charges that the invoice covered go back, newest first; what rounding to coins put on top of
    them, at most a coin, is given by an adjustment. All have ids under the note's. Returns what is
    missing, in nano-units: nothing, unless others refund the same charges at the same time.
    """
    found = read_invoice(reader, note.invoice)
    if found is None or found[1].type == "top-up":
        return 0
    unit = unit_of(note.currency)
    owed = note.net_minor * unit
    wanted = next((line for line in found[1].lines if line.id == note.lines[0].id), None)
    with reader.snapshot():  # of one moment, or who does the same at once gives back too much
        done, given = _done(reader, document)
        rooms = list(_refundable(reader, found[1], wanted)) if given < owed else []
    for of, room in rooms:
        amount = min(room, owed - given)
        if amount <= 0:
            break
        id_ = _under(document.id, of)
        if id_ in done:
            continue
        try:
            do(Refund(id=id_, of=of, reason=note.reason, amount=amount))
        except Refusals as error:
            if code_of(error) != "nothing_to_refund":  # refunded by others at this moment
                raise
        else:
            given += amount
    if given < owed <= given + unit:
        do(
            Adjust(
                id=_under(document.id, "rounding"),
                tenant=document.tenant,
                amount=owed - given,
                currency=note.currency,
                reason=note.reason,
                actor=actor or document.actor or "credit note",
            )
        )
        given = owed
    return owed - given


def finish(reader: Reader, do: Do, since: int, actor: str) -> Iterator[Document]:
    """Makes up what notes of ``since`` (ns) or later still owe, because somebody was cut off; gives
    those that had to be."""
    sql = "SELECT id FROM document WHERE kind = ? AND at >= ?"
    for (id_,) in list(reader.rows(sql, (CREDIT_NOTE, since))):
        document = reader.document(str(id_))
        assert document is not None
        note = credit_note_from(document)
        unit = unit_of(note.currency)
        if not note.refund and _done(reader, document)[1] < note.net_minor * unit:
            complete(reader, do, document, note, actor)
            yield document


def _under(note: str, of: str) -> str:
    """The id of a note's posting for ``of``: of one length, whatever the ids' own."""
    return f"{CREDIT_NOTE}/{sha256(f'{note} {of}'.encode()).hexdigest()[:40]}"


def _done(reader: Reader, document: Document) -> tuple[set[str], int]:
    """Postings under a note: (their ids, nano-units that they gave back)."""
    ids: set[str] = set()
    given = 0
    for record in reader.postings(document.tenant, document.seq):
        entry = record.entry
        if isinstance(entry, e.Refunded | e.Adjusted):
            of = entry.of if isinstance(entry, e.Refunded) else "rounding"
            if entry.id == _under(document.id, of):
                ids.add(entry.id)
                given += entry.amount
    return ids, given


def _refundable(
    reader: Reader, invoice: InvoiceDocument, line: DocumentLine | None
) -> Iterator[tuple[str, int]]:
    """(id, nano-units) of what an invoice covered and was paid from the wallet, newest first, less
    what went back already: the whole invoice's, or that behind one line."""
    tenant = invoice.buyer.tenant
    if line is None or line.item:
        yield from _fees(reader, invoice, line)
    if line is not None and line.item:
        return
    charges = [
        (charge.request, charge.charge - charge.granted - charge.refunded)
        for charge in reader.charges_between(tenant, invoice.after_seq, invoice.until_seq)
        if line is None
        or (charge.offer, charge.release, charge.price_version)
        == (line.offer, line.release, line.price_version)
    ]
    for request, room in reversed(charges):
        if room > 0:  # the wallet's part goes back first, so this is what is left of it
            yield request, room


def _fees(
    reader: Reader, invoice: InvoiceDocument, line: DocumentLine | None
) -> Iterator[tuple[str, int]]:
    billed = [
        record.entry
        for record in reader.postings(invoice.buyer.tenant, invoice.after_seq, invoice.until_seq)
        if isinstance(record.entry, e.Billed)
    ]
    for entry in reversed(billed):
        if line is None or entry.item == line.item:
            sql = "SELECT amount - refunded FROM posting WHERE id = ?"
            room = int(next(iter(reader.rows(sql, (entry.id,))))[0])
            if room > 0:
                yield entry.id, room


# -- an invoice of a top-up: its deposit goes back -----------------------------------------------


def _credit_topup(
    reader: Reader,
    do: Do,
    issuer: Issuer,
    subject: _Subject,
    reason: str,
    actor: str,
    now: int,
    net_minor: int | None,
    refund: str | None,
) -> Document:
    """The refund comes first: the ledger says whether the credit is still there to pay back."""
    deposit = subject.invoice.lines[0].item
    unit = unit_of(subject.invoice.currency)
    coins, tax = subject.left if net_minor is None else net_minor, None
    wanted = None
    if refund is None and (made := posting(reader, _under(subject.next_id, deposit))) is not None:
        entry: Any = made.entry  # somebody was cut off before the paper: it comes first
        wanted, refund, reason = coins, str(entry.id), str(entry.reason)
    if refund is not None:
        coins, tax = _went_back(reader, subject, refund)
    _check_left(subject, coins)
    if refund is None:
        refund = _under(subject.next_id, deposit)
        try:
            do(Refund(id=refund, of=deposit, reason=reason, amount=coins * unit))
        except Refusals as error:
            if code_of(error) == "nothing_to_refund":
                shown = f"{decimal(coins, subject.invoice.digits)} {subject.invoice.currency}"
                raise Refused(
                    f"{shown} of this top-up cannot be paid back: the credit was used, or paid "
                    f"back before ({error})"
                ) from error
            raise
    note = _lay_down(issuer, subject, None, coins, reason, day_at(now), tax)
    filed = _file(reader, do, subject, replace(note, refund=refund), actor)
    if wanted not in (None, coins):
        shown = f"{decimal(coins, note.digits)} {note.currency}"
        raise Refused(
            f"{filed.id} is on record now, for {shown} that were paid back before and cut off: ask "
            "again for what is missing"
        )
    return filed


def _went_back(reader: Reader, subject: _Subject, refund: str) -> tuple[int, int]:
    """(net, tax) in coins of a refund that was made: together what the customer got, to the coin,
    though a payment provider's share of the net may be no whole coins."""
    deposit = subject.invoice.lines[0].item
    record = posting(reader, refund)
    entry = record.entry if record is not None else None
    if not isinstance(entry, e.Refunded) or entry.of != deposit:
        raise Refused(f"{refund!r} is no refund of deposit {deposit}")
    invoice = subject.invoice
    back = nearest(entry.amount + entry.tax, unit_of(invoice.currency))[0]
    if back >= invoice.gross_minor - subject.credited - subject.credited_tax:
        return subject.left, back - subject.left  # the last of it: parts add up to the whole
    net = min(split_gross(back, invoice.taxes)[0], subject.left)
    return net, back - net
