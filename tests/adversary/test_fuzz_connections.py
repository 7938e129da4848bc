"""Garbage over connections: whatever strangers, servers and programs on this machine send, the server serves on."""

import contextlib
import json
import socket
import struct
import threading
import time
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import strategies as st

from mipp.errors import MippError
from mipp.mpc import chunks
from mipp.mpc.link import Header
from mipp.mpc.mesh import Mesh, _Incoming
from mipp.mpc.outgoing import Peer, PeerLimits
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc import tls
from mipp.rpc.bodies import BODY_BYTES, announce, body_parts
from mipp.rpc.channel import request
from mipp.rpc.local_socket import SOCKET_NAME, OperatorChannel
from mipp.rpc.wire import encode, pack_frames
from tests.adversary.fuzz import TOKENS, changed, fuzz, modes, no_unexpected
from tests.network import searched, served

LOST = OSError, EOFError
DEPLOYMENT = b"d" * 16
PAGES = b"healthz", b"readyz", b"metrics", b"v1/description"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with searched(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


@pytest.fixture(scope="module")
def network(client):
    return client.network


@pytest.fixture
def serving(network, client, caplog):
    """Afterwards the servers answer a search, and nothing unexpected is in their logs."""
    with no_unexpected(caplog):
        yield
        served(client)
        assert network.processes[1].server.ready and network.processes[1].http.connections < 100


def said(sock):
    """All that the other end says until it ends the connection."""
    got = b""
    with contextlib.suppress(*LOST):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        while part := sock.recv(1 << 16):
            got += part
    return got


# --- strangers and clients over HTTP --------------------------------------------------------------------------------


def post(path, frames):
    body = frames if isinstance(frames, bytes) else b"".join(map(bytes, body_parts(frames)))
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path, len(body)) + body


def requests(client):
    """Requests of pages, of strangers, and of an owner and a user who signed what they send."""
    owner, user = client.owner("anna"), client.user("ulla")
    signed = [owner.sign(m.ListBatches(owner.id), 1), user.sign(m.GrantersRequest(user.id), 1)]
    large = owner.sign(m.FetchOwnImages(b"b" * 16, np.zeros(100, "<i8")), 1)
    upload = b"/v1/upload/" + b"00" * 16 + b"/0"
    return [
        *(b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n" % page for page in PAGES),
        *(post(b"/v1/request", frames) for frames in [*signed, encode(m.Ok()), [b"", b"", b""]]),
        post(b"/v1/upload", announce(large)), post(upload, bytes(100)), post(b"/v1/finish/" + b"00" * 16, b""),
    ]  # fmt: skip


HTTP_TOKENS = (
    *TOKENS, b"content-length: 5\r\n", b"content-length: 1048576\r\n", b"transfer-encoding: chunked\r\n",
    b"GET /healthz", b"POST /v1/upload", b"MIPP\x01", struct.pack("<IQ", 1, 1 << 63), struct.pack("<I", 64),
    msgpack.packb(["Signed", []]),
)  # fmt: skip


@modes
def test_requests(network, client, serving, times):
    address, context = network.config.addresses[1], tls.client_context()
    statuses = set()

    def check(data):
        with contextlib.suppress(*LOST):
            sock = tls.connect("127.0.0.1", address.port, context, [address.certificate], 5, "it")
            with sock:
                sock.settimeout(20)
                with contextlib.suppress(*LOST):
                    sock.sendall(data)
                reply = said(sock)
            if reply:
                assert reply.startswith(b"HTTP/1.1 "), reply[:40]
                statuses.add(int(reply[9:12]))

    fuzz(changed(requests(client), HTTP_TOKENS), check, 600 * times)
    assert {200, 400} <= statuses <= {200, 400, 404, 405, 408, 409, 411, 413, 429, 503}, statuses


@pytest.mark.slow
def test_memory_of_requests_that_announce_much(network, client, serving):
    """Each connection may make the server set aside one body, and no more."""
    address, context = network.config.addresses[1], tls.client_context()
    head = b"POST /v1/request HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    tracemalloc.start()
    try:
        with contextlib.ExitStack() as stack:
            for size in [BODY_BYTES] * 10 + [BODY_BYTES + 1, 1 << 40, 10**19] * 10:
                sock = tls.connect("127.0.0.1", address.port, context, [address.certificate], 5, "it")
                stack.enter_context(sock)
                sock.sendall(head % size)
            time.sleep(0.3)
            assert tracemalloc.get_traced_memory()[1] < 10 * BODY_BYTES + (16 << 20)
    finally:
        tracemalloc.stop()


# --- another server -------------------------------------------------------------------------------------------------


class Ends:
    """A mesh of server 1 that nobody connected, and what a peer sends it over sockets of this machine."""

    def __init__(self):
        peers = {i: Peer("127.0.0.1", 1, [b"certificate %d" % i], f"server {i}", None) for i in (2, 3)}
        self.mesh = Mesh(1, DEPLOYMENT, peers, self._serve, limits=PeerLimits(1 << 20, 32, 2))
        self.names = b"s" * 16, b"t" * 16
        self.links = [self.mesh.open(name) for name in self.names]

    def _serve(self, peer, frames):
        return frames

    def ends(self, data, read):
        """Let ``read`` read it all; sockets of the system hold what is sent before."""
        mine, theirs = socket.socketpair()
        with mine, theirs:
            sender = threading.Thread(target=self._send, args=(mine, data))
            sender.start()
            try:
                return read(theirs)
            finally:
                with contextlib.suppress(OSError):
                    theirs.shutdown(socket.SHUT_RDWR)
                sender.join()

    def _send(self, sock, data):
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)


