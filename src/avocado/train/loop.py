"""Loop: what every method asks of transformers' optimizer loop, and what it hears of each step.

Knows a recipe's numbers. Knows no method, no rows and no loss.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback

from avocado.errors import Refused
from avocado.train.assembly import Log
from avocado.train.recipe import Training

SCHEDULES: Final = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}

OPTIMIZERS: Final = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit"}


def arguments(training: Training, steps: int, save_every: int, folder: Path) -> dict[str, Any]:
    """What ``TrainingArguments`` are given whatever the method: one item of the loader is one
    micro-batch, in the loader's order. ``save_every`` is in steps; 0 saves nothing."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": SCHEDULES[training.schedule],
        "warmup_steps": round(training.warmup * steps),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip,
        "optim": OPTIMIZERS[training.optimizer],
        "bf16": training.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": training.gradient_checkpointing,
        "seed": training.seed,
        "data_seed": training.seed,
        "remove_unused_columns": False,
        "save_strategy": "steps" if save_every else "no",
        "save_steps": save_every or 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
        "log_level": "error",
    }


class Steps(TrainerCallback):
    """Passes each step's numbers on, and stops a run whose loss is no number any more. ``more``
    says what the method has to say besides."""

    def __init__(self, log: Log, more: Callable[[], dict[str, float]] = dict) -> None:
        self._log = log
        self._more = more

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs = given["logs"]
        if "loss" not in logs:
            return
        if not torch.tensor(float(logs["loss"])).isfinite():
            raise Refused(
                f"the loss is {logs['loss']} at step {state.global_step}: "
                "lower learning_rate, or raise warmup or clip"
            )
        kept = ("loss", "learning_rate", "grad_norm")
        numbers = {key: float(logs[key]) for key in kept if key in logs}
        self._log(state.global_step, {**numbers, **self._more()})
