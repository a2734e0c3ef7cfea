"""How fast the ledger is, beside the floor that the disk sets. One run, one disk, one table.

    python benchmarks/ledger.py                         pairs a second, SQLite and PostgreSQL
    python benchmarks/ledger.py --pairs 20000           pairs a second and processor time of each
    python benchmarks/ledger.py --memory 1000000        memory over a million pairs
    python benchmarks/ledger.py --lookups 1000000 10000000   balance look-ups by size of the book

A pair is one hold and one settlement of one request, each awaited until its commit is durable. The
floor is a plain file: the same journal bytes, appended and fdatasync'ed at the same batch size,
with no index, no balance and no answer to anybody.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avocado.ledger import batch
from avocado.ledger import operation as o
from avocado.ledger.book import AnyInternal
from avocado.ledger.clock import new_id
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.ledger.reader import Reader, open_reader
from avocado.ledger.sqlite import SqliteStore
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage

SHEET = PriceSheet(200_000_000, 800_000_000, cached=50_000_000)
CUSTOMERS = 256


@dataclass(frozen=True)
class Figures:
    """One row of the table."""

    store: str
    callers: int
    pairs: float
    p50: float
    p99: float
    batch: float
    floor: float


def hold(tenant: int) -> o.Hold:
    return o.Hold(
        id=new_id("req-"),
        tenant=f"t{tenant}",
        key_id=f"k{tenant}",
        offer="avocado-1",
        release="release-0123456789ab",
        price_version=SHEET.version,
        prompt_tokens=700,
        max_tokens=500,
    )


def setup() -> list[o.AnyOperation]:
    """Customers with a key and more money than they can spend."""
    operations: list[o.AnyOperation] = [o.PublishPrice(terms=SHEET.terms())]
    for number in range(CUSTOMERS):
        tenant, digest = f"t{number}", f"{number:064x}"
        operations += [
            o.OpenCustomer(tenant=tenant, name=tenant),
            o.AddKey(key_id=f"k{number}", tenant=tenant, name="k", digest=digest, created=0),
            o.Deposit(id=f"d{number}", tenant=tenant, amount=10**15, currency="USD"),
        ]
    return operations


def prepare(ledger: Ledger) -> None:
    for future in [ledger.submit(operation) for operation in setup()]:
        future.result()


async def load(ledger: Ledger, callers: int, seconds: float) -> tuple[int, list[float], float]:
    """Runs ``callers`` at once for ``seconds``: (pairs, seconds of each pair, seconds in all)."""
    took: list[float] = []
    begun = time.perf_counter()

    async def caller(number: int) -> None:
        while time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            held = await ledger.hold(hold(number % CUSTOMERS))
            await ledger.settle(held.hold, Usage(700, 300, 200))
            took.append(time.perf_counter() - start)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return len(took), took, time.perf_counter() - begun


def floor(folder: Path, entry: int, batch_size: float, seconds: float) -> float:
    """Pairs a second of a plain append and fdatasync of as many bytes as often."""
    size = max(1, round(entry * batch_size))
    data = os.urandom(size)
    path = folder / "floor"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        os.write(file, data)
        os.fdatasync(file)
        count += 1
    took = time.perf_counter() - begun
    os.close(file)
    path.unlink()
    return count * batch_size / 2 / took


def bytes_of(target: str | Path) -> int:
    """Journal bytes of an average entry: body, hash and two integers."""
    with open_reader(target) as reader:
        rows = reader.rows("SELECT avg(length(body)) FROM journal", ())
        return int(next(iter(rows))[0]) + 48


def measure(store: str, target: str | Path, folder: Path, callers: int, seconds: float) -> Figures:
    with open_ledger(target) as ledger:
        prepare(ledger)
        run(load(ledger, callers, seconds / 4))
        commits, operations = ledger.metrics.commits, ledger.metrics.operations
        pairs, took, spent = run(load(ledger, callers, seconds))
        size = (ledger.metrics.operations - operations) / (ledger.metrics.commits - commits)
    took.sort()
    return Figures(
        store,
        callers,
        pairs / spent,
        took[len(took) // 2] * 1e3,
        took[int(len(took) * 0.99)] * 1e3,
        size,
        floor(folder, bytes_of(target), size, seconds / 4),
    )


def run(work: object) -> tuple[int, list[float], float]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)  # type: ignore[arg-type]
    return uvloop.run(work)  # type: ignore[arg-type]


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with its own defaults, on the same disk."""
    import pgserver

    folder = tempfile.mkdtemp(prefix="avocado-bench-pg-")
    server = pgserver.get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def table(callers: list[int], seconds: float, stores: list[str], folder: Path) -> None:
    print(
        f"{'store':9} {'callers':>7} {'pairs/s':>9} {'p50 ms':>8} {'p99 ms':>8} "
        f"{'batch':>6} {'floor/s':>9} {'of floor':>8}"
    )
    for store in stores:
        for count in callers:
            if store == "sqlite":
                place = folder / f"book-{count}.db"
                show(measure(store, place, folder, count, seconds))
            else:
                with postgres() as uri:
                    show(measure(store, uri, folder, count, seconds))


