"""Two real server processes on one PostgreSQL: one balance, one set of keys, one set of rates."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from avocado.gateway.access import change
from avocado.gateway.keys import NewKey, mint
from avocado.gateway.rates import FAILURES, MINUTE, Draw, SharedRates
from avocado.gateway.shelf import open_database
from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import AddKey, Deposit, OpenCustomer, RevokeKey
from avocado.ledger.proof import prove
from avocado.ledger.reader import open_reader
from tests.gateway.test_changes import many_at_once

PEPPER = b"a pepper of thirty-two bytes....."
DOLLAR = 1_000_000_000


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    """The address of an empty database, on a PostgreSQL of this module's own."""
    pgserver = pytest.importorskip("pgserver", reason="needs pgserver and psycopg")
    pytest.importorskip("psycopg")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path has to be short
    server = pgserver.get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


class Pair:
    """Two processes that share nothing but the database."""

    def __init__(self, uri: str, folder: Path, reply: str = "one two", delay: float = 0.02):
        self.uri = uri
        self.children = []
        self.ports = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            command = [sys.executable, str(Path(__file__).parent / "serving.py")]
            child = subprocess.Popen(
                [*command, str(folder / name), "0", reply, str(delay), "20", uri],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdout is not None
            self.ports.append(int(child.stdout.readline().strip().rpartition(":")[2]))
            self.children.append(child)

    def customer(self, tenant: str, money: int) -> NewKey:
        """A customer, made by a third process on the same book, as a command would."""
        key = mint(PEPPER)
        with open_ledger(self.uri) as ledger:
            ledger.do_now(OpenCustomer(tenant=tenant, name=tenant))
            if money:
                ledger.do_now(
                    Deposit(id=f"d-{tenant}", tenant=tenant, amount=money, currency="USD")
                )
            ledger.do_now(
                AddKey(key_id=key.id, tenant=tenant, name="k", digest=key.digest, created=1)
            )
        return key

    def ask(
        self, which: int, key: NewKey, headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, bytes, dict[str, str]]:
        link = http.client.HTTPConnection("127.0.0.1", self.ports[which % 2], timeout=60)
        messages = [{"role": "user", "content": "hi"}]
        body = json.dumps({"model": "avocado-1", "messages": messages, **more})
        given = {"Authorization": f"Bearer {key.text}", "Content-Type": "application/json"}
        try:
            link.request("POST", "/v1/chat/completions", body, given | (headers or {}))
            answer = link.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            link.close()

    def many(self, count: int, key: NewKey, **more: Any) -> list[tuple[int, bytes, dict[str, str]]]:
        """``count`` at once, over both."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda which: self.ask(which, key, **more), range(count)))

    def end(self) -> None:
        for child in self.children:
            child.send_signal(signal.SIGTERM)
        assert [child.wait(30) for child in self.children] == [0, 0]


@pytest.fixture
def pair(uri: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(uri, tmp_path)
    yield pair
    pair.end()
    with open_reader(uri) as book:
        bad = [check for check in prove(book, time.time_ns()) if not check.ok]
        assert not bad, bad
        assert book.open_holds() == []


def test_fault_08_hundred_at_once_over_two_servers_money_for_one(uri: str, tmp_path: Path) -> None:
    pair = Pair(uri, tmp_path, reply="a b c d e f", delay=1.0)  # none ends before all have asked
    key = pair.customer("one", 1_000 * 800 + 100_000)  # 1000 tokens, and a short prompt
    answers = pair.many(100, key, max_tokens=1000)
    assert Counter(status for status, _, _ in answers) == {200: 1, 402: 99}
    pair.end()
    with open_reader(uri) as book:
        assert len(list(book.charges("one"))) == 1
        assert book.balance("one").available >= 0
        assert not [check for check in prove(book, time.time_ns()) if not check.ok]


def test_fault_06_the_same_key_on_both_is_one_charge_and_one_answer(pair: Pair) -> None:
    key = pair.customer("same", DOLLAR)
    answers = pair.many(20, key, headers={"Idempotency-Key": "order-1"})
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, body, _ in answers}) == 1
    first = [headers for _, _, headers in answers if "idempotent-replayed" not in headers]
    assert len(first) == 1
    with open_reader(pair.uri) as book:
        assert len(list(book.charges("same"))) == 1


def test_a_rate_is_exact_over_both(pair: Pair) -> None:
    key = pair.customer("rate", DOLLAR)
    database = open_database(pair.uri)
    change(database, "customer:rate", "tester", requests_per_minute=10)
    database.close()
    answers = pair.many(40, key)
    statuses = Counter(status for status, _, _ in answers)
    assert statuses == {200: 10, 429: 30}
    left = sorted(
        int(headers["x-ratelimit-remaining-requests"])
        for status, _, headers in answers
        if status == 200
    )
    assert left == list(range(10))


def test_tokens_a_minute_are_exact_over_both(uri: str, tmp_path: Path) -> None:
    """Each takes its bound while it runs, wherever it landed, and gives back what it left."""
    pair = Pair(uri, tmp_path, reply="a b c", delay=1.0)  # none ends before all have asked
    probe = pair.customer("probe", DOLLAR)
    prompt = json.loads(pair.ask(0, probe, max_tokens=1)[1])["usage"]["prompt_tokens"]
    key = pair.customer("tokens", DOLLAR)
    bound, most = prompt + 1000, 5
    limit = most * bound + bound // 2
    database = open_database(pair.uri)
    change(database, "customer:tokens", "tester", tokens_per_minute=limit)
    database.close()
    answers = pair.many(30, key, max_tokens=1000)
    assert Counter(status for status, _, _ in answers) == {200: most, 429: 30 - most}
    lefts = {int(headers["x-ratelimit-remaining-tokens"]) for _, _, headers in answers}
    assert min(lefts) < bound
    used = sum(json.loads(body)["usage"]["total_tokens"] for code, body, _ in answers if code < 300)
    end = time.monotonic() + 10
    while True:
        status, _, headers = pair.ask(1, key, max_tokens=1)
        left = int(headers["x-ratelimit-remaining-tokens"])
        if left > limit - used - 3 * (prompt + 1):
            break
        assert time.monotonic() < end, "what was not used did not come back"
    assert (status, left <= limit) == (200, True)
    pair.end()


def test_wrong_keys_are_throttled_over_both(pair: Pair) -> None:
    """Twenty in a minute, wherever they land, and one a server that has not heard yet, then and
    each time that one more is due; whoever was right before goes on."""
    good = pair.customer("good", DOLLAR)
    assert [pair.ask(which, good)[0] for which in (0, 1)] == [200, 200]
    began = time.monotonic()
    statuses = []
    for which in range(60):
        statuses.append(pair.ask(which, mint(PEPPER))[0])
        time.sleep(0.03)  # a server answers in a millisecond, sooner than it hears of the other
    refilled = 1 + (time.monotonic() - began) / 3
    wrong = statuses.count(401)
    assert statuses.count(429) == 60 - wrong
    assert statuses[:20] == [401] * 20
    assert wrong <= 20 + 2 * refilled, "twenty each would be forty"
    assert [pair.ask(which, good)[0] for which in (0, 1)] == [200, 200]
    database = open_database(pair.uri)
    rows = "SELECT name, full_at FROM gateway_rate WHERE starts_with(name, 'failures/')"
    names = [name for name, _ in database.run(rows)]
    assert "failures/address 127.0.0.1" in names
    assert len(names) == wrong + 1
    database.close()


def test_who_failed_is_forgotten(uri: str) -> None:
    database = open_database(uri)
    database.run("DELETE FROM gateway_rate")

    async def go() -> None:
        rates = SharedRates(open_database(uri, durable=False))
        for number in range(5):
            await rates.draw([Draw(f"{FAILURES}key {number}", 20, 1)])
        database.run("UPDATE gateway_rate SET full_at = 1")
        await rates.draw([Draw(f"{FAILURES}key new", 20, 1)])
        rates.close()

    asyncio.run(go())
    assert database.run("SELECT name FROM gateway_rate") == [(f"{FAILURES}key new",)]
    database.close()


def test_a_policy_is_seen_by_both_within_a_second(pair: Pair) -> None:
    key = pair.customer("policy", DOLLAR)
    assert [pair.ask(which, key)[0] for which in (0, 1)] == [200, 200]
    database = open_database(pair.uri)
    change(database, f"key:{key.id}", "tester", scopes=("read",))
    time.sleep(1.2)
    assert [pair.ask(which, key)[0] for which in (0, 1)] == [403, 403]
    change(database, f"key:{key.id}", "tester", scopes=None, until=time.time_ns())
    database.close()
    time.sleep(1.2)
    assert [pair.ask(which, key)[0] for which in (0, 1)] == [401, 401]


def test_changes_of_policies_at_once_are_all_on_record(uri: str) -> None:
    database = open_database(uri)
    for table in ("change", "head", "policy"):
        database.run(f"DELETE FROM gateway_{table}")
    database.close()
    many_at_once(lambda: open_database(uri))


def test_a_revoked_key_is_refused_by_both_within_a_second(pair: Pair) -> None:
    key = pair.customer("revoked", DOLLAR)
    assert [pair.ask(which, key)[0] for which in (0, 1)] == [200, 200]
    with open_ledger(pair.uri) as ledger:
        ledger.do_now(RevokeKey(key_id=key.id))
    time.sleep(1.2)
    assert [pair.ask(which, key)[0] for which in (0, 1)] == [401, 401]


def test_one_server_dies_and_the_other_serves_and_recovers_its_holds(
    uri: str, tmp_path: Path
) -> None:
    pair = Pair(uri, tmp_path, reply="a b c d e f g h", delay=0.3)
    key = pair.customer("dies", DOLLAR)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(pair.ask, 0, key)
        end = time.monotonic() + 10
        with open_reader(uri) as book:
            while not [hold for hold in book.open_holds() if hold.tenant == "dies"]:
                assert time.monotonic() < end
                time.sleep(0.02)
        pair.children[0].kill()
        pair.children[0].wait()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            asked.result()
    assert pair.ask(1, key)[0] == 200
    end = time.monotonic() + 30
    with open_reader(uri) as book:
        while [hold for hold in book.open_holds() if hold.tenant == "dies"]:
            assert time.monotonic() < end, "the dead server's hold was not recovered"
            time.sleep(0.2)
        assert len(list(book.charges("dies"))) == 1, "who got nothing pays nothing"
    pair.children[1].send_signal(signal.SIGTERM)
    assert pair.children[1].wait(30) == 0


def test_shared_rates_decide_together_what_comes_together(uri: str) -> None:
    async def go() -> None:
        first = SharedRates(open_database(uri, durable=False))
        second = SharedRates(open_database(uri, durable=False))
        draws = [each.draw([Draw("t/x", 25, 1)]) for each in (first, second) for _ in range(50)]
        levels = [level for (level,) in await asyncio.gather(*draws)]
        assert sum(not level.wait for level in levels) == 25
        assert all(level.wait < MINUTE for level in levels)
        first.give_back([Draw("t/x", 25, -5)])
        await asyncio.sleep(0.2)
        again = await asyncio.gather(*(second.draw([Draw("t/x", 25, 1)]) for _ in range(10)))
        assert sum(not level.wait for (level,) in again) == 5
        first.close()
        second.close()

    asyncio.run(go())
