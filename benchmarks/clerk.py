"""The clerk's round over many subscriptions: with nothing due, with alerts, and on a day on which
every one of them renews. Prints a line each.

    python benchmarks/clerk.py [SUBSCRIPTIONS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from avocado.billing import alerts, subscriptions
from avocado.billing.alert import Alert
from avocado.billing.clerk import Done, work
from avocado.billing.plan import parse_plan
from avocado.billing.plans import publish
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import open_ledger
from avocado.ledger.operation import Deposit, OpenCustomer
from avocado.ledger.reader import open_reader
from avocado.terms.money import NANO

DAY = 86_400 * NANO
PLAN = b"""
name = "basic"
kind = "subscription"
subscription = { fee = "10.00", included = [{ tokens = 1000 }] }
"""


def timed(name: str, count: int, act: Callable[[], tuple[Done, ...]]) -> None:
    began, used = time.perf_counter(), time.process_time()
    done = act()
    wall, used = time.perf_counter() - began, time.process_time() - used
    each = f"{wall / count * 1e3:.3f} ms each, {used / count * 1e3:.3f} ms of processor"
    print(f"{name}: {wall:.2f} s, {each}; {len(done)} things done")


def main(count: int) -> None:
    """A book of ``count`` subscribers in a temporary folder."""
    clock = ManualClock()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_ledger(Path(folder) / "book.db", clock) as ledger,
        open_reader(Path(folder) / "book.db") as reader,
    ):
        do = ledger.do_now
        publish(reader, do, parse_plan(PLAN, "USD"))
        for number in range(count):
            tenant = f"c{number}"
            do(OpenCustomer(tenant=tenant, name=tenant))
            do(Deposit(id=f"d{number}", tenant=tenant, amount=100 * NANO, currency="USD"))
            subscriptions.start(reader, do, tenant, "basic", clock.now())
        timed("nothing due", count, lambda: work(reader, do, clock.now()))
        for number in range(0, count, 10):
            alert = Alert(f"c{number}", 0, "balance", "USD", NANO, email="a@example.com")
            alerts.add(reader, do, alert)
        timed("nothing due, alerts for a tenth", count, lambda: work(reader, do, clock.now()))
        clock.pass_time(31 * DAY)
        timed("all renew", count, lambda: work(reader, do, clock.now()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
