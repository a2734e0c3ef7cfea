"""Webhooks to a real receiver that checks the signature with the standard's own library, and to
nowhere else: no private address, no redirect, no name that answers otherwise the second time."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from avocado.billing import webhook
from avocado.billing.letters import event
from avocado.billing.notices import wire_id
from avocado.billing.outbox import Message
from avocado.billing.postman import postman
from avocado.billing.webhook import addresses, check_url, headers_of, post, secret_of
from avocado.errors import Refused
from avocado.terms.money import Money
from tests.billing.subscribers import certificate

standardwebhooks = pytest.importorskip("standardwebhooks")

LOCAL = ("127.0.0.0/8",)
ROOT = b"0" * 32


class Receiver(HTTPServer):
    """Answers ``status`` and keeps (path, headers, body) of what came."""

    def __init__(self, status: int = 204, headers: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.answer = status, headers or {}
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        for name, value in self.server.answer.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    with ExitStack() as stack:

        def start(*how: Any, context: ssl.SSLContext | None = None) -> Receiver:
            server = Receiver(*how)
            if context is not None:
                server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return server

        yield start


def message(url: str) -> Message:
    money = Money(20_500_000_000, "EUR")
    facts: dict[str, Any] = {"customer": "Acme", "spent": money, "alert": 1}
    body = event("spend", time.time_ns(), facts)
    return Message("alert/a.b/1/2026-03/webhook", "webhook", url, body, secret="serial-1")


def test_a_receiver_verifies_it_by_the_standards_library(receive: Any) -> None:
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    server = receive()
    sent = message(f"http://127.0.0.1:{server.port}/hook?customer=1")
    postman(None, ROOT, LOCAL)(sent)
    path, headers, body = server.got[0]
    assert path == "/hook?customer=1"
    known = Webhook(secret_of(ROOT, "serial-1")).verify(body, headers)
    assert known["type"] == "alert.spend"
    assert known["data"] == {"customer": "Acme", "spent": "20.50", "currency": "EUR", "alert": 1}
    lowered = {name.lower(): value for name, value in headers.items()}
    assert lowered["webhook-id"] == wire_id(sent)
    assert "." not in lowered["webhook-id"]
    for secret, changed in (
        (secret_of(ROOT, "serial-2"), body),
        (secret_of(b"1" * 32, "serial-1"), body),
        (secret_of(ROOT, "serial-1"), body.replace(b"20.50", b"20.51")),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(changed, headers)


def test_the_same_message_again_has_the_same_id_and_a_new_time(receive: Any) -> None:
    server = receive()
    sent = message(f"http://127.0.0.1:{server.port}/")
    for _ in range(2):
        postman(None, ROOT, LOCAL)(sent)
    ids = [{k.lower(): v for k, v in headers.items()}["webhook-id"] for _, headers, _ in server.got]
    assert ids[0] == ids[1]


def test_over_tls_the_name_is_checked(
    receive: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = receive(200, context=context)
    with pytest.raises(ssl.SSLCertVerificationError):  # nobody trusts it
        post(f"https://localhost:{server.port}/", {}, "{}", LOCAL)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    assert post(f"https://localhost:{server.port}/", {}, "{}", (*LOCAL, "::1/128")) == 200
    _resolves(monkeypatch, ["127.0.0.1"])
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'example\.com'"):
        post(f"https://example.com:{server.port}/", {}, "{}", LOCAL)
    assert len(server.got) == 1


# -- where it does not go --------------------------------------------------------------------------


def _resolves(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> list[str]:
    """Makes every name resolve to the answers, one after the other; returns who was asked for."""
    asked: list[str] = []

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = answers[min(len(asked), len(answers)) - 1]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "fec0::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_fault_33_a_webhook_goes_to_no_private_or_metadata_address(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(webhook._Pinned, "connect", connect)
    _resolves(monkeypatch, [address])
    with pytest.raises(Refused, match="not public"):
        post("https://hooks.example.com/", {}, "{}")
    with pytest.raises(Refused, match="not public"):  # allowing one network allows no other
        post("https://hooks.example.com/", {}, "{}", ("198.18.0.0/15",))


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07::1"])
def test_public_addresses_are_fine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _resolves(monkeypatch, [address])
    assert addresses("example.com", 443) == [address]


def test_fault_33_one_private_address_among_many_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(2, 1, 6, "", (each, 443)) for each in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(Refused, match=r"is at 10\.0\.0\.1, which is not public"):
        post("https://hooks.example.com/", {}, "{}")


def test_fault_33_a_name_that_answers_otherwise_the_second_time_is_asked_once(
    receive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: the address that was checked is the one that is connected to."""
    server = receive()
    asked = _resolves(monkeypatch, ["127.0.0.1", "10.0.0.1"])
    assert post(f"http://rebind.example.com:{server.port}/", {}, "{}", LOCAL) == 204
    assert asked == ["rebind.example.com"]
    headers = {name.lower(): value for name, value in server.got[0][1].items()}
    assert headers["host"] == f"rebind.example.com:{server.port}"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_fault_33_a_redirect_is_not_followed(receive: Any, status: int) -> None:
    inner = receive()
    server = receive(status, {"location": f"http://127.0.0.1:{inner.port}/"})
    with pytest.raises(Refused, match=f"answered {status}; redirects are not followed"):
        post(f"http://127.0.0.1:{server.port}/", {}, "{}", LOCAL)
    assert inner.got == []


def test_no_proxy_is_asked(receive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = receive(), receive()
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    post(f"http://127.0.0.1:{server.port}/", {}, "{}", LOCAL)
    assert (len(proxy.got), len(server.got)) == (0, 1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "begins with https"),
        ("ftp://example.com/", "no address"),
        ("https://", "no address"),
        ("https://user:pass@example.com/", "no name, no password"),
        ("https://example.com/#x", "no fragment"),
        ("https://exa mple.com/", "no address"),
        ("https://example.com/\r\nHost: x", "no address"),
        ("https://example.com:99999/", "no address"),
        ("https://[::1/", "no address"),
        ("https://example.com/" + "x" * 1000, "no address"),
        ("https://bücher.example/", "no address"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        check_url(url)


def test_plain_http_stays_in_the_networks_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _resolves(monkeypatch, ["93.184.215.14"])
    with pytest.raises(Refused, match="begins with https"):
        post("http://example.com/", {}, "{}", LOCAL)


# -- receivers that misbehave ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500])
def test_an_answer_that_is_no_success_is_an_error(receive: Any, status: int) -> None:
    server = receive(status)
    with pytest.raises(Refused, match=f"answered {status}$"):
        post(f"http://127.0.0.1:{server.port}/", {}, "{}", LOCAL)


def test_a_receiver_that_answers_byte_by_byte_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    for _ in range(100):
                        connection.send(b"H")
                        time.sleep(0.1)
                except OSError:
                    return

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(Exception, match=r"."):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", {}, "{}", LOCAL)
    assert time.monotonic() - began < 5


def test_a_body_is_json_and_the_secret_is_none_of_it() -> None:
    secret = secret_of(ROOT, "s")
    headers = headers_of(secret, "msg_1", "{}", 1_790_000_000_000_000_000)
    assert secret not in json.dumps(headers)
    assert headers["webhook-timestamp"] == "1790000000"
