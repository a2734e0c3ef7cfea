"""Sessions: a random token in a cookie, its digest in a table, an end by clock and by silence.

A token is made new at every sign-in. What is stored is its SHA-256: 256 random bits need no slow
hash. A session ends ``hours`` after it began, and after a sixth of that without a word.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from avocado.console.people import Person, by_id
from avocado.gateway.shelf import Database

SECOND: Final = 1_000_000_000
NOTE_EVERY: Final = 60 * SECOND
"""``seen`` is written no oftener."""
_COLUMNS: Final = "digest, id, person, created, expires, seen, address, agent"


@dataclass(frozen=True)
class Session:
    """``id`` may be shown and is what a person ends a session by; the digest never leaves."""

    digest: str
    id: str
    person: str
    created: int
    expires: int
    seen: int
    address: str
    agent: str


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def begin(
    database: Database, person: Person, now: int, hours: int, address: str, agent: str
) -> str:
    """Starts a session and returns its token. Sessions that are over go."""
    token = secrets.token_urlsafe(32)
    row = (
        digest(token),
        secrets.token_hex(8),
        person.id,
        now,
        now + hours * 3600 * SECOND,
        now,
        address[:64],
        agent[:200],
    )
    with database.transaction():
        database.run("DELETE FROM console_session WHERE expires < ?", (now,))
        database.run(
            f"INSERT INTO console_session ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            row,
        )
        database.run("UPDATE console_person SET seen = ? WHERE id = ?", (now, person.id))
    return token


def find(database: Database, token: str, now: int, hours: int) -> tuple[Person, Session] | None:
    """Whose session it is; None for an unknown token and for a session that is over."""
    if not 20 <= len(token) <= 100 or not token.isascii():
        return None
    sql = f"SELECT {_COLUMNS} FROM console_session WHERE digest = ?"  # noqa: S608
    rows = database.run(sql, (digest(token),))
    if not rows:
        return None
    session = Session(*rows[0])
    silence = hours * 3600 * SECOND // 6
    person = by_id(database, session.person)
    if person is None or now >= session.expires or now - session.seen >= silence:
        end(database, session.digest)
        return None
    if now - session.seen >= NOTE_EVERY:
        database.run("UPDATE console_session SET seen = ? WHERE digest = ?", (now, session.digest))
    return person, session


def end(database: Database, session_digest: str) -> None:
    database.run("DELETE FROM console_session WHERE digest = ?", (session_digest,))


def end_one(database: Database, person: Person, session: str) -> bool:
    """Ends one of the person's own sessions by its id; False if it has no such session."""
    return bool(
        database.run(
            "DELETE FROM console_session WHERE person = ? AND id = ? RETURNING id",
            (person.id, session),
        )
    )


def end_all(database: Database, person: Person, but: str = "") -> None:
    """Signs the person out everywhere, or everywhere but in the session of digest ``but``."""
    database.run("DELETE FROM console_session WHERE person = ? AND digest <> ?", (person.id, but))


def of_person(database: Database, person: Person, now: int) -> Sequence[Session]:
    """The person's sessions, the last used first."""
    sql = (
        f"SELECT {_COLUMNS} FROM console_session WHERE person = ? AND expires > ?"  # noqa: S608
        " ORDER BY seen DESC"
    )
    rows: list[tuple[Any, ...]] = database.run(sql, (person.id, now))
    return [Session(*row) for row in rows]
