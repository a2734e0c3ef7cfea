"""What must never work: others' things, other sites' forms, other hosts, old sessions."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from avocado.console.app import all_pages
from avocado.console.page import Route
from avocado.console.roles import ROLES, Role
from avocado.console.store import open_store
from avocado.ledger import operation as o
from tests.console.conftest import ORIGIN, House, MakeHouse

ROUTES = [route for pages in all_pages() for route in pages.routes]
SHOWN = [route for route in ROUTES if route.kind in ("show", "live")]


def test_every_route_names_its_roles_and_no_path_twice() -> None:
    seen = set()
    for route in ROUTES:
        assert (route.method, route.path) not in seen, f"{route.path} is there twice"
        seen.add((route.method, route.path))
        assert isinstance(route.roles, frozenset)
        assert route.roles <= set(ROLES), f"{route.path} lets in a role that there is none of"


PUBLIC = {
    "/",
    "/sign-in",
    "/sign-in/link",
    "/link/{token}",
    "/theme",
    "/language",
    "/oidc/start",
    "/oidc/callback",
    "/webhooks/stripe",
}


def test_what_is_public_is_a_short_list() -> None:
    """A new page that is open to the world has to be put on this list by hand."""
    assert {route.path for route in ROUTES if route.public} == PUBLIC


def test_operators_pages_let_no_customer_in_and_the_other_way_round() -> None:
    for route in ROUTES:
        if route.public:
            continue
        if route.path == "/operator" or route.path.startswith("/operator/"):
            assert not route.roles & {"admin", "member"}, route.path
        elif route.path not in ("/settings", "/sign-out") and "/settings/" not in route.path:
            assert not route.roles & {"owner", "finance", "engineer"}, route.path


def filled(route: Route, values: dict[str, str]) -> str:
    """The route's path with something in place of each parameter."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values.get(found[1], "nothing"), route.path)


@pytest.mark.parametrize("role", ROLES)
def test_each_page_is_there_for_its_roles_only(house: House, role: Role) -> None:
    browser = house.signed_in(role, "acme" if role in ("admin", "member") else None)
    for route in SHOWN:
        if route.public or route.kind == "live" or "{" in route.path:
            continue
        status = browser.get(route.path).status_code
        if role in route.roles:
            # A page of the operator's may want to be told of what in its query.
            fine = (200, 303, 404) if route.path.startswith("/operator") else (200, 303)
            assert status in fine, f"{role} at {route.path}: {status}"
        else:
            assert status == 404, f"{role} at {route.path}: {status}"


@pytest.mark.parametrize("role", ROLES)
def test_each_act_is_404_for_every_other_role(house: House, role: Role) -> None:
    browser = house.signed_in(role, "acme" if role in ("admin", "member") else None)
    csrf = browser.csrf("/settings")
    for route in ROUTES:
        if route.kind == "act" and not route.public and role not in route.roles:
            answer = browser.http.post(
                filled(route, {}), data={"csrf": csrf}, headers={"origin": ORIGIN}
            )
            assert answer.status_code == 404, f"{role} at {route.path}"


def test_nobody_gets_anything_without_signing_in(house: House) -> None:
    browser = house.browser()
    for route in SHOWN:
        if not route.public:
            answer = browser.get(filled(route, {}))
            if route.kind == "live":
                assert answer.status_code == 401
            else:
                assert answer.status_code == 303
                assert answer.headers["location"].startswith("/sign-in?next=/")


# -- fault 32: another customer's objects ----------------------------------------------------------


def foreign_things(house: House) -> dict[str, str]:
    """Names of things that globex has, by the name of the parameter that takes them."""
    member = house.person("member", "globex")
    with house.console.writing() as do:
        do(o.File(id="invoice/globex/2026-10", kind="invoice", tenant="globex", content={"a": 1}))
        do(o.File(id="alert/globex/1", kind="alert", tenant="globex", content={"number": 1}))
    from avocado.ledger.reader import open_reader

    with open_reader(house.console.workspace.ledger) as reader:
        key = reader.keys("globex")[0].key_id
    from avocado.console import sessions

    database = open_store(house.console.place)
    sessions.begin(database, member, house.clock.now, 12, "127.0.0.1", "globex browser")
    session = sessions.of_person(database, member, house.clock.now)[0].id
    return {
        "key": key,
        "person": member.id,
        "session": session,
        "id": "invoice/globex/2026-10",
        "form": "json",
        "number": "1",
        "tenant": "globex",
    }


