"""Rotation: a server takes a new TLS certificate, or moves to another URL, while the others and the clients go on."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..crypto import signing
from ..crypto.certificates import (
    ServerTls,
    certificate_pin,
    check_possession,
    make_tls,
    prove_possession,
)
from ..errors import DeploymentError, MippError, ParameterError
from ..rpc.address_book import AddressBook
from ..rpc.address_updates import AddressUpdate, possession_statement, signed_update
from ..rpc.addresses import check_url
from ..rpc.description import DeploymentConfig
from .servers import IDENTITY_NAME, own_secrets
from .serving import own_number
from .tls_files import drop_tls, load_tls, read_tls, save_tls

__all__ = ["Rotated", "rotate_server"]


@dataclass(frozen=True)
class Rotated:
    """A server's new address.

    Parameters
    ----------
    server, version : int
        Number of the server, and version of its address.
    url : str
        Where it is reached.
    pins : tuple of bytes
        SHA-256 of the public keys of its valid certificates, the newest first: one or two.
    """

    server: int
    version: int
    url: str
    pins: tuple[bytes, ...]


def rotate_server(
    folder: Path,
    *,
    url: str | None = None,
    new_certificate: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
    finish: bool = False,
) -> Rotated:
    """Give a server a new TLS certificate or URL, or end the certificate before the newest.

    A server that runs notices it within a second: it shows the new certificate, and tells the others. It listens on
    another port only after a restart. The certificate before stays valid beside the new one until ``finish``. Two are
    valid at most: the one before that ends with this rotation.

    Parameters
    ----------
    folder : Path
        Of a server that joined a deployment, whether it runs or not.
    url : str, optional
        New ``https://HOST:PORT``.
    new_certificate : bool
        Make a new TLS key and a self-signed certificate.
    certificate, key : Path, optional
        Instead: the operator's own, PEM files.
    finish : bool
        From now on the newest certificate alone is valid; together with a new one that is the new one, at once. The
        files of all others are removed.

    Returns
    -------
    Rotated
        The new address.

    Raises
    ------
    ParameterError
        Nothing is to be done, or a value that is not as described, or PEM files that do not fit.
    DeploymentError, KeyFileError
        The folder holds no server that joined, or its files are damaged. Nothing has changed.
    StoreError
        The files cannot be written. What was valid stays valid.
    """
    if (certificate is None) != (key is None):
        raise ParameterError("give both the certificate and its key, or neither")
    if new_certificate and certificate is not None:
        raise ParameterError("give a certificate or have a new one made, not both")
    config, index = own_number(folder)
    secrets = own_secrets(folder, config, index)
    with _alone(folder):
        book = AddressBook(config, folder)
        known, old = book.address(index), book.certificates(index)
        new_url, host, _ = check_url(known.url if url is None else url)
        taken = [i for i in config.servers if i != index and book.address(i).url == new_url]
        if taken:  # others take it all the same: else a server could keep another one from moving
            raise ParameterError(f"{new_url} is the URL of server {taken[0]}")
        tls: ServerTls | None = None
        if new_certificate:
            tls = make_tls(known.name, host)
        elif certificate is not None and key is not None:
            tls = read_tls(certificate, key)
        if tls is not None and tls.certificate in old:
            raise ParameterError("this certificate is valid already; give another one")
        if tls is None and new_url == known.url and not (finish and len(old) > 1):
            why = ": no earlier certificate is valid beside the newest" if finish else ""
            raise ParameterError(f"nothing is to be done{why}; give a new certificate or another URL")
        valid = (tls.certificate, old[0]) if tls is not None else old
        valid = valid[:1] if finish else valid
        proofs = [(c, _proof(folder, config, index, c, tls, book.update(index))) for c in valid]
        sign_key = signing.private_key(secrets.sign)
        update = signed_update(config, index, book.version(index) + 1, new_url, proofs, sign_key)
        book.check(update)
        try:
            if tls is not None:
                save_tls(folder, tls)
                drop_tls(folder, (tls.certificate, *old))  # what a rotation that died left
            book.take([update], own=True)  # from here on it holds
        except BaseException:
            drop_tls(folder, AddressBook(config, folder).certificates(index))  # as the folder has it
            raise
        drop_tls(folder, valid)
    return Rotated(index, update.version, new_url, tuple(map(certificate_pin, valid)))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time rotates a server."""
    with open(folder / IDENTITY_NAME, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _proof(
    folder: Path, config: DeploymentConfig, index: int, certificate: bytes, tls: ServerTls | None,
    known: AddressUpdate | None,
) -> bytes:  # fmt: skip
    """The proof that this server has a certificate's key: that of an earlier update, or a new one."""
    statement = possession_statement(config.id, index, certificate)
    if known is not None and certificate in known.certificates:
        return known.proofs[known.certificates.index(certificate)]
    if tls is None or certificate != tls.certificate:
        try:
            tls = load_tls(folder, certificate)
        except MippError as error:
            raise DeploymentError(
                f"the key of a certificate that is valid now cannot be used ({error}); with --finish it is not needed"
            ) from None
    proof = prove_possession(tls.key, statement)
    check_possession(certificate, proof, statement)
    return proof
