"""What the operator's people do: asked twice, with a reason, once, and on record."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from avocado.console.app import build_console
from avocado.console.console import Console
from avocado.console.operator.invoicing import run_of
from avocado.console.roles import Role
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import open_ledger
from avocado.ledger.reader import Document, open_reader
from avocado.terms.usage import Usage
from avocado.workspace import Workspace
from tests.console.conftest import (
    NANO,
    ORIGIN,
    PRICE,
    SELLER,
    Browser,
    Clock,
    House,
    MakeHouse,
)

HERE = "/operator/customers/acme"
_WORDS = itertools.count(1)


@pytest.fixture
def shop(make_house: MakeHouse) -> House:
    return make_house()


def do(
    browser: Browser, path: str, data: dict[str, Any], reason: str = "because", times: int = 1
) -> Any:
    """Sends a form, answers the question that comes back, with one word for each confirmation."""
    asked = browser.post(path, {**data, "once": f"{next(_WORDS):024x}"}, page="/settings")
    assert asked.status_code == 200, asked.text[-800:]
    assert 'name="confirmed" value="yes"' in asked.text
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked.text)
    fields = {name: unescape(value) for name, value in hidden}
    for name in ("csrf", "once"):
        fields.pop(name)
    fields |= {"reason": reason, "once": f"{next(_WORDS):024x}"}
    for _ in range(times):
        answer = browser.post(path, fields, page="/settings")
    return answer


def send(browser: Browser, path: str, data: dict[str, Any]) -> Any:
    """Sends a form that is done at once, with a word of its own."""
    return browser.post(path, {**data, "once": f"{next(_WORDS):024x}"}, page="/settings")


def actions(house: House) -> list[Document]:
    with open_reader(house.console.workspace.ledger) as reader:
        return list(reader.documents("action"))


def available(house: House, tenant: str = "acme") -> int:
    with open_reader(house.console.workspace.ledger) as reader:
        return reader.balance(tenant).available


def test_a_refund_is_asked_twice_done_once_and_on_record(shop: House) -> None:
    browser, before = shop.signed_in("finance", None), available(shop)
    asked = send(browser, f"{HERE}/refund", {"of": "req-acme"})
    assert asked.status_code == 200
    assert available(shop) == before, "nothing is done before it was confirmed"
    answer = do(browser, f"{HERE}/refund", {"of": "req-acme"}, "slow answer", times=2)
    assert answer.status_code == 303
    with open_reader(shop.console.workspace.ledger) as reader:
        hold = reader.hold("req-acme")
        assert hold is not None
        assert hold.refunded == hold.charge > 0
    assert available(shop) == before + hold.charge
    (action,) = actions(shop)
    assert action.actor == "finance@operator.example"
    assert action.content["reason"] == "slow answer"
    assert (action.content["what"], action.content["subject"]) == ("refund", "req-acme")
    audit = browser.get("/operator/audit?kind=documents").text
    assert "finance@operator.example" in audit
    assert "slow answer" in audit


def test_a_reason_is_required(shop: House) -> None:
    browser, before = shop.signed_in("owner", None), available(shop)
    sent = {"of": "req-acme", "confirmed": "yes", "reason": "  "}
    answer = send(browser, f"{HERE}/refund", sent)
    assert answer.status_code == 422
    assert "reason is needed" in answer.text
    assert available(shop) == before


def test_another_customers_request_is_not_refunded_from_this_page(shop: House) -> None:
    browser, before = shop.signed_in("owner", None), available(shop, "globex")
    answer = send(browser, f"{HERE}/refund", {"of": "req-globex"})
    assert answer.status_code == 404
    assert available(shop, "globex") == before
    assert send(browser, f"{HERE}/refund", {"of": "nothing"}).status_code == 404


def test_a_card_payment_is_not_refunded_behind_the_providers_back(make_house: MakeHouse) -> None:
    """With [payments] and without its key nothing moves: the money lies with the provider."""
    house = make_house('[payments]\nprovider = "stripe"\n')
    browser, before = house.signed_in("owner", None), available(house)
    answer = do(browser, f"{HERE}/refund", {"of": "pay_acme"}, "asked for it")
    assert answer.status_code == 422
    assert "payments are off" in answer.text
    assert available(house) == before


def test_credit_is_paid_or_given(shop: House) -> None:
    browser, before = shop.signed_in("finance", None), available(shop)
    do(browser, f"{HERE}/credit", {"amount": "2.50", "kind": "deposit"}, "transfer 42", times=3)
    assert available(shop) == before + 2_500_000_000
    do(browser, f"{HERE}/credit", {"amount": "1,25", "kind": "grant", "days": "30"}, "welcome")
    assert available(shop) == before + 3_750_000_000
    with open_reader(shop.console.workspace.ledger) as reader:
        assert reader.balance("acme").granted == 1_250_000_000
    for amount in ("", "0", "-1", "1e9", "NaN", "0.0000000001"):
        answer = send(browser, f"{HERE}/credit", {"amount": amount})
        assert answer.status_code == 422, amount
    assert available(shop) == before + 3_750_000_000


def test_a_customer_is_frozen_and_let_go(shop: House) -> None:
    browser = shop.signed_in("owner", None)
    do(browser, f"{HERE}/freeze", {"frozen": "yes"}, "card was stolen")
    with open_reader(shop.console.workspace.ledger) as reader:
        assert reader.customer("acme").frozen == "card was stolen"
    assert "card was stolen" in browser.get(HERE).text
    assert "acme" in browser.get("/operator/customers?state=frozen").text
    hold = o.Hold(
        id="later",
        tenant="acme",
        offer="a",
        release="r",
        price_version="v",
        prompt_tokens=1,
        max_tokens=1,
    )
    with shop.console.writing() as submit, pytest.raises(Exception, match="frozen"):
        submit(hold)
    do(browser, f"{HERE}/freeze", {"frozen": "no"}, "it was found")
    with open_reader(shop.console.workspace.ledger) as reader:
        assert not reader.customer("acme").frozen
    assert [each.content["what"] for each in actions(shop)] == ["freeze", "thaw"]


def test_credit_limit_key_and_new_customer(shop: House) -> None:
    browser = shop.signed_in("finance", None)
    do(browser, f"{HERE}/credit-limit", {"limit": "100"}, "pays by invoice")
    with open_reader(shop.console.workspace.ledger) as reader:
        assert reader.customer("acme").credit_limit == 100 * NANO
        (key,) = reader.keys("acme")
    do(browser, f"{HERE}/keys/revoke", {"key": key.key_id}, "it leaked")
    with open_reader(shop.console.workspace.ledger) as reader:
        assert reader.keys("acme")[0].revoked is not None
        (other,) = reader.keys("globex")
    answer = send(browser, f"{HERE}/keys/revoke", {"key": other.key_id})
    assert answer.status_code == 404
    data = {"tenant": "initech", "name": "Initech"}
    assert send(browser, "/operator/customers", data).status_code == 303
    assert browser.get("/operator/customers/initech").status_code == 200
    assert send(browser, "/operator/customers", data).status_code == 422


def test_a_plan_is_published_and_a_customer_put_on_it(shop: House) -> None:
    browser = shop.signed_in("finance", None)
    toml = 'name = "pro"\nkind = "subscription"\n[subscription]\nfee = "2.00"\n'
    assert do(browser, "/operator/plans", {"toml": toml}).status_code == 303
    before = available(shop)
    do(browser, f"{HERE}/plan", {"plan": "pro", "when": "now"}, "asked by phone")
    assert before - available(shop) == 2 * NANO
    assert "pro" in browser.get("/operator/customers").text
    do(browser, f"{HERE}/plan", {"plan": "none", "when": "now"}, "left us")
    assert send(browser, "/operator/plans", {"toml": "name = 3"}).status_code == 422
    coupon = {"code": "welcome20", "kind": "percent", "percent": "20", "periods": "3"}
    assert send(browser, "/operator/coupons", coupon).status_code == 303
    assert "WELCOME20" in browser.get("/operator/plans").text
    assert send(browser, "/operator/coupons", coupon).status_code == 422


def test_costs_make_margins(shop: House) -> None:
    browser = shop.signed_in("finance", None)
    since = time.strftime("%Y-%m-01", time.gmtime())
    cost = {"name": "gpu-1", "price": "0.01", "since": since, "machines": "2"}
    assert send(browser, "/operator/costs/engine", cost).status_code == 303
    training = {"training_price": "1.50", "training_since": since, "months": "6"}
    assert send(browser, "/operator/costs/training", training).status_code == 303
    text = browser.get("/operator/statement").text
    assert "gpu-1" in text
    assert send(browser, "/operator/costs/engine", cost).status_code == 422
    assert "gpu-1" in browser.get("/operator/costs").text
    assert {each.content["what"] for each in actions(shop)} == {"engine cost", "training cost"}


def test_a_month_that_is_not_over_is_not_closed(shop: House) -> None:
    browser = shop.signed_in("finance", None)
    month = time.strftime("%Y-%m", time.gmtime())
    answer = send(browser, "/operator/invoices/close", {"month": month})
    assert answer.status_code == 422, "a month that is not over is not closed"
    with shop.console.writing() as submit:
        submit(o.SetCreditLimit(tenant="acme", credit_limit=NANO))
    answer = send(browser, "/operator/invoices/close", {"month": "soon"})
    assert answer.status_code == 422
    assert browser.get("/operator/invoices").status_code == 200
    assert browser.get("/operator/invoice?id=invoice/acme/2020-01").status_code == 404


@pytest.mark.parametrize("role", ["engineer", "admin", "member"])
def test_who_is_not_of_finance_moves_no_money(shop: House, role: Role) -> None:
    tenant = "acme" if role in ("admin", "member") else None
    browser, before = shop.signed_in(role, tenant), available(shop)
    data = {"amount": "5", "confirmed": "yes", "reason": "mine", "of": "req-acme"}
    for path in ("credit", "refund", "credit-limit", "freeze", "plan", "keys/revoke", "invite"):
        answer = browser.post(f"{HERE}/{path}", data, page="/settings")
        assert answer.status_code == 404, path
    assert available(shop) == before
    assert actions(shop) == []


def test_people_are_invited_changed_and_removed(shop: House) -> None:
    browser = shop.signed_in("owner", None)
    data = {"email": "eve@example.com", "role": "engineer"}
    answer = browser.post("/operator/settings/invite", data, page="/operator/settings")
    assert "/link/" in answer.text, "without [mail] the link is shown, once"
    assert "eve@example.com" in browser.get("/operator/settings").text
    answer = send(browser, "/operator/settings/invite", {**data, "role": "admin"})
    assert answer.status_code == 422
    shop.person("finance", None)
    person = {"email": "finance@operator.example", "role": "engineer"}
    assert do(browser, "/operator/settings/person", person, "moved").status_code == 303
    gone = {"email": "finance@operator.example", "role": "none"}
    assert do(browser, "/operator/settings/person", gone, "left").status_code == 303
    owner = {"email": "owner@operator.example", "role": "none"}
    answer = do(browser, "/operator/settings/person", owner, "oops")
    assert answer.status_code == 422
    assert "last owner" in answer.text
    member = {"email": "bob@acme.example", "role": "member"}
    assert "/link/" in send(browser, f"{HERE}/invite", member).text
    assert send(browser, f"{HERE}/members/remove", member).status_code == 303
    audit = browser.get("/operator/audit?source=console").text
    assert "bob@acme.example" in audit


def test_settings_show_no_secrets(make_house: MakeHouse) -> None:
    from avocado.console.operator.settings import without_password

    house = make_house('[ledger]\n[payments]\nprovider = "stripe"\n')
    text = house.signed_in("owner", None).get("/operator/settings").text
    assert "STRIPE_API_KEY" in text
    assert "Torstraße 1" in text
    shown = without_password("postgresql://ada:geheim@db.example:5432/book?password=auch")
    assert shown == "postgresql://ada:…@db.example:5432/book"
    assert without_password("postgresql:///book?host=/run") == "postgresql:///book"
    assert without_password("plain words") == "plain words"


def test_the_audit_log_pages_through_everything_once(shop: House) -> None:
    with shop.console.writing() as submit:
        for number in range(130):
            submit(o.Deposit(id=f"d{number}", tenant="acme", amount=1, currency="EUR"))
    browser, path, seen = shop.signed_in("owner", None), "/operator/audit?kind=money", []
    for _ in range(10):
        text = browser.get(path).text
        seen += re.findall(r"<code>(d\d+|pay_\w+)</code>", text)
        older = re.search(r'href="([^"]+)" rel="next"', text)
        if older is None:
            break
        path = older[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) == 132
    only = browser.get("/operator/audit?customer=globex").text
    assert "pay_globex" in only
    assert "pay_acme" not in only


def used_in_october(workspace: Workspace) -> None:
    """A customer that pays by invoice, and used something in October 2026."""
    clock = ManualClock(1_792_000_000_000_000_000)  # 14 October 2026
    with open_ledger(workspace.ledger, clock) as ledger:
        ledger.do_now(o.PublishPrice(terms=PRICE.terms()))
        ledger.do_now(
            o.OpenCustomer(tenant="late", name="Late", currency="EUR", credit_limit=100 * NANO)
        )
        ledger.do_now(
            o.Hold(
                id="req-late",
                tenant="late",
                offer="avocado-1",
                release="release-" + "a" * 64,
                price_version=PRICE.version,
                prompt_tokens=10_000_000,
                max_tokens=1000,
            )
        )
        ledger.do_now(o.Settle(hold="req-late", usage=Usage(10_000_000, 500)))


@pytest.fixture
def october(tmp_path: Path) -> Iterator[House]:
    """A console over that customer's book."""
    Workspace.create(tmp_path / "october", "Shop")
    (tmp_path / "october" / "avocado.toml").write_text(f'name = "Shop"\ncurrency = "EUR"\n{SELLER}')
    workspace = Workspace.open(tmp_path / "october")
    used_in_october(workspace)
    clock = Clock()
    console = Console(workspace, ORIGIN, clock=clock)
    yield House(console, build_console(console), clock)
    console.close()


