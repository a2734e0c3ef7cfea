"""Hot swap, canary, roll-back: in a real process under load, and no request is dropped."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.data.chat import Chat
from avocado.engine.engine import Engine
from avocado.engine.scripted import ScriptedEngine
from avocado.errors import Refused
from avocado.gateway.admin import AdminClient, AdminRefused
from avocado.gateway.keys import NewKey, mint
from avocado.gateway.surface import Raw
from avocado.gateway.swap import Canary, Floor, Lineup, Swapper, drawn
from avocado.ledger.operation import AddKey, Deposit, OpenCustomer
from avocado.ledger.proof import prove
from avocado.ledger.reader import open_reader
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet

PEPPER = b"a pepper of thirty-two bytes....."
MESSAGES: Any = [{"role": "user", "content": "hi"}]


class Shop:
    """A server process whose lineup lies in a file."""

    def __init__(self, folder: Path, delay: float) -> None:
        self.folder = folder
        self.declare("a")
        command = [sys.executable, str(Path(__file__).parent / "serving.py")]
        self.child = subprocess.Popen(
            [*command, str(folder), "0", "unused", str(delay), "20"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()
        self.key = self._customer()
        self.client = openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key.text, max_retries=0, timeout=30
        )

    def _customer(self, tenant: str = "acme") -> NewKey:
        key = mint(PEPPER)
        with AdminClient(self.folder / "admin.sock") as admin:
            admin.submit(OpenCustomer(tenant=tenant, name=tenant))
            admin.submit(Deposit(id=f"d-{tenant}", tenant=tenant, amount=10**12, currency="USD"))
            admin.submit(
                AddKey(key_id=key.id, tenant=tenant, name="k", digest=key.digest, created=1)
            )
        return key

    def customer(self, tenant: str) -> openai.OpenAI:
        """Another customer's client."""
        return self.client.with_options(api_key=self._customer(tenant).text)

    def declare(
        self, current: str, canary: str | None = None, percent: int = 0, by: str = "customer"
    ) -> None:
        said = {"current": current, "canary": canary, "percent": percent, "by": by}
        (self.folder / "lineup.json").write_text(json.dumps(said))

    def refresh(self) -> Any:
        with AdminClient(self.folder / "admin.sock") as admin:
            return admin.refresh()

    def ask(self, messages: Any = MESSAGES, client: openai.OpenAI | None = None) -> str:
        """The letter of the version that answered, checked against a whole stream."""
        words, prints = "", set()
        for chunk in (client or self.client).chat.completions.create(
            model="avocado-1", messages=messages, stream=True
        ):
            words += chunk.choices[0].delta.content or ""
            prints.add(chunk.system_fingerprint)
        letters = words.split()
        assert prints == {f"release-{letters[0]}00000000000"}, "the answer names its release"
        assert len(letters) == 5, words
        assert len(set(letters)) == 1, "one request is answered by one version"
        return letters[0]

    def served(self) -> Counter[str]:
        """The ledger's charges by the letter of their release."""
        with open_reader(self.folder / "ledger.sqlite") as book:
            return Counter(
                charge.release[-1]
                for customer in book.customers()
                for charge in book.charges(customer.tenant)
            )


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path, delay=0.01)
    yield shop
    shop.child.send_signal(signal.SIGTERM)
    assert shop.child.wait(30) == 0
    with open_reader(tmp_path / "ledger.sqlite") as book:
        assert not [check for check in prove(book, time.time_ns()) if not check.ok]
        assert book.open_holds() == []


class Crowd:
    """Threads that ask without a pause."""

    def __init__(self, shop: Shop, size: int) -> None:
        self.seen: list[str] = []
        self.failures: list[Exception] = []
        self._shop = shop
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[n]) for n in range(size)]

    def _run(self, number: int) -> None:
        messages = [{"role": "user", "content": f"hi from {number}"}]
        while not self._stop.is_set():
            try:
                self.seen.append(self._shop.ask(messages))
            except Exception as error:
                self.failures.append(error)

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, letter: str, count: int = 1) -> None:
        end = time.monotonic() + 20
        while self.seen.count(letter) < count:
            assert time.monotonic() < end, f"{letter} did not serve: {self.failures[:1]}"
            time.sleep(0.01)


