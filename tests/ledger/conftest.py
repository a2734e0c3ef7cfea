"""A desk to test at: an open book with a customer, a key and a price, on either store."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
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


class Desk:
    """An open ledger on a manual clock, and short ways to ask it things."""

    def __init__(self, target: Path | str) -> None:
        self.target = target
        self._home = target.parent if isinstance(target, Path) else Path()
        self.clock = ManualClock()
        self.sheet = SHEET
        self.ledger = open_ledger(target, self.clock)
        self._numbers = itertools.count()

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
        """SIGKILL to the server; its children notice and end."""
        pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

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
