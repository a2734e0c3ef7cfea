"""The proof: checks the ten invariants of money over a stored book, and names the first bad entry.

Pure over a reader: it reads the journal once, rebuilds what it needs in memory and compares it with
the tables. It shares ``State.apply`` with the writer only where the tables are compared with the
replay (7); sums, order, charges and limits are computed in ``audit``, from the entries alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from avocado.ledger import chain, transfer
from avocado.ledger import entry as e
from avocado.ledger.audit import Audit
from avocado.ledger.errors import LedgerCorrupt, LedgerError
from avocado.ledger.reader import Reader
from avocado.ledger.rows import COLUMNS, SETTLED, TABLES, VOIDED, HoldRow, Row
from avocado.ledger.state import State

NAMES: Final = {
    1: "every transaction sums to zero, in integers",
    2: "entries are append-only; a correction is a reversal",
    3: "an idempotency key stands for one request a day",
    4: "what was acknowledged is stored",
    5: "each hold ends once, and costs at most what was held",
    6: "no balance is below its limit, at any entry",
    7: "the stored tables equal the replayed journal",
    8: "the journal is gapless and its hash chain is whole",
    9: "each charge is usage times the pinned price",
    10: "each request ends charged, voided or refused",
}
SLACK: Final = 3_600_000_000_000 * 2
"""A hold may outlive its deadline by this much wall time (ns): clocks step by an hour."""


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant: what was checked (counted), whether it holds, and the first bad sequence."""

    number: int
    name: str
    checked: str
    ok: bool
    seq: int | None = None
    detail: str = ""


def prove(reader: Reader, now: int, deep: bool = False) -> list[Check]:
    """Checks all ten invariants at wall time ``now`` (ns); see :data:`NAMES` for their order.

    ``deep`` also replays the whole journal into empty tables and compares every row of every table
    (memory grows with the number of requests); without it the accounts and open holds are compared.
    """
    with reader.snapshot():
        return _prove(reader, now, deep)


def _prove(reader: Reader, now: int, deep: bool) -> list[Check]:
    audit = Audit(reader)
    replay = State() if deep else None
    entries = 0
    try:
        for seq, at, entry in chain.walk(reader.rows):
            entries = seq
            try:
                audit.entry(seq, at, entry)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                audit.fail(9, seq, f"the entry makes no sense: {error}")
            if replay is not None:
                _apply(replay, audit, seq, at, entry)
        chain.ends_well(reader.rows, entries, *chain.head(reader.rows))
    except LedgerCorrupt as damage:
        for number in (8, 4, 2):
            audit.fail(number, damage.seq, damage.detail)
    _compare_tables(reader, audit)
    if replay is not None:
        _compare_rows(reader, replay, audit)
    _deadlines(audit, now)
    return _report(audit, entries, deep)


def _apply(replay: State, audit: Audit, seq: int, at: int, entry: e.AnyEntry) -> None:
    try:
        replay.apply(entry, seq, at)
    except (KeyError, LedgerError) as error:
        audit.fail(7, seq, f"the entry cannot be replayed: {error}")


