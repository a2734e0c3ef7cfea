"""The wire: JSON in, JSON and server-sent events out, as every surface needs them.

Parsing is strict. A parameter that is not served is a 400 that names it, unless it stands at the
value that changes nothing (``n: 1``, ``tools: []``); nothing is silently ignored. Knows nothing
about money, engines or sockets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from avocado.engine.engine import TokenLogprob
from avocado.gateway.errors import ApiError, bad_request, unsupported
from avocado.gateway.surface import Bill

MAX_STOPS: Final = 4
MAX_STOP: Final = 512
MAX_CHOICES: Final = 8
"""Answers to one request."""

Short = Annotated[str, Meta(max_length=512)]
Neutral = Mapping[str, tuple[Any, ...]]
"""Parameters that are not served, and the values beside null at which they change nothing."""
Number = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "number"})]
"""An exact decimal."""

encode = msgspec.json.Encoder().encode
_UNKNOWN = re.compile(r"unknown field `(.*?)`(?: - at `\$\.?(.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(.*?)`(?: - at `\$\.?(.*)`)?$")
_PLACE = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)


def read_json(decode: Any, body: bytes) -> Any:
    """Decodes one body; every way in which it can be wrong is a 400 that says where."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body is not valid JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply", code="invalid_json") from None


def _misfit(said: str) -> ApiError:
    unknown = _UNKNOWN.search(said)
    if unknown is not None:
        name = ".".join(part for part in (unknown.group(2), unknown.group(1)) if part)
        return bad_request(f"Unknown parameter: {name!r}", name, "unknown_parameter")
    missing = _MISSING.search(said)
    if missing is not None:
        name = ".".join(part for part in (missing.group(2), missing.group(1)) if part)
        return bad_request(f"Missing required parameter: {name!r}", name, "missing_parameter")
    place = _PLACE.search(said)
    if place is None:
        return bad_request(f"The body must be a JSON object: {said}")
    name = place.group(1).removesuffix("[...]")  # msgspec does not say which value of a mapping
    return bad_request(f"Invalid value for {name}: {said[: place.start()]}", name)


def refuse_set(value: Struct, neutral: Neutral, prefix: str = "") -> None:
    """Refuses what is not served, by name.

    Raises:
        ApiError: 400.
    """
    for name, harmless in neutral.items():
        given = getattr(value, name)
        if given is None or any(type(given) is type(h) and given == h for h in harmless):
            continue
        raise unsupported(prefix + name)


def read_stops(stop: str | Sequence[str] | None, name: str = "stop") -> tuple[str, ...]:
    """Raises ApiError: 400, too many, too long, or empty."""
    found = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if len(found) > MAX_STOPS:
        raise bad_request(f"Invalid value for {name}: at most {MAX_STOPS} strings", name)
    if not all(0 < len(each) <= MAX_STOP for each in found):
        raise bad_request(
            f"Invalid value for {name}: each string has 1 to {MAX_STOP} characters", name
        )
    return found


def read_bias(given: Mapping[str, float] | None) -> tuple[tuple[int, float], ...]:
    """OpenAI's ``logit_bias``, whose keys are token ids in digits.

    Raises:
        ApiError: 400, a key that is no number.
    """
    pairs = []
    for token, bias in (given or {}).items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise bad_request(
                f"Invalid value for logit_bias: {token[:50]!r} is no token id", "logit_bias"
            )
        pairs.append((int(token), bias))
    return tuple(pairs)


# -- what answers have in common -----------------------------------------------------------------


class PromptDetails(Struct):
    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(Struct):
    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(Struct):
    """OpenAI's usage object, and ``cost``: the exact charge in units of the currency."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    cost: Number
    cost_currency: str


def usage_of(bill: Bill) -> CompletionUsage:
    usage = bill.usage
    return CompletionUsage(
        usage.prompt,
        usage.completion,
        usage.total,
        PromptDetails(usage.cached),
        CompletionDetails(usage.reasoning),
        cost_of(bill),
        bill.cost.currency,
    )


def cost_of(bill: Bill) -> Any:
    return msgspec.Raw(bill.cost.decimal().encode())


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class Logprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


LEAST: Final = -9999.0
"""What OpenAI says for a probability of nought: JSON knows no infinity."""


def logprobs_of(tokens: Sequence[TokenLogprob]) -> list[Logprob]:
    return [
        Logprob(
            token.text,
            max(token.logprob, LEAST),
            list(token.bytes),
            [TopLogprob(t.text, max(t.logprob, LEAST), list(t.bytes)) for t in token.top],
        )
        for token in tokens
    ]


def named_event(kind: str, data: Any) -> bytes:
    """A server-sent event with a name. JSON holds no line break, so content can't end it."""
    return b"event: " + kind.encode() + b"\ndata: " + encode(data) + b"\n\n"
