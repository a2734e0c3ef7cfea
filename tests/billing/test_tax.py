"""Taxes: the table's rules and days, reverse charge, VAT ids, rounding, and what Stripe answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from avocado.billing import vat_id
from avocado.billing.invoices import Buyer, TaxSum
from avocado.billing.stripe_tax import StripeTaxes
from avocado.billing.tax import NoTaxes, Sale, split_gross, tax_on
from avocado.billing.tax_table import SHIPPED, read_table
from avocado.errors import Refused
from tests.billing.shop import SELLER

TABLE = read_table()


def sale(country: str, vat: str | None = None, net: int = 10_000, **changes: Any) -> Sale:
    buyer = Buyer("acme", "Acme", country=country, vat_id=vat)
    fields: dict[str, Any] = {"seller": SELLER, "day": "2026-10-31"} | changes
    return Sale(buyer=buyer, currency="EUR", digits=2, net_minor=net, **fields)


def one(taxes: tuple[TaxSum, ...]) -> tuple[str, int, int, str, str]:
    (tax,) = taxes
    return tax.category, tax.rate, tax.amount_minor, tax.code, tax.country


@pytest.mark.parametrize(
    ("country", "vat", "said"),
    [
        ("DE", None, ("S", 190_000, 1900, "standard", "DE")),
        ("DE", "DE136695976", ("S", 190_000, 1900, "standard", "DE")),
        ("FR", "FR40303265045", ("AE", 0, 0, "reverse-charge", "FR")),
        ("FR", None, ("S", 200_000, 2000, "destination", "FR")),
        ("FI", None, ("S", 255_000, 2550, "destination", "FI")),
        ("MC", None, ("S", 200_000, 2000, "destination", "FR")),
        ("US", None, ("O", 0, 0, "export", "US")),
        ("CH", "CHE123", ("O", 0, 0, "export", "CH")),
    ],
)
def test_a_seller_in_the_eu(country: str, vat: str | None, said: tuple[Any, ...]) -> None:
    assert one(TABLE.decide(sale(country, vat))) == said


def test_rates_have_days() -> None:
    assert one(TABLE.decide(sale("EE", day="2025-06-30")))[1] == 220_000
    assert one(TABLE.decide(sale("EE", day="2025-07-01")))[1] == 240_000
    with pytest.raises(Refused, match="no rate of DE on 2019"):
        TABLE.decide(sale("DE", day="2019-01-01"))


def test_the_shipped_table_has_every_member_state_once_a_day() -> None:
    assert set(TABLE.rates) == vat_id.EU
    for rows in TABLE.rates.values():
        assert len({since for since, _, _ in rows}) == len(rows)
        assert all(150_000 <= rate <= 270_000 for _, _, rate in rows)


def test_no_country_is_refused_with_what_to_do() -> None:
    with pytest.raises(Refused, match="avocado profile set acme --country"):
        TABLE.decide(sale(""))


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "rates.toml"
    row = (
        '[[rates]]\ncountry = "US"\nsince = "2026-01-01"\nuntil = "2026-06-30"\npercent = "8.875"\n'
    )
    file.write_text(row)
    own = read_table(file)
    seller = replace(SELLER, country="US")
    assert one(own.decide(sale("US", seller=seller, day="2026-03-01")))[1:3] == (88_750, 888)
    assert one(own.decide(sale("CA", seller=seller, day="2026-03-01")))[0] == "O"
    with pytest.raises(Refused, match="no rate of US"):
        own.decide(sale("US", seller=seller))
    file.write_text("destination = false\n" + SHIPPED.read_text().replace("destination = true", ""))
    assert one(read_table(file).decide(sale("FR"))) == ("S", 190_000, 1900, "standard", "DE")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rates]]\n", "Expected `country`|required field"),
        ('[[rates]]\ncountry="DE"\nsince="1.1.26"\npercent="19"', "days such as"),
        ('[[rates]]\ncountry="DE"\nsince="2026-01-01"\npercent="NaN"', "no percentage"),
        ('[[rates]]\ncountry="DE"\nsince="2026-01-01"\npercent="1e400"', "no percentage"),
        ('[[rates]]\ncountry="de"\nsince="2026-01-01"\npercent="19"', "two capital letters"),
        ("rate = 19", "unknown field|missing"),
        ("\x00", "rates.toml"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rates.toml"
    file.write_text(text)
    with pytest.raises(Refused, match=said):
        read_table(file)
    with pytest.raises(Refused, match="cannot be read"):
        read_table(tmp_path / "none.toml")


def test_none_says_why() -> None:
    assert one(NoTaxes().decide(sale("DE")))[0] == "O"
    (tax,) = NoTaxes("§ 19 UStG").decide(sale("DE"))
    assert (tax.category, tax.code, tax.note) == ("E", "exempt", "§ 19 UStG")


@given(st.integers(-(10**12), 10**12), st.integers(0, 10**6))
def test_tax_is_rounded_half_up(base: int, rate: int) -> None:
    exact = base * rate
    off = tax_on(base, rate) * 10**6 - exact
    assert -500_000 <= off <= 500_000
    assert tax_on(-base, rate) == -tax_on(base, rate)
    assert tax_on(50, 190_000) == 10
    assert tax_on(250, 10_000) == 3


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10**6))
def test_a_payment_splits_as_its_invoice(paid: int, net: int, rate: int) -> None:
    taxes = (TaxSum(rate, "S", net, tax_on(net, rate), "standard"),)
    gross = net + tax_on(net, rate)
    assert sum(split_gross(paid, taxes)) == paid
    assert split_gross(gross, taxes) == (net, tax_on(net, rate))


@pytest.mark.parametrize(
    ("text", "country", "compact"),
    [
        ("DE 136 695 976", "DE", "DE136695976"),
        ("136695976", "DE", "DE136695976"),
        ("el094259216", "GR", "EL094259216"),
        ("NL4495445B01", "NL", "NL004495445B01"),
        ("ATU13585627", "AT", "ATU13585627"),
        ("CHE-107.787.577 IVA", "CH", "CHE107787577IVA"),
        ("anything", "US", "anything"),
    ],
)
def test_vat_ids_are_checked_and_compact(text: str, country: str, compact: str) -> None:
    assert vat_id.checked(text, country) == compact


@pytest.mark.parametrize(
    ("text", "country", "said"),
    [
        ("DE136695977", "DE", "checksum"),
        ("DE1366", "DE", "length"),
        ("FR40303265045", "DE", "is of FR"),
        ("DE136695976", "", "country"),
        ("' OR 1=1", "DE", "no number of DE"),
    ],
)
def test_a_wrong_vat_id_is_refused(text: str, country: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        vat_id.checked(text, country)


# -- Stripe Tax: a server that answers as docs.stripe.com/api/tax/calculations says -------------


@contextmanager
def stripe(answer: dict[str, Any], status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, requests): a local server for one kind of answer."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {key: values[0] for key, values in parse_qs(body).items()}
            asked.append({"path": self.path, "key": self.headers["Authorization"], **form})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def calculation(net: int, *parts: tuple[int, int, str, str]) -> dict[str, Any]:
    """As Stripe's page shows one: parts are (tax, base, percentage, reason)."""
    tax = sum(part[0] for part in parts)
    breakdown = [
        {
            "amount": amount,
            "inclusive": False,
            "taxable_amount": base,
            "taxability_reason": reason,
            "tax_rate_details": {
                "country": "FR",
                "percentage_decimal": percentage,
                "state": None,
                "tax_type": "vat",
            },
        }
        for amount, base, percentage, reason in parts
    ]
    return {
        "id": "taxcalc_1OduxkBUZ691iUZ4iWvpMApI",
        "object": "tax.calculation",
        "amount_total": net + tax,
        "currency": "eur",
        "tax_amount_exclusive": tax,
        "tax_amount_inclusive": 0,
        "tax_breakdown": breakdown,
        "tax_date": 1706535204,
    }