def chunk(kind, data=b"", stream=bytes(16), last=1):
    return chunks.HEAD.pack(kind, last, 0, len(data), stream) + data


def frame(size, kind="and", session=b"s" * 16):
    return Header(kind, 2, 1, 0, session, size).pack() + bytes(size)


def streams():
    """Chunks of each kind: sessions that are open and not, frames in pieces, calls, replies, notes."""
    call = pack_frames(encode(m.Ok()))
    big = frame(70_000)
    return [
        [chunk(chunks.SESSION, frame(100), b"s" * 16), chunk(chunks.SESSION, frame(0) * 3, b"t" * 16)],
        [chunk(chunks.SESSION, big[:65536], b"s" * 16, 0), chunk(chunks.SESSION, big[65536:], b"s" * 16)],
        [chunk(chunks.SESSION, frame(80, "hello"), b"n" * 16), chunk(chunks.BEAT), chunk(chunks.NOTE, b"note")],
        [chunk(chunks.CALL, call[:5], b"c" * 16, 0), chunk(chunks.CALL, call[5:], b"c" * 16)],
        [chunk(chunks.REPLY, call, b"r" * 16), chunk(chunks.CALL, b"", b"e" * 16, 0), chunk(chunks.HELLO, bytes(57))],
    ]


@st.composite
def connections(draw):
    """Chunks of some connections, doubled, in another order, changed."""
    parts = draw(st.lists(st.sampled_from([c for s in streams() for c in s]), min_size=1, max_size=6))
    parts = draw(st.sampled_from(streams())) + parts if draw(st.booleans()) else parts
    at = draw(st.integers(0, len(parts)))
    parts[at:at] = parts[:1] * draw(st.sampled_from((0, 1, 40)))
    return draw(changed([b"".join(parts)]))


@modes
def test_chunks_of_a_server(times, caplog):
    calls = [0]

    def check(data):
        ends, look = Ends(), calls[0] % 20 == 0
        calls[0] += 1
        if look:
            tracemalloc.start()
        try:
            with contextlib.suppress(MippError, *LOST):
                ends.ends(data, lambda sock: _Incoming(ends.mesh, 2, sock).run())
        finally:
            peak = tracemalloc.get_traced_memory()[1] if look else 0
            tracemalloc.stop()
            ends.mesh.close()
        assert peak < (2 << 20) + 16 * len(data)
        for session in ends.mesh._sessions.values():
            waiting = sum(q.qsize() for q in session.queues.values())
            assert sum(session.waiting.values()) <= 1 << 20 and waiting <= (1 << 20) // 500

    with no_unexpected(caplog):
        fuzz(connections(), check, 500 * times)


@modes
def test_hellos_of_a_server(times, caplog):
    ends = Ends()
    seeds = [chunks.hello(DEPLOYMENT, 2, 1, b"b" * 16), chunks.hello(DEPLOYMENT, 2, 1, b"b" * 16) + streams()[0][0]]

    def check(data):
        with contextlib.suppress(MippError, *LOST):
            ends.ends(data, lambda sock: ends.mesh.accept(sock, b"certificate 2"))
        assert not ends.mesh._in and ends.mesh._greeting[2] == 0 and not ends.mesh.there(2)

    with no_unexpected(caplog):
        fuzz(changed(seeds), check, 300 * times)
    ends.mesh.close()


def test_small_frames_are_counted_with_what_they_take():
    """A session holds bytes, and each frame without a payload is an object of some hundred bytes."""
    ends = Ends()
    data = b"".join(chunk(chunks.SESSION, frame(0) * 1000, b"s" * 16) for _ in range(40))
    tracemalloc.start()
    with contextlib.suppress(EOFError):
        ends.ends(data, lambda sock: _Incoming(ends.mesh, 2, sock).run())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ends.mesh.close()
    assert peak < (2 << 20) + 2 * len(data)


# --- programs on this machine ---------------------------------------------------------------------------------------


@modes
def test_the_socket_of_the_operator(network, serving, times):
    home = network.home(1)
    seeds = []
    for msg in (pm.ServerReportRequest(), pm.WaitingChangesRequest(), pm.UncertifiedRequest(), m.Ok()):
        body = b"".join(map(bytes, body_parts(encode(msg))))
        seeds.append(struct.pack("<Q", len(body)) + body)

    def check(data):
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(*LOST):
            sock.connect(str(home / SOCKET_NAME))
            sock.settimeout(20)
            sock.sendall(data)
            said(sock)

    fuzz(changed(seeds), check, 500 * times)
    report = request(OperatorChannel(home, 1), 1, pm.ServerReportRequest())
    assert json.dumps(report.reasons) == "[]"
