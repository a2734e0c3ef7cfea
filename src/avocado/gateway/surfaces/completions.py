"""``POST /v1/completions``: texts go on as they are, without a chat template.

What comes out is the model's text as it stands: no thoughts are set apart and no tool is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from avocado.data.chat import Prompt
from avocado.engine.engine import Delta, Finish, TokenLogprob
from avocado.gateway.errors import ApiError, bad_request, unsupported
from avocado.gateway.surface import Answer, Ask, Bill, Raw, Serving
from avocado.gateway.surfaces.chat_completions import StreamOptions
from avocado.gateway.wire import (
    LEAST,
    MAX_CHOICES,
    CompletionUsage,
    Neutral,
    Short,
    encode,
    read_bias,
    read_json,
    read_stops,
    refuse_set,
    usage_of,
)

DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's, on this endpoint alone."""
MAX_ANSWERS: Final = 16
"""Prompts times ``n``."""

NEUTRAL: Final[Neutral] = {"best_of": (1,), "echo": (False,), "suffix": ()}

Text = Annotated[str, Meta(min_length=1)]


class CompletionRequest(Struct, forbid_unknown_fields=True):
    model: str
    prompt: Text | Annotated[list[Text], Meta(min_length=1, max_length=MAX_ANSWERS)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | None
    ) = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Short | None = None
    best_of: Any = None
    echo: Any = None
    suffix: Any = None


class TextLogprobs(Struct):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(Struct):
    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(Struct):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: CompletionUsage


_decode = msgspec.json.Decoder(CompletionRequest).decode


class Completions:
    """The surface of ``POST /v1/completions``."""

    names: Mapping[str, str] = {"messages": "prompt", "top_logprobs": "logprobs"}

    def read(self, body: bytes) -> Ask:
        request: CompletionRequest = read_json(_decode, body)
        refuse_set(request, NEUTRAL)
        options, stream = request.stream_options, request.stream is True
        if options is not None and not stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        if request.logprobs is not None and request.logit_bias:
            raise unsupported("logprobs", "logprobs and logit_bias exclude each other")
        texts = (request.prompt,) if isinstance(request.prompt, str) else tuple(request.prompt)
        if len(texts) * (request.n or 1) > MAX_ANSWERS:
            raise bad_request(f"Prompts times n may be {MAX_ANSWERS} at most", "n")
        return Ask(
            model=request.model,
            prompt=Raw(texts),
            stream=stream,
            usage_wanted=options is not None and options.include_usage is True,
            max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            n=request.n or 1,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            top_k=request.top_k or 0,
            seed=request.seed,
            stop=read_stops(request.stop),
            presence_penalty=request.presence_penalty or 0.0,
            frequency_penalty=request.frequency_penalty or 0.0,
            logit_bias=read_bias(request.logit_bias),
            logprobs=request.logprobs is not None,
            top_logprobs=request.logprobs or 0,
            user=request.user,
        )

    def voice(self, ask: Ask, serving: Serving, prompts: Sequence[Prompt]) -> CompletionVoice:
        return CompletionVoice(ask, serving, ask.n * len(prompts))


class CompletionVoice:
    """Writes the answers to one ask, whole or as server-sent events."""

    def __init__(self, ask: Ask, serving: Serving, answers: int) -> None:
        self._ask = ask
        self._head = {
            "id": f"cmpl-{serving.id}",
            "object": "text_completion",
            "created": serving.created,
            "model": serving.model,
            "system_fingerprint": serving.release,
        }
        self._open = b"data: " + encode(self._head)[:-1]
        self._null = b',"usage":null' if ask.usage_wanted else b""
        self._places = [0] * answers
        """How long each text is so far, in characters."""

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        choices = [
            TextChoice(
                answer.text, number, self._told(number, answer.logprobs), answer.finish.reason
            )
            for number, answer in enumerate(answers)
        ]
        return encode({**self._head, "choices": choices, "usage": usage_of(bill)})

    def first(self) -> bytes:
        return b""

    def delta(self, choice: int, delta: Delta) -> bytes:
        return self._chunk(choice, delta.text, self._told(choice, delta.logprobs), None)

    def last(self, ends: Sequence[Finish], bill: Bill) -> bytes:
        parts = [self._chunk(choice, "", None, end.reason) for choice, end in enumerate(ends)]
        if self._ask.usage_wanted:
            usage = encode(usage_of(bill))
            parts.append(self._open + b',"choices":[],"usage":' + usage + b"}\n\n")
        return b"".join(parts) + b"data: [DONE]\n\n"

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        told = b',"choices":[],"error":' + encode(error.fields())
        usage = b',"usage":' + encode(usage_of(bill)) if bill and self._ask.usage_wanted else b""
        return self._open + told + usage + b"}\n\ndata: [DONE]\n\n"

    def _chunk(
        self, choice: int, text: str, logprobs: TextLogprobs | None, reason: str | None
    ) -> bytes:
        chosen = {"text": text, "index": choice, "logprobs": logprobs, "finish_reason": reason}
        return self._open + b',"choices":[' + encode(chosen) + b"]" + self._null + b"}\n\n"

    def _told(self, choice: int, tokens: Sequence[TokenLogprob]) -> TextLogprobs | None:
        if not self._ask.logprobs:
            return None
        told = TextLogprobs([], [], [] if self._ask.top_logprobs else None, [])
        for token in tokens:
            told.tokens.append(token.text)
            told.token_logprobs.append(max(token.logprob, LEAST))
            told.text_offset.append(self._places[choice])
            self._places[choice] += len(token.text)
            if told.top_logprobs is not None:
                told.top_logprobs.append(
                    {each.text: max(each.logprob, LEAST) for each in token.top}
                )
        return told
