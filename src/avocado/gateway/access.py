"""Policies: what a key may do and how fast a key or customer may ask, beside the ledger's record.

The ledger knows whose a key is and what it may spend. What is not money lies on the shelf: scopes,
models, an earlier end (for rotation), requests and tokens a minute. Commands write policies, every
server reads them; a change is seen within the second for which a key's record is believed,
and is put on record (``changes``) in its own transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from avocado.gateway import changes
from avocado.gateway.keys import KeyLookup, KeyRecord
from avocado.gateway.rates import Rate
from avocado.gateway.shelf import Database, ShelfUnavailable, Worker, open_database
from avocado.ledger.errors import LedgerUnavailable

SCOPES: Final = ("inference", "read", "metrics")
"""Ask for tokens; see models, usage and credit; see ``/metrics``."""


class Policy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of one subject: ``key:<id>`` or ``customer:<tenant>``. None is the default of the server."""

    scopes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    """The only models that a key may ask for."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    until: int | None = None
    """Nanoseconds since 1970 at which a key ends, if its record does not end it before."""
    plan: str | None = None
    """Of a customer: the plan that it is on, for offers that are not for everybody."""


def read(database: Database, subjects: Sequence[str]) -> dict[str, Policy]:
    """The policies on the shelf of those subjects that have one."""
    marks = ", ".join("?" * len(subjects))
    rows = database.run(
        f"SELECT subject, terms FROM gateway_policy WHERE subject IN ({marks})",  # noqa: S608
        subjects,
    )
    return {subject: msgspec.json.decode(terms, type=Policy) for subject, terms in rows}


def change(database: Database, subject: str, who: str, **terms: object) -> Policy:
    """Changes the terms that are named, keeps the others, and returns the whole. ``who`` did it
    stands on record, with the time, the old terms and the new ones."""
    with database.transaction():
        place = changes.take_place(database)
        before = read(database, [subject]).get(subject, Policy())
        after = msgspec.structs.replace(before, **terms)
        if after == before:
            changes.give_place_back(database)
            return after
        old, new = (msgspec.json.encode(each).decode() for each in (before, after))
        database.run(
            "INSERT INTO gateway_policy (subject, terms) VALUES (?, ?)"
            " ON CONFLICT (subject) DO UPDATE SET terms = excluded.terms",
            (subject, new),
        )
        changes.record(database, place, (time.time_ns(), who, subject, old, new))
    return after


_BACKED_UP: Final = {
    "gateway_policy": "subject, terms",
    "gateway_change": "seq, at, who, subject, old, new, seal",
    "gateway_head": "one, seq, seal",
}


def backup(database: Database, target: Path) -> None:
    """Copies policies and the record of their changes, as of one moment, to a new shelf at
    ``target``. Kept answers are not copied: in a backup they would outlive their day.

    Raises:
        FileExistsError: there is something at ``target``.
        ShelfUnavailable: it cannot be read or written.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists; a backup never overwrites")
    with database.transaction(write=False):
        rows = {
            table: database.run(f"SELECT {columns} FROM {table}")  # noqa: S608
            for table, columns in _BACKED_UP.items()
        }
    copy = open_database(target)
    try:
        with copy.transaction():
            for table, columns in _BACKED_UP.items():
                marks = ", ".join("?" * (columns.count(",") + 1))
                for row in rows[table]:
                    copy.run(f"INSERT INTO {table} ({columns}) VALUES ({marks})", row)  # noqa: S608
    finally:
        copy.close()


class Access:
    """Completes the ledger's record of a key with its policies. ``default`` is for customers."""

    def __init__(self, lookup: KeyLookup, database: Database, default: Policy) -> None:
        self._lookup = lookup
        self._default = default
        self._worker: Worker[Sequence[str], dict[str, Policy]] = Worker(
            database, lambda db, items: [read(db, each) for each in items], "gateway-access", False
        )

    async def record(self, key_id: str) -> KeyRecord | None:
        """A :data:`KeyLookup`.

        Raises:
            LedgerError: the ledger, or the shelf, cannot be read.
        """
        found = await self._lookup(key_id)
        if found is None:
            return None
        names = (f"key:{key_id}", f"customer:{found.tenant}")
        try:
            policies = await self._worker.ask(names)
        except ShelfUnavailable as error:
            raise LedgerUnavailable(str(error)) from error
        key, customer = (policies.get(name, Policy()) for name in names)
        return complete(found, key, customer, self._default)

    def close(self) -> None:
        self._worker.close()


def complete(record: KeyRecord, key: Policy, customer: Policy, default: Policy) -> KeyRecord:
    """The record with everything that the policies add. The customer's own terms go before the
    default; a key's come on top of both."""
    ends = [each for each in (record.expires, key.until) if each is not None]
    rates = (
        Rate(f"key:{record.id}", key.requests_per_minute, key.tokens_per_minute),
        Rate(
            f"customer:{record.tenant}",
            _first(customer.requests_per_minute, default.requests_per_minute),
            _first(customer.tokens_per_minute, default.tokens_per_minute),
        ),
    )
    return KeyRecord(
        record.id,
        record.tenant,
        record.digest,
        record.revoked,
        min(ends) if ends else None,
        record.scopes if key.scopes is None else frozenset(key.scopes),
        None if key.models is None else frozenset(key.models),
        tuple(each for each in rates if (each.requests, each.tokens) != (None, None)),
        customer.plan or default.plan,
    )


def _first(own: int | None, default: int | None) -> int | None:
    """0 stands for no limit at all, so that a customer can be let off the default."""
    value = default if own is None else own
    return value or None
