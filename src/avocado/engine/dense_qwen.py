"""Qwen2, Qwen2.5 and Qwen3 (dense) in few, large operations: what ``model.forward`` computes.

transformers' forward takes about sixty operations a layer, and on a small model their overhead is
most of the time. This one takes about fifteen: projections that read the same input are one
product, rotation angles come from a table, and attention reads the cache in place. It loads
nothing itself: it takes a model of transformers apart. Other models keep their own forward, and a
test holds the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention, silu
from transformers import Cache

from avocado.engine.linear import Linear

ARCHITECTURES: Final = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")
FIXED_ROPE: Final = ("default", "linear", "yarn", "llama3")
"""Kinds of rotary embedding whose angles depend on the position alone."""
LONGEST: Final = 2**18
"""Positions that the table of angles may have; at 128 dimensions, a quarter of a gigabyte."""


@dataclass(frozen=True, slots=True)
class _Layer:
    before: torch.Tensor
    qkv: Linear
    head_norms: torch.Tensor | None
    """``[heads of q and k, dim]``, or None where the model has none (Qwen2)."""
    out: Linear
    after: torch.Tensor
    gate_up: Linear
    down: Linear


class DenseQwen:
    """Takes ``model`` (a loaded ``Qwen2ForCausalLM`` or ``Qwen3ForCausalLM``) apart; fp32."""

    @staticmethod
    def suits(model: Any) -> bool:
        """Whether ``model`` is of a kind that this module computes exactly."""
        config = model.config
        return (
            type(model).__name__ in ARCHITECTURES
            and model.dtype == torch.float32
            and set(config.layer_types) == {"full_attention"}
            and config.rope_parameters["rope_type"] in FIXED_ROPE
            and config.hidden_act == "silu"
            and config.max_position_embeddings <= LONGEST
        )

    def __init__(self, model: Any) -> None:
        config, body = model.config, model.model
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._dim = body.layers[0].self_attn.head_dim
        self._scale = self._dim**-0.5
        self._epsilon = config.rms_norm_eps
        self._inner = config.intermediate_size
        self._embedding = body.embed_tokens.weight.detach()
        self._norm = body.norm.weight.detach()
        self._head = Linear(model.lm_head.weight.detach())
        places = torch.arange(config.max_position_embeddings, device=model.device)
        cos, sin = body.rotary_emb(self._embedding, places.unsqueeze(0))
        half = self._dim // 2
        self._cos = cos[0]
        # rotate_half(x) * sin is roll(x) * this: the minus sign moves from x to the table.
        self._sin = torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)
        self._layers = [self._take(layer) for layer in body.layers]

    def _take(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        norms = None
        if hasattr(attention, "q_norm"):
            q = attention.q_norm.weight.detach().expand(self._heads, -1)
            norms = torch.cat((q, attention.k_norm.weight.detach().expand(self._groups, -1)))
        return _Layer(
            layer.input_layernorm.weight.detach(),
            _joined(attention.q_proj, attention.k_proj, attention.v_proj),
            norms,
            _joined(attention.o_proj),
            layer.post_attention_layernorm.weight.detach(),
            _joined(mlp.gate_proj, mlp.up_proj),
            _joined(mlp.down_proj),
        )

    def __call__(
        self,
        ids: torch.Tensor,
        cache: Cache,
        *,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        keep: int | torch.Tensor = 1,
    ) -> torch.Tensor:
        """As :class:`avocado.engine.model.CausalModel`."""
        rows, time = ids.shape
        past = 0
        if positions is None:
            past = cache.get_seq_length()
            positions = torch.arange(past, past + time, device=ids.device).expand(rows, -1)
        if mask is None and past:
            mask = _causal(past, time, self._embedding)
        angles = positions.flatten()
        cos, sin = self._cos[angles].unsqueeze(1), self._sin[angles].unsqueeze(1)
        x = embedding(ids.flatten(), self._embedding)
        size = (x.shape[-1],)
        for index, layer in enumerate(self._layers):
            h = rms_norm(x, size, layer.before, self._epsilon)
            q, k, v = self._heads_of(layer, h, cos, sin, rows, time)
            keys, values = cache.update(k, v, index)
            x = x + layer.out(self._attend(q, keys, values, mask))
            h = rms_norm(x, size, layer.after, self._epsilon)
            both = layer.gate_up(h)
            x += layer.down(silu(both[:, : self._inner]).mul_(both[:, self._inner :]))
        x = x.view(rows, time, -1)
        x = x[:, -keep:] if isinstance(keep, int) else x[:, keep]
        logits = self._head(rms_norm(x, size, self._norm, self._epsilon).flatten(0, 1))
        return logits.view(rows, x.shape[1], -1)

    def _heads_of(
        self,
        layer: _Layer,
        h: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        rows: int,
        time: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each ``[rows, heads, time, dim]``, rotated."""
        qkv = layer.qkv(h).view(rows * time, -1, self._dim)
        rotated = self._heads + self._groups
        qk = qkv[:, :rotated]
        if layer.head_norms is not None:
            qk = rms_norm(qk, (self._dim,), None, self._epsilon) * layer.head_norms
        qk = torch.addcmul(qk * cos, qk.roll(self._dim // 2, -1), sin)
        q, k = qk[:, : self._heads], qk[:, self._heads :]
        v = qkv[:, rotated:]
        if time == 1:
            return q.unsqueeze(2), k.unsqueeze(2), v.unsqueeze(2)

        def apart(each: torch.Tensor) -> torch.Tensor:
            return each.reshape(rows, time, -1, self._dim).transpose(1, 2)

        return apart(q), apart(k), apart(v)

    def _attend(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """``[rows × time, heads × dim]``."""
        rows, heads, time, dim = q.shape
        if time == 1:
            # The queries that share a key stand where several times would: no key is repeated.
            q = q.reshape(rows, self._groups, heads // self._groups, dim)
            found = scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=self._scale)
            return found.reshape(rows, heads * dim)
        found = scaled_dot_product_attention(
            q,
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self._scale,
            enable_gqa=True,
        )
        return found.transpose(1, 2).reshape(rows * time, heads * dim)


def _joined(*projections: Any) -> Linear:
    """Projections of the same input as one; the first one's bias says whether they have any."""
    weight = torch.cat([each.weight.detach() for each in projections])
    if projections[0].bias is None:
        return Linear(weight)
    return Linear(weight, torch.cat([each.bias.detach() for each in projections]))


def _causal(past: int, time: int, like: torch.Tensor) -> torch.Tensor:
    """For a piece of a prompt after ``past`` tokens: ``[1, 1, time, past + time]``."""
    mask = like.new_full((time, past + time), float("-inf"))
    return mask.triu_(past + 1).unsqueeze(0).unsqueeze(0)
