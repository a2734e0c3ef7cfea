"""Rollouts: the model being trained answers prompts, through the engine that serves.

The engine's scheduler runs here on the caller's thread, with the weights as they are now: many
answers at once, each from a seed of its own, so that the same weights and seeds give the same
answers whatever runs beside them. Knows nothing of rewards or losses.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from avocado.data.chat import ChatTemplate, Prompt
from avocado.engine.decoder import decoder_for
from avocado.engine.embedded import MEMORY_SHARE, SMALL
from avocado.engine.engine import Delta, EngineError, Finish
from avocado.engine.logprobs import Told
from avocado.engine.model import CausalModel
from avocado.engine.sampling import Sampling
from avocado.engine.scheduler import Scheduler
from avocado.engine.sequence import Sequence as Running
from avocado.engine.stream import Signal
from avocado.errors import Refused

AT_ONCE: Final = 256
"""Answers that are written at the same time, where memory allows."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer. ``ids`` are all tokens that the model emitted, the stop token included;
    ``logprobs`` (natural) what the engine held of each, before temperature; ``text`` what serving
    would have sent; ``finished`` is False where the maximum of tokens cut it off."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finished: bool


def seeded(
    seed: int, step: int, place: int, max_tokens: int, temperature: float, top_p: float = 1.0
) -> Sampling:
    """How the answer at ``place`` of a ``step`` is drawn: seeded by both, so that a resumed run
    writes the same one again."""
    mark = f"{seed}/{step}/{place}".encode()
    return Sampling(
        max_tokens,
        temperature,
        top_p,
        seed=int.from_bytes(hashlib.sha256(mark).digest()[:7]),
        logprobs=True,
        cache_salt="rollout",
    )


def rollouts(
    model: Any,
    template: ChatTemplate,
    asked: Sequence[tuple[Prompt, Sampling]],
    *,
    half: bool = False,
) -> list[Rollout]:
    """What ``model`` (of transformers, or PEFT's with adapters) answers to each prompt, in order.

    ``sampling.logprobs`` must be on. ``half`` writes with a bfloat16 copy of the weights, as a GPU
    serves them. The model is left in evaluation mode.

    Raises:
        Refused: the model failed: its logits are no numbers, or memory ran out.
    """
    causal = CausalModel(_servable(model, half))
    decoder, _ = decoder_for(causal, min(AT_ONCE, len(asked)), _memory(causal.device))
    failed: list[EngineError] = []

    def say(sequence: Running, signal: Signal) -> None:
        assert isinstance(sequence, _Recorded)
        match signal:
            case Delta():
                sequence.said.append(signal.text)
            case Finish():
                sequence.finished = signal.reason == "stop"
            case EngineError():
                failed.append(signal)

    scheduler = Scheduler(decoder, say)
    backend = template.tokenizer.backend_tokenizer
    running = [_Recorded(prompt, how, template.stop_ids, backend) for prompt, how in asked]
    for sequence in running:
        scheduler.add(sequence)
    with torch.inference_mode():
        while not scheduler.idle:
            scheduler.step()
    if failed:
        raise Refused(f"the model cannot answer: {failed[0]}")
    return [
        Rollout(tuple(each.emitted), tuple(each.logprobs), "".join(each.said), each.finished)
        for each in running
    ]


class _Recorded(Running):
    """A running request that remembers its tokens: their text does not always give them back."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.emitted: list[int] = []
        self.logprobs: list[float] = []
        self.said: list[str] = []
        self.finished = False

    def take(self, token: int, told: Told | None = None) -> list[Signal]:
        assert told is not None
        self.emitted.append(token)
        self.logprobs.append(told.logprob)
        return super().take(token, told)


def _servable(model: Any, half: bool) -> Any:
    """What the engine may run. Adapters are folded into a copy of a small model, which its fast
    path can run; a large or a quantised one is run as it is, without a second copy in memory and
    without rounding its weights anew."""
    if not hasattr(model, "peft_config"):
        return _copied(model).to(torch.bfloat16) if half else model
    quantised = getattr(model.get_base_model(), "hf_quantizer", None) is not None
    if quantised or model.num_parameters() >= SMALL:
        return model
    merged = _copied(model).merge_and_unload()
    return merged.to(torch.bfloat16) if half else merged


def _copied(model: Any) -> Any:
    copied = copy.deepcopy(model)
    copied.__dict__.pop("forward", None)  # a trainer's own, which would run the model copied from
    return copied


def _memory(device: torch.device) -> int:
    """Bytes that keys and values may take: as at serving, or half of what training has left of a
    GPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE)
