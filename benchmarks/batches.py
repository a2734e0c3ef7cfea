"""What a batch costs the people who wait: p50 and p99 of requests with and without one beside them.

    python benchmarks/batches.py [SECONDS]

One real server process with durable billing over a scripted engine (4 ms a token); clients ask for
short answers one after another, in turns alone and while a batch of thousands of lines runs. Prints
both, their ratio, and how many lines the batch ran meanwhile. The engine here
has places without end, so this is the gateway's own share: a batch gets a line for
each four of the others. Then an upload of 200 MB: its time and the server's memory.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import openai

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.gateway.test_batches_killed import open_shop

CLIENTS = 4
LINES = 10_000
ROUNDS = 4
CHAT: Any = "/v1/chat/completions"


def line(number: int, text: str) -> bytes:
    body = {
        "model": "avocado-1",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 20,
    }
    request = {"custom_id": f"x{number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(request).encode() + b"\n"


def load(port: int, key: str, seconds: float) -> list[float]:
    """Latencies of plain requests, in ms."""
    taken: list[float] = []
    body = json.dumps(
        {"model": "avocado-1", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
    )
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    end = time.monotonic() + seconds

    def ask() -> None:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while time.monotonic() < end:
            began = time.perf_counter()
            link.request("POST", CHAT, body, headers)
            answer = link.getresponse()
            answer.read()
            assert answer.status == 200
            taken.append(1000 * (time.perf_counter() - began))

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def told(name: str, taken: list[float]) -> tuple[float, float]:
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    print(f"{name:28} {len(taken):6} requests   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
    return p50, p99


def memory(pid: int) -> int:
    """The most that a process has had resident, in MB."""
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith("VmHWM"):
            return int(row.split()[1]) // 1024
    return 0


def main(seconds: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="batches"))
    key = open_shop(folder / "ledger.sqlite")
    serving = Path(__file__).parents[1] / "tests" / "gateway" / "serving.py"
    child = subprocess.Popen(
        [sys.executable, str(serving), str(folder), "0", "a b c d e", "0.004", "10"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        port = int(url.rpartition(":")[2])
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=key.text)
        load(port, key.text, 1)
        content = b"".join(line(number, "hi") for number in range(LINES))
        file = client.files.create(file=("in.jsonl", content), purpose="batch").id
        alone, beside, lines, idle = list[float](), list[float](), 0, 0
        for _ in range(ROUNDS):  # in turns, so that a busy machine is as busy for both
            alone += load(port, key.text, seconds)
            batch = start(client, file)
            before = counted(client, batch)
            beside += load(port, key.text, seconds)
            middle = counted(client, batch)
            time.sleep(1 + seconds)
            lines, idle = lines + middle - before, idle + counted(client, batch) - middle
            client.batches.cancel(batch)
            while client.batches.retrieve(batch).status != "cancelled":
                time.sleep(0.05)
        first, second = told("alone", alone), told("beside a batch", beside)
        ratios = [here / there for here, there in zip(second, first, strict=True)]
        print(f"beside a batch / alone: p50 {ratios[0]:.2f}, p99 {ratios[1]:.2f}")
        print(f"the batch beside others: {lines / ROUNDS / seconds:.0f} lines/s")
        print(f"the batch by itself, after a second: {idle / ROUNDS / seconds:.0f} lines/s")
        large = folder / "large.jsonl"
        with large.open("wb") as out:
            for number in range(48_000):
                out.write(line(number, "x" * 4000))
        held, began = memory(child.pid), time.monotonic()
        with large.open("rb") as content_:
            client.files.create(file=content_, purpose="batch")
        took, size = time.monotonic() - began, large.stat().st_size / 1e6
        grown = memory(child.pid) - held
        print(f"upload of {size:.0f} MB: {took:.1f} s, the server's memory grew by {grown} MB")
    finally:
        child.terminate()
        child.wait(30)


def start(client: openai.OpenAI, file: str) -> str:
    """A batch that runs."""
    batch = client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
    while client.batches.retrieve(batch.id).status == "validating":
        time.sleep(0.05)
    return batch.id


def counted(client: openai.OpenAI, batch: str) -> int:
    counts = client.batches.retrieve(batch).request_counts
    return counts.completed if counts else 0


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
