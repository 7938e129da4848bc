"""The mesh between servers: three of them in this process, over loopback TLS."""

import contextlib
import datetime
import socket
import threading
import time

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mipp.errors import AuthenticationError, MessageError, MippError, ProtocolError, UnreachableError
from mipp.mpc import ideal, mesh, outgoing
from mipp.mpc.comparison import combine_matches, threshold
from mipp.mpc.link import FRAME_BYTES, Frame, Header, parse_header
from mipp.mpc.mesh import Mesh
from mipp.mpc.outgoing import Peer, PeerLimits
from mipp.mpc.session import run_local
from mipp.mpc.topk import combine_top_k, top_k
from mipp.mpc.waiting import top_k_room
from mipp.rpc import tls
from mipp.rpc.http_server import HttpServer
from tests.certificates import make
from tests.mpc.parties import KEYS, public, share

DEPLOYMENT = b"d" * 16


def frame(payload, sender, receiver, session=b"s" * 16):
    return Frame(Header("and", sender, receiver, 0, session, len(payload)).pack(), [memoryview(payload)])


class Three:
    """Three servers with their meshes."""

    limits = None

    def __init__(self, folder, serve=lambda peer, frames: frames, limits=None):
        self.limits = limits
        self.pems = {i: make(folder, f"s{i}") for i in (1, 2, 3)}
        self.serve, self.notes, self.events = serve, [], []
        self.ports = {i: self._free() for i in (1, 2, 3)}
        self.meshes, self.https = {}, {}
        for i in (1, 2, 3):
            self.begin(i)

    @staticmethod
    def _free():
        with socket.create_server(("127.0.0.1", 0)) as s:
            return s.getsockname()[1]

    def begin(self, i):
        pem, key, _ = self.pems[i]
        peers = {
            j: Peer("127.0.0.1", self.ports[j], [der], f"server {j}", tls.mesh_context(pem, key, [der], i))
            for j, (_, _, der) in self.pems.items() if j != i
        }  # fmt: skip
        made = Mesh(
            i, DEPLOYMENT, peers, self.serve, lambda peer, data: self.notes.append((i, peer, data)),
            lambda peer, there: self.events.append((i, peer, there)), self.limits,
        )  # fmt: skip
        context = tls.server_context(pem, key, {j: [der] for j, (_, _, der) in self.pems.items() if j != i})
        self.https[i] = HttpServer("127.0.0.1", self.ports[i], lambda: context, None, made.accept)
        self.https[i].start()
        made.start()
        self.meshes[i] = made

    def ready(self):
        until = time.monotonic() + 10
        while not all(m.there(j) for i, m in self.meshes.items() for j in (1, 2, 3) if i != j):
            assert time.monotonic() < until
            time.sleep(0.01)
        return self

    def end(self, i):
        self.https[i].stop()
        self.meshes[i].close()

    def links(self, name):
        return {i: m.open(name) for i, m in self.meshes.items()}


@pytest.fixture
def three(tmp_path):
    made = Three(tmp_path).ready()
    yield made
    for i in (1, 2, 3):
        made.end(i)


def test_protocols_over_the_mesh(three):
    """The same protocol code as in one process, on messages larger than socket buffers."""
    rng = np.random.default_rng(11)
    scores, theta = rng.integers(-100, 101, (2, 60_000)), np.array([0, 99])
    shares, secret = share(scores, np.uint32, rng), share(theta, np.uint32, rng)
    pub = public(60_000)
    ranked = run_local(lambda p: top_k(p, shares[p.index], 5, pub), KEYS, links=three.links(b"1" * 16))
    matched = run_local(
        lambda p: threshold(p, shares[p.index], pub, theta_shares=secret[p.index]), KEYS, links=three.links(b"2" * 16)
    )
    got, want = combine_top_k(list(ranked.values()), pub), ideal.ranking(list(shares.values()), 5, pub)
    assert np.array_equal(got[0], want[0]) and np.array_equal(got[1], want[1])
    assert np.array_equal(combine_matches(list(matched.values())), scores >= theta[:, None])


def test_a_session_name_is_used_once(three):
    three.links(b"1" * 16)[1].close()
    with pytest.raises(ProtocolError, match="used before"):
        three.meshes[1].open(b"1" * 16)


def test_frames_that_come_before_the_session_is_open(three):
    first = three.meshes[1].open(b"e" * 16)
    first.send(2, frame(b"early", 1, 2))
    time.sleep(0.2)
    got = three.meshes[2].open(b"e" * 16).receive(1, 100, 2)
    assert bytes(got.parts[0]) == b"early"


