"""Invoices on paper: all of it is there, in the reader's language, archivable, and never wrong."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from avocado.billing import pdf
from avocado.billing.einvoice import einvoice_xml
from avocado.billing.invoices import DocumentLine
from avocado.billing.layout import AnyDocument, lay_out
from avocado.billing.pdf import facturx_pdf, render_pdf, wished_pdf
from avocado.billing.wording import LANGUAGES
from avocado.errors import Refused
from tests.billing.papers import (
    BUYERS,
    FEE,
    NUMBER,
    REFUND,
    SELLER,
    any_invoice,
    credit_note,
    invoice,
    models,
    topup,
    usage,
)


def pages(made: bytes) -> list[str]:
    """The text of each page, with blanks of every width as one."""
    from pypdf import PdfReader

    return [" ".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(made)).pages]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_all_that_an_invoice_has_to(language: str) -> None:
    document = invoice(language, category="AE" if language in ("es", "fr") else "S")
    page = lay_out(document, NUMBER)
    (text,) = pages(render_pdf(document, NUMBER))
    squeezed = "".join(text.split())
    said = [
        *(fact.label + fact.text for fact in page.facts),
        *(row.label for row in page.sums),
        *page.notes,
        *page.remarks,
        *page.recipient,
        page.payment.text,
        *(fact.text for fact in page.payment.facts),
        *(text for column in page.footer for text in column),
    ]
    missing = [each for each in said if "".join(each.split()) not in squeezed]
    assert missing == []


@settings(max_examples=50, deadline=None)
@given(document=any_invoice())
def test_what_is_printed_adds_up_to_the_last_decimal(document: Any) -> None:
    document = replace(document, language="en", buyer=BUYERS["en"])
    page = lay_out(document, NUMBER)

    def value(text: str) -> Decimal:
        return Decimal(text.replace(",", "").replace("−", "-"))

    lines = sum(value(row.amount.text) for group in page.groups for row in group.lines)
    rows = {row.label: value(row.amount.text) for row in page.sums if row.kind != "due"}
    total, net = rows.pop("Usage"), rows.pop("Net amount")
    words = ("Less", "Given back", "Prepaid credit paid back", "Rounding")
    below = [amount for label, amount in rows.items() if label.startswith(words)]
    tax = [amount for label, amount in rows.items() if "VAT" in label]
    assert lines == total
    assert total + sum(below) == net
    assert net + sum(tax) == rows["Total"]


def test_the_sums_are_exact_and_stand_point_under_point() -> None:
    page = lay_out(invoice(), NUMBER)
    shown = {row.label: row.amount for row in page.sums}
    assert shown["Verbrauch"].text.count(",") == 1
    assert shown["abzüglich gewährtes Guthaben"].text == "−5,00"
    columns = [row.amount for group in page.groups for row in group.lines]
    columns += [row.amount for row in page.sums if row.kind != "due"]
    places = {len((each.text + each.pad).partition(",")[2]) for each in columns}
    assert places == {9}
    assert [row.kind for row in page.sums][-2:] == ["total", "due"]
    assert page.sums[-1].amount.text == "54,28\N{NO-BREAK SPACE}€"


def test_yen_have_no_decimals_and_still_line_up() -> None:
    page = lay_out(invoice("en", digits=0), NUMBER)
    cells = [row.amount for group in page.groups for row in group.lines]
    assert {len((each.text + each.pad).partition(".")[2]) for each in cells} == {9}
    assert page.sums[-1].amount.text.startswith("JP¥")


def test_sixty_lines_repeat_the_head_and_the_model_and_carry_nothing_wrong() -> None:
    document = invoice(lines=(*models(15), FEE, REFUND))
    made = pages(render_pdf(document, NUMBER))
    assert len(made) == 3
    heads = {f"avocado-{number}" for number in range(1, 16)}
    for number, text in enumerate(made, 1):
        assert f"Seite {number} von 3" in text
        if "-Tokens" in text:
            _, found, rows = text.partition("Leistung Tokens EUR je Mio. Betrag EUR")
            assert found, "the head of the table stands on each of its pages"
            assert rows.split()[0] in heads, "a page begins with the model that its lines are of"
    assert [text.count("Zu zahlen") for text in made] == [0, 0, 1]
    assert sum(text.count("-Tokens") for text in made) == 60


@pytest.mark.parametrize("count", range(6, 14))
def test_no_line_stands_under_a_model_that_is_not_its_own(count: int) -> None:
    """Wherever the page breaks, fees and refunds come after their own title."""
    document = invoice(lines=(*models(count), *[FEE] * 4, *[REFUND] * 4))
    for text in pages(render_pdf(document, NUMBER)):
        at = text.find("Grundgebühr pro")
        at = text.find("Erstattung: avocado-1") if at < 0 else at
        if at >= 0:
            head = text.rfind("Grundgebühren und Erstattungen", 0, at)
            assert head >= 0
            assert "Preisfassung" not in text[head:at]


def test_tokens_at_no_price_are_said_to_be_free() -> None:
    page = lay_out(invoice(lines=(usage("avocado-1", "prompt", 9, 0), FEE)), NUMBER)
    assert page.groups[0].lines[0].detail == "ohne Berechnung"


@pytest.mark.parametrize(
    ("language", "said"),
    [("de", "2.–31. Okt"), ("en", "2–31 Oct"), ("fr", "2–31 oct"), ("zh", "2026年10月2日至31日")],
)
def test_the_days_of_a_fee_are_in_the_language_of_the_page(language: str, said: str) -> None:
    fee = replace(FEE, text="2026-10-02 to 2026-10-31")
    (line,) = lay_out(invoice(language, lines=(fee,)), NUMBER).groups[0].lines
    assert line.detail.startswith(said)
    for other in ("2026-10-02 to 2026-13-31", "unused from 2026-10-02"):
        page = lay_out(invoice(language, lines=(replace(FEE, text=other),)), NUMBER)
        assert page.groups[0].lines[0].detail == other


def test_refunds_beyond_use_go_back_to_credit_and_the_page_says_so() -> None:
    labels = [
        row.label
        for row in lay_out(
            invoice(granted=-(10**9), prepaid=-(10**9), prepaid_before=0), NUMBER
        ).sums
    ]
    assert labels[1:3] == ["auf gewährtes Guthaben zurückgebucht", "auf das Guthaben zurückgebucht"]


def test_a_release_is_named_as_commands_name_it() -> None:
    line = replace(usage("avocado-1", "prompt", 9), release=f"release-{'0123456789abcdef' * 4}")
    (group,) = lay_out(invoice(lines=(line,)), NUMBER).groups
    assert group.detail.startswith("release-0123456789ab · ")
    named = lay_out(invoice(lines=(replace(line, release="release-1"),)), NUMBER).groups[0]
    assert named.detail.startswith("release-1 · ")


def test_credit_that_was_taken_after_it_was_used_is_owed_and_named() -> None:
    document = invoice(prepaid=-(94 * 10**9), prepaid_before=7 * 10**9, adjusted=-101 * 10**9)
    labels = [row.label for row in lay_out(document, NUMBER).sums]
    assert labels[2] == "zurückgezahltes Guthaben und Korrekturen"


def test_a_credit_note_and_a_topup() -> None:
    (note,) = pages(render_pdf(credit_note(), "AV-2026-CN-000007"))
    assert "Rechnungskorrektur AV-2026-CN-000007" in note
    assert f"Zur Rechnung {NUMBER}" in note
    assert "Grund: Outage of 12 October" in note
    assert "Korrekturbetrag 29,75 €" in note
    (paid,) = pages(render_pdf(topup(), NUMBER))
    assert "bereits bezahlt −119,00" in paid
    assert "Zu zahlen 0,00 €" in paid
    assert "Der Betrag ist bezahlt" in paid
    assert paid.count("Visa 4242") == 1


def test_a_credit_note_says_what_is_given_back_and_why_once() -> None:
    why = "Outage of 12 October"
    whole = DocumentLine("credit", "credit", 25 * 10**9, 2_500, text=why)
    page = lay_out(credit_note(lines=(whole,)), NUMBER)
    assert [(row.item, row.detail) for row in page.groups[0].lines] == [("Korrekturbetrag", "")]
    part = replace(usage("avocado-1", "completion", 9), kind="credit", minor=2_500, text=why)
    page = lay_out(credit_note(lines=(part,)), NUMBER)
    assert (page.groups[0].title, page.groups[0].lines[0].item) == ("avocado-1", "Ausgabe-Tokens")
    assert (page.columns[1], page.groups[0].lines[0].tokens.text) == ("", "")
    (text,) = pages(render_pdf(credit_note(lines=(part,)), NUMBER))
    assert text.count(why) == 1


def test_a_payment_code_is_there_where_euros_are_owed_by_transfer() -> None:
    from segno import helpers

    code = pdf._payment_code(invoice(), NUMBER)
    same = helpers.make_epc_qr(
        name=SELLER.name,
        iban="DE89370400440532013000",
        amount=54.28,
        text=NUMBER,
        bic=SELLER.bic,
        encoding="utf-8",
    )
    assert code == same.svg_inline(border=0, omitsize=True, dark="#1c211f")
    assert pdf._payment_code(invoice(currency="USD"), NUMBER) == ""
    assert pdf._payment_code(topup(), NUMBER) == ""
    assert pdf._payment_code(credit_note(), NUMBER) == ""


def archived(made: bytes) -> tuple[Any, str]:
    """The catalog and its metadata, after what PDF/A wants of any file."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(made))
    catalog: Any = reader.trailer["/Root"]
    assert "/ID" in reader.trailer
    assert "/Encrypt" not in reader.trailer
    assert catalog["/OutputIntents"][0]["/S"] == "/GTS_PDFA1"
    assert catalog["/MarkInfo"]["/Marked"]
    assert catalog["/Lang"] == "de"
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():  # type: ignore[index]
            (inner,) = font["/DescendantFonts"]
            kinds = set(inner["/FontDescriptor"])
            assert kinds & {"/FontFile2", "/FontFile3"}, "a font is not embedded"
            assert "/ToUnicode" in font
    return catalog, catalog["/Metadata"].get_data().decode()


