"""Deployments over a network for tests: three servers on loopback TLS, in this process so that tests can reach in."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from pathlib import Path

from mipp.crypto import schedule, signing
from mipp.deployment import ConnectedDeployment, reports
from mipp.deployment.ceremony import assemble, connect_folder, init_server, join_server
from mipp.deployment.serving import ServerProcess
from mipp.deployment.settings import SETTINGS_NAME
from mipp.rpc.channel import LocalChannel
from mipp.rpc.invitations import Invitation, invite


def free_ports(count):
    """Ports that are free, of those that systems do not give to outgoing connections, which could take them again."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports += [port] * (port not in ports)
    return ports


class Network:
    """Three server processes (as objects of this process) and the folders of a new deployment."""

    def __init__(self, folder: Path, encoding, **options):
        self.folder = folder
        scheme = options.get("scheme", "shares")
        self.names = ("cloud1", "cloud2", "keycentre") if scheme == "shares" else ("cloud1", "keycentre")
        roles = [*["cloud"] * (len(self.names) - 1), "key-centre"]
        cards = [
            init_server(folder / name, role, name, f"https://127.0.0.1:{port}")
            for name, role, port in zip(self.names, roles, free_ports(len(self.names)), strict=True)
        ]
        self.registrar = schedule.random_bytes(32)
        self.config = assemble(cards, encoding, registrar=signing.sign_public(self.registrar), **options)
        for name, card in zip(self.names, cards, strict=True):
            (folder / name / SETTINGS_NAME).write_text(f'listen = "127.0.0.1:{card.address.port}"\nthreads = 1\n')
            join_server(folder / name, self.config)
        connect_folder(folder / "client", self.config, self.config.fingerprint)
        self.processes = {}

    def home(self, server):
        return self.folder / self.names[server - 1]

    def start(self, *servers):
        starting = servers or range(1, len(self.names) + 1)
        for server in starting:
            self.processes[server] = ServerProcess(self.home(server))
        for server in starting:  # all listen: nobody has to dial twice
            self.processes[server].start()
        return self

    def ready(self, seconds=10):
        until = time.monotonic() + seconds
        while not all(p.server.ready and p.server.voting for p in self.processes.values()):
            assert time.monotonic() < until, {i: p.reasons() for i, p in self.processes.items()}
            time.sleep(0.005)
        return self

    def stop(self, *servers):
        for server in servers or list(self.processes):
            self.processes.pop(server).stop()

    def invitation(self, kind, name, seconds=3600, **limits):
        made = Invitation(self.config.id, kind, name, int(time.time()) + seconds, **limits)
        return invite(made, signing.private_key(self.registrar))

    def connect(self, threads=1):
        made = Connected.open(self.folder / "client", threads=threads)
        made.network = self
        return made


class Connected(ConnectedDeployment):
    """A client that also reaches into the servers, as tests of roles do with an embedded deployment."""

    network: Network

    @property
    def servers(self):
        return {i: p.server for i, p in self.network.processes.items()}

    @property
    def operators(self):
        return LocalChannel({i: s.operate for i, s in self.servers.items()})

    def create_owner(self, name, passphrase=None, *, invitation=None):
        return super().create_owner(name, passphrase, invitation=invitation or self.network.invitation("owner", name))

    def create_user(self, name, passphrase=None, *, invitation=None, **options):
        invitation = invitation or self.network.invitation("user", name)
        return super().create_user(name, passphrase, invitation=invitation, **options)

    def status(self):
        return reports.status(self.config, self.operators, {i: type(s).__name__ for i, s in self.servers.items()})

    def prepare(self, user, queries=1):
        for server in self.servers.values():
            server.scheme.prepare(user, self.status()["images"], queries)

    def verify(self):
        return reports.verify(self.config, self.operators)
