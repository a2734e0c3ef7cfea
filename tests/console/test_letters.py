"""Sign-in links by mail, through a real SMTP server."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from typing import Any

import pytest

from avocado.console import people
from avocado.console.store import open_store
from tests.console.conftest import House, MakeHouse

controller = pytest.importorskip("aiosmtpd.controller")


class Inbox:
    """What the mail server took."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def wait(self, count: int = 1) -> Any:
        """The newest mail, once there are so many."""
        over = time.monotonic() + 10
        while len(self.mails) < count and time.monotonic() < over:
            time.sleep(0.02)
        assert len(self.mails) == count
        return self.mails[-1]


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    found = Inbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = controller.Controller(found, hostname="127.0.0.1", port=port)
    server.start()
    yield found, port
    server.stop()


@pytest.fixture
def house(make_house: MakeHouse, inbox: tuple[Inbox, int]) -> House:
    made = make_house(
        f'[mail]\nhost = "127.0.0.1"\nport = {inbox[1]}\nsecurity = "none"\n'
        'sender = "console@shop.example"\n'
    )
    made.person("admin")
    return made


def link_in(mail: Any) -> str:
    found = re.search(r"http://testserver(/link/\S+)", mail.get_content())
    assert found
    return found[1]


def test_a_sign_in_link_comes_by_mail_and_works_once(
    house: House, inbox: tuple[Inbox, int]
) -> None:
    browser = house.browser(**{"accept-language": "de"})
    form = {"email": "Admin@acme.example", "kind": "sign-in"}
    assert browser.post("/sign-in/link", form, "/sign-in").status_code == 200
    mail = inbox[0].wait()
    assert mail["To"] == "admin@acme.example"
    assert mail["Subject"] == "Anmeldung bei Shop"
    path = link_in(mail)
    assert browser.post(path, {}, path).status_code == 303
    assert browser.get("/overview").status_code == 200
    assert house.browser().get(path).status_code == 403


def test_a_stranger_is_told_the_same_and_gets_no_mail(
    house: House, inbox: tuple[Inbox, int]
) -> None:
    known = house.browser().post("/sign-in/link", {"email": "admin@acme.example"}, "/sign-in")
    inbox[0].wait()
    unknown = house.browser().post("/sign-in/link", {"email": "nobody@acme.example"}, "/sign-in")

    def plain(text: str) -> str:
        text = re.sub(r'(name="csrf"|name="once") value="\w+"', "", text)
        return re.sub(r"\w+@acme.example", "", text)

    assert known.status_code == unknown.status_code == 200
    assert plain(known.text) == plain(unknown.text)
    time.sleep(0.3)
    assert len(inbox[0].mails) == 1


def test_mails_to_one_address_are_few(house: House, inbox: tuple[Inbox, int]) -> None:
    browser = house.browser()
    form = {"email": "admin@acme.example"}
    statuses = [browser.post("/sign-in/link", form, "/sign-in").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


def test_a_forgotten_password_is_set_anew_by_mail(house: House, inbox: tuple[Inbox, int]) -> None:
    other = house.signed_in("admin")
    browser = house.browser()
    form = {"email": "admin@acme.example", "kind": "password"}
    browser.post("/sign-in/link", form, "/sign-in")
    path = link_in(inbox[0].wait())
    assert browser.post(path, {"password": ""}, path).status_code == 422
    assert browser.post(path, {"password": "a fresh long password"}, path).status_code == 303
    assert other.get("/overview").status_code == 303, "signed out everywhere else"
    database = open_store(house.console.place)
    person = people.by_email(database, "admin@acme.example")
    assert people.check_password(database, person, "a fresh long password")


def test_an_invitation_comes_by_mail(house: House, inbox: tuple[Inbox, int]) -> None:
    admin = house.signed_in("admin")
    form = {"email": "new@acme.example", "role": "member"}
    assert admin.post("/members/invite", form).status_code == 303
    mail = inbox[0].wait()
    assert "You are invited to the console of Shop" in mail.get_content()
    assert "/link/" not in admin.get("/members").text
    path = link_in(mail)
    browser = house.browser()
    assert browser.post(path, {}, path).status_code == 303
    assert browser.get("/overview").status_code == 200
