"""Invoices and credit notes that nobody owes, for the tests of PDF and e-invoice."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from avocado.billing.invoices import (
    Buyer,
    CreditNoteDocument,
    DocumentLine,
    InvoiceDocument,
    Seller,
    TaxSum,
)
from avocado.billing.rounding import nearest, spread
from avocado.billing.tax import tax_on
from avocado.terms.price import KINDS, PriceSheet

NUMBER = "AV-2026-000123"
SELLER = Seller(
    "Lindenhof Sprachmodelle GmbH",
    ("Torstraße 140",),
    "10119",
    "Berlin",
    "DE",
    vat_id="DE136695976",
    tax_number="37/123/45678",
    email="rechnung@lindenhof.example",
    phone="+49 30 5557 4420",
    iban="DE89 3704 0044 0532 0130 00",
    bic="COBADEFFXXX",
    register="Amtsgericht Berlin HRB 12345",
)
BUYERS = {
    "de": Buyer(
        "acme",
        "Müller & Söhne Maschinenbau GmbH",
        "Frau Katharina Groß",
        ("Industriestraße 7", "Gebäude C"),
        "70565",
        "Stuttgart",
        country="DE",
        vat_id="DE129273398",
        email="rechnungen@mueller.example",
        reference="PO-2026-0815",
    ),
    "en": Buyer("north", "Northwind Ltd", "", ("1 Main Road",), "EC2M 2PF", "London", country="GB"),
    "es": Buyer("olivar", "Olivar Digital, S.L.", country="ES", vat_id="ESB12345674"),
    "fr": Buyer("petit", "Société d’Édition & Cie", country="FR", vat_id="FR40303265045"),
    "zh": Buyer("huaxia", "上海华夏智能科技有限公司", city="上海", country="CN"),
}
SHEET = PriceSheet(200_000_000, 800_000_000, cached=50_000_000)
TAXES = {
    "S": TaxSum(190_000, "S", 0, 0, "standard", "DE"),
    "Z": TaxSum(0, "Z", 0, 0, "standard", "DE"),
    "E": TaxSum(0, "E", 0, 0, "exempt", "DE", note="§ 19 UStG"),
    "AE": TaxSum(0, "AE", 0, 0, "reverse-charge", "FR"),
    "O": TaxSum(0, "O", 0, 0, "export", "CN"),
}


def usage(offer: str, kind: str, tokens: int, price: int | None = None) -> DocumentLine:
    """Tokens at the sheet's price, or at one of their own; the charge is rounded up."""
    paid = SHEET.price_of(kind) if price is None else price
    return DocumentLine(
        f"line-{offer}-{kind}",
        "usage",
        -(-tokens * paid // 1_000_000),
        0,
        offer=offer,
        release="release-3f9a2c7d11e0",
        price_version=SHEET.version,
        token_kind=kind,
        requests=3,
        tokens=tokens,
        price=paid,
    )


FEE = DocumentLine("line-fee", "fee", 49_000_000_000, 0, item="plan:pro@3")
REFUND = DocumentLine(
    "line-refund", "refund", -1_234_567_891, 0, offer="avocado-1", text="Outage of 12 October"
)


def models(count: int) -> tuple[DocumentLine, ...]:
    """Four lines for each of ``count`` models."""
    return tuple(
        usage(f"avocado-{number}", kind, 12_345_678 * number + 89 * at)
        for number in range(1, count + 1)
        for at, kind in enumerate(KINDS)
    )


def invoice(
    language: str = "de",
    lines: tuple[DocumentLine, ...] = (*models(1), FEE, REFUND),
    category: str = "S",
    granted: int = 5_000_000_000,
    prepaid: int | None = 20_000_000_000,
    carried: int = 3_456_789,
    digits: int = 2,
    **given: Any,
) -> InvoiceDocument:
    """A month's invoice whose sums follow from its lines. ``prepaid`` None pays all of it."""
    unit = 10 ** (9 - digits)
    total = sum(line.nanos for line in lines)
    if prepaid is None:
        prepaid, carried = total - granted, 0
    on_credit = total - granted - prepaid
    net, rest = nearest(on_credit + carried, unit)
    coins = spread([line.nanos for line in lines] + [-granted, -prepaid], net, unit)
    tax = _taxed(category, net)
    facts: dict[str, Any] = {
        "type": "usage",
        "series": "AV-2026",
        "seller": SELLER,
        "buyer": BUYERS[language],
        "language": language,
        "currency": "EUR" if digits else "JPY",
        "digits": digits,
        "issued": "2026-11-01",
        "due": "2026-11-15",
        "due_days": 14,
        "period_start": "2026-10-01",
        "period_end": "2026-10-31",
        "after_seq": 10,
        "until_seq": 2_000,
        "lines": tuple(replace(line, minor=coin) for line, coin in zip(lines, coins, strict=False)),
        "total_nanos": total,
        "granted_nanos": granted,
        "prepaid_nanos": prepaid,
        "on_credit_nanos": on_credit,
        "granted_minor": -coins[-2],
        "prepaid_minor": -coins[-1],
        "carried_in": carried,
        "carried_out": rest,
        "net_minor": net,
        "taxes": (tax,),
        "gross_minor": net + tax.amount_minor,
        "due_minor": net + tax.amount_minor,
        "prepaid_before": prepaid,
    }
    return InvoiceDocument(**{**facts, **given})


def topup(net: int = 10_000, category: str = "S", **given: Any) -> InvoiceDocument:
    """Prepaid credit, paid by card."""
    line = DocumentLine("topup", "top-up", net * 10**7, 0, item="deposit-1", text="Visa 4242")
    paid = _taxed(category, net)
    return invoice(
        lines=(line,),
        category=category,
        granted=0,
        prepaid=0,
        carried=0,
        type="top-up",
        period_start="2026-10-31",
        paid_minor=net + paid.amount_minor,
        due_minor=0,
        reference="Visa 4242",
        **given,
    )


def credit_note(
    language: str = "de", net: int = 2_500, category: str = "S", **given: Any
) -> CreditNoteDocument:
    """Part of an invoice, given back."""
    tax = _taxed(category, net)
    line = DocumentLine(
        "credit", "credit", net * 10**7, net, offer="avocado-1", text="Goodwill, as agreed"
    )
    note = CreditNoteDocument(
        series="AV-2026-CN",
        invoice="invoice/acme/2026-10",
        invoice_number=NUMBER,
        invoice_issued="2026-11-01",
        seller=SELLER,
        buyer=BUYERS[language],
        language=language,
        currency="EUR",
        digits=2,
        issued="2026-11-20",
        reason="Outage of 12 October",
        lines=(line,),
        net_minor=net,
        taxes=(tax,),
        gross_minor=net + tax.amount_minor,
    )
    return replace(note, **given)


def _taxed(category: str, net: int) -> TaxSum:
    tax = TAXES[category]
    return replace(tax, base_minor=net, amount_minor=tax_on(net, tax.rate))


@st.composite
def any_invoice(draw: st.DrawFn) -> InvoiceDocument:
    """An invoice of any lines, credits, taxes and remainder, in euros or yen."""
    tokens = st.integers(0, 10**11)
    line = st.one_of(
        st.builds(
            usage,
            st.sampled_from(["avocado-1", "avocado-2"]),
            st.sampled_from(KINDS),
            tokens,
            st.one_of(st.none(), st.integers(0, 10**12)),
        ),
        st.integers(0, 10**12).map(lambda nanos: replace(FEE, nanos=nanos)),
        st.integers(-(10**11), -1).map(lambda nanos: replace(REFUND, nanos=nanos)),
    )
    lines = tuple(draw(st.lists(line, min_size=1, max_size=8)))
    total = sum(each.nanos for each in lines)
    granted = draw(st.integers(min(total, -(10**9)), max(total, 0)))
    prepaid = draw(st.integers(min(total - granted, -(10**9)), max(total - granted, 0)))
    digits = draw(st.sampled_from([2, 2, 0]))
    unit = 10 ** (9 - digits)
    category = draw(st.sampled_from(sorted(TAXES)))
    return invoice(
        "fr" if category == "AE" else draw(st.sampled_from(sorted(BUYERS))),
        lines,
        category,
        granted,
        min(prepaid, total - granted),
        draw(st.integers(-unit // 2, unit // 2 - 1)),
        digits,
    )
