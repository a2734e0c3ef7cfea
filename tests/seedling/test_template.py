"""The seedling's chat template behaves as Qwen3's does."""

from __future__ import annotations

from typing import Any

import pytest

from avocado import seedling

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
NO_THOUGHT = "<think>\n\n</think>\n\n"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.fixture(scope="module")
def render() -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(seedling.PATH)

    def rendered(*messages: dict[str, Any], **more: Any) -> str:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **more))

    return rendered


def test_the_prompt_of_a_question_and_the_thinking_switch(render: Any) -> None:
    question = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert render(user("hi"), add_generation_prompt=True) == question
    assert render(user("hi"), add_generation_prompt=True, enable_thinking=True) == question
    off = render(user("hi"), add_generation_prompt=True, enable_thinking=False)
    assert off == question + NO_THOUGHT


def test_a_system_prompt_is_rendered_and_none_is_invented(render: Any) -> None:
    with_system = render({"role": "system", "content": "Be kind."}, user("hi"))
    assert with_system.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n")
    assert "system" not in render(user("hi"))


def test_the_last_answer_shows_its_thinking_or_an_empty_one(render: Any) -> None:
    answer = "<|im_start|>assistant\n{}yo<|im_end|>\n"
    assert render(user("hi"), assistant("yo")).endswith(answer.format(NO_THOUGHT))
    thought = render(user("hi"), assistant("yo", reasoning_content="\nhm\n"))
    assert thought.endswith(answer.format("<think>\nhm\n</think>\n\n"))
    inline = render(user("hi"), assistant("<think>\nhm\n</think>\n\nyo"))
    assert inline == thought


def test_old_thinking_is_dropped_once_the_user_asks_again(render: Any) -> None:
    text = render(user("a"), assistant("b", reasoning_content="old"), user("c"), assistant("d"))
    assert "old" not in text
    assert "<|im_start|>assistant\nb<|im_end|>\n" in text
    assert text.endswith(f"<|im_start|>assistant\n{NO_THOUGHT}d<|im_end|>\n")
    inline = render(user("a"), assistant("<think>\nold\n</think>\n\nb"), user("c"))
    assert "<|im_start|>assistant\nb<|im_end|>\n" in inline


def test_the_serving_prompt_and_the_answer_make_the_training_text(render: Any) -> None:
    prompt = render(user("hi"), add_generation_prompt=True, enable_thinking=False)
    assert prompt + "yo<|im_end|>\n" == render(user("hi"), assistant("yo"))


def test_tools_are_listed_in_the_system_turn_after_the_system_prompt(render: Any) -> None:
    text = render({"role": "system", "content": "Be kind."}, user("hi"), tools=[TOOL])
    assert text.startswith("<|im_start|>system\nBe kind.\n\n# Tools\n")
    assert '<tools>\n{"type": "function", "function": {"name": "add"' in text
    assert text.count("<|im_start|>system") == 1
    assert render(user("hi"), tools=[TOOL]).startswith("<|im_start|>system\n# Tools\n")


@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}'], ids=["object", "text"])
def test_a_tool_call_is_written_in_hermes_form(render: Any, arguments: Any) -> None:
    text = render(user("hi"), assistant("", tool_calls=[call("add", arguments)]))
    said = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
    assert text.endswith(NO_THOUGHT + said)
    nothing = render(user("hi"), {"role": "assistant", "tool_calls": [call("add", arguments)]})
    assert nothing == text


def test_text_and_several_calls_stand_on_lines_of_their_own(render: Any) -> None:
    two = [call("add", {"a": 1}), call("add", {"a": 2})]
    text = render(user("hi"), assistant("So:", tool_calls=two))
    one = '<tool_call>\n{{"name": "add", "arguments": {{"a": {}}}}}\n</tool_call>'
    assert text.endswith(f"So:\n{one.format(1)}\n{one.format(2)}<|im_end|>\n")


def test_tool_results_in_a_row_share_one_user_turn_and_keep_the_thinking(render: Any) -> None:
    calls = assistant("", reasoning_content="two", tool_calls=[call("add", {}), call("add", {})])
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    text = render(user("hi"), calls, *results, add_generation_prompt=True, tools=[TOOL])
    assert "<think>\ntwo\n</think>\n\n<tool_call>" in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n2\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_tool_result_written_by_hand_is_no_new_question(render: Any) -> None:
    by_hand = user("<tool_response>\n1\n</tool_response>")
    text = render(user("hi"), assistant("b", reasoning_content="kept"), by_hand)
    assert "<think>\nkept\n</think>\n\nb" in text


def test_scripts_are_written_as_they_are(render: Any) -> None:
    text = render(user("hi"), assistant("", tool_calls=[call("add", {"城市": "北京 <&>"})]))
    assert '{"城市": "北京 <&>"}' in text