def test_a_month_is_closed_paid_and_credited(october: House) -> None:
    house, browser = october, october.signed_in("finance", None)
    asked = send(browser, "/operator/invoices/close", {"month": "2026-10"})
    assert "October 2026" in asked.text
    closing = {"month": "2026-10", "confirmed": "yes", "reason": "month end"}
    assert send(browser, "/operator/invoices/close", closing).status_code == 303
    run = run_of(house.console)
    for _ in range(200):
        if run is not None and not run.running:
            break
        time.sleep(0.05)
        run = run_of(house.console)
    assert run is not None
    assert (run.error, run.refused, run.made) == ("", (), 1)
    id_ = "invoice/late/2026-10"
    page = browser.get(f"/operator/invoice?id={id_}")
    assert page.status_code == 200, page.text[-900:]
    assert "finance@operator.example" in page.text
    assert "Late" in browser.get("/operator/invoices").text
    pay = {"id": id_, "amount": "0.50", "reference": "bank 1"}
    assert send(browser, "/operator/invoice/pay", pay).status_code == 303
    assert send(browser, "/operator/invoice/pay", {"id": id_}).status_code == 422
    answer = do(browser, "/operator/invoice/credit-note", {"id": id_, "amount": "0.10"}, "goodwill")
    assert answer.status_code == 303
    note = browser.get(answer.headers["location"])
    assert "goodwill" in note.text
    assert browser.get(f"/operator/invoice?id={id_}").text.count("goodwill") == 1
    said = [each.content["what"] for each in actions(house)]
    assert said == ["close month", "invoice paid", "credit note"]
