"""The customer's pages do what they say: keys, limits, alerts, members, plans, invoices, files."""

from __future__ import annotations

import csv
import html
import io
import re
import time
from typing import Any

import pytest

from avocado.billing.alerts import active
from avocado.cli.book import shelf
from avocado.gateway import access, keys
from avocado.ledger.reader import Reader, open_reader
from tests.console.conftest import House, MakeHouse


def reader_of(house: House) -> Reader:
    return open_reader(house.console.workspace.ledger)


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_page_is_whole_in_both_languages(house: House, language: str) -> None:
    browser = house.signed_in("admin")
    for route in house.console.routes:
        if route.kind == "show" and "admin" in route.roles and "{" not in route.path:
            answer = browser.get(route.path, **{"accept-language": language})
            assert answer.status_code in (200, 303), route.path
            if answer.headers["content-type"].startswith("text/html"):
                assert f'<html lang="{language}"' in answer.text
                assert answer.text.rstrip().endswith("</html>")


# -- keys ------------------------------------------------------------------------------------------


def made_key(text: str) -> str:
    found = re.search(r"av_live_\w+", text)
    assert found
    return found[0]


def test_a_key_is_shown_once_and_works_as_it_was_bounded(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("member")
    form = {
        "name": "production",
        "days": "30",
        "scoped": "yes",
        "scopes": "inference",
        "models": "avocado-1",
        "month": "12,50",
        "requests_per_minute": "60",
    }
    answer = browser.post("/keys/new", form, "/keys/new")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    text = made_key(answer.text)
    key_id = keys.key_id(text.encode())
    assert key_id is not None
    assert text not in browser.get("/keys").text
    with reader_of(house) as reader:
        stored = next(each for each in reader.keys("acme") if each.key_id == key_id)
    assert stored.digest == keys.digest(text.encode(), house.console.workspace.pepper())
    assert stored.month_limit == 12_500_000_000
    assert stored.expires == house.clock.now + 30 * 86_400 * 10**9
    with shelf(house.console.workspace) as database:
        policy = access.read(database, [f"key:{key_id}"])[f"key:{key_id}"]
    assert policy.scopes == ("inference",)
    assert policy.models == ("avocado-1",)
    assert policy.requests_per_minute == 60


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "console playground"}, "needs a name"),
        ({"name": "x", "month": "12.5.0"}, "is not an amount"),
        ({"name": "x", "month": "-1"}, "is not an amount"),
        ({"name": "x", "scoped": "yes"}, "Choose what the key may do"),
    ],
)
def test_a_key_that_cannot_be_is_refused_and_the_form_keeps_what_was_typed(
    house: House, form: dict[str, str], words: str
) -> None:
    browser = house.signed_in("admin")
    with reader_of(house) as reader:
        before = len(reader.keys("acme"))
    answer = browser.post("/keys/new", form, "/keys/new")
    assert answer.status_code == 422
    assert words in answer.text
    if form.get("month"):
        assert f'value="{form["month"]}"' in answer.text
    with reader_of(house) as reader:
        assert len(reader.keys("acme")) == before


