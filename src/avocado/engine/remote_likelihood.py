"""Likelihoods of given tokens from a vLLM server: its ``prompt_logprobs``, which name tokens by id
and say each one's rank. Knows nothing about replicas; a caller gives the connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from avocado.engine.connection import ConnectionBroken, Connections
from avocado.engine.engine import EngineBusy, EngineError, Likelihood, Measured, PromptTooLong
from avocado.engine.replica import TryAgain, refusal

PATH: Final = "/v1/completions"
AT_ONCE: Final = 32
"""Requests that run together."""
TRIES: Final = 5
"""Of a request that a busy or restarting server did not take."""
PAUSE: Final = 0.2
"""Seconds, doubled with each try."""


class _Told(msgspec.Struct):
    logprob: float
    rank: int


class _Choice(msgspec.Struct):
    prompt_logprobs: list[dict[str, _Told] | None] | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Answer).decode


async def remote_likelihoods(
    pairs: Sequence[Measured], model: str, context_length: int, to: Callable[[], Connections]
) -> list[Likelihood]:
    """As :class:`avocado.engine.engine.Scorer` says. ``to`` chooses a server for each request."""
    for before, asked in pairs:
        if not before:
            raise ValueError("nothing stands before")
        if len(before) + len(asked) >= context_length:  # the server insists on one token of its own
            raise PromptTooLong(
                f"{len(before)} tokens and {len(asked)} after them do not fit the context of "
                f"{context_length} tokens with one more"
            )
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(pair: Measured) -> Likelihood:
        if not pair[1]:
            return Likelihood((), True)
        async with gate:
            return await _measure(pair, model, to)

    tasks = [asyncio.ensure_future(one(pair)) for pair in pairs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _measure(pair: Measured, model: str, to: Callable[[], Connections]) -> Likelihood:
    body = msgspec.json.encode(
        {
            "model": model,
            "prompt": [*pair[0], *pair[1]],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 1,
        }
    )
    failed: EngineError = EngineBusy()
    for attempt in range(TRIES):
        try:
            return _understood(await _post(to(), body), pair)
        except EngineBusy as busy:
            failed = busy
        except TryAgain as again:
            failed = again.error
        except (ConnectionBroken, TimeoutError) as error:
            failed = EngineError(f"the upstream failed: {error}", retryable=True)
        await asyncio.sleep(PAUSE * 2**attempt)
    raise failed


async def _post(connections: Connections, body: bytes) -> bytes:
    answer = await connections.post(PATH, body)
    try:
        if answer.status != 200:
            raise await refusal(answer)
        parts = []
        while part := await answer.read():
            parts.append(part)
        return b"".join(parts)
    finally:
        answer.release()


def _understood(body: bytes, pair: Measured) -> Likelihood:
    """Raises EngineError: it is not what was asked for."""
    before, asked = pair
    try:
        said = _decode(body).choices[0].prompt_logprobs
    except (ValueError, IndexError) as error:
        raise EngineError(f"the upstream's log-probabilities cannot be read: {error}") from error
    if said is None or len(said) != len(before) + len(asked):
        raise EngineError("the upstream does not say how likely a prompt's tokens are")
    found = [
        (told or {}).get(str(token)) for token, told in zip(asked, said[len(before) :], strict=True)
    ]
    kept = [each for each in found if each is not None]
    if len(kept) < len(found):
        raise EngineError("the upstream's log-probabilities are of other tokens")
    return Likelihood(tuple(each.logprob for each in kept), all(each.rank == 1 for each in kept))
