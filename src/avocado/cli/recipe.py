"""``avocado recipe``: what a recipe may hold, for the editors that people write them in."""

from __future__ import annotations

import json

import click

from avocado.cli.output import Output, with_output


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
