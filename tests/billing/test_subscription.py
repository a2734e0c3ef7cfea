"""Subscriptions through the real ledger: charged once a period, given once, ended when said."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from avocado.billing import coupons
from avocado.billing import subscriptions as subs
from avocado.billing.clerk import Tools, work
from avocado.billing.coupon import Coupon
from avocado.billing.plans import publish, version_of
from avocado.billing.proration import split
from avocado.billing.upkeep import load
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.entry import AllowanceExpired, Billed, GrantExpired
from avocado.ledger.errors import LedgerUnavailable
from avocado.ledger.reader import open_reader
from avocado.terms.money import NANO
from tests.billing.subscribers import BASIC, Book, plan_of


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: no test here pulls the plug."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def make(memory: Path) -> Iterator[Callable[..., Book]]:
    books: list[Book] = []

    def made(**how: Any) -> Book:
        books.append(Book(memory / f"book-{len(books)}.db", **how))
        return books[-1]

    yield made
    for book in books:
        assert book.broken() == []
        book.close()


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


# -- crashes and company ---------------------------------------------------------------------------


class Died(LedgerUnavailable):
    pass


def history(book: Book, do: Any) -> None:
    """Months with a bit of everything, done through ``do``."""
    reader = book.reader

    def clerk() -> None:
        work(reader, do, book.now, Tools())

    subs.start(reader, do, "acme", "pro", book.now, trial=True)
    book.go(date(2026, 2, 14))
    clerk()
    book.go(date(2026, 2, 20))
    subs.change(reader, do, "acme", "basic", book.now, at_once=True)
    book.go(date(2026, 3, 14))
    clerk()
    book.go(date(2026, 3, 20))
    subs.change(reader, do, "acme", "pro", book.now)
    book.go(date(2026, 4, 14))
    clerk()
    book.go(date(2026, 4, 20))
    subs.cancel(reader, do, "acme", book.now, at_once=True)


def test_dying_between_any_two_operations_changes_nothing_in_the_end(make: Any) -> None:
    """The clerk finds what a dead process left; whoever asked asks again if nothing was filed."""
    whole = make(money=1000)
    done: list[o.AnyOperation] = []

    def counting(operation: o.AnyOperation) -> Any:
        done.append(operation)
        return whole.do(operation)

    history(whole, counting)
    for dies in range(len(done)):
        book = make(money=1000)
        book_do, left = book.do, [dies]

        def do(operation: o.AnyOperation, book_do: Any = book_do, left: Any = left) -> o.AnyResult:
            left[0] -= 1
            if left[0] == -1:
                raise Died("the process ends here")
            result: o.AnyResult = book_do(operation)
            return result

        _with_another_process(book, do)
        assert book.sub == whole.sub
        assert book.wallet == whole.wallet
        assert [each.id for each in book.fees()] == [each.id for each in whole.fees()]
        assert book.reader.balance("acme") == whole.reader.balance("acme")
        assert [a.id for a in book.reader.allowances("acme")] == [
            a.id for a in whole.reader.allowances("acme")
        ]


def _with_another_process(book: Book, do: Any) -> None:
    """Each step of ``history``; after a death the clerk runs, and the step is asked for again
    unless it is on record."""
    reader = book.reader
    steps: list[tuple[date, Callable[[], Any] | None]] = [
        (
            date(2026, 1, 31),
            lambda: subs.start(reader, do, "acme", "pro", book.now, trial=True),
        ),
        (date(2026, 2, 14), None),
        (
            date(2026, 2, 20),
            lambda: subs.change(reader, do, "acme", "basic", book.now, at_once=True),
        ),
        (date(2026, 3, 14), None),
        (date(2026, 3, 20), lambda: subs.change(reader, do, "acme", "pro", book.now)),
        (date(2026, 4, 14), None),
        (date(2026, 4, 20), lambda: subs.cancel(reader, do, "acme", book.now, at_once=True)),
    ]
    for day, step in steps:
        book.go(day)
        try:
            if step is not None:
                step()
        except Died:
            work(reader, do, book.now, Tools())
            assert step is not None
            with suppress(Refused):  # it was on record before the process died
                step()
        for _ in range(2):  # the first may be the one that dies; it says so and leaves the rest
            work(reader, do, book.now, Tools())


def test_two_clerks_at_once_do_everything_once(make: Any) -> None:
    book = make(money=1000)
    tenants = [f"c{number}" for number in range(12)]
    for tenant in tenants:
        book.do(o.OpenCustomer(tenant=tenant, name=tenant))
        book.do(o.Deposit(id=f"d-{tenant}", tenant=tenant, amount=25 * NANO, currency="USD"))
        subs.start(book.reader, book.do, tenant, "basic", book.now)
    for month in (date(2026, 2, 28), date(2026, 3, 31)):
        book.go(month)
        errors: list[BaseException] = []

        def clerk(errors: list[BaseException] = errors) -> None:
            try:
                with open_reader(book.target) as reader:
                    done = work(reader, book.do, book.now, Tools())
                assert "failed" not in whats(done), done
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=clerk) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
    for tenant in tenants:
        bills = [r.entry for r in book.reader.postings(tenant) if isinstance(r.entry, Billed)]
        assert [each.reason[:7] for each in bills] == ["2026-01", "2026-02"]  # 5 USD were left
        assert book.reader.balance(tenant).wallet == 5 * NANO
        assert len(book.reader.allowances(tenant)) == 2


def test_of_clerks_at_once_one_asks_for_the_money(make: Any) -> None:
    """A card must not be charged twice because two processes find the same fee unpaid."""
    book = make(money=10)
    start(book)
    asked: list[int] = []
    for day in (date(2026, 2, 28), date(2026, 3, 3), date(2026, 3, 7)):
        book.go(day)
        failed: list[BaseException] = []

        def clerk(failed: list[BaseException] = failed) -> None:
            try:
                with open_reader(book.target) as reader:
                    tools = Tools(collect=lambda _tenant, missing: asked.append(missing))
                    assert "failed" not in whats(work(reader, book.do, book.now, tools))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=clerk) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
    assert asked == [10 * NANO] * 3


# -- anything, for months --------------------------------------------------------------------------

PAID = ("basic", "pro", "year")


class Months(RuleBasedStateMachine):
    """Random starts, changes, ends, use and money over months. What must hold is checked against
    the journal: who was on a paid plan on a day is charged for that day by one fee; each fee's
    tokens came once, and only after it was paid; money adds up."""

    folder: Path
    number = 0

    @initialize(day=st.dates(date(2024, 1, 1), date(2026, 12, 31)), money=st.integers(0, 400))
    def begin(self, day: date, money: int) -> None:
        type(self).number += 1
        self.book = Book(self.folder / f"{self.number}.db", day=day, money=money)
        self.paid_days: dict[date, str] = {}
        coupons.create(
            self.book.reader, self.book.do, Coupon("HALF", "percent", 500_000, periods=2)
        )
        coupons.create(self.book.reader, self.book.do, Coupon("FIVE", "amount", 5 * NANO, "USD"))

    def attempt(self, act: Callable[..., Any], *words: Any, **how: Any) -> None:
        with suppress(Refused):
            act(self.book.reader, self.book.do, *words, **how)

    @rule(days=st.integers(1, 40))
    def live(self, days: int) -> None:
        for _ in range(days):
            self.book.days(1)
            self.book.clerk()
            self.note()

    def note(self) -> None:
        """At the end of a day: which plan was paid for it."""
        stored = load(self.book.reader, "acme")
        if stored is not None and stored.value.state == "active" and stored.value.plan in PAID:
            self.paid_days[self.book.today] = stored.value.plan

    @rule(units=st.integers(1, 60))
    def pay(self, units: int) -> None:
        self.book.deposit(units)

    @rule(plan=st.sampled_from([*PAID, "free", "packs"]), trial=st.booleans())
    def start(self, plan: str, trial: bool) -> None:
        self.attempt(subs.start, "acme", plan, self.book.now, trial=trial)

    @rule(plan=st.sampled_from([*PAID, "free"]), at_once=st.booleans())
    def change(self, plan: str, at_once: bool) -> None:
        self.attempt(subs.change, "acme", plan, self.book.now, at_once=at_once)

    @rule(at_once=st.booleans())
    def cancel(self, at_once: bool) -> None:
        self.attempt(subs.cancel, "acme", self.book.now, at_once=at_once)

    @rule(code=st.sampled_from(["HALF", "FIVE"]))
    def redeem(self, code: str) -> None:
        self.attempt(coupons.redeem, code, "acme", self.book.now)

    @precondition(lambda self: self.book.left() > 0)
    @rule(tokens=st.integers(1, 2000))
    def use(self, tokens: int) -> None:
        self.book.use(min(tokens, max(a.left for a in self.book.reader.allowances("acme"))))

    @invariant()
    def entitlement_is_the_state(self) -> None:
        self.book.clerk()
        stored = load(self.book.reader, "acme")
        assert self.book.policies == (
            {} if stored is None else {"acme": stored.value.plan if stored.value.entitled else None}
        )

    @invariant()
    def twice_is_once(self) -> None:
        head, _ = self.book.reader.head()
        self.book.clerk()
        later = [record.entry for record in self.book.reader.journal(head)]
        expiries = (GrantExpired, AllowanceExpired)  # the ledger posts these at its leisure
        assert [each for each in later if not isinstance(each, expiries)] == []

    @invariant()
    def what_is_to_be_done_is_done(self) -> None:
        stored = load(self.book.reader, "acme")
        if stored is not None:
            assert stored.value.leaving is None
            assert bool(stored.value.todo) == (stored.value.state == "past due")

    def teardown(self) -> None:
        if not hasattr(self, "book"):
            return
        fees = [charge(each) for each in self.book.fees()]
        self.each_day_is_charged_once(fees)
        self.what_a_fee_brings_came_once(fees)
        self.every_day_on_a_paid_plan_is_charged(fees)
        spent = sum(fee.bill.amount - self.book.refunds(fee.bill.id) for fee in fees)
        accounts = self.book.reader.accounts().items()
        assert spent == sum(nanos for name, nanos in accounts if name.startswith("revenue:plan:"))
        assert self.book.broken() == []
        self.book.close()

    def each_day_is_charged_once(self, fees: list[Fee]) -> None:
        """Of two fees for the same day the second came by a change at once, which gave back the
        first as far as it was unused, or with another subscription."""
        for before, after in itertools.pairwise(fees):
            if after.since <= before.last:
                assert (before.count, before.moves) != (after.count, after.moves)
                whole = before.bill.amount
                rest = split(whole, before.since, before.last + timedelta(days=1), after.since)[1]
                directly = (before.count, before.moves + 1) == (after.count, after.moves)
                most = rest if directly else whole  # or there was a plan without a fee between
                assert 0 <= self.book.refunds(before.bill.id) <= most

    def what_a_fee_brings_came_once(self, fees: list[Fee]) -> None:
        allowances = self.book.reader.allowances("acme")
        for fee in fees:
            name, version = fee.bill.item.removeprefix("plan:").split("@")
            terms = version_of(self.book.reader, name, int(version)).plan.subscription
            assert terms is not None
            assert 0 < fee.bill.amount <= terms.fee
            prefix = "tokens/" + fee.bill.id.removeprefix("fee/") + "/"
            given = [each for each in allowances if each.id.startswith(prefix)]
            assert len(given) <= len(terms.included)
            assert sum(a.tokens for a in given) <= sum(each.tokens for each in terms.included)

    def every_day_on_a_paid_plan_is_charged(self, fees: list[Fee]) -> None:
        redeemed = {d.id.split("/")[1] for d in self.book.reader.documents("redemption", "acme")}
        for day, plan in self.paid_days.items():
            covering = [
                fee
                for fee in fees
                if fee.since <= day <= fee.last and fee.bill.item == f"plan:{plan}@1"
            ]
            free = plan == "basic" and redeemed == {"HALF", "FIVE"}  # 10 less half less 5
            assert covering or free, (day, plan, fees)


@dataclass(frozen=True)
class Fee:
    """A fee, and what its id and its reason say: the days from ``since`` to ``last``."""

    bill: Billed
    since: date
    last: date
    count: int
    moves: int


def charge(bill: Billed) -> Fee:
    since, last = map(date.fromisoformat, bill.reason.split(" to "))
    _, _, count, _, moves = bill.id.split("/")
    return Fee(bill, since, last, int(count), int(moves))


def months(folder: Path, examples: int) -> None:
    Months.folder = folder
    run_state_machine_as_test(
        Months,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_months_of_anything(memory: Path) -> None:
    months(memory, 12)


@pytest.mark.slow
def test_more_months_of_anything(memory: Path) -> None:
    months(memory, 400)
