"""Order: an ask that can be served. Who pays, what is sold, the exact prompt count, the bound.

Everything here happens before money moves; what cannot be served is refused with a 400.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import Final

from avocado.data.chat import Chat, Prompt, RenderError
from avocado.engine.engine import Engine, Sampling, Unsupported
from avocado.engine.reply import Thinking, thinking_after
from avocado.gateway.errors import bad_request, of_engine, unsupported
from avocado.gateway.exchange import Exchange, idempotency_key
from avocado.gateway.keys import Caller
from avocado.gateway.limits import Limits
from avocado.gateway.surface import Ask, Inputs, Raw
from avocado.ledger.operation import Hold
from avocado.release.offer import Offer

INLINE_BYTES = 16 * 1024
"""A body up to this size is rendered on the event loop; a larger one in a thread."""
NO_TEXT: Final = Sampling(max_tokens=1)
"""Where vectors are wanted nothing is drawn."""


@dataclass(frozen=True, slots=True)
class Order:
    """What one paid request needs to know. ``hold`` is what the ledger is asked to reserve: every
    prompt once, and the bound for each of ``hold.n`` answers."""

    ask: Ask
    offer: Offer
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    hold: Hold

    def sampling_of(self, number: int) -> Sampling:
        """How the answer ``number`` of a prompt is drawn: one seed may not give the same twice."""
        seed = self.sampling.seed
        if seed is None or number == 0:
            return self.sampling
        return replace(self.sampling, seed=seed + number if seed < 2**62 else seed - number)


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
    if len(body) <= INLINE_BYTES:
        prompts = _prepare(engine, ask)
    else:
        prompts = await asyncio.to_thread(_prepare, engine, ask)
    vectors = isinstance(ask.prompt, Inputs)
    sampling = NO_TEXT if vectors else await _drawn(ask, prompts, caller.tenant, engine, limits)
    key = idempotency_key(exchange)
    hold = Hold(
        id=exchange.id,
        tenant=caller.tenant,
        key_id=caller.key_id,
        offer=offer.name,
        release=offer.release,
        price_version=offer.price.version,
        prompt_tokens=sum(len(prompt.ids) for prompt in prompts),
        max_tokens=0 if vectors else sampling.max_tokens,
        n=1 if vectors else len(prompts) * ask.n,
        lifetime=limits.hold_lifetime,
        batch=exchange.batch,
        idempotency_key=key,
        # The path is part of it: the same body on another endpoint is another request.
        fingerprint=fingerprint(exchange.path, body) if key is not None else None,
    )
    return Order(ask, offer, prompts, sampling, hold)


async def _drawn(
    ask: Ask, prompts: tuple[Prompt, ...], tenant: str, engine: Engine, limits: Limits
) -> Sampling:
    """How the answers are drawn, bounded and checked by the engine."""
    longest = max(len(prompt.ids) for prompt in prompts)
    most = bound(ask.max_tokens, longest, engine.context_length, limits, ask.max_from)
    sampling = _sampling(ask, most, tenant)
    try:
        await engine.check(sampling)
    except Unsupported as error:
        raise unsupported(_blamed(error.field, ask), str(error)) from error
    except ValueError as error:
        param = ask.grammar_from if ask.grammar is not None else "logit_bias"
        raise bad_request(f"Invalid value for {param}: {error}", param) from error
    return sampling


def _prepare(engine: Engine, ask: Ask) -> tuple[Prompt, ...]:
    try:
        if isinstance(ask.prompt, Inputs):
            return _prepare_inputs(engine, ask.model, ask.prompt)
        if isinstance(ask.prompt, Raw):
            return tuple(engine.prepare_text(text) for text in ask.prompt.texts)
        prompt = engine.prepare(ask.prompt)
        _check_rendered(engine, ask.prompt, prompt)
    except (RenderError, Unsupported) as error:
        raise of_engine(error) from error
    return (prompt,)


def _prepare_inputs(engine: Engine, model: str, wanted: Inputs) -> tuple[Prompt, ...]:
    embedder = engine.embedder
    if embedder is None:
        raise unsupported("model", f"The model {model!r} makes text, not embeddings")
    if wanted.dimensions is not None:
        embedder.check_dimensions(wanted.dimensions)
    try:
        prompts = tuple(embedder.prepare_input(each) for each in wanted.texts or wanted.ids)
    except ValueError as error:
        raise bad_request(f"Invalid value for input: {error}", "input") from error
    longest = max(len(prompt.ids) for prompt in prompts)
    if longest > engine.context_length:
        raise bad_request(
            f"This model's context is {engine.context_length} tokens; an input has {longest}",
            "input",
            "context_length_exceeded",
        )
    return prompts


def _check_rendered(engine: Engine, chat: Chat, prompt: Prompt) -> None:
    """A template that leaves out what was asked for would ignore it without a word."""
    for tool in chat.tools:
        if tool["function"]["name"] not in prompt.text:
            raise unsupported("tools", "This model was not made to call tools")
    if chat.thinking and thinking_after(prompt.text) is not Thinking.YES:
        plain = engine.prepare(replace(chat, thinking=False))
        if plain.text == prompt.text:
            raise unsupported("thinking", "This model was not made to think before it answers")


def _sampling(ask: Ask, max_tokens: int, tenant: str) -> Sampling:
    try:
        return Sampling(
            max_tokens=max_tokens,
            temperature=ask.temperature,
            top_p=ask.top_p,
            top_k=ask.top_k,
            seed=ask.seed,
            stop=ask.stop,
            presence_penalty=ask.presence_penalty,
            frequency_penalty=ask.frequency_penalty,
            logit_bias=ask.logit_bias,
            logprobs=ask.logprobs,
            top_logprobs=ask.top_logprobs,
            grammar=ask.grammar,
            cache_salt=tenant,
        )
    except ValueError as error:
        # Its sentence begins with the field's name.
        raise bad_request(str(error), str(error).partition(" ")[0]) from error


def _blamed(field: str, ask: Ask) -> str:
    return ask.grammar_from if field == "grammar" else field


def fingerprint(path: str, body: bytes) -> str:
    """What must be equal for a request to be the same as another by its Idempotency-Key."""
    return hashlib.sha256(path.encode() + b"\0" + body).hexdigest()


def bound(
    wanted: int | None, prompt: int, context: int, limits: Limits, named: str = "max_tokens"
) -> int:
    """How many tokens may be generated: what was asked for, or the default bound.

    A maximum that the client named is never lowered. Without one it is
    ``limits.default_max_tokens``, or what the context leaves if that is less.

    Raises:
        ApiError: 400 if prompt and maximum do not fit the context.
    """
    left = context - prompt
    if left < 1 or (wanted is not None and wanted > left):
        asked = f", and {wanted} more are to be generated" if wanted is not None else ""
        # It begins as OpenAI's does: LiteLLM and others know it by these words.
        raise bad_request(
            f"This model's maximum context length is {context} tokens; the prompt has "
            f"{prompt}{asked}",
            "messages" if left < 1 else named,
            "context_length_exceeded",
        )
    return min(left, limits.default_max_tokens) if wanted is None else wanted
