"""The stream of one generation: an engine pushes events in, one reader takes them out.

Everything here happens on the event loop's thread. Knows nothing about models or threads. The
buffer holds at most one event per generated token, so ``max_tokens`` bounds it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from avocado.engine.engine import Delta, EngineError, Event, Finish
from avocado.terms.usage import Usage


@dataclass(frozen=True, slots=True)
class Stopped:
    """The engine has let go of a cancelled request; its counts are final."""

    completion: int
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """The prompt is being computed; ``cached`` tokens of it were read from a cache."""

    cached: int


Signal = Event | Begun | Stopped | EngineError
"""What an engine tells a stream."""


class Stream:
    """A :class:`~avocado.engine.engine.Generation` that an engine feeds.

    After ``Finish`` or a failure nothing more is accepted. After ``cancel`` nothing more is read,
    and ``Stopped`` makes the count final.
    """

    def __init__(self, prompt: int, stop: Callable[[], None]) -> None:
        """``prompt`` is the prompt's token count; ``stop`` asks the engine to stop this request."""
        self._prompt, self._completion, self._cached, self._reasoning = prompt, 0, 0, 0
        self._final: Usage | None = None
        self._stop = stop
        self._events: deque[Event] = deque()
        self._error: EngineError | None = None
        self._cancelled = False
        self._over = asyncio.Event()
        self._reader: asyncio.Future[None] | None = None

    @property
    def usage(self) -> Usage:
        if self._final is not None:
            return self._final
        return Usage(self._prompt, self._completion, self._cached, self._reasoning)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._cancelled:
                raise StopAsyncIteration
            if self._events:
                return self._events.popleft()
            if self._error is not None:
                raise self._error
            if self._over.is_set():
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    async def cancel(self) -> Usage:
        if not self._over.is_set():
            self._cancelled = True
            self._stop()
            self._wake()
            await self._over.wait()
        return self.usage

    def push(self, signal: Signal) -> None:
        """What the engine has to say. A token that adds no text yet is counted and not shown."""
        if self._over.is_set():
            return
        match signal:
            case Begun(cached):
                self._cached = cached
                return
            case Delta():
                self._count(signal.completion, signal.reasoning)
                if not signal.text and not signal.logprobs:
                    return
                self._events.append(signal)
            case Finish():
                self._final = signal.usage
                self._events.append(signal)
            case Stopped():
                self._count(signal.completion, signal.reasoning)
            case EngineError():
                self._error = signal
        if not isinstance(signal, Delta):
            self._over.set()
        self._wake()

    def _count(self, completion: int, reasoning: int) -> None:
        self._completion, self._reasoning = completion, reasoning

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
