"""Chat templates are programs: what does not end, or makes too much, does not come in."""

from __future__ import annotations

import json
import time
from importlib.resources import files
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.intake import template
from avocado.intake.template import MAX_TEMPLATE, check_templates, templates

BAD = [
    (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "did not end within 2 s",
    ),
    ("{{ 2 ** (2 ** 40) }}", "did not end within 2 s"),
    ("{{ 'a' * 10**10 }}", "needs more memory"),
    (
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}",
        "needs more memory",
    ),
    ("{% for i in range(99999) %}{{ 'twelve chars' }}{% endfor %}", "more than 1,000,000 char"),
    ("{{ ''.__class__.__mro__ }}", "reaches outside its sandbox"),
    ("{{ cycler.__init__.__globals__.os.system('id') }}", "reaches outside its sandbox"),
    ("{{ messages.append(1) }}", "reaches outside its sandbox"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deep"),
    ("{% if", "does not parse"),
    ("{{ messages | nothing }}", "does not parse"),
    ("{{ raise_exception('only in Latin') }}", "cannot render a plain question: only in Latin"),
    ("{{ messages[0].content / 0 }}", "cannot render a plain question"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_a_bad_template_is_refused_within_seconds(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "chat_template.jinja").write_text(text)
    start = time.process_time()
    with pytest.raises(Refused, match=said):
        check_templates(tmp_path)
    assert time.process_time() - start < 1  # the child pays for its work, we do not


def test_the_seedlings_template_and_one_that_knows_no_system_turn_come_in(tmp_path: Path) -> None:
    check_templates(Path(str(files("avocado") / "seedling" / "model")))
    (tmp_path / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}"
        "{% endfor %}{{ tools | tojson(indent=2) }}{{ strftime_now('%Y') }}"
    )
    check_templates(tmp_path)
    check_templates(tmp_path / "no such folder")


def test_templates_are_found_wherever_a_tokenizer_would_look(tmp_path: Path) -> None:
    many = [{"name": "default", "template": "a"}, {"name": "tools", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": many}))
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "c"}))
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "x.jinja").write_text("d")
    found = templates(tmp_path)
    assert sorted(found.values()) == ["a", "b", "c", "d"]
    assert found["tokenizer_config.json (tools)"] == "b"


def test_what_is_no_template_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": [1]}')
    with pytest.raises(Refused, match="a chat_template that is no text"):
        templates(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "' + "x" * 300_000 + '"}')
    with pytest.raises(Refused, match="longer than"):
        templates(tmp_path)
    (tmp_path / "a.jinja").write_bytes(b"\xff")
    with pytest.raises(Refused, match=r"a\.jinja is not UTF-8"):
        templates(tmp_path)
    (tmp_path / "a.jinja").write_bytes(b"x" * (MAX_TEMPLATE + 1))
    with pytest.raises(Refused, match="longer than"):
        templates(tmp_path)


def test_a_child_that_hangs_is_ended_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ 2 ** (2 ** 39) }}")
    monkeypatch.setattr(template, "PATIENCE", 0.3)
    with pytest.raises(Refused, match=r"did not end within 0\.3 s"):
        check_templates(tmp_path)
