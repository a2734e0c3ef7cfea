"""Licences judged: the unknown is refused, the most restrictive wins, the clause is cited."""

from __future__ import annotations

import pytest

from avocado.terms.attestation import Attestation, Statement
from avocado.terms.licence import Component, Ground, judge
from avocado.terms.licence_facts import Purpose, licence_of_checkpoint, licence_of_files

APACHE = Component("base", "seedling", "Apache-2.0")
ROWS = Component("data", "rows.jsonl", "unknown", scope="sha256:ab")
TODAY = "2026-11-24"


def attested(
    part: Component, licence: str, *allows: str, date: str = "2026-11-01", until: str | None = None
) -> Ground:
    said = Statement(
        kind="licence",
        by="Ada",
        date=date,
        reason="read it",
        until=until,
        subject=part.name,
        scope=part.scope,
        text_sha256=part.text_sha256,
        licence=licence,
        allows=allows,
    )
    return Ground((Attestation(1, said, "5ea1"),), TODAY)


def sized(until: str = "2026-12-31", **values: int) -> Ground:
    named = tuple((name.replace("_", "-"), value) for name, value in values.items())
    said = Statement("threshold", "Ada", "2026-11-01", "counted", until, values=named)
    return Ground((Attestation(1, said, "5ea1"),), TODAY)


def test_an_unknown_licence_is_refused() -> None:
    verdict = judge([APACHE, ROWS], "sale")
    assert not verdict.allowed
    assert "rows.jsonl" in verdict.reasons[0]
    assert "avocado licence attest" in verdict.reasons[0]


@pytest.mark.parametrize("purpose", ["sale", "publication"])
def test_apache_may_be_sold_and_published_with_its_notices(purpose: Purpose) -> None:
    verdict = judge([APACHE], purpose)
    assert verdict.allowed
    assert any("§4b" in notice for notice in verdict.notices)
    assert any("§6" in notice for notice in verdict.notices)


def test_fault_39_a_paid_release_of_qwen25_3b_is_refused_with_its_clause() -> None:
    licence = licence_of_checkpoint("Qwen/Qwen2.5-3B")
    assert licence is not None
    verdict = judge([Component("base", "Qwen/Qwen2.5-3B", licence)], "sale")
    assert "§2: research licence, non-commercial use only" in verdict.reasons[0]
    assert "huggingface.co/Qwen/Qwen2.5-3B/blob/main/LICENSE" in verdict.reasons[0]


def test_fault_39_a_paid_release_of_flash_next_is_refused_with_its_clause() -> None:
    base = Component("base", "Qwen/Qwen3.8-Flash-Next", "unknown")
    verdict = judge([base], "sale")
    assert "a separate licence before any commercial model-as-a-service" in verdict.reasons[0]
    assert judge([base], "publication").allowed
    assert any("show the model's name" in each for each in judge([base], "publication").notices)


def test_fault_39_a_repository_that_is_known_overrides_what_was_recorded_of_it() -> None:
    """A public table, or an older version of ours, called it Apache."""
    base = Component("base", "Qwen/Qwen2.5-3B", "Apache-2.0", "ab" * 32, "aa8e7253")
    verdict = judge([base], "sale")
    assert verdict.components[0].licence == "Apache-2.0 AND LicenseRef-Qwen-Research"
    assert len(verdict.reasons) == 1
    assert "Qwen Research" in verdict.reasons[0]


@pytest.mark.parametrize("purpose", ["sale", "publication"])
def test_fault_40_an_apache_tag_with_an_unknown_text_is_refused(purpose: Purpose) -> None:
    licence = licence_of_files({"LICENSE": "You may do nothing."}, "Qwen/Qwen3-8B")
    verdict = judge([Component("base", "Qwen/Qwen3-8B", licence, "ab" * 32)], purpose)
    assert "'unknown', which is not known" in verdict.reasons[0]


def test_fault_40_non_commercial_data_is_refused_for_sale_only() -> None:
    data = Component("data", "scraped", "cc-by-nc-4.0")
    assert not judge([APACHE, data], "sale").allowed
    assert judge([APACHE, data], "publication").allowed


