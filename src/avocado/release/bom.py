"""The bill of materials: CycloneDX 1.6 as JSON, with a model card, of all in a release. Pure.

https://cyclonedx.org/docs/1.6/json/. Base, tokenizer, template, data sets and teachers with their
licences and hashes; every file of the bundle; scores, training compute, and what we know not to
know. No time and no machine stand in it: the same release gives the same bytes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from avocado.lineage import canonical
from avocado.release.card import Card, is_spdx
from avocado.terms.licence import Finding
from avocado.terms.licence_facts import UNKNOWN, find

BOM: Final = "bom.cdx.json"
_MODEL: Final = "machine-learning-model"
_TYPES: Final = {"data": "data", "tokenizer": "file", "chat template": "file"}
_TOKENIZER: Final = ("tokenizer.json", "tokenizer.model", "vocab.json")
_TEMPLATE: Final = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


def bill(card: Card, files: Mapping[str, str]) -> bytes:
    """The BOM of a release whose bundle holds ``files`` (relative path → SHA-256) besides it."""
    parts = [_part(number, each, card) for number, each in enumerate(card.verdict.findings)]
    for number, part in enumerate(parts):
        role = card.verdict.findings[number].component.role
        if role in ("tokenizer", "chat template"):
            wanted = _TOKENIZER if role == "tokenizer" else _TEMPLATE
            part["hashes"] = [_sha(files[name]) for name in wanted if name in files][:1]
        if not part.get("hashes"):
            part.pop("hashes", None)
    value: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "avocado"}]},
            "component": _model(card, parts, files),
        },
        "components": parts,
        "dependencies": [
            {"ref": "release", "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, canonical(value).decode())
    value["serialNumber"] = f"urn:uuid:{serial}"
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _model(card: Card, parts: list[dict[str, Any]], files: Mapping[str, str]) -> dict[str, Any]:
    data = [part["bom-ref"] for part in parts if part["type"] == "data"]
    compute = [_property(*each) for each in card.compute.properties().items()]
    return {
        "type": _MODEL,
        "bom-ref": "release",
        "name": card.name,
        "licenses": _licences(card.licence, {}),
        "externalReferences": [{"type": "model-card", "url": "README.md"}],
        "components": [
            {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [_sha(sha)]}
            for name, sha in sorted(files.items())
        ],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": card.approach},
                "task": card.task,
                "architectureFamily": "transformer",
                "modelArchitecture": card.architecture,
                "datasets": [{"ref": each} for each in data],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "vector" if card.task == "feature-extraction" else "text"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(card))},
            "considerations": {
                "useCases": [f"{card.task} in {', '.join(card.languages) or 'no stated language'}"],
                "technicalLimitations": list(_limits(card)),
                "performanceTradeoffs": list(_tradeoffs(card)),
            },
            "properties": [
                _property("avocado:method", card.method),
                _property("avocado:relation-to-base", card.relation),
                _property("avocado:parameters", str(card.parameters)),
                *compute,
                *(_property(f"avocado:{role}", id_) for role, id_ in card.chain),
            ],
        },
    }


def _metrics(card: Card) -> Iterator[dict[str, Any]]:
    for each in card.scores:
        for language, row in each.rows():
            place = f"{each.suite}, {language}, {row.items} items"
            yield {"type": each.metric, "value": f"{row.refined:.6f}", "slice": place}
            yield {
                "type": f"{each.metric} above the base's",
                "value": f"{row.difference:+.6f}",
                "slice": place,
                "confidenceInterval": {
                    "lowerBound": f"{row.low:+.6f}",
                    "upperBound": f"{row.high:+.6f}",
                },
            }


def _limits(card: Card) -> Iterator[str]:
    if not card.scores:
        yield "It was not scored against its base."
    for each in card.scores:
        yield (
            f"Measured on {each.overall.items} items of {each.suite}, in "
            f"{', '.join(row.name for row in each.languages) or 'one language'}; of other tasks "
            "and languages nothing is known."
        )
    for facts in card.data_facts:
        if facts.get("longest"):
            yield f"No training example was longer than {facts['longest']:,} tokens."


def _tradeoffs(card: Card) -> Iterator[str]:
    for each in card.scores:
        for language, row in each.rows():
            if row.difference < 0:
                yield f"{each.suite}, {language}: {row.difference:+.1%} against the base"


def _part(number: int, finding: Finding, card: Card) -> dict[str, Any]:
    part = finding.component
    found: dict[str, Any] = {
        "type": _TYPES.get(part.role, _MODEL),
        "bom-ref": f"{part.role.replace(' ', '-')}-{number}",
        "name": part.name,
        "licenses": _licences(part.licence, {each.id: each.source for each in finding.licences}),
        "properties": [_property("avocado:role", part.role)],
    }
    scope = part.scope.removeprefix("sha256:")
    if part.role == "data":
        if _is_sha(scope):
            found["hashes"] = [_sha(scope)]
        found["data"] = [{"type": "dataset", "name": part.name}]
    elif part.scope:
        found["version"] = part.scope
    if part.text_sha256:
        found["properties"].append(_property("avocado:licence-text-sha256", part.text_sha256))
    found["properties"] += [
        _property("avocado:attestation", f"{each.seq} {each.seal}") for each in finding.cited
    ]
    if part.role == "base":
        found["components"] = [
            {"type": "file", "bom-ref": f"base:{name}", "name": name, "hashes": [_sha(sha)]}
            for name, sha in sorted(card.base_files.items())
        ]
    return found


def _licences(expression: str, sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """As CycloneDX has it: ids of SPDX's list, or one expression, or plain names."""
    words = expression.replace("(", " ").replace(")", " ").split()
    names = [word for word in words if word.upper() not in ("AND", "OR", "WITH")]
    if len(names) > 1 and all(is_spdx(name) for name in names):
        return [{"expression": expression}]
    if not all(find(name) for name in names):
        names = [expression or UNKNOWN]
    found = []
    for name in dict.fromkeys(names):
        known = find(name)
        key = {"id": known.id} if known and is_spdx(name) else {"name": known.id if known else name}
        url = sources.get(known.id if known else name, known.source if known else "")
        found.append({"license": {**key, **({"url": url} if url else {})}})
    return found


def _is_sha(text: str) -> bool:
    return len(text) == 64 and all(each in "0123456789abcdef" for each in text)


def _sha(value: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": value}


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}
