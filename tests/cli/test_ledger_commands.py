"""Backups that prove, exports that add up, corrections with reasons: by the commands themselves."""

from __future__ import annotations

import csv
from pathlib import Path

from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import Hold, PublishPrice, Settle
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado

SHEET = PriceSheet(200_000_000, 800_000_000)


def sell(folder: Path, request: str) -> None:
    """One settled request of acme's: 10 + 5 tokens, 6,000 nano-units."""
    with open_ledger(Workspace.open(folder).ledger) as ledger:
        ledger.do_now(PublishPrice(terms=SHEET.terms()))
        ledger.do_now(
            Hold(
                id=request,
                tenant="acme",
                offer="m",
                release="release-1",
                price_version=SHEET.version,
                prompt_tokens=10,
                max_tokens=10,
            )
        )
        ledger.do_now(Settle(hold=request, usage=Usage(10, 5)))


def test_backup_export_and_corrections(shop: Path, avocado: Avocado) -> None:
    assert avocado(shop, "customer", "add", "acme", "--credit", "1.00").code == 0
    sell(shop, "req_1")
    assert avocado(shop, "ledger", "backup", "copy.sqlite").code == 0
    assert avocado(shop, "ledger", "backup", "copy.sqlite").code == 1
    proved = avocado(shop, "verify", "--ledger", "copy.sqlite", "--deep", "--json").json
    assert isinstance(proved, dict)
    assert len(proved["ledger"]) == 10

    assert avocado(shop, "ledger", "export", "transfers", "t.csv").code == 0
    rows = list(csv.DictReader((shop / "t.csv").open()))
    assert sum(int(row["nanos"]) for row in rows) == 0
    assert avocado(shop, "ledger", "export", "usage", "u.csv").code == 0
    (used,) = csv.DictReader((shop / "u.csv").open())
    assert used["nanos"] == "6000"
    assert avocado(shop, "ledger", "export", "usage", "u.xls").code == 1
    assert avocado(shop, "profile", "set", "acme", "--city", "Köln").code == 0
    assert avocado(shop, "ledger", "export", "documents", "d.csv").code == 0
    assert "profile/acme" in (shop / "d.csv").read_text("utf-8")
    assert not (shop / "u.xls").exists()

    invoice = avocado(shop, "invoice", "acme", "--json").json
    assert isinstance(invoice, dict)
    assert sum(line["nanos"] for line in invoice["lines"]) == invoice["total"] == 6000
    traced = avocado(shop, "trace", invoice["lines"][0]["id"])
    assert traced.code == 1  # the release of this request is not in the workspace
    assert "release-1" in traced.err

    refunded = avocado(shop, "ledger", "refund", "req_1", "--reason", "wrong answer", "--json")
    assert isinstance(refunded.json, dict)
    assert refunded.json["available"] == "1.00"
    again = avocado(shop, "ledger", "refund", "req_1", "--reason", "twice")
    assert again.code == 1
    granted = avocado(shop, "ledger", "grant", "acme", "2", "--days", "3", "--json").json
    assert isinstance(granted, dict)
    assert granted["available"] == "3.00"
    adjusted = avocado(shop, "ledger", "adjust", "acme", "-0.25", "--reason", "typo", "--json").json
    assert isinstance(adjusted, dict)
    assert adjusted["available"] == "2.75"
    assert avocado(shop, "ledger", "adjust", "acme", "-500", "--reason", "x").code == 1
    assert avocado(shop, "verify", "--deep").code == 0


def test_fault_05_a_flipped_byte_is_named(shop: Path, avocado: Avocado) -> None:
    import apsw

    assert avocado(shop, "customer", "add", "acme", "--credit", "1.00").code == 0
    sell(shop, "req_1")
    book = apsw.Connection(str(Workspace.open(shop).ledger))
    flip = "UPDATE journal SET body = CAST(replace(CAST(body AS TEXT), '6000', '6001') AS BLOB)"
    book.execute(flip + " WHERE seq = 5")
    book.close()
    ran = avocado(shop, "verify")
    assert ran.code == 1
    assert "entry 5" in ran.out
    assert "ledger invariant 8 is broken" in ran.err


def test_a_changed_file_of_an_artifact_is_named(
    trained: tuple[Path, str], avocado: Avocado
) -> None:
    folder, checkpoint = trained
    assert avocado(folder, "verify").code == 0
    config = Workspace.open(folder).store.load(checkpoint).files / "config.json"
    before = config.read_bytes()
    try:
        config.write_bytes(before + b" ")
        ran = avocado(folder, "verify")
        assert ran.code == 1
        assert "config.json was changed" in ran.err
        assert avocado(folder, "evaluate", checkpoint).code == 1
    finally:
        config.write_bytes(before)
