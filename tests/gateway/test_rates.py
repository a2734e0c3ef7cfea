"""Requests and tokens a minute: exact, told in headers, refused before any work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.engine.scripted import Script
from avocado.gateway.limits import Limits
from avocado.gateway.rates import MINUTE, Draw, MemoryRates, decide, duration

MakeStand = Callable[..., Any]
COSTS = st.lists(
    st.tuples(st.integers(0, MINUTE // 2), st.integers(1, 20)), min_size=1, max_size=60
)


@given(limit=st.integers(1, 200), draws=COSTS)
def test_in_any_span_no_more_passes_than_a_burst_and_what_refilled(
    limit: int, draws: list[tuple[int, int]]
) -> None:
    full_at: dict[str, int] = {}
    passed: list[tuple[int, int]] = []
    now = 1
    for pause, cost in draws:
        now += pause
        after, (level,) = decide(full_at, [Draw("a", limit, cost)], now)
        full_at.update(after)
        if not level.wait:
            passed.append((now, cost))
        else:
            retried, (later,) = decide(full_at, [Draw("a", limit, cost)], now + level.wait)
            assert (cost > limit) or (retried and not later.wait), "Retry-After is enough"
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span = passed[last][0] - passed[first][0]
            total = sum(cost for _, cost in passed[first : last + 1])
            assert total * MINUTE <= limit * (MINUTE + span)


@given(limit=st.integers(1, 100_000), cost=st.integers(1, 100_000), back=st.integers(0, 100_000))
def test_giving_back_never_gives_more_than_was_taken(limit: int, cost: int, back: int) -> None:
    now = 10**18
    taken, _ = decide({}, [Draw("a", limit, cost)], now)
    if not taken:
        return
    given, _ = decide(taken, [Draw("a", limit, -min(back, cost))], now)
    spent, _ = decide({}, [Draw("a", limit, cost - min(back, cost))], now)
    assert given["a"] >= spent.get("a", now)
    assert given["a"] - spent.get("a", now) <= 2, "and nothing but rounding is lost"


def test_all_or_none() -> None:
    now = 10**18
    full = {"key": now + MINUTE}
    after, (key, customer) = decide(full, [Draw("key", 10, 1), Draw("customer", 10, 1)], now)
    assert after == {}
    assert key.wait
    assert (customer.remaining, customer.wait) == (10, 0)


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [(0, "0s"), (1, "1ms"), (350_000_000, "350ms"), (12_500_000_000, "12.5s"), (MINUTE, "1m0s")],
)
def test_durations_are_written_as_openai_does(nanoseconds: int, said: str) -> None:
    assert duration(nanoseconds) == said


def test_memory_stays_flat() -> None:
    clock = [0]
    rates = MemoryRates(lambda: clock[0])

    async def go() -> None:
        for number in range(50_000):
            clock[0] += MINUTE // 1000
            await rates.draw([Draw(str(number), 100, 1)])

    asyncio.run(go())
    assert len(rates._full_at) <= 20_001


# -- over HTTP -------------------------------------------------------------------------------------


def test_requests_are_counted_exactly_and_told(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(requests_per_minute=5))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: stand.ask(), range(20)))
    served = [each for each in answers if each.status == 200]
    refused = [each for each in answers if each.status == 429]
    assert (len(served), len(refused)) == (5, 15)
    left = sorted(int(each.headers["x-ratelimit-remaining-requests"]) for each in served)
    assert left == [0, 1, 2, 3, 4]
    for each in refused:
        assert each.error["code"] == "rate_limit_exceeded"
        assert 1 <= int(each.headers["retry-after"]) <= 12
        assert each.headers["x-ratelimit-limit-requests"] == "5"
        assert each.headers["x-ratelimit-remaining-requests"] == "0"
        assert each.headers["x-ratelimit-reset-requests"].endswith("s")
    assert len(stand.charges) == 5


def test_a_refused_request_is_neither_read_nor_counted(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(requests_per_minute=1))
    counted: list[int] = []
    prepare = stand.engine.prepare

    def counting(chat: Any) -> Any:
        counted.append(1)
        return prepare(chat)

    stand.engine.prepare = counting
    assert stand.ask().status == 200
    assert stand.call(body=b"no json at all").status == 429
    assert stand.ask().status == 429
    assert counted == [1]


def test_tokens_are_taken_at_their_bound_and_given_back(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a b c"), limits=Limits(tokens_per_minute=1000))
    first = stand.ask(max_tokens=900)
    assert first.status == 200
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    bound = 1000 - int(first.headers["x-ratelimit-remaining-tokens"])
    assert bound == first.json["usage"]["prompt_tokens"] + 900
    stand.idle()
    second = stand.ask(max_tokens=900)
    assert second.status == 200, "what was not used is there again"
    too_many = stand.ask(max_tokens=2000)
    assert (too_many.status, too_many.headers["retry-after"] != "0") == (429, True)
    assert "lower max_tokens" in too_many.error["message"]


def test_tokens_of_running_requests_count(make_stand: MakeStand) -> None:
    stand = make_stand(Script(reply="a b c d e f", delay=0.1), limits=Limits(tokens_per_minute=150))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: stand.ask(max_tokens=60), range(8)))
    statuses = [each.status for each in answers]
    assert statuses.count(200) == 2
    assert statuses.count(429) == 6
    stand.idle()
    assert stand.ask(max_tokens=60).status == 200


def test_what_fails_gives_its_tokens_back(make_stand: MakeStand) -> None:
    stand = make_stand(Script(fail_after=0), limits=Limits(tokens_per_minute=150))
    for _ in range(4):
        assert stand.ask(max_tokens=100).status == 503
        stand.idle()


def test_a_stream_carries_the_headers_too(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(requests_per_minute=7, tokens_per_minute=100_000))
    answer = stand.ask(stream=True)
    assert answer.headers["x-ratelimit-remaining-requests"] == "6"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < 100_000


def test_without_limits_there_are_no_headers(stand: Any) -> None:
    assert not [name for name in stand.ask().headers if name.startswith("x-ratelimit")]


def test_a_customer_s_own_limit_goes_before_the_default(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(requests_per_minute=1))
    stand.policy("customer:acme", requests_per_minute=3)
    assert [stand.ask().status for _ in range(4)] == [200, 200, 200, 429]


def test_zero_lets_a_customer_off_the_default(make_stand: MakeStand) -> None:
    stand = make_stand(limits=Limits(requests_per_minute=1))
    stand.policy("customer:acme", requests_per_minute=0)
    assert [stand.ask().status for _ in range(3)] == [200, 200, 200]


def test_a_key_has_its_limit_within_its_customer_s(
    make_stand: MakeStand, add_customer: Any
) -> None:
    stand = make_stand(limits=Limits(requests_per_minute=4))
    other = add_customer(stand.ledger, "acme", 0)
    stand.policy(f"key:{stand.key.id}", requests_per_minute=2)
    own = [stand.ask() for _ in range(3)]
    assert [each.status for each in own] == [200, 200, 429]
    assert own[0].headers["x-ratelimit-limit-requests"] == "2"
    rest = [stand.ask(headers={"Authorization": f"Bearer {other.text}"}) for _ in range(3)]
    assert [each.status for each in rest] == [200, 200, 429]


def test_a_changed_limit_is_seen_within_a_second(make_stand: MakeStand) -> None:
    stand = make_stand()
    assert stand.ask().status == 200
    stand.policy("customer:acme", requests_per_minute=1)
    time.sleep(1.05)
    assert [stand.ask().status for _ in range(2)] == [200, 429]
