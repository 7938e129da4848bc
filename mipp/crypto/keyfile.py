"""Key files: JSON with mode 0600; a passphrase may protect the secrets (scrypt and AES-256-GCM)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import glob
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..errors import KeyFileError
from ..io.durable import sync_folder
from .schedule import random_bytes

__all__ = ["change_passphrase", "is_protected", "load_key_file", "read_public", "save_key_file"]

_VERSION = 1
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _stretch(passphrase: str, salt: bytes) -> bytes:
    if not isinstance(passphrase, str):
        raise KeyFileError(f"a passphrase is text, not {type(passphrase).__name__}")
    try:
        # surrogates stand for bytes that are not UTF-8, which an environment variable may hold
        raw = passphrase.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise KeyFileError("a passphrase is text; this one holds half of a character") from None
    return Scrypt(salt=salt, length=32, **_SCRYPT).derive(raw)


def save_key_file(
    path: Path, kind: str, public: dict[str, str], secrets: dict[str, bytes], passphrase: str | None = None
) -> None:
    """Write a new key file, never over an existing one.

    Parameters
    ----------
    path : Path
        File to create, with mode 0600; it is on disk when this returns.
    kind : str
        ``owner``, ``user`` or ``server``; reading checks it.
    public : dict of str to str
        Values stored in the clear; authenticated if there is a passphrase.
    secrets : dict of str to bytes
        Named values. Secret.
    passphrase : str, optional
        None stores the secrets in the clear, readable by the file's owner only. Secret.

    Raises
    ------
    KeyFileError
        The file exists or cannot be written, or the passphrase is empty.
    """
    text = _content(kind, public, secrets, passphrase)
    temporary = _temporary(path)
    try:
        try:
            _write_new(temporary, text)
            os.link(temporary, path)  # fails if the name is taken, unlike rename
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        sync_folder(path.parent)
    except FileExistsError:
        raise KeyFileError(f"key file {path} exists; keys are never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"cannot write key file {path}: {error.strerror}") from None


def change_passphrase(path: Path, kind: str, old: str | None, new: str | None) -> None:
    """Encrypt a key file's secrets under another passphrase; the keys stay the same.

    The old file is valid until the new one is on disk and takes its name. If two changes run at once, the second one
    needs the first one's new passphrase. Copies of the old file, such as backups, still open with the old passphrase.

    Parameters
    ----------
    path : Path
        The key file.
    kind : str
        ``owner``, ``user`` or ``server``.
    old : str, optional
        The present passphrase; None if there is none. Secret.
    new : str, optional
        The new passphrase; None stores the secrets in the clear, readable by the file's owner only. Secret.

    Raises
    ------
    KeyFileError
        The old passphrase is wrong or missing, the new one is empty, or the file cannot be read or written. The file
        has not changed.
    """
    with _locked(path):
        public, secrets = load_key_file(path, kind, old)
        text = _content(kind, public, secrets, new)
        temporary = _temporary(path)
        try:
            for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):  # left by a change that was killed
                left.unlink(missing_ok=True)
            try:
                _write_new(temporary, text)
                os.replace(temporary, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            sync_folder(path.parent)
        except OSError as error:
            raise KeyFileError(f"cannot write key file {path}: {error.strerror}") from None


def is_protected(path: Path, kind: str) -> bool:
    """Check whether a key file has a passphrase.

    Parameters
    ----------
    path : Path
        The key file.
    kind : str
        ``owner``, ``user`` or ``server``.

    Returns
    -------
    bool
        True if reading the secrets needs a passphrase.

    Raises
    ------
    KeyFileError
        As for :func:`load_key_file`.
    """
    return "sealed" in _read(path, kind)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a key file while it is replaced; locks the new file if another process replaced it meanwhile."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise KeyFileError(f"cannot read key file {path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(path))
            except OSError:
                same = False
            if same:
                yield
                return
        finally:
            os.close(fd)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{random_bytes(4).hex()}")


def _write_new(path: Path, content: bytes) -> None:
    """A new file, mode 0600, on disk when this returns."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _content(kind: str, public: dict[str, str], secrets: dict[str, bytes], passphrase: str | None) -> bytes:
    """Text of a key file."""
    clear: dict[str, Any] = {"format": "mipp key", "version": _VERSION, "kind": kind, "public": public}
    plain = json.dumps({name: _b64(value) for name, value in secrets.items()}).encode()
    if passphrase is None:
        body = {"secret": _b64(plain)}
    else:
        if not passphrase:
            raise KeyFileError("the passphrase is empty")
        salt, nonce = random_bytes(16), random_bytes(12)
        associated_data = json.dumps(clear, sort_keys=True).encode()
        sealed = AESGCM(_stretch(passphrase, salt)).encrypt(nonce, plain, associated_data)
        body = {"scrypt_salt": _b64(salt), "nonce": _b64(nonce), "sealed": _b64(sealed)}
    return json.dumps({**clear, **body}, indent=1).encode() + b"\n"