def test_a_new_version_goes_live_and_back_under_load_with_nothing_dropped(shop: Shop) -> None:
    with Crowd(shop, 8) as crowd:
        crowd.wait_for("a", 10)
        shop.declare("b")
        changed = shop.refresh()
        assert [each[-1] for each in changed.loaded] == ["b"]
        assert [each[-1] for each in changed.going] == ["a"]
        crowd.wait_for("b", 10)
        since = len(crowd.seen)
        crowd.wait_for("b", 30)
        assert "a" not in crowd.seen[since + 8 :], "the old version serves what it had begun"
        shop.declare("a")
        shop.refresh()
        before = crowd.seen.count("a")
        crowd.wait_for("a", before + 10)
    assert crowd.failures == []
    assert shop.served() == Counter(crowd.seen), "who served is who is billed"


def test_a_customer_stays_with_one_version_and_each_version_has_its_metrics(shop: Shop) -> None:
    canary = _release("b")
    clients = {name: shop.customer(name) for name in (f"customer-{n}" for n in range(12))}
    before: set[str] = set()
    seen: Counter[str] = Counter()
    for percent in (20, 50, 80):
        shop.declare("a", "b", percent)
        shop.refresh()
        met = {name: {shop.ask(client=each) for _ in range(2)} for name, each in clients.items()}
        moved = {name for name, letters in met.items() if letters == {"b"}}
        assert all(len(letters) == 1 for letters in met.values()), "one version a customer"
        assert moved == {name for name in clients if drawn(canary, percent, name)}
        assert before < moved, "a higher share takes more and lets none go"
        before = moved
        seen.update({"b": 2 * len(moved), "a": 2 * (len(clients) - len(moved))})
    import urllib.request

    text = urllib.request.urlopen(f"{shop.url}/metrics").read().decode()
    for letter, count in seen.items():
        release = f"release-{letter}00000000000"
        assert (
            f'avocado_requests_total{{model="avocado-1",release="{release}",status="200",'
            f'outcome="stop"}} {count}\n'
        ) in text
    assert shop.served() == seen
    shop.declare("a")
    shop.refresh()
    assert {shop.ask(client=clients[name]) for name in before} == {"a"}


def test_by_conversation_a_customer_meets_both_and_a_conversation_one(shop: Shop) -> None:
    shop.declare("a", "b", 50, "conversation")
    shop.refresh()
    met: Counter[str] = Counter()
    for number in range(12):
        first: Any = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": f"question {number}"},
        ]
        more = [{"role": "assistant", "content": "x"}, {"role": "user", "content": f"{number}?"}]
        letters = {shop.ask(first), shop.ask(first + more), shop.ask(first + more + more)}
        assert len(letters) == 1, "a conversation that goes on stays where it began"
        met.update(letters)
    assert set(met) == {"a", "b"}


def test_a_version_that_does_not_load_changes_nothing(shop: Shop) -> None:
    shop.declare("z")
    with pytest.raises(AdminRefused, match="does not load"):
        shop.refresh()
    assert shop.ask() == "a"


def test_fault_25_sigterm_in_the_middle_of_a_canary_and_a_swap_drains(tmp_path: Path) -> None:
    shop = Shop(tmp_path, delay=0.15)
    shop.declare("a", "b", 50, "conversation")
    shop.refresh()
    with Crowd(shop, 6) as crowd:
        time.sleep(0.4)
        shop.declare("c")
        shop.refresh()
        time.sleep(0.2)
        shop.child.send_signal(signal.SIGTERM)
        assert shop.child.wait(30) == 0
        crowd._stop.set()
    with open_reader(tmp_path / "ledger.sqlite") as book:
        assert not [check for check in prove(book, time.time_ns()) if not check.ok]
        assert book.open_holds() == []
    refused = [each for each in crowd.failures if isinstance(each, openai.InternalServerError)]
    lost = [each for each in crowd.failures if isinstance(each, openai.APIConnectionError)]
    assert len(refused) + len(lost) == len(crowd.failures)
    assert shop.served() == Counter(crowd.seen), "what had begun was finished and billed"


# -- the parts -------------------------------------------------------------------------------------


TENANTS = st.text(min_size=1, max_size=64)
CHAT = Chat(({"role": "user", "content": "hi"},))


@given(TENANTS, st.sampled_from(["customer", "conversation"]), st.text())
def test_more_percent_never_lets_anyone_go(tenant: str, by: Any, said: str) -> None:
    chat = Chat(({"role": "system", "content": "s"}, {"role": "user", "content": said}))
    taken = [Canary(_offer("b"), percent, by).takes(tenant, chat) for percent in range(101)]
    assert taken == sorted(taken), "once in, always in"
    assert (taken[0], taken[100]) == (False, True)


