"""Layout: an invoice or credit note as the page that a person reads. Pure.

Every text stands here as it is printed, in the customer's language; ``layout.typ`` only places it.
Nothing is computed that the document does not say already.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from itertools import groupby
from typing import Final

from avocado.billing.invoices import Buyer, CreditNoteDocument, DocumentLine, InvoiceDocument
from avocado.billing.layout_page import Fact, Figure, Group, Page, Payment, Row, SumRow
from avocado.billing.wording import Wording, decimals
from avocado.terms.money import NANO

AnyDocument = InvoiceDocument | CreditNoteDocument
_POSTCODE_LAST: Final = frozenset("AU CA GB IE IN NZ SG US ZA".split())
_RATE: Final = 10_000
_RELEASE: Final = re.compile(r"(release-[0-9a-f]{12})[0-9a-f]{52}")
"""A whole id, of which people are shown as much as commands show; the e-invoice has all of it."""
_SPAN: Final = re.compile(r"(\d{4}-\d\d-\d\d) to (\d{4}-\d\d-\d\d)")
"""How a subscription's fee names its period: the first and the last day."""
"""Tax rates are millionths; a per cent is so many of them."""


def lay_out(document: AnyDocument, number: str) -> Page:
    """The page of a document whose number is written ``number``, such as ``AV-2026-000123``.

    Raises:
        Refused: Babel is not installed, or the document's language is none of ours.
    """
    words = Wording(document.language, document.buyer.country)
    seller = document.seller
    town = _town(seller.postcode, seller.city, seller.country)
    return Page(
        language=words.language,
        title=words.say(title_key(document)),
        number=number,
        issued=date.fromisoformat(document.issued),
        seller=seller.name,
        seller_line=" · ".join((seller.name, *seller.address, town)),
        contact=tuple(text for text in (seller.email, seller.phone) if text),
        recipient=_recipient(document.buyer, seller.country, words),
        facts=_facts(document, number, words),
        intro=_intro(document, words),
        columns=_columns(document, words),
        groups=_groups(document, words),
        empty=words.say("nothing-used"),
        sums=_sums(document, words),
        notes=tax_notes(document, words),
        remarks=_remarks(document, words),
        payment=payment_of(document, number, words),
        footer=_footer(document, words),
        page=words.say("page", page="{page}", pages="{pages}"),
    )


def title_key(document: AnyDocument) -> str:
    """What kind of paper it is, as a key of the wording."""
    if isinstance(document, CreditNoteDocument):
        return "credit-note"
    return "topup" if document.type == "top-up" else "invoice"


def item_of(line: DocumentLine, words: Wording) -> str:
    """What a line is for, such as ``Output tokens`` or ``Subscription pro``."""
    if line.token_kind:
        return words.say(line.token_kind)
    if line.kind == "top-up":
        return words.say("prepaid-credit")
    item = line.item
    if item.startswith("plan:"):
        item = words.say("fee", plan=item.removeprefix("plan:").partition("@")[0])
    item = item or line.offer
    if line.kind == "refund":
        return words.say("refund-of", item=item) if item else words.say("refund")
    return item or (line.text if line.kind == "fee" else "") or words.say("credited")


def text_of(line: DocumentLine, words: Wording) -> str:
    """A line's own text; the days that a fee is for, as the customer's language says them."""
    span = _SPAN.fullmatch(line.text) if line.kind == "fee" else None
    if span is None:
        return line.text
    try:
        first, last = map(date.fromisoformat, span.groups())
    except ValueError:  # no days after all
        return line.text
    return words.days(first, last)


def prepaid_key(invoice: InvoiceDocument) -> str:
    """What prepaid credit did to an invoice, as :file:`wording.toml` calls it: it paid; refunds
    gave back to it; or it was paid back or taken by hand after it was used, which is owed now."""
    if invoice.prepaid_nanos >= 0:
        return "less-prepaid"
    there = invoice.prepaid_before + invoice.deposited + invoice.adjusted
    return "back-to-prepaid" if there >= 0 else "prepaid-taken"


def tax_notes(document: AnyDocument, words: Wording) -> tuple[str, ...]:
    """What the law wants said of taxes: one sentence for each reason."""
    said: list[str] = []
    for tax in document.taxes:
        key = {
            "reverse-charge": "reverse-charge",
            "export": "place-of-supply",
            "exempt": "exempt",
        }.get(tax.code) or {"AE": "reverse-charge", "E": "exempt", "Z": "zero-rated"}.get(
            tax.category, ""
        )
        parts = [words.say(key) if key else "", tax.note]
        said.append(" – ".join(part for part in parts if part))
    return tuple(dict.fromkeys(each for each in said if each))


def _intro(document: AnyDocument, words: Wording) -> str:
    if isinstance(document, CreditNoteDocument) and document.reason:
        return words.say("reason", reason=document.reason)
    return ""


def _minor(minor: int, digits: int) -> int:
    """Smallest coins as nano-units."""
    scale: int = 10 ** (9 - digits)
    return minor * scale


