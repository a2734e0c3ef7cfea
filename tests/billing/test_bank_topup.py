"""Credit that was paid by bank transfer: entered once, with its tax and its invoice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing.bank_topup import Gap, deposit_of, net_of, net_of_gross, record_topup
from avocado.billing.invoices import Buyer, invoice_from
from avocado.billing.tax import Sale
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.reader import Document
from tests.billing.shop import SELLER, Shop, table
from tests.billing.test_closing import settle_in

EURO = 10**9
CENT = EURO // 100


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path / "book.db", taxes=table()) as shop:
        yield shop


def test_a_bank_transfer_buys_credit_once(shop: Shop) -> None:
    settle_in(shop)

    def record(net: int, reference: str = "bank 7", tenant: str = "acme") -> Document:
        now = shop.clock.now()
        return record_topup(shop.reader, shop.do, shop.issuer, tenant, net, reference, now)

    document = record(5000)
    shop.go_to("2026-09-09")
    assert record(5000) == document
    invoice = invoice_from(document)
    assert (invoice.net_minor, invoice.gross_minor, invoice.due_minor) == (5000, 5950, 0)
    assert shop.reader.balance("acme").wallet == 50 * EURO
    assert shop.reader.accounts()["taxes:EUR"] == 950 * CENT
    for net, reference, said in (
        (5001, "bank 7", r"'bank 7' is a top-up of acme of 50\.00 EUR net already"),
        (0, "bank 8", "above zero"),
        (5000, " ", "needs a reference"),
    ):
        with pytest.raises(Refused, match=said):
            record(net, reference)


def test_a_bank_transfer_whose_invoice_was_not_made_gets_it(shop: Shop) -> None:
    settle_in(shop)
    id_ = deposit_of("acme", "bank 7")
    shop.do(o.Deposit(id=id_, tenant="acme", amount=50 * EURO, tax=950 * CENT, currency="EUR"))
    now = shop.clock.now()
    made = record_topup(shop.reader, shop.do, shop.issuer, "acme", 5000, "bank 7", now)
    assert invoice_from(made).gross_minor == 5950
    assert shop.reader.balance("acme").wallet == 50 * EURO


@given(net=st.integers(1, 10**9), country=st.sampled_from(["DE", "FR", "HU", "FI", "US"]))
def test_the_net_of_a_gross(net: int, country: str) -> None:
    """Every gross that a net comes to is found; of the others the nearest are named."""
    taxes = table()
    buyer = Buyer("acme", "Acme", country=country)

    def gross(net: int) -> int:
        sale = Sale(SELLER, buyer, "2026-09-03", "EUR", 2, net)
        return net + sum(each.amount_minor for each in taxes.decide(sale))

    assert net_of(gross, gross(net)) == net
    between = gross(net) + 1
    if gross(net + 1) == between:
        assert net_of(gross, between) == net + 1
    else:
        with pytest.raises(Gap) as gap:
            net_of(gross, between)
        assert gap.value.around == ((net, gross(net)), (net + 1, gross(net + 1)))


def test_what_no_net_comes_to_is_refused(shop: Shop) -> None:
    settle_in(shop)

    def net(gross: int) -> int:
        return net_of_gross(shop.reader, shop.issuer, "acme", gross, "2026-09-03")

    assert net(11_900) == 10_000
    with pytest.raises(Refused, match=r"enter 0\.02 \(0\.02 net\) or 0\.04 \(0\.03 net\)"):
        net(3)
    with pytest.raises(Refused, match="above zero"):
        net(0)
