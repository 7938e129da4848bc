"""What an operator has checked before its server runs."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from ..errors import MippError
from ..rpc import peer_messages as pm
from ..rpc.channel import request
from ..rpc.http_channel import HttpChannel
from ..rpc.local_socket import OperatorChannel
from ..store.catalog import NAME as CATALOG_NAME
from .ceremony import check_tls
from .servers import ServerSecrets
from .serving import own_number
from .settings import ServerSettings

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
        address = config.addresses[index]
        settings = ServerSettings.load(folder, address.url)
        if ServerSecrets.load(folder).public() != config.servers[index]:
            problems.append("the key files are not those that the description names")
    except MippError as error:
        return [str(error)], facts
    try:
        check_tls(folder, address.certificate, dated=False)
    except MippError as error:
        problems.append(str(error))
    facts.append(f"server {index} ({address.name}) of deployment {config.id.hex()}")
    facts.append(f"fingerprint of the description: {config.fingerprint}")
    if not (folder / CATALOG_NAME).exists():
        problems.append(f"the store in {folder} is missing; restore it from a backup")
    if _runs(folder, index):
        facts.append("this server runs")
    elif problem := _port(settings.host, settings.port):
        problems.append(problem)
    free = shutil.disk_usage(folder).free
    (problems if free < _FREE else facts).append(f"{free / 2**30:.1f} GiB are free on the disk")
    channel = HttpChannel(config)
    for other, peer in config.addresses.items():
        if other == index:
            continue
        try:
            status, _ = channel.get(other, "/readyz")
            facts.append(f"server {other} ({peer.name}) answers" + ("" if status == 200 else ", and is not ready"))
        except MippError as error:
            problems.append(str(error))
    channel.close()
    return problems, facts


def _runs(folder: Path, index: int) -> bool:
    """Whether the server in a folder runs now."""
    try:
        request(OperatorChannel(folder, index), index, pm.ServerReportRequest())
        return True
    except MippError:
        return False


def _port(host: str, port: int) -> str:
    """Why nobody can listen there; empty if one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
        return ""
    except OSError as error:
        return f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}; see listen in server.toml"
