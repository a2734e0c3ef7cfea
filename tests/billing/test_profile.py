"""Profiles are checked and keep their history; coins and tables for accountants add up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from avocado.billing.accounting import COLUMNS, percent, rows, safe, write_csv
from avocado.billing.countries import COUNTRIES, checked_country
from avocado.billing.invoices import credit_note_from, invoice_from, shown_number
from avocado.billing.issuer import Issuer
from avocado.billing.profile import Profile, change_profile, checked, profile_of
from avocado.billing.rounding import decimal, nearest, spread
from avocado.billing.tax import NoTaxes
from avocado.errors import Refused
from avocado.ledger.errors import UnknownCustomer
from tests.billing.shop import SELLER, Shop, table
from tests.billing.test_closing import settle_in, spend

EURO = 10**9


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path / "book.db", taxes=table()) as shop:
        yield shop


def test_a_profile_is_checked_and_keeps_its_history(shop: Shop) -> None:
    shop.open()
    changes = {"country": "at", "vat_id": "U13585627", "email": "a@b.example"}
    after = change_profile(shop.reader, shop.do, "acme", changes, "test")
    assert (after.country, after.vat_id) == ("AT", "ATU13585627")
    head = shop.reader.head()
    assert change_profile(shop.reader, shop.do, "acme", changes, "test") == after
    assert shop.reader.head() == head
    change_profile(shop.reader, shop.do, "acme", {"city": "Wien 北京"}, "test")
    assert profile_of(shop.reader, "acme").city == "Wien 北京"
    assert len(shop.reader.document_history("profile/acme")) == 2
    wrong = {"country": "Austria", "email": "none", "city": "x" * 201}
    with pytest.raises(Refused) as refused:
        change_profile(shop.reader, shop.do, "acme", wrong, "test")
    assert len(refused.value.reasons) == 3
    with pytest.raises(Refused, match="is of AT"):
        change_profile(shop.reader, shop.do, "acme", {"country": "DE"}, "test")
    with pytest.raises(UnknownCustomer):
        change_profile(shop.reader, shop.do, "nobody", {}, "test")


@pytest.mark.parametrize(
    ("code", "meant"), [("UK", "GB"), ("el", "GR"), ("XI", "GB"), ("EU", "such as DE"), ("XX", "")]
)
def test_what_is_no_country_is_not_taken_for_one_outside_the_eu(code: str, meant: str) -> None:
    with pytest.raises(Refused, match=f"is no country: write .*{meant}"):
        checked_country(code)
    with pytest.raises(Refused, match="is no country"):
        checked(Profile(country=code))
    seller = replace(SELLER, country=code.upper())
    with pytest.raises(Refused, match="is no country"):
        Issuer(seller, NoTaxes()).named()


def test_a_country_is_written_in_capitals() -> None:
    assert len(COUNTRIES) == 250
    assert [checked_country(each) for each in ("de", " Gr ", "XK", "")] == ["DE", "GR", "XK", ""]


@given(st.integers(-(10**15), 10**15), st.sampled_from([1, 10, 10**7, 10**9]))
def test_the_nearest_coin(nanos: int, unit: int) -> None:
    coins, rest = nearest(nanos, unit)
    assert coins * unit + rest == nanos
    assert -unit <= 2 * rest < unit


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=20), st.integers(-9, 9))
def test_parts_become_coins_that_add_up(parts: list[int], carried: int) -> None:
    unit = 10**7
    total = nearest(sum(parts) + carried * 10**5, unit)[0]
    coins = spread(parts, total, unit)
    assert sum(coins) == total
    assert all(abs(coin * unit - part) < unit for coin, part in zip(coins, parts, strict=True))


def test_a_table_for_accountants_adds_up(shop: Shop) -> None:
    settle_in(shop, company="=cmd|' /C calc'!A0")
    shop.deposit(EURO)
    spend(shop, 700)
    shop.go_to("2026-10-02")
    document = shop.close_month("2026-09")
    assert document is not None
    invoice = invoice_from(document)
    made = list(rows(invoice, shown_number(document)))
    assert [row["kind"] for row in made] == ["usage", "prepaid"]
    assert [row["amount"] for row in made] == ["7.00", "-1.00"]
    assert [row["net"] for row in made] == ["6.00", ""]
    assert made[0]["tax_percent"] == "19"
    assert made[0]["name"].startswith("'=")
    note = shop.credit(document.id, net_minor=250)
    (row,) = rows(credit_note_from(note), shown_number(note))
    assert (row["amount"], row["net"], row["credits"]) == ("-2.50", "-2.50", "AV-2026-000001")
    text = write_csv([(invoice, "AV-1"), (credit_note_from(note), "CN-1")])
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert len(text.splitlines()) == 4


def test_decimals() -> None:
    assert [decimal(coins, 2) for coins in (0, 5, -5, 123456)] == [
        "0.00",
        "0.05",
        "-0.05",
        "1234.56",
    ]
    assert decimal(12, 0) == "12"
    taxes = invoice_tax(190_000), invoice_tax(255_000), invoice_tax(88_750)
    assert [percent(tax) for tax in taxes] == ["19", "25.5", "8.875"]
    assert [safe(text) for text in ("a", "=a", "@a", "")] == ["a", "'=a", "'@a", ""]


def invoice_tax(rate: int) -> Any:
    from avocado.billing.invoices import TaxSum

    return TaxSum(rate, "S", 0, 0, "standard")
