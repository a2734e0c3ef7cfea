"""SIGKILL of real processes under load, at named fail points: nothing lost, double or negative."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ledger.conftest import Workers

POINTS = (
    "before_commit",
    "after_commit",
    "after_delivery",
    "before_hold_commit",
    "after_hold_commit",
    "before_settle_commit",
    "after_settle_commit",
    "after_void_commit",
    "after_progress_commit",
)


def _kill_at(workers: Workers, target: Path, failpoint: str, name: str) -> int:
    process = workers.start(target, name, failpoint, requests=2000)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    lines = out.splitlines(keepends=True)
    workers.check(target, [line for line in lines if line.endswith("\n")])
    return len(lines)


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_a_fail_point_loses_nothing(
    workers: Workers, tmp_path: Path, point: str
) -> None:
    count = random.randrange(3, 9)
    _kill_at(workers, tmp_path / "book.db", f"{point}:{count}", "a")


@pytest.mark.slow
def test_two_hundred_kills_on_one_book(workers: Workers, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    said = 0
    for number in range(200):
        point = POINTS[number % len(POINTS)]
        said += _kill_at(
            workers, tmp_path / "book.db", f"{point}:{chance.randrange(2, 60)}", f"k{number}"
        )
    print(f"200 kills, {said} acknowledgements, 0 lost, 0 double, 0 negative, seed {seed}")


def test_a_process_killed_at_any_moment_loses_nothing(workers: Workers, tmp_path: Path) -> None:
    target = tmp_path / "book.db"
    process = workers.start(target, "a", requests=100_000)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(500)]
    os.kill(process.pid, signal.SIGKILL)
    lines += [line for line in workers.rest(process) if line.endswith("\n")]
    workers.check(target, lines)


def test_a_process_that_is_not_killed_leaves_nothing_open(workers: Workers, tmp_path: Path) -> None:
    process = workers.start(tmp_path / "book.db", "a", requests=10)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = out.splitlines(keepends=True)
    assert lines[-1] == "done\n"
    assert workers.check(tmp_path / "book.db", lines) == (0, 0)
