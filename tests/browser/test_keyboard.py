"""Hands on the keyboard alone: every step can be reached, and one sees where one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import Place, Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

SENTENCE = "a sentence is a good one"


def focus(page: Page) -> dict[str, str]:
    """What has the focus, and how one sees it."""
    found: dict[str, str] = page.evaluate(
        """() => { const each = document.activeElement, style = getComputedStyle(each);
        return { name: each.name || '', text: (each.textContent || '').trim(),
          href: each.getAttribute('href') || '',
          outline: style.outlineStyle === 'none' ? '' : style.outlineWidth }; }"""
    )
    return found


def tab_to(page: Page, **wanted: str) -> None:
    """Tabs on until something with these properties has the focus; all on the way are visible."""
    for _ in range(40):
        page.keyboard.press("Tab")
        found = focus(page)
        assert found["outline"] not in ("", "0px"), f"no visible focus: {found}"
        if all(found[name] == value for name, value in wanted.items()):
            return
    raise AssertionError(f"Tab never reaches {wanted}")


def test_sign_in_and_a_new_key_without_a_mouse(place: Place, visitor: Visitor) -> None:
    page = visitor()
    page.goto(place.link("invite", "keys@umbrella.example", "admin", "umbrella"))
    tab_to(page, name="password")
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_url("**/overview")
    page.context.clear_cookies()

    page.goto(f"{place.console}/sign-in")
    assert focus(page)["name"] == "email"
    page.keyboard.type("keys@umbrella.example")
    tab_to(page, name="password")
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    page.wait_for_url("**/overview")

    page.keyboard.press("Tab")
    assert focus(page)["href"] == "#content"  # the first stop skips the menu
    page.keyboard.press("Enter")
    tab_to(page, href="/keys/new")
    page.keyboard.press("Enter")
    page.wait_for_url("**/keys/new")
    assert focus(page)["name"] == "name"
    page.keyboard.type("by keyboard")
    tab_to(page, text="Create key")
    page.keyboard.press("Enter")
    page.locator("#the-key").wait_for()


def test_a_sheet_closes_by_escape_and_gives_the_focus_back(place: Place, visitor: Visitor) -> None:
    page = visitor("admin", "acme")
    page.goto(f"{place.console}/keys")
    tab_to(page, text="Rotate")
    page.keyboard.press("Enter")
    sheet = page.locator("details.pop[open] .sheet")
    sheet.wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('.sheet')")
    page.keyboard.press("Escape")
    sheet.wait_for(state="hidden")
    assert focus(page)["text"] == "Rotate"
