"""Changes: who changed which policy, when, from what to what.

Policies are no money, so the ledger's journal says nothing of them. Their changes are rows beside
them that are only ever added, in the transaction of the change itself. Each is sealed with SHA-256
over the seal before it, as the journal's entries are, and a head row names the newest: a row that
was altered, taken out or added by hand is found. Knows nothing of what the terms mean.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from avocado.errors import Refused
from avocado.gateway.shelf import Database

GENESIS: Final = "0" * 64
"""The seal before the first change."""
_COLUMNS: Final = "seq, at, who, subject, old, new, seal"


class Change(msgspec.Struct, frozen=True):
    """One change. ``at`` is in ns since 1970; ``old`` and ``new`` are a policy's whole JSON."""

    seq: int
    at: int
    who: str
    subject: str
    old: str
    new: str
    seal: str


def take_place(database: Database) -> tuple[int, str]:
    """The sequence of the next change and the seal before it. From here to the end of the
    transaction nobody else changes a policy, on any machine: the head row is locked."""
    rows = database.run(
        "INSERT INTO gateway_head (one, seq, seal) VALUES (1, 1, ?)"
        " ON CONFLICT (one) DO UPDATE SET seq = gateway_head.seq + 1 RETURNING seq, seal",
        (GENESIS,),
    )
    return int(rows[0][0]), str(rows[0][1])


def record(
    database: Database, place: tuple[int, str], change: tuple[int, str, str, str, str]
) -> None:
    """Adds a change (at, who, subject, old, new) at the place that was taken for it."""
    seq, before = place
    seal = _seal(before, seq, *change)
    database.run(
        f"INSERT INTO gateway_change ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (seq, *change, seal),
    )
    database.run("UPDATE gateway_head SET seal = ? WHERE one = 1", (seal,))


def give_place_back(database: Database) -> None:
    """Nothing changed after all."""
    database.run("UPDATE gateway_head SET seq = seq - 1 WHERE one = 1")


def _seal(before: str, seq: int, *change: int | str) -> str:
    return hashlib.sha256(msgspec.json.encode([before, seq, *change])).hexdigest()


def changes(database: Database) -> list[Change]:
    """All changes, oldest first, after checking that they are what was written, and that the
    policies are what the newest change of each says.

    Raises:
        Refused: they are not; the sentence names the first that is wrong.
    """
    head, found, policies = _all(database)
    before, latest = GENESIS, dict[str, str]()
    for number, each in enumerate(found, 1):
        sealed = _seal(before, each.seq, each.at, each.who, each.subject, each.old, each.new)
        if (each.seq, each.seal) != (number, sealed):
            raise Refused(f"the record of policies was altered: change {number} is not as written")
        if latest.get(each.subject, each.old) != each.old:
            raise Refused(f"the record of policies was altered: change {number} fits none before")
        before, latest[each.subject] = each.seal, each.new
    if (len(found), before) != head:
        raise Refused(f"the record of policies was altered: it ends at change {len(found)}")
    for subject, terms in latest.items():
        if policies.get(subject) != terms:
            raise Refused(f"the policy of {subject} was changed beside the record of policies")
    return found


def _all(database: Database) -> tuple[tuple[int, str], list[Change], dict[str, str]]:
    """Head, changes and policies of one moment."""
    sql = f"SELECT {_COLUMNS} FROM gateway_change ORDER BY seq"  # noqa: S608
    while True:
        with database.transaction(write=False):
            head = _head(database)
            found = [Change(*row) for row in database.run(sql)]
            policies = dict(database.run("SELECT subject, terms FROM gateway_policy"))
            if _head(database) == head:  # PostgreSQL shows each statement what is newest
                return head, found, policies


def _head(database: Database) -> tuple[int, str]:
    rows = database.run("SELECT seq, seal FROM gateway_head")
    return (int(rows[0][0]), str(rows[0][1])) if rows else (0, GENESIS)
