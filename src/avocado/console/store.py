"""The console's own tables: people, their sessions, one-time links, and what happened to them.

They lie in ``console.sqlite`` beside the ledger, or in the ledger's PostgreSQL database. Tokens and
passwords are stored as digests only: who reads the file can sign in with nothing that it says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from avocado.gateway.shelf import Database, open_database
from avocado.workspace import Workspace

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS console_person (id TEXT PRIMARY KEY, email TEXT NOT NULL UNIQUE,"
    " tenant TEXT, role TEXT NOT NULL, password TEXT, language TEXT, theme TEXT,"
    " created BIGINT NOT NULL, seen BIGINT)",
    "CREATE INDEX IF NOT EXISTS console_person_tenant ON console_person (tenant)",
    "CREATE TABLE IF NOT EXISTS console_session (digest TEXT PRIMARY KEY, id TEXT NOT NULL,"
    " person TEXT NOT NULL, created BIGINT NOT NULL, expires BIGINT NOT NULL,"
    " seen BIGINT NOT NULL, address TEXT NOT NULL, agent TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS console_session_person ON console_session (person)",
    "CREATE TABLE IF NOT EXISTS console_link (digest TEXT PRIMARY KEY, kind TEXT NOT NULL,"
    " email TEXT NOT NULL, tenant TEXT, role TEXT NOT NULL, made_by TEXT NOT NULL,"
    " created BIGINT NOT NULL, expires BIGINT NOT NULL, used BIGINT)",
    "CREATE TABLE IF NOT EXISTS console_event (id TEXT PRIMARY KEY, at BIGINT NOT NULL,"
    " kind TEXT NOT NULL, tenant TEXT, who TEXT NOT NULL, address TEXT NOT NULL,"
    " detail TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS console_event_at ON console_event (at)",
)


def place_of(workspace: Workspace) -> Path | str:
    """Where the tables lie."""
    return workspace.config.ledger.url or workspace.state / "console.sqlite"


def open_store(place: Path | str) -> Database:
    """Opens the tables, and makes them where there are none. The file is its owner's alone.

    Raises:
        ShelfUnavailable: they cannot be opened.
    """
    if isinstance(place, Path) and not place.exists():
        place.touch(mode=0o600)
    return open_database(place, tables=TABLES)
