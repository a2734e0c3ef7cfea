"""``[engine]`` of avocado.toml, through ``avocado serve``: what a user writes, and what it charges.

The servers behind a remote engine are Avocado itself, which serves the seedling.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import openai
import pytest

from avocado.cli.book import reading
from avocado.cli.customers import add_customer, create_key
from avocado.cli.offers import place_offer
from avocado.data.chat import ChatTemplate
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from avocado.workspace import Workspace

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
PRICE = PriceSheet(Money.parse("200").nanos, Money.parse("800").nanos)
MESSAGES: Any = [{"role": "user", "content": "Heute ist der 12. März."}]


def make_shop(folder: Path, name: str = "avocado-1", weights: Path = SEEDLING) -> tuple[str, str]:
    """A workspace that sells ``weights`` as ``name`` to acme; the release's id and acme's key."""
    workspace = Workspace.create(folder)
    store = workspace.store
    with store.stage() as staging:
        shutil.copytree(weights, staging.folder, dirs_exist_ok=True)
        facts = {
            "name": name,
            "template_sha256": ChatTemplate.load(weights).sha256,
            "gate": {"purpose": "sale"},
        }
        release = staging.keep("release", facts)
    store.point("offer", name, place_offer(workspace, name, release.id, PRICE).id)
    add_customer(workspace, "acme", "Acme", Money.parse("1.00"), Money(0))
    return release.id, create_key(workspace, "acme", "test")


def set_engine(folder: Path, text: str) -> None:
    with (folder / "avocado.toml").open("a") as file:
        file.write(f"\n[engine]\n{text}\n")


class Serving:
    """A real ``avocado serve``. ``url`` is where it listens."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._log = folder / "server.log"
        command = [sys.executable, "-m", "avocado.cli.main", "serve", "--port", "0", "--json"]
        with self._log.open("wb") as log:
            self.child = subprocess.Popen(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
            )
        assert self.child.stdout is not None
        text = ""
        for line in self.child.stdout:
            text += line.decode()
            if line.rstrip() == b"}":
                break
        self.said = text + self._log.read_text()
        found = json.loads(text or "{}")
        self.url = str(found.get("url", ""))

    @property
    def log(self) -> str:
        return self._log.read_text()

    def client(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def stop(self) -> int:
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[Serving]:
    served = Serving(folder, **environment)
    try:
        assert served.url, served.said
        yield served
        if served.child.poll() is None:
            assert served.stop() == 0
    finally:
        if served.child.poll() is None:
            served.child.kill()
            served.child.wait()
        if served.child.stdout is not None:
            served.child.stdout.close()


def refused(folder: Path, **environment: str) -> str:
    """What ``avocado serve`` says when it does not start."""
    served = Serving(folder, **environment)
    try:
        assert not served.url, served.said
        assert served.child.wait(30) == 1, served.said
        assert "Traceback" not in served.said
        return served.said
    finally:
        served.child.kill()
        served.child.wait()
        assert served.child.stdout is not None
        served.child.stdout.close()


def charges(folder: Path) -> list[Any]:
    with reading(Workspace.open(folder)) as reader:
        return list(reader.charges("acme"))


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace that others may copy and serve, and the key to all copies."""
    folder = tmp_path_factory.mktemp("upstream") / "shop"
    _, key = make_shop(folder, "seedling-1")
    return folder, key


@pytest.fixture(scope="module")
def replica(upstream: tuple[Path, str]) -> Iterator[Serving]:
    """One server that runs for all tests of this module."""
    with serving(upstream[0]) as served:
        yield served


def remote(urls: list[str], **more: Any) -> str:
    settings = {
        "urls": urls,
        "model": "seedling-1",
        "context_length": 512,
        "api_key_variable": "UPSTREAM_KEY",
        **more,
    }
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not None
    ]
    return 'kind = "remote"\n[engine.settings]\n' + "\n".join(lines)


def test_a_remote_engine_with_two_replicas_one_of_which_dies(
    tmp_path: Path, upstream: tuple[Path, str], replica: Serving
) -> None:
    second = tmp_path / "second"
    shutil.copytree(upstream[0], second, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    shop = tmp_path / "shop"
    release, key = make_shop(shop)
    with ExitStack() as stack:
        dying = stack.enter_context(serving(second))
        set_engine(shop, remote([replica.url, f"{dying.url}/v1"]))
        front = stack.enter_context(serving(shop, UPSTREAM_KEY=upstream[1]))
        client = front.client(key)
        told: list[Any] = []
        for number in range(24):
            if number == 12:
                dying.child.kill()
                dying.child.wait()
            # Conversations choose their replica: different ones reach both.
            messages: Any = [{"role": "user", "content": f"{number}: Heute ist der 12. März."}]
            answer = client.chat.completions.create(
                model="avocado-1", messages=messages, max_tokens=8, seed=number
            )
            assert answer.usage
            assert answer.system_fingerprint == release[:20]
            told.append((answer.usage.prompt_tokens, answer.usage.completion_tokens))
        chunks = list(
            client.chat.completions.create(
                model="avocado-1",
                messages=MESSAGES,
                max_tokens=20,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        usage = chunks[-1].usage
        assert usage
        told.append((usage.prompt_tokens, usage.completion_tokens))
    found = charges(shop)
    assert [(each.usage.prompt, each.usage.completion) for each in found] == told
    assert [each.charge for each in found] == [
        (prompt * PRICE.prompt + completion * PRICE.completion) // 1_000_000
        for prompt, completion in told
    ]
    assert "trying again" in front.log
    assert charges(second)
    assert len(charges(second)) < 13


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"urls": []}, "urls names no server"),
        ({"urls": ["localhost:8000"]}, "'localhost:8000' does not begin with http:// or https://"),
        ({"urls": ["http://127.0.0.1:9"]}, "no server answers at http://127.0.0.1:9: "),
        ({"model": "gpt-9"}, "does not serve 'gpt-9' but seedling-1: set model"),
        ({"context_length": 99_999}, "tokens of context: context_length may not be 99999"),
        ({"api_key_variable": "NO_KEY"}, "the environment has no NO_KEY, the servers' key"),
        ({"api_key_variable": None}, "wants a key (401): see api_key_variable"),
        ({"api_key_variable": "WRONG_KEY"}, "refuses our key (401): see api_key_variable"),
        ({"dialect": "tgi"}, "Invalid enum value 'tgi' - at `$.dialect`"),
        ({"url": "x"}, "unknown field `url`"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    tmp_path: Path,
    upstream: tuple[Path, str],
    replica: Serving,
    settings: dict[str, Any],
    sentence: str,
) -> None:
    make_shop(tmp_path / "shop")
    given = {"urls": [replica.url], **settings}
    set_engine(tmp_path / "shop", remote(given.pop("urls"), **given))
    said = refused(tmp_path / "shop", UPSTREAM_KEY=upstream[1], WRONG_KEY="sk-avocado-nobody")
    assert sentence in said


def test_a_server_that_is_away_at_the_start_is_told_and_the_other_serves(
    tmp_path: Path, upstream: tuple[Path, str], replica: Serving
) -> None:
    _, key = make_shop(tmp_path / "shop")
    set_engine(tmp_path / "shop", remote(["http://127.0.0.1:9", replica.url]))
    with serving(tmp_path / "shop", UPSTREAM_KEY=upstream[1]) as front:
        assert "no server answers at http://127.0.0.1:9" in front.log
        for number in range(4):
            front.client(key).chat.completions.create(
                model="avocado-1",
                messages=[{"role": "user", "content": str(number)}],
                max_tokens=2,
            )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('python = "/nowhere/python"', "/nowhere/python does not start: "),
        (
            f"python = {json.dumps(sys.executable)}",
            "no module vllm.entrypoints.openai.api_server for ",
        ),
        ("max_running = 4", "missing required field `python`"),
        ('python = "x"\nextra = ["--trust-remote-code"]', "--trust-remote-code is not safe here"),
    ],
)
def test_a_vllm_that_cannot_start_says_why(tmp_path: Path, settings: str, sentence: str) -> None:
    make_shop(tmp_path / "shop")
    set_engine(tmp_path / "shop", f'kind = "vllm"\n[engine.settings]\n{settings}')
    assert sentence in refused(tmp_path / "shop")
