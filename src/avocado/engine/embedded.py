"""The embedded engine: PyTorch in this process, many requests in one running batch.

The model runs on a thread of its own, so the event loop never waits for it. What the loop and the
thread tell each other passes through two doors: an inbox under a lock, and one
``call_soon_threadsafe`` a step.

What is promised of the text:

* Greedy text for a request is what it gets alone, whatever runs beside it: no row reads another's
  memory. The logits themselves may differ in their last bits, since a matrix product of another
  height may add in another order. In fp32 that is about 1e-6 of a logit, and changes the text only
  where the two likeliest tokens are nearer than that; in bf16 a tie is a thousand times likelier.
  Dense Qwen on a CPU does better: its products and sums are arranged so that a row gets the same
  bits in any company (:mod:`avocado.engine.linear`, ``LANES`` and ``SHORT``).
* A seeded request draws from its own numbers, so the same holds for it.
* Completion counts include the stop token that the model emitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from collections.abc import Sequence as Listing
from functools import partial
from pathlib import Path
from typing import Final

import torch

from avocado.data.chat import Chat, ChatTemplate, Prompt
from avocado.engine.constraint import Matcher
from avocado.engine.decoder import BatchDecoder, Decoder, decoder_for
from avocado.engine.engine import (
    Delta,
    EngineBusy,
    EngineError,
    Grammar,
    Likelihood,
    Measured,
    Occupancy,
    PromptTooLong,
    Sampling,
    Unsupported,
)
from avocado.engine.grammar import Grammars, LateMatcher
from avocado.engine.likelihood import Measuring
from avocado.engine.logprobs import Spelling
from avocado.engine.model import CausalModel, Weights
from avocado.engine.scheduler import Scheduler
from avocado.engine.sequence import Sequence
from avocado.engine.stream import Begun, Signal, Stream

MEMORY_SHARE: Final = 0.25
"""The part of the machine's memory (on a GPU: of what the weights left free, thrice this) that keys
and values may take."""

SMALL: Final = 50_000_000
"""Below so many parameters one thread is fastest: splitting such small products costs more."""


class EmbeddedEngine:
    """Serves one model. Make it with :meth:`load`; methods belong to one event loop at a time."""

    def __init__(
        self,
        template: ChatTemplate,
        decoder: Decoder,
        *,
        vocabulary: int,
        context_length: int,
        max_queue: int = 256,
        threads: int | None = None,
        measuring: Callable[[Listing[Measured]], Measuring] | None = None,
    ) -> None:
        self.template = template
        self.context_length = context_length
        self._vocabulary = vocabulary
        self._max_queue = max_queue
        self._threads = threads
        self._spelling: Spelling | None = None
        self._grammars = Grammars(template.tokenizer, template.stop_ids, vocabulary)
        self._door = threading.Condition()
        self._inbox: list[tuple[Sequence, Stream, asyncio.AbstractEventLoop]] = []
        self._measuring = measuring
        self._measured: list[tuple[Measuring, _Waiter]] = []
        """What is asked about given tokens; the thread computes one pass of the first at a time."""
        self._closing = False
        self._broken: EngineError | None = None
        self._streams: dict[Sequence, tuple[Stream, asyncio.AbstractEventLoop]] = {}
        self._said: list[tuple[Sequence, Signal]] = []
        self._scheduler = Scheduler(decoder, lambda *said: self._said.append(said))
        self._thread = threading.Thread(target=self._run, name="avocado-engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        max_batch: int = 32,
        max_queue: int = 256,
        context_length: int | None = None,
        threads: int | None = None,
        memory: int | None = None,
        device: str | None = None,
        weights: Weights | None = None,
    ) -> EmbeddedEngine:
        """Loads ``model`` (a folder or a hub id), with a LoRA ``adapter`` folded in.

        Args:
            max_batch: requests that run at once.
            max_queue: requests that wait; one more is EngineBusy.
            context_length: prompt and completion together, in tokens; the model's own by default,
                or what ``memory`` holds if that is less.
            threads: of the CPU; one for a small model, PyTorch's default for others.
            memory: bytes for keys and values; a quarter of the machine's by default. Prompts that
                begin alike may take a quarter of it more.
            device: such as ``cpu`` or ``cuda``; the GPU where there is one.
            weights: gives the tensors where they do not lie in plain files.

        Raises:
            EngineError: the model does not load, or ``context_length`` is more than it or
                ``memory`` holds.
            RenderError: it has no chat template or no stop token.
        """
        template = ChatTemplate.load(model)
        causal = CausalModel.load(model, adapter, device, weights)
        decoder, budget = decoder_for(causal, max_batch, memory or _spare_memory(causal.device))
        limit = min(causal.context_length, budget)
        if context_length is not None and context_length > limit:
            raise EngineError(
                f"a context of {context_length} tokens is more than {model} and the memory for its "
                f"keys and values allow here ({causal.context_length} and {budget})"
            )
        if threads is None and causal.parameters < SMALL:
            threads = 1
        return cls(
            template,
            decoder,
            vocabulary=causal.vocabulary,
            context_length=context_length or limit,
            max_queue=max_queue,
            threads=threads,
            measuring=partial(Measuring, causal, padded=isinstance(decoder, BatchDecoder)),
        )

    # The event loop's side.

    @property
    def occupancy(self) -> Occupancy:
        waiting = len(self._inbox) + self._scheduler.waiting
        return Occupancy(self._scheduler.running, waiting, self._scheduler.capacity)

    async def check(self, sampling: Sampling) -> None:
        self._check_tokens(sampling)
        if sampling.grammar is not None:
            compiling = asyncio.wrap_future(self._grammars.compiled(sampling.grammar))
            # Its error is the cache's too: raised again it would grow a longer traceback each time.
            error = (await asyncio.wait((compiling,)))[0].pop().exception()
            if error is not None:
                raise type(error)(str(error))

    def _check_tokens(self, sampling: Sampling) -> None:
        for token in (*(token for token, _ in sampling.logit_bias), *sampling.stop_ids):
            if not 0 <= token < self._vocabulary:
                raise ValueError(
                    f"there is no token {token}: this model's ids end at {self._vocabulary - 1}"
                )

    @property
    def embedder(self) -> None:
        return None

    def prepare(self, chat: Chat) -> Prompt:
        return self.template.prompt(chat)

    def prepare_text(self, text: str) -> Prompt:
        return Prompt(text, self.template.encode(text))

    def generate(self, prompt: Prompt, sampling: Sampling) -> Stream:
        """As the protocol says; a prompt without tokens or with unknown ones is a ValueError."""
        length = len(prompt.ids)
        if length + sampling.max_tokens > self.context_length:
            raise PromptTooLong(
                f"{length} prompt tokens and {sampling.max_tokens} to complete exceed the context "
                f"of {self.context_length} tokens"
            )
        if not prompt.ids or not 0 <= min(prompt.ids) <= max(prompt.ids) < self._vocabulary:
            raise ValueError("the prompt is empty, or holds ids that this model does not know")
        self._check_tokens(sampling)
        backend = self.template.tokenizer.backend_tokenizer
        if sampling.logprobs and self._spelling is None:
            self._spelling = Spelling(backend)
        sequence = Sequence(
            prompt,
            sampling,
            self.template.stop_ids,
            backend,
            spelling=self._spelling,
            matcher=self._matcher(sampling.grammar),
        )
        stream = Stream(length, lambda: self._cancel(sequence))
        with self._door:
            if self._broken is not None:
                raise EngineError(str(self._broken))
            if self._closing:
                raise EngineError("the engine is closed")
            if len(self._inbox) + self._scheduler.waiting >= self._max_queue:
                raise EngineBusy
            self._inbox.append((sequence, stream, asyncio.get_running_loop()))
            self._door.notify()
        return stream

    async def likelihoods(self, pairs: Listing[Measured]) -> list[Likelihood]:
        """As :class:`avocado.engine.engine.Scorer` says."""
        if self._measuring is None:
            raise Unsupported("logprobs", "this engine does not say how likely given tokens are")
        for before, asked in pairs:
            if len(before) + len(asked) > self.context_length + 1:  # the last one is not read
                raise PromptTooLong(
                    f"{len(before)} tokens and {len(asked)} after them exceed the context of "
                    f"{self.context_length} tokens"
                )
            both = (*before, *asked)
            if not before or not 0 <= min(both) <= max(both) < self._vocabulary:
                raise ValueError("nothing stands before, or ids that this model does not know")
        waiter = _Waiter(asyncio.get_running_loop())
        with self._door:
            if self._broken is not None or self._closing:
                raise EngineError(str(self._broken or "the engine is closed"))
            self._measured.append((self._measuring(pairs), waiter))
            self._door.notify()
        return await waiter.future

    def _matcher(self, grammar: Grammar | None) -> Matcher | None:
        if grammar is None:
            return None
        compiled = self._grammars.compiled(grammar)
        if not compiled.done():
            return LateMatcher(compiled, self._grammars.matcher)
        error = compiled.exception()
        if error is not None:
            raise type(error)(str(error))
        return self._grammars.matcher(compiled.result())

    def _cancel(self, sequence: Sequence) -> None:
        sequence.cancelled = True  # the thread looks before each step, and is awake: it has work

    async def close(self) -> None:
        with self._door:
            self._closing = True
            self._door.notify()
        self._grammars.close()
        await asyncio.to_thread(self._thread.join)

    # The thread's side.

    def _run(self) -> None:
        threads = torch.get_num_threads()
        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            with torch.inference_mode():
                while self._await_work():
                    self._scheduler.step()
                    self._deliver()
                    self._measure()
            self._end(EngineError("the engine was closed"))
        except BaseException as error:  # the thread ends: nobody may be left waiting for it
            self._end(EngineError(f"the engine failed: {type(error).__name__}: {error}"))
        finally:
            torch.set_num_threads(threads)  # part of the setting is the process's

    def _await_work(self) -> bool:
        """Takes what came in, waiting if there is nothing to do; False when closing."""
        with self._door:
            while not (self._inbox or self._measured or self._closing) and self._scheduler.idle:
                self._door.wait()
            arrived, self._inbox = self._inbox, []
            for sequence, stream, loop in arrived:
                self._streams[sequence] = stream, loop
                self._scheduler.add(sequence)
            return not self._closing

    def _measure(self) -> None:
        """One pass of what is asked about given tokens."""
        if not self._measured:
            return
        measuring, waiter = self._measured[0]
        try:
            found: list[Likelihood] | EngineError | None = None
            if not waiter.future.cancelled():
                found = measuring.advance()
        except Exception as error:  # whatever a model raises must not end the engine
            found = EngineError(f"the model failed: {type(error).__name__}: {error}")
        if found is None and not waiter.future.cancelled():
            return
        with self._door:
            del self._measured[0]
        if found is not None:
            waiter.tell(found)

    def _end(self, error: EngineError) -> None:
        with self._door:
            self._broken = error
            measured, self._measured = self._measured, []
            for sequence, stream, loop in self._inbox:
                self._streams[sequence] = stream, loop
                self._scheduler.add(sequence)
            self._inbox = []
        for _, waiter in measured:
            waiter.tell(EngineError(str(error)))
        self._scheduler.fail_all(error)
        self._deliver()

    def _deliver(self) -> None:
        """Hands what was said in this step to the loops that wait for it."""
        said, self._said[:] = list(self._said), []
        mail: dict[asyncio.AbstractEventLoop, list[tuple[Stream, Signal]]] = {}
        for sequence, signal in said:
            stream, loop = self._streams[sequence]
            mail.setdefault(loop, []).append((stream, signal))
            if not isinstance(signal, Delta | Begun):
                del self._streams[sequence]
        for loop, letters in mail.items():
            try:
                loop.call_soon_threadsafe(_push, letters)
            except RuntimeError:  # that loop is closed: nobody reads these streams any more
                for sequence, (_, owner) in self._streams.items():
                    if owner is loop:
                        sequence.cancelled = True


class _Waiter:
    """Who asked about given tokens, on which event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[list[Likelihood]] = loop.create_future()
        self._loop = loop

    def tell(self, word: list[Likelihood] | EngineError) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._set, word)

    def _set(self, word: list[Likelihood] | EngineError) -> None:
        if self.future.done():
            return
        if isinstance(word, EngineError):
            self.future.set_exception(word)
        else:
            self.future.set_result(word)


def _push(letters: list[tuple[Stream, Signal]]) -> None:
    for stream, signal in letters:
        stream.push(signal)


def _spare_memory(device: torch.device) -> int:
    """Bytes that keys and values may take by default."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * MEMORY_SHARE * 3)
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
