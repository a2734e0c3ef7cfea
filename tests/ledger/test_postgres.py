"""What a shared database can suffer: other gateways, a killed server, a lost reply, silence."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from avocado.ledger import errors
from avocado.ledger import operation as o
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.reader import open_reader as open_book
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk, Server, Workers

    DeskOn = Callable[[str], Desk]

SECOND = 10**9
SILENCE = 10 * SECOND
SHEET = PriceSheet(200_000_000, 800_000_000, cached=50_000_000)
CEILING = 100 * 200 + 500 * 800


class Wire(threading.Thread):
    """A proxy between a ledger and its server that can be cut, or swallow the reply to a COMMIT."""

    def __init__(self, real: str) -> None:
        super().__init__(daemon=True)
        self._real = real
        self.folder = Path(tempfile.mkdtemp(prefix="avocado-wire-"))
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.folder / ".s.PGSQL.5432"))
        self._server.listen()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.refuse = False
        self.mute = False
        self.cut_after_commit = False
        self.cuts = 0

    def run(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self.refuse:
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(f"{self._real}/.s.PGSQL.5432")
            self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, asking: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not asking and self.cut_after_commit and b"COMMIT\0" in data:
                    self.cut_after_commit = False
                    self.cuts += 1
                    self.cut()
                    return
                while self.mute:
                    time.sleep(0.01)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for near, far in pairs:
            for end in (near, far):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def uri(self, uri: str) -> str:
        return uri.replace(self._real, str(self.folder))


@pytest.fixture
def address(server: Server) -> str:
    return server.database()


def prepare(ledger: Ledger, money: int) -> None:
    ledger.do_now(o.PublishPrice(terms=SHEET.terms()))
    ledger.do_now(o.OpenCustomer(tenant="acme", name="Acme"))
    ledger.do_now(o.Deposit(id="d", tenant="acme", amount=money, currency="USD"))


def request(id_: str) -> o.Hold:
    return o.Hold(
        id=id_,
        tenant="acme",
        offer="avocado-1",
        release="release-1",
        price_version=SHEET.version,
        prompt_tokens=100,
        max_tokens=500,
    )


_RUSH = """
import asyncio, sys
from avocado.ledger import operation as o
from avocado.ledger.ledger import open_ledger
async def rush(ledger, name):
    asks = [ledger.hold(o.Hold(id=f"{name}-{n}", tenant="acme", offer="avocado-1",
        release="release-1", price_version=sys.argv[2], prompt_tokens=100, max_tokens=500))
        for n in range(500)]
    return await asyncio.gather(*asks, return_exceptions=True)
