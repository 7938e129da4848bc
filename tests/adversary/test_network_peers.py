"""A server that has its certificate and does not keep to what servers say among themselves."""

import contextlib
import threading
import time
from collections import Counter

import msgpack
import pytest

from mipp.crypto.schedule import random_bytes
from mipp.errors import MessageError, MippError, UnreachableError
from mipp.mpc import chunks, mesh, outgoing
from mipp.rpc import peer_messages as pm
from mipp.rpc import tls
from mipp.rpc.messages import Failure
from mipp.rpc.wire import decode, encode, pack_frames
from mipp.server.rendezvous_network import REPORTED, CloudRendezvous, KeyCentreRendezvous, deliver
from mipp.server.settling import settle
from tests.mpc.test_mesh import DEPLOYMENT, Three
from tests.network import Network

pytestmark = pytest.mark.slow


class Peer:
    """Server 2's certificate in a stranger's hands: what it writes to server 1."""

    def __init__(self, three):
        pem, key, _ = three.pems[2]
        der = three.pems[1][2]
        self.sock = tls.connect("127.0.0.1", three.ports[1], tls.mesh_context(pem, key, [der], 2), [der], 5, "server 1")

    def hello(self):
        self.sock.sendall(chunks.hello(DEPLOYMENT, 2, 1, random_bytes(16)))
        return self

    def chunk(self, kind, data=b"", stream=bytes(16), last=True):
        self.sock.sendall(chunks.HEAD.pack(kind, last, 0, len(data), stream) + data)


@pytest.fixture
def gate():
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
def three(tmp_path, gate):
    """Server 2 is gone; calls wait at the gate."""

    def serve(peer, frames):
        if bytes(frames[0]) == b"wait":
            gate.wait(20)
        return frames

    made = Three(tmp_path, serve).ready()
    made.end(2)
    yield made
    gate.set()
    for i in (1, 3):
        made.end(i)


def test_calls_of_one_peer_leave_room_for_the_other(three):
    peer = Peer(three).hello()
    for _ in range(64):
        peer.chunk(chunks.CALL, pack_frames([b"wait"]), random_bytes(16))
    time.sleep(0.3)
    assert three.meshes[3].call(1, [b"quick"], 3) == [b"quick"]


def test_calls_that_wait_are_bounded(three):
    peer = Peer(three).hello()
    data = pack_frames([b"wait", bytes(60_000)])
    with contextlib.suppress(OSError):
        for _ in range(3000):
            peer.chunk(chunks.CALL, data, random_bytes(16))
    time.sleep(0.5)
    assert three.meshes[1].waiting_calls(2) <= three.meshes[1].limits.calls


def test_calls_that_never_end_are_bounded(three):
    peer = Peer(three).hello()
    start = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() < start + 3:
            peer.chunk(chunks.CALL, b"", random_bytes(16), last=False)


def test_connections_that_do_not_say_who_they_are_are_bounded(three):
    held = [Peer(three) for _ in range(40)]
    time.sleep(0.5)
    try:
        assert sum(c.mesh for c in list(three.https[1]._open)) <= 2 + mesh.GREETING
    finally:
        for peer in held:
            peer.sock.close()


def test_replies_that_nobody_reads_are_bounded():
    """A peer that asks much and reads slowly: what waits for it is cut off, its connection with it."""
    out = outgoing.Outgoing(2, outgoing.Peer("127.0.0.1", 1, [], "server 2", None), b"", print, print)
    out.up, size = True, 64 << 20
    with pytest.raises(UnreachableError, match="does not read"):
        for _ in range(100):
            out.put(chunks.REPLY, random_bytes(16), [bytes(size)])
    waits = sum(view.nbytes for parts in out._streams.values() for view in parts)
    assert waits == out._replies <= chunks.CALL_BYTES
    buffer = bytearray(chunks.HEAD.size + chunks.CHUNK)
    while out._streams:
        out._next(buffer, memoryview(buffer))
    assert out._replies == 0


# --- the rendezvous -------------------------------------------------------------------------------------------------


class Wire:
    """A mesh without connections: notes it was given, and peers that cannot be reached."""

    servers = (1, 2, 3)

    def __init__(self, index):
        self.index, self.notes, self.away, self.used = index, [], set(), set()

    def there(self, peer):
        return peer not in self.away

    def problem(self, peer):
        return "away" if peer in self.away else ""

    def note(self, peer, data):
        if peer in self.away:
            raise UnreachableError("away")
        self.notes.append((peer, msgpack.unpackb(data)))

    def open(self, name, limit=None):
        if name in self.used:
            raise MippError("a session's name was used before")
        self.used.add(name)
        return Nothing()


class Nothing:
    def send(self, to, frame):
        pass

    def close(self):
        pass


class Ticket:
    servers = (1, 2, 3)

    def __init__(self):
        self.told = []

    def go(self, attempt, link):
        self.told.append(attempt)

    def refused(self, error):
        self.told.append(error)


def note(meet, peer, what, *fields):
    deliver({"rankings": meet}, peer, msgpack.packb(["rankings", what, *fields]))


