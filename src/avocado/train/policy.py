"""Policy: the trainer of methods that weigh a model's own log-probabilities of whole answers.

An objective says what passes the model in each step and what its log-probabilities cost; this
module computes them, at labelled positions only, and brings transformers' optimizer loop and exact
resume. Knows no method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PrinterCallback, Trainer, TrainingArguments

from avocado.data.chat import IGNORED, ChatTemplate, RenderError
from avocado.data.provenance import Provenance
from avocado.errors import Refused
from avocado.train import attention, loop, preflight, weights
from avocado.train.assembly import Work
from avocado.train.recipe import Training
from avocado.train.run_folder import RunFolder
from avocado.train.sequences import draw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCORED: Final = 4096
"""Positions whose logits are in memory at once; with more, each part is computed again for its
gradient. A vocabulary of 151,936 takes 2.5 GB at so many."""

R = TypeVar("R")

Batch = dict[str, Any]
"""``ids`` and ``labels`` ``[rows, tokens]``, and what the objective adds for itself."""


@dataclass(frozen=True)
class Answered:
    """A prompt and an answer to it: ``ids`` of both, the answer from ``start`` on."""

    ids: NDArray[np.int32]
    start: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def answer(self) -> int:
        """Tokens of the answer."""
        return len(self.ids) - self.start


def answered(prompt: Sequence[int], answer: Sequence[int]) -> Answered:
    import numpy as np

    return Answered(np.array([*prompt, *answer], np.int32), len(prompt))


def rendered(
    row: Provenance,
    prompt: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
    template: ChatTemplate,
    max_length: int,
) -> Answered:
    """``prompt`` as serving renders it and what the model is to emit, the stop token included.

    Raises:
        Refused: the template cannot render it so, it is longer than ``max_length``, or padding
            would be taken for its end.
    """
    import numpy as np

    where = f"{row.file}, row {row.row}"
    context = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in prompt]
    try:
        (made,) = template.rows([*context, {**answer, "weight": 1}], tools)
    except RenderError as error:
        raise Refused(f"{where}: {error}") from error
    if len(made.ids) > max_length:
        raise Refused(
            f"{where}: {len(made.ids):,} tokens where max_length allows {max_length:,}; "
            "raise max_length, or leave the row out"
        )
    if made.ids[-1] == template.pad_id:
        raise Refused(
            "the tokenizer's padding token is the stop token that answers end with: give it a "
            "pad_token of its own"
        )
    return Answered(np.array(made.ids, np.int32), len(made.ids) - made.trained)


def padded(rows: Sequence[Answered], pad_id: int) -> Batch:
    """``ids`` and ``labels`` of ``rows``, padded on the right: causal models need no mask."""
    shape = (len(rows), max(map(len, rows)))
    ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for place, row in enumerate(rows):
        whole = torch.from_numpy(row.ids.astype("int64"))
        ids[place, : len(row)] = whole
        labels[place, row.start : len(row)] = whole[row.start :]
    return {"ids": ids, "labels": labels}


def passes(lengths: Sequence[int], training: Training) -> list[list[int]]:
    """The rows of each step: a fresh permutation each epoch, one after the other; a step's rows are
    sorted by length, longest first. Pure: the same on any machine."""
    steps = training.steps or max(1, -(-len(lengths) * (training.epochs or 0) // training.batch))
    return draw(lengths, training, int(steps))


def cut(rows: Sequence[R], micro: int) -> list[Sequence[R]]:
    """``rows`` in micro-batches of ``micro``; 0 is all at once."""
    size = micro or len(rows)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def answer_states(model: Any, ids: torch.Tensor, labelled: torch.Tensor) -> tuple[Any, Any]:
    """The states ``[labelled, size]`` from which labelled tokens are predicted, and the head that
    predicts them. ``labelled``: ``[rows, tokens − 1]``, of each token but a row's first."""
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    states = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    return states[labelled], causal.get_output_embeddings()


