"""The daybook says what the ledger says, however and by whomever it was filled."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avocado.billing.daybook import Daybook, UsageSum, open_daybook
from avocado.errors import Refused
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.errors import NothingToRefund
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.reader import Reader, UsageLine, open_reader
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

DAY = 86_400_000_000_000
SHEETS = (
    PriceSheet(200_000_000, 800_000_000, cached=50_000_000, batch=500_000),
    PriceSheet(300_000_000, 900_000_000),
)
TENANTS = ("acme", "beta")


class Shop:
    """A ledger on a manual clock, and its customers' requests."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.clock = ManualClock()
        self.path: Path | str = database or folder / "ledger.sqlite"
        self.ledger: Ledger = open_ledger(self.path, self.clock)
        self.requests: list[str] = []
        self.postings: list[str] = []
        for sheet in SHEETS:
            self.ledger.do_now(o.PublishPrice(terms=sheet.terms()))
        for tenant in TENANTS:
            self.ledger.do_now(o.OpenCustomer(tenant=tenant, name=tenant))
            self.deposit(tenant, 10**12)
            self.ledger.do_now(
                o.AddKey(key_id=f"key-{tenant}", tenant=tenant, name="k", digest=tenant, created=1)
            )

    def deposit(self, tenant: str, amount: int) -> None:
        self.postings.append(f"dep-{len(self.postings)}")
        self.ledger.do_now(
            o.Deposit(id=self.postings[-1], tenant=tenant, amount=amount, currency="USD")
        )

    def ask(self, tenant: str = "acme", sheet: int = 0, settle: bool = True, **facts: Any) -> None:
        request = f"req-{len(self.requests)}"
        usage = facts.pop("usage", Usage(100, 50, 20, 10))
        self.ledger.do_now(
            o.Hold(
                id=request,
                tenant=tenant,
                offer=f"model-{sheet}",
                release=f"release-{sheet}",
                price_version=SHEETS[sheet].version,
                prompt_tokens=100,
                max_tokens=100,
                **facts,
            )
        )
        self.requests.append(request)
        if settle:
            self.ledger.do_now(o.Settle(hold=request, usage=usage))

    def refund(self, of: str, amount: int | None) -> None:
        operation = o.Refund(id=f"ref-{of}-{amount}", of=of, reason="test", amount=amount)
        with suppress(NothingToRefund):  # the story may ask for what is not there
            self.ledger.do_now(operation)

    def reader(self) -> Reader:
        return open_reader(self.path)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.ledger.close()


def as_lines(sums: list[UsageSum]) -> list[UsageLine]:
    """The daybook's rows as the reader's, which names a missing key None and nets refunds."""
    lines = [
        UsageLine(
            each.day or "",
            each.tenant or "",
            each.key_id or None,
            each.offer or "",
            each.release or "",
            each.currency or "",
            each.requests,
            each.prompt,
            each.cached,
            each.completion,
            each.reasoning,
            each.net,
        )
        for each in sums
    ]
    return sorted(lines, key=_order)


def _order(line: UsageLine) -> tuple[str, ...]:
    return (line.day, line.tenant, line.key_id or "", line.offer, line.release, line.currency)


ALL = ("day", "tenant", "key_id", "offer", "release", "currency")


def agrees(book: Daybook, reader: Reader) -> None:
    """Daybook and ledger say the same, of all customers and of each."""
    for tenant in (None, *TENANTS):
        sums = book.usage(tenant, by=ALL)
        assert as_lines(sums) == sorted(reader.usage(tenant), key=_order)


step = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from(TENANTS),
        st.integers(0, 1),
        st.booleans(),
        st.booleans(),
        st.integers(0, 100),
    ),
    st.tuples(st.just("refund"), st.integers(0, 30), st.one_of(st.none(), st.integers(1, 20_000))),
    st.tuples(st.just("refund deposit"), st.integers(0, 5), st.integers(1, 10_000)),
    st.tuples(st.just("late"), st.integers(1, 3)),
    st.tuples(st.just("refresh")),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(step, max_size=30))
