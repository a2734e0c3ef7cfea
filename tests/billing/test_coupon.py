"""Coupons: what they take off, once a customer, and never more often than they allow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.billing import coupons
from avocado.billing import subscriptions as subs
from avocado.billing.coupon import Coupon, Discount, reduced
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.errors import LedgerUnavailable
from avocado.ledger.reader import open_reader
from avocado.terms.money import NANO
from tests.billing.subscribers import Book


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "book.db", day=date(2026, 1, 31), money=1000)
    yield book
    assert book.broken() == []
    book.close()


def create(book: Book, code: str = "SPRING", **terms: Any) -> Coupon:
    made: dict[str, Any] = {"kind": "percent", "value": 250_000} | terms
    return coupons.create(book.reader, book.do, Coupon(code, **made))


def redeem(book: Book, code: str = "SPRING", tenant: str = "acme") -> int:
    return coupons.redeem(book.reader, book.do, code, tenant, book.now).place


@given(
    st.integers(0, 2**62),
    st.lists(
        st.builds(
            Discount,
            code=st.just("X"),
            kind=st.sampled_from(["percent", "amount"]),
            value=st.integers(1, 1_000_000),
            periods=st.just(1),
        ),
        max_size=4,
    ),
)
def test_a_reduced_fee_is_between_nothing_and_the_fee(fee: int, found: list[Discount]) -> None:
    assert 0 <= reduced(fee, found) <= fee
    assert reduced(fee, [*found, Discount("ALL", "percent", 1_000_000, 1)]) == 0


def test_a_percentage_off_so_many_fees(book: Book) -> None:
    create(book, periods=2)
    redeem(book)
    subs.start(book.reader, book.do, "acme", "basic", book.now)
    for day in (date(2026, 2, 28), date(2026, 3, 31), date(2026, 4, 30)):
        book.go(day)
        book.clerk()
    assert [each.amount for each in book.fees()] == [7_500_000_000, 7_500_000_000, 10**10, 10**10]


def test_an_amount_off_holds_through_a_change_in_the_period(book: Book) -> None:
    create(book, "FIVE", kind="amount", value=5 * NANO, currency="USD")
    redeem(book, "FIVE")
    book.go(date(2026, 4, 1))
    subs.start(book.reader, book.do, "acme", "basic", book.now)
    assert book.wallet == 995 * NANO
    book.days(15)
    subs.change(book.reader, book.do, "acme", "pro", book.now, at_once=True)
    # half of (10 - 5) comes back, half of (30 - 5) is charged
    assert book.wallet == 995 * NANO + 2_500_000_000 - 12_500_000_000
    book.go(date(2026, 5, 1))
    book.clerk()
    assert book.fees()[-1].amount == 30 * NANO


def test_a_fee_that_a_coupon_takes_off_wholly_is_no_fee(book: Book) -> None:
    create(book, "FREE", value=1_000_000)
    redeem(book, "FREE")
    subs.start(book.reader, book.do, "acme", "basic", book.now)
    assert (book.fees(), book.left(), book.wallet) == ([], 1000, 1000 * NANO)
    book.days(3)
    subs.cancel(book.reader, book.do, "acme", book.now, at_once=True)
    assert (book.wallet, book.left()) == (1000 * NANO, 0)


def test_credit_is_given_once_and_goes(book: Book) -> None:
    create(book, "GIFT", kind="credit", value=7 * NANO, currency="USD", days=10)
    redeem(book, "GIFT")
    assert book.reader.balance("acme").granted == 7 * NANO
    with pytest.raises(Refused, match="redeemed GIFT already, on 2026-01-31"):
        redeem(book, "GIFT")
    assert book.reader.balance("acme").granted == 7 * NANO
    grant = next(
        each for each in book.entries() if getattr(each, "id", "") == "redemption/GIFT/acme"
    )
    assert getattr(grant, "expires", 0) // NANO == 1_770_681_600  # 2026-02-10


def test_refusals(book: Book) -> None:
    create(book, "EARLY", begins=date(2026, 2, 1))
    create(book, "LATE", ends=date(2026, 1, 30))
    create(book, "EUROS", kind="amount", value=5, currency="EUR")
    create(book, "PROS", plans=("pro",))
    create(book, "PROGIFT", kind="credit", value=5, currency="USD", plans=("pro",))
    create(book, "ONE", most=1)
    book.do(o.OpenCustomer(tenant="other", name="Other"))
    redeem(book, "ONE", "other")
    subs.start(book.reader, book.do, "acme", "basic", book.now)
    for code, said in (
        ("NOPE", "there is no coupon 'NOPE'"),
        ("EARLY", "can be redeemed from 2026-02-01 on"),
        ("LATE", "could be redeemed until 2026-01-30"),
        ("EUROS", "EUROS is in EUR"),
        ("PROS", "for the plans pro, and not for basic"),
        ("PROGIFT", "for the plans pro"),
        ("ONE", "used up: 1 customers"),
    ):
        with pytest.raises(Refused, match=said):
            redeem(book, code)
    with pytest.raises(Refused, match="a coupon EARLY already"):
        create(book, "EARLY")
    with pytest.raises(ValueError, match="capital letters"):
        Coupon("spring", "percent", 1)


def test_many_at_once_never_redeem_more_than_there_are(book: Book) -> None:
    create(book, "TEN", kind="credit", value=NANO, currency="USD", most=10)
    for number in range(24):
        book.do(o.OpenCustomer(tenant=f"c{number}", name="C"))
    places: list[int] = []

    def one(number: int) -> None:
        tenant, now = f"c{number // 2 * 2}", book.now + number  # two ask for each customer
        with open_reader(book.target) as reader:
            try:
                places.append(coupons.redeem(reader, book.do, "TEN", tenant, now).place)
            except Refused as refused:
                said.append(str(refused))

    said: list[str] = []
    threads = [threading.Thread(target=one, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places) == list(range(1, 11))
    assert len(said) == 14
    given = [book.reader.balance(f"c{number}").granted for number in range(24)]
    assert sum(given) == 10 * NANO
    assert max(given) == NANO
    assert len(list(book.reader.documents("redemption"))) == 10


@pytest.mark.parametrize("dies", range(4))
def test_a_place_that_was_taken_is_not_lost_when_the_process_dies(book: Book, dies: int) -> None:
    create(book, "GIFT", kind="credit", value=7 * NANO, currency="USD", most=1)
    left = [dies]

    def do(operation: o.AnyOperation) -> o.AnyResult:
        left[0] -= 1
        if left[0] < 0:
            raise LedgerUnavailable("the process ends here")
        return book.do(operation)

    try:
        coupons.redeem(book.reader, do, "GIFT", "acme", book.now)
    except LedgerUnavailable:
        book.do(o.OpenCustomer(tenant="other", name="Other"))
        if dies:  # the place is acme's, whoever asks next
            with pytest.raises(Refused, match="used up"):
                redeem(book, "GIFT", "other")
            with pytest.raises(Refused, match="already"):
                redeem(book, "GIFT")
        else:
            redeem(book, "GIFT")
    assert book.reader.balance("acme").granted == 7 * NANO
