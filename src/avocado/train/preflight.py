"""Preflight: what must hold before the first step, each failure one clear sentence.

The rows teach what serving asks for; the padding token is none that answers end with; a micro-batch
says of each row what the row alone says; adapters are where the recipe puts them; and a few steps
on one batch make its loss fall. Nothing here changes what a run learns: weights and random state
are put back to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, Final

import torch

from avocado.data.chat import IGNORED, Chat, ChatTemplate, Row
from avocado.data.example import Example
from avocado.errors import Refused
from avocado.train import adapters
from avocado.train.recipe import Recipe
from avocado.train.sequences import Order, Sequences, end_of_text

SAMPLE: Final = 16
"""Conversations whose prompts are rendered once more, as serving does."""

SOME: Final = 512
"""Tokens of a real micro-batch that the checks which run the model look at; one row at least."""

APART: Final = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest accepted difference between a row's logits in a micro-batch and alone, as a share of the
largest logit: the largest difference in fp32 (sums in another order cost about 1e-6), the mean one
in bf16 (a router may choose otherwise on a tie). A row that sees another is off by 0.1 and more."""

OVERFIT_STEPS: Final = 10
OVERFIT_RATES: Final = (1e-3, 1e-2, 3e-2)
"""Learning rates that are tried in turn, after the recipe's own, which may be too low for so few
steps."""

FALLS: Final = 0.98
"""The share of its first loss that the batch must fall below, unless it is known by heart."""

KNOWN: Final = 0.05

CHEAP: Final = {"cpu": 1e12, "cuda": 1e15}
"""FLOPs up to which one batch is overfitted: seconds of a CPU core, or of a GPU."""


def check_rows(
    sequences: Sequences, template: ChatTemplate, max_length: int, *, documents: bool = False
) -> None:
    """Each row may be trained, whoever made it. ``documents``: raw text, cut where it is long.

    Raises:
        Refused: a row is too long, carries no loss or does not end by teaching a stop token, or
            the padding token is such a stop token (padding's embedding is never trained). Of
            documents, some row must teach the end of text.
    """
    ends = set()
    for index, length in enumerate(sequences.lengths):
        ids, labels = sequences.row(index)
        if length > max_length:
            raise Refused(f"sequence {index + 1} has {length:,} tokens, over {max_length:,}")
        if not (labels[1:] != IGNORED).any():
            raise Refused(f"sequence {index + 1} carries no loss: nothing would be learnt from it")
        if not documents and (int(labels[-1]) not in template.stop_ids or labels[-1] != ids[-1]):
            raise Refused(f"sequence {index + 1} does not end by teaching a stop token")
        ends.add(int(labels[-1]))
    if documents:
        if end_of_text(template) not in ends:
            raise Refused("no document ends by teaching the end-of-text token")
    elif template.pad_id in ends:
        raise Refused(
            "the tokenizer's padding token is the stop token that answers end with: give it a "
            "pad_token of its own"
        )


def check_parity(examples: Iterable[Example], template: ChatTemplate) -> None:
    """A sample's training rows begin each answer where serving's prompt ends.

    Raises:
        Refused: a row trains on another prompt than serving would send, or on the prompt itself.
    """
    for example in islice(examples, SAMPLE):
        rows = template.rows(example.messages, example.tools)
        for index, message in enumerate(example.messages):
            if message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            before, tools = tuple(example.messages[:index]), tuple(example.tools)
            prompts = [
                template.prompt(Chat(before, tools, thinking)).ids for thinking in (False, True)
            ]
            if not any(_answers(row, prompt) for row in rows for prompt in prompts):
                raise Refused(
                    f"{example.file}, row {example.row}: turn {index + 1} is not trained after "
                    "the prompt that serving sends"
                )


def _answers(row: Row, prompt: tuple[int, ...]) -> bool:
    end = len(prompt)
    starts = row.ids[:end] == prompt and len(row.ids) > end
    return starts and row.labels[end] == row.ids[end] and row.labels[end - 1] == IGNORED


def check_adapter(model: Any, recipe: Recipe) -> None:
    """The adapter is on every module that the recipe names, experts included.

    Raises:
        Refused: it is not; up to five are named.
    """
    if recipe.adapter is None:
        return
    missing = adapters.uncovered(model, recipe.adapter)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise Refused(f"[lora] does not reach {', '.join(missing[:5])}{more}")


