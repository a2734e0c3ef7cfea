"""The proof finds what it is for: books are bent by hand, each in its own way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import msgspec
import pytest

from avocado.ledger import entry as e
from avocado.ledger import operation as o
from avocado.ledger import proof
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Desk


@pytest.fixture
def book(file_desk: Desk) -> Desk:
    """A closed book: entries 1–4 set up, then r1 held 5, settled 6, refunded 7; r2 held 8,
    voided 9; a grant 10."""
    file_desk.setup(money=10**7)
    file_desk.hold("r1", idempotency_key="once", fingerprint="a")
    file_desk.settle("r1")
    file_desk.do(o.Refund(id="back", of="r1", reason="slow", amount=1000))
    file_desk.hold("r2")
    file_desk.do(o.Void(hold="r2", reason="failed"))
    file_desk.do(o.Grant(id="gift", tenant="acme", amount=5, currency="USD"))
    file_desk.ledger.close()
    return file_desk


def sql(desk: Desk, *statements: str) -> None:
    assert isinstance(desk.target, Path)
    db = apsw.Connection(str(desk.target))
    db.pragma("ignore_check_constraints", 1)
    for statement in statements:
        db.execute(statement)
    db.close()


def forge(desk: Desk, change: Callable[[int, e.AnyEntry], e.AnyEntry]) -> None:
    """Rewrites the journal with every hash made to fit: what a careful insider would do."""
    assert isinstance(desk.target, Path)
    db = apsw.Connection(str(desk.target))
    before = e.GENESIS
    rows: list[Any] = db.execute("SELECT seq, at, body FROM journal ORDER BY seq").fetchall()
    for seq, time, old in rows:
        entry = change(seq, e.decode(bytes(old)))
        body = e.encode(entry)
        before = e.seal(before, seq, time, body)
        db.execute(
            "UPDATE journal SET kind = ?, id = ?, tenant = ?, body = ?, hash = ? WHERE seq = ?",
            (*e.labels(entry), body, before, seq),
        )
    db.execute("UPDATE head SET hash = ?", (before,))
    db.close()


def at(seq: int, **fields: Any) -> Callable[[int, e.AnyEntry], e.AnyEntry]:
    def change(number: int, entry: e.AnyEntry) -> e.AnyEntry:
        return msgspec.structs.replace(entry, **fields) if number == seq else entry

    return change


def found(desk: Desk, deep: bool = True) -> dict[int, int | None]:
    return {check.number: check.seq for check in desk.broken(deep)}


def test_a_good_book_proves_and_says_what_was_checked(book: Desk) -> None:
    with book.reader as reader:
        checks = proof.prove(reader, book.clock.now(), deep=True)
    assert [check.ok for check in checks] == [True] * 10
    assert all(any(digit in check.checked for digit in "0123456789") for check in checks)
    assert [check.name for check in checks] == list(proof.NAMES.values())


@pytest.mark.parametrize(
    ("seq", "fields", "number"),
    [
        (4, {"legs": (("payments:USD", -1), ("wallet:acme", 10**7))}, 1),
        (4, {"currency": "EUR"}, 1),
        (7, {"amount": 10**6, "legs": (("revenue:release-1:USD", -1), ("wallet:acme", 1))}, 2),
        (6, {"id": "r9"}, 5),
        (6, {"charge": 10**6}, 5),
        (9, {"legs": (("held:acme", -1), ("wallet:acme", 1))}, 5),
        (4, {"legs": (("payments:USD", -1), ("wallet:acme", 1))}, 6),
        (6, {"usage": Usage(100, 201)}, 9),
        (5, {"price_version": "0" * 16}, 9),
        (5, {"amount": 420_001}, 9),
        (8, {"idempotency_key": "once", "fingerprint": "b"}, 3),
        (8, {"id": "r1"}, 10),
    ],
)
def test_a_forged_entry_is_named(book: Desk, seq: int, fields: dict[str, Any], number: int) -> None:
    forge(book, at(seq, **fields))
    bad = found(book)
    assert number in bad
    assert bad[number] is None or bad[number] >= seq  # type: ignore[operator]
    assert 8 not in bad


@pytest.mark.parametrize(
    ("statement", "numbers"),
    [
        ("UPDATE account SET balance = balance + 1 WHERE name = 'wallet:acme'", {7}),
        ("DELETE FROM account WHERE name = 'revenue:release-1:USD'", {7}),
        ("UPDATE hold SET charge = charge + 1 WHERE id = 'r1'", {7}),
        ("UPDATE hold SET state = 'open' WHERE id = 'r2'", {7, 10}),
        ("DELETE FROM hold WHERE id = 'r1'", {2, 7, 10}),
        ("DELETE FROM promise", {3, 7}),
        ("UPDATE apikey SET digest = '0'", {7}),
        ("UPDATE customer SET credit_limit = 5", {7}),
        ("UPDATE grant_lot SET amount = 6", {7}),
        ("UPDATE posting SET refunded = 7 WHERE kind = 'Deposited'", {7}),
        ("INSERT INTO spent VALUES ('customer:acme/total', 1)", {7}),
        ("DELETE FROM journal WHERE seq > 9", {2, 4, 7, 8}),
        ("UPDATE head SET seq = 11", {2, 4, 8}),
        ("UPDATE head SET hash = zeroblob(32)", {2, 4, 8}),
    ],
)
def test_a_changed_table_is_noticed(book: Desk, statement: str, numbers: set[int]) -> None:
    sql(book, statement)
    assert set(found(book)) == numbers


def test_a_hold_that_outlived_its_deadline_is_named(file_desk: Desk) -> None:
    file_desk.setup(money=10**9)
    file_desk.hold("r1", lifetime=1)
    file_desk.ledger.close()
    file_desk.clock.step(3 * 3600 * 10**9)
    assert found(file_desk) == {5: 5}


def test_a_book_is_proved_while_it_is_written(desk: Desk) -> None:
    desk.setup(money=10**12)
    for turn in range(5):
        futures = [desk.ledger.submit(desk.request(f"p{turn}-{n}")) for n in range(20)]
        assert desk.broken() == []
        for future in futures:
            future.result(timeout=20)
