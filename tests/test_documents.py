"""Documents that drift fail: their commands exist, and the reference is what `make docs` writes."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from avocado.cli.main import VERBS, cli
from avocado.cli.reference import reference

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def commands(text: str) -> set[tuple[str, ...]]:
    """Every ``avocado verb [subverb]`` that a document shows in code."""
    code = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    code += re.findall(r"^    (.*)$", text, re.MULTILINE)
    found = set()
    for block in code:
        for match in re.finditer(
            r"(?:^|[\s$&;(])avocado ([a-z]+)(?: ([a-z][a-z-]*))?", block, re.MULTILINE
        ):
            found.add(tuple(word for word in match.groups() if word))
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_a_document_shows_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    context = click.Context(cli)
    for verb, *rest in commands(text):
        command = cli.get_command(context, verb)
        assert command is not None, f"{name} shows `avocado {verb}`, which does not exist"
        if rest and isinstance(command, click.Group):
            assert rest[0] in command.commands, f"{name} shows `avocado {verb} {rest[0]}`"
    for target in re.findall(r"`?make ([a-z-]+)`?", text):
        assert target in targets() or target in {"sure", "it"}, f"{name} shows `make {target}`"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (path.parent / link).exists(), f"{name} links to {link}"


def test_the_reference_is_generated_from_the_commands() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference(), (
        "docs/reference.md has drifted: run make docs"
    )


def test_every_verb_takes_json_and_says_what_it_does() -> None:
    def leaves(command: click.Command) -> list[click.Command]:
        if isinstance(command, click.Group):
            return [leaf for each in command.commands.values() for leaf in leaves(each)]
        return [command]

    context = click.Context(cli)
    for verb in VERBS:
        found = cli.get_command(context, verb)
        assert found is not None
        for leaf in leaves(found):
            assert leaf.help, f"avocado {verb} {leaf.name} has no help text"
            assert "--json" in [option for each in leaf.params for option in each.opts]


def test_every_dependency_is_pinned_and_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    named = [*project["dependencies"], *(each for extra in extras for each in extra)]
    pinned = (ROOT / "constraints.txt").read_text().lower()
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    for requirement in named:
        name = re.split(r"[\[<>=;! ]", requirement, maxsplit=1)[0]
        if name == project["name"]:  # an extra that brings another
            continue
        assert f"\n{name.lower()}==" in pinned, f"{name} is not pinned in constraints.txt"
        assert name in reasons, f"docs/dependencies.md does not say why we need {name}"
