"""Adapters: low-rank weights beside frozen ones, on linear layers and on the experts of a mixture.

PEFT makes them. What it would pass over in silence is refused here. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from avocado.errors import Refused
from avocado.train.recipe import Lora


def attach(model: Any, lora: Lora) -> Any:
    """``model`` with fresh adapters, every weight of its own frozen.

    Raises:
        Refused: a named target is no module of this model, the experts of a mixture are asked for
            what they cannot do, or nothing would be trained.
    """
    from peft import LoraConfig, get_peft_model

    modules, parameters = _targets(model, lora)
    if parameters and (lora.dora or lora.dropout):
        setting = "dora" if lora.dora else "dropout"
        raise Refused(
            f"[lora] {setting} does not work on the experts of a mixture: leave it out, or name "
            'the targets without them, such as ["q_proj", "k_proj", "v_proj", "o_proj"]'
        )
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules,
        target_parameters=parameters or None,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
    )
    adapted = get_peft_model(model, settings)
    if not any(weight.requires_grad for weight in adapted.parameters()):
        raise Refused("[lora] attaches to no module of this model")
    return adapted


def experts(model: Any) -> list[str]:
    """The parameters that hold a layer's experts, all in one (experts, out, in) each: they are no
    linear modules, so PEFT must be told their names."""
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "experts"
        for own, weight in module.named_parameters(recurse=False)
        if weight.ndim == 3
    ]


def _targets(model: Any, lora: Lora) -> tuple[str | list[str], list[str]]:
    """The modules and the expert parameters that the adapter's targets name."""
    held = experts(model)
    if isinstance(lora.targets, str):
        # By their last names, as PEFT itself calls those of the mixtures that it knows.
        return lora.targets, sorted({name.rpartition(".")[2] for name in held})
    names = [name for name, _ in model.named_modules()]
    modules, parameters = [], []
    for target in lora.targets:
        if any(name == target or name.endswith(f".{target}") for name in held):
            parameters.append(target)
        elif any(name == target or name.endswith(f".{target}") for name in names):
            modules.append(target)
        else:
            raise Refused(f"[lora] targets: this model has no module {target!r}")
    return modules, parameters


def uncovered(model: Any, lora: Lora) -> list[str]:
    """The linear layers and expert weights of an adapted ``model`` that ``lora`` names and that
    nevertheless carry no adapter that is trained."""
    head = model.get_output_embeddings()
    missing = []
    for name, module in _own_modules(model):
        if isinstance(lora.targets, str):
            wanted = isinstance(module, torch.nn.Linear) and module is not head
        else:
            wanted = any(name.endswith(f".{target}") for target in lora.targets)
        if (wanted or hasattr(module, "lora_A")) and not _learns(module):
            missing.append(name)
    for name, weight in model.named_parameters():
        place, experts_, own = name.partition(".experts.")
        if not experts_ or weight.ndim != 3:
            continue
        own = own.rpartition(".")[2]
        named = isinstance(lora.targets, str) or any(
            f"{place}.experts.{own}".endswith(f".{target}") for target in lora.targets
        )
        wrappers = [
            module
            for inner, module in model.named_modules()
            if f"{inner}.".startswith(f"{place}.experts.")
            and getattr(module, "parameter_name", None) == own
        ]
        if named and not any(map(_learns, wrappers)):
            missing.append(f"{place}.experts.{own}")
    return [name.removeprefix("base_model.model.") for name in missing]


def _own_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """The model's modules, without what PEFT put inside of those that it wraps."""
    for name, module in model.named_modules():
        parts = name.split(".")
        if "base_layer" not in parts and not any(part.startswith("lora_") for part in parts):
            yield name, module


def _learns(module: Any) -> bool:
    """Whether ``module`` itself carries an adapter whose every weight is trained."""
    carried = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
    weights = [weight for each in carried if each is not None for weight in each.parameters()]
    return bool(weights) and all(weight.requires_grad for weight in weights)
