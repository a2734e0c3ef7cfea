"""What ``[engine]`` of avocado.toml means: an engine for each release that is offered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from avocado.cli.lineups import line_up
from avocado.cli.vaults import changed_files, plain_files, weights_of
from avocado.configuration import CONFIG
from avocado.errors import Refused
from avocado.lineage import short
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.data.chat import ChatTemplate
    from avocado.engine.engine import Engine
    from avocado.engine.model import Weights
    from avocado.engine.vllm import Launch
    from avocado.gateway.swap import Lineup

Count = Annotated[int, msgspec.Meta(ge=1)]


class Embedded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[engine.settings]`` of the embedded engine."""

    max_batch: Count = 32
    max_queue: Count = 256
    context_length: Count | None = None
    threads: Count | None = None
    memory: Count | None = None
    """Bytes for keys and values."""
    device: str | None = None


class Remote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[engine.settings]`` of servers that somebody else runs. The servers must know each release
    by its whole id, unless ``model`` says how they call the only one."""

    urls: tuple[str, ...]
    context_length: Count
    model: str | None = None
    dialect: Literal["openai", "vllm"] = "openai"
    api_key_variable: str | None = None
    """The environment variable that holds the servers' key: no secret stands in avocado.toml."""
    capacity: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if not self.urls:
            raise ValueError("urls names no server")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"urls: {url!r} does not begin with http:// or https://")


class Vllm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[engine.settings]`` of a vLLM that we start. ``python`` is that of its environment."""

    python: str
    max_model_len: Count | None = None
    max_running: Count = 256
    max_queue: Count = 256
    gpu_memory: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """The part of the GPU's memory that vLLM may take."""
    extra: tuple[str, ...] = ()


KINDS: dict[str, type[msgspec.Struct]] = {"embedded": Embedded, "remote": Remote, "vllm": Vllm}


def settings_of(workspace: Workspace) -> msgspec.Struct:
    """The checked settings of the engine that avocado.toml names.

    Raises:
        Refused: an unknown or missing setting; the sentence names it.
    """
    config = workspace.config.engine
    try:
        return msgspec.convert(config.settings, KINDS[config.kind])
    except msgspec.ValidationError as error:
        raise Refused(f"{CONFIG}: [engine.settings] of {config.kind}: {error}") from error


class WorkspaceStock:
    """The gateway's stock: offers from the workspace's refs, engines on its releases."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._settings = settings_of(workspace)

    def lineups(self) -> Mapping[str, Lineup]:
        from avocado.gateway.swap import Lineup

        found = {}
        for name in self._workspace.store.pointed("offer"):
            line = line_up(self._workspace, name)
            if line is not None:
                found[name] = Lineup(line.offer, line.canary, line.percent, line.by)
        return found

    async def engine(self, release: str) -> Engine:
        """An engine on ``release``, after checking that its files are those that were released.

        Raises:
            Refused: a file was changed, the chat template is not the one that was evaluated, or the
                engine does not start.
        """
        from avocado.data.chat import RenderError
        from avocado.engine.engine import EngineError

        artifact = await asyncio.to_thread(self._checked, release)
        try:
            match self._settings:
                case Embedded() as embedded:
                    weights = weights_of(self._workspace, artifact)
                    return await asyncio.to_thread(_embedded, artifact, embedded, weights)
                case Remote() as remote:
                    template = await asyncio.to_thread(_template, artifact)
                    return await _remote(artifact, remote, template)
                case Vllm() as vllm:
                    from avocado.engine.vllm import VllmEngine

                    template = await asyncio.to_thread(_template, artifact)
                    return await VllmEngine.start(
                        _launch(self._workspace, artifact, vllm), template
                    )
        except (EngineError, RenderError, ValueError, OSError, RuntimeError) as error:
            # torch's errors, of devices and of memory, are RuntimeErrors of many lines.
            first = str(error).strip().partition("\n")[0]
            raise Refused(f"{short(release)} does not load: {first}") from error
        raise AssertionError(self._settings)

    def _checked(self, release: str) -> Artifact:
        artifact = self._workspace.store.load(release)
        if changed := changed_files(self._workspace, artifact):
            raise Refused(*(f"{short(release)}: {name} was changed" for name in changed))
        return artifact


def _embedded(release: Artifact, settings: Embedded, weights: Weights | None) -> Engine:
    from avocado.engine.embedded import EmbeddedEngine
    from avocado.engine.embedding import EmbeddingEngine
    from avocado.engine.vectors import makes_vectors

    if makes_vectors(release.files):
        return EmbeddingEngine.load(
            release.files,
            device=settings.device,
            context_length=settings.context_length,
            max_queue=settings.max_queue,
            weights=weights,
        )
    given = msgspec.structs.asdict(settings)
    engine = EmbeddedEngine.load(release.files, weights=weights, **given)
    _check_template(release, engine.template)
    return engine


def _template(release: Artifact) -> ChatTemplate:
    from avocado.data.chat import ChatTemplate
    from avocado.engine.vectors import makes_vectors

    if makes_vectors(release.files):  # it has a tokenizer, and may have no template
        from transformers import AutoTokenizer

        loaded: Any = AutoTokenizer.from_pretrained(str(release.files), trust_remote_code=False)
        return ChatTemplate(loaded, frozenset())
    template = ChatTemplate.load(release.files)
    _check_template(release, template)
    return template


def _check_template(release: Artifact, template: ChatTemplate) -> None:
    if template.sha256 != release.manifest.facts["template_sha256"]:
        raise Refused(f"{short(release.id)}: its chat template is not the one that was evaluated")


async def _remote(release: Artifact, settings: Remote, template: ChatTemplate) -> Engine:
    from avocado.engine.probe import probe
    from avocado.engine.remote import RemoteEngine
    from avocado.engine.upstream import DIALECTS

    key: str | None = None
    if settings.api_key_variable is not None:
        key = os.environ.get(settings.api_key_variable)
        if not key:
            raise Refused(f"the environment has no {settings.api_key_variable}, the servers' key")
    model = settings.model or release.id
    await probe(settings.urls, model, context_length=settings.context_length, api_key=key)
    return RemoteEngine(
        settings.urls,
        model,
        context_length=settings.context_length,
        template=template,
        dialect=DIALECTS[settings.dialect],
        api_key=key,
        capacity=settings.capacity,
    )


def _launch(workspace: Workspace, release: Artifact, settings: Vllm) -> Launch:
    from avocado.engine.vllm import Launch

    given: dict[str, Any] = msgspec.structs.asdict(settings)
    return Launch(
        **given | {"python": Path(settings.python).expanduser()},
        model=plain_files(workspace, release),
        log_file=workspace.state / f"vllm-{short(release.id)}.log",
    )
