"""Plan: what a run will cost in tokens, FLOPs, memory, time and money, before it runs.

Tokens are counted from the very rows that the run will see. Memory is a formula, stated. Time is
only ever measured: by a probe of real steps on this machine, or from a throughput that is given.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from avocado.data.chat import ChatTemplate
from avocado.terms.money import Money, ceil_div
from avocado.train import sequences
from avocado.train.checkpoint import training_flops
from avocado.train.methods import Method
from avocado.train.recipe import Recipe, Weights
from avocado.train.run_folder import RunFolder
from avocado.train.throughput import spoken

MEMORY_FORMULA: Final = (
    "4 B × parameters (weights) + 12 B × trainable (gradients, Adam's two moments) + "
    "tokens of the largest micro-batch × layers × b × (8 × hidden + 4 × intermediate + "
    "4 × (query + key + value)) with b = 2 in bf16, 4 in fp32, or tokens × layers × b × hidden "
    "under gradient checkpointing + 8 B × labelled tokens of it × vocabulary"
)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of a step, by what they hold; :data:`MEMORY_FORMULA`."""

    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.activations


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is. ``tokens`` pass the model in all (no padding), ``trained`` carry loss.

    ``padded`` is the share of the computed positions that are padding. ``seconds`` and ``cost`` are
    from–to; None where nothing was measured or no price was given.
    """

    name: str
    method: Method
    learning: Weights
    rows: int
    row_tokens: int
    steps: int
    tokens: int
    trained: int
    padded: float
    parameters: int
    trainable: int
    flops: int
    memory: Memory
    seconds: tuple[float, float] | None = None
    basis: str = "not measured"
    cost: tuple[Money, Money] | None = None

    def to_json(self) -> dict[str, Any]:
        cost = [str(money) for money in self.cost] if self.cost else None
        formulas = {"flops": self._flops_formula, "memory": MEMORY_FORMULA}
        memory = {**asdict(self.memory), "total": self.memory.total}
        return {**asdict(self), "memory": memory, "cost": cost, "formulas": formulas}

    @property
    def _flops_formula(self) -> str:
        factor = 6 if self.learning == "full" else 4
        return f"{factor} × parameters × tokens"

    def lines(self) -> list[str]:
        """The plan for a terminal."""
        said = [
            f"{self.name}: {self.method}, {self.learning}, {self.steps:,} steps over "
            f"{self.rows:,} sequences ({self.tokens / self.row_tokens:.2f} epochs)",
            f"tokens: {self.tokens:,}, {self.trained:,} trained, {self.padded:.0%} padding",
            f"parameters: {self.parameters:,}, {self.trainable:,} trained",
            f"FLOPs: {self.flops:.2e} ({self._flops_formula})",
            f"memory: about {_bytes(self.memory.total)} (weights {_bytes(self.memory.weights)}, "
            f"optimizer {_bytes(self.memory.optimizer)}, "
            f"activations {_bytes(self.memory.activations)})",
        ]
        if self.seconds is None:
            said.append("time: not measured; a probe of real steps measures it")
        else:
            low, high = self.seconds
            said.append(f"time: {spoken(low)} to {spoken(high)} ({self.basis})")
        if self.cost is not None:
            said.append(f"cost: {self.cost[0]} to {self.cost[1]}")
        return said


def plan(
    recipe: Recipe,
    *,
    base: Path,
    corpus: Path,
    probe_steps: int = 0,
    tokens_per_second: float | None = None,
    price_per_hour: Money | None = None,
) -> Plan:
    """Plans ``recipe`` on the model in ``base`` and the frozen corpus in ``corpus``.

    ``probe_steps`` real optimizer steps are timed, on a copy, after one that warms up; or
    ``tokens_per_second`` is believed, give or take a tenth.

    Raises:
        Refused: for what would stop the run before its first step.
    """
    template = ChatTemplate.load(base)
    from avocado.train import sft

    prepared = sft.prepare(recipe, base, corpus, template)
    rows, order = prepared.rows, prepared.order
    packing = msgspec.structs.replace(recipe.training, packing=order.packed)
    recipe = msgspec.structs.replace(recipe, training=packing)
    planned = _describe(recipe, base, rows, order)
    rates = None
    if probe_steps:
        rates = _probe(recipe, base, template, rows, probe_steps)
        basis = f"{probe_steps} steps measured here, {rates[0]:,.0f} to {rates[1]:,.0f} tokens/s"
    elif tokens_per_second:
        rates = (0.9 * tokens_per_second, 1.1 * tokens_per_second)
        basis = f"at {tokens_per_second:,.0f} tokens/s, give or take a tenth"
    if rates is None:
        return planned
    seconds = (order.tokens[-1] / rates[1], order.tokens[-1] / rates[0])
    cost = None
    if price_per_hour is not None:
        cost = (_price(price_per_hour, seconds[0]), _price(price_per_hour, seconds[1]))
    return replace(planned, seconds=seconds, basis=basis, cost=cost)


def _describe(
    recipe: Recipe, base: Path, rows: sequences.Sequences, order: sequences.Order
) -> Plan:
    from avocado.train import weights

    shape = weights.shape(base, recipe)
    lengths, labelled = rows.lengths, rows.trained_by_row
    computed = order.positions(lengths)
    widest = max(sum(labelled[row] for row in each) for each in order.micro_batches)
    counts = shape.counts
    return Plan(
        name=recipe.name,
        method=recipe.method,
        learning=recipe.weights,
        rows=len(rows),
        row_tokens=rows.tokens,
        steps=order.steps,
        tokens=order.tokens[-1],
        trained=order.trained,
        padded=1 - order.tokens[-1] / sum(computed),
        parameters=counts.all,
        trainable=counts.trainable,
        flops=training_flops(counts.multiplying, order.tokens[-1], recipe.weights),
        memory=_memory(shape.config, counts.all, counts.trainable, recipe, max(computed), widest),
    )


def _memory(
    config: Mapping[str, int],
    parameters: int,
    trainable: int,
    recipe: Recipe,
    tokens: int,
    labelled: int,
) -> Memory:
    item = 2 if recipe.training.precision == "bf16" else 4
    hidden = config["hidden_size"]
    heads = config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    width = 8 * hidden + 4 * config["intermediate_size"] + 4 * heads * config["head_dim"]
    if recipe.training.gradient_checkpointing:
        width = hidden
    layers = tokens * config["num_hidden_layers"] * item * width
    logits = 8 * labelled * config["vocab_size"]
    return Memory(4 * parameters, 12 * trainable, layers + logits)


def _probe(
    recipe: Recipe,
    base: Path,
    template: ChatTemplate,
    rows: sequences.Sequences,
    steps: int,
) -> tuple[float, float]:
    """The slowest and the fastest tokens per second of ``steps`` steps, one step not counted."""
    from avocado.train import sft, weights

    training = msgspec.structs.replace(recipe.training, steps=steps + 1, epochs=None)
    short = msgspec.structs.replace(recipe, training=training)
    order = sequences.order(rows, training)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder, weights.quietly():
        trainer = sft.trainer(
            weights.load_model(base, short),
            template,
            rows,
            order,
            short,
            run_folder=RunFolder(Path(folder)),
            save_every=0,
            log=lambda _step, _numbers: times.append(time.perf_counter()),
        )
        trainer.train()
    rates = [
        (order.tokens[step] - order.tokens[step - 1]) / (times[step] - times[step - 1])
        for step in range(1, steps + 1)
    ]
    return min(rates), max(rates)


def _price(per_hour: Money, seconds: float) -> Money:
    """Rounded up to a nano-unit; time in whole milliseconds, so that no float touches money."""
    milliseconds = int(seconds * 1000) + 1
    return Money(ceil_div(per_hour.nanos * milliseconds, 3_600_000), per_hour.currency)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
