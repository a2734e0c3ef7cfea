"""Rows in a batch against the model itself: the same logits, whatever joined, left or moved."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from avocado.engine.decoder import BatchDecoder, Decoder, RowDecoder, decoder_for
from avocado.engine.dense_qwen import DenseQwen
from avocado.engine.linear import Linear, can_pack
from avocado.engine.model import CausalModel

Tiny = Callable[[str], Path]
ARCHITECTURES = ["qwen2", "qwen3", "qwen3_moe", "qwen3_5_text"]


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)


def at_once(model: Any, ids: list[int]) -> torch.Tensor:
    """The logits after ``ids``, computed by transformers without any cache."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        return logits


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def join(decoder: Decoder, prompts: list[list[int]], room: int) -> torch.Tensor:
    prefill = decoder.prefill(prompts, [""] * len(prompts))
    logits = None
    while logits is None:
        logits = prefill.advance()
    decoder.join(prefill, [len(prompt) + room for prompt in prompts])
    return logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("seed", range(2))
@torch.inference_mode()
def test_logits_of_every_row_are_the_models(architecture: str, seed: int, tiny: Tiny) -> None:
    """A random walk: rows join in groups, leave from anywhere, and the rectangle grows; at each
    step each row's logits are those of its whole text at once."""
    draw = random.Random(seed)
    model = plain(tiny(architecture))
    decoder, _ = decoder_for(CausalModel(plain(tiny(architecture))), 6, 10**8)
    assert isinstance(decoder, RowDecoder if "3_5" in architecture else BatchDecoder)
    # Linear attention in pieces of a prompt and token by token are two roundings of one sum.
    slack = 5e-3 if architecture == "qwen3_5_text" else 2e-4
    texts: list[list[int]] = []
    for _ in range(14):
        sizes = [draw.choice((1, 2, 15, 16, 17, 60)) for _ in range(draw.randint(1, 2))]
        prompts = [[draw.randrange(300) for _ in range(size)] for size in sizes]
        if isinstance(decoder, RowDecoder):
            prompts = prompts[:1]
        if decoder.fits([len(prompt) + 80 for prompt in prompts]):
            logits = join(decoder, prompts, 80)
            for row, prompt in enumerate(prompts):
                close(logits[row], at_once(model, prompt), slack)
            texts += prompts
        if len(texts) > 1 and draw.random() < 0.5:
            leaver = draw.randrange(len(texts))
            decoder.drop(leaver)
            texts[leaver] = texts[-1]
            texts.pop()
        tokens = [draw.randrange(300) for _ in texts]
        texts = [[*text, token] for text, token in zip(texts, tokens, strict=True)]
        logits = decoder.step(tokens)
        assert decoder.rows == len(texts)
        for row, text in enumerate(texts):
            close(logits[row], at_once(model, text), slack)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
@torch.inference_mode()
def test_a_prompt_in_pieces_gives_the_logits_of_the_whole(architecture: str, tiny: Tiny) -> None:
    model = plain(tiny(architecture))
    decoder, _ = decoder_for(CausalModel(plain(tiny(architecture))), 4, 10**8)
    for size in (511, 512, 513, 700):
        ids = [random.Random(size).randrange(300) for _ in range(size)]
        logits = join(decoder, [ids], 8)[0]
        close(logits, at_once(model, ids))
    token = decoder.step([5] * 4)
    close(token[3], at_once(model, [*ids, 5]))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
@torch.inference_mode()
def test_the_fast_forward_equals_that_of_transformers(architecture: str, tiny: Tiny) -> None:
    """Every logit of prompts of all lengths, with other weights than the architecture's usual ones
    (random biases and norms), so that nothing left out goes unnoticed."""
    model = plain(tiny(architecture))
    assert DenseQwen.suits(model)
    fast = DenseQwen(model)
    for time in (1, 2, 7, 31, 200):
        ids = torch.randint(0, 300, (3, time))
        cache = DynamicCache(config=model.config)
        got = fast(ids, cache, keep=torch.arange(time))
        close(got, model(ids).logits)
        following = torch.randint(0, 300, (3, 1))
        expected = model(torch.cat((ids, following), dim=1)).logits[:, -1:]
        close(fast(following, cache), expected)


@pytest.mark.parametrize("change", ["gelu", "sliding", "dynamic", "half", "endless"])
def test_what_it_does_not_compute_is_left_to_transformers(change: str, tiny: Tiny) -> None:
    model = plain(tiny("qwen3"))
    if change == "gelu":
        model.config.hidden_act = "gelu"
    elif change == "sliding":
        model.config.layer_types = ["sliding_attention", *model.config.layer_types[1:]]
    elif change == "dynamic":
        model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    elif change == "endless":
        model.config.max_position_embeddings = 2**20
    else:
        model = model.bfloat16()
    assert not DenseQwen.suits(model)