def test_paper_is_pdf_a_and_the_same_each_time() -> None:
    made = render_pdf(invoice(), NUMBER)
    _, metadata = archived(made)
    assert "<pdfaid:part>3</pdfaid:part>" in metadata
    assert "<pdfaid:conformance>A</pdfaid:conformance>" in metadata
    assert made == render_pdf(invoice(), NUMBER)


@pytest.mark.parametrize("document", [invoice(), credit_note(), topup()], ids=lambda d: d.issued)
def test_factur_x_holds_the_e_invoice(document: Any) -> None:
    from facturx import get_facturx_xml_from_pdf  # type: ignore[import-untyped]

    made = facturx_pdf(document, NUMBER)
    name, xml = get_facturx_xml_from_pdf(made)
    assert (name, xml) == ("factur-x.xml", einvoice_xml(document, NUMBER))
    catalog, metadata = archived(made)
    assert "<pdfaid:part>3</pdfaid:part>" in metadata
    assert "<fx:ConformanceLevel>EN 16931</fx:ConformanceLevel>" in metadata
    (attached,) = catalog["/AF"]
    assert attached["/AFRelationship"] == "/Alternative"
    assert pages(made) == pages(render_pdf(document, NUMBER))


def test_the_wished_paper_is_factur_x_where_that_can_be() -> None:
    wish = replace(BUYERS["de"], e_invoice="factur-x")
    assert b"/EmbeddedFile" in wished_pdf(invoice(buyer=wish), NUMBER)
    stateless = invoice(buyer=replace(wish, country=""))
    assert wished_pdf(stateless, NUMBER) == render_pdf(stateless, NUMBER)
    assert wished_pdf(invoice(), NUMBER) == render_pdf(invoice(), NUMBER)


