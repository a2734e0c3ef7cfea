"""Webhooks by the Standard Webhooks specification: signed, and only to where they may go.

A customer names the receiver, so it may be anything. Its name is looked up once, every address it
has must be public (or of a network that the operator allowed), and the connection goes to the very
address that was checked: a name that answers otherwise a moment later changes nothing. Redirects
are not followed, no proxy is asked, and an answer is read a little and for a short time.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hmac
import http.client
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Timer
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from avocado.errors import Refused

TIMEOUT_SECONDS: Final = 10.0
READ_BYTES: Final = 4096
MAX_URL: Final = 1000
_TUNNELS: Final = tuple(
    map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))
)
"""IPv6 that carries another address inside: NAT64, 6to4, Teredo."""


def secret_of(root: bytes, serial: str) -> str:
    """The signing secret of a webhook, ``whsec_…``: HMAC-SHA-256 of its serial under ``root``, the
    workspace's own secret. So none is stored, and each receiver has its own."""
    made = hmac.digest(root, b"avocado webhook secret 1\0" + serial.encode(), "sha256")
    return "whsec_" + base64.b64encode(made).decode()


def headers_of(secret: str, id_: str, body: str, at: int) -> dict[str, str]:
    """What signs a message that is sent at ``at`` (ns).

    Raises:
        Refused: the package that signs is not installed.
    """
    try:
        from standardwebhooks.webhooks import Webhook
    except ModuleNotFoundError:
        raise Refused(
            "webhooks need standardwebhooks: pip install 'avocado-llm[billing]'"
        ) from None
    seconds = at // 1_000_000_000
    signature = Webhook(secret).sign(id_, datetime.fromtimestamp(seconds, UTC), body)
    return {
        "content-type": "application/json",
        "user-agent": "avocado-webhooks",
        "webhook-id": id_,
        "webhook-timestamp": str(seconds),
        "webhook-signature": signature,
    }


def check_url(url: str, allowed: Sequence[str] = ()) -> SplitResult:
    """Takes a receiver's address apart. ``allowed`` networks may be reached over plain HTTP.

    Raises:
        Refused: it is no plain http(s) address, or is not encrypted.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"{url!r} is no address: {error}") from None
    fine = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL
    if not fine or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Refused(f"{url!r} is no address such as https://example.com/hook")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise Refused("a webhook's address holds no name, no password and no fragment")
    if parts.scheme == "http" and not allowed:
        raise Refused("a webhook's address begins with https://")
    return parts


def addresses(host: str, port: int, allowed: Sequence[str] = ()) -> list[str]:
    """The addresses of a host, each of them checked.

    Raises:
        Refused: it has none, or one that is not public and not in an ``allowed`` network.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Refused(f"{host} is not found: {error}") from None
    made = list(dict.fromkeys(str(each[4][0]) for each in found))
    for each in made:
        if not _may_reach(each, allowed):
            raise Refused(
                f"{host} is at {each}, which is not public: a webhook does not go there "
                "([billing] webhook_networks can allow it)"
            )
    return made


def _may_reach(address: str, allowed: Sequence[str]) -> bool:
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    if any(ip in ip_network(each) for each in allowed):
        return True
    if isinstance(ip, IPv6Address) and (ip.is_site_local or any(ip in each for each in _TUNNELS)):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def post(url: str, headers: dict[str, str], body: str, allowed: Sequence[str] = ()) -> int:
    """Sends a body to a receiver and returns its status, which is 200 to 299.

    Raises:
        Refused: the address may not be reached, or the receiver said something else.
        OSError, http.client.HTTPException: the connection failed.
    """
    parts = check_url(url, allowed)
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    checked = addresses(parts.hostname, port, allowed)
    if not secure and not all(_in(each, allowed) for each in checked):
        raise Refused("a webhook's address begins with https://")
    connection = _Pinned(parts.hostname, port, checked[0], secure)
    # Slow byte by byte is no way to hold a clerk: the whole exchange has its time.
    timer = Timer(2 * TIMEOUT_SECONDS, connection.cut)
    timer.daemon = True
    timer.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body.encode(), headers)
        response = connection.getresponse()
        response.read(READ_BYTES)
        status = response.status
    finally:
        timer.cancel()
        connection.close()
    if not 200 <= status < 300:
        moved = "; redirects are not followed" if 300 <= status < 400 else ""
        raise Refused(f"{parts.hostname} answered {status}{moved}")
    return status


def _in(address: str, allowed: Sequence[str]) -> bool:
    ip = ip_address(address.partition("%")[0])
    return any(ip in ip_network(each) for each in allowed)


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, under the name that was asked for."""

    def __init__(self, host: str, port: int, address: str, secure: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_SECONDS)
        self._address = address
        self._secure = secure
        if secure:
            self.default_port = 443

    def connect(self) -> None:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        self.sock: Any = socket.socket(family, socket.SOCK_STREAM)  # asks no resolver again
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect((self._address, self.port))
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
