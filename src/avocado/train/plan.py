"""Plan: what a run will cost in tokens, FLOPs, memory, time and money, before it runs.

Tokens are counted from the very rows that the run will see. Memory is a formula, stated. Time is
only ever measured: by a probe of real steps on this machine, or from a throughput that is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from avocado.data.chat import ChatTemplate
from avocado.terms.money import Money, ceil_div
from avocado.train.checkpoint import training_flops
from avocado.train.load import Load, load_of
from avocado.train.methods import Method
from avocado.train.probe import STEPS, Probe, at_hand, probe
from avocado.train.recipe import Compute, Recipe, Weights
from avocado.train.team import ALONE, Team
from avocado.train.throughput import spoken

if TYPE_CHECKING:
    from avocado.train.weights import Shape

MEMORY_FORMULA: Final = (
    "4 B × parameters (frozen weights: 2 B in bf16 on a GPU, 0.5 B under qlora) + "
    "12 B × trainable (gradients, Adam's two moments; 6 B with adamw_8bit), both divided by the "
    "devices under FSDP2 + "
    "tokens of the largest micro-batch × layers × b × (8 × hidden + 4 × intermediate + "
    "4 × (query + key + value)) with b = 2 in bf16, 4 in fp32, or tokens × layers × b × hidden "
    "under gradient checkpointing + 8 B × labelled tokens of it × vocabulary"
)

SCALING: Final = 0.7
"""Of their number, what several devices are worth at least, where only one was measured."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of each device at the peak of a step, by what they hold; :data:`MEMORY_FORMULA`.
    ``weights`` include those of a model that is compared with or learnt from."""

    weights: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.optimizer + self.activations


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is. ``load`` says what passes the model, ``multiplying`` how many parameters each
    token meets. ``seconds`` and ``cost`` are from–to; None where nothing was measured or no price
    was given. ``cost`` is the machine's, ``load.teaching`` has the teachers'.
    """

    name: str
    method: Method
    learning: Weights
    load: Load
    devices: int
    parameters: int
    trainable: int
    multiplying: int
    teacher: int
    """Parameters of the model that is learnt from, which each of ``load.teacher`` tokens meets."""
    memory: Memory
    seconds: tuple[float, float] | None = None
    basis: str = "not measured"
    cost: tuple[Money, Money] | None = None

    @property
    def steps(self) -> int:
        return self.load.steps

    @property
    def tokens(self) -> int:
        return self.load.tokens

    @property
    def trained(self) -> int:
        return self.load.trained

    @property
    def flops(self) -> int:
        return self.flops_of(self.load.tokens, self.load.forward, self.load.teacher)

    def flops_of(self, tokens: int, forward: int, teacher: int) -> int:
        """6·N (4·N where weights are frozen) a token that is learnt from, 2·N one that passes
        forward only, 2 × the teacher's own N one that passes the teacher."""
        learnt = training_flops(self.multiplying, tokens, self.learning)
        return learnt + 2 * self.multiplying * forward + 2 * self.teacher * teacher

    @property
    def formula(self) -> str:
        """What the FLOPs are made of, N being the parameters that multiply."""
        said = f"{6 if self.learning == 'full' else 4}N a token"
        if self.load.forward:
            said += f", 2N each of {self.load.forward:,} that pass forward only"
        if self.load.teacher:
            said += f", 2 × the teacher's {self.teacher:,} each of {self.load.teacher:,}"
        return said

    @property
    def spent(self) -> tuple[Money, Money] | None:
        """The machine's cost and the teachers'."""
        teaching = self.load.teaching
        if teaching is None or self.cost is None:
            return self.cost if teaching is None else teaching.cost
        return self.cost[0] + teaching.cost[0], self.cost[1] + teaching.cost[1]

    def to_json(self) -> dict[str, Any]:
        formulas = {"flops": self.formula, "memory": MEMORY_FORMULA}
        memory = {**asdict(self.memory), "total": self.memory.total}
        load = asdict(self.load)
        if self.load.teaching is not None:
            load["teaching"]["cost"] = _written(self.load.teaching.cost)
        return {
            **{name: getattr(self, name) for name in ("name", "method", "learning", "devices")},
            "steps": self.steps,
            "tokens": self.tokens,
            "flops": self.flops,
            "load": load,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "memory": memory,
            "seconds": self.seconds,
            "basis": self.basis,
            "cost": _written(self.spent),
            "formulas": formulas,
        }

    def lines(self) -> list[str]:
        """The plan for a terminal."""
        load = self.load
        most = "at most " if load.bound else ""
        packed = "packed" if load.packed else f"{1 - load.tokens / load.computed:.0%} padding"
        said = [
            f"{self.name}: {self.method}, {self.learning}, {self.steps:,} steps over "
            f"{load.rows:,} rows",
            *load.notes,
            *_teaching(load),
            f"tokens: {most}{load.tokens:,}, {most}{load.trained:,} trained, "
            + ("models write them" if load.bound else packed),
            f"parameters: {self.parameters:,}, {self.trainable:,} trained",
            f"FLOPs: {most}{self.flops:.2e} ({self.formula}; N = {self.multiplying:,})",
            f"memory: about {size(self.memory.total)}"
            + (f" on each of {self.devices} devices" if self.devices > 1 else "")
            + f" (weights {size(self.memory.weights)}, "
            f"optimizer {size(self.memory.optimizer)}, "
            f"activations {size(self.memory.activations)})",
        ]
        if self.seconds is None:
            said.append("time: not measured; a probe of real steps measures it")
        else:
            said.append(f"time: {_range(self.seconds)} ({self.basis})")
        if self.spent is not None:
            said.append(f"cost: {self.spent[0]} to {self.spent[1]}")
        return said


