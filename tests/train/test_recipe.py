"""Recipes: strict, and equal exactly when they would train the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.train import recipe
from avocado.train.recipe import Recipe

GOOD = """
name = "demo"
base = "seedling"
data = ["a.jsonl"]

[training]
learning_rate = 1e-3
batch = 8
steps = 10
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 10", "steps = 10\nlearnig_rate = 1", "unknown key `learnig_rate`, in `training`"),
        ('name = "demo"', 'name = "demo"\nmodle = "x"', "unknown key `modle`"),
        ('data = ["a.jsonl"]', "", "missing key `data`"),
        ('data = ["a.jsonl"]', "data = []", "in `data`"),
        ("batch = 8", "batch = 0", "in `training.batch`"),
        ("batch = 8", 'batch = "8"', "Expected `int`, got `str`, in `training.batch`"),
        ("batch = 8", "batch = 8\nmicro_batch = 9", "micro_batch must not be larger than batch"),
        ("learning_rate = 1e-3", "learning_rate = nan", "in `training.learning_rate`"),
        ("learning_rate = 1e-3", "learning_rate = 0.0", "in `training.learning_rate`"),
        ("steps = 10", "", "give either epochs or steps"),
        ("steps = 10", "steps = 10\nepochs = 1.0", "give either epochs or steps"),
        ("steps = 10", 'steps = 10\nprecision = "fp8"', "`training.precision` cannot be 'fp8'"),
        ('name = "demo"', 'name = "../demo"', "in `name`"),
        ('name = "demo"', 'name = "demo"\nweights = "dora"', "only full, lora, qlora"),
        ('name = "demo"', 'name = "demo"\nmethod = "lora"', 'is said by weights = "lora"'),
        (
            "steps = 10",
            'steps = 10\n[[stages]]\nname = "a"\n[stages.grpo]\nrewards = [{kind = "is"}]',
            "cannot be 'is', only exact, function, json_schema, regex",
        ),
        ("steps = 10", "steps = 10\n[lora]\nr = 4", 'a [lora] table needs weights = "lora"'),
        ("steps = 10", "steps = = 10", "line 9"),
    ],
)
def test_fault_43_what_is_wrong_with_a_recipe_is_named(old: str, new: str, said: str) -> None:
    with pytest.raises(Refused) as caught:
        recipe.parse(GOOD.replace(old, new), "demo.toml")
    (reason,) = caught.value.reasons
    assert reason.startswith("demo.toml: ")
    assert said in reason


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no recipe"):
        recipe.load(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(Refused, match="cannot be read"):
        recipe.load(tmp_path / "bad.toml")


def test_a_default_that_is_written_out_is_the_same_recipe() -> None:
    written = GOOD.replace("steps = 10", 'steps = 10\nseed = 0\nschedule = "cosine"')
    assert recipe.parse(GOOD).sha256 == recipe.parse(written).sha256
    lora = GOOD.replace('name = "demo"', 'name = "demo"\nweights = "lora"')
    assert recipe.parse(lora).sha256 == recipe.parse(f"{lora}\n[lora]\nr = 16\n").sha256


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("batch = 8", "batch = 9", "training.batch"),
        ("a.jsonl", "b.jsonl", "data"),
        ('base = "seedling"', 'base = "Qwen/Qwen3-0.6B"', "base"),
        ('name = "demo"', 'name = "demo"\nweights = "lora"', "lora"),
    ],
)
def test_fault_43_a_changed_recipe_says_what_changed(old: str, new: str, key: str) -> None:
    before, after = recipe.parse(GOOD), recipe.parse(GOOD.replace(old, new))
    assert before.sha256 != after.sha256
    assert key in recipe.differences(before.canonical(), after.canonical())
    assert not recipe.differences(before.canonical(), before.canonical())


def test_the_schema_names_every_key() -> None:
    schema = recipe.schema()
    names = {name for part in schema["$defs"].values() for name in part.get("properties", ())}
    assert {"name", "base", "data", "learning_rate", "max_length", "r"} <= names
    assert all(not part["additionalProperties"] for part in schema["$defs"].values())


def test_fixture_recipes_are_real(make_recipe: Callable[..., Recipe]) -> None:
    assert make_recipe('weights = "lora"', steps=3).adapter is not None
    assert make_recipe(steps=3).adapter is None


def test_recipes_plans_and_checks_load_without_torch() -> None:
    """`avocado --help` and a refused recipe must answer at once."""
    script = (
        "import sys; import avocado.train.run, avocado.train.plan, avocado.train.base, "
        "avocado.data.corpus; "
        "print([name for name in ('torch', 'transformers', 'numpy', 'trl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
