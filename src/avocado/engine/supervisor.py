"""Keeps one server process alive: starts it, waits until it is well, restarts it, stops it.

The process leads a group of its own, so that its children go with it, and asks the kernel (on
Linux) to be told to stop when ours dies. A start that fails, a process that ends and one that
answers no more are all the same: it is started again, after a pause that doubles while that goes
on. Knows nothing about models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from avocado.engine.engine import EngineError

log = logging.getLogger("avocado.engine")

BOOT: Final = (
    "import ctypes, importlib.util, os, runpy, signal, sys\n"
    "parent, module = int(sys.argv[1]), sys.argv[2]\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"  # PR_SET_PDEATHSIG
    "    if os.getppid() != parent: sys.exit('the parent is gone')\n"
    "if importlib.util.find_spec(module.partition('.')[0]) is None:\n"
    "    sys.exit(f'no module {module} for {sys.executable}: install it there')\n"
    "sys.argv[:] = sys.argv[2:]\n"
    "runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
)
"""What the server's interpreter runs first: ``BOOT parent module arguments…``."""

TAIL: Final = 2000
"""Bytes of the log that an error quotes."""


@dataclass(frozen=True, slots=True)
class Care:
    """Seconds: to be well after a start; between looks at its health, and without an answer before
    it is killed; to stop by itself; of the first and the longest pause before a restart; and in
    good health after which the pause is the first again."""

    start: float = 900.0
    pulse: float = 2.0
    silence: float = 30.0
    stop: float = 30.0
    pause: float = 1.0
    longest_pause: float = 60.0
    steady: float = 60.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def boot(python: Path, module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs ``module`` under ``python``."""
    return [str(python), "-c", BOOT, str(os.getpid()), module, *arguments]


class Supervisor:
    """One process. ``command`` is asked for anew at each start; ``well`` asks the server."""

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        well: Callable[[], Awaitable[bool]],
        *,
        log_file: Path,
        environment: Mapping[str, str],
        care: Care,
    ) -> None:
        self.starts = 0
        self._command, self._well = command, well
        self._log_file, self._environment = log_file, dict(environment)
        self._care = care
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process, which is also its group's."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Starts it, waits until it is well, and watches it from then on.

        Raises:
            EngineError: it ended, or was not well in time; with the end of its log.
        """
        try:
            await self._launch()
        except BaseException:
            await self._end()
            raise
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Ends the process and all its children: asked first, then killed."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self._end()

    async def _launch(self) -> None:
        self.starts += 1
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as out:
            command = self._command()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(f"{command[0]} does not start: {error}") from error
        until = time.monotonic() + self._care.start
        pause = 0.05
        while not await self._well():
            if self._process.returncode is not None:
                raise EngineError(
                    f"the server ended with {self._process.returncode}: {self._said()}"
                )
            if time.monotonic() > until:
                raise EngineError(
                    f"the server was not ready after {self._care.start:.0f} s: {self._said()}"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _said(self) -> str:
        """The end of its log, which says most often what is wrong."""
        with contextlib.suppress(OSError), self._log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return " ".join(file.read().decode(errors="replace").split())
        return "it left no log"

    async def _watch(self) -> None:
        pause = self._care.pause
        while True:
            begun = time.monotonic()
            await self._until_lost()
            if time.monotonic() - begun > self._care.steady:
                pause = self._care.pause
            while True:
                await self._end()
                await asyncio.sleep(pause)
                pause = min(2 * pause, self._care.longest_pause)
                try:
                    await self._launch()
                    break
                except EngineError as error:
                    log.error("%s", error)

    async def _until_lost(self) -> None:
        """Returns when the process ended or has answered nothing for too long."""
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        heard = time.monotonic()
        try:
            while True:
                await asyncio.wait((ended,), timeout=self._care.pulse)
                if ended.done():
                    log.error("the server ended with %s; starting it again", ended.result())
                    return
                if await self._well():
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._care.silence:
                    log.error("the server answers no more; starting it again")
                    return
        finally:
            ended.cancel()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._care.stop):
                await process.wait()
        # Its children too, whether it ended well or not.
        self._signal(process, signal.SIGKILL)
        await process.wait()

    def _signal(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
