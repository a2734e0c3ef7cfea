"""Tiny checkpoints: random weights of a real architecture, byte-level BPE, ChatML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from avocado.data.chat import ChatTemplate

CHATML = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n"
    "{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "der Termin ist am 12. März 2024 und kostet 1.234,56 € — the meeting is on March 12 "
    "la reunión cuesta mil pesos, le rendez-vous coûte cent euros 会议在三月十二日举行"
    "，费用一千元 🥑🥑 "
)
SMALL = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,  # random logits far apart, so that greedy text varies and has no ties
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": {**SMALL, "use_sliding_window": False},
    "qwen3": {**SMALL, "head_dim": 16, "tie_word_embeddings": True},
    "qwen3_moe": {
        **SMALL,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "qwen3_5_text": {
        **SMALL,
        "num_hidden_layers": 4,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
}


def tokenizer(marks: Iterable[str] = ()) -> Any:
    """Byte-level BPE of about 400 tokens: every byte, a few merges, ChatML's marks. ``marks`` are
    one token each, as Qwen3's ``<think>`` and ``<tool_call>``."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        [TEXT] * 2,
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            show_progress=False,
        ),
    )
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHATML
    fast.add_tokens([AddedToken(mark, normalized=False) for mark in marks])
    return fast


def make(architecture: str, folder: Path, marks: Iterable[str] = (), **changes: Any) -> Path:
    """Writes a checkpoint into ``folder``: safetensors, tokenizer, template, stop tokens."""
    words = tokenizer(marks)
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        architecture, vocab_size=len(words), **{**CONFIGS[architecture], **changes}
    )
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    for layer in model.modules():  # random biases and norms too: a path that skips one must differ
        for name, weight in layer.named_parameters(recurse=False):
            if weight.dim() == 1:
                torch.nn.init.normal_(weight, mean=0.0 if name == "bias" else 1.0, std=0.2)
    stops = [words.eos_token_id, 0]
    model.generation_config = GenerationConfig(eos_token_id=stops)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of an architecture, made once a session."""
    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = make(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return folder


@pytest.fixture(scope="session")
def template(tiny: Callable[[str], Path]) -> ChatTemplate:
    """The tokenizer and template of the tiny models."""
    return ChatTemplate.load(tiny("qwen3"))


@pytest.fixture(scope="session")
def backend() -> Any:
    """The ``tokenizers.Tokenizer`` of the tiny models."""
    return tokenizer().backend_tokenizer


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small lose by being split, and the machine may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
