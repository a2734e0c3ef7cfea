"""How fast the console's pages answer, on an empty book and on one with a million settled requests.

    python benchmarks/console.py [--requests 1000000] [--folder DIR] [--times 40]

The large book is made by the real ledger, in batches, on a clock that runs through ninety days:
every hold and every settlement is decided, hash-chained and committed as in service, so the proof
would accept it. Then ``avocado console`` runs as its own process, as it is shipped, and a signed-in
person fetches each page over HTTP: once to warm it (the daybook takes the book up then, which is
timed by itself), then many times in turn. Prints p50 and p95 of each page on both books and their
ratio. With ``--folder`` the books are kept and used again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from avocado.ledger import operation as o
from avocado.ledger.clock import ManualClock
from avocado.ledger.ledger import Ledger, open_ledger
from avocado.terms.price import PriceSheet
from avocado.terms.usage import Usage
from avocado.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CUSTOMERS = 200
DAYS = 90
DAY = 86_400_000_000_000
IN_FLIGHT = 512
"""Operations that wait for the ledger at once: what it commits in batches."""
MODELS = ("avocado-1", "avocado-1-mini", "avocado-embed")
SHEETS = (
    PriceSheet(200_000_000, 800_000_000, cached=50_000_000, batch=500_000),
    PriceSheet(50_000_000, 200_000_000),
    PriceSheet(20_000_000, 0),
)
TARGET = 0.300
"""Seconds at p95 that a page may take."""


def make(folder: Path, requests: int) -> Workspace:
    """A workspace with customers, keys, prices and ``requests`` settled requests."""
    from avocado.workspace import Workspace

    workspace = Workspace.create(folder, "bench")
    clock = ManualClock(time.time_ns() - DAYS * DAY)
    began = time.monotonic()
    with open_ledger(Path(str(workspace.ledger)), clock) as ledger:
        tenants = populate(ledger)
        use(ledger, clock, tenants, requests)
    rate = requests / max(time.monotonic() - began, 1e-9)
    print(f"  {requests:,} requests through the ledger in {time.monotonic() - began:.0f} s "
          f"({rate:,.0f} a second)")  # fmt: skip
    return workspace


def populate(ledger: Ledger) -> list[str]:
    for sheet in SHEETS:
        ledger.do_now(o.PublishPrice(terms=sheet.terms()))
    tenants = [f"customer-{number:03d}" for number in range(CUSTOMERS)]
    for number, tenant in enumerate(tenants):
        ledger.do_now(o.OpenCustomer(tenant=tenant, name=f"Customer {number} Ltd"))
        deposit = o.Deposit(id=f"dep-{tenant}", tenant=tenant, amount=10**15, currency="USD")
        ledger.do_now(deposit)
        for key in range(2):
            ledger.do_now(
                o.AddKey(
                    key_id=f"key-{tenant}-{key}",
                    tenant=tenant,
                    name=f"key {key}",
                    digest=f"{tenant}-{key}",
                    created=1,
                )
            )
    return tenants


def use(ledger: Ledger, clock: ManualClock, tenants: Sequence[str], requests: int) -> None:
    """Holds and settles, many in flight; each settlement follows its hold's commit. Customers use
    unequally, as they do."""
    draw = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(len(tenants))]
    whose = draw.choices(range(len(tenants)), weights, k=requests)
    waiting: deque[tuple[Future[Any], str, Usage]] = deque()
    closing: deque[Future[Any]] = deque()
    chunk = max(1, requests // (DAYS * 4))  # a quarter of a day's requests
    for number in range(requests):
        tenant, model = tenants[whose[number]], number % 3
        prompt, completion = draw.randrange(50, 4000), draw.randrange(10, 900)
        request = f"req-{number:012d}"
        hold = o.Hold(
            id=request,
            tenant=tenant,
            key_id=f"key-{tenant}-{number % 2}",
            offer=MODELS[model],
            release=f"release-{model:064d}",
            price_version=SHEETS[model].version,
            prompt_tokens=prompt,
            max_tokens=1000,
            batch=number % 50 == 0,
        )
        usage = Usage(prompt, completion, cached=prompt // 4 if number % 3 == 0 else 0)
        waiting.append((ledger.submit(hold), request, usage))
        while len(waiting) > IN_FLIGHT:
            settle(ledger, waiting, closing)
        if number % chunk == chunk - 1:  # time passes while nothing is held
            finish(ledger, waiting, closing)
            clock.pass_time(DAYS * DAY * chunk // (requests + chunk))
        if number and number % 100_000 == 0:
            print(f"    {number:,}", flush=True)
    finish(ledger, waiting, closing)


def finish(
    ledger: Ledger, waiting: deque[tuple[Future[Any], str, Usage]], closing: deque[Future[Any]]
) -> None:
    while waiting:
        settle(ledger, waiting, closing)
    while closing:
        closing.popleft().result()


def settle(
    ledger: Ledger, waiting: deque[tuple[Future[Any], str, Usage]], closing: deque[Future[Any]]
) -> None:
    future, request, usage = waiting.popleft()
    future.result()
    closing.append(ledger.submit(o.Settle(hold=request, usage=usage)))
    while len(closing) > IN_FLIGHT:
        closing.popleft().result()


# -- fetching -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A page by the role whose it is."""

    path: str
    role: str


