"""Page: all that is printed of an invoice, as texts in the reader's language. ``layout.py`` makes
it, ``layout.typ`` places it."""

from __future__ import annotations

from datetime import date

import msgspec


class Fact(msgspec.Struct, frozen=True):
    """A label and what it says."""

    label: str
    text: str


class Figure(msgspec.Struct, frozen=True):
    """A number, and the figures that it lacks at its end to stand point under point."""

    text: str = ""
    pad: str = ""


class Row(msgspec.Struct, frozen=True):
    """One line of the table. ``detail`` stands small below the item."""

    item: str
    amount: Figure
    detail: str = ""
    tokens: Figure = Figure()
    price: Figure = Figure()


class Group(msgspec.Struct, frozen=True):
    """Rows of one model; its title is said again where the table goes on on the next page."""

    title: str
    detail: str
    lines: tuple[Row, ...]


class SumRow(msgspec.Struct, frozen=True):
    """A row below the table. ``kind``: plain, quiet, total or due."""

    label: str
    amount: Figure
    kind: str = "plain"


class Payment(msgspec.Struct, frozen=True):
    """How to pay, or that nothing is to be paid. ``code`` asks for a payment code (EPC069-12)."""

    title: str
    text: str
    facts: tuple[Fact, ...] = ()
    code: bool = False
    scan: str = ""


class Page(msgspec.Struct, frozen=True):
    """All that is printed."""

    language: str
    title: str
    number: str
    issued: date
    seller: str
    seller_line: str
    contact: tuple[str, ...]
    recipient: tuple[str, ...]
    facts: tuple[Fact, ...]
    intro: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]
    empty: str
    sums: tuple[SumRow, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    payment: Payment
    footer: tuple[tuple[str, ...], ...]
    page: str