def test_stripe_is_asked_and_believed() -> None:
    answer = calculation(10_000, (2000, 10_000, "20.0", "standard_rated"))
    with stripe(answer) as (address, asked):
        taxes = StripeTaxes("sk_test_1", address).decide(sale("FR", "FR40303265045"))
    assert one(taxes) == ("S", 200_000, 2000, "stripe", "FR")
    assert "taxcalc_" in taxes[0].note
    (form,) = asked
    assert (form["path"], form["key"]) == ("/v1/tax/calculations", "Bearer sk_test_1")
    assert form["currency"] == "eur"
    assert form["line_items[0][amount]"] == "10000"
    assert form["line_items[0][tax_behavior]"] == "exclusive"
    assert form["customer_details[address][country]"] == "FR"
    assert form["customer_details[tax_ids][0][type]"] == "eu_vat"
    assert "sk_test_1" not in repr(StripeTaxes("sk_test_1"))


def test_stripes_reasons_become_categories() -> None:
    with stripe(calculation(10_000, (0, 10_000, "0.0", "reverse_charge"))) as (address, _):
        assert one(StripeTaxes("k", address).decide(sale("FR")))[3] == "reverse-charge"
    with stripe(calculation(10_000, (0, 0, "0.0", "not_collecting"))) as (address, _):
        assert one(StripeTaxes("k", address).decide(sale("FR")))[:3] == ("O", 0, 0)
    with stripe(calculation(10_000)) as (address, _):
        assert one(StripeTaxes("k", address).decide(sale("FR")))[:3] == ("O", 0, 0)


def test_taxes_of_state_and_city_become_one() -> None:
    parts = ((400, 10_000, "4.0", "standard_rated"), (450, 10_000, "4.5", "standard_rated"))
    with stripe(calculation(10_000, *parts)) as (address, _):
        assert one(StripeTaxes("k", address).decide(sale("US")))[:3] == ("S", 85_000, 850)


def test_what_stripe_says_wrongly_is_not_used() -> None:
    wrong = calculation(10_000, (2000, 10_000, "20.0", "standard_rated")) | {"amount_total": 10_000}
    with stripe(wrong) as (address, _), pytest.raises(Refused, match="does not add up"):
        StripeTaxes("k", address).decide(sale("FR"))
    with stripe({"hello": 1}) as (address, _), pytest.raises(Refused, match="no calculation"):
        StripeTaxes("k", address).decide(sale("FR"))
    refusal = {"error": {"message": "No such tax code", "type": "invalid_request_error"}}
    with stripe(refusal, 400) as (address, _), pytest.raises(Refused, match="No such tax code"):
        StripeTaxes("k", address).decide(sale("FR"))
    with pytest.raises(Refused, match="did not answer"):
        StripeTaxes("k", "http://127.0.0.1:9", pauses=()).decide(sale("FR"))


def test_stripe_is_asked_again_when_it_is_busy() -> None:
    busy = {"error": {"message": "Too many requests", "type": "rate_limit_error"}}
    with stripe(busy, 429) as (address, asked):
        taxes = StripeTaxes("k", address, pauses=(0.01, 0.01))
        with pytest.raises(Refused, match="did not answer: 429, Too many requests; try again"):
            taxes.decide(sale("FR"))
    assert len(asked) == 3


def test_a_sale_of_nothing_is_not_asked_about() -> None:
    assert one(StripeTaxes("k", "http://127.0.0.1:9").decide(sale("FR", net=0)))[2] == 0