@given(TENANTS, st.lists(st.text(), max_size=3), st.integers(0, 100))
def test_a_conversation_that_goes_on_stays(tenant: str, later: list[str], percent: int) -> None:
    canary = Canary(_offer("b"), percent, "conversation")
    first = ({"role": "system", "content": "s"}, {"content": "first", "role": "user"})
    more = tuple({"role": role, "content": text} for text in later for role in ("tool", "user"))
    assert canary.takes(tenant, Chat(first)) == canary.takes(tenant, Chat(first + more))


@pytest.mark.parametrize("percent", [1, 5, 10, 33, 50, 90, 99])
@pytest.mark.parametrize("by", ["customer", "conversation"])
def test_the_share_is_near_the_percentage(percent: int, by: Any) -> None:
    """20,000 draws: five standard deviations. The draws are fixed, so this cannot flicker."""
    canary, many = Canary(_offer("b"), percent, by), 20_000
    if by == "customer":
        got = sum(canary.takes(f"customer-{n}", CHAT) for n in range(many))
    else:
        chats = (Chat(({"role": "user", "content": str(n)},)) for n in range(many))
        got = sum(canary.takes("acme", chat) for chat in chats)
    share = percent / 100
    assert abs(got - many * share) < 5 * (many * share * (1 - share)) ** 0.5


def test_another_release_or_name_draws_anew() -> None:
    names = [f"customer-{n}" for n in range(2000)]
    again = Offer("other", "release-b", PriceSheet(1, 1), 1)
    first = {name for name in names if drawn(_offer("b"), 50, name)}
    for offer in (_offer("c"), again):
        both = first & {name for name in names if drawn(offer, 50, name)}
        assert 400 < len(both) < 600, "a quarter, as of two independent draws"


def test_a_raw_text_goes_by_its_customer() -> None:
    canary = Canary(_offer("b"), 50, "conversation")
    for name in (f"customer-{n}" for n in range(20)):
        texts = {canary.takes(name, Raw((text,))) for text in ("a", "b", "c", "d")}
        assert texts == {drawn(_offer("b"), 50, name)}


def _release(letter: str) -> Offer:
    """As ``serving`` makes them."""
    return Offer("avocado-1", f"release-{letter}{'0' * 62}{letter}", PriceSheet(1, 1), 1)


def _offer(letter: str) -> Offer:
    return Offer("m", f"release-{letter}", PriceSheet(1, 1), 1)


class Shelves:
    """A stock of scripted engines that notes what it loads."""

    def __init__(self) -> None:
        self.lineup = Lineup(_offer("a"))
        self.loaded: list[str] = []

    def lineups(self) -> dict[str, Lineup]:
        return {"m": self.lineup}

    async def engine(self, release: str) -> Engine:
        self.loaded.append(release)
        return ScriptedEngine()


async def _nothing(offer: Offer) -> None: ...


def test_an_engine_closes_after_its_last_request_and_stays_if_it_is_wanted_again() -> None:
    async def go() -> None:
        floor, stock = Floor({}, {}), Shelves()
        swapper = Swapper(floor, stock, _nothing)
        await swapper.refresh()
        first = floor.engines["release-a"]
        floor.serving["release-a"] += 1
        stock.lineup = Lineup(_offer("b"))
        await swapper.refresh()
        await asyncio.sleep(0.3)
        assert "release-a" in floor.engines, "it still serves a request"
        stock.lineup = Lineup(_offer("a"))
        await swapper.refresh()
        assert stock.loaded == ["release-a", "release-b"], "it was there: nothing is loaded again"
        floor.serving["release-a"] -= 1
        await asyncio.sleep(0.5)
        assert floor.engines == {"release-a": first}
        await swapper.close()

    asyncio.run(go())


def test_a_price_that_cannot_be_published_changes_nothing() -> None:
    async def refuse(offer: Offer) -> None:
        if offer.release == "release-b":
            raise Refused("no")

    async def go() -> None:
        floor, stock = Floor({}, {}), Shelves()
        swapper = Swapper(floor, stock, refuse)
        await swapper.refresh()
        stock.lineup = Lineup(_offer("b"))
        with pytest.raises(Refused):
            await swapper.refresh()
        assert set(floor.engines) == {"release-a"}
        assert floor.offers["m"].release == "release-a"

    asyncio.run(go())
