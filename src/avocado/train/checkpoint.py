"""Checkpoint: what a finished run made, as facts for a manifest. Pure.

A checkpoint is base + corpus + recipe + seed, by hash. Its folder holds safetensors weights (or
adapters) and, byte for byte, every other file of the base that inference needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from avocado.lineage import canonical, digest
from avocado.train.methods import Method
from avocado.train.recipe import Weights


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``tokens`` passed the model over the run, ``trained_tokens`` of them carried loss.

    ``recipe`` is the canonical recipe, ``flops`` the estimate of :func:`training_flops`, ``loss``
    the mean of the last tenth of the steps, ``parameters`` all weights and ``trainable`` those
    that were trained, ``dtype`` that of the stored weights.
    """

    method: Method
    weights: Weights
    recipe: Mapping[str, Any]
    seed: int
    steps: int
    tokens: int
    trained_tokens: int
    parameters: int
    trainable: int
    flops: int
    loss: float
    dtype: str
    template_sha256: str

    def facts(self) -> dict[str, Any]:
        """Plain values for a manifest; :meth:`from_facts` is the inverse."""
        return {**asdict(self), "recipe_sha256": digest(canonical(self.recipe))}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Checkpoint:
        return cls(**{key: value for key, value in facts.items() if key != "recipe_sha256"})


def training_flops(parameters: int, tokens: int, weights: Weights) -> int:
    """Floating-point operations of a run: 6·N·D, or 4·N·D where the weights are frozen.

    N counts the parameters that multiply a token (an untied input table does not), D the tokens.
    2·N·D is the forward pass, 2·N·D the gradient of activations, 2·N·D that of weights, which
    adapters skip for the frozen ones (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
    Attention's part, quadratic in length, is not counted.
    """
    return (6 if weights == "full" else 4) * parameters * tokens
