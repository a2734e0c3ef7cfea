"""The console in a real browser, as its people see it.

One file, because tests of one file share a worker, and so the one shop, server and browser. The
first part is a shop's life: each test is a step, and builds on those before it.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Final

import openai
import pytest

from avocado.console.roles import Role
from avocado.ledger.reader import open_reader
from tests.browser.chromium import PHONE
from tests.browser.conftest import Place, Visitor
from tests.browser.pages import (
    MAIN,
    catalogue,
    check_axe,
    check_page,
    check_width,
    focus,
    pages_of,
    tab_to,
    texts,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

OWNER = "olga@avocado.example"
ADA = "ada@wonka.example"
WORD = "correct horse battery"
"""Everybody's password."""
ROLES: Final[list[tuple[Role, str | None]]] = [("owner", None), ("admin", "acme")]
KEPT: dict[str, str] = {}
"""What a step leaves for the next."""


def sign_in(page: Page, place: Place, email: str) -> Page:
    page.goto(f"{place.console}/sign-in")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(WORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile("/(operator/)?overview"))
    return page


def confirm(page: Page, reason: str) -> None:
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name="Yes, do it").click()


def flash(page: Page) -> str:
    return page.locator(".notice").first.inner_text()


def test_fault_35_the_first_operator_comes_in_by_a_link_that_works_once(
    place: Place, visitor: Visitor
) -> None:
    page = visitor(expected=(403, 404, 410))
    page.goto(place.first_link)
    page.get_by_label("E-mail").fill(OWNER)
    page.get_by_label("password").fill(WORD)
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url("**/operator/overview")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    sign_in(page, place, OWNER)
    assert OWNER in page.locator(".me").inner_text()

    again = visitor(expected=(403, 404, 410))
    answer = again.goto(place.first_link)
    assert answer is not None
    assert answer.status >= 400
    assert again.get_by_label("password").count() == 0


def test_the_operator_adds_a_customer_with_credit_and_invites_a_member(
    place: Place, visitor: Visitor
) -> None:
    page = sign_in(visitor(), place, OWNER)
    page.get_by_role("link", name="Customers").first.click()
    page.get_by_label("Id", exact=True).fill("wonka")
    page.get_by_label("Name", exact=True).fill("Wonka Ltd")
    page.get_by_role("button", name="Add").click()
    page.wait_for_url("**/operator/customers/wonka")
    credit = page.locator("section.card", has=page.get_by_role("heading", name="Give credit"))
    credit.get_by_label("Amount").fill("10.00")
    credit.get_by_role("button").click()
    confirm(page, "transfer of today")
    assert "10" in flash(page)
    page.get_by_label("E-mail").fill(ADA)
    page.get_by_role("button", name="Invite").click()
    KEPT["invitation"] = page.locator(".secret code").inner_text()
    assert KEPT["invitation"].startswith(place.console)


def test_the_member_accepts_and_sees_the_balance(place: Place, visitor: Visitor) -> None:
    page = visitor()
    page.goto(KEPT["invitation"])
    assert ADA in page.content()
    page.get_by_label("password").fill(WORD)
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url("**/overview")
    assert "€10.00" in page.locator(".figures").inner_text()