def _recipient(buyer: Buyer, home: str, words: Wording) -> tuple[str, ...]:
    abroad = buyer.country and buyer.country != home
    country = words.locale.territories.get(buyer.country, buyer.country) if abroad else ""
    town = _town(buyer.postcode, buyer.city, buyer.country, buyer.region)
    name = buyer.name or buyer.tenant
    contact = buyer.contact if buyer.contact != name else ""
    return tuple(line for line in (name, contact, *buyer.address, town, country) if line)


def _town(postcode: str, city: str, country: str, region: str = "") -> str:
    """The line of the town, as the post of its country wants it (Universal Postal Union)."""
    if country in _POSTCODE_LAST:
        return " ".join((", ".join(each for each in (city, region) if each), postcode)).strip()
    return ", ".join(each for each in (f"{postcode} {city}".strip(), region) if each)


def _facts(document: AnyDocument, number: str, words: Wording) -> tuple[Fact, ...]:
    buyer = document.buyer
    issued = words.day(date.fromisoformat(document.issued))
    if isinstance(document, CreditNoteDocument):
        of = words.day(date.fromisoformat(document.invoice_issued))
        facts = [
            ("credit-note-number", number),
            ("credit-note-date", issued),
            ("corrects", document.invoice_number),
            ("corrects-date", of),
        ]
    else:
        first, last = map(date.fromisoformat, (document.period_start, document.period_end))
        usage = document.type == "usage"
        facts = [
            ("number", number),
            ("date", issued),
            ("period", words.days(first, last)) if usage else ("supplied", words.day(last)),
        ]
        if document.due_minor > 0:
            facts.append(("due-date", words.day(date.fromisoformat(document.due))))
    facts += [
        ("customer", buyer.tenant),
        ("reference", buyer.reference),
        ("your-vat-id", buyer.vat_id or ""),
    ]
    return tuple(Fact(words.say(key), text) for key, text in facts if text)


def _columns(document: AnyDocument, words: Wording) -> tuple[str, ...]:
    currency = document.currency
    counted = any(map(_counted, document.lines))
    return (
        words.say("column-item"),
        words.say("column-tokens") if counted else "",
        words.say("column-price", currency=currency) if counted else "",
        words.say("column-amount", currency=currency),
    )


def _counted(line: DocumentLine) -> bool:
    """Whether tokens and price make the amount: not where part of it is given back."""
    return line.kind == "usage" and bool(line.token_kind)


def _exact(document: AnyDocument, line: DocumentLine) -> int:
    """What a line's amount is, in nano-units: exact where usage is summed, else as on paper."""
    if isinstance(document, InvoiceDocument) and document.type == "usage":
        return line.nanos
    return _minor(line.minor, document.digits)


def _digits(document: AnyDocument) -> int:
    """How many decimals the column of amounts has."""
    amounts = [_exact(document, line) for line in document.lines]
    if isinstance(document, InvoiceDocument):
        amounts += [document.total_nanos, document.granted_nanos, document.prepaid_nanos]
        amounts += [document.carried_in, document.carried_out]
    return max((document.digits, *map(decimals, amounts)))


def figure(nanos: int, least: int, most: int, words: Wording) -> Figure:
    """An exact amount with ``least`` decimals or more, to stand in a column that has ``most``."""
    shown = max(least, decimals(nanos))
    point = str(words.locale.number_symbols["latn"]["decimal"]) if most and not shown else ""
    return Figure(words.decimal(Decimal(nanos) / NANO, least), point + "0" * (most - shown))


def _groups(document: AnyDocument, words: Wording) -> tuple[Group, ...]:
    amounts = _digits(document)
    prices = max((document.digits, *(decimals(line.price) for line in document.lines)))

    known = document.reference if isinstance(document, InvoiceDocument) else document.reason

    def row(line: DocumentLine) -> Row:
        counted = _counted(line)
        detail = "" if line.text in (item_of(line, words), known) else text_of(line, words)
        return Row(
            item=item_of(line, words),
            detail=words.say("free") if counted and not line.price else detail,
            tokens=Figure(words.number(line.tokens)) if counted else Figure(),
            price=figure(line.price, document.digits, prices, words) if counted else Figure(),
            amount=figure(_exact(document, line), document.digits, amounts, words),
        )

    def model(line: DocumentLine) -> tuple[str, str, str]:
        return (line.offer, line.release, line.price_version) if line.token_kind else ("", "", "")

    made = []
    metered = any(map(_counted, document.lines))
    for (offer, release, version), lines in groupby(document.lines, key=model):
        said = words.say("price-version", version=version) if version else ""
        detail = " · ".join(text for text in (_RELEASE.sub(r"\1", release), said) if text)
        # Without a title of its own, a group would go on under the model's before it on a new page.
        title = offer or (words.say("fees-and-refunds") if metered else "")
        made.append(Group(title, detail, tuple(map(row, lines))))
    return tuple(made)


