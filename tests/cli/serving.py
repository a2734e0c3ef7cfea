"""A shop of the seedling, and a real ``avocado serve`` over it in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import openai

from avocado.cli.book import reading
from avocado.cli.customers import add_customer, create_key
from avocado.cli.keeping import keep_signed
from avocado.cli.lineups import place_offer
from avocado.data.chat import ChatTemplate
from avocado.engine.vectors import makes_vectors
from avocado.release.signature import signing_key
from avocado.release.vault import Vault
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from avocado.workspace import Workspace

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))
PRICE = PriceSheet(Money.parse("200").nanos, Money.parse("800").nanos)


def make_shop(
    folder: Path, name: str = "avocado-1", weights: Path = SEEDLING, vault: Vault | None = None
) -> tuple[str, str]:
    """A workspace that sells ``weights`` as ``name`` to acme; the release's id and acme's key."""
    workspace = Workspace.create(folder)
    store = workspace.store
    vectors = makes_vectors(weights)
    with store.stage() as staging:
        shutil.copytree(weights, staging.folder, dirs_exist_ok=True)
        facts = {
            "name": name,
            "template_sha256": None if vectors else ChatTemplate.load(weights).sha256,
            "gate": {"purpose": "sale"},
        }
        private, _ = signing_key(workspace.state)
        release = keep_signed(workspace, staging, facts, {}, private, vault)
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
