"""The signature of a release: every file by name and hash, under a local elliptic-curve key.

``model-signing`` writes it (a DSSE envelope in a Sigstore bundle, which its own command line
verifies). We read it ourselves, so that weights which lie encrypted are held against the hashes
of what they decrypt to. It lies beside the files that it is about: ECDSA draws a random number
each time, and the same release keeps the same id. Hidden files and ``.git`` are no exception, and
a link is never followed.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.lineage import digest, digest_file

SIGNATURE: Final = "model.sig"
"""The name of the signature, beside a release's files, and in the folder of open weights."""
KEYS: Final = "keys"
PRIVATE: Final = "signing.pem"
PUBLIC: Final = "signing.pub"
_PAYLOAD: Final = "application/vnd.in-toto+json"


def signing_key(state: Path) -> tuple[Path, Path]:
    """(private, public) key of a workspace whose state lies in ``state``; made on first use.

    The private one is a P-256 key in PEM without a password: 0600, in a folder of 0700.
    """
    folder = state / KEYS
    private, public = folder / PRIVATE, folder / PUBLIC
    if not private.exists():
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    if not public.exists():
        from cryptography.hazmat.primitives import serialization

        public.write_bytes(
            _load_private(private)
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    return private, public


def _load_private(path: Path) -> Any:
    from cryptography.hazmat.primitives import serialization

    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise Refused(f"{path} may be read by others: chmod 600 it, or it signs for anybody")
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise Refused(f"{path} is no private key in PEM without a password: {error}") from error


def fingerprint(public: Path) -> str:
    """SHA-256 of a public key in PEM: what a buyer compares over another channel."""
    return digest(public.read_bytes())


def sign(folder: Path, private: Path, signature: Path) -> None:
    """Signs every file of ``folder``, hidden ones and ``.git`` included.

    Raises:
        Refused: it holds a link, a pipe or a device, or the key is none.
    """
    from model_signing import hashing, signing

    _load_private(private)
    if odd := list(oddities(folder)):
        raise Refused(*odd)
    hashed = hashing.Config()  # type: ignore[no-untyped-call]
    signer = signing.Config()  # type: ignore[no-untyped-call]
    signer.use_elliptic_key_signer(private_key=private)
    signer.set_hashing_config(hashed.set_ignored_paths(paths=[], ignore_git_paths=False))
    signer.sign(folder, signature)


def oddities(folder: Path) -> Iterator[str]:
    """What no release holds: links, pipes, devices. Links are not followed to find more."""
    for root, folders, names in os.walk(folder):
        for name in sorted((*folders, *names)):
            path = Path(root, name)
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield f"{path.relative_to(folder).as_posix()} is a link"
            elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                yield f"{path.relative_to(folder).as_posix()} is no plain file"


def signed_files(signature: Path, public: Path) -> Mapping[str, str]:
    """Name → SHA-256 of every file that the signature vouches for.

    Raises:
        Refused: there is none, it is damaged, or another key made it.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        sealed = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind = str(envelope["payloadType"])
    except FileNotFoundError:
        raise Refused(f"there is no signature {signature.name}") from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Refused(f"{signature.name} is damaged: {error!r}") from error
    try:
        key = serialization.load_pem_public_key(public.read_bytes())
    except (OSError, ValueError) as error:
        raise Refused(f"{public} is no public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused(f"{public} is no elliptic-curve key")
    # DSSE's pre-authentication encoding; the hash goes by the curve, as model-signing has it.
    said = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    hashed = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[key.key_size]
    try:
        key.verify(sealed, said, ec.ECDSA(hashed))
    except InvalidSignature:
        raise Refused(f"{signature.name} was not made by the key {public.name}") from None
    return _resources(kind, payload, signature.name)


def _resources(kind: str, payload: bytes, name: str) -> Mapping[str, str]:
    try:
        predicate = json.loads(payload)["predicate"]
        found = {str(each["name"]): str(each["digest"]) for each in predicate["resources"]}
        algorithms = {each["algorithm"] for each in predicate["resources"]}
        ignored = predicate["serialization"].get("ignore_paths") or []
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{name} is damaged: {error!r}") from error
    if kind != _PAYLOAD or algorithms != {"sha256"}:
        raise Refused(f"{name} is no signature over the SHA-256 of files")
    if set(ignored) - {SIGNATURE}:
        raise Refused(f"{name} leaves out {', '.join(sorted(ignored))}: it vouches for too little")
    return found


def faults(
    folder: Path, signature: Path, public: Path, contents: Mapping[str, str] | None = None
) -> list[str]:
    """What is wrong with a signed folder, each sentence with its file; empty if nothing is.

    ``contents``: name → SHA-256 of what lies there, where files are read otherwise than they lie.
    A signature that lies in the folder is not one of its files.
    """
    try:
        signed = signed_files(signature, public)
    except Refused as refused:
        return list(refused.reasons)
    found = list(oddities(folder))
    links = {each.removesuffix(" is a link") for each in found}
    if contents is None:
        contents = {
            path.relative_to(folder).as_posix(): digest_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }
    if signature.parent.resolve() == folder.resolve():
        contents = {name: sha for name, sha in contents.items() if name != signature.name}
    for name in sorted(signed.keys() | contents.keys()):
        if name in links:
            continue
        if name not in signed:
            found.append(f"{name} is not signed")
        elif name not in contents:
            found.append(f"{name} is signed and missing")
        elif signed[name] != contents[name]:
            found.append(f"{name} was changed")
    return found
