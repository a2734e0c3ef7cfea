"""A desk to test at: an open book with a customer, a key and a price, on either store."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from avocado.ledger import operation as o
from avocado.ledger import proof
from avocado.ledger.clock import ManualClock
from avocado.ledger.errors import LedgerError
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.reader import Reader, open_reader
from avocado.ledger.rows import TABLES
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

T = TypeVar("T")
SHEET = PriceSheet(prompt=200_000_000, completion=800_000_000, cached=50_000_000)
CEILING = 100 * 200 + 500 * 800  # nano-units, of the hold that ``desk.hold`` makes
_NUMBERS = itertools.count()


class Desk:
    """An open ledger on a manual clock, and short ways to ask it things."""

    def __init__(self, target: Path | str) -> None:
        self.target = target
        self._home = target.parent if isinstance(target, Path) else Path()
        self.clock = ManualClock()
        self.sheet = SHEET
        self.ledger = open_ledger(target, self.clock)
        self._numbers = _NUMBERS

    def do(self, operation: o.AnyOperation) -> Any:
        return self.ledger.do_now(operation)

    def refused(self, operation: o.AnyOperation) -> LedgerError:
        """The refusal that the operation must meet."""
        with pytest.raises(LedgerError) as caught:
            self.ledger.do_now(operation)
        return caught.value

    def setup(self, money: int = 0, tenant: str = "acme", credit_limit: int = 0) -> None:
        self.do(o.PublishPrice(terms=self.sheet.terms()))
        self.do(o.OpenCustomer(tenant=tenant, name="Acme Ltd", credit_limit=credit_limit))
        digest = f"{tenant:>064}"
        self.do(o.AddKey(key_id=f"key-{tenant}", tenant=tenant, name="k", digest=digest, created=1))
        if money:
            self.deposit(money, tenant)

    def deposit(self, amount: int, tenant: str = "acme") -> o.Posted:
        number = next(self._numbers)
        posted: o.Posted = self.do(
            o.Deposit(id=f"dep-{number}", tenant=tenant, amount=amount, currency="USD")
        )
        return posted

    def request(self, id_: str | None = None, tenant: str = "acme", **changes: Any) -> o.Hold:
        terms: dict[str, Any] = {
            "offer": "avocado-1",
            "release": "release-1",
            "price_version": self.sheet.version,
            "prompt_tokens": 100,
            "max_tokens": 500,
            "key_id": f"key-{tenant}",
        }
        return o.Hold(id=id_ or f"req-{next(self._numbers)}", tenant=tenant, **(terms | changes))

    def hold(self, id_: str | None = None, tenant: str = "acme", **changes: Any) -> o.Held:
        held: o.Held = self.do(self.request(id_, tenant, **changes))
        return held

    def settle(self, hold: str, prompt: int = 100, completion: int = 200) -> o.Settled:
        settled: o.Settled = self.do(o.Settle(hold=hold, usage=Usage(prompt, completion)))
        return settled

    @property
    def reader(self) -> Reader:
        return open_reader(self.target)

    def available(self, tenant: str = "acme") -> int:
        with self.reader as reader:
            return reader.balance(tenant).available

    def broken(self, deep: bool = True) -> list[proof.Check]:
        """The invariants that do not hold; all ten are checked."""
        with self.reader as reader:
            checks = proof.prove(reader, self.clock.now(), deep)
        assert [check.number for check in checks] == list(range(1, 11))
        return [check for check in checks if not check.ok]

    def reopen(self) -> Ledger:
        """A clean stop and start."""
        self.ledger.close()
        self.ledger = open_ledger(self.target, self.clock)
        return self.ledger

    def crash(self) -> Ledger:
        """The process dies: what is durable now is all that the next one finds."""
        if isinstance(self.target, Path):
            after = self._home / f"after-{next(self._numbers)}"
            after.mkdir()
            for name in (self.target.name, f"{self.target.name}-wal"):
                shutil.copy(self.target.with_name(name), after / name)
            self.ledger.close()
            self.target = after / self.target.name
        else:
            self._die_silently(self.target)
        self.ledger = open_ledger(self.target, self.clock)
        return self.ledger

    def _die_silently(self, uri: str) -> None:
        """Cuts the process off, and says for it that its silence was noticed."""
        import psycopg

        with psycopg.connect(uri, autocommit=True) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            db.execute("UPDATE epoch SET ended = 'test' WHERE ended IS NULL")
        self.ledger.close()

    def close(self) -> None:
        self.ledger.close()


class Server:
    """A PostgreSQL of our own, which can be killed and started again."""

    def __init__(self) -> None:
        import pgserver

        self.folder = Path(tempfile.mkdtemp(prefix="avocado-pg-"))
        self._server = pgserver.get_server(self.folder)
        self._made: set[str] = set()

    def database(self, name: str = "book") -> str:
        """The address of an empty database. The same name again is emptied, which is cheap."""
        import psycopg

        uri: str = self._server.get_uri(database=name)
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            if name not in self._made:
                self._made.add(name)
                db.execute(f"CREATE DATABASE {name}".encode())
                return uri
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
        with psycopg.connect(uri) as db:
            if db.execute("SELECT to_regclass('head') IS NULL").fetchone() == (False,):
                for table in ("apikey", *TABLES.values(), "journal", "epoch"):
                    db.execute(f"DELETE FROM {table}".encode())
                db.execute("UPDATE head SET seq = 0, hash = decode(repeat('00', 32), 'hex')")
        return uri

    def kill(self) -> None:
        """SIGKILL to the server and its children, as when the machine stops."""
        import psutil  # type: ignore[import-untyped]

        file = self.folder / "postmaster.pid"
        if not file.exists():
            return
        server = psutil.Process(int(file.read_text().split()[0]))
        family = [server, *server.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family[1:], timeout=5)
        file.unlink(missing_ok=True)

    def start(self) -> None:
        """Starts it again; it replays its log."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self._server.ensure_postgres_running()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        """For good; an orderly stop would write everything out first, for nobody."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One PostgreSQL for the whole session; each test gets its own database in it."""
    pytest.importorskip("pgserver", reason="PostgreSQL tests need pgserver and psycopg")
    pytest.importorskip("psycopg")
    server = Server()
    yield server
    server.stop()