def _compare_tables(reader: Reader, audit: Audit) -> None:
    stored = reader.accounts()
    for name in sorted(stored.keys() | audit.balances.keys()):
        if stored.get(name, 0) != audit.balances.get(name, 0):
            audit.fail(
                7,
                None,
                f"{name} is stored as {stored.get(name)}, replayed as "
                f"{audit.balances.get(name, 0)}",
            )
    held: dict[str, int] = {}
    for hold in audit.open.values():
        name = transfer.held(hold.entry.tenant)
        held[name] = held.get(name, 0) + hold.entry.amount
    for name, balance in audit.balances.items():
        if name.startswith("held:") and balance != held.get(name, 0):
            audit.fail(5, None, f"{name} is {balance}, its open holds sum to {held.get(name, 0)}")
    open_rows = {row.id: row.seq for row in reader.open_holds()}
    for request in sorted(open_rows.keys() ^ audit.open.keys()):
        seq = audit.open[request].seq if request in audit.open else open_rows[request]
        audit.fail(10, seq, f"request {request} is open in one of journal and table only")
    ended: dict[str, int] = dict(reader.rows("SELECT state, count(*) FROM hold GROUP BY state", ()))
    for state, kind in ((SETTLED, "HoldSettled"), (VOIDED, "HoldVoided")):
        if ended.get(state, 0) != audit.counts.get(kind, 0):
            audit.fail(
                10,
                None,
                f"{ended.get(state, 0)} holds are {state}, the journal says "
                f"{audit.counts.get(kind, 0)}",
            )
    audit.lots.compare(
        iter(reader.rows("SELECT id, tokens, free, reserved, used, expired FROM allowance", ()))
    )
    audit.documents.compare(
        iter(reader.rows("SELECT id, revision, series, number FROM document", ())),
        iter(reader.rows("SELECT name, last FROM series", ())),
    )
    promised = sum(1 for _ in reader.rows("SELECT name FROM promise", ()))
    if promised != len(audit.promises):
        audit.fail(3, None, f"{promised} keys are stored, the journal names {len(audit.promises)}")


def _compare_rows(reader: Reader, replay: State, audit: Audit) -> None:
    """Every row of every table against the replayed one; progress is not journalled."""
    for kind, table in TABLES.items():
        rows = dict(replay.rows[kind])
        for stored in _stored(reader, kind):
            key = getattr(stored, kind.__struct_fields__[0])
            expected = rows.pop(key, None)
            if isinstance(stored, HoldRow):
                stored.progress = None
            if stored != expected:
                seq = getattr(stored, "closed_seq", None) or getattr(stored, "seq", None)
                audit.fail(7, seq, f"{table} {key!r} differs from its replay")
        for key, row in rows.items():
            if row is not None:
                audit.fail(7, getattr(row, "seq", None), f"{table} {key!r} is missing")


def _stored(reader: Reader, kind: type[Row]) -> Iterator[Row]:
    sql = f"SELECT {', '.join(COLUMNS[kind])} FROM {TABLES[kind]}"  # noqa: S608
    for row in reader.rows(sql, ()):
        yield kind(*row)


def _deadlines(audit: Audit, now: int) -> None:
    """A hold of a living process ends by its deadline, one of a dead process at the next start."""
    for hold in audit.open.values():
        if now - hold.at - hold.entry.lifetime > SLACK:
            audit.fail(5, hold.seq, f"hold {hold.entry.id} outlived its deadline")


def _report(audit: Audit, entries: int, deep: bool) -> list[Check]:
    counts = audit.counts
    holds = counts.get("HoldPlaced", 0)
    reversals = sum(
        counts.get(kind, 0) for kind in ("Refunded", "GrantExpired", "AllowanceExpired")
    )
    papers = counts.get("DocumentFiled", 0)
    compared = "every row of every table" if deep else "accounts, open holds and counts of ends"
    checked: dict[int, str] = {
        1: f"{audit.legs} legs in {entries} entries",
        2: f"{reversals} reversals and expiries, {papers} documents in {entries} entries",
        3: f"{len(audit.promises)} keys",
        4: f"{entries} entries up to the head",
        5: f"{holds} holds",
        6: f"{len(audit.floors)} limited accounts and {len(audit.lots.lots)} allowances after each"
        f" of {entries} entries",
        7: f"{len(audit.balances)} accounts; {compared}",
        8: f"{entries} hashes",
        9: f"{holds} holds and {audit.charged} charges recomputed",
        10: f"{holds} requests, {len(audit.open)} of them open",
    }
    return [
        Check(
            number,
            name,
            checked[number],
            number not in audit.bad,
            *(audit.bad.get(number, (None, ""))),
        )
        for number, name in NAMES.items()
    ]
