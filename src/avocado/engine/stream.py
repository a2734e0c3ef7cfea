"""The stream of one generation: an engine pushes events in, one reader takes them out.

Everything here happens on the event loop's thread. Knows nothing about models or threads. The
buffer holds at most one event per generated token, so ``max_tokens`` bounds it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from avocado.engine.engine import Delta, EngineError, Event, Finish
from avocado.terms.usage import Usage


class Stream:
    """A :class:`~avocado.engine.engine.Generation` that an engine feeds.

    After ``Finish`` or a failure nothing more is accepted. After ``cancel`` nothing more is read;
    ``stopped`` makes the count final.
    """

    def __init__(self, prompt: int, stop: Callable[[], None]) -> None:
        """``prompt`` is the prompt's token count; ``stop`` asks the engine to stop this request."""
        self._usage = Usage(prompt=prompt)
        self._stop = stop
        self._events: deque[Event] = deque()
        self._error: EngineError | None = None
        self._cancelled = False
        self._over = asyncio.Event()
        self._reader: asyncio.Future[None] | None = None

    @property
    def usage(self) -> Usage:
        return self._usage

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
        return self._usage

    # What the engine calls.

    def push(self, event: Event) -> None:
        """One event; ``Finish`` ends the stream."""
        if self._over.is_set():
            return
        if isinstance(event, Delta):
            self.count(event.completion)
        self._events.append(event)
        if isinstance(event, Finish):
            self._usage = event.usage
            self._over.set()
        self._wake()

    def count(self, completion: int) -> None:
        """Tokens generated so far, whether or not their text may be shown yet."""
        self._usage = Usage(self._usage.prompt, completion, self._usage.cached)

    def stopped(self, completion: int) -> None:
        """The engine has let go of a cancelled request; ``completion`` is final."""
        if not self._over.is_set():
            self.count(completion)
            self._over.set()
            self._wake()

    def fail(self, error: EngineError) -> None:
        """The engine failed: the reader gets what was pushed before, and then ``error``."""
        if not self._over.is_set():
            self._error = error
            self._over.set()
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
