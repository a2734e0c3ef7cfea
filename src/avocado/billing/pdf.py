"""PDF: documents as archivable paper for every reader (PDF/A-3a and PDF/UA-1), and as Factur-X.

Typst sets the page of ``layout.py`` by ``layout.typ``; fonts are embedded as subsets. Latin, Greek
and Cyrillic letters are Source Sans 3, from PyPI; Chinese, Japanese and Korean ones Noto Sans, from
PyPI or the system; any other script comes from the system's fonts. A sign that no font has is
printed as ``?``, except where the reader would miss the customer's name: those are refused.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import cache
from importlib import resources, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from avocado.billing.invoices import InvoiceDocument
from avocado.billing.layout import AnyDocument, lay_out
from avocado.billing.layout_page import Page
from avocado.errors import Refused

if TYPE_CHECKING:
    from typst import Fonts, TypstError

_PACKAGES: Final = {"fontpkg_source_sans_3": "files", "pylopdf_fonts_zh_cn": ""}
"""Packages that carry fonts, and the folder in each."""
_FAMILIES: Final = (
    "Source Sans 3",
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Noto Sans",
    "DejaVu Sans",
)
_EAST_ASIAN: Final = (range(0x3041, 0x3100), range(0x4E00, 0x9FA6), range(0xAC00, 0xD7A4))
"""Kana, the Chinese characters of Unicode 1.1 and Hangul: every font for these languages has its
own of them; rarer characters may be in none."""
_MISSING: Final = "could not be displayed"
"""How Typst says that no font has a sign."""
_ESCAPE: Final = re.compile(r"\\u\{([0-9a-f]+)\}|\\(.)")
"""How Rust writes a sign that is not printable, and a quotation mark, in a text."""


def render_pdf(document: AnyDocument, number: str) -> bytes:
    """The document as PDF/A-3a and PDF/UA-1. ``number`` is as it is written: ``AV-2026-000123``.

    The same document gives the same bytes, as long as fonts and Typst stay the same.

    Raises:
        Refused: a package is missing, or the page needs Chinese, Japanese or Korean letters and no
            font here has them.
    """
    return set_page(lay_out(document, number), _payment_code(document, number))


def facturx_pdf(document: AnyDocument, number: str) -> bytes:
    """The document as Factur-X / ZUGFeRD 2: PDF/A-3 with its EN 16931 XML embedded.

    Raises:
        Refused: as :func:`render_pdf` and :func:`avocado.billing.einvoice.einvoice_xml`.
    """
    from avocado.billing.einvoice import einvoice_xml

    xml = einvoice_xml(document, number)
    page = lay_out(document, number)
    printed = set_page(page, _payment_code(document, number))
    from facturx import generate_from_binary  # type: ignore[import-untyped]

    made: bytes = generate_from_binary(
        printed,
        xml,
        flavor="factur-x",
        level="en16931",
        check_xsd=False,
        pdf_metadata={
            "author": page.seller,
            "title": f"{page.title} {number}",
            "subject": f"{page.title} {number}",
            "keywords": "Factur-X, EN 16931",
        },
        lang=page.language,
        afrelationship="alternative",
    )
    return made


def wished_pdf(document: AnyDocument, number: str) -> bytes:
    """The PDF that the buyer wished: Factur-X where all is known that an e-invoice has to say, and
    else plain, which is an invoice too.

    Raises:
        Refused: as :func:`render_pdf`.
    """
    if document.buyer.e_invoice == "factur-x":
        try:
            return facturx_pdf(document, number)
        except Refused:
            pass  # whatever keeps the paper from being printed is said again below
    return render_pdf(document, number)


def set_page(page: Page, code: str = "") -> bytes:
    """A page as PDF. ``code`` is a payment code as SVG.

    Raises:
        Refused: see :func:`render_pdf`.
    """
    try:
        import typst
    except ModuleNotFoundError as error:
        raise Refused("PDFs need Typst: pip install 'avocado-llm[billing]'") from error
    texts = _printable(msgspec.to_builtins(page))
    while True:
        view = {**texts, "fonts": _FAMILIES, "code": code}
        try:
            return typst.compile(
                _template(),
                font_paths=_fonts(),
                sys_inputs={"view": msgspec.json.encode(view).decode()},
                pdf_standards=["a-3a", "ua-1"],
                timestamp=_midnight(page),
            )
        except typst.TypstError as error:
            texts = _without(texts, _missing(error))


def _midnight(page: Page) -> int:
    """The start of the day of issue, UTC, in seconds: a PDF says when it was made."""
    from avocado.billing.dates import start_of

    return start_of(page.issued) // 1_000_000_000


@cache
def _template() -> bytes:
    return resources.files("avocado.billing").joinpath("layout.typ").read_bytes()


@cache
def _fonts() -> Fonts:
    from typst import Fonts

    folders: list[Any] = []
    for package, folder in _PACKAGES.items():
        found = util.find_spec(package)
        for place in (found.submodule_search_locations or ()) if found else ():
            folders.append(Path(place, folder))
    return Fonts(include_system_fonts=True, include_embedded_fonts=False, font_paths=folders)


def _missing(error: TypstError) -> str:
    """The signs that no font has, by Typst's word.

    Raises:
        Refused: they are Chinese, Japanese or Korean.
        TypstError: it is another error.
    """
    if _MISSING not in error.message or '`"' not in error.message:
        raise error
    quoted = error.message.split('`"', 1)[1].split('"`', 1)[0]
    signs = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], quoted)
    if any(ord(sign) in block for sign in signs for block in _EAST_ASIAN):
        raise Refused(
            f"this document needs {signs!r}, and no font here has it: pip install "
            "'avocado-llm[chinese]' for Chinese, or install your system's Noto Sans CJK fonts "
            "(fonts-noto-cjk on Debian and Ubuntu) for Chinese, Japanese and Korean"
        ) from error
    return signs


def _without(texts: Any, signs: str) -> Any:
    """The texts without these signs, or, where that changes nothing, without marks and joiners:
    Typst names the letter before a mark that its font cannot set on it.

    Raises:
        Refused: that changes nothing either.
    """
    table = {ord(sign): "?" for sign in signs}
    for change in (lambda text: text.translate(table), _unmarked):
        changed = _each(texts, change)
        if changed != texts:
            return changed
    raise Refused(f"no font here can print {signs!r}, which this document needs")


def _unmarked(text: str) -> str:
    return "".join(sign for sign in text if unicodedata.category(sign) not in ("Mn", "Me", "Cf"))


def _printable(texts: Any) -> Any:
    """Control characters, which no paper shows, become blanks."""
    return _each(
        texts,
        lambda text: "".join(
            " " if unicodedata.category(sign) in ("Cc", "Cs", "Co", "Cn") else sign for sign in text
        ),
    )


def _each(value: Any, change: Any) -> Any:
    """``value``, with each text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_each(each, change) for each in value]
    return value


def _payment_code(document: AnyDocument, number: str) -> str:
    """The European Payments Council's QR code (EPC069-12) as SVG; "" where nothing is to be paid
    in euros by transfer."""
    if not isinstance(document, InvoiceDocument) or document.currency != "EUR":
        return ""
    seller, due = document.seller, document.due_minor
    if not seller.iban or not 0 < due < 100_000_000_000:
        return ""
    try:
        from segno import helpers
    except ModuleNotFoundError as error:
        raise Refused("payment codes need segno: pip install 'avocado-llm[billing]'") from error
    code = helpers.make_epc_qr(
        name=seller.name[:70],
        iban="".join(seller.iban.split()),
        amount=Decimal(due) / 100,
        text=number[:140],
        bic=seller.bic or None,
        encoding="utf-8",
    )
    svg: str = code.svg_inline(border=0, omitsize=True, dark="#1c211f")
    return svg
