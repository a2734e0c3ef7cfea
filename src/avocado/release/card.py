"""The model card: what a release is, how it was made and what it may be used for.

Markdown with the metadata block that Hugging Face reads
(https://huggingface.co/docs/hub/model-cards, ``base_model_relation``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from avocado.release.gate import Group
from avocado.terms.licence import Verdict


@dataclass(frozen=True, slots=True)
class Card:
    """The facts that a model card states."""

    name: str
    base: str
    method: str
    """How it was refined: ``full`` or ``lora`` (merged)."""
    licence: str
    languages: Sequence[str]
    overall: Group | None
    groups: Sequence[Group]
    verdict: Verdict
    chain: Sequence[tuple[str, str]]
    """(role, id) of what it came from."""
    flops: float

    def metadata(self) -> list[str]:
        """The YAML block. Values are JSON strings, which YAML reads the same."""
        lines = [
            f"license: {self.licence.lower()}",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            f"base_model: {json.dumps(self.base, ensure_ascii=False)}",
            "base_model_relation: finetune",
        ]
        if self.languages:
            lines += ["language:", *(f"- {language}" for language in self.languages)]
        return ["---", *lines, "---"]

    def scores(self) -> list[str]:
        if self.overall is None:
            return ["It was not scored against its base."]
        rows = [
            f"| {group.name} | {group.items} | {group.base:.1%} | {group.refined:.1%} | "
            f"{group.difference:+.1%} [{group.low:+.1%}, {group.high:+.1%}] |"
            for group in (*self.groups, self.overall)
        ]
        return [
            "| language | items | base | this model | difference (95% interval) |",
            "|---|---|---|---|---|",
            *rows,
        ]

    def __str__(self) -> str:
        return "\n".join(
            [
                *self.metadata(),
                "",
                f"# {self.name}",
                "",
                f"{self.base}, refined ({self.method}) and released with Avocado. "
                "The files were changed from those of the base: see NOTICE.",
                "",
                "## Evaluation",
                "",
                "The same held-out items, base and refined model, through the engine that serves.",
                "",
                *self.scores(),
                "",
                "## Where it comes from",
                "",
                *(f"- {role}: `{artifact}`" for role, artifact in self.chain),
                f"- training compute: {self.flops:.3g} FLOP",
                "",
                "## Licences",
                "",
                *(f"- {part.role} {part.name}: {part.licence}" for part in self.verdict.components),
                *(f"- to observe: {notice}" for notice in self.verdict.notices),
                "",
            ]
        )


def notice(name: str, base: str, method: str) -> str:
    """The NOTICE of a release: whose work it is, and that it was changed (Apache-2.0 §4b)."""
    return (
        f"{name}\n\nThis model is a modified version of {base}.\n"
        f"Its weights were changed by further training ({method}); its tokenizer and template\n"
        "are those of the base. It is not endorsed by the makers of the base."
    )
