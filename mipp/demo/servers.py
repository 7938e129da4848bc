"""Servers on this machine, each a process of its own, that speak over loopback as they would over a network."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import schemes
from ..crypto import schedule, signing
from ..crypto.keyfile import save_key_file
from ..deployment import ConnectedDeployment
from ..deployment.ceremony import assemble, connect_folder, init_server, join_server
from ..deployment.settings import SETTINGS_NAME
from ..encoding import Encoding
from ..errors import DeploymentError
from ..io.durable import replace_file
from ..params import Params
from ..rpc.invitations import Invitation, invite

__all__ = ["LocalDeployment", "LocalServers", "free_ports"]

#: seconds for the servers to be ready after their start, and to end
START, END = 30.0, 30.0
#: seconds for which invitations hold
INVITED = 7 * 86400


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on.

    Parameters
    ----------
    count : int
        How many.

    Returns
    -------
    list of int
        Of those that systems do not give to outgoing connections, which could take them again.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports += [port] * (port not in ports)
    return ports


class LocalDeployment:
    """Servers of a new deployment in a folder, all steps of the ceremony done; none runs.

    The folder then holds a folder for each server, ``deployment.json``, the registrar's key file and ``client``.

    Parameters
    ----------
    folder : Path
        New or empty.
    encoding : Encoding
        Of the index.
    settings : str
        Further lines of each server's settings.
    options : Any
        Further ones of :func:`mipp.deployment.ceremony.assemble`: descriptor, scheme, window, rankings.
    clouds : int, optional
        As of :meth:`mipp.Deployment.create`.

    Raises
    ------
    DeploymentError
        The folder cannot be used.
    """

    def __init__(
        self, folder: Path, encoding: Encoding, *, settings: str = "", clouds: int | None = None, **options: Any
    ) -> None:
        self.folder = folder
        params: Params = schemes.get(options.get("scheme", "shares")).params(encoding.ring_bits, clouds)
        #: names of the servers, which are those of their folders, by number
        self.names = {i: f"cloud{i}" for i in params.clouds} | dict.fromkeys(params.key_centres, "keycentre")
        names = list(self.names.values())
        roles = ["cloud"] * len(params.clouds) + ["key-centre"]
        cards = [
            init_server(folder / name, role, name, f"https://127.0.0.1:{port}")
            for name, role, port in zip(names, roles, free_ports(len(names)), strict=True)
        ]
        self._registrar = schedule.random_bytes(32)
        public = signing.sign_public(self._registrar)
        save_key_file(folder / "registrar.key", "registrar", {"sign_key": public.hex()}, {"sign": self._registrar})
        self.config = assemble(cards, encoding, registrar=public, **options)
        replace_file(folder / "deployment.json", self.config.to_json().encode())
        for name, card in zip(names, cards, strict=True):
            # nobody else's business: on this machine only
            listen = f'listen = "127.0.0.1:{card.address.port}"\n'
            replace_file(folder / name / SETTINGS_NAME, (listen + settings).encode())
            join_server(folder / name, self.config)
        connect_folder(folder / "client", self.config, self.config.fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def home(self, server: int) -> Path:
        """Folder of a server."""
        return self.folder / self.names[server]

    def connect(self) -> ConnectedDeployment:
        """Open the client's folder."""
        return ConnectedDeployment.open(self.folder / "client")

    def invitation(self, kind: str, name: str, *, seconds: float = INVITED, max_rows: int | None = None) -> Invitation:
        """The registrar's invitation of an ``owner`` or ``user``, which holds for so many seconds."""
        made = Invitation(self.config.id, kind, name, int(time.time() + seconds), max_rows)
        return invite(made, signing.private_key(self._registrar))


class LocalServers(LocalDeployment):
    """The same, and a context manager that runs the servers, each as a process of its own.

    Raises
    ------
    DeploymentError
        The folder cannot be used, or a server does not start.
    """

    def __init__(self, folder: Path, encoding: Encoding, **options: Any) -> None:
        super().__init__(folder, encoding, **options)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, server: int) -> None:
        """Start the process of one server; its log goes to ``log`` in its folder."""
        home = self.home(server)
        with open(home / "log", "ab") as log:
            self.processes[server] = subprocess.Popen(
                [sys.executable, "-m", "mipp", "server", "run", str(home)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip

    def kill(self, server: int) -> None:
        """Kill the process of one server, as a power failure would."""
        process = self.processes.pop(server)
        process.kill()
        process.wait()

    def stop(self, server: int) -> int:
        """Tell one server to stop, and wait for its end; its exit code."""
        process = self.processes.pop(server)
        process.terminate()
        try:
            return process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def wait_ready(self, seconds: float = START) -> None:
        """Wait until all servers serve, and take part in changes.

        Raises
        ------
        DeploymentError
            One ended, or does not serve in time; the text says why.
        """
        until = time.monotonic() + seconds
        with ConnectedDeployment.open(self.folder / "client") as client:
            while True:
                states = client.server_states()
                if all(state["ready"] and state["takes_changes"] for state in states.values()):
                    return
                for server, process in self.processes.items():
                    if process.poll() is not None:
                        raise DeploymentError(f"server {self.names[server]} ended: {self._last_line(server)}")
                if time.monotonic() > until:
                    why = [reason for state in states.values() for reason in state["reasons"]]
                    raise DeploymentError(f"the servers are not ready after {seconds:g} s: {'; '.join(why)}")
                time.sleep(0.05)

    def _last_line(self, server: int) -> str:
        with contextlib.suppress(OSError, IndexError):
            text = (self.home(server) / "log").read_text(errors="replace")
            return text.strip().splitlines()[-1][:300]
        return "it left no log"

    def __enter__(self) -> LocalServers:
        try:
            for server in self.names:
                self.start(server)
            self.wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for server in list(self.processes):
            self.stop(server)

    def commands(self) -> list[str]:
        """Commands to go on with, a line each."""
        q = shlex.quote
        client = q(str(self.folder / "client"))
        return [
            *(f"mipp server run {q(str(self.home(server)))} &" for server in self.names),
            f"mipp status --deployment {client}",
            f"mipp invite --owner anna --key {q(str(self.folder / 'registrar.key'))} --deployment "
            f"{q(str(self.folder / 'deployment.json'))}",
            f"mipp owner create anna --invitation TEXT --deployment {client}",
        ]
