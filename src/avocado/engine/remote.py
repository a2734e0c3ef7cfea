"""The remote engine: any OpenAI-compatible server over HTTP, one or several replicas of it.

Each generation is one streamed request upstream. Cancelling it closes its connection, which is how
such servers are told to stop. A request is tried again only while no byte of an answer came. What
is said to a server and how its answer is read is ``upstream``'s and ``hearing``'s; which replica
serves is ``routing``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from avocado.data.chat import Chat, Prompt
from avocado.engine import upstream
from avocado.engine.connection import ConnectionBroken, Connections, NoConnection
from avocado.engine.engine import (
    Calls,
    Delta,
    EngineBusy,
    EngineError,
    Finish,
    Grammar,
    JsonSchema,
    Likelihood,
    Measured,
    Occupancy,
    PromptTooLong,
    Sampling,
    TokenLogprob,
    Unsupported,
)
from avocado.engine.hearing import Declined, Hearing
from avocado.engine.logprobs import Spelling
from avocado.engine.remote_likelihood import remote_likelihoods
from avocado.engine.replica import Patience, Replica, TryAgain, excerpt, refusal
from avocado.engine.routing import choose, conversation
from avocado.engine.sse import EventReader, EventTooLong
from avocado.engine.stream import Signal, Stopped, Stream
from avocado.engine.told import told_by_chat, told_by_ids
from avocado.engine.upstream import OPENAI, Dialect, Question
from avocado.engine.vectors import PATH, RemoteEmbedder, Vectors

if TYPE_CHECKING:
    from avocado.data.chat import ChatTemplate

_encode = msgspec.json.Encoder(enc_hook=str).encode
Told = Callable[[bytes], list[TokenLogprob]]

log = logging.getLogger("avocado.engine")

FRAMING = 512
"""Tokens that a chat template may add to what the messages say, where we don't have it."""
EVENTS = b"text/event-stream"
BACKOFF = 0.1
"""Seconds; doubled with each try, and a random part of it is waited."""


