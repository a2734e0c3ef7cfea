"""The embedded engine against transformers: useful tokens per second of CPU, in one run.

    python benchmarks/engine.py [--rounds 3] [--concurrency 1,8,32]

Contenders get the same ragged requests (prompts of 32 to 96 tokens, answers of 32 to 96, greedy, no
stop tokens) on one thread: ``generate`` one request after the other; ``generate`` on the padded
batch, which must run until its longest answer is done; transformers' continuous batching; ours.
Contenders take turns, so that a busy machine hits all of them; the median of the rounds is printed.
Then what requests may ask for, as a part of the plain speed; and prompts that begin alike.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen3Config
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.utils import logging as transformers_logging

from avocado.data.chat import ChatTemplate, Prompt
from avocado.engine.embedded import EmbeddedEngine
from avocado.engine.engine import Finish, Regex, Sampling

Request = tuple[list[int], int]
"""Prompt ids, and how many tokens to generate."""
Contender = Callable[[list[Request]], int]
"""Serves the requests and returns how many useful tokens it made."""

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))


def random_model(folder: Path) -> Path:
    """A Qwen3 of 6.8 million random parameters, with the seedling's tokenizer beside it."""
    config = Qwen3Config(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(SEEDLING)).save_pretrained(folder)
    return folder


def requests(count: int, vocabulary: int) -> list[Request]:
    draw = random.Random(count)
    return [
        ([draw.randrange(vocabulary) for _ in range(draw.randint(32, 96))], draw.randint(32, 96))
        for _ in range(count)
    ]


def greedy(limit: int | None = None, **options: Any) -> Any:
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=limit, eos_token_id=None, pad_token_id=0, **options
    )


def one_by_one(model: Any) -> Contender:
    def serve(work: list[Request]) -> int:
        for ids, limit in work:
            batch = torch.tensor([ids])
            mask = torch.ones_like(batch)
            out = model.generate(batch, attention_mask=mask, generation_config=greedy(limit))
            assert out.shape[1] == len(ids) + limit
        return sum(limit for _, limit in work)

    return serve


def static_batch(model: Any) -> Contender:
    def serve(work: list[Request]) -> int:
        width = max(len(ids) for ids, _ in work)
        batch = torch.tensor([[0] * (width - len(ids)) + ids for ids, _ in work])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in work])
        longest = max(limit for _, limit in work)
        model.generate(batch, attention_mask=mask, generation_config=greedy(longest))
        return sum(limit for _, limit in work)

    return serve


def continuous(model: Any) -> tuple[Contender, Callable[[], None]]:
    """transformers' own, started before the clock; memory as small as these requests allow."""
    with torch.inference_mode():
        manager = model.init_continuous_batching(
            generation_config=greedy(128),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=32, num_blocks=256, max_batch_tokens=512, allow_block_sharing=False
            ),
        )
        manager.start()

    def serve(work: list[Request]) -> int:
        for place, (ids, limit) in enumerate(work):
            manager.add_request(ids, f"r{place}", max_new_tokens=limit, eos_token_id=-1)
        made = 0
        for _ in work:
            result = None
            while result is None:
                result = manager.get_result(timeout=1)
                assert manager.is_running(), "transformers' batching thread ended"
            made += len(result.generated_tokens)
        assert made == sum(limit for _, limit in work)
        return made

    return serve, lambda: manager.stop(block=True)


def embedded(folder: Path, **asked: Any) -> tuple[Contender, Callable[[], None]]:
    engine = EmbeddedEngine.load(folder, threads=1)
    engine.template = dataclasses.replace(ChatTemplate.load(folder), stop_ids=frozenset())

    async def one(ids: list[int], limit: int) -> int:
        async for event in engine.generate(
            Prompt("", tuple(ids)), Sampling(limit, **{"temperature": 0.0, **asked})
        ):
            if isinstance(event, Finish):
                return event.usage.completion
        raise AssertionError("it ended without Finish")

    def serve(work: list[Request]) -> int:
        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(one(ids, limit) for ids, limit in work)))

        made = asyncio.run(all_of_them())
        assert made == sum(limit for _, limit in work) or "grammar" in asked
        return made

    return serve, lambda: asyncio.run(engine.close())


