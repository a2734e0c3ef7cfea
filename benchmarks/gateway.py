"""What the gateway costs: python benchmarks/gateway.py [--rounds 3] [--seconds 3] [--json FILE]

Compares, interleaved in one run, over loopback:
  direct       the fake OpenAI upstream itself, a bare asyncio protocol
  passthrough  uvicorn and raw ASGI around an aiohttp client: no keys, no money, no checks
  ours         the whole paid path, durable holds and settlements, over an engine in process
  ours+hop     the same with the remote engine, which asks the fake upstream over HTTP
  litellm      LiteLLM's proxy, as it installs, no database (build/litellm; make bench-gateway)
  tensorzero   TensorZero's gateway from its wheel, no database (build/tensorzero)
``--streams 1000`` instead opens so many paced streams for ``--minutes`` and watches them.
The load runs on core 0 with the upstream, the server under test on core 1. CPU microseconds per
request are of the server's whole process and the figure to trust on a busy machine; compare
ratios. Every answer is checked; the ledger is proved at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Delta, Event, Finish, Occupancy, Sampling
from avocado.terms.usage import Usage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, import as a package

from benchmarks.http_peers import MODEL, WORDS, load, passthrough, upstream
from benchmarks.open_streams import PACE, watch
from benchmarks.rival_gateways import RIVALS, Rival

PROMPT = Prompt("a prompt", tuple(range(77)))
RELEASE = "release-" + "0" * 64
PEPPER = b"benchmark pepper"


# -- ours ------------------------------------------------------------------------------------------


class Answered:
    """A generation whose events are known."""

    usage = Usage(77, 32)

    async def __aiter__(self) -> AsyncIterator[Event]:
        for place, word in enumerate(WORDS):
            yield Delta(word, place + 1)
        yield Finish("stop", self.usage)

    async def cancel(self) -> Usage:
        return self.usage


class InProcess:
    """An engine that costs nothing: what is left is the gateway."""

    context_length = 4096
    occupancy = Occupancy(0)

    async def check(self, sampling: Sampling) -> None: ...

    def prepare(self, chat: Chat) -> Prompt:
        return PROMPT

    @property
    def embedder(self) -> None:
        return None

    def prepare_text(self, text: str) -> Prompt:
        return PROMPT

    def generate(self, prompt: Prompt, sampling: Sampling) -> Any:
        return Answered()

    async def close(self) -> None: ...


def remote(url: str) -> Any:
    """The product's own remote engine on the fake upstream."""
    from avocado.engine.remote import RemoteEngine

    return RemoteEngine([url], MODEL, context_length=4096)


class Ticking:
    """A generation that says a word every ``PACE`` seconds until its maximum."""

    def __init__(self, most: int) -> None:
        self.usage = Usage(77, 0)
        self._most = most

    async def __aiter__(self) -> AsyncIterator[Event]:
        due = time.monotonic()
        while self.usage.completion < self._most:
            due += PACE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.usage = Usage(77, self.usage.completion + 1)
            yield Delta(" tick", self.usage.completion)
        yield Finish("length", self.usage)

    async def cancel(self) -> Usage:
        return self.usage


class Paced(InProcess):
    """An engine for streams that stay open."""

    context_length = 10**6

    def generate(self, prompt: Prompt, sampling: Sampling) -> Any:
        return Ticking(sampling.max_tokens)


