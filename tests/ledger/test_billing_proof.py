"""The proof finds forged documents, allowances, fees and taxes: each bent by hand, in its way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import msgspec
import pytest

from avocado.ledger import entry as e
from avocado.ledger import operation as o
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk

SECOND = 10**9
CHARGE = 100 * 800


@pytest.fixture
def book(file_desk: Desk) -> Desk:
    """A closed book: 1–4 set up; a lot of 200 tokens 5, one of 100 for another offer 6; r1 held 7
    (200 tokens and money) and settled 8 (200 of its 300 tokens covered); invoices 9, 10, the first
    revised 11; a fee 12; a taxed deposit 13 and part of it refunded 14; frozen 15, free 16; r2 held
    17, voided 18; the second lot ended 19."""
    desk = file_desk
    desk.setup(money=10**7)
    far = desk.clock.now() + 10**6 * SECOND
    desk.do(o.Allow(id="lot", tenant="acme", tokens=200, expires=far))
    desk.do(o.Allow(id="pro", tenant="acme", tokens=100, offers=("avocado-2",)))
    desk.hold("r1")
    desk.do(o.Settle(hold="r1", usage=Usage(100, 200)))
    for number in range(2):
        desk.do(o.File(id=f"i{number}", kind="invoice", content={"n": number}, series="AV"))
    desk.do(o.File(id="i0", kind="invoice", content={"n": 9}, revision=2))
    desk.do(o.Bill(id="fee", tenant="acme", amount=7, currency="USD", item="plan:pro@1"))
    desk.do(o.Deposit(id="top", tenant="acme", amount=100, currency="USD", tax=19))
    desk.do(o.Refund(id="back", of="top", reason="r", amount=50))
    for frozen in (True, False):
        desk.do(o.Freeze(tenant="acme", frozen=frozen, reason="r", actor="ops"))
    desk.hold("r2")
    desk.do(o.Void(hold="r2", reason="failed"))
    desk.do(o.EndAllowance(id="pro", reason="downgrade"))
    assert desk.broken() == []
    desk.ledger.close()
    return desk


def forge(desk: Desk, seq: int, **fields: Any) -> None:
    """Rewrites one entry, with every hash made to fit: what a careful insider would do."""
    assert isinstance(desk.target, Path)
    db = apsw.Connection(str(desk.target))
    before = e.GENESIS
    rows: list[Any] = db.execute("SELECT seq, at, body FROM journal ORDER BY seq").fetchall()
    for number, time, body in rows:
        entry = e.decode(bytes(body))
        if number == seq:
            entry = msgspec.structs.replace(entry, **fields)
        body = e.encode(entry)
        before = e.seal(before, number, time, body)
        db.execute(
            "UPDATE journal SET kind = ?, id = ?, tenant = ?, body = ?, hash = ? WHERE seq = ?",
            (*e.labels(entry), body, before, number),
        )
    db.execute("UPDATE head SET hash = ?", (before,))
    db.close()


@pytest.mark.parametrize(
    ("seq", "fields", "number"),
    [
        (5, {"tokens": 201}, 9),  # more tokens were given than were used up
        (5, {"tenant": "globex"}, 6),
        (5, {"expires": 1}, 9),
        (6, {"offers": ()}, 9),
        (7, {"lots": ()}, 9),  # money was held though tokens were there
        (7, {"lots": (("lot", 199),)}, 9),
        (7, {"lots": (("lot", 201),)}, 6),
        (7, {"lots": (("lot", 200), ("pro", 100))}, 9),
        (7, {"lots": (("nothing", 200),)}, 6),
        (8, {"covered": 199}, 9),
        (8, {"covered": 300, "charge": 0}, 9),
        (8, {"usage": Usage(50, 100)}, 9),
        (9, {"number": 2}, 2),
        (10, {"number": 3}, 2),
        (10, {"series": "XX"}, 2),
        (11, {"number": 2}, 2),
        (11, {"revision": 3}, 2),
        (12, {"amount": 8}, 1),
        (12, {"item": "plan:free@1"}, 1),
        (13, {"tax": 18}, 1),
        (13, {"amount": 101}, 1),
        (14, {"tax": 8}, 1),
        (16, {"frozen": True}, 10),
        (19, {"tokens": 99}, 2),
        (19, {"ended": False}, 2),
    ],
)
def test_a_forged_entry_is_named(book: Desk, seq: int, fields: dict[str, Any], number: int) -> None:
    forge(book, seq, **fields)
    broken = {check.number: check.seq for check in book.broken(deep=False)}
    assert number in broken
    assert broken[number] is not None
    assert broken[number] >= seq  # type: ignore[operator]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE allowance SET used = used - 1, free = free + 1 WHERE id = 'lot'",
        "UPDATE allowance SET tokens = tokens + 1, free = free + 1 WHERE id = 'lot'",
        "DELETE FROM allowance WHERE id = 'pro'",
        "INSERT INTO allowance SELECT 'gift', tenant, tokens, free, reserved, used, expired,"
        " offers, priority, expires, reason, closed, ended, at, seq FROM allowance"
        " WHERE id = 'lot'",
    ],
)
@pytest.mark.parametrize("deep", [True, False])
def test_bent_allowances_differ_from_the_journal(book: Desk, statement: str, deep: bool) -> None:
    _bend(book, statement)
    assert {check.number for check in book.broken(deep)} == {7}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE allowance SET expires = NULL WHERE id = 'lot'",
        "UPDATE allowance SET offers = '[]' WHERE id = 'pro'",
        "UPDATE hold SET covered = 0",
        "UPDATE hold SET lots = '' WHERE id = 'r1'",
        "UPDATE customer SET frozen = 'r'",
        "UPDATE posting SET tax = 0 WHERE id = 'top'",
        "DELETE FROM movement WHERE seq = 13",
    ],
)
def test_other_bent_rows_differ_from_the_replay(book: Desk, statement: str) -> None:
    _bend(book, statement)
    assert {check.number for check in book.broken(deep=True)} == {7}


def _bend(desk: Desk, statement: str) -> None:
    assert isinstance(desk.target, Path)
    db = apsw.Connection(str(desk.target))
    db.pragma("ignore_check_constraints", 1)
    db.execute(statement)
    db.close()


def test_the_database_itself_refuses_tokens_from_nowhere(book: Desk) -> None:
    assert isinstance(book.target, Path)
    db = apsw.Connection(str(book.target))
    for statement in (
        "UPDATE allowance SET free = free + 1 WHERE id = 'lot'",
        "UPDATE allowance SET free = -1, used = used + 1 WHERE id = 'lot'",
    ):
        with pytest.raises(apsw.ConstraintError):
            db.execute(statement)
    db.close()
