"""Subscriptions through the real ledger: charged once a period, given once, ended when said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from avocado.billing import subscriptions as subs
from avocado.billing.plans import publish
from avocado.billing.proration import split
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.terms.money import NANO
from tests.billing.subscribers import BASIC, Book, books, plan_of


@pytest.fixture
def make() -> Iterator[Callable[..., Book]]:
    with books() as made:
        yield made


@pytest.fixture
def book(make: Callable[..., Book]) -> Book:
    """On 31 January 2026, with 1000 USD."""
    return make(money=1000)


def start(book: Book, plan: str = "basic", **how: Any) -> Any:
    return subs.start(book.reader, book.do, "acme", plan, book.now, **how)


def change(book: Book, plan: str, at_once: bool = False) -> Any:
    return subs.change(book.reader, book.do, "acme", plan, book.now, at_once=at_once)


def cancel(book: Book, at_once: bool = False) -> Any:
    return subs.cancel(book.reader, book.do, "acme", book.now, at_once=at_once)


def whats(done: tuple[Any, ...]) -> list[str]:
    return [each.what for each in done]


# -- periods ---------------------------------------------------------------------------------------


def test_a_fee_each_month_on_the_anchors_day(book: Book) -> None:
    start(book)
    for _ in range(90):
        book.days(1)
        book.clerk()
    assert [each.reason[:10] for each in book.fees()] == [
        "2026-01-31",
        "2026-02-28",
        "2026-03-31",
        "2026-04-30",
    ]
    assert {each.item for each in book.fees()} == {"plan:basic@1"}
    assert book.wallet == (1000 - 4 * 10) * NANO
    assert book.left() == 1000  # last month's are gone
    assert book.policies == {"acme": "basic"}


def test_included_tokens_are_used_before_money(book: Book) -> None:
    start(book)
    book.use(400)
    assert (book.wallet, book.left()) == (990 * NANO, 600)
    book.use(700)
    assert book.left() == 0
    assert book.wallet == 990 * NANO - 100 * SHEET_PROMPT


SHEET_PROMPT = 200 * NANO // 1_000_000


def test_a_yearly_plan_and_one_without_a_fee(book: Book) -> None:
    sub = start(book, "year")
    assert (sub.began, sub.ends) == (date(2026, 1, 31), date(2027, 1, 31))
    assert change(book, "free").following.plan == "free"
    book.go(date(2027, 2, 1))
    assert "changed" in whats(book.clerk())
    assert (book.sub.plan, book.sub.ends, book.wallet) == ("free", None, 900 * NANO)
    assert change(book, "basic").ends == date(2027, 3, 1)  # without a period it changes at once


def test_a_period_that_nobody_looked_at_is_not_billed(book: Book) -> None:
    start(book)
    book.go(date(2026, 6, 15))
    book.clerk()
    assert [each.reason[:10] for each in book.fees()] == ["2026-01-31", "2026-05-31"]
    assert book.sub.ends == date(2026, 6, 30)


def test_a_version_stays_until_the_subscriber_is_moved(book: Book) -> None:
    start(book)
    publish(book.reader, book.do, plan_of(BASIC.replace("10.00", "20.00")))
    book.go(date(2026, 2, 28))
    book.clerk()
    assert (book.sub.version, book.wallet) == (1, 980 * NANO)
    change(book, "basic")
    book.go(date(2026, 3, 31))
    book.clerk()
    assert (book.sub.version, book.wallet) == (2, 960 * NANO)


# -- trials ----------------------------------------------------------------------------------------


def test_a_trial_comes_first_and_once_a_customer(book: Book) -> None:
    sub = start(book, "pro", trial=True)
    assert (sub.state, sub.ends, book.left()) == ("trial", date(2026, 2, 14), 500)
    assert (book.fees(), book.reader.balance("acme").granted) == ([], NANO)
    book.go(date(2026, 2, 14))
    book.clerk()
    assert (book.sub.state, book.sub.anchor) == ("active", date(2026, 2, 14))
    assert (book.wallet, book.left()) == (970 * NANO, 10_700)
    cancel(book, at_once=True)
    for plan in ("pro", "free"):
        with pytest.raises(Refused, match="had its trial: it is given once"):
            start(book, plan, trial=True)
    with pytest.raises(Refused, match="basic has no trial"):
        start(book, "basic", trial=True)


def test_a_trial_that_is_cancelled_is_over(book: Book) -> None:
    start(book, "pro", trial=True)
    cancel(book, at_once=True)
    assert (book.left(), book.reader.balance("acme").granted, book.fees()) == (0, 0, [])
    assert start(book, "basic").state == "active"


def test_another_plan_in_the_trial_costs_nothing_before_it_ends(book: Book) -> None:
    start(book, "pro", trial=True)
    sub = change(book, "basic", at_once=True)
    assert (sub.state, sub.plan, book.left()) == ("trial", "basic", 500)
    book.go(date(2026, 2, 14))
    book.clerk()
    assert book.wallet == 990 * NANO


# -- changes ---------------------------------------------------------------------------------------


def test_an_upgrade_at_once_credits_the_unused_days_and_charges_the_rest(make: Any) -> None:
    book = make(money=1000, day=date(2026, 4, 1))
    start(book)
    book.days(10)  # 20 of 30 days are left
    sub = change(book, "pro", at_once=True)
    assert book.wallet == (1000 - 10) * NANO + split_rest(10, 20) - 20 * NANO
    assert (sub.ends, sub.charged.amount) == (date(2026, 5, 1), 20 * NANO)
    assert book.left() == 10_000 * 20 // 30 + 700 * 20 // 30
    assert book.reader.balance("acme").granted == 2 * NANO
    book.go(date(2026, 5, 1))
    book.clerk()
    assert (book.sub.charged.amount if book.sub.charged else 0) == 30 * NANO
    assert book.left() == 10_700


def split_rest(units: int, left: int) -> int:
    day = date(2026, 4, 1)
    return split(units * NANO, day, day + timedelta(days=30), day + timedelta(days=30 - left))[1]


def test_who_has_used_the_tokens_gets_no_fee_back(make: Any) -> None:
    book = make(money=1000, day=date(2026, 4, 1))
    start(book)
    book.use(900)  # nine tenths on the first day
    book.days(10)
    cancel(book, at_once=True)
    assert book.wallet == 990 * NANO + NANO  # a tenth, not two thirds
    assert (book.left(), book.sub.state, book.policies) == (0, "ended", {})
    book.clerk()
    assert book.policies == {"acme": None}


def test_a_change_at_the_end_can_be_undone(book: Book) -> None:
    start(book)
    assert change(book, "pro").following.plan == "pro"
    assert cancel(book).following.plan == ""
    assert change(book, "basic").following is None
    book.go(date(2026, 2, 28))
    assert whats(book.clerk()) == ["renewed"]
    cancel(book)
    book.go(date(2026, 3, 31))
    assert whats(book.clerk()) == ["ended"]
    assert book.wallet == 980 * NANO


def test_a_change_to_another_length_begins_a_period(make: Any) -> None:
    book = make(money=1000, day=date(2026, 4, 1))
    start(book)
    book.days(15)
    sub = change(book, "year", at_once=True)
    assert (sub.began, sub.ends) == (date(2026, 4, 16), date(2027, 4, 16))
    assert book.wallet == (1000 - 10 + 5 - 100) * NANO
    assert book.left() == 50_000


def test_there_and_back_on_one_day_costs_nothing(book: Book) -> None:
    start(book)
    book.days(3)
    before = book.wallet
    change(book, "pro", at_once=True)
    change(book, "basic", at_once=True)
    assert book.wallet == before
    assert book.left() == 1000 * 25 // 28


# -- no money --------------------------------------------------------------------------------------


def test_past_due_then_collected(make: Any) -> None:
    book = make(money=15)
    start(book)
    book.go(date(2026, 2, 28))
    assert whats(book.clerk()) == ["renewed", "past due"]
    assert (book.left(), book.wallet, book.policies) == (0, 5 * NANO, {"acme": "basic"})
    assert book.clerk() == ()
    with pytest.raises(Refused, match="owes the fee"):
        change(book, "pro", at_once=True)
    book.days(1)
    book.deposit(10)
    assert whats(book.clerk()) == ["collected"]
    assert (book.sub.state, book.left(), book.wallet) == ("active", 1000, 5 * NANO)


def test_past_due_then_lapsed_and_nothing_is_owed(make: Any) -> None:
    book = make(money=10)
    start(book)
    asked: list[int] = []
    found = []
    for _ in range(60):
        book.days(1)
        book.clerk(collect=lambda _tenant, missing: asked.append(missing))
        found.append((book.today, book.sub.state))
    lapsed = next(day for day, state in found if state == "ended")
    assert lapsed == date(2026, 2, 28) + timedelta(days=14)
    assert asked == [10 * NANO] * 3  # the day it fell due, and two retry days
    assert (book.sub.reason, book.wallet, book.policies) == (
        "the fee was not paid",
        0,
        {"acme": None},
    )
    book.deposit(10)
    assert start(book).count == 2


def test_what_collecting_brings_is_used_at_once(make: Any) -> None:
    book = make(money=10)
    start(book)
    book.go(date(2026, 2, 28))

    def collect(_tenant: str, _missing: int) -> bool:
        book.deposit(25)
        return True

    assert whats(book.clerk(collect=collect)) == ["renewed", "past due", "collected"]
    assert book.wallet == 15 * NANO


def test_cancelling_what_is_past_due_gives_nothing_back(make: Any) -> None:
    book = make(money=10)
    start(book)
    book.go(date(2026, 2, 28))
    book.clerk()
    cancel(book, at_once=True)
    assert (book.wallet, book.sub.state, len(book.fees())) == (0, "ended", 1)


def test_a_credit_limit_pays_a_fee(make: Any) -> None:
    book = make(credit_limit=50 * NANO)
    start(book, "pro")
    assert book.wallet == -30 * NANO


# -- refusals --------------------------------------------------------------------------------------


def test_refusals_say_what_to_do(make: Any) -> None:
    book = make(money=20)
    for act, said in (
        (lambda: start(book, "gold"), "no plan 'gold'"),
        (lambda: start(book, "pro"), "short of 10.00 USD"),
        (lambda: change(book, "pro"), "acme is on no plan"),
        (lambda: cancel(book), "acme is on no plan"),
        (lambda: pack(book), "acme is on no plan"),
    ):
        with pytest.raises(Refused, match=said):
            act()
    assert book.reader.document("subscription/acme") is None
    start(book)
    for act, said in (
        (lambda: start(book), "subscribed to basic already"),
        (lambda: change(book, "basic"), "on basic@1 already"),
        (lambda: change(book, "pro@4"), "newest version is 1"),
        (lambda: change(book, "pro", at_once=True), "short of 10.00 USD"),
        (lambda: pack(book), "has 0 packs"),
    ):
        with pytest.raises(Refused, match=said):
            act()
    assert book.wallet == 10 * NANO
    book.do(o.OpenCustomer(tenant="euro", name="Euro", currency="EUR"))
    with pytest.raises(Refused, match="in USD, the book of euro in EUR"):
        subs.start(book.reader, book.do, "euro", "free", book.now)


def test_customers_choose_among_the_newest_versions_that_are_listed(make: Any) -> None:
    book = make(money=100)
    publish(book.reader, book.do, plan_of(BASIC.replace("10.00", "20.00")))
    deal = BASIC.replace('name = "basic"', 'name = "deal"\nlisted = false').replace("10.00", "1.00")
    publish(book.reader, book.do, plan_of(deal))
    for plan in ("deal", "deal@1", "basic@1"):
        with pytest.raises(Refused, match="there is no plan"):
            start(book, plan, self_service=True)
    start(book, "basic@1")  # the operator may
    for plan in ("deal", "deal@1"):
        with pytest.raises(Refused, match="there is no plan"):
            subs.change(book.reader, book.do, "acme", plan, book.now, self_service=True)
    cancel(book)
    kept = subs.change(book.reader, book.do, "acme", "basic@1", book.now, self_service=True)
    assert (kept.version, kept.following) == (1, None)
    moved = subs.change(book.reader, book.do, "acme", "basic", book.now, self_service=True)
    assert moved.following is not None
    assert moved.following.version == 2


def pack(book: Book, number: int = 1, purchase: str = "p1") -> bool:
    return subs.buy_pack(book.reader, book.do, "acme", number, purchase, book.now)


def test_a_pack_turns_money_into_more_credit_once(make: Any) -> None:
    book = make(money=60)
    start(book, "packs")
    assert pack(book)
    book.days(1)
    assert not pack(book)  # the same purchase, told again
    assert (book.wallet, book.reader.balance("acme").granted) == (10 * NANO, 55 * NANO)
    with pytest.raises(Refused, match=r"short of 40\.00 USD"):
        pack(book, purchase="p2")
    assert pack(book, 2, "p2")
    with pytest.raises(Refused, match="has 2 packs, and no 3"):
        pack(book, 3, "p3")
    book.days(366)
    assert book.clerk() == ()
    assert book.sub.state == "active"


def test_what_was_refunded_of_a_fee_is_not_given_back_again_and_the_rest_is(make: Any) -> None:
    for refunded in (2, 9, 10):
        book = make(money=10)
        subs.start(book.reader, book.do, "acme", "basic", book.now)
        (fee,) = book.fees()
        book.do(o.Refund(id="sorry", of=fee.id, amount=refunded * NANO, reason="sorry"))
        subs.cancel(book.reader, book.do, "acme", book.now, at_once=True)
        assert book.wallet == 10 * NANO
        book = make(money=40)
        subs.start(book.reader, book.do, "acme", "basic", book.now)
        (fee,) = book.fees()
        book.do(o.Refund(id="sorry", of=fee.id, amount=refunded * NANO, reason="sorry"))
        subs.change(book.reader, book.do, "acme", "pro", book.now, at_once=True)
        assert book.wallet == 10 * NANO


def test_a_pack_whose_money_is_used_meanwhile_is_not_bought(make: Any) -> None:
    book = make(money=60)
    subs.start(book.reader, book.do, "acme", "packs", book.now)

    def do(operation: o.AnyOperation) -> Any:
        if isinstance(operation, o.Bill) and book.wallet == 60 * NANO:
            book.use(100_000)  # for 20
        return book.do(operation)

    with pytest.raises(Refused, match=r"is short of 10\.00 USD"):
        subs.buy_pack(book.reader, do, "acme", 1, "first", book.now)
    book.days(1)
    assert book.clerk() == ()
    assert (book.sub.state, book.sub.todo) == ("active", ())
    book.deposit(10)
    book.days(1)
    assert book.clerk() == ()
    assert book.wallet == 50 * NANO
    assert subs.buy_pack(book.reader, book.do, "acme", 1, "first", book.now)
    assert (book.wallet, book.reader.balance("acme").granted) == (0, 55 * NANO)


def test_a_purchases_name_is_short_enough_for_all_that_it_names(make: Any) -> None:
    book = make(money=60)
    subs.start(book.reader, book.do, "acme", "packs", book.now)
    for name in ("", "x" * 101, "ä", "a\n"):
        with pytest.raises(Refused, match="names a purchase"):
            subs.buy_pack(book.reader, book.do, "acme", 1, name, book.now)
    assert book.wallet == 60 * NANO
    assert subs.buy_pack(book.reader, book.do, "acme", 1, "x" * 100, book.now)
