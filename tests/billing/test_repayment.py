"""Repayments: what an invoice was paid too much goes back, to the coin and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.billing.receivables import pay_invoice, receivable
from avocado.billing.repayment import pay_back
from avocado.errors import Refused
from avocado.ledger.reader import Document
from tests.billing.shop import Shop, table
from tests.billing.test_closing import spend
from tests.billing.test_credit_notes import billed

EURO = 10**9
CENT = EURO // 100


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path / "book.db", taxes=table()) as shop:
        yield shop


def back(shop: Shop, document: Document, cents: int | None, reference: str = "out 1") -> int:
    return pay_back(shop.reader, shop.do, document, cents, reference).due_minor


def test_what_was_paid_too_much_goes_back_once(shop: Shop) -> None:
    document = billed(shop, 1000)
    pay_invoice(shop.reader, shop.do, document, 500, "bank 1")
    pay_invoice(shop.reader, shop.do, document, None, "bank 2")
    with pytest.raises(Refused, match=r"of AV-2026-000001 0\.00 EUR are to be paid back"):
        back(shop, document, None)
    shop.credit(document.id, net_minor=800)
    assert receivable(shop.reader, document).due_minor == -952
    with pytest.raises(Refused, match=r"9\.52 EUR are to be paid back: at most that"):
        back(shop, document, 953)
    with pytest.raises(Refused, match="needs a reference"):
        back(shop, document, None, " ")
    assert back(shop, document, 2, "out 0") == -950
    assert back(shop, document, 2, "out 0") == -950
    assert back(shop, document, None) == 0  # of both payments
    assert back(shop, document, None) == 0
    # Each payment goes back in its own proportion of tax, which is the invoice's but for a coin.
    assert abs(shop.reader.balance("acme").wallet) < CENT
    assert abs(shop.reader.accounts()["taxes:EUR"] - 38 * CENT) < CENT


def test_credit_that_was_used_since_goes_back_as_far_as_the_limit(shop: Shop) -> None:
    document = billed(shop, 1000)
    pay_invoice(shop.reader, shop.do, document, None, "bank 1")
    shop.credit(document.id, net_minor=200)
    spend(shop, 10_100)
    with pytest.raises(Refused, match="was used since, up to"):
        back(shop, document, None)
    assert back(shop, document, 119) == -119


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_payments_go_back_to_the_coin(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    with Shop(tmp_path_factory.mktemp("book") / "book.db", taxes=table()) as shop:
        document = billed(shop, 1000)
        for number, cents in enumerate(data.draw(st.lists(st.integers(2, 300), max_size=3))):
            pay_invoice(shop.reader, shop.do, document, cents, f"in {number}")
        pay_invoice(shop.reader, shop.do, document, None, "in")
        shop.credit(document.id, net_minor=data.draw(st.integers(1, 1000)))
        while (surplus := -receivable(shop.reader, document).due_minor) > 0:
            cents = data.draw(st.integers(1, surplus))
            for _ in range(2):
                assert back(shop, document, cents, f"out {surplus}") == cents - surplus
