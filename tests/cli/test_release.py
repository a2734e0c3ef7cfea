"""``avocado release``: what is in a bundle, how it is kept, and what ``avocado verify`` finds."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from avocado.cli.vaults import in_memory
from avocado.release.signature import KEYS, PUBLIC, SIGNATURE
from avocado.release.vault import Vault
from avocado.workspace import Artifact, Workspace
from tests.cli.conftest import Avocado
from tests.cli.serving import make_shop, refused, serving

KEY = secrets.token_bytes(32)


@pytest.fixture(scope="module")
def opened(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with an open release ``free-1``, and its weights in ``weights/``."""
    from avocado.cli.main import run

    folder = tmp_path_factory.mktemp("opened") / "shop"
    shutil.copytree(trained[0], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["release", trained[1], "--name", "free-1", "--open", "--to", "weights"]
        assert run(words) == 0
    return folder


def release_of(folder: Path) -> Artifact:
    store = Workspace.open(folder).store
    return store.load(store.ids("release")[-1])


def test_a_release_ships_its_papers(opened: Path) -> None:
    weights = opened / "weights"
    bom = (weights / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    roles = [each["name"] for each in json.loads(bom)["components"]]
    assert "avocado demo generator" in roles
    data: Any = ModelCard.load(weights / "README.md").data
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.language == ["de", "en", "es", "fr", "zh"]
    notice = (weights / "NOTICE").read_text()
    assert "modified version of seedling" in notice
    assert "avocado demo generator, Apache-2.0" in notice
    assert "Apache License" in (weights / "LICENSE").read_text()
    assert stat.S_IMODE((weights / "model.safetensors").stat().st_mode) == 0o644


def test_a_published_folder_is_verified_by_model_signings_own_command_line(opened: Path) -> None:
    weights = opened / "weights"
    public = opened / ".avocado" / KEYS / PUBLIC
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(weights)]
    command += ["--no-ignore-git-paths", "--signature", str(weights / SIGNATURE)]
    command += ["--public_key", str(public)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_release_is_private_and_made_again_it_is_the_same(
    opened: Path, trained: tuple[Path, str], avocado: Avocado
) -> None:
    release = release_of(opened)
    for path in (release.files, release.files.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in release.files.iterdir()} == {0o600}
    before = (release.files.parent / SIGNATURE).read_bytes()
    ran = avocado(opened, "release", trained[1], "--name", "free-1", "--open", "--json")
    assert ran.code == 0
    assert ran.json["release"] == release.id  # type: ignore[index]
    assert (release.files.parent / SIGNATURE).read_bytes() == before


def test_fault_38_verify_names_each_file_that_is_not_as_it_was_signed(
    opened: Path, tmp_path: Path, avocado: Avocado
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(opened, folder)
    files = release_of(folder).files
    said = avocado(folder, "verify", "--json")
    assert said.code == 0
    assert said.json["signatures"] == 1  # type: ignore[index]
    for name in sorted(path.name for path in files.iterdir()):
        kept = (files / name).read_bytes()
        (files / name).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        ran = avocado(folder, "verify")
        assert ran.code == 1
        assert ran.err.count(f"{name} was changed") == 1
        (files / name).write_bytes(kept)
    (files / ".git").mkdir()
    (files / ".git" / "config").write_text("payload")
    assert ".git/config was changed" in avocado(folder, "verify").err
    shutil.rmtree(files / ".git")
    kept = (files / "NOTICE").read_bytes()
    (tmp_path / "elsewhere").write_bytes(kept)
    (files / "NOTICE").unlink()
    (files / "NOTICE").symlink_to(tmp_path / "elsewhere")
    assert "NOTICE is a link" in avocado(folder, "verify").err
    (files / "NOTICE").unlink()
    (files / "NOTICE").write_bytes(kept)
    assert avocado(folder, "verify").code == 0
    (files.parent / SIGNATURE).unlink()
    assert f"there is no signature {SIGNATURE}" in avocado(folder, "verify").err


# -- encrypted at rest ----------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Path, str]:
    """A shop whose weights lie encrypted, and a customer's key."""
    folder = tmp_path / "shop"
    _, key = make_shop(folder, vault=Vault(KEY))
    (folder / "vault.key").write_text(KEY.hex())
    (folder / "vault.key").chmod(0o600)
    with (folder / "avocado.toml").open("a") as file:
        file.write('\n[vault]\nkey_file = "vault.key"\n')
    return folder, key


@pytest.mark.slow
def test_sealed_weights_serve_what_the_plain_ones_do(
    sealed: tuple[Path, str], tmp_path: Path, avocado: Avocado
) -> None:
    folder, key = sealed
    release = release_of(folder)
    assert not list(release.files.glob("*.safetensors"))
    plain = tmp_path / "plain"
    make_shop(plain)
    assert release_of(plain).id == release.id  # sealed or not, it is the same release
    assert avocado(folder, "verify").code == 0
    answers = []
    for shop, secret in ((folder, key), (plain, None)):
        with serving(shop) as served:
            if secret is None:
                secret = avocado(plain, "key", "create", "acme", "--json").json["key"]  # type: ignore[index]
            answer = served.client(secret).chat.completions.create(
                model="avocado-1",
                messages=[{"role": "user", "content": "hello"}],
                temperature=0,
                max_tokens=12,
            )
            answers.append(answer.choices[0].message.content)
    assert answers[0] == answers[1]
    assert not list(folder.rglob("*.safetensors"))


def test_a_changed_byte_of_sealed_weights_is_named_and_not_served(
    sealed: tuple[Path, str], avocado: Avocado
) -> None:
    folder, _ = sealed
    path = next(release_of(folder).files.glob("*.sealed"))
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    ran = avocado(folder, "verify")
    assert ran.code == 1
    assert ran.err.count("model.safetensors was changed") == 1
    assert "model.safetensors was changed" in refused(folder)


def test_without_its_key_nothing_is_served(sealed: tuple[Path, str], avocado: Avocado) -> None:
    folder, _ = sealed
    (folder / "vault.key").write_text(secrets.token_bytes(32).hex())
    assert "model.safetensors was changed" in avocado(folder, "verify").err
    (folder / "vault.key").unlink()
    assert "vault.key, the vault's key, cannot be read" in refused(folder)
    text = (folder / "avocado.toml").read_text()
    (folder / "avocado.toml").write_text(text.partition("[vault]")[0])
    assert "lie encrypted: name the vault's key in avocado.toml" in refused(folder)


def test_vllm_is_refused_where_it_would_need_plain_files_on_a_disk(
    sealed: tuple[Path, str], tmp_path: Path
) -> None:
    from avocado.cli.vaults import plain_files
    from avocado.errors import Refused

    folder, _ = sealed
    release = release_of(folder)
    with pytest.raises(Refused, match="vLLM reads plain files"):
        plain_files(Workspace.open(folder), release)
    config = folder / "avocado.toml"
    text = config.read_text()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"disk / ext4 rw 0 0\nnone {tmp_path} tmpfs rw 0 0\n")
    assert in_memory(tmp_path / "not" / "there", mounts)
    assert not in_memory(Path("/usr"), mounts)
    config.write_text(f'{text}plain_folder = "/proc/nowhere"\n')
    with pytest.raises(Refused, match="is on a disk"):
        plain_files(Workspace.open(folder), release)


def test_a_release_that_lay_in_plain_is_sealed_when_it_is_made_again(tmp_path: Path) -> None:
    from avocado.cli.keeping import keep_signed
    from avocado.release.signature import signing_key

    make_shop(tmp_path / "shop")
    workspace = Workspace.open(tmp_path / "shop")
    plain = release_of(tmp_path / "shop")
    private, _ = signing_key(workspace.state)
    with workspace.store.stage() as staging:
        shutil.copytree(plain.files, staging.folder, dirs_exist_ok=True)
        again = keep_signed(
            workspace, staging, plain.manifest.facts, plain.manifest.parents, private, Vault(KEY)
        )
    assert again.id == plain.id
    assert Vault(KEY).digests(again.files) == plain.manifest.files
    assert not list(workspace.state.rglob("*.safetensors"))


@pytest.mark.skipif(not in_memory(Path("/dev/shm")), reason="needs a tmpfs")
def test_plain_files_for_vllm_lie_in_memory(sealed: tuple[Path, str]) -> None:
    from avocado.cli.vaults import plain_files
    from avocado.lineage import digest_folder

    folder, _ = sealed
    place = Path("/dev/shm") / f"avocado-test-{secrets.token_hex(4)}"
    with (folder / "avocado.toml").open("a") as file:
        file.write(f'plain_folder = "{place}"\n')
    try:
        release = release_of(folder)
        dead, alive = (place / f"{release.id}.{pid}" for pid in (2**30, os.getppid()))
        dead.mkdir(parents=True)
        alive.mkdir()
        found = plain_files(Workspace.open(folder), release)
        assert (dead.exists(), alive.exists()) == (False, True)
        assert digest_folder(found) == release.manifest.files
        assert stat.S_IMODE(found.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(place, ignore_errors=True)
