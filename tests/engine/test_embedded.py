"""The embedded engine against transformers' own ``generate``, alone and in company."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from avocado.data.chat import Chat, Prompt
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import Finish, Sampling

Tiny = Callable[[str], Path]
ARCHITECTURES = ["qwen2", "qwen3", "qwen3_moe", "qwen3_5_text"]


def ask(text: str) -> Chat:
    return Chat(({"role": "user", "content": text},))


async def collect(engine: EmbeddedEngine, prompt: Prompt, sampling: Sampling) -> tuple[str, Finish]:
    text = ""
    async for event in engine.generate(prompt, sampling):
        if isinstance(event, Finish):
            return text, event
        assert event.text
        text += event.text
    raise AssertionError("it ended without Finish")


def reference(folder: Path, engine: EmbeddedEngine, prompt: Prompt, limit: int) -> tuple[str, int]:
    """Text and count of what transformers generates greedily for ``prompt`` alone."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    ids = torch.tensor([prompt.ids])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
    )[0, len(prompt.ids) :].tolist()
    return engine.template.decode(out), len(out)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_text_is_that_of_transformers_alone(architecture: str, tiny: Tiny) -> None:
    async def play() -> None:
        engine = EmbeddedEngine.load(tiny(architecture))
        try:
            for text in ("kostet 12 €", "会议" * 9, "a"):
                prompt = engine.prepare(ask(text))
                expected, count = reference(tiny(architecture), engine, prompt, 24)
                got, finish = await collect(engine, prompt, Sampling(24, temperature=0))
                assert got == expected.rstrip("\ufffd")
                assert finish.usage.completion == count
                assert finish.usage.prompt == len(prompt.ids)
        finally:
            await engine.close()

    asyncio.run(play())
