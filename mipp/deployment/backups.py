"""Backups of a server: taken while it runs, brought back, and a server that begins anew with its keys alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import DeploymentError, ParameterError
from ..io.durable import copy_file, sync_folder
from ..rpc import peer_messages as pm
from ..rpc.address_book import ADDRESSES_NAME, AddressBook
from ..rpc.channel import request
from ..rpc.description import DeploymentConfig
from ..rpc.local_socket import SOCKET_NAME, OperatorChannel
from ..store.catalog import NAME as CATALOG_NAME
from .ceremony import CARD_NAME, join_server, new_folder, number_of, read_card, read_description
from .servers import CONFIG_NAME, IDENTITY_NAME, key_files, known_scheme, open_server, own_secrets
from .serving import own_number, server_runs
from .sessions import Session
from .settings import SETTINGS_NAME, ServerSettings
from .tls_files import served_tls

__all__ = ["back_up_server", "replace_server", "restore_server"]

#: what makes a server this one, beside keys by epoch, TLS files, addresses and settings; the description is copied last
_OWN = (IDENTITY_NAME, CARD_NAME)


def back_up_server(folder: Path, target: Path, *, keys_only: bool = False) -> tuple[int, list[str]]:
    """Copy a server to a new folder, as of one moment, whether it runs or not.

    The copy holds the server's secret keys. Share files and images are linked where ``target`` is on the same file
    system, which costs no room; they never change.

    Parameters
    ----------
    folder : Path
        The server's.
    target : Path
        New, or an empty folder outside of ``folder``.
    keys_only : bool
        Leave out the store: enough for :func:`replace_server`.

    Returns
    -------
    files : int
        Share files and image packs that were copied.
    missing : list of str
        A line for each that the server should have and has not.

    Raises
    ------
    DeploymentError
        No server that joined a deployment; a folder that is used or cannot be written.
    StoreError
        Its store cannot be read.
    """
    _, index = own_number(folder)
    if target.resolve().is_relative_to(folder.resolve()):
        raise DeploymentError(f"{target} is the server's folder, or inside it; name a folder outside")
    with new_folder(target) as made:
        done = (0, list[str]()) if keys_only else _copy_store(folder, index, made)
        for name in (*_own_files(folder), CONFIG_NAME):
            _copy(folder / name, made / name)
    return done


def _own_files(folder: Path) -> list[str]:
    """Names of the files that make a server this one, but for the description."""
    patterns = "tls*.key", "tls*.pem", ADDRESSES_NAME, SETTINGS_NAME
    found = [*key_files(folder), *(p for pattern in patterns for p in sorted(folder.glob(pattern)))]
    return [*_OWN, *(p.name for p in found)]


def _check_own(folder: Path, config: DeploymentConfig, index: int) -> None:
    """DeploymentError unless keys, TLS files and settings are those of this server, and can be used."""
    own_secrets(folder, config, index)
    book = AddressBook(config, folder, keep=False)
    try:
        served_tls(folder, book.certificates(index))
    except ParameterError as error:
        raise DeploymentError(f"the TLS files are damaged: {error}") from None
    ServerSettings.load(folder, book.address(index).url)


def _copy_store(folder: Path, index: int, target: Path) -> tuple[int, list[str]]:
    if (folder / SOCKET_NAME).exists():
        try:
            told: pm.BackupReport = request(
                OperatorChannel(folder, index), index, pm.BackupRequest(os.fspath(target.resolve()))
            )
            return told.files, told.missing
        except DeploymentError:
            pass  # left by a server that was killed
    session = Session(folder / "sessions")
    try:
        if not session.alone:
            raise DeploymentError(f"another process runs the server in {folder}, and does not answer")
        server = open_server(folder, own_number(folder)[0], index)
        try:
            return server.store.back_up(target)
        finally:
            server.close()
    finally:
        session.close()


def restore_server(backup: Path, folder: Path) -> list[str]:
    """Make a server's folder from a backup. When it runs, it takes over from the others what happened since.

    The server that the backup was taken of must not run any more, here or elsewhere: two servers with the same keys
    would answer differently.

    Parameters
    ----------
    backup : Path
        Made by :func:`back_up_server`, or the folder of a server that was stopped.
    folder : Path
        New, or an empty folder.

    Returns
    -------
    list of str
        A line for each file that is missing or damaged in the backup; the others rebuild it.

    Raises
    ------
    DeploymentError
        ``backup`` holds no whole server, or one that runs; ``folder`` is used or cannot be written.
    StoreError, KeyFileError
        The backup is damaged.
    """
    config, index = own_number(backup)
    if not (backup / CATALOG_NAME).exists():
        raise DeploymentError(f"{backup} holds keys and no store; begin with an empty one: mipp server replace")
    _require_stopped(backup, index)
    _check_own(backup, config, index)
    with new_folder(folder) as made:
        for name in (*_own_files(backup), CATALOG_NAME):
            _copy(backup / name, made / name)
        if (wal := backup / f"{CATALOG_NAME}-wal").exists():  # of a folder that was copied after a crash
            _copy(wal, made / wal.name)
        for room in ("shares", "images", "records"):
            if room == "records" and not (backup / room).exists():  # where there are none, or of an earlier version
                continue
            _copy_tree(backup / room, made / room)
        server = open_server(made, config, index)
        try:
            _, problems = server.store.verify()
        finally:
            server.close()
        _copy(backup / CONFIG_NAME, made / CONFIG_NAME)
    return [line.replace(str(made), str(folder)) for line in problems]


def replace_server(keys: Path, folder: Path) -> int:
    """Make a server's folder with an empty store and the keys of one that is lost.

    When it runs it takes over from the others who is registered, grants, counted queries and the chains of all
    owners, and a cloud has the others rebuild its files. All other servers must be there for that.

    Parameters
    ----------
    keys : Path
        A backup, also of the keys alone, or the lost server's folder.
    folder : Path
        New, or an empty folder.

    Returns
    -------
    int
        The server's number.

    Raises
    ------
    DeploymentError
        ``keys`` holds no server that joined a deployment, or one that runs; ``folder`` is used or cannot be written.
    KeyFileError
        Its key files are damaged.
    """
    card, config = read_card(keys), known_scheme(read_description(keys / CONFIG_NAME))
    index = number_of(card, config)
    _require_stopped(keys, index)
    _check_own(keys, config, index)
    with new_folder(folder) as made:
        for name in _own_files(keys):
            _copy(keys / name, made / name)
        join_server(made, config)
        server = open_server(made, config, index)
        try:
            server.store.changes.begin_empty()
        finally:
            server.close()
    return index


def _require_stopped(folder: Path, index: int) -> None:
    if server_runs(folder, index):
        raise DeploymentError(f"the server in {folder} runs; stop it first, or take a backup: mipp server backup")


def _copy(source: Path, target: Path) -> None:
    """Copy a file durably, mode 0600; DeploymentError."""
    try:
        copy_file(source, target)
    except OSError as error:
        raise DeploymentError(f"cannot copy {source}: {error.strerror}") from None


def _copy_tree(source: Path, target: Path) -> None:
    """Copy the files of a store's room; links and other things that a store does not make are left out."""
    target.mkdir(mode=0o700)
    for path in sorted(source.glob("*/*")) if source.is_dir() else ():
        if stat.S_ISREG(path.lstat().st_mode) and ".tmp" not in path.name:
            (target / path.parent.name).mkdir(mode=0o700, exist_ok=True)
            _copy(path, target / path.parent.name / path.name)
    for folder in (*target.iterdir(), target):
        sync_folder(folder)
