"""The playground asks a real gateway over HTTP, with a key that nobody ever sees."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from avocado.console.customer.keyring import INTERNAL
from avocado.ledger.reader import open_reader
from tests.console.conftest import ORIGIN, House, MakeHouse
from tests.console.test_serving import running

QUESTION = {"model": "avocado-1", "messages": [{"role": "user", "content": "Hello"}]}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def house(make_house: MakeHouse, port: int) -> House:
    return make_house(f"[serve]\nport = {port}\n")


def ask(house: House, browser: Any, question: dict[str, Any]) -> Any:
    return browser.http.post(
        "/playground/ask",
        content=json.dumps(question),
        headers={
            "origin": ORIGIN,
            "x-csrf-token": browser.csrf("/settings"),
            "accept": "application/json",
            "content-type": "application/json",
        },
    )


def chunks(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def internal_keys(house: House) -> list[Any]:
    with open_reader(house.console.workspace.ledger) as reader:
        return [each for each in reader.keys("acme") if each.name == INTERNAL]


def test_without_a_gateway_it_says_so(house: House) -> None:
    answer = ask(house, house.signed_in("member"), QUESTION)
    assert answer.status_code == 200
    (only,) = chunks(answer.text)
    assert "does not answer: start it with avocado serve" in only["error"]["message"]


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({**QUESTION, "model": "nothing"}, 422),
        ({**QUESTION, "messages": []}, 422),
        ({**QUESTION, "temperature": 9}, 422),
        ({**QUESTION, "max_tokens": 0}, 422),
        ({**QUESTION, "stream": False}, 422),
        ({**QUESTION, "messages": [{"role": "tool", "content": "x"}]}, 422),
    ],
)
def test_what_is_no_question_is_refused_and_makes_no_key(
    house: House, question: dict[str, Any], status: int
) -> None:
    answer = ask(house, house.signed_in("member"), question)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert internal_keys(house) == []


@contextmanager
def gateway_at(house: House, port: int, reply: str, delay: float = 0.0) -> Iterator[None]:
    """A real server process of the gateway, over this workspace's ledger and keys."""
    program = Path(__file__).with_name("gateway_process.py")
    folder = house.console.workspace.folder
    child = subprocess.Popen(
        [sys.executable, str(program), str(folder), str(port), reply, str(delay)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith(b"http")
    yield
    child.terminate()
    assert child.wait(30) == 0
    child.stdout.close()


@pytest.fixture
def gateway(house: House, port: int) -> Iterator[None]:
    with gateway_at(house, port, "Hello, I am scripted."):
        yield


def test_stopping_bills_what_was_generated(house: House, port: int) -> None:
    """The browser goes away in the middle; console and gateway notice, the engine stops."""
    browser = house.signed_in("member")
    csrf = browser.csrf("/settings")
    token = browser.http.cookies["av_session"]
    with (
        gateway_at(house, port, "word " * 400, delay=0.02),
        running(house.console.workspace.folder) as said,
        httpx2.Client(base_url=said["url"], cookies={"av_session": token}) as http,
    ):
        headers = {"origin": said["url"], "x-csrf-token": csrf, "accept": "application/json"}
        body = json.dumps({**QUESTION, "max_tokens": 400})
        with http.stream("POST", "/playground/ask", content=body, headers=headers) as answer:
            assert answer.status_code == 200
            seen = 0
            for piece in answer.iter_lines():
                seen += piece.startswith("data: ")
                if seen == 5:
                    break
        over = time.monotonic() + 10
        charges: list[Any] = []
        while len(charges) < 2 and time.monotonic() < over:
            with open_reader(house.console.workspace.ledger) as reader:
                charges = list(reader.charges("acme"))
            time.sleep(0.05)
        assert len(charges) == 2
        assert 1 <= charges[-1].usage.completion < 200
        assert charges[-1].charge > 0


def test_an_answer_streams_costs_and_is_billed_to_the_customer(house: House, gateway: None) -> None:
    browser = house.signed_in("member")
    answer = ask(house, browser, {**QUESTION, "max_tokens": 50})
    found = chunks(answer.text)
    assert not any("error" in each for each in found), found
    said = "".join(
        choice["delta"].get("content") or "" for each in found for choice in each["choices"]
    )
    assert said == "Hello, I am scripted."
    usage = next(each["usage"] for each in found if each.get("usage"))
    assert usage["cost"] > 0
    with open_reader(house.console.workspace.ledger) as reader:
        charges = list(reader.charges("acme"))
    assert len(charges) == 2
    assert charges[-1].charge == round(usage["cost"] * 10**9)
    (key,) = internal_keys(house)
    assert charges[-1].key_id == key.key_id
    assert key.expires is not None
    assert key.expires - house.clock.now == 3600 * 10**9
    ask(house, browser, QUESTION)
    assert len(internal_keys(house)) == 1, "one key serves for the hour"
    house.clock.pass_time(3300)
    ask(house, browser, QUESTION)
    assert len(internal_keys(house)) == 2, "and is replaced before it ends"
    assert INTERNAL not in browser.get("/keys").text
    assert key.key_id not in browser.get("/keys").text
    assert browser.post(f"/keys/{key.key_id}/revoke").status_code == 404
    assert "Playground" in browser.get("/usage").text


def test_what_the_gateway_refuses_is_told(house: House, gateway: None) -> None:
    from avocado.ledger import operation as o

    with house.console.writing() as do:
        do(o.Freeze(tenant="acme", frozen=True, reason="a dispute", actor="test"))
    answer = ask(house, house.signed_in("member"), QUESTION)
    (only,) = chunks(answer.text)
    assert "frozen" in only["error"]["message"].lower()