@pytest.mark.parametrize("role", ["admin", "member"])
def test_fault_32_another_customers_things_are_404_on_every_route(house: House, role: Role) -> None:
    """Walks every registered route of customers with globex's ids, signed in at acme."""
    foreign = foreign_things(house)
    browser = house.signed_in(role, "acme")
    csrf = browser.csrf("/settings")
    walked = 0
    for route in ROUTES:
        if "{" not in route.path or route.public or role not in route.roles:
            continue
        names = set(re.findall(r"\{(\w+)", route.path))
        assert names <= set(foreign), f"{route.path}: say what globex has for {names}"
        path = filled(route, foreign)
        fields: dict[str, Any] = {"csrf": csrf, "once": "1" * 24, "role": "admin", "hours": "0"}
        answer = (
            browser.get(path)
            if route.method == "GET"
            else browser.http.post(path, data=fields, headers={"origin": ORIGIN})
        )
        assert answer.status_code == 404, f"{role}: {route.method} {path}: {answer.status_code}"
        assert "globex" not in answer.text.replace(path, "").lower()
        walked += 1
    assert walked >= 5


def test_fault_32_no_page_of_acme_says_anything_of_globex(house: House) -> None:
    foreign_things(house)
    browser = house.signed_in("admin", "acme")
    for route in SHOWN:
        if "admin" in route.roles and "{" not in route.path and route.kind == "show":
            assert "globex" not in browser.get(route.path).text.lower(), route.path


def test_fault_32_what_a_form_names_is_looked_for_among_ones_own(house: House) -> None:
    """Ids in fields, where a path has none."""
    foreign = foreign_things(house)
    browser = house.signed_in("admin", "acme")
    assert browser.get(f"/usage?key={foreign['key']}").text.count("globex") == 0
    browser.post("/members/withdraw", {"email": "member@globex.example"})
    from avocado.console import people

    database = open_store(house.console.place)
    assert people.by_email(database, "member@globex.example") is not None


# -- fault 34: forms of other sites ----------------------------------------------------------------

FORGERIES: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://testserver.evil.example"},
    {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
]


@pytest.mark.parametrize("headers", FORGERIES)
def test_fault_34_a_post_from_another_site_is_403(house: House, headers: dict[str, str]) -> None:
    """Even with the token and the cookies: every act there is."""
    browser = house.signed_in("admin")
    data = {"csrf": browser.csrf("/settings"), "once": "2" * 24}
    for route in ROUTES:
        if route.kind == "act":
            answer = browser.http.post(filled(route, {}), data=data, headers=headers)
            assert answer.status_code == 403, f"{route.path} with {headers}"


@pytest.mark.parametrize("token", ["", "0" * 64, None])
def test_fault_34_a_post_without_our_token_is_403(house: House, token: str | None) -> None:
    browser = house.signed_in("admin")
    data = {} if token is None else {"csrf": token}
    for route in ROUTES:
        if route.kind == "act" and (route.public or "admin" in route.roles):
            answer = browser.http.post(filled(route, {}), data=data, headers={"origin": ORIGIN})
            assert answer.status_code == 403, route.path


def test_fault_34_one_persons_token_is_no_good_for_another(house: House) -> None:
    token = house.signed_in("admin", "globex").csrf("/settings")
    browser = house.signed_in("admin", "acme")
    headers = {"origin": ORIGIN}
    answer = browser.http.post("/limits", data={"csrf": token, "month": "1"}, headers=headers)
    assert answer.status_code == 403
    stranger = house.browser()
    stranger.get("/sign-in")  # has a token of its own, before anybody signed in
    answer = stranger.http.post("/sign-in", data={"csrf": token}, headers=headers)
    assert answer.status_code == 403


def test_methods_that_change_things_are_post_alone(house: House) -> None:
    browser = house.signed_in("admin")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = browser.http.request(method, "/limits", headers={"origin": ORIGIN})
        assert answer.status_code == 405


# -- host, headers, cookies ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "testserver:81", ""])
def test_only_our_own_host_is_answered(house: House, host: str) -> None:
    for path in ("/sign-in", "/static/console.css", "/healthz", "/webhooks/stripe"):
        assert house.browser().get(path, host=host).status_code == 421


