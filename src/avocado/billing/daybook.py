"""Daybook: the ledger's usage summed by day, so that a page need not read a million requests.

A row is one UTC day × customer × key × model × release × price version × batch × currency; two
smaller books beside it, by day without customers and by month with them, are what most pages ask.
Money that is no request (top-ups, fees, grants, adjustments) is summed by day, kind and item, and
entries that are no requests are listed, so that an audit need not leaf through all others.

The ledger stays the only truth: the daybook is a file that may be deleted at any time. It takes up
journal entries by sequence, each once, in one transaction with the sequence it has come to; two
processes at once wait for each other. When the ledger's entry at that sequence has another hash
(a restored or another book), or the file is damaged or of another version, it is made afresh.
A refund corrects the day of its charge, as ``Reader.usage`` has it (a property test compares them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import apsw

from avocado.billing import daybook_source as source
from avocado.billing.daybook_file import (
    ADD_ALL,
    ADD_DAY,
    ADD_MONEY,
    ADD_MONTH,
    BOOKS,
    SUMMED,
    empty,
    open_file,
    remove,
)
from avocado.errors import Refused
from avocado.ledger.reader import Reader

FILE: Final = "daybook.sqlite"
"""Its name in a workspace's ``.avocado/``; with a PostgreSQL ledger each machine has its own."""
FIRST: Final = "0001-01-01"
LAST: Final = "9999-12-31"


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Settled requests, summed. What was not asked for ``by`` is None. Money in nano-units.

    ``day`` is ``2026-11-27``, or ``2026-11`` where months were asked for. ``key_id`` is ``""`` for
    requests without one. ``covered`` tokens were paid by an allowance.
    """

    day: str | None
    tenant: str | None
    key_id: str | None
    offer: str | None
    release: str | None
    price_version: str | None
    batch: bool | None
    currency: str | None
    requests: int
    prompt: int
    cached: int
    completion: int
    reasoning: int
    covered: int
    charge: int
    refunded: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    @property
    def net(self) -> int:
        """Charged less refunded: what was earned."""
        return self.charge - self.refunded


@dataclass(frozen=True, slots=True)
class MoneySum:
    """Money that is no request. ``kind`` is that of the journal's entry: Deposited, Billed,
    Granted, Adjusted; ``item`` what a fee was for. ``refunded`` was reversed of it, nano-units."""

    day: str
    tenant: str
    kind: str
    item: str
    currency: str
    entries: int
    amount: int
    refunded: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A journal entry that is no request: where it stands, when (ns), what and whose."""

    seq: int
    at: int
    kind: str
    id: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What a refresh took up: journal entries ``after`` < seq ≤ ``until``; ``afresh`` says that
    nothing usable was there before."""

    after: int
    until: int
    afresh: bool


class Daybook:
    """An open daybook. Use one per thread; ``refresh`` it before reading what is newest."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises Refused when it cannot be written."""
        self.path = path
        try:
            self._db = open_file(path)
        except apsw.Error as error:
            raise Refused(f"{path} cannot be used: {error}; it may be deleted") from error

    def close(self) -> None:
        self._db.close(True)

    def __enter__(self) -> Daybook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- taking up -------------------------------------------------------------------------------

    def refresh(self, reader: Reader) -> Taken:
        """Takes up what the ledger has written since. Not inside ``reader.snapshot()``.

        Raises:
            Refused: the file cannot be written (a full disk).
        """
        try:
            return self._refresh(reader)
        except (apsw.CorruptError, apsw.NotADBError):
            self.close()
            remove(self.path)
            self._db = open_file(self.path)
            return self._refresh(reader)
        except apsw.Error as error:
            raise Refused(f"{self.path}: {error}; it may be deleted") from error

    def _refresh(self, reader: Reader) -> Taken:
        if self._place() == reader.head():
            return Taken(self._place()[0], self._place()[0], afresh=False)
        with self._transaction(), reader.snapshot():
            after, seal = self._place()
            head, digest = reader.head()
            if (after, seal) == (head, digest):
                return Taken(after, head, afresh=False)  # another process was first
            afresh = not after or source.seal_at(reader, after) != seal
            if afresh:
                after = 0
                empty(self._db)
                self._add(source.whole(reader, head))
            else:
                self._add(source.since(reader, after, head))
            self._add_money(source.money(reader, after, head))
            listed = source.entries(reader, after, head)
            self._db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", listed)
            self._db.execute("UPDATE place SET seq = ?, seal = ?", (head, digest))
        return Taken(after, head, afresh)

    def _place(self) -> tuple[int, str]:
        """The journal entry that it has come to: sequence and hash."""
        row = next(iter(self._db.execute("SELECT seq, seal FROM place")))
        return int(row[0]), str(row[1])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(apsw.Error):
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _add(self, rows: Iterable[source.UsageRow]) -> None:
        for piece in _pieces(rows):
            self._db.executemany(ADD_ALL, [row.keys + row.sums for row in piece])
            days = [
                (row.day, *row.keys[3:], *row.sums)  # without tenant and key
                for row in piece
            ]
            self._db.executemany(ADD_DAY, days)
            months = [
                (_month(row.day), row.tenant, row.offer, row.release, row.currency, *row.sums)
                for row in piece
            ]
            self._db.executemany(ADD_MONTH, months)

    def _add_money(self, rows: Iterable[source.MoneyRow]) -> None:
        self._db.executemany(ADD_MONEY, rows)

    # -- reading ---------------------------------------------------------------------------------

    def usage(
        self,
        tenant: str | None = None,
        since: str = FIRST,
        until: str = LAST,
        by: Sequence[str] = ("day",),
        **only: str | bool,
    ) -> list[UsageSum]:
        """Usage on the days ``since`` ≤ day < ``until`` (``2026-11-27``), summed ``by`` any of
        day, tenant, key_id, offer, release, price_version, batch and currency, in that order.

        ``only`` narrows it: ``offer="a"``, ``key_id="…"``, ``release=…``, ``batch=True``. A page
        over all customers costs as many rows as there are days × models; one of a customer as many
        as that customer has.

        Raises:
            ValueError: no such column, or a day that is none.
        """
        wanted = {*by, *only, *(("tenant",) if tenant is not None else ())}
        where: list[tuple[str, object]] = [(name, _stored(value)) for name, value in only.items()]
        if tenant is not None:
            where.append(("tenant", tenant))
        if since == FIRST and until == LAST:
            days = None
        else:
            days = (_number(since), _number(until))
            wanted.add("day")
        book = _book(wanted)
        return self._sum(book, tuple(by), where, ("day", days))

    def months(
        self, tenant: str | None = None, by: Sequence[str] = (), since: str = "", until: str = ""
    ) -> list[UsageSum]:
        """Usage by month, oldest first, then by columns of ``by`` (tenant, offer, release,
        currency); of the months ``since`` ≤ month < ``until`` (``2026-11``) if given. The month
        stands in ``day``."""
        where: list[tuple[str, object]] = [("tenant", tenant)] if tenant is not None else []
        span = (since or "0001-01", until or "9999-99") if since or until else None
        return self._sum("by_month", ("month", *by), where, ("month", span))

    def top_customers(self, month: str, limit: int = 10) -> list[UsageSum]:
        """Who was charged most in a month (``2026-11``), refunds taken off, with the currency."""
        sql = (
            f"SELECT tenant, currency, {SUMMED} FROM by_month WHERE month = ?"  # noqa: S608
            " GROUP BY tenant, currency ORDER BY sum(charge - refunded) DESC, tenant LIMIT ?"
        )
        return [
            _usage_sum(("tenant", "currency"), row) for row in self._db.execute(sql, (month, limit))
        ]

    def money(
        self, tenant: str | None = None, since: str = FIRST, until: str = LAST
    ) -> list[MoneySum]:
        """Money that is no request, by day, customer, kind and item; days as in :meth:`usage`."""
        sql = (
            "SELECT day, tenant, kind, item, currency, entries, amount, refunded FROM money"
            " WHERE day >= ? AND day < ?"
        )
        values: list[Any] = [_number(since), _number(until)]
        if tenant is not None:
            sql += " AND tenant = ?"
            values.append(tenant)
        found = self._db.execute(sql + " ORDER BY day, tenant, kind, item, currency", values)
        return [MoneySum(_day(int(row[0])), *row[1:]) for row in found]

    def entries(
        self,
        before: tuple[int, int] = (2**63 - 1, 2**63 - 1),
        most: int = 50,
        kinds: Sequence[str] = (),
        tenant: str | None = None,
    ) -> list[Listed]:
        """Journal entries that are no requests, newest first, with (at, seq) < ``before``."""
        sql = "SELECT seq, at, kind, id, tenant FROM entry WHERE (at, seq) < (?, ?)"
        given: list[Any] = [*before]
        if kinds:
            sql += f" AND kind IN ({', '.join('?' * len(kinds))})"
            given += kinds
        if tenant is not None:
            sql += " AND tenant = ?"
            given.append(tenant)
        found = self._db.execute(f"{sql} ORDER BY at DESC, seq DESC LIMIT ?", (*given, most))
        return [Listed(*row) for row in found]

    def span(self) -> tuple[str, str] | None:
        """The first and the last day of a request; None while there is none."""
        row: Any = next(iter(self._db.execute("SELECT min(day), max(day) FROM by_day")))
        return None if row[0] is None else (_day(row[0]), _day(row[1]))

    def _sum(
        self,
        book: str,
        by: tuple[str, ...],
        where: Sequence[tuple[str, object]],
        span: tuple[str, tuple[object, object] | None],
    ) -> list[UsageSum]:
        conditions = [f"{name} = ?" for name, _ in where]
        values = [value for _, value in where]
        if span[1] is not None:
            conditions += [f"{span[0]} >= ?", f"{span[0]} < ?"]
            values += span[1]
        sql = f"SELECT {', '.join((*by, SUMMED))} FROM {book}"  # noqa: S608
        if conditions:
            sql += f" WHERE {' AND '.join(conditions)}"
        if by:
            sql += f" GROUP BY {', '.join(by)} ORDER BY {', '.join(by)}"
        else:
            sql += " HAVING count(*) > 0"
        return [_usage_sum(by, row) for row in self._db.execute(sql, tuple(values))]


