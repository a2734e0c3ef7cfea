"""Facts: each with clause, source and date; texts known by their terms, repositories by name."""

from __future__ import annotations

import hashlib
from importlib.metadata import distributions
from pathlib import Path

import pytest

from avocado.terms.licence_facts import (
    UNKNOWN,
    checkpoints,
    find,
    fingerprint,
    licence_of_checkpoint,
    licence_of_files,
    licence_of_text,
    licences,
    services,
)

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text()
MIT = """MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def test_every_fact_has_a_source_a_clause_and_a_date() -> None:
    for licence in licences().values():
        assert licence.source.startswith("https://")
        assert licence.clause
        assert licence.read >= "2026-01"
        answers = {licence.sale, licence.publication, licence.teaching}
        assert answers <= {"allowed", "refused", "ask"}
        for threshold in licence.thresholds:
            assert threshold.measure in {"monthly-users", "monthly-revenue", "yearly-revenue"}
            assert threshold.effect == "licence" or threshold.notice
        for mark in (*licence.terms_sha256, *licence.file_sha256):
            assert len(mark) == 64
            assert int(mark, 16)


def test_every_checkpoint_and_service_stands_under_a_licence_that_is_known() -> None:
    for name, id_ in (*checkpoints(), *services()):
        assert id_ in licences(), name
    names = [name.lower() for name, _ in checkpoints()]
    assert len(names) == len(set(names)), "a checkpoint under two licences"


def test_no_two_licences_claim_one_text() -> None:
    marks = [mark for each in licences().values() for mark in each.terms_sha256]
    assert len(marks) == len(set(marks))


def test_apache_is_known_by_its_text_whatever_stands_around_it() -> None:
    assert licence_of_text(APACHE) == "Apache-2.0"
    assert (
        licence_of_text("Copyright 2026 Somebody\n\n" + APACHE.replace("\n", "\n\n"))
        == "Apache-2.0"
    )
    assert licence_of_text(APACHE.replace("royalty-free", "royalty-bearing")) is None
    assert fingerprint("a  b") == fingerprint("a\nb")


def test_the_licence_files_of_installed_packages_are_known_or_unknown_never_confused() -> None:
    """What packages declare in their metadata against what their LICENSE files say."""
    seen = 0
    for package in distributions():
        declared = package.metadata.json.get("license_expression")
        if declared not in ("Apache-2.0", "MIT", "BSD-3-Clause", "BSD-2-Clause"):
            continue
        files = [each for each in package.files or () if "licenses/LICENSE" in each.as_posix()]
        if len(files) != 1:
            continue
        text = Path(str(files[0].locate())).read_text("utf-8", errors="replace")
        found = licence_of_text(text)
        assert found in (declared, None), package.name
        seen += found is not None
    assert seen >= 10


@pytest.mark.parametrize(
    "text",
    [
        MIT + "\nOur only change: no commercial use above 100 million monthly active users.\n",
        "For research purposes only.\n\n" + MIT,
        "Copyright (c) 2026 Somebody, non-commercial use only\n\n" + MIT,
        APACHE + "\nExcept that no model may be trained.\n",
        "This model must not be sold.\n" + APACHE,
    ],
)
def test_a_rider_makes_another_text_of_it(text: str) -> None:
    assert licence_of_text(text) is None


def test_mit_is_known_under_any_name() -> None:
    assert licence_of_text(MIT) == "MIT"
    assert licence_of_text(MIT.replace("MIT License", "The MIT License (MIT)")) == "MIT"
    assert licence_of_text(MIT.replace("2026 Somebody", "2020-2026, Two People")) == "MIT"
    assert licence_of_text(MIT[: MIT.index("Permission")]) is None


def test_a_file_that_may_not_stand_in_a_test_is_known_by_its_hash() -> None:
    """Qwen2.5-3B-Instruct's LICENSE at aa8e7253, and the two agreements of 2023."""
    marks = [mark for each in licences().values() for mark in each.file_sha256]
    assert "ef52482bb785733093dc9a2e8edd8e764c77d12d8e9d8f10a80c9b547d32d0f9" in marks
    assert hashlib.sha256(APACHE.encode()).hexdigest() not in marks


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "Apache-2.0"),
        ("qwen/qwen2.5-3b", "LicenseRef-Qwen-Research"),
        ("Qwen/Qwen2.5-3B-Instruct@aa8e72537993ba99", "LicenseRef-Qwen-Research"),
        ("Qwen/Qwen2.5-72B-Instruct", "LicenseRef-Qwen"),
        ("Qwen/Qwen-72B", "LicenseRef-Tongyi-Qianwen"),
        ("Qwen/Qwen3.8-Flash-Next", "LicenseRef-Qwen-Community-1.0"),
        ("Qwen/Qwen3.8-27B", "Apache-2.0"),
        ("openai/gpt-oss-120b", "Apache-2.0"),
        ("gpt-5.6-luna", "LicenseRef-OpenAI-Terms"),
        ("openai/o3-mini", "LicenseRef-OpenAI-Terms"),
        ("claude-sonnet-5", "LicenseRef-Anthropic-Terms"),
        ("anthropic/claude-opus-5", "LicenseRef-Anthropic-Terms"),
        ("us.anthropic.claude-x-v1:0", "LicenseRef-Anthropic-Terms"),
        ("qwen3.7-max", "LicenseRef-Alibaba-Model-Studio"),
        ("EleutherAI/gpt-neox-20b", None),
        ("openai-community/gpt2", None),
        ("Qwen/Qwen9-1B", None),
        ("", None),
    ],
)
def test_a_licence_goes_by_checkpoint(name: str, licence: str | None) -> None:
    assert licence_of_checkpoint(name) == licence