def test_early_frames_are_bounded(three):
    first = three.meshes[1].open(b"e" * 16)
    first.send(2, frame(bytes(mesh.EARLY_BYTES), 1, 2))
    time.sleep(0.2)
    with pytest.raises(MessageError, match="more than a session may hold"):
        three.meshes[2].open(b"e" * 16).receive(1, 1 << 20, 2)
    other = three.links(b"f" * 16)  # the connection goes on
    other[1].send(2, frame(b"x", 1, 2))
    assert bytes(other[2].receive(1, 10, 2).parts[0]) == b"x"


def test_a_peer_that_floods_a_session_ends_it_alone(three):
    """It costs what an honest peer may send; the other peer's messages, and other sessions, are not concerned."""
    links, others = three.links(b"1" * 16), three.links(b"2" * 16)
    links[2].expect(3000 + 3 * FRAME_BYTES)
    for link in (others[1], links[3]):
        link.send(2, frame(bytes(3000), 1 if link is others[1] else 3, 2))
    for _ in range(50):
        links[1].send(2, frame(bytes(1000), 1, 2))
    until = time.monotonic() + 5
    session = links[2]._session
    while session.queues[1].qsize() < 4:  # three frames, and why there are no more
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.1)
    assert session.waiting[1] == 3000 + 3 * FRAME_BYTES
    for _ in range(3):
        assert links[2].receive(1, 1000, 2).nbytes == 1000
    for _ in range(2):
        with pytest.raises(MessageError, match="server 1 sent more than a session may hold"):
            links[2].receive(1, 1000, 2)
    assert links[2].receive(3, 3000, 2).nbytes == others[2].receive(1, 3000, 2).nbytes == 3000


def test_both_peers_together_keep_to_the_setting(tmp_path):
    three = Three(tmp_path, limits=PeerLimits(session_bytes=5000)).ready()
    try:
        links = three.links(b"1" * 16)
        links[2].expect(1 << 30)
        links[1].send(2, frame(bytes(3000), 1, 2))
        assert links[2].receive(1, 3000, 2).nbytes == 3000
        links[1].send(2, frame(bytes(3000), 1, 2))
        time.sleep(0.2)
        links[3].send(2, frame(bytes(3000), 3, 2))
        with pytest.raises(MessageError, match="server 3 sent more"):
            links[2].receive(3, 3000, 2)
    finally:
        for i in (1, 2, 3):
            three.end(i)


def test_a_session_that_expects_nothing_yet_holds_little(three):
    links = {i: m.open(b"1" * 16, mesh.EARLY_BYTES) for i, m in three.meshes.items()}
    links[1].send(2, frame(bytes(mesh.EARLY_BYTES), 1, 2))
    with pytest.raises(MessageError, match="server 1 sent more"):
        links[2].receive(1, 1 << 20, 2)


def test_protocols_within_what_they_expect(three):
    """As servers run them: little may wait before a party began, and then what its peers may send."""
    rng = np.random.default_rng(12)
    scores = rng.integers(-100, 101, (2, 30_000))
    shares, pub = share(scores, np.uint32, rng), public(30_000)

    def late(party):
        time.sleep(0.1 * party.index)
        party.link.expect(top_k_room(pub, 2, 5))
        return top_k(party, shares[party.index], 5, pub)

    links = {i: m.open(b"1" * 16, mesh.EARLY_BYTES) for i, m in three.meshes.items()}
    got = combine_top_k(list(run_local(late, KEYS, links=links).values()), pub)
    assert np.array_equal(got[0], ideal.ranking(list(shares.values()), 5, pub)[0])


def test_a_frame_that_is_longer_than_due(three):
    links = three.links(b"1" * 16)
    links[1].send(2, frame(b"12345", 1, 2))
    with pytest.raises(MessageError):
        links[2].receive(1, 4, 2)
    with pytest.raises(ProtocolError, match="silent"):
        links[3].receive(2, 4, 0.05)


def test_a_poisoned_session_leaves_the_others(three):
    links, others = three.links(b"1" * 16), three.links(b"2" * 16)
    links[1].send(2, Frame(b"x" * 36, [memoryview(b"")]))
    with pytest.raises(MessageError):
        links[2].receive(1, 100, 2)
    with pytest.raises(MessageError):  # and stays so
        links[2].receive(1, 100, 2)
    others[1].send(2, frame(b"fine", 1, 2))
    assert bytes(others[2].receive(1, 10, 2).parts[0]) == b"fine"


