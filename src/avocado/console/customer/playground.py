"""Playground: talking to a model in the browser, by the very API that programs use.

A request goes through the real gateway over HTTP, with a key of the customer's own that this
process makes when it is first needed, keeps in memory alone and lets end within the hour. So it is
held, billed, limited and counted as any other; the answer's cost is what the gateway says.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final, Literal

import msgspec

from avocado.console.customer.models import models_of
from avocado.console.page import Nav, Pages, Reply, Streamed, Values, Visit
from avocado.console.roles import CUSTOMER
from avocado.errors import Refused

PAGES = Pages()
CONNECT_SECONDS: Final = 5
SILENCE_SECONDS: Final = 300


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, msgspec.Meta(max_length=200_000)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page sends."""

    model: Annotated[str, msgspec.Meta(max_length=200)]
    messages: Annotated[tuple[Turn, ...], msgspec.Meta(min_length=1, max_length=200)]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 512


@PAGES.show(
    "/playground",
    roles=CUSTOMER,
    template="customer/playground.html",
    nav=Nav("nav.playground", "chat", 40),
)
def playground(visit: Visit) -> Values:
    models = models_of(visit)
    return {
        "models": models,
        "choices": [(each.name, each.name) for each in models],
        "model": visit.query.get("model", ""),
        "balance": visit.reader.balance(visit.tenant),
    }


@PAGES.live(
    "/playground/live", roles=CUSTOMER, template="customer/playground_balance.html", every=2
)
def live(visit: Visit) -> Values:
    return {"balance": visit.reader.balance(visit.tenant)}


@PAGES.act("/playground/ask", roles=CUSTOMER, most=4 * 1024 * 1024)
def ask(visit: Visit) -> Reply:
    """One request; its answer is the gateway's own stream of events."""
    try:
        asked = msgspec.json.decode(visit.body, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"this is no question: {error}") from error
    if asked.model not in {each.name for each in models_of(visit)}:
        raise Refused(visit.t("play.no_model", model=asked.model))
    key = visit.console.playground.key_for(visit)
    body = {
        **msgspec.to_builtins(asked),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    away = visit.t("play.away", url=visit.console.gateway_url)
    url = f"{visit.console.gateway_url}/v1/chat/completions"

    def stale() -> None:
        visit.console.playground.forget(visit.tenant)

    return Streamed(lambda: passed_on(url, key, body, away, stale))


async def passed_on(
    url: str, key: str, body: dict[str, object], away: str, stale: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The gateway's stream as it is, or one event that says why there is none. Where the browser
    goes away the connection closes, the gateway stops the engine and bills what was generated."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body, headers={"authorization": f"Bearer {key}"}) as answer,
        ):
            if answer.status != 200:
                if answer.status == 401:
                    stale()
                yield _wrong(_message(await answer.text()))
                return
            async for piece in answer.content.iter_any():
                yield piece
    except (aiohttp.ClientError, TimeoutError, OSError):
        yield _wrong(away)


def _message(text: str) -> str:
    """What an error of the gateway says."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


def _wrong(message: str) -> bytes:
    return b"data: " + json.dumps({"error": {"message": message}}).encode() + b"\n\n"