def key(n):
    return n.to_bytes(16, "big"), n.to_bytes(32, "big")


@pytest.fixture
def centre():
    return KeyCentreRendezvous(Wire(3), "rankings")


def test_a_start_that_does_not_arrive_takes_no_place_for_ever(centre):
    """A cloud reports a query and is away when it would be told to start, as between two connections."""
    for n in range(8):
        centre.have(key(n), 3, mine := Ticket())
        note(centre, 1, "have", *key(n))
        centre._mesh.away = {2}
        note(centre, 2, "have", *key(n))
        centre._mesh.away = set()
        assert mine.told, "the place is taken: nothing starts any more"
        if isinstance(mine.told[0], bytes):  # it started: servers 1 and 3 end their parts
            centre.done(mine.told[0], 1)
            centre.done(mine.told[0], 3)


def test_reports_of_one_cloud_are_bounded(centre):
    with contextlib.suppress(MippError):
        for n in range(20_000):
            note(centre, 1, "have", *key(n))
    assert len(centre._gathering) <= REPORTED


@pytest.mark.parametrize("fields", [(b"u" * 4000, b"q" * 32), (b"u" * 16, b"q" * 4000), (b"", b"")])
def test_reports_of_malformed_names_are_refused(centre, fields):
    with pytest.raises(MippError, match="malformed"):
        note(centre, 1, "have", *fields)
    assert not centre._gathering


def test_a_session_name_given_twice_leaves_nothing_parked():
    """A key centre starts two queries under one name: the second is refused, not forgotten."""
    cloud = CloudRendezvous(Wire(1), "rankings", 3)
    first, second = Ticket(), Ticket()
    cloud.have(key(1), 1, first)
    cloud.have(key(2), 1, second)
    note(cloud, 3, "start", *key(1), b"a" * 16)
    with contextlib.suppress(MippError):
        note(cloud, 3, "start", *key(2), b"a" * 16)
    assert first.told == [b"a" * 16] and isinstance(second.told[0], MippError)


def test_a_query_is_not_parked_where_no_start_can_come():
    cloud = CloudRendezvous(wire := Wire(1), "rankings", 3)
    wire.away = {3}
    wire.note = lambda peer, data: None  # the way to the key centre is open, the way back is not
    with pytest.raises(UnreachableError):
        cloud.have(key(1), 1, Ticket())
    assert not cloud._tickets


# --- what servers ask each other ------------------------------------------------------------------------------------


class Mute:
    """Servers of which one answers how it stands, falsely, and nothing else: each further call takes its time limit."""

    servers = (1, 2, 3)

    def __init__(self):
        self.asked = Counter()

    def gather(self, requests, *, together=False, spare=False):
        ((server, frames),) = requests.items()
        msg = decode(frames)
        if isinstance(msg, pm.SettleRequest):
            signed = [] if server == 2 else [bytes([n]) for n in range(100)]
            return {server: pm.OpenChanges([bytes(16)], [bytes(16)], ["accepted"], [b"commit"], signed, [])}
        self.asked[server] += 1
        if server == 2:
            raise UnreachableError("no answer within 60 s")
        raise MippError("refused")


def test_a_server_that_does_not_answer_is_waited_for_once():
    channel = Mute()
    settle(channel)
    assert channel.asked[2] == 1 and channel.asked[1] == 2


@pytest.mark.parametrize("msg", [pm.VerifyRequest(), pm.StatusRequest(b""), pm.KeysRequest(bytes(16))])
def test_peers_do_not_ask_what_operators_ask(tmp_path, encoding, msg):
    """To read all files, to list owners: another server's operator has no business with these."""
    network = Network(tmp_path, encoding).start(1)
    try:
        reply = decode(network.processes[1]._called(2, encode(msg)))
        assert isinstance(reply, Failure) and "no request of" in reply.text
    finally:
        network.stop()


def test_a_reply_that_is_too_long_does_not_end_the_connection(tmp_path, monkeypatch):
    made = Three(tmp_path, lambda peer, frames: [bytes(3 << 20)] if bytes(frames[0]) == b"long" else frames).ready()
    try:
        monkeypatch.setattr(chunks, "CALL_BYTES", 1 << 20)
        with pytest.raises(UnreachableError, match="did not answer"):
            made.meshes[2].call(1, [b"long"], 1)
        with pytest.raises(MippError, match="too long"):
            made.meshes[2].call(1, [bytes(3 << 20)], 1)
        assert made.meshes[2].call(1, [b"short"], 3) == [b"short"]
    finally:
        for i in (1, 2, 3):
            made.end(i)


@pytest.mark.parametrize("told", [("done", b"a" * 16), ("have", *key(1)), ("refuse", *key(1), "BusyError", "later")])
def test_notes_for_the_key_centre_at_a_cloud(told):
    """Told the wrong way round: the cloud logged a traceback."""
    with pytest.raises(MessageError, match="unknown kind"):
        note(CloudRendezvous(Wire(1), "rankings", 3), 3, *told)
