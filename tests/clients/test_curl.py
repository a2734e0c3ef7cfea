"""curl, as our documents show it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest


@pytest.fixture
def curl() -> str:
    found = shutil.which("curl")
    if found is None:
        assert not os.environ.get("AVOCADO_CLIENTS"), "this test needs curl"
        pytest.skip("curl is not installed")
    return found


def run(curl: str, address: dict[str, Any], path: str, body: Any = None, *more: str) -> str:
    key = f"Authorization: Bearer {address['AVOCADO_KEY']}"
    data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    command = [curl, "-sS", "-N", f"{address['AVOCADO_URL']}{path}", "-H", key, *data, *more]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def test_an_answer_and_a_stream(curl: str, address: dict[str, Any]) -> None:
    body = {"model": "avocado-1", "messages": [{"role": "user", "content": "hi"}]}
    answer = json.loads(run(curl, address, "/v1/chat/completions", body))
    assert answer["choices"][0]["message"]["content"] == "one two three four five"
    told = run(curl, address, "/v1/chat/completions", {**body, "stream": True})
    assert told.endswith("data: [DONE]\n\n")


def test_models_and_errors(curl: str, address: dict[str, Any]) -> None:
    assert json.loads(run(curl, address, "/v1/models"))["data"][0]["id"] == "avocado-1"
    told = run(curl, address, "/v1/nothing", None, "-w", "%{http_code}")
    assert told.endswith("404")
    credits = json.loads(run(curl, address, "/api/v1/credits"))
    assert credits["data"]["total_credits"] == 1


def test_a_body_that_waits_for_100_continue(curl: str, address: dict[str, Any]) -> None:
    """curl asks before it sends more than a megabyte."""
    text = "word " * 300_000
    body = {"model": "avocado-1", "messages": [{"role": "user", "content": text}]}
    path = ["-H", "Expect: 100-continue", "-w", "%{http_code}", "--data-binary", "@-"]
    key = f"Authorization: Bearer {address['AVOCADO_KEY']}"
    url = f"{address['AVOCADO_URL']}/v1/chat/completions"
    command = [curl, "-sS", url, "-H", key, "-H", "Content-Type: application/json", *path]
    ran = subprocess.run(
        command, input=json.dumps(body), capture_output=True, text=True, check=True, timeout=30
    )
    assert ran.stdout.endswith("400"), "too long for the context, and heard"
    assert "context" in ran.stdout