def _sums(document: AnyDocument, words: Wording) -> tuple[SumRow, ...]:
    digits, column = document.digits, _digits(document)
    rows: list[SumRow] = []

    def add(key: str, nanos: int, kind: str = "plain", label: str = "") -> None:
        shown = figure(nanos, digits, column, words)
        rows.append(SumRow(label or words.say(key), shown, kind))

    if isinstance(document, InvoiceDocument) and document.type == "usage":
        add("usage-total", document.total_nanos)
        granted, prepaid = document.granted_nanos, document.prepaid_nanos
        for key, nanos in (
            ("less-granted" if granted >= 0 else "back-to-granted", -granted),
            (prepaid_key(document), -prepaid),
            ("carried-in", document.carried_in),
            ("carried-out", -document.carried_out),
        ):
            if nanos:
                add(key, nanos, "quiet" if key.startswith("carried") else "plain")
    taxed = [tax for tax in document.taxes if tax.code != "none"]
    if taxed:
        add("net", _minor(document.net_minor, digits), "total")
    for tax in taxed:
        base = words.money(_minor(tax.base_minor, digits), document.currency)
        if tax.category in ("S", "Z"):
            rate = words.percent(Decimal(tax.rate) / _RATE)
            label = words.say("tax", name=_tax_name(document, tax, words), rate=rate, base=base)
        else:
            label = words.say("no-tax", base=base)
        add("tax", _minor(tax.amount_minor, digits), label=label)
    add(
        "gross" if any(tax.amount_minor for tax in taxed) else "total",
        _minor(document.gross_minor, digits),
        "total",
    )
    if isinstance(document, CreditNoteDocument):
        last, key = document.gross_minor, "credited"
    else:
        last, key = document.due_minor, "due"
        if document.paid_minor:
            add("paid", -_minor(document.paid_minor, digits))
    total = words.money(_minor(last, digits), document.currency)
    rows.append(SumRow(words.say(key), Figure(total), "due"))
    return tuple(rows)


def _tax_name(document: AnyDocument, tax: object, words: Wording) -> str:
    name, country = getattr(tax, "name", ""), getattr(tax, "country", "")
    name = words.say("vat") if name == "VAT" else name
    if country and country != document.seller.country:
        name += f" ({words.locale.territories.get(country, country)})"
    return name


def _remarks(document: AnyDocument, words: Wording) -> tuple[str, ...]:
    said = list(document.notes)
    if isinstance(document, InvoiceDocument) and document.type == "usage":
        account = {
            "before": document.prepaid_before,
            "deposited": document.deposited,
            "adjusted": document.adjusted,
            "used": document.prepaid_nanos,
            "after": document.prepaid_after,
        }
        if any(account.values()):
            key = "prepaid-account-adjusted" if document.adjusted else "prepaid-account"
            said.append(
                words.say(key, **{k: words.money(v, document.currency) for k, v in account.items()})
            )
        if _digits(document) > document.digits:
            said.append(words.say("exactness"))
    return tuple(said)


def payment_of(document: AnyDocument, number: str, words: Wording) -> Payment:
    """How a document is to be paid, or that it is not."""

    def money(minor: int) -> str:
        return words.money(_minor(minor, document.digits), document.currency)

    if isinstance(document, CreditNoteDocument):
        text = words.say("credited-note", amount=money(document.gross_minor))
        return Payment(words.say("payment"), text)
    if document.due_minor <= 0:
        text = words.say("paid-thanks" if document.paid_minor > 0 else "nothing-due")
        if document.reference:
            text += f" ({document.reference})"
        return Payment(words.say("payment"), text)
    seller = document.seller
    text = words.say(
        "please-pay" if seller.iban else "please-pay-plain",
        amount=money(document.due_minor),
        date=words.day(date.fromisoformat(document.due)),
        number=number,
    )
    facts = [("account-holder", seller.name), ("iban", spaced(seller.iban or ""))]
    facts += [("bic", seller.bic or ""), ("remittance", number)]
    return Payment(
        words.say("payment"),
        text,
        tuple(Fact(words.say(key), said) for key, said in facts if said) if seller.iban else (),
        code=bool(seller.iban) and document.currency == "EUR",
        scan=words.say("scan"),
    )


def spaced(iban: str) -> str:
    """An IBAN in groups of four, as it is printed (ISO 13616)."""
    compact = "".join(iban.split())
    return "\N{NO-BREAK SPACE}".join(compact[at : at + 4] for at in range(0, len(compact), 4))


def _footer(document: AnyDocument, words: Wording) -> tuple[tuple[str, ...], ...]:
    seller = document.seller
    country = str(words.locale.territories.get(seller.country, seller.country))
    town = _town(seller.postcode, seller.city, seller.country)
    columns = (
        (seller.name, *seller.address, town, country),
        (
            f"{words.say('vat-id')} {seller.vat_id}" if seller.vat_id else "",
            f"{words.say('tax-number')} {seller.tax_number}" if seller.tax_number else "",
            seller.register or "",
        ),
        (
            f"IBAN\N{NO-BREAK SPACE}{spaced(seller.iban)}" if seller.iban else "",
            f"BIC {seller.bic}" if seller.bic else "",
        ),
    )
    kept = (tuple(text for text in column if text) for column in columns)
    return tuple(column for column in kept if column)
