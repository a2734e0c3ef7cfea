"""``[engine]`` of avocado.toml, through ``avocado serve``: what a user writes, and what it charges.

The servers behind a remote engine are Avocado itself, which serves the seedling.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.cli.serving import PRICE, Serving, charges, make_shop, refused, serving, set_engine
from tests.engine.small_embedder import write_embedder

MESSAGES: Any = [{"role": "user", "content": "Heute ist der 12. März."}]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace that others may copy and serve, and the key to all copies."""
    folder = tmp_path_factory.mktemp("upstream") / "shop"
    _, key = make_shop(folder, "seedling-1")
    return folder, key


@pytest.fixture(scope="module")
def replica(upstream: tuple[Path, str]) -> Iterator[Serving]:
    """One server that runs for all tests of this module."""
    with serving(upstream[0]) as served:
        yield served


def remote(urls: list[str], **more: Any) -> str:
    settings = {
        "urls": urls,
        "model": "seedling-1",
        "context_length": 512,
        "api_key_variable": "UPSTREAM_KEY",
        **more,
    }
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not None
    ]
    return 'kind = "remote"\n[engine.settings]\n' + "\n".join(lines)


@pytest.mark.slow
def test_a_remote_engine_with_two_replicas_one_of_which_dies(
    tmp_path: Path, upstream: tuple[Path, str], replica: Serving
) -> None:
    second = tmp_path / "second"
    shutil.copytree(upstream[0], second, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    shop = tmp_path / "shop"
    release, key = make_shop(shop)
    with ExitStack() as stack:
        dying = stack.enter_context(serving(second))
        set_engine(shop, remote([replica.url, f"{dying.url}/v1"]))
        front = stack.enter_context(serving(shop, UPSTREAM_KEY=upstream[1]))
        client = front.client(key)
        told: list[Any] = []
        for number in range(24):
            if number == 12:
                dying.child.kill()
                dying.child.wait()
            # Conversations choose their replica: different ones reach both.
            messages: Any = [{"role": "user", "content": f"{number}: Heute ist der 12. März."}]
            answer = client.chat.completions.create(
                model="avocado-1", messages=messages, max_tokens=8, seed=number
            )
            assert answer.usage
            assert answer.system_fingerprint == release[:20]
            told.append((answer.usage.prompt_tokens, answer.usage.completion_tokens))
        chunks = list(
            client.chat.completions.create(
                model="avocado-1",
                messages=MESSAGES,
                max_tokens=20,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        usage = chunks[-1].usage
        assert usage
        told.append((usage.prompt_tokens, usage.completion_tokens))
    found = charges(shop)
    assert [(each.usage.prompt, each.usage.completion) for each in found] == told
    assert [each.charge for each in found] == [
        (prompt * PRICE.prompt + completion * PRICE.completion) // 1_000_000
        for prompt, completion in told
    ]
    assert "trying again" in front.log
    assert charges(second)
    assert len(charges(second)) < 13


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"urls": []}, "urls names no server"),
        ({"urls": ["localhost:8000"]}, "'localhost:8000' does not begin with http:// or https://"),
        (
            {"urls": ["http://127.0.0.1:9"]},
            "no server answers at http://127.0.0.1:9: Connection refused",
        ),
        pytest.param(
            {"model": "gpt-9"},
            "does not serve 'gpt-9' but seedling-1: set model",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"context_length": 99_999},
            "tokens of context: context_length may not be 99999",
            marks=pytest.mark.slow,
        ),
        ({"api_key_variable": "NO_KEY"}, "the environment has no NO_KEY, the servers' key"),
        pytest.param(
            {"api_key_variable": None},
            "wants a key (401): see api_key_variable",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"api_key_variable": "WRONG_KEY"},
            "refuses our key (401): see api_key_variable",
            marks=pytest.mark.slow,
        ),
        ({"dialect": "tgi"}, "Invalid enum value 'tgi' - at `$.dialect`"),
        ({"url": "x"}, "unknown field `url`"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    tmp_path: Path,
    upstream: tuple[Path, str],
    replica: Serving,
    settings: dict[str, Any],
    sentence: str,
) -> None:
    make_shop(tmp_path / "shop")
    given = {"urls": [replica.url], **settings}
    set_engine(tmp_path / "shop", remote(given.pop("urls"), **given))
    said = refused(tmp_path / "shop", UPSTREAM_KEY=upstream[1], WRONG_KEY="sk-avocado-nobody")
    assert sentence in said


