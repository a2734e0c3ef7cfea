"""The supervisor and the vLLM engine around a real process: a small server in vLLM's place.

It has vLLM's module name and flags, speaks its HTTP, and does what a file says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from avocado.data.chat import Chat, ChatTemplate
from avocado.engine.engine import Delta, EngineBusy, EngineError, Finish, Sampling
from avocado.engine.replica import Patience
from avocado.engine.supervisor import Care
from avocado.engine.vllm import Launch, VllmEngine

Tiny = Callable[[str], Path]

SERVER = """
import argparse, json, os, pathlib, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for flag in ("model", "served-model-name", "host", "load-format", "generation-config"):
    parser.add_argument("--" + flag, required=True)
for flag in ("port", "max-num-seqs", "max-num-queued-reqs", "shutdown-timeout"):
    parser.add_argument("--" + flag, type=int, required=True)
for flag in ("disable-fastapi-docs", "disable-uvicorn-access-log"):
    parser.add_argument("--" + flag, action="store_true", required=True)
args = parser.parse_args()
folder = pathlib.Path(os.environ["FAKE_FOLDER"])
mode = (folder / "mode").read_text()
with (folder / "starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")
print("mode", mode, flush=True)
if mode == "crash":
    sys.exit("no such weights")
if mode == "slow":
    time.sleep(1.5)
if mode in ("stubborn", "hang"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if mode == "stubborn":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "child").write_text(str(child.pid))
answered = 0

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def reply(self, body, kind="application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body.encode())
    def do_GET(self):
        if mode == "hang" and answered:
            time.sleep(600)
        if self.path != "/health":
            assert self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.reply(json.dumps({"data": [{"id": "avocado", "max_model_len": 512}]}))
    def do_POST(self):
        global answered
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            self.send_response(401); self.end_headers(); return
        answered += 1
        if mode == "die":
            os._exit(3)
        n = len(asked["prompt"])
        events = [
            {"choices": [{"index": 0, "text": "Hi", "finish_reason": None}],
             "usage": {"prompt_tokens": n, "completion_tokens": 1}},
            {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}],
             "usage": {"prompt_tokens": n, "completion_tokens": 2}},
        ]
        text = "".join(f"data: {json.dumps(event)}\\n\\n" for event in events)
        self.reply(text + "data: [DONE]\\n\\n", "text/event-stream")

class Server(ThreadingHTTPServer):
    daemon_threads = True

Server((args.host, args.port), Handler).serve_forever()
"""
CARE = Care(start=20, pulse=0.1, silence=0.6, stop=1.0, pause=0.1, longest_pause=0.4, steady=60)
HURRY = Patience(connect=2, idle=2, total=10, retries=0)


class Place:
    """A folder with the stand-in for vLLM's environment in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        module = folder / "lib" / "vllm" / "entrypoints" / "openai" / "api_server.py"
        module.parent.mkdir(parents=True)
        module.write_text(SERVER)
        self.python = folder / "python"
        self.python.write_text(
            f'#!/bin/sh\nexport PYTHONPATH="{folder}/lib" FAKE_FOLDER="{folder}"\n'
            f'exec "{sys.executable}" "$@"\n'
        )
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.mode("well")

    def mode(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    @property
    def pids(self) -> list[int]:
        file = self.folder / "starts"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def launch(self) -> Launch:
        return Launch(self.python, self.folder / "model", self.folder / "logs" / "vllm.log")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def running(
    place: Place, template: ChatTemplate, care: Care = CARE
) -> AsyncIterator[VllmEngine]:
    engine = await VllmEngine.start(place.launch(), template, care=care, patience=HURRY)
    try:
        yield engine
    finally:
        await engine.close()
        assert not any(map(alive, place.pids))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True
    )


def play(scene: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scene, 60)

    asyncio.run(bounded())


async def ask(engine: VllmEngine) -> str:
    prompt = engine.prepare(Chat(({"role": "user", "content": "Hi"},)))
    text = ""
    async for event in engine.generate(prompt, Sampling(9)):
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Finish):
            assert (event.usage.prompt, event.usage.completion) == (len(prompt.ids), 2)
    return text


async def ask_until_answered(engine: VllmEngine, seconds: float = 20) -> str:
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(EngineError):
            return await ask(engine)
        assert time.monotonic() < until, "it did not come back"
        await asyncio.sleep(0.05)


def test_it_starts_answers_and_stops(place: Place, template: ChatTemplate) -> None:
    async def scene() -> None:
        async with running(place, template) as engine:
            assert engine.context_length == 512
            assert await ask(engine) == "Hi"
            (pid,) = place.pids
            assert engine.server.pid == pid
            assert os.getpgid(pid) == pid
        command = (place.folder / "logs" / "vllm.log").read_text()
        assert "mode well" in command

    play(scene())


def test_a_slow_start_is_waited_for(place: Place, template: ChatTemplate) -> None:
    async def scene() -> None:
        place.mode("slow")
        async with running(place, template) as engine:
            assert await ask(engine) == "Hi"

    play(scene())


