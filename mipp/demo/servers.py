"""Three servers on this machine, each a process of its own, that speak over loopback as they would over a network."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
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

__all__ = ["LocalServers"]

#: seconds for the servers to be ready after their start, and to end
START, END = 30.0, 30.0
#: seconds for which the demo's invitations hold
_INVITED = 7 * 86400


class LocalServers:
    """Servers of a new deployment in a folder, all steps of the ceremony done; a context manager that runs them.

    The folder then holds a folder for each server, ``deployment.json``, the registrar's key file and ``client``.

    Parameters
    ----------
    folder : Path
        New or empty.
    encoding : Encoding
        Of the index.
    options : Any
        Further ones of :func:`mipp.deployment.ceremony.assemble`: descriptor, scheme, window, rankings.

    Raises
    ------
    DeploymentError
        The folder cannot be used.
    """

    def __init__(self, folder: Path, encoding: Encoding, **options: Any) -> None:
        self.folder = folder
        params: Params = schemes.get(options.get("scheme", "shares")).params(encoding.ring_bits)
        names = [f"cloud{i}" for i in params.clouds] + ["keycentre"]
        roles = ["cloud"] * len(params.clouds) + ["key-centre"]
        with _free_ports(len(names)) as ports:
            cards = [
                init_server(folder / name, role, name, f"https://127.0.0.1:{port}")
                for name, role, port in zip(names, roles, ports, strict=True)
            ]
        self._registrar = schedule.random_bytes(32)
        public = signing.sign_public(self._registrar)
        save_key_file(folder / "registrar.key", "registrar", {"sign_key": public.hex()}, {"sign": self._registrar})
        self.config = assemble(cards, encoding, registrar=public, **options)
        replace_file(folder / "deployment.json", self.config.to_json().encode())
        self.names = dict(enumerate(names, 1))
        for name, card in zip(names, cards, strict=True):
            # nobody else's business: on this machine only
            replace_file(folder / name / SETTINGS_NAME, f'listen = "127.0.0.1:{card.address.port}"\n'.encode())
            join_server(folder / name, self.config)
        connect_folder(folder / "client", self.config, self.config.fingerprint)
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def __repr__(self) -> str:
        return f"LocalServers({str(self.folder)!r})"

    # --- processes ----------------------------------------------------------------------------------------------

    def start(self, server: int) -> None:
        """Start the process of one server; its log goes to ``log`` in its folder."""
        home = self.folder / self.names[server]
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
            text = (self.folder / self.names[server] / "log").read_text(errors="replace")
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

    # --- parties ------------------------------------------------------------------------------------------------

    def connect(self) -> ConnectedDeployment:
        """Open the client's folder."""
        return ConnectedDeployment.open(self.folder / "client")

    def invitation(self, kind: str, name: str, *, max_rows: int | None = None) -> Invitation:
        """The registrar's invitation of an ``owner`` or ``user``."""
        made = Invitation(self.config.id, kind, name, int(time.time()) + _INVITED, max_rows)
        return invite(made, signing.private_key(self._registrar))

    def commands(self) -> list[str]:
        """Commands to go on with, a line each."""
        q = shlex.quote
        client = q(str(self.folder / "client"))
        return [
            *(f"mipp server run {q(str(self.folder / name))} &" for name in self.names.values()),
            f"mipp status --deployment {client}",
            f"mipp invite --owner anna --key {q(str(self.folder / 'registrar.key'))} --deployment "
            f"{q(str(self.folder / 'deployment.json'))}",
            f"mipp owner create anna --invitation TEXT --deployment {client}",
        ]


@contextlib.contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Ports of loopback that nothing listens on, kept until the end of the block."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        yield [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()