def load_key_file(path: Path, kind: str, passphrase: str | None = None) -> tuple[dict[str, str], dict[str, bytes]]:
    """Read a key file.

    Parameters
    ----------
    path : Path
        The key file.
    kind : str
        ``owner``, ``user`` or ``server``.
    passphrase : str, optional
        Passphrase, if the file has one. Secret.

    Returns
    -------
    public : dict of str to str
        Public values.
    secrets : dict of str to bytes
        Named values. Secret.

    Raises
    ------
    KeyFileError
        The file is missing, readable by others, corrupt, or of another kind or version; or the passphrase is missing
        or wrong. The message holds no content of the file.
    """
    data = _read(path, kind)
    try:
        public = data["public"]
        if "sealed" in data:
            if passphrase is None:
                raise KeyFileError(f"key file {path} needs its passphrase")
            clear = {name: data[name] for name in ("format", "version", "kind", "public")}
            associated_data = json.dumps(clear, sort_keys=True).encode()
            key = _stretch(passphrase, base64.b64decode(data["scrypt_salt"], validate=True))
            nonce, sealed = (base64.b64decode(data[name], validate=True) for name in ("nonce", "sealed"))
            plain = AESGCM(key).decrypt(nonce, sealed, associated_data)
        else:
            plain = base64.b64decode(data["secret"], validate=True)
        secrets = {name: base64.b64decode(value, validate=True) for name, value in json.loads(plain).items()}
        if not isinstance(public, dict):
            raise KeyFileError(f"key file {path} is corrupt")
        return public, secrets
    except InvalidTag:
        raise KeyFileError(f"wrong passphrase for key file {path}, or the file is corrupt") from None
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(f"key file {path} is corrupt") from None


def read_public(path: Path, kind: str) -> dict[str, str]:
    """Read the public values of a key file, without its passphrase.

    Parameters
    ----------
    path : Path
        The key file.
    kind : str
        ``owner``, ``user`` or ``server``.

    Returns
    -------
    dict of str to str
        Public values.

    Raises
    ------
    KeyFileError
        As for :func:`load_key_file`.
    """
    public = _read(path, kind).get("public")
    if not isinstance(public, dict):
        raise KeyFileError(f"key file {path} is corrupt")
    return public


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise KeyFileError(f"key file {path} is readable by others; run: chmod 600 {path}")
            raw = file.read(1 << 20)
    except OSError as error:
        raise KeyFileError(f"cannot read key file {path}: {error.strerror}") from None
    try:
        data: Any = json.loads(raw)
        found = data["format"], data["version"], data["kind"]
    except (ValueError, KeyError, TypeError):
        raise KeyFileError(f"key file {path} is corrupt") from None
    if found[:2] != ("mipp key", _VERSION):
        raise KeyFileError(f"{path} is not a key file of version {_VERSION}")
    if found[2] != kind:
        raise KeyFileError(f"{path} is a key file of kind {found[2]!r}, expected {kind!r}")
    return dict(data)
