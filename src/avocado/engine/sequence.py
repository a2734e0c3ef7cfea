"""One request inside the engine: how it chooses, what it has said, and when it is over."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Ids
from typing import Any

from avocado.data.chat import Prompt
from avocado.engine.detokenizer import Detokenizer, StopFilter
from avocado.engine.engine import Delta, Event, Finish, FinishReason, Sampling
from avocado.engine.sampler import Choice
from avocado.terms.usage import Usage


class Sequence:
    """Belongs to the engine's thread, except ``cancelled``, which any thread may set.

    ``completion`` counts every token that the model emitted, the stop token included.
    """

    def __init__(
        self, prompt: Prompt, sampling: Sampling, stop_ids: Collection[int], backend: Any
    ) -> None:
        self.ids: Ids[int] = prompt.ids
        self.choice = Choice.of(sampling)
        self.need = len(prompt.ids) + sampling.max_tokens
        """Tokens of memory that it may come to take."""
        self.completion = 0
        self.last = -1
        """The newest token, which the next step reads."""
        self.cancelled = False
        self._limit = sampling.max_tokens
        self._stop_ids = stop_ids
        self._text = Detokenizer(backend)
        self._filter = StopFilter(sampling.stop)

    def take(self, token: int) -> list[Event]:
        """The model's next token. The last event is ``Finish`` when the turn is over."""
        self.completion += 1
        self.last = token
        if token in self._stop_ids:
            return self._end("", "stop")
        text, stopped = self._filter.feed(self._text.step(token))
        if stopped:
            return self._close(text, "stop")
        if self.completion == self._limit:
            return self._end(text, "length")
        return [Delta(text, self.completion)]

    def _end(self, text: str, reason: FinishReason) -> list[Event]:
        """No token follows, so what was held back may be shown, unless a stop string is in it."""
        more, stopped = self._filter.feed(self._text.flush())
        if stopped:
            return self._close(text + more, "stop")
        return self._close(text + more + self._filter.flush(), reason)

    def _close(self, text: str, reason: FinishReason) -> list[Event]:
        usage = Usage(len(self.ids), self.completion)
        return [Delta(text, self.completion), Finish(reason, usage)]
