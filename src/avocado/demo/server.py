"""A real ``avocado serve`` or ``console`` in a process of its own, while the demo needs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from avocado.errors import Refused

STOP_SECONDS = 30.0


@contextmanager
def running_server(folder: Path, port: int = 0) -> Iterator[str]:
    """The paid API of the workspace in ``folder``, on a free port if ``port`` is 0; yields its base
    URL. Raises as :func:`running` does."""
    with running(folder, "serve", port) as told:
        yield str(told["url"])


@contextmanager
def running(folder: Path, verb: str, port: int) -> Iterator[dict[str, Any]]:
    """Starts ``avocado VERB`` there and yields what it says, as JSON, once it is ready.

    It is told to stop by SIGTERM at the end, and must then leave in good order.

    Raises:
        Refused: it didn't start, or didn't stop with exit code 0; its last words are told.
    """
    log = folder / f"{verb}.log"
    command = [sys.executable, "-m", "avocado.cli.main", verb, "--port", str(port), "--json"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, env={**os.environ}
        )
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line.decode()
            if line.rstrip() == b"}":
                break
        if not text.rstrip().endswith("}") or "url" not in text:
            process.wait(STOP_SECONDS)
            raise Refused(f"avocado {verb} did not start: {_last_words(log)}")
        yield json.loads(text)
        process.terminate()
        if process.wait(STOP_SECONDS) != 0:
            raise Refused(f"avocado {verb} did not stop in good order: {_last_words(log)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at now."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in found]


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
