"""SIGKILL of the real server at named fail points, under load: nothing lost, double or negative.

Clients stream and ask plainly until the server dies under them. Whatever a client was told in full
must stand in the book, once, with the usage that it was told; the book must prove after each kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from avocado.gateway.keys import NewKey, mint
from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import AddKey, Deposit, OpenCustomer
from avocado.ledger.proof import prove
from avocado.ledger.reader import open_reader

PEPPER = b"a pepper of thirty-two bytes....."
DEPOSIT = 1_000_000_000_000
POINTS = (
    "before_commit",
    "after_commit",
    "after_delivery",
    "before_hold_commit",
    "after_hold_commit",
    "before_settle_commit",
    "after_settle_commit",
    "after_progress_commit",
)
CLIENTS = 12


@dataclass
class Shop:
    """One workspace's server, started and killed again and again. ``told``: request id → what a
    client was told in full: (prompt, completion, cost in nano-units)."""

    folder: Path
    key: NewKey = field(default_factory=lambda: mint(PEPPER))
    told: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def book(self) -> Path:
        return self.folder / "ledger.sqlite"

    def open(self) -> None:
        with open_ledger(self.book) as ledger:
            ledger.do_now(OpenCustomer(tenant="acme", name="Acme"))
            ledger.do_now(Deposit(id="d", tenant="acme", amount=DEPOSIT, currency="USD"))
            ledger.do_now(
                AddKey(
                    key_id=self.key.id, tenant="acme", name="k", digest=self.key.digest, created=1
                )
            )

    def kill_at(self, failpoint: str) -> None:
        """Serves under load until the fail point kills the server."""
        command = [sys.executable, str(Path(__file__).parent / "serving.py"), str(self.folder)]
        child = subprocess.Popen(
            [*command, "0", "one two three four five six", "0.02", "30"],
            env={**os.environ, "AVOCADO_FAILPOINT": failpoint},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout is not None
            url = child.stdout.readline().strip()
            if url:  # some points kill it while it still starts, which must be harmless too
                asyncio.run(self._load(url))
            assert child.wait(60) == -signal.SIGKILL
        finally:
            child.kill()
            child.communicate()

    async def _load(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {self.key.text}"}
        async with aiohttp.ClientSession(url, headers=headers) as session:
            await asyncio.gather(*(self._client(session, number) for number in range(CLIENTS)))

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        body: dict[str, Any] = {
            "model": "avocado-1",
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 20,
        }
        if number % 2:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                async with session.post("/v1/chat/completions", json=body) as reply:
                    text = (await reply.read()).decode()
            except (aiohttp.ClientError, ConnectionError):
                return
            assert reply.status in (200, 503), text
            if reply.status == 200 and (usage := _told(text)) is not None:
                cost = round(usage["cost"] * 1_000_000_000)
                counts = (usage["prompt_tokens"], usage["completion_tokens"], cost)
                self.told[reply.headers["x-request-id"]] = counts
        raise AssertionError("the fail point was not reached within a minute")

    def check(self) -> tuple[int, int]:
        """Recovers, proves and compares. Returns (charges, requests that a client was told of)."""
        with open_ledger(self.book), open_reader(self.book) as reader:
            bad = [check for check in prove(reader, time.time_ns(), deep=True) if not check.ok]
            assert not bad, bad
            assert reader.open_holds() == []
            charges = {each.request: each for each in reader.charges("acme")}
            for request, told in self.told.items():
                charge = charges[request]
                usage = charge.usage
                assert (usage.prompt, usage.completion, charge.charge) == told
            balance = reader.balance("acme")
            assert balance.available == DEPOSIT - sum(each.charge for each in charges.values()) >= 0
        return len(charges), len(self.told)


def _told(text: str) -> dict[str, Any] | None:
    """The usage of an answer that arrived in full, streamed or not."""
    if not text.startswith("data: "):
        usage: dict[str, Any] = json.loads(text)["usage"]
        return usage
    if not text.rstrip().endswith("data: [DONE]"):
        return None
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line[6:].startswith("{")]
    return next((event["usage"] for event in reversed(events) if event.get("usage")), None)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.open()
    yield made
    made.check()


def test_a_server_killed_at_each_fail_point_loses_nothing(shop: Shop) -> None:
    for point in POINTS:
        shop.kill_at(f"{point}:{random.randrange(3, 12)}")
    charged, told = shop.check()
    assert charged >= told > 0


@pytest.mark.slow
def test_two_hundred_kills_of_the_server(shop: Shop) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    for number in range(200):
        shop.kill_at(f"{POINTS[number % len(POINTS)]}:{chance.randrange(2, 80)}")
        if number % 20 == 19:
            shop.check()
    charged, told = shop.check()
    print(f"200 kills, {charged} charges, {told} answers told in full, 0 lost, seed {seed}")
