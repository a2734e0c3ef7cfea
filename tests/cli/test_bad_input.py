"""Each bad input gives clear sentences, exit code 1 or 2, and nothing half-written."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from avocado.workspace import Workspace
from tests.cli.conftest import RECIPE, Avocado, Ran


def artifacts(folder: Path) -> list[str]:
    """Everything that was made, and anything half-made."""
    state = folder / ".avocado"
    made = [path.name for path in (state / "artifacts").glob("*/*")]
    return made + [path.name for path in (state / "staging").glob("*")]


def assert_refused(ran: Ran, *words: str, code: int = 1) -> None:
    assert ran.code == code, ran
    for word in words:
        assert word in ran.err, ran.err


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}

BAD_ROWS = {
    "not JSON": ("{", "row 2"),
    "no messages": (json.dumps({"text": "x"}), "row 2"),
    "no assistant": (json.dumps({"messages": [{"role": "user", "content": "x"}]}), "row 2"),
    "not an object": ("3", "row 2"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_and_nothing_is_made(shop: Path, avocado: Avocado, name: str) -> None:
    row, named = BAD_ROWS[name]
    (shop / "train.jsonl").write_text(json.dumps(GOOD) + "\n" + row + "\n")
    before = artifacts(shop)
    assert_refused(avocado(shop, "train", "recipe.toml"), "train.jsonl", named)
    # The base was recorded before its data was read; no corpus and no checkpoint came of it.
    made = set(artifacts(shop)) - set(before)
    assert len(made) <= 1
    assert Workspace.open(shop).store.ids("corpus") == []
    ran = avocado(shop, "data", "check", "train.jsonl")
    assert ran.code == 1
    assert named in ran.out


def test_a_missing_and_an_empty_data_file(shop: Path, avocado: Avocado) -> None:
    (shop / "train.jsonl").unlink()
    assert_refused(avocado(shop, "train", "recipe.toml"), "train.jsonl")
    (shop / "train.jsonl").touch()
    assert_refused(avocado(shop, "train", "recipe.toml"), "train.jsonl")
    assert_refused(avocado(shop, "data", "check", "nowhere.jsonl"), "nowhere.jsonl")


def test_an_evaluation_item_in_training_is_refused(shop: Path, avocado: Avocado) -> None:
    item = json.loads((shop / "evaluation.jsonl").read_text().splitlines()[0])
    answer = {"role": "assistant", "content": item["answer"]}
    row = json.dumps({"messages": [*item["messages"], answer]})
    with (shop / "train.jsonl").open("a") as handle:
        handle.write(row + "\n")
    assert_refused(avocado(shop, "train", "recipe.toml"), "row 41", "evaluation")
    assert Workspace.open(shop).store.ids("corpus") == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("batch = 4", "batch = 4\nbatsh = 4"), "batsh"),
        (("batch = 4", 'batch = "four"'), "batch"),
        (("batch = 4", "batch = 0"), "batch"),
        (('name = "small"', ""), "name"),
        (("[training]", "[training"), "recipe.toml"),
        (('base = "seedling"', 'base = "nowhere"'), "nowhere"),
    ],
)
def test_a_bad_recipe_is_refused_by_name(
    shop: Path, avocado: Avocado, change: tuple[str, str], named: str
) -> None:
    (shop / "recipe.toml").write_text(RECIPE.replace(*change))
    assert_refused(avocado(shop, "train", "recipe.toml"), named)
    assert_refused(avocado(shop, "plan", "recipe.toml"), named)


def test_a_recipe_that_is_not_there(shop: Path, avocado: Avocado) -> None:
    assert_refused(avocado(shop, "train", "no.toml"), "no.toml")


@pytest.mark.parametrize("verb", ["evaluate", "trace"])
def test_an_id_that_does_not_exist(shop: Path, avocado: Avocado, verb: str) -> None:
    assert_refused(avocado(shop, verb, "checkpoint-123456"), "checkpoint-123456")


def test_a_release_without_a_scorecard(trained: tuple[Path, str], avocado: Avocado) -> None:
    folder, checkpoint = trained
    words = ["--paid", "--price-input", "0.2", "--price-output", "0.8"]
    ran = avocado(folder, "release", checkpoint, "--name", "m", *words)
    assert_refused(ran, "no scorecard", "avocado evaluate")
    assert Workspace.open(folder).store.ids("release") == []


def test_a_release_that_gained_nothing(trained: tuple[Path, str], avocado: Avocado) -> None:
    folder, checkpoint = trained
    scored = avocado(folder, "evaluate", checkpoint, "--max-tokens", "8", "--json")
    assert scored.code == 0, scored.err
    words = ["--paid", "--price-input", "0.2", "--price-output", "0.8"]
    ran = avocado(folder, "release", checkpoint, "--name", "m", *words)
    assert_refused(ran, "no proven gain")
    assert Workspace.open(folder).store.ids("release") == []


@pytest.mark.parametrize("amount", ["1e3", "NaN", "-5", "1,5", "", "0.0000000001", "٣", "0"])
def test_an_amount_that_is_none(shop: Path, avocado: Avocado, amount: str) -> None:
    assert avocado(shop, "customer", "add", "acme").code == 0
    assert avocado(shop, "credit", "acme", amount).code == 2
    listed = avocado(shop, "customer", "list", "--json").json
    assert isinstance(listed, list)
    assert listed[0]["available"] == "0.00"


def test_prices_that_do_not_fit_the_way_out(trained: tuple[Path, str], avocado: Avocado) -> None:
    folder, checkpoint = trained
    release = ("release", checkpoint, "--name", "m")
    assert avocado(folder, *release).code == 2
    assert avocado(folder, *release, "--paid", "--open").code == 2
    assert avocado(folder, *release, "--paid", "--price-input", "1").code == 2
    assert avocado(folder, *release, "--open", "--price-input", "1").code == 2
    ran = avocado(folder, "release", checkpoint, "--name", "../m", "--open")
    assert_refused(ran, "model name")


def test_serving_nothing_is_refused(shop: Path, avocado: Avocado) -> None:
    assert_refused(avocado(shop, "serve"), "avocado release")


def test_outside_a_workspace(tmp_path: Path, avocado: Avocado) -> None:
    assert_refused(avocado(tmp_path, "usage"), "avocado init")


def test_unknown_customers_and_repeated_ones(shop: Path, avocado: Avocado) -> None:
    assert avocado(shop, "customer", "add", "acme", "--credit", "1.00").code == 0
    assert_refused(avocado(shop, "customer", "add", "acme", "--name", "Another"), "acme")
    assert_refused(avocado(shop, "customer", "add", "A b"), "customer id")
    for words in (["key", "create", "bob"], ["credit", "bob", "1"], ["invoice", "bob"]):
        assert_refused(avocado(shop, *words), "bob")
    assert_refused(avocado(shop, "key", "revoke", "nokey"), "nokey")
    assert avocado(shop, "invoice", "acme", "--month", "2026-13").code == 2


def test_refusals_are_json_too(shop: Path, avocado: Avocado) -> None:
    ran = avocado(shop, "evaluate", "checkpoint-00", "--json")
    assert ran.code == 1
    assert isinstance(ran.json, dict)
    assert ran.json["refused"]


def test_a_light_installation_says_what_is_missing(
    shop: Path, avocado: Avocado, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    ran = avocado(shop, "data", "check", "train.jsonl")
    assert_refused(ran, "transformers", "avocado-llm[models]")


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "avocado.cli.main", "serve", "--port", str(port)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_fault_14_a_second_server_and_a_port_in_use(
    trained: tuple[Path, str], avocado: Avocado
) -> None:
    folder, checkpoint = trained
    opened = avocado(folder, "release", checkpoint, "--name", "free-1", "--open")
    assert opened.code == 0, opened.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        first = serve(folder, port)
        _, err = first.communicate(timeout=60)
        assert first.returncode == 1
        assert str(port).encode() in err
    running = serve(folder, 0)
    try:
        assert running.stdout is not None
        assert b"Serving free-1" in running.stdout.readline()
        second = serve(folder, 0)
        _, err = second.communicate(timeout=60)
        assert second.returncode == 1
        assert b"running already" in err
        # Other commands reach the ledger through the server.
        assert avocado(folder, "customer", "add", "acme", "--credit", "2.50").code == 0
        running.terminate()
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.communicate()
    listed = avocado(folder, "customer", "list", "--json").json
    assert isinstance(listed, list)
    assert listed[0]["available"] == "2.50"


@pytest.mark.parametrize(
    ("lines", "word"),
    [("[serve]\nport = 70000", "65535"), ('[telemetry]\notlp_endpoint = "x"', "otlp_endpoint")],
)
def test_settings_that_would_mean_something_else(
    shop: Path, avocado: Avocado, lines: str, word: str
) -> None:
    """Port 70,000 was served as 4,464."""
    (shop / "avocado.toml").write_text(f'name = "shop"\n{lines}\n')
    assert_refused(avocado(shop, "serve"), word)
