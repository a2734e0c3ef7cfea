"""Surface: how one endpoint's JSON becomes an Ask, and how the answer is written back.

The paid path (``chat``) knows only these shapes. Each endpoint that sells tokens is a pair of
translations in ``surfaces/``, and no second paid path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Delta, Finish, Grammar, TokenLogprob
from avocado.gateway.errors import ApiError
from avocado.terms.money import Money
from avocado.terms.usage import Usage


@dataclass(frozen=True, slots=True)
class Raw:
    """Texts that go to the model as they are, without a chat template; each is answered."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inputs(Raw):
    """Texts, or instead token ids, of which vectors are made. ``dimensions``: numbers of each, None
    for the model's own. ``packed`` is how the answer writes them."""

    ids: tuple[tuple[int, ...], ...] = ()
    dimensions: int | None = None
    packed: bool = False


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What a client wants, whatever endpoint it came in by. Checked, but priced by nobody yet.

    ``max_tokens`` None leaves the bound to the server. ``usage_wanted`` asks a stream for its
    usage; whole answers always carry it. ``n`` answers are made of each prompt. ``forced`` says
    that the answer must be calls of tools, by a grammar that stands in ``grammar``.
    ``grammar_from`` is the parameter that a wrong grammar is blamed on, ``max_from`` the one that
    said ``max_tokens``.
    """

    model: str
    prompt: Chat | Raw
    stream: bool = False
    usage_wanted: bool = False
    max_tokens: int | None = None
    max_from: str = "max_tokens"
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    grammar: Grammar | None = None
    grammar_from: str = "response_format"
    forced: bool = False
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


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer as the engine gave it."""

    text: str
    finish: Finish
    logprobs: tuple[TokenLogprob, ...] = ()


class Voice(Protocol):
    """Writes the answers to one ask: ``whole`` for a plain request; ``first``, ``delta``… and then
    ``last`` or ``broken`` for a stream. All return bytes of the HTTP body. ``choice`` counts the
    answers from 0: the first prompt's, then the next one's.
    """

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes: ...

    def first(self) -> bytes: ...

    def delta(self, choice: int, delta: Delta) -> bytes:
        """Nothing while it is not certain yet what the text means."""

    def last(self, ends: Sequence[Finish], bill: Bill) -> bytes: ...

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        """The stream ends in an error after tokens went out; ``bill`` if they were charged."""


class Surface(Protocol):
    """One endpoint's translations."""

    names: Mapping[str, str]
    """What this endpoint calls the parameters that the paid path names, where it differs."""

    def read(self, body: bytes) -> Ask:
        """Parses strictly.

        Raises:
            ApiError: 400 that names the parameter, as its clients expect.
        """

    def voice(self, ask: Ask, serving: Serving, prompts: Sequence[Prompt]) -> Voice: ...