@pytest.mark.parametrize(
    ("mode", "start", "said"),
    [("crash", 20.0, "ended with 1.*no such weights"), ("slow", 0.3, "not ready after")],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    place: Place, template: ChatTemplate, mode: str, start: float, said: str
) -> None:
    async def scene() -> None:
        place.mode(mode)
        care = replace(CARE, start=start)
        with pytest.raises(EngineError, match=said):
            await VllmEngine.start(place.launch(), template, care=care, patience=HURRY)
        assert not any(map(alive, place.pids))
        missing = replace(place.launch(), python=place.folder / "nowhere")
        with pytest.raises(EngineError, match="does not start"):
            await VllmEngine.start(missing, template, care=care, patience=HURRY)

    play(scene())


@pytest.mark.parametrize("mode", ["die", "killed", pytest.param("hang", marks=pytest.mark.slow)])
def test_a_server_that_is_lost_is_started_again(
    place: Place, template: ChatTemplate, mode: str
) -> None:
    """Whether it ends with a request, is killed from outside, or answers no more."""

    async def scene() -> None:
        place.mode("well" if mode == "killed" else mode)
        async with running(place, template) as engine:
            if mode == "die":
                with pytest.raises(EngineError) as caught:
                    await ask(engine)
                assert caught.value.retryable
            else:
                assert await ask(engine) == "Hi"
            place.mode("well")
            if mode == "killed":
                os.kill(place.pids[0], signal.SIGKILL)
                await asyncio.sleep(0.3)
            elif mode == "hang":
                await eventually(lambda: len(place.pids) == 2)
            assert await ask_until_answered(engine) == "Hi"
            assert len(place.pids) == 2
            assert not alive(place.pids[0])

    play(scene())


async def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.02)


def test_restarts_that_fail_go_on_with_pauses_and_requests_are_refused_meanwhile(
    place: Place, template: ChatTemplate
) -> None:
    async def scene() -> None:
        async with running(place, template) as engine:
            place.mode("crash")
            os.kill(place.pids[0], signal.SIGKILL)
            await eventually(lambda: len(place.pids) >= 4)
            with pytest.raises((EngineBusy, EngineError)) as caught:
                await ask(engine)
            assert caught.value.retryable
            place.mode("well")
            assert await ask_until_answered(engine) == "Hi"

    play(scene())


def test_one_that_will_not_stop_is_killed_with_its_children(
    place: Place, template: ChatTemplate
) -> None:
    async def scene() -> None:
        place.mode("stubborn")
        async with running(place, template) as engine:
            assert await ask(engine) == "Hi"
            child = int((place.folder / "child").read_text())
            assert alive(child)
            begun = time.monotonic()
        assert CARE.stop <= time.monotonic() - begun < 5
        await eventually(lambda: not alive(child))

    play(scene())


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_it_goes_when_its_parent_is_killed(place: Place, tiny: Tiny) -> None:
    """SIGKILL gives the parent no time to stop it: the kernel tells it."""
    script = f"""
import asyncio, pathlib
from avocado.data.chat import ChatTemplate
from avocado.engine.vllm import Launch, VllmEngine
place = pathlib.Path({str(place.folder)!r})
async def main():
    launch = Launch(place / "python", place / "model", place / "log")
    await VllmEngine.start(launch, ChatTemplate.load({str(tiny("qwen3"))!r}))
    (place / "ready").touch()
    await asyncio.sleep(600)
asyncio.run(main())
"""

    async def scene() -> None:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        await eventually((place.folder / "ready").exists, 50)
        parent.kill()
        await parent.wait()
        await eventually(lambda: not alive(place.pids[0]))

    play(scene())


@pytest.mark.parametrize(
    "extra",
    [
        "--trust-remote-code",
        "--trust_remote_code",
        "--trust",
        "--enable-prompt-embeds=true",
        "--port=1",
        "--load-format=pt",
        "--middleware",
        "--host",
    ],
)
def test_arguments_that_would_open_it_are_refused(place: Place, extra: str) -> None:
    with pytest.raises(ValueError, match="vllm: --"):
        replace(place.launch(), extra=(extra, "x"))


def test_arguments_and_environment(place: Place) -> None:
    launch = replace(
        place.launch(), extra=("--tensor-parallel-size", "2"), gpu_memory=0.8, max_model_len=99
    )
    said = launch.arguments(7, 12.0)
    assert said[-2:] == ["--tensor-parallel-size", "2"]
    for pair in (("--port", "7"), ("--host", "127.0.0.1"), ("--shutdown-timeout", "12")):
        assert said[said.index(pair[0]) + 1] == pair[1]
    environment = launch.environment(
        {"PATH": "p", "PYTHONPATH": "x", "VIRTUAL_ENV": "v", "VLLM_SERVER_DEV_MODE": "1"}, "key"
    )
    assert environment["PATH"] == "p"
    assert environment["VLLM_API_KEY"] == "key"
    assert environment["VLLM_SERVER_DEV_MODE"] == "0"
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(environment)
    assert "key" not in said
