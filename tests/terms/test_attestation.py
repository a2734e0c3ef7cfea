"""Attestations stand in a chain: what was changed is found, what is half written is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.errors import Refused
from avocado.release.attestations import Log
from avocado.terms.attestation import Statement, check, parse


def statement(subject: str = "rows.jsonl", **more: Any) -> Statement:
    said: dict[str, Any] = {
        "kind": "licence",
        "by": "Ada",
        "date": "2026-11-24",
        "reason": "read it",
        "subject": subject,
        "scope": "sha256:ab",
        "licence": "MIT",
        **more,
    }
    return Statement(**said)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path / "state" / "attestations.jsonl")
    assert log.read() == ()
    log.append(statement("a", allows=("sale",)))
    log.append(statement("b", kind="threshold", values=(("monthly-users", 10),)))
    log.append(statement("c", until="2027-01-01", text_sha256="ff"))
    return log


def test_what_was_attested_is_read_again(log: Log) -> None:
    found = log.read()
    assert [each.seq for each in found] == [1, 2, 3]
    assert [each.statement.subject for each in found] == ["a", "b", "c"]
    assert found[0].statement.allows == ("sale",)
    assert found[1].statement.values == (("monthly-users", 10),)
    assert len({each.seal for each in found}) == 3


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("key", ["by", "licence", "subject", "date", "seal", "seq", "values"])
def test_a_changed_line_is_named_and_nothing_is_believed(log: Log, number: int, key: str) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    value = json.loads(lines[number])
    value[key] = {"x": 1} if key == "values" else 9 if key == "seq" else "0" * 64
    lines[number] = json.dumps(value).encode() + b"\n"
    log.path.write_bytes(b"".join(lines))
    with pytest.raises(Refused, match=rf"attestations\.jsonl, line {number + 1} was changed"):
        log.read()
    with pytest.raises(Refused, match="was changed"):
        log.append(statement())


@pytest.mark.parametrize("order", [[0, 2], [1, 2], [1, 0, 2], [0, 1, 1, 2], [2]])
def test_a_line_taken_out_moved_or_repeated_is_found(log: Log, order: list[int]) -> None:
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[place] for place in order))
    with pytest.raises(Refused, match="was changed"):
        log.read()


def test_a_line_that_a_kill_cut_short_was_never_acknowledged(log: Log) -> None:
    with log.path.open("ab") as handle:
        handle.write(b'{"seq": 4, "kind": "lic')
    assert len(log.read()) == 3
    assert log.append(statement("d")).seq == 4
    assert [each.statement.subject for each in log.read()] == ["a", "b", "c", "d"]


@given(st.binary(max_size=200))
def test_anything_else_is_refused_with_its_line(data: bytes) -> None:
    if b"\n" not in data:
        assert parse(data) == ()
    else:
        with pytest.raises(Refused, match="line 1"):
            parse(data)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"by": " "}, "needs the name"),
        ({"reason": ""}, "and the reason"),
        ({"date": "24.11.2026"}, "is no date such as"),
        ({"date": "20261124"}, "is no date such as"),
        ({"date": "2026-11-25"}, "lies ahead"),
        ({"until": "2026-02-30"}, "is no date"),
        ({"until": "2026-11-23"}, "cannot hold until"),
    ],
)
def test_nobody_no_reason_no_date(more: dict[str, Any], said: str) -> None:
    check(statement(), "2026-11-24")
    with pytest.raises(Refused, match=said):
        check(statement(**more), "2026-11-24")


def test_it_holds_from_its_date_to_its_last_day() -> None:
    said = statement(until="2026-12-31")
    days = ("2026-11-23", "2026-11-24", "2026-12-31", "2027-01-01")
    assert [said.holds(day) for day in days] == [False, True, True, False]
    assert statement().holds("2099-01-01")
