"""Servers that are there and say nothing: stopped for a while, behind a dead line, or with a full disk."""

import signal
import threading
import time

import pytest

import mipp
from mipp.demo.servers import free_ports
from mipp.deployment.settings import SETTINGS_NAME
from mipp.errors import MippError, UnreachableError
from tests.conftest import DIM, vectors
from tests.deployment.hosted import QUERY, Hosted, found, running, some
from tests.deployment.relay import Relay

pytestmark = pytest.mark.slow


class Relayed(Hosted):
    """A deployment in which server 2 is reached through a relay."""

    def __init__(self, folder, encoding):
        super().__init__(folder, encoding)
        address, (port,) = self.config.addresses[2], free_ports(1)
        (self.home(2) / SETTINGS_NAME).write_text(f'listen = "127.0.0.1:{port}"\nthreads = 1\n')
        self.relay = Relay(address.port, port)

    def stop(self, *servers):
        super().stop(*servers)
        if not servers:
            self.relay.close()


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with running(Relayed(tmp_path_factory.mktemp("silence") / "net", mipp.Encoding("cosine", DIM))) as made:
        yield made


def outcome(work, into):
    """Run it in a thread; what it gave, and when."""

    def run():
        begun = time.monotonic()
        try:
            got = work()
        except BaseException as error:
            got = error
        into.append((got, time.monotonic() - begun))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def stopped_for(net, parties, server, seconds):
    """What clients meet whose requests fall into the time in which a server is stopped."""
    owner, user, plain = parties
    x = vectors(2, 100 * server + seconds)
    net.signal(server, signal.SIGSTOP)
    try:
        ranked, added = [], []
        threads = [outcome(lambda: found(user, "server", k=3), ranked), outcome(lambda: owner.add_vectors(x), added)]
        time.sleep(seconds)
    finally:
        net.signal(server, signal.SIGCONT)
    for thread in threads:
        thread.join(90)
    took = net.agreed(20)
    (hits, ranked_s), (ids, added_s) = ranked[0], added[0]
    before = dict(plain.rows)
    if isinstance(ids, BaseException):
        assert isinstance(ids, MippError), repr(ids)
    else:
        plain.rows |= dict(zip(ids, x, strict=True))
    both = before | {("new", i): row for i, row in enumerate(x)}
    if isinstance(hits, BaseException):
        assert isinstance(hits, MippError), repr(hits)
    else:
        assert hits in (plain.scores(QUERY, before)[:3], plain.scores(QUERY, both)[:3])
    seen = found(user)
    if seen != plain.scores(QUERY):  # not acknowledged, and there
        assert isinstance(ids, BaseException) and seen == plain.scores(QUERY, both)
        batch = {b.id for b in owner.batches()} - {i[0] for i in plain.rows}
        plain.rows |= {(next(iter(batch)), n): row for n, row in enumerate(x)}
    assert found(user, "server", k=3) == plain.scores(QUERY)[:3]
    kinds = [type(got).__name__ for got in (hits, ids)]
    print(f"{server} stopped {seconds} s: {kinds[0]} {ranked_s:.1f} s, {kinds[1]} {added_s:.1f} s, agreed {took:.1f} s")
    return hits, ids


@pytest.mark.parametrize("server", some([2, 3], 3))
def test_stopped_for_5_seconds(net, parties, server):
    """Shorter than the silence after which a server is gone: everything goes on."""
    hits, ids = stopped_for(net, parties, server, 5)
    assert not isinstance(hits, BaseException) and not isinstance(ids, BaseException)


@pytest.mark.nightly
@pytest.mark.parametrize("server", [1, 2, 3])
@pytest.mark.parametrize("seconds", [20, 120])
def test_stopped_for_long(net, parties, server, seconds):
    stopped_for(net, parties, server, seconds)


def test_a_line_that_is_dead_in_both_directions(net, parties):
    """Half-open connections: the peers find out after 15 s, a client's request ends with a typed error."""
    owner, user, plain = parties
    added, gone = [], {s: net.log(s).count("server 2 is gone") for s in (1, 3)}
    net.relay.silent = True
    thread = outcome(lambda: owner.add_vectors(vectors(2, 300)), added)
    until = time.monotonic() + 30
    while any(net.log(s).count("server 2 is gone") == gone[s] for s in (1, 3)):
        assert time.monotonic() < until
        time.sleep(0.1)
    problems = net.problems()
    assert "server" in problems
    net.relay.heal()
    took = net.agreed(20)
    net.tell(2, "call", drop_clients)
    thread.join(90)
    ids, seconds = added[0]
    print(f"agreed {took:.1f} s after the line was back; the upload ended after {seconds:.1f} s: {ids!r:.100}")
    assert isinstance(ids, MippError) or len(ids) == 2
    net.agreed()
    both = plain.rows | {("new", i): row for i, row in enumerate(vectors(2, 300))}
    assert found(user) in ([plain.scores(QUERY), plain.scores(QUERY, both)][isinstance(ids, list) :])
    plain.rows = both if len(found(user)) == len(both) else plain.rows


def test_a_client_leaves_a_silent_server_once_another_one_failed(net, parties):
    _, user, plain = parties
    net.kill(3)
    net.relay.silent = True
    begun = time.monotonic()
    try:
        with pytest.raises(UnreachableError):
            found(user)
        assert time.monotonic() - begun < 8
    finally:
        net.relay.heal()
        net.tell(2, "call", drop_clients)
        net.start(3)
        net.agreed(20)
    assert found(user) == plain.scores(QUERY)


def drop_clients(process):
    """End the connections of clients, as the server does after its time limits."""
    for connection in list(process.http._open):
        if not connection.mesh:
            connection.drop()
