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

from avocado.engine.engine import Engine
from avocado.engine.scripted import ScriptedEngine
from avocado.errors import Refused
from avocado.gateway.admin import AdminClient, AdminRefused
from avocado.gateway.keys import NewKey, mint
from avocado.gateway.swap import Canary, Floor, Lineup, Swapper
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

    def _customer(self) -> NewKey:
        key = mint(PEPPER)
        with AdminClient(self.folder / "admin.sock") as admin:
            admin.submit(OpenCustomer(tenant="acme", name="Acme"))
            admin.submit(Deposit(id="d", tenant="acme", amount=10**12, currency="USD"))
            admin.submit(
                AddKey(key_id=key.id, tenant="acme", name="k", digest=key.digest, created=1)
            )
        return key

    def declare(self, current: str, canary: str | None = None, percent: int = 0) -> None:
        said = {"current": current, "canary": canary, "percent": percent}
        (self.folder / "lineup.json").write_text(json.dumps(said))

    def refresh(self) -> Any:
        with AdminClient(self.folder / "admin.sock") as admin:
            return admin.refresh()

    def ask(self) -> str:
        """The letter of the version that answered, checked against a whole stream."""
        words = ""
        for chunk in self.client.chat.completions.create(
            model="avocado-1", messages=MESSAGES, stream=True
        ):
            words += chunk.choices[0].delta.content or ""
        letters = words.split()
        assert len(letters) == 5, words
        assert len(set(letters)) == 1, "one request is answered by one version"
        return letters[0]

    def served(self) -> Counter[str]:
        """The ledger's charges by the letter of their release."""
        with open_reader(self.folder / "ledger.sqlite") as book:
            return Counter(charge.release[-1] for charge in book.charges("acme"))


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
        self._threads = [threading.Thread(target=self._run) for _ in range(size)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.seen.append(self._shop.ask())
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


def test_a_canary_gets_exactly_its_share_and_its_own_metrics(shop: Shop) -> None:
    shop.declare("a", "b", 10)
    shop.refresh()
    seen = Counter(shop.ask() for _ in range(50))
    assert seen == {"a": 45, "b": 5}
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
    assert {shop.ask() for _ in range(20)} == {"a"}


def test_a_version_that_does_not_load_changes_nothing(shop: Shop) -> None:
    shop.declare("z")
    with pytest.raises(AdminRefused, match="does not load"):
        shop.refresh()
    assert shop.ask() == "a"


def test_fault_25_sigterm_in_the_middle_of_a_canary_and_a_swap_drains(tmp_path: Path) -> None:
    shop = Shop(tmp_path, delay=0.15)
    shop.declare("a", "b", 50)
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


@pytest.mark.parametrize("percent", [0, 1, 10, 33, 50, 99, 100])
def test_of_each_hundred_exactly_so_many(percent: int) -> None:
    canary = Canary(_offer("b"), percent)
    for _ in range(3):
        assert sum(canary.takes_next() for _ in range(100)) == percent


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
