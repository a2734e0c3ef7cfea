"""A model's text becomes what it means: thoughts, what it says, and the tools that it calls. Pure.

Fed piece by piece as tokens come; how the text is cut into pieces changes nothing, and no part of
a mark is ever shown. A tool call is certain when its name stands there and its arguments begin;
what looks like a call and does not begin so stays content. Only the marks, the line breaks inside
and behind ``<think>…</think>`` and the white space around tool calls are left out. Knows nothing
about tokens; the form of a call is ``tool_call``'s.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from avocado.engine.tool_call import (
    CALL,
    CALLED,
    Arguments,
    Tools,
    Unsure,
    is_cut,
    open_call,
    read_call,
)

__all__ = ["CALL", "CALLED", "THINK", "THOUGHT", "Argued", "Called", "Piece", "Reply", "Said"]
__all__ += ["Thinking", "Thought", "ThoughtCount", "joined", "thinking_after"]

THINK: Final = "<think>"
THOUGHT: Final = "</think>"

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
    """A tool call begins; ``index`` counts from 0. ``arguments`` is the text of a JSON object as
    far as it came, which ``Argued`` goes on with."""

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the arguments of the newest call."""

    index: int
    text: str


Piece = Said | Thought | Called | Argued

_FRAME: Final = re.compile(r"\s*\}?\s*")
"""What stands between the arguments and the end mark."""


def joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind become one; calls are whole, and stay apart."""
    found: list[Piece] = []
    for piece in pieces:
        match found[-1] if found else None, piece:
            case Said(before), Said(text):
                found[-1] = Said(before + text)
            case Thought(before), Thought(text):
                found[-1] = Thought(before + text)
            case Called(index, name, before), Argued(_, text):
                found[-1] = Called(index, name, before + text)
            case _:
                found.append(piece)
    return found


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

    def __init__(self, prompt: str, tools: Tools = (), *, bare: bool = False) -> None:
        """``bare``: the answer may be one call without its marks."""
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
        self._bare = bare
        self._body = self._tried = self._scanned = 0
        self._arguments: Arguments | None = None
        self._pieces: list[Piece] = []

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain now."""
        self._held += text
        while self._read():
            pass
        return self._take()

    def end(self) -> list[Piece]:
        """The answer is over, whatever the reason: what was held back."""
        while self._held or self._arguments is not None:
            if self._read in (self._call, self._whole):
                self._finish_call(len(self._held), 0)
                while self._held and self._read():
                    pass
                continue
            if self._arguments is not None:
                if not self._arguments.over:  # else there is a part of the end mark, at most
                    self._argue_on(self._arguments.end(self._held))
                self._held = ""
                self._end_call()
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
        if self._bare:
            return self._open_bare()
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
        self._body = self._scanned = place - before + len(CALL)
        return True

    def _open_bare(self) -> bool:
        rest = self._held.lstrip()
        if rest:
            self._bare = False
            if rest.startswith("{"):
                self._back, self._read = self._say, self._call
                self._body = self._scanned = len(self._held) - len(rest)
        return bool(rest)

    def _call(self) -> bool:
        """``_held`` is white space, the mark, and what there is of the call: ``_body`` on."""
        opened = open_call(self._held[self._body :], self._tools)
        if opened is Unsure.WAIT:
            return False
        if isinstance(opened, Unsure):
            self._read = self._whole
            return True
        self._arguments, self._held = opened
        self._pieces.append(Called(self._calls, self._arguments.name, ""))
        self._read = self._argue
        return True

    def _argue(self) -> bool:
        assert self._arguments is not None
        text, self._held = self._arguments.feed(self._held)
        self._argue_on(text)
        if self._arguments.over:
            self._read = self._frame
        return self._arguments.over

    def _argue_on(self, text: str) -> None:
        if text:
            self._pieces.append(Argued(self._calls, text))

    def _frame(self) -> bool:
        """``_held`` is what stands behind the arguments."""
        match = _FRAME.match(self._held)
        assert match is not None
        rest = self._held[match.end() :]
        if rest.startswith(CALLED):
            rest = rest[len(CALLED) :]
        elif CALLED.startswith(rest):
            return False
        elif "}" in match[0]:
            rest = self._held[self._held.index("}") + 1 :]
        else:
            rest = self._held
        self._held = rest
        self._end_call()
        return True

    def _end_call(self) -> None:
        self._arguments = None
        self._calls += 1
        self._read = self._say

    def _whole(self) -> bool:
        """What does not begin with its name may be a call once all of it is there."""
        place = self._held.find(CALLED, self._scanned)
        if place < 0:
            self._scanned = max(self._scanned, len(self._held) - len(CALLED) + 1)
            return False
        self._tried += 1
        if self._tried < TRIES and is_cut(self._held[self._body : place]):
            self._scanned = place + len(CALLED)
            return True
        self._finish_call(place, len(CALLED))
        return True

    def _finish_call(self, place: int, mark: int) -> None:
        """The call is ``_held`` up to ``place``: a tool call, or a text that begins with a mark."""
        call = read_call(self._held[self._body : place])
        if call is None:
            self._read = self._back
            self._emit_before(self._body, self._read == self._think)
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

    @property
    def over(self) -> bool:
        """Whether no thought is under way, nor can be."""
        return self._state is Thinking.NO

    @property
    def possible(self) -> bool:
        """Whether the model may still begin one."""
        return self._state is Thinking.PERHAPS

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
