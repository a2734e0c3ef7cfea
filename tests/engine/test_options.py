"""What a request may ask of the embedded engine beyond text: log-probabilities, biases, penalties;
and how its thoughts are counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from avocado.data.chat import Prompt
from avocado.engine.engine import (
    Delta,
    Sampling,
    TokenLogprob,
)
from avocado.engine.logprobs import Spelling
from tests.engine.test_embedded import Tiny, ask, collect, play, running


def reference_logprobs(folder: Path, ids: list[int], start: int) -> torch.Tensor:
    """Log-probabilities of transformers, ``[len(ids) - start, vocabulary]``, for ids from there."""
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, start - 1 : -1]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("stop", [None, 3])
def test_log_probabilities_are_those_of_transformers(tiny: Tiny, stop: int | None) -> None:
    """Every shown token once, its bytes the text; temperature and penalties leave them alone."""

    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("会议" * 3))
            options: dict[str, Any] = {"logprobs": True, "top_logprobs": 4, "seed": 5}
            whole, _ = await collect(engine, prompt, Sampling(40, 1.3, presence_penalty=1, seed=5))
            end = () if stop is None else (whole[len(whole) // 2 :][:stop],)
            company = [
                asyncio.create_task(collect(engine, prompt, Sampling(30, 1.0))) for _ in range(3)
            ]
            told: list[TokenLogprob] = []
            text = ""
            sampling = Sampling(40, 1.3, presence_penalty=1, stop=end, **options)
            async for event in engine.generate(prompt, sampling):
                if isinstance(event, Delta):
                    text += event.text
                    told += event.logprobs
            await asyncio.gather(*company)
            assert text == (whole.partition(end[0])[0] if end else whole)
            vocabulary = engine.template.tokenizer.get_vocab()
            spelling = Spelling(engine.template.tokenizer.backend_tokenizer)
            by_bytes = {spelling.of(token): token for token in vocabulary.values()}
            ids = [by_bytes[each.bytes] for each in told]
            said = engine.template.decode(ids)
            assert said.startswith(text)
            if end:  # the last one begins in what is shown
                assert len(engine.template.decode(ids[:-1]).rstrip("\ufffd")) < len(text)
            table = reference_logprobs(tiny("qwen3"), [*prompt.ids, *ids], len(prompt.ids))
            for row, each, token in zip(table, told, ids, strict=True):
                assert each.logprob == pytest.approx(float(row[token]), abs=1e-3)
                best = row.topk(4)
                assert [by_bytes[top.bytes] for top in each.top] == best.indices.tolist()

    play(scene())


def test_bias_and_penalties_reach_the_model_and_unknown_tokens_are_refused(tiny: Tiny) -> None:
    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            prompt = engine.prepare(ask("a"))
            token = engine.template.tokenizer.convert_tokens_to_ids("x")
            loud = Sampling(9, temperature=0, logit_bias=((token, 100.0),))
            assert (await collect(engine, prompt, loud))[0] == "x" * 9
            ended, finish = await collect(
                engine, prompt, Sampling(9, 0, logit_bias=((token, 100.0),), stop_ids=(token,))
            )
            assert (ended, finish.reason, finish.usage.completion) == ("", "stop", 1)
            again = Sampling(60, temperature=0, frequency_penalty=2, presence_penalty=2)
            plain, _ = await collect(engine, prompt, Sampling(60, temperature=0))
            varied, _ = await collect(engine, prompt, again)
            assert len(set(varied)) > len(set(plain))
            for wrong in (
                Sampling(1, logit_bias=((10**6, 1.0),)),
                Sampling(1, stop_ids=(-1,)),
            ):
                with pytest.raises(ValueError, match="there is no token"):
                    await engine.check(wrong)
                with pytest.raises(ValueError, match="there is no token"):
                    engine.generate(prompt, wrong)
            await engine.check(loud)

    play(scene())


@pytest.mark.parametrize(("opened", "banned"), [(True, False), (True, True), (False, False)])
def test_thought_is_counted_by_the_token(tiny: Tiny, opened: bool, banned: bool) -> None:
    """A model that is made to say a thought's end: every token up to it was thought."""

    async def scene() -> None:
        async with running(tiny("qwen3")) as engine:
            rendered = engine.prepare(ask("a"))
            text = rendered.text + ("<think>\n" if opened else "")
            prompt = Prompt(text, engine.template.encode(text))
            decoder: Any = engine._scheduler._decoder
            real, steps = decoder.step, 0
            script = engine.template.encode("hm</think>Hi")

            def spoken(tokens: list[int]) -> torch.Tensor:
                nonlocal steps
                logits: torch.Tensor = real(tokens)
                logits[:, script[steps]] += 1000
                steps += 1
                return logits

            decoder.step = spoken
            generation = engine.generate(prompt, Sampling(1 + len(script), 0.0))
            counts = []
            async for event in generation:
                if isinstance(event, Delta):
                    counts.append((event.completion, event.reasoning))
            ends = 1 + len(engine.template.encode("hm</think>"))
            assert generation.usage.completion == 1 + len(script)
            assert generation.usage.reasoning == (ends if opened else 0)
            assert all(
                reasoning == (min(done, ends) if opened else 0) for done, reasoning in counts
            )
            if banned:
                stopped = engine.generate(prompt, Sampling(50, 0.0))
                steps = -(10**3)
                await anext(stopped)
                usage = await stopped.cancel()
                assert usage.reasoning == usage.completion

    play(scene())
