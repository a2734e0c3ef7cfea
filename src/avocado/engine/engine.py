"""The Engine protocol: count a prompt exactly, generate deltas and then usage, cancel.

An engine knows tokens. It knows nothing about money, customers or HTTP. All its methods are called
from one asyncio event loop; what computes for long does so elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from avocado.data.chat import Chat, Prompt
from avocado.engine.sampling import Calls, Grammar, Json, JsonSchema, Regex, Sampling
from avocado.terms.usage import Usage, UsageError

__all__ = [
    "Calls",
    "Delta",
    "Embedder",
    "Engine",
    "EngineBusy",
    "EngineError",
    "Event",
    "Finish",
    "FinishReason",
    "Generation",
    "Grammar",
    "Json",
    "JsonSchema",
    "Likelihood",
    "Measured",
    "Occupancy",
    "PromptTooLong",
    "Regex",
    "Sampling",
    "Scorer",
    "TokenLogprob",
    "Unsupported",
    "UsageRejected",
]

FinishReason = Literal["stop", "length"]


class EngineError(Exception):
    """The engine could not serve; ``retryable`` says whether another try may succeed."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class EngineBusy(EngineError):
    """The engine's queue is full: answer 429 or 503 with Retry-After (``retry_after``, seconds)."""

    def __init__(
        self, message: str = "the engine's queue is full", *, retry_after: float = 1.0
    ) -> None:
        super().__init__(message, retryable=True)
        self.retry_after = retry_after


class UsageRejected(EngineError, UsageError):
    """The engine reported token counts that cannot be: nothing may be charged by them."""


class PromptTooLong(ValueError):
    """Prompt and allowed completion do not fit the context."""


class Unsupported(ValueError):
    """This engine cannot do what ``field`` of the sampling asks for; the sentence says why."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token and its log-probability (natural). ``bytes`` are exact where ``text`` shows U+FFFD
    for a part of a character. ``top``: the likeliest tokens at this place, likeliest first, each
    without a ``top`` of its own; the token itself may be among them."""

    text: str
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text. ``completion`` is the number of tokens generated so far, this piece
    included: what is billed if the client leaves now. The stop token that the model emits is a
    completion token like any other, here and in ``Finish``, whatever the engine. ``reasoning`` of
    them were thought, up to ``</think>``.

    ``logprobs``, where asked for: the tokens that ``text`` begins with or completes, in order; all
    tokens of the answer come once, but for the one that ends the turn and those behind a stop
    string. ``text`` is never empty without them.
    """

    text: str
    completion: int
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event: why it ended, and the exact count. ``stop`` is the stop string that ended
    it, None if none did. ``vectors``, of an embedder: one for each input, as little-endian fp32."""

    reason: FinishReason
    usage: Usage
    stop: str | None = None
    vectors: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How busy an engine is: requests that run and wait, and how many may run (0: not known)."""

    running: int
    waiting: int = 0
    capacity: int = 0


Event = Delta | Finish


class Generation(Protocol):
    """One running request: an async iterator of events that ends after ``Finish``, or without it
    after ``cancel``. Iterating raises :class:`EngineError` if the engine fails.
    """

    @property
    def usage(self) -> Usage:
        """What was consumed so far; final after ``Finish`` or ``cancel``."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def cancel(self) -> Usage:
        """Stops within one step and returns the final usage. Harmless when already ended."""


class Embedder(Protocol):
    """What an engine can do whose model makes vectors of texts."""

    def prepare_input(self, given: str | tuple[int, ...]) -> Prompt:
        """Counts a text, with the tokens that the model wants around it, or takes ids as they are.
        Thread-safe.

        Raises:
            ValueError: ids that this model does not have.
        """

    def check_dimensions(self, dimensions: int) -> None:
        """Whether vectors can be cut to so many numbers.

        Raises:
            Unsupported: they cannot; ``field`` is "dimensions".
        """

    def embed(self, inputs: Sequence[Prompt], dimensions: int | None) -> Generation:
        """Starts at once, and says one Finish: a vector of length 1 for each input, in order.

        Raises:
            PromptTooLong: an input exceeds ``context_length``.
            EngineBusy: the queue is full.
        """


Measured = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids that stand before, one at least, and those that are asked about."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of tokens that were given: the log-probability (natural) of each after all before it, and
    whether each was the likeliest at its place."""

    logprobs: tuple[float, ...]
    greedy: bool

    @property
    def total(self) -> float:
        return sum(self.logprobs)


@runtime_checkable
class Scorer(Protocol):
    """What an engine may do beside generating: say how likely given tokens are. The gateway needs
    none of it; ``isinstance(engine, Scorer)`` tells."""

    async def likelihoods(self, pairs: Sequence[Measured]) -> list[Likelihood]:
        """In order; by the weights that serve, many in one pass.

        Raises:
            PromptTooLong: a pair exceeds ``context_length``.
            Unsupported: the server behind this engine does not tell; the sentence says why.
            EngineError: the engine failed.
            ValueError: nothing stands before, or an id that the model does not know.
        """


class Engine(Protocol):
    """What the gateway and the evaluation need of a model."""

    @property
    def embedder(self) -> Embedder | None:
        """None where the model makes text only."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion together."""

    @property
    def occupancy(self) -> Occupancy:
        """For metrics and routing; cheap."""

    def prepare(self, chat: Chat) -> Prompt:
        """Renders and counts. Thread-safe.

        Raises:
            RenderError: the template refuses the messages.
            Unsupported: the model makes no text.
        """

    def prepare_text(self, text: str) -> Prompt:
        """Counts a text that goes to the model as it is, without a template. Thread-safe.

        Raises:
            Unsupported: the engine takes conversations only, or the model makes no text.
        """

    async def check(self, sampling: Sampling) -> None:
        """Whether this engine can serve ``sampling``, before anything is held for it. A grammar is
        compiled here, off the event loop, so that ``generate`` need not wait for it.

        Raises:
            Unsupported: it cannot; ``field`` names what.
            ValueError: a grammar that is wrong or too large, a token id that does not exist.
        """

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        """Starts at once; ``usage.reasoning`` counts the tokens up to ``</think>``.

        Raises:
            Unsupported, ValueError: as ``check``, where that is known at once.
            PromptTooLong: ``len(prompt.ids) + max_tokens`` exceeds ``context_length``.
            EngineBusy: the queue is full.
        """

    async def close(self) -> None:
        """Cancels everything and frees the model."""
