"""The paid path through real sockets and a real ledger: every ending, and what it costs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from avocado.engine.engine import Delta, Event, Finish, Generation, Sampling, Unsupported
from avocado.engine.scripted import Script, ScriptedEngine
from avocado.gateway.limits import Limits
from avocado.ledger.errors import LedgerUnavailable
from avocado.ledger.operation import Freeze, PublishPrice, SetSpendLimit
from avocado.release.offer import Offer
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage, UsageError

MakeStand = Callable[..., Any]
AWAY = LedgerUnavailable("the disk is gone")


def test_a_plain_answer_is_charged_exactly(stand: Any) -> None:
    before = stand.balance.available
    answer = stand.ask("hi")
    assert answer.status == 200
    body = answer.json
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "one two three four five"
    assert body["choices"][0]["finish_reason"] == "stop"
    usage = body["usage"]
    # Two prompt words, five words and the stop token: 2 × 200 + 6 × 800 nano-units.
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 6, 8)
    assert b'"cost":0.0000052,' in answer.body
    charge = stand.charges[0]
    assert charge.charge == 5200 == before - stand.balance.available
    assert charge.usage == Usage(2, 6)
    assert charge.request == answer.headers["x-request-id"]
    assert body["id"] == f"chatcmpl-{charge.request}"


def test_a_stream_ends_with_usage_only_where_it_was_asked_for(stand: Any) -> None:
    plain = stand.ask(stream=True).events()
    assert all("usage" not in event for event in plain)
    asked = stand.ask(stream=True, stream_options={"include_usage": True}).events()
    text = "".join(e["choices"][0]["delta"].get("content") or "" for e in asked if e["choices"])
    assert text == "one two three four five"
    assert asked[0]["choices"][0]["delta"]["role"] == "assistant"
    assert asked[-2]["choices"][0]["finish_reason"] == "stop"
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] == 6
    assert [event["usage"] for event in asked[:-1]] == [None] * (len(asked) - 1)
    assert len(stand.charges) == 2


def test_a_free_offer_takes_the_same_path_at_price_zero(make_stand: MakeStand) -> None:
    stand = make_stand(price=PriceSheet(0, 0), credit=0)
    answer = stand.ask()
    assert answer.status == 200
    assert b'"cost":0.00,' in answer.body
    assert stand.charges[0].charge == 0


def test_no_money_is_a_402_that_says_what_the_money_would_buy(make_stand: MakeStand) -> None:
    stand = make_stand(credit=80_400)
    answer = stand.ask("hi", max_tokens=1000)
    assert answer.status == 402
    error = answer.error
    assert (error["type"], error["code"]) == ("insufficient_quota", "credit_balance_exhausted")
    assert "0.0008004 are needed, 0.0000804 are available" in error["message"]
    assert error["message"].endswith("max_tokens: 100")
    assert stand.ask("hi", max_tokens=100).status == 200
    assert stand.balance.available == 80_400 - 5200


def test_a_customer_without_money_costs_no_engine_time(make_stand: MakeStand) -> None:
    stand = make_stand(credit=0)
    seen: list[int] = []

    def script(prompt: Any, sampling: Any) -> Script:
        seen.append(1)
        return Script()

    stand.engine.script = script
    assert [stand.ask().status for _ in range(4)] == [402] * 4
    assert len(seen) == 1, "after the first refusal the hold comes before the engine"


def test_a_spend_limit_of_a_key_is_a_402(stand: Any) -> None:
    stand.ledger.do_now(SetSpendLimit(tenant="acme", key_id=stand.key.id, total=10_000))
    assert stand.ask("hi", max_tokens=6).status == 200
    answer = stand.ask("hi", max_tokens=6)
    assert (answer.status, answer.error["code"]) == (402, "spend_limit_exceeded")
    assert answer.error["type"] == "insufficient_quota"
    assert "leaves 0.0000048" in answer.error["message"]


def test_length_is_said_and_charged(stand: Any) -> None:
    answer = stand.ask(max_tokens=2)
    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert stand.charges[0].usage.completion == 2


def test_the_default_maximum_is_what_the_context_leaves(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(default_max_tokens=100))
    stand.ask()
    stand.idle()
    assert stand.reader.hold(stand.charges[0].request).max_tokens == 100
    wide = make_stand()
    wide.ask("a " * 4000)
    # The scripted engine's context is 4096 words: "user: " and 4000 more are taken.
    assert (
        wide.reader.hold(wide.charges[0].request).max_tokens == 4096 - wide.charges[0].usage.prompt
    )


def test_what_does_not_fit_the_context_is_a_400_and_never_lowered(stand: Any) -> None:
    answer = stand.ask(max_tokens=4096)
    assert answer.status == 400
    assert answer.error["code"] == "context_length_exceeded"
    assert answer.error["param"] == "max_tokens"
    too_long = stand.ask("a " * 5000)
    assert (too_long.status, too_long.error["param"]) == (400, "messages")
    assert stand.charges == []


# -- the ledger ------------------------------------------------------------------------------------


def test_fault_07_same_key_other_body_is_a_409(stand: Any) -> None:
    assert stand.ask("a", headers={"Idempotency-Key": "k"}).status == 200
    answer = stand.ask("b", headers={"Idempotency-Key": "k"})
    assert (answer.status, answer.error["code"]) == (409, "idempotency_conflict")
    assert len(stand.charges) == 1


def test_an_idempotency_key_of_a_request_that_failed_is_free_again(make_stand: MakeStand) -> None:
    stand = make_stand(Script(fail_after=0))
    assert stand.ask(headers={"Idempotency-Key": "k"}).status == 503
    stand.engine.script = Script(reply="yes")
    assert stand.ask(headers={"Idempotency-Key": "k"}).status == 200


def test_fault_08_hundred_at_once_money_for_one(make_stand: MakeStand) -> None:
    # Two prompt words and at most ten tokens: a ceiling of 8,400 nano-units; the balance is that.
    stand = make_stand(Script(reply="a " * 20, delay=0.01), credit=8_400)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: stand.ask("hi", max_tokens=10), range(100)))
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) == 1
    assert statuses.count(402) == 99
    stand.idle()
    assert stand.balance.available == 0


def test_fault_10_a_price_change_mid_stream_bills_the_old_version(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a b c d", delay=0.05))
    link = stand.raw(
        {
            "model": "avocado-1",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 10,
        }
    )
    first = link.recv(4096)
    assert b"data: " in first
    dear = PriceSheet(200_000_000_000, 800_000_000_000)
    stand.ledger.do_now(PublishPrice(terms=dear.terms()))
    stand.offers["avocado-1"] = replace(stand.offers["avocado-1"], price=dear)
    _drink(link)
    stand.idle()
    assert stand.charges[0].charge == 2 * 200 + 5 * 800
    assert stand.ask("hi", max_tokens=10).status == 200
    assert stand.charges[1].charge == (2 * 200 + 5 * 800) * 1000


def test_fault_12_ledger_away_is_a_503_at_once_and_nothing_is_served(stand: Any) -> None:
    stand.book.broken["hold"] = AWAY
    for stream in (False, True):
        began = time.monotonic()
        answer = stand.ask(stream=stream)
        assert time.monotonic() - began < 1
        assert (answer.status, answer.error["code"]) == (503, "ledger_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert b"one" not in answer.body
    assert stand.engine.running == 0
    del stand.book.broken["hold"]
    assert stand.ask().status == 200


def test_fault_12_a_ledger_that_hangs_is_a_503_within_a_second(make_stand: MakeStand) -> None:
    stand = make_stand(hold_seconds=Limits().hold_seconds)
    stand.book.hanging.add("hold")
    began = time.monotonic()
    answer = stand.ask()
    assert time.monotonic() - began < 1.2
    assert (answer.status, answer.error["code"]) == (503, "ledger_unavailable")
    assert stand.engine.running == 0


def test_fault_12_a_hold_that_was_acknowledged_too_late_is_voided(make_stand: MakeStand) -> None:
    stand = make_stand(hold_seconds=0.5)

    async def slow(operation: Any) -> Any:
        held = await stand.ledger.hold(operation)
        await asyncio.sleep(30)
        return held

    stand.book.hold = slow
    answer = stand.ask()
    assert answer.status == 503
    stand.idle()
    assert stand.hold_of(answer).state == "voided"
    assert stand.balance.available == 1_000_000_000


def test_fault_03_ledger_away_at_settlement_is_a_503_and_no_charge(stand: Any) -> None:
    stand.book.broken |= {"settle": AWAY, "void": AWAY}
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (503, "ledger_unavailable")
    stand.book.broken.clear()
    stand.idle()
    assert stand.charges == []
    assert stand.hold_of(answer).state == "voided"


def test_a_stream_whose_settlement_waits_is_settled_when_the_ledger_is_back(stand: Any) -> None:
    stand.book.broken["settle"] = AWAY
    answer = stand.ask(stream=True)
    last = answer.events()[-1]
    assert last["error"]["code"] == "ledger_unavailable"
    assert last["choices"][0]["finish_reason"] == "error"
    stand.book.broken.clear()
    stand.idle()
    assert stand.charges[0].usage == Usage(2, 6)


def test_the_first_byte_waits_for_the_hold(make_stand: MakeStand) -> None:
    stand = make_stand()
    gate = threading.Event()
    stand.book.hold = _delayed(stand, gate)
    link = stand.raw(
        {"model": "avocado-1", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    )
    stand.until(lambda: stand.engine.running == 0 and stand.app.desk.running == 1)
    link.settimeout(0.3)
    with pytest.raises(TimeoutError):
        link.recv(1)
    gate.set()
    link.settimeout(10)
    assert _drink(link).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def _delayed(stand: Any, gate: threading.Event) -> Any:
    async def hold(operation: Any) -> Any:
        await asyncio.to_thread(gate.wait)
        return await stand.ledger.hold(operation)

    return hold


# -- the client leaves -----------------------------------------------------------------------------


def test_fault_15_disconnect_before_the_first_token(make_stand: MakeStand, ask_body: Any) -> None:
    stand = make_stand(Script(hang_after=0))
    for stream in (False, True):
        link = stand.raw(ask_body(stream=stream))
        stand.until(lambda: stand.engine.running == 1)
        link.close()
        stand.until(lambda: stand.engine.running == 0, 1)
        stand.idle()
    assert stand.engine.cancelled == 2
    assert stand.charges == [], "nothing was generated, so nothing is charged"
    assert stand.balance.held == 0


@pytest.mark.parametrize("chunk", range(1, 8))
def test_fault_16_disconnect_mid_stream_bills_what_was_generated_once(
    make_stand: MakeStand, ask_body: Any, chunk: int
) -> None:
    stand = make_stand(Script(reply="a b c d e f g h " * 8, delay=0.01))
    link = stand.raw(ask_body("hi", stream=True))
    seen = b""
    while seen.count(b"data: ") <= chunk:
        seen += link.recv(65536)
    link.close()
    began = time.monotonic()
    stand.until(lambda: stand.engine.running == 0, 1)
    assert time.monotonic() - began < 1
    stand.idle()
    (charge,) = stand.charges
    assert charge.finish == "disconnect"
    assert charge.usage.prompt == 2
    assert chunk <= charge.usage.completion < 64
    assert charge.charge == 2 * 200 + charge.usage.completion * 800


def test_fault_17_disconnect_of_a_plain_request_cancels_the_engine(
    make_stand: MakeStand, ask_body: Any
) -> None:
    stand = make_stand(Script(reply="a " * 500, delay=0.01))
    link = stand.raw(ask_body())
    stand.until(lambda: stand.engine.running == 1)
    time.sleep(0.1)
    link.close()
    stand.until(lambda: stand.engine.running == 0, 1)
    stand.idle()
    (charge,) = stand.charges
    assert charge.finish == "disconnect"
    assert 0 < charge.usage.completion < 100
    stand.until(lambda: stand.log)
    assert stand.log[0]["status"] == 499
    assert stand.log[0]["charge"] == charge.charge


def _unread(stand: Any, body: Any) -> socket.socket:
    """A client with the smallest of windows that asks and then reads nothing."""
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.settimeout(10)
    link.connect(("127.0.0.1", stand.port))
    data = json.dumps(body).encode()
    link.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (stand.key.text.encode(), len(data), data)
    )
    return link


def _rest(link: socket.socket) -> bytes:
    """What still arrives before the connection ends."""
    data = b""
    try:
        while part := link.recv(1 << 20):
            data += part
    except ConnectionResetError:
        pass
    link.close()
    return data


def test_fault_18_a_client_that_reads_nothing_is_cut_and_billed(
    make_stand: MakeStand, ask_body: Any
) -> None:
    stand = make_stand(
        Script(reply=("x" * 50_000 + " ") * 1000, delay=0.005), limits=Limits(stall_seconds=0.5)
    )
    link = _unread(stand, ask_body(stream=True))
    assert stand.ask("hi", max_tokens=1).status == 200, "others are served meanwhile"
    stand.until(lambda: len(stand.charges) == 2, 15)
    assert {charge.finish for charge in stand.charges} == {"stalled", "length"}
    stalled = next(charge for charge in stand.charges if charge.finish == "stalled")
    assert stalled.usage.completion < 1000, "the engine was stopped"
    assert b"[DONE]" not in _rest(link)


def test_fault_18_a_client_that_does_not_take_the_last_bytes_is_cut_after_the_bill(
    make_stand: MakeStand, ask_body: Any
) -> None:
    stand = make_stand(Script(reply="x" * 8_000_000), limits=Limits(stall_seconds=0.5))
    link = _unread(stand, ask_body(stream=True))
    stand.until(lambda: stand.charges, 5)
    stand.until(lambda: stand.app.desk.running == 0, 5)
    assert [charge.finish for charge in stand.charges] == ["stop"]
    rest = _rest(link)
    assert b"[DONE]" not in rest
    assert len(rest) < 8_000_000, "our buffer went with the connection"


# -- the engine fails ------------------------------------------------------------------------------


def test_fault_21_an_engine_error_before_the_first_token_is_a_true_5xx(
    make_stand: MakeStand,
) -> None:
    stand = make_stand(Script(fail_after=0))
    for stream in (False, True):
        answer = stand.ask(stream=stream)
        assert answer.status == 503
        assert answer.error["code"] == "engine_error"
        assert "retry-after" in answer.headers
        assert stand.hold_of(answer).state == "voided"
    assert stand.balance.available == 1_000_000_000


def test_fault_21_an_engine_error_later_is_an_error_event_and_the_right_bill(
    make_stand: MakeStand,
) -> None:
    stand = make_stand(Script(reply="a b c d", fail_after=2))
    answer = stand.ask("hi", stream=True, stream_options={"include_usage": True})
    assert answer.status == 200
    last = answer.events()[-1]
    assert last["error"]["code"] == "engine_error"
    assert last["choices"][0]["finish_reason"] == "error"
    assert last["usage"]["completion_tokens"] == 2
    (charge,) = stand.charges
    assert charge.charge == 2 * 200 + 2 * 800
    assert charge.finish == "engine_error"


def test_an_engine_error_costs_a_plain_request_nothing(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a b c d", fail_after=2))
    assert stand.ask().status == 503
    assert stand.charges == []


class _Lying(ScriptedEngine):
    """Reports ``usage`` at the end, or raises it; counts are as ever before that."""

    usage: Usage | Exception = Usage(2, 10**6)

    def generate(self, prompt: Any, sampling: Sampling) -> Any:
        return _Liar(super().generate(prompt, sampling), self.usage)


class _Liar:
    def __init__(self, inner: Generation, lie: Usage | Exception) -> None:
        self._inner = inner
        self._lie = lie

    @property
    def usage(self) -> Usage:
        return self._inner.usage

    async def cancel(self) -> Usage:
        return await self._inner.cancel()

    async def __aiter__(self) -> Any:
        async for event in self._inner:
            if isinstance(event, Delta):
                yield event
            elif isinstance(self._lie, Exception):
                raise self._lie
            else:
                yield Finish(event.reason, self._lie)


@pytest.mark.parametrize(
    "lie", [Usage(2, 10**6), Usage(2**53 - 1, 3), UsageError("usage.completion must not be -1")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_fault_23_usage_that_cannot_be_is_refused_and_the_hold_kept(
    make_stand: MakeStand, lie: Usage | Exception, stream: bool
) -> None:
    engine = _Lying(Script(reply="a b"))
    engine.usage = lie
    stand = make_stand(engine=engine)
    stand.holds_may_stay = True
    answer = stand.ask("hi", stream=stream)
    error = answer.events()[-1]["error"] if stream else answer.error
    assert answer.status == (200 if stream else 502)
    assert error["type"] == "server_error"
    stand.idle()
    assert stand.charges == []
    assert stand.hold_of(answer).state == "open"
    assert stand.balance.held > 0


def test_fault_24_a_hanging_engine_is_a_504_and_void(make_stand: MakeStand) -> None:
    stand = make_stand(Script(hang_after=0), limits=Limits(idle_seconds=0.5))
    for stream in (False, True):
        answer = stand.ask(stream=stream)
        assert (answer.status, answer.error["code"]) == (504, "engine_timeout")
        assert stand.hold_of(answer).state == "voided"
    assert stand.engine.running == 0


def test_fault_24_an_engine_that_hangs_mid_stream_bills_what_was_sent(
    make_stand: MakeStand,
) -> None:
    stand = make_stand(Script(reply="a b c d", hang_after=3), limits=Limits(idle_seconds=0.5))
    answer = stand.ask("hi", stream=True)
    last = answer.events()[-1]
    assert last["error"]["code"] == "engine_timeout"
    assert stand.charges[0].usage == Usage(2, 3)
    stand.engine.script = Script(reply="a b c d", hang_after=3)
    plain = stand.ask("hi")
    assert plain.status == 504
    assert len(stand.charges) == 1, "a plain request got nothing and pays nothing"


def test_a_generation_without_end_is_ended_and_billed(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a " * 2000, delay=0.01), limits=Limits(request_seconds=0.5))
    answer = stand.ask("hi", stream=True)
    assert answer.events()[-1]["error"]["code"] == "overtime"
    (charge,) = stand.charges
    assert charge.finish == "overtime"
    assert 0 < charge.usage.completion < 200
    assert stand.ask("hi").status == 504


class _Deaf(ScriptedEngine):
    """Hangs, and never answers a cancellation either."""

    def generate(self, prompt: Any, sampling: Sampling) -> Any:
        return _DeafGeneration()


class _DeafGeneration:
    usage = Usage(2, 0)

    async def cancel(self) -> Usage:
        await asyncio.Event().wait()
        raise AssertionError

    async def __aiter__(self) -> Any:
        await asyncio.Event().wait()
        yield Event


def test_fault_24_an_engine_deaf_to_cancellation_is_still_a_504(make_stand: MakeStand) -> None:
    stand = make_stand(engine=_Deaf(), limits=Limits(idle_seconds=0.5))
    answer = stand.ask()
    assert answer.status == 504
    assert stand.hold_of(answer).state == "voided"


def test_a_full_engine_is_a_429_before_any_hold(make_stand: MakeStand, ask_body: Any) -> None:
    stand = make_stand(Script(reply="a", hang_after=0))
    stand.engine.capacity = 1
    link = stand.raw(ask_body())
    stand.until(lambda: stand.engine.running == 1)
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (429, "overloaded")
    assert "retry-after" in answer.headers
    assert stand.reader.hold(answer.headers["x-request-id"]) is None
    link.close()
    stand.idle()


def test_what_the_engine_cannot_do_is_a_400_before_any_hold(stand: Any) -> None:
    async def check(sampling: Any) -> None:
        raise Unsupported("top_k", "this engine has no top_k")

    stand.engine.check = check
    answer = stand.ask(top_k=3)
    assert (answer.status, answer.error["param"]) == (400, "top_k")
    assert stand.reader.hold(answer.headers["x-request-id"]) is None


def test_fault_20_overload_is_a_429_before_tokenizing(make_stand: MakeStand, ask_body: Any) -> None:
    stand = make_stand(Script(hang_after=0), limits=Limits(running=3, running_per_customer=2))
    counted: list[int] = []
    prepare = stand.engine.prepare

    def count(chat: Any) -> Any:
        counted.append(1)
        return prepare(chat)

    stand.engine.prepare = count
    links = [stand.raw(ask_body()) for _ in range(2)]
    stand.until(lambda: stand.engine.running == 2)
    for _ in range(20):
        answer = stand.ask()
        assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
        assert answer.headers["retry-after"] == "1"
    assert len(counted) == 2
    for link in links:
        link.close()
    stand.idle()
    stand.engine.script = Script(reply="ok")
    assert stand.ask().status == 200, "places are given back"


def test_progress_of_a_stream_is_reported_at_least_once_a_second(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a " * 150, delay=0.01))
    answer = stand.ask(stream=True)
    counts = [usage.completion for _, usage in stand.book.progressed]
    assert len(counts) >= 3
    assert counts == sorted(counts)
    assert {hold for hold, _ in stand.book.progressed} == {answer.headers["x-request-id"]}
    stand.book.progressed.clear()
    stand.ask()
    assert stand.book.progressed == [], "a plain request delivers nothing before its end"


def test_one_log_line_a_request_and_no_prompt_text(stand: Any) -> None:
    answer = stand.ask("a secret word", user="u-1")
    stand.call("GET", "/nowhere")
    stand.until(lambda: len(stand.log) == 2)
    line = next(line for line in stand.log if line["status"] == 200)
    assert line["id"] == answer.headers["x-request-id"]
    assert line["charge"] == stand.charges[0].charge
    assert (line["tenant"], line["model"], line["user"]) == ("acme", "avocado-1", "u-1")
    assert (line["prompt_tokens"], line["completion_tokens"]) == (4, 6)
    assert "secret" not in json.dumps(stand.log)
    assert "one two" not in json.dumps(stand.log)


def test_a_frozen_account_is_a_403_until_it_is_free_again(make_stand: MakeStand) -> None:
    stand = make_stand()
    freeze = Freeze(tenant="acme", frozen=True, reason="dispute dp_1", actor="ops")
    stand.ledger.do_now(freeze)
    answer = stand.ask()
    assert (answer.status, answer.error["code"]) == (403, "account_frozen")
    assert answer.error["type"] == "permission_error"
    assert "dp_1" not in answer.error["message"]
    stand.ledger.do_now(Freeze(tenant="acme", frozen=False, actor="ops"))
    assert stand.ask().status == 200


def test_an_offer_in_another_currency_is_a_403(make_stand: MakeStand) -> None:
    stand = make_stand()
    euro = PriceSheet(1000, 1000, "EUR")
    stand.ledger.do_now(PublishPrice(terms=euro.terms()))
    stand.offers["euro"] = Offer("euro", stand.offers["avocado-1"].release, euro, 1)
    answer = stand.ask(model="euro")
    assert (answer.status, answer.error["code"]) == (403, "currency_mismatch")


def _drink(link: socket.socket) -> bytes:
    """Reads a stream to its end."""
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        part = link.recv(65536)
        assert part, "the stream was cut"
        data += part
    link.close()
    return data