def ours(folder: Path, target: str) -> None:
    """Our real server process over a fresh ledger; the key lies in ``folder``/key. ``target`` is
    the upstream's URL, ``paced``, or nothing for an engine in process that costs nothing."""
    from avocado.gateway.keys import mint
    from avocado.gateway.limits import Limits
    from avocado.gateway.server import Settings, serve
    from avocado.ledger.ledger import open_ledger
    from avocado.ledger.operation import AddKey, Deposit, OpenCustomer
    from avocado.release.offer import Offer
    from avocado.terms.price import PriceSheet

    ledger, key = folder / "ledger.sqlite", mint(PEPPER)
    with open_ledger(ledger) as book:
        book.do_now(OpenCustomer(tenant="load", name="load"))
        book.do_now(Deposit(id="d", tenant="load", amount=10**17, currency="USD"))
        book.do_now(
            AddKey(
                key_id=key.id, tenant="load", name="k", digest=key.digest, created=time.time_ns()
            )
        )
    (folder / "key").write_text(key.text)
    engine = {"": InProcess, "paced": Paced}.get(target, lambda: remote(target))()
    offer = Offer(MODEL, RELEASE, PriceSheet(200_000_000, 800_000_000), 1_700_000_000)
    with (folder / "requests.log").open("ab", buffering=0) as log:
        serve(
            Settings(
                ledger,
                PEPPER,
                folder / "admin.sock",
                port=0,
                limits=Limits(running=4096, running_per_customer=4096),
            ),
            {MODEL: offer},
            lambda: {RELEASE: engine},
            lambda url: print(url, flush=True),
            log.write,
        )


# -- the comparison --------------------------------------------------------------------------------


