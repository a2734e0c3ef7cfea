"""Licences are facts: the unknown is refused, the most restrictive wins, the clause is cited."""

from __future__ import annotations

from pathlib import Path

import pytest

from avocado.terms.licence import (
    Component,
    fingerprint,
    judge,
    licence_of_checkpoint,
    licence_of_text,
    licences,
)

APACHE = Component("base", "seedling", "Apache-2.0")


def test_every_fact_has_a_source_a_clause_and_a_date() -> None:
    for licence in licences().values():
        assert licence.source.startswith("https://")
        assert licence.clause
        assert licence.read >= "2026-01-01"
        assert {licence.sale, licence.publication} <= {"allowed", "refused", "ask"}


def test_apache_is_known_by_its_text_whatever_stands_around_it() -> None:
    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    assert licence_of_text(text) == "Apache-2.0"
    assert (
        licence_of_text("Copyright 2026 Somebody\n\n" + text.replace("\n", "\n\n")) == "Apache-2.0"
    )
    assert licence_of_text(text.replace("royalty-free", "royalty-bearing")) is None
    assert fingerprint("a  b") == fingerprint("a\nb")


def test_an_unknown_licence_is_refused() -> None:
    verdict = judge([APACHE, Component("data", "rows.jsonl", "unknown")], "sale")
    assert not verdict.allowed
    assert "rows.jsonl" in verdict.reasons[0]


@pytest.mark.parametrize("purpose", ["sale", "publication"])
def test_apache_may_be_sold_and_published_with_its_notices(purpose: str) -> None:
    verdict = judge([APACHE], purpose)  # type: ignore[arg-type]
    assert verdict.allowed
    assert any("§4b" in notice for notice in verdict.notices)


def test_fault_40_non_commercial_data_is_refused_for_sale_only() -> None:
    data = Component("data", "scraped", "CC-BY-NC-4.0")
    assert not judge([APACHE, data], "sale").allowed
    assert judge([APACHE, data], "publication").allowed


def test_fault_39_a_paid_release_of_qwen25_3b_is_refused_with_its_clause() -> None:
    licence = licence_of_checkpoint("Qwen/Qwen2.5-3B")
    assert licence is not None
    verdict = judge([Component("base", "Qwen/Qwen2.5-3B", licence)], "sale")
    assert "non-commercial" in verdict.reasons[0]
    assert licence_of_checkpoint("Qwen/Qwen9-1B") is None
