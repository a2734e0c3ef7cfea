"""Qwen3-8B's shape on a GPU, packed rows of 4,096 tokens: tokens per second and MFU, against TRL.

    python benchmarks/gpu_train.py [--weights lora,full] [--steps 6] [--checkpointing]
    python benchmarks/gpu_train.py --tiny          the same code, a tiny shape, on a CPU

Random weights, the real vocabulary of 151,936; documents of 256 to 4,096 tokens, every token
labelled; a step is four packed rows, one at a time on the GPU. ``lora``: rank 16 on every linear
layer, the base frozen in bfloat16. ``full``: weights and gradients in float32, Adam's moments in 8
bits (bitsandbytes), bf16 autocast. Contenders: ours (``sft.trainer``, variable-length attention);
stock TRL ``SFTTrainer``, packed (bfd); TRL with our variable-length attention. What does not fit
the memory is said.

MFU is factor × N × tokens per second / 989e12, the peak of an H100 or H200 in dense bf16: factor 4
for LoRA (frozen weights get no gradient), 6 for full; N counts the parameters that multiply a token
(the input table only looks up). Attention's own products are not counted.
"""

from __future__ import annotations

import argparse
import gc
import logging
import math
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback, Qwen3Config, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from avocado.data.chat import IGNORED, ChatTemplate, Row
from avocado.train import adapters, attention, loop, sequences, sft, weights
from avocado.train.recipe import Recipe, parse
from avocado.train.run_folder import RunFolder

PEAK: Final = 989e12
FACTORS: Final = {"lora": 4, "full": 6}
SEEDLING: Final = Path(str(files("avocado") / "seedling" / "model"))
CONTENDERS: Final = ("ours", "TRL", "TRL + varlen")


@dataclass(frozen=True)
class Shape:
    """A model's configuration, and the tokens of a packed row."""

    name: str
    config: Qwen3Config
    length: int


QWEN3_8B: Final = Shape(
    "Qwen3-8B",
    Qwen3Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
    ),
    4096,
)
TINY: Final = Shape(
    "a tiny shape",
    Qwen3Config(
        vocab_size=2048,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
    ),
    256,
)


