"""A desk to test at: an open book with a customer, a key and a price, on either store."""

from __future__ import annotations

import asyncio
import itertools
import shutil
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
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

T = TypeVar("T")
SHEET = PriceSheet(prompt=200_000_000, completion=800_000_000, cached=50_000_000)
CEILING = 100 * 200 + 500 * 800  # nano-units, of the hold that ``desk.hold`` makes


class Desk:
    """An open ledger on a manual clock, and short ways to ask it things."""

    def __init__(self, target: Path | str) -> None:
        self.target = target
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
        """The process dies: what is on the disk now is all that the next one finds."""
        assert isinstance(self.target, Path)
        after = self.target.parent / f"after-{next(self._numbers)}"
        after.mkdir()
        for file in self.target.parent.glob(f"{self.target.name}*"):
            if file.suffix in (".db", ".db-wal") or file.name.endswith("-wal"):
                shutil.copy(file, after / file.name)
        self.ledger.close()
        self.target = after / self.target.name
        self.ledger = open_ledger(self.target, self.clock)
        return self.ledger

    def close(self) -> None:
        self.ledger.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk on SQLite."""
    desk = Desk(tmp_path / "book.db")
    yield desk
    desk.close()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine on a fresh event loop."""
    return asyncio.run
