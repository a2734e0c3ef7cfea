"""Distillation as a user runs it: a recipe, teachers over HTTP, a checkpoint with its chain."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from avocado.workspace import Workspace

from .conftest import RECIPE, Avocado

Answers = dict[str, str]


class _Teacher(BaseHTTPRequestHandler):
    """Answers what it was told to; ``requests`` counts what was asked."""

    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests += 1
        question = body["messages"][-1]["content"]
        known = self.server.answers.get(question, "I do not know")
        text = known if body["model"] == "good" else "nothing"
        said = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": f"<think>hm</think>{text}"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30},
        }
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def teacher(shop: Path) -> Iterator[Any]:
    """A server that knows every answer of the training data."""
    rows = [json.loads(line) for line in (shop / "train.jsonl").read_text().splitlines()]
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Teacher)
    server.answers = {
        row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in rows
    }
    server.requests = 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def recipe(url: str, more: str = "") -> str:
    return (
        RECIPE.replace("[training]", 'method = "distillation"\n\n[training]')
        + f"""
[distillation]
rewards = [{{kind = "exact"}}]
{more}
[[distillation.teachers]]
model = "good"
url = "{url}"
license = "Apache-2.0"
revision = "r1"
price_output = "2"

[[distillation.teachers]]
model = "poor"
url = "{url}"
license = "CC-BY-NC-4.0"
"""
    )


def test_teachers_answers_are_learnt_and_on_record(
    shop: Path, avocado: Avocado, teacher: Any
) -> None:
    url = f"http://127.0.0.1:{teacher.server_address[1]}/v1"
    (shop / "recipe.toml").write_text(recipe(url))
    ran = avocado(shop, "train", "recipe.toml")
    assert ran.code == 0, ran.err
    assert "good: 40 answers, 40 kept, 0 failed, cost 0.0008" in ran.out
    assert teacher.requests == 80

    store = Workspace.find(shop).store
    (checkpoint,) = map(store.load, store.ids("checkpoint"))
    corpus = store.load(checkpoint.manifest.parents["corpus"])
    facts = corpus.manifest.facts
    assert [(each["model"], each["kept"]) for each in facts["teachers"]] == [
        ("good", 40),
        ("poor", 0),
    ]
    assert sum(each["kept"] for each in facts["asked"].values()) == 40
    records = [json.loads(line) for line in (corpus.files / "teachers.jsonl").open()]
    assert {(each["teacher"], each["revision"], each["license"]) for each in records} == {
        ("good", "r1", "Apache-2.0")
    }
    assert store.load(corpus.manifest.parents["prompts"]).manifest.facts["kind"] == "problem"

    again = avocado(shop, "train", "recipe.toml")
    assert again.code == 0
    assert teacher.requests == 80, "what was paid for is not asked again"
    assert len(store.ids("checkpoint")) == 1


def test_no_good_answer_is_said(shop: Path, avocado: Avocado, teacher: Any) -> None:
    teacher.answers = {}
    url = f"http://127.0.0.1:{teacher.server_address[1]}/v1"
    (shop / "recipe.toml").write_text(recipe(url))
    ran = avocado(shop, "train", "recipe.toml")
    assert ran.code == 1
    assert "none reached the threshold of 0.5" in ran.err


@pytest.mark.slow
def test_a_teacher_that_is_not_there_is_named(shop: Path, avocado: Avocado) -> None:
    (shop / "recipe.toml").write_text(recipe("http://127.0.0.1:9/v1"))
    ran = avocado(shop, "train", "recipe.toml")
    assert ran.code == 1
    assert "at http://127.0.0.1:9/v1" in ran.err


def test_a_local_teacher_is_part_of_the_chain(shop: Path, avocado: Avocado) -> None:
    text = RECIPE.replace("[training]", 'method = "distillation"\n\n[training]')
    table = '\n[distillation]\nmodel = "seedling"\nmax_tokens = 4\n'
    (shop / "recipe.toml").write_text(text.replace("steps = 2", "steps = 1") + table)
    ran = avocado(shop, "train", "recipe.toml")
    assert ran.code == 0, ran.err
    store = Workspace.find(shop).store
    (checkpoint,) = map(store.load, store.ids("checkpoint"))
    parents = checkpoint.manifest.parents
    assert parents["teacher"] == parents["base"]