@dataclass(frozen=True)
class Job:
    """What every contender does: ``steps`` of four packed rows, after one that warms up."""

    shape: Shape
    learning: str
    steps: int
    checkpointing: bool
    seed: int = 0

    def rows(self) -> sequences.Sequences:
        """Documents of log-uniform length, each packed row's worth cut to fill it exactly."""
        draw = random.Random(self.seed)
        length, made = self.shape.length, []
        for _ in range((self.steps + 1) * 4):
            left = length
            while left:
                size = int(math.exp(draw.uniform(math.log(length // 16), math.log(length))))
                size = left if left - size < length // 16 else size
                ids = tuple(draw.randrange(self.shape.config.vocab_size) for _ in range(size))
                made.append(Row(ids, (IGNORED, *ids[1:])))
                left -= size
        return sequences.collect(made)

    def order(self, rows: sequences.Sequences) -> sequences.Order:
        """The packed rows as they were cut: every contender computes the same ones."""
        micro, total, packed, tokens = [], 0, [], []
        for number, length in enumerate(rows.lengths):
            packed.append(number)
            total += length
            if total % self.shape.length == 0:
                micro.append(packed)
                packed = []
                if len(micro) % 4 == 0:
                    tokens.append(total)
        return sequences.Order(self.steps + 1, micro, tokens, rows.trained, packed=True)

    def recipe(self) -> Recipe:
        optimizer = "adamw_8bit" if self.learning == "full" and cuda() else "adamw"
        return parse(
            f'name = "bench"\nbase = "random"\ndata = ["random"]\nweights = "{self.learning}"\n'
            f"[training]\nlearning_rate = 1e-5\nbatch = 4\nmicro_batch = 1\nsteps = {self.steps}\n"
            f'max_length = {self.shape.length}\noptimizer = "{optimizer}"\n'
            f"gradient_checkpointing = {str(self.checkpointing).lower()}\n"
        )

    def model(self) -> Any:
        """Random weights made where they are trained, in the precision that a run would load."""
        torch.manual_seed(0)
        half = self.learning == "lora" and cuda()
        build: Any = AutoModelForCausalLM.from_config
        with torch.device("cuda" if cuda() else "cpu"):
            model = build(self.shape.config, dtype=torch.bfloat16 if half else torch.float32)
        adapter = self.recipe().adapter
        return adapters.attach(model, adapter) if adapter else model


def cuda() -> bool:
    return torch.cuda.is_available()


class Clock(TrainerCallback):
    """When each step had ended, the device idle."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if cuda():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def our_trainer(job: Job, folder: Path, template: ChatTemplate) -> Any:
    run_folder = RunFolder(folder)
    run_folder.begin({}, restart=True)
    rows = job.rows()
    return sft.trainer(
        job.model(),
        template,
        rows,
        job.order(rows),
        job.recipe(),
        run_folder=run_folder,
        save_every=0,
        log=lambda *_: None,
    )


def trl_trainer(job: Job, folder: Path, template: ChatTemplate, *, varlen: bool) -> Any:
    rows = job.rows()
    made = [rows.row(number) for number in range(len(rows))]
    model = job.model()
    if varlen:
        attention.install(model.get_base_model() if job.learning == "lora" else model)
    config = SFTConfig(
        output_dir=str(folder),
        max_steps=job.steps + 1,
        packing=True,
        max_length=job.shape.length,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        optim=loop.OPTIMIZERS[job.recipe().training.optimizer],
        bf16=True,
        use_cpu=not cuda(),
        activation_checkpointing=job.checkpointing,
        learning_rate=1e-5,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    data = {"input_ids": [x.tolist() for x, _ in made], "labels": [y.tolist() for _, y in made]}
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(data),
        processing_class=template.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure(job: Job, contender: str) -> tuple[float, float, float]:
    """Tokens per second of all steps but the first, model FLOP/s, and the peak of memory in GB."""
    template = ChatTemplate.load(SEEDLING)
    with tempfile.TemporaryDirectory() as place:
        if contender == "ours":
            trainer = our_trainer(job, Path(place), template)
        else:
            trainer = trl_trainer(job, Path(place), template, varlen=contender != "TRL")
        if cuda():
            torch.cuda.reset_peak_memory_stats()
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
        count = weights.count(trainer.accelerator.unwrap_model(trainer.model)).multiplying
    tokens = job.steps * 4 * job.shape.length
    rate = tokens / (clock.times[-1] - clock.times[0])
    memory = torch.cuda.max_memory_allocated() / 1e9 if cuda() else 0.0
    return rate, FACTORS[job.learning] * count * rate, memory


def lines(jobs: list[Job]) -> Iterator[str]:
    """One line for each job and contender."""
    for job in jobs:
        yield (
            f"{job.shape.name}, {job.learning}, packed rows of {job.shape.length:,} tokens, "
            f"{'with' if job.checkpointing else 'no'} activation checkpointing"
        )
        for contender in CONTENDERS:
            try:
                rate, flops, memory = measure(job, contender)
            except torch.OutOfMemoryError:
                yield f"  {contender:<13} does not fit the GPU's memory"
            else:
                mfu = f"  MFU {flops / PEAK:6.1%}  peak {memory:5.1f} GB" if cuda() else ""
                yield f"  {contender:<13} {rate:>9,.0f} tokens/s{mfu}"
            gc.collect()
            if cuda():
                torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="lora,full")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if not cuda() and not given.tiny:
        print("no CUDA GPU here: nothing is measured; --tiny runs the same code on the CPU")
        return 1
    if not cuda():
        torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if cuda() else "CPU (no GPU: these speeds mean nothing)"
    print(f"on {device}, torch {torch.__version__}; MFU = 4N or 6N × tokens/s / 989e12")
    shape = TINY if given.tiny else QWEN3_8B
    jobs = [
        Job(shape, learning, given.steps, given.checkpointing)
        for learning in given.weights.split(",")
    ]
    for line in lines(jobs):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
