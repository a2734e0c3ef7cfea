"""Migrations: a populated book of every earlier schema opens, proves and works on."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from avocado.ledger import errors, proof, schema
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import open_ledger
from avocado.ledger.reader import open_reader
from avocado.ledger.rows import COLUMNS, TABLES
from avocado.terms.price import MILLION, PriceSheet
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from tests.ledger.conftest import Server

V1 = Path(__file__).with_name("book_v1.sql")


def old_book(folder: Path) -> Path:
    """The book of schema 1 that the fixture holds: requests, grants, limits, one open stream."""
    path = folder / "book.db"
    db = sqlite3.connect(path)
    db.executescript(V1.read_text())
    db.close()
    return path


def test_a_populated_book_of_the_first_schema_is_upgraded(tmp_path: Path) -> None:
    path = old_book(tmp_path)
    clock = ManualClock(1_790_000_000_000_000_000 + 60 * 10**9)
    with open_reader(path) as reader:
        before, head = reader.accounts(), reader.head()
    with open_ledger(path, clock) as ledger:
        assert (ledger.recovery.settled, ledger.recovery.voided) == (1, 1)
        with open_reader(path) as reader:
            assert list(reader.rows("PRAGMA user_version", ())) == [(schema.VERSION,)]
            assert reader.hold("r10").usage() == Usage(100, 50)  # type: ignore[union-attr]
            after = reader.accounts()
        assert after.keys() == before.keys()
        assert sum(after.values()) == sum(before.values()) == 0
        tiered = PriceSheet(200_000_000, 800_000_000, tiers=((1, MILLION // 2),))
        ledger.do_now(o.PublishPrice(terms=tiered.terms()))
        hold = o.Hold(
            id="new",
            tenant="acme",
            offer="avocado-1",
            release="release-1",
            price_version=tiered.version,
            prompt_tokens=100,
            max_tokens=500,
        )
        ledger.do_now(hold)
        ledger.do_now(o.Settle(hold="new", usage=Usage(100, 200)))
    with open_reader(path) as reader:
        assert reader.head()[0] > head[0]
        assert [
            check for check in proof.prove(reader, clock.now(), deep=True) if not check.ok
        ] == []


def test_the_money_of_an_old_book_is_found_without_a_scan(tmp_path: Path) -> None:
    path = old_book(tmp_path)
    kinds = ("Deposited", "Granted", "GrantExpired", "Refunded", "Adjusted")
    with open_reader(path) as reader:
        tenants = [row[0] for row in reader.rows("SELECT tenant FROM customer", ())]
        expected = {
            tenant: [
                record.seq
                for record in reader.journal(tenant=tenant)
                if type(record.entry).__name__ in kinds
            ]
            for tenant in tenants
        }
        head = reader.head()
    assert sum(map(len, expected.values())) > 2
    open_ledger(path, ManualClock(1_790_000_000_000_000_000 + 60 * 10**9)).close()
    with open_reader(path) as reader:
        for tenant, seqs in expected.items():
            assert [record.seq for record in reader.postings(tenant, until=head[0])] == seqs
            customer = reader.customer(tenant)
            assert (customer.frozen, customer.allowed) == ("", 0)
            assert all(charge.covered == 0 for charge in reader.charges(tenant))


def test_a_populated_postgres_of_the_first_schema_is_upgraded(
    server: Server, tmp_path: Path
) -> None:
    import psycopg

    address = server.database("old_book")
    source = sqlite3.connect(old_book(tmp_path))
    with psycopg.connect(address) as db:
        db.execute("CREATE TABLE schema_version (version BIGINT PRIMARY KEY)")
        db.execute("INSERT INTO schema_version VALUES (1)")
        for statement in schema.statements(1, "postgres"):
            db.execute(statement.encode())
        db.execute("DELETE FROM head")
        old = {row[0] for row in source.execute("SELECT name FROM sqlite_schema")}
        for table in (
            "head",
            "journal",
            "epoch",
            *(name for name in TABLES.values() if name in old),
        ):
            rows = source.execute(f"SELECT * FROM {table}")
            names = ", ".join(column[0] for column in rows.description)
            marks = ", ".join(["%s"] * len(rows.description))
            for row in rows:
                db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), row)
        db.execute("UPDATE epoch SET ended = 'killed'")
    source.close()
    clock = ManualClock(1_790_000_000_000_000_000 + 60 * 10**9)
    with open_ledger(address, clock) as ledger, open_reader(address) as reader:
        assert (ledger.recovery.settled, ledger.recovery.voided) == (1, 1)
        ledger.do_now(o.Deposit(id="new", tenant="acme", amount=1, currency="USD"))
        assert [
            check for check in proof.prove(reader, clock.now(), deep=True) if not check.ok
        ] == []


def test_a_running_process_of_older_code_is_fenced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would leave out of its rows what newer ones count on; its holds are recovered."""
    address, clock = server.database("rolling"), ManualClock()
    with open_ledger(address, clock) as old:
        old.do_now(o.OpenCustomer(tenant="acme", name="Acme Ltd"))
        old.do_now(o.Deposit(id="before", tenant="acme", amount=10**9, currency="USD"))
        old.do_now(o.PublishPrice(terms=PriceSheet(200_000_000, 800_000_000).terms()))
        hold = o.Hold(
            id="stream",
            tenant="acme",
            offer="avocado-1",
            release="release-1",
            price_version=PriceSheet(200_000_000, 800_000_000).version,
            prompt_tokens=100,
            max_tokens=500,
        )
        old.do_now(hold)
        more = "ALTER TABLE customer ADD COLUMN later INTEGER NOT NULL DEFAULT 0;\n"
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, more))
        monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
        with open_ledger(address, clock) as new, open_reader(address) as reader:
            with pytest.raises(errors.Fenced, match="ended by schema"):
                old.do_now(o.Deposit(id="after", tenant="acme", amount=1, currency="USD"))
            assert new.recovery.voided == 1
            new.do_now(o.Deposit(id="after", tenant="acme", amount=1, currency="USD"))
            assert reader.balance("acme").wallet == 10**9 + 1


def test_a_newer_book_is_refused(tmp_path: Path) -> None:
    path = old_book(tmp_path)
    db = apsw.Connection(str(path))
    db.pragma("user_version", schema.VERSION + 1)
    db.close()
    with pytest.raises(errors.LedgerUnavailable, match="newer version"):
        open_ledger(path)


def test_the_tables_have_the_columns_of_their_rows(tmp_path: Path) -> None:
    open_ledger(tmp_path / "book.db").close()
    with open_reader(tmp_path / "book.db") as reader:
        for kind, table in TABLES.items():
            columns = {row[1] for row in reader.rows(f"PRAGMA table_info({table})", ())}
            assert columns == set(COLUMNS[kind]), f"table {table} differs from {kind.__name__}"


@pytest.mark.parametrize("version", range(1, schema.VERSION + 1))
def test_both_dialects_get_every_statement(version: int) -> None:
    lite, postgres = (schema.statements(version, dialect) for dialect in ("sqlite", "postgres"))
    assert len(lite) == len(postgres) > 0
    assert not any("BYTES" in text or "ZERO_HASH" in text for text in (*lite, *postgres))
