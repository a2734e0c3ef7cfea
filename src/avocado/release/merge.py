"""Folds a LoRA adapter into its base, and proves that the folded model says the same.

The adapter model and the merged model are run on the same token ids; their logits must agree, or
there is no release: a merge that changes answers was never evaluated. What is written is loaded
again and must say what was merged. The base is never quantised, whatever the adapter was trained
on: 4-bit weights would round the adapter away.
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
        Refused: the difference is beyond ``TOLERANCE``, or what is stored says other things.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    stored = config.dtype or torch.float32
    model = _load(base)
    adapted: Any = PeftModel.from_pretrained(model, adapter, use_safetensors=True).eval()
    size = int(config.get_text_config().vocab_size)
    ids = torch.randint(size, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = adapted(input_ids=ids).logits
        merged: Any = adapted.merge_and_unload()
        difference = _difference(before, merged(input_ids=ids).logits)
        if not difference <= TOLERANCE:
            raise Refused(
                "merging the adapter changes the model's answers (logits differ by "
                f"{difference:.1e}, allowed is {TOLERANCE:.0e}): this merge was never evaluated"
            )
        for weight in merged.parameters():  # not the buffers, which no file holds
            weight.copy_(weight.to(stored))
        rounded = merged(input_ids=ids).logits
        merged.to(stored).save_pretrained(out, safe_serialization=True)
        del model, adapted, merged  # before the second copy comes into memory
        lost = _difference(rounded, _load(out)(input_ids=ids).logits)
    if not lost <= TOLERANCE:
        raise Refused(
            f"the merged model says other things once it is stored (logits differ by {lost:.1e}): "
            "its files are not what was merged"
        )
    return difference


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    return model.eval()


def _difference(before: Any, after: Any) -> float:
    """The largest difference of a logit, relative to the largest logit."""
    return float((before - after).abs().max() / before.abs().max())
