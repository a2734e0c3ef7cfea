"""Every page, in both roles: nothing is missing or wrong on it, anybody can read and use it."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import pytest

from avocado.console.roles import Role
from tests.browser.chromium import PHONE
from tests.browser.conftest import Place, Visitor
from tests.browser.pages import MAIN, check_axe, check_page, check_width, pages_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROLES: Final[list[tuple[Role, str | None]]] = [("owner", None), ("admin", "acme")]


@pytest.mark.parametrize(("role", "tenant"), ROLES)
def test_every_page_is_whole_and_the_main_ones_accessible(
    place: Place, visitor: Visitor, role: Role, tenant: str | None
) -> None:
    """No error on the browser's console, no failed request, nothing serious for axe in light and
    dark, nothing wider than a phone."""
    page = visitor(role, tenant)
    wrong: list[str] = []
    for path, url in pages_of(place.workspace, tenant is None).items():
        wrong += check_page(page, place.console + url, path in MAIN)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(("role", "tenant"), ROLES)
def test_every_page_is_accessible(
    place: Place, visitor: Visitor, role: Role, tenant: str | None
) -> None:
    page = visitor(role, tenant)
    wrong: list[str] = []
    for url in pages_of(place.workspace, tenant is None).values():
        wrong += check_page(page, place.console + url)
    assert not wrong, "\n".join(wrong)


def test_doors_are_accessible(place: Place, visitor: Visitor) -> None:
    page = visitor(expected=(404,))
    invitation = place.link("invite", "new@acme.example", "member", "acme")
    wrong = check_page(page, f"{place.console}/sign-in") + check_page(page, invitation)
    page.goto(f"{place.console}/nothing")
    wrong += check_axe(page, "404") + check_width(page, "404")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("role", "tenant"), ROLES)
def test_the_menu_leads_everywhere_on_a_phone(
    place: Place, visitor: Visitor, role: Role, tenant: str | None
) -> None:
    page = visitor(role, tenant, viewport=PHONE)
    page.goto(place.console)
    links = page.locator("nav[aria-label='Menu'] a")
    targets = [each.get_attribute("href") for each in links.all()]
    assert len(targets) >= 8
    for target in targets[:3]:
        page.locator(".menu-button").click()
        link = page.locator(f"nav[aria-label='Menu'] a[href='{target}']")
        link.click()
        page.wait_for_url(f"**{target}")
        assert page.locator("h1").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("role", "tenant"), ROLES)
def test_every_page_with_all_its_sheets_open(
    place: Place, visitor: Visitor, role: Role, tenant: str | None
) -> None:
    """Forms that are folded away are accessible too, on a phone and in the dark."""
    page = visitor(role, tenant, viewport=PHONE, color_scheme="dark")
    wrong: list[str] = []
    for url in pages_of(place.workspace, tenant is None).values():
        page.goto(place.console + url)
        for index in range(page.locator("details").count()):
            page.evaluate(
                """index => document.querySelectorAll('details')
                .forEach((each, at) => { each.open = at === index; })""",
                index,
            )
            if index < 3:
                wrong += check_axe(page, url) + check_width(page, url)
    assert not wrong, "\n".join(wrong)


# -- German ---------------------------------------------------------------------------------------


def catalogue() -> tuple[set[str], set[str]]:
    """All English and all German texts, without those that have something to fill in."""
    english, german = set(), set()
    for file in (resources.files("avocado.console") / "words").iterdir():
        if file.name.endswith(".toml"):
            for section in tomllib.loads(file.read_text("utf-8")).values():
                for pair in _pairs(section):
                    english.add(pair[0])
                    german.add(pair[1])
    return english, german


def _pairs(section: Any) -> list[list[str]]:
    if isinstance(section, list):
        return [section]
    return [pair for each in section.values() for pair in _pairs(each)]


def texts(page: Page) -> set[str]:
    """What a person reads or hears on the page."""
    found: list[str] = page.evaluate(
        """() => {
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
        while (walk.nextNode()) found.push(walk.currentNode.textContent.trim());
        for (const each of document.querySelectorAll('[aria-label], [placeholder], [title]'))
          for (const name of ['aria-label', 'placeholder', 'title'])
            if (each.hasAttribute(name)) found.push(each.getAttribute(name).trim());
        return found;
        }"""
    )
    return {each for each in found if each}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("role", "tenant"), ROLES)
def test_the_language_switch_translates_the_pages(
    place: Place, visitor: Visitor, role: Role, tenant: str | None, every: bool
) -> None:
    page = visitor(role, tenant, email=f"german-{role}@example.de")
    page.goto(f"{place.console}/settings")
    page.get_by_label("Language").select_option(label="Deutsch")
    page.locator("form[action='/language'] button").click()
    page.wait_for_load_state()
    assert page.locator("html").get_attribute("lang") == "de"
    english, german = catalogue()
    foreign = english - german
    leftovers = {}
    for path, url in pages_of(place.workspace, tenant is None).items():
        if not every and path not in MAIN:
            continue
        page.goto(place.console + url)
        if found := texts(page) & foreign:
            leftovers[url] = found
    assert not leftovers
