"""What a server's ``/v1/embeddings`` says, right and wrong."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from avocado.data.chat import ChatTemplate
from avocado.engine.engine import EngineError, UsageRejected
from avocado.engine.stream import Stream
from avocado.engine.vectors import RemoteEmbedder, Vectors
from avocado.terms.usage import Usage


def body(*vectors: Any, usage: Any = None, **more: Any) -> bytes:
    data = [{"embedding": each, "index": place, **more} for place, each in enumerate(vectors)]
    return json.dumps({"object": "list", "data": data, "usage": usage}).encode()


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_both_encodings_are_the_same_vectors_in_the_order_of_their_index() -> None:
    data = [
        {"index": 1, "embedding": [0.0, 1.0]},
        {"index": 0, "embedding": packed(1.0, 0.0)},
    ]
    said = json.dumps({"data": data, "usage": {"prompt_tokens": 7}}).encode()
    hearing = Vectors(7, 2, None, exact=True)
    finish = hearing.understood(said)
    assert [struct.unpack("<2f", each) for each in finish.vectors] == [(1, 0), (0, 1)]
    assert finish.usage == Usage(7)
    assert hearing.disagrees is None


def test_the_count_is_ours_where_it_is_exact_and_theirs_within_the_bound() -> None:
    hearing = Vectors(7, 1, None, exact=True)
    assert hearing.understood(body([1.0], usage={"prompt_tokens": 9})).usage == Usage(7)
    assert hearing.disagrees == 9
    assert Vectors(7, 1, None, exact=True).understood(body([1.0])).usage == Usage(7)
    bound = Vectors(70, 1, None, exact=False)
    assert bound.understood(body([1.0], usage={"prompt_tokens": 9})).usage == Usage(9)
    for wrong in (None, {}, {"prompt_tokens": 71}, {"prompt_tokens": -1}, {"prompt_tokens": "9"}):
        with pytest.raises(UsageRejected):
            Vectors(70, 1, None, exact=False).understood(body([1.0], usage=wrong))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{}",
        body(),
        body([1.0], [1.0]),
        body([]),
        body(""),
        body("x"),
        body("AAAA"),
        body(packed(1.0, float("nan"))),
        body([1e300]),
        body([1.0], index=1),
        body([1.0, 2.0, 3.0]),
    ],
)
def test_what_is_not_as_many_vectors_of_two_numbers_is_refused(said: bytes) -> None:
    with pytest.raises(EngineError, match="the upstream"):
        Vectors(7, 1, 2, exact=True).understood(said)


def sent(
    template: ChatTemplate | None, by_ids: bool, *given: str | tuple[int, ...], **options: Any
) -> tuple[int, dict[str, Any]]:
    found: list[tuple[int, dict[str, Any]]] = []

    def start(count: int, hearing: Vectors, body: bytes) -> Stream:
        found.append((count, json.loads(body)))
        return Stream(count, lambda: None)

    embedder = RemoteEmbedder("m", template, by_ids, start)
    inputs = [embedder.prepare_input(each) for each in given]
    embedder.embed(inputs, options.get("dimensions"))
    return found[0]


def test_what_is_sent(template: ChatTemplate) -> None:
    ids = tuple(template.tokenizer("hello")["input_ids"])
    base = {"model": "m", "encoding_format": "base64"}
    assert sent(template, True, "hello", "hello") == (
        2 * len(ids),
        {**base, "input": [list(ids)] * 2},
    )
    assert sent(template, False, "hello") == (len(ids), {**base, "input": ["hello"]})
    assert sent(template, False, ids) == (len(ids), {**base, "input": [list(ids)]})
    count, said = sent(None, False, "hällo", dimensions=3)
    assert said == {**base, "input": ["hällo"], "dimensions": 3}
    assert count >= len("hällo".encode())


def test_ids_that_the_tokenizer_does_not_have(template: ChatTemplate) -> None:
    embedder = RemoteEmbedder("m", template, True, lambda *_: Stream(0, lambda: None))
    for wrong in ((), (-1,), (len(template.tokenizer),)):
        with pytest.raises(ValueError, match="ids are from 0 to"):
            embedder.prepare_input(wrong)