def _teaching(load: Load) -> list[str]:
    teaching = load.teaching
    if teaching is None:
        return []
    graded = f", and {teaching.grades:,} of the judge" if teaching.grades else ""
    return [
        f"teachers: {teaching.requests:,} requests{graded}; {teaching.prompt_tokens:,} tokens of "
        f"prompts (by this model's tokenizer), at most {teaching.completion_tokens:,} of answers, "
        f"at most {teaching.cost[1]}; their time is not planned"
    ]


@dataclass(frozen=True, slots=True)
class Total:
    """A recipe's stages together."""

    plans: tuple[Plan, ...]

    @property
    def seconds(self) -> tuple[float, float] | None:
        known = [plan.seconds for plan in self.plans if plan.seconds is not None]
        if len(known) < len(self.plans):
            return None
        return sum(low for low, _ in known), sum(high for _, high in known)

    @property
    def spent(self) -> tuple[Money, Money] | None:
        """None where a stage's machine has no price, or no measured time."""
        known = [plan.spent for plan in self.plans if plan.spent is not None]
        if not known or len(known) < len(self.plans):
            return None
        return reduce(add, (low for low, _ in known)), reduce(add, (high for _, high in known))

    def to_json(self) -> dict[str, Any]:
        """One plan as it is; of several, each and the sum."""
        if len(self.plans) == 1:
            return self.plans[0].to_json()
        total = {
            "steps": sum(plan.steps for plan in self.plans),
            "tokens": sum(plan.tokens for plan in self.plans),
            "flops": sum(plan.flops for plan in self.plans),
            "memory": max(plan.memory.total for plan in self.plans),
            "seconds": self.seconds,
            "cost": _written(self.spent),
        }
        return {"stages": [plan.to_json() for plan in self.plans], "total": total}

    def lines(self) -> list[str]:
        if len(self.plans) == 1:
            return self.plans[0].lines()
        said = [line for plan in self.plans for line in (*plan.lines(), "")]
        total = self.to_json()["total"]
        most = "at most " if any(plan.load.bound for plan in self.plans) else ""
        said.append(
            f"all stages: {total['steps']:,} steps, {most}{total['tokens']:,} tokens, "
            f"{most}{total['flops']:.2e} FLOPs, {size(total['memory'])} at the peak"
        )
        if self.seconds is not None:
            said.append(f"time: {_range(self.seconds)}")
        if self.spent is not None:
            said.append(f"cost: {self.spent[0]} to {self.spent[1]}")
        return said


