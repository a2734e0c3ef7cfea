"""How a chat completion is written, whole or as server-sent events.

What repeats in every event is encoded once; text is always a JSON string, so an answer that
contains ``data: [DONE]`` stays content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from avocado.data.chat import Prompt
from avocado.engine.engine import Delta, Finish, TokenLogprob
from avocado.engine.reply import Argued, Called, Piece, Said, Thought
from avocado.gateway.errors import ApiError
from avocado.gateway.surface import Answer, Ask, Bill, Serving
from avocado.gateway.surfaces.reading import AnswerReason, Reading, read_whole
from avocado.gateway.wire import CompletionUsage, Logprob, encode, logprobs_of, usage_of


class AnswerFunction(Struct):
    name: str
    arguments: str


class AnswerCall(Struct):
    id: str
    type: Literal["function"]
    function: AnswerFunction


class AnswerMessage(Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[AnswerCall] | UnsetType = UNSET


class ChoiceLogprobs(Struct):
    content: list[Logprob]
    refusal: None = None


class ChatChoice(Struct):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: AnswerReason


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChatVoice:
    """Writes the answers to one ask."""

    def __init__(self, ask: Ask, serving: Serving, prompt: Prompt) -> None:
        self._ask = ask
        self._serving = serving
        self._prompt = prompt
        if not ask.stream:
            return
        self._readings = [Reading(ask, prompt) for _ in range(ask.n)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(ask.n)]
        """Of text that is held back: they come with the next piece."""
        self._null = b',"usage":null' if ask.usage_wanted else b""
        self._open = b"data: " + encode(self._head("chat.completion.chunk"))[:-1]
        self._said = [
            self._open + b',"choices":[{"index":%d,"delta":{"content":' % choice
            for choice in range(ask.n)
        ]
        self._end = b'},"logprobs":null,"finish_reason":null}]' + self._null + b"}\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        serving = self._serving
        return {
            "id": f"chatcmpl-{serving.id}",
            "object": kind,
            "created": serving.created,
            "model": serving.model,
            "system_fingerprint": serving.release,
        }

    # -- a whole answer --------------------------------------------------------------------------

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        choices = [self._choice(number, answer) for number, answer in enumerate(answers)]
        return encode(
            ChatCompletion(**self._head("chat.completion"), choices=choices, usage=usage_of(bill))
        )

    def _choice(self, number: int, answer: Answer) -> ChatChoice:
        pieces, reason = read_whole(self._ask, self._prompt, answer)
        said = "".join(piece.text for piece in pieces if isinstance(piece, Said))
        thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
        calls = [
            AnswerCall(self._call_id(number, piece), "function", _function(piece))
            for piece in pieces
            if isinstance(piece, Called)
        ]
        message = AnswerMessage(
            "assistant",
            said or None if calls else said,
            reasoning_content=thought or UNSET,
            tool_calls=calls or UNSET,
        )
        told = ChoiceLogprobs(logprobs_of(answer.logprobs)) if self._ask.logprobs else None
        return ChatChoice(number, message, told, reason)

    def _call_id(self, choice: int, call: Called) -> str:
        return f"call_{self._serving.id.removeprefix('req_')}_{choice}_{call.index}"

    # -- a stream --------------------------------------------------------------------------------

    def first(self) -> bytes:
        return b"".join(
            self._chunk(choice, {"role": "assistant", "content": ""})
            for choice in range(self._ask.n)
        )

    def delta(self, choice: int, delta: Delta) -> bytes:
        pieces = self._readings[choice].feed(delta.text)
        if not self._ask.logprobs and len(pieces) == 1 and type(pieces[0]) is Said:
            return self._said[choice] + encode(pieces[0].text) + self._end
        self._logprobs[choice] += delta.logprobs
        return self._pieces(choice, pieces)

    def last(self, ends: Sequence[Finish], bill: Bill) -> bytes:
        parts = []
        for choice, end in enumerate(ends):
            parts.append(self._rest(choice))
            reason = self._readings[choice].reason(end.reason)
            parts.append(self._closing(choice, reason) + self._null + b"}\n\n")
        if self._ask.usage_wanted:
            usage = encode(usage_of(bill))
            parts.append(self._open + b',"choices":[],"usage":' + usage + b"}\n\n")
        return b"".join(parts) + b"data: [DONE]\n\n"

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        parts = []
        for choice in range(self._ask.n):
            parts.append(self._rest(choice))
            if choice:
                parts.append(self._closing(choice, "error") + self._null + b"}\n\n")
        usage = b',"usage":' + encode(usage_of(bill)) if bill and self._ask.usage_wanted else b""
        told = b',"error":' + encode(error.fields())
        closing = self._closing(0, "error") + usage + told + b"}\n\ndata: [DONE]\n\n"
        return b"".join(parts) + closing

    def _rest(self, choice: int) -> bytes:
        """What was held back."""
        written = self._pieces(choice, self._readings[choice].end())
        if self._logprobs[choice]:
            written += self._chunk(choice, {"content": ""}, self._told(choice))
        return written

    def _pieces(self, choice: int, pieces: list[Piece]) -> bytes:
        parts = []
        for piece in pieces:
            parts.append(self._chunk(choice, self._fields(choice, piece), self._told(choice)))
        return b"".join(parts)

    def _told(self, choice: int) -> bytes:
        waiting = self._logprobs[choice]
        if not waiting:
            return b"null"
        self._logprobs[choice] = []
        return encode(ChoiceLogprobs(logprobs_of(waiting)))

    def _fields(self, choice: int, piece: Piece) -> dict[str, Any]:
        match piece:
            case Said():
                return {"content": piece.text}
            case Thought():
                return {"reasoning_content": piece.text}
            case Called():
                return {
                    "tool_calls": [
                        {
                            "index": piece.index,
                            "id": self._call_id(choice, piece),
                            "type": "function",
                            "function": _function(piece),
                        }
                    ]
                }
            case Argued():
                more = {"index": piece.index, "function": {"arguments": piece.text}}
                return {"tool_calls": [more]}

    def _chunk(self, choice: int, delta: dict[str, Any], logprobs: bytes = b"null") -> bytes:
        return b"".join(
            (
                self._open,
                b',"choices":[{"index":%d,"delta":' % choice,
                encode(delta),
                b',"logprobs":',
                logprobs,
                b',"finish_reason":null}]',
                self._null,
                b"}\n\n",
            )
        )

    def _closing(self, choice: int, reason: str) -> bytes:
        return (
            self._open
            + b',"choices":[{"index":%d,"delta":{},"logprobs":null,"finish_reason":' % choice
            + encode(reason)
            + b"}]"
        )


def _function(call: Called) -> AnswerFunction:
    return AnswerFunction(call.name, call.arguments)
