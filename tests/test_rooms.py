"""Holds the import table of ARCHITECTURE.md: data flows down; money never meets training."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "avocado"

ANYTHING = {"*"}
GROUND = {"errors"}
"""Whatever a room may import, it may say no in the product's one way."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "lineage": set(),
    "configuration": set(),
    "workspace": {"lineage", "configuration"},
    "terms": set(),
    "rewards": set(),
    "intake": set(),
    "seedling": set(),
    "data": {"terms", "lineage"},
    "engine": {"data.chat", "terms"},
    "train": {"data", "engine", "rewards", "terms", "lineage", "seedling", "intake"},
    "evaluate": {"data", "engine", "rewards", "terms", "lineage"},
    "release": {
        "terms",
        "lineage",
        "train.checkpoint",
        "evaluate.scorecard",
        "evaluate.timing",
        "evaluate.compare",
        "evaluate.intervals",
        "evaluate.significance",
    },
    "ledger": {"terms"},
    "billing": {"terms", "ledger"},
    "gateway": {"terms", "data.chat", "engine", "ledger", "release.offer", "release.bundle"},
    "demo": ANYTHING,
    "cli": ANYTHING,
    "console": ANYTHING,
}
NOBODY_IMPORTS = {"cli", "console", "demo"}
DOORS = {"__main__"}
"""``python -m avocado`` is the command line under another name: it may import that; no room is."""
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "stripe", "babel"}
HEAVY |= {"reportlab", "fpdf", "facturx", "stdnum", "lxml", "authlib", "starlette"}
LIGHT_ROOMS = {
    "errors",
    "lineage",
    "configuration",
    "workspace",
    "terms",
    "intake",
    "ledger",
    "billing",
    "gateway",
    "cli",
}
ADAPTERS = {"demo.task"}
"""Modules of light rooms that are themselves only imported when needed."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, *, top_level: bool = False) -> set[str]:
    """Every module that a file names in an import, anywhere in it or only at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            found |= {node.module or ""}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed(target: str, rules: set[str]) -> bool:
    return any(target == rule or target.startswith(f"{rule}.") for rule in rules)


def test_each_room_imports_only_what_the_table_lets_it() -> None:
    broken = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = module_of(path)
        room = module.partition(".")[0]
        if module == "__init__" or module in DOORS:
            continue
        rules = MAY_IMPORT.get(room)
        assert rules is not None, f"{room}/ is a new room: give it a row in the table"
        if rules is ANYTHING:
            continue
        for name in imports_of(path):
            target = name.removeprefix("avocado.")
            if target == name or target.partition(".")[0] == room:
                continue
            named_parent = any(rule.startswith(f"{target}.") for rule in rules)
            if not (allowed(target, rules | GROUND) or named_parent):
                broken.append(
                    f"{module} imports avocado.{target}. {room}/ may import "
                    f"{', '.join(sorted(rules)) or 'nothing of ours'}: pass a frozen value "
                    "instead, or change the table with its reason."
                )
    assert not broken, "\n".join(broken)


def test_nobody_imports_the_doors() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        room = module_of(path).partition(".")[0]
        if room in DOORS:
            continue
        for name in imports_of(path):
            target = name.removeprefix("avocado.").partition(".")[0]
            if (
                name.startswith("avocado.")
                and target in NOBODY_IMPORTS
                and room not in NOBODY_IMPORTS
            ):
                raise AssertionError(
                    f"{module_of(path)} imports {name}: the rooms don't know {target}/"
                )


def test_light_rooms_import_nothing_heavy_at_their_top() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        module = module_of(path)
        if module.partition(".")[0] not in LIGHT_ROOMS or module in ADAPTERS:
            continue
        heavy = {name.partition(".")[0] for name in imports_of(path, top_level=True)} & HEAVY
        assert not heavy, f"{module} imports {heavy} when it loads: import it inside the function"


def test_no_module_hides_behind_a_name_without_meaning() -> None:
    for path in SOURCE.rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "common", "manager", "misc"}, (
            f"{path.name}: name the file for its noun"
        )
