"""The drain: who was let in before it is served, who comes later is told to try again."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from avocado.gateway.desk import Desk
from avocado.gateway.errors import ApiError
from avocado.gateway.limits import Limits
from tests.gateway.conftest import question


def head(stand: Any, body: bytes) -> bytes:
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {stand.key.text}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


def test_fault_25_a_request_that_was_let_in_but_not_begun_is_not_cut_off(stand: Any) -> None:
    """Its body comes while the drain waits for another request, and outlasts that one."""
    body = json.dumps(question("hello")).encode()
    link = socket.create_connection(("127.0.0.1", stand.port), timeout=20)
    link.sendall(head(stand, body) + body[:10])
    stand.until(lambda: stand.app.desk.gate.total == 1)
    drained = asyncio.run_coroutine_threadsafe(stand.app.desk.drain(10), stand.loop)
    stand.until(lambda: stand.app.desk.draining)
    assert stand.ask().error["code"] == "shutting_down"
    assert not drained.done()
    link.sendall(body[10:])
    answer = b""
    while b'"total_tokens"' not in answer:
        part = link.recv(65536)
        assert part, answer
        answer += part
    link.close()
    drained.result(10)
    assert answer.startswith(b"HTTP/1.1 200")
    (charge,) = stand.charges
    assert charge.finish == "stop"


def test_fault_25_nothing_starts_when_the_drain_is_over(stand: Any) -> None:
    body = json.dumps(question("hello")).encode()
    link = socket.create_connection(("127.0.0.1", stand.port), timeout=20)
    link.sendall(head(stand, body) + body[:10])
    stand.until(lambda: stand.app.desk.gate.total == 1)
    stand.in_loop(lambda: stand.app.desk.drain(0.1))
    link.sendall(body[10:])
    answer = link.recv(65536)
    link.close()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"code":"shutting_down"' in answer
    assert stand.charges == []
    assert stand.reader.open_holds() == []


def test_a_drain_of_nobody_is_short() -> None:
    async def scene() -> None:
        desk = Desk(None, Limits())  # type: ignore[arg-type]
        await asyncio.wait_for(desk.drain(30), 1)
        with pytest.raises(ApiError):
            desk.enter("acme")

    asyncio.run(scene())
