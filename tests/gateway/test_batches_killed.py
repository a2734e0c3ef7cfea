"""SIGKILL of real servers while they run a batch: every line has one charge and its answer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from avocado.gateway.keys import NewKey, mint
from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import AddKey, Deposit, OpenCustomer
from avocado.ledger.proof import prove
from avocado.ledger.reader import open_reader
from tests.gateway.test_batches import CHAT, ENDED, lines, request, results, upload
from tests.gateway.test_postgres import PEPPER, Pair, uri

__all__ = ["uri"]
DEPOSIT = 10**12
POINTS = (
    "after_settle_commit",
    "before_settle_commit",
    "after_hold_commit",
    "after_delivery",
    "before_commit",
)
REPLY = "one two three"


class Server:
    """One real server process over ``folder``; ``failpoint`` kills it from inside."""

    def __init__(self, folder: Path, failpoint: str = "", delay: float = 0.02) -> None:
        self.child = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).parent / "serving.py"),
                str(folder),
                *("0", REPLY, str(delay), "20"),
            ],
            env=os.environ | ({"AVOCADO_FAILPOINT": failpoint} if failpoint else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()

    def client(self, key: NewKey) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key.text, max_retries=0)

    def killed(self, seconds: float) -> bool:
        """Whether it died by itself in time."""
        try:
            return self.child.wait(seconds) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False

    def kill(self) -> None:
        self.child.kill()
        self.child.communicate()


def open_shop(target: Path | str, tenant: str = "acme") -> NewKey:
    key = mint(PEPPER)
    with open_ledger(target) as ledger:
        ledger.do_now(OpenCustomer(tenant=tenant, name=tenant))
        ledger.do_now(Deposit(id=f"d-{tenant}", tenant=tenant, amount=DEPOSIT, currency="USD"))
        ledger.do_now(AddKey(key_id=key.id, tenant=tenant, name="k", digest=key.digest, created=1))
    return key


def until_ended(client: openai.OpenAI, batch: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while (found := client.batches.retrieve(batch)).status not in ENDED:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def check(target: Path | str, client: openai.OpenAI, batch: Any, count: int, tenant: str) -> None:
    """Every line was answered, in order; every answer has its own charge, and there is no other."""
    assert (batch.status, batch.request_counts.completed) == ("completed", count)
    answers = results(client, batch.output_file_id)
    assert [line["custom_id"] for line in answers] == [f"x{n}" for n in range(count)]
    told = {}
    for line in answers:
        body = line["response"]["body"]
        assert body["choices"][0]["message"]["content"] == REPLY
        told[line["response"]["request_id"]] = round(body["usage"]["cost"] * 10**9)
    with open_reader(target) as book:
        charges = {charge.request: charge.charge for charge in book.charges(tenant)}
        assert told == charges
        assert len(charges) == count
        keys = [book.hold(name) for name in charges]
        assert len({row.idempotency_key for row in keys if row}) == count
        assert all(row.batch for row in keys if row)
        bad = [each for each in prove(book, time.time_ns()) if not each.ok]
        assert not bad, bad
        assert [hold for hold in book.open_holds() if hold.tenant == tenant] == []
        assert book.balance(tenant).available == DEPOSIT - sum(charges.values())


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, NewKey]:
    return tmp_path, open_shop(tmp_path / "ledger.sqlite")


def kill_again_and_again(
    folder: Path, key: NewKey, count: int, deaths: list[str], delay: float = 0.02
) -> int:
    """Runs one batch through servers that die at ``deaths``, fail points or seconds; returns how
    many of them did."""
    server = Server(folder)
    client = server.client(key)
    file = upload(client, lines(*(request(f"x{n}") for n in range(count))))
    server.kill()
    batch, died = "", 0
    for death in deaths:
        point = death if ":" in death else ""
        server = Server(folder, point, delay)
        try:
            if not batch and server.url:
                made = server.client(key).batches.create(
                    input_file_id=file, endpoint=CHAT, completion_window="24h"
                )
                batch = made.id
        except (openai.APIConnectionError, httpx.TransportError):
            pass  # killed over it: it may be there or not
        if point:
            died += server.killed(5)
        else:
            time.sleep(float(death))
            died += 1
        server.kill()
        if not batch:
            batch = _only_batch(folder)
    server = Server(folder)
    client = server.client(key)
    try:
        batch = (
            batch
            or client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h").id
        )
        ended = until_ended(client, batch, 240)
        check(folder / "ledger.sqlite", client, ended, count, "acme")
        server.child.send_signal(signal.SIGTERM)
        assert server.child.wait(20) == 0
    finally:
        server.kill()
    return died


def _only_batch(folder: Path) -> str:
    from avocado.gateway.shelf import open_database

    database = open_database(folder / "files.sqlite")
    rows = database.run("SELECT id FROM gateway_batch")
    database.close()
    return str(rows[0][0]) if rows else ""


def test_fault_02_a_killed_batch_goes_on_and_pays_once(shop: tuple[Path, NewKey]) -> None:
    deaths = [f"{point}:{number}" for number, point in enumerate(POINTS[:3], 2)]
    assert kill_again_and_again(*shop, 150, [*deaths, "0.05"]) == 4


@pytest.mark.slow
def test_forty_kills_of_one_batch(shop: tuple[Path, NewKey], capsys: Any) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    deaths = [
        f"{POINTS[number % 5]}:{chance.randrange(2, 25)}"
        if number % 3
        else f"{chance.uniform(0.05, 0.8):.2f}"
        for number in range(40)
    ]
    died = kill_again_and_again(*shop, 3000, deaths, 0.1)
    with capsys.disabled():
        print(f"\n{died} kills, 3000 lines, 3000 charges and answers, seed {seed}")
    assert died > 20


def test_two_gateways_and_one_batch_that_its_runner_leaves(uri: str, tmp_path: Path) -> None:
    """One of two servers on PostgreSQL runs the batch; it is killed, and the other takes over."""
    pair = Pair(uri, tmp_path, reply=REPLY, delay=0.02)
    key = open_shop(uri, "batcher")
    clients = [
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key.text, max_retries=0)
        for port in pair.ports
    ]
    file = upload(clients[0], lines(*(request(f"x{n}") for n in range(150))))
    batch = clients[1].batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
    end = time.monotonic() + 20
    while not (batch.request_counts and batch.request_counts.completed > 10):
        assert time.monotonic() < end, batch
        time.sleep(0.01)
        batch = clients[0].batches.retrieve(batch.id)
    runner = _runner(tmp_path)
    pair.children[runner].kill()
    pair.children[runner].wait()
    left = clients[1 - runner]
    ended = until_ended(left, batch.id, 60)
    check(uri, left, ended, 150, "batcher")
    assert _runner(tmp_path) == 1 - runner, "the other went on"
    pair.children[1 - runner].send_signal(signal.SIGTERM)
    assert pair.children[1 - runner].wait(30) == 0


def _runner(folder: Path) -> int:
    """Which server's log has lines of the batch, the latest if both have."""
    latest: dict[int, float] = {}
    end = time.monotonic() + 10
    while not latest:
        assert time.monotonic() < end
        for place, name in enumerate("ab"):
            path = folder / name / "requests.log"
            told = [json.loads(line) for line in path.read_text().splitlines()]
            times = [each["time"] for each in told if each["path"] == CHAT]
            if times:
                latest[place] = max(times)
        time.sleep(0.05)
    return max(latest, key=lambda place: latest[place])
