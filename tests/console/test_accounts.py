"""People, passwords, sessions, links: who comes in, how, and how often they may try."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avocado.console import events, links, people, sessions
from avocado.console.links import LinkSpent
from avocado.console.store import open_store
from avocado.errors import Refused
from avocado.gateway.shelf import Database
from tests.console.conftest import ORIGIN, REAL_HASHER, House, MakeHouse
from tests.ledger.conftest import Server

NOW = 1_790_000_000_000_000_000
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    server = Server()
    yield server.database("console")
    server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """The console's tables, empty."""
    if request.param == "sqlite":
        place: Path | str = tmp_path / "console.sqlite"
    else:
        place = str(request.getfixturevalue("postgres"))
    found = open_store(place)
    for table in ("person", "session", "link", "event"):
        found.run(f"DELETE FROM console_{table}")
    yield found
    found.close()


# -- people ----------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    open_store(tmp_path / "console.sqlite").close()
    assert (tmp_path / "console.sqlite").stat().st_mode & 0o777 == 0o600


def test_an_address_is_one_person_whatever_its_case(database: Database) -> None:
    ada = people.add(database, " Ada@Acme.example ", "admin", "acme", NOW)
    assert ada.email == "ada@acme.example"
    assert people.by_email(database, "ADA@acme.EXAMPLE") == ada
    assert people.by_id(database, ada.id) == ada
    with pytest.raises(Refused, match="has an account already"):
        people.add(database, "ada@ACME.example", "member", "globex", NOW)


