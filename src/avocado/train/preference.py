"""Preference: DPO and KTO on pairs and labels that we rendered."""

from __future__ import annotations

from avocado.errors import Refused
from avocado.train.assembly import Assembly, Work


def assemble(work: Work) -> Assembly:
    raise Refused("dpo and kto is not there yet")
