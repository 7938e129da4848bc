"""Strangers at the port of a running server: no key, no invitation, only connections."""

import contextlib
import socket
import threading
import time

import pytest

from mipp.rpc import http_server, tls
from mipp.rpc.bodies import BODY_BYTES
from mipp.rpc.http_server import Connections
from tests.network import Network

pytestmark = pytest.mark.slow

HEAD = b"POST /v1/request HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % BODY_BYTES


@pytest.fixture
def network(tmp_path, encoding):
    made = Network(tmp_path, encoding).start().ready()
    yield made
    made.stop()


class Stranger:
    """Connections to one server, closed at the end."""

    def __init__(self, network, server=1):
        self.port = network.config.addresses[server].port
        self.context = tls.client_context()
        self.open = []

    def tcp(self, source="127.0.0.1", *, small=False):
        """``small``: with little room for what comes."""
        sock = socket.socket()
        self.open.append(sock)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", self.port))
        return sock

    def tls(self, source="127.0.0.1", *, small=False):
        sock = self.context.wrap_socket(self.tcp(source, small=small))
        self.open.append(sock)
        return sock

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.close()


def http_threads():
    return sum(t.name == "mipp http" for t in threading.enumerate())


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def ask(sock, head):
    sock.sendall(head)
    reply = b""
    while b"\r\n\r\n" not in reply:
        part = sock.recv(4096)
        if not part:
            break
        reply += part
    return reply


def test_connections_that_never_begin_tls_are_bounded(network):
    """Each gives way to the next: neither threads nor file descriptors grow with their number."""
    before = http_threads()
    with Stranger(network) as stranger:
        for _ in range(800):
            stranger.tcp()
        # the three servers share this process, and their connections to each other may open meanwhile
        most = before + Connections().per_address + 12
        until(lambda: http_threads() <= most, 2)
        assert http_threads() <= most


def test_bodies_that_never_come_block_nobody(network):
    """One address announces as many bodies as it has connections and sends none."""
    with Stranger(network) as stranger:
        for _ in range(Connections().per_address):
            stranger.tls().sendall(HEAD)
        time.sleep(0.5)
        other = stranger.tls("127.0.0.2")
        other.settimeout(5)
        assert ask(other, HEAD + bytes(BODY_BYTES)).startswith(b"HTTP/1.1 200")


def test_readers_that_never_read_block_nobody(network, monkeypatch):
    """Two addresses ask for pages without end and read none; a third is still served."""
    server = network.processes[1].http
    monkeypatch.setattr(server, "limits", Connections(in_all=32, per_address=16))
    with Stranger(network) as stranger:
        for source in ["127.0.0.3"] * 16 + ["127.0.0.4"] * 16:
            sock = stranger.tls(source, small=True)
            sock.settimeout(0.1)
            with contextlib.suppress(OSError):
                while True:
                    sock.sendall(b"GET /v1/description HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        assert until(lambda: sum(c.busy for c in list(server._open)) >= 32)
        other = stranger.tls("127.0.0.5")
        other.settimeout(5)
        assert ask(other, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:2", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_addresses_of_one_machine_count_as_one(one, other, same):
    assert (http_server._origin(one) == http_server._origin(other)) == same
