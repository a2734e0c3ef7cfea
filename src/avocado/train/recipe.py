"""Recipe: everything that decides what a training run learns, as one frozen value from TOML.

Strict: an unknown key, a wrong type or a value out of range is refused by name. Two recipes with
the same canonical form train the same model. How a run is carried out (where, how often it saves)
is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from avocado.errors import Refused
from avocado.lineage import canonical, digest

Positive = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0.0, lt=1.0)]
Rate = Annotated[float, Meta(gt=0.0, le=1.0)]


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[lora]``: low-rank adapters (Hu et al. 2021, arXiv:2106.09685) beside frozen weights.

    ``targets`` names the modules to adapt; ``"all-linear"`` is every linear layer but the head.
    """

    r: Annotated[int, Meta(ge=1, le=1024)] = 16
    alpha: Annotated[float, Meta(gt=0.0)] = 32.0
    dropout: Fraction = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[training]``. Lengths and batches are counted in tokens or in training sequences.

    ``batch`` is sequences per optimizer step and ``micro_batch`` how many of them pass the model
    at once (0: all): it bounds memory and does not change what is learnt. Give ``epochs`` or
    ``steps``. ``warmup`` is the share of the steps in which the learning rate rises from zero.
    """

    learning_rate: Rate
    batch: Positive
    epochs: Annotated[float, Meta(gt=0.0, le=1000.0)] | None = None
    steps: Positive | None = None
    micro_batch: Annotated[int, Meta(ge=0)] = 0
    max_length: Annotated[int, Meta(ge=8)] = 4096
    over_length: Literal["refuse", "drop"] = "refuse"
    warmup: Fraction = 0.03
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    weight_decay: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    clip: Annotated[float, Meta(ge=0.0)] = 1.0
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")
        if self.micro_batch > self.batch:
            raise ValueError("micro_batch must not be larger than batch")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training run. ``base`` is ``"seedling"``, a folder or a Hugging Face id; ``data`` and
    ``evaluation`` are paths relative to the recipe's file. ``license`` holds for rows that state
    none. ``evaluation``, where given, must not be in the data.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    base: Annotated[str, Meta(min_length=1)]
    data: Annotated[tuple[str, ...], Meta(min_length=1)]
    training: Training
    evaluation: str | None = None
    license: Annotated[str, Meta(min_length=1)] = "unknown"
    method: Literal["full", "lora"] = "full"
    lora: Lora | None = None

    def __post_init__(self) -> None:
        if self.lora is not None and self.method != "lora":
            raise ValueError('a [lora] table needs method = "lora"')

    @property
    def adapter(self) -> Lora | None:
        """The adapter's settings, or None where every weight is trained."""
        return (self.lora or Lora()) if self.method == "lora" else None

    def canonical(self) -> dict[str, Any]:
        """Every setting that counts, defaults filled in: a plain value for a manifest."""
        adapter = msgspec.structs.replace(self, lora=self.adapter)
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(adapter))
        return plain

    @property
    def sha256(self) -> str:
        return digest(canonical(self.canonical()))


def parse(text: str, name: str = "recipe") -> Recipe:
    """A recipe from TOML text; ``name`` is what a refusal calls it.

    Raises:
        Refused: no TOML, an unknown key, a missing one, a wrong type or a value out of range.
    """
    try:
        return msgspec.toml.decode(text, type=Recipe)
    except msgspec.DecodeError as error:
        raise Refused(f"{name}: {_sentence(str(error))}") from error


def load(path: Path) -> Recipe:
    """Reads a recipe file. Raises as :func:`parse` does, and where the file cannot be read."""
    try:
        return parse(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        raise Refused(f"there is no recipe {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    return msgspec.json.schema(Recipe)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Sequence[str]:
    """The dotted keys whose values differ between two canonical recipes."""
    changed: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}")
    return changed


def _sentence(error: str) -> str:
    """msgspec says ``Object contains unknown field `x` - at `$.training` ``; people say keys."""
    text = error.replace("Object contains unknown field", "unknown key")
    text = text.replace("Object missing required field", "missing key")
    return text.replace(" - at `$.", ", in `")
