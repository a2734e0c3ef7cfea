"""One request inside the engine: how it chooses, what it has said, and when it is over."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Ids
from typing import Any, Final

from avocado.data.chat import Prompt
from avocado.engine.constraint import Constraint, Matcher
from avocado.engine.detokenizer import Detokenizer, StopFilter
from avocado.engine.engine import (
    Calls,
    Delta,
    EngineError,
    Finish,
    FinishReason,
    Sampling,
    TokenLogprob,
)
from avocado.engine.logprobs import Spelling, Telling, Told
from avocado.engine.reply import CALL, THINK, ThoughtCount
from avocado.engine.sampler import Choice
from avocado.engine.stream import Signal, Stopped
from avocado.terms.usage import Usage

AHEAD: Final = 256
"""Tokens of memory that are kept ahead of what a request has, at least."""


class Sequence:
    """Belongs to the engine's thread, except ``cancelled``, which any thread may set.

    ``completion`` counts every token that the model emitted, the stop token included.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        stop_ids: Collection[int],
        backend: Any,
        *,
        spelling: Spelling | None = None,
        matcher: Matcher | None = None,
    ) -> None:
        """``spelling`` is needed for log-probabilities, ``matcher`` keeps the grammar."""
        self._thought = ThoughtCount(prompt.text)
        self._constraint = Constraint.of(
            sampling,
            matcher,
            waits=self._thought.open,
            opens=backend.token_to_id(THINK) if matcher and self._thought.possible else None,
            calls=backend.token_to_id(CALL) if isinstance(sampling.grammar, Calls) else None,
        )
        self.ids: Ids[int] = prompt.ids
        self.completion = 0
        self.choice = Choice.of(sampling, self._constraint)
        self.need = len(prompt.ids) + sampling.max_tokens
        """Tokens of memory that it may come to take."""
        self.claim = self.claim_next()
        """Tokens of memory that are kept for it."""
        self.last = -1
        """The newest token, which the next step reads."""
        self.cancelled = False
        self.salt = sampling.cache_salt
        self.cached = 0
        """Tokens of the prompt that were not computed anew."""
        self._limit = sampling.max_tokens
        self._stop_ids = stop_ids if not sampling.stop_ids else {*stop_ids, *sampling.stop_ids}
        self._text = Detokenizer(backend)
        self._certain = 0
        """Characters that the tokens so far make, shown or held back."""
        self._filter = StopFilter(sampling.stop)
        self._telling = Telling(spelling) if sampling.logprobs and spelling else None

    def take(self, token: int, told: Told | None = None) -> list[Signal]:
        """The model's next token. The last signal is no Delta when the turn is over."""
        self.completion += 1
        self.last = token
        if self._constraint is not None:
            self._constraint.take(token)
            if self._constraint.error:
                return [EngineError(f"the grammar failed: {self._constraint.error}")]
        if token in self._stop_ids:
            return self._end("", "stop")
        if told is not None and self._telling is not None:
            self._telling.hear(token, told, self._certain)
        new = self._text.step(token)
        self._certain += len(new)
        self._thought.take(new, self.completion)
        if self._constraint is not None and not self._thought.open:
            self._constraint.start()
        text, stop = self._filter.feed(new)
        if stop is not None:
            return self._close(text, "stop", stop)
        if self.completion == self._limit:
            return self._end(text, "length")
        return [self._delta(text)]

    @property
    def length(self) -> int:
        """Tokens of memory that it takes when its newest token is computed."""
        return len(self.ids) + self.completion

    def claim_next(self) -> int:
        """What to keep for it from now on: half as much again as it has, and never all that a
        large maximum of tokens might come to."""
        return min(self.need, self.length + max(AHEAD, self.length // 2))

    def stopped(self) -> Stopped:
        """What is final when it is let go of."""
        return Stopped(self.completion, self._thought.tokens)

    def _end(self, text: str, reason: FinishReason) -> list[Signal]:
        """No token follows, so what was held back may be shown, unless a stop string is in it."""
        more, stop = self._filter.feed(self._text.flush())
        if stop is not None:
            return self._close(text + more, "stop", stop)
        return self._close(text + more + self._filter.flush(), reason, None)

    def _close(self, text: str, reason: FinishReason, stop: str | None) -> list[Signal]:
        usage = Usage(len(self.ids), self.completion, self.cached, self._thought.tokens)
        return [self._delta(text, last=stop is None), Finish(reason, usage, stop)]

    def _delta(self, text: str, last: bool = False) -> Delta:
        told: tuple[TokenLogprob, ...] = ()
        if self._telling is not None:
            told = self._telling.tell(text)
            if last:
                told += self._telling.rest()
        return Delta(text, self.completion, told, self._thought.tokens)
