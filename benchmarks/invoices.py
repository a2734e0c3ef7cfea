"""How long it takes to close every customer's month, and whether memory stays flat.

    python benchmarks/invoices.py                              10,000 customers, 20 requests each
    python benchmarks/invoices.py --customers 1000 --socket    through a server's admin socket

The book is made by the real ledger, at a time in last October; then a fresh process closes the
month, as ``avocado invoices close`` does, and says what its memory was before, after, and at its
peak. A second run of the same finds nothing to do: its time is that of looking.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avocado.billing.closing_run import close_all
from avocado.billing.invoices import Seller
from avocado.billing.issuer import Issuer
from avocado.billing.months import month_at, start
from avocado.billing.tax_table import read_table
from avocado.cli.lanes import writing_at_once
from avocado.gateway.admin import AdminServer
from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.reader import open_reader
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace

MONTH = "2026-10"
SHEET = PriceSheet(200_000_000_000, 800_000_000_000, currency="EUR", cached=50_000_000_000)
SELLER = Seller("Avocado GmbH", ("Hafenstr. 1",), "20457", "Hamburg", "DE", invoice_series="AV")
WAVE = 4000
"""Operations that are submitted before their answers are waited for."""


def operations(customers: int, charges: int) -> Iterator[list[o.AnyOperation]]:
    """A wave of operations at a time: none of a wave waits for another of it."""
    yield [o.PublishPrice(terms=SHEET.terms())]
    numbers = range(customers)
    for kind in (_opening, _profile, _deposit):
        yield [operation for number in numbers for operation in kind(number)]
    for turn in range(charges):
        yield [_hold(number, turn) for number in numbers]
        yield [_settle(number, turn) for number in numbers]


def _opening(number: int) -> list[o.AnyOperation]:
    """Half of the customers pay before, half after."""
    limit = 0 if number % 2 else 100 * 10**9
    tenant = f"t{number}"
    return [o.OpenCustomer(tenant=tenant, name=tenant, currency="EUR", credit_limit=limit)]


def _profile(number: int) -> list[o.AnyOperation]:
    content = {"company": f"Customer {number} GmbH", "country": "DE", "city": "Bonn"}
    return [o.File(id=f"profile/t{number}", kind="profile", tenant=f"t{number}", content=content)]


def _deposit(number: int) -> list[o.AnyOperation]:
    if not number % 2:
        return []
    return [o.Deposit(id=f"d{number}", tenant=f"t{number}", amount=50 * 10**9, currency="EUR")]


def _hold(number: int, turn: int) -> o.AnyOperation:
    return o.Hold(
        id=f"req-{turn:04d}-{number:08d}",
        tenant=f"t{number}",
        offer="avocado-1",
        release="release-0123456789ab",
        price_version=SHEET.version,
        prompt_tokens=1000,
        max_tokens=500,
    )


def _settle(number: int, turn: int) -> o.AnyOperation:
    chance = random.Random(number * 1000 + turn)
    usage = Usage(chance.randint(1, 1000), chance.randint(1, 500), cached=0)
    return o.Settle(hold=f"req-{turn:04d}-{number:08d}", usage=usage)


def make_book(target: Path, customers: int, charges: int) -> None:
    """A month of use, spread over its days."""
    clock = ManualClock(start(MONTH) + 10**9)
    with open_ledger(target, clock) as ledger:
        for count, wave in enumerate(operations(customers, charges)):
            for begin in range(0, len(wave), WAVE):
                for future in [ledger.submit(each) for each in wave[begin : begin + WAVE]]:
                    future.result()
            if count > 3:
                clock.step(28 * 86_400 * 10**9 // (2 * charges))


def memory() -> dict[str, int]:
    """RSS now and at its peak, in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if " kB" in line}
    return {"rss": found["VmRSS"], "peak": found["VmHWM"]}


def close_month(folder: Path) -> dict[str, object]:
    """One closing run, in this process."""
    workspace = Workspace.open(folder)
    issuer = Issuer(SELLER, read_table())
    before, begun, busy = memory()["rss"], time.perf_counter(), time.process_time()
    tenth: list[int] = []
    with open_reader(workspace.ledger) as reader, writing_at_once(workspace) as do:
        made = 0
        for outcome in close_all(reader, do, issuer, MONTH, time.time_ns(), "benchmark"):
            assert outcome.refused is None, outcome
            made += 1
            if made % 1000 == 0:
                tenth.append(memory()["rss"])
        seconds = time.perf_counter() - begun
    after = memory()
    return {
        "invoices": made,
        "seconds": round(seconds, 2),
        "ms_per_invoice": round(1000 * seconds / made, 2) if made else None,
        "cpu_ms_per_invoice": round(1000 * (time.process_time() - busy) / made, 2)
        if made
        else None,
        "rss_before": before,
        "rss_each_1000": tenth,
        "rss_after": after["rss"],
        "rss_peak": after["peak"],
    }


@contextmanager
def served(workspace: Workspace) -> Iterator[None]:
    """A ledger behind an admin socket, as a running server's, in a thread of this process."""
    ready, loop, told = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def run(ledger: Ledger) -> None:
        server = AdminServer(workspace.admin_socket, ledger)
        await server.start()
        ready.set()
        await told.wait()
        await server.close()

    assert isinstance(workspace.ledger, Path)
    with open_ledger(workspace.ledger) as ledger:
        thread = threading.Thread(target=loop.run_until_complete, args=(run(ledger),))
        thread.start()
        ready.wait()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(told.set)
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--charges", type=int, default=20)
    parser.add_argument("--socket", action="store_true", help="Through a server's admin socket.")
    parser.add_argument("--close", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.close:
        print(json.dumps(close_month(options.close)))
        return
    assert month_at(time.time_ns()) > MONTH
    with tempfile.TemporaryDirectory() as name:
        workspace = Workspace.create(Path(name, "shop"))
        assert isinstance(workspace.ledger, Path)
        begun = time.perf_counter()
        make_book(workspace.ledger, options.customers, options.charges)
        requests, took = options.customers * options.charges, time.perf_counter() - begun
        size = workspace.ledger.stat().st_size >> 20
        print(f"book of {options.customers:,} customers and {requests:,} requests: ", end="")
        print(f"{took:.0f} s, {size} MiB, on {os.cpu_count()} cores", flush=True)
        for run in ("first", "again"):
            if options.socket:
                with served(workspace):
                    told = child(workspace.folder)
            else:
                told = child(workspace.folder)
            print(f"{run}: {told}", flush=True)


def child(folder: Path) -> str:
    command = [sys.executable, __file__, "--close", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
