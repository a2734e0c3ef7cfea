"""Weights: a base loaded to be trained, adapters attached, and what was trained written out.

Only safetensors are read or written, and no code that comes with a model runs. Knows nothing about
data or about the loop that trains.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from avocado.errors import Refused
from avocado.train.adapters import attach
from avocado.train.recipe import Recipe

_DTYPES: Final = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def load_model(folder: Path, recipe: Recipe) -> Any:
    """The base, ready to be trained, with the recipe's adapters attached.

    In float32, which the optimizer needs; weights that stay frozen are bfloat16 on a GPU that
    trains in it, and 4-bit NormalFloat for ``qlora`` (Dettmers et al. 2023, arXiv:2305.14314). Only
    safetensors are read, and no code that comes with a model runs. Seeded, because adapters begin
    at random.

    Raises:
        Refused: the adapter would attach to nothing, or bitsandbytes is missing or does not run.
    """
    torch.manual_seed(recipe.training.seed)
    gpu = torch.cuda.is_available()
    frozen = recipe.adapter is not None and gpu and recipe.training.precision == "bf16"
    dtype = torch.bfloat16 if frozen else torch.float32
    more = _quantised(dtype) if recipe.weights == "qlora" else {}
    with quietly():
        model = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, trust_remote_code=False, use_safetensors=True, **more
        )
    return attach(model, recipe.adapter) if recipe.adapter else model


def require_bitsandbytes(setting: str, instead: str) -> None:
    """Raises Refused where ``setting`` cannot work: bitsandbytes is missing or does not load."""
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        raise Refused(
            f"{setting} needs bitsandbytes, which does not load here ({error}): install it, or "
            f"use {instead}"
        ) from error


def load_teacher(folder: Path, device: torch.device, precision: str) -> Any:
    """A model to learn from: frozen, in the precision that is trained in, no adapters."""
    dtype = torch.bfloat16 if precision == "bf16" and device.type != "cpu" else torch.float32
    with quietly():
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
    return model.to(device).eval().requires_grad_(False)


def _quantised(dtype: torch.dtype) -> dict[str, Any]:
    """What loads a model in 4 bits, computing in ``dtype``."""
    require_bitsandbytes('weights = "qlora"', 'weights = "lora"')
    from transformers import BitsAndBytesConfig

    quantization: Any = BitsAndBytesConfig
    place = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {
        "device_map": {"": place},
        "quantization_config": quantization(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    }


@dataclass(frozen=True, slots=True)
class Counts:
    """Parameters: ``all``, those ``trainable``, and those ``multiplying`` (an untied input table
    only looks up)."""

    all: int
    trainable: int
    multiplying: int


def count(model: Any) -> Counts:
    """Counts ``model``'s parameters, adapters included, each tied one once."""
    weights = list(model.parameters())
    everything = sum(_size(weight) for weight in weights)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    lookup = 0 if head is None or table.weight is head.weight else table.weight.numel()
    trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
    return Counts(everything, trainable, everything - lookup)


def _size(weight: Any) -> int:
    """Parameters in a tensor; bitsandbytes lays two of four bits into each byte."""
    packed = getattr(weight, "quant_state", None)
    return weight.numel() if packed is None else math.prod(packed.shape)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's ``counts`` and the numbers of its text configuration, its weights not loaded."""

    counts: Counts
    config: Mapping[str, int]


def shape(folder: Path, recipe: Recipe) -> Shape:
    """Builds the model without memory for its weights (PyTorch's meta device), adapters attached.

    Raises:
        Refused: the adapter would attach to nothing.
    """
    config = configuration(folder)
    with torch.device("meta"), quietly():
        build: Any = AutoModelForCausalLM.from_config
        model = build(config, trust_remote_code=False)
        model = attach(model, recipe.adapter) if recipe.adapter else model
    text = config.get_text_config()
    heads = text.num_attention_heads
    numbers = {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // heads,
        "vocab_size": text.vocab_size,
    }
    return Shape(count(model), numbers)


def configuration(folder: Path) -> Any:
    """The model's configuration; no code that comes with it runs."""
    return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)


def stored_dtype(folder: Path) -> str:
    """The precision of a model's files by its ``config.json``: a checkpoint keeps its base's, so
    that evaluation measures the very weights that serving loads."""
    config = json.loads((folder / "config.json").read_bytes())
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return named if named in _DTYPES else "float32"


def save(
    model: Any,
    folder: Path,
    dtype: str,
    base_name: str,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes ``model.safetensors`` in ``dtype``, or PEFT's two adapter files, into ``folder``.

    ``base_name`` is what an adapter's configuration calls its base: never a path of this machine.
    ``state`` holds the weights where ``model`` has only its part of each.
    """
    adapted = hasattr(model, "peft_config")
    if not adapted and state is not None:
        state = {name: weight.to(_DTYPES[dtype]) for name, weight in state.items()}
    elif not adapted:
        model.to(_DTYPES[dtype])
    model.save_pretrained(str(folder), safe_serialization=True, state_dict=state)
    if adapted:
        path = folder / "adapter_config.json"
        settings = {**json.loads(path.read_bytes()), "base_model_name_or_path": base_name}
        # PEFT keeps names in sets, whose order is another in each process.
        for key, value in settings.items():
            if isinstance(value, list) and all(isinstance(each, str) for each in value):
                settings[key] = sorted(value)
        path.write_text(json.dumps(settings, indent=1, sort_keys=True), "utf-8")
    for extra in ("README.md", "config.json", "generation_config.json"):
        (folder / extra).unlink(missing_ok=True)  # the base's own are what goes with the weights


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns what a full or broken disk makes PyTorch and safetensors raise into one sentence.

    Raises:
        Refused: ``what`` could not be written.
    """
    try:
        yield
    except Exception as error:
        # The tokenizers library says what the system told it by a bare Exception.
        bare = type(error) is Exception and "os error" in str(error)
        if not (bare or isinstance(error, (OSError, RuntimeError, SafetensorError))):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(
            f"{what} cannot be written ({said}): make room, then go on with --resume"
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bars and warnings, which would break up ours."""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of one library about another
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