def test_both_directions_full(three):
    """16 MB each way between all pairs at once, beside small rounds of another session."""
    big = np.random.default_rng(0).integers(0, 256, 16 << 20, dtype=np.uint8)
    links, small = three.links(b"1" * 16), three.links(b"2" * 16)
    for i in (1, 2, 3):
        for j in {1, 2, 3} - {i}:
            links[i].send(j, frame(big.data, i, j))
    for _ in range(20):
        small[1].send(2, frame(b"ping", 1, 2))
        small[2].receive(1, 10, 20)
        small[2].send(1, frame(b"pong", 2, 1))
        small[1].receive(2, 10, 20)
    for i in (1, 2, 3):
        for j in {1, 2, 3} - {i}:
            assert np.array_equal(np.frombuffer(links[i].receive(j, big.size, 30).parts[0], np.uint8), big)


def test_calls_and_notes(three):
    assert three.meshes[1].call(2, [b"a", b"bc"]) == [b"a", b"bc"]
    large = bytes(3 << 20)
    assert three.meshes[3].call(1, [large]) == [large]
    for n in range(50):
        three.meshes[2].note(3, bytes([n]))
    until = time.monotonic() + 5
    while len(three.notes) < 50 and time.monotonic() < until:
        time.sleep(0.01)
    assert three.notes == [(3, 2, bytes([n])) for n in range(50)]


def test_a_call_that_fails_at_the_peer_ends_in_time(tmp_path):
    def serve(peer, frames):
        raise MessageError("poison")

    made = Three(tmp_path, serve).ready()
    with pytest.raises(UnreachableError, match="did not answer"):
        made.meshes[1].call(2, [b"a"], 0.3)
    for i in (1, 2, 3):
        made.end(i)


def test_a_peer_that_dies_ends_sessions_and_calls_and_comes_back(three):
    links = three.links(b"1" * 16)
    failed = []

    def wait():
        try:
            links[1].receive(2, 10, 30)
        except MippError as error:
            failed.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    begin = time.monotonic()
    three.end(2)
    waiting.join(5)
    assert isinstance(failed[0], UnreachableError) and time.monotonic() - begin < 5
    with pytest.raises(UnreachableError):
        three.meshes[3].call(2, [b"a"], 1)
    with pytest.raises(UnreachableError, match="broke"):  # a session that begins now
        three.meshes[1].open(b"3" * 16).receive(2, 10, 5)
    three.begin(2)
    three.ready()
    assert three.meshes[1].call(2, [b"again"]) == [b"again"] and three.meshes[2].call(1, [b"x"]) == [b"x"]
    assert (1, 2, False) in three.events and three.events[-1][2]


