"""Attention over packed rows: rows laid end to end, and no token sees one of another row.

Where the rows begin travels as ``cu_seq_lens_q`` (transformers' name) from the collator through the
model to this function. On a GPU PyTorch's variable-length kernel takes it as it is. Elsewhere rows
of like length are put beside each other, padded for the attention alone, so that nothing of the
size of all tokens squared is ever made. Knows nothing of losses or of what is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME: Final = "avocado_packed"
"""What ``config._attn_implementation`` is called while packed rows are trained."""

SHORT: Final = 512
"""Tokens up to which the plain attention beats the fused one on a CPU in bf16: PyTorch 2.13's
fused backward takes 24 ms there where the plain one takes 4 (16 rows of 100 tokens, 6 heads)."""

ALIKE: Final = 0.7
"""Rows share a padded block down to this share of its longest row's tokens."""


def obstacle(config: Any, longest: int) -> str | None:
    """Why rows of up to ``longest`` tokens cannot be packed for a model of ``config``, or None.

    A layer that carries a state from token to token (linear attention, convolution) would carry it
    from one row into the next; a sliding window is exact only while it holds the longest row.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    states = sorted(kinds - {"full_attention", "sliding_attention"})
    if states:
        return f"its {states[0]} layers carry a state from one row into the next"
    window = getattr(text, "sliding_window", None)
    if "sliding_attention" in kinds and window is not None and window < longest:
        return f"its sliding window of {window:,} tokens is shorter than the longest row"
    return None


def install(model: Any) -> None:
    """Makes ``model`` attend within packed rows; without boundaries it attends as ever."""
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)


def boundaries(lengths: Sequence[int]) -> dict[str, Any]:
    """What the model is called with beside ids: positions that begin anew with each row, int64
    (1, tokens), and where rows begin and end, int32 (rows + 1,)."""
    ends = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
    longest = max(lengths)
    return {
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row. ``query`` is (1, heads, tokens, head size), ``key`` and
    ``value`` have as many heads or a divisor of them; returns (1, tokens, heads, head size)."""
    if cu_seq_lens_q is None:
        mixed = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=True
        )
        return mixed.transpose(1, 2), None
    if dropout == 0.0 and _varlen_runs(query):
        return _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling), None
    return _blocks(query, key, value, cu_seq_lens_q, scaling, dropout), None


def _varlen_runs(query: torch.Tensor) -> bool:
    """Whether PyTorch's kernel takes these tensors: half precision on an NVIDIA Ampere or later."""
    if query.device.type != "cuda":
        return False
    half = query.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled("cuda")
    return half and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    longest: int | None,
    scaling: float,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if query.dtype not in (torch.float16, torch.bfloat16):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if longest is None:
        longest = int(ends.diff().max())
    mixed = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(mixed, torch.Tensor)
    return mixed[None]


@dataclass(frozen=True)
class _Block:
    """Rows of like length: ``places`` (rows, length) of their tokens, padding at place 0."""

    places: torch.Tensor
    mask: torch.Tensor
    """(length, length): 0 where a token may look, else -inf."""

    @property
    def length(self) -> int:
        return self.places.shape[1]


@lru_cache(maxsize=64)
def _layout(ends: tuple[int, ...], device: torch.device) -> tuple[list[_Block], torch.Tensor]:
    """The blocks of rows that end so, and for each token its place in the blocks end to end."""
    spans = sorted(pairwise(ends), key=lambda span: span[0] - span[1])
    groups: list[list[tuple[int, int]]] = []
    for begin, end in spans:
        longest = groups[-1][0][1] - groups[-1][0][0] if groups else 0
        if not groups or end - begin < ALIKE * longest:
            groups.append([])
        groups[-1].append((begin, end))
    blocks, back, offset = [], torch.empty(ends[-1], dtype=torch.long), 0
    for group in groups:
        length = group[0][1] - group[0][0]
        places = torch.zeros(len(group), length, dtype=torch.long)
        for row, (begin, end) in enumerate(group):
            places[row, : end - begin] = torch.arange(begin, end)
            first = offset + row * length
            back[begin:end] = torch.arange(first, first + end - begin)
        offset += len(group) * length
        short = length if length <= SHORT else 0
        mask = torch.full((short, short), float("-inf")).triu(1)
        blocks.append(_Block(places.to(device), mask.to(device)))
    return blocks, back.to(device)


def _blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: torch.Tensor,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    blocks, back = _layout(tuple(ends.tolist()), query.device)
    tokens = [each[0].transpose(0, 1) for each in (query, key, value)]  # (tokens, heads, size)
    mixed = []
    for block in blocks:
        q, k, v = (each[block.places].transpose(1, 2) for each in tokens)
        out = _causal(q, k, v, block, scaling, dropout)  # (rows, heads, length, size)
        mixed.append(out.transpose(1, 2).flatten(0, 1))
    together = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return together[back][None]


def _causal(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block: _Block,
    scaling: float,
    dropout: float,
) -> torch.Tensor:
    """Padding is on the right, so a causal attention needs no other mask for it."""
    half = query.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if not half or block.length > SHORT:
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=True
        )
    repeats = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(repeats, 1)
    value = value.repeat_interleave(repeats, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling + block.mask
    shares = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    if dropout:
        shares = torch.nn.functional.dropout(shares, dropout)
    return torch.matmul(shares, value)
