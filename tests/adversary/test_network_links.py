"""What goes over the wire between parties when a connection is ended in the middle."""

import contextlib
import socket
import threading

import pytest

from mipp.mpc.outgoing import Outgoing, Peer
from mipp.rpc import sockets, tls
from mipp.rpc.http_server import _Connection
from tests.certificates import make

pytestmark = pytest.mark.slow

SECRET = b"words of a share" * 4


@pytest.fixture
def pair(tmp_path):
    """Both ends of a connection: one with TLS, and the other's bytes as they come."""
    pem, key, der = make(tmp_path, "s1")
    listener = socket.create_server(("127.0.0.1", 0))
    done = []
    client = threading.Thread(
        target=lambda: done.append(tls.connect(*listener.getsockname(), tls.client_context(), [der], 5, "s"))
    )
    client.start()
    accepted = tls.server_context(pem, key).wrap_socket(listener.accept()[0], server_side=True)
    client.join()
    yield done[0], socket.socket(fileno=accepted.detach())
    done[0].close()
    listener.close()


@pytest.mark.parametrize("who", ["mesh", "server", "cut"])
def test_what_is_sent_while_a_connection_is_cut_is_never_in_the_clear(pair, who, monkeypatch):
    """Another thread writes at the worst moment: after the one that cuts has begun, before the system call."""
    sock, raw = pair
    shutdown = socket.socket.shutdown

    def hook(self, how):
        with contextlib.suppress(OSError):
            self.sendall(SECRET)
        shutdown(self, how)

    monkeypatch.setattr(socket.socket, "shutdown", hook)
    if who == "mesh":
        out = Outgoing(2, Peer("127.0.0.1", 1, [], "server 2", tls.client_context()), b"", print, print)
        out._sock = sock
        out.cut()
    elif who == "server":
        _Connection(sock, "127.0.0.1", 0.0).drop()
    else:
        sockets.end(sock)
    received = b""
    with raw:
        while part := raw.recv(4096):
            received += part
    assert received and SECRET not in received
