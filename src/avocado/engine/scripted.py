"""A tiny real fake for tests: it keeps the whole Engine protocol and knows no model.

Tokens are words with the spaces after them. A :class:`Script` says what a request gets back, how
fast, and where it fails or hangs. It counts the stop token as the embedded engine does: a reply of
five words that ends by itself is six completion tokens. Log-probabilities are made up, and a
grammar or a bias is taken as obeyed: what is said stands in the script.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from avocado.data.chat import Chat, Prompt, RenderError
from avocado.engine.engine import (
    Delta,
    EngineBusy,
    EngineError,
    Finish,
    Occupancy,
    PromptTooLong,
    Sampling,
    TokenLogprob,
)
from avocado.engine.reply import ThoughtCount
from avocado.engine.stream import Stopped, Stream
from avocado.terms.usage import Usage

_WORD = re.compile(r"\S+\s*|\s+")


def words(text: str) -> list[str]:
    """The tokens of ``text``; joined they give it back."""
    return _WORD.findall(text)


@dataclass(frozen=True, slots=True)
class Script:
    """What one request gets. ``reply`` None echoes the last message.

    ``fail_after`` and ``hang_after`` count tokens: 0 is before the first. ``delay`` is in seconds
    before each token.
    """

    reply: str | None = None
    delay: float = 0.0
    fail_after: int | None = None
    hang_after: int | None = None


class ScriptedEngine:
    """Serves ``script``, or what it returns for a request, to at most ``capacity`` at once."""

    def __init__(
        self,
        script: Script | Callable[[Prompt, Sampling], Script] | None = None,
        *,
        context_length: int = 4096,
        capacity: int = 1_000_000,
    ) -> None:
        self.context_length = context_length
        self.script = script or Script()
        self.capacity = capacity
        self.cancelled = 0
        """How many running requests were cancelled."""
        self._running: dict[Stream, asyncio.Task[None]] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._running), capacity=self.capacity)

    @property
    def embedder(self) -> None:
        return None

    async def check(self, sampling: Sampling) -> None:
        """Everything is supported."""

    def prepare(self, chat: Chat) -> Prompt:
        lines = [f"tool: {json.dumps(tool)}\n" for tool in chat.tools]
        if chat.thinking:
            lines.append("think: yes\n")
        for place, message in enumerate(chat.messages):
            content = message.get("content")
            if not isinstance(message.get("role"), str) or not isinstance(content, str):
                raise RenderError(f"message {place + 1} needs a role and a content of text")
            calls = "".join(f"<tool_call>{call}" for call in message.get("tool_calls") or ())
            lines.append(f"{message['role']}: {calls}{content}\n")
        return self.prepare_text("".join(lines))

    def prepare_text(self, text: str) -> Prompt:
        return Prompt(text, tuple(zlib.crc32(word.encode()) for word in words(text)))

    def generate(self, prompt: Prompt, sampling: Sampling) -> Stream:
        if len(prompt.ids) + sampling.max_tokens > self.context_length:
            raise PromptTooLong(
                f"{len(prompt.ids)} prompt tokens and {sampling.max_tokens} to complete exceed the "
                f"context of {self.context_length} tokens"
            )
        if len(self._running) >= self.capacity:
            raise EngineBusy
        script = self.script if isinstance(self.script, Script) else self.script(prompt, sampling)
        stream = Stream(len(prompt.ids), lambda: self._stop(stream))
        task = asyncio.get_running_loop().create_task(self._play(stream, prompt, sampling, script))
        self._running[stream] = task
        task.add_done_callback(lambda _: self._running.pop(stream, None))
        return stream

    async def close(self) -> None:
        for stream in list(self._running):
            self._running.pop(stream).cancel()
            stream.push(EngineError("the engine was closed"))

    def _stop(self, stream: Stream) -> None:
        self.cancelled += 1
        self._running.pop(stream).cancel()
        stream.push(Stopped(stream.usage.completion))

    async def _play(
        self, stream: Stream, prompt: Prompt, sampling: Sampling, script: Script
    ) -> None:
        reply = script.reply
        if reply is None:
            reply = prompt.text.rstrip("\n").rpartition(": ")[2]
        tokens, stop = _tokens(reply, sampling.stop)
        count = min(len(tokens), sampling.max_tokens)
        thought = ThoughtCount(prompt.text)
        for done in range(count + 1):
            if done == script.fail_after:
                stream.push(EngineError("the script failed here", retryable=True))
                return
            if done == script.hang_after:
                await asyncio.Event().wait()
            if done < count:
                await asyncio.sleep(script.delay)
                thought.take(tokens[done], done + 1)
                told = _logprobs(tokens[done], sampling)
                stream.push(Delta(tokens[done], done + 1, told, thought.tokens))
        usage = Usage(len(prompt.ids), count, reasoning=thought.tokens)
        if len(tokens) <= sampling.max_tokens:
            stream.push(Finish("stop", usage, stop))
        else:
            stream.push(Finish("length", usage))


def _logprobs(token: str, sampling: Sampling) -> tuple[TokenLogprob, ...]:
    """The token for certain, and halves, quarters… of nothing beside it."""
    if not sampling.logprobs or not token:
        return ()
    others = [(token, 0.0), *((f"~{n}", -0.7 * n) for n in range(1, sampling.top_logprobs))]
    top = tuple(
        TokenLogprob(text, text.encode(), value) for text, value in others[: sampling.top_logprobs]
    )
    return (TokenLogprob(token, token.encode(), 0.0, top),)


def _tokens(reply: str, stops: tuple[str, ...]) -> tuple[list[str], str | None]:
    """The text that each token adds; the last one ends the turn. And the stop string that did.

    A reply that ends by itself has a stop token, without text, at its end. A stop string cuts the
    text where it begins, and the turn ends with the token that completes it.
    """
    found = [(place, place + len(stop), stop) for stop in stops if (place := reply.find(stop)) >= 0]
    if not found:
        return [*words(reply), ""], None
    cut, end, stop = min(found)
    texts, start = [], 0
    for word in words(reply):
        if start >= end:
            break
        texts.append(word[: max(0, cut - start)])
        start += len(word)
    return texts, stop
