"""A matrix product with a fixed weight, laid out for the processor once, at load.

On a CPU in fp32, PyTorch's own ``linear`` asks MKL, which lays the weight out anew in every call
and favours one maker's processors. oneDNN, which PyTorch carries too, takes a weight that was laid
out before: more than twice as fast on ours from two rows on, and a row's result does not depend on
how many rows there are.
"""

from __future__ import annotations

import torch
from torch.nn import functional


class Linear:
    """``x @ weight.T + bias`` for ``x`` of ``[rows, in]``; ``weight`` is ``[out, in]``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._weight, self._bias = weight, bias
        self._packed: torch.Tensor | None = None
        if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
            # The 8 is the number of rows to lay out for; any number from 2 gives the same speeds.
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
            self._weight = torch.empty(0)  # let go of

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed is None:
            return functional.linear(x, self._weight, self._bias)
        if x.shape[0] == 1:
            # A single row would take another way through oneDNN, and another rounding.
            return self._product(x.expand(2, -1))[:1]
        return self._product(x)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self._bias, "none", [], ""
        )
        return product


def can_pack() -> bool:
    """Whether this PyTorch has oneDNN's packed product (its compiler uses it; it has no public
    name)."""
    return bool(torch._C._has_mkldnn) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
