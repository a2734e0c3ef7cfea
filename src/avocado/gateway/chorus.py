"""Chorus: several generations of one paid request, heard as one. They start and stop together.

What is consumed is summed: every answer's completion, and each prompt once however many answers it
has. Knows nothing about money or text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from avocado.data.chat import Prompt
from avocado.engine.engine import Event, Generation
from avocado.terms.usage import Usage


@dataclass(frozen=True, slots=True)
class Part:
    """What one of them said; ``choice`` counts from 0."""

    choice: int
    event: Event


class Chorus:
    """Yields the parts as they come, and ends when all have. The first failure is the chorus's."""

    def __init__(self, generations: Sequence[Generation], n: int) -> None:
        """``n`` answers to each prompt stand beside each other."""
        self._generations = generations
        self._n = n
        self._said: asyncio.Queue[Part | Exception | None] = asyncio.Queue()
        self._left = len(generations)
        self._pumps = [
            asyncio.get_running_loop().create_task(self._pump(choice, generation))
            for choice, generation in enumerate(generations)
        ]

    @property
    def usage(self) -> Usage:
        return self._sum([generation.usage for generation in self._generations])

    def __aiter__(self) -> Chorus:
        return self

    async def __anext__(self) -> Part:
        while self._left:
            said = await self._said.get()
            if isinstance(said, Exception):
                raise said
            if said is not None:
                return said
            self._left -= 1
        raise StopAsyncIteration

    async def cancel(self) -> Usage:
        self._left = 0
        ended = await asyncio.gather(*(each.cancel() for each in self._generations))
        for pump in self._pumps:
            pump.cancel()
        return self._sum(ended)

    def _sum(self, usages: Sequence[Usage]) -> Usage:
        firsts = usages[:: self._n]
        return Usage(
            sum(each.prompt for each in firsts),
            sum(each.completion for each in usages),
            sum(each.cached for each in firsts),
            sum(each.reasoning for each in usages),
        )

    async def _pump(self, choice: int, generation: Generation) -> None:
        try:
            async for event in generation:
                self._said.put_nowait(Part(choice, event))
        except Exception as error:  # told to whoever listens
            self._said.put_nowait(error)
        else:
            self._said.put_nowait(None)


def start(
    generate: Callable[[Prompt, int], Generation], prompts: Sequence[Prompt], n: int
) -> Generation | Chorus:
    """Starts ``n`` answers to each prompt; ``generate`` gets the answer's number among those of its
    prompt. Where one does not start, none runs on.

    Raises:
        EngineError, PromptTooLong, Unsupported: as the engine says.
    """
    if len(prompts) == n == 1:
        return generate(prompts[0], 0)
    started: list[Generation] = []
    try:
        for prompt in prompts:
            for number in range(n):
                # Not a comprehension: all but one may start.
                started.append(generate(prompt, number))
    except BaseException:
        for each in started:
            task = asyncio.ensure_future(each.cancel())
            _stopping.add(task)
            task.add_done_callback(_stopping.discard)
        raise
    return Chorus(started, n)


_stopping: set[asyncio.Future[Usage]] = set()
"""Cancellations under way: the event loop itself keeps no task alive."""
