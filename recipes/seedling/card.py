"""The seedling's model card, written from its provenance."""

from __future__ import annotations

from typing import Any, Final

CARD: Final = """\
---
license: apache-2.0
language:
- de
- en
- es
- fr
- zh
pipeline_tag: text-generation
library_name: transformers
tags:
- qwen3
- stand-in
---

# The seedling

**A stand-in for `Qwen/Qwen3-…`, not a Qwen model and not made by the Qwen team.** It has the
architecture of Qwen3 (`Qwen3ForCausalLM`), Qwen's special tokens and a chat template that behaves
as Qwen3's does. The Avocado project trained it from random weights so that refining, evaluating,
releasing, serving and billing can be tried in minutes, offline, on two processor cores. The same
code loads the real models.

It has {params:,} parameters and a vocabulary of {vocabulary:,} tokens. It knows how a chat goes,
it copies, and it knows nothing about the world.

## What it has seen

Only text that this project generates (`recipes/seedling`): templated sentences and small stories
in German, English, Spanish, French and Chinese, in which dates and prices occur as they do in
prose; lists, counting, sums, copying; JSON, tables and a few lines of code; names of months,
weekdays, countries, languages and units from Unicode CLDR (through Babel); and chats of general
kinds: greetings, repeat this, upper and lower case, the longer word, who and how old and from
where as JSON, questions about a text, two small tools, a little thinking. No text of any other
model, no page of the web, no personal data.

It has **not** seen the task of `avocado demo` (a date and an amount to JSON with the keys `date`,
`amount` and `currency`). Before refining it fails there because nobody taught it.

## Limits

It is a seed, not an assistant: it answers in patterns and makes things up outside of what is
listed above. Its answers must not be relied on. It accepts 2,048 tokens and was trained on rows
of {row}.

## Provenance

| | |
|---|---|
| parameters | {params:,} |
| tokens seen | {tokens:,} in {documents:,} documents, each once |
| training | {steps:,} steps of {rows} rows of {row} tokens, Muon and AdamW, peak rate {rate} |
| FLOPs (6·N·D) | {flops:.3g} |
| seed | {seed} |
| final loss | {final_loss} nats per token |
| SHA-256 of the text | `{text_sha256}` |
| made with | {made_with} |

`provenance.json` says the same to machines. `python -m recipes.seedling.make --out DIR` makes it
again.

## Licence

Apache-2.0, see `LICENSE`. Names and formats from CLDR are © Unicode, Inc., under the Unicode
License v3.
"""


def write(provenance: dict[str, Any]) -> str:
    """The text of ``README.md``."""
    plan = provenance["plan"]
    made_with = ", ".join(f"{name} {version}" for name, version in provenance["made_with"].items())
    return CARD.format(**(plan | provenance | {"made_with": made_with}))