def pages(tenant: str) -> list[Page]:
    """Every page that is shown, with the largest customer and its newest request for what a path
    names; pages of things that a book alone has not (runs, releases) are shown by their lists."""
    from avocado.console.app import all_pages

    found = []
    for room in all_pages():
        for route in room.routes:
            if route.kind != "show" or route.public or not route.template:
                continue
            path = route.path.replace("{tenant}", tenant)
            if "{" in path or path in SKIPPED:
                continue
            role = "admin" if "admin" in route.roles else "owner"
            found.append(Page(path, role))
    return found


SKIPPED = ("/operator/invoice",)
"""Pages that need the id of something."""


@contextmanager
def console(folder: Path) -> Iterator[str]:
    """``avocado console`` as its own process; yields its address."""
    command = [sys.executable, "-m", "avocado", "console", "--port", "0", "--json"]
    with (
        (folder / "console.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                line = process.stdout.readline()
                if not line:
                    raise SystemExit("avocado console did not start")
                text += line
            yield str(json.loads(text)["url"])
        finally:
            process.terminate()
            process.wait(20)


def sign_in(workspace: Workspace, tenant: str | None, role: Any) -> str:
    """A session's token, as a sign-in would leave it."""
    from avocado.console import people, sessions
    from avocado.console.store import open_store, place_of

    database = open_store(place_of(workspace))
    try:
        email = f"{role}@example.com"
        person = people.by_email(database, email)
        if person is None:
            person = people.add(database, email, role, tenant, time.time_ns())
        return sessions.begin(database, person, time.time_ns(), 12, "127.0.0.1", "benchmark")
    finally:
        database.close()


def fetch(connection: http.client.HTTPConnection, path: str, token: str) -> tuple[int, float, int]:
    """(status, seconds, bytes)."""
    began = time.perf_counter()
    connection.request("GET", path, headers={"cookie": f"av_session={token}"})
    answer = connection.getresponse()
    size = len(answer.read())
    return answer.status, time.perf_counter() - began, size


def measure(workspace: Workspace, tenant: str, times: int) -> dict[str, list[float]]:
    """Seconds of each page, ``times`` each, in turn so that no page has the machine's best hour."""
    tokens = {
        "owner": sign_in(workspace, None, "owner"),
        "admin": sign_in(workspace, tenant, "admin"),
    }
    found: dict[str, list[float]] = {}
    with console(workspace.folder) as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
        wanted = []
        _, first, _ = fetch(connection, "/operator/overview", tokens["owner"])
        print(f"  first page, with the daybook's building: {first:.2f} s")
        for page in pages(tenant):
            status, _, _ = fetch(connection, page.path, tokens[page.role])
            if status == 200:
                wanted.append(page)
            elif status != 303:
                print(f"  {page.path} answers {status}: left out")
        for _ in range(times):
            for page in wanted:
                status, seconds, _ = fetch(connection, page.path, tokens[page.role])
                assert status == 200, f"{page.path} answered {status}: see console.log"
                found.setdefault(page.path, []).append(seconds)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(empty: dict[str, list[float]], full: dict[str, list[float]]) -> bool:
    """Prints the table; whether every page is within the target."""
    print(f"{'page':42} {'empty p50':>10} {'p95':>8} {'full p50':>10} {'p95':>8} {'ratio':>7}")
    fine = True
    for path in sorted(full, key=lambda path: -percentile(full[path], 0.95)):
        cells = [1000 * percentile(full[path], share) for share in (0.5, 0.95)]
        before = [1000 * percentile(empty[path], share) for share in (0.5, 0.95)] if path in empty \
            else [float("nan")] * 2  # fmt: skip
        ratio = cells[0] / before[0]
        slow = cells[1] > 1000 * TARGET
        fine = fine and not slow
        print(f"{path:42} {before[0]:8.1f}ms {before[1]:6.1f}ms {cells[0]:8.1f}ms "
              f"{cells[1]:6.1f}ms {ratio:6.1f}x{'  SLOW' if slow else ''}")  # fmt: skip
    print(f"{'all' if fine else 'NOT all'} pages within {1000 * TARGET:.0f} ms at p95")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where the books are kept, to be used again")
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp(prefix="avocado-console-"))
    results = []
    try:
        for name, requests in (("empty", 0), (f"requests-{asked.requests}", asked.requests)):
            print(name)
            folder = root / name
            workspace = Workspace.find(folder) if folder.exists() else make(folder, requests)
            results.append(measure(workspace, "customer-000", asked.times))
    finally:
        if asked.folder is None:
            shutil.rmtree(root, ignore_errors=True)
    return 0 if report(*results) else 1


if __name__ == "__main__":
    sys.exit(main())
