"""The writer: bounded, patient with callers that leave, unmoved by operations that break."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from avocado.ledger import book, errors, holds
from avocado.ledger import operation as o
from avocado.ledger.ledger import Ledger
from avocado.ledger.sqlite import SqliteStore
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ledger.conftest import Desk

SECOND = 10**9


class Gate:
    """Holds a desk's writer inside its next commit until it is opened."""

    def __init__(self, desk: Desk) -> None:
        self._store = desk.ledger._writer._store
        self._commit = self._store.commit
        self._open = threading.Event()
        self.inside = threading.Event()
        self._store.commit = self._wait  # type: ignore[method-assign]

    def _wait(self) -> None:
        self.inside.set()
        assert self._open.wait(timeout=30)
        self._commit()

    def open(self) -> None:
        self._store.commit = self._commit  # type: ignore[method-assign]
        self._open.set()


def deposit(number: int) -> o.Deposit:
    return o.Deposit(id=f"gate-{number}", tenant="acme", amount=1, currency="USD")


def test_what_waits_is_committed_together(file_desk: Desk) -> None:
    file_desk.setup()
    gate = Gate(file_desk)
    futures = [file_desk.ledger.submit(deposit(0))]
    gate.inside.wait(timeout=10)
    futures += [file_desk.ledger.submit(deposit(number)) for number in range(1, 200)]
    before = file_desk.ledger.metrics.commits
    gate.open()
    assert [future.result(timeout=10).seq for future in futures] == list(range(4, 204))
    assert file_desk.ledger.metrics.commits == before + 2
    assert file_desk.ledger.metrics.operations == 203
    assert sum(file_desk.ledger.metrics.batches) == file_desk.ledger.metrics.commits


def test_a_full_queue_refuses_and_keeps_what_it_took(tmp_path: Path, file_desk: Desk) -> None:
    file_desk.setup()
    file_desk.ledger._writer._capacity = 10
    gate = Gate(file_desk)
    futures = [file_desk.ledger.submit(deposit(0))]
    gate.inside.wait(timeout=10)
    futures += [file_desk.ledger.submit(deposit(number)) for number in range(1, 11)]
    with pytest.raises(errors.LedgerFull):
        file_desk.ledger.submit(deposit(11))
    assert file_desk.ledger.metrics.refused_full == 1
    gate.open()
    assert all(future.result(timeout=10) for future in futures)
    assert file_desk.available() == 11


def test_nothing_is_answered_before_the_commit(file_desk: Desk) -> None:
    file_desk.setup()
    gate = Gate(file_desk)
    future = file_desk.ledger.submit(deposit(0))
    gate.inside.wait(timeout=10)
    time.sleep(0.05)
    assert not future.done()
    assert file_desk.available() == 0
    gate.open()
    future.result(timeout=10)
    assert file_desk.available() == 1


