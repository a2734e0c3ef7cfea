"""A real ``avocado console`` in a process of its own: its first link, its end, where it listens."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from avocado.cli.main import run
from avocado.configuration import ConsoleConfig
from avocado.console import events
from avocado.console.serving import listen, origin_of
from avocado.console.store import open_store, place_of
from avocado.errors import Refused
from avocado.workspace import Workspace
from tests.console.conftest import make_shop

AVOCADO = [sys.executable, "-m", "avocado.cli.main"]


@contextmanager
def running(folder: Path) -> Iterator[dict[str, Any]]:
    """The console of the workspace in ``folder``: what it said when it was ready."""
    with (folder / "console.log").open("ab") as log:
        child = subprocess.Popen(
            [*AVOCADO, "console", "--port", "0", "--json"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ},
        )
    try:
        assert child.stdout is not None
        text = ""
        for line in child.stdout:
            text += line.decode()
            if line.rstrip() == b"}":
                break
        assert text, (folder / "console.log").read_text()
        yield json.loads(text)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        assert child.stdout is not None
        child.stdout.close()


def post(http: httpx2.Client, origin: str, path: str, data: dict[str, str]) -> httpx2.Response:
    """Sends the form that stands at ``path``."""
    found = re.search(r'name="csrf" value="(\w+)"', http.get(path).text)
    assert found
    return http.post(path, data={"csrf": found[1], **data}, headers={"origin": origin})


def test_fault_35_the_first_operators_link_works_once(tmp_path: Path) -> None:
    """Printed at the first start, kept in a file of its owner alone, used once; then 403, and on
    record."""
    folder = tmp_path / "shop"
    workspace = make_shop(folder)
    with running(folder) as said:
        link, origin = said["first_link"], said["url"]
        kept = workspace.state / "console-link"
        assert kept.read_text().strip() == link
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        path = link.removeprefix(origin)
        with httpx2.Client(base_url=origin) as http:
            assert http.get(path).status_code == 200, "looking at it uses nothing up"
            data = {"email": "owner@shop.example", "password": "a fine long password"}
            assert post(http, origin, path, data).status_code == 303
            assert not kept.exists()
            assert http.get("/operator", follow_redirects=True).status_code == 200
        with httpx2.Client(base_url=origin) as thief:
            assert thief.get(path).status_code == 403
            thief.get("/sign-in")
            found = re.search(r'name="csrf" value="(\w+)"', thief.get("/sign-in").text)
            assert found
            data = {"csrf": found[1], "email": "thief@evil.example", "password": "another long one"}
            answer = thief.post(path, data=data, headers={"origin": origin})
            assert answer.status_code == 403
            assert thief.get("/operator").status_code == 303
    database = open_store(place_of(workspace))
    noted = [each for each in events.newest(database) if each.kind == "link-refused"]
    assert len(noted) == 2
    assert {(each.who, each.detail) for each in noted} == {
        ("first operator", "first link, used before")
    }
    assert "link-refused first operator" in (folder / "console.log").read_text()
    with running(folder) as said:
        assert said["first_link"] is None, "there is an owner: no second first link"


def test_the_first_link_is_the_same_until_it_is_used_or_over(tmp_path: Path) -> None:
    from avocado.console.console import Console
    from avocado.console.serving import first_link
    from tests.console.conftest import ORIGIN, Clock

    clock = Clock()
    console = Console(make_shop(tmp_path / "shop"), ORIGIN, clock=clock)
    try:
        first = first_link(console)
        assert first is not None
        assert first_link(console) == first
        clock.pass_time(3601)
        second = first_link(console)
        assert second not in (None, first)
    finally:
        console.close()


def test_commands_make_links_and_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_shop(tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")

    def command(*words: str) -> tuple[int, str]:
        code = run(["console", *words])
        told = capsys.readouterr()
        return code, told.out + told.err

    code, said = command("users", "invite", "Ada@acme.example", "--customer", "acme")
    assert code == 0
    assert "Invited ada@acme.example as member of acme" in said
    _, said = command("link", "--email", "cfo@shop.example", "--role", "finance")
    assert re.search(r"^http://127.0.0.1:8100/link/\S+$", said, re.MULTILINE)
    for words, complaint in (
        (["users", "invite", "x@y.example", "--customer", "nobody"], "no customer 'nobody'"),
        (["users", "invite", "x@y.example", "--role", "member"], "needs --customer"),
        (["users", "invite", "not an address"], "is no e-mail address"),
        (["users", "remove", "x@y.example"], "nobody signs in as"),
        (["link", "--email", "a@b.example", "--role", "owner", "--customer", "acme"], "is no role"),
    ):
        code, said = command(*words)
        assert code == 1, words
        assert complaint in said
    assert json.loads(command("users", "list", "--json")[1]) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1"])
@pytest.mark.parametrize("url", [None, "http://console.example.com"])
def test_it_does_not_listen_to_strangers_over_plain_http(host: str, url: str | None) -> None:
    with pytest.raises(Refused, match="over plain HTTP"):
        listen(ConsoleConfig(host=host, port=0, public_url=url), None, None)


def test_a_port_that_is_taken_is_told() -> None:
    with listen(ConsoleConfig(port=0), None, None) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert origin_of(ConsoleConfig(port=0), listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(Refused, match=f"cannot listen at 127.0.0.1:{port}"):
            listen(ConsoleConfig(port=port), None, None)


def test_a_console_without_a_ledger_makes_one(tmp_path: Path) -> None:
    from avocado.console.console import Console

    workspace = Workspace.create(tmp_path / "empty")
    console = Console(workspace, "http://testserver")
    console.close()
    assert workspace.has_ledger


def test_a_database_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Workspace.create(tmp_path / "shop")
    text = 'name = "Shop"\n[ledger]\nurl = "postgresql://127.0.0.1:1/nothing"\n'
    (tmp_path / "shop" / "avocado.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "shop")
    assert run(["console", "--port", "0"]) == 1
    assert "the database does not answer" in capsys.readouterr().err
