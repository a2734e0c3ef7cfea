"""Backups that prove, and exports that add up."""

from __future__ import annotations

import csv
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from avocado.ledger import export, proof
from avocado.ledger import operation as o
from avocado.ledger.ledger import open_ledger
from avocado.ledger.reader import open_reader
from avocado.terms.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ledger.conftest import Desk, Server, Workers

CHARGE = 100 * 200 + 200 * 800


def test_a_backup_taken_under_load_proves_and_works_on(tmp_path: Path, workers: Workers) -> None:
    source, target = tmp_path / "book.db", tmp_path / "copy.db"
    process = workers.start(source, "a", requests=100_000)
    assert process.stdout is not None
    before = [process.stdout.readline() for _ in range(300)]
    export.backup(source, target)
    during = [process.stdout.readline() for _ in range(100)]
    process.kill()
    process.communicate(timeout=30)
    assert during[-1]
    workers.check(target, before)
    with pytest.raises(FileExistsError):
        export.backup(source, target)


def test_a_dump_of_postgres_restores_and_proves(
    server: Server, desk_on: Callable[[str], Desk], tmp_path: Path
) -> None:
    pgserver = pytest.importorskip("pgserver")
    tools = Path(pgserver.__file__).parent / "pginstall" / "bin"
    desk = desk_on(server.database())
    desk.setup(money=10**9)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            desk.settle(desk.hold().hold)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        time.sleep(0.3)
        file = tmp_path / "book.dump"
        dump = [str(tools / "pg_dump"), "-Fc", "-f", str(file), str(desk.target)]
        subprocess.run(dump, check=True, timeout=60, env=os.environ)
    finally:
        stop.set()
        thread.join()
    restored = server.database("restored")
    command = [str(tools / "pg_restore"), "--clean", "--if-exists", "-d", restored, str(file)]
    subprocess.run(command, check=True, timeout=60)
    with open_reader(restored) as reader:
        assert reader.head()[0] > 5
    with open_ledger(restored, desk.clock) as ledger, open_reader(restored) as reader:
        again = o.Deposit(id="after", tenant="acme", amount=1, currency="USD")
        ledger.do_now(again)
        assert [c for c in proof.prove(reader, desk.clock.now(), deep=True) if not c.ok] == []


def test_exports_add_up_in_both_formats(desk: Desk, tmp_path: Path) -> None:
    desk.setup(money=10**8)
    desk.setup(money=10**8, tenant="other")
    for tenant in ("acme", "other", "acme"):
        desk.settle(desk.hold(tenant=tenant).hold)
    desk.do(desk.request("=cmd", key_id=None))
    desk.do(o.Settle(hold="=cmd", usage=Usage(100, 200), finish="=SUM(A1)"))
    with desk.reader as reader:
        for suffix in ("csv", "parquet"):
            legs = tmp_path / f"transfers.{suffix}"
            used = tmp_path / f"usage.{suffix}"
            assert export.write(legs, export.TRANSFERS, export.transfers(reader)) > 10
            assert export.write(used, export.USAGE, export.usage(reader)) == 4
            assert export.write(used, export.USAGE, export.usage(reader, "other")) == 1
            export.write(used, export.USAGE, export.usage(reader))
            assert sum(_column(legs, "nanos")) == 0
            assert sum(_column(used, "nanos")) == 4 * CHARGE
            assert sum(_column(used, "completion")) == 800
        accounts = reader.accounts()
    with (tmp_path / "transfers.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, balance in accounts.items():
        assert sum(int(row["nanos"]) for row in rows if row["account"] == name) == balance
    text = (tmp_path / "usage.csv").read_text()
    assert "'=SUM(A1)" in text
    assert "'=cmd" in text
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        export.write(tmp_path / "usage.xlsx", export.USAGE, [])


def test_documents_and_allowances_are_exported_too(desk: Desk, tmp_path: Path) -> None:
    desk.setup(money=10**8)
    desk.do(o.Allow(id="plan", tenant="acme", tokens=50))
    desk.settle(desk.hold().hold)
    for revision in (1, 2):
        content = {"total": revision, "name": "Zoë"}
        desk.do(o.File(id="i", kind="invoice", content=content, revision=revision, series="AV"))
    with desk.reader as reader:
        for suffix in ("csv", "parquet"):
            filed, used = tmp_path / f"documents.{suffix}", tmp_path / f"usage.{suffix}"
            assert export.write(filed, export.DOCUMENTS, export.documents(reader)) == 2
            export.write(used, export.USAGE, export.usage(reader))
            assert _column(filed, "revision") == [1, 2]
            assert _column(filed, "number") == [1, 1]
            assert _column(used, "covered") == [50]
    assert '{""total"":2,""name"":""Zoë""}' in (tmp_path / "documents.csv").read_text()


def _column(path: Path, name: str) -> list[int]:
    if path.suffix == ".parquet":
        values: list[int] = pq.read_table(path).column(name).to_pylist()
        return values
    with path.open() as file:
        return [int(row[name]) for row in csv.DictReader(file)]
