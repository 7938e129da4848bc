"""Rotation: a server takes a new TLS certificate or X25519 keys, or moves to another URL, while all others go on."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from ..rpc import peer_messages as pm
from ..rpc.address_book import AddressBook
from ..rpc.address_updates import AddressUpdate, possession_statement, signed_update
from ..rpc.addresses import check_url
from ..rpc.channel import request
from ..rpc.description import DeploymentConfig
from ..rpc.key_sets import EpochKeys
from ..rpc.local_socket import OperatorChannel
from ..server.sealing import reseal
from ..store.catalog import NAME as CATALOG_NAME
from .servers import (
    IDENTITY_NAME,
    ServerSecrets,
    drop_pairs,
    key_pairs,
    load_identity,
    open_server,
    own_secrets,
    public_pair,
    save_pair,
)
from .serving import own_number, server_runs
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
    epochs : tuple of int
        Epochs of its valid box and pair keys, the newest first: one or two.
    lost : list of str
        Names of the owners whose secrets no key of this server opens: they must seal them anew.
    """

    server: int
    version: int
    url: str
    pins: tuple[bytes, ...]
    epochs: tuple[int, ...] = (0,)
    lost: list[str] = field(default_factory=list)


def rotate_server(
    folder: Path,
    *,
    url: str | None = None,
    new_certificate: bool = False,
    certificate: Path | None = None,
    key: Path | None = None,
    new_keys: bool = False,
    finish: bool = False,
) -> Rotated:
    """Give a server a new TLS certificate, keys or URL, or end what was valid before the newest.

    A server that runs notices it within a second: it shows the new certificate, and tells the others. It listens on
    another port only after a restart. The certificate before stays valid beside the new one until ``finish``, and so
    do the keys. Two are valid at most: the one before that ends with this rotation.

    New box and pair keys begin an epoch. The server seals to its new box key what owners had sealed to it, when it runs
    or with ``finish``. Whoever has the keys before and what was sealed to them reads it for ever: after a theft owners
    need new keys of their own.

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
    new_keys : bool
        Make new box and pair keys.
    finish : bool
        From now on the newest certificate and keys alone are valid; together with new ones these, at once. The files of
        all others are removed, those of earlier keys once all that was sealed to them is sealed to the newest.

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
    sign_key = load_identity(folder)
    if signing.sign_public(sign_key) != config.servers[index].sign:
        raise DeploymentError(f"the key files in {folder} are not those that the description names")
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
        before = book.keys(index)
        ends = finish and (len(old) > 1 or len(before) > 1 or len(key_pairs(folder)) > 1)
        if tls is None and new_url == known.url and not (new_keys or ends):
            why = ": no earlier certificate or key is valid beside the newest" if finish else ""
            raise ParameterError(f"nothing is to be done{why}; give a new certificate, new keys or another URL")
        if finish and not new_keys and before[0].epoch:
            own_secrets(folder, config, index)  # without the newest keys the earlier ones are all that is left
        valid = (tls.certificate, old[0]) if tls is not None else old
        valid = valid[:1] if finish else valid
        proofs = [(c, _proof(folder, config, index, c, tls, book.update(index))) for c in valid]
        keys, pair = before, ServerSecrets.new()[:2]
        if new_keys:
            keys = (EpochKeys(before[0].epoch + 1, *public_pair(pair)), before[0])
        keys = keys[:1] if finish else keys
        named = keys if keys[0].epoch else ()
        update = signed_update(
            config, index, book.version(index) + 1, new_url, proofs, signing.private_key(sign_key), named
        )
        book.check(update)
        try:
            if new_keys:
                save_pair(folder, keys[0].epoch, pair)
            if tls is not None:
                save_tls(folder, tls)
                drop_tls(folder, (tls.certificate, *old))  # what a rotation that died left
            book.take([update], own=True)  # from here on it holds
        except BaseException:
            drop_tls(folder, AddressBook(config, folder).certificates(index))  # as the folder has it
            raise
        drop_tls(folder, valid)
        # not before it holds: from here on nobody seals anything to keys that ended
        changed = keys[0].epoch > 0 or len(key_pairs(folder)) > 1
        lost = _sealed_anew(folder, config, index) if changed and (new_keys or finish) else []
        if finish and changed:
            drop_pairs(folder, keys)
            if server_runs(folder, index):  # it has them in memory
                _sealed_anew(folder, config, index)
    return Rotated(
        index, update.version, new_url, tuple(map(certificate_pin, valid)), tuple(k.epoch for k in keys), lost
    )


def _sealed_anew(folder: Path, config: DeploymentConfig, index: int) -> list[str]:
    """Have the server seal to its newest keys what is sealed to earlier ones; names of owners where it cannot.

    Raises
    ------
    MippError
        The server cannot do it now. The keys before are still there; ``finish`` does it again.
    """
    if not (folder / CATALOG_NAME).exists():
        return []
    if server_runs(folder, index):
        told: pm.ResealReport = request(OperatorChannel(folder, index), index, pm.ResealRequest())
        return told.owners
    server = open_server(folder, config, index)
    try:
        return reseal(server)
    finally:
        server.close()


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
