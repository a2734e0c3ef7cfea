"""The embedding engine: vectors of texts by a Qwen embedding model, PyTorch in this process.

For a folder as sentence-transformers writes it (Qwen3-Embedding): a decoder whose last token's
hidden state, scaled to length 1, stands for the text. Attention looks back only, so inputs of
several lengths share a pass with padding on their right and need no mask. Requests take turns, one
pass at a time, on a thread of their own. Knows nothing about conversations: it makes no text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import (
    EngineBusy,
    EngineError,
    Finish,
    Occupancy,
    PromptTooLong,
    Sampling,
    Unsupported,
)
from avocado.engine.model import Weights, load_pretrained, without_bars
from avocado.engine.stream import Stopped, Stream
from avocado.engine.vectors import POOLING
from avocado.terms.usage import Usage

FAMILIES: Final = ("qwen2", "qwen3")
"""Model types whose attention looks back only, as pooling by the last token wants it."""
PASS: Final = 8192
"""Tokens of one pass, padding included, unless one input alone has more."""


class EmbeddingEngine:
    """Makes vectors of one model. Make it with :meth:`load`; methods belong to one event loop."""

    def __init__(
        self, model: Any, tokenizer: Any, *, context_length: int, max_queue: int = 256
    ) -> None:
        self.context_length = context_length
        self.dimensions = int(model.config.hidden_size)
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._vocabulary = int(model.get_input_embeddings().num_embeddings)
        self._max_queue = max_queue
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._running: dict[Stream, asyncio.Task[None]] = {}
        self._closed = False

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str | None = None,
        context_length: int | None = None,
        max_queue: int = 256,
        weights: Weights | None = None,
    ) -> EmbeddingEngine:
        """Loads safetensors and a tokenizer, and runs no code that comes with them. ``weights``
        gives the tensors where they do not lie in plain files.

        Raises:
            EngineError: they do not load, or the model is not of a kind that is computed here.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            _check_pooling(folder)
            with without_bars():
                model: Any = load_pretrained(AutoModel, folder, place, weights)
            tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineError(f"{folder} does not load: {error}") from error
        if model.config.model_type not in FAMILIES:
            raise EngineError(
                f"{folder}: embeddings of {model.config.model_type!r} are not computed here, only "
                f"those of {' and '.join(FAMILIES)}"
            )
        longest = int(model.config.max_position_embeddings)
        return cls(
            model.to(place),
            tokenizer,
            context_length=min(context_length or longest, longest),
            max_queue=max_queue,
        )

    @property
    def embedder(self) -> EmbeddingEngine:
        return self

    @property
    def occupancy(self) -> Occupancy:
        running = min(len(self._running), 1)
        return Occupancy(running, len(self._running) - running, capacity=1)

    # -- text: it makes none ---------------------------------------------------------------------

    def prepare(self, chat: Chat) -> Prompt:
        raise _no_text()

    def prepare_text(self, text: str) -> Prompt:
        raise _no_text()

    async def check(self, sampling: Sampling) -> None:
        raise _no_text()

    def generate(self, prompt: Prompt, sampling: Sampling) -> Stream:
        raise _no_text()

    # -- vectors ---------------------------------------------------------------------------------

    def prepare_input(self, given: str | tuple[int, ...]) -> Prompt:
        if isinstance(given, str):
            return Prompt(given, tuple(self._tokenizer(given, verbose=False)["input_ids"]))
        if not given or not 0 <= min(given) <= max(given) < self._vocabulary:
            raise ValueError(f"ids are from 0 to {self._vocabulary - 1}, one at least")
        return Prompt("", given)

    def check_dimensions(self, dimensions: int) -> None:
        """The model's own number; fewer where its config declares that they can be cut, by the
        names that vLLM reads (``is_matryoshka``, ``matryoshka_dimensions``)."""
        config = self._model.config
        known = getattr(config, "matryoshka_dimensions", None)
        free = known is None and getattr(config, "is_matryoshka", False)
        if dimensions == self.dimensions or dimensions in (known or ()):
            return
        if not (free and dimensions < self.dimensions):
            raise Unsupported(
                "dimensions", f"this model's vectors have {self.dimensions} numbers and stay whole"
            )

    def embed(self, inputs: Sequence[Prompt], dimensions: int | None) -> Stream:
        longest = max(len(each.ids) for each in inputs)
        if longest > self.context_length:
            raise PromptTooLong(
                f"{longest} tokens exceed the context of {self.context_length} tokens"
            )
        if self._closed:
            raise EngineError("the engine is closed")
        if len(self._running) >= self._max_queue:
            raise EngineBusy
        total = sum(len(each.ids) for each in inputs)
        stream = Stream(total, lambda: self._stop(stream))
        work = self._play(stream, [each.ids for each in inputs], dimensions)
        task = self._running[stream] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._end(stream))
        return stream

    def _end(self, stream: Stream) -> None:
        """The last word where there was none: the task was cancelled, perhaps before it began."""
        self._running.pop(stream, None)
        stream.push(EngineError("the engine was closed") if self._closed else Stopped(0))

    def _stop(self, stream: Stream) -> None:
        task = self._running.get(stream)
        if task is not None:
            task.cancel()

    async def _play(
        self, stream: Stream, inputs: list[tuple[int, ...]], dimensions: int | None
    ) -> None:
        """Passes of several requests take turns: each waits for the thread anew."""
        loop = asyncio.get_running_loop()
        vectors: list[bytes] = [b""] * len(inputs)
        try:
            for places in passes([len(each) for each in inputs]):
                ids = [inputs[place] for place in places]
                made = await loop.run_in_executor(self._thread, self._pass, ids, dimensions)
                for place, vector in zip(places, made, strict=True):
                    vectors[place] = vector
            usage = Usage(sum(map(len, inputs)))
            self._running.pop(stream, None)
            stream.push(Finish("stop", usage, vectors=tuple(vectors)))
        except Exception as error:
            stream.push(EngineError(f"the model failed: {type(error).__name__}: {error}"))

    @torch.inference_mode()
    def _pass(self, inputs: list[tuple[int, ...]], dimensions: int | None) -> list[bytes]:
        lengths = torch.tensor([len(each) for each in inputs])
        ids = torch.zeros(len(inputs), int(lengths.max()), dtype=torch.long)
        for row, each in enumerate(inputs):
            ids[row, : len(each)] = torch.tensor(each)
        hidden = self._model(input_ids=ids.to(self._model.device), use_cache=False)
        last = hidden.last_hidden_state[torch.arange(len(inputs)), lengths - 1].float()
        made = normalize(last[:, :dimensions], dim=-1).cpu().numpy().astype("<f4")
        return [vector.tobytes() for vector in made]

    async def close(self) -> None:
        self._closed = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)


def passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of all inputs, those of like length together, ``PASS`` padded tokens at a time."""
    places: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if places and lengths[place] * (len(places) + 1) > PASS:
            yield places
            places = []
        places.append(place)
    if places:
        yield places


def _check_pooling(folder: Path) -> None:
    """Raises EngineError: the vector is not the last token's state, scaled to length 1."""
    pooling = json.loads((folder / POOLING).read_bytes())
    modes = {
        name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True
    }
    if modes != {"pooling_mode_lasttoken"} and pooling.get("pooling_mode") != "lasttoken":
        raise EngineError(f"{folder / POOLING}: only pooling by the last token is computed here")
    modules = folder / "modules.json"
    if modules.is_file():
        kinds = [str(each.get("type", "")) for each in json.loads(modules.read_bytes())]
        known = ("Transformer", "Pooling", "Normalize")
        other = [kind for kind in kinds if kind.rpartition(".")[2] not in known]
        if other:
            raise EngineError(f"{modules}: a module {other[0]!r} is not computed here")


def _no_text() -> Unsupported:
    return Unsupported("model", "this model makes embeddings, not text: POST /v1/embeddings")
