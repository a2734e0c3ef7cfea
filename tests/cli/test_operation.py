"""Keys, limits and offers from the command line, beside a server that runs and without one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avocado.cli.book import operator, shelf
from avocado.cli.keeping import keep_signed
from avocado.cli.lineups import line_up, place_offer, read_offer
from avocado.gateway.swap import drawn
from avocado.release.signature import signing_key
from avocado.workspace import Workspace

Avocado = Callable[..., Any]


def call(url: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, Any, Any]:
    request = urllib.request.Request(
        url,
        json.dumps(body).encode() if body is not None else None,
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), error.headers


def ask(url: str, key: str, model: str = "free-1") -> tuple[int, Any, Any]:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": model, "messages": messages, "max_tokens": 4}
    return call(f"{url}/v1/chat/completions", key, body)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The real command, and its URL."""
    command = [sys.executable, "-m", "avocado.cli.main", "serve", "--port", "0", "--json"]
    log = (folder / "server.log").open("wb")
    child = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=log, env={**os.environ}
    )
    try:
        assert child.stdout is not None
        text = ""
        for line in child.stdout:
            text += line.decode()
            if line.rstrip() == b"}":
                break
        assert text, (folder / "server.log").read_text()
        yield str(json.loads(text)["url"])
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        log.close()