@pytest.mark.parametrize("model", ["gpt-5", "openai/gpt-4.1-mini", "o3", "claude-opus-5"])
@pytest.mark.parametrize("declared", ["MIT", "unknown", "openai"])
@pytest.mark.parametrize("purpose", ["sale", "publication"])
def test_fault_40_a_closed_teacher_is_refused_whatever_is_declared_of_it(
    model: str, declared: str, purpose: Purpose
) -> None:
    verdict = judge([APACHE, Component("teacher", model, declared)], purpose)
    assert any("does not let you train another model on its outputs" in r for r in verdict.reasons)


@pytest.mark.parametrize(
    ("model", "declared", "allowed"),
    [
        ("openai/gpt-oss-120b", "Apache-2.0", True),
        ("Qwen/Qwen3-235B-A22B", "apache-2.0", True),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen", False),  # its threshold is not stated
        ("Qwen/Qwen-72B", "tongyi-qianwen", False),
        ("meta-llama/Llama-3-70B", "llama3", False),
        ("google/gemma-3-27b", "gemma", False),
        ("somebody/model", "unknown", False),
    ],
)
def test_teachers_are_judged_by_what_their_outputs_may_teach(
    model: str, declared: str, allowed: bool
) -> None:
    assert judge([APACHE, Component("teacher", model, declared)], "sale").allowed == allowed


def test_what_a_person_must_decide_names_who_says_so() -> None:
    verdict = judge([Component("data", "wiki", "CC-BY-SA-4.0")], "publication")
    assert "a person must decide" in verdict.reasons[0]
    assert "§3(b)" in verdict.reasons[0]


def test_an_attestation_lets_the_unknown_be_what_a_person_says() -> None:
    ground = attested(ROWS, "MIT")
    verdict = judge([APACHE, ROWS], "sale", ground)
    assert verdict.allowed
    assert verdict.components[1].licence == "MIT"
    assert [each.seal for each in verdict.cited] == ["5ea1"]
    assert not judge([ROWS], "sale", attested(ROWS, "CC-BY-NC-4.0")).allowed


@pytest.mark.parametrize(
    "other",
    [
        Component("data", "rows.jsonl", "unknown", scope="sha256:cd"),
        Component("data", "rows.jsonl", "unknown", "ff", "sha256:ab"),
        Component("data", "other.jsonl", "unknown", scope="sha256:ab"),
    ],
)
def test_an_attestation_is_about_one_thing(other: Component) -> None:
    assert not judge([other], "sale", attested(ROWS, "MIT")).allowed


def test_an_attestation_ends_and_does_not_begin_before_its_date() -> None:
    over = judge([ROWS], "sale", attested(ROWS, "MIT", until="2026-11-23"))
    assert "the attestation of 2026-11-01 is over" in over.reasons[0]
    assert judge([ROWS], "sale", attested(ROWS, "MIT", until=TODAY)).allowed
    assert not judge([ROWS], "sale", attested(ROWS, "MIT", date="2026-11-25")).allowed


def test_the_newest_word_counts() -> None:
    first, second = attested(ROWS, "MIT"), attested(ROWS, "CC-BY-NC-4.0")
    later = Attestation(2, second.attestations[0].statement, "2222")
    assert not judge([ROWS], "sale", Ground((*first.attestations, later), TODAY)).allowed


def test_share_alike_is_allowed_only_for_what_a_person_answers_for() -> None:
    wiki = Component("data", "wiki", "CC-BY-SA-4.0", scope="sha256:ab")
    ground = attested(wiki, "CC-BY-SA-4.0", "sale")
    assert judge([wiki], "sale", ground).allowed
    assert not judge([wiki], "publication", ground).allowed