def test_a_device_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    make_shop(tmp_path / "shop")
    set_engine(tmp_path / "shop", 'kind = "embedded"\n[engine.settings]\ndevice = "warp"')
    said = refused(tmp_path / "shop")
    assert "does not load" in said
    assert "Traceback" not in said


def test_a_server_that_is_away_at_the_start_is_told_and_the_other_serves(
    tmp_path: Path, upstream: tuple[Path, str], replica: Serving
) -> None:
    _, key = make_shop(tmp_path / "shop")
    set_engine(tmp_path / "shop", remote(["http://127.0.0.1:9", replica.url]))
    with serving(tmp_path / "shop", UPSTREAM_KEY=upstream[1]) as front:
        assert "no server answers at http://127.0.0.1:9" in front.log
        for number in range(4):
            front.client(key).chat.completions.create(
                model="avocado-1",
                messages=[{"role": "user", "content": str(number)}],
                max_tokens=2,
            )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('python = "/nowhere/python"', "/nowhere/python does not start: "),
        pytest.param(
            f"python = {json.dumps(sys.executable)}",
            "no module vllm.entrypoints.openai.api_server for ",
            marks=pytest.mark.slow,
        ),
        ("max_running = 4", "missing required field `python`"),
        ('python = "x"\nextra = ["--trust-remote-code"]', "--trust-remote-code is not safe here"),
    ],
)
def test_a_vllm_that_cannot_start_says_why(tmp_path: Path, settings: str, sentence: str) -> None:
    make_shop(tmp_path / "shop")
    set_engine(tmp_path / "shop", f'kind = "vllm"\n[engine.settings]\n{settings}')
    assert sentence in refused(tmp_path / "shop")


@pytest.mark.slow
def test_embeddings_of_a_release_and_of_a_server_behind_another(
    tmp_path: Path, upstream: tuple[Path, str], replica: Serving
) -> None:
    """The embedded engine serves an embedding model; a remote one passes it on, for its own price;
    where the server makes text it says so by the model's name."""
    weights = write_embedder(tmp_path / "weights")
    behind, front, wrong = (tmp_path / name for name in ("behind", "front", "wrong"))
    _, their_key = make_shop(behind, "vectors-1", weights)
    _, key = make_shop(front, "avocado-1", weights)
    _, other_key = make_shop(wrong, "avocado-1", weights)
    with ExitStack() as stack:
        server = stack.enter_context(serving(behind))
        set_engine(front, remote([server.url], model="vectors-1"))
        set_engine(wrong, remote([replica.url]))
        made = server.client(their_key).embeddings.create(
            model="vectors-1", input=["hello", "Heute ist der 12. März."]
        )
        client = stack.enter_context(serving(front, UPSTREAM_KEY=their_key)).client(key)
        passed = client.embeddings.create(
            model="avocado-1", input=["hello", "Heute ist der 12. März."]
        )
        assert [each.embedding for each in passed.data] == [each.embedding for each in made.data]
        assert passed.usage.prompt_tokens == made.usage.prompt_tokens
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="avocado-1", input="hello", dimensions=7)
        assert caught.value.param == "dimensions"
        client = stack.enter_context(serving(wrong, UPSTREAM_KEY=upstream[1])).client(other_key)
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="avocado-1", input="hello")
        assert caught.value.param == "model"
    assert (len(charges(behind)), len(charges(front))) == (2, 1)
    for charge in (*charges(behind), *charges(front)):
        assert charge.usage.prompt == made.usage.prompt_tokens
        assert charge.charge == charge.usage.prompt * PRICE.prompt // 1_000_000
    assert charges(wrong) == []
