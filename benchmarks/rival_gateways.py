"""Other gateways, each in its own environment below build/, as it installs, without a database.

``make bench-gateway`` makes the environments; a gateway whose environment is missing is left out.
Run as a file with a name it becomes that gateway, in this process or as its child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http_peers import MODEL, free_port

BUILD = Path(__file__).resolve().parents[1] / "build"
START_SECONDS = 120.0

TENSORZERO = """
import sys, time
from tensorzero import _start_http_gateway
gateway = _start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None,
                              valkey_url=None, async_setup=False)
print("URL", gateway.base_url, flush=True)
while True:
    time.sleep(60)
"""


@dataclass(frozen=True)
class Rival:
    """A running gateway: its process, where it listens, and how it wants to be asked."""

    child: subprocess.Popen[str]
    url: str
    path: str = "/v1/chat/completions"
    key: str = "none"
    model: str = MODEL


def environment(name: str) -> Path | None:
    """The interpreter of a rival's environment, if it is there."""
    python = BUILD / name / "bin" / "python"
    return python if python.exists() else None


def litellm(upstream: str, folder: Path, core: int) -> Rival | None:
    """LiteLLM's proxy: one worker, a master key, no database."""
    python = environment("litellm")
    if python is None:
        return None
    config = folder / "litellm.yaml"
    config.write_text(
        json.dumps(  # JSON is YAML
            {
                "model_list": [
                    {
                        "model_name": MODEL,
                        "litellm_params": {
                            "model": f"openai/{MODEL}",
                            "api_base": f"{upstream}/v1",
                            "api_key": "none",
                        },
                    }
                ],
                "general_settings": {"master_key": "sk-bench"},
            }
        )
    )
    port = free_port()
    command = [str(python.parent / "litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    child = _start(command, folder / "litellm.log", core)
    url = f"http://127.0.0.1:{port}"
    _wait(f"{url}/health/liveliness", child, folder / "litellm.log")
    return Rival(child, url, key="sk-bench")


def tensorzero(upstream: str, folder: Path, core: int) -> Rival | None:
    """TensorZero's gateway (Rust), inside the process of its Python wheel."""
    python = environment("tensorzero")
    if python is None:
        return None
    config = folder / "tensorzero.toml"
    config.write_text(
        "[gateway]\nobservability.enabled = false\n"
        f'[models.{MODEL}]\nrouting = ["up"]\n'
        f'[models.{MODEL}.providers.up]\ntype = "openai"\nmodel_name = "{MODEL}"\n'
        f'api_base = "{upstream}/v1/"\napi_key_location = "none"\n'
    )
    log = folder / "tensorzero.log"
    child = _start([str(python), "-c", TENSORZERO, str(config)], log, core, pipe=True)
    assert child.stdout is not None
    url = next((line[4:].strip() for line in child.stdout if line.startswith("URL ")), "")
    if not url:
        raise SystemExit(f"TensorZero did not start: {log.read_text()[-1000:]}")
    _drain(child)
    base = url.removesuffix("/").removesuffix("/openai/v1")
    return Rival(
        child, base, path="/openai/v1/chat/completions", model=f"tensorzero::model_name::{MODEL}"
    )


RIVALS = {"litellm": litellm, "tensorzero": tensorzero}


def _start(command: list[str], log: Path, core: int, pipe: bool = False) -> subprocess.Popen[str]:
    def pin() -> None:
        os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})

    with log.open("wb") as errors:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE if pipe else errors,
            stderr=errors,
            text=True,
            preexec_fn=pin,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )


def _drain(child: subprocess.Popen[str]) -> None:
    """Reads what it goes on saying, so that it never waits for a reader."""
    assert child.stdout is not None
    threading.Thread(target=child.stdout.read, daemon=True).start()


def _wait(url: str, child: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    print(log.read_text()[-2000:], file=sys.stderr)
    raise SystemExit(f"{url} does not answer")
