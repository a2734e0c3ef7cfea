"""What servers say of themselves before anything is asked of them: what they serve, and how long.

A wrong address, key or model is told when the engine is made, not to the first customer. A server
that is away then may come back, as long as one is there; one that lists no models is believed.
Knows nothing about requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import msgspec

from avocado.engine.engine import EngineError

log = logging.getLogger("avocado.engine")

SECONDS: Final = 10.0
"""How long a server may take to say what it serves."""
SHOWN: Final = 8
"""How many of a server's models an error names."""


class _Model(msgspec.Struct):
    id: str
    max_model_len: Any = None
    """vLLM's name for it."""
    context_length: Any = None
    """Ours."""


class _Models(msgspec.Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models).decode


class Away(EngineError):
    """Nobody answers there now."""


async def probe(
    urls: Sequence[str], model: str, *, context_length: int, api_key: str | None = None
) -> None:
    """Asks each of ``urls`` whether it serves ``model`` with ``context_length`` tokens.

    Raises:
        EngineError: none of them answers, or one says that it does not; the sentence says what to
            set.
    """
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        asked = [_ask(session, url, model, context_length, api_key is not None) for url in urls]
        said = await asyncio.gather(*asked, return_exceptions=True)
    for each in said:
        if isinstance(each, BaseException) and not isinstance(each, Away):
            raise each
    away = [each for each in said if isinstance(each, Away)]
    if len(away) == len(said):
        raise EngineError("; ".join(map(str, away)), retryable=True)
    for each in away:
        log.warning("%s; the others serve meanwhile", each)


async def _ask(
    session: aiohttp.ClientSession, url: str, model: str, context_length: int, has_key: bool
) -> None:
    base = url.rstrip("/").removesuffix("/v1")
    try:
        async with session.get(f"{base}/v1/models") as response:
            status, body = response.status, await response.content.read(1 << 20)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Away(f"no server answers at {url}: {_why(error)}") from error
    if status in (401, 403):
        wanted = "refuses our key" if has_key else "wants a key"
        raise EngineError(f"{url} {wanted} ({status}): see api_key_variable")
    if status >= 500:
        raise Away(f"no server serves at {url}: it answers {status}")
    try:
        served = {each.id: each for each in _models(body).data} if status == 200 else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        served = {}
    if not served:
        log.warning("%s does not say what it serves (%d)", url, status)
    elif model not in served:
        others = ", ".join(sorted(served)[:SHOWN]) + (", …" if len(served) > SHOWN else "")
        raise EngineError(f"{url} does not serve {model!r} but {others}: set model")
    else:
        _compare(url, served[model], context_length)


def _why(error: Exception) -> str:
    """In the system's words: the client's repeat the address and speak of TLS."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(error)


def _compare(url: str, served: _Model, context_length: int) -> None:
    theirs = served.max_model_len or served.context_length
    if isinstance(theirs, int) and theirs < context_length:
        raise EngineError(
            f"{url} serves {theirs} tokens of context: context_length may not be {context_length}"
        )
