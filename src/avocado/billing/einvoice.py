"""E-invoice: documents as EN 16931 XML, syntax UN/CEFACT CII, the profile of Factur-X "EN 16931".

The model is the standard's own: a dict by business term (BT-1, BG-25, …), which the ``factur-x``
library turns into XML and checks by the XSD. All amounts are the document's ``*_minor``, which
already add up, so nothing is rounded here:

- BT-131 of a line is its part of what is written on paper. Usage says how many tokens (BT-129) at
  which price (BT-146) for a million (BT-149); the rest has quantity 1, or −1 in a refund.
- Granted credit, and prepaid credit, which was invoiced and taxed when bought, are allowances of
  the document (BG-20), so that the tax base (BT-116) is what is taxed now. Where refunds gave more
  of it back than was used, the difference is a charge (BG-21).
- A credit note is type 381 with positive amounts, and names its invoice (BG-3).

The rules BR-… are EN 16931-1's; the tests hold them by the official Schematron.
"""

from __future__ import annotations

import unicodedata
from datetime import date
from decimal import Decimal
from threading import Lock
from typing import Any, Final

from avocado.billing.invoices import (
    Buyer,
    CreditNoteDocument,
    DocumentLine,
    InvoiceDocument,
    Seller,
    TaxSum,
)
from avocado.billing.layout import AnyDocument, item_of, payment_of, prepaid_key, tax_notes, text_of
from avocado.billing.wording import Wording, decimals
from avocado.errors import Refused
from avocado.terms.money import NANO

LEVEL: Final = "en16931"
INVOICE_TYPE: Final = "380"
CREDIT_NOTE_TYPE: Final = "381"
"""UNTDID 1001."""
_UNIT: Final = "C62"
"""UN/ECE Recommendation 20: one, a unit. There is no code for a token."""
_MILLION: Final = "1000000"
_SEPA: Final = "58"
_TRANSFER: Final = "30"
"""UNTDID 4461: SEPA credit transfer, any credit transfer."""
_DISCOUNT: Final = "95"
"""UNTDID 5189: discount."""
_ALONE: Final = Lock()
_REASON_CODES: Final = {"AE": "VATEX-EU-AE", "O": "VATEX-EU-O"}
"""CEF's VATEX list."""


def einvoice_xml(document: AnyDocument, number: str) -> bytes:
    """The document as CII XML, valid by the XSD. ``number`` is how its number is written.

    Raises:
        Refused: seller or buyer lack what EN 16931 demands, taxes have more than one rate, or the
            ``factur-x`` package is missing.
    """
    try:
        from facturx import generate_cii_xml  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise Refused("e-invoices need factur-x: pip install 'avocado-llm[billing]'") from error
    model = describe(document, number)
    with _ALONE:  # factur-x 7.8 changes lists of its own while it works
        xml: bytes = generate_cii_xml(model, level=LEVEL, check_xsd=True, check_schematron=None)
    return xml


def describe(document: AnyDocument, number: str) -> dict[str, Any]:
    """The document by EN 16931's business terms.

    Raises:
        Refused: see :func:`einvoice_xml`.
    """
    tax = _tax_of(document)
    _check(document, tax)
    words = Wording(document.language, document.buyer.country)
    note = isinstance(document, CreditNoteDocument)
    reason = document.reason if isinstance(document, CreditNoteDocument) else ""
    model: dict[str, Any] = {
        "BT-1": number,
        "BT-2": date.fromisoformat(document.issued),
        "BT-3": CREDIT_NOTE_TYPE if note else INVOICE_TYPE,
        "BT-5": document.currency,
        "BT-10": document.buyer.reference,
        "BG-1": [{"BT-22": text} for text in (*document.notes, reason) if text],
        "BG-4": _seller(document.seller, tax),
        "BG-7": _buyer(document.buyer, tax),
        "BG-23": [_breakdown(document, tax, words)],
        "BG-25": [
            _line(document, line, at, tax, words) for at, line in enumerate(_lines(document), 1)
        ],
        **_sums(document),
        **_allowances(document, tax, words),
        **_payment(document, number, words),
    }
    if isinstance(document, CreditNoteDocument):
        issued = date.fromisoformat(document.invoice_issued)
        model["BG-3"] = [{"BT-25": document.invoice_number, "BT-26": issued}]
        # Something has to stand under the delivery: where it went, as no day is its own.
        model["BG-13"] = {"name": model["BG-7"]["name"], "country_code": document.buyer.country}
    else:
        model["BT-72"] = date.fromisoformat(document.period_end)
        model["BT-73"] = date.fromisoformat(document.period_start)
        model["BT-74"] = date.fromisoformat(document.period_end)
    cleaned: dict[str, Any] = _cleaned(model)
    return cleaned


