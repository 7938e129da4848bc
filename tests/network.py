"""Deployments over a network for tests: three servers on loopback TLS, in this process so that tests can reach in."""

from __future__ import annotations

import contextlib
import time

import numpy as np

import mipp
from mipp.demo.servers import LocalDeployment
from mipp.deployment import ConnectedDeployment, reports
from mipp.deployment.serving import ServerProcess
from mipp.rpc.channel import LocalChannel


class Network(LocalDeployment):
    """Servers of a new deployment as objects of this process.

    They rebuild lost files only when they are told to, so that tests see what is lost.
    """

    def __init__(self, folder, encoding, *, settings="repair = false\n", **options):
        super().__init__(folder, encoding, settings=f"threads = 1\n{settings}", **options)
        self.processes = {}

    def start(self, *servers):
        starting = servers or self.names
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

    def connect(self, threads=1):
        made = Connected.open(self.folder / "client", threads=threads)
        made.network = self
        return made


@contextlib.contextmanager
def searched(folder, **options):
    """A client of servers that run, in which ulla searches twenty rows of anna's (:func:`served`)."""
    network = Network(folder, mipp.Encoding("cosine", 12), **options).start().ready()
    try:
        with network.connect() as client:
            owner, user = client.create_owner("anna"), client.create_user("ulla")
            owner.add_vectors(np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32))
            owner.grant(user.id)
            yield client
    finally:
        network.stop()


def served(client):
    """The servers of :func:`searched` rank a search."""
    query = np.random.default_rng(0).normal(size=12).astype(np.float32)
    assert len(client.user("ulla").search(query, 3, ranking="server").hits) == 3


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

    def repair(self):
        done = [p.repairer.repair() for p in self.network.processes.values()]
        return {"files": sum(files for files, _ in done), "problems": [line for _, lines in done for line in lines]}

    def prepare(self, user, queries=1):
        for server in self.servers.values():
            server.scheme.prepare(user, self.status()["images"], queries)

    def verify(self):
        return reports.verify(self.config, self.operators)
