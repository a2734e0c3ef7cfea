"""``POST /v1/embeddings``: texts, or token ids, become vectors.

One request is one hold of its exact prompt tokens; there is nothing to generate and no stream.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NoReturn

from msgspec import Meta, Struct
from msgspec.json import Decoder

from avocado.data.chat import Prompt
from avocado.engine.engine import Delta, Finish
from avocado.gateway.errors import ApiError, bad_request
from avocado.gateway.surface import Answer, Ask, Bill, Inputs, Serving
from avocado.gateway.wire import Number, Short, cost_of, encode, read_json

MAX_INPUTS: Final = 2048
"""Texts of one request; OpenAI's."""

Text = Annotated[str, Meta(min_length=1)]
Token = Annotated[int, Meta(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Meta(min_length=1)]
_ONE: Final = {"type": "array", "minItems": 1}
_TOKENS: Final = {**_ONE, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_SHAPES: Final = [
    {"type": "string", "minLength": 1},
    {**_ONE, "maxItems": MAX_INPUTS, "items": {"type": "string", "minLength": 1}},
    _TOKENS,
    {**_ONE, "maxItems": MAX_INPUTS, "items": _TOKENS},
]
"""What a type cannot say: a list is of one kind throughout."""


class EmbeddingRequest(Struct, forbid_unknown_fields=True):
    model: str
    input: Annotated[
        Text | Annotated[list[Text | Token | Tokens], Meta(min_length=1)],
        Meta(extra_json_schema={"anyOf": _SHAPES}),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    user: Short | None = None


class Embedding(Struct):
    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct):
    prompt_tokens: int
    total_tokens: int
    cost: Number
    cost_currency: str


class EmbeddingList(Struct):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


_decode = Decoder(EmbeddingRequest).decode


class Embeddings:
    """The surface of ``POST /v1/embeddings``."""

    names: Mapping[str, str] = {"messages": "input", "prompt": "input"}

    def read(self, body: bytes) -> Ask:
        request: EmbeddingRequest = read_json(_decode, body)
        texts, ids = _read_input(request.input)
        return Ask(
            model=request.model,
            prompt=Inputs(
                texts, ids, request.dimensions, packed=request.encoding_format == "base64"
            ),
            user=request.user,
        )

    def voice(self, ask: Ask, serving: Serving, prompts: Sequence[Prompt]) -> EmbeddingVoice:
        assert isinstance(ask.prompt, Inputs)
        return EmbeddingVoice(serving.model, ask.prompt.packed)


class EmbeddingVoice:
    """Writes all vectors of one request."""

    def __init__(self, model: str, packed: bool) -> None:
        self._model = model
        self._write = _packed if packed else _numbers

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        (answer,) = answers
        data = [
            Embedding(place, self._write(vector))
            for place, vector in enumerate(answer.finish.vectors)
        ]
        count = bill.usage.prompt
        usage = EmbeddingUsage(count, count, cost_of(bill), bill.cost.currency)
        return encode(EmbeddingList(data, self._model, usage))

    def first(self) -> NoReturn:
        raise AssertionError("vectors are not streamed")

    def delta(self, choice: int, delta: Delta) -> NoReturn:
        self.first()

    def last(self, ends: Sequence[Finish], bill: Bill) -> NoReturn:
        self.first()

    def broken(self, error: ApiError, bill: Bill | None) -> NoReturn:
        self.first()


def _read_input(given: Any) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Texts or token ids; the other is empty."""
    if isinstance(given, str):
        return (given,), ()
    kinds = {type(each) for each in given}
    if kinds == {int}:
        return (), (tuple(given),)
    if len(kinds) > 1:
        raise bad_request(
            "Invalid value for input: a list is of texts, of token ids, or of lists of those",
            "input",
        )
    if len(given) > MAX_INPUTS:
        raise bad_request(
            f"Invalid value for input: {len(given)} inputs, at most {MAX_INPUTS}", "input"
        )
    return (tuple(given), ()) if kinds == {str} else ((), tuple(map(tuple, given)))


def _packed(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _numbers(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
