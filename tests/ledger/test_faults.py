"""Rows of the fault table that the ledger answers for, by number."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from avocado.ledger import chain, errors, sqlite
from avocado.ledger import operation as o
from avocado.ledger.ledger import open_ledger
from avocado.ledger.rows import PROMISED
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk

CEILING = 100 * 200 + 500 * 800
HOUR = 3_600 * 10**9


def test_fault_01_a_hold_of_a_dead_process_is_voided(desk: Desk) -> None:
    desk.setup(money=CEILING)
    desk.hold("r1")
    ledger = desk.crash()
    assert (ledger.recovery.settled, ledger.recovery.voided) == (0, 1)
    assert desk.available() == CEILING
    assert desk.refused(o.Settle(hold="r1", usage=Usage(1, 1))).code == "hold_not_open"
    assert desk.broken() == []


def test_fault_02_generation_without_settlement_is_charged_once(desk: Desk) -> None:
    desk.setup(money=CEILING)
    desk.hold("r1")
    desk.ledger.progress("r1", Usage(100, 30))
    desk.ledger.progress("r1", Usage(100, 40))
    desk.deposit(1)  # progress rides along with the next commit
    ledger = desk.crash()
    assert (ledger.recovery.settled, ledger.recovery.voided) == (1, 0)
    with desk.reader as reader:
        (charge,) = reader.charges("acme")
    assert (charge.usage, charge.finish) == (Usage(100, 40), "recovered")
    assert desk.available() == CEILING + 1 - charge.charge
    assert desk.broken() == []
    desk.crash()
    assert desk.available() == CEILING + 1 - charge.charge


def _flip(path: Path, sql: str) -> None:
    db = apsw.Connection(str(path))
    db.execute(sql)
    db.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE journal SET body = CAST(replace(CAST(body AS TEXT), 'acme', 'acne') AS BLOB) "
        "WHERE seq = 5",
        "UPDATE journal SET at = at + 1 WHERE seq = 5",
        "UPDATE journal SET tenant = 'acne' WHERE seq = 5",
        "UPDATE journal SET hash = zeroblob(32) WHERE seq = 5",
        "DELETE FROM journal WHERE seq = 5",
    ],
)
def test_fault_05_a_changed_byte_is_named_and_writes_are_refused(file_desk: Desk, sql: str) -> None:
    file_desk.setup(money=10**7)
    for _ in range(3):
        file_desk.settle(file_desk.hold().hold)
    file_desk.ledger.close()
    assert isinstance(file_desk.target, Path)
    _flip(file_desk.target, sql)
    broken = {check.number: check.seq for check in file_desk.broken(deep=False)}
    assert broken[8] == 5
    with pytest.raises(errors.LedgerCorrupt) as caught:
        open_ledger(file_desk.target, file_desk.clock)
    assert caught.value.seq == 5


def test_fault_05_a_cut_tail_is_named(file_desk: Desk) -> None:
    file_desk.setup(money=10**7)
    file_desk.settle(file_desk.hold().hold)
    file_desk.ledger.close()
    assert isinstance(file_desk.target, Path)
    _flip(file_desk.target, "DELETE FROM journal WHERE seq = 6")
    assert {check.number: check.seq for check in file_desk.broken(deep=False)}[8] == 6


def test_fault_05_a_running_ledger_stops_writing_when_told(desk: Desk) -> None:
    desk.setup(money=10**7)
    desk.ledger.halt("the proof found a changed entry", 3)
    refusal = desk.refused(desk.request())
    assert (refusal.code, refusal.fields()["seq"]) == ("ledger_corrupt", 3)


def test_fault_06_one_charge_for_fifty_requests_with_one_key(desk: Desk) -> None:
    desk.setup(money=10**9)

    async def storm() -> list[object]:
        holds = [
            desk.request(f"r{number}", idempotency_key="once", fingerprint="body")
            for number in range(50)
        ]
        return await asyncio.gather(
            *(desk.ledger.hold(hold) for hold in holds), return_exceptions=True
        )

    outcomes = asyncio.run(storm())
    (held,) = [outcome for outcome in outcomes if isinstance(outcome, o.Held)]
    duplicates = [outcome for outcome in outcomes if isinstance(outcome, errors.Duplicate)]
    assert len(duplicates) == 49
    assert {(error.hold, error.state) for error in duplicates} == {(held.hold, "open")}
    desk.settle(held.hold)
    late = desk.refused(desk.request("late", idempotency_key="once", fingerprint="body"))
    assert late.fields() == {"hold": held.hold, "state": "settled"}
    assert desk.broken() == []


def test_fault_06_a_voided_request_frees_its_key(desk: Desk) -> None:
    desk.setup(money=10**9)
    desk.hold("r1", idempotency_key="once", fingerprint="body")
    desk.do(o.Void(hold="r1", reason="engine failed"))
    desk.hold("r2", idempotency_key="once", fingerprint="body")
    desk.settle("r2")
    assert desk.refused(
        desk.request("r3", idempotency_key="once", fingerprint="body")
    ).fields() == {
        "hold": "r2",
        "state": "settled",
    }
    assert desk.broken() == []


def test_fault_07_the_same_key_with_another_body_is_a_conflict(desk: Desk) -> None:
    desk.setup(money=10**9)
    desk.setup(money=10**9, tenant="other")
    desk.hold("r1", idempotency_key="once", fingerprint="body")
    other = desk.request("r2", idempotency_key="once", fingerprint="another")
    assert desk.refused(other).code == "idempotency_conflict"
    desk.hold("r3", tenant="other", idempotency_key="once", fingerprint="another")


def test_fault_06_a_key_is_free_a_day_after_its_request_ended_and_once_again(desk: Desk) -> None:
    """Over restarts, under fifty at once, and with another body: it is a new request."""
    desk.setup(money=10**9)
    desk.hold("r1", idempotency_key="once", fingerprint="body")
    desk.clock.pass_time(3 * 10**9)
    desk.settle("r1")
    desk.clock.pass_time(PROMISED - 1)
    desk.crash()
    for mark, code in (("body", "duplicate"), ("other", "idempotency_conflict")):
        late = desk.request(idempotency_key="once", fingerprint=mark)
        assert desk.refused(late).code == code, "its day is not over"
    desk.clock.pass_time(1)
    desk.crash()

    async def storm() -> list[object]:
        holds = [
            desk.request(f"new-{number}", idempotency_key="once", fingerprint="other")
            for number in range(50)
        ]
        return await asyncio.gather(
            *(desk.ledger.hold(hold) for hold in holds), return_exceptions=True
        )

    outcomes = asyncio.run(storm())
    (held,) = [outcome for outcome in outcomes if isinstance(outcome, o.Held)]
    assert sum(isinstance(outcome, errors.Duplicate) for outcome in outcomes) == 49
    desk.crash()
    old = desk.request(idempotency_key="once", fingerprint="body")
    assert desk.refused(old).code == "idempotency_conflict", "it stands for the new request now"
    assert desk.broken() == []
    assert held.hold.startswith("new-")


def test_fault_06_a_request_that_still_runs_keeps_its_key_for_longer_than_a_day(desk: Desk) -> None:
    desk.setup(money=10**9)
    desk.hold("r1", idempotency_key="once", fingerprint="body", lifetime=2 * PROMISED)
    desk.clock.pass_time(PROMISED + 10**9)
    again = desk.request("r2", idempotency_key="once", fingerprint="body")
    assert desk.refused(again).fields() == {"hold": "r1", "state": "open"}
    desk.settle("r1")
    assert desk.refused(again).fields() == {"hold": "r1", "state": "settled"}
    assert desk.broken() == []


@pytest.mark.parametrize(("callers", "affordable"), [(100, 1), (400, 10)])
def test_fault_08_money_for_few_admits_exactly_those(
    desk: Desk, callers: int, affordable: int
) -> None:
    desk.setup(money=CEILING * affordable + CEILING - 1)

    async def storm() -> list[object]:
        holds = [desk.request(f"r{number}") for number in range(callers)]
        return await asyncio.gather(
            *(desk.ledger.hold(hold) for hold in holds), return_exceptions=True
        )

    outcomes = asyncio.run(storm())
    assert sum(isinstance(outcome, o.Held) for outcome in outcomes) == affordable
    refused = [outcome for outcome in outcomes if isinstance(outcome, errors.InsufficientFunds)]
    assert len(refused) == callers - affordable
    assert desk.broken() == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_fault_09_a_stepped_clock_neither_frees_nor_kills_holds(desk: Desk, hours: int) -> None:
    desk.setup(money=10**9)
    desk.hold("r1", lifetime=60 * 10**9)
    desk.clock.step(hours * HOUR)
    desk.hold("r2", lifetime=60 * 10**9)
    desk.clock.pass_time(30 * 10**9)
    desk.deposit(1)
    with desk.reader as reader:
        assert [hold.id for hold in reader.open_holds()] == ["r1", "r2"]
        assert [record.seq for record in reader.journal()] == list(range(1, 8))
    desk.ledger.progress("r2", Usage(100, 7))
    desk.deposit(1)
    desk.clock.pass_time(31 * 10**9)
    desk.deposit(1)
    desk.deposit(1)
    with desk.reader as reader:
        r1, r2 = reader.hold("r1"), reader.hold("r2")
    assert r1 is not None
    assert r2 is not None
    assert (r1.state, r1.finish) == ("voided", "deadline")
    assert (r2.state, r2.finish, r2.completion) == ("settled", "deadline", 7)
    assert desk.broken() == []


def test_fault_10_a_price_change_does_not_touch_a_running_request(desk: Desk) -> None:
    desk.setup(money=10**9)
    desk.hold("r1")
    dearer = PriceSheet(prompt=10**12, completion=10**12)
    desk.do(o.PublishPrice(terms=dearer.terms()))
    assert desk.settle("r1").charge == 100 * 200 + 200 * 800
    desk.hold("r2", price_version=dearer.version)
    assert desk.settle("r2").charge == 300 * 10**6
    assert desk.broken() == []


def test_fault_13_a_library_with_the_wal_bug_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(errors.UnsafeLibrary):
        open_ledger(tmp_path / "book.db")
    monkeypatch.undo()
    sqlite.check_library()


_SECOND = """
import sys
from avocado.ledger.errors import LedgerLocked
from avocado.ledger.ledger import open_ledger
try:
    open_ledger(sys.argv[1])
except LedgerLocked as error:
    print(error.code, error.pid)
"""


def test_fault_14_a_second_writer_is_refused_and_told_who_writes(file_desk: Desk) -> None:
    file_desk.setup()
    command = [sys.executable, "-c", _SECOND, str(file_desk.target)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout.split() == ["ledger_locked", str(os.getpid())]
    file_desk.deposit(1)
    file_desk.ledger.close()
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout == ""
    file_desk.reopen()


def test_the_whole_tail_is_checked_when_a_long_book_is_opened(
    file_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_desk.setup(money=10**9)
    for _ in range(5):
        file_desk.settle(file_desk.hold().hold)
    with file_desk.reader as reader:
        chain.check_tail(reader.rows, length=4)
    file_desk.ledger.close()
    assert isinstance(file_desk.target, Path)
    _flip(file_desk.target, "UPDATE journal SET at = at + 1 WHERE seq = 12")
    with file_desk.reader as reader, pytest.raises(errors.LedgerCorrupt) as caught:
        chain.check_tail(reader.rows, length=4)
    assert caught.value.seq == 12