def test_a_key_is_shown_once_and_works_with_the_openai_client(
    place: Place, visitor: Visitor
) -> None:
    page = sign_in(visitor(), place, ADA)
    page.get_by_role("link", name="Create key").first.click()
    page.get_by_label("Name", exact=True).fill("from the browser")
    page.get_by_role("button", name="Create key").click()
    key = page.locator("#the-key").inner_text()
    assert key.startswith("av_live_")
    page.goto(f"{place.console}/keys")
    assert key not in page.content()
    assert "from the browser" in page.content()
    page.reload()
    assert key not in page.content()

    client = openai.OpenAI(base_url=f"{place.api}/v1", api_key=key, max_retries=0, timeout=60)
    answer = client.chat.completions.create(
        model="avocado-1", messages=[{"role": "user", "content": "Hello"}], max_tokens=16
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    KEPT["request"] = answer.id


def test_an_answer_streams_with_its_cost_and_the_balance_falls_by_itself(
    place: Place, visitor: Visitor
) -> None:
    page = sign_in(visitor(), place, ADA)
    page.goto(f"{place.console}/playground")
    exact = page.locator("[data-live] b")
    before = exact.get_attribute("title")
    page.get_by_role("textbox", name="Your message").fill("What day is 3 May 2024?")
    page.keyboard.press("Enter")
    cost = page.locator(".bill")
    cost.wait_for()
    assert re.search(r"€0\.0*[1-9]", cost.inner_text())
    assert "tokens" in cost.inner_text()
    assert page.locator(".line-of.them .said").inner_text().strip()
    page.wait_for_function(
        "before => document.querySelector('[data-live] b').title !== before", arg=before
    )
    assert page.locator(".line-of.them").count() == 1  # nothing was loaded again


def test_an_invoice_comes_as_pdf_and_xml(place: Place, visitor: Visitor) -> None:
    from pypdf import PdfReader

    page = visitor("admin", "acme")
    page.goto(f"{place.console}/billing/invoices")
    row = page.locator("tbody tr").first
    number = row.locator("a").first.inner_text()
    found = {}
    for form in ("PDF", "XML"):
        with page.expect_download() as waiting:
            row.get_by_role("link", name=f"{number} {form}").click()
        found[form] = waiting.value.path().read_bytes()
    assert found["PDF"].startswith(b"%PDF-")
    assert number in "".join(each.extract_text() for each in PdfReader(BytesIO(found["PDF"])).pages)
    assert b"CrossIndustryInvoice" in found["XML"]
    assert number.encode() in found["XML"]


def test_a_refund_raises_the_balance_and_stands_in_the_audit_log(
    place: Place, visitor: Visitor
) -> None:
    page = sign_in(visitor(), place, OWNER)
    with open_reader(place.workspace.ledger) as reader:
        before = reader.balance("wonka").available
    page.goto(f"{place.console}/operator/customers/wonka")
    request = KEPT["request"].removeprefix("chatcmpl-")
    row = page.locator("tr", has=page.locator(f"a[href$='{request}']"))
    row.get_by_role("button", name="Refund").click()
    confirm(page, "the answer was cut short")
    page.wait_for_url("**/operator/customers/wonka")
    with open_reader(place.workspace.ledger) as reader:
        assert reader.balance("wonka").available > before
    page.get_by_role("link", name="Audit log").first.click()
    line = page.locator("tr", has_text="the answer was cut short")
    assert line.count() >= 1
    assert any(OWNER in each for each in line.all_inner_texts())


@pytest.mark.parametrize("role", ["admin", "member"])
def test_fault_32_another_customers_things_are_not_there(
    place: Place, visitor: Visitor, role: str
) -> None:
    with open_reader(place.workspace.ledger) as reader:
        key = reader.keys("acme")[0].key_id
        invoice = next(reader.documents("invoice", "acme")).id
    page = visitor(role, "globex", expected=(404,))
    for path in (
        f"/keys/{key}",
        f"/billing/documents/pdf/{invoice}",
        f"/billing/documents/xml/{invoice}",
        "/operator/overview",
        "/operator/customers",
        "/operator/customers/acme",
        "/operator/invoices",
        "/operator/audit",
        "/operator/settings",
        "/operator/statement.csv",
        "/nothing",
    ):
        answer = page.goto(place.console + path)
        assert answer is not None
        assert answer.status == 404, path
        assert page.get_by_role("heading", name="Not found").count() == 1
        assert "acme" not in page.locator("body").inner_text().lower().replace(path, "")
    csv = page.request.get(f"{place.console}/usage.csv?days=30&key={key}")
    assert csv.status in (200, 404)
    assert "acme" not in csv.text()
    assert key not in csv.text()


def test_fault_34_a_form_of_another_site_is_refused(place: Place, visitor: Visitor) -> None:
    """The other site is our own API's port: another origin, the same machine and cookies."""
    page = visitor("owner", expected=(401, 403, 404, 405))
    page.goto(f"{place.api}/healthz")
    page.evaluate(
        """url => { const form = document.createElement('form'); form.method = 'post';
        form.action = url; document.body.append(form); form.submit(); }""",
        f"{place.console}/operator/customers",
    )
    page.wait_for_url(f"{place.console}/operator/customers")
    assert "another site" in page.content()
    status = page.evaluate(
        "url => fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors'})"
        ".then(answer => answer.type)",
        f"{place.console}/sign-out",
    )
    assert status in ("opaque", "basic")
    page.goto(f"{place.console}/operator/overview")
    assert "/sign-in" not in page.url


# -- every page -----------------------------------------------------------------------------------


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


def test_the_theme_stays_as_it_was_chosen(place: Place, visitor: Visitor) -> None:
    page = visitor("member", "globex")
    page.goto(f"{place.console}/usage")
    page.get_by_role("button", name="Switch to dark").click()
    page.locator("html[data-theme=dark]").wait_for()
    page.goto(f"{place.console}/keys")
    assert page.locator("html").get_attribute("data-theme") == "dark"


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


@pytest.mark.slow
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("role", "tenant"), ROLES)
def test_the_language_switch_translates_the_pages(
    place: Place, visitor: Visitor, role: Role, tenant: str | None, every: bool
) -> None:
    page = visitor(role, tenant, email=f"german-{role}@example.de")
    page.goto(f"{place.console}/settings")
    page.locator("select[name=language]").select_option(label="Deutsch")
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


# -- hands on the keyboard alone ------------------------------------------------------------------


def test_sign_in_and_a_new_key_without_a_mouse(place: Place, visitor: Visitor) -> None:
    page = visitor()
    page.goto(place.link("invite", "keys@umbrella.example", "admin", "umbrella"))
    tab_to(page, name="password")
    page.keyboard.type(WORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/overview")
    page.context.clear_cookies()

    page.goto(f"{place.console}/sign-in")
    assert focus(page)["name"] == "email"
    page.keyboard.type("keys@umbrella.example")
    tab_to(page, name="password")
    page.keyboard.type(WORD)
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
