"""``avocado invoices`` and ``avocado profile`` in a workspace, with a server and without one."""

from __future__ import annotations

import asyncio
import csv
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avocado.billing.months import after, month_at, start
from avocado.gateway.admin import AdminServer
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import open_ledger
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado

CONFIG = """
name = "Shop"
currency = "EUR"

[seller]
name = "Avocado GmbH"
address = ["Hafenstr. 1"]
postcode = "20457"
city = "Hamburg"
country = "DE"
vat_id = "DE136695976"
email = "billing@example.com"
iban = "DE89370400440532013000"
invoice_series = "AV"

[tax]
kind = "table"
"""
SHEET = PriceSheet(10**9, 10**9 * 100, currency="EUR")
LAST = after(month_at(time.time_ns()), -1)


@pytest.fixture
def business(tmp_path: Path) -> Path:
    """A workspace with a seller, and two customers that used tokens last month: 10.00 each."""
    folder = tmp_path / "business"
    Workspace.create(folder)
    (folder / "avocado.toml").write_text(CONFIG)
    workspace = Workspace.open(folder)
    with open_ledger(workspace.ledger, ManualClock(start(LAST) + 10**12)) as ledger:
        ledger.do_now(o.PublishPrice(terms=SHEET.terms()))
        for tenant in ("acme", "beta"):
            opening = o.OpenCustomer(
                tenant=tenant, name=tenant, currency="EUR", credit_limit=100 * 10**9
            )
            ledger.do_now(opening)
            hold = o.Hold(
                id=f"req-{tenant}",
                tenant=tenant,
                offer="m",
                release="release-1",
                price_version=SHEET.version,
                prompt_tokens=0,
                max_tokens=100_000,
            )
            ledger.do_now(hold)
            ledger.do_now(o.Settle(hold=hold.id, usage=Usage(0, 100_000)))
    return folder


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """The ledger behind the workspace's admin socket, as ``avocado serve`` holds it."""
    workspace, loop = Workspace.open(folder), asyncio.new_event_loop()
    ready, told = threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = AdminServer(workspace.admin_socket, ledger)
        await server.start()
        ready.set()
        await told.wait()
        await server.close()

    with open_ledger(workspace.ledger) as ledger:
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert ready.wait(5)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(told.set)
            thread.join()


