"""The papers of a bundle: read by Hugging Face's parser and by CycloneDX's own validator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from avocado.errors import Refused
from avocado.lineage import digest_file, digest_folder
from avocado.release.bom import BOM, bill
from avocado.release.bundle import relation_of, task_of, write_papers, write_weights
from avocado.release.card import Card, Scores, notice
from avocado.release.compute import compute_of
from avocado.release.gate import Group
from avocado.terms.attestation import Attestation, Statement
from avocado.terms.licence import Component, Ground, judge
from avocado.terms.licence_facts import licences

SHA = "ab" * 32
PARTS = [
    Component("base", "Qwen/Qwen3-0.6B", "Apache-2.0", SHA, "c1899de"),
    Component("tokenizer", "Qwen/Qwen3-0.6B", "Apache-2.0", SHA, "c1899de"),
    Component("chat template", "Qwen/Qwen3-0.6B", "Apache-2.0", SHA, "c1899de"),
    Component("data", "owner/dates", "CC-BY-4.0", None, f"sha256:{SHA}"),
    Component("data", "our own notes", "MIT OR Apache-2.0", None, f"sha256:{SHA}"),
    Component("teacher", "Qwen/Qwen2.5-72B-Instruct", "LicenseRef-Qwen", None, "main"),
]
ROW = Group("de", 40, 0.5, 0.75, 0.05, 0.4)
WORSE = Group("fr", 40, 0.5, 0.475, -0.1, 0.05)


def card(parts: list[Component] = PARTS, **changed: Any) -> Card:
    verdict = judge(parts, "publication", Ground((), "2026-11-24", "small-1"))
    found = Card(
        name="small-1",
        base="Qwen/Qwen3-0.6B",
        revision="c1899de",
        method="supervised, full",
        licence="Apache-2.0",
        languages=["de", "fr"],
        scores=[Scores("dates", "accuracy", Group("all", 80, 0.5, 0.6, 0.01, 0.2), [ROW, WORSE])],
        verdict=verdict,
        chain=[("checkpoint", f"checkpoint-{SHA}")],
        compute=compute_of("Qwen/Qwen3-0.6B", 600_000_000, 10**15),
        architecture="Qwen3ForCausalLM",
        parameters=600_000_000,
        base_files={"model.safetensors": SHA},
        data_facts=[{"longest": 93}],
    )
    return replace(found, **changed)


def assert_valid(bom: bytes) -> dict[str, Any]:
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom.decode())
    assert problem is None, problem
    value: dict[str, Any] = json.loads(bom)
    return value


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "LICENSE").write_text("Apache License, in full")
    (folder / "NOTICE").write_text("Copyright of the makers\n")
    return folder


def test_the_bill_of_materials_is_valid_and_names_everything_by_hash(
    base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_weights(base, base, out)
    write_papers(base, out, card())
    value = assert_valid((out / BOM).read_bytes())
    parts = {(each["type"], each["name"]): each for each in value["components"]}
    data = parts["data", "owner/dates"]
    assert data["hashes"] == [{"alg": "SHA-256", "content": SHA}]
    assert data["licenses"][0]["license"]["id"] == "CC-BY-4.0"
    template = next(each for each in value["components"] if each["bom-ref"] == "chat-template-2")
    sha = digest_file(out / "chat_template.jinja")
    assert template["hashes"] == [{"alg": "SHA-256", "content": sha}]
    assert parts["machine-learning-model", "Qwen/Qwen3-0.6B"]["version"] == "c1899de"
    teacher = parts["machine-learning-model", "Qwen/Qwen2.5-72B-Instruct"]
    assert teacher["licenses"][0]["license"]["name"] == "LicenseRef-Qwen"
    model = value["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    listed = {each["name"]: each["hashes"][0]["content"] for each in model["components"]}
    shipped = digest_folder(out)
    del shipped[BOM]
    assert listed == shipped
    told = model["modelCard"]
    assert told["modelParameters"]["task"] == "text-generation"
    assert told["modelParameters"]["modelArchitecture"] == "Qwen3ForCausalLM"
    refs = {each["bom-ref"] for each in value["components"] if each["type"] == "data"}
    assert {each["ref"] for each in told["modelParameters"]["datasets"]} == refs
    metrics = told["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type": "accuracy", "value": "0.750000", "slice": "dates, de, 40 items"} in metrics
    assert told["considerations"]["performanceTradeoffs"] == ["dates, fr: -2.5% against the base"]
    properties = {each["name"]: each["value"] for each in told["properties"]}
    assert properties["avocado:training-flop"] == "1.000e+15"
    assert properties["avocado:over-eu-modification-threshold"] == "false"


def test_the_same_inputs_give_the_same_bytes(base: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        out = tmp_path / name
        out.mkdir()
        write_weights(base, base, out)
        write_papers(base, out, card())
        made.append(digest_folder(out))
    assert made[0] == made[1]
    assert bill(card(name="other"), {}) != bill(card(), {})


@pytest.mark.parametrize("licence", [*licences(), "unknown", "Apache-2.0 AND CC-BY-4.0", "Ours"])
def test_every_licence_that_we_know_makes_a_valid_bill(licence: str) -> None:
    parts = [Component(role, "x", licence) for role in ("base", "data", "teacher")]
    assert_valid(bill(card(parts, licence=licence, scores=[], data_facts=[]), {"a": SHA}))


def test_an_attestation_stands_in_the_bill() -> None:
    said = Statement(
        "licence",
        by="Ada",
        date="2026-11-01",
        reason="read it",
        subject="x",
        licence="Ours",
        allows=("sale", "publication"),
    )
    ground = Ground((Attestation(1, said, SHA),), "2026-11-24", "small-1")
    verdict = judge([Component("data", "x", "unknown")], "sale", ground)
    value = assert_valid(bill(card(verdict=verdict), {}))
    found = {each["name"]: each["value"] for each in value["components"][0]["properties"]}
    assert found["avocado:attestation"] == f"1 {SHA}"


def test_hugging_face_reads_the_card(base: Path) -> None:
    data: Any = ModelCard(str(card())).data
    assert (data.base_model, data.license) == ("Qwen/Qwen3-0.6B", "apache-2.0")
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.language == ["de", "fr"]
    assert data.datasets == ["owner/dates"]
    assert data.eval_results is not None
    assert {(each.dataset_config, each.metric_value) for each in data.eval_results} == {
        ("de", 0.75),
        ("fr", 0.475),
        (None, 0.6),
    }
    named: Any = ModelCard(str(card(licence="LicenseRef-Qwen"))).data
    scored = replace(card().scores[0], metric="right answers")
    counted: Any = ModelCard(str(card(scores=[scored]))).data
    assert {each.metric_type for each in counted.eval_results} == {"accuracy"}
    other = named.to_dict()
    assert (other["license"], other["license_name"], other["license_link"]) == (
        "other",
        "qwen",
        "LICENSE",
    )


def test_notice_and_card_show_what_must_be_shown(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_weights(base, base, out)
    write_papers(base, out, card())
    text = (out / "NOTICE").read_text()
    assert text.startswith("Copyright of the makers\n")
    assert "modified version of Qwen/Qwen3-0.6B at c1899de" in text
    assert "- data owner/dates, CC-BY-4.0 <https://creativecommons.org/licenses/by/4.0/" in text
    assert (out / "LICENSE").read_text() == "Apache License, in full"
    qwen = card([*PARTS[:3], Component("teacher", "x", "LicenseRef-Qwen")])
    assert "Built with Qwen" in notice(qwen) or "Improved using Qwen" in notice(qwen)
    assert "**Built with Qwen**" in str(qwen) or "**Improved using Qwen**" in str(qwen)


def test_a_licence_without_its_text_is_not_released(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_weights(base, base, out)
    (base / "LICENSE").unlink()
    write_papers(base, out, card())  # Apache-2.0 we have ourselves
    assert "Apache License" in (out / "LICENSE").read_text()
    (out / "LICENSE").unlink()
    with pytest.raises(Refused, match="put the text of MIT beside the base"):
        write_papers(base, out, card(licence="MIT"))


def test_an_embedding_models_modules_go_along(base: Path, tmp_path: Path) -> None:
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    (base / "1_Pooling" / "evil.py").write_text("boom")
    (base / "modules.json").write_text("[]")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("model.safetensors", "config.json"):
        (checkpoint / name).write_bytes((base / name).read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    write_weights(checkpoint, base, out)
    assert (out / "1_Pooling" / "config.json").is_file()
    assert (out / "modules.json").is_file()
    assert not (out / "1_Pooling" / "evil.py").exists()
    assert task_of(out) == "feature-extraction"
    made = card(task=task_of(out))
    data: Any = ModelCard(str(made)).data
    assert data.pipeline_tag == "feature-extraction"
    assert_valid(bill(made, digest_folder(out)))


def test_what_a_bundle_is_to_its_base(base: Path) -> None:
    assert relation_of(base) == "finetune"
    (base / "config.json").write_text('{"quantization_config": {}}')
    assert relation_of(base) == "quantized"
    (base / "adapter_config.json").write_text("{}")
    assert relation_of(base) == "adapter"


def test_compute_is_held_against_a_third_of_the_original() -> None:
    unknown = compute_of("seedling", 2_000_000, int(3.4e22))
    assert unknown.over
    assert "10²³" in str(unknown)
    assert not compute_of("seedling", 2_000_000, int(3.3e22)).over
    known = compute_of("Qwen/Qwen3-8B@main", 8_000_000_000, 1)
    assert known.original == pytest.approx(6 * 8e9 * 36e12)
    assert not known.over
    assert compute_of("Qwen/Qwen3-30B-A3B", 30_000_000_000, 1).original is None  # not all are used
