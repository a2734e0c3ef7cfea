"""The hash chain of the journal: walks it and names the first entry that does not fit.

Knows SQL only as a function ``rows(sql, values)``; both stores and the proof bring their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from avocado.ledger import entry as e
from avocado.ledger.errors import LedgerCorrupt

Rows: TypeAlias = Callable[[str, Sequence[object]], Iterable[Any]]

TAIL: Final = 50_000
"""Entries that are checked each time a book is opened (about 0.2 s)."""

_ENTRIES: Final = (
    "SELECT seq, at, kind, id, tenant, body, hash FROM journal WHERE seq > ? ORDER BY seq"
)


def walk(
    rows: Rows, after: int = 0, before: bytes = e.GENESIS
) -> Iterable[tuple[int, int, e.AnyEntry]]:
    """Yields (seq, at, entry) of every entry later than ``after``, whose hash is ``before``.

    Raises:
        LedgerCorrupt: with the sequence of the first entry that is missing or was changed.
    """
    expected = after
    for seq, at, kind, id_, tenant, body, digest in rows(_ENTRIES, (after,)):
        expected += 1
        if seq != expected:
            raise LedgerCorrupt(f"journal entry {expected} is missing", expected)
        body, digest = bytes(body), bytes(digest)
        if e.seal(before, seq, at, body) != digest:
            raise LedgerCorrupt(f"journal entry {seq} was changed: its hash does not fit", seq)
        try:
            entry = e.decode(body)
        except msgspec.MsgspecError as error:
            raise LedgerCorrupt(f"journal entry {seq} cannot be read: {error}", seq) from None
        if e.labels(entry) != (kind, id_, tenant):
            raise LedgerCorrupt(f"journal entry {seq} was changed: its columns contradict it", seq)
        before = digest
        yield seq, at, entry


def head(rows: Rows) -> tuple[int, bytes]:
    """(sequence, hash) of the newest entry, as the head row says."""
    found = list(rows("SELECT seq, hash FROM head", ()))
    if len(found) != 1:
        raise LedgerCorrupt("the book's head row is missing")
    return int(found[0][0]), bytes(found[0][1])


def check_tail(rows: Rows, length: int = TAIL) -> None:
    """Checks the newest ``length`` entries and that they end where the head says.

    Raises:
        LedgerCorrupt: see :func:`walk`.
    """
    seq, digest = head(rows)
    start = max(0, seq - length)
    before = e.GENESIS
    if start:
        found = list(rows("SELECT hash FROM journal WHERE seq = ?", (start,)))
        if not found:
            raise LedgerCorrupt(f"journal entry {start} is missing", start)
        before = bytes(found[0][0])
    last = start
    for found_seq, _, _ in walk(rows, start, before):
        last = found_seq
    ends_well(rows, last, seq, digest)


def ends_well(rows: Rows, last: int, seq: int, digest: bytes) -> None:
    """Raises LedgerCorrupt unless the walk, which ended at ``last``, ended at the head."""
    if last != seq:
        first = min(last, seq) + 1
        raise LedgerCorrupt(f"the head says {seq} entries, the journal ends at {last}", first)
    if seq:
        stored = bytes(next(iter(rows("SELECT hash FROM journal WHERE seq = ?", (seq,))))[0])
        if stored != digest:
            raise LedgerCorrupt(f"the head's hash is not that of entry {seq}", seq)
