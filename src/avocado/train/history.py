"""History: the runs of a workspace, what each was, how far it came and what it measured.

Knows only run folders: that a run made a checkpoint is noted there, and the artifact is elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from avocado.errors import Refused
from avocado.train.recipe import differences
from avocado.train.run_folder import RunFolder

State = Literal["running", "finished", "interrupted", "stopped"]
"""``interrupted`` can be resumed; ``stopped`` kept nothing to resume from."""


@dataclass(frozen=True)
class RunRecord:
    """One run. ``metrics`` has a line a step: ``step``, ``loss``, ``tokens`` and more."""

    name: str
    state: State
    recipe: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    checkpoint: str | None
    resumable_from: int | None
    changed: float
    """When a step was last logged, in seconds since 1970."""
    plan: Mapping[str, Any] | None = None
    """``planned`` and ``actual``, of a finished run."""

    @property
    def steps(self) -> int:
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def loss(self) -> float | None:
        """The mean of the last tenth of the steps, as a checkpoint states it."""
        last = [line["loss"] for line in self.metrics[-max(1, len(self.metrics) // 10) :]]
        return sum(last) / len(last) if last else None

    @property
    def tokens(self) -> int:
        return int(self.metrics[-1]["tokens"]) if self.metrics else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "steps": self.steps,
            "loss": self.loss,
            "tokens": self.tokens,
            "checkpoint": self.checkpoint,
            "resumable_from": self.resumable_from,
            "changed": self.changed,
            "plan": self.plan,
            "recipe": dict(self.recipe),
        }


def read_run(folder: Path) -> RunRecord:
    """The run in ``folder``.

    Raises:
        Refused: it is no run folder, or what it says is damaged.
    """
    run = RunFolder(folder)
    try:
        described = run.described()
        metrics = tuple(run.metrics())
        changed = run.changed()
        plan = run.plan()
    except (OSError, ValueError) as error:
        raise Refused(f"there is no run in {folder}, or it is damaged: {error}") from error
    checkpoint, point = run.checkpoint(), run.interrupted()
    state: State = "stopped"
    if run.held():
        state = "running"
    elif checkpoint is not None:
        state = "finished"
    elif point is not None:
        state = "interrupted"
    resumable = point.step if point is not None else None
    return RunRecord(
        folder.name, state, described["recipe"], metrics, checkpoint, resumable, changed, plan
    )


def read_runs(root: Path) -> list[RunRecord]:
    """Every run below ``root``, newest first."""
    folders = [each for each in root.glob("*") if (each / "run.json").is_file()]
    return sorted(map(read_run, folders), key=lambda run: -run.changed)


def compared(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """(recipe key, its value in each run) for every key in which the runs differ."""
    first, *others = runs
    keys = sorted({key for run in others for key in differences(first.recipe, run.recipe)})
    return [(key, [_value(run.recipe, key) for run in runs]) for key in keys if key != "name"]


def _value(recipe: Mapping[str, Any], key: str) -> str:
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