@pytest.mark.parametrize(
    "text", ["", "ada", "@a.b", "a@", "a b@c.d", "a@b..c", "a@b\n.c", "<a>@b.c"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is no e-mail address"):
        people.read_email(text)


def test_a_role_belongs_to_its_side(database: Database) -> None:
    with pytest.raises(Refused, match="is no role of the operator's people"):
        people.add(database, "a@b.c", "member", None, NOW)
    with pytest.raises(Refused, match="is no role of a customer's people"):
        people.add(database, "a@b.c", "owner", "acme", NOW)


def test_somebody_is_always_left_to_rule(database: Database) -> None:
    for role, tenant in (("owner", None), ("admin", "acme")):
        first = people.add(database, f"first@{role}.example", role, tenant, NOW)  # type: ignore[arg-type]
        with pytest.raises(Refused, match=f"is the last {role}"):
            people.remove(database, first)
        lesser: Any = "finance" if tenant is None else "member"
        with pytest.raises(Refused, match=f"is the last {role}"):
            people.set_role(database, first, lesser)
        second = people.add(database, f"second@{role}.example", role, tenant, NOW)  # type: ignore[arg-type]
        people.set_role(database, first, lesser)
        with pytest.raises(Refused, match=f"is the last {role}"):
            people.remove(database, second)


def test_who_is_removed_takes_sessions_and_links_along(database: Database) -> None:
    people.add(database, "a@acme.example", "admin", "acme", NOW)
    bob = people.add(database, "bob@acme.example", "member", "acme", NOW)
    token = sessions.begin(database, bob, NOW, 12, "", "")
    link = links.make(database, "sign-in", bob.email, "member", "acme", "x", NOW)
    people.remove(database, bob)
    assert sessions.find(database, token, NOW, 12) is None
    with pytest.raises(LinkSpent):
        links.look(database, link, NOW)


# -- passwords -------------------------------------------------------------------------------------


def test_a_password_is_kept_as_argon2id_and_known_again(database: Database) -> None:
    hashed = people.hash_password("a@b.c", "correct horse battery")
    assert hashed.startswith("$argon2id$v=19$")
    ada = people.add(database, "a@b.c", "owner", None, NOW, hashed)
    assert people.check_password(database, ada, "correct horse battery")
    assert not people.check_password(database, ada, "correct horse batterY")
    assert not people.check_password(database, None, "correct horse battery")


def test_hashes_are_made_as_rfc_9106_recommends() -> None:
    """The other tests use cheaper ones."""
    hasher = REAL_HASHER()
    assert (hasher.memory_cost, hasher.time_cost, hasher.parallelism) == (65536, 3, 4)
    assert str(hasher.type) == "Type.ID"
    assert hasher.verify(hasher.hash("a fine password"), "a fine password")


@pytest.mark.parametrize(
    "password", ["short", "x" * 201, "long.name@example.com", "Long.Name@example.com "]
)
def test_a_bad_password_is_refused(password: str) -> None:
    with pytest.raises(Refused):
        people.hash_password("long.name@example.com", password)


def test_a_hash_of_older_parameters_is_replaced_at_the_next_sign_in(database: Database) -> None:
    from argon2 import PasswordHasher

    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("an older password")
    ada = people.add(database, "a@b.c", "owner", None, NOW, old)
    assert not people.check_password(database, ada, "a wrong password")
    assert people.by_id(database, ada.id) == ada
    assert people.check_password(database, ada, "an older password")
    fresh = people.by_id(database, ada.id)
    assert fresh is not None
    assert fresh.password is not None
    assert fresh.password.startswith("$argon2id$v=19$m=512,t=2")
    assert people.check_password(database, fresh, "an older password")


def test_nobody_takes_as_long_as_somebody(database: Database) -> None:
    """Who measures the time does not learn which addresses have an account."""
    ada = people.add(
        database, "a@b.c", "owner", None, NOW, people.hash_password("a@b.c", "a good password")
    )
    bare = people.add(database, "b@b.c", "owner", None, NOW)
    people.check_password(database, None, "warm up")

    def best(person: people.Person | None) -> float:
        spans = []
        for _ in range(4):
            begun = time.perf_counter()
            people.check_password(database, person, "a wrong password")
            spans.append(time.perf_counter() - begun)
        return min(spans)

    known, unknown, without = best(ada), best(None), best(bare)
    assert unknown > known / 2
    assert without > known / 2


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_is_found_by_its_token_and_by_nothing_that_is_stored(database: Database) -> None:
    ada = people.add(database, "a@b.c", "owner", None, NOW)
    token = sessions.begin(database, ada, NOW, 12, "10.0.0.1", "a browser")
    found = sessions.find(database, token, NOW, 12)
    assert found is not None
    person, session = found
    assert (person.id, session.address) == (ada.id, "10.0.0.1")
    stored = str(database.run("SELECT * FROM console_session"))
    assert token not in stored
    for wrong in (session.digest, session.id, token[:-1], "", "é" * 43, "x" * 1000):
        assert sessions.find(database, wrong, NOW, 12) is None


def test_sessions_end_one_by_one_and_all_at_once(database: Database) -> None:
    ada = people.add(database, "a@b.c", "owner", None, NOW)
    eve = people.add(database, "e@b.c", "owner", None, NOW)
    mine = [sessions.begin(database, ada, NOW, 12, "", "") for _ in range(3)]
    other = sessions.begin(database, eve, NOW, 12, "", "")
    listed = sessions.of_person(database, ada, NOW)
    assert len(listed) == 3
    assert not sessions.end_one(database, eve, listed[0].id), "it is not hers"
    assert sessions.end_one(database, ada, listed[0].id)
    assert len(sessions.of_person(database, ada, NOW)) == 2
    sessions.end_all(database, ada, but=sessions.digest(mine[0]))
    assert sum(sessions.find(database, each, NOW, 12) is not None for each in mine) <= 1
    assert sessions.find(database, other, NOW, 12) is not None


# -- links -----------------------------------------------------------------------------------------


def test_a_link_works_once(database: Database) -> None:
    token = links.make(database, "sign-in", "a@b.c", "owner", None, "x", NOW)
    assert token not in str(database.run("SELECT * FROM console_link"))
    assert links.look(database, token, NOW).email == "a@b.c"
    assert links.look(database, token, NOW).email == "a@b.c", "looking uses nothing up"
    links.use(database, token, NOW)
    for attempt in (links.look, links.use):
        with pytest.raises(LinkSpent) as caught:
            attempt(database, token, NOW)
        assert caught.value.link is not None


def test_a_link_is_over_when_its_time_is_and_when_a_newer_one_is_made(database: Database) -> None:
    token = links.make(database, "sign-in", "a@b.c", "owner", None, "x", NOW)
    with pytest.raises(LinkSpent):
        links.use(database, token, NOW + 900 * SECOND)
    newer = links.make(database, "sign-in", "a@b.c", "owner", None, "x", NOW)
    with pytest.raises(LinkSpent):
        links.look(database, token, NOW)
    assert links.use(database, newer, NOW).kind == "sign-in"
    for unknown in ("", "x" * 43, "é", "x" * 10_000):
        with pytest.raises(LinkSpent):
            links.use(database, unknown, NOW)


# -- in the browser --------------------------------------------------------------------------------


def enter(house: House, browser: Any, email: str, password: str) -> Any:
    return browser.post("/sign-in", {"email": email, "password": password}, page="/sign-in")


def with_password(house: House, role: Any = "admin", tenant: str | None = "acme") -> people.Person:
    person = house.person(role, tenant)
    database = open_store(house.console.place)
    hashed = people.hash_password(person.email, "a long enough password")
    people.change(database, person, password=hashed)
    return person


def test_signing_in_makes_a_new_session_and_ends_the_old_one(make_house: MakeHouse) -> None:
    house = make_house()
    person = with_password(house)
    browser = house.browser()
    assert enter(house, browser, person.email, "a long enough password").status_code == 303
    first = browser.http.cookies["av_session"]
    assert browser.get("/overview").status_code == 200
    answer = browser.http.post(
        "/sign-in",
        data={
            "csrf": browser.csrf("/settings"),
            "email": person.email,
            "password": "a long enough password",
        },
        headers={"origin": ORIGIN},
    )
    assert answer.status_code == 303
    assert browser.http.cookies["av_session"] != first
    database = open_store(house.console.place)
    assert len(sessions.of_person(database, person, house.clock.now)) == 1


def test_a_session_that_somebody_else_set_is_not_taken_over(make_house: MakeHouse) -> None:
    """Session fixation: a token is of our making, at sign-in."""
    house = make_house()
    person = with_password(house)
    browser = house.browser()
    browser.http.cookies.set("av_session", "x" * 43)
    enter(house, browser, person.email, "a long enough password")
    values = [each.value for each in browser.http.cookies.jar if each.name == "av_session"]
    assert any(value != "x" * 43 for value in values)


def test_what_is_said_to_a_stranger_and_to_a_wrong_password_is_the_same(
    make_house: MakeHouse,
) -> None:
    house = make_house()
    person = with_password(house)
    wrong = enter(house, house.browser(), person.email, "a wrong password")
    unknown = enter(house, house.browser(), "nobody@acme.example", "a wrong password")
    assert wrong.status_code == unknown.status_code == 422

    def plain(text: str) -> str:
        text = re.sub(r'(name="csrf"|name="once") value="\w+"', "", text)
        return re.sub(r'value="\w+@acme.example"', "", text)

    assert plain(wrong.text) == plain(unknown.text)


def test_too_many_wrong_passwords_are_429_for_a_while(make_house: MakeHouse) -> None:
    house = make_house()
    person = with_password(house)
    browser = house.browser()
    statuses = [enter(house, browser, person.email, f"wrong {n}").status_code for n in range(11)]
    assert statuses[:10] == [422] * 10
    assert statuses[10] == 429
    right = enter(house, browser, person.email, "a long enough password")
    assert right.status_code == 429, "the right one too: it is not looked at"
    assert int(right.headers["retry-after"]) > 0
    house.clock.pass_time(120)
    assert enter(house, browser, person.email, "a long enough password").status_code == 303
    database = open_store(house.console.place)
    kinds = [each.kind for each in events.newest(database)]
    assert kinds.count("sign-in-failed") == 10


def test_one_address_cannot_try_many_accounts(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.browser()
    last = [
        enter(house, browser, f"somebody{n}@acme.example", "wrong").status_code for n in range(21)
    ]
    assert last[:20] == [422] * 20
    assert last[20] == 429


def test_an_invitation_is_taken_up_once(make_house: MakeHouse) -> None:
    house = make_house()
    admin = house.signed_in("admin")
    made = admin.post(
        "/members/invite", {"email": "new@acme.example", "role": "member"}, "/members"
    )
    assert made.status_code == 200
    token = re.search(r"/link/([\w-]+)", made.text)
    assert token, "without [mail] the link is shown, to be passed on"
    path = f"/link/{token[1]}"
    browser = house.browser()
    assert "new@acme.example" in browser.get(path).text
    assert browser.post(path, {"password": "short"}, path).status_code == 422
    assert browser.post(path, {"password": "a fine long password"}, path).status_code == 303
    assert browser.get("/overview").status_code == 200
    assert browser.get("/members").text.count("new@acme.example") >= 1
    second = house.browser()
    assert second.get(path).status_code == 403
    again = enter(house, house.browser(), "new@acme.example", "a fine long password")
    assert again.status_code == 303


def test_a_member_invites_nobody_and_changes_no_limits(make_house: MakeHouse) -> None:
    house = make_house()
    member = house.signed_in("member")
    for path, data in (
        ("/members/invite", {"email": "x@y.z"}),
        ("/limits", {"month": "1"}),
        ("/alerts", {"kind": "spend"}),
        ("/billing/plan", {"plan": "pro"}),
        ("/billing/profile", {}),
    ):
        assert member.post(path, data).status_code == 404, path
    page = member.get("/members").text
    assert "/members/invite" not in page
    assert "/remove" not in page


def test_a_new_password_signs_everybody_else_out(make_house: MakeHouse) -> None:
    house = make_house()
    with_password(house)
    mine, other = house.signed_in("admin"), house.signed_in("admin")
    wrong = mine.post("/settings/password", {"current": "no", "password": "another fine one"})
    assert wrong.status_code == 422
    given = {"current": "a long enough password", "password": "another fine one"}
    assert mine.post("/settings/password", given).status_code == 303
    assert mine.get("/overview").status_code == 200
    assert other.get("/overview").status_code == 303


def test_signing_out_ends_the_session_itself(make_house: MakeHouse) -> None:
    house = make_house()
    browser = house.signed_in("admin")
    token = browser.http.cookies["av_session"]
    assert browser.post("/sign-out").status_code == 303
    stolen = house.browser()
    stolen.http.cookies.set("av_session", token)
    assert stolen.get("/overview").status_code == 303


def test_a_mail_link_without_a_mail_server_says_so(make_house: MakeHouse) -> None:
    house = make_house()
    answer = house.browser().post("/sign-in/link", {"email": "admin@acme.example"}, "/sign-in")
    assert answer.status_code == 422
    assert "[mail]" in answer.text
