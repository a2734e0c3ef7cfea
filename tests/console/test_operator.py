"""The operator's pages: each role sees its own, in both languages, on an empty and a used book."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from avocado.console import operator
from avocado.console.app import build_console
from avocado.console.console import Console
from avocado.console.operator.doors import DOORS
from avocado.console.page import Route
from avocado.console.roles import Role
from avocado.console.words import catalogue
from avocado.ledger.reader import open_reader
from avocado.terms.money import Money
from avocado.workspace import Workspace
from tests.console.conftest import ORIGIN, Clock, House

ROUTES = [route for pages in operator.PAGES for route in pages.routes]
FILLED = {"customers/{tenant}": "customers/acme", "offers/{name}": "offers/avocado-1"}
LACKING = ("/operator/invoice", "/operator/invoice/pdf")
"""Pages of a document that this shop has not."""


def path_of(route: Route) -> str:
    path = route.path
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


PLAIN = [
    route
    for route in ROUTES
    if route.kind == "show" and "{" not in path_of(route) and route.path not in LACKING
]


def test_every_page_is_one_of_the_table_of_doors() -> None:
    for route in ROUTES:
        assert route.roles in DOORS.values(), route.path
        assert "owner" in route.roles, route.path


AREAS: dict[str, tuple[Role, ...]] = {
    "/operator/overview": ("finance", "engineer"),
    "/operator/statement": ("finance",),
    "/operator/costs": ("finance",),
    "/operator/customers": ("finance",),
    "/operator/customers/acme": ("finance",),
    "/operator/invoices": ("finance",),
    "/operator/payments": ("finance",),
    "/operator/plans": ("finance",),
    "/operator/runs": ("engineer",),
    "/operator/scorecards": ("engineer",),
    "/operator/releases": ("engineer",),
    "/operator/offers": ("finance", "engineer"),
    "/operator/audit": ("finance", "engineer"),
    "/operator/proof": ("finance", "engineer"),
    "/operator/settings": (),
}


@pytest.mark.parametrize("role", ["owner", "finance", "engineer", "admin", "member"])
def test_each_role_opens_its_own_pages_and_no_others(house: House, role: Role) -> None:
    tenant = "acme" if role in ("admin", "member") else None
    browser = house.signed_in(role, tenant)
    for path, roles in AREAS.items():
        if role == "owner" or role in roles:
            continue  # shown below, once each
        assert browser.get(path).status_code == 404, (role, path)
    if tenant is None:
        shown = set(re.findall(r'href="(/operator/[a-z]+)"', browser.get("/operator/offers").text))
        menu = {path for path, roles in AREAS.items() if role == "owner" or role in roles}
        assert shown <= {*menu, "/operator/offers"}


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_page_is_shown(house: House, language: str) -> None:
    browser = house.signed_in("owner", None)
    for route in PLAIN:
        answer = browser.get(path_of(route), **{"accept-language": language})
        assert answer.status_code in (200, 303), (route.path, answer.text[-600:])
        if route.template:
            assert f'<html lang="{language}"' in answer.text
            assert "style=" not in answer.text
            assert "<script>" not in answer.text


def test_every_page_is_shown_on_an_empty_book(tmp_path: Path) -> None:
    clock = Clock()
    console = Console(Workspace.create(tmp_path / "new", "new"), ORIGIN, clock=clock)
    try:
        app = build_console(console)
        empty = House(console, app, clock)
        browser = empty.signed_in("owner", None)
        for route in PLAIN:
            if "{" in route.path:
                continue
            answer = browser.get(route.path)
            assert answer.status_code in (200, 303), (route.path, answer.text[-600:])
        assert "avocado serve" in browser.get("/operator/overview").text
        assert browser.get("/operator/customers/nobody").status_code == 404
        assert browser.get("/operator/runs/%2e%2e").status_code == 404
        assert browser.get("/operator/runs/nothing").status_code == 404
        assert browser.get("/operator/releases/release-123").status_code == 404
    finally:
        console.close()


def test_a_customers_page_shows_its_money_and_nobody_elses(house: House) -> None:
    text = house.signed_in("finance", None).get("/operator/customers/acme").text
    assert "req-acme" in text
    assert "globex" not in text
    assert house.signed_in("finance", None).get("/operator/customers?q=glo").text.count("<tr>") == 2


def test_the_statement_sums_to_the_ledger(house: House) -> None:
    browser = house.signed_in("finance", None)
    answer = browser.get("/operator/statement.csv?by=customer")
    assert answer.headers["content-type"].startswith("text/csv")
    head, *rows = answer.text.splitlines()
    place = head.split(",").index("usage")
    with open_reader(house.console.workspace.ledger) as reader:
        charged = sum(line.charge for line in reader.usage())
    assert sum(Money.parse(row.split(",")[place]).nanos for row in rows) == charged


def test_every_word_is_said_in_both_languages() -> None:
    for key, texts in catalogue().items():
        if key.startswith("op"):
            names = [sorted(re.findall(r"{(\w+)}", text)) for text in texts]
            plural = [text.count("|") for text in texts]
            assert set(names[0]) == set(names[1]), key
            assert plural[0] == plural[1], key
