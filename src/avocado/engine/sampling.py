"""Sampling: how one request wants its tokens chosen. Frozen values, checked when they are made.

Knows what is allowed and nothing of how it is done. What one engine cannot do is for that engine to
refuse (``Unsupported``); what no engine may do is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TOP_LOGPROBS: Final = 5
"""More of the distribution than this would help to copy the model's last layer (Carlini et al.
2024, arXiv 2403.06634); for the same reason ``logit_bias`` excludes log-probabilities."""

PENALTY: Final = 2.0
BIAS: Final = 100.0
BIASED: Final = 1024
"""Tokens that one request may bias."""


@dataclass(frozen=True, slots=True)
class Json:
    """The text is one JSON object, whatever is in it."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The text is JSON that ``schema``, the JSON text of a JSON Schema, allows."""

    schema: str


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole text matches ``pattern``."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Calls:
    """The text's tool calls, in Qwen's Hermes form, are such as ``schemas`` allow: the name of each
    tool, and the JSON text of its arguments' JSON Schema. ``must``: the text is a call or several,
    else they stand anywhere in it. Not ``several``: it ends after its first call."""

    schemas: tuple[tuple[str, str], ...]
    must: bool
    several: bool


Grammar = Json | JsonSchema | Regex | Calls
"""What a text must be. Only the maximum of tokens or a stop string may cut it short."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens.

    * ``temperature`` 0 is greedy; ``top_k`` 0 is off. The same ``seed`` gives the same text.
    * ``stop`` strings end the text and are not part of it; ``stop_ids`` end it as the model's own
      stop tokens do.
    * ``presence_penalty`` is taken once, ``frequency_penalty`` each time, from the logit of a token
      that this answer has in it already (OpenAI's meaning: the prompt does not count).
    * ``logit_bias``: ``(token id, addend)``; 100 all but ensures a token and -100 bans it.
    * ``logprobs`` reports each token's log-probability, and ``top_logprobs`` of the likeliest
      beside it: the model's own, before temperature, penalties and grammar.
    * ``cache_salt``: prompts with the same one may share a cache; "" shares with nobody's.

    Raises:
        ValueError: a value is out of range; the sentence names it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    grammar: Grammar | None = None
    cache_salt: str = ""

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
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not -PENALTY <= value <= PENALTY:
                raise ValueError(f"{name} must be from -2 to 2, not {value}")
        self._check_bias()
        self._check_logprobs()

    def _check_bias(self) -> None:
        if len(self.logit_bias) > BIASED:
            raise ValueError(f"logit_bias may name {BIASED} tokens, not {len(self.logit_bias)}")
        if len({token for token, _ in self.logit_bias}) < len(self.logit_bias):
            raise ValueError("logit_bias names a token twice")
        for token, bias in self.logit_bias:
            if token < 0:
                raise ValueError(f"logit_bias names a token {token}; ids begin at 0")
            if not -BIAS <= bias <= BIAS:
                raise ValueError(
                    f"logit_bias of token {token} must be from -100 to 100, not {bias}"
                )

    def _check_logprobs(self) -> None:
        if not 0 <= self.top_logprobs <= TOP_LOGPROBS:
            raise ValueError(
                f"top_logprobs must be from 0 to {TOP_LOGPROBS}, not {self.top_logprobs}"
            )
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.logprobs and self.logit_bias:
            raise ValueError(
                "logprobs and logit_bias exclude each other: together they give the model away"
            )
