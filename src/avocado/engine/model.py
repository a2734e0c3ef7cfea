"""A causal language model of transformers behind one call: ids in, next-token logits out.

Loads safetensors only and never runs code that comes with a checkpoint. Knows nothing about
requests or sampling.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Cache
from transformers.utils import logging

from avocado.engine.dense_qwen import DenseQwen
from avocado.engine.engine import EngineError


class CausalModel:
    """``model`` is any ``PreTrainedModel`` with a causal head."""

    def __init__(self, model: Any) -> None:
        self.config = model.config.get_text_config(decoder=True)
        self.device: torch.device = model.device
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self.parameters = int(model.num_parameters())
        self.context_length = int(self.config.max_position_embeddings)
        # Where our own forward suits, transformers' model and its weights are let go of.
        self._forward: Any = DenseQwen(model) if DenseQwen.suits(model) else _Foreign(model.eval())

    @classmethod
    def load(
        cls,
        model: str | Path,
        adapter: str | Path | None = None,
        device: str | None = None,
        weights: Weights | None = None,
    ) -> CausalModel:
        """Loads a checkpoint, and folds a LoRA ``adapter`` into it.

        fp32 on a CPU, where half precision is slower; the checkpoint's own type on a GPU.
        ``weights`` gives the tensors where they do not lie in plain files.

        Raises:
            EngineError: there are no safetensors weights, or they do not load.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with without_bars():
                loaded: Any = load_pretrained(AutoModelForCausalLM, model, place, weights)
                if adapter is not None:
                    from peft import PeftModel

                    tuned = PeftModel.from_pretrained(loaded, str(adapter), use_safetensors=True)
                    loaded = tuned.merge_and_unload()
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineError(f"{model} does not load: {error}") from error
        return cls(loaded.to(place))

    def __call__(
        self,
        ids: torch.Tensor,
        cache: Cache,
        *,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        keep: int | torch.Tensor = 1,
    ) -> torch.Tensor:
        """Logits ``[rows, kept, vocabulary]`` of the tokens after ``ids`` ``[rows, time]``.

        ``positions`` ``[rows, time]`` and ``mask`` (added to the attention scores, ``[rows, 1,
        time, all]``) default to what follows from ``cache``, which takes the new keys and values.
        ``keep``: the last so many times, or the times themselves.
        """
        logits: torch.Tensor = self._forward(ids, cache, positions=positions, mask=mask, keep=keep)
        return logits


Weights = Callable[[], Mapping[str, torch.Tensor]]
"""Tensors by name, of a model whose weights do not lie in plain files."""


def load_pretrained(kind: Any, folder: str | Path, place: str, weights: Weights | None) -> Any:
    """A model of transformers' auto class ``kind``: fp32 on a CPU, else the type it was stored in.

    Raises:
        OSError, ValueError, RuntimeError: it does not load.
    """
    dtype = torch.float32 if place == "cpu" else "auto"
    if weights is None:
        return kind.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    config: Any = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    exact = kind._model_mapping[type(config)]
    return exact.from_pretrained(None, config=config, state_dict=dict(weights()), dtype=dtype)


@contextmanager
def without_bars() -> Iterator[None]:
    """Progress is for the command line to show, not for a library's standard error."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


class _Foreign:
    """transformers' own forward, under the names that this release of it uses."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # 5.24 renamed the argument; the old name is slower and on its way out.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def __call__(
        self,
        ids: torch.Tensor,
        cache: Cache,
        *,
        positions: torch.Tensor | None,
        mask: torch.Tensor | None,
        keep: int | torch.Tensor,
    ) -> torch.Tensor:
        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_name: cache},
        )
        logits: torch.Tensor = output.logits
        return logits
