"""Surface: how one endpoint's JSON becomes an Ask, and how the answer is written back.

The paid path (``chat``) knows only these shapes. ``/v1/chat/completions`` is the first surface
(``wire``); each further one is another pair of translations, and no second paid path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from avocado.data.chat import Chat
from avocado.engine.engine import FinishReason
from avocado.gateway.errors import ApiError
from avocado.terms.money import Money
from avocado.terms.usage import Usage


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client wants, whatever endpoint it came in by. Checked, but priced by nobody yet.

    ``max_tokens`` None leaves the bound to the server. ``usage_wanted`` asks a stream for its
    usage; whole answers always carry it.
    """

    model: str
    chat: Chat
    stream: bool = False
    usage_wanted: bool = False
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What an answer says of its origin: request id, Unix time, public model name, release id."""

    id: str
    created: int
    model: str
    release: str


@dataclass(frozen=True, slots=True)
class Bill:
    """What was consumed and what the ledger charged for it, after the settlement is durable."""

    usage: Usage
    cost: Money


EndReason = FinishReason | Literal["error"]


class Voice(Protocol):
    """Writes one answer: ``whole`` for a plain request; ``first``, ``delta``… and then ``last`` or
    ``broken`` for a stream. All return bytes of the HTTP body.
    """

    def whole(self, text: str, reason: FinishReason, bill: Bill) -> bytes: ...

    def first(self) -> bytes: ...

    def delta(self, text: str) -> bytes: ...

    def last(self, reason: FinishReason, bill: Bill) -> bytes: ...

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        """The stream ends in an error after tokens went out; ``bill`` if they were charged."""


class Surface(Protocol):
    """One endpoint's translations."""

    def read(self, body: bytes) -> Ask:
        """Parses strictly.

        Raises:
            ApiError: 400 that names the parameter, as its clients expect.
        """

    def voice(self, ask: Ask, serving: Serving) -> Voice: ...
