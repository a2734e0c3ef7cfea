"""A push to a hub: huggingface_hub's own client against a stand-in of the hub's API."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.lineage import digest, digest_folder
from avocado.release.hub import push
from avocado.release.signature import SIGNATURE, faults, sign, signing_key
from tests.release.hub_stand_in import Hub, standing

NAME = "ours/small-1"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the plain LFS protocol


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with standing() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", found.token)
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "abcdef" / "files"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model-1.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "model-2.safetensors").write_bytes(b"other" * 999)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# small-1\n")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    private, _ = signing_key(tmp_path)
    sign(folder, private, folder.parent / SIGNATURE)
    return folder


def pushed(bundle: Path, private: bool = False) -> str:
    return push(bundle, bundle.parent / SIGNATURE, NAME, private=private).commit


def test_a_push_makes_the_repository_and_all_of_the_release(
    hub: Hub, bundle: Path, tmp_path: Path
) -> None:
    commit = pushed(bundle)
    assert commit == hub.heads[NAME]
    assert hub.repositories == {NAME: False}
    files = dict(hub.files[NAME])
    assert files.pop(".gitattributes")
    assert {name: digest(data) for name, data in files.items() if name != SIGNATURE} == (
        digest_folder(bundle)
    )
    fetched = tmp_path / "fetched"
    for name, data in files.items():
        (fetched / name).parent.mkdir(parents=True, exist_ok=True)
        (fetched / name).write_bytes(data)
    _, public = signing_key(tmp_path)
    assert faults(fetched, fetched / SIGNATURE, public) == []


def test_what_is_not_of_the_release_goes_and_nothing_is_sent_twice(hub: Hub, bundle: Path) -> None:
    pushed(bundle)
    hub.files[NAME]["old.bin"] = b"of an earlier one"
    hub.calls.clear()
    (bundle / "README.md").write_text("---\nlicense: mit\n---\n")
    pushed(bundle)
    assert not any(call.startswith("PUT") for call in hub.calls)
    assert "old.bin" not in hub.files[NAME]
    assert b"license: mit" in hub.files[NAME]["README.md"]


def test_a_push_that_was_cut_off_goes_on_where_it_stopped(hub: Hub, bundle: Path) -> None:
    hub.cut = 1
    with pytest.raises(Refused):
        pushed(bundle)
    assert len(hub.objects) == 1
    assert set(hub.files[NAME]) == {".gitattributes"}  # nothing of it has appeared
    hub.cut = None
    hub.calls.clear()
    pushed(bundle)
    assert sum(call.startswith("PUT") for call in hub.calls) == 1
    assert "model-2.safetensors" in hub.files[NAME]


def test_a_private_push_stays_private_and_never_turns_public_unasked(
    hub: Hub, bundle: Path
) -> None:
    pushed(bundle, private=True)
    assert hub.repositories[NAME] is True
    before = dict(hub.files[NAME])
    with pytest.raises(Refused, match="is private already"):
        pushed(bundle, private=False)
    hub.repositories[NAME] = False
    with pytest.raises(Refused, match="is public already"):
        pushed(bundle, private=True)
    assert hub.files[NAME] == before


@pytest.mark.parametrize(
    ("part", "status", "said"),
    [
        ("/api/repos/create", 401, "does not accept HF_TOKEN"),
        ("/api/repos/create", 403, "HF_TOKEN may not write to ours/small-1"),
        ("/commit/main", 409, "was changed by somebody else meanwhile"),
        ("/commit/main", 412, "push again"),
        ("/preupload/main", 404, "HF_TOKEN may not see it"),
        ("/commit/main", 400, "says no"),
    ],
)
def test_what_the_hub_says_is_told_in_one_sentence(
    hub: Hub, bundle: Path, part: str, status: int, said: str
) -> None:
    hub.broken[part] = status
    with pytest.raises(Refused) as caught:
        pushed(bundle)
    assert len(caught.value.reasons) == 1
    assert said in caught.value.reasons[0]
    assert "\n" not in caught.value.reasons[0]
    assert "README.md" not in hub.files.get(NAME, {})


def test_a_wrong_token_none_and_a_wrong_name(
    hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Refused, match="does not accept HF_TOKEN"):
        pushed(bundle)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(Refused, match="HF_TOKEN is not set"):
        pushed(bundle)
    with pytest.raises(Refused, match="write owner/name"):
        push(bundle, bundle / SIGNATURE, "small-1", private=False)
    assert not hub.repositories


def test_a_hub_that_is_away_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        with pytest.raises(Refused, match="cannot be reached"):
            pushed(bundle)
