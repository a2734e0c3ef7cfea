"""Reading: what one answer's text means under its ask: thoughts, words and tool calls.

The engine's ``Reply`` reads the text; here is what an ask makes of it. Knows nothing about JSON on
the wire.
"""

from __future__ import annotations

from typing import Literal

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import FinishReason
from avocado.engine.reply import Called, Piece, Reply, joined
from avocado.gateway.surface import Answer, Ask

AnswerReason = FinishReason | Literal["tool_calls"]


class Reading:
    """Fed with text, it gives the pieces that are certain; ``called`` once a tool call came."""

    def __init__(self, ask: Ask, prompt: Prompt) -> None:
        self._tools = ask.prompt.tools if isinstance(ask.prompt, Chat) else ()
        self._reply = Reply(prompt.text, self._tools, bare=ask.forced)
        self.called = False

    def feed(self, text: str) -> list[Piece]:
        pieces = self._reply.feed(text)
        return self._seen(pieces) if self._tools else pieces

    def end(self) -> list[Piece]:
        """The answer is over: what was held back."""
        return self._seen(self._reply.end())

    def reason(self, reason: FinishReason) -> AnswerReason:
        """OpenAI's ``finish_reason``."""
        return "tool_calls" if self.called and reason == "stop" else reason

    def _seen(self, pieces: list[Piece]) -> list[Piece]:
        self.called = self.called or any(isinstance(piece, Called) for piece in pieces)
        return pieces


def read_whole(ask: Ask, prompt: Prompt, answer: Answer) -> tuple[list[Piece], AnswerReason]:
    """The pieces of a whole answer, text that belongs together in one, and its finish reason."""
    reading = Reading(ask, prompt)
    pieces = [*reading.feed(answer.text), *reading.end()]
    return joined(pieces), reading.reason(answer.finish.reason)
