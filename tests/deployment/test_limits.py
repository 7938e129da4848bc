"""Limits of ``server.toml`` over a network: a server with a small one refuses what is beyond it, and goes on."""

import contextlib

import msgpack
import numpy as np
import pytest
from click.testing import CliRunner

from mipp.cli.main import cli
from mipp.errors import BusyError, LimitError
from mipp.rpc import messages as m
from mipp.rpc.bodies import Announcement, announce
from mipp.rpc.wire import encode, frame_hashes, kind_of
from tests.adversary.test_network_strangers import Stranger, until
from tests.conftest import vectors
from tests.network import Network, searched, served

pytestmark = pytest.mark.slow

SETTINGS = """
[connections]
per_address = 8
[uploads]
request_bytes = 2_097_152
per_party = 2
[rankings]
per_user = 1
at_once = 3
tests_at_once = 2
[peers]
calls_at_once = 5
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with searched(tmp_path_factory.mktemp("limits"), settings=SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def network(client):
    return client.network


def test_connections_of_one_address(network, client):
    with Stranger(network) as stranger:
        opened = [stranger.tcp() for _ in range(20)]
        assert until(lambda: network.processes[1].http.connections <= 8 + 2)  # two are of servers
        assert opened[0].recv(1) == b""  # the first ones gave way
    served(client)


def announced(owner, number, size=1 << 20):
    """A signed request, and what announces it: large ones are announced before their data."""
    content = encode(m.FetchOwnImages(bytes([number]) * 16, np.zeros(size // 8, "<i8")))
    head = owner.sign(m.FetchOwnImages(bytes([number]) * 16, np.zeros(size // 8, "<i8")), 1)[0]
    return Announcement(bytes(head), kind_of(content), [memoryview(f).nbytes for f in content], frame_hashes(content))


def test_announced_requests(network, client):
    owner, process = client.owner("anna"), network.processes[1]
    told = [announced(owner, n) for n in range(3)]
    uploads = process.site._uploads
    for one in told[:2]:
        uploads.begin(process.server.announced(one), one)
    with pytest.raises(BusyError, match="this party"):
        uploads.begin(process.server.announced(told[2]), told[2])
    large = announced(owner, 4, 3 << 20)
    body = msgpack.packb([large.head, large.kind, large.sizes, large.hashes])
    with Stranger(network) as stranger:
        sock = stranger.tls()
        sock.sendall(b"POST /v1/upload HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert sock.recv(12) == b"HTTP/1.1 413"
    with pytest.raises(LimitError, match="at most 2097152 bytes"):
        client.channel.gather({1: owner.sign(m.FetchOwnImages(b"b" * 16, np.zeros(3 << 17, "<i8")), 1)})
    assert len(announce([large.head, *encode(m.Ok())])) < 2**16
    served(client)


def test_rankings_of_one_user(network, client):
    user = client.user("ulla")
    header = [user._querier.hide(user.index(), user.config.encoding.encode_queries(vectors(1)), 3, "server")
              for _ in range(2)]  # fmt: skip

    def send(asked):
        query = m.Query(asked.header, *asked.servers[1], 0, 0, b"", *asked.proof[1])
        return user.channel.gather({1: user.sign(query, 1)}, together=True)[1]

    assert isinstance(send(header[0]), m.Pending)  # at one server alone it waits for the others
    with pytest.raises(BusyError, match="this user has too many"):
        send(header[1])
    network.processes[1].server.admission._rendezvous.refuse((user.id, header[0].hash), 1, BusyError("enough"))
    with contextlib.suppress(BusyError):
        user.ask({1: m.CollectRanking(header[0].hash)})
    served(client)


def test_each_limit_reaches_its_place(network):
    process = network.processes[3]
    assert process.http.limits == process.settings.connections and process.http.limits.per_address == 8
    assert process.site._uploads.limits == process.settings.uploads
    for admission in (process.server.admission, process.server.certifying):
        assert admission.limits == process.settings.rankings
    assert [table._most for table in process._tables.values()] == [3, 2]
    assert process.mesh.limits == process.settings.peers
    assert {pool._max_workers for pool in process.mesh._pools.values()} == {5}
    assert process.server.replies._most == process.settings.card.reply_bytes


def test_the_check_of_a_server_fails_at_bad_settings(tmp_path, encoding):
    home = Network(tmp_path / "bad", encoding, settings="[uploads]\nper_party = 0\n").home(1)
    for command in (["server", "check", str(home)], ["server", "run", str(home)]):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code and "uploads.per_party is a whole number from 1" in f"{result.output}{result.exception}"
