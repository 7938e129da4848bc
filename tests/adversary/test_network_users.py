"""Registered parties that use what is shared by all: the table of rankings, and settling between servers."""

import threading
import time

import numpy as np
import pytest

import mipp
from mipp.deployment import serving
from mipp.errors import BusyError
from mipp.rpc import messages as m
from mipp.rpc.bodies import body_parts
from mipp.server.admission import Admission, RankingLimits
from mipp.server.rendezvous import LocalRendezvous
from tests.adversary.test_limits import query
from tests.adversary.test_network_strangers import Stranger
from tests.network import Network

LIMITS = RankingLimits()

pytestmark = pytest.mark.slow


@pytest.fixture
def admissions():
    rendezvous = LocalRendezvous()
    return {i: Admission(i, rendezvous) for i in (1, 2, 3)}


def ask(admissions, user, query, size=100):
    """One query at all three servers; nobody waits for its result."""
    got = []

    def one(admission):
        try:
            run = lambda link, checked: m.Ok()  # noqa: E731
            got.append(admission.ask(user, query, size, lambda: None, run, servers=(1, 2, 3), attend=False))
        except BusyError as error:
            got.append(error)

    threads = [threading.Thread(target=one, args=(a,)) for a in admissions.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@pytest.mark.parametrize(("each", "size"), [(LIMITS.per_user, 100), (LIMITS.bytes_per_user >> 26, 1 << 26)])
def test_results_that_nobody_collects_block_nobody(admissions, each, size):
    """As many users as fill the table have small queries ranked and never ask for the results."""
    users = min(LIMITS.in_all // each, LIMITS.bytes_in_all // (each * size))
    for user in range(users):
        for n in range(each):
            ask(admissions, user.to_bytes(16, "big"), n.to_bytes(32, "big"), size)
    until = time.monotonic() + 5
    while not all(e.outcome for a in admissions.values() for e in list(a._open.values())):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not any(isinstance(r, BusyError) for r in ask(admissions, b"z" * 16, b"q" * 32))
    # but who has most does not push out others' results
    assert all(isinstance(r, BusyError) for r in ask(admissions, bytes(16), b"q" * 32, size)[:1])


@pytest.fixture
def network(tmp_path, encoding):
    made = Network(tmp_path, encoding).start().ready()
    yield made
    made.stop()


def test_owners_who_ask_to_settle_at_once_share_one(network, monkeypatch):
    """Each settling asks all servers for all they have: many at once must not be as many."""
    owner = network.connect().create_owner("o")
    began, gate = [], threading.Event()

    def slow(channel):
        began.append(channel)
        gate.wait(10)

    monkeypatch.setattr(serving, "settle", slow)
    asked = [owner.sign(m.SettleOwn(owner.id), 1) for _ in range(30)]
    server = network.processes[1].server
    threads = [threading.Thread(target=server.handle, args=(frames,)) for frames in asked]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert len([c for c in began if c is network.processes[1].channel]) <= 3


def test_replies_that_a_user_does_not_read_are_bounded(tmp_path):
    """A query of some KB is answered with a hundred times as much, counted once, and read by nobody."""
    encoding = mipp.Encoding("ip", 4, bits=4, query_bits=4, scale=1.0)
    network = Network(tmp_path, encoding, settings=f"[party]\nreply_bytes = {64 << 20}\n").start().ready()
    try:
        deployment = network.connect()
        owner, users = deployment.create_owner("o"), [deployment.create_user(name) for name in "uv"]
        owner.add_vectors(np.random.default_rng(0).integers(-7, 8, (10_000, 4)).astype(np.float32))
        for user in users:
            owner.grant(user.id, rankings=("user",), quota=1000)
        msg = query(users[0], 500)  # 20 MB
        with Stranger(network) as connections:
            statuses = []
            for _ in range(6):
                sock = connections.tls(small=True)
                statuses.append(posted(sock, users[0].sign(msg, 1)))
            assert statuses.count(b"200") == 3 and statuses.count(b"429") == 3
            assert users[1].search(np.ones(4), 3, ranking="user").hits
        server = network.processes[1].server
        until = time.monotonic() + 10
        while server.replies._held and time.monotonic() < until:
            time.sleep(0.01)
        assert not server.replies._held  # given back when the connections ended
        assert users[0].search(np.ones(4), 3, ranking="user").hits
    finally:
        network.stop()


def posted(sock, frames):
    """Status of the reply to a request, which is not read further."""
    body = b"".join(body_parts(frames))
    sock.sendall(b"POST /v1/request HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    return sock.recv(12)[-3:]
