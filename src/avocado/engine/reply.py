"""A model's text becomes what it means: thoughts, what it says, and the tools that it calls. Pure.

Fed piece by piece as tokens come; how the text is cut into pieces changes nothing, and no part of
a mark is ever shown. What looks like a tool call and cannot be read stays content. Only the marks,
the line breaks inside and behind ``<think>…</think>`` and the white space around tool calls are
left out. Knows nothing about tokens; the form of a call is ``tool_call``'s.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from avocado.engine.tool_call import Tools, is_cut, read_call

THINK: Final = "<think>"
THOUGHT: Final = "</think>"
CALL: Final = "<tool_call>"
CALLED: Final = "</tool_call>"

TRIES: Final = 64
"""Ends that one call may seem to have. Its values may contain the mark; each costs a look."""


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the reasoning before it."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """One whole tool call; ``arguments`` is the text of a JSON object. ``index`` counts from 0."""

    index: int
    name: str
    arguments: str


Piece = Said | Thought | Called


class Thinking(enum.Enum):
    """Whether the model thinks before it answers."""

    NO = enum.auto()
    PERHAPS = enum.auto()
    """It does if it begins with ``<think>``."""
    YES = enum.auto()
    """The prompt opened the thought."""


def thinking_after(prompt: str) -> Thinking:
    """What the end of a rendered prompt says: templates open a thought there, or close an empty
    one where thinking is off."""
    end = prompt[-64:].rstrip()
    if end.endswith(THINK):
        return Thinking.YES
    return Thinking.NO if end.endswith(THOUGHT) else Thinking.PERHAPS


class Reply:
    """Reads one answer to ``prompt``, a rendered prompt. ``tools`` as in OpenAI's request; without
    any, ``<tool_call>`` is text like all else."""

    def __init__(self, prompt: str, tools: Tools = ()) -> None:
        self._tools = tools
        self._read = {
            Thinking.NO: self._say,
            Thinking.PERHAPS: self._begin,
            Thinking.YES: self._think,
        }[thinking_after(prompt)]
        self._held = ""
        """Text whose meaning is not certain yet."""
        self._calls = 0
        self._fresh = False
        """Whether line breaks at the front of ``_held`` are the framing of a thought."""
        if self._read == self._think:
            self._fresh = True
        self._back = self._read
        """How to go on after a tool call."""
        self._tried = self._scanned = 0
        self._pieces: list[Piece] = []

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain now."""
        self._held += text
        while self._read():
            pass
        return self._take()

    def end(self) -> list[Piece]:
        """The answer is over, whatever the reason: what was held back."""
        while self._held:
            if self._read == self._call:
                self._finish_call(len(self._held), 0)
                while self._held and self._read():
                    pass
                continue
            thought = self._read == self._think
            if not (self._calls and self._held.isspace()):
                self._emit(self._held, thought)
            self._held = ""
        return self._take()

    def _take(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _emit(self, text: str, thought: bool) -> None:
        if text:
            self._pieces.append(Thought(text) if thought else Said(text))

    # Each reads a step of ``_held`` and says whether there may be another.

    def _begin(self) -> bool:
        rest = self._held.lstrip()
        if rest.startswith(THINK):
            self._held = rest[len(THINK) :]
            self._read, self._fresh = self._think, True
            return True
        if THINK.startswith(rest):
            return False
        self._read = self._say
        return True

    def _think(self) -> bool:
        if not self._strip_fresh():
            return False
        marks = [(place, mark) for mark in self._marks() if (place := self._held.find(mark)) >= 0]
        if not marks:
            self._emit_before(_uncertain(self._held, self._marks(), "\n"), thought=True)
            return False
        place, mark = min(marks)
        if mark == CALL:
            return self._open_call(place, "\n")
        self._emit(self._held[:place].rstrip("\n"), thought=True)
        self._held = self._held[place + len(THOUGHT) :]
        self._read, self._fresh = self._say, True
        return True

    def _marks(self) -> tuple[str, ...]:
        """A call ends a thought too: Qwen3.5 may leave the end mark out."""
        return (THOUGHT, CALL) if self._tools else (THOUGHT,)

    def _say(self) -> bool:
        if not self._strip_fresh():
            return False
        if not self._tools:
            self._emit_before(len(self._held), thought=False)
            return False
        place = self._held.find(CALL)
        if place >= 0:
            return self._open_call(place, None)
        self._emit_before(_uncertain(self._held, (CALL,), None), thought=False)
        return False

    def _strip_fresh(self) -> bool:
        """Leaves out the line breaks behind a mark; False while no more than these came."""
        if self._fresh:
            self._held = self._held.lstrip("\n")
            self._fresh = not self._held
        return bool(self._held)

    def _emit_before(self, place: int, thought: bool) -> None:
        self._emit(self._held[:place], thought)
        self._held = self._held[place:]

    def _open_call(self, place: int, white: str | None) -> bool:
        before = len(self._held[:place].rstrip(white))
        self._emit_before(before, self._read == self._think)
        self._back, self._read = self._read, self._call
        self._tried = 0
        self._scanned = place - before + len(CALL)
        return True

    def _call(self) -> bool:
        """``_held`` is white space, the mark, and what there is of the call."""
        place = self._held.find(CALLED, self._scanned)
        if place < 0:
            self._scanned = max(self._scanned, len(self._held) - len(CALLED) + 1)
            return False
        self._tried += 1
        start = self._held.index(CALL) + len(CALL)
        if self._tried < TRIES and is_cut(self._held[start:place]):
            self._scanned = place + len(CALLED)
            return True
        self._finish_call(place, len(CALLED))
        return True

    def _finish_call(self, place: int, mark: int) -> None:
        """The call is ``_held`` up to ``place``: a tool call, or a text that begins with a mark."""
        start = self._held.index(CALL) + len(CALL)
        call = read_call(self._held[start:place], self._tools)
        if call is None:
            self._read = self._back
            self._emit_before(start, self._read == self._think)
            return
        self._pieces.append(Called(self._calls, *call))
        self._calls += 1
        self._held = self._held[place + mark :]
        self._read = self._say


def _uncertain(text: str, marks: tuple[str, ...], white: str | None) -> int:
    """Where the end of ``text`` begins that may be the front of a mark, with white space before."""
    longest = 0
    for mark in marks:
        for length in range(min(len(text), len(mark) - 1), longest, -1):
            if mark.startswith(text[len(text) - length :]):
                longest = length
                break
    return len(text[: len(text) - longest].rstrip(white))


class ThoughtCount:
    """Counts the tokens of the thought, its marks included, from the text of each token."""

    def __init__(self, prompt: str) -> None:
        self._state = thinking_after(prompt)
        self._tail = ""
        self.tokens = 0

    @property
    def open(self) -> bool:
        """Whether a thought is under way."""
        return self._state is Thinking.YES

    def take(self, text: str, completion: int) -> None:
        """The token that made ``completion`` tokens added ``text``, perhaps none."""
        if self._state is Thinking.NO:
            return
        self._tail += text
        if self._state is Thinking.PERHAPS:
            rest = self._tail.lstrip()
            if not rest.startswith(THINK):
                if not THINK.startswith(rest):
                    self._state = Thinking.NO
                return
            self._state, self._tail = Thinking.YES, rest[len(THINK) :]
        self.tokens = completion
        if THOUGHT in self._tail:
            self._state = Thinking.NO
        self._tail = self._tail[-len(THOUGHT) :]