class Workers:
    """Starts processes under load (``worker.py``) and checks what they leave behind."""

    program = Path(__file__).with_name("worker.py")

    @staticmethod
    def start(
        target: Path | str, name: str, failpoint: str = "", callers: int = 16, requests: int = 40
    ) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            str(Workers.program),
            str(target),
            name,
            str(callers),
            str(requests),
        ]
        environment = os.environ | {"AVOCADO_FAILPOINT": failpoint}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    @staticmethod
    def rest(process: subprocess.Popen[str]) -> list[str]:
        """The lines to the end, when some were read already: ``communicate`` would skip those that
        wait in the buffer."""
        assert process.stdout is not None
        lines = process.stdout.readlines()
        process.wait(timeout=60)
        return lines

    @staticmethod
    def lost(reader: Reader, lines: Iterable[str]) -> list[str]:
        """The acknowledged lines that the book does not bear out. A cut last line was not said."""
        missing = []
        for line in lines:
            verb, _, rest = line.rstrip("\n").partition(" ")
            if verb not in ("held", "settled", "voided"):
                continue
            id_, _, charge = rest.partition(" ")
            row = reader.hold(id_)
            there = row is not None and (
                verb == "held"
                or (verb == "voided" and row.state == "voided")
                or (verb == "settled" and row.state == "settled" and str(row.charge) == charge)
            )
            if not there:
                missing.append(line)
        return missing

    def check(self, target: Path | str, lines: list[str]) -> tuple[int, int]:
        """Opens the book after a death, proves it, and returns what recovery did."""
        with open_ledger(target) as ledger:
            recovery = ledger.recovery
        with open_reader(target) as reader:
            broken = [
                item for item in proof.prove(reader, time.time_ns(), deep=True) if not item.ok
            ]
            assert broken == []
            assert self.lost(reader, lines) == []
            assert reader.open_holds() == []
            tenants = [customer.tenant for customer in reader.customers()]
            assert all(reader.balance(tenant).available >= 0 for tenant in tenants)
        return recovery.settled, recovery.voided


@pytest.fixture
def new_server(server: Server) -> Callable[[], Server]:
    """Makes a server that may be killed; whoever makes one stops it."""
    return type(server)


@pytest.fixture
def desk_on() -> Iterator[Callable[[Path | str], Desk]]:
    """Opens desks on a given book, and closes them in the end."""
    desks: list[Desk] = []

    def make(target: Path | str) -> Desk:
        desks.append(Desk(target))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty book may be made, on each store in turn."""
    if request.param == "sqlite":
        return tmp_path / "book.db"
    database: str = request.getfixturevalue("server").database()
    return database


@pytest.fixture
def desk(target: Path | str) -> Iterator[Desk]:
    """A desk on each store in turn."""
    desk = Desk(target)
    yield desk
    desk.close()


@pytest.fixture(params=["sqlite", "postgres"])
def new_desk(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Desk]:
    """Makes desks on empty books, on each store in turn; whoever makes one closes it."""
    numbers = itertools.count()

    def make() -> Desk:
        if request.param == "sqlite":
            folder = tmp_path / f"desk-{next(numbers)}"
            folder.mkdir()
            return Desk(folder / "book.db")
        return Desk(request.getfixturevalue("server").database())

    return make


@pytest.fixture
def file_desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk on SQLite, for what concerns the file."""
    desk = Desk(tmp_path / "book.db")
    yield desk
    desk.close()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine on a fresh event loop."""
    return asyncio.run
