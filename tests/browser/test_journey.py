"""A shop's life as its people see it: each test is a step, and builds on those before it."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING

import openai
import pytest

from avocado.ledger.reader import open_reader
from tests.browser.conftest import Place, Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

OWNER = "olga@avocado.example"
ADA = "ada@wonka.example"
WORD = "correct horse battery"
"""Everybody's password."""
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
def test_another_customers_things_are_not_there(
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
    assert csv.status in (200, 404, 422)
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