class Server:
    """A process under test, and how it wants to be asked."""

    def __init__(self, name: str, child: subprocess.Popen[str], url: str) -> None:
        self.name = name
        self.child = child
        self.url = url
        self.key = "none"
        self.path = "/v1/chat/completions"
        self.model = MODEL

    @classmethod
    def of_this_file(cls, name: str, core: int, *arguments: str) -> Server:
        child = _start(core, *arguments)
        assert child.stdout is not None
        return cls(name, child, child.stdout.readline().strip())

    @classmethod
    def of_rival(cls, name: str, rival: Rival) -> Server:
        server = cls(name, rival.child, rival.url)
        server.key, server.path, server.model = rival.key, rival.path, rival.model
        return server

    def cpu(self) -> float:
        """CPU seconds so far of the process and its children, all threads."""
        parents: dict[int, list[int]] = {}
        times: dict[int, float] = {}
        for place in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = place.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            pid = int(place.parent.name)
            parents.setdefault(int(fields[1]), []).append(pid)
            times[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        family, total = [self.child.pid], 0.0
        while family:
            pid = family.pop()
            total += times.get(pid, 0.0)
            family += parents.get(pid, [])
        return total

    def measure(self, streamed: bool, connections: int, seconds: float) -> dict[str, float]:
        before = self.cpu()
        asked = ("load", self.url, self.key, str(int(streamed)), str(connections), str(seconds))
        child = _start(0, *asked, self.path, self.model)
        out, _ = child.communicate(timeout=seconds + 120)
        found: dict[str, float] = json.loads(out)
        found["cpu"] = (self._settled_cpu() - before) / found["n"] * 1e6
        return found

    def _settled_cpu(self) -> float:
        """After what was put off (logs, callbacks) is done: it is a cost of these requests too."""
        last = self.cpu()
        for _ in range(40):
            time.sleep(0.1)
            now = self.cpu()
            if now - last <= 0.01:
                break
            last = now
        return last

    def stop(self) -> None:
        self.child.terminate()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()


def _start(core: int, *arguments: str) -> subprocess.Popen[str]:
    def pin() -> None:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    command = [sys.executable, __file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)


def start_all(folder: Path) -> list[Server]:
    source = Server.of_this_file("direct", 0, "upstream")
    servers = [source, Server.of_this_file("passthrough", 1, "passthrough", source.url)]
    for name, target in (("ours", ""), ("ours+hop", source.url)):
        servers.append(start_ours(name, folder, target))
    for name, start in RIVALS.items():
        rival = start(source.url, folder, 1)
        if rival is None:
            print(f"{name}: no build/{name}; make bench-gateway makes it", file=sys.stderr)
        else:
            servers.append(Server.of_rival(name, rival))
    return servers


def start_ours(name: str, folder: Path, target: str) -> Server:
    place = folder / name
    place.mkdir()
    server = Server.of_this_file(name, 1, "ours", str(place), target)
    server.key = (place / "key").read_text()
    return server


def compare(rounds: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Medians over the rounds, a row a cell; cells and servers take turns."""
    servers = start_all(folder)
    cells = [(streamed, c) for streamed in (False, True) for c in (1, 16, 64)]
    seen: dict[tuple[bool, int, str], list[dict[str, float]]] = {}
    try:
        for turn in range(rounds + 1):
            for streamed, connections in cells:
                for server in servers:
                    found = server.measure(streamed, connections, seconds if turn else 0.5)
                    if turn:
                        seen.setdefault((streamed, connections, server.name), []).append(found)
    finally:
        for server in reversed(servers):
            server.stop()
    rows = []
    for (streamed, connections, name), runs in seen.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        rows.append(
            {"mode": "sse" if streamed else "json", "c": connections, "name": name, **middle}
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Added milliseconds are over ``direct``; the last columns are ratios of CPU and of rate."""
    cells = {(r["mode"], r["c"], r["name"]): r for r in rows}
    print(
        f"{'':22}{'req/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'+p50':>8}{'+p99':>8}{'CPU µs':>8}"
        f"{'CPU × bare':>12}{'rate × LiteLLM':>16}"
    )
    for row in rows:
        cell = (row["mode"], row["c"])
        direct, bare = cells[(*cell, "direct")], cells[(*cell, "passthrough")]
        lite = cells.get((*cell, "litellm"))
        rate = f"{row['rps'] / lite['rps']:>16.1f}" if lite else f"{'':>16}"
        cost = f"{row['cpu']:>8.0f}{row['cpu'] / bare['cpu']:>12.2f}"
        added = f"{row['p50'] - direct['p50']:>8.2f}{row['p99'] - direct['p99']:>8.2f}"
        print(
            f"{row['mode']:5}{row['c']:>3} {row['name']:13}{row['rps']:>9.0f}{row['p50']:>9.2f}"
            f"{row['p99']:>9.2f}{added}{cost}{rate}"
        )


def open_streams(count: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Opens ``count`` paced streams and watches them."""
    server = start_ours("streams", folder, "paced")
    try:
        pid, seconds = str(server.child.pid), str(minutes * 60)
        child = _start(0, "streams", server.url, server.key, pid, str(count), seconds)
        out, _ = child.communicate(timeout=minutes * 60 + 120)
    finally:
        server.stop()
    found: dict[str, Any] = json.loads(out)
    for name, value in found.items():
        print(f"{name:18}{value:>12.2f}" if isinstance(value, float) else f"{name:18}{value:>12}")
    return found


def prove_ledgers(folder: Path) -> None:
    """Every request that was answered was charged once, and nothing else."""
    from avocado.ledger.proof import prove
    from avocado.ledger.reader import open_reader

    for path in sorted(folder.glob("*/ledger.sqlite")):
        with open_reader(path) as book:
            bad = [check for check in prove(book, time.time_ns()) if not check.ok]
            if bad or book.open_holds():
                raise SystemExit(f"{path}: {bad or 'open holds'}")
            requests = sum(line.requests for line in book.usage())
        print(f"{path.parent.name}: {requests} requests charged once each, all ten invariants hold")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["upstream"]:
            _run(upstream())
        case ["passthrough", url]:
            _run(passthrough(url))
        case ["ours", folder, target]:
            ours(Path(folder), target)
        case ["load", url, key, streamed, connections, seconds, path, model]:
            wanted = (streamed == "1", int(connections), float(seconds))
            _run(load(url, key, *wanted, path, model))
        case ["streams", url, key, pid, count, seconds]:
            _run(watch(url, key, int(pid), int(count), float(seconds)))
        case _:
            parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
            parser.add_argument("--rounds", type=int, default=3)
            parser.add_argument("--seconds", type=float, default=3.0)
            parser.add_argument("--json", type=Path, help="also write the rows here")
            parser.add_argument("--streams", type=int, help="open so many paced streams instead")
            parser.add_argument("--minutes", type=float, default=10.0, help="for --streams")
            options = parser.parse_args(arguments)
            rows: Any
            with tempfile.TemporaryDirectory() as folder:
                if options.streams:
                    rows = open_streams(options.streams, options.minutes, Path(folder))
                else:
                    rows = compare(options.rounds, options.seconds, Path(folder))
                    show(rows)
                prove_ledgers(Path(folder))
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))


def _run(what: Any) -> None:
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(what)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
