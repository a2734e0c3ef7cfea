"""``avocado recipe``: what a recipe may hold, for the editors that people write them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avocado.cli.output import Output, with_output
from avocado.release.rules import parse_rules

if TYPE_CHECKING:
    from avocado.train.recipe import Recipe


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe, and its ``[gate]`` as strictly as the gate will.

    Raises:
        Refused: what :func:`avocado.train.recipe.load` says, or rules that are none.
    """
    from avocado.train.recipe import load

    recipe = load(path)
    if recipe.gate is not None:
        parse_rules(recipe.gate, str(path))
    return recipe


@click.group()
def recipe() -> None:
    """What a recipe may hold."""


@recipe.command()
@with_output
def schema(out: Output) -> None:
    """Print the JSON Schema of recipes.

    Write it to a file beside your recipes, and begin each of them with a line such as
    "#:schema recipe.schema.json": editors then complete and check its keys.
    """
    from avocado.train.recipe import schema as recipe_schema

    found = recipe_schema()
    out.result(found, json.dumps(found, indent=2, ensure_ascii=False))
