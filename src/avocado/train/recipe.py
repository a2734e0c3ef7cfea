"""Recipe: everything that decides what a training run learns, as one frozen value from TOML.

Strict: an unknown key, a wrong type or a value out of range is refused by name. Two recipes with
the same canonical form train the same model. How a run is carried out (where, for how much money,
how often it saves) does not count. The tables of the methods are in ``methods``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from avocado.errors import Refused
from avocado.lineage import canonical, digest
from avocado.train.methods import (
    Distillation,
    Dpo,
    Fraction,
    Grpo,
    Kto,
    Method,
    Positive,
    Rate,
)

Weights = Literal["full", "lora", "qlora"]

Mask = Literal[
    "secrets",
    "personal",
    "private_key",
    "api_key",
    "jwt",
    "email",
    "iban",
    "credit_card",
    "phone",
    "ip_address",
]
"""What ``data.secrets`` finds, by group or kind."""

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

TABLES: Final = ("dpo", "kto", "grpo", "distillation")
"""Methods that have a table of their own."""

NEEDED: Final = ("grpo", "distillation")
"""Those that cannot do without it."""


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[lora]``: low-rank adapters (Hu et al. 2021, arXiv:2106.09685) beside frozen weights.

    ``targets`` names the modules to adapt; ``"all-linear"`` is every linear layer but the head, the
    experts of a mixture included. ``dora`` trains direction and magnitude apart (Liu et al. 2024,
    arXiv:2402.09353); ``rslora`` scales by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732).
    """

    r: Annotated[int, Meta(ge=1, le=1024)] = 16
    alpha: Annotated[float, Meta(gt=0.0)] = 32.0
    dropout: Fraction = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    dora: bool = False
    rslora: bool = False


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[training]``. Lengths and batches are counted in tokens or in training sequences.

    ``batch`` is sequences per optimizer step and ``micro_batch`` how many of them pass the model
    at once (0: all): it bounds memory and does not change what is learnt. Give ``epochs`` or
    ``steps``. ``warmup`` is the share of the steps in which the learning rate rises from zero.
    ``packing`` puts several rows into one of ``max_length`` tokens, exactly: no row sees another.
    ``adamw_8bit`` keeps Adam's two moments in a byte each (bitsandbytes; Dettmers et al. 2022,
    arXiv:2110.02861). ``overfit_check`` learns one small batch by heart before the first step,
    where that is cheap, and takes it back.
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
    packing: bool = True
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    overfit_check: bool = True

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps")


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source. ``path`` is a file, a folder or a Hugging Face data set (``hf://owner/name``).

    ``weight`` is how often its rows come into the corpus: 0.5 is every other one, 2 each twice.
    ``replay`` marks general data that is mixed in against forgetting: it is left out of near
    duplicates' and groups' counts of the task. ``shape`` names the rows' form where it should not
    be detected, ``split`` that of a data set, ``license`` holds for rows that state none. Rows with
    one value in the column ``group`` are held out together or not at all.
    """

    path: Annotated[str, Meta(min_length=1)]
    weight: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0
    replay: bool = False
    shape: str | None = None
    split: str = "train"
    license: Annotated[str, Meta(min_length=1)] | None = None
    group: Annotated[str, Meta(min_length=1)] | None = None


class Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[checks]``: what the corpus accepts besides ``training``'s lengths.

    Rows at least as alike as ``likeness`` (0 to 1) are near duplicates. ``contaminated`` rows hold
    what the evaluation asks. ``invalid`` rows are no example at all. ``mask`` names what is
    replaced in the data: ``"secrets"``, ``"personal"``, or single kinds such as ``"email"``.
    """

    near_duplicates: Literal["drop", "keep", "refuse"] = "drop"
    likeness: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.8
    contaminated: Literal["refuse", "drop"] = "refuse"
    invalid: Literal["refuse", "drop"] = "refuse"
    mask: tuple[Mask, ...] = ()


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[budget]``: a run that would take more is refused before its first step.

    ``cost`` is in units of ``currency``, at ``price_per_hour`` of the machine; ``hours`` of time.
    """

    hours: Annotated[float, Meta(gt=0.0)] | None = None
    cost: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = None
    price_per_hour: Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")] | None = None
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"

    def __post_init__(self) -> None:
        if self.cost is not None and self.price_per_hour is None:
            raise ValueError("a budget's cost needs price_per_hour")


class Compute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[compute]``: where a run is carried out; ``gpus`` a node. It changes no weight that counts
    beyond rounding, so it is no part of what a recipe trains."""

    nodes: Annotated[int, Meta(ge=1, le=1024)] = 1
    gpus: Annotated[int, Meta(ge=1, le=16)] = 1


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[stages]]``: one training of several. It starts from the weights of the stage before it;
    what it leaves out is the recipe's own."""

    name: Annotated[str, Meta(pattern=NAME)]
    method: Method | None = None
    weights: Weights | None = None
    data: Annotated[tuple[str | Data, ...], Meta(min_length=1)] | None = None
    training: Training | None = None
    lora: Lora | None = None
    dpo: Dpo | None = None
    kto: Kto | None = None
    grpo: Grpo | None = None
    distillation: Distillation | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training run, or several ``stages`` of it. ``base`` is ``"seedling"``, a folder or a
    Hugging Face id; ``data`` and ``evaluation`` are paths relative to the recipe's file.
    ``license`` holds for rows that state none. ``evaluation``, where given (items as
    JSONL, or suites as TOML), must not be in the data. ``method`` says what is learnt from,
    ``weights`` which weights learn. ``holdout`` is the share of the data's groups that is not
    learnt: the loss on it is measured before the first step and after the last instead.
    """

    name: Annotated[str, Meta(pattern=NAME)]
    base: Annotated[str, Meta(min_length=1)]
    data: Annotated[tuple[str | Data, ...], Meta(min_length=1)]
    training: Training
    evaluation: str | None = None
    license: Annotated[str, Meta(min_length=1)] = "unknown"
    holdout: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.0
    checks: Checks = Checks()
    method: Method = "supervised"
    weights: Weights = "full"
    lora: Lora | None = None
    dpo: Dpo | None = None
    kto: Kto | None = None
    grpo: Grpo | None = None
    distillation: Distillation | None = None
    budget: Budget | None = None
    compute: Compute | None = None
    stages: tuple[Stage, ...] = ()
    gate: dict[str, Any] | None = None
    """``[gate]``: what the checkpoint will have to prove, settled before it is trained;
    ``release.rules`` reads it."""

    def __post_init__(self) -> None:
        if self.lora is not None and self.weights == "full":
            raise ValueError('a [lora] table needs weights = "lora" (or "qlora")')
        for method in TABLES:
            if getattr(self, method) is not None and self.method != method and not self.stages:
                raise ValueError(f'a [{method}] table needs method = "{method}"')
        if not self.stages and self.method in NEEDED and getattr(self, self.method) is None:
            raise ValueError(f'method = "{self.method}" needs a [{self.method}] table')
        if not self.stages and self.training.micro_batch > self.training.batch * self._answers:
            raise ValueError("micro_batch must not be larger than batch")
        measured = self.method in ("supervised", "pretraining")
        if self.holdout and not self.stages and not measured:
            raise ValueError(f'holdout is not measured for method = "{self.method}"')
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages have one name")
        self.expanded()

    @property
    def _answers(self) -> int:
        """Sequences that one of ``batch`` becomes: reinforcement answers a prompt several times."""
        return self.grpo.generations if self.method == "grpo" and self.grpo else 1

    @property
    def adapter(self) -> Lora | None:
        """The adapter's settings, or None where every weight is trained."""
        return None if self.weights == "full" else self.lora or Lora()

    @property
    def sources(self) -> tuple[Data, ...]:
        """The data, each with its own settings filled in."""
        full = (Data(each) if isinstance(each, str) else each for each in self.data)
        return tuple(
            each if each.license else msgspec.structs.replace(each, license=self.license)
            for each in full
        )

    def expanded(self) -> tuple[Recipe, ...]:
        """The recipe of each stage, named ``recipe.stage``; a recipe without stages is its own."""
        return tuple(self._staged(stage) for stage in self.stages) or (self,)

    def _staged(self, stage: Stage) -> Recipe:
        given = {name: value for name in stage.__struct_fields__ if (value := getattr(stage, name))}
        method = stage.method or self.method
        weights = stage.weights or self.weights
        unused = {name: None for name in TABLES if name != method and name not in given}
        if weights == "full" and "lora" not in given:
            unused["lora"] = None
        changes = {**unused, **given, "name": f"{self.name}.{stage.name}", "stages": ()}
        return msgspec.structs.replace(self, **changes)

    def canonical(self) -> dict[str, Any]:
        """Every setting that counts, defaults filled in: a plain value for a manifest."""
        checked = [self.training, *(stage.training for stage in self.stages)]
        training, *staged = (
            each and msgspec.structs.replace(each, overfit_check=True) for each in checked
        )
        stages = (
            msgspec.structs.replace(stage, training=each)
            for stage, each in zip(self.stages, staged, strict=True)
        )
        counted = msgspec.structs.replace(
            self,
            lora=self.adapter,
            data=self.sources,
            training=training,
            stages=tuple(stages),
            budget=None,
            compute=None,
        )
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(counted))
        del plain["budget"], plain["compute"]
        if self.gate is None:
            del plain["gate"]  # recipes of before there were such keep their hash
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


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Sequence[str]:
    """The dotted keys whose values differ between two canonical recipes."""
    changed: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}")
    return changed


