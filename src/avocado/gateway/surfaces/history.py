"""History: a conversation as chat templates read it, whatever surface it came in by. Pure.

Qwen's templates know tool calls and their results by order alone, so results are put into the order
of their calls, and a call without its result, or a result without its call, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from avocado.data.chat import Message
from avocado.gateway.errors import bad_request

INVALID: Final = "INVALID_JSON"
"""The one field of an object that stands for arguments which are none."""


@dataclass(frozen=True, slots=True)
class PastCall:
    """A tool call of an earlier answer; ``arguments`` is the text of a JSON object, or what the
    model wrote instead."""

    id: str
    name: str
    arguments: str


class History:
    """Takes turns in order; ``place`` is where a turn stands in the request, for errors."""

    def __init__(self) -> None:
        self._turns: list[dict[str, Any]] = []
        self._awaited: dict[str, str | None] = {}
        self._calls_at = ""

    def say(self, role: str, text: str) -> None:
        """A turn of the system or of the user."""
        self._results()
        self._turns.append({"role": role, "content": text})

    def open(self, text: str) -> None:
        """What the system says first. Templates take one such turn: several become one."""
        if self._turns and self._turns[0]["role"] == "system" and len(self._turns) == 1:
            self._turns[0]["content"] += f"\n\n{text}"
        else:
            self.say("system", text)

    def assistant(
        self, text: str, place: str, reasoning: str = "", calls: Sequence[PastCall] = ()
    ) -> None:
        """A turn of the model.

        Raises:
            ApiError: 400, one id twice.
        """
        self._results()
        turn: dict[str, Any] = {"role": "assistant", "content": text}
        if reasoning:
            turn["reasoning_content"] = reasoning
        if calls:
            turn["tool_calls"] = [self._call(call) for call in calls]
            self._awaited = {call.id: None for call in calls}
            self._calls_at = place
            if len(self._awaited) < len(calls):
                raise bad_request(f"Invalid value for {place}: two tool calls have one id", place)
        self._turns.append(turn)

    def result(self, call: str, text: str, place: str) -> None:
        """What a tool answered.

        Raises:
            ApiError: 400, there is no such call before it, or it has its result already.
        """
        if self._awaited.get(call, "") is not None:
            raise bad_request(
                f"Invalid value for {place}: the turn before it makes no tool call {call[:100]!r} "
                "that still awaits its result",
                place,
            )
        self._awaited[call] = text

    def turns(self) -> tuple[Message, ...]:
        """All of them.

        Raises:
            ApiError: 400, a tool call without its result.
        """
        self._results()
        return tuple(self._turns)

    def _results(self) -> None:
        for call, text in self._awaited.items():
            if text is None:
                raise bad_request(
                    f"Invalid value for {self._calls_at}: its tool call {call[:100]!r} has no "
                    "result after it",
                    self._calls_at,
                )
            self._turns.append({"role": "tool", "content": text})
        self._awaited = {}

    @staticmethod
    def _call(call: PastCall) -> dict[str, Any]:
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
        except (ValueError, RecursionError):
            # The model's own fault, which it is told of in the next turn; templates want an object.
            arguments = {INVALID: call.arguments}
        return {
            "type": "function",
            "id": call.id,
            "function": {"name": call.name, "arguments": arguments},
        }
