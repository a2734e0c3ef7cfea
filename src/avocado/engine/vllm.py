"""A vLLM server of ours: started in its own environment, watched, and spoken to over HTTP.

vLLM is never imported. It listens on 127.0.0.1 behind a key made for this start, serves safetensors
of a local folder, runs no code that comes with a checkpoint, takes no tensors and no template from
a request (CVE-2025-62164, CVE-2026-22807), loads nothing from a hub and reports to nobody.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from avocado.data.chat import Chat, Prompt
from avocado.engine.engine import (
    Embedder,
    EngineError,
    Likelihood,
    Measured,
    Occupancy,
    Sampling,
)
from avocado.engine.remote import RemoteEngine
from avocado.engine.replica import Patience
from avocado.engine.stream import Stream
from avocado.engine.supervisor import Care, Supervisor, boot, free_port
from avocado.engine.upstream import VLLM

if TYPE_CHECKING:
    from avocado.data.chat import ChatTemplate

MODULE: Final = "vllm.entrypoints.openai.api_server"
OURS: Final = (
    "--model",
    "--served-model-name",
    "--host",
    "--port",
    "--uds",
    "--api-key",
    "--max-num-queued-reqs",
    "--shutdown-timeout",
)
UNSAFE: Final = (
    "--trust-remote-code",
    "--enable-prompt-embeds",
    "--enable-mm-embeds",
    "--allowed-local-media-path",
    "--allowed-media-domains",
    "--middleware",
    "--load-format",
    "--config",
    "--hf-overrides",
    "--hf-token",
    "--logits-processors",
    "--trust-request-chat-template",
    "--tool-parser-plugin",
    "--reasoning-parser-plugin",
    "--worker-extension-cls",
    "--worker-cls",
    "--enable-tokenizer-info-endpoint",
    "--root-path",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start vLLM: the interpreter of its environment, a model folder, and where to log.

    Raises:
        ValueError: ``extra`` sets what is ours to set, or what would make the server unsafe.
    """

    python: Path
    model: Path
    log_file: Path
    max_model_len: int | None = None
    max_running: int = 256
    max_queue: int = 256
    gpu_memory: float | None = None
    """The share of the GPU's memory that it may take."""
    extra: tuple[str, ...] = ()
    """More arguments of vLLM, such as ``--tensor-parallel-size=2``."""

    def __post_init__(self) -> None:
        for argument in self.extra:
            # Abbreviations and underscores mean the same to vLLM.
            flag = argument.partition("=")[0].replace("_", "-")
            if not flag.startswith("--"):
                continue
            if flag == "--no-trust-remote-code":
                continue
            for refused, why in ((OURS, "is set by this engine"), (UNSAFE, "is not safe here")):
                hit = next((each for each in refused if each.startswith(flag)), None)
                if hit is not None:
                    raise ValueError(f"vllm: {argument.partition('=')[0]} {why} ({hit})")

    def arguments(self, port: int, stop_seconds: float) -> list[str]:
        """vLLM's command line behind the interpreter and the module."""
        said = [
            *("--model", str(self.model)),
            *("--served-model-name", "avocado"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--load-format", "safetensors"),
            *("--generation-config", "vllm"),  # no sampling that nobody asked for
            *("--max-num-seqs", str(self.max_running)),
            *("--max-num-queued-reqs", str(self.max_queue)),
            *("--shutdown-timeout", str(int(stop_seconds))),
            "--disable-fastapi-docs",
            "--disable-uvicorn-access-log",
        ]
        if self.max_model_len is not None:
            said += ["--max-model-len", str(self.max_model_len)]
        if self.gpu_memory is not None:
            said += ["--gpu-memory-utilization", str(self.gpu_memory)]
        return [*said, *self.extra]

    def environment(self, inherited: Mapping[str, str], key: str) -> dict[str, str]:
        """Ours without Python's settings, and with vLLM's switches in their safe place. The key
        goes this way because anybody may read a command line."""
        kept = {
            name: value
            for name, value in inherited.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "AVOCADO_"))
        }
        return kept | {
            "VLLM_API_KEY": key,
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_SERVER_DEV_MODE": "0",
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }


class VllmEngine:
    """A running vLLM. Make it with :meth:`start`."""

    def __init__(self, server: Supervisor, remote: RemoteEngine) -> None:
        self.server = server
        self._remote = remote

    @classmethod
    async def start(
        cls,
        launch: Launch,
        template: ChatTemplate,
        *,
        care: Care | None = None,
        patience: Patience | None = None,
    ) -> VllmEngine:
        """Starts the server and waits until it answers: a minute, or many for a large model.

        Raises:
            EngineError: it did not become ready; with the end of its log.
        """
        care = care or Care()
        patience = patience or Patience()
        key = secrets.token_urlsafe(32)
        capacity = launch.max_running + launch.max_queue
        remote = RemoteEngine(
            ["http://127.0.0.1:0"],
            "avocado",
            context_length=0,
            template=template,
            dialect=VLLM,
            api_key=key,
            capacity=capacity,
            # The supervisor looks after the server, and brings it back.
            patience=replace(patience, health=0),
        )
        (replica,) = remote.replicas

        def command() -> list[str]:
            port = free_port()  # another at each start: the old one may be taken meanwhile
            replica.url = f"http://127.0.0.1:{port}"
            return boot(launch.python, MODULE, launch.arguments(port, care.stop))

        async def well() -> bool:
            replica.up = await _answers(replica.url)
            return replica.up

        server = Supervisor(
            command,
            well,
            log_file=launch.log_file,
            environment=launch.environment(os.environ, key),
            care=care,
        )
        try:
            await server.start()
            remote.context_length = await _context_length(replica.url, key)
        except BaseException:
            await server.stop()
            await remote.close()
            raise
        return cls(server, remote)

    @property
    def context_length(self) -> int:
        return self._remote.context_length

    @property
    def template(self) -> ChatTemplate | None:
        return self._remote.template

    @property
    def occupancy(self) -> Occupancy:
        return self._remote.occupancy

    @property
    def embedder(self) -> Embedder | None:
        return self._remote.embedder

    def prepare(self, chat: Chat) -> Prompt:
        return self._remote.prepare(chat)

    def prepare_text(self, text: str) -> Prompt:
        return self._remote.prepare_text(text)

    async def check(self, sampling: Sampling) -> None:
        await self._remote.check(sampling)

    async def likelihoods(self, pairs: Sequence[Measured]) -> list[Likelihood]:
        return await self._remote.likelihoods(pairs)

    def generate(self, prompt: Prompt, sampling: Sampling) -> Stream:
        return self._remote.generate(prompt, sampling)

    async def close(self) -> None:
        await self._remote.close()
        await self.server.stop()


async def _answers(url: str) -> bool:
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{url}/health", timeout=aiohttp.ClientTimeout(total=5)) as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _context_length(url: str, key: str) -> int:
    """What the server made of the model's context and its memory."""
    headers = {"authorization": f"Bearer {key}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{url}/v1/models", timeout=aiohttp.ClientTimeout(total=30)) as response,
        ):
            told: Any = await response.json()
            return int(told["data"][0]["max_model_len"])
    except (
        aiohttp.ClientError,
        TimeoutError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
    ) as error:
        raise EngineError(f"the server does not say its context length: {error!r}") from error
