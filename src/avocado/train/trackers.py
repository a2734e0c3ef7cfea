"""Trackers: TensorBoard and whatever else transformers reports to, fed by our own log.

Every number of ``metrics.jsonl`` goes there, the method's own too, which the trainer's log does
not have. TensorBoard's files lie in the run's folder. Knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback
from transformers.integrations import integration_utils

from avocado.errors import Refused

TENSORBOARD: Final = "tensorboard"


@dataclass
class Trackers:
    """The trackers of one run."""

    names: Sequence[str]
    folder: Path
    _callbacks: list[Any] = field(default_factory=list)
    _trainer: Any = None

    @classmethod
    def named(cls, names: Sequence[str], folder: Path) -> Trackers:
        """Those of ``names``; ``folder`` is the run's.

        Raises:
            Refused: transformers knows no such tracker, or its package is missing.
        """
        trackers = cls(names, folder)
        find: Any = integration_utils.get_reporting_integration_callbacks
        for name in names:
            try:
                kind = find([name])[0]
            except ValueError as error:
                raise Refused(f"--report-to {name}: {error}") from error
            if name == TENSORBOARD:
                _tensorboard_or_refuse()
                continue
            try:
                trackers._callbacks.append(kind())
            except (ImportError, RuntimeError) as error:
                said = str(error).splitlines()[0]
                raise Refused(f"--report-to {name} does not work here: {said}") from error
        return trackers

    def follow(self, trainer: Any, first: int) -> None:
        """Reports the steps of ``trainer`` after step ``first``; before it starts."""
        self._trainer = trainer
        if TENSORBOARD in self.names:
            from torch.utils.tensorboard import SummaryWriter

            # What an interrupted run had reported after the step that it goes on from is dropped.
            writer: Any = SummaryWriter(
                str(self.folder / TENSORBOARD), purge_step=first + 1 if first else None
            )
            tensorboard: Any = integration_utils.TensorBoardCallback
            self._callbacks.append(tensorboard(writer))
        if self._callbacks:
            trainer.add_callback(_Ends(self._callbacks))

    def log(self, numbers: Mapping[str, float]) -> None:
        """Reports a step that has just ended."""
        for callback in self._callbacks:
            trainer = self._trainer
            callback.on_log(
                trainer.args,
                trainer.state,
                trainer.control,
                logs=dict(numbers),
                model=trainer.model,
            )


def _tensorboard_or_refuse() -> None:
    try:
        import tensorboard  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        raise Refused(
            "--report-to tensorboard needs the package tensorboard: "
            "pip install 'avocado-llm[tracking]'"
        ) from None


class _Ends(TrainerCallback):
    """Tells trackers when a run begins and ends; what it logs they get from us."""

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = callbacks

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for callback in self._callbacks:
            callback.on_train_begin(args, state, control, **given)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for callback in self._callbacks:
            callback.on_train_end(args, state, control, **given)
