"""Signatures: what model_signing's own command line says of them, and what we say, file by file."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from avocado.errors import Refused
from avocado.release.signature import SIGNATURE, faults, sign, signed_files, signing_key

Signed = tuple[Path, Path, Path]


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    """(folder, signature, public key)"""
    folder = tmp_path / "bundle"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / ".hidden").write_text("counts too")
    private, public = signing_key(tmp_path / "state")
    sign(folder, private, tmp_path / SIGNATURE)
    return folder, tmp_path / SIGNATURE, public


def by_its_own_command_line(
    signed: Signed, *more: str, ignoring: bool = False
) -> subprocess.CompletedProcess[str]:
    folder, signature, public = signed
    git = "--ignore-git-paths" if ignoring else "--no-ignore-git-paths"
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), git, *more]
    command += ["--signature", str(signature), "--public_key", str(public)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_model_signings_own_command_line_verifies_a_bundle(signed: Signed) -> None:
    assert faults(*signed) == []
    ran = by_its_own_command_line(signed)
    assert ran.returncode == 0, ran.stderr
    (signed[0] / "model.safetensors").write_bytes(b"other")
    assert by_its_own_command_line(signed).returncode != 0


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    private, public = signing_key(tmp_path)
    before = private.read_bytes(), public.read_bytes()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert signing_key(tmp_path) == (private, public)
    assert (private.read_bytes(), public.read_bytes()) == before
    private.chmod(0o644)
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused, match="may be read by others"):
        sign(tmp_path / "folder", private, tmp_path / SIGNATURE)


def test_fault_38_a_changed_byte_names_its_file(signed: Signed) -> None:
    folder = signed[0]
    for path in [each for each in folder.rglob("*") if each.is_file()]:
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert faults(*signed) == [f"{path.relative_to(folder).as_posix()} was changed"]
        path.write_bytes(kept)
    assert faults(*signed) == []


@pytest.mark.parametrize("name", ["extra.txt", ".extra", ".git/hooks/post-checkout", ".gitignore"])
def test_fault_38_an_extra_file_fails_wherever_it_hides(signed: Signed, name: str) -> None:
    path = signed[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("payload")
    assert faults(*signed) == [f"{name} is not signed"]
    assert by_its_own_command_line(signed).returncode != 0


def test_fault_38_git_is_exempt_by_default_elsewhere_and_not_here(signed: Signed) -> None:
    (signed[0] / ".git").mkdir()
    (signed[0] / ".git" / "config").write_text("payload")
    assert by_its_own_command_line(signed, ignoring=True).returncode == 0  # why we ask otherwise
    assert faults(*signed) == [".git/config is not signed"]


def test_fault_38_links_fail_even_to_the_same_bytes(signed: Signed, tmp_path: Path) -> None:
    folder = signed[0]
    weights = folder / "model.safetensors"
    (tmp_path / "elsewhere").write_bytes(weights.read_bytes())
    weights.unlink()
    weights.symlink_to(tmp_path / "elsewhere")
    assert faults(*signed) == ["model.safetensors is a link"]
    assert by_its_own_command_line(signed).returncode != 0
    (folder / "outside").symlink_to(tmp_path)
    assert sorted(faults(*signed)) == ["model.safetensors is a link", "outside is a link"]
    private, _ = signing_key(tmp_path / "state")
    with pytest.raises(Refused, match="is a link"):
        sign(folder, private, tmp_path / "again.sig")


def test_fault_38_a_pipe_is_no_file(signed: Signed, tmp_path: Path) -> None:
    os.mkfifo(signed[0] / "pipe")
    assert "pipe is no plain file" in faults(*signed)


def test_fault_38_a_missing_or_renamed_file_fails(signed: Signed) -> None:
    (signed[0] / ".hidden").rename(signed[0] / ".moved")
    assert faults(*signed) == [".hidden is signed and missing", ".moved is not signed"]


def test_another_key_a_damaged_signature_and_none_are_told_apart(
    signed: Signed, tmp_path: Path
) -> None:
    folder, signature, public = signed
    other = signing_key(tmp_path / "other")[1]
    assert "was not made by the key" in faults(folder, signature, other)[0]
    text = signature.read_text()
    value = json.loads(text)
    payload = base64.b64decode(value["dsseEnvelope"]["payload"]).replace(b".hidden", b".hidde2")
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    signature.write_text(json.dumps(value))
    assert "was not made by the key" in faults(folder, signature, public)[0]
    signature.write_text("{}")
    assert "is damaged" in faults(folder, signature, public)[0]
    signature.unlink()
    assert faults(folder, signature, public) == [f"there is no signature {SIGNATURE}"]


def test_a_signature_may_lie_in_the_folder_that_it_is_about(signed: Signed) -> None:
    folder, signature, public = signed
    inside = folder / SIGNATURE
    inside.write_bytes(signature.read_bytes())
    assert faults(folder, inside, public) == []
    assert by_its_own_command_line((folder, inside, public)).returncode == 0


def test_a_signature_that_leaves_files_out_is_no_signature(signed: Signed, tmp_path: Path) -> None:
    from model_signing import hashing, signing

    folder, _, public = signed
    private, _ = signing_key(tmp_path / "state")
    hashed = hashing.Config()  # type: ignore[no-untyped-call]
    signer = signing.Config()  # type: ignore[no-untyped-call]
    signer.use_elliptic_key_signer(private_key=private)
    signer.set_hashing_config(hashed.set_ignored_paths(paths=[".hidden"], ignore_git_paths=True))
    signer.sign(folder, tmp_path / "lax.sig")
    with pytest.raises(Refused, match=r"leaves out .*\.hidden"):
        signed_files(tmp_path / "lax.sig", public)