@pytest.mark.parametrize(
    "greeting", [b"", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", bytes(200), b"\x01\x01\0\0\xff\xff\xff\x7f" + bytes(16)]
)
def test_a_peer_that_says_something_else(three, greeting):
    """It has the right key, but does not speak the protocol: its connection ends, the mesh goes on."""
    pem, key, _ = three.pems[2]
    der = three.pems[1][2]
    sock = tls.connect("127.0.0.1", three.ports[1], tls.mesh_context(pem, key, [der], 2), [der], 5, "server 1")
    with contextlib.suppress(OSError):
        sock.sendall(greeting)
    assert three.meshes[3].call(1, [b"x"]) == [b"x"] and three.meshes[2].call(1, [b"x"]) == [b"x"]
    sock.close()


@pytest.mark.slow
def test_strangers_are_refused(three, tmp_path):
    """Another certificate, even one with the right name or none, never gets into the mesh."""
    pem, key, der = make(tmp_path, "s2")  # of the same name as server 2's
    first = three.pems[1][2]
    with pytest.raises((MippError, OSError)):
        sock = tls.connect("127.0.0.1", three.ports[1], tls.mesh_context(pem, key, [first], 2), [first], 5, "server 1")
        sock.settimeout(5)
        assert not sock.recv(1)  # TLS 1.3: the refusal comes with the first read
        raise ConnectionError
    with pytest.raises(AuthenticationError, match="another certificate"):
        tls.connect("127.0.0.1", three.ports[1], tls.mesh_context(*three.pems[2][:2], [der], 2), [der], 5, "server 1")
    bare = tls.client_context()
    bare.set_alpn_protocols([tls.MESH])
    with pytest.raises((MippError, OSError)):
        sock = tls.connect("127.0.0.1", three.ports[1], bare, [first], 5, "server 1")
        sock.sendall(bytes(300))
        sock.settimeout(5)
        assert not sock.recv(1)
        raise ConnectionError
    assert three.meshes[1].call(2, [b"x"]) == [b"x"]


def test_one_servers_certificate_has_no_say_about_anothers(tmp_path):
    """Server 3 names a certificate with the name of the authority that issued server 2's."""
    authority, issued = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    impostor = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject, issuer, key, signer):
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (subject, issuer)]
        return (
            x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1)).sign(signer, hashes.SHA256())
        )  # fmt: skip

    three = Three.__new__(Three)
    three.pems = {i: make(tmp_path, f"s{i}") for i in (1, 2, 3)}
    for i, made, key in (
        (2, certificate("s2", "authority", issued, authority), issued),
        (3, certificate("authority", "authority", impostor, impostor), impostor),
    ):
        three.pems[i][0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        three.pems[i][1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        three.pems[i] = (*three.pems[i][:2], made.public_bytes(serialization.Encoding.DER))
    three.serve, three.notes, three.events = lambda peer, frames: frames, [], []
    three.ports, three.meshes, three.https = {i: Three._free() for i in (1, 2, 3)}, {}, {}
    for i in (1, 2, 3):
        three.begin(i)
    try:
        until = time.monotonic() + 10
        while not all(
            three.meshes[i].there(j) for i, j in ((1, 2), (2, 1), (1, 3), (3, 1))
        ):  # 3 harms its own way to 2
            assert time.monotonic() < until
            time.sleep(0.01)
        assert three.meshes[1].call(2, [b"x"]) == [b"x"] and three.meshes[2].call(1, [b"x"]) == [b"x"]
    finally:
        for i in (1, 2, 3):
            three.end(i)


def test_an_expired_certificate_of_a_known_server_still_counts(tmp_path):
    """Pins decide, not clocks."""
    pem, key, der = make(tmp_path, "old", expired=True)
    context = tls.server_context(pem, key)
    http = HttpServer("127.0.0.1", 0, lambda: context, None)
    http.start()
    client_pem, client_key, _ = make(tmp_path, "me")
    context_out = tls.mesh_context(client_pem, client_key, [der], 2)
    context_out.set_alpn_protocols([tls.HTTP])
    tls.connect("127.0.0.1", http.port, context_out, [der], 5, "old").close()
    http.stop()


def test_headers_survive(three):
    links = three.links(b"h" * 16)
    links[3].send(1, frame(b"", 3, 1))
    got = links[1].receive(3, 0, 2)
    assert parse_header(got.head).sender == 3 and got.nbytes == 0


def test_a_call_waits_for_both_directions(tmp_path):
    """A server whose own connection to the caller is not there yet could not reply: the caller hears that at once."""
    made = Three(tmp_path).ready()
    made.end(2)
    pem, key, _ = made.pems[2]
    ders = {j: der for j, (_, _, der) in made.pems.items() if j != 2}
    peers = {
        j: Peer("127.0.0.1", made.ports[j], [d], f"server {j}", tls.mesh_context(pem, key, [d], 2))
        for j, d in ders.items()
    }
    deaf = Mesh(2, DEPLOYMENT, peers, lambda peer, frames: frames)  # nobody can connect to it
    deaf.start()
    until = time.monotonic() + 5
    while not deaf._out[1].up and time.monotonic() < until:
        time.sleep(0.01)
    begin = time.monotonic()
    with pytest.raises(UnreachableError, match="has not connected"):
        deaf.call(1, [b"x"])
    assert time.monotonic() - begin < 2
    deaf.close()
    for i in (1, 3):
        made.end(i)


def test_a_peer_that_calls_at_once_gets_its_reply(tmp_path, monkeypatch):
    """The hello arrives before the sender's thread goes on: a call that comes meanwhile is answered."""
    real = outgoing.connect

    class Slow:
        def __init__(self, sock):
            self._sock, self._first = sock, True

        def __getattr__(self, name):
            return getattr(self._sock, name)

        def sendall(self, data):
            self._sock.sendall(data)
            if self._first:
                self._first = False
                time.sleep(1)

    ended = outgoing.end
    monkeypatch.setattr(outgoing, "end", lambda sock: ended(sock._sock if isinstance(sock, Slow) else sock))
    monkeypatch.setattr(outgoing, "connect", lambda *args: Slow(real(*args)) if args[-1] == "server 1" else real(*args))
    three = Three(tmp_path)
    try:
        until = time.monotonic() + 5
        while not three.meshes[1].there(2):
            assert time.monotonic() < until
            time.sleep(0.001)
        assert three.meshes[1].call(2, [b"now"], 2.0) == [b"now"]
    finally:
        for i in (1, 2, 3):
            three.end(i)
