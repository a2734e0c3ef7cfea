"""Distill: on-policy distillation from a larger local model with the same tokenizer."""

from __future__ import annotations

from avocado.errors import Refused
from avocado.train.assembly import Assembly, Work


def assemble(work: Work) -> Assembly:
    raise Refused("distillation from a model is not there yet")
