"""What an operator has checked before its server runs."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from ..errors import DeploymentError, MippError, StoreError
from ..rpc.address_book import AddressBook
from ..rpc.address_exchange import exchange
from ..rpc.http_channel import HttpChannel
from ..store.catalog import NAME as CATALOG_NAME
from ..store.repairs import lost_files
from .servers import own_secrets
from .serving import own_number, server_runs
from .settings import ServerSettings
from .tls_files import load_tls

__all__ = ["check_server"]

#: free space below which a server is warned of
_FREE = 1 << 30


def check_server(folder: Path) -> tuple[list[str], list[str]]:
    """Check the folder, settings, port and peers of a server, whether it runs or not. Changes nothing.

    Parameters
    ----------
    folder : Path
        The server's folder.

    Returns
    -------
    problems, facts : list of str
        A sentence each, public facts only.
    """
    problems: list[str] = []
    facts: list[str] = []
    try:
        config, index = own_number(folder)
        book = AddressBook(config, folder, keep=False)
        address, certificates = book.address(index), book.certificates(index)
        settings = ServerSettings.load(folder, address.url)
        try:
            own_secrets(folder, config, index)
        except DeploymentError as error:
            problems.append(str(error))
    except MippError as error:
        return [str(error)], facts
    try:
        load_tls(folder, address.certificate)
    except MippError as error:
        hint = f"; make a new one with: mipp server rotate {folder} --new-certificate --finish"
        again = hint if book.version(index) else ""
        problems.append(str(error) + again)
    facts.append(f"server {index} ({address.name}) of deployment {config.id.hex()}")
    facts.append(f"fingerprint of the description: {config.fingerprint}")
    if book.version(index):
        facts.append(f"address of version {book.version(index)}: {address.url}")
    epochs = [keys.epoch for keys in book.keys(index)]
    if epochs != [0]:
        facts.append(f"box and pair keys of epoch {epochs[0]}")
    if len(epochs) > 1:
        facts.append(f"the keys of epoch {epochs[1]} are valid, too, until: mipp server rotate {folder} --finish")
    if len(certificates) > 1:
        facts.append(f"the certificate before the newest is valid, too, until: mipp server rotate {folder} --finish")
    problems += book.conflicts
    if not (folder / CATALOG_NAME).exists():
        problems.append(f"the store in {folder} is missing; restore it from a backup")
    elif index in config.params.clouds:
        try:
            lost = lost_files(folder)
        except StoreError as error:
            problems.append(str(error))
        else:
            problems += [_lacks(folder, lost, others=len(config.params.clouds) > 1)] if lost else []
    if server_runs(folder, index):
        facts.append("this server runs")
    elif problem := _port(settings.host, settings.port):
        problems.append(problem)
    free = shutil.disk_usage(folder).free
    (problems if free < _FREE else facts).append(f"{free / 2**30:.1f} GiB are free on the disk")
    channel = HttpChannel(config, book)
    for other in sorted(config.addresses.keys() - {index}):
        peer = book.address(other)
        try:
            status, _ = channel.get(other, "/readyz")
            facts.append(f"server {other} ({peer.name}) answers" + ("" if status == 200 else ", and is not ready"))
            if book.version(index):
                facts.append(_knows(book, other, index))
        except MippError as error:
            problems.append(str(error))
    channel.close()
    return problems, facts


def _lacks(folder: Path, lost: int, *, others: bool) -> str:
    """Says that files of rows are missing, and what to do."""
    again = (
        "their owner deletes them (mipp owner delete NAME FILE...) and adds them again (mipp owner add NAME FILE...)"
    )
    return (
        f"the files of {lost} batches with live rows are missing or have another size, so searches leave these out; "
        + (f"mipp server repair {folder} rebuilds them, and what no other cloud has, {again}" if others else again)
    )


def _knows(book: AddressBook, other: int, index: int) -> str:
    """Whether another server knows this one's newest address."""
    name, mine = f"server {other} ({book.address(other).name})", book.version(index)
    try:
        shown = exchange(book, other)[1].get(index, 0)
    except MippError:
        return f"{name} tells no addresses of servers"
    return f"{name} knows version {shown} of this server's address" + (f", not yet {mine}" if shown < mine else "")


def _port(host: str, port: int) -> str:
    """Why nobody can listen there; empty if one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
        return ""
    except OSError as error:
        return f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; see listen in server.toml"
