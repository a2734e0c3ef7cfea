"""What the gateway costs: python benchmarks/gateway.py [--rounds 3] [--seconds 3] [--json FILE]

Compares, interleaved in one run, over loopback:
  direct       the fake OpenAI upstream itself, a bare asyncio protocol
  passthrough  uvicorn and raw ASGI around an aiohttp client: no keys, no money, no checks
  ours         the whole paid path, durable holds and settlements, over an engine in process
  ours+hop     the same with an engine that asks the fake upstream through aiohttp, as a remote one
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

import msgspec

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import Delta, EngineError, Event, Finish, Occupancy, Sampling
from avocado.terms.usage import Usage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, import as a package

from benchmarks.http_peers import ASK, MODEL, STREAM, WORDS, load, passthrough, upstream

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

    def generate(self, prompt: Prompt, sampling: Sampling) -> Any:
        return Answered()

    async def close(self) -> None: ...


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


_read_chunk = msgspec.json.Decoder(_Chunk).decode


class Fetched(Answered):
    """A generation that the upstream streams. The request goes out at once, as its own task."""

    def __init__(self, session: Any, url: str, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        self._asked = asyncio.ensure_future(session.post(url, data=body, headers=headers))

    async def __aiter__(self) -> AsyncIterator[Event]:
        left, done = b"", 0
        async with await self._asked as answer:
            async for part in answer.content.iter_any():
                *events, left = (left + part).split(b"\n\n")
                for event in events:
                    if event == b"data: [DONE]":
                        yield Finish("stop", self.usage)
                        return
                    for choice in _read_chunk(event[6:]).choices:
                        if choice.delta.content:
                            done += 1
                            yield Delta(choice.delta.content, done)
        raise EngineError("the upstream ended early")


class Remote(InProcess):
    """An engine behind HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url + "/v1/chat/completions"
        self._body = json.dumps({**ASK, **STREAM}).encode()
        self._session: Any = None

    def generate(self, prompt: Prompt, sampling: Sampling) -> Any:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return Fetched(self._session, self._url, self._body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def ours(folder: Path, target: str | None) -> None:
    """Our real server process over a fresh ledger; the key lies in ``folder``/key."""
    from avocado.gateway.keys import mint
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
    engine = Remote(target) if target else InProcess()
    offer = Offer(MODEL, RELEASE, PriceSheet(200_000_000, 800_000_000), 1_700_000_000)
    with (folder / "requests.log").open("ab", buffering=0) as log:
        serve(
            Settings(ledger, PEPPER, folder / "admin.sock", port=0),
            {MODEL: offer},
            lambda: {RELEASE: engine},
            lambda url: print(url, flush=True),
            log.write,
        )


# -- the comparison --------------------------------------------------------------------------------


class Server:
    """One process of this file on ``core``."""

    def __init__(self, name: str, core: int, *arguments: str) -> None:
        self.name = name
        self.child = _start(core, *arguments)
        assert self.child.stdout is not None
        self.url = self.child.stdout.readline().strip()
        self.key = "none"

    def cpu(self) -> float:
        """CPU seconds so far, all threads."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def measure(self, streamed: bool, connections: int, seconds: float) -> dict[str, float]:
        before = self.cpu()
        asked = ("load", self.url, self.key, str(int(streamed)), str(connections), str(seconds))
        child = _start(0, *asked)
        out, _ = child.communicate(timeout=seconds + 60)
        found: dict[str, float] = json.loads(out)
        found["cpu"] = (self.cpu() - before) / found["n"] * 1e6
        return found

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait(30)


def _start(core: int, *arguments: str) -> subprocess.Popen[str]:
    def pin() -> None:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    command = [sys.executable, __file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)


def compare(rounds: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    source = Server("direct", 0, "upstream")
    servers = [source, Server("passthrough", 1, "passthrough", source.url)]
    for name, target in (("ours", ""), ("ours+hop", source.url)):
        place = folder / name
        place.mkdir()
        server = Server(name, 1, "ours", str(place), target)
        server.key = (place / "key").read_text()
        servers.append(server)
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
    titles = ("req/s", "p50 ms", "p99 ms", "CPU µs", "× passthrough")
    print(f"{'':21}{titles[0]:>8}{titles[1]:>9}{titles[2]:>9}{titles[3]:>8}{titles[4]:>15}")
    bare = {(r["mode"], r["c"]): r["cpu"] for r in rows if r["name"] == "passthrough"}
    for row in rows:
        ratio = row["cpu"] / bare[row["mode"], row["c"]]
        print(
            f"{row['mode']:5}{row['c']:>3} {row['name']:13}{row['rps']:>8.0f}{row['p50']:>9.2f}"
            f"{row['p99']:>9.2f}{row['cpu']:>8.0f}{ratio:>15.2f}"
        )


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
            ours(Path(folder), target or None)
        case ["load", url, key, streamed, connections, seconds]:
            _run(load(url, key, streamed == "1", int(connections), float(seconds)))
        case _:
            parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
            parser.add_argument("--rounds", type=int, default=3)
            parser.add_argument("--seconds", type=float, default=3.0)
            parser.add_argument("--json", type=Path, help="also write the rows here")
            options = parser.parse_args(arguments)
            with tempfile.TemporaryDirectory() as folder:
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
