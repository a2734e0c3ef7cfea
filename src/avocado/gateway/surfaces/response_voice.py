"""How a response of ``/v1/responses`` is written: items, whole or as numbered events in order.

An item opens with ``output_item.added``, its text comes between ``content_part.added`` and
``content_part.done``, and ``output_item.done`` closes it; a response ends as ``completed``,
``incomplete`` or ``failed``, and that event carries all of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from avocado.data.chat import Prompt
from avocado.engine.engine import Delta, Finish, TokenLogprob
from avocado.engine.reply import Argued, Called, Piece, Said, Thought, joined
from avocado.gateway.errors import ApiError
from avocado.gateway.surface import Answer, Ask, Bill, Serving
from avocado.gateway.surfaces.reading import Reading
from avocado.gateway.wire import Logprob, Number, cost_of, encode, logprobs_of, named_event

Status = Literal["in_progress", "completed", "incomplete"]


class ResponsesAsk(Ask, frozen=True, gc=False):
    """``echo``: what the response repeats of its request."""

    echo: Mapping[str, Any] = {}


class OutputText(Struct, tag="output_text", tag_field="type"):
    text: str
    annotations: list[str]
    logprobs: list[Logprob]


class OutputMessage(Struct, tag="message", tag_field="type"):
    id: str
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class ReasoningText(Struct, tag="reasoning_text", tag_field="type"):
    text: str


class ReasoningItem(Struct, tag="reasoning", tag_field="type"):
    id: str
    summary: list[str]
    content: list[ReasoningText]
    status: Status


class FunctionCallItem(Struct, tag="function_call", tag_field="type"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


Item = OutputMessage | ReasoningItem | FunctionCallItem


class InputDetails(Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct):
    reasoning_tokens: int


class ResponseUsage(Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int
    cost: Number
    cost_currency: str


class IncompleteDetails(Struct):
    reason: Literal["max_output_tokens"]


class ResponseError(Struct):
    code: Literal["server_error"]
    message: str


class Response(Struct):
    """A response; the fields without a meaning here stand at what they always are."""

    id: str
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[Item]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    usage: ResponseUsage | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    reasoning: dict[str, Any]
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    user: str | None
    object: Literal["response"] = "response"
    background: bool = False
    frequency_penalty: float = 0.0
    max_tool_calls: int | None = None
    presence_penalty: float = 0.0
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["default"] = "default"
    store: bool = False
    truncation: Literal["disabled"] = "disabled"


def usage_of(bill: Bill) -> ResponseUsage:
    usage = bill.usage
    return ResponseUsage(
        usage.prompt,
        InputDetails(usage.cached),
        usage.completion,
        OutputDetails(usage.reasoning),
        usage.total,
        cost_of(bill),
        bill.cost.currency,
    )


class ResponseVoice:
    """Writes the answer to one ask."""

    def __init__(self, ask: ResponsesAsk, serving: Serving, prompt: Prompt) -> None:
        self._ask = ask
        self._serving = serving
        self._reading = Reading(ask, prompt)
        self._sequence = 1  # the last of the events that ``first`` writes, perhaps later
        self._done: list[Item] = []
        self._kind: type[Piece] | None = None
        self._call = Called(0, "", "")
        """The call that is under way, where ``_kind`` says so."""
        self._text: list[str] = []
        self._logprobs: list[Logprob] = []
        self._waiting: list[TokenLogprob] = []
        """Log-probabilities of tokens whose meaning is not certain yet."""
        self._tokens = 0
        """How many tokens were told, or left out because they were thought."""

    # -- a whole answer --------------------------------------------------------------------------

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        (answer,) = answers
        status: Status = "incomplete" if answer.finish.reason == "length" else "completed"
        pieces = joined([*self._reading.feed(answer.text), *self._reading.end()])
        told = logprobs_of(answer.logprobs[answer.finish.usage.reasoning :])
        for piece in pieces or [Said("")]:
            self._done.append(self._item(piece, "completed", told))
            if isinstance(piece, Said):
                told = []
        if status == "incomplete":
            self._done[-1].status = status
        return encode(self._response(status, bill))

    def _item(self, piece: Piece, status: Status, told: list[Logprob]) -> Item:
        place = len(self._done)
        name = self._serving.id
        match piece:
            case Said():
                part = OutputText(piece.text, [], told)
                return OutputMessage(f"msg_{name}_{place}", status, "assistant", [part])
            case Thought():
                return ReasoningItem(f"rs_{name}_{place}", [], [ReasoningText(piece.text)], status)
            case Called():
                call = f"call_{name.removeprefix('req_')}_{piece.index}"
                return FunctionCallItem(
                    f"fc_{name}_{place}", call, piece.name, piece.arguments, status
                )
            case Argued():
                raise AssertionError("an item holds a whole call")

    def _response(
        self,
        status: Literal["in_progress", "completed", "incomplete", "failed"],
        bill: Bill | None = None,
        error: ApiError | None = None,
    ) -> Response:
        serving = self._serving
        return Response(
            id=f"resp_{serving.id}",
            created_at=serving.created,
            completed_at=int(time.time()) if status == "completed" else None,
            status=status,
            model=serving.model,
            output=self._done,
            error=ResponseError("server_error", error.message) if error else None,
            incomplete_details=(
                IncompleteDetails("max_output_tokens") if status == "incomplete" else None
            ),
            usage=usage_of(bill) if bill else None,
            **self._ask.echo,
        )

    # -- a stream --------------------------------------------------------------------------------

    def first(self) -> bytes:
        response = self._response("in_progress")
        response.output = []
        return b"".join(
            named_event(kind, {"type": kind, "sequence_number": number, "response": response})
            for number, kind in enumerate(("response.created", "response.in_progress"))
        )

    def delta(self, choice: int, delta: Delta) -> bytes:
        self._waiting += delta.logprobs
        return self._pieces(self._reading.feed(delta.text), delta.reasoning)

    def last(self, ends: Sequence[Finish], bill: Bill) -> bytes:
        (end,) = ends
        status: Status = "incomplete" if end.reason == "length" else "completed"
        pieces = self._reading.end()
        if not pieces and self._kind is None and not self._done:
            pieces = [Said("")]
        rest = self._pieces(pieces, end.usage.reasoning)
        closed = rest + self._close(status)
        response = self._response(status, bill)
        return closed + self._event(f"response.{status}", response=response)

    def broken(self, error: ApiError, bill: Bill | None) -> bytes:
        rest = self._pieces(self._reading.end(), 0) + self._close("incomplete")
        response = self._response("failed", bill, error)
        return rest + self._event("response.failed", response=response)

    def _pieces(self, pieces: Sequence[Piece], reasoning: int) -> bytes:
        parts = []
        for piece in pieces:
            if isinstance(piece, Called):
                parts.append(self._close("completed") + self._open_call(piece))
                continue
            if isinstance(piece, Argued):
                parts.append(self._argued(piece.text))
                continue
            if self._kind is not type(piece):
                parts.append(self._close("completed") + self._open(piece))
            parts.append(self._more(piece, reasoning))
        return b"".join(parts)

    def _more(self, piece: Said | Thought, reasoning: int) -> bytes:
        self._text.append(piece.text)
        if isinstance(piece, Thought):
            return self._event("response.reasoning_text.delta", **self._at(), delta=piece.text)
        thought = max(0, reasoning - self._tokens)
        self._tokens += len(self._waiting)
        told = logprobs_of(self._waiting[thought:])
        self._waiting = []
        self._logprobs += told
        return self._event(
            "response.output_text.delta", **self._at(), delta=piece.text, logprobs=told
        )

    def _at(self) -> dict[str, Any]:
        place = len(self._done)
        return {"item_id": self._name(place), "output_index": place, "content_index": 0}

    def _name(self, place: int) -> str:
        kind = "rs" if self._kind is Thought else "msg"
        return f"{kind}_{self._serving.id}_{place}"

    def _open(self, piece: Said | Thought) -> bytes:
        self._kind = type(piece)
        self._text, self._logprobs = [], []
        empty = self._item(type(piece)(""), "in_progress", [])
        assert not isinstance(empty, FunctionCallItem)
        part = empty.content[0]
        empty.content = []
        place = len(self._done)
        return self._event(
            "response.output_item.added", output_index=place, item=empty
        ) + self._event("response.content_part.added", **self._at(), part=part)

    def _close(self, status: Status) -> bytes:
        if self._kind is None:
            return b""
        if self._kind is Called:
            return self._close_call(status)
        text = "".join(self._text)
        place, at = len(self._done), self._at()
        item: Item
        if self._kind is Thought:
            item = self._item(Thought(text), status, [])
            done = self._event("response.reasoning_text.done", **at, text=text)
        else:
            item = self._item(Said(text), status, self._logprobs)
            done = self._event(
                "response.output_text.done", **at, text=text, logprobs=self._logprobs
            )
        assert not isinstance(item, FunctionCallItem)
        part = self._event("response.content_part.done", **at, part=item.content[0])
        self._done.append(item)
        self._kind = None
        return done + part + self._event("response.output_item.done", output_index=place, item=item)

    def _open_call(self, call: Called) -> bytes:
        self._kind, self._call, self._text = Called, call, []
        opened = self._item(Called(call.index, call.name, ""), "in_progress", [])
        added = self._event("response.output_item.added", output_index=len(self._done), item=opened)
        return added + self._argued(call.arguments) if call.arguments else added

    def _argued(self, text: str) -> bytes:
        self._text.append(text)
        place = len(self._done)
        at = {"item_id": f"fc_{self._serving.id}_{place}", "output_index": place}
        return self._event("response.function_call_arguments.delta", **at, delta=text)

    def _close_call(self, status: Status) -> bytes:
        place, call, arguments = len(self._done), self._call, "".join(self._text)
        item = self._item(Called(call.index, call.name, arguments), status, [])
        self._done.append(item)
        self._kind = None
        return self._event(
            "response.function_call_arguments.done",
            item_id=item.id,
            output_index=place,
            name=call.name,
            arguments=arguments,
        ) + self._event("response.output_item.done", output_index=place, item=item)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return named_event(kind, {"type": kind, "sequence_number": self._sequence, **fields})
