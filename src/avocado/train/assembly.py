"""Assembly: what each way to learn hands to the run: a trainer that is ready to start.

One small shape for all methods: ``sft``, ``preference``, ``reinforce``, ``distill`` each make one
from the same work. Knows no method's details.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avocado.data.chat import ChatTemplate
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder
from avocado.train.team import ALONE, Team

if TYPE_CHECKING:
    from transformers import Trainer

Log = Callable[[int, dict[str, float]], None]
"""Called after each step with its number, ``loss``, ``learning_rate``, ``grad_norm`` and whatever
else the method has to say (``reward``, ``margin``)."""


@dataclass(frozen=True)
class Work:
    """What is trained on what. ``base`` and ``corpus`` are folders; ``save_every`` is in steps, 0
    keeps nothing to resume from. ``team`` is who trains it together, ``teacher`` the folder of the
    model that an on-policy distillation learns from."""

    recipe: Recipe
    base: Path
    corpus: Path
    template: ChatTemplate
    run_folder: RunFolder
    save_every: int
    log: Log
    team: Team = ALONE
    teacher: Path | None = None


@dataclass(frozen=True)
class Assembly:
    """A ``trainer`` of ``steps`` optimizer steps.

    ``tokens(step)`` is how many real tokens have passed the trained model when ``step`` has ended;
    for a method that makes its own text it is known once that step has run, and for the others at
    once. ``total`` is ``tokens`` of the last step where that is known beforehand. ``trained()`` is
    how many of all those tokens carried loss. ``notes`` say in plain words what went otherwise than
    the recipe asks, and why. ``held_out()`` is the mean loss a token on what the corpus holds out,
    as the model is now; None where nothing is held out.
    """

    trainer: Trainer
    steps: int
    tokens: Callable[[int], int]
    trained: Callable[[], int]
    total: int | None = None
    held_out: Callable[[], float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> Any:
        """The model that is trained, adapters attached."""
        return self.trainer.model


def assemble(work: Work) -> Assembly:
    """The assembly of the recipe's method, every check before the first step passed.

    Raises:
        Refused: a check fails; the reason says which and what to do.
    """
    match work.recipe.method:
        case "supervised" | "pretraining":
            from avocado.train import sft

            return sft.assemble(work)
        case "dpo" | "kto":
            from avocado.train import preference

            return preference.assemble(work)
        case "grpo":
            from avocado.train import reinforce

            return reinforce.assemble(work)
        case "distillation":
            from avocado.train import distill, sft

            taught = bool(work.recipe.distillation and work.recipe.distillation.teachers)
            return sft.assemble(work) if taught else distill.assemble(work)
