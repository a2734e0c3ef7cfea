"""Events: sign-ins, links, invitations, members: who did what to whose access, from where.

Money has the ledger's journal, policies have ``gateway.changes``; this is what neither of them
knows. Rows are only ever added, and go after two years.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Final

from avocado.gateway.shelf import Database

log = logging.getLogger("avocado.console")

_COLUMNS: Final = "id, at, kind, tenant, who, address, detail"
_KEPT: Final = 730 * 86_400 * 1_000_000_000


@dataclass(frozen=True)
class Event:
    """``kind`` such as ``sign-in``, ``sign-in-failed``, ``link-refused``, ``member-removed``."""

    id: str
    at: int
    kind: str
    tenant: str | None
    who: str
    address: str
    detail: str


def note(
    database: Database,
    now: int,
    kind: str,
    who: str,
    *,
    tenant: str | None = None,
    address: str = "",
    detail: str = "",
) -> None:
    """Puts an event on record and in the log."""
    who, address, detail = (_plain(each) for each in (who, address, detail))
    row = (secrets.token_hex(8), now, kind, tenant, who[:254], address[:64], detail[:500])
    database.run(
        f"INSERT INTO console_event ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        row,
    )
    database.run("DELETE FROM console_event WHERE at < ?", (now - _KEPT,))
    log.info("%s %s from %s %s", kind, who, address or "here", detail)


def _plain(text: str) -> str:
    """What a stranger typed must not look like a line of the log."""
    return "".join(each if each.isprintable() else "?" for each in text[:500])


def newest(
    database: Database, most: int = 100, before: int = 2**63 - 1, tenant: str | None = None
) -> list[Event]:
    """The newest events with ``at`` < ``before``, of one customer or of all."""
    where, values = "at < ?", [before]
    sql = f"SELECT {_COLUMNS} FROM console_event WHERE {where}"  # noqa: S608
    given: list[object] = [*values]
    if tenant is not None:
        sql += " AND tenant = ?"
        given.append(tenant)
    rows = database.run(f"{sql} ORDER BY at DESC, id LIMIT {int(most)}", given)
    return [Event(*row) for row in rows]
