"""Supervised fine-tuning: TRL's SFTTrainer on token rows and labels that we made.

TRL brings the optimizer loop, precision, accumulation, distribution and training checkpoints. Its
chat templates, tokenizing and truncation are off the path: rows arrive as ids and labels. On a CPU
its fused head, which scores every position three ways, gives way to the plain loss of labelled
positions. Knows nothing of files of examples or of ids of artifacts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, Final

import msgspec
import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, Trainer
from trl import SFTConfig, SFTTrainer

from avocado.data import corpus as corpora
from avocado.data.chat import IGNORED, ChatTemplate
from avocado.data.document import Document
from avocado.train import attention, loop, preflight, weights
from avocado.train.assembly import Assembly, Log, Work
from avocado.train.recipe import Recipe
from avocado.train.run_folder import RunFolder
from avocado.train.sequences import (
    Order,
    Sequences,
    Tokens,
    order,
    render,
    render_documents,
)
from avocado.train.team import ALONE, Team

PLAIN_HEADS: Final = ("qwen2", "qwen3")
"""Model types whose logits are head(hidden) and nothing else: no scale, no cap, no router loss."""


@dataclass(frozen=True)
class Prepared:
    """The rows of a run and their order, and what somebody should know about them."""

    rows: Sequences
    order: Order
    notes: tuple[str, ...]


def prepare(
    recipe: Recipe, base: Path, corpus: Path, template: ChatTemplate, processes: int = 1
) -> Prepared:
    """Renders and orders the frozen corpus in ``corpus`` for the model in ``base``, whose weights
    are not loaded. Rows are packed where the recipe says so and the model keeps them apart.

    Raises:
        Refused: the corpus is not of the kind that the method learns from, a row cannot be
            rendered right or may not be trained (:mod:`preflight`), or there is none.
    """
    training = recipe.training
    documents = recipe.method == "pretraining"
    notes = []
    if documents:
        rows, cut = render_documents(corpora.read(corpus, Document), template, training.max_length)
        if cut:
            notes.append(
                f"{cut:,} documents of more than {training.max_length:,} tokens are cut into "
                "windows; no token is lost"
            )
    else:
        rows = render(corpora.read(corpus), template, training.max_length)
        preflight.check_parity(corpora.read(corpus), template)
    preflight.check_rows(rows, template, training.max_length, documents=documents)
    if training.packing:
        why = attention.obstacle(weights.configuration(base), max(rows.lengths))
        if why is not None:
            notes.append(f"rows are padded, not packed: {why}")
            training = msgspec.structs.replace(training, packing=False)
    return Prepared(rows, order(rows, training, processes), tuple(notes))


def assemble(work: Work) -> Assembly:
    """Supervised fine-tuning of the work's conversations, or pretraining on its documents.

    Raises:
        Refused: as :func:`prepare`, and where a check of :mod:`preflight` fails.
    """
    recipe, template, training = work.recipe, work.template, work.recipe.training
    prepared = prepare(recipe, work.base, work.corpus, template, work.team.size)
    rows, passes = prepared.rows, prepared.order
    assembled = trainer(
        weights.load_model(work.base, recipe),
        template,
        rows,
        passes,
        recipe,
        run_folder=work.run_folder,
        save_every=work.save_every,
        log=work.log,
        team=work.team,
    )
    preflight.check_adapter(assembled.model, recipe)
    preflight.check_apart(assembled, rows, passes, training.precision)
    if training.overfit_check:
        preflight.check_overfit(assembled, rows, passes, training.learning_rate)
    return Assembly(
        assembled,
        passes.steps,
        lambda step: passes.tokens[step - 1],
        lambda: passes.trained,
        passes.tokens[-1],
        _held_out(work, assembled, training.batch, passes.packed),
        prepared.notes,
    )


def _held_out(
    work: Work, trainer: RowsTrainer, at_once: int, packed: bool
) -> Callable[[], float] | None:
    """Measures the loss on what the corpus holds out, rendered as training rows are."""
    template, longest = work.template, work.recipe.training.max_length
    if work.recipe.method == "pretraining":
        documents = list(corpora.read(work.corpus, Document, held_out=True))
        rows = render_documents(documents, template, longest)[0] if documents else None
    else:
        examples = list(corpora.read(work.corpus, held_out=True))
        rows = render(examples, template, longest) if examples else None
    if rows is None:
        return None
    collate = _Collator(rows, template.pad_id, packed)
    batches = [
        list(range(start, min(start + at_once, len(rows))))
        for start in range(0, len(rows), at_once)
    ]
    return lambda: trainer.mean_loss(collate([{"rows": batch}]) for batch in batches)


class RowsTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on given micro-batches, which saves whole training checkpoints or none."""

    def __init__(self, run_folder: RunFolder, team: Team, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.remove_callback(PrinterCallback)
        self._run_folder = run_folder
        self._team = team
        base = self.accelerator.unwrap_model(self.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        self._plain_loss = (
            self.args.device.type == "cpu"
            and base.config.model_type in PLAIN_HEADS
            and not self.aux_loss_enabled
        )
        if self._plain_loss:
            base.forward = MethodType(_summed_loss, base)

    def _send_telemetry(self) -> None:
        """Nothing leaves this machine."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Σ −log p over labelled tokens, divided by their number in the whole optimizer step."""
        if not self._plain_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        summed = model(**inputs)["loss"]
        return summed * self.accelerator.num_processes / num_items_in_batch

    def mean_loss(self, batches: Iterable[dict[str, Any]]) -> float:
        """The mean of −log p over the labelled tokens of ``batches``, nothing learnt from them."""
        summed = count = 0.0
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in batches:
                inputs = self._prepare_inputs(batch)
                labelled = (inputs["labels"][:, 1:] != IGNORED).sum()
                loss = self.compute_loss(self.model, inputs, num_items_in_batch=labelled)
                summed += float(loss) / self.accelerator.num_processes * int(labelled)
                count += int(labelled)
        self.model.train(training)
        return summed / count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The plain loss comes without TRL's entropy and accuracy."""
        if self._plain_loss:
            Trainer.log(self, logs, start_time)
        else:
            super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Under a temporary name until it is complete, and without TRL's model card. Each process
        of the team writes its own random state."""
        step = self.state.global_step
        with weights.writing(f"the training checkpoint of step {step}"):
            building = self._team.once(self._run_folder.building)
            self.args.output_dir = str(building)
            Trainer._save_checkpoint(self, model, trial)
            self._team.wait()
            self._team.once(lambda: self._run_folder.keep(building / f"checkpoint-{step}", step))


def trainer(
    model: Any,
    template: ChatTemplate,
    sequences: Sequences,
    passes: Order,
    recipe: Recipe,
    *,
    run_folder: RunFolder,
    save_every: int,
    log: Log,
    team: Team = ALONE,
) -> RowsTrainer:
    """The assembled trainer: ``sequences`` in the given ``passes``, shared by the ``team``.
    ``save_every`` is in steps; 0 saves nothing to resume from.
    """
    training = recipe.training
    if training.optimizer == "adamw_8bit":
        weights.require_bitsandbytes('optimizer = "adamw_8bit"', 'optimizer = "adamw"')
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if passes.packed:
        attention.install(inner)
    elif (
        training.precision == "bf16"
        and not torch.cuda.is_available()
        and max(sequences.lengths) <= attention.SHORT
    ):
        inner.set_attn_implementation("eager")
    config = SFTConfig(
        **loop.arguments(training, passes.steps, save_every, run_folder.path),
        gradient_accumulation_steps=passes.per_step // team.size,
        **_shared(team),
        max_length=None,  # nothing is cut; preflight has checked
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return RowsTrainer(
        run_folder,
        team,
        model=model,
        args=config,
        train_dataset=Dataset.from_dict({"rows": [list(each) for each in passes.micro_batches]}),
        data_collator=_Collator(sequences, template.pad_id, passes.packed),
        processing_class=template.tokenizer,
        callbacks=[loop.Steps(log)],
    )


def _shared(team: Team) -> dict[str, Any]:
    """How the processes of a team train one model: on GPUs each holds a part of every weight
    (FSDP2); on CPUs each holds all of them, and gradients are averaged (DDP)."""
    if team.size == 1:
        return {}
    if torch.cuda.is_available():
        return {
            "fsdp": True,
            "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"},
        }
    return {"ddp_backend": "gloo", "ddp_find_unused_parameters": False}


class _Collator:
    """Row numbers to tensors: ids and labels, (1, tokens) end to end, or (rows, tokens) padded on
    the right. A row's first token follows nothing, so it never carries loss."""

    def __init__(self, sequences: Sequences, pad_id: int, packed: bool) -> None:
        self._sequences = sequences
        self._pad_id = pad_id
        self._packed = packed

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows = [self._sequences.row(index) for item in items for index in item["rows"]]
        return self._end_to_end(rows) if self._packed else self._padded(rows)

    def _end_to_end(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        around = attention.boundaries([len(ids) for ids, _ in rows])
        labels = torch.from_numpy(np.concatenate([labels for _, labels in rows]).astype("int64"))
        labels[around["cu_seq_lens_q"][:-1]] = IGNORED
        ids = torch.from_numpy(np.concatenate([ids for ids, _ in rows]).astype("int64"))
        return {"input_ids": ids[None], "labels": labels[None], **around}

    def _padded(self, rows: Sequence[Tokens]) -> dict[str, Any]:
        shape = (len(rows), max(len(ids) for ids, _ in rows))
        ids = torch.full(shape, self._pad_id, dtype=torch.long)
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        for place, (row_ids, row_labels) in enumerate(rows):
            length = len(row_ids)
            ids[place, :length] = torch.from_numpy(row_ids.astype("int64"))
            labels[place, :length] = torch.from_numpy(row_labels.astype("int64"))
            mask[place, :length] = 1
        labels[:, 0] = IGNORED
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def _summed_loss(
    self: Any, labels: torch.Tensor, attention_mask: torch.Tensor | None = None, **inputs: Any
) -> dict[str, torch.Tensor]:
    """A causal model's forward that returns Σ −log p, the head run at labelled positions only.

    Padding is on the right, so a causal model needs no mask: no real token sees a padded one.
    """
    hidden = self.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    labelled = wanted != IGNORED
    logits = self.get_output_embeddings()(hidden[labelled]).float()
    loss = torch.nn.functional.cross_entropy(logits, wanted[labelled], reduction="sum")
    return {"loss": loss}
