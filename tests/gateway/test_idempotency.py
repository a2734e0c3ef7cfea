"""Idempotency-Key: the repeat gets the first answer, byte for byte, and nobody pays twice."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from avocado.engine.scripted import Script
from avocado.gateway import idempotency
from avocado.gateway.exchange import Kept
from avocado.gateway.idempotency import Answers
from avocado.gateway.shelf import Database, ShelfUnavailable, open_database
from avocado.ledger.clock import ManualClock
from avocado.ledger.operation import Hold
from avocado.ledger.rows import PROMISED

MakeStand = Callable[..., Any]
KEY = {"Idempotency-Key": "order-1"}
SECOND = 1_000_000_000


def test_a_repeat_gets_the_same_bytes_and_costs_nothing(stand: Any) -> None:
    first = stand.ask(headers=KEY)
    again = stand.ask(headers=KEY)
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["original-request"] == first.headers["x-request-id"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert len(stand.charges) == 1
    stand.until(lambda: len(stand.log) == 2)
    assert [line["outcome"] for line in stand.log] == ["stop", "replayed"]
    assert "charge" not in stand.log[1]


def test_a_stream_is_replayed_as_the_same_events(stand: Any) -> None:
    more = {"stream": True, "stream_options": {"include_usage": True}}
    first = stand.ask(headers=KEY, **more)
    again = stand.ask(headers=KEY, **more)
    assert again.body == first.body
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.events()[-1]["usage"]["completion_tokens"] == 6  # the end of the turn counts
    assert len(stand.charges) == 1


def test_openai_s_client_reads_a_replayed_answer_and_stream(stand: Any) -> None:
    client = stand.client()
    messages: Any = [{"role": "user", "content": "hi"}]
    for streamed in (False, True):
        texts = []
        for _ in range(2):
            answer: Any = client.chat.completions.create(
                model="avocado-1",
                messages=messages,
                stream=streamed,
                extra_headers={"Idempotency-Key": f"k-{streamed}"},
            )
            if streamed:
                texts.append("".join(chunk.choices[0].delta.content or "" for chunk in answer))
            else:
                texts.append(answer.choices[0].message.content)
        assert texts == ["one two three four five"] * 2
    assert len(stand.charges) == 2


def test_answers_outlive_the_process(make_stand: MakeStand, tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    kept = Kept("f", "req_1", "application/json", b"{}")

    async def store() -> None:
        answers = Answers(open_database(path))
        await answers.store("acme/k", kept)
        answers.close()

    async def find() -> Kept | None:
        answers = Answers(open_database(path))
        found = await answers.find("acme/k")
        answers.close()
        return found

    asyncio.run(store())
    assert asyncio.run(find()) == kept


def test_a_key_belongs_to_its_customer(stand: Any, add_customer: Any) -> None:
    other = add_customer(stand.ledger, "other", 1_000_000_000)
    stand.ask(headers=KEY)
    answer = stand.ask(headers={**KEY, "Authorization": f"Bearer {other.text}"})
    assert answer.status == 200
    assert "idempotent-replayed" not in answer.headers
    assert len(list(stand.reader.charges("other"))) == 1


def test_fault_06_fifty_at_once_one_charge_one_answer(make_stand: MakeStand) -> None:
    started: list[int] = []

    def script(prompt: Any, sampling: Any) -> Script:
        started.append(1)
        return Script(reply="a b c", delay=0.1)

    stand = make_stand()
    stand.engine.script = script
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: stand.ask(headers=KEY), range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert len([each for each in answers if "idempotent-replayed" not in each.headers]) == 1
    assert (len(stand.charges), len(started)) == (1, 1)


def test_fault_07_another_body_is_a_409_while_the_first_runs_too(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a b c d", delay=0.1))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stand.ask, "a", KEY)
        stand.until(lambda: stand.engine.running)
        answer = stand.ask("b", headers=KEY)
        assert (answer.status, answer.error["code"]) == (409, "idempotency_conflict")
        assert first.result().status == 200


def test_who_waits_for_a_request_that_fails_is_served_in_turn(make_stand: MakeStand) -> None:
    turns = iter([Script(reply="a b", delay=0.2, fail_after=1), Script(reply="yes")])
    stand = make_stand()
    stand.engine.script = lambda prompt, sampling: next(turns)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stand.ask, "a", KEY)
        stand.until(lambda: stand.engine.running)
        second = pool.submit(stand.ask, "a", KEY)
        assert first.result().status == 503
        assert second.result().json["choices"][0]["message"]["content"] == "yes"
    assert len(stand.charges) == 1


def test_a_refusal_is_not_kept(make_stand: MakeStand) -> None:
    stand = make_stand(credit=0)
    assert stand.ask(headers=KEY).status == 402
    assert stand.ask(headers=KEY).status == 402
    assert "idempotent-replayed" not in stand.ask(headers=KEY).headers


def test_who_leaves_and_comes_back_gets_the_whole_answer(
    make_stand: MakeStand, ask_body: Any
) -> None:
    for streamed in (False, True):
        stand = make_stand(Script(reply="one two three four", delay=0.1))
        link = stand.raw(ask_body(stream=streamed), KEY)
        stand.until(lambda stand=stand: stand.engine.running)
        link.close()
        time.sleep(0.2)
        answer = stand.ask(headers=KEY, stream=streamed)
        assert answer.headers["idempotent-replayed"] == "true"
        if streamed:
            text = "".join(
                event["choices"][0]["delta"].get("content") or "" for event in answer.events()
            )
        else:
            text = answer.json["choices"][0]["message"]["content"]
        assert text == "one two three four"
        assert len(stand.charges) == 1
        assert stand.engine.cancelled == 0


def test_a_waiting_repeat_that_leaves_is_forgotten(make_stand: MakeStand, ask_body: Any) -> None:
    stand = make_stand(Script(reply="one two three four", delay=0.2))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stand.ask, "hello", KEY)
        stand.until(lambda: stand.engine.running)
        link = stand.raw(ask_body("hello"), KEY)
        stand.until(lambda: stand.app.desk.gate.total == 2)
        link.close()
        stand.until(lambda: stand.app.desk.gate.total == 1)
        assert first.result().status == 200
    stand.until(lambda: stand.app.desk.gate.total == 0)


def test_a_twin_in_another_process_is_waited_for(make_stand: MakeStand) -> None:
    """The ledger knows the key, this process does not: as with two servers on one book."""
    stand = make_stand()
    first = stand.ask(headers=KEY)
    other = stand.in_loop(lambda: stand.app.answers.find("acme/order-1"))
    assert other is not None

    async def forget() -> None:
        stand.app.answers._worker._database.run("DELETE FROM gateway_answer")

    stand.in_loop(forget)
    with ThreadPoolExecutor(1) as pool:
        repeat = pool.submit(stand.ask, "hello", KEY)
        time.sleep(0.3)
        stand.in_loop(lambda: stand.app.answers.store("acme/order-1", other))
        assert repeat.result().body == first.body
    assert len(stand.charges) == 1


def test_a_charged_request_whose_answer_is_lost_is_a_409(
    make_stand: MakeStand, monkeypatch: Any
) -> None:
    monkeypatch.setattr(idempotency, "JUST_ENDED_SECONDS", 0.1)
    stand = make_stand()
    first = stand.ask(headers=KEY)

    async def forget() -> None:
        stand.app.answers._worker._database.run("DELETE FROM gateway_answer")

    stand.in_loop(forget)
    answer = stand.ask(headers=KEY)
    assert (answer.status, answer.error["code"]) == (409, "idempotent_request_exists")
    assert first.headers["x-request-id"] in answer.error["message"]
    assert len(stand.charges) == 1


def test_a_shelf_that_is_away_is_a_503_and_other_requests_go_on(
    make_stand: MakeStand, monkeypatch: Any
) -> None:
    stand = make_stand()

    def away(*_: Any) -> Any:
        raise ShelfUnavailable("away")

    monkeypatch.setattr(stand.app.answers._worker, "_attempt", away)
    answer = stand.ask(headers=KEY)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert stand.ask().status == 200


def test_answers_end_after_a_day_and_the_oldest_go_when_there_are_too_many(tmp_path: Path) -> None:
    now = [time.time_ns() - 2 * idempotency.LIFETIME]
    path = tmp_path / "kept.sqlite"

    def body(fill: str) -> Kept:
        return Kept("f", fill, "application/json", fill.encode() * 1000)

    async def go() -> None:
        answers = Answers(open_database(path), most=2500, now=lambda: now[0])
        await answers.store("acme/old", body("o"))
        assert await answers.find("acme/old") == body("o")
        now[0] = time.time_ns()
        assert await answers.find("acme/old") is None, "its day is over"
        for name in "abcd":
            await answers.store(f"acme/{name}", body(name))
            now[0] += 1
        await answers.tidy()
        left = [name for name in "abcd" if await answers.find(f"acme/{name}")]
        assert left == ["c", "d"]
        answers.close()

    asyncio.run(go())
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM gateway_answer").fetchone() == (2,)
    assert b"oooooooo" not in path.read_bytes(), "what is deleted is gone from the file"


def test_what_is_old_is_deleted_in_batches(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(idempotency, "TIDY_ANSWERS", 10)
    now = [time.time_ns()]
    deleted: list[int] = []
    tidy = idempotency._tidy

    def counting(*given: Any) -> int:
        deleted.append(tidy(*given))
        return deleted[-1]

    monkeypatch.setattr(idempotency, "_tidy", counting)

    async def go() -> None:
        answers = Answers(open_database(tmp_path / "kept.sqlite"), now=lambda: now[0])
        kept = Kept("f", "r", "application/json", b"{}")
        await asyncio.gather(*(answers.store(f"acme/{n}", kept) for n in range(25)))
        now[0] += idempotency.LIFETIME // 2
        await answers.store("acme/young", kept)
        await answers.tidy()
        assert deleted == [0], "nobody's day is over"
        now[0] += idempotency.LIFETIME // 2
        await answers.tidy()
        assert deleted == [0, 10, 10, 5]
        assert await answers.find("acme/young") == kept
        answers.close()

    asyncio.run(go())


def test_a_key_is_free_after_a_day_for_one_request_of_fifty(make_stand: MakeStand) -> None:
    clock = ManualClock()
    stand = make_stand(clock=clock)
    first = stand.ask("a", headers=KEY)
    clock.pass_time(PROMISED - SECOND)
    assert stand.ask("a", headers=KEY).body == first.body, "within its day it is a repeat"
    assert stand.ask("b", headers=KEY).error["code"] == "idempotency_conflict"
    clock.pass_time(2 * SECOND)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: stand.ask("b", headers=KEY), range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert len([each for each in answers if "idempotent-replayed" not in each.headers]) == 1
    assert len(stand.charges) == 2
    assert stand.ask("a", headers=KEY).error["code"] == "idempotency_conflict"
    stand.in_loop(lambda: stand.app.answers.tidy())
    assert stand.ask("b", headers=KEY).headers["idempotent-replayed"] == "true"


def test_a_key_whose_answer_is_lost_is_free_after_a_day_too(
    make_stand: MakeStand, monkeypatch: Any
) -> None:
    monkeypatch.setattr(idempotency, "JUST_ENDED_SECONDS", 0.1)
    clock = ManualClock()
    stand = make_stand(clock=clock)
    stand.ask(headers=KEY)

    async def forget() -> None:
        stand.app.answers._worker._database.run("DELETE FROM gateway_answer")

    stand.in_loop(forget)
    assert stand.ask(headers=KEY).status == 409
    clock.pass_time(PROMISED)
    assert stand.ask(headers=KEY).status == 200
    assert len(stand.charges) == 2


def test_an_answer_too_long_is_not_kept(make_stand: MakeStand, monkeypatch: Any) -> None:
    monkeypatch.setattr(idempotency, "MAX_ANSWER", 50)
    monkeypatch.setattr(idempotency, "JUST_ENDED_SECONDS", 0.1)
    stand = make_stand()
    assert stand.ask(headers=KEY).status == 200
    assert stand.ask(headers=KEY).status == 409
    assert len(stand.charges) == 1


def test_many_at_once_are_kept_in_few_commits(tmp_path: Path) -> None:
    commits: list[int] = []

    class Counting:
        def __init__(self, inner: Database) -> None:
            self._inner = inner
            self.run, self.reopen, self.close = inner.run, inner.reopen, inner.close

        def transaction(self, write: bool = True) -> Any:
            commits.append(1)
            return self._inner.transaction(write)

    async def go() -> None:
        answers = Answers(Counting(open_database(tmp_path / "kept.sqlite")))
        kept = Kept("f", "r", "application/json", b"{}")
        await asyncio.gather(*(answers.store(f"acme/{n}", kept) for n in range(200)))
        answers.close()

    asyncio.run(go())
    assert len(commits) <= 3


def test_the_answer_is_kept_before_its_last_bytes_go_out(make_stand: MakeStand) -> None:
    stand = make_stand()
    order: list[str] = []
    store = stand.app.answers.store
    settle = stand.book.settle

    async def stored(name: str, kept: Kept) -> None:
        order.append("store")
        await store(name, kept)
        await asyncio.sleep(0.3)
        order.append("stored")

    async def settled(*given: Any) -> Any:
        order.append("settle")
        return await settle(*given)

    stand.app.answers.store = stored
    stand.book.settle = settled
    stand.ask(headers=KEY)
    order.append("answered")
    assert order == ["settle", "store", "stored", "answered"]


def test_a_hold_carries_the_key_so_that_the_ledger_stands_behind_it(stand: Any) -> None:
    held: list[Hold] = []
    hold = stand.book.hold

    async def holding(operation: Hold) -> Any:
        held.append(operation)
        return await hold(operation)

    stand.book.hold = holding
    stand.ask(headers=KEY)
    assert held[0].idempotency_key == "order-1"
    assert held[0].fingerprint is not None
