"""Ten times what the server can do: everybody gets an answer, most of them at once a refusal."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from avocado.engine.scripted import Script
from avocado.gateway.limits import Limits
from avocado.gateway.protocol import BoundedProtocol

MakeStand = Callable[..., Any]
CAPACITY = 20


async def _ask(stand: Any, body: bytes) -> tuple[int, dict[str, str], float]:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.port)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
        f"Authorization: Bearer {stand.key.text}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    whole = await reader.read()
    writer.close()
    lines = whole.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
    }
    return int(lines[0].split()[1]), headers, time.monotonic() - began


def test_fault_20_ten_times_the_capacity_is_refused_before_tokenizing(
    make_stand: MakeStand, ask_body: Any
) -> None:
    stand = make_stand(
        Script(reply="a b c", delay=0.5),
        limits=Limits(running=CAPACITY, running_per_customer=CAPACITY),
    )
    counted: list[int] = []
    prepare = stand.engine.prepare

    def count(chat: Any) -> Any:
        counted.append(1)
        return prepare(chat)

    stand.engine.prepare = count
    body = json.dumps(ask_body("word " * 2000)).encode()

    async def flood() -> list[tuple[int, dict[str, str], float]]:
        return await asyncio.gather(*(_ask(stand, body) for _ in range(10 * CAPACITY)))

    answers = asyncio.run(flood())
    statuses = Counter(status for status, _, _ in answers)
    assert statuses == {200: CAPACITY, 429: 9 * CAPACITY}
    assert len(counted) == CAPACITY, "nothing that is refused is tokenized"
    refused = [(headers, took) for status, headers, took in answers if status == 429]
    assert all(headers["retry-after"] == "1" for headers, _ in refused)
    served = min(took for status, _, took in answers if status == 200)
    late = sorted(took for _, took in refused)[len(refused) // 2]
    assert late < served, "a refusal does not wait for those that are served"
    stand.idle()
    assert stand.ask().status == 200
    assert len(stand.charges) == CAPACITY + 1


def _is_closed(link: socket.socket) -> bool:
    try:
        link.sendall(b"GET /health HTTP/1.1\r\n")
        return link.recv(10) == b""
    except ConnectionError:
        return True


def test_connections_are_capped_and_told_so(
    make_stand: MakeStand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "most", 5)
    stand = make_stand()
    links = [socket.create_connection(("127.0.0.1", stand.port)) for _ in range(5)]
    time.sleep(0.2)
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    more = [socket.create_connection(("127.0.0.1", stand.port), timeout=5) for _ in range(8)]
    time.sleep(0.2)
    assert _is_closed(more[-1])
    for link in (*links, *more):
        link.close()
    stand.until(lambda: stand.call("GET", "/health", headers={}).status == 200)
    assert stand.ask().status == 200
