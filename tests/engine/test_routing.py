"""Routing, breaker and event reader: the pure parts of the remote engine, by their properties."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.engine.breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, Breaker
from avocado.engine.routing import SLACK, choose, conversation
from avocado.engine.sse import LONGEST, EventReader, EventTooLong

loads = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 50), min_size=1)


@given(loads, st.text(max_size=5))
def test_nobody_gets_much_more_than_a_share(running: dict[str, int], key: str) -> None:
    chosen = choose(running, key)
    least = min(running.values())
    assert running[chosen] < SLACK * (sum(running.values()) + 1) / len(running) or (
        running[chosen] == least
    )


@given(st.text(max_size=5), st.sets(st.sampled_from("abcdef"), min_size=2))
def test_a_replica_that_goes_moves_only_its_own(key: str, names: set[str]) -> None:
    home = choose(dict.fromkeys(sorted(names), 0), key)
    for gone in names - {home}:
        assert choose(dict.fromkeys(sorted(names - {gone}), 0), key) == home


def test_conversations_spread_evenly_and_leave_the_busy() -> None:
    idle = dict.fromkeys("abcd", 0)
    homes = [choose(idle, str(n)) for n in range(4000)]
    assert all(900 < homes.count(name) < 1100 for name in idle)
    busy = choose(idle, "0")
    assert choose({**dict.fromkeys("abcd", 4), busy: 9}, "0") != busy
    assert choose({**dict.fromkeys("abcd", 4), busy: 5}, "0") == busy


def test_turns_share_a_conversation_and_tenants_do_not() -> None:
    system = {"role": "system", "content": "Be brief"}
    user = {"role": "user", "content": "Hi"}
    more = ({"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"})
    first = conversation((system, user), "t")
    assert conversation((system, user, *more), "t") == first
    assert conversation((system, user), "other") != first
    assert conversation((system, {**user, "content": "Ho"}), "t") != first
    assert conversation(({"role": "user", "content": "\ud800"},), "t")


def test_a_breaker_opens_waits_longer_and_closes() -> None:
    breaker, now = Breaker(), 100.0
    for _ in range(FAILURES - 1):
        breaker.fail(now)
    breaker.succeed()
    for _ in range(FAILURES):
        assert breaker.allows(now)
        breaker.begin(now)
        breaker.fail(now)
    pauses = []
    for _ in range(8):
        assert breaker.state(now) == "open"
        assert not breaker.allows(now)
        breaker.fail(now)  # one that was still under way: no news
        pauses.append(breaker.wait(now))
        now += breaker.wait(now)
        assert breaker.state(now) == "half-open"
        assert breaker.allows(now)
        breaker.begin(now)
        assert not breaker.allows(now)
        breaker.fail(now)
    assert pauses[0] == FIRST_PAUSE
    assert all(b == min(2 * a, LONGEST_PAUSE) for a, b in pairwise(pauses))
    now += breaker.wait(now)
    breaker.begin(now)
    breaker.forget()
    assert breaker.allows(now)
    breaker.begin(now)
    breaker.succeed()
    assert breaker.state(now) == "closed"
    assert breaker.wait(now) == 0


lines = st.sampled_from(
    [b"data: x", b"data:y", b"data", b": ping", b"event: z", b"", b"", b"data:  two", b"\xff"]
)


@given(st.lists(lines), st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_events_come_whole_however_they_are_cut(
    said: list[bytes], end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line + end for line in said)
    whole = EventReader()
    expected = whole.feed(stream) + whole.end()
    places = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    reader, got = EventReader(), []
    for a, b in pairwise([0, *places, len(stream)]):
        got += reader.feed(stream[a:b])
    assert got + reader.end() == expected
    assert sum(event.count(b"\n") + 1 for event in expected) == sum(
        line.startswith(b"data:") for line in said
    )


def test_an_event_without_end_is_refused() -> None:
    reader = EventReader()
    for _ in range(LONGEST // 2**16 - 1):
        assert reader.feed(b"data: " + b"x" * 2**16) == []
    with pytest.raises(EventTooLong):
        reader.feed(b"x" * 2**17)
