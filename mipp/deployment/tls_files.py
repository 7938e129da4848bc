"""TLS files in a server's folder: those that it was made with, and those of later certificates.

Files of a later certificate are named after it, so both pairs are there while both are valid, and no moment of a
rotation leaves a key beside another key's certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

from ..crypto.certificates import ServerTls, operator_tls
from ..errors import DeploymentError, MippError
from ..io.durable import replace_file, sync_folder
from ..rpc.tls import check_handshake

__all__ = [
    "PEM_BYTES",
    "TLS_CERTIFICATE_NAME",
    "TLS_KEY_NAME",
    "check_tls",
    "drop_tls",
    "load_tls",
    "read_file",
    "read_tls",
    "save_tls",
    "served_tls",
    "tls_paths",
]

#: PEM of a server's TLS key (mode 0600), and of its certificate with those above it
TLS_KEY_NAME, TLS_CERTIFICATE_NAME = "tls.key", "tls.pem"
PEM_BYTES = 1 << 20


def read_file(path: Path, most: int) -> bytes:
    """A file of bounded size; DeploymentError."""
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DeploymentError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > most:
        raise DeploymentError(f"{path} has more than {most} bytes")
    return content


def read_tls(certificate: Path, key: Path) -> ServerTls:
    """An operator's own certificate and key, PEM files, tried out.

    Raises
    ------
    DeploymentError
        A file cannot be read.
    ParameterError
        They are damaged, do not fit, or are none that servers can use.
    """
    tls = operator_tls(read_file(certificate, PEM_BYTES), read_file(key, PEM_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "pem", Path(folder) / "key"
        replace_file(paths[0], tls.chain)
        replace_file(paths[1], tls.key)
        check_handshake(*paths, tls.certificate)
    return tls


def _later_paths(folder: Path, certificate: bytes) -> tuple[Path, Path]:
    name = f"tls-{hashlib.sha256(certificate).hexdigest()[:16]}"
    return folder / f"{name}.pem", folder / f"{name}.key"


def tls_paths(folder: Path, certificate: bytes) -> tuple[Path, Path]:
    """PEM files of the certificate (DER) and of its key; those that the folder was made with if there are no later."""
    later = _later_paths(folder, certificate)
    return later if later[0].exists() else (folder / TLS_CERTIFICATE_NAME, folder / TLS_KEY_NAME)


def load_tls(folder: Path, certificate: bytes, *, dated: bool = False) -> ServerTls:
    """Read a server's TLS files.

    Parameters
    ----------
    folder : Path
        The server's folder.
    certificate : bytes
        What others know it by, DER.
    dated : bool
        Whether it must be valid now. Others compare the whole certificate, so one that ended still works.

    Raises
    ------
    DeploymentError
        A file is missing, the certificate is another one, or others may read the key.
    ParameterError
        The files are damaged, or do not fit each other.
    """
    path, key = tls_paths(folder, certificate)
    tls = operator_tls(read_file(path, PEM_BYTES), read_file(key, PEM_BYTES), dated=dated)
    if tls.certificate != certificate:
        raise DeploymentError(f"{path.name} in {folder} is not the certificate of its card or of a later address")
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise DeploymentError(f"the TLS key {key} is readable by others; run: chmod 600 {key}")
    return tls


def check_tls(folder: Path, certificate: bytes, *, dated: bool = True) -> None:
    """Check a server's TLS files: as :func:`load_tls`."""
    load_tls(folder, certificate, dated=dated)


def served_tls(folder: Path, certificates: Collection[bytes]) -> tuple[Path, Path]:
    """PEM files, certificate and key, of the first of these certificates (DER) that the folder has files of.

    A folder that was restored from a backup may lack those of the newest.

    Raises
    ------
    DeploymentError, ParameterError
        The files are damaged; or the folder has none of these.
    """
    problem: MippError | None = None
    for certificate in certificates:
        try:
            load_tls(folder, certificate)
            return tls_paths(folder, certificate)
        except MippError as error:
            if _later_paths(folder, certificate)[0].exists():
                raise
            problem = problem or error
    raise problem or DeploymentError(f"{folder} has no TLS files")


def save_tls(folder: Path, tls: ServerTls) -> None:
    """Write the files of a later certificate durably; StoreError."""
    path, key = _later_paths(folder, tls.certificate)
    replace_file(key, tls.key)
    replace_file(path, tls.chain)


def drop_tls(folder: Path, valid: Collection[bytes]) -> None:
    """Remove the files of all certificates but the ``valid`` ones (DER)."""
    kept = {path for certificate in valid for path in tls_paths(folder, certificate)}
    hexes = "[0-9a-f]" * 16  # not an operator's own files
    later = [*folder.glob(f"tls-{hexes}.key"), *folder.glob(f"tls-{hexes}.pem")]
    found = [folder / TLS_KEY_NAME, folder / TLS_CERTIFICATE_NAME, *later]
    for path in found:
        if path not in kept:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    with contextlib.suppress(OSError):  # those that come back after a power failure go with the next rotation
        sync_folder(folder)