class RemoteEngine:
    """Serves ``model``, as the servers at ``urls`` call it. Methods belong to one event loop.

    With ``template`` (of the same release) prompts are counted exactly, and sent as token ids where
    the ``dialect`` has them. Without it a prompt's count is an upper bound until the server says.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        context_length: int,
        template: ChatTemplate | None = None,
        dialect: Dialect = OPENAI,
        api_key: str | None = None,
        capacity: int = 0,
        patience: Patience | None = None,
    ) -> None:
        """``capacity``: requests at once, all replicas together; 0 sets no limit."""
        if not urls:
            raise ValueError("a remote engine needs the address of a server")
        self.context_length = context_length
        self.template = template
        self.replicas = [Replica(url.rstrip("/").removesuffix("/v1")) for url in urls]
        self._model = model
        self._dialect = dialect
        self._by_ids = template is not None and dialect.token_ids
        self._capacity = capacity
        self._patience = patience or Patience()
        self._running: dict[Stream, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._key = api_key
        self._connections: dict[str, Connections] = {}
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        self._spelling: Spelling | None = None
        self.embedder = RemoteEmbedder(model, template, self._by_ids, self._start)

    @property
    def occupancy(self) -> Occupancy:
        return Occupancy(len(self._running), capacity=self._capacity)

    def prepare(self, chat: Chat) -> Question:
        if self.template is not None:
            prompt = self.template.prompt(chat)
            return Question(prompt.text, prompt.ids, chat)
        # A token has at least one byte of what it stands for.
        try:
            said = _encode([chat.messages, chat.tools])
        except UnicodeEncodeError:  # half a surrogate pair
            text = json.dumps([chat.messages, chat.tools], ensure_ascii=False, default=str)
            said = text.encode(errors="surrogatepass")
        return Question("", (0,) * (len(said) + FRAMING), chat)

    def prepare_text(self, text: str) -> Prompt:
        """As the protocol says; Unsupported where the server takes conversations only."""
        if self.template is None or not self._by_ids:
            raise Unsupported("prompt", "the server behind this model takes conversations only")
        return Prompt(text, self.template.encode(text))

    async def check(self, sampling: Sampling) -> None:
        upstream.check(sampling, self._dialect, ids=self._by_ids)
        if isinstance(sampling.grammar, JsonSchema | Calls):
            await asyncio.to_thread(_check_grammar, sampling.grammar)

    def generate(self, prompt: Prompt, sampling: Sampling) -> Stream:
        length = len(prompt.ids)
        if self.template is not None and length + sampling.max_tokens > self.context_length:
            raise PromptTooLong(
                f"{length} prompt tokens and {sampling.max_tokens} to complete exceed the context "
                f"of {self.context_length} tokens"
            )
        upstream.check(sampling, self._dialect, ids=self._by_ids)
        body = upstream.body(
            prompt,
            sampling,
            self._model,
            self._dialect,
            ids=self._by_ids,
            stop_ids=tuple(self.template.stop_ids) if self.template is not None else (),
        )
        key = self._conversation(prompt, sampling) if len(self.replicas) > 1 else ""
        return self._start(length, self._hearing(prompt, sampling), body, key)

    async def likelihoods(self, pairs: Sequence[Measured]) -> list[Likelihood]:
        """As :class:`avocado.engine.engine.Scorer` says; of all servers only vLLM tells."""
        if not self._by_ids:
            raise Unsupported(
                "logprobs", f"the server ({self._dialect.name}) does not score given tokens"
            )

        def to() -> Connections:
            return self._connections_to(self._choose("", []).url)

        return await remote_likelihoods(pairs, self._model, self.context_length, to)

    def _start(self, length: int, hearing: Hearing, body: bytes, key: str = "") -> Stream:
        """Raises EngineError, EngineBusy: no more is taken, or not now."""
        if self._closed:
            raise EngineError("the engine is closed")
        if self._capacity and len(self._running) >= self._capacity:
            raise EngineBusy
        stream = Stream(length, lambda: self._stop(stream))
        work = self._play(stream, hearing, body, key)
        task = asyncio.get_running_loop().create_task(work)
        self._running[stream] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Cancelled before it began, it says nothing itself; after its last word this is not heard.
        task.add_done_callback(lambda _: self._end(stream, Stopped(0)))
        return stream

    def _conversation(self, prompt: Prompt, sampling: Sampling) -> str:
        messages = prompt.chat.messages if isinstance(prompt, Question) else ()
        opening = messages or ({"role": "user", "content": prompt.text[:2048]},)
        return conversation(opening, sampling.cache_salt)

    def _hearing(self, prompt: Prompt, sampling: Sampling) -> Hearing:
        told: Told | None = told_by_chat if sampling.logprobs else None
        if sampling.logprobs and self._by_ids and self.template is not None:
            if self._spelling is None:
                self._spelling = Spelling(self.template.tokenizer.backend_tokenizer)
            silent = self.template.stop_ids | set(sampling.stop_ids)
            told = told_by_ids(self._spelling.of, sampling.top_logprobs, frozenset(silent))
        exact = self.template is not None
        return Hearing(prompt.text, len(prompt.ids), sampling.max_tokens, exact=exact, told=told)

    def _stop(self, stream: Stream) -> None:
        task = self._running.get(stream)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._tasks)
        if self._watch is not None:
            tasks.append(self._watch)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._connections.values():
            each.close()

    # -- one generation --------------------------------------------------------------------------

    async def _play(self, stream: Stream, hearing: Hearing, body: bytes, key: str) -> None:
        """Ends with one last word to ``stream``, whatever happens."""
        try:
            try:
                await self._ask(stream, hearing, body, key)
            except asyncio.CancelledError:
                if self._closed:
                    raise EngineError("the engine was closed") from None
                await self._settle_count(hearing)
                self._end(stream, Stopped(hearing.usage.completion, hearing.usage.reasoning))
        except EngineError as error:
            if hearing.begun:
                await self._settle_count(hearing)
                usage = hearing.usage
                stream.push(Delta("", usage.completion, reasoning=usage.reasoning))
            self._end(stream, error)
        except Exception as error:
            log.exception("a remote generation failed")
            name = type(error).__name__
            self._end(stream, EngineError(f"the upstream failed: {name}: {error}"))
        finally:
            self._running.pop(stream, None)

    def _end(self, stream: Stream, word: Signal) -> None:
        """The last word; its place is free from now on."""
        self._running.pop(stream, None)
        stream.push(word)

    async def _ask(self, stream: Stream, hearing: Hearing, body: bytes, key: str) -> None:
        tried: list[Replica] = []
        for attempt in range(self._patience.retries + 1):
            replica = self._choose(key, tried)
            if replica in tried:
                await asyncio.sleep(random.random() * BACKOFF * 2**attempt)
            try:
                await self._attempt(replica, stream, hearing, body)
                return
            except TryAgain as failed:
                tried.append(replica)
                others = [each for each in self.replicas if each not in tried]
                if attempt == self._patience.retries or (failed.elsewhere and not others):
                    raise failed.error from failed
                log.warning("%s: %s; trying again", replica.url, failed.error)

    def _choose(self, key: str, tried: list[Replica]) -> Replica:
        now = time.monotonic()
        ready = {each.url: each for each in self.replicas if each.ready(now)}
        fresh = {url: each for url, each in ready.items() if each not in tried}
        found = fresh or ready
        if not found:
            wait = min(each.breaker.wait(now) for each in self.replicas)
            raise EngineBusy("no server of this model answers", retry_after=max(1.0, wait))
        return found[choose({url: each.running for url, each in found.items()}, key)]

    async def _attempt(
        self, replica: Replica, stream: Stream, hearing: Hearing, body: bytes
    ) -> None:
        """One request. The breaker learns what became of it.

        Raises:
            TryAgain: nothing of an answer came.
            EngineError: the server failed, or will not serve this.
        """
        replica.running += 1
        replica.breaker.begin(time.monotonic())
        try:
            await self._converse(replica, stream, hearing, body)
        except asyncio.CancelledError:
            replica.breaker.forget()
            raise
        except EngineBusy as busy:
            replica.breaker.forget()
            raise TryAgain(busy, elsewhere=True) from busy
        except Declined:
            replica.breaker.succeed()  # it is well, and says no
            raise
        except (ConnectionBroken, TimeoutError, EventTooLong) as error:
            replica.breaker.fail(time.monotonic())
            self._failed(error, hearing)
        except (EngineError, TryAgain):
            replica.breaker.fail(time.monotonic())
            raise
        else:
            replica.breaker.succeed()
        finally:
            replica.running -= 1

    def _failed(self, error: Exception, hearing: Hearing) -> None:
        """Says what a broken connection means."""
        if isinstance(error, NoConnection):
            raise TryAgain(EngineError(f"no connection: {error}", retryable=True)) from error
        if isinstance(error, TimeoutError):
            raise EngineError("the upstream took too long", retryable=True) from error
        lost = EngineError(f"the connection to the upstream broke: {error}", retryable=True)
        if not hearing.heard:
            raise TryAgain(lost) from error
        raise lost from error

    async def _converse(
        self, replica: Replica, stream: Stream, hearing: Hearing, body: bytes
    ) -> None:
        self._keep_watch()
        connections = self._connections_to(replica.url)
        path = PATH if isinstance(hearing, Vectors) else upstream.path(self._by_ids)
        answer = await connections.post(path, body)
        try:
            if answer.status != 200:
                refused = await refusal(answer)
                if isinstance(hearing, Vectors):
                    refused = hearing.understood_refusal(answer.status, refused)
                raise refused
            if isinstance(hearing, Vectors):
                self._end(stream, await hearing.read(answer))
                self._compare(replica, hearing)
                return
            if not answer.headers.get(b"content-type", b"").lower().startswith(EVENTS):
                raise EngineError(
                    f"the upstream did not stream: {await excerpt(answer)}", retryable=True
                )
            events = EventReader()
            while not hearing.done and (part := await answer.read()):
                for delta in hearing.take(events.feed(part)):
                    stream.push(delta)
            if not hearing.done:
                for delta in hearing.take(events.end()):
                    stream.push(delta)
            if hearing.reason is None:
                raise EngineError("the upstream ended early", retryable=True)
            await self._settle_count(hearing)
            self._end(stream, Finish(hearing.reason, hearing.usage, hearing.stop))
            self._compare(replica, hearing)
            if not answer.complete:
                with contextlib.suppress(TimeoutError, ConnectionBroken):
                    async with asyncio.timeout(0.1):  # its last bytes free it for others
                        while await answer.read():
                            pass
        finally:
            answer.release()

    def _compare(self, replica: Replica, hearing: Hearing) -> None:
        if hearing.disagrees is not None and not replica.disagrees:
            replica.disagrees = True
            log.warning(
                "%s counts %d prompt tokens where the release's tokenizer and template make "
                "%d: it serves other ones, and customers pay by ours",
                *(replica.url, hearing.disagrees, hearing.usage.prompt),
            )

    async def _settle_count(self, hearing: Hearing) -> None:
        """Our own count of a text that the server did not count, off the loop."""
        if hearing.counted or self.template is None or not hearing.text:
            return
        text = "".join(hearing.text)
        ids = await asyncio.to_thread(self.template.encode, text)
        ended = hearing.reason == "stop" and hearing.stop is None  # by a token that has no text
        hearing.recount(len(ids) + ended)

    # -- connections and health ------------------------------------------------------------------

    def _connections_to(self, url: str) -> Connections:
        """Made when they are first wanted: a server of ours gets another address at each start."""
        found = self._connections.get(url)
        if found is None:
            patience = self._patience
            found = self._connections[url] = Connections(
                url,
                self._key,
                connect=patience.connect,
                idle=patience.idle,
                total=patience.total,
            )
        return found

    def _keep_watch(self) -> None:
        if self._watch is None and self._patience.health:
            self._watch = asyncio.get_running_loop().create_task(self._look_after())

    async def _look_after(self) -> None:
        """Asks each replica for its health, as long as the engine lives."""
        while True:
            await asyncio.sleep(self._patience.health)
            await asyncio.gather(*(self._look_at(each) for each in self.replicas))

    async def _look_at(self, replica: Replica) -> None:
        where = "/health" if self._dialect.token_ids else "/v1/models"
        try:
            connections = self._connections_to(replica.url)
            up = await connections.status(where, self._patience.connect) < 500
        except (ConnectionBroken, TimeoutError):
            up = False
        if up != replica.up:
            log.warning("%s is %s", replica.url, "up" if up else "down")
        replica.up = up


def _check_grammar(grammar: Grammar) -> None:
    """What is wrong with a schema is better said before than after the money is held."""
    try:
        from avocado.engine.grammar import check
    except ImportError:  # without the library, the server says it
        return
    check(grammar)