def test_many_threads_print_at_once() -> None:
    documents: list[AnyDocument] = [invoice("de"), invoice("en"), credit_note(), topup()]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda each: einvoice_xml(each, NUMBER), documents * 3))
        papers = list(pool.map(lambda each: render_pdf(each, NUMBER), documents))
    assert made == [einvoice_xml(each, NUMBER) for each in documents] * 3
    assert papers == [render_pdf(each, NUMBER) for each in documents]


@pytest.fixture
def latin_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no font but Source Sans."""
    from importlib.util import find_spec

    from typst import Fonts

    found = find_spec("fontpkg_source_sans_3")
    assert found is not None
    assert found.submodule_search_locations
    fonts = Fonts(False, False, [f"{found.submodule_search_locations[0]}/files"])
    monkeypatch.setattr(pdf, "_fonts", lambda: fonts)


@pytest.mark.usefixtures("latin_only")
def test_signs_that_no_font_has_become_question_marks() -> None:
    odd = replace(BUYERS["de"], name='ไทย \N{GRINNING FACE} "\\ \u0007 عرب \U0010ffff GmbH')
    (text,) = pages(render_pdf(invoice(buyer=odd), NUMBER))
    assert '??? ? "\\' in text
    assert "GmbH" in text


@pytest.mark.usefixtures("latin_only")
@pytest.mark.parametrize("document", [invoice("zh"), invoice(buyer=BUYERS["zh"])])
def test_chinese_without_a_font_is_refused_and_says_what_to_install(document: Any) -> None:
    with pytest.raises(Refused, match="fonts-noto-cjk"):
        render_pdf(document, NUMBER)


def test_a_name_is_never_read_as_markup() -> None:
    odd = '#panic("x") *bold* _it_ $x$ @ref <label> // \\ `raw` [a](b) = H'
    (text,) = pages(render_pdf(invoice(buyer=replace(BUYERS["de"], name=odd)), NUMBER))
    assert odd in text


@settings(max_examples=25, deadline=None)
@given(document=any_invoice(), name=st.text(max_size=40))
@example(document=invoice(), name="\ufe68\U00013a01\ufe2a\U000e125a\u22e2\u16c9\u05d0\u0e44")
@example(document=invoice(), name="\U0002ebf0 \u3164 \u200d\ufe0f \U0001f468\u200d\U0001f469\u0301")
def test_any_invoice_with_any_name_is_printed(document: Any, name: str) -> None:
    """Where no font has common letters of China, Japan or Korea it is refused, and says so."""
    document = replace(document, buyer=replace(document.buyer, name=name))
    assert made_or_refused(document).startswith(("%PDF-1.7", "this document needs"))


def made_or_refused(document: Any) -> str:
    try:
        return render_pdf(document, NUMBER)[:8].decode()
    except Refused as refused:
        return str(refused)