@pytest.mark.parametrize("part", [
    Component("base", "Qwen/Qwen2.5-3B", "LicenseRef-Qwen-Research", "ab", "aa8e"),
    Component("base", "renamed", "LicenseRef-Qwen-Research", "ab", "sha256:1"),
    Component("base", "Qwen/Qwen2.5-3B", "unknown", None, "aa8e"),
])  # fmt: skip
def test_a_word_does_not_change_a_licence_that_is_known(part: Component) -> None:
    assert not judge([part], "sale", attested(part, "Apache-2.0", "sale")).allowed
    assert not judge([part], "sale", attested(part, "LicenseRef-Qwen-Research", "sale")).allowed


def test_a_separate_agreement_does_for_what_it_was_read_to_allow() -> None:
    part = Component("base", "Qwen/Qwen2.5-3B", "LicenseRef-Qwen-Research", "ab", "aa8e")
    ground = attested(part, "LicenseRef-Alibaba-2026-17", "sale")
    assert judge([part], "sale", ground).allowed
    assert "nobody has answered for" in judge([part], "publication", ground).reasons[0]


QWEN = Component("base", "Qwen/Qwen2.5-72B-Instruct", "LicenseRef-Qwen")
MAX = Component("base", "Qwen/Qwen3.8-2.4T-A95B", "LicenseRef-Qwen-Max-3.8")


def test_a_threshold_is_asked_and_holds_for_a_while() -> None:
    asked = judge([QWEN], "sale")
    assert "above 100,000,000 monthly active users" in asked.reasons[0]
    assert "avocado licence attest threshold" in asked.reasons[0]
    verdict = judge([QWEN], "sale", sized(monthly_users=100_000_000))
    assert verdict.allowed
    assert [each.seq for each in verdict.cited] == [1]
    assert any("Built with Qwen" in notice for notice in verdict.notices)
    above = judge([QWEN], "sale", sized(monthly_users=100_000_001))
    assert "Ada stated 100,000,001 on 2026-11-01" in above.reasons[0]
    assert not judge([QWEN], "sale", sized(until="2026-11-23", monthly_users=1)).allowed
    assert not judge([QWEN], "sale", sized(yearly_revenue=1)).allowed


def test_revenue_of_a_year_bounds_that_of_a_month() -> None:
    small = judge([MAX], "sale", sized(yearly_revenue=20_000_000, monthly_users=5))
    assert small.allowed
    assert not any("show the model's name" in notice for notice in small.notices)
    middle = judge([MAX], "sale", sized(yearly_revenue=20_000_001, monthly_users=5))
    assert middle.allowed
    assert any("show the model's name" in notice for notice in middle.notices)
    assert not judge([MAX], "sale", sized(yearly_revenue=50_000_001, monthly_users=5)).allowed


def test_llama_has_a_say_in_the_name() -> None:
    base = Component("base", "meta-llama/Llama-3.1-8B", "llama3.1")
    ground = sized(monthly_users=1)
    assert any("begin with 'Llama'" in each for each in judge([base], "sale", ground).notices)
    refused = judge([base], "sale", Ground(ground.attestations, TODAY, "avocado-1"))
    assert "'avocado-1' does not" in refused.reasons[0]
    assert judge([base], "sale", Ground(ground.attestations, TODAY, "Llama-avocado-1")).allowed


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT OR CC-BY-NC-4.0", True),
        ("MIT AND CC-BY-NC-4.0", False),
        ("CC-BY-NC-4.0 OR unknown", False),
        ("mit or apache-2.0", True),
        ("MIT AND Apache-2.0 OR CC-BY-NC-4.0", True),
        ("(MIT OR CC-BY-NC-4.0) AND Apache-2.0", False),  # grouping is not understood
        ("Apache-2.0 WITH LLVM-exception", False),
        ("", False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    assert judge([Component("data", "x", expression)], "sale").allowed == allowed


def test_the_most_restrictive_of_all_wins_and_every_reason_is_told() -> None:
    parts = [APACHE, ROWS, Component("data", "b", "CC-BY-NC-4.0"), Component("teacher", "o3", "x")]
    verdict = judge(parts, "sale")
    assert len(verdict.findings) == 4
    assert verdict.findings[0].allowed
    assert all(word in " ".join(verdict.reasons) for word in ("rows.jsonl", "data b", "teacher o3"))