def test_every_answer_carries_the_policy(house: House) -> None:
    browser = house.signed_in("admin")
    for path in ("/overview", "/nothing", "/static/console.css", "/usage.csv", "/keys/new"):
        headers = browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        if not path.startswith("/static/"):
            assert headers["cache-control"] == "no-store"


def test_no_template_has_an_inline_script_style_or_handler() -> None:
    """The policy would stop them; a page that needs them would be broken."""
    from avocado.console.rendering import environment

    env = environment()
    for name in env.list_templates():
        text = env.loader.get_source(env, name)[0] if env.loader else ""
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), name
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"", text), name
        assert "|safe" not in text, name


def test_the_session_cookie_is_bound_to_its_host_over_https(make_house: MakeHouse) -> None:
    house = make_house(origin="https://testserver")
    cookie = sign_in_by_link(house, "https://testserver")
    assert cookie.startswith("__Host-av_session=")
    for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert word in cookie
    assert "Domain" not in cookie


def test_over_plain_http_on_this_machine_the_cookie_has_a_plain_name(house: House) -> None:
    cookie = sign_in_by_link(house, ORIGIN)
    assert cookie.startswith("av_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie


def sign_in_by_link(house: House, origin: str) -> str:
    """The Set-Cookie of a session."""
    from starlette.testclient import TestClient

    from avocado.console import links

    house.person("admin", "acme")
    database = open_store(house.console.place)
    token = links.make(
        database, "sign-in", "admin@acme.example", "admin", "acme", "test", house.clock.now
    )
    http = TestClient(house.app, origin, follow_redirects=False)
    found = re.search(r'name="csrf" value="(\w+)"', http.get(f"/link/{token}").text)
    assert found
    answer = http.post(f"/link/{token}", data={"csrf": found[1]}, headers={"origin": origin})
    assert answer.status_code == 303
    return next(each for each in answer.headers.get_list("set-cookie") if "av_session" in each)


def test_a_body_that_is_too_large_is_413_and_a_form_of_too_many_fields_400(house: House) -> None:
    browser = house.signed_in("admin")
    headers = {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    big = browser.http.post("/limits", content=b"a=" + b"x" * 300_000, headers=headers)
    assert big.status_code == 413
    parts = (b"x" * 100_000 for _ in range(5))  # no Content-Length
    assert browser.http.post("/limits", content=parts, headers=headers).status_code == 413
    many = b"&".join(b"a=1" for _ in range(1000))
    assert browser.http.post("/limits", content=many, headers=headers).status_code == 400
    assert browser.http.post("/limits", content=b"a=\xff", headers=headers).status_code in (
        400,
        403,
    )


def test_where_to_go_next_is_never_another_site(house: House) -> None:
    from avocado.console.sending import onward

    for url in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:1", ""):
        assert onward(url) == "/"
    assert onward("/usage?days=7") == "/usage?days=7"


# -- sessions that are over ------------------------------------------------------------------------


def test_a_session_ends_by_silence_and_by_the_clock(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("admin")
    house.clock.pass_time(2 * 3600 - 60)
    assert browser.get("/overview").status_code == 200
    house.clock.pass_time(2 * 3600)
    assert browser.get("/overview").status_code == 303, "two hours without a word"
    browser = house.signed_in("admin")
    for _ in range(11):
        house.clock.pass_time(3600)
        assert browser.get("/overview").status_code == 200
    house.clock.pass_time(3600)
    assert browser.get("/overview").status_code == 303, "twelve hours after it began"


def test_a_person_who_is_removed_is_out_at_once(make_house: MakeHouse) -> None:
    from avocado.console import people

    house = make_house()
    house.person("admin")
    browser = house.signed_in("member")
    assert browser.get("/overview").status_code == 200
    people.remove(open_store(house.console.place), house.person("member"))
    assert browser.get("/overview").status_code == 303


def test_nobody_learns_why_a_page_failed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from avocado.console.threads import Threads

    def broken(_: Threads) -> Any:
        raise RuntimeError("secret detail")

    browser = house.signed_in("admin")
    browser.get("/overview")
    monkeypatch.setattr(Threads, "daybook", broken)
    answer = browser.get("/overview")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text


def test_pages_answer_while_time_goes_by(house: House) -> None:
    """A guard against a page that became slow by accident: on an empty book, in this process."""
    browser = house.signed_in("admin")
    browser.get("/overview")
    begun = time.monotonic()
    for _ in range(10):
        assert browser.get("/overview").status_code == 200
    assert time.monotonic() - begun < 3