def token_logps(
    model: Any, ids: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """log p of each labelled token given those before it, zero elsewhere: ``[rows, tokens − 1]``.

    The head runs at labelled positions only. ``temperature`` divides the logits.
    """
    wanted = labels[:, 1:]
    labelled = wanted != IGNORED
    states, head = answer_states(model, ids, labelled)

    def score(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logits = head(states).float() / temperature
        return -torch.nn.functional.cross_entropy(logits, tokens, reduction="none")

    tokens = wanted[labelled]
    parts = list(zip(torch.split(states, SCORED), torch.split(tokens, SCORED), strict=True))
    if len(parts) > 1 and torch.is_grad_enabled():
        found = [checkpoint(score, *part, use_reentrant=False) for part in parts]
    else:
        found = [score(*part) for part in parts]
    flat = torch.cat(found)
    return flat.new_zeros(wanted.shape).masked_scatter(labelled, flat)


class Objective(Protocol):
    """What a method wants of each step. ``steps`` optimizer steps of ``per_step`` micro-batches."""

    steps: int
    per_step: int
    temperature: float

    def begin(self, step: int) -> list[Batch]:
        """The micro-batches of a step (from 0), before any of them passes. Nothing here may draw
        from PyTorch's own random numbers: a resume restores them afterwards."""

    def loss(self, logps: torch.Tensor, batch: Batch) -> torch.Tensor:
        """This micro-batch's part of the step's loss: the parts of a step are added up.

        ``logps``: as :func:`token_logps` gives them."""

    def metrics(self) -> dict[str, float]:
        """What there is to say about the step that has just run."""


class PolicyTrainer(Trainer):
    """transformers' Trainer on an objective's micro-batches, whole training checkpoints or none."""

    loss_is_scaled_for_ga = True

    def __init__(self, run_folder: RunFolder, objective: Objective, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self._run_folder = run_folder
        self._objective = objective

    def get_batch_samples(self, *arguments: Any, **named: Any) -> tuple[list[Batch], None]:
        """The loader only counts; the micro-batches are the objective's."""
        super().get_batch_samples(*arguments, **named)
        return self._objective.begin(self.state.global_step), None

    def compute_loss(
        self,
        model: Any,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        with self.accelerator.autocast():
            logps = token_logps(
                self.accelerator.unwrap_model(model),
                inputs["ids"],
                inputs["labels"],
                self._objective.temperature,
            )
        return self._objective.loss(logps, inputs)

    def floating_point_ops(self, inputs: Batch) -> int:
        """The plan counts them."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Under a temporary name until it is complete."""
        step = self.state.global_step
        with weights.writing(f"the training checkpoint of step {step}"):
            building = self._run_folder.building()
            self.args.output_dir = str(building)
            super()._save_checkpoint(model, trial)
            self._run_folder.keep(building / f"checkpoint-{step}", step)


@dataclass(frozen=True)
class Scoring:
    """Log-probabilities of a model outside of training: no gradient, no dropout.

    ``reference`` looks through the adapters at the base below them; the model itself has not been
    trained yet where it has none.
    """

    model: Any
    pad_id: int
    bf16: bool

    def tokens(
        self, rows: Sequence[Answered], *, reference: bool, temperature: float = 1.0
    ) -> torch.Tensor:
        """As :func:`token_logps`, of ``rows``."""
        below = reference and hasattr(self.model, "peft_config")
        device = self.model.device
        self.model.eval()
        with (
            torch.no_grad(),
            self.model.disable_adapter() if below else nullcontext(),
            torch.autocast(device.type, torch.bfloat16, enabled=self.bf16),
        ):
            batch = padded(rows, self.pad_id)
            return token_logps(
                self.model, batch["ids"].to(device), batch["labels"].to(device), temperature
            )

    def answers(self, rows: Sequence[Answered], *, reference: bool, micro: int) -> torch.Tensor:
        """log π(y|x) of each of ``rows``, in order; ``micro`` pass at once."""
        found = torch.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda row: (-len(rows[row]), row))
        for part in cut(order, micro):
            logps = self.tokens([rows[row] for row in part], reference=reference)
            found[torch.tensor(part)] = logps.sum(dim=1).float().cpu()
        return found


def load(work: Work, longest: int) -> Any:
    """The model of the work, ready to be scored on rows of up to ``longest`` tokens.

    Raises:
        Refused: several processes share the work, the adapter is not where the recipe puts it, or
            the model's logits are not simply its head's, so that scoring by parts would be wrong.
    """
    recipe = work.recipe
    if work.team.size > 1:
        raise Refused(
            f'method = "{recipe.method}" is trained by one process: set [compute] gpus = 1'
        )
    gpu = torch.cuda.is_available()
    model = weights.load_model(work.base, recipe)
    if gpu and recipe.weights != "qlora":
        model.to("cuda")
    preflight.check_adapter(model, recipe)
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    if recipe.training.precision == "bf16" and not gpu and longest <= attention.SHORT:
        causal.set_attn_implementation("eager")
    ids = torch.tensor([[1, 2, 3]], device=model.device)
    with torch.no_grad():
        whole = causal(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(dim=-1)
        plain = token_logps(model, ids, ids)
    if not torch.allclose(whole.gather(2, ids[:, 1:, None])[..., 0], plain, atol=1e-2):
        raise Refused("this model does more to its logits than its head: it cannot be trained so")
    return model


def trainer(
    work: Work, model: Any, objective: Objective, kind: type[PolicyTrainer] = PolicyTrainer
) -> PolicyTrainer:
    """The assembled trainer of ``model``, which :func:`load` gave."""
    training = work.recipe.training
    if training.gradient_checkpointing and hasattr(model, "peft_config"):
        model.enable_input_require_grads()
    arguments = TrainingArguments(
        **loop.arguments(training, objective.steps, work.save_every, work.run_folder.path),
        gradient_accumulation_steps=objective.per_step,
        activation_checkpointing_kwargs={"use_reentrant": False},
    )
    return kind(
        work.run_folder,
        objective,
        model=model,
        args=arguments,
        train_dataset=_Count(objective.steps * objective.per_step),
        callbacks=[loop.Steps(work.log, objective.metrics)],
    )


class _Count(torch.utils.data.Dataset[dict[str, int]]):
    """As many items as micro-batches; what they hold is the objective's."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"micro_batch": index}
