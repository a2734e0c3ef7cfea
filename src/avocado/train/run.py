"""Run: recipe + corpus + base → a checkpoint's files, with progress, and resume after a kill.

The result appears under its name only when it is whole: until then a run leaves nothing but its
own folder. Knows nothing of ids or of where artifacts are kept.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from avocado.data.chat import ChatTemplate
from avocado.errors import Refused
from avocado.lineage import Json
from avocado.train.assembly import Assembly, Log, Work, assemble
from avocado.train.checkpoint import Checkpoint, training_flops
from avocado.train.recipe import Recipe
from avocado.train.run_folder import Point, RunFolder
from avocado.train.team import ALONE, Team
from avocado.train.throughput import Clock, device_name, memory_peak, peak

if TYPE_CHECKING:
    from avocado.train.trackers import Trackers

Start = Literal["new", "resume", "restart", "auto"]
"""``new`` refuses to overwrite an interrupted run; ``restart`` throws it away; ``auto`` resumes one
where there is one."""

_USUAL: Final = ("loss", "learning_rate", "grad_norm")
"""What every method logs of a step."""

_KEPT: Final = (
    *("config.json", "generation_config.json", "tokenizer", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template", "LICENSE", "NOTICE"),
)
"""Files of the base, by how their names begin, that go with the weights byte for byte."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One optimizer step. Rates and ``seconds_left`` are of this process, from its first step on;
    ``tokens`` and ``tokens_per_second`` count real tokens, no padding. ``mfu`` is the share of the
    GPU's peak (:data:`throughput.MFU_FORMULA`), None where that is not known. ``extra`` is what the
    method has to say besides (``reward``, ``margin``).
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds_left: float
    mfu: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


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
    team: Team = ALONE,
    report_to: Sequence[str] = (),
    teacher: Path | None = None,
) -> Finished:
    """Trains ``recipe`` from the model in ``base`` on the frozen corpus in ``corpus``.

    ``identity`` names what is trained (``{"base": id, "corpus": id}``): a resume refuses when it
    changed. ``folder`` is the run's own. ``out`` is missing or empty, and holds the checkpoint's
    files once the run has ended well. ``save_every`` is in steps; 0 keeps nothing to resume from.
    All processes of ``team`` call this alike; process 0 alone writes and tells ``progress``.
    ``report_to`` names trackers of transformers (``"tensorboard"``), which get every logged number.
    ``teacher`` is the folder of the model that an on-policy distillation learns from.

    Raises:
        Refused: an interrupted run is in the way, there is none to resume, what is trained has
            changed since, a check before the first step fails, or the loss is no number any more.
    """
    if team.leads and out.exists() and any(out.iterdir()):
        raise Refused(f"{out} is not empty: a checkpoint is never written over another")
    began = time.monotonic()
    template = ChatTemplate.load(base)
    run_folder = RunFolder(folder)
    described = {
        "recipe": recipe.canonical(),
        "identity": dict(identity),
        "template_sha256": template.sha256,
        "versions": versions(),
        "code": code(recipe),
    }
    from avocado.train import weights
    from avocado.train.trackers import Trackers

    trackers = Trackers.named(report_to, run_folder.path)
    point = team.once(lambda: _begin(run_folder, described, start))
    first = point.step if point else 0
    reporter = _Reporter(run_folder, progress, trackers)
    log: Log = reporter if team.leads else _nothing
    work = Work(recipe, base, corpus, template, run_folder, save_every, log, team, teacher)
    with weights.quietly():
        assembly = team.together(lambda: assemble(work))
        reporter.follow(assembly, recipe, first, team.size)
        if team.leads:
            trackers.follow(assembly.trainer, first)
        measure = assembly.held_out
        held_out = None if measure is None else {"before": measure()}
        assembly.trainer.train(resume_from_checkpoint=str(point.path) if point else None)
        if measure is not None and held_out is not None:
            held_out["after"] = measure()
        state = _whole_state(assembly)
        checkpoint = team.once(lambda: _describe(work, assembly))
        team.once(lambda: _write_result(assembly, state, recipe, checkpoint.dtype, base, out))
    team.once(run_folder.finish)
    seconds = time.monotonic() - began
    note = _note(work, assembly, first, seconds)
    return Finished(checkpoint, {**note, "held_out_loss": held_out} if held_out else note)


def _begin(folder: RunFolder, described: Mapping[str, Json], start: Start) -> Point | None:
    if start == "auto":
        start = "new" if folder.interrupted() is None else "resume"
    if start == "resume":
        return folder.resume(described)
    folder.begin(described, restart=start == "restart")
    return None


def _nothing(step: int, numbers: Mapping[str, float]) -> None:
    """What the other processes of a team have to say."""


def _whole_state(assembly: Assembly) -> Mapping[str, Any] | None:
    """Every weight, where this process holds only a part of each; every process must ask."""
    accelerator = assembly.trainer.accelerator
    if not accelerator.is_fsdp2:
        return None
    state: Mapping[str, Any] = accelerator.get_state_dict(assembly.trainer.model_wrapped)
    return state