def test_a_caller_that_leaves_does_not_undo_its_operation(file_desk: Desk) -> None:
    file_desk.setup(money=10**9)

    async def leave() -> None:
        task = asyncio.ensure_future(file_desk.ledger.hold(file_desk.request("r1")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await file_desk.ledger.do(deposit(1))

    asyncio.run(leave())
    with file_desk.reader as reader:
        row = reader.hold("r1")
        assert row is not None
        assert row.state == "open"


def test_many_loops_and_threads_are_answered(file_desk: Desk) -> None:
    file_desk.setup()
    seen: list[int] = []

    def thread(start: int) -> None:
        async def ask() -> list[o.AnyResult]:
            return await asyncio.gather(
                *(file_desk.ledger.do(deposit(start + number)) for number in range(50))
            )

        seen.extend(result.seq for result in asyncio.run(ask()))

    threads = [threading.Thread(target=thread, args=(1000 * number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=30)
    assert sorted(seen) == list(range(4, 204))


def test_a_bug_hurts_only_the_operation_that_it_comes_with(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.setup(money=10**9)
    place = holds.place

    def broken(state: object, op: o.Hold, now: object) -> o.Held:
        if op.id == "poison":
            place(state, op, now)  # type: ignore[arg-type]
            raise ZeroDivisionError("a bug")
        return place(state, op, now)  # type: ignore[arg-type]

    monkeypatch.setitem(book._DECIDE, o.Hold, broken)  # type: ignore[misc]
    futures = [desk.ledger.submit(desk.request(id_)) for id_ in ("before", "poison", "after")]
    codes = [getattr(future.exception(timeout=20), "code", None) for future in futures]
    assert codes == [None, "ledger_error", None]
    with desk.reader as reader:
        assert reader.hold("poison") is None
    assert desk.broken() == []


def test_a_closed_ledger_says_so(file_desk: Desk) -> None:
    file_desk.setup()
    future = file_desk.ledger.submit(deposit(0))
    file_desk.ledger.close()
    assert future.result(timeout=1).seq == 4
    with pytest.raises(errors.LedgerClosed):
        file_desk.ledger.submit(deposit(1))
    file_desk.ledger.close()


def test_progress_is_durable_within_a_second_without_any_commit(file_desk: Desk) -> None:
    file_desk.setup(money=10**9)
    file_desk.hold("r1")
    for count in range(1, 6):
        file_desk.ledger.progress("r1", Usage(100, count))
    deadline = time.monotonic() + 5
    while _progress(file_desk) == Usage():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert _progress(file_desk) == Usage(100, 5)
    file_desk.do(o.Progress(hold="r1", usage=Usage(100, 3)))
    assert _progress(file_desk) == Usage(100, 5)


def _progress(desk: Desk) -> Usage:
    with desk.reader as reader:
        row = reader.hold("r1")
    assert row is not None
    return holds.progress_of(row)


def test_a_failed_commit_is_tried_once_more_and_then_said(file_desk: Desk) -> None:
    file_desk.setup()
    store = file_desk.ledger._writer._store
    commit = store.commit

    def failing() -> None:
        raise errors.LedgerUnavailable("no")

    store.commit = failing  # type: ignore[method-assign]
    with pytest.raises(errors.LedgerUnavailable):
        file_desk.do(deposit(0))
    with pytest.raises(errors.LedgerUnavailable):
        file_desk.do(deposit(1))
    store.commit = commit  # type: ignore[method-assign]
    _wait_until_up(file_desk.ledger)
    file_desk.do(deposit(2))
    assert file_desk.available() == 1
    assert file_desk.broken() == []


def _wait_until_up(ledger: Ledger) -> None:
    deadline = time.monotonic() + 10
    while ledger.down is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_guard_that_does_not_hold_stops_the_ledger(file_desk: Desk) -> None:
    """Somebody changed a balance behind the writer's back: nothing more is written."""
    file_desk.setup(money=10**9)
    store = file_desk.ledger._writer._store
    assert isinstance(store, SqliteStore)
    store._db.execute("UPDATE account SET balance = balance + 1 WHERE name = 'wallet:acme'")
    assert file_desk.refused(file_desk.request()).code == "ledger_corrupt"
    assert file_desk.refused(deposit(0)).code == "ledger_corrupt"
    assert {check.number for check in file_desk.broken()} == {7}


def test_memory_stays_flat(file_desk: Desk) -> None:
    file_desk.setup(money=10**12)
    for turn in range(20):
        futures = [file_desk.ledger.submit(file_desk.request(f"m{turn}-{n}")) for n in range(50)]
        for future in futures:
            future.result()
        for n in range(50):
            file_desk.settle(f"m{turn}-{n}")
    writer = file_desk.ledger._writer
    store = writer._store
    assert isinstance(store, SqliteStore)
    assert store._state.size() < 30
    assert writer._open == {}


def test_the_ledger_is_a_book(file_desk: Desk) -> None:
    as_book: o.Book = file_desk.ledger
    assert isinstance(as_book, Ledger)
