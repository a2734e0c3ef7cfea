"""Asks a model every question of a suite, many at once, through the engine that serves it.

Greedy, so that a model has one score and not a distribution of scores. Knows nothing about what the
answers are compared with elsewhere: :mod:`avocado.evaluate.compare` does that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

from avocado.data.chat import Chat, Prompt, RenderError
from avocado.engine.engine import (
    Delta,
    Engine,
    EngineBusy,
    Finish,
    FinishReason,
    Generation,
    Sampling,
)
from avocado.evaluate.suite import Item, Suite, SuiteError
from avocado.lineage import Json

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all items."""

BUSY_PAUSE = 0.02
"""Seconds before asking a full engine again."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the model said to one item, and what that is worth.

    ``score`` is 0..1; ``correct`` says the same where an answer is right or wrong, else None. Items
    of one ``cluster`` are not independent. ``prompt`` and ``completion`` are tokens, the stop token
    included; ``seconds`` from asking to the last token, which two equal results need not share.
    """

    item: str
    language: str
    cluster: str | None
    score: float
    correct: bool | None
    text: str
    reason: FinishReason
    prompt: int
    completion: int
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


async def run(
    engine: Engine,
    suite: Suite,
    *,
    max_tokens: int = 256,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> tuple[Result, ...]:
    """Results in the suite's order. Stops at the first failure and cancels what still runs.

    Raises:
        SuiteError: an item that the template refuses or that does not fit the context.
        EngineError: the engine failed.
    """
    sampling = Sampling(max_tokens, temperature=0)
    prompts = [_prompt(engine, item, sampling) for item in suite.items]
    results: list[Result | None] = [None] * len(prompts)
    places = iter(range(len(prompts)))
    done = 0

    async def work(places: Iterator[int]) -> None:
        nonlocal done
        for place in places:
            item = suite.items[place]
            began = time.monotonic()
            text, finish = await _ask(engine, prompts[place], sampling)
            right = suite.is_right(text, item.answer)
            results[place] = Result(
                item=item.id,
                language=item.language,
                cluster=None,
                score=float(right),
                correct=right,
                text=text,
                reason=finish.reason,
                prompt=finish.usage.prompt,
                completion=finish.usage.completion,
                seconds=time.monotonic() - began,
            )
            done += 1
            if progress is not None:
                progress(done, len(prompts))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(prompts))):
                group.create_task(work(places))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tuple(result for result in results if result is not None)


def _prompt(engine: Engine, item: Item, sampling: Sampling) -> Prompt:
    try:
        prompt = engine.prepare(Chat(item.messages))
    except RenderError as error:
        raise SuiteError(f"item {item.id!r}: {error}") from error
    if len(prompt.ids) + sampling.max_tokens > engine.context_length:
        raise SuiteError(
            f"item {item.id!r}: {len(prompt.ids)} prompt tokens and {sampling.max_tokens} to "
            f"answer exceed the model's context of {engine.context_length} tokens"
        )
    return prompt


async def _ask(engine: Engine, prompt: Prompt, sampling: Sampling) -> tuple[str, Finish]:
    """One answer, waiting while the engine is full."""
    while True:
        try:
            generation = engine.generate(prompt, sampling)
            break
        except EngineBusy:
            await asyncio.sleep(BUSY_PAUSE)
    try:
        return await _read(generation)
    except asyncio.CancelledError:
        await generation.cancel()
        raise


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
