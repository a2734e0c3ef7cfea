"""The model card: what a release is, how it was made and what it may be used for. Pure.

Markdown with the metadata that Hugging Face reads (https://huggingface.co/docs/hub/model-cards):
``base_model`` and its relation, languages, licence, data sets and ``model-index``. The same facts
go into the bill of materials (``bom``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from avocado.release.compute import Compute
from avocado.release.gate import Group
from avocado.terms.licence import Finding, Verdict
from avocado.terms.licence_facts import find

Relation = Literal["finetune", "adapter", "quantized", "merge"]
"""Hugging Face's words for what a model is to its base."""

Task = Literal["text-generation", "feature-extraction"]

_HUB_TAGS: Final = frozenset(
    "apache-2.0 mit bsd-2-clause bsd-3-clause cc0-1.0 cc-by-4.0 cc-by-3.0 cc-by-sa-4.0 "
    "cc-by-sa-3.0 cc-by-nc-4.0 cc-by-nc-sa-4.0 llama3.1 llama3.2 llama3.3 llama4 gemma "
    "odc-by pddl unlicense isc".split()
)
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_METRICS: Final = {"right answers": "accuracy"}
"""What a score is called by the hub, where it has a word for it."""
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")


@dataclass(frozen=True, slots=True)
class Scores:
    """One suite: what a score is, all items, and each language."""

    suite: str
    metric: str
    overall: Group
    languages: Sequence[Group] = ()

    def rows(self) -> Iterator[tuple[str, Group]]:
        """(language or ``all``, row)"""
        yield from ((each.name, each) for each in self.languages)
        yield "all", self.overall


@dataclass(frozen=True, slots=True)
class Card:
    """The facts that a model card and a bill of materials state.

    ``method``: how it was refined. ``licence``: the base's. ``chain``: (role, id) of what it came
    from. ``parameters``: of the model; ``architecture``: such as ``Qwen3ForCausalLM``.
    """

    name: str
    base: str
    method: str
    licence: str
    languages: Sequence[str]
    scores: Sequence[Scores]
    verdict: Verdict
    chain: Sequence[tuple[str, str]]
    compute: Compute
    revision: str | None = None
    relation: Relation = "finetune"
    task: Task = "text-generation"
    architecture: str = ""
    parameters: int = 0
    approach: str = "supervised"
    base_files: Mapping[str, str] = field(default_factory=dict)
    """Relative path → SHA-256 of the base's files."""
    data_facts: Sequence[Mapping[str, Any]] = ()
    """The facts of each corpus, of every stage."""

    @property
    def data(self) -> list[Finding]:
        return [each for each in self.verdict.findings if each.component.role == "data"]

    def metadata(self) -> list[str]:
        """The YAML block. Values are JSON, which YAML reads the same."""
        vectors = self.task == "feature-extraction"
        found: dict[str, Any] = {
            **self._licence(),
            "library_name": "sentence-transformers" if vectors else "transformers",
            "pipeline_tag": self.task,
            "base_model": self.base,
            "base_model_relation": self.relation,
        }
        if tags := [each for each in self.languages if _LANGUAGE.fullmatch(each)]:
            found["language"] = tags
        names = dict.fromkeys(each.component.name for each in self.data)
        if datasets := [each for each in names if _HUB_ID.fullmatch(each)]:
            found["datasets"] = datasets
        if self.scores:
            found["model-index"] = [{"name": self.name, "results": list(self._results())}]
        return ["---", *(f"{key}: {_json(value)}" for key, value in found.items()), "---"]

    def _licence(self) -> dict[str, str]:
        if self.licence.lower() in _HUB_TAGS:
            return {"license": self.licence.lower()}
        name = re.sub(r"[^a-z0-9.]+", "-", self.licence.removeprefix("LicenseRef-").lower())
        return {"license": "other", "license_name": name.strip("-"), "license_link": "LICENSE"}

    def _results(self) -> Iterator[dict[str, Any]]:
        for each in self.scores:
            for language, row in each.rows():
                where = {"type": each.suite, "name": each.suite}
                if language != "all":
                    where["config"] = language
                yield {
                    "task": {"type": self.task},
                    "dataset": where,
                    "metrics": [
                        {
                            "type": _METRICS.get(each.metric, each.metric),
                            "value": round(row.refined, 6),
                            "name": f"{each.metric} ({row.items} items)",
                        }
                    ],
                }

    def _table(self) -> Iterator[str]:
        if not self.scores:
            yield "It was not scored against its base."
        for each in self.scores:
            yield f"### {each.suite} ({each.metric})"
            yield ""
            yield "| language | items | base | this model | difference (interval) |"
            yield "|---|---|---|---|---|"
            for language, row in each.rows():
                yield (
                    f"| {language} | {row.items} | {row.base:.1%} | {row.refined:.1%} | "
                    f"{row.difference:+.1%} [{row.low:+.1%}, {row.high:+.1%}] |"
                )
            yield ""

    def __str__(self) -> str:
        banner = [f"**{each}**\n" for each in display_lines(self.verdict)]
        at = f" at {self.revision}" if self.revision else ""
        return "\n".join(
            [
                *self.metadata(),
                "",
                f"# {self.name}",
                "",
                *banner,
                f"{self.base}{at}, refined ({self.method}) and released with Avocado. "
                "The files were changed from those of the base: see NOTICE.",
                "",
                "## Evaluation",
                "",
                "The same held-out items, base and refined model, through the engine that serves.",
                "",
                *self._table(),
                "## Where it comes from",
                "",
                *(f"- {role}: `{artifact}`" for role, artifact in self.chain),
                f"- training compute: {self.compute}",
                "",
                "`bom.cdx.json` lists every part with its hash and its licence (CycloneDX 1.6).",
                "",
                "## Licences",
                "",
                *(f"- {part.role} {part.name}: {part.licence}" for part in self.verdict.components),
                *(f"- to observe: {notice}" for notice in self.verdict.notices),
                "",
            ]
        )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def display_lines(verdict: Verdict) -> list[str]:
    """What a licence wants displayed, such as "Built with Qwen", each once."""
    said = re.compile(r'"((?:Built|Improved) (?:with|using) [^"]+)"')
    found = (match for notice in verdict.notices for match in said.findall(notice))
    return list(dict.fromkeys(found))


def notice(card: Card) -> str:
    """The NOTICE of a release: whose work it is, that it was changed (Apache-2.0 §4b), what must be
    displayed, whose data it learnt from, and every other duty that goes along."""
    at = f" at {card.revision}" if card.revision else ""
    lines = [
        card.name,
        "",
        *display_lines(card.verdict),
        f"This model is a modified version of {card.base}{at}, under {card.licence}.",
        f"Its weights were changed by further training ({card.method}); its tokenizer and",
        "template are those of the base. It is not endorsed by the makers of the base.",
    ]
    learnt = [
        finding
        for finding in card.verdict.findings
        if finding.component.role not in ("base", "tokenizer", "chat template")
    ]
    if learnt:
        lines += ["", "It learnt from:"]
        for each in learnt:
            sources = ", ".join(licence.source for licence in each.licences)
            part = each.component
            lines.append(f"- {part.role} {part.name}, {part.licence}{sources and f' <{sources}>'}")
    if card.verdict.notices:
        lines += ["", "To observe by who passes it on:"]
        lines += [f"- {each}" for each in card.verdict.notices]
    return "\n".join(lines)


def is_spdx(word: str) -> bool:
    """Whether a licence that we know stands on SPDX's list, and not only in our facts."""
    known = find(word)
    return known is not None and not known.id.startswith("LicenseRef-")
