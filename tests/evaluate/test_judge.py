"""A judge over real HTTP: places swapped, ties, contradictions, what was said is kept, failures."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from avocado.errors import Refused
from avocado.evaluate import judge as judging
from avocado.evaluate.cache import Cache
from avocado.evaluate.graders import Exact, Judge
from avocado.evaluate.judge import prefer, score_of, verdict
from avocado.evaluate.run import Result
from avocado.evaluate.suite import Item, Suite, SuiteError

Decide = Callable[[str, str], str]
"""The answers A and B to what the judge says."""


class Server:
    """An OpenAI-compatible server that judges by a function and keeps what it was asked."""

    def __init__(self, decide: Decide) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = json.loads(self.rfile.read(length))
                outer.asked.append(body)
                outer.keys.add(self.headers["authorization"])
                text = body["messages"][1]["content"]
                a, b = text.split("[Answer A]\n")[1].split("\n\n[Answer B]\n")
                said = decide(a, b)
                answer = {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "judge",
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": said},
                        }
                    ],
                }
                data = json.dumps(answer).encode()
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def judged_by(decide: Decide) -> Iterator[Server]:
    with Server(decide) as server:
        yield server


def longer(a: str, b: str) -> str:
    return "thinking…\n[[A]]" if len(a) > len(b) else "[[B]]"


def suite(judge: Judge, count: int = 3) -> Suite:
    items = (
        Item(f"i{n}", "de", ({"role": "user", "content": f"Frage {n}"},), "") for n in range(count)
    )
    return Suite("taste", tuple(items), judge)


def answers(*texts: str) -> list[Result]:
    return [
        Result(f"i{n}", "de", None, 0.5, None, text, "stop", 5, 2) for n, text in enumerate(texts)
    ]


def scores(
    judge: Judge, base: list[Result], other: list[Result], cache: Cache | None = None
) -> list[float]:
    found = asyncio.run(prefer(suite(judge, len(base)), base, other, cache=cache))
    assert all(each.correct is None for each in found)
    return [each.score for each in found]


def test_a_win_in_both_places_wins_and_every_pair_is_asked_twice(tmp_path: Path) -> None:
    with judged_by(longer) as server:
        judge = Judge(url=server.url, model="judge")
        base, other = answers("aa", "a", "same"), answers("a", "aa", "same")
        assert scores(judge, base, other, Cache(tmp_path, "j")) == [0.0, 1.0, 0.5]
        assert len(server.asked) == 4, "equal answers are a tie without asking"
        assert server.asked[0]["temperature"] == 0
        assert scores(judge, base, other, Cache(tmp_path, "j")) == [0.0, 1.0, 0.5]
        assert len(server.asked) == 4, "what was judged once is kept"


def test_a_judge_that_likes_a_place_makes_ties_only() -> None:
    with judged_by(lambda a, b: "[[A]]") as server:
        judge = Judge(url=server.url, model="judge")
        assert scores(judge, answers("x", "y"), answers("z", "w")) == [0.5, 0.5]


def test_thoughts_of_both_sides_do_not_count() -> None:
    with judged_by(lambda a, b: "<think>[[A]]</think>[[C]]") as server:
        judge = Judge(url=server.url, model="judge")
        other = answers("<think>a plan</think>\n\nyes")
        assert scores(judge, answers("no"), other) == [0.5]
        sent = server.asked[0]["messages"][1]["content"]
        assert "a plan" not in sent
        assert "[Answer B]\nyes" in sent


def test_verdicts_are_the_last_ones_said() -> None:
    assert verdict("[[A]] at first, but then [[B]]") == "B"
    assert verdict("[[C]]") == "tie"
    assert verdict("I cannot say") == "tie"
    assert [score_of(*pair) for pair in (("B", "A"), ("A", "B"), ("A", "A"), ("tie", "A"))] == [
        1.0,
        0.0,
        0.5,
        0.5,
    ]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with judged_by(longer) as server:
        judge = Judge(url=server.url, model="judge", key_env="JUDGE_KEY_FOR_TEST")
        with pytest.raises(Refused, match="set the environment variable JUDGE_KEY_FOR_TEST"):
            scores(judge, answers("a"), answers("b"))
        monkeypatch.setenv("JUDGE_KEY_FOR_TEST", "sk-1")
        scores(judge, answers("a"), answers("b"))
        assert server.keys == {"Bearer sk-1"}


def test_a_judge_that_is_down_or_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "RETRIES", 0)
    down = Judge(url="http://127.0.0.1:9/v1", model="judge")
    with pytest.raises(
        Refused, match=r"the judge judge at http://127\.0\.0\.1:9/v1 does not answer"
    ):
        scores(down, answers("a"), answers("b"))
    with judged_by(longer) as server:
        server.status = 404
        with pytest.raises(Refused, match="does not answer"):
            scores(Judge(url=server.url, model="judge"), answers("a"), answers("b"))


def test_only_a_suite_with_a_judge_is_judged() -> None:
    with pytest.raises(SuiteError, match="not graded by a judge"):
        asyncio.run(prefer(Suite("s", (), Exact()), [], []))
