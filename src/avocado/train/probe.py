"""Probe: real steps of a run, timed on this machine, and thrown away.

They are the run's own first steps, by its own trainer, from the same weights. Knows no price.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from avocado.data.chat import ChatTemplate
from avocado.train.assembly import Work, assemble
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder
from avocado.train.team import ALONE, Team

STEPS: Final = 20
"""Of a probe, unless told otherwise."""

SMALL: Final = 100_000_000
"""Parameters up to which a model is probed without a GPU, unless told otherwise."""

PARTS: Final = 4
"""The steps are timed in so many groups: the fastest and the slowest of them are the range."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What ``steps`` took: ``rates`` in tokens a second and ``seconds`` a step, each from the
    slowest group to the fastest. ``tokens`` passed in a step on average; ``answer`` is how long an
    answer was on average, where the model wrote any. ``warm_up`` is what the first step took,
    which is none of them."""

    steps: int
    rates: tuple[float, float]
    seconds: tuple[float, float]
    tokens: float
    answer: float | None
    warm_up: float


def at_hand(parameters: int) -> bool:
    """Whether this machine is one to measure a model of so many parameters on."""
    import torch

    return torch.cuda.is_available() or parameters <= SMALL


def probe(
    recipe: Recipe,
    base: Path,
    corpus: Path,
    template: ChatTemplate,
    steps: int,
    *,
    teacher: Path | None = None,
    team: Team = ALONE,
) -> Probe:
    """Times ``steps`` steps after one that warms up. Every process of ``team`` must call it, and
    gets what process 0 has measured.

    Raises:
        Refused: for what would stop the run before its first step, or at one of these.
    """
    from avocado.train import weights

    training = msgspec.structs.replace(
        recipe.training, steps=steps + 1, epochs=None, overfit_check=False
    )
    short = msgspec.structs.replace(recipe, training=training)
    times: list[float] = []
    answers: list[float] = []

    def log(_step: int, numbers: dict[str, float]) -> None:
        times.append(time.perf_counter())
        if "answer_length" in numbers:
            answers.append(numbers["answer_length"])

    with tempfile.TemporaryDirectory() as folder, weights.quietly():
        run_folder = RunFolder(Path(folder) / "run")
        run_folder.begin({}, restart=True)
        work = Work(short, base, corpus, template, run_folder, 0, log, team, teacher)
        assembly = team.together(lambda: assemble(work))
        began = time.perf_counter()
        assembly.trainer.train()
        tokens = [assembly.tokens(step) for step in range(1, steps + 2)]
    del assembly
    _forget()
    written = sum(answers) / len(answers) if answers else None
    measured = _measured(times, tokens, written, times[0] - began)
    return team.once(lambda: measured)


def _measured(
    times: Sequence[float], tokens: Sequence[int], answer: float | None, warm_up: float
) -> Probe:
    """``times`` when each step ended and the ``tokens`` by then; the first only marks the start."""
    steps = len(times) - 1
    parts = min(PARTS, steps)
    marks = [round(steps * part / parts) for part in range(parts + 1)]
    rates, seconds = [], []
    for begin, end in pairwise(marks):
        took = times[end] - times[begin]
        rates.append((tokens[end] - tokens[begin]) / took)
        seconds.append(took / (end - begin))
    return Probe(
        steps,
        (min(rates), max(rates)),
        (max(seconds), min(seconds)),
        (tokens[-1] - tokens[0]) / steps,
        answer,
        warm_up,
    )


def _forget() -> None:
    """The run that follows finds the memory as it was."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