ledger = open_ledger(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
answers = asyncio.run(rush(ledger, sys.argv[3]))
print(sum(isinstance(a, o.Held) for a in answers),
      sum(getattr(a, "code", "") == "insufficient_funds" for a in answers), flush=True)
sys.stdin.readline()
ledger.close()
"""


def test_fault_08_two_processes_with_money_for_ten_admit_ten(address: str, desk_on: DeskOn) -> None:
    desk = desk_on(address)
    desk.setup(money=10 * CEILING + CEILING - 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RUSH, address, desk.sheet.version, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline().split() for process in processes if process.stdout]
    held, refused = (sum(int(answer[n]) for answer in answers) for n in (0, 1))
    for process in processes:
        process.communicate("stop\n", timeout=30)
    assert (held, refused) == (10, 990)
    assert desk.broken() == []


def test_two_gateways_share_one_gapless_book(address: str, workers: Workers) -> None:
    processes = [workers.start(address, name, requests=20) for name in ("a", "b", "c")]
    lines: list[str] = []
    for process in processes:
        out, problems = process.communicate(timeout=120)
        assert process.returncode == 0, problems
        lines += out.splitlines(keepends=True)
    assert sum(line.startswith("held") for line in lines) == 3 * 16 * 20
    assert workers.check(address, lines) == (0, 0)


def test_fault_11_a_lost_commit_reply_is_resolved_by_id(address: str, server: Server) -> None:
    wire = Wire(str(server.folder))
    wire.start()
    with open_ledger(wire.uri(address)) as ledger:
        prepare(ledger, 10 * CEILING)
        for number in range(3):
            wire.cut_after_commit = True
            held = ledger.do_now(request(f"r{number}"))
            wire.cut_after_commit = True
            settled = ledger.do_now(o.Settle(hold=f"r{number}", usage=Usage(100, 200)))
            assert held.replayed
            assert settled.replayed
        assert wire.cuts == 6
        with open_book(address) as reader:
            assert len(list(reader.charges("acme"))) == 3
            assert reader.balance("acme").available == 10 * CEILING - 3 * (20_000 + 160_000)


def test_fault_12_a_database_that_is_away_is_said_within_a_second(
    address: str, server: Server
) -> None:
    wire = Wire(str(server.folder))
    wire.start()
    with open_ledger(wire.uri(address)) as ledger:
        prepare(ledger, 10 * CEILING)
        wire.refuse = True
        wire.cut()
        for number in range(3):
            begun = time.monotonic()
            with pytest.raises(errors.LedgerUnavailable):
                ledger.do_now(request(f"away-{number}"))
            assert time.monotonic() - begun < 1
        wire.refuse = False
        _eventually(lambda: ledger.down is None)
        ledger.do_now(request("back"))


def test_fault_12_a_database_that_falls_silent_is_said_too(address: str, server: Server) -> None:
    wire = Wire(str(server.folder))
    wire.start()
    with open_ledger(wire.uri(address)) as ledger:
        prepare(ledger, 10 * CEILING)
        wire.mute = True
        waiting = [ledger.submit(request(f"silent-{number}")) for number in range(5)]
        begun = time.monotonic()
        for future in waiting:
            with pytest.raises(errors.LedgerUnavailable):
                future.result(timeout=5)
        assert time.monotonic() - begun < 2
        with pytest.raises(errors.LedgerUnavailable):
            ledger.do_now(request("refused at once"))
        wire.mute = False
        _eventually(lambda: _works(ledger, "after"))
        again = ledger.do_now(request("silent-0"))  # its commit stood, or stands now
        assert isinstance(again, o.Held)


def _works(ledger: Ledger, id_: str) -> bool:
    try:
        ledger.do_now(request(id_))
    except errors.LedgerUnavailable:
        return False
    return True


def _eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def test_two_processes_use_each_included_token_once(address: str, desk_on: DeskOn) -> None:
    desk = desk_on(address)
    desk.setup()
    desk.do(o.Allow(id="plan", tenant="acme", tokens=600 * 10 + 599))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RUSH, address, desk.sheet.version, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [
        [int(number) for number in process.stdout.readline().split()]  # type: ignore[union-attr]
        for process in processes
    ]
    assert sum(held for held, _ in counts) == 10
    assert sum(refused for _, refused in counts) == 990
    with open_book(address) as reader:
        (lot,) = reader.allowances("acme")
    assert (lot.left, lot.reserved) == (599, 600 * 10)
    for process in processes:
        process.communicate("\n", timeout=60)
    assert desk.broken() == []


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_server_killed_and_started_again_under_load_loses_nothing(
    new_server: Callable[[], Server], workers: Workers, kills: int
) -> None:
    server = new_server()
    try:
        address = server.database()
        process = workers.start(address, "a", requests=20 * kills)
        assert process.stdout is not None
        lines = []
        for _ in range(kills):
            lines += [process.stdout.readline() for _ in range(200)]
            server.kill()
            server.start()
        lines += workers.rest(process)
        assert process.returncode == 0, lines[-3:]
        assert sum(line.startswith("held") for line in lines) == 16 * 20 * kills
        assert not any(line.startswith("refused") for line in lines)
        assert workers.check(address, lines) == (0, 0)
    finally:
        server.stop()


def test_a_silent_process_is_fenced_and_its_holds_recovered(address: str, desk_on: DeskOn) -> None:
    alive, silent = desk_on(address), desk_on(address)
    alive.setup(money=10**8)
    silent.hold("quiet")
    silent.hold("streaming")
    silent.do(o.Progress(hold="streaming", usage=Usage(100, 20)))
    alive.hold("mine")
    store = silent.ledger._writer._store
    beat = store.beat
    store.beat = lambda: None  # type: ignore[method-assign]
    for _ in range(4):
        alive.clock.pass_time(SILENCE // 2)
        alive.deposit(1)
        alive.deposit(1)
    _eventually(lambda: _state(address, "quiet") == "voided")
    with open_book(address) as reader:
        assert _state(address, "streaming") == "settled"
        assert _state(address, "mine") == "open"
        assert [charge.finish for charge in reader.charges("acme")] == ["recovered"]
    store.beat = beat  # type: ignore[method-assign]
    with pytest.raises(errors.Fenced):
        silent.do(o.Settle(hold="quiet", usage=Usage(100, 20)))
    with pytest.raises(errors.Fenced):
        silent.hold("another")
    alive.settle("mine")
    assert alive.broken() == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_living_process_is_never_taken_for_dead(
    address: str, desk_on: DeskOn, hours: int
) -> None:
    first, second = desk_on(address), desk_on(address)
    first.setup(money=10**8)
    first.hold("mine")
    for _ in range(12):
        first.clock.step(hours * 3600 * SECOND)
        for desk in (first, second):
            desk.clock.pass_time(SECOND)
            desk.deposit(1)
            desk.do(o.Progress(hold="nothing", usage=Usage()))
    assert _state(address, "mine") == "open"
    first.settle("mine")
    assert first.broken() == []


def _state(address: str, id_: str) -> str:
    with open_book(address) as reader:
        row = reader.hold(id_)
        return row.state if row else "unknown"


@pytest.mark.parametrize("setting", ["synchronous_commit=off", "synchronous_commit=local"])
def test_a_server_that_may_lose_commits_is_refused(address: str, setting: str) -> None:
    import psycopg

    name, value = setting.split("=")
    with psycopg.connect(address, autocommit=True) as db:
        db.execute(f"ALTER DATABASE book SET {name} = {value}".encode())
    try:
        with pytest.raises(errors.UnsafeLibrary, match=name):
            open_ledger(address)
    finally:
        with psycopg.connect(address, autocommit=True) as db:
            db.execute(f"ALTER DATABASE book RESET {name}".encode())


def test_a_database_without_a_book_is_not_read(server: Server) -> None:
    with pytest.raises(errors.LedgerUnavailable):
        open_book(server.database("empty"))
    with pytest.raises(errors.LedgerUnavailable):
        open_ledger("postgresql://postgres@/book?host=/nowhere")
