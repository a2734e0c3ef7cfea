"""Paying by card: the provider is a server on this machine that answers as Stripe does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from avocado.ledger.reader import open_reader
from tests.billing.stripe_stand_in import KEY, SECRET, StandIn, signed
from tests.console.conftest import House, MakeHouse


@pytest.fixture
def stripe() -> Iterator[StandIn]:
    found = StandIn()
    yield found
    found.close()


@pytest.fixture
def house(make_house: MakeHouse, stripe: StandIn, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", SECRET)
    return make_house(f'[payments]\nprovider = "stripe"\napi_base = "{stripe.base}"\n')


def wallet(house: House, tenant: str = "acme") -> int:
    with open_reader(house.console.workspace.ledger) as reader:
        return reader.balance(tenant).wallet


def checkout(house: House, browser: Any, amount: str = "25") -> tuple[str, str]:
    """(the provider's page, the checkout's id) of a top-up."""
    answer = browser.post("/billing/top-up", {"amount": amount}, "/billing/top-up")
    assert answer.status_code == 200, answer.text
    found = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', answer.text)
    assert found, "a page of ours leads there: form-action 'self' forbids a redirect"
    url = unescape(found[1])
    return url, url.rsplit("/", 1)[-1]


def session_of(stripe: StandIn) -> str:
    return next(
        id_ for id_, each in stripe.objects.items() if each.get("object") == "checkout.session"
    )


def test_a_top_up_is_paid_at_the_providers_and_credited_once(house: House, stripe: StandIn) -> None:
    browser = house.signed_in("admin")
    before = wallet(house)
    url, _ = checkout(house, browser)
    assert url.startswith(("http://", "https://"))
    session = session_of(stripe)
    early = browser.get(f"/billing/paid?checkout={session}")
    assert early.headers["location"] == "/billing"
    assert wallet(house) == before
    stripe.pay(session)
    assert browser.get(f"/billing/paid?checkout={session}").status_code == 303
    assert wallet(house) == before + 25 * 10**9
    assert "your credit is here" in browser.get("/billing").text
    browser.get(f"/billing/paid?checkout={session}")
    for event in stripe.events:
        body, header = signed(event)
        hook = house.browser().http.post(
            "/webhooks/stripe", content=body, headers={"stripe-signature": header}
        )
        assert hook.status_code == 200, hook.text
    assert wallet(house) == before + 25 * 10**9, "page and events together credit once"
    assert "visa •••• 4242" in browser.get("/billing").text.replace("Visa", "visa")


def test_another_customers_checkout_credits_nobody_who_asks(house: House, stripe: StandIn) -> None:
    """Fault 32, for what lies at the provider's."""
    owner = house.signed_in("admin", "globex")
    checkout(house, owner)
    session = session_of(stripe)
    stripe.pay(session)
    before = wallet(house)
    thief = house.signed_in("admin", "acme")
    assert thief.get(f"/billing/paid?checkout={session}").status_code == 303
    assert "There is no payment" in thief.get("/billing").text or wallet(house) == before
    assert wallet(house) == before


def test_a_forged_event_is_400_and_changes_nothing(house: House, stripe: StandIn) -> None:
    browser = house.signed_in("admin")
    checkout(house, browser)
    stripe.pay(session_of(stripe))
    before = wallet(house)
    http = house.browser().http
    for event in stripe.events:
        body, _ = signed(event)
        _, wrong = signed(event, secret="whsec_another")
        for headers in ({}, {"stripe-signature": wrong}, {"stripe-signature": "é"}):
            try:
                answer = http.post("/webhooks/stripe", content=body, headers=headers)
            except UnicodeEncodeError:
                continue
            assert answer.status_code == 400
    assert wallet(house) == before
    too_much = http.post("/webhooks/stripe", content=b"x" * (1024 * 1024 + 1))
    assert too_much.status_code == 413


def test_a_hook_needs_no_cookie_and_reads_none(house: House, stripe: StandIn) -> None:
    answer = house.signed_in("admin").http.post("/webhooks/stripe", content=b"{}")
    assert answer.status_code == 400
    assert "set-cookie" not in answer.headers


def test_without_a_provider_the_page_says_what_to_do(make_house: MakeHouse) -> None:
    made = make_house()
    browser = made.signed_in("admin")
    assert "Payment by card is off" in browser.get("/billing/top-up").text
    refused = browser.post("/billing/top-up", {"amount": "25"})
    assert refused.status_code == 422
    hook = made.browser().http.post("/webhooks/stripe", content=json.dumps({}).encode())
    assert hook.status_code == 503, "Stripe sends it again later"


@pytest.mark.parametrize("amount", ["0", "", "-5", "1.005", "0.01", "99999999999"])
def test_an_amount_that_cannot_be_paid_is_refused(house: House, amount: str) -> None:
    answer = house.signed_in("admin").post("/billing/top-up", {"amount": amount}, "/billing/top-up")
    assert answer.status_code == 422


def test_automatic_top_ups_are_set_and_stopped(house: House, stripe: StandIn) -> None:
    from avocado.billing.topup import account_of

    browser = house.signed_in("admin")
    form = {"threshold": "5", "net": "20", "most": "100"}
    assert browser.post("/billing/auto", form, "/billing/top-up").status_code == 422, "no card yet"
    checkout(house, browser)
    session = session_of(stripe)
    stripe.pay(session)
    browser.get(f"/billing/paid?checkout={session}")
    for event in stripe.events:
        body, header = signed(event)
        house.browser().http.post(
            "/webhooks/stripe", content=body, headers={"stripe-signature": header}
        )
    assert browser.post("/billing/auto", form, "/billing/top-up").status_code == 303
    with open_reader(house.console.workspace.ledger) as reader:
        stored = account_of(reader, "acme")
    assert stored is not None
    assert stored.value.auto is not None
    assert stored.value.auto.net == 20 * 10**9
    assert 'value="20.00"' in browser.get("/billing/top-up").text
    assert browser.post("/billing/auto/stop").status_code == 303
    with open_reader(house.console.workspace.ledger) as reader:
        stored = account_of(reader, "acme")
    assert stored is not None
    assert stored.value.auto is None
