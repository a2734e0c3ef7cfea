"""A model folder made by hand: real safetensors files, a template, nothing that needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "vocab_size": 8,
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
)
SHAPES = {
    "model.embed_tokens.weight": [8, 4],
    "model.layers.0.mlp.weight": [4, 4],
    "model.layers.1.mlp.weight": [4, 4],
}

Entries = dict[str, Any]


def entries(shapes: Mapping[str, list[int]] = SHAPES) -> Entries:
    """The header of float32 tensors that lie one after the other."""
    found: Entries = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (rows, columns) in shapes.items():
        end = position + 4 * rows * columns
        found[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [position, end]}
        position = end
    return found


def write_tensors(path: Path, header: Entries | bytes, size: int | None = None) -> None:
    """A file with this header, and as many zero bytes as its tensors claim, or ``size``."""
    if size is None:
        assert not isinstance(header, bytes)
        size = max(each["data_offsets"][1] for key, each in header.items() if key[:1] != "_")
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_tensors(folder / "model.safetensors", entries())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