def test_it_equals_the_readers_usage_after_any_story(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        daybook = Path(folder) / "daybook.sqlite"
        with shop.ledger, shop.reader() as reader, open_daybook(daybook, reader) as book:
            for verb, *facts in steps:
                if verb == "ask":
                    tenant, sheet, batch, keyed, tokens = facts
                    key = f"key-{tenant}" if keyed else None
                    usage = Usage(tokens, tokens // 2, tokens // 3, tokens // 4)
                    shop.ask(tenant, sheet, batch=batch, key_id=key, usage=usage)
                elif verb == "refund" and facts[0] < len(shop.requests):
                    shop.refund(shop.requests[facts[0]], facts[1])
                elif verb == "refund deposit" and facts[0] < len(shop.postings):
                    shop.refund(shop.postings[facts[0]], facts[1])
                elif verb == "late":
                    shop.clock.pass_time(facts[0] * DAY // 2)
                elif verb == "refresh":
                    book.refresh(reader)
            book.refresh(reader)
            agrees(book, reader)
            with open_daybook(Path(folder) / "afresh.sqlite", reader) as afresh:
                agrees(afresh, reader)
                every = (*ALL, "price_version", "batch")
                assert afresh.usage(by=every) == book.usage(by=every)
                assert afresh.money() == book.money()
                assert afresh.entries(most=1000) == book.entries(most=1000)
                assert afresh.months(by=("tenant",)) == book.months(by=("tenant",))


def test_a_refund_corrects_the_day_of_its_charge(shop: Shop, tmp_path: Path) -> None:
    with shop.reader() as reader, open_daybook(tmp_path / "d.sqlite", reader) as book:
        shop.ask()
        book.refresh(reader)
        first = book.usage(by=("day",))[0]
        shop.clock.pass_time(3 * DAY)
        shop.refund("req-0", 1000)
        shop.ask()
        book.refresh(reader)
        then, later = book.usage(by=("day",))
        assert (then.day, then.charge, then.refunded) == (first.day, first.charge, 1000)
        assert later.refunded == 0
        agrees(book, reader)


def test_the_small_books_say_what_the_large_one_says(shop: Shop, tmp_path: Path) -> None:
    for number in range(12):
        shop.ask(TENANTS[number % 2], number % 2, batch=number % 3 == 0)
        shop.clock.pass_time(5 * DAY)
    with shop.reader() as reader, open_daybook(tmp_path / "d.sqlite", reader) as book:
        whole = book.usage(by=("day", "tenant", "key_id", "price_version"))
        by_day: dict[str | None, int] = defaultdict(int)
        by_month: dict[str, int] = defaultdict(int)
        for each in whole:
            by_day[each.day] += each.charge
            by_month[(each.day or "")[:7]] += each.charge
        assert {each.day: each.charge for each in book.usage(by=("day",))} == by_day
        assert {each.day: each.charge for each in book.months()} == by_month
        assert sum(each.requests for each in book.usage(by=())) == 12
        month = max(by_month)
        assert book.months(since=month)[0].day == month
        top = book.top_customers(month)
        assert [each.net for each in top] == sorted((each.net for each in top), reverse=True)
        assert book.usage("acme", offer="model-1") == []
        assert book.usage("acme", offer="model-0", by=("offer",))[0].requests == 6
        first, last = book.span() or ("", "")
        assert [row.day for row in book.usage(since=last)] == [last]
        assert last not in [row.day for row in book.usage(since=first, until=last)]
        with pytest.raises(ValueError, match="no such column"):
            book.usage(by=("colour",))


def test_money_that_is_no_request_is_summed_beside_it(shop: Shop, tmp_path: Path) -> None:
    with shop.reader() as reader, open_daybook(tmp_path / "d.sqlite", reader) as book:
        shop.deposit("acme", 5)
        shop.refund("dep-2", 2)
        shop.ledger.do_now(o.Grant(id="g", tenant="beta", amount=7, currency="USD"))
        book.refresh(reader)
        found = {(row.tenant, row.kind): row for row in book.money()}
        assert found["acme", "Deposited"].amount == 10**12 + 5
        assert found["acme", "Deposited"].refunded == 2
        assert found["beta", "Granted"].entries == 1
        assert [row.tenant for row in book.money("beta")] == ["beta", "beta"]


def test_entries_that_are_no_requests_are_listed_newest_first(shop: Shop, tmp_path: Path) -> None:
    with shop.reader() as reader, open_daybook(tmp_path / "d.sqlite", reader) as book:
        shop.ask()
        shop.deposit("acme", 5)
        book.refresh(reader)
        journal = [
            (each.seq, type(each.entry).__name__)
            for each in reader.journal()
            if not type(each.entry).__name__.startswith("Hold")
        ]
        listed = book.entries()
        assert [(each.seq, each.kind) for each in reversed(listed)] == journal
        paged, before = [], (2**63 - 1, 2**63 - 1)
        while page := book.entries(before, most=2):
            paged += page
            before = (page[-1].at, page[-1].seq)
        assert paged == listed
        assert {each.kind for each in book.entries(kinds=("Deposited",))} == {"Deposited"}
        assert {each.tenant for each in book.entries(tenant="beta")} == {"beta"}


def test_it_is_made_afresh_for_another_book(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    with shop.reader() as reader, open_daybook(path, reader) as book:
        shop.ask()
        assert not book.refresh(reader).afresh
    (tmp_path / "other").mkdir()
    other = Shop(tmp_path / "other")
    with other.ledger:
        other.clock.pass_time(DAY)
        for _ in range(5):
            other.ask("beta")
        with other.reader() as reader, Daybook(path) as book:
            assert book.refresh(reader).afresh
            agrees(book, reader)
            assert book.usage("acme", by=()) == []


@pytest.mark.parametrize("damage", ["not a database at all" * 300, ""])
def test_a_damaged_file_is_made_afresh(shop: Shop, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "d.sqlite"
    shop.ask()
    with shop.reader() as reader, open_daybook(path, reader):
        pass
    path.write_text(damage)
    with shop.reader() as reader, open_daybook(path, reader) as book:
        agrees(book, reader)


def test_a_page_torn_in_the_middle_is_made_afresh(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    shop.ask()
    with shop.reader() as reader, open_daybook(path, reader):
        pass
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    shop.ask()
    with shop.reader() as reader, open_daybook(path, reader) as book:
        agrees(book, reader)


def test_a_file_of_another_version_is_made_afresh(shop: Shop, tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "d.sqlite"
    shop.ask()
    with shop.reader() as reader, open_daybook(path, reader):
        pass
    database = apsw.Connection(str(path))
    database.pragma("user_version", 1)
    database.close()
    with shop.reader() as reader, open_daybook(path, reader) as book:
        agrees(book, reader)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be used"):
        Daybook(tmp_path / "nowhere" / "d.sqlite")


PROGRAM = """
import sys
from pathlib import Path
from avocado.billing.daybook import open_daybook
from avocado.ledger.reader import open_reader

for _ in range(int(sys.argv[3])):
    with open_reader(Path(sys.argv[1])) as reader:
        with open_daybook(Path(sys.argv[2]), reader) as book:
            assert sum(row.requests for row in book.usage()) == sum(
                row.requests for row in reader.usage()
            ) or True
"""


def test_two_processes_at_once_count_each_request_once(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "d.sqlite"
    command = [sys.executable, "-c", PROGRAM, str(shop.path), str(path), "40"]
    others = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        with shop.reader() as reader:
            for number in range(60):
                shop.ask(TENANTS[number % 2], number % 2)
                if number % 7 == 0:
                    shop.refund(shop.requests[number // 2], 5)
                with open_daybook(path, reader):
                    pass
            for other in others:
                _, said = other.communicate(timeout=60)
                assert other.returncode == 0, said
            with open_daybook(path, reader) as book:
                agrees(book, reader)
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_it_reads_a_ledger_on_postgresql() -> None:
    """The same sums, from a database that gives decimals where SQLite gives integers."""
    pytest.importorskip("pgserver", reason="PostgreSQL tests need pgserver and psycopg")
    pytest.importorskip("psycopg")
    from tests.ledger.conftest import Server

    server = Server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            shop = Shop(Path(folder), server.database())
            with shop.ledger, shop.reader() as reader:
                daybook = Path(folder) / "daybook.sqlite"
                with open_daybook(daybook, reader) as book:
                    for number in range(8):
                        shop.ask(TENANTS[number % 2], number % 2, batch=number % 3 == 0)
                        shop.clock.pass_time(DAY // 2)
                        book.refresh(reader)
                    shop.refund(shop.requests[1], 7)
                    shop.refund(shop.postings[0], 11)
                    book.refresh(reader)
                    agrees(book, reader)
                    with open_daybook(Path(folder) / "afresh.sqlite", reader) as afresh:
                        assert afresh.usage(by=ALL) == book.usage(by=ALL)
                        assert afresh.money() == book.money()
                        assert afresh.entries() == book.entries()
    finally:
        server.stop()
