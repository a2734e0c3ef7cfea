"""Run: recipe + corpus + base → a checkpoint's files, with progress, and resume after a kill.

The result appears under its name only when it is whole: until then a run leaves nothing but its
own folder. Knows nothing of ids or of where artifacts are kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from avocado.data import corpus as corpora
from avocado.data.chat import ChatTemplate
from avocado.errors import Refused
from avocado.lineage import Json
from avocado.train import sequences
from avocado.train.checkpoint import Checkpoint, training_flops
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder

if TYPE_CHECKING:
    from avocado.train.sft import RowsTrainer

Start = Literal["new", "resume", "restart"]
"""``new`` refuses to overwrite an interrupted run; ``restart`` throws it away."""

_KEPT: Final = (
    *("config.json", "generation_config.json", "tokenizer", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template", "LICENSE", "NOTICE"),
)
"""Files of the base, by how their names begin, that go with the weights byte for byte."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One optimizer step. Rates and ``seconds_left`` are of this process, from its first step on;
    ``tokens`` and ``tokens_per_second`` count real tokens, no padding.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended well: the ``checkpoint``'s facts, and a ``note`` of what must not change
    its id (seconds, tokens per second, device, threads, versions, the step resumed from).
    """

    checkpoint: Checkpoint
    note: Mapping[str, Json]


def run(
    recipe: Recipe,
    *,
    base: Path,
    corpus: Path,
    identity: Mapping[str, str],
    folder: Path,
    out: Path,
    start: Start = "new",
    save_every: int = 100,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Finished:
    """Trains ``recipe`` from the model in ``base`` on the frozen corpus in ``corpus``.

    ``identity`` names what is trained (``{"base": id, "corpus": id}``): a resume refuses when it
    changed. ``folder`` is the run's own. ``out`` is missing or empty, and holds the checkpoint's
    files once the run has ended well. ``save_every`` is in steps; 0 keeps nothing to resume from.

    Raises:
        Refused: an interrupted run is in the way, there is none to resume, what is trained has
            changed since, a check before the first step fails, or the loss is no number any more.
    """
    if out.exists() and any(out.iterdir()):
        raise Refused(f"{out} is not empty: a checkpoint is never written over another")
    began = time.monotonic()
    template = ChatTemplate.load(base)
    run_folder = RunFolder(folder)
    described = {
        "recipe": recipe.canonical(),
        "identity": dict(identity),
        "template_sha256": template.sha256,
        "versions": versions(),
    }
    point = run_folder.resume(described) if start == "resume" else None
    if point is None:
        run_folder.begin(described, restart=start == "restart")
    first = point.step if point else 0

    rows = sequences.render(corpora.read(corpus), template, recipe.training.max_length)
    order = sequences.order(rows, recipe.training)
    from avocado.train import sft, weights

    sft.preflight(rows, template, recipe.training.max_length)
    with weights.quietly():
        trainer = sft.trainer(
            weights.load_model(base, recipe),
            template,
            rows,
            order,
            recipe,
            run_folder=run_folder,
            save_every=save_every,
            log=_Reporter(run_folder, order, progress),
        )
        trainer.train(resume_from_checkpoint=str(point.path) if point else None)
        checkpoint = _describe(recipe, trainer, order, run_folder, base, template)
        _write_result(trainer, recipe, checkpoint.dtype, base, out)
    run_folder.finish()
    seconds = time.monotonic() - began
    return Finished(checkpoint, _note(trainer, order, first, seconds))


def versions() -> dict[str, str]:
    """The libraries whose change could change what a run learns."""
    from importlib.metadata import version

    return {name: version(name) for name in ("accelerate", "peft", "torch", "transformers", "trl")}


class _Reporter:
    """Logs each step, and says how fast the run goes and how long it will take."""

    def __init__(
        self,
        folder: RunFolder,
        order: sequences.Order,
        progress: Callable[[Progress], None],
    ) -> None:
        self._folder = folder
        self._order = order
        self._progress = progress
        self._began: tuple[float, int] | None = None
        """The time when the first step ended, and the tokens by then: it warms up, uncounted."""

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        tokens = self._order.tokens[step - 1]
        self._folder.log({"step": step, **numbers, "tokens": tokens})
        now = time.monotonic()
        began, before = self._began = self._began or (now, tokens)
        rate = (tokens - before) / (now - began) if now > began else 0.0
        left = (self._order.tokens[-1] - tokens) / rate if rate else 0.0
        self._progress(
            Progress(
                step=step,
                steps=self._order.steps,
                loss=numbers["loss"],
                learning_rate=numbers["learning_rate"],
                grad_norm=numbers.get("grad_norm", 0.0),
                tokens=tokens,
                tokens_per_second=rate,
                seconds_left=left,
            )
        )


def _describe(
    recipe: Recipe,
    trainer: RowsTrainer,
    order: sequences.Order,
    folder: RunFolder,
    base: Path,
    template: ChatTemplate,
) -> Checkpoint:
    from avocado.train import weights

    counts = weights.count(trainer.model)
    losses = [line["loss"] for line in folder.metrics()]
    last = losses[-max(1, len(losses) // 10) :]
    return Checkpoint(
        method=recipe.method,
        recipe=recipe.canonical(),
        seed=recipe.training.seed,
        steps=order.steps,
        tokens=order.tokens[-1],
        trained_tokens=order.trained,
        parameters=counts.all,
        trainable=counts.trainable,
        flops=training_flops(counts.multiplying, order.tokens[-1], recipe.method),
        loss=round(sum(last) / len(last), 6),
        dtype=weights.stored_dtype(base),
        template_sha256=template.sha256,
    )


def _write_result(trainer: RowsTrainer, recipe: Recipe, dtype: str, base: Path, out: Path) -> None:
    """Weights from the run, every other file from the base; whole, then renamed."""
    from avocado.train import weights

    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        with weights.writing("the checkpoint"):
            building.mkdir(parents=True)
            weights.save(trainer.model, building, dtype, base_name=recipe.base)
            for path in sorted(base.iterdir()):
                if path.is_file() and path.name.startswith(_KEPT):
                    shutil.copyfile(path, building / path.name)
            building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _note(
    trainer: RowsTrainer, order: sequences.Order, first: int, seconds: float
) -> dict[str, Json]:
    import torch

    passed = order.tokens[-1] - (order.tokens[first - 1] if first else 0)
    return {
        "seconds": round(seconds, 1),
        "tokens_per_second": round(passed / seconds, 1),
        "device": str(trainer.args.device),
        "threads": torch.get_num_threads(),
        "resumed_from_step": first,
        "versions": versions(),
    }