def test_a_key_is_rotated_and_revoked(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("admin")
    first = browser.post(
        "/keys/new", {"name": "k", "month": "3", "models": "avocado-1"}, "/keys/new"
    )
    old = keys.key_id(made_key(first.text).encode())
    rotated = browser.post(f"/keys/{old}/rotate", {"hours": "1"})
    new = keys.key_id(made_key(rotated.text).encode())
    with shelf(house.console.workspace) as database:
        policies = access.read(database, [f"key:{old}", f"key:{new}"])
    assert policies[f"key:{old}"].until == house.clock.now + 3600 * 10**9
    assert policies[f"key:{new}"].models == ("avocado-1",)
    with reader_of(house) as reader:
        found = {each.key_id: each for each in reader.keys("acme")}
    assert found[str(new)].month_limit == 3 * 10**9
    assert browser.post(f"/keys/{new}/revoke").status_code == 303
    with reader_of(house) as reader:
        found = {each.key_id: each for each in reader.keys("acme")}
    assert found[str(new)].revoked is not None
    refused = browser.post(f"/keys/{new}/rotate", {"hours": "1"})
    assert refused.status_code == 422
    assert "does not work any more" in refused.text


def test_a_keys_bounds_are_changed_and_taken_away(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("admin")
    made = browser.post("/keys/new", {"name": "k", "month": "3"}, "/keys/new")
    key = keys.key_id(made_key(made.text).encode())
    browser.post(f"/keys/{key}", {"total": "9", "tokens_per_minute": "1000"})
    with reader_of(house) as reader:
        found = next(each for each in reader.keys("acme") if each.key_id == key)
    assert (found.month_limit, found.total_limit) == (None, 9 * 10**9)
    page = browser.get(f"/keys/{key}").text
    assert 'value="9.00"' in page
    assert 'value="1000"' in page


def test_a_name_is_only_ever_text(house: House) -> None:
    browser = house.signed_in("admin")
    evil = '"><script>alert(1)</script>'
    browser.post("/keys/new", {"name": evil}, "/keys/new")
    page = browser.get("/keys").text
    assert "<script>alert" not in page
    assert html.escape(evil, quote=True).replace("&quot;", "&#34;") in page


# -- usage -----------------------------------------------------------------------------------------


def test_usage_as_csv_is_the_ledgers_to_the_last_digit(house: House) -> None:
    browser = house.signed_in("member")
    answer = browser.get("/usage.csv?days=7")
    assert answer.headers["content-disposition"].startswith('attachment; filename="usage-acme-')
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 1
    assert rows[0]["amount"] == "0.0006"
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == ("1000", "500")
    assert rows[0]["key_name"] == "acme key"
    assert browser.get("/usage.csv?model=nothing").text.count("\n") == 1


def test_a_name_in_a_csv_is_no_formula(house: House) -> None:
    from avocado.console.customer.usage import _plain

    assert _plain("=1+1") == "'=1+1"
    assert _plain("plain") == "plain"


# -- money -----------------------------------------------------------------------------------------


def test_limits_are_the_ledgers(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("admin")
    assert browser.post("/limits", {"month": "20", "total": ""}).status_code == 303
    with reader_of(house) as reader:
        found = reader.customer("acme")
    assert (found.month_limit, found.total_limit) == (20 * 10**9, None)
    page = browser.get("/limits").text
    assert "€20.00" in page
    browser.post("/limits", {"month": "", "total": ""})
    with reader_of(house) as reader:
        assert reader.customer("acme").month_limit is None


def test_alerts_are_added_with_a_secret_shown_once_and_removed(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("admin")
    form = {"kind": "spend", "amount": "50", "webhook": "https://example.com/hook"}
    first = browser.post("/alerts", form)
    assert "whsec_" in first.text
    again = browser.post("/alerts", {**form, "amount": "80"})
    assert again.status_code == 303, "the same address has the same secret"
    browser.post("/alerts", {"kind": "percent", "percent": "80", "email": "cfo@acme.example"})
    with reader_of(house) as reader:
        found = active(reader, "acme")
    assert [each.amount for each in found] == [50 * 10**9, 80 * 10**9, None]
    assert found[2].percent == 80
    assert browser.post("/alerts/1/remove").status_code == 303
    assert browser.post("/alerts/1/remove").status_code == 404
    with reader_of(house) as reader:
        assert len(active(reader, "acme")) == 2


@pytest.mark.parametrize(
    "form",
    [
        {"kind": "spend", "email": "a@b.c"},
        {"kind": "spend", "amount": "5"},
        {"kind": "percent", "percent": "0", "email": "a@b.c"},
        {"kind": "spend", "amount": "5", "webhook": "http://example.com/"},
        {"kind": "spend", "amount": "5", "webhook": "javascript:alert(1)"},
        {"kind": "spend", "amount": "5", "email": "a@b.c, d@e.f"},
    ],
)
def test_an_alert_that_cannot_be_is_refused(house: House, form: dict[str, str]) -> None:
    assert house.signed_in("admin").post("/alerts", form).status_code == 422


def test_the_billing_profile_is_filed_as_it_was_typed(make_house: MakeHouse) -> None:
    from avocado.billing.profile import profile_of

    house = make_house()
    browser = house.signed_in("admin")
    form = {
        "company": "Acme Robotics GmbH",
        "address": "Lindenallee 12\nHinterhaus",
        "postcode": "80331",
        "city": "München",
        "country": "DE",
        "vat_id": "DE136695976",
        "email": "ap@acme.example",
        "language": "de",
        "e_invoice": "xml",
    }
    assert browser.post("/billing/profile", form).status_code == 303
    with reader_of(house) as reader:
        found = profile_of(reader, "acme")
    assert found.address == ("Lindenallee 12", "Hinterhaus")
    assert (found.city, found.vat_id, found.e_invoice) == ("München", "DE136695976", "xml")
    wrong = browser.post("/billing/profile", {**form, "vat_id": "DE123456789"})
    assert wrong.status_code == 422
    assert 'value="DE123456789"' in wrong.text


def test_a_plan_is_chosen_changed_and_cancelled(make_house: MakeHouse) -> None:
    from avocado.billing.plan import parse_plan
    from avocado.billing.plans import publish
    from avocado.billing.upkeep import load

    house = make_house()
    pro = b'name="pro"\nkind="subscription"\n[subscription]\nfee="2.00"\n'
    pro += b"[[subscription.included]]\ntokens=1000000\n"
    team = b'name="team"\nkind="subscription"\n[subscription]\nfee="4.00"\n'
    with house.console.writing() as do, reader_of(house) as reader:
        for text in (pro, team):
            publish(reader, do, parse_plan(text, "EUR"))
    browser = house.signed_in("admin")
    assert browser.post("/billing/plan", {"plan": "pro"}).status_code == 303
    with reader_of(house) as reader:
        stored = load(reader, "acme")
        assert stored is not None
        assert (stored.value.plan, stored.value.state) == ("pro", "active")
        assert reader.allowances("acme")[0].left == 1_000_000
    with shelf(house.console.workspace) as database:
        policy = access.read(database, ["customer:acme"])["customer:acme"]
    assert policy.plan == "pro", "the gateway knows it"
    page = browser.get("/billing").text
    assert "1M of 1M left" in page
    assert browser.post("/billing/plan", {"plan": "team", "when": "end"}).status_code == 303
    assert "Changes to team" in browser.get("/billing").text
    assert browser.post("/billing/plan/cancel").status_code == 303
    assert "Ends on" in browser.get("/billing").text
    poor = browser.post("/billing/plan", {"plan": "nothing"})
    assert poor.status_code == 422


def test_a_refusal_does_not_tell_customers_of_commands(make_house: MakeHouse) -> None:
    from avocado.billing.plan import parse_plan
    from avocado.billing.plans import publish

    house = make_house()
    dear = b'name="dear"\nkind="subscription"\n[subscription]\nfee="49.00"\n'
    with house.console.writing() as do, reader_of(house) as reader:
        publish(reader, do, parse_plan(dear, "EUR"))
    answer = house.signed_in("admin").post("/billing/plan", {"plan": "dear"})
    assert answer.status_code == 422
    assert "acme is short of" in answer.text
    assert "avocado credit" not in answer.text


def closed_month(house: House) -> None:
    """Closes the month of acme's charge, as if it were over."""
    from avocado.billing.closing_run import close_all
    from avocado.billing.months import after, end, month_at
    from avocado.cli.issuer import issuer_of

    month = month_at(time.time_ns())
    with house.console.writing() as do, reader_of(house) as reader:
        now = end(after(month))
        made = list(close_all(reader, do, issuer_of(house.console.workspace), month, now))
    assert {each.tenant for each in made} == {"acme", "globex"}
    assert all(each.document for each in made), made


def test_invoices_are_listed_and_come_as_files_to_their_owner_alone(make_house: MakeHouse) -> None:
    house = make_house()
    closed_month(house)
    browser = house.signed_in("member")
    page = browser.get("/billing").text
    found = re.search(r'href="/billing/documents/pdf/(invoice/acme/[\d-]+)"', page)
    assert found
    id_ = found[1]
    pdf = browser.get(f"/billing/documents/pdf/{id_}")
    assert pdf.status_code == 200
    assert pdf.content.startswith(b"%PDF-")
    assert pdf.headers["content-type"] == "application/pdf"
    assert pdf.headers["content-disposition"].endswith('.pdf"')
    value: Any = browser.get(f"/billing/documents/json/{id_}").json()
    assert value["total_nanos"] == 600_000
    lines = list(csv.DictReader(io.StringIO(browser.get(f"/billing/documents/csv/{id_}").text)))
    assert len(lines) >= 2
    assert browser.get(f"/billing/documents/exe/{id_}").status_code == 404
    other = id_.replace("acme", "globex")
    for form in ("pdf", "xml", "json", "csv"):
        assert browser.get(f"/billing/documents/{form}/{other}").status_code == 404
    assert browser.get("/billing/documents/json/profile/acme").status_code == 404


def test_the_overview_counts_along(make_house: MakeHouse) -> None:
    from avocado.ledger import operation as o

    house = make_house()
    browser = house.signed_in("member")
    assert "€5.00" in browser.get("/overview").text
    with house.console.writing() as do:
        do(o.Adjust(id="a", tenant="acme", amount=10**9, currency="EUR", reason="r", actor="t"))
    assert "€6.00" in browser.get("/overview").text
    with house.console.writing() as do:
        do(o.Freeze(tenant="acme", frozen=True, reason="a dispute", actor="test"))
    assert "This account is frozen" in browser.get("/overview").text
