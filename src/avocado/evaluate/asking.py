"""Asking an engine: answers and likelihoods, through what was kept from before, waiting while the
engine is full. Knows nothing of suites and grades."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

from avocado.data.chat import Prompt
from avocado.engine.engine import (
    Delta,
    Engine,
    EngineBusy,
    EngineError,
    Finish,
    FinishReason,
    Generation,
    Likelihood,
    Measured,
    PromptTooLong,
    Sampling,
    Scorer,
    Unsupported,
)
from avocado.engine.reply import Thinking, thinking_after
from avocado.evaluate.cache import Cache
from avocado.evaluate.suite import SuiteError
from avocado.lineage import Json
from avocado.rewards import spoken

BUSY_PAUSE: Final = 0.02
"""Seconds before asking a full engine again."""

SLICE: Final = 32
"""Likelihoods that are asked for at once: what a killed run loses."""

Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` as the model wrote it, ``said`` without its thought; tokens of prompt and
    completion, the stop token included; ``seconds`` are 0 where it was kept from before."""

    text: str
    said: str
    reason: FinishReason
    prompt: int
    completion: int
    seconds: float = 0.0


class Asker:
    """One engine. ``cache`` holds what this very model answered before."""

    def __init__(self, engine: Engine, cache: Cache | None = None) -> None:
        self.engine = engine
        self._cache = cache
        self.asked = 0
        """How often the engine was asked."""

    async def answer(self, prompt: Prompt, sampling: Sampling, question: Json) -> Answer:
        """What the model says; ``question`` is what ``prompt`` was made of."""
        asked = ("answer", question, list(prompt.ids), _json(sampling))
        kept = None if self._cache is None else self._cache.get(*asked)
        if kept is not None:
            return _answer(prompt, *kept)
        began = time.monotonic()
        text, finish = await self._generate(prompt, sampling)
        self.asked += 1
        found = (text, finish.reason, finish.usage.prompt, finish.usage.completion)
        if self._cache is not None:
            self._cache.put(list(found), *asked)
        return _answer(prompt, *found, time.monotonic() - began)

    async def likelihoods(
        self, pairs: Sequence[Measured], progress: Callable[[int], None] | None = None
    ) -> list[Likelihood]:
        """How likely the second of each pair is after the first; ``progress`` counts pairs.

        Raises:
            SuiteError: the engine cannot tell.
        """
        found: list[Likelihood | None] = [self._kept(pair) for pair in pairs]
        missing = [place for place, each in enumerate(found) if each is None]
        done = len(pairs) - len(missing)
        if progress is not None and done:
            progress(done)
        for start in range(0, len(missing), SLICE):
            places = missing[start : start + SLICE]
            for place, told in zip(
                places, await self._measure([pairs[place] for place in places]), strict=True
            ):
                found[place] = told
                if self._cache is not None:
                    self._cache.put([list(told.logprobs), told.greedy], *_measured(pairs[place]))
            done += len(places)
            if progress is not None:
                progress(done)
        return [each for each in found if each is not None]

    def _kept(self, pair: Measured) -> Likelihood | None:
        kept = None if self._cache is None else self._cache.get(*_measured(pair))
        return None if kept is None else Likelihood(tuple(kept[0]), bool(kept[1]))

    async def _measure(self, pairs: Sequence[Measured]) -> list[Likelihood]:
        if not isinstance(self.engine, Scorer):
            raise SuiteError(
                f"a {type(self.engine).__name__} does not say how likely given texts are: evaluate "
                "by choice on the embedded engine, or on a vLLM server"
            )
        try:
            found = await self.engine.likelihoods(pairs)
        except (Unsupported, PromptTooLong) as error:
            raise SuiteError(f"choices cannot be compared: {error}") from error
        self.asked += len(pairs)
        return found

    async def _generate(self, prompt: Prompt, sampling: Sampling) -> tuple[str, Finish]:
        while True:
            try:
                generation = self.engine.generate(prompt, sampling)
                break
            except EngineBusy:
                await asyncio.sleep(BUSY_PAUSE)
        try:
            return await _read(generation)
        except asyncio.CancelledError:
            await generation.cancel()
            raise


async def side_by_side(
    works: Sequence[Work], do: Callable[[Work], Awaitable[None]], at_once: int
) -> None:
    """Does all of ``works``, ``at_once`` together; the first failure cancels the rest and is
    raised."""
    rest = iter(works)

    async def one_after_the_other() -> None:
        for work in rest:
            await do(work)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(works))):
                group.create_task(one_after_the_other())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _answer(
    prompt: Prompt,
    text: str,
    reason: FinishReason,
    asked: int,
    completion: int,
    seconds: float = 0.0,
) -> Answer:
    thinking = thinking_after(prompt.text) is Thinking.YES
    said = spoken(text, thinking=thinking).strip()
    return Answer(text, said, reason, asked, completion, seconds)


def _json(sampling: Sampling) -> Json:
    if sampling.grammar is not None:
        raise EngineError("an answer that a grammar holds is not evaluated")
    return asdict(sampling)


def _measured(pair: Measured) -> tuple[Json, ...]:
    return ("likelihood", list(pair[0]), list(pair[1]))


async def _read(generation: Generation) -> tuple[str, Finish]:
    pieces: list[str] = []
    finish: Finish | None = None
    async for event in generation:
        if isinstance(event, Delta):
            pieces.append(event.text)
        else:
            finish = event
    if finish is None:
        raise RuntimeError("the engine ended a request without saying how")
    return "".join(pieces), finish