def _sentence(error: str) -> str:
    """msgspec says ``Object contains unknown field `x` - at `$.training` ``; people say keys."""
    text = error.replace("Object contains unknown field", "unknown key")
    text = text.replace("Object missing required field", "missing key")
    found = re.match(r"Invalid enum value '(.*)' - at `\$\.(.*)`$", text, re.DOTALL)
    if found is None:
        return text.replace(" - at `$.", ", in `")
    value, path = found.groups()
    hint = ""
    if path.endswith("method") and value in get_args(Weights):
        hint = f'; which weights learn is said by weights = "{value}"'
    return f"`{path}` cannot be {value!r}, only {', '.join(_choices(path))}{hint}"


def _choices(path: str) -> Sequence[str]:
    """What the schema allows at ``path``, such as ``stages[0].method``."""
    whole = schema()
    found = [whole]
    for key in re.findall(r"\w+", re.sub(r"\[[^\]]*\]", "", path)):
        tables = (table for each in found for table in _meant(each, whole))
        found = [table["properties"][key] for table in tables if key in table.get("properties", {})]
    return [
        value for each in found for meant in _meant(each, whole) for value in meant.get("enum", ())
    ]


def _meant(part: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A part of a schema and all that may stand in its place, down to a list's elements."""
    yield part
    inner = [
        *part.get("anyOf", ()),
        *([part["items"]] if isinstance(part.get("items"), dict) else ()),
    ]
    if "$ref" in part:
        inner.append(whole["$defs"][part["$ref"].rpartition("/")[2]])
    for each in inner:
        yield from _meant(each, whole)
