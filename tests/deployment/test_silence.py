"""Servers that are there and say nothing: stopped for a while, behind a dead line, or with a full disk."""

import itertools
import signal
import threading
import time

import pytest

import mipp
from mipp.demo.servers import free_ports
from mipp.deployment.settings import SETTINGS_NAME
from mipp.errors import MippError, UnreachableError
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import AGREE, QUERY, Hosted, found, running, some
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


@pytest.fixture(scope="module")
def berta(net, parties):
    """A second owner, who deletes what she has, row by row; it is part of the plaintext."""
    _, user, plain = parties
    with net.connect() as client:
        owner, x = client.create_owner("berta"), vectors(12, 7)
        owner.grant(user.id, rankings=ALL_RANKINGS)
        plain.rows |= dict(zip(owner.add_vectors(x), x, strict=True))
        yield owner


def searches(user, until, into):
    """Search again and again until a moment; what each gave."""
    for ranking in itertools.cycle(("user", "server")):
        if time.monotonic() > until:
            return
        outcome(lambda r=ranking: found(user, r, k=3), into).join()
        time.sleep(0.2)


def stopped_for(net, parties, berta, server, seconds):
    """What clients meet whose requests fall into the time in which a server is stopped: an upload, a delete, searches.

    When it goes on, all servers agree within ten seconds, and each change is there wholly or not at all.
    """
    owner, user, plain = parties
    x, mine = vectors(2, 100 * server + seconds), {b.id for b in berta.batches()}
    victim = next(i for i in plain.rows if i[0] in mine)
    both = plain.rows | {("new", i): row for i, row in enumerate(x)}
    possible = [
        {i: row for i, row in rows.items() if i != gone} for rows in (plain.rows, both) for gone in (None, victim)
    ]
    answers, added, deleted = [], [], []
    net.signal(server, signal.SIGSTOP)
    try:
        threads = [
            outcome(lambda: owner.add_vectors(x), added),
            outcome(lambda: berta.delete([victim]), deleted),
            outcome(lambda: searches(user, time.monotonic() + seconds, answers), []),
        ]
        time.sleep(seconds)
    finally:
        net.signal(server, signal.SIGCONT)
    took = net.agreed(AGREE)
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive()
    net.agreed(AGREE)
    for got, after in (*answers, *added, *deleted):
        assert not isinstance(got, BaseException) or isinstance(got, MippError), repr(got)
        assert after < seconds + 30
    for hits, _ in answers:
        assert isinstance(hits, MippError) or hits in [plain.scores(QUERY, rows)[:3] for rows in possible]
    (ids, _), (done, _) = added[0], deleted[0]
    if not isinstance(ids, MippError):
        possible = possible[2:]
    if not isinstance(done, MippError):
        possible = possible[1::2]
    seen = found(user)
    now = [rows for rows in possible if plain.scores(QUERY, rows) == seen]
    assert now, (ids, done)
    names = ids if isinstance(ids, list) else [
        (b, n) for b in {b.id for b in owner.batches()} - {i[0] for i in plain.rows} for n in range(len(x))
    ]  # fmt: skip
    plain.rows = {names[i[1]] if i[0] == "new" else i: row for i, row in now[0].items()}
    assert found(user, "server", k=3) == plain.scores(QUERY)[:3]
    met = [f"{type(got).__name__} {after:.1f} s" for got, after in (*added, *deleted, *answers)]
    print(f"{server} stopped {seconds} s: {met[:9]}, {len(answers)} searches, agreed {took:.1f} s")
    return [got for got, _ in (*added, *deleted, *answers)]


@pytest.mark.parametrize("server", some([2, 3], 3))
def test_stopped_for_5_seconds(net, parties, berta, server):
    """Shorter than the silence after which a server is gone: everything goes on."""
    assert not any(isinstance(got, MippError) for got in stopped_for(net, parties, berta, server, 5))


@pytest.mark.nightly
@pytest.mark.parametrize("server", [1, 2, 3])
@pytest.mark.parametrize("seconds", [20, 120])
def test_stopped_for_long(net, parties, berta, server, seconds):
    stopped_for(net, parties, berta, server, seconds)


@pytest.mark.nightly
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


@pytest.mark.nightly
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
