"""OpenAI's client for Python uploads, runs, polls, downloads and cancels batches."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest

import avocado.seedling
from avocado.terms.price import PriceSheet
from tests.gateway.conftest import MakeStand, Stand

HALF = PriceSheet(200_000_000, 800_000_000, batch=500_000)
MODEL = "avocado-1"


def requests(count: int, **more: Any) -> bytes:
    """A file of chat requests, ``item-1`` and so on."""
    lines = [
        {
            "custom_id": f"item-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"say {number}"}],
                "max_tokens": 20,
                **more,
            },
        }
        for number in range(1, count + 1)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.fixture
def stand(make_stand: MakeStand) -> Stand:
    return make_stand(price=HALF)


def wait(client: openai.OpenAI, batch: Any, seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < end, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_from_upload_to_download(stand: Stand) -> None:
    client = stand.client()
    file = client.files.create(file=("in.jsonl", io.BytesIO(requests(5))), purpose="batch")
    assert (file.object, file.purpose, file.status) == ("file", "batch", "processed")
    assert file.bytes == len(requests(5))
    assert file.expires_at == file.created_at + 30 * 86_400
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"night": "1"},
    )
    assert (batch.status, batch.metadata) == ("validating", {"night": "1"})
    assert batch.expires_at == batch.created_at + 86_400
    batch = wait(client, batch)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed) == (5, 5)
    assert batch.error_file_id is None
    assert batch.output_file_id
    lines = [
        json.loads(line)
        for line in client.files.content(batch.output_file_id).text.split("\n")
        if line
    ]
    assert [line["custom_id"] for line in lines] == [f"item-{n}" for n in range(1, 6)]


def test_a_real_model_says_in_a_batch_what_it_says_at_once(make_stand: MakeStand) -> None:
    """The seedling: greedy answers are the same, beside somebody who waits, at half the price."""
    pytest.importorskip("torch")
    from avocado.engine.embedded import EmbeddedEngine

    model = Path(avocado.seedling.__file__).with_name("model")
    engine = EmbeddedEngine.load(model)
    stand = make_stand(engine=engine, price=HALF)
    client = stand.client()
    file = client.files.create(file=("in.jsonl", requests(6, temperature=0)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    said: dict[str, Any] = {}
    for number in range(1, 7):
        messages: Any = [{"role": "user", "content": f"say {number}"}]
        answer = client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=20, temperature=0
        )
        said[f"item-{number}"] = answer
    batch = wait(client, batch, 60)
    assert batch.output_file_id
    for text in client.files.content(batch.output_file_id).text.splitlines():
        line = json.loads(text)
        body, plain = line["response"]["body"], said[line["custom_id"]]
        assert body["choices"][0]["message"]["content"] == plain.choices[0].message.content
        assert body["usage"]["completion_tokens"] == plain.usage.completion_tokens
        assert body["usage"]["cost"] == pytest.approx(plain.usage.cost / 2, abs=2e-9)
    stand.in_loop(engine.close)