@torch.inference_mode()
def test_a_row_gets_the_same_bits_in_any_company(tiny: Tiny) -> None:
    """Stronger than what is promised. Seen on AVX-512; where it is not so, the logits of a row
    still agree to the last digits."""
    draw = random.Random(4)
    steps = [draw.randrange(300) for _ in range(40)]
    prompt = [draw.randrange(300) for _ in range(21)]

    def logits_of(company: int) -> torch.Tensor:
        decoder, _ = decoder_for(CausalModel(plain(tiny("qwen3"))), 9, 10**8)
        others = [[draw.randrange(300) for _ in range(draw.randint(1, 90))] for _ in range(company)]
        seen = [join(decoder, [prompt, *others[:2]], 60)[0]]
        for other in others[2:]:
            join(decoder, [other], 60)
        for token in steps:
            seen.append(decoder.step([token, *[draw.randrange(300) for _ in others]])[0])
        return torch.stack(seen)

    alone = logits_of(0)
    for company in (1, 4, 8):
        together = logits_of(company)
        close(together, alone, atol=2e-5)
        if can_pack() and torch.backends.cpu.get_cpu_capability() == "AVX512":
            assert torch.equal(together, alone)


@torch.inference_mode()
def test_a_row_that_stood_aside_goes_on_with_the_same_bits(tiny: Tiny) -> None:
    draw = random.Random(6)
    prompts = [[draw.randrange(300) for _ in range(size)] for size in (30, 7, 90)]
    steps = [[draw.randrange(300) for _ in prompts] for _ in range(12)]

    def logits_of(parks: bool) -> list[torch.Tensor]:
        decoder, _ = decoder_for(CausalModel(plain(tiny("qwen3"))), 4, 10**8)
        join(decoder, prompts, 60)
        seen = []
        for place, tokens in enumerate(steps):
            if parks and place in (3, 9):
                aside = decoder.park(1)
                assert aside.length == 7 + place
                assert decoder.rows == 2
                decoder.resume(aside, 40)
                decoder.resume(decoder.park(1), 120)  # back to the old order
            seen.append(decoder.step(tokens))
        return seen

    for one, other in zip(logits_of(False), logits_of(True), strict=True):
        assert torch.equal(one, other)


@torch.inference_mode()
def test_a_row_reaches_further_only_where_memory_allows(tiny: Tiny) -> None:
    per_token = 3 * 2 * 2 * 16 * 4
    decoder, _ = decoder_for(CausalModel(plain(tiny("qwen3"))), 4, 1000 * per_token)
    join(decoder, [[1] * 100], 12)
    join(decoder, [[2] * 100], 12)
    assert decoder.extend(0, 496)
    assert not decoder.extend(1, 497)
    assert not decoder.extend(1, 300, [10])
    expected = decoder.step([5, 6])
    decoder.drop(1)
    assert decoder.extend(0, 992)
    assert not decoder.extend(0, 993)
    for _ in range(30):
        decoder.step([5])
    assert torch.isfinite(expected).all()
    decoder.drop(0)
    assert decoder.fits([992])


@pytest.mark.parametrize("bias", [True, False])
def test_the_packed_product_is_the_product(bias: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(37, 50)
    offset = torch.randn(37) if bias else None
    product = Linear(weight, offset)
    with torch.inference_mode():
        for count in (1, 2, 3, 8, 65):
            x = torch.randn(count, 50)
            expected = torch.nn.functional.linear(x, weight, offset)
            close(product(x), expected)


@torch.inference_mode()
def test_memory_is_a_promise_of_rows_times_the_longest(tiny: Tiny) -> None:
    per_token = 3 * 2 * 2 * 16 * 4
    decoder, budget = decoder_for(CausalModel(plain(tiny("qwen3"))), 4, 1000 * per_token)
    assert budget == 992  # in whole lanes
    assert decoder.fits([500])
    join(decoder, [[1] * 400], 90)  # reserves 496
    assert decoder.fits([496])
    assert not decoder.fits([497])
    assert not decoder.fits([10, 10])
    join(decoder, [[1] * 10], 6)
    assert not decoder.fits([1])
    decoder.drop(0)
    assert decoder.fits([16, 16, 16])
    assert not decoder.fits([16, 16, 16, 16])  # at most four rows
    decoder.clear()
    assert decoder.fits([992])
