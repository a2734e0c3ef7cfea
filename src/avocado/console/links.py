"""Links that work once: the first operator's, invitations, sign-in by e-mail, a new password.

A link carries 256 random bits; the table has their digest. Opening it shows a page with a button,
and only the button uses it: programs that look at every link in a mail use up none. A link that was
used, or is over, is :class:`LinkSpent`: 403, and on record.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from avocado.console.roles import Role
from avocado.console.sessions import SECOND, digest
from avocado.gateway.shelf import Database

Kind = Literal["first", "invite", "sign-in", "password"]
LIFETIMES: Final[dict[Kind, int]] = {
    "first": 3600,
    "invite": 7 * 86_400,
    "sign-in": 900,
    "password": 3600,
}
"""Seconds."""
_COLUMNS: Final = "digest, kind, email, tenant, role, made_by, created, expires, used"


class LinkSpent(Exception):
    """The link was used before, is over, or is none. ``link`` is None for one that is unknown."""

    def __init__(self, link: Link | None) -> None:
        super().__init__("this link was used before or is over")
        self.link = link


@dataclass(frozen=True)
class Link:
    """``email`` is "" where its user is to say it (``first``). Times are ns since 1970."""

    digest: str
    kind: Kind
    email: str
    tenant: str | None
    role: Role
    made_by: str
    created: int
    expires: int
    used: int | None


def make(
    database: Database,
    kind: Kind,
    email: str,
    role: Role,
    tenant: str | None,
    made_by: str,
    now: int,
) -> str:
    """A new link's token. Older open links of the same kind and address stop working."""
    token = secrets.token_urlsafe(32)
    with database.transaction():
        database.run(
            "DELETE FROM console_link WHERE kind = ? AND email = ? AND used IS NULL", (kind, email)
        )
        database.run("DELETE FROM console_link WHERE expires < ?", (now - 90 * 86_400 * SECOND,))
        database.run(
            f"INSERT INTO console_link ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                digest(token),
                kind,
                email,
                tenant,
                role,
                made_by,
                now,
                now + LIFETIMES[kind] * SECOND,
                None,
            ),
        )
    return token


def look(database: Database, token: str, now: int) -> Link:
    """The link behind a token, unused.

    Raises:
        LinkSpent: it is unknown, used or over.
    """
    found = _find(database, token)
    if found is None or found.used is not None or now >= found.expires:
        raise LinkSpent(found)
    return found


def use(database: Database, token: str, now: int) -> Link:
    """Uses a link: of two who do so at once, one gets it. Call it inside a transaction of what the
    link does, so that a refusal leaves the link as it was.

    Raises:
        LinkSpent: it is unknown, used or over.
    """
    rows = database.run(
        "UPDATE console_link SET used = ? WHERE digest = ? AND used IS NULL AND expires > ?"  # noqa: S608
        f" RETURNING {_COLUMNS}",
        (now, digest(token), now),
    )
    if not rows:
        raise LinkSpent(_find(database, token))
    return _link(rows[0])


def waiting(database: Database, tenant: str | None, now: int) -> list[Link]:
    """Invitations that nobody has taken up yet."""
    where = "tenant IS NULL" if tenant is None else "tenant = ?"
    values: list[object] = [now, *([] if tenant is None else [tenant])]
    sql = (
        f"SELECT {_COLUMNS} FROM console_link WHERE kind = 'invite' AND used IS NULL"  # noqa: S608
        f" AND expires > ? AND {where} ORDER BY created"
    )
    return [_link(row) for row in database.run(sql, values)]


def withdraw(database: Database, email: str, tenant: str | None) -> None:
    """Takes back the open invitations of an address to a customer, or (None) to the operator's."""
    where = "tenant IS NULL" if tenant is None else "tenant = ?"
    values: list[object] = [email, *([] if tenant is None else [tenant])]
    database.run(
        f"DELETE FROM console_link WHERE kind = 'invite' AND email = ? AND {where}",  # noqa: S608
        values,
    )


def _find(database: Database, token: str) -> Link | None:
    if not token.isascii() or len(token) > 100:
        return None
    sql = f"SELECT {_COLUMNS} FROM console_link WHERE digest = ?"  # noqa: S608
    rows = database.run(sql, (digest(token),))
    return _link(rows[0]) if rows else None


def _link(row: tuple[Any, ...]) -> Link:
    return Link(row[0], cast(Kind, row[1]), row[2], row[3], cast(Role, row[4]), *row[5:])