def _tax_of(document: AnyDocument) -> TaxSum:
    """The one rate of the document; one with no tax at all is outside the scope of VAT.

    Raises:
        Refused: there are several: no line says which of them is its own.
    """
    if not document.taxes:
        return TaxSum(0, "O", document.net_minor, 0, "none")
    if len(document.taxes) > 1:
        raise Refused(
            "this document has taxes at several rates, which its lines do not tell apart: "
            "it can be had as PDF, and not as an e-invoice"
        )
    return document.taxes[0]


def _check(document: AnyDocument, tax: TaxSum) -> None:
    seller, buyer = document.seller, document.buyer
    wrong = []
    if document.digits > 2:
        wrong.append(
            f"an e-invoice has amounts of two decimals at most (BR-DEC), and {document.currency} "
            f"has {document.digits}"
        )
    if not buyer.country:
        wrong.append(
            f"an e-invoice has to say the customer's country (BT-55), and this one was "
            f"issued without: the PDF can be had; for the next, avocado profile set {buyer.tenant} "
            "--country"
        )
    if not (seller.vat_id or seller.tax_number or seller.register):
        wrong.append(
            "an e-invoice needs the seller's vat_id, tax_number or register (BR-CO-26): write one "
            "into [seller] of avocado.toml"
        )
    if tax.category in ("S", "Z", "E", "AE") and not (seller.vat_id or seller.tax_number):
        wrong.append(
            "an e-invoice with VAT, or exempt from it, needs the seller's vat_id or tax_number "
            f"(BR-{tax.category}-02): write one into [seller] of avocado.toml"
        )
    if tax.category == "AE" and not buyer.vat_id:
        wrong.append(
            f"reverse charge needs the customer's VAT id (BR-AE-02), and this one was "
            f"issued without: the PDF can be had; for the next, avocado profile set {buyer.tenant} "
            "--vat-id"
        )
    if wrong:
        raise Refused(*wrong)


def _seller(seller: Seller, tax: TaxSum) -> dict[str, Any]:
    outside = tax.category == "O"  # BR-O-02: then no VAT id may stand there
    identified = seller.vat_id and not outside
    spare = seller.tax_number or seller.vat_id
    contact = {"name": seller.name, "phone": seller.phone, "email": seller.email}
    return {
        "name": seller.name,
        "identifiers": {} if identified or seller.register or not spare else {None: spare},
        "legal_identifier": seller.register,
        "vat_identifier": seller.vat_id if identified else None,
        "tax_identifier": seller.tax_number,
        "contacts": [contact] if seller.phone or seller.email else [],
        "country_code": seller.country,
        **_address(seller.address, seller.postcode, seller.city),
        **_mailbox(seller.email),
    }


def _buyer(buyer: Buyer, tax: TaxSum) -> dict[str, Any]:
    contact = {"name": buyer.contact, "email": buyer.email}
    return {
        "name": buyer.name or buyer.tenant,
        "identifiers": {None: buyer.tenant},
        "vat_identifier": None if tax.category == "O" else buyer.vat_id,
        "contacts": [contact] if buyer.contact or buyer.email else [],
        "country_code": buyer.country,
        "country_subdivision": buyer.region,
        **_address(buyer.address, buyer.postcode, buyer.city),
        **_mailbox(buyer.email),
    }


def _address(lines: tuple[str, ...], postcode: str, city: str) -> dict[str, str]:
    """BT-35, BT-36, BT-162: three lines, of which the last takes all that is left."""
    first, second, rest = (*lines, "", "", "")[0], (*lines, "", "")[1], lines[2:]
    return {
        "addr_l1": first,
        "addr_l2": second,
        "addr_l3": ", ".join(rest),
        "postcode": postcode,
        "city": city,
    }


def _mailbox(email: str | None) -> dict[str, str]:
    """BT-34, BT-49: the electronic address; EM is e-mail in CEF's list of schemes."""
    return {"einvoicing_addr": email, "einvoicing_addr_schemeid": "EM"} if email else {}


def _amount(minor: int, digits: int) -> str:
    """Smallest coins as a decimal: ``-12.30``."""
    sign, coins = ("-" if minor < 0 else ""), abs(minor)
    return f"{sign}{coins // 10**digits}.{coins % 10**digits:0{digits}d}" if digits else str(minor)


def _rate(tax: TaxSum) -> str | None:
    """BT-119, BT-152, in per cent; none where VAT does not apply (BR-O-05)."""
    if tax.category == "O":
        return None
    return f"{Decimal(tax.rate) / 10_000:f}"


def _breakdown(document: AnyDocument, tax: TaxSum, words: Wording) -> dict[str, Any]:
    why = None
    if tax.category in ("AE", "E", "O"):
        said = tax_notes(document, words)
        why = said[0] if said else words.say("outside-scope")
    return {
        "BT-116": _amount(document.net_minor, document.digits),
        "BT-117": _amount(tax.amount_minor, document.digits),
        "BT-118": tax.category,
        "BT-119": _rate(tax),
        "BT-120": why,
        "BT-121": _REASON_CODES.get(tax.category),
    }


