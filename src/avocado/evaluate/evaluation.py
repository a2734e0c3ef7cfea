"""An evaluation: every suite that a checkpoint is measured by, as its TOML names them.

One table a suite: a file of items with a grade, or tasks of lm-evaluation-harness by name. Strict:
an unknown key is an error, so a typo never passes for a setting. A JSONL file by itself is an
evaluation of one suite. Knows no model.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from avocado.evaluate.graders import Own
from avocado.evaluate.suite import MAX_TOKENS, Role, Suite, SuiteError

if TYPE_CHECKING:
    from avocado.evaluate.harness import Tasks

Name = Annotated[str, Meta(pattern=r"^[\w][\w .-]{0,63}$")]
Positive = Annotated[int, Meta(ge=1)]


class Questions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[suites]]`` with ``data``: own items. What the grade needs stands in the same table.

    ``data`` is relative to the evaluation's file; ``name`` is the data file's by default.
    """

    data: Annotated[str, Meta(min_length=1)]
    name: Name | None = None
    role: Role = "target"
    max_tokens: Positive = MAX_TOKENS
    thinking: bool = False


class HarnessTasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[suites]]`` with ``lm_eval``: tasks of lm-evaluation-harness, each a suite of its name.

    With ``include_path``, a folder of task files, only those are known, and nothing is fetched.
    ``metric`` is one that the task computes for each item, from 0 to 1; its first one by default.
    ``language`` is that of items whose row and task do not say theirs. ``chat`` renders prompts by
    the model's template, as they are served.
    """

    lm_eval: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]
    include_path: str | None = None
    limit: Positive | None = None
    num_fewshot: Annotated[int, Meta(ge=0)] | None = None
    metric: str | None = None
    language: str = "und"
    chat: bool = True
    role: Role = "guard"


_COMMON: Final = frozenset(Questions.__struct_fields__)


@dataclass(frozen=True)
class Evaluation:
    """Suites in the order of the file. ``path`` is where it was read from."""

    path: Path
    entries: tuple[Suite | Tasks, ...]

    @classmethod
    def read(cls, path: Path, max_tokens: int | None = None) -> Evaluation:
        """Reads TOML, or one suite as JSONL. ``max_tokens`` replaces what every suite says.

        Raises:
            SuiteError: not TOML, no suite, an unknown or missing key, a wrong setting of a grade, a
                suite's file that cannot be used, or two suites of one name.
        """
        entries = _read_toml(path) if path.suffix.lower() == ".toml" else (Suite.read(path),)
        if max_tokens is not None:
            entries = tuple(
                replace(each, max_tokens=max_tokens) if isinstance(each, Suite) else each
                for each in entries
            )
        names = [each.name for each in entries if isinstance(each, Suite)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SuiteError(f"{path}: two suites are named {twice[0]!r}: give one another name")
        return cls(path, entries)

    def suites(self) -> Iterator[Suite]:
        """Every suite, with the items that tasks of lm-evaluation-harness ask.

        Raises:
            SuiteError: a task cannot be used, or is named like another suite.
        """
        seen: set[str] = set()
        for entry in self.entries:
            for suite in (entry,) if isinstance(entry, Suite) else entry.suites:
                if suite.name in seen:
                    raise SuiteError(f"{self.path}: two suites are named {suite.name!r}")
                seen.add(suite.name)
                yield suite


def _read_toml(path: Path) -> tuple[Suite | Tasks, ...]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} is not TOML: {error}") from error
    unknown = sorted(document.keys() - {"suites"})
    if unknown:
        raise SuiteError(f"{path}: unknown key {unknown[0]!r}: an evaluation has [[suites]] only")
    tables = document.get("suites")
    if not isinstance(tables, list) or not tables:
        raise SuiteError(f"{path} names no suite: write a [[suites]] table for each")
    entries = []
    for number, table in enumerate(tables, start=1):
        try:
            entries.append(_entry(table, path.parent))
        except (ValueError, TypeError) as error:
            name = table.get("name") if isinstance(table, dict) else None
            named = f"suite {number}" + (f" ({name})" if isinstance(name, str) else "")
            raise SuiteError(f"{path}, {named}: {error}") from error
    return tuple(entries)


def _entry(table: Mapping[str, Any], folder: Path) -> Suite | Tasks:
    """Raises ValueError (msgspec's, or SuiteError): what is wrong with the table."""
    if ("data" in table) == ("lm_eval" in table):
        raise SuiteError("give either data (a file of items) or lm_eval (names of tasks)")
    if "lm_eval" in table:
        from avocado.evaluate.harness import Tasks

        given = msgspec.convert(table, HarnessTasks)
        include = None if given.include_path is None else folder / given.include_path
        if include is not None and not include.is_dir():
            raise SuiteError(f"include_path: there is no folder {include}")
        return Tasks(given, include)
    common = msgspec.convert({k: v for k, v in table.items() if k in _COMMON}, Questions)
    own = {key: value for key, value in table.items() if key not in _COMMON}
    grade = None
    if "grade" in own:
        grade = msgspec.convert(own, Own)
    elif own:
        raise SuiteError(f"unknown key {sorted(own)[0]!r}, and no grade that it could belong to")
    suite = Suite.read(
        folder / common.data,
        grade,
        name=common.name,
        role=common.role,
        max_tokens=common.max_tokens,
        thinking=common.thinking,
    )
    suite.check()
    return suite
