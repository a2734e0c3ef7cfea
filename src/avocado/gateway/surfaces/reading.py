"""Reading: what one answer's text means under its ask: thoughts, words and tool calls.

The engine's ``Reply`` reads what the model writes by itself. An answer that a grammar forced is one
call without its marks, and is read here. Knows nothing about JSON on the wire.
"""

from __future__ import annotations

from typing import Literal

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import FinishReason
from avocado.engine.reply import Called, Piece, Reply, Said, Thought
from avocado.engine.tool_call import read_call
from avocado.gateway.surface import Answer, Ask

AnswerReason = FinishReason | Literal["tool_calls"]


class Reading:
    """Fed with text, it gives the pieces that are certain; ``called`` once a tool call came."""

    def __init__(self, ask: Ask, prompt: Prompt) -> None:
        tools = ask.prompt.tools if isinstance(ask.prompt, Chat) else ()
        self._tools = tools
        self._reply = Reply(prompt.text, () if ask.forced else tools)
        self._forced: list[str] | None = [] if ask.forced else None
        self.called = False

    def feed(self, text: str) -> list[Piece]:
        return self._seen(self._reply.feed(text))

    def end(self) -> list[Piece]:
        """The answer is over: what was held back."""
        pieces = self._seen(self._reply.end())
        if self._forced is not None:
            text, self._forced = "".join(self._forced), None
            call = read_call(text, self._tools)
            if call is not None:
                self.called = True
                pieces.append(Called(0, *call))
            elif text:  # cut at the maximum: it stays what it is
                pieces.append(Said(text))
        return pieces

    def reason(self, reason: FinishReason) -> AnswerReason:
        """OpenAI's ``finish_reason``."""
        return "tool_calls" if self.called and reason == "stop" else reason

    def _seen(self, pieces: list[Piece]) -> list[Piece]:
        if self._forced is not None:
            for piece in pieces:
                if isinstance(piece, Said):
                    self._forced.append(piece.text)
            return [piece for piece in pieces if not isinstance(piece, Said)]
        for piece in pieces:
            if isinstance(piece, Called):
                self.called = True
        return pieces


def read_whole(ask: Ask, prompt: Prompt, answer: Answer) -> tuple[list[Piece], AnswerReason]:
    """The pieces of a whole answer, text that belongs together in one, and its finish reason."""
    reading = Reading(ask, prompt)
    pieces = [*reading.feed(answer.text), *reading.end()]
    return joined(pieces), reading.reason(answer.finish.reason)


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind become one; calls stay apart."""
    found: list[Piece] = []
    for piece in pieces:
        before = found[-1] if found else None
        if isinstance(piece, Said) and isinstance(before, Said):
            found[-1] = Said(before.text + piece.text)
        elif isinstance(piece, Thought) and isinstance(before, Thought):
            found[-1] = Thought(before.text + piece.text)
        else:
            found.append(piece)
    return found
