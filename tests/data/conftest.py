"""Chat templates to test with: the seedling's own, and small ones that behave as Qwen's do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from avocado.data.chat import ChatTemplate

SEEDLING = Path(str(files("avocado") / "seedling" / "model"))

# No thinking, history is never rewritten: each later prompt continues the row before.
PLAIN = """
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Thinking, and reasoning is dropped from every turn but the last: history is rewritten.
REWRITING = """
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == "assistant" and loop.last %}<think>
{{ m.reasoning_content | default("", true) }}
</think>

{% endif %}{{ m.content }}
{%- for call in m.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

Speaking = Callable[[str], ChatTemplate]


def with_template(source: ChatTemplate, text: str) -> ChatTemplate:
    """The same tokenizer speaking another template."""
    tokenizer = copy.deepcopy(source.tokenizer)
    tokenizer.chat_template = text
    return ChatTemplate(tokenizer, source.stop_ids)


@pytest.fixture(scope="session")
def seedling() -> ChatTemplate:
    return ChatTemplate.load(SEEDLING)


@pytest.fixture(scope="session")
def speaking(seedling: ChatTemplate) -> Speaking:
    """Gives the seedling's tokenizer another template."""
    return lambda text: with_template(seedling, text)


@pytest.fixture(scope="session")
def plain(seedling: ChatTemplate) -> ChatTemplate:
    return with_template(seedling, PLAIN)


@pytest.fixture(scope="session")
def rewriting(seedling: ChatTemplate) -> ChatTemplate:
    return with_template(seedling, REWRITING)
