"""The guard: what holds for every request before a page sees it, and for every answer after.

Only our own Host is answered, so that a name that somebody points at this machine reaches nothing.
A POST must come from our own pages: browsers say where from (Origin, or Sec-Fetch-Site), and the
form has a token besides. Every answer forbids scripts, styles, frames and forms that are not ours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("avocado.console")

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
HSTS: Final = "max-age=63072000"
HOOKS: Final = "/webhooks/"
"""POSTs of other machines: they carry no cookie, and prove by a signature who sends."""


class Guard:
    """ASGI around the whole application. ``origin`` is the console's own, such as
    ``https://console.example.com``; ``hosts`` are the only ones answered."""

    def __init__(self, app: ASGIApp, origin: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._origins = {origin, *(f"{origin.partition('://')[0]}://{host}" for host in hosts)}
        self._hosts = hosts
        self._secure = origin.startswith("https://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if self._secure:
                    headers.setdefault("strict-transport-security", HSTS)
            await send(message)

        refusal = self._refuse(scope)
        answer = self._app if refusal is None else refusal
        await answer(scope, receive, guarded)

    def _refuse(self, scope: Scope) -> ASGIApp | None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        if headers.get("host", "").lower() not in self._hosts:
            return PlainTextResponse("This host is not served here.\n", 421)
        if scope["method"] in ("GET", "HEAD") or scope["path"].startswith(HOOKS):
            return None
        if scope["method"] != "POST":
            return PlainTextResponse("Method not allowed.\n", 405, {"allow": "GET, HEAD, POST"})
        if not self._ours(headers):
            log.warning("refused a POST to %s from another site", scope["path"])
            return PlainTextResponse("This form was sent from another site.\n", 403)
        return None

    def _ours(self, headers: Mapping[str, str]) -> bool:
        """Whether a browser says that one of our pages sent it. Every browser of today sends one
        of the two; what sends neither is no browser, and has the token still to show."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None:
            return origin.lower() in self._origins and site in (None, "same-origin")
        return site in (None, "same-origin")
