"""A thousand open, paced streams on one core: does memory stay flat, does anything stall?

Each stream gets a token every ``PACE`` seconds from an engine in the server's process. The reader
notes, for each stream, the longest wait between two reads beyond the pace; memory is the server's
resident set, once a second. Called by ``benchmarks/gateway.py --streams``.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.http_peers import MODEL

PACE = 0.1
RISE = 10.0
"""Seconds until all streams are open; what happens before is not counted."""


class Reader(asyncio.Protocol):
    """One stream. ``late`` is its longest wait beyond the pace, after ``since``."""

    def __init__(self, request: bytes, since: float) -> None:
        self._request = request
        self._since = since
        self.last = 0.0
        self.late = 0.0
        self.reads = 0
        self.head = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.reads:
            self.head = data[:200]
        if self.last > self._since:
            self.late = max(self.late, now - self.last - PACE)
        self.last = now
        self.reads += 1

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


def resident(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def watch(url: str, key: str, pid: int, streams: int, seconds: float) -> None:
    """Opens, watches and prints one JSON line."""
    host, _, port = url.removeprefix("http://").partition(":")
    messages = [{"role": "user", "content": "Count."}]
    tokens = int((seconds + RISE + 30) / PACE)
    body = json.dumps(
        {"model": MODEL, "messages": messages, "stream": True, "max_tokens": tokens}
    ).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    loop = asyncio.get_running_loop()
    since = time.perf_counter() + RISE
    readers: list[Reader] = []
    links: list[Any] = []
    for number in range(streams):
        link, reader = await loop.create_connection(lambda: Reader(request, since), host, int(port))
        links.append(link)
        readers.append(reader)
        if number % 10 == 9:
            await asyncio.sleep(RISE / 2 / (streams / 10))
    await asyncio.sleep(max(0.0, since - time.perf_counter()))
    begun = [reader.reads for reader in readers]
    memory = []
    cpu = _cpu(pid)
    began = time.perf_counter()
    own = asyncio.ensure_future(_own_lateness())
    while time.perf_counter() - began < seconds:
        await asyncio.sleep(1.0)
        memory.append(resident(pid))
    own.cancel()
    took = time.perf_counter() - began
    late = sorted(reader.late for reader in readers)
    tenth = max(1, len(memory) // 10)
    print(
        json.dumps(
            {
                "streams": streams,
                "seconds": round(took, 1),
                "failed": sum(not each.head.startswith(b"HTTP/1.1 200") for each in readers),
                "lost": sum(reader.lost for reader in readers),
                "events_per_s": sum(r.reads - b for r, b in zip(readers, begun, strict=True))
                / took,
                "cpu": (_cpu(pid) - cpu) / took,
                "longest_stall_ms": late[-1] * 1000,
                "median_stall_ms": late[len(late) // 2] * 1000,
                "reader_stall_ms": lateness[0] * 1000,
                "memory_first_mib": sum(memory[:tenth]) / tenth,
                "memory_last_mib": sum(memory[-tenth:]) / tenth,
                "memory_most_mib": max(memory),
            }
        )
    )
    for link in links:
        link.abort()


lateness = [0.0]
"""How late this reader itself was woken, at worst: on a busy machine not every stall is theirs."""


async def _own_lateness() -> None:
    while True:
        due = time.perf_counter() + 0.01
        await asyncio.sleep(0.01)
        lateness[0] = max(lateness[0], time.perf_counter() - due)


def _cpu(pid: int) -> float:
    import os

    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
