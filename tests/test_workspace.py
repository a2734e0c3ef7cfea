"""The workspace: strict settings, artifacts by hash, nothing half-written, changes noticed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.lineage import Manifest
from avocado.workspace import Store, Workspace


def keep(store: Store, text: str, kind: str = "corpus") -> str:
    with store.stage() as staging:
        (staging.folder / "data.txt").write_text(text)
        return staging.keep(kind, {"length": len(text)}).id


def test_a_new_workspace_is_found_from_below(tmp_path: Path) -> None:
    made = Workspace.create(tmp_path / "shop", name="shop")
    deep = made.folder / "a" / "b"
    deep.mkdir(parents=True)
    assert Workspace.find(deep) == made
    assert made.config.name == "shop"
    with pytest.raises(Refused, match="workspace already"):
        Workspace.create(made.folder)


def test_outside_a_workspace_the_way_in_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="avocado init"):
        Workspace.find(tmp_path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('name = "a"\nport = 1', "port"),
        ('name = "a"\n[serve]\nprot = 1', "prot"),
        ('name = "a"\n[serve]\nport = "x"', "port"),
        ("name = ", "avocado.toml"),
        ("", "name"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "avocado.toml").write_text(text)
    with pytest.raises(Refused, match=named):
        Workspace.open(tmp_path)


def test_the_same_content_is_the_same_artifact(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second, other = keep(store, "x"), keep(store, "x"), keep(store, "y")
    assert first == second != other
    assert sorted(store.ids("corpus")) == sorted([first, other])
    assert store.resolve(first[:16]) == first
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_failure_while_building_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def build_and_fail() -> None:
        with store.stage() as staging:
            (staging.folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build_and_fail()
    assert list((tmp_path / "staging").iterdir()) == []
    assert store.ids("corpus") == []


def test_a_changed_file_and_a_changed_manifest_are_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    artifact = store.load(keep(store, "x"))
    assert store.changed_files(artifact) == []
    (artifact.files / "data.txt").write_text("z")
    (artifact.files / ".extra").write_text("z")
    assert store.changed_files(artifact) == [".extra", "data.txt"]
    manifest = artifact.files.parent / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"length": 1', '"length": 2'))
    with pytest.raises(Refused, match="was changed"):
        store.load(artifact.id)


@pytest.mark.parametrize("text", ["", "corpus", "corpus-00", "release-1", "../x", "potato-1"])
def test_what_is_no_id_here_is_refused(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    keep(store, "x")
    keep(store, "y")
    with pytest.raises(Refused):
        store.resolve(text, "corpus")


def test_a_base_stays_where_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    model = tmp_path / "model"
    model.mkdir()
    placed = store.place(Manifest("base", {"name": "m"}), {}, location=model)
    assert placed.files == model.resolve()


def test_names_move_and_secrets_are_private(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    workspace.store.point("offer", "avocado-1", "offer-1")
    workspace.store.point("offer", "avocado-1", "offer-2")
    assert workspace.store.pointed("offer") == {"avocado-1": "offer-2"}
    assert workspace.pepper() == workspace.pepper()
    mode = stat.S_IMODE((workspace.state / "pepper").stat().st_mode)
    assert mode == 0o600
