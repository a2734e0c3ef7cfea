"""``avocado release --open --push``: a real release to a stand-in of the hub, and by tier."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from avocado.lineage import digest
from avocado.release.signature import SIGNATURE
from avocado.workspace import Workspace
from tests.cli.conftest import Avocado
from tests.release.hub_stand_in import standing


@pytest.fixture
def shop(trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    shutil.copytree(trained[0], tmp_path / "shop")
    return tmp_path / "shop"


def test_an_open_release_is_pushed_and_again_nothing_changes(
    shop: Path, trained: tuple[Path, str], avocado: Avocado, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("release", trained[1], "--name", "small-1", "--open", "--push", "ours/small-1")
    ran = avocado(shop, *words)
    assert (ran.code, "HF_TOKEN is not set" in ran.err) == (1, True)
    assert Workspace.open(shop).store.ids("release") == []  # told before the work
    with standing() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        hub.broken["/commit/main"] = 409
        ran = avocado(shop, *words)
        assert (ran.code, "changed by somebody else" in ran.err) == (1, True)
        hub.broken.clear()
        ran = avocado(shop, *words, "--json")
        assert ran.code == 0, ran.err
        value: Any = ran.json
        assert value["pushed"]["url"] == f"{hub.url}/ours/small-1"
        store = Workspace.open(shop).store
        assert len(store.ids("release")) == 1
        files = hub.files["ours/small-1"]
        assert SIGNATURE in files
        for name, sha in store.load(value["release"]).manifest.files.items():
            assert digest(files[name]) == sha
        before = dict(files)
        assert avocado(shop, *words).code == 0
        assert hub.files["ours/small-1"] == before


def test_a_paid_release_is_never_pushed(
    shop: Path, trained: tuple[Path, str], avocado: Avocado
) -> None:
    prices = ("--price-input", "1", "--price-output", "1")
    words = ("release", trained[1], "--name", "best-1", "--paid", *prices)
    ran = avocado(shop, *words, "--push", "ours/best-1")
    assert (ran.code, "a paid release keeps its weights" in ran.err) == (1, True)
    ran = avocado(shop, "release", trained[1], "--name", "m", "--open", "--private")
    assert "--private goes with --push" in ran.err
