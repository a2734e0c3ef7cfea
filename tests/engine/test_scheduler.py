"""Who joins when: first come, first served, by memory, and short prompts together."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avocado.data.chat import Prompt
from avocado.engine.decoder import Parked
from avocado.engine.engine import Delta, Finish, Sampling
from avocado.engine.scheduler import Scheduler
from avocado.engine.sequence import Sequence
from avocado.engine.stream import Signal, Stopped


class Recorder:
    """A decoder that notes which prompts came in together, and always says token 5."""

    max_rows = 2**20

    def __init__(self, room: int) -> None:
        self.room = room
        self.groups: list[list[int]] = []
        self.needs: list[int] = []
        self.most = self.parked = 0

    @property
    def rows(self) -> int:
        return len(self.needs)

    def fits(self, needs: Ids[int]) -> bool:
        return sum(self.needs) + sum(needs) <= self.room

    def prefill(self, prompts: Ids[Ids[int]], salts: Ids[str]) -> Any:
        self.groups.append([len(prompt) for prompt in prompts])

        class Done:
            cached = 0

            def advance(self) -> torch.Tensor:
                return torch.eye(9)[[5] * len(prompts)]

        return Done()

    def join(self, prefill: Any, needs: Ids[int]) -> None:
        self.needs += needs
        self.most = max(self.most, self.rows)

    def step(self, tokens: Ids[int]) -> torch.Tensor:
        assert list(tokens) == [5] * self.rows
        return torch.eye(9)[[5] * self.rows]

    def extend(self, row: int, need: int, beside: Ids[int] = ()) -> bool:
        if sum(self.needs) - self.needs[row] + need + sum(beside) > self.room:
            return False
        self.needs[row] = need
        return True

    def park(self, row: int) -> Parked:
        self.parked += 1
        self.drop(row)
        return Parked(0, ())

    def resume(self, parked: Parked, need: int) -> None:
        assert self.fits([need])
        self.needs.append(need)

    def drop(self, row: int) -> None:
        last = self.needs.pop()
        if row < len(self.needs):
            self.needs[row] = last

    def clear(self) -> None:
        self.needs.clear()


def sequence(backend: Any, length: int, limit: int) -> Sequence:
    return Sequence(
        Prompt("", (1,) * length), Sampling(limit, temperature=0), frozenset({0}), backend
    )


def played(backend: Any, room: int, work: list[tuple[int, int]]) -> tuple[Recorder, list[int]]:
    """The decoder once all of ``work`` (prompt, answer length) is done, and the order of ends."""
    decoder, ends = Recorder(room), []
    places: dict[Sequence, int] = {}

    def say(each: Sequence, signal: Signal) -> None:
        if isinstance(signal, Finish):
            ends.append(places[each])
            assert signal.usage.completion == work[places[each]][1]

    scheduler = Scheduler(decoder, say)
    for place, (length, limit) in enumerate(work):
        each = sequence(backend, length, limit)
        places[each] = place
        scheduler.add(each)
    for _ in range(1000):
        scheduler.step()
    assert scheduler.idle
    assert decoder.rows == 0
    return decoder, ends


def test_short_prompts_come_in_together_and_long_ones_alone(backend: Any) -> None:
    work = [(20, 2), (100, 2), (128, 2), (129, 2), (300, 2), (10, 2), (1, 2)]
    decoder, _ = played(backend, 10_000, work)
    assert decoder.groups == [[20, 100, 128], [129], [300], [10, 1]]


def test_a_group_padded_fits_one_piece(backend: Any) -> None:
    decoder, _ = played(backend, 10_000, [(100, 1)] * 12)
    assert decoder.groups == [[100] * 5, [100] * 5, [100] * 2]


def test_nobody_overtakes_one_who_waits_for_memory(backend: Any) -> None:
    decoder, ends = played(backend, 100, [(50, 20), (50, 20), (5, 2), (5, 2)])
    assert decoder.groups == [[50], [50, 5, 5]]
    assert ends == [0, 3, 2, 1]


def test_a_large_maximum_keeps_nobody_out(backend: Any) -> None:
    """Each may reach 10,000 tokens and gets 300: memory for a hundred such would not exist."""
    decoder = Recorder(4000)
    ends: list[Sequence] = []

    def say(each: Sequence, signal: Signal) -> None:
        if not isinstance(signal, Delta):
            ends.append(each)

    scheduler = Scheduler(decoder, say)
    work = [sequence(backend, 20, 10_000) for _ in range(10)]
    for each in work:
        scheduler.add(each)
    for _ in range(300):
        scheduler.step()
    assert decoder.most == 10
    for each in work:
        each.cancelled = True
    scheduler.step()
    assert scheduler.idle
    assert len(ends) == 10


@settings(max_examples=60, deadline=None)
@given(
    work=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 900)), min_size=1, max_size=8),
    room=st.integers(960, 2000),
)
def test_where_memory_runs_out_the_newest_stand_aside_and_all_end(
    backend: Any, work: list[tuple[int, int]], room: int
) -> None:
    """Nothing is lost, memory is never exceeded, and the first is never held up."""
    decoder = Recorder(room)
    first_seen: list[int] = []
    left: dict[Sequence, int] = {}

    def say(each: Sequence, signal: Signal) -> None:
        if isinstance(signal, Finish):
            assert signal.usage.completion == left.pop(each)

    scheduler = Scheduler(decoder, say)
    for length, limit in work:
        each = sequence(backend, length, limit)
        left[each] = limit
        scheduler.add(each)
    first = next(iter(left))
    for _ in range(20_000):
        if scheduler.idle:
            break
        before = first.completion
        scheduler.step()
        assert sum(decoder.needs) <= room
        if first in left:
            first_seen.append(first.completion - before)
    assert scheduler.idle
    assert not left
    assert decoder.rows == 0
    assert all(first_seen)


def test_a_cancelled_one_that_stands_aside_leaves(backend: Any) -> None:
    decoder = Recorder(900)
    said: list[tuple[Sequence, Signal]] = []
    scheduler = Scheduler(decoder, lambda *each: said.append(each))
    old, new = sequence(backend, 10, 800), sequence(backend, 10, 800)
    scheduler.add(old)
    scheduler.add(new)
    while not decoder.parked:
        scheduler.step()
    assert scheduler.running == 2
    new.cancelled = True
    scheduler.step()
    assert (new, Stopped(new.completion)) in said
    assert 256 < new.completion < 800
    assert scheduler.running == 1


def test_a_cancelled_one_leaves_before_the_next_step_wherever_it_is(backend: Any) -> None:
    said: list[tuple[Sequence, Signal]] = []
    decoder = Recorder(60)
    scheduler = Scheduler(decoder, lambda *each: said.append(each))
    runs, waits, stays = (sequence(backend, 10, 30) for _ in range(3))
    for each in (runs, waits, stays):
        scheduler.add(each)
    scheduler.step()
    assert decoder.rows == 1
    runs.cancelled = waits.cancelled = True
    said.clear()
    scheduler.step()
    assert said[:2] == [(runs, Stopped(2)), (waits, Stopped(0))]
    assert {each for each, _ in said[2:]} == {stays}
    assert decoder.rows == 1
