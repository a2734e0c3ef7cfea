"""Who joins when: first come, first served, by memory, and short prompts together."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import Any

import torch

from avocado.data.chat import Prompt
from avocado.engine.engine import Finish, Sampling
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
        self.most = 0

    @property
    def rows(self) -> int:
        return len(self.needs)

    def fits(self, needs: Ids[int]) -> bool:
        return sum(self.needs) + sum(needs) <= self.room

    def prefill(self, prompts: Ids[Ids[int]]) -> Any:
        self.groups.append([len(prompt) for prompt in prompts])

        class Done:
            def advance(self) -> torch.Tensor:
                return torch.eye(9)[[5] * len(prompts)]

        return Done()

    def join(self, prefill: Any, needs: Ids[int]) -> None:
        self.needs += needs
        self.most = max(self.most, self.rows)

    def step(self, tokens: Ids[int]) -> torch.Tensor:
        assert list(tokens) == [5] * self.rows
        return torch.eye(9)[[5] * self.rows]

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
