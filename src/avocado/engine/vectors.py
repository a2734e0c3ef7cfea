"""Vectors from an OpenAI-compatible server: what is asked of its ``/v1/embeddings``, and how the
answer is read. Pure, but for the reading.

Inputs go as token ids where the server takes them and we have the tokenizer; else as they came.
What a server sends must be as many vectors as inputs, of one length, and numbers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from avocado.data.chat import Prompt
from avocado.engine.engine import EngineError, Finish, Unsupported, UsageRejected
from avocado.engine.hearing import Declined, Hearing, checked_count

if TYPE_CHECKING:
    from avocado.data.chat import ChatTemplate
    from avocado.engine.connection import Connection
    from avocado.engine.stream import Stream

PATH: Final = "/v1/embeddings"
POOLING: Final = Path("1_Pooling", "config.json")
"""What makes a folder an embedding model's, as sentence-transformers writes it."""
MOST_BYTES: Final = 2**28
"""Of an answer: 2,048 vectors of 4,096 numbers, in digits, and more."""
INLINE_BYTES: Final = 2**18
"""An answer up to this size is read on the event loop; a larger one in a thread."""
AROUND: Final = 64
"""Tokens that a server may put around an input, where we don't have its tokenizer."""


class Refused(Declined, Unsupported):
    """The server makes no such vectors."""

    def __init__(self, field: str) -> None:
        said = "no embeddings" if field == "model" else "no embeddings of so many dimensions"
        Exception.__init__(self, f"the server behind this model makes {said}")
        self.field, self.retryable = field, False


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class RemoteEmbedder:
    """The embedder of a remote engine. ``start`` begins a request there: its prompt's count, who
    hears the answer, and the body."""

    def __init__(
        self,
        model: str,
        template: ChatTemplate | None,
        by_ids: bool,
        start: Callable[[int, Vectors, bytes], Stream],
    ) -> None:
        self._model, self._template, self._by_ids = model, template, by_ids
        self._start = start

    def prepare_input(self, given: str | tuple[int, ...]) -> Prompt:
        if isinstance(given, tuple):
            known = sys.maxsize if self._template is None else len(self._template.tokenizer)
            if not given or not 0 <= min(given) <= max(given) < known:
                raise ValueError(f"ids are from 0 to {known - 1}, one at least")
            return Prompt("", given)
        if self._template is not None:
            return Prompt(given, tuple(self._template.tokenizer(given, verbose=False)["input_ids"]))
        # A token has at least one byte of what it stands for.
        return Prompt(given, (0,) * (len(given.encode(errors="surrogatepass")) + AROUND))

    def check_dimensions(self, dimensions: int) -> None:
        """The server says, when it is asked."""

    def embed(self, inputs: Sequence[Prompt], dimensions: int | None) -> Stream:
        fields: dict[str, Any] = {
            "model": self._model,
            "input": [each.text if each.text and not self._by_ids else each.ids for each in inputs],
            "encoding_format": "base64",
        }
        if dimensions is not None:
            fields["dimensions"] = dimensions
        count = sum(len(each.ids) for each in inputs)
        exact = self._template is not None or not any(each.text for each in inputs)
        hearing = Vectors(count, len(inputs), dimensions, exact=exact)
        return self._start(count, hearing, msgspec.json.encode(fields))


class Vectors(Hearing):
    """Hears one answer of ``inputs`` vectors instead of events."""

    def __init__(self, counted: int, inputs: int, dimensions: int | None, *, exact: bool) -> None:
        super().__init__("", counted, 1, exact=exact)
        self._inputs, self._dimensions = inputs, dimensions

    def understood_refusal(self, status: int, refused: Exception) -> Exception:
        """What another status than 200 means. The request was checked before it was sent, so that
        what is left to be wrong is what the model can do."""
        if status not in (400, 404, 405, 422, 501):
            return refused
        field = "model" if self._dimensions is None else "dimensions"
        return Refused(field)

    async def read(self, answer: Connection) -> Finish:
        """The whole answer.

        Raises:
            EngineError: it is not what was asked for.
            UsageRejected: its count cannot be.
        """
        parts: list[bytes] = []
        size = 0
        while part := await answer.read():
            self.heard = True
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise EngineError(f"the upstream sent more than {MOST_BYTES} bytes of vectors")
        if size <= INLINE_BYTES:
            return self.understood(b"".join(parts))
        return await asyncio.to_thread(self.understood, b"".join(parts))

    def understood(self, body: bytes) -> Finish:
        """As ``read``."""
        try:
            said = _decode(body)
            made = {
                place if each.index is None else each.index: _vector(each.embedding)
                for place, each in enumerate(said.data)
            }
        except (ValueError, OverflowError, binascii.Error, RecursionError) as error:
            raise EngineError(f"the upstream's vectors cannot be read: {error}") from error
        if len(said.data) != self._inputs or made.keys() != set(range(self._inputs)):
            raise EngineError(f"the upstream sent {len(said.data)} vectors for {self._inputs}")
        sizes = {len(vector) // 4 for vector in made.values()}
        if len(sizes) > 1 or 0 in sizes or sizes - {self._dimensions or next(iter(sizes))}:
            raise EngineError(f"the upstream's vectors have {sorted(sizes)} numbers")
        self._count_prompt(said.usage)
        return Finish(
            "stop", self.usage, vectors=tuple(made[place] for place in range(self._inputs))
        )

    def _count_prompt(self, usage: dict[str, Any] | None) -> None:
        if usage is None:
            if self._exact:
                return
            raise UsageRejected("the upstream does not count its tokens")
        said = checked_count("prompt_tokens", usage.get("prompt_tokens"))
        if self._exact:
            self.disagrees = said if said != self._counted else None
            return
        if said > self._counted:
            raise UsageRejected(f"the upstream counts {said} tokens of at most {self._counted}")
        self._prompt = said


def makes_vectors(folder: Path) -> bool:
    """Whether ``folder`` holds an embedding model rather than one that makes text."""
    return (folder / POOLING).is_file()


def _vector(given: str | list[float]) -> bytes:
    """Little-endian fp32."""
    numbers = array("f")
    if isinstance(given, str):
        numbers.frombytes(base64.b64decode(given, validate=True))
        swap = numbers[:]
        if sys.byteorder == "big":
            swap.byteswap()
        finite = sum(swap)
    else:
        numbers.extend(given)
        finite = sum(numbers)
        if sys.byteorder == "big":
            numbers.byteswap()
    if not math.isfinite(finite):
        raise ValueError("a number that is none")
    return numbers.tobytes()