def plan(
    recipe: Recipe,
    *,
    base: Path,
    corpus: Path,
    teacher: Path | None = None,
    probe_steps: int | None = 0,
    tokens_per_second: float | None = None,
    price_per_hour: Money | None = None,
    team: Team = ALONE,
) -> Plan:
    """Plans ``recipe`` (one stage) on the model in ``base`` and the frozen corpus in ``corpus``.

    ``probe_steps`` real optimizer steps are timed, on a copy, after one that warms up (None: as
    many as :data:`probe.STEPS` where this machine is one to measure on); or ``tokens_per_second``
    is believed, give or take a tenth. ``price_per_hour`` is of one machine, and ``teacher`` the
    folder of the model that an on-policy distillation learns from. Every process of ``team`` must
    call it.

    Raises:
        Refused: for what would stop the run before its first step.
    """
    from avocado.train import weights

    template = ChatTemplate.load(base)
    compute = recipe.compute or Compute(gpus=team.size)
    devices = compute.nodes * compute.gpus
    load = team.together(lambda: load_of(recipe, base, corpus, template, devices))
    shape = weights.shape(base, recipe)
    learnt = weights.shape(teacher, _whole(recipe)).counts.all if teacher else 0
    planned = Plan(
        name=recipe.name,
        method=recipe.method,
        learning=recipe.weights,
        load=load,
        devices=devices,
        parameters=shape.counts.all,
        trainable=shape.counts.trainable,
        multiplying=shape.counts.multiplying,
        teacher=learnt,
        memory=_memory(recipe, shape, load, devices, learnt),
    )
    if probe_steps is None:
        probe_steps = STEPS if at_hand(shape.counts.all) else 0
    if load.teaching is not None:
        probe_steps = 0  # there is nothing to learn before the teachers have answered
    if tokens_per_second:
        rates = (0.9 * tokens_per_second, 1.1 * tokens_per_second)
        seconds = _by_tokens(planned, rates)
        basis = f"at {tokens_per_second:,.0f} tokens/s, give or take a tenth"
    elif probe_steps:
        steps = max(1, min(probe_steps, load.steps - 1))
        measured = probe(recipe, base, corpus, template, steps, teacher=teacher, team=team)
        if load.bound:
            seconds = _by_steps(load, measured, recipe)
        else:
            seconds = _by_tokens(planned, measured.rates)
        basis = f"{steps} steps measured here, {_rates(measured)}"
        if devices > team.size:
            seconds = (seconds[0] / devices, seconds[1] / (SCALING * devices))
            basis += f"; {devices} devices believed to do {SCALING} to 1 times as much each"
        seconds = (seconds[0], seconds[1] + measured.warm_up)
    else:
        return planned
    cost = None
    if price_per_hour is not None:
        low, high = (_price(price_per_hour, each, compute.nodes) for each in seconds)
        cost = (low, high)
    return replace(planned, seconds=seconds, basis=basis, cost=cost)


def _by_tokens(planned: Plan, rates: tuple[float, float]) -> tuple[float, float]:
    """What passes forward only before the first step takes its FLOPs' share of a token's time."""
    load = planned.load
    share = 2 / (6 if planned.learning == "full" else 4)
    tokens = load.tokens + share * load.before
    return tokens / rates[1], tokens / rates[0]


def _by_steps(load: Load, measured: Probe, recipe: Recipe) -> tuple[float, float]:
    """From answers as long as those of the probe to answers of full length."""
    if measured.answer:
        settings = recipe.grpo or recipe.distillation
        assert settings is not None
        growth = settings.max_tokens / measured.answer
    else:
        growth = load.tokens / load.steps / measured.tokens
    slow, fast = measured.seconds
    return load.steps * fast, load.steps * slow * max(1.0, growth)


def _rates(measured: Probe) -> str:
    if measured.answer:
        slow, fast = measured.seconds
        return f"{fast:.2f} to {slow:.2f} s a step, answers of {measured.answer:.0f} tokens"
    low, high = measured.rates
    return f"{low:,.0f} to {high:,.0f} tokens/s"


def _whole(recipe: Recipe) -> Recipe:
    """The same without adapters, as a teacher has none."""
    import msgspec

    return msgspec.structs.replace(recipe, weights="full", lora=None)


def _memory(recipe: Recipe, shape: Shape, load: Load, devices: int, teacher: int) -> Memory:
    import torch

    training, counts, config = recipe.training, shape.counts, shape.config
    gpu = torch.cuda.is_available()
    sharded = devices if gpu else 1
    item = 2 if training.precision == "bf16" else 4
    frozen = counts.all - counts.trainable
    width = 4.0
    if recipe.weights == "qlora":
        width = 0.5
    elif recipe.adapter and gpu and item == 2:
        width = 2.0
    held = width * frozen + 4 * counts.trainable + 4 * teacher
    if recipe.grpo is not None and recipe.grpo.beta and recipe.adapter is None:
        held += 4 * counts.all
    moments = 6 if training.optimizer == "adamw_8bit" else 12
    return Memory(
        int(held) // sharded,
        moments * counts.trainable // sharded,
        _activations(config, load, item, checkpointed=training.gradient_checkpointing),
    )


def _activations(config: Mapping[str, int], load: Load, item: int, *, checkpointed: bool) -> int:
    hidden = config["hidden_size"]
    heads = config["num_attention_heads"] + 2 * config["num_key_value_heads"]
    width = 8 * hidden + 4 * config["intermediate_size"] + 4 * heads * config["head_dim"]
    if checkpointed:
        width = hidden
    layers = load.widest * config["num_hidden_layers"] * item * width
    return layers + 8 * load.labelled * config["vocab_size"]


def _price(per_hour: Money, seconds: float, machines: int) -> Money:
    """Rounded up to a nano-unit; time in whole milliseconds, so that no float touches money."""
    milliseconds = int(seconds * 1000) + 1
    return Money(ceil_div(machines * per_hour.nanos * milliseconds, 3_600_000), per_hour.currency)


def _written(cost: tuple[Money, Money] | None) -> list[str] | None:
    return None if cost is None else [str(money) for money in cost]


def _range(seconds: Sequence[float]) -> str:
    return f"{spoken(seconds[0])} to {spoken(seconds[1])}"


def size(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
