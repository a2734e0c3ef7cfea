"""An evaluation's TOML is read strictly; every wrong line is said with its file and suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.data import questions
from avocado.errors import Refused
from avocado.evaluate.evaluation import Evaluation
from avocado.evaluate.graders import Choice, Exact, JsonFields, JsonValue, Numeric, Rewarded
from avocado.evaluate.suite import Suite, SuiteError

ROW: dict[str, Any] = {
    "id": "a",
    "language": "de",
    "messages": [{"role": "user", "content": "Was kostet das Fahrrad von Frau Lehmann?"}],
    "answer": '{"amount": 3}',
}


def write(folder: Path, toml: str, **files: list[dict[str, Any]]) -> Path:
    for name, rows in ({"dates": [ROW]} | files).items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    path = folder / "evaluation.toml"
    path.write_text(toml)
    return path


def test_suites_are_read_in_order_with_their_grades_and_roles(tmp_path: Path) -> None:
    number = [{**ROW, "answer": "1234.5", "cluster": "c"}]
    choice = [{**ROW, "answer": "b", "choices": ["a", "b"]}]
    path = write(
        tmp_path,
        """
        [[suites]]
        name = "extraction"
        data = "dates.jsonl"
        grade = "json_fields"
        partial = false
        max_tokens = 64
        thinking = true

        [[suites]]
        data = "prices.jsonl"
        grade = "numeric"
        relative = 0.01
        role = "guard"

        [[suites]]
        data = "quiz.jsonl"
        grade = "choice"
        normalize = "none"
        role = "guard"

        [[suites]]
        name = "format"
        data = "dates.jsonl"
        grade = "reward"
        [[suites.rewards]]
        kind = "json_schema"
        schema = { type = "object" }

        [[suites]]
        data = "dates.jsonl"
        """,
        prices=number,
        quiz=choice,
    )
    suites = list(Evaluation.read(path).suites())
    assert [each.name for each in suites] == ["extraction", "prices", "quiz", "format", "dates"]
    assert [each.role for each in suites] == ["target", "guard", "guard", "target", "target"]
    kinds = (JsonFields, Numeric, Choice, Rewarded, JsonValue)
    assert [type(each.grade) for each in suites] == list(kinds)
    assert (suites[0].max_tokens, suites[0].thinking) == (64, True)
    assert suites[2].metric == "acc"
    assert suites[1].items[0].cluster == "c"
    short = Evaluation.read(path, max_tokens=5)
    assert {each.max_tokens for each in short.suites()} == {5}


def test_a_jsonl_file_is_an_evaluation_of_one_suite(tmp_path: Path) -> None:
    write(tmp_path, "")
    (suite,) = Evaluation.read(tmp_path / "dates.jsonl").entries
    assert isinstance(suite, Suite)
    assert (suite.name, suite.grade, suite.role) == ("dates", JsonValue(), "target")


HEAD = '[[suites]]\ndata = "dates.jsonl"\n'


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[[suites", "is not TOML"),
        ("", "names no suite: write a [[suites]] table"),
        ("suites = 3", "names no suite"),
        ("suites = [3]", "suite 1: "),
        ("[suite]\nname = 1", "unknown key 'suite'"),
        ("[[suites]]\nname = 'x'", "suite 1 (x): give either data"),
        (HEAD + "lm_eval = ['t']", "give either data (a file of items) or lm_eval"),
        (HEAD + "grad = 'exact'", "unknown key 'grad'"),
        (HEAD + "grade = 'exactly'", "Invalid value 'exactly' - at `$.grade`"),
        (HEAD + "grade = 'exact'\ntolerance = 1", "unknown field `tolerance`"),
        (HEAD + "grade = 'numeric'", "dates.jsonl, line 1: grade numeric needs an answer"),
        (HEAD + "grade = 'choice'", "line 1: grade choice needs 'choices'"),
        (HEAD + "grade = 'regex'\npattern = '('", "'(' is no regular expression"),
        (HEAD + "grade = 'judge'\nmodel = 'm'", "missing required field `url`"),
        (HEAD + "grade = 'judge'\nmodel = 'm'\nurl = 'h'", "at `$.url`"),
        (HEAD + "grade = 'lm_eval'", "Invalid value 'lm_eval'"),
        (HEAD + "grade = 'reward'\nrewards = []", "at `$.rewards`"),
        (
            HEAD + "grade = 'reward'\n[[suites.rewards]]\nkind = 'function'\nfunction = 'no:f'",
            "cannot be imported",
        ),
        (HEAD + "max_tokens = 0", "at `$.max_tokens`"),
        (HEAD + "role = 'goal'", "Invalid enum value 'goal'"),
        (HEAD + "name = '../x'", "at `$.name`"),
        ("[[suites]]\ndata = 'none.jsonl'", "none.jsonl cannot be read: No such file"),
        (HEAD + HEAD, "two suites are named 'dates'"),
        ("[[suites]]\nlm_eval = []", "at `$.lm_eval`"),
        ("[[suites]]\nlm_eval = ['t']\ngrade = 'exact'", "unknown field `grade`"),
        ("[[suites]]\nlm_eval = ['t']\ninclude_path = 'no'", "include_path: there is no folder"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_suite(tmp_path: Path, toml: str, says: str) -> None:
    path = write(tmp_path, toml)
    with pytest.raises(SuiteError) as caught:
        Evaluation.read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"none\.toml cannot be read: No such file"):
        Evaluation.read(tmp_path / "none.toml")


def test_training_data_is_held_against_every_suite(tmp_path: Path) -> None:
    other = {**ROW, "messages": [{"role": "user", "content": "Wo wohnt Herr Özdemir?"}]}
    path = write(tmp_path, HEAD + "[[suites]]\ndata = 'more.jsonl'", more=[other])
    assert [each.name for each in questions(path)] == ["dates a", "more a"]
    with pytest.raises(Refused, match="names no suite"):
        questions(write(tmp_path, ""))


def test_settings_of_a_grade_are_part_of_a_suites_hash(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD)
    (plain,) = Evaluation.read(path).suites()
    (exact,) = Evaluation.read(write(tmp_path, HEAD + "grade = 'exact'")).suites()
    assert exact.grade == Exact()
    assert plain.sha256 != exact.sha256
