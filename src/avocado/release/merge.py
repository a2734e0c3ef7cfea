"""Folds a LoRA adapter into its base, and proves that the folded model says the same.

The adapter model and the merged model are run on the same token ids; their logits must agree, or
there is no release: a merge that changes answers was never evaluated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused

ADAPTER: Final = "adapter_config.json"
"""The file by which a checkpoint of adapters is known (PEFT's name)."""

TOLERANCE: Final = 1e-3
"""Largest accepted difference of a logit, relative to the largest logit, in float32. Folding
W + BA reorders sums, which costs about 1e-6 in float32; a wrong merge is off by far more."""


def is_adapter(checkpoint: Path) -> bool:
    """Whether a checkpoint's folder holds adapters rather than a whole model."""
    return (checkpoint / ADAPTER).is_file()


def merge_adapter(base: Path, adapter: Path, out: Path) -> float:
    """Writes ``base`` with ``adapter`` folded in to ``out``, in the base's own dtype.

    Returns the largest relative difference of a logit between adapter and merged model, measured
    in float32 before the weights are stored.

    Raises:
        Refused: the difference is beyond ``TOLERANCE``.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    stored: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", trust_remote_code=False, use_safetensors=True
    ).dtype
    adapted: Any = PeftModel.from_pretrained(model, adapter).eval()
    size = int(model.config.vocab_size)
    ids = torch.randint(size, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = adapted(input_ids=ids).logits
        merged: Any = adapted.merge_and_unload()
        after = merged(input_ids=ids).logits
    difference = float((before - after).abs().max() / before.abs().max())
    if not difference <= TOLERANCE:
        raise Refused(
            f"merging the adapter changes the model's answers (logits differ by {difference:.1e}, "
            f"allowed is {TOLERANCE:.0e}): this merge was never evaluated"
        )
    merged.to(stored).save_pretrained(out, safe_serialization=True)
    return difference
