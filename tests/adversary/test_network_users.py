"""Registered parties that use what is shared by all: the table of rankings, and settling between servers."""

import threading
import time

import pytest

from mipp.deployment import serving
from mipp.errors import BusyError
from mipp.rpc import messages as m
from mipp.server.admission import OPEN, OPEN_BYTES, USER_BYTES, USER_OPEN, Admission
from mipp.server.rendezvous import LocalRendezvous
from tests.network import Network


@pytest.fixture
def admissions():
    rendezvous = LocalRendezvous()
    return {i: Admission(i, rendezvous) for i in (1, 2, 3)}


def ask(admissions, user, query, size=100):
    """One query at all three servers; nobody waits for its result."""
    replies = []

    def one(admission):
        try:
            replies.append(admission.ask(user, query, size, lambda: None, lambda link, checked: m.Ok(), attend=False))
        except BusyError as error:
            replies.append(error)

    threads = [threading.Thread(target=one, args=(a,)) for a in admissions.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies


@pytest.mark.parametrize(("each", "size"), [(USER_OPEN, 100), (USER_BYTES // (1 << 26), 1 << 26)])
def test_results_that_nobody_collects_block_nobody(admissions, each, size):
    """As many users as fill the table have small queries ranked and never ask for the results."""
    users = min(OPEN // each, OPEN_BYTES // (each * size))
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