def show(row: Figures) -> None:
    print(
        f"{row.store:9} {row.callers:7} {row.pairs:9,.0f} {row.p50:8.2f} {row.p99:8.2f} "
        f"{row.batch:6.1f} {row.floor:9,.0f} {row.pairs / row.floor:8.2f}",
        flush=True,
    )


def resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(pairs: int, folder: Path) -> None:
    """Prints the process's memory as a book grows by ``pairs``."""
    with open_ledger(folder / "memory.db") as ledger:
        prepare(ledger)
        done, next_print = 0, 0
        while done < pairs:
            count, _, _ = run(load(ledger, 256, 1))
            done += count
            if done >= next_print:
                print(f"{done:9,} pairs  {resident():7.1f} MiB", flush=True)
                next_print += pairs // 10
    size = (folder / "memory.db").stat().st_size / 2**20
    print(f"{done:9,} pairs  {resident():7.1f} MiB at the end; the file is {size:,.0f} MiB")


def processor(pairs: int, folder: Path) -> None:
    """Prints pairs a second and the processor's time for one, with 64 callers on SQLite."""
    with open_ledger(folder / "pairs.db") as ledger:
        prepare(ledger)
        run(load(ledger, 64, 0.5))
        done, begun, used = 0, time.perf_counter(), time.process_time()
        while done < pairs:
            done += run(load(ledger, 64, 0.5))[0]
        spent, used = time.perf_counter() - begun, time.process_time() - used
    print(f"{done / spent:9,.0f} pairs/s  {used / done * 1e6:7.2f} µs of processor a pair")


def fill(path: Path, entries: int) -> None:
    """Grows the book to ``entries`` journal entries, unsynced, as fast as it goes."""
    store = SqliteStore(path, new_id("epoch-"), time.time_ns())
    store._db.pragma("synchronous", "OFF")
    seq = store.begin().seq
    store.rollback()
    operations: list[AnyInternal] = list(setup()) if not seq else []
    while seq < entries:
        for _ in range(500):
            request = hold(random.randrange(CUSTOMERS))
            operations += [request, o.Settle(hold=request.id, usage=Usage(700, 300, 200))]
        outcomes = batch.run(store, operations, time.time_ns())
        seq = max(result.seq for result in outcomes if isinstance(result, o.Settled))
        operations = []
        store.tidy()
    store.close()


def lookups(sizes: list[int], folder: Path) -> None:
    """Prints how long a balance look-up takes in books of these many entries."""
    path = folder / "lookups.db"
    for entries in sorted(sizes):
        fill(path, entries)
        begun = time.perf_counter()
        open_ledger(path).close()
        opened = time.perf_counter() - begun
        with open_reader(path) as reader:
            took = sorted(_look(reader) for _ in range(5000))
            seq, _ = reader.head()
        print(
            f"{seq:11,} entries  balance p50 {took[2500] * 1e6:6.1f} µs  "
            f"p99 {took[4950] * 1e6:6.1f} µs  open {opened:5.2f} s  "
            f"file {path.stat().st_size / 2**20:,.0f} MiB",
            flush=True,
        )


def _look(reader: Reader) -> float:
    begun = time.perf_counter()
    reader.balance(f"t{random.randrange(CUSTOMERS)}")
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--pairs", type=int, metavar="PAIRS")
    parser.add_argument("--memory", type=int, metavar="PAIRS")
    parser.add_argument("--lookups", type=int, nargs="+", metavar="ENTRIES")
    parser.add_argument("--folder", type=Path, help="where the books are made: the disk to measure")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="avocado-bench-", dir=options.folder))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    try:
        if options.pairs:
            processor(options.pairs, folder)
        elif options.memory:
            memory(options.memory, folder)
        elif options.lookups:
            lookups(options.lookups, folder)
        else:
            table(options.callers, options.seconds, options.stores, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
