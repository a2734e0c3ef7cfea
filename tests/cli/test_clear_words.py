"""What an operator does wrong gets one clear sentence and an exit code, never a traceback."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from avocado.workspace import Workspace
from tests.cli.conftest import Avocado


@pytest.fixture
def acme(shop: Path, avocado: Avocado) -> Path:
    assert avocado(shop, "customer", "add", "acme", "--credit", "1").code == 0
    return shop


def key_of(shop: Path, avocado: Avocado, *words: str) -> str:
    """A new key's id."""
    ran = avocado(shop, "key", "create", "acme", "--json", *words)
    return str(json.loads(ran.out)["key"]).split("_")[2]


REFUSED = [
    (("customer", "add", "acme", "--credit", "5"), "already"),
    (("customer", "add", "acme", "--name", "Another"), "already"),
    (("customer", "add", "Acme Ltd"), "lower-case"),
    (("customer", "limit", "nobody", "--month", "1"), "nobody"),
    (("customer", "log", "nobody"), "nobody"),
    (("key", "create", "nobody"), "nobody"),
    (("key", "list", "nobody"), "nobody"),
    (("key", "revoke", "nokey"), "avocado key list"),
    (("key", "rotate", "nokey"), "avocado key list"),
    (("key", "limit", "nokey", "--month", "1"), "avocado key list"),
    (("credit", "nobody", "1"), "nobody"),
    (("usage", "nobody"), "nobody"),
    (("invoice", "nobody"), "nobody"),
    (("ledger", "grant", "nobody", "1"), "nobody"),
    (("ledger", "adjust", "nobody", "1", "--reason", "x"), "nobody"),
    (("ledger", "refund", "nothing", "--reason", "x"), "unknown"),
    (("ledger", "backup", "."), "folder"),
    (("ledger", "backup", "nowhere/x.sqlite"), "nowhere"),
    (("ledger", "export", "usage", "x.csv", "--customer", "nobody"), "nobody"),
    (("offer", "use", "nothing", "release-00", "--canary", "10"), "nothing"),
    (("offer", "rollback", "nothing"), "nothing"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda each: " ".join(each))
def test_refused_in_one_sentence(
    acme: Path, avocado: Avocado, words: tuple[str, ...], said: str
) -> None:
    for more in ((), ("--json",)):
        ran = avocado(acme, *words, *more)
        assert ran.code == 1, ran.out
        assert said in ran.err
        assert "Traceback" not in ran.err
        assert len(ran.err.splitlines()) == 1
        if more:
            assert said in json.loads(ran.out)["refused"][0]


WRONG_USAGE = [
    ("customer", "add", "bob", "--credit", "-5"),
    ("customer", "add", "bob", "--credit", "5 EUR"),
    ("customer", "limit", "acme", "--month", "-1"),
    ("customer", "limit", "acme", "--requests-per-minute", "1.5"),
    ("key", "create", "acme", "--days", "0"),
    ("key", "create", "acme", "--days", "-3"),
    ("key", "create", "acme", "--scope", "write"),
    ("key", "create", "acme", "--name", ""),
    ("key", "create", "acme", "--name", "a\nb"),
    ("key", "rotate", "nokey", "--overlap", "-1"),
    ("credit", "acme", "0"),
    ("credit", "acme", "-5"),
    ("credit", "acme", "5,00"),
    ("usage", "acme", "--month", "2026-13"),
    ("ledger", "grant", "acme", "-5"),
    ("ledger", "grant", "acme", "5", "--days", "-1"),
    ("ledger", "adjust", "acme", "0", "--reason", "x"),
    ("offer", "use", "free-1", "release-00", "--canary", "-1"),
    ("offer", "use", "free-1", "release-00", "--canary", "100"),
    ("offer", "use", "free-1", "release-00", "--by", "conversation"),
]


@pytest.mark.parametrize("words", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_is_2_and_says_where(
    acme: Path, avocado: Avocado, words: tuple[str, ...]
) -> None:
    ran = avocado(acme, *words)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert "No such option" not in ran.err


def test_a_customer_that_is_added_twice_is_paid_once(acme: Path, avocado: Avocado) -> None:
    assert avocado(acme, "customer", "add", "acme", "--credit", "1").code == 1
    (row,) = json.loads(avocado(acme, "customer", "list", "--json").out)
    assert row["available"] == "1.00"


def test_another_currency_is_named(acme: Path, avocado: Avocado) -> None:
    config = acme / "avocado.toml"
    config.write_text(config.read_text().replace('"USD"', '"EUR"'))
    for words in (
        ("credit", "acme", "5"),
        ("customer", "limit", "acme", "--month", "5"),
        ("ledger", "grant", "acme", "5"),
    ):
        ran = avocado(acme, *words)
        assert (ran.code, "USD" in ran.err, "EUR" in ran.err) == (1, True, True), words


def test_no_rotation_lengthens_a_life_or_wakes_the_dead(acme: Path, avocado: Avocado) -> None:
    key = key_of(acme, avocado)
    assert avocado(acme, "key", "rotate", key, "--overlap", "1").code == 0
    first = ends(acme, avocado, key)
    assert avocado(acme, "key", "rotate", key, "--overlap", "48").code == 0
    assert ends(acme, avocado, key) == first, "a second rotation changes nothing about the end"
    assert avocado(acme, "key", "rotate", key, "--overlap", "0").code == 0
    assert ends(acme, avocado, key) < first
    time.sleep(1)
    ran = avocado(acme, "key", "rotate", key, "--overlap", "48")
    assert (ran.code, "ended at" in ran.err) == (1, True)
    (row,) = [row for row in keys(acme, avocado) if row["key"] == key]
    assert row["state"] == "expired"


def test_a_key_past_its_date_is_not_rotated(acme: Path, avocado: Avocado) -> None:
    key = key_of(acme, avocado, "--days", "1")
    with sqlite3.connect(Workspace.open(acme).state / "ledger.sqlite") as book:
        book.execute("UPDATE apikey SET expires = 1 WHERE key_id = ?", (key,))
    ran = avocado(acme, "key", "rotate", key)
    assert (ran.code, "1970-01-01T00:00:00Z" in ran.err) == (1, True)


def keys(shop: Path, avocado: Avocado) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(avocado(shop, "key", "list", "--json").out)
    return found


def ends(shop: Path, avocado: Avocado, key: str) -> str:
    (row,) = [row for row in keys(shop, avocado) if row["key"] == key]
    return row["ends"]
