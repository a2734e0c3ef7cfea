"""The tables, for SQLite and PostgreSQL, as numbered migrations. One text, two dialects.

A migration is applied in one transaction with the row that says so; it is never edited once it has
been released. Knows nothing of connections: ``statements`` gives the SQL, the stores run it.
"""

from __future__ import annotations

from typing import Final, Literal

Dialect = Literal["sqlite", "postgres"]

_FIRST = """
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL,
  hash BYTES NOT NULL);
CREATE TABLE journal (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL,
  id TEXT NOT NULL, tenant TEXT NOT NULL, body BYTES NOT NULL, hash BYTES NOT NULL);
CREATE TABLE epoch (id TEXT PRIMARY KEY, process TEXT NOT NULL, opened INTEGER NOT NULL,
  beat INTEGER NOT NULL DEFAULT 0, ended TEXT);
CREATE TABLE customer (tenant TEXT PRIMARY KEY, name TEXT NOT NULL, currency TEXT NOT NULL,
  credit_limit INTEGER NOT NULL CHECK (credit_limit >= 0), month_limit INTEGER,
  total_limit INTEGER, opened INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE apikey (key_id TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES customer (tenant),
  name TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, expires INTEGER,
  revoked INTEGER, month_limit INTEGER, total_limit INTEGER, seq INTEGER NOT NULL);
CREATE INDEX apikey_tenant ON apikey (tenant);
CREATE TABLE price (version TEXT PRIMARY KEY, terms TEXT NOT NULL, published INTEGER NOT NULL,
  seq INTEGER NOT NULL);
CREATE TABLE account (name TEXT PRIMARY KEY, currency TEXT NOT NULL, balance INTEGER NOT NULL,
  floor INTEGER, CHECK (floor IS NULL OR balance >= floor)) WITHOUT_ROWID;
CREATE TABLE grant_lot (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, amount INTEGER NOT NULL,
  priority INTEGER NOT NULL, expires INTEGER, closed INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE INDEX grant_lot_left ON grant_lot (tenant) WHERE closed = 0;
CREATE TABLE hold (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, key_id TEXT, offer TEXT NOT NULL,
  release TEXT NOT NULL, price_version TEXT NOT NULL, currency TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, max_tokens INTEGER NOT NULL, n INTEGER NOT NULL,
  batch INTEGER NOT NULL, lifetime INTEGER NOT NULL, epoch TEXT NOT NULL, idempotency_key TEXT,
  fingerprint TEXT, amount INTEGER NOT NULL CHECK (amount >= 0), parts TEXT NOT NULL,
  opened INTEGER NOT NULL, seq INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'settled', 'voided')), progress TEXT,
  prompt INTEGER NOT NULL, completion INTEGER NOT NULL, cached INTEGER NOT NULL,
  reasoning INTEGER NOT NULL, charge INTEGER NOT NULL CHECK (charge >= 0 AND charge <= amount),
  refunded INTEGER NOT NULL CHECK (refunded >= 0 AND refunded <= charge), finish TEXT,
  closed INTEGER, closed_seq INTEGER) WITHOUT_ROWID;
CREATE INDEX hold_open ON hold (epoch) WHERE state = 'open';
CREATE INDEX hold_settled ON hold (tenant, closed_seq) WHERE state = 'settled';
CREATE TABLE posting (id TEXT PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL,
  currency TEXT NOT NULL, amount INTEGER NOT NULL, refunded INTEGER NOT NULL,
  content TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE promise (name TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, hold TEXT NOT NULL);
CREATE TABLE spent (name TEXT PRIMARY KEY, amount INTEGER NOT NULL);
INSERT INTO head (one, seq, hash) VALUES (1, 0, ZERO_HASH);
"""

_VOLUME = """
ALTER TABLE hold ADD COLUMN volume INTEGER NOT NULL DEFAULT 0;
"""

_BILLING = """
ALTER TABLE customer ADD COLUMN frozen TEXT NOT NULL DEFAULT '';
ALTER TABLE customer ADD COLUMN allowed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE posting ADD COLUMN tax INTEGER NOT NULL DEFAULT 0;
ALTER TABLE posting ADD COLUMN pays TEXT NOT NULL DEFAULT '';
ALTER TABLE hold ADD COLUMN lots TEXT NOT NULL DEFAULT '';
ALTER TABLE hold ADD COLUMN covered INTEGER NOT NULL DEFAULT 0;
CREATE TABLE document (id TEXT PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL,
  revision INTEGER NOT NULL, series TEXT, number INTEGER, content TEXT NOT NULL,
  actor TEXT NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL, filed INTEGER NOT NULL);
CREATE INDEX document_kind ON document (kind, filed);
CREATE INDEX document_tenant ON document (tenant, kind, filed);
CREATE UNIQUE INDEX document_number ON document (series, number) WHERE number IS NOT NULL;
CREATE TABLE filing (name TEXT PRIMARY KEY, document TEXT NOT NULL, revision INTEGER NOT NULL,
  number INTEGER, digest TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE INDEX filing_document ON filing (document);
CREATE TABLE series (name TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE allowance (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, tokens INTEGER NOT NULL,
  free INTEGER NOT NULL CHECK (free >= 0), reserved INTEGER NOT NULL CHECK (reserved >= 0),
  used INTEGER NOT NULL CHECK (used >= 0), expired INTEGER NOT NULL CHECK (expired >= 0),
  offers TEXT NOT NULL, priority INTEGER NOT NULL, expires INTEGER, reason TEXT NOT NULL,
  closed INTEGER NOT NULL, ended INTEGER NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL,
  CHECK (tokens = free + reserved + used + expired));
CREATE INDEX allowance_tenant ON allowance (tenant);
CREATE INDEX allowance_due ON allowance (expires) WHERE closed = 0;
CREATE TABLE movement (seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL);
CREATE INDEX movement_tenant ON movement (tenant, seq);
INSERT INTO movement SELECT seq, tenant FROM journal
  WHERE kind IN ('Deposited', 'Granted', 'GrantExpired', 'Refunded', 'Adjusted');
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _VOLUME, _BILLING)
VERSION: Final = len(MIGRATIONS)
"""The schema that this code reads and writes."""


def statements(version: int, dialect: Dialect) -> list[str]:
    """The SQL that takes a book from ``version - 1`` to ``version``, statement by statement."""
    text = MIGRATIONS[version - 1]
    if dialect == "sqlite":
        text = text.replace("ZERO_HASH", "zeroblob(32)").replace("BYTES", "BLOB")
        text = text.replace(") WITHOUT_ROWID;", ") STRICT, WITHOUT ROWID;")
    else:
        text = text.replace(" WITHOUT_ROWID", "").replace("INTEGER", "BIGINT")
        text = text.replace("BYTES", "BYTEA")
        text = text.replace("ZERO_HASH", "decode(repeat('00', 32), 'hex')")
    parts = [part.strip() for part in text.split(";\n") if part.strip()]
    if dialect == "postgres":
        return parts
    return [
        part + " STRICT" if part.startswith("CREATE TABLE") and part.endswith(")") else part
        for part in parts
    ]
