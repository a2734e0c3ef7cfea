"""What an OpenAI-compatible server answers, event by event, as deltas and exact counts.

Usage that cannot be is refused (``UsageRejected``), never repaired: it is what somebody pays by.
Where a server sends thoughts and tool calls apart from the text, they are put back into the text in
Qwen's own form, so that one reader (``reply``) serves all engines. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from avocado.engine.engine import (
    Delta,
    EngineBusy,
    EngineError,
    FinishReason,
    TokenLogprob,
    UsageRejected,
)
from avocado.engine.reply import (
    CALL,
    CALLED,
    THINK,
    THOUGHT,
    Thinking,
    ThoughtCount,
    thinking_after,
)
from avocado.terms.usage import MAX_TOKENS, Usage

REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "function_call": "stop",
    "content_filter": "stop",
}


_NULL: Final = msgspec.Raw(b"null")


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int = 0
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: msgspec.Raw = _NULL


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: msgspec.Raw = _NULL
    error: Any = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Any = None
    reasoning_tokens: Any = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_usage = msgspec.json.Decoder(_Usage).decode


class Declined(EngineError):
    """The server is well and refuses this request."""


class Hearing:
    """One answer as it arrives.

    ``prompt`` is the rendered prompt (or ""), ``counted`` its tokens, exact or a bound; ``told``
    reads an event's log-probabilities where they were asked for. Counts are plain numbers here:
    this runs for every token.
    """

    def __init__(
        self,
        prompt: str,
        counted: int,
        max_tokens: int,
        *,
        exact: bool = True,
        told: Callable[[bytes], list[TokenLogprob]] | None = None,
    ) -> None:
        self.counted = False
        """Whether the server's own count came with the newest text."""
        self.reason: FinishReason | None = None
        self.stop: str | None = None
        self.done = False
        self.heard = False
        """Whether anything of an answer came."""
        self.disagrees: int | None = None
        """The server's count of a prompt that we counted otherwise."""
        self.text: list[str] = []
        self._prompt, self._completion, self._cached, self._reasoning = counted, 0, 0, 0
        self._passed = 0
        """How much of ``text`` was passed on."""
        self._fresh: list[TokenLogprob] = []
        self._counted, self._exact = counted, exact
        self._max_tokens = max_tokens
        self._told = told
        self._opening = thinking_after(prompt)
        self._thought = ThoughtCount(prompt)
        self._plain = False
        """Whether an event that is nothing but a piece of text may take the short way."""
        self._thinks = False
        """Whether the server sends a thought apart, and is in the middle of it."""
        self._call: int | None = None
        """The upstream's number of the call that it is at."""
        self._left: set[int] = set()
        """Of those that it has left."""
        self._name: list[str] = []
        self._argued = False
        """Whether arguments of this call came, and with them its name was told."""

    @property
    def usage(self) -> Usage:
        """Consumed so far, as far as is known."""
        return Usage(self._prompt, self._completion, self._cached, self._reasoning)

    @property
    def begun(self) -> bool:
        """Whether a token came."""
        return self._completion > 0

    def take(self, events: Sequence[bytes]) -> Iterator[Delta]:
        """The events that came together: one delta of all their text, and with log-probabilities
        one an event. What was heard before a failure is given before it is raised.

        Raises:
            UsageRejected: one carries counts that cannot be.
            EngineError: one is an error, or is not what OpenAI's API sends.
        """
        failure: EngineError | None = None
        self.heard = self.heard or bool(events)
        for data in events:
            try:
                self._take(data)
            except EngineError as error:
                failure = error
                break
            if self._told is not None:
                yield from self._news()
        yield from self._news()
        if failure is not None:
            raise failure

    def _news(self) -> Iterator[Delta]:
        told = tuple(self._fresh)
        if len(self.text) > self._passed or told:
            text = "".join(self.text[self._passed :])
            self._passed, self._fresh = len(self.text), []
            yield Delta(text, self._completion, told, self._reasoning)

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _chunk(data)
        except (ValueError, RecursionError) as error:
            if b'"usage"' in data:
                raise UsageRejected(f"the upstream's usage is no JSON: {error}") from error
            raise EngineError(f"the upstream sent what is no event: {error}") from error
        if chunk.error is not None:
            raise self._failure(chunk.error)
        if self._plain and len(chunk.choices) == 1 and chunk.usage is _NULL:
            choice = chunk.choices[0]
            delta = choice.delta
            if delta is not None and choice.finish_reason is None and _says_only(delta):
                self.text.append(delta.content or "")
                if self._completion < self._max_tokens:
                    self._completion += 1
                self.counted = False
                return
        text = ""
        told: list[TokenLogprob] = []
        for choice in chunk.choices:
            text += self._hear(choice)
            if self._told is not None:
                told += self._read_told(self._told, bytes(choice.logprobs))
        self._count(text, chunk.usage)
        self._fresh += told
        self._plain = self._told is None and self._thought.over and not self._thinks

    def _failure(self, error: Any) -> EngineError:
        """An error inside a 200. vLLM refuses a request that way too: full, or at fault."""
        said = f"the upstream failed: {_message(error)}"
        code = error.get("code") if isinstance(error, dict) else None
        if code in (429, 503) and not self.begun:
            return EngineBusy(said)
        if isinstance(code, int) and 400 <= code < 500 and code != 429:
            return Declined(said)
        return EngineError(said, retryable=True)

    def _read_told(
        self, read: Callable[[bytes], list[TokenLogprob]], data: bytes
    ) -> list[TokenLogprob]:
        if data == b"null":
            return []
        try:
            return read(data)
        except (ValueError, RecursionError) as error:
            raise EngineError(f"the upstream's logprobs cannot be read: {error}") from error

    def _hear(self, choice: _Choice) -> str:
        text = choice.text or ""
        if choice.delta is not None:
            text = self._put_together(choice.delta)
        if choice.finish_reason is not None:
            self.reason = REASONS.get(choice.finish_reason)
            if self.reason is None:
                raise EngineError(
                    f"the upstream ended with {choice.finish_reason[:40]!r}", retryable=True
                )
            if isinstance(choice.stop_reason, str):
                self.stop = choice.stop_reason
            text += self._close()
        return text

    def _put_together(self, delta: _Delta) -> str:
        text = ""
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            if not self._thinks:
                self._thinks = True
                text = f"{THINK}\n" if self._opening is not Thinking.YES else ""
            text += thought
        if delta.content:
            text += self._end_thought() + delta.content
        for call in delta.tool_calls or ():
            text += self._hear_call(call)
        return text

    def _hear_call(self, call: _Call) -> str:
        """A piece of a call. Its name is told with the first of its arguments."""
        name = (call.function and call.function.name) or ""
        arguments = (call.function and call.function.arguments) or ""
        text = ""
        if call.index != self._call:
            if call.index in self._left:
                if name or arguments:
                    raise EngineError("the upstream went back to a tool call that it had left")
                return ""
            text = self._close()
            self._call = call.index
        self._name.append(name)
        if arguments:
            text += self._open() + arguments
        return text

    def _open(self) -> str:
        if self._argued:
            return ""
        self._argued = True
        name = msgspec.json.encode("".join(self._name)).decode()
        return self._end_thought() + f'\n{CALL}\n{{"name": {name}, "arguments": '

    def _end_thought(self) -> str:
        if not self._thinks:
            return ""
        self._thinks = False
        return f"\n{THOUGHT}\n\n"

    def _close(self) -> str:
        """The call that it was at is over."""
        if self._call is None:
            return ""
        text = "" if self._argued else self._open() + "{}"
        self._left.add(self._call)
        self._call, self._name, self._argued = None, [], False
        return f"{text}}}\n{CALLED}"

    def _count(self, text: str, usage: msgspec.Raw) -> None:
        if usage is not _NULL and bytes(usage) != b"null":
            self._believe(bytes(usage))
            self.counted = True
        elif text:
            # At least one token, and most often exactly one.
            self._completion = min(self._completion + 1, self._max_tokens)
            self.counted = False
        if text:
            self.text.append(text)
            self._thought.take(text, self._completion)
            self._count_to(self._completion)

    def _count_to(self, completion: int) -> None:
        self._reasoning = min(max(self._reasoning, self._thought.tokens), completion)
        self._completion = completion

    def recount(self, completion: int) -> None:
        """Our own count of the text, where the server gave none."""
        self._count_to(max(self._completion, min(completion, self._max_tokens)))
        self.counted = True

    def _believe(self, raw: bytes) -> None:
        """Takes the server's counts over, if they can be."""
        try:
            given = _usage(raw)
        except (ValueError, RecursionError) as error:
            raise UsageRejected(f"the upstream's usage cannot be read: {error}") from error
        prompt = checked_count("prompt_tokens", given.prompt_tokens)
        completion = checked_count("completion_tokens", given.completion_tokens)
        inside, out = given.prompt_tokens_details, given.completion_tokens_details
        cached = checked_count("cached_tokens", (inside and inside.cached_tokens) or 0)
        reasoning = checked_count("reasoning_tokens", (out and out.reasoning_tokens) or 0)
        if completion > self._max_tokens:
            raise UsageRejected(
                f"the upstream counts {completion} tokens where {self._max_tokens} were allowed"
            )
        if completion < self._completion and self.counted:
            raise UsageRejected(f"the upstream's count fell to {completion} tokens")
        if not completion and self.text:
            raise UsageRejected("the upstream counts no token and sent text")
        if not self._exact and prompt > self._counted:
            raise UsageRejected(
                f"the upstream counts {prompt} prompt tokens where at most {self._counted} can be"
            )
        if cached > prompt or reasoning > completion:
            raise UsageRejected("the upstream counts more in a part than in the whole")
        self.disagrees = prompt if self._exact and prompt != self._counted else None
        # The prompt is what we rendered and counted; a server that counts more added to it.
        self._prompt = self._counted if self._exact else prompt
        self._completion, self._cached = completion, min(cached, self._prompt)
        self._reasoning = min(reasoning or self._thought.tokens, completion)


def _says_only(delta: _Delta) -> bool:
    return bool(
        delta.content
        and not delta.reasoning
        and not delta.reasoning_content
        and not delta.tool_calls
    )


def checked_count(name: str, value: Any) -> int:
    """Raises UsageRejected: a number of tokens that cannot be."""
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise UsageRejected(f"the upstream's {name} is {str(value)[:40]}")
    return value


def _message(error: Any) -> str:
    found = error.get("message") if isinstance(error, dict) else error
    return str(found)[:500]
