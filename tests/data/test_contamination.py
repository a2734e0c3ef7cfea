"""Contamination: the evaluation's questions are found in training rows, its templates are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avocado.data.contamination import TEMPLATE_ROWS, Evaluation, Overlap, Question, found_in
from avocado.data.document import Document
from avocado.data.example import Example
from avocado.data.preference import Preference

LONG = (
    "A farmer near Kassel sells 48 apples in April and half as many in May; how many apples did "
    "she sell in both months together?"
)
SHORT = "Which river flows through the old town of Heidelberg?"
CHINESE = "李明在周一买了十二个苹果,周二又买了两倍的苹果,请问他两天一共买了多少个苹果呢"


def asking(*texts: str) -> Evaluation:
    return Evaluation(
        Question(f"suite {number}", [{"role": "user", "content": text}])
        for number, text in enumerate(texts, 1)
    )


def talk(question: str, answer: str = "yes") -> Example:
    turns = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    return Example(turns)


def overlap(evaluation: Evaluation, text: str) -> Overlap | None:
    return evaluation.overlap(evaluation.hits([text]))


@pytest.mark.parametrize("question", [LONG, SHORT, CHINESE])
def test_fault_41_a_question_inside_another_text_is_found(question: str) -> None:
    evaluation = asking("Something else entirely, of no concern to anybody here?", question)
    for record in (
        talk(f"Please help me: {question} Thanks!"),
        talk("Tell me a riddle", f"Gladly.\n\n{question.upper()}"),
        Document(f"Page 3. {question} Page 4."),
        Preference(
            ({"role": "user", "content": f"Quiz! {question}"},),
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": "b"},
        ),
    ):
        said = found_in(record, evaluation)
        assert said is not None
        assert "the whole question of the evaluation's suite 2" in said


def test_the_report_names_item_and_span() -> None:
    row = "A farmer near Kassel sells 48 apples in April and half as many in June, then rests."
    said = found_in(talk(row), asking(LONG))
    assert said == (
        "it holds a part of the question of the evaluation's suite 1: "
        "'a farmer near kassel sells 48 apples in april and half as many in'"
    )


def test_thirteen_words_are_evidence_and_twelve_are_not() -> None:
    thirteen = "farmer near Kassel sells 48 apples in April and half as many in"
    assert overlap(asking(LONG), f"The {thirteen} summer") is not None
    assert overlap(asking(LONG), f"The {thirteen.removesuffix(' in')} pears") is None


def test_twenty_characters_are_evidence_where_words_have_no_spaces() -> None:
    assert overlap(asking(CHINESE), "题目:" + CHINESE[2:24]) is not None
    assert overlap(asking(CHINESE), "题目:" + CHINESE[2:20]) is None


def test_of_a_short_question_most_must_be_there() -> None:
    evaluation = asking("Which river flows through the old town of Heidelberg in the south?")
    head = "which river flows through the old town of"
    assert overlap(evaluation, f"{head} Prague?") is None
    assert overlap(evaluation, f"{head} heidelberg in the north") is not None


def test_an_instruction_that_items_share_is_no_evidence() -> None:
    instruction = (
        "Read the invoice below with care and answer with one JSON object that has the keys date, "
        "amount and currency, nothing else."
    )
    items = [f"{instruction}\nInvoice of {n} May over {n * 37} euros" for n in range(1, 30)]
    evaluation = asking(*items)
    assert overlap(evaluation, f"{instruction}\nInvoice of 9 June over 12345 dollars") is None
    assert overlap(evaluation, f"{instruction}\nInvoice of 7 May over 259 euros") is not None


def test_a_template_that_many_training_rows_share_is_no_evidence() -> None:
    template = "You are given one review of a product that somebody bought; say whether it is good:"
    evaluation = asking(f"{template} it broke")
    rows = [evaluation.hits([f"{template} review {n}"]) for n in range(TEMPLATE_ROWS + 1)]
    assert all(evaluation.overlap(row) for row in rows)
    evaluation.learn_template(rows[:TEMPLATE_ROWS])
    assert all(evaluation.overlap(row) for row in rows)
    evaluation.learn_template(rows[TEMPLATE_ROWS:])
    assert not any(evaluation.overlap(row) for row in rows)
    assert overlap(evaluation, f"{template} it broke on the first day"), "the whole question"


def test_answers_and_system_turns_are_no_evidence() -> None:
    answer = "the answer to this question is a long sentence that many of the items have in common"
    items = [
        [
            {"role": "system", "content": f"Remember: {answer} and nothing more than that"},
            {"role": "user", "content": "Short?"},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "And then?"},
        ]
    ]
    evaluation = Evaluation(items)
    assert found_in(talk("Why?", answer), evaluation) is None
    said = found_in(talk("and  THEN?"), evaluation)
    assert said == "the evaluation asks this very question (item 1): 'and THEN?'"


def test_nothing_is_contaminated_by_nothing() -> None:
    assert not Evaluation(())
    assert found_in(talk(LONG), Evaluation(())) is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_shares_phrases_with_its_evaluation_and_no_facts(
    seed: int, tmp_path: Path
) -> None:
    task = pytest.importorskip("avocado.demo.task")
    train, evaluate = tmp_path / "train.jsonl", tmp_path / "evaluation.jsonl"
    task.write_task(train, evaluate, train=1_500, seed=seed)

    def read(path: Path) -> list[Any]:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    items = read(evaluate)
    evaluation = Evaluation(Question(item["id"], item["messages"]) for item in items)
    rows = [Example(tuple(row["messages"])) for row in read(train)]
    assert [found for row in rows if (found := found_in(row, evaluation))] == []
    asked = [talk(f"Bitte: {item['messages'][0]['content']} Danke!") for item in items]
    missed = [row for row in asked if found_in(row, evaluation) is None]
    assert len(missed) < len(asked) / 2, "most of its questions have eight words or more"