@pytest.fixture(scope="module")
def copied(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The trained workspace, for this module alone."""
    folder = tmp_path_factory.mktemp("operation") / "shop"
    shutil.copytree(trained[0], folder)
    return folder, trained[1]


@pytest.fixture
def offering(copied: tuple[Path, str], avocado: Avocado) -> Path:
    """A workspace with something free on offer and a customer."""
    folder, checkpoint = copied
    if "free-1" not in Workspace.open(folder).store.pointed("offer"):
        ran = avocado(folder, "release", checkpoint, "--name", "free-1", "--open")
        assert ran.code == 0, ran.err
    avocado(folder, "customer", "add", "acme", "--credit", "1")
    return folder


def new_key(avocado: Avocado, folder: Path, *more: str) -> str:
    ran = avocado(folder, "key", "create", "acme", "--json", *more)
    assert ran.code == 0, ran.err
    return str(ran.json["key"])


def second_release(folder: Path) -> str:
    """Another release of the same weights: what a swap needs, without training again."""
    workspace = Workspace.open(folder)
    store = workspace.store
    first = store.load(store.ids("release")[0])
    with store.stage() as staging:
        for path in first.files.iterdir():
            (staging.folder / path.name).write_bytes(path.read_bytes())
        (staging.folder / "README.md").write_text("another card")
        private, _ = signing_key(workspace.state)
        manifest = first.manifest
        return keep_signed(workspace, staging, manifest.facts, manifest.parents, private, None).id


def test_limits_are_set_kept_and_taken_away(offering: Path, avocado: Avocado) -> None:
    ran = avocado(offering, "customer", "limit", "acme", "--month", "5", "--tokens-per-minute", "9")
    assert ran.code == 0, ran.err
    ran = avocado(offering, "customer", "limit", "acme", "--requests-per-minute", "3", "--json")
    assert ran.json == {
        "subject": "customer:acme",
        "month": "5.00",
        "total": None,
        "requests_per_minute": 3,
        "tokens_per_minute": 9,
    }
    ran = avocado(
        offering,
        *("customer", "limit", "acme", "--month", "none", "--tokens-per-minute", "off"),
        *("--requests-per-minute", "none", "--json"),
    )
    assert (ran.json["month"], ran.json["tokens_per_minute"]) == (None, 0)
    assert ran.json["requests_per_minute"] is None
    avocado(offering, "customer", "limit", "acme", "--tokens-per-minute", "none")


@pytest.mark.parametrize(
    "words",
    [
        ("customer", "limit", "acme"),
        ("customer", "limit", "acme", "--requests-per-minute", "0"),
        ("customer", "limit", "acme", "--requests-per-minute", "-1"),
        ("customer", "limit", "acme", "--month", "lots"),
        ("offer", "use", "free-1", "release-00", "--canary", "100"),
        ("offer", "use", "free-1", "release-00", "--canary", "-5"),
        ("offer", "use", "free-1", "release-00", "--by", "customer"),
    ],
)
def test_wrong_usage(offering: Path, avocado: Avocado, words: tuple[str, ...]) -> None:
    assert avocado(offering, *words).code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("customer", "limit", "bob", "--month", "1"), "bob"),
        (("key", "limit", "nokey", "--month", "1"), "nokey"),
        (("key", "rotate", "nokey"), "nokey"),
        (("key", "create", "acme", "--model", "nothing"), "nothing"),
        (("offer", "use", "nothing", "release-00"), "free-1"),
        (("offer", "use", "free-1", "release-00"), "release-00"),
        (("offer", "rollback", "nothing"), "nothing"),
    ],
)
def test_refusals(offering: Path, avocado: Avocado, words: tuple[str, ...], said: str) -> None:
    ran = avocado(offering, *words)
    assert ran.code == 1
    assert said in ran.err


def test_an_unknown_setting_is_named(offering: Path, avocado: Avocado) -> None:
    config = offering / "avocado.toml"
    before = config.read_text()
    try:
        for text, said in (
            ("[limits]\nrequest_per_minute = 3\n", "request_per_minute"),
            ("[limits]\nrunning = 0\n", "limits.running"),
            ('[ledger]\nurl = "mysql://x"\n', "postgresql://"),
            ('[engine]\nkind = "quick"\n', "quick"),
            ("[engine.settings]\nmax_batches = 3\n", "max_batches"),
            ('[engine]\nkind = "remote"\n', "urls"),
            ("[telemetry]\nendpoint = 1\n", "endpoint"),
        ):
            config.write_text(f"{before}\n{text}")
            ran = avocado(offering, "serve")
            assert (ran.code, said in ran.err) == (1, True), ran.err
        config.write_text(before.replace("[serve]", '[serve]\ntrusted_proxies = ["10.0.0.1/8"]'))
        assert "trusted_proxies" in avocado(offering, "serve").err
    finally:
        config.write_text(before)


def test_a_release_for_publication_is_not_sold(offering: Path, avocado: Avocado) -> None:
    from avocado.terms.price import PriceSheet

    workspace = Workspace.open(offering)
    release = workspace.store.ids("release")[0]
    offer = place_offer(workspace, "paid-1", release, PriceSheet(1, 1))
    workspace.store.point("offer", "paid-1", offer.id)
    try:
        ran = avocado(offering, "offer", "use", "paid-1", second_release(offering))
        assert (ran.code, "not for sale" in ran.err) == (1, True)
    finally:
        workspace.store.unpoint("offer", "paid-1")


def test_keys_limits_and_a_hot_swap_beside_a_running_server(
    offering: Path, avocado: Avocado
) -> None:
    workspace = Workspace.open(offering)
    first = line_up(workspace, "free-1")
    assert first is not None
    second = second_release(offering)
    with serving(offering) as url:
        key = new_key(avocado, offering, "--scope", "inference", "--model", "free-1")
        assert ask(url, key)[0] == 200
        assert call(f"{url}/v1/models", key)[0] == 403

        key_id = key.split("_")[2]
        assert avocado(offering, "key", "limit", key_id, "--requests-per-minute", "2").code == 0
        time.sleep(1.1)
        statuses = [ask(url, key)[0] for _ in range(3)]
        assert statuses == [200, 200, 429]

        new = avocado(offering, "key", "rotate", key, "--overlap", "0", "--json").json["key"]
        time.sleep(1.1)
        assert ask(url, key)[0] == 401
        status, _, headers = ask(url, new)
        assert (status, headers["x-ratelimit-limit-requests"]) == (200, "2")
        assert call(f"{url}/v1/models", new)[0] == 403, "the new key has the old one's scopes"

        free = new_key(avocado, offering)
        used = avocado(offering, "offer", "use", "free-1", second, "--canary", "50", "--json")
        assert used.code == 0, used.err
        canary = read_offer(workspace, used.json["offer"])
        assert used.json["servers"] == 1
        assert used.json["customers"] == drawn(canary, 50, "acme")
        mine = second if drawn(canary, 50, "acme") else first.offer.release
        assert {ask(url, free)[1]["system_fingerprint"] for _ in range(4)} == {mine[:20]}
        words = ("offer", "use", "free-1", second, "--canary", "50", "--by", "conversation")
        assert "50% of free-1's conversations" in avocado(offering, *words).out
        (row,) = (
            row
            for row in avocado(offering, "offer", "list", "--json").json
            if row["name"] == "free-1"
        )
        assert (row["percent"], row["of"]) == ("50", "conversations")

        assert avocado(offering, "offer", "rollback", "free-1").code == 0
        assert {ask(url, free)[1]["system_fingerprint"] for _ in range(2)} == {
            first.offer.release[:20]
        }
        assert avocado(offering, "offer", "use", "free-1", second).code == 0
        assert ask(url, free)[1]["system_fingerprint"] == second[:20]
        assert "already" in avocado(offering, "offer", "use", "free-1", second).err
        assert avocado(offering, "offer", "rollback", "free-1").code == 0
        assert ask(url, free)[1]["system_fingerprint"] == first.offer.release[:20]


def test_who_changed_what_is_on_record(offering: Path, avocado: Avocado) -> None:
    before = len(avocado(offering, "customer", "log", "--json").json)
    key = new_key(avocado, offering, "--model", "free-1")
    key_id = key.split("_")[2]
    avocado(offering, "key", "limit", key_id, "--requests-per-minute", "7")
    avocado(offering, "key", "limit", key_id, "--requests-per-minute", "off")
    avocado(offering, "key", "rotate", key_id, "--overlap", "1")
    avocado(offering, "customer", "add", "other")
    avocado(offering, "customer", "limit", "other", "--tokens-per-minute", "9")
    rows = avocado(offering, "customer", "log", "--json").json[before:]
    assert {row["who"] for row in rows} == {operator()}
    assert [row["subject"] == f"key:{key_id}" for row in rows] == [True] * 3 + [False, True, False]
    assert rows[0]["changed"] == {"models": {"old": None, "new": ["free-1"]}}
    assert rows[2]["changed"] == {"requests_per_minute": {"old": 7, "new": 0}}
    assert rows[4]["changed"]["until"]["old"] is None
    mine = avocado(offering, "customer", "log", "acme", "--json").json
    assert rows[5] not in mine
    assert mine[-5:] == rows[:5]
    assert "requests per minute: 7 → off" in avocado(offering, "customer", "log", "acme").out
    assert avocado(offering, "customer", "log", "nobody").code == 1
    proved = avocado(offering, "verify", "--json")
    assert proved.json["policies"] == before + 6

    with shelf(Workspace.open(offering)) as database:
        database.run("UPDATE gateway_change SET who = 'eve' WHERE seq = ?", (rows[0]["seq"],))
        try:
            for command in (("verify",), ("customer", "log")):
                ran = avocado(offering, *command)
                assert (ran.code, f"change {rows[0]['seq']}" in ran.err) == (1, True)
        finally:
            values = (operator(), rows[0]["seq"])
            database.run("UPDATE gateway_change SET who = ? WHERE seq = ?", values)
    assert avocado(offering, "verify").code == 0


@pytest.mark.slow
def test_a_backup_restored_in_a_new_workspace_is_the_same_shop(
    offering: Path, avocado: Avocado, tmp_path: Path
) -> None:
    """As docs/operations.md says it: the same keys, policies, balances, and the record of both."""
    key = new_key(avocado, offering)
    limits = ("--requests-per-minute", "2", "--month", "0.50")
    assert avocado(offering, "key", "limit", key, *limits).code == 0
    copies, saved = tmp_path / "copies", tmp_path / "apart"
    copies.mkdir()
    saved.mkdir()
    with serving(offering) as url:
        assert ask(url, key)[0] == 200
        made = avocado(offering, "ledger", "backup", str(copies / "book.sqlite"), "--json")
        assert made.json == {
            "backup": str(copies / "book.sqlite"),
            "policies": str(copies / "book.gateway.sqlite"),
            "keep_apart": str(offering / ".avocado" / "pepper"),
        }
        again = avocado(offering, "ledger", "backup", str(copies / "book.sqlite"))
        assert (again.code, "never overwrites" in again.err) == (1, True)
    assert sorted(path.name for path in copies.iterdir()) == ["book.gateway.sqlite", "book.sqlite"]
    shutil.copy(offering / ".avocado" / "pepper", saved / "pepper")

    new = tmp_path / "new"
    state = new / ".avocado"
    state.mkdir(parents=True)
    shutil.copy(offering / "avocado.toml", new)
    for folder in ("artifacts", "refs", "keys"):
        shutil.copytree(offering / ".avocado" / folder, state / folder)
    shutil.copy(copies / "book.sqlite", state / "ledger.sqlite")
    shutil.copy(copies / "book.gateway.sqlite", state / "gateway.sqlite")
    with serving(new) as url:
        assert ask(url, key)[0] == 401, "without its pepper no key works"
    (state / "pepper").unlink()
    shutil.copy(saved / "pepper", state / "pepper")
    with serving(new) as url:
        status, _, headers = ask(url, key)
        assert (status, headers["x-ratelimit-limit-requests"]) == (200, "2")
        assert [ask(url, key)[0] for _ in range(2)] == [200, 429]
    for command in (
        ("customer", "list"),
        ("customer", "log"),
        ("key", "list"),
        ("key", "limit", key, "--requests-per-minute", "2"),
    ):
        told = [avocado(shop, *command, "--json").json for shop in (offering, new)]
        assert told[0] == told[1], command
    assert avocado(new, "verify", "--deep").code == 0


@pytest.mark.slow
def test_a_swap_that_a_server_cannot_load_leaves_the_name_as_it_was(
    offering: Path, avocado: Avocado
) -> None:
    workspace = Workspace.open(offering)
    before = line_up(workspace, "free-1")
    second = second_release(offering)
    files = workspace.store.load(second).files
    with serving(offering) as url:
        weights = next(files.glob("*.safetensors"))
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1])
        try:
            ran = avocado(offering, "offer", "use", "free-1", second)
        finally:
            weights.write_bytes(whole)
        assert (ran.code, "was changed" in ran.err) == (1, True)
        assert line_up(workspace, "free-1") == before
        assert ask(url, new_key(avocado, offering))[0] == 200
