"""The router and what every request shares: error shape, request ids, limits on what comes in."""

from __future__ import annotations

import json
import socket
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from avocado.engine.scripted import Script
from avocado.gateway.errors import ApiError
from avocado.gateway.keys import mint
from avocado.gateway.limits import Gate, Limits
from avocado.ledger.operation import RevokeKey

MakeStand = Callable[..., Any]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/images/generations", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/models/avocado-1", 405, "method_not_allowed"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/models/", 404, "unknown_url"),
    ],
)
def test_what_is_not_there_has_the_error_shape(
    stand: Any, method: str, path: str, status: int, code: str
) -> None:
    answer = stand.call(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"
    if status == 405:
        assert answer.headers["allow"] in ("GET", "POST")


def test_models_are_listed_and_shown_with_their_price(stand: Any) -> None:
    listed = stand.call("GET", "/v1/models").json
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert model == stand.call("GET", "/v1/models/avocado-1").json
    assert (model["id"], model["object"], model["created"]) == ("avocado-1", "model", 1_700_000_000)
    assert model["price_per_million_tokens"]["completion"] == "0.80"
    assert model["context_length"] == 4096
    assert stand.call("GET", "/v1/models", headers={"Authorization": ""}).status == 401


def test_health_and_readiness_need_no_key(stand: Any) -> None:
    nobody = {"Authorization": ""}
    assert stand.call("GET", "/health", headers=nobody).json == {"status": "ok"}
    assert stand.call("GET", "/ready", headers=nobody).status == 200
    stand.app.desk.draining = True
    assert stand.call("GET", "/ready", headers=nobody).status == 503
    assert stand.call("GET", "/health", headers=nobody).status == 200
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (503, "shutting_down")


def test_a_ledger_that_is_away_turns_readiness_off(stand: Any) -> None:
    stand.ledger.halt("found damaged by a test")
    assert stand.call("GET", "/ready").status == 503
    assert stand.call("GET", "/health").status == 200
    assert stand.ask().status == 503


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Encoding": "gzip"},
    ],
)
def test_other_content_is_a_415(stand: Any, headers: dict[str, str]) -> None:
    assert stand.ask(headers=headers).status == 415
    assert stand.ask(headers={"Content-Type": "application/json; charset=utf-8"}).status == 200


def test_fault_26_a_hundred_megabytes_are_a_413_and_memory_stays_flat(stand: Any) -> None:
    tracemalloc.start()
    try:
        link = socket.create_connection(("127.0.0.1", stand.port), timeout=20)
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {stand.key.text}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        link.sendall(head.encode())
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(1600):
            link.sendall(chunk)
        link.sendall(b"0\r\n\r\n")
        answer = link.recv(65536)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        link.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"request_too_large"' in answer
    assert peak < 16 * 1024 * 1024


def test_fault_26_a_declared_length_too_large_is_refused_unread(stand: Any) -> None:
    link = socket.create_connection(("127.0.0.1", stand.port), timeout=5)
    link.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer "
        + stand.key.text.encode()
        + b"\r\nContent-Length: 99999999999\r\n\r\n"
    )
    assert link.recv(4096).startswith(b"HTTP/1.1 413")
    link.close()


def test_fault_19_a_body_that_does_not_arrive_is_a_408(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(body_seconds=0.3))
    link = socket.create_connection(("127.0.0.1", stand.port), timeout=5)
    link.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + stand.key.text.encode() + b"\r\nContent-Length: 50\r\n\r\n{"
    )
    assert link.recv(4096).startswith(b"HTTP/1.1 408")
    link.close()
    stand.until(lambda: stand.app.desk.gate.total == 0)


@pytest.mark.parametrize(
    "more",
    [
        {"n": 10**9},
        {"max_tokens": -1},
        {"max_tokens": 10**30},
        {"temperature": 3},
        {"model": "x" * 100_000},
    ],
)
def test_fault_27_numbers_out_of_reason_are_a_400_or_404(stand: Any, more: Any) -> None:
    answer = stand.ask(**more)
    assert answer.status == (404 if "model" in more else 400)
    assert answer.error["param"] == next(iter(more))
    assert len(answer.body) < 200_000


def test_fault_27_temperature_nan_is_a_400(stand: Any) -> None:
    body = b'{"model":"avocado-1","messages":[{"role":"user","content":"x"}],"temperature":NaN}'
    assert stand.call(body=body).error["code"] == "invalid_json"


def test_fault_28_nul_is_carried_without_loss(make_stand: MakeStand) -> None:
    stand = make_stand(Script())  # echoes
    text = "a\x00b\u2028é😀"
    assert stand.ask(text).json["choices"][0]["message"]["content"] == text
    data = b'{"model":"avocado-1","messages":[{"role":"user","content":"\\ud800"}]}'
    assert stand.call(body=data).status == 400


