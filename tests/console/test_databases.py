"""The console over PostgreSQL, and a database that goes away while pages are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avocado.console.threads import Threads
from avocado.gateway.shelf import ShelfUnavailable
from avocado.ledger.errors import LedgerUnavailable
from tests.console.conftest import House, MakeHouse
from tests.ledger.conftest import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


def test_everything_lies_in_one_postgresql(make_house: MakeHouse, server: Server) -> None:
    house = make_house(f'[ledger]\nurl = "{server.database("console")}"\n')
    assert not (house.console.workspace.state / "console.sqlite").exists()
    browser = house.signed_in("admin")
    for path in ("/overview", "/usage", "/billing", "/keys", "/limits", "/members", "/settings"):
        assert browser.get(path).status_code == 200, path
    assert browser.post("/keys/new", {"name": "k", "month": "3"}, "/keys/new").status_code == 200
    assert browser.post("/limits", {"month": "9"}).status_code == 303
    assert "€9.00" in browser.get("/limits").text
    assert browser.post("/members/invite", {"email": "x@acme.example"}).status_code == 200
    assert "x@acme.example" in browser.get("/members").text


@pytest.mark.parametrize("error", [LedgerUnavailable("gone"), ShelfUnavailable("gone")])
def test_a_connection_that_broke_is_made_afresh(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    browser = house.signed_in("admin")
    whole, broken = Threads.reader, [error]

    def reader(self: Threads) -> Any:
        if broken:
            raise broken.pop()
        return whole(self)

    monkeypatch.setattr(Threads, "reader", reader)
    assert browser.get("/overview").status_code == 200, "what only reads is tried once more"
    broken += [error, error]
    answer = browser.get("/overview")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "Nothing was changed" in answer.text
    assert browser.get("/overview").status_code == 200


def test_a_ledger_that_another_process_holds_is_told(make_house: MakeHouse, tmp_path: Path) -> None:
    from avocado.ledger.ledger import open_ledger

    house = make_house()
    browser = house.signed_in("admin")
    with open_ledger(house.console.workspace.ledger):
        answer = browser.post("/limits", {"month": "9"})
    assert answer.status_code == 422
    assert "open for writing" in answer.text
    assert browser.post("/limits", {"month": "9"}).status_code == 303