@pytest.mark.parametrize(
    ("word", "id_"),
    [
        ("apache-2.0", "Apache-2.0"),
        (" MIT ", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("llama3.1", "LicenseRef-Llama-3.1"),
        ("gemma", "LicenseRef-Gemma"),
        ("odc-by", "ODC-By-1.0"),
    ],
)
def test_ids_ignore_case_and_hub_tags_are_understood(word: str, id_: str) -> None:
    found = find(word)
    assert found is not None
    assert found.id == id_


def test_unknown_words_name_no_licence() -> None:
    assert find("other") is None
    assert find("") is None
    assert find("Apache") is None


def test_texts_and_repository_hold_together_and_a_tag_counts_for_nothing() -> None:
    research = "LicenseRef-Qwen-Research"
    assert licence_of_files({}, None) == UNKNOWN
    assert licence_of_files({}, "Qwen/Qwen2.5-3B") == research
    assert licence_of_files({"LICENSE": APACHE}, None) == "Apache-2.0"
    assert licence_of_files({"LICENSE": APACHE}, "Qwen/Qwen3-8B") == "Apache-2.0"
    assert licence_of_files({"LICENSE": APACHE}, "Qwen/Qwen2.5-3B") == f"Apache-2.0 AND {research}"
    assert licence_of_files({"LICENSE": "mine"}, "Qwen/Qwen3-8B") == "unknown AND Apache-2.0"
    assert licence_of_files({"LICENSE": MIT, "LICENSE-2": "x"}, None) == "MIT AND unknown"


def test_the_document_says_what_the_facts_say() -> None:
    text = (Path(__file__).parents[2] / "docs" / "licences.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "<https://" in line]
    assert len(rows) == len(licences())
    for row, licence in zip(rows, licences().values(), strict=True):
        name = licence.id.removeprefix("LicenseRef-")
        answers = f"{licence.sale} | {licence.publication} | {licence.teaching}"
        assert row.startswith(f"| {name} | {answers} | ")
        assert row.endswith(f" | <{licence.source}> |")
        assert licence.name_prefix in row