def check_apart(trainer: Any, sequences: Sequences, order: Order, precision: str) -> None:
    """A micro-batch's logits of each of its rows are those of the row alone.

    Raises:
        Refused: a row sees another, or padding.
    """
    rows = _some(sequences, order)
    model = trainer.accelerator.unwrap_model(trainer.model)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    half = inner.dtype in (torch.bfloat16, torch.float16)
    batch = _batch(trainer, rows)
    with _evaluating(model), torch.no_grad():
        for kind in ["fp32", "bf16"] if precision == "bf16" and not half else [precision]:
            context = trainer.accelerator.autocast() if kind == "bf16" else nullcontext()
            with context:
                together = _in_batch(inner, batch, sequences, rows)
                alone = _alone(inner, sequences, rows)
            for row, ours, theirs in zip(rows, together, alone, strict=True):
                off = (ours.float() - theirs.float()).abs()
                share = float(off.max() if kind == "fp32" else off.mean()) / float(
                    theirs.float().abs().max()
                )
                if not share <= APART[kind]:
                    raise Refused(
                        f"sequence {row + 1} says other things in a micro-batch than alone (logits "
                        f"differ by {share:.1e}, allowed is {APART[kind]:.0e}): set packing = false"
                    )


def _in_batch(
    model: Any, batch: dict[str, Any], sequences: Sequences, rows: list[int]
) -> Iterator[torch.Tensor]:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    begin = 0
    for place, row in enumerate(rows):
        length = sequences.lengths[row]
        if "cu_seq_lens_q" in batch:
            own = hidden[0, begin : begin + length]
        else:
            own = hidden[place, :length]
        begin += length
        yield model.get_output_embeddings()(own)


def _alone(model: Any, sequences: Sequences, rows: list[int]) -> Iterator[torch.Tensor]:
    for row in rows:
        ids = torch.tensor(sequences.row(row)[0].astype("int64"), device=model.device)[None]
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        yield model.get_output_embeddings()(hidden[0])


def check_overfit(trainer: Any, sequences: Sequences, order: Order, rate: float) -> bool:
    """A few steps on one small batch make its loss fall; weights and random state are put back.

    Returns whether it was cheap enough to be tried.

    Raises:
        Refused: the loss does not fall: the labels, the adapter or the base is broken.
    """
    rows = _some(sequences, order)
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    tokens = sum(sequences.lengths[row] for row in rows)
    held = sum(weight.numel() for weight in trainer.model.parameters())
    kind = trainer.args.device.type
    if 6 * held * tokens * OVERFIT_STEPS > CHEAP.get(kind, 0):
        return False
    if kind == "cuda" and 12 * sum(w.numel() for w in weights) > torch.cuda.mem_get_info()[0] // 2:
        return False
    saved = [weight.detach().clone() for weight in weights]
    batch = _batch(trainer, rows)
    first = last = float("inf")
    with _replayed(trainer, weights, saved):
        for each in dict.fromkeys((rate, *OVERFIT_RATES)):
            first, last = _steps(trainer, batch, weights, saved, each)
            if last < max(FALLS * first, KNOWN):
                return True
    raise Refused(
        f"one batch of {len(rows)} rows is not learnt: its loss goes from {first:.3f} to "
        f"{last:.3f} in {OVERFIT_STEPS} steps at learning rates up to {OVERFIT_RATES[-1]}; its "
        "labels, the adapter's targets or the base's weights are broken"
    )


def _steps(
    trainer: Any,
    batch: dict[str, Any],
    weights: list[torch.nn.Parameter],
    saved: list[torch.Tensor],
    rate: float,
) -> tuple[float, float]:
    """The loss before and after; begins from ``saved``."""
    _restore(weights, saved)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    labelled = (batch["labels"][:, 1:] != IGNORED).sum()
    losses = []
    for _ in range(OVERFIT_STEPS):
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=labelled)
        loss.backward()
        losses.append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses[0], losses[-1]


@contextmanager
def _replayed(
    trainer: Any, weights: list[torch.nn.Parameter], saved: list[torch.Tensor]
) -> Iterator[None]:
    """What happens inside leaves no trace: random state, weights, gradients, TRL's counters."""
    devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
    counted = trainer._total_train_tokens
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # set by each step of a run, before it is read
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        _restore(weights, saved)
        for weight in weights:
            weight.grad = None
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = counted


def _restore(weights: list[torch.nn.Parameter], saved: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for weight, before in zip(weights, saved, strict=True):
            weight.copy_(before)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout. Layers of four bits stay as they are: on a CPU bitsandbytes rewrites their
    weights once they evaluate, and training cannot read those."""
    for module in model.modules():
        module.training = hasattr(getattr(module, "weight", None), "quant_state")
    try:
        yield
    finally:
        model.train()


def _some(sequences: Sequences, order: Order) -> list[int]:
    """Rows of the first step, the shortest first, up to :data:`SOME` tokens together."""
    lengths = sequences.lengths
    step = [row for each in order.micro_batches[: order.per_step] for row in each]
    shortest = sorted(dict.fromkeys(step), key=lambda row: (lengths[row], row))
    chosen, total = shortest[:1], lengths[shortest[0]]
    for row in shortest[1:]:
        total += lengths[row]
        if total > SOME:
            break
        chosen.append(row)
    return chosen


def _batch(trainer: Any, rows: list[int]) -> dict[str, Any]:
    made: dict[str, Any] = trainer._prepare_inputs(trainer.data_collator([{"rows": rows}]))
    return made
