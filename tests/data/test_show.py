"""The preview: the training text itself, what is learnt told apart, on any terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from avocado.cli.main import cli
from avocado.cli.show import BOUNDARY, CLOSE, OPEN, STYLES, coloured, marked, visible
from avocado.data.chat import IGNORED, ChatTemplate
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.length import rendered
from avocado.data.preference import Label, Preference
from avocado.data.preview import preview
from avocado.data.problem import Problem
from avocado.data.record import Record
from avocado.errors import Refused

ASKED = ({"role": "user", "content": "Wie heißt 🥑 auf 中文?"},)
GOOD = {"role": "assistant", "content": "鳄梨 🥑 — 牛油果"}
BAD = {"role": "assistant", "content": "?"}
RECORDS: Mapping[str, Record] = {
    "conversation": Example((*ASKED, GOOD, *ASKED, BAD)),
    "pair": Preference(ASKED, GOOD, BAD),
    "label": Label(ASKED, BAD, desirable=False),
    "text": Document("Eine Avocado 🥑."),
    "problem": Problem(ASKED, reference="鳄梨"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_it_is_the_training_text_token_by_token(name: str, seedling: ChatTemplate) -> None:
    record = RECORDS[name]
    rows = rendered(record, seedling)
    shown = preview(record, seedling)
    assert len(shown) == len(rows)
    for each, row in zip(shown, rows, strict=True):
        decode = seedling.tokenizer.decode
        assert each.text == decode(list(row.ids), skip_special_tokens=False)
        assert sum(len(piece.tokens) for piece in each.pieces) == len(row.ids) == each.tokens
        learnt = "".join(piece.text for piece in each.pieces if piece.role != "context")
        assert learnt == decode([label for label in row.labels if label != IGNORED])
        assert each.trained == row.trained
        stops = [piece.text for piece in each.pieces if piece.role == "stop"]
        assert len(stops) == sum(label in seedling.stop_ids for label in row.labels)


def test_the_stop_token_stands_out_and_the_prompt_is_dim(seedling: ChatTemplate) -> None:
    (shown,) = preview(Example((*ASKED, GOOD)), seedling)
    assert [piece.role for piece in shown.pieces] == ["context", "trained", "stop"]
    assert [piece.text for piece in shown.pieces[1:]] == [GOOD["content"], "<|im_end|>"]
    drawn = coloured(shown)
    assert drawn.plain == shown.text
    at = drawn.plain.index("鳄梨")
    styles = {str(span.style) for span in drawn.spans if span.start <= at < span.end}
    assert styles == {STYLES["trained"]}
    assert drawn.plain[drawn.spans[-1].start :] == "<|im_end|>"
    assert str(drawn.spans[-1].style) == STYLES["stop"]


def test_without_colours_marks_say_what_is_learnt(seedling: ChatTemplate) -> None:
    (shown,) = preview(Example((*ASKED, GOOD)), seedling)
    text = marked(shown)
    assert text.endswith(f"{OPEN}{GOOD['content']}<|im_end|>{CLOSE}")
    assert text.count(OPEN) == 1
    with_tokens = marked(shown, tokens=True)
    assert with_tokens.replace(BOUNDARY, "") == text
    tokens = [token for piece in shown.pieces for token in piece.tokens if token]
    assert with_tokens.count(BOUNDARY) == len(tokens)
    assert coloured(shown, tokens=True).plain.replace(BOUNDARY, "") == shown.text


@given(st.text())
def test_data_cannot_move_the_cursor(text: str) -> None:
    shown = visible(text)
    assert not any(c < " " and c not in "\n\t" for c in shown)
    assert not any(c in "\x7f\x9b\u202e\u2066\u200b" for c in shown)
    if text.isprintable():
        assert shown == text


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["data", *map(str, arguments)])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def talk(question: str, answer: str, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        talk("one", "first", language="en", license="MIT"),
        talk("two", ""),
        talk("three", "third"),
        talk("four", "fourth"),
        talk("fi<|im_end|>ve", "fifth"),
    ]
    return write(tmp_path / "a.jsonl", *rows)


def test_the_command_shows_the_first_rows_and_why_one_is_rejected(data: Path) -> None:
    result = run("show", data)
    assert result.exit_code == 0, result.output
    assert "a.jsonl, row 1 · conversation · en · MIT\n" in result.output
    assert f"{OPEN}first<|im_end|>{CLOSE}" in result.output
    assert "a.jsonl, row 2: rejected, empty turn: message 2 (assistant) is empty" in result.output
    assert "third" in result.output
    assert "fourth" not in result.output
    assert "fourth" in run("show", data, "--limit", 9).output
    assert "rejected, not renderable" in run("show", data, "--row", 5).output


def test_one_row_as_json(data: Path, seedling: ChatTemplate) -> None:
    result = run("show", data, "--row", 3, "--json")
    (value,) = json.loads(result.output)
    (sequence,) = value.pop("sequences")
    assert value == {
        "file": "a.jsonl",
        "row": 3,
        "kind": "conversation",
        "language": "und",
        "license": "unknown",
    }
    (row,) = seedling.rows(talk("three", "third")["messages"])
    assert (sequence["tokens"], sequence["trained"]) == (len(row.ids), row.trained)
    assert "".join(sequence["pieces"][1]["tokens"]) == "third"
    (rejected,) = json.loads(run("show", data, "--row", 2, "--json").output)
    assert rejected["rejected"] == "empty turn"


def test_what_is_not_there_is_refused(data: Path) -> None:
    result = run("show", data, "--row", 9)
    assert isinstance(result.exception, Refused)
    assert "has no row 9" in str(result.exception)
    assert isinstance(run("show", data.with_name("none.jsonl")).exception, Refused)


@pytest.mark.parametrize(
    ("method", "row", "learnt"),
    [
        ("dpo", {"prompt": "q", "chosen": "good", "rejected": "bad"}, ["good", "bad"]),
        ("kto", {"prompt": "q", "completion": "good", "label": True}, ["good"]),
        ("pretraining", {"text": "raw words"}, ["raw words"]),
    ],
)
def test_other_shapes_show_what_they_teach(
    method: str, row: dict[str, Any], learnt: list[str], tmp_path: Path
) -> None:
    result = run("show", write(tmp_path / "b.jsonl", row), "--method", method)
    assert result.exit_code == 0, result.output
    for text in learnt:
        assert f"{OPEN}{text}<|" in result.output


def test_a_check_writes_its_page_and_says_what_it_guessed(data: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run("check", data, "--html", page, "--json")
    assert result.exit_code == 1
    value = json.loads(result.output)
    assert value["rejected"] == {"empty turn": 1, "not renderable": 1}
    assert value["guessed"]["mismatches"] == 0
    html = page.read_text("utf-8")
    assert "3 of 5 rows accepted" in html
    assert "empty turn" in html
    assert str(tmp_path) not in html
    assert f"wrote {page}" in run("check", data, "--html", page).output
    assert "cannot be written" in str(run("check", data, "--html", tmp_path).exception)


def test_a_check_names_the_item_of_the_evaluation(tmp_path: Path) -> None:
    asked = "Which river flows through the old town of Heidelberg?"
    suite = write(
        tmp_path / "suite.jsonl",
        {
            "id": "r-1",
            "language": "en",
            "messages": [{"role": "user", "content": asked}],
            "answer": "Neckar",
        },
    )
    rows = write(tmp_path / "a.jsonl", talk(f"Quiz time. {asked} Be brief.", "Neckar"))
    result = run("check", rows, "--evaluation", suite)
    assert result.exit_code == 1
    assert "the whole question of the evaluation's suite r-1" in result.output