def value(folder: Path, avocado: Avocado, *words: str | Path) -> Any:
    ran = avocado(folder, *words, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def introduce(folder: Path, avocado: Avocado) -> None:
    """Both customers say where they are: one at home, one a business in France."""
    address = ("--address", "Weg 1", "--postcode", "53111", "--city", "Bonn")
    value(folder, avocado, "profile", "set", "acme", "--country", "DE", *address)
    france = ("--country", "FR", "--vat-id", "FR 40 303 265 045", "--company", "Bêta SARL")
    value(folder, avocado, "profile", "set", "beta", *france, "--language", "fr")


def test_what_a_profile_says_can_be_taken_away(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    empty = ("--address", "", "--postcode", "", "--city", "", "--country", "")
    now = value(business, avocado, "profile", "set", "acme", *empty)
    assert (now["address"], now["postcode"], now["city"], now["country"]) == ([], "", "", "")
    assert "address" not in avocado(business, "profile", "show", "acme").out


def test_a_month_from_use_to_payment(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    preview = value(business, avocado, "invoice", "acme", "--month", LAST)
    assert preview["amount"] == "10.00"
    closed = value(business, avocado, "invoices", "close")
    assert (closed["month"], closed["closed"], closed["refused"]) == (LAST, 2, [])
    assert value(business, avocado, "invoices", "close", "--month", LAST)["closed"] == 0
    assert avocado(business, "invoices", "close", "--customer", "acme").out.startswith("AV-00000")
    listed = value(business, avocado, "invoices", "list")
    assert [row["gross"] for row in sorted(listed, key=lambda row: row["customer"])] == [
        "11.90",
        "10.00",
    ]
    number = next(row["number"] for row in listed if row["customer"] == "acme")
    shown = avocado(business, "invoices", "show", number)
    for text in ("VAT 19 % on 10.00: 1.90", "gross: 11.90", "open: 11.90", "completion"):
        assert text in shown.out
    assert "reverse-charge" in avocado(business, "invoices", "show", f"invoice/beta/{LAST}").out
    paid = ("invoices", "pay", number, "5.00", "--reference", "bank 17")
    assert value(business, avocado, *paid)["open"] == "6.90"
    assert value(business, avocado, *paid)["open"] == "6.90"
    assert len(value(business, avocado, "invoices", "open")) == 2
    refused = avocado(business, "invoices", "pay", number, "7.00", "--reference", "bank 18")
    assert (refused.code, f"of {number} 6.90 EUR are due" in refused.err) == (1, True)
    nameless = avocado(business, "invoices", "pay", number, "--reference", " ")
    assert "needs a reference" in nameless.err
    assert value(business, avocado, "invoices", "pay", number, "--reference", "b")["open"] == "0.00"
    assert [row["customer"] for row in value(business, avocado, "invoices", "open")] == ["beta"]
    assert "days_late" in avocado(business, "invoices", "open", "beta").out
    assert avocado(business, "verify", "--deep").code == 0


def test_a_line_of_an_invoice_is_that_of_its_preview(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    before = value(business, avocado, "invoice", "acme", "--month", LAST)["lines"]
    value(business, avocado, "invoices", "close")
    issued = value(business, avocado, "invoices", "show", f"invoice/acme/{LAST}")["lines"]
    assert [line["id"] for line in before] == [line["id"] for line in issued]
    avocado(business, "ledger", "refund", "req-acme", "--amount", "4", "--reason", "down")
    again = value(business, avocado, "invoice", "acme", "--month", LAST)
    assert again["lines"] == before
    now = value(business, avocado, "invoice", "acme")
    assert [(each["kind"], each["amount"]) for each in now["others"]] == [("refund", "-4.00")]
    assert "refund" in avocado(business, "invoice", "acme").out


def test_credit_notes(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    value(business, avocado, "invoices", "close")
    invoice = f"invoice/acme/{LAST}"
    made = avocado(business, "invoices", "credit", invoice, "--reason", "down", "--amount", "2.50")
    assert made.out.startswith("AV-CN-000001"), made.err
    assert "gross: 2.98" in made.out
    whole = value(business, avocado, "invoices", "credit", invoice, "--reason", "down")
    assert (whole["net_minor"], whole["gross_minor"]) == (750, 892)
    refused = avocado(business, "invoices", "credit", invoice, "--reason", "more")
    assert (refused.code, "left to credit" in refused.err) == (1, True)
    assert value(business, avocado, "invoices", "open", "acme") == []
    assert len(value(business, avocado, "invoices", "list", "acme")) == 3
    note = avocado(business, "invoices", "pay", "AV-CN-000001", "--reference", "x")
    assert "credit note" in note.err
    again = avocado(business, "invoices", "credit", "AV-CN-000001", "--reason", "x")
    assert "AV-CN-000001 is a credit note" in again.err
    assert avocado(business, "verify", "--deep").code == 0


def test_an_invoice_shows_what_happened_to_it(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    value(business, avocado, "invoices", "close")
    invoice = f"invoice/acme/{LAST}"
    value(business, avocado, "invoices", "pay", invoice, "5", "--reference", "bank 1")
    value(business, avocado, "invoices", "pay", invoice, "--reference", "bank 2")
    value(business, avocado, "invoices", "credit", invoice, "--reason", "down", "--amount", "2")
    events = value(business, avocado, "invoices", "show", invoice)["events"]
    told = [(each["kind"], each["amount"], each["what"]) for each in events]
    assert told == [
        ("paid", "5.00", "bank 1"),
        ("paid", "6.90", "bank 2"),
        ("credited", "2.38", "down"),
    ]
    assert "to be paid back: 2.38" in avocado(business, "invoices", "show", invoice).out
    back = ("invoices", "pay-back", invoice, "--reference", "bank 3")
    assert value(business, avocado, *back)["open"] == "0.00"
    assert value(business, avocado, *back)["open"] == "0.00"
    shown = avocado(business, "invoices", "show", invoice).out
    assert f"paid back {events[0]['day']}: 2.38, bank 3 ({events[1]['id']})" in shown
    assert "are to be paid back" in avocado(business, *back[:3], "--reference", "bank 4").err
    note = avocado(business, "invoices", "pay-back", "AV-CN-000001", "--reference", "x")
    assert "is a credit note" in note.err
    assert shown.rstrip().endswith("paid")


def test_exports(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    value(business, avocado, "invoices", "close")
    value(business, avocado, "invoices", "credit", f"invoice/acme/{LAST}", "--reason", "down")
    words = ("invoices", "export", "--format", "csv", "--out", "all.csv")
    assert value(business, avocado, *words)["documents"] == 3
    with (business / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["amount"] for row in rows) == ["-10.00", "10.00", "10.00"]
    assert {row["tax_category"] for row in rows} == {"S", "AE"}
    assert "never overwrites" in avocado(business, *words).err
    one = ("invoices", "export", "AV-000001", "--format", "json", "--out", "one.json")
    value(business, avocado, *one)
    assert json.loads((business / "one.json").read_text())["number"] == "AV-000001"
    assert "never overwrites" in avocado(business, *one).err
    many = ("invoices", "export", "--month", LAST, "--format", "json", "--out", "folder")
    assert value(business, avocado, *many)["documents"] == 2
    assert len(list((business / "folder").iterdir())) == 2
    nowhere = ("invoices", "export", "AV-000001", "--format", "json", "--out", "no/such/file")
    assert avocado(business, *nowhere).code == 1
    both = ("invoices", "export", "AV-000001", "--customer", "acme", "--out", "x")
    assert avocado(business, *both).code == 2


def test_an_export_of_many_goes_on_and_says_what_it_cannot_write(
    business: Path, avocado: Avocado
) -> None:
    pytest.importorskip("facturx")
    value(business, avocado, "profile", "set", "beta", "--country", "FR")
    (business / "avocado.toml").write_text(CONFIG.replace('kind = "table"', 'kind = "none"'))
    value(business, avocado, "invoices", "close")  # acme has no country, and no tax asks for it
    words = ("invoices", "export", "--month", LAST, "--format", "xml", "--out", "papers")
    ran = avocado(business, *words, "--json")
    told: Any = ran.json
    assert (ran.code, told["documents"], told["there"]) == (1, 1, 0)
    assert "BT-55" in told["refused"][0]["reason"]
    (written,) = (business / "papers").iterdir()
    before = written.stat().st_mtime_ns
    again = avocado(business, *words)
    assert (again.code, "1 were there already" in again.out) == (1, True)
    assert f"refused: {told['refused'][0]['number']}: " in again.out
    assert written.stat().st_mtime_ns == before
    (business / "file").touch()
    assert "exists" in avocado(business, *words[:-1], "file").err


def test_a_full_disk_leaves_no_half_of_a_file(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    value(business, avocado, "invoices", "close")
    (business / "folder").mkdir()
    for form, target, name in (("csv", "all.csv", "all.csv"), ("json", "folder", "AV-000001.json")):
        words = ("invoices", "export", "--month", LAST, "--format", form, "--out", target)
        file = business / name if form == "csv" else business / target / name
        file.with_name(f".{name}.partial").symlink_to("/dev/full")
        ran = avocado(business, *words)
        said = f"{target} cannot be written: No space left on device"
        assert (ran.code, said in ran.err) == (1, True), ran.err
        assert not file.exists()
        assert value(business, avocado, *words)["documents"] == 2
        assert not list(business.rglob("*.partial"))


def test_a_table_for_spreadsheets_has_commas(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    value(business, avocado, "profile", "set", "beta", "--company", "Bêta 北京; SARL")
    value(business, avocado, "invoices", "close")
    words = ("invoices", "export", "--format", "csv", "--decimal", "comma", "--out", "all.csv")
    value(business, avocado, *words)
    made = (business / "all.csv").read_bytes()
    assert made.startswith(b"\xef\xbb\xbfnumber;document;")
    rows = list(csv.DictReader(made.decode("utf-8-sig").splitlines(), delimiter=";"))
    assert {row["name"] for row in rows} == {"acme", "Bêta 北京; SARL"}
    assert {(row["net"], row["tax_percent"]) for row in rows} == {("10,00", "19"), ("10,00", "0")}
    assert not any("." in row["amount"] + row["price_per_million"] for row in rows)
    wrong = ("invoices", "export", "--format", "json", "--decimal", "comma", "--out", "x")
    assert avocado(business, *wrong).code == 2


def test_papers(business: Path, avocado: Avocado) -> None:
    pytest.importorskip("typst")
    pytest.importorskip("facturx")
    introduce(business, avocado)
    value(business, avocado, "invoices", "close")
    for form, begins in (("pdf", b"%PDF-"), ("factur-x", b"%PDF-"), ("xml", b"<?xml")):
        invoice = f"invoice/acme/{LAST}"
        words = ("invoices", "export", invoice, "--format", form, "--out", f"{form}.out")
        value(business, avocado, *words)
        assert (business / f"{form}.out").read_bytes().startswith(begins)


def test_topups(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    workspace = Workspace.open(business)
    with open_ledger(workspace.ledger) as ledger:
        deposit = o.Deposit(
            id="bank-1", tenant="acme", amount=5 * 10**10, currency="EUR", tax=95 * 10**8
        )
        ledger.do_now(deposit)
    made = value(business, avocado, "invoices", "topup", "acme", "bank-1")
    assert (made["gross_minor"], made["open_minor"]) == (5950, 0)
    again = value(business, avocado, "invoices", "topup", "acme", "bank-1")
    assert again["number"] == made["number"]
    assert "has no deposit" in avocado(business, "invoices", "topup", "beta", "bank-1").err
    assert value(business, avocado, "invoices", "close")["closed"] == 2


def test_credit_given_by_hand_says_that_it_brings_no_tax(business: Path, avocado: Avocado) -> None:
    assert "No tax came with it" in avocado(business, "credit", "acme", "5").out
    (business / "avocado.toml").write_text('name = "Shop"\ncurrency = "EUR"\n')
    assert "tax" not in avocado(business, "credit", "acme", "5").out


def test_a_bank_transfer(business: Path, avocado: Avocado) -> None:
    introduce(business, avocado)
    words = ("invoices", "topup", "acme", "--gross", "119", "--reference", "bank 7")
    made = value(business, avocado, *words)
    assert (made["net_minor"], made["gross_minor"], made["open_minor"]) == (10_000, 11_900, 0)
    assert value(business, avocado, *words)["number"] == made["number"]
    assert f" {made['number']} " in avocado(business, "invoices", "list").out
    assert value(business, avocado, "invoices", "list")[0]["for"].startswith("top-up bank_")
    net = ("invoices", "topup", "beta", "--net", "20", "--reference", "bank 8")
    assert value(business, avocado, *net)["gross_minor"] == 2000  # reverse charge
    for wrong in (("--gross", "5"), ("--reference", "x"), ("dep", "--net", "5"), ()):
        assert avocado(business, "invoices", "topup", "acme", *wrong).code == 2
    parts = ("invoices", "topup", "acme", "--net", "0.005", "--reference", "bank 9")
    assert "no whole number of coins" in avocado(business, *parts).err
    assert value(business, avocado, "invoices", "close")["closed"] == 2
    assert avocado(business, "verify", "--deep").code == 0


def test_through_a_running_server(business: Path, avocado: Avocado) -> None:
    with running(business):
        introduce(business, avocado)
        assert value(business, avocado, "invoices", "close")["closed"] == 2
        assert value(business, avocado, "invoices", "close")["closed"] == 0
        words = ("invoices", "pay", "AV-000001", "--reference", "bank")
        assert value(business, avocado, *words)["open"] == "0.00"
        credit = ("invoices", "credit", "AV-000002", "--reason", "down", "--amount", "1")
        assert value(business, avocado, *credit)["number"] == "AV-CN-000001"


def test_one_refusal_stops_nobody_else(business: Path, avocado: Avocado) -> None:
    value(business, avocado, "profile", "set", "beta", "--country", "US")
    ran = avocado(business, "invoices", "close", "--json")
    assert ran.code == 1
    told: Any = ran.json
    assert (told["closed"], [each["customer"] for each in told["refused"]]) == (1, ["acme"])
    assert "avocado profile set acme --country" in told["refused"][0]["reason"]
    assert "refused: acme" in avocado(business, "invoices", "close").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("invoices", "close", "--month", month_at(time.time_ns())), "is not over"),
        (("invoices", "close", "--customer", "nobody"), "nobody"),
        (("invoice", "acme", "--month", after(LAST, 2)), "has not begun"),
        (("invoices", "list", "nobody"), "nobody"),
        (("invoices", "open", "nobody"), "nobody"),
        (("invoices", "show", "AV-000009"), "there is no invoice"),
        (("invoices", "credit", "AV-000009", "--reason", "x"), "there is no invoice"),
        (("profile", "show", "nobody"), "nobody"),
        (("profile", "set", "nobody", "--country", "DE"), "nobody"),
        (("profile", "set", "acme", "--country", "DE", "--vat-id", "DE136695977"), "checksum"),
        (("profile", "set", "acme", "--vat-id", "DE136695976"), "country"),
        (("profile", "set", "acme", "--email", "none"), "no e-mail address"),
    ],
)
def test_wrong_words_are_refused(
    business: Path, avocado: Avocado, words: tuple[str, ...], said: str
) -> None:
    ran = avocado(business, *words)
    assert ran.code == 1
    assert said in ran.err


def test_no_seller_is_refused_by_name(business: Path, avocado: Avocado) -> None:
    (business / "avocado.toml").write_text('name = "Shop"\ncurrency = "EUR"\n')
    for words in (("close",), ("close", "--customer", "acme")):
        ran = avocado(business, "invoices", *words)
        assert (ran.code, "[seller]" in ran.err) == (1, True)
    stripe = CONFIG.replace('kind = "table"', 'kind = "stripe"')
    (business / "avocado.toml").write_text(stripe)
    assert "STRIPE_API_KEY" in avocado(business, "invoices", "close").err
    (business / "avocado.toml").write_text(f'{CONFIG}\ntable = "mine.toml"\n')
    assert "mine.toml cannot be read" in avocado(business, "invoices", "close").err
    assert avocado(business, "profile", "set", "acme").code == 2
