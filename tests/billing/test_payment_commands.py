"""``avocado payments`` from a shell's point of view, against the stand-in over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.main import run
from tests.billing.stripe_stand_in import KEY, SECRET, StandIn

CONFIG = """
name = "shop"
currency = "EUR"

[payments]
api_base = "{base}"
minimum = "5.00"
"""
SELLER = """
[seller]
name = "Avocado GmbH"
address = ["Hafenstr. 1"]
postcode = "20457"
city = "Hamburg"
country = "DE"
vat_id = "DE136695976"

[tax]
kind = "table"
"""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Ran]


@pytest.fixture
def avocado(
    tmp_path: Path,
    stripe: StandIn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Call:
    """Runs ``avocado`` in a workspace with payments and a customer."""
    from avocado.workspace import Workspace

    stripe.events.clear()
    Workspace.create(tmp_path / "shop")
    config = tmp_path / "shop" / "avocado.toml"
    config.write_text(CONFIG.format(base=stripe.base) + SELLER)
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)

    def call(*words: str) -> Ran:
        capsys.readouterr()
        code = run(list(words))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    assert call("customer", "add", "acme").code == 0
    assert call("profile", "set", "acme", "--country", "DE", "--city", "Berlin").code == 0
    return call


def test_the_operators_way_from_link_to_refund(avocado: Call, stripe: StandIn) -> None:
    made = avocado("payments", "link", "acme", "20", "--json")
    assert made.code == 0, made.err
    assert made.json["total"] == "23.80"
    payment = stripe.pay(made.json["id"])
    synced = avocado("payments", "sync", "--json")
    assert synced.code == 0, synced.err
    assert "20.00 EUR credited to acme" in synced.out
    shown = avocado("payments", "status", "acme", "--json").json
    assert shown["card"] == "visa •••• 4242, until 12/2030"
    assert shown["payments"] == [
        {"payment": payment, "credit": "20.00", "tax": "3.80", "refunded": "0.00"}
    ]
    assert payment in avocado("payments", "status", "acme").out
    invoices = avocado("invoices", "list", "--json").json
    assert [each["gross"] for each in invoices] == ["23.80"], invoices
    done = avocado("payments", "refund", payment, "--reason", "not needed", "--amount", "11.90")
    assert done.code == 0, done.err
    assert "11.90 EUR went back to the card; 10.00 EUR of credit left" in done.out
    assert avocado("verify").code == 0


def test_automatic_top_ups_by_the_clerk(avocado: Call, stripe: StandIn) -> None:
    refused = avocado("payments", "auto-topup", "acme", "--below", "5", "--amount", "20")
    assert (refused.code, "acme has not paid by card yet" in refused.err) == (1, True)
    made = avocado("payments", "link", "acme", "5", "--json").json
    stripe.pay(made["id"])
    avocado("payments", "sync")
    set_ = avocado("payments", "auto-topup", "acme", "--below", "50", "--amount", "100")
    assert "100.00 EUR below 50.00 EUR, at most 1000.00 EUR a month" in set_.out, set_.err
    ran = avocado("billing", "run")
    assert ran.code == 0, ran.err
    assert "top-up paid" in ran.out
    assert [
        each["state"] for each in avocado("payments", "status", "acme", "--json").json["automatic"]
    ] == ["paid"]
    off = avocado("payments", "auto-topup", "acme", "--off")
    assert "automatic top-ups: off" in off.out
    for wrong in (["--below", "5"], [], ["--off", "--below", "5"]):
        assert avocado("payments", "auto-topup", "acme", *wrong).code == 2


def test_disputes_and_events_from_files(avocado: Call, stripe: StandIn, tmp_path: Path) -> None:
    assert "No disputes." in avocado("payments", "disputes").out
    payment = stripe.pay(avocado("payments", "link", "acme", "20", "--json").json["id"])
    file = tmp_path / "event.json"
    file.write_text(json.dumps(stripe.dispute(payment)))
    replayed = avocado("payments", "replay-event", str(file), "--json")
    assert replayed.json["changed"] is True
    assert avocado("payments", "disputes", "--json").json[0]["state"] == "open"
    dispute = avocado("payments", "disputes", "--json").json[0]["dispute"]
    assert dispute in avocado("payments", "status").out
    assert avocado("payments", "release", dispute).code == 1
    file.write_text(json.dumps(stripe.close_dispute(dispute, "lost")))
    avocado("payments", "replay-event", str(file))
    assert "lost" in avocado("payments", "disputes", "acme").out
    assert avocado("payments", "release", dispute).code == 0
    assert avocado("payments", "replay-event", "no-such-file").code == 1
    file.write_text("no event")
    assert avocado("payments", "replay-event", str(file)).code == 1


def test_money_of_nobody_is_shown_until_it_is_settled(avocado: Call, stripe: StandIn) -> None:
    payment = stripe.pay(avocado("payments", "link", "acme", "20", "--json").json["id"], amount=5)
    assert "not credited" in avocado("payments", "sync").out
    status = avocado("payments", "status")
    assert "0.05 EUR came in, and 23.80 EUR were agreed" in status.out
    assert avocado("payments", "settle", payment, "--note", "paid back").code == 0
    assert "Nothing waits for you." in avocado("payments", "status").out
    assert avocado("payments", "settle", "pi_none", "--note", "x").code == 1


def test_with_no_key_everything_says_so(
    avocado: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("STRIPE_WEBHOOK_SECRET")
    assert "Webhooks are refused" in avocado("payments", "status").out
    monkeypatch.delenv("STRIPE_API_KEY")
    status = avocado("payments", "status", "--json")
    assert (status.code, status.json["payments"]) == (0, "off")
    assert "avocado credit CUSTOMER AMOUNT" in avocado("payments", "status").out
    file = tmp_path / "event.json"
    file.write_text("{}")
    for words in (
        ["link", "acme", "20"],
        ["portal", "acme"],
        ["refund", "pi_1", "--reason", "x"],
        ["sync"],
        ["auto-topup", "acme", "--below", "5", "--amount", "20"],
        ["replay-event", str(file)],
    ):
        ran = avocado("payments", *words)
        assert ran.code == 1, words
        assert "payments are off: STRIPE_API_KEY is not set" in ran.err
        assert "avocado credit CUSTOMER AMOUNT" in ran.err
    assert avocado("billing", "run").code == 0
    assert avocado("credit", "acme", "5").code == 0


def test_a_minimum_that_is_none_is_refused(avocado: Call) -> None:
    config = Path("avocado.toml")
    config.write_text(config.read_text().replace('"5.00"', '"five"'))
    ran = avocado("payments", "portal", "acme")
    assert (ran.code, "[payments] minimum" in ran.err) == (1, True)


def test_without_a_section_payments_are_off_whatever_keys_there_are(avocado: Call) -> None:
    Path("avocado.toml").write_text('name = "shop"\ncurrency = "EUR"\n')
    ran = avocado("payments", "portal", "acme")
    assert (ran.code, "no [payments]" in ran.err) == (1, True)
