"""The vault: weights at rest under AES-256-GCM, read back piece by piece into memory.

A sealed file is a header (what it is, a salt, its length) and pieces of a mebibyte, each
authenticated with the file's name, the header and its place: a piece that was changed, moved, left
out or taken from another file does not open. Each file has a key of its own (HKDF-SHA256 of the
vault's key over salt and name), so that numbered nonces never repeat under one key.

It protects disks, snapshots and backups that are lost without the key. It protects nothing from
whoever rules the machine while it serves: key and weights are then in its memory.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from avocado.errors import Refused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SUFFIX: Final = ".sealed"
KEY_BYTES: Final = 32
PIECE: Final = 1 << 20
"""Bytes of plain text in a piece: what is in memory besides the weights themselves."""
_MAGIC: Final = b"AVOSEAL1"
_SALT: Final = 32
_HEADER: Final = len(_MAGIC) + _SALT + 8
_TAG: Final = 16


def key_of(file: Path | None, variable: str | None) -> bytes:
    """The vault's key, from a file or an environment variable: 32 bytes as 64 hexadecimal digits.

    Raises:
        Refused: it is missing, of another form, or a file that others may read.
    """
    if file is not None:
        try:
            if stat.S_IMODE(file.stat().st_mode) & 0o077:
                raise Refused(f"{file} may be read by others: chmod 600 it")
            text, where = file.read_text("ascii", errors="replace"), str(file)
        except OSError as error:
            raise Refused(f"{file}, the vault's key, cannot be read: {error.strerror}") from error
    else:
        text, where = os.environ.get(variable or "", ""), f"the environment's {variable}"
        if not text:
            raise Refused(f"{where}, the vault's key, is not set")
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Refused(f"{where} holds no key: 64 hexadecimal digits, as openssl rand -hex 32 makes")
    return key


@dataclass(frozen=True)
class Vault:
    """Seals and opens files under one ``key`` of 32 bytes."""

    key: bytes

    def _cipher(self, salt: bytes, name: str) -> AESGCM:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        info = b"avocado vault 1\0" + name.encode()
        return AESGCM(HKDF(hashes.SHA256(), 32, salt, info).derive(self.key))

    def seal(self, path: Path) -> Path:
        """Replaces a plain file by its sealed form, which is on the disk before the plain one goes.

        The plain one's blocks may linger on the disk until something overwrites them.
        """
        target = path.with_name(path.name + SUFFIX)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        salt, size = secrets.token_bytes(_SALT), path.stat().st_size
        header = _MAGIC + salt + size.to_bytes(8, "big")
        cipher = self._cipher(salt, path.name)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out, path.open("rb") as plain:
                out.write(header)
                for number in range(_pieces(size)):
                    piece = plain.read(PIECE)
                    out.write(cipher.encrypt(_nonce(number), piece, header))
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        path.unlink()
        return target

    def seal_folder(self, folder: Path) -> list[str]:
        """Seals every weight file below ``folder``; returns the names of those that it sealed."""
        found = [path for path in sorted(folder.rglob("*.safetensors")) if path.is_file()]
        for path in found:
            self.seal(path)
        return [path.relative_to(folder).as_posix() for path in found]

    def open(self, path: Path) -> Sealed:
        """A sealed file, to be read.

        Raises:
            Refused: it is none, or shorter or longer than it says.
        """
        with path.open("rb") as file:
            header = file.read(_HEADER)
        name = path.name.removesuffix(SUFFIX)
        if len(header) < _HEADER or not header.startswith(_MAGIC):
            raise Refused(f"{name} is no sealed file")
        size = int.from_bytes(header[-8:], "big")
        if path.stat().st_size != _HEADER + size + _TAG * _pieces(size):
            raise Refused(f"{name} was changed: its length is not what its header says")
        salt = header[len(_MAGIC) : len(_MAGIC) + _SALT]
        return Sealed(path, name, size, header, self._cipher(salt, name))

    def digests(self, folder: Path) -> dict[str, str]:
        """Relative path → SHA-256 of every file below ``folder``, of what it is when it is opened.

        A file that does not open has no hash: it is ``""``.
        """
        found = {}
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            name = path.relative_to(folder).as_posix()
            if path.name.endswith(SUFFIX):
                try:
                    found[name.removesuffix(SUFFIX)] = self.open(path).sha256()
                except Refused:
                    found[name.removesuffix(SUFFIX)] = ""
            else:
                with path.open("rb") as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def open_into(self, folder: Path, target: Path) -> None:
        """Writes the plain form of ``folder`` to ``target`` (0700), which must not exist."""
        target.mkdir(mode=0o700, parents=True)
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            name = path.relative_to(folder).as_posix().removesuffix(SUFFIX)
            (target / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                if path.name.endswith(SUFFIX):
                    for piece in self.open(path).pieces():
                        out.write(piece)
                else:
                    out.write(path.read_bytes())

    def weights(self, folder: Path) -> dict[str, Any]:
        """Tensors by name, of all sealed weight files at the root of ``folder``. Each tensor's
        memory is allocated once, and pieces are opened into it.

        Raises:
            Refused: a file does not open, or holds what no safetensors file holds.
        """
        found: dict[str, Any] = {}
        for path in sorted(folder.glob(f"*.safetensors{SUFFIX}")):
            found.update(self.open(path).tensors())
        return found


@dataclass(frozen=True)
class Sealed:
    """A sealed file of ``size`` plain bytes."""

    path: Path
    name: str
    size: int
    _header: bytes
    _cipher: AESGCM

    def pieces(self) -> Iterator[bytes]:
        """The plain bytes in order.

        Raises:
            Refused: a piece was changed or moved, or the key is another one.
        """
        from cryptography.exceptions import InvalidTag

        with self.path.open("rb") as file:
            file.seek(_HEADER)
            for number in range(_pieces(self.size)):
                try:
                    yield self._cipher.decrypt(
                        _nonce(number), file.read(PIECE + _TAG), self._header
                    )
                except InvalidTag:
                    raise Refused(
                        f"{self.name} does not open: it was changed, or the vault has another key"
                    ) from None

    def sha256(self) -> str:
        hashed = hashlib.sha256()
        for piece in self.pieces():
            hashed.update(piece)
        return hashed.hexdigest()

    def tensors(self) -> dict[str, Any]:
        """The tensors of a sealed safetensors file, by name.

        Raises:
            Refused: a piece does not open, or the header is not one of safetensors.
        """
        from avocado.release.tensors import Gathered

        gathered = Gathered(self.name, self.size)
        for piece in self.pieces():
            gathered.take(piece)
        return gathered.done()


def is_sealed(folder: Path) -> bool:
    """Whether a folder holds weights that the vault has sealed."""
    return any(folder.rglob(f"*{SUFFIX}"))


def _pieces(size: int) -> int:
    """At least one, so that an empty file is authenticated too."""
    return max(1, -(-size // PIECE))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
