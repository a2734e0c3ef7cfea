"""The Engine protocol: count a prompt exactly, generate deltas and then usage, cancel.

An engine knows tokens. It knows nothing about money, customers or HTTP. All its methods are called
from one asyncio event loop; what computes for long does so elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

from avocado.data.chat import Chat, Prompt
from avocado.terms.usage import Usage

FinishReason = Literal["stop", "length"]


class EngineError(Exception):
    """The engine could not serve; ``retryable`` says whether another try may succeed."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class EngineBusy(EngineError):
    """The engine's queue is full: answer 429 or 503 with Retry-After."""

    def __init__(self, message: str = "the engine's queue is full") -> None:
        super().__init__(message, retryable=True)


class PromptTooLong(ValueError):
    """Prompt and allowed completion do not fit the context."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. ``temperature`` 0 is greedy; ``top_k`` 0 is off; ``stop`` are strings
    that end the text and are not part of it. The same ``seed`` gives the same text.

    Raises:
        ValueError: a value is out of range; the sentence names it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 or more, not {self.top_k}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed must be a 64-bit integer, not {self.seed}")
        if not all(self.stop):
            raise ValueError("a stop string must not be empty")


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text, never empty. ``completion`` is the number of tokens generated so far, this
    piece included: what is billed if the client leaves now. The stop token that the model emits is
    a completion token like any other, here and in ``Finish``, whatever the engine."""

    text: str
    completion: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event: why it ended, and the exact count."""

    reason: FinishReason
    usage: Usage


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


class Engine(Protocol):
    """What the gateway and the evaluation need of a model."""

    context_length: int

    def prepare(self, chat: Chat) -> Prompt:
        """Renders and counts. Thread-safe.

        Raises:
            RenderError: the template refuses the messages.
        """

    def generate(self, prompt: Prompt, sampling: Sampling) -> Generation:
        """Starts at once.

        Raises:
            PromptTooLong: ``len(prompt.ids) + max_tokens`` exceeds ``context_length``.
            EngineBusy: the queue is full.
        """

    async def close(self) -> None:
        """Cancels everything and frees the model."""
