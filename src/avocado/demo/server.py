"""A real ``avocado serve`` in a process of its own, for as long as the demo asks it questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avocado.errors import Refused

STOP_SECONDS = 30.0


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Starts the server of the workspace in ``folder`` on a free port; yields its base URL.

    It is told to stop by SIGTERM at the end, and must then leave in good order.

    Raises:
        Refused: it didn't start, or didn't stop with exit code 0; its last words are told.
    """
    log = folder / "server.log"
    command = [sys.executable, "-m", "avocado.cli.main", "serve", "--port", "0", "--json"]
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
            raise Refused(f"the server did not start: {_last_words(log)}")
        yield str(json.loads(text)["url"])
        process.terminate()
        if process.wait(STOP_SECONDS) != 0:
            raise Refused(f"the server did not stop in good order: {_last_words(log)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