def test_fault_29_done_inside_an_answer_stays_content(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="x\n\ndata: [DONE]\n\ny"))
    events = stand.ask(stream=True).events()
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == "x\n\ndata: [DONE]\n\ny"


@pytest.mark.parametrize(
    "authorization",
    [
        "' OR '1'='1",
        "Bearer ' OR '1'='1",
        b"Bearer \xc3\xa9\xff\x80",
        "Bearer " + "A" * 1_000_000,
        "Basic dXNlcjpwYXNz",
        "Bearer",
        "Bearer ",
        "",
    ],
)
def test_fault_30_strange_authorization_is_a_401_of_the_same_shape(
    stand: Any, authorization: str | bytes
) -> None:
    plain = stand.ask(headers={"Authorization": f"Bearer {mint(b'another pepper').text}"})
    for path, body in (
        ("/v1/chat/completions", {"model": "avocado-1", "messages": []}),
        ("/v1/completions", {"model": "avocado-1", "prompt": "x"}),
        ("/v1/responses", {"model": "avocado-1", "input": "x"}),
        ("/api/v1/generation?id=x", None),
        ("/v1/models", None),
    ):
        answer = stand.call(
            "POST" if body else "GET", path, body, headers={"Authorization": authorization}
        )
        assert answer.status == 401, path
        assert answer.error == plain.error, "nothing tells a strange key from a wrong one"
        assert "www-authenticate" not in answer.headers
    assert stand.ask().status == 200, "the server is none the worse"


def test_fault_31_a_revoked_key_is_refused_within_a_second(stand: Any) -> None:
    assert stand.ask().status == 200
    stand.ledger.do_now(RevokeKey(key_id=stand.key.id))
    began = time.monotonic()
    # The ledger knows at once and refuses the hold; the keyring knows within its second.
    assert stand.ask().status == 401
    stand.until(lambda: stand.call("GET", "/v1/models").status == 401, 1.5)
    assert time.monotonic() - began < 1.2


def test_wrong_keys_are_throttled(stand: Any) -> None:
    wrong = {"Authorization": "Bearer av_live_wrong"}
    statuses = [stand.call("GET", "/v1/models", headers=wrong).status for _ in range(25)]
    assert statuses[:20] == [401] * 20
    assert statuses[21:] == [429] * 4


def test_request_ids_are_unique_under_load(stand: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: stand.ask(), range(64)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 64
    assert len(stand.charges) == 64
    stand.until(lambda: stand.app.desk.gate.total == 0)


def test_a_large_prompt_is_rendered_off_the_loop(make_stand: MakeStand) -> None:
    stand = make_stand()
    threads = []
    prepare = stand.engine.prepare

    def watched(chat: Any) -> Any:
        import threading

        threads.append(threading.current_thread().name)
        return prepare(chat)

    stand.engine.prepare = watched
    assert stand.ask("x" * 20_000).status == 200
    assert stand.ask("x").status == 200
    assert threads[0] != "gateway" == threads[1]


def test_a_bug_of_ours_is_a_500_without_its_cause(stand: Any) -> None:
    def bug(chat: Any) -> Any:
        raise RuntimeError("/a/secret/path")

    stand.engine.prepare = bug
    answer = stand.ask()
    assert answer.status == 500
    assert "secret" not in json.dumps(answer.error)
    assert stand.app.desk.gate.total == 0


def test_the_gate_counts_in_all_and_by_customer() -> None:
    gate = Gate(3, 2)
    gate.enter("a")
    gate.enter("a")
    with pytest.raises(ApiError):
        gate.enter("a")
    gate.enter("b")
    with pytest.raises(ApiError):
        gate.enter("c")
    gate.leave("a")
    gate.enter("c")
    for tenant in ("a", "b", "c"):
        gate.leave(tenant)
    assert gate.total == 0
    assert gate._inside == {}


def test_head_asks_what_get_gets(stand: Any) -> None:
    for path in ("/health", "/ready", "/openapi.json", "/metrics"):
        answer = stand.call("HEAD", path)
        assert (answer.status, answer.body) == (200, b""), path
    assert stand.call("HEAD", "/v1/chat/completions").status == 405


def test_metrics_carry_the_id_too(stand: Any) -> None:
    assert stand.call("GET", "/metrics").headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("named", ["max_tokens", "max_completion_tokens"])
def test_too_many_tokens_are_blamed_on_the_name_that_was_sent(stand: Any, named: str) -> None:
    message = {"role": "user", "content": "hi"}
    body = {"model": "avocado-1", "messages": [message], named: 10**6}
    error = stand.call("POST", "/v1/chat/completions", body).error
    assert (error["param"], error["code"]) == (named, "context_length_exceeded")
    assert error["message"].startswith("This model's maximum context length is 4096 tokens")
