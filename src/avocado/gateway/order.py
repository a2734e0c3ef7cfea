"""Order: an ask that can be served. Who pays, what is sold, the exact prompt count, the bound.

Everything here happens before money moves; what cannot be served is refused with a 400.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from avocado.data.chat import Prompt, RenderError
from avocado.engine.engine import Engine, Sampling, Unsupported
from avocado.gateway.errors import bad_request, of_engine
from avocado.gateway.exchange import Exchange, idempotency_key
from avocado.gateway.keys import Caller
from avocado.gateway.limits import Limits
from avocado.gateway.surface import Ask
from avocado.ledger.operation import Hold
from avocado.release.offer import Offer

INLINE_BYTES = 16 * 1024
"""A body up to this size is rendered on the event loop; a larger one in a thread."""


@dataclass(frozen=True, slots=True)
class Order:
    """What one paid request needs to know. ``hold`` is what the ledger is asked to reserve."""

    ask: Ask
    offer: Offer
    prompt: Prompt
    sampling: Sampling
    hold: Hold


async def take(
    exchange: Exchange,
    body: bytes,
    ask: Ask,
    caller: Caller,
    offer: Offer,
    engine: Engine,
    limits: Limits,
) -> Order:
    """Counts the prompt exactly and bounds the answer.

    Raises:
        ApiError: 400 for what the template or the engine refuses, or what does not fit the context.
    """
    try:
        if len(body) <= INLINE_BYTES:
            prompt = engine.prepare(ask.chat)
        else:
            prompt = await asyncio.to_thread(engine.prepare, ask.chat)
    except RenderError as error:
        raise of_engine(error) from error
    sampling = Sampling(
        max_tokens=bound(ask.max_tokens, len(prompt.ids), engine.context_length, limits),
        temperature=ask.temperature,
        top_p=ask.top_p,
        top_k=ask.top_k,
        seed=ask.seed,
        stop=ask.stop,
    )
    try:
        await engine.check(sampling)
    except Unsupported as error:
        raise of_engine(error) from error
    key = idempotency_key(exchange)
    hold = Hold(
        id=exchange.id,
        tenant=caller.tenant,
        key_id=caller.key_id,
        offer=offer.name,
        release=offer.release,
        price_version=offer.price.version,
        prompt_tokens=len(prompt.ids),
        max_tokens=sampling.max_tokens,
        lifetime=limits.hold_lifetime,
        idempotency_key=key,
        # The path is part of it: the same body on another endpoint is another request.
        fingerprint=fingerprint(exchange.path, body) if key is not None else None,
    )
    return Order(ask, offer, prompt, sampling, hold)


def fingerprint(path: str, body: bytes) -> str:
    """What must be equal for a request to be the same as another by its Idempotency-Key."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()


def bound(wanted: int | None, prompt: int, context: int, limits: Limits) -> int:
    """How many tokens may be generated: what was asked for, or the default bound.

    A maximum that the client named is never lowered. Without one it is
    ``limits.default_max_tokens``, or what the context leaves if that is less.

    Raises:
        ApiError: 400 if prompt and maximum do not fit the context.
    """
    left = context - prompt
    if left < 1 or (wanted is not None and wanted > left):
        asked = f" and {wanted} tokens to generate" if wanted is not None else ""
        raise bad_request(
            f"This model's context is {context} tokens; your messages are {prompt} tokens{asked}",
            "messages" if left < 1 else "max_tokens",
            "context_length_exceeded",
        )
    return min(left, limits.default_max_tokens) if wanted is None else wanted
