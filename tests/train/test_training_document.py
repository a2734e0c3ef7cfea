"""docs/training.md shows recipes that are recipes, and says what every setting is called."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from avocado.rewards import Reward
from avocado.train.methods import Distillation, Dpo, Grpo, Kto, Method
from avocado.train.recipe import Stage, parse

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "training.md").read_text("utf-8")
RECIPES = re.findall(r"```toml\n(name = .*?)```", TEXT, re.DOTALL)


def test_recipes_that_are_shown_are_recipes() -> None:
    shown = {parse(text).method for text in RECIPES}
    assert {"supervised", "dpo", "kto", "grpo", "distillation"} <= shown


def test_the_first_recipe_of_a_newcomer_is_one() -> None:
    guide = (DOCS / "getting-started.md").read_text("utf-8")
    (shown,) = re.findall(r"   ```toml\n(.*?)```", guide, re.DOTALL)
    assert parse(textwrap.dedent(shown)).weights == "lora"


@pytest.mark.parametrize("table", [Dpo, Kto, Grpo, Reward, Distillation, Stage])
def test_every_setting_is_named(table: type[msgspec.Struct]) -> None:
    for name in table.__struct_fields__:
        assert re.search(rf"\b{name}\b", TEXT), f"docs/training.md does not name {name}"


def test_every_choice_is_named() -> None:
    for name in (
        *re.findall(r'"(\w+)"', str(Dpo.__annotations__["loss"])),
        *re.findall(r'"(\w+)"', str(Grpo.__annotations__["loss"])),
        *re.findall(r'"(\w+)"', str(Reward.__annotations__["kind"])),
        *get_args(Method),
    ):
        assert f"`{name}`" in TEXT, f"docs/training.md does not name {name}"
