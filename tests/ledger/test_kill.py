"""SIGKILL of real processes under load, at named fail points: nothing lost, double or negative."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from avocado.ledger import proof
from avocado.ledger.ledger import open_ledger
from avocado.ledger.reader import Reader, open_reader

WORKER = Path(__file__).with_name("worker.py")
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


def start(
    target: Path | str, name: str, failpoint: str = "", callers: int = 16, requests: int = 40
) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(target), name, str(callers), str(requests)]
    environment = os.environ | {"AVOCADO_FAILPOINT": failpoint}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def lost(reader: Reader, lines: Iterable[str]) -> list[str]:
    """The acknowledged lines that the book does not bear out. A cut last line was not said."""
    missing = []
    for line in lines:
        verb, _, rest = line.rstrip("\n").partition(" ")
        if verb not in ("held", "settled", "voided"):
            continue
        id_, _, charge = rest.partition(" ")
        row = reader.hold(id_)
        there = row is not None and (
            verb == "held"
            or (verb == "voided" and row.state == "voided")
            or (verb == "settled" and row.state == "settled" and str(row.charge) == charge)
        )
        if not there:
            missing.append(line)
    return missing


def check(target: Path | str, lines: list[str]) -> tuple[int, int]:
    """Opens the book after a death, proves it, and returns what recovery did."""
    with open_ledger(target) as ledger:
        recovery = ledger.recovery
    with open_reader(target) as reader:
        broken = [item for item in proof.prove(reader, time.time_ns(), deep=True) if not item.ok]
        assert broken == []
        assert lost(reader, lines) == []
        assert reader.open_holds() == []
        tenants = [customer.tenant for customer in reader.customers()]
        assert all(reader.balance(tenant).available >= 0 for tenant in tenants)
    return recovery.settled, recovery.voided


def _kill_at(target: Path, failpoint: str, name: str) -> int:
    process = start(target, name, failpoint)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    lines = out.splitlines(keepends=True)
    check(target, [line for line in lines if line.endswith("\n")])
    return len(lines)


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_a_fail_point_loses_nothing(tmp_path: Path, point: str) -> None:
    count = random.randrange(3, 9)
    _kill_at(tmp_path / "book.db", f"{point}:{count}", "a")


@pytest.mark.slow
def test_two_hundred_kills_on_one_book(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    said = 0
    for number in range(200):
        point = POINTS[number % len(POINTS)]
        said += _kill_at(tmp_path / "book.db", f"{point}:{chance.randrange(2, 60)}", f"k{number}")
    print(f"200 kills, {said} acknowledgements, 0 lost, 0 double, 0 negative, seed {seed}")


def test_a_process_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "book.db"
    process = start(target, "a", requests=100_000)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(500)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    check(target, lines)


def test_a_process_that_is_not_killed_leaves_nothing_open(tmp_path: Path) -> None:
    process = start(tmp_path / "book.db", "a", requests=10)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = out.splitlines(keepends=True)
    assert lines[-1] == "done\n"
    assert check(tmp_path / "book.db", lines) == (0, 0)