@contextmanager
def open_daybook(path: Path, reader: Reader) -> Iterator[Daybook]:
    """Yields the daybook at ``path``, with all in it that ``reader`` sees now.

    Raises:
        Refused: the file cannot be used.
    """
    with Daybook(path) as book:
        book.refresh(reader)
        yield book


# -- days, columns ---------------------------------------------------------------------------------

_EPOCH: Final = date(1970, 1, 1).toordinal()


def _number(day: str) -> int:
    """Days since 1970 of ``2026-11-27``. Raises ValueError."""
    return date.fromisoformat(day).toordinal() - _EPOCH


def _day(number: int) -> str:
    return date.fromordinal(number + _EPOCH).isoformat()


def _month(number: int) -> str:
    return _day(number)[:7]


def today() -> str:
    """The current day, UTC."""
    return datetime.now(UTC).date().isoformat()


def _stored(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


def _book(wanted: Iterable[str]) -> str:
    """The smallest book that has these columns. Raises ValueError."""
    columns = set(wanted)
    for name, keys in BOOKS:
        if columns <= set(keys):
            return name
    raise ValueError(f"no such column: {', '.join(sorted(columns - set(BOOKS[-1][1])))}")


def _usage_sum(by: Sequence[str], row: Sequence[Any]) -> UsageSum:
    found = dict(zip(by, row, strict=False))
    day = found.get("month", found.get("day"))
    batch = found.get("batch")
    return UsageSum(
        _day(day) if isinstance(day, int) else day,
        found.get("tenant"),
        found.get("key_id"),
        found.get("offer"),
        found.get("release"),
        found.get("price_version"),
        None if batch is None else bool(batch),
        found.get("currency"),
        *row[len(by) :],
    )


def _pieces(rows: Iterable[source.UsageRow], size: int = 5000) -> Iterator[list[source.UsageRow]]:
    piece: list[source.UsageRow] = []
    for row in rows:
        piece.append(row)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
