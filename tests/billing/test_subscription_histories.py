"""Histories of subscriptions: processes that die, processes at once, and months of anything."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
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
from avocado.billing.plans import version_of
from avocado.billing.proration import split
from avocado.billing.upkeep import load
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.entry import AllowanceExpired, Billed, GrantExpired
from avocado.ledger.errors import LedgerUnavailable
from avocado.ledger.reader import open_reader
from avocado.terms.money import NANO
from tests.billing.subscribers import Book, books, in_memory


@pytest.fixture
def make() -> Iterator[Callable[..., Book]]:
    with books() as made:
        yield made


def start(book: Book, plan: str = "basic") -> Any:
    return subs.start(book.reader, book.do, "acme", plan, book.now)


def whats(done: tuple[Any, ...]) -> list[str]:
    return [each.what for each in done]


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
                directly &= not self.basic_may_be_free()
                most = rest if directly else whole  # or there was a plan without a fee between
                assert 0 <= self.book.refunds(before.bill.id) <= most

    def basic_may_be_free(self) -> bool:
        """10 less half less 5 is nothing."""
        redeemed = {d.id.split("/")[1] for d in self.book.reader.documents("redemption", "acme")}
        return redeemed == {"HALF", "FIVE"}

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
        for day, plan in self.paid_days.items():
            covering = [
                fee
                for fee in fees
                if fee.since <= day <= fee.last and fee.bill.item == f"plan:{plan}@1"
            ]
            free = plan == "basic" and self.basic_may_be_free()
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


def test_months_of_anything() -> None:
    with in_memory() as folder:
        months(folder, 12)


@pytest.mark.slow
def test_more_months_of_anything() -> None:
    with in_memory() as folder:
        months(folder, 400)