def _lines(document: AnyDocument) -> tuple[DocumentLine, ...]:
    """The lines; one where there are none (BR-16), as when a remainder alone came to a coin."""
    if document.lines:
        return document.lines
    owed = document.net_minor
    if isinstance(document, InvoiceDocument):
        owed += document.granted_minor + document.prepaid_minor
    words = Wording(document.language, document.buyer.country)
    return (DocumentLine("rest", "fee", 0, owed, text=words.say("carried-in")),)


def _line(
    document: AnyDocument, line: DocumentLine, at: int, tax: TaxSum, words: Wording
) -> dict[str, Any]:
    counted = bool(line.token_kind) and line.kind == "usage"
    price = line.price if counted else abs(line.minor) * 10 ** (9 - document.digits)
    quantity = line.tokens if counted else (-1 if line.minor < 0 else 1)
    item = item_of(line, words)
    named = (("release", line.release), ("price version", line.price_version), ("line", line.id))
    return {
        "BT-126": str(at),
        "BT-129": str(quantity),
        "BT-130": _UNIT,
        "BT-131": _amount(line.minor, document.digits),
        "BT-146": _decimal(price, document.digits),
        "BT-149": _MILLION if counted else None,
        "BT-151": tax.category,
        "BT-152": _rate(tax),
        "BT-153": f"{line.offer}: {item}" if line.offer and line.token_kind else item,
        "BT-154": text_of(line, words),
        "BG-32": [{"BT-160": name, "BT-161": text} for name, text in named if text],
    }


def _decimal(nanos: int, digits: int) -> str:
    """An exact amount that is not negative, with ``digits`` decimals or as many as it needs."""
    return f"{Decimal(nanos) / NANO:.{max(digits, decimals(nanos))}f}"


def _allowances(document: AnyDocument, tax: TaxSum, words: Wording) -> dict[str, Any]:
    """Granted and prepaid credit, with the sums of both sides (BT-107, BT-108)."""
    if isinstance(document, CreditNoteDocument):
        return {}
    below: list[dict[str, Any]] = []
    above: list[dict[str, Any]] = []
    granted, prepaid = document.granted_minor, document.prepaid_minor
    for key, minor in (
        ("less-granted" if granted >= 0 else "back-to-granted", granted),
        (prepaid_key(document), prepaid),
    ):
        if minor:
            (below if minor > 0 else above).append(
                {
                    "amount": _amount(abs(minor), document.digits),
                    "reason": words.say(key),
                    "reason_code": _DISCOUNT if key == "less-granted" and minor > 0 else None,
                    "vat_category_code": tax.category,
                    "vat_rate": _rate(tax),
                }
            )
    taken = max(document.granted_minor, 0) + max(document.prepaid_minor, 0)
    added = -min(document.granted_minor, 0) - min(document.prepaid_minor, 0)
    return {
        "BG-20": below,
        "BG-21": above,
        "BT-107": _amount(taken, document.digits) if below else None,
        "BT-108": _amount(added, document.digits) if above else None,
    }


def _sums(document: AnyDocument) -> dict[str, str]:
    """BG-22. BR-CO-13: BT-106 − BT-107 + BT-108 = BT-109; BR-CO-15, BR-CO-16 follow."""
    invoice = document if isinstance(document, InvoiceDocument) else None
    sums = {
        "BT-106": sum(line.minor for line in _lines(document)),
        "BT-109": document.net_minor,
        "BT-110": sum(tax.amount_minor for tax in document.taxes),
        "BT-112": document.gross_minor,
        "BT-113": invoice.paid_minor if invoice else 0,
        "BT-115": invoice.due_minor if invoice else document.gross_minor,
    }
    return {term: _amount(minor, document.digits) for term, minor in sums.items()}


def _payment(document: AnyDocument, number: str, words: Wording) -> dict[str, Any]:
    """When and where to pay (BG-16, BG-17); of a credit note, that it counts against its invoice.

    BR-CO-25: where something is due, BT-9 or BT-20 says when.
    """
    seller = document.seller
    text = payment_of(document, number, words).text
    if isinstance(document, CreditNoteDocument) or document.due_minor <= 0:
        return {"BT-20": text}
    terms: dict[str, Any] = {"BT-9": date.fromisoformat(document.due), "BT-20": text}
    if seller.iban:
        terms |= {
            "BT-81": _SEPA if document.currency == "EUR" else _TRANSFER,
            "BT-83": number,
            "BT-84": "".join(seller.iban.split()),
            "BT-85": seller.name,
            "BT-86": seller.bic,
        }
    return terms


def _cleaned(value: Any) -> Any:
    """Without what XML 1.0 cannot hold: control characters, surrogates and non-characters."""
    if isinstance(value, str):
        return "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Cn") else c for c in value)
    if isinstance(value, dict):
        return {key: _cleaned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    return value