def measure(contenders: dict[str, Contender], work: list[Request], rounds: int) -> dict[str, float]:
    """Useful tokens per CPU second of this process, all threads; the median of ``rounds``."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, serve in contenders.items():
            start = time.process_time()
            made = serve(work)
            if round_:  # the first one warms up
                rates[name].append(made / (time.process_time() - start))
    return {name: statistics.median(each) for name, each in rates.items()}


ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "top_p, top_k": {"temperature": 1.0, "top_p": 0.9, "top_k": 40, "seed": 1},
    "penalties, bias": {"presence_penalty": 0.5, "logit_bias": ((5, 1.0),)},
    "logprobs": {"logprobs": True, "top_logprobs": 5},
    "grammar": {"grammar": Regex("([a-z ]+[,.])*")},
}


def features(folder: Path, sizes: list[int], rounds: int) -> None:
    """Tokens per CPU second where every request asks for something, against plain ones."""
    print(f"\nasked for by every request  {'  '.join(f'{size:>8}' for size in sizes)}  (of plain)")
    rows: dict[str, list[float]] = {name: [] for name in ASKED}
    for size in sizes:
        work = requests(size, 2000)
        served = {name: embedded(folder, **asked) for name, asked in ASKED.items()}
        try:
            rate = measure({name: serve for name, (serve, _) in served.items()}, work, rounds)
        finally:
            for _, stop in served.values():
                stop()
        for name, each in rate.items():
            rows[name].append(each / rate["plain"])
    for name, shares in rows.items():
        print(f"{name:26}  {'  '.join(f'{share:8.2f}' for share in shares)}")


def beginnings(folder: Path, sizes: list[int], rounds: int) -> None:
    """Prompts of 1,024 common tokens and 88 of their own, with and without a cache."""
    print("\n1,024 common tokens          computed  cached  (tokens per CPU second)")
    draw = random.Random(2)
    head = [draw.randrange(2000) for _ in range(1024)]
    for size in sizes:
        work = [([*head, *(draw.randrange(2000) for _ in range(88))], 64) for _ in range(size)]
        served = {name: embedded(folder, cache_salt=name) for name in ("", "cached")}
        try:
            rate = measure({name: serve for name, (serve, _) in served.items()}, work, rounds)
        finally:
            for _, stop in served.values():
                stop()
        print(f"{size:8} requests            {rate['']:9.0f}  {rate['cached']:6.0f}")


def bench(title: str, folder: Path, sizes: list[int], rounds: int) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    model.generation_config = greedy()  # a missing stop token would be filled in from here
    print(f"\n{title}: {model.num_parameters() / 1e6:.1f}M parameters, fp32, one thread")
    header = "requests  one by one  static batch  continuous (transformers)  embedded"
    print(f"{header}  ours/continuous  ours/one by one")
    batching, stop_batching = continuous(model)
    ours, stop_ours = embedded(folder)
    contenders = {
        "one": one_by_one(model),
        "static": static_batch(model),
        "continuous": batching,
        "ours": ours,
    }
    try:
        for size in sizes:
            rate = measure(contenders, requests(size, model.config.vocab_size), rounds)
            print(
                f"{size:8}  {rate['one']:10.0f}  {rate['static']:12.0f}  {rate['continuous']:25.0f}"
                f"  {rate['ours']:8.0f}  {rate['ours'] / rate['continuous']:15.2f}"
                f"  {rate['ours'] / rate['one']:15.2f}",
                flush=True,
            )
    finally:
        stop_batching()
        stop_ours()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", default="1,8,32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet: Any = transformers_logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    logging.disable(logging.WARNING)
    sizes = [int(size) for size in options.concurrency.split(",")]
    bench("seedling", SEEDLING, sizes, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        bench("random Qwen3", random_model(Path(folder)), sizes, options.rounds)
    features(SEEDLING, sizes, options.rounds)
    beginnings(SEEDLING, sizes, options.rounds)


if __name__ == "__main__":
    main()