def versions() -> dict[str, str]:
    """The libraries whose change could change what a run learns."""
    from importlib.metadata import version

    return {name: version(name) for name in ("accelerate", "peft", "torch", "transformers", "trl")}


def code(recipe: Recipe) -> dict[str, str]:
    """Hashes of our own code whose change could change what a run of ``recipe`` learns."""
    ours = Path(__file__).parents[1]
    parts = {"train": "train/*.py", "data.chat": "data/chat.py"}
    if recipe.method in ("grpo", "distillation"):
        parts["engine"] = "engine/*.py"
    found = {}
    for name, pattern in parts.items():
        text = b"\0".join(path.read_bytes() for path in sorted(ours.glob(pattern)))
        found[name] = hashlib.sha256(text).hexdigest()
    return found


class _Reporter:
    """Logs each step, and says how fast the run goes and how long it will take."""

    def __init__(
        self, folder: RunFolder, progress: Callable[[Progress], None], trackers: Trackers
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._trackers = trackers
        self._assembly: Assembly | None = None
        self._clock = Clock()
        self._full = 0.0
        """Tokens a second at which the devices would do nothing but multiply; 0: not known."""

    def follow(self, assembly: Assembly, recipe: Recipe, first: int, devices: int) -> None:
        """Says whose steps these are, after step ``first``, on how many devices; they begin now."""
        from avocado.train import weights

        self._assembly = assembly
        name = device_name()
        limit = peak(name) if name and recipe.training.precision == "bf16" else None
        if limit is not None:
            parameters = weights.count(assembly.model).multiplying
            self._full = devices * limit / training_flops(parameters, 1, recipe.weights)
        self._clock = Clock(assembly.tokens(first) if first else 0)

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        assembly = self._assembly
        assert assembly is not None
        tokens = assembly.tokens(step)
        pace = self._clock.step(tokens)
        measured = {
            "seconds": round(pace.seconds, 6),
            "tokens_per_second": round(pace.tokens_per_second, 1),
        }
        line = {"step": step, **numbers, "tokens": tokens, **measured}
        self._folder.log(line)
        self._trackers.log({key: value for key, value in line.items() if key != "step"})
        if assembly.total is None:
            left = pace.mean * (assembly.steps - step)
        else:
            left = (assembly.total - tokens) / pace.rate if pace.rate else 0.0
        self._progress(
            Progress(
                step=step,
                steps=assembly.steps,
                loss=numbers["loss"],
                learning_rate=numbers["learning_rate"],
                grad_norm=numbers.get("grad_norm", 0.0),
                tokens=tokens,
                tokens_per_second=pace.rate,
                seconds_left=left,
                mfu=pace.rate / self._full if self._full else None,
                extra={key: value for key, value in numbers.items() if key not in _USUAL},
            )
        )


def _describe(work: Work, assembly: Assembly) -> Checkpoint:
    from avocado.train import weights

    recipe = work.recipe
    counts = weights.count(assembly.model)
    tokens = assembly.tokens(assembly.steps)
    losses = [line["loss"] for line in work.run_folder.metrics()]
    last = losses[-max(1, len(losses) // 10) :]
    return Checkpoint(
        method=recipe.method,
        weights=recipe.weights,
        recipe=recipe.canonical(),
        seed=recipe.training.seed,
        steps=assembly.steps,
        tokens=tokens,
        trained_tokens=assembly.trained(),
        parameters=counts.all,
        trainable=counts.trainable,
        flops=training_flops(counts.multiplying, tokens, recipe.weights),
        loss=round(sum(last) / len(last), 6),
        dtype=weights.stored_dtype(work.base),
        template_sha256=work.template.sha256,
    )


def _write_result(
    assembly: Assembly,
    state: Mapping[str, Any] | None,
    recipe: Recipe,
    dtype: str,
    base: Path,
    out: Path,
) -> None:
    """Weights from the run, every other file from the base; whole, then renamed."""
    from avocado.train import weights

    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        with weights.writing("the checkpoint"):
            building.mkdir(parents=True)
            weights.save(assembly.model, building, dtype, recipe.base, state)
            for path in sorted(base.iterdir()):
                if path.is_file() and path.name.startswith(_KEPT):
                    shutil.copyfile(path, building / path.name)
            building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _note(work: Work, assembly: Assembly, first: int, seconds: float) -> dict[str, Json]:
    import torch

    equal = [line["no_signal"] == 1 for line in work.run_folder.metrics() if "no_signal" in line]
    notes = list(assembly.notes)
    if equal and sum(equal) * 2 > len(equal):
        notes.append(
            f"in {sum(equal):,} of {len(equal):,} steps all answers to each prompt were equally "
            "good, so nothing was learnt: choose rewards or prompts that tell answers apart"
        )

    passed = assembly.tokens(assembly.steps) - (assembly.tokens(first) if first else 0)
    return {
        "seconds": round(seconds, 1),
        "tokens_per_second": round(passed / seconds, 1),
        "device": str(assembly.trainer.args.device),
        "processes": assembly.trainer.args.world_size,
        "threads": torch.get_num_threads(),
        "memory_peak": memory_peak(),
        "resumed_from_step": first,
        "notes": notes,
        "versions": versions(),
    }
