"""The head of a request: bounded in size and time, and malformed HTTP in the error shape."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from avocado.gateway.protocol import HEAD_BYTES, BoundedProtocol


def _exchange(stand: Any, data: bytes) -> tuple[int, dict[str, Any]]:
    """Sends bytes and reads until the server closes; the status and the error object."""
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as link:
        link.sendall(data)
        answer = b""
        while part := link.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"X-Request-Id: req_" in head
    assert b"Connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\r\n",
    ],
)
def test_malformed_http_is_a_400_in_the_error_shape(stand: Any, data: bytes) -> None:
    status, error = _exchange(stand, data)
    assert (status, error["code"]) == (400, "invalid_http")
    assert set(error) == {"message", "type", "param", "code"}


def test_headers_without_end_are_cut_off(stand: Any) -> None:
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nX: ")
        sent = 0
        try:
            while sent < 100 * HEAD_BYTES:
                sent += link.send(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert HEAD_BYTES <= sent < 10 * HEAD_BYTES
    assert stand.call("GET", "/health").status == 200


def test_fault_19_slow_headers_are_a_408(stand: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.3)
    began = time.monotonic()
    status, error = _exchange(stand, b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\n")
    assert status == 408
    assert "headers" in error["message"]
    assert 0.3 <= time.monotonic() - began < 3


def test_fault_19_slow_headers_of_a_later_request_are_a_408(
    stand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.3)
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as link:
        for _ in range(3):
            link.sendall(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n")
            assert link.recv(4096).startswith(b"HTTP/1.1 200")
            time.sleep(0.4)  # a connection at rest is no slow request
        link.sendall(b"GET /health HTT")
        assert link.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing_is_closed(
    stand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.2)
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as link:
        assert link.recv(10) == b""


def test_pipelined_requests_are_answered_in_order(stand: Any) -> None:
    with socket.create_connection(("127.0.0.1", stand.port), timeout=10) as link:
        link.sendall(
            b"GET /health HTTP/1.1\r\nHost: t\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n"
        )
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 2 or not answer.endswith(b"}"):
            answer += link.recv(65536)
    assert answer.index(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 404")
