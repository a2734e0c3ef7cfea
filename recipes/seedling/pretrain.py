"""Pre-trains the seedling: a plain loop, next token over packed rows, from random weights.

Knows nothing about where text comes from or where a model goes; ``make`` does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM


@dataclass(frozen=True)
class Plan:
    """How to train. ``rate`` is the peak of a linear warm-up and a cosine decay to zero.

    ``decay`` pulls the matrices of the layers towards zero; ``row`` is tokens in a row.
    """

    seed: int = 20_240_305
    steps: int = 2_500
    rows: int = 16
    row: int = 256
    rate: float = 3e-3
    warmup: int = 80
    decay: float = 0.1

    @property
    def tokens(self) -> int:
        return self.steps * self.rows * self.row

    def rate_at(self, step: int) -> float:
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Result:
    """``loss`` is nats per token, the mean over the last fiftieth of the steps."""

    loss: float
    seconds: float


def new_model(tokenizer: PreTrainedTokenizerFast, context: int, seed: int) -> Qwen3ForCausalLM:
    """A small Qwen3 with random weights, in float32."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, eos_token_id=[end, pad], pad_token_id=pad
    )
    return model


def pack(documents: Iterator[Sequence[int]], pad: int, plan: Plan) -> torch.Tensor:
    """(steps × rows, row) int16: documents ended by ``pad``; each row starts with a new document.

    What doesn't fit into a row is cut off: the next row starts with the next document.
    """
    import torch

    packed = torch.empty((plan.steps * plan.rows, plan.row), dtype=torch.int16)
    for place in range(len(packed)):
        ids: list[int] = []
        while len(ids) < plan.row:
            ids.extend(next(documents))
            ids.append(pad)
        packed[place] = torch.tensor(ids[: plan.row], dtype=torch.int16)
    return packed


def _optimizers(model: Qwen3ForCausalLM, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for embeddings and norms.

    Muon needs about two thirds of AdamW's steps here; its rate is scaled to match AdamW's.
    """
    import torch

    inner: list[torch.nn.Parameter] = []
    outer: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (inner if parameter.ndim == 2 and "embed" not in name else outer).append(parameter)
    muon = torch.optim.Muon(
        inner, lr=plan.rate, weight_decay=plan.decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(outer, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [muon, adam]


def train(model: Qwen3ForCausalLM, rows: torch.Tensor, plan: Plan) -> Result:
    """One pass over ``rows`` in order, forward in bfloat16 with float32 weights."""
    import torch

    optimizers = _optimizers(model, plan)
    model.train()
    losses: list[float] = []
    began = time.monotonic()
    for step in range(plan.steps):
        batch = rows[step * plan.rows : (step + 1) * plan.rows].long()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate_at(step)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 0 or step == plan.steps - 1:
            spent = time.monotonic() - began
            print(f"step {step:5d}  loss {losses[-1]:.4f}  {spent:6.1f} s", flush=True)
    tail = losses[-max(1, plan.steps // 50) :]
    return Result(sum(tail) / len(tail), time.monotonic() - began)
