"""Rewards: the same answer gets the same number, and a rule that cannot judge says so."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avocado.errors import Refused
from avocado.rewards import Reward, Scorer, score, spoken

EXACT = Reward(kind="exact")
AMOUNT = {
    "type": "object",
    "properties": {"amount": {"type": "number"}, "currency": {"pattern": "^[A-Z]{3}$"}},
    "required": ["amount"],
    "additionalProperties": False,
}


def one(reward: Reward, answer: str, reference: str | None = None, **fields: Any) -> float:
    return score([reward], answer, reference, fields).total


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("42", 1), (" 42\n", 1), ("43", 0), ("", 0), ("<think>\n43?\n</think>\n\n42", 1)],
)
def test_exact(answer: str, wanted: int) -> None:
    assert one(EXACT, answer, "42 ") == wanted


def test_exact_without_a_reference_says_so() -> None:
    assert Scorer([EXACT]).needs_reference
    with pytest.raises(Refused, match="needs rows with a reference"):
        one(EXACT, "42")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ('{"amount": 3}', 1),
        (' {"amount": 3.5, "currency": "EUR"} ', 1),
        ('{"amount": 3, "currency": "euro"}', 0),
        ('{"amount": "3"}', 0),
        ('{"amount": 3, "more": 1}', 0),
        ('{"amount": NaN}', 0),
        ('{"amount": 3} and so on', 0),
        ("```json\n{}\n```", 0),
        ("", 0),
        ("[" * 100_000, 0),
        ('{"amount": ' + "9" * 5000 + "}", 0),
    ],
)
def test_json_schema(answer: str, wanted: int) -> None:
    assert one(Reward(kind="json_schema", schema=AMOUNT), answer) == wanted


def test_a_schema_is_checked_before_it_judges() -> None:
    with pytest.raises(Refused, match="is no JSON Schema: 'numbr' is not valid"):
        Scorer([Reward(kind="json_schema", schema={"type": "numbr"})])


def test_a_schema_fetches_nothing() -> None:
    reward = Reward(kind="json_schema", schema={"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(Refused, match="refers to what it does not hold"):
        one(reward, "1")


def test_regex_matches_the_whole_answer() -> None:
    reward = Reward(kind="regex", pattern=r"\d+ (EUR|USD)")
    assert [one(reward, text) for text in ("3 EUR", "3 EUR.", "it is 3 EUR", " 3 USD\n")] == [
        *(1, 0, 0, 1)
    ]
    with pytest.raises(Refused, match="is no regular expression: missing"):
        Scorer([Reward(kind="regex", pattern="(")])


@pytest.mark.parametrize(
    "reward",
    [
        Reward(kind="regex", pattern=r"(a|aa)+"),
        Reward(kind="json_schema", schema={"pattern": r"^(a|aa)+$"}),
    ],
)
def test_a_pattern_that_never_ends_is_stopped(
    reward: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avocado.rewards.SECONDS", 0.2)
    answer = "a" * 60 + "?"
    answer = f'"{answer}"' if reward.schema else answer
    began = time.monotonic()
    with pytest.raises(Refused, match=r"took over 0.2 s on .*: write it without nested repeats"):
        one(reward, answer)
    assert time.monotonic() - began < 10


MODULE = """
def shorter(answer, reference, row):
    return len(answer) <= row["most"]

def broken(answer, reference, row):
    return {}["missing"]

def returns(answer, reference, row):
    return float(answer) if answer else None

value = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "house_rules.py").write_text(MODULE)
    (tmp_path / "ill.py").write_text("raise OSError('no licence')")
    monkeypatch.chdir(tmp_path)
    for name in ("house_rules", "ill"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def by(function: str) -> Reward:
    return Reward(kind="function", function=function)


@pytest.mark.usefixtures("module")
def test_a_function_of_the_working_directory_judges() -> None:
    reward = by("house_rules:shorter")
    assert [one(reward, text, most=3) for text in ("abc", "abcd", "<think>x</think>abc")] == [
        1,
        0,
        1,
    ]
    assert str(Path.cwd()) not in sys.path


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("function", "answer", "reason"),
    [
        ("nowhere:rule", "", r"module nowhere cannot be imported \(ModuleNotFoundError: No module"),
        ("ill:rule", "", r"module ill cannot be imported \(OSError: no licence\)"),
        ("house_rules:missing", "", "house_rules's missing has nothing of that name"),
        ("house_rules:value", "", "house_rules's value is no function"),
        ("house_rules:broken", "yes", "broken raised KeyError: 'missing', on 'yes'"),
        ("house_rules:returns", "nan", "returned nan on 'nan'; it must be a number from 0 to 1"),
        ("house_rules:returns", "1.01", "returned 1.01 on"),
        ("house_rules:returns", "-1", "returned -1.0 on"),
        ("house_rules:returns", "", "returned None on"),
    ],
)
def test_a_function_that_cannot_judge_says_why(function: str, answer: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        one(by(function), answer)


def test_the_total_is_the_weighted_mean() -> None:
    rewards = [
        Reward(kind="exact", weight=3.0),
        Reward(kind="regex", pattern=r"\d+"),
        Reward(kind="regex", pattern=r"4.*"),
    ]
    scored = score(rewards, "43", "42")
    assert scored.parts == {"exact": 0, "regex": 1, "regex_2": 1}
    assert scored.total == 2 / 5
    assert score(rewards, "42", "42").total == 1


@pytest.mark.parametrize(
    ("text", "thinking", "wanted"),
    [
        ("plain", False, "plain"),
        ("<think>a</think>b", False, "b"),
        ("a</think>b", True, "b"),
        ("a</think>b", False, "b"),
        ("<think>never ends", False, ""),
        ("never ends", True, ""),
        ("a < think", False, "a < think"),
    ],
)
def test_thinking_is_not_judged(text: str, thinking: bool, wanted: str) -> None:
    assert spoken(text, thinking=thinking) == wanted


@given(st.text(), st.text())
def test_whatever_is_said_gets_a_number_from_0_to_1(answer: str, reference: str) -> None:
    rewards = [EXACT, Reward(kind="json_schema", schema=AMOUNT), Reward(kind="regex", pattern=".*")]
    first, second = (score(rewards, answer, reference) for _ in range(2))
    assert first == second
    assert all(0 <= part <= 1 for part in (first.total, *first.parts.values()))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('kind = "regex"', "pattern belongs"),
        ('kind = "exact"\npattern = "a"', "pattern belongs"),
        ('kind = "function"\nfunction = "os.system"', "function"),
        ('kind = "exact"\nweight = 0.0', "weight"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(table: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.toml.decode(table, type=Reward)
