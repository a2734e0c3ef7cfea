"""``POST /v1/embeddings``: a real embedding model behind a whole gateway, paid by the token."""

from __future__ import annotations

import base64
import http.client
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from schemathesis import GenerationMode

from avocado.engine.embedding import EmbeddingEngine
from avocado.gateway.surfaces.embeddings import MAX_INPUTS
from tests.engine.small_embedder import write_embedder
from tests.gateway.conftest import PRICE, MakeStand, Stand
from tests.gateway.test_openapi import run_cases

PATH = "/v1/embeddings"
MODEL = "avocado-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embedder") / "model")


@pytest.fixture
def engine(folder: Path) -> EmbeddingEngine:
    return EmbeddingEngine.load(folder)


@pytest.fixture
def selling(make_stand: MakeStand, engine: EmbeddingEngine) -> Iterator[Stand]:
    stand = make_stand(engine=engine)
    yield stand
    stand.in_loop(engine.close)


def embed(stand: Stand, given: Any, **more: Any) -> Any:
    return stand.call(path=PATH, body={"model": MODEL, "input": given, **more})


def test_openais_client_gets_vectors_and_pays_for_their_tokens(
    selling: Stand, engine: EmbeddingEngine
) -> None:
    texts = ["Das Treffen ist am 12. März.", "hello"]
    answer = selling.client().embeddings.create(model=MODEL, input=texts, user="u")
    count = sum(len(engine.prepare_input(text).ids) for text in texts)
    assert [each.index for each in answer.data] == [0, 1]
    for each in answer.data:
        assert len(each.embedding) == engine.dimensions
        assert abs(sum(number * number for number in each.embedding) - 1) < 1e-5
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == count
    (charge,) = selling.charges
    assert (charge.usage.prompt, charge.usage.completion) == (count, 0)
    assert charge.charge == -(-count * PRICE.prompt // 1_000_000)
    assert answer.model_dump()["usage"]["cost"] == charge.charge / 1e9
    selling.until(lambda: selling.log)
    assert selling.log[-1]["prompt_tokens"] == count


def test_base64_and_numbers_are_the_same_vectors(selling: Stand) -> None:
    numbers = embed(selling, "hello", encoding_format="float").json["data"][0]["embedding"]
    packed = embed(selling, "hello", encoding_format="base64").json["data"][0]["embedding"]
    data = base64.b64decode(packed)
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == numbers
    plain = embed(selling, "hello").json
    assert plain["data"][0] == {"object": "embedding", "index": 0, "embedding": numbers}
    assert plain["object"] == "list"
    assert plain["model"] == MODEL


def test_token_ids_stand_for_texts(selling: Stand, engine: EmbeddingEngine) -> None:
    one, other = (list(engine.prepare_input(text).ids) for text in ("hello", "there"))
    wanted = [each["embedding"] for each in embed(selling, ["hello", "there"]).json["data"]]
    both = embed(selling, [one, other]).json
    assert both["usage"]["prompt_tokens"] == len(one) + len(other)
    close = pytest.approx
    assert both["data"][0]["embedding"] == close(wanted[0], abs=1e-5)
    assert both["data"][1]["embedding"] == close(wanted[1], abs=1e-5)
    (alone,) = embed(selling, one).json["data"]
    assert alone["embedding"] == close(wanted[0], abs=1e-5)


@pytest.mark.parametrize(
    ("given", "more", "param", "code"),
    [
        ("", {}, "input", None),
        ([], {}, "input", None),
        ([""], {}, "input[0]", None),
        (["x"] * (MAX_INPUTS + 1), {}, "input", None),
        (["x", 1], {}, "input", None),
        ([1, [1]], {}, "input", None),
        ([[]], {}, "input[0]", None),
        ([1 << 30], {}, "input", None),
        ([-1], {}, "input[0]", None),
        ("hello " * 600, {}, "input", "context_length_exceeded"),
        ("x", {"dimensions": 16}, "dimensions", None),
        ("x", {"dimensions": 0}, "dimensions", None),
        ("x", {"encoding_format": "int8"}, "encoding_format", None),
        ("x", {"stream": True}, "stream", "unknown_parameter"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_it(
    selling: Stand, given: Any, more: dict[str, Any], param: str, code: str | None
) -> None:
    answer = embed(selling, given, **more)
    assert (answer.status, answer.error["param"]) == (400, param), answer.body
    if code is not None:
        assert answer.error["code"] == code
    assert selling.charges == []


def test_all_inputs_of_the_longest_list(selling: Stand) -> None:
    answer = embed(selling, ["x"] * MAX_INPUTS, encoding_format="base64").json
    assert [each["index"] for each in answer["data"]] == list(range(MAX_INPUTS))
    assert len({each["embedding"] for each in answer["data"]}) <= 2


def test_dimensions_of_a_model_that_can_be_cut(tmp_path: Path, make_stand: MakeStand) -> None:
    engine = EmbeddingEngine.load(write_embedder(tmp_path / "m", is_matryoshka=True))
    stand = make_stand(engine=engine)
    answer = stand.client().embeddings.create(model=MODEL, input="hello", dimensions=8)
    assert len(answer.data[0].embedding) == 8
    stand.in_loop(engine.close)


def test_a_model_of_text_says_so_and_a_model_of_vectors_too(stand: Stand, selling: Stand) -> None:
    answer = embed(stand, "x")
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert "makes text, not embeddings" in answer.error["message"]
    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
    ):
        answer = selling.call(path=path, body={"model": MODEL, **body})
        assert (answer.status, answer.error["param"]) == (400, "model")
        assert "makes embeddings, not text" in answer.error["message"]
    assert selling.charges == []


def test_it_costs_no_more_than_there_is(make_stand: MakeStand, engine: EmbeddingEngine) -> None:
    count = len(engine.prepare_input("hello").ids)
    cost = -(-count * PRICE.prompt // 1_000_000)
    stand = make_stand(engine=engine, credit=cost)
    assert embed(stand, "hello").status == 200
    assert stand.balance.available == 0
    with pytest.raises(openai.APIStatusError) as caught:
        stand.client().embeddings.create(model=MODEL, input="hello")
    assert caught.value.status_code == 402
    stand.in_loop(engine.close)


def test_the_same_idempotency_key_gets_the_same_answer_and_pays_once(selling: Stand) -> None:
    headers: Any = {"Idempotency-Key": "once"}
    body = {"model": MODEL, "input": ["hello", "there"]}
    first, again = (selling.call(path=PATH, body=body, headers=headers) for _ in range(2))
    assert first.json["data"] == again.json["data"]
    assert len(selling.charges) == 1


def test_a_client_that_hangs_up_pays_nothing(selling: Stand, engine: EmbeddingEngine) -> None:
    body = json.dumps({"model": MODEL, "input": [[1] * 400] * MAX_INPUTS}).encode()
    link = http.client.HTTPConnection("127.0.0.1", selling.port)
    headers = {"Authorization": f"Bearer {selling.key.text}", "Content-Type": "application/json"}
    link.request("POST", PATH, body, headers)
    selling.until(lambda: engine.occupancy.running)
    link.close()
    selling.until(lambda: selling.log)
    assert selling.log[-1]["outcome"] == "disconnect"
    assert engine.occupancy.running == 0
    assert selling.charges == []


def test_answers_are_as_the_document_says(selling: Stand) -> None:
    """schemathesis sends what ``/openapi.json`` allows; test_openapi sees the refusals."""
    seen = run_cases(selling, "POST /v1/embeddings", GenerationMode.POSITIVE, 40)
    assert seen[200] >= 10
