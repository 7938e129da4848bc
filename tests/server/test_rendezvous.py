"""Rankings start when all three servers have the query, a few at a time, and hold neither threads nor memory before."""

import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mipp.client import retry as retry_module
from mipp.client.query import _part
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    BusyError,
    MippError,
    NotFoundError,
    ParameterError,
    ProtocolError,
    StaleSnapshotError,
)
from mipp.mpc.facts import public_facts
from mipp.mpc.topk import combine_top_k
from mipp.rpc import messages as m
from mipp.rpc.failures import error_from_wire
from mipp.rpc.wire import decode
from mipp.server import admission as admission_module
from mipp.server import ranking as ranking_module
from mipp.server import rendezvous as rendezvous_module
from mipp.server.admission import RankingLimits
from mipp.server.rendezvous import RUNNING
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]
SOON = 30  # seconds; what must happen at all, however slow the machine


class PooledChannel:
    """Every server handles its requests in a small pool of threads of its own, as a network server does.

    Requests of one search reach the servers at different times, and in another order for each search.
    """

    remote = False

    def __init__(self, deployment, threads):
        self.servers = tuple(deployment.servers)
        self._handlers = {i: s.handle for i, s in deployment.servers.items()}
        self._pools = {i: ThreadPoolExecutor(threads) for i in self.servers}

    def gather(self, requests, *, together=False, spare=False):
        jobs = {}
        for server in random.sample(sorted(requests), len(requests)):
            jobs[server] = self._pools[server].submit(self._handlers[server], requests[server])
            time.sleep(random.uniform(0, 0.02))
        replies = {s: decode(job.result()) for s, job in jobs.items()}
        failed = [error_from_wire(r.name, r.text) for r in replies.values() if isinstance(r, m.Failure)]
        if failed:
            raise min(failed, key=lambda e: isinstance(e, ProtocolError))
        return replies

    def close(self):
        for pool in self._pools.values():
            pool.shutdown()


def limit(world, monkeypatch, **limits):
    """Limits of what all servers have open."""
    for server in world.deployment.servers.values():
        monkeypatch.setattr(server.admission, "limits", RankingLimits(**limits))


class Direct:
    """Sends one header's queries to one server at a time, and knows what the servers computed."""

    def __init__(self, world, monkeypatch):
        self.world, self.servers = world, world.deployment.servers
        self.computed, self.counted = [], []
        for i, server in self.servers.items():
            monkeypatch.setattr(server.scheme, "fill", self._spy(self.computed, i, server.scheme.fill))
            monkeypatch.setattr(server.queries, "_charge", self._spy(self.counted, i, server.queries._charge))

    def _spy(self, calls, server, real):
        def spied(*args):
            calls.append(server)
            return real(*args)

        return spied

    def prepare(self, user=None, k=3):
        user = user or self.world.user
        return user._querier.hide(user.index(), user.config.encoding.encode_queries(QUERY[None]), k, "server")

    def send(self, asked, *servers, user=None):
        """Replies of these servers; raises the first failure."""
        user = user or self.world.user
        signed = {
            s: user.sign(m.Query(asked.header, *asked.servers[s], 0, 0, b"", *asked.proof[s]), s) for s in servers
        }
        return user.channel.gather(signed, together=True)

    def collect(self, asked, server, user=None):
        return (user or self.world.user).ask({server: m.CollectRanking(asked.hash)})[server]

    def outcome(self, asked, server, user=None):
        """What collecting ends with: the part, or the error, which is returned."""
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            try:
                reply = self.collect(asked, server, user)
            except MippError as error:
                return error
            if not isinstance(reply, m.Pending):
                return reply
            time.sleep(0.01)
        raise AssertionError("the server did not end it")

    def refused(self, asked, server):
        """What sending ends with, which is returned; Pending while a refusal is on its way to this server."""
        try:
            reply = self.send(asked, server)[server]
        except MippError as error:
            return error
        return self.outcome(asked, server) if isinstance(reply, m.Pending) else reply

    @staticmethod
    def wait(ready):
        until = time.monotonic() + SOON
        while not ready():
            assert time.monotonic() < until
            time.sleep(0.01)

    def check(self, asked, replies, k=3):
        """The parts make the exact result."""
        user = self.world.user
        index = user.index()
        facts = public_facts(user.config, asked.hash, index.snapshot, index.total)
        parts = [_part(s, s, r, 1, index.total, "server") for s, r in replies.items()]
        rows, scores = combine_top_k(parts, facts, scores=True)
        ids = index.ids()
        found = [(ids[r], int(s)) for r, s in zip(rows[0], scores[0], strict=True)]
        assert found == self.world.expected(QUERY, k)

    @property
    def open(self):
        return {i: len(s.admission._open) for i, s in self.servers.items()}


@pytest.fixture
def direct(world, monkeypatch):
    monkeypatch.setattr(admission_module, "WAIT", 0.02)
    monkeypatch.setattr(admission_module, "SWEEP", 0.02)
    return Direct(world, monkeypatch)


def used(world):
    anna = world.owners[0].id
    catalogs = [s.store.catalog for s in world.deployment.servers.values()]
    return [c.one("SELECT used FROM grants WHERE owner=?", anna)[0] for c in catalogs]


# --- many at once -------------------------------------------------------------------------------------------------


def search_at_once(world, users, searches, threads):
    channel = PooledChannel(world.deployment, threads)
    for user in users:
        user.index()
        user.channel = channel
    together = threading.Barrier(searches)

    def search(number):
        together.wait()
        user = users[number % len(users)]
        hits = user.search(vectors(1, seed=number)[0], 5, ranking="server").hits
        return [((h.batch, h.row), h.score) for h in hits]

    try:
        with ThreadPoolExecutor(searches) as pool:
            found = list(pool.map(search, range(searches)))
    finally:
        channel.close()
        for user in users:
            user.channel = world.deployment.channel
    for number, hits in enumerate(found):
        assert hits == world.expected(vectors(1, seed=number)[0], 5, world.user)
    assert all(not s.admission._open for s in world.deployment.servers.values())


@pytest.mark.parametrize("users", [1, 6])
def test_sixty_searches_on_ten_threads_a_server(world, users):
    """Servers used to wait for each other: their threads held queries whose peers were queued behind others."""
    others = [world.deployment.create_user(f"user{i}") for i in range(users - 1)]
    for owner in world.owners:
        for user in others:
            owner.grant(user.id)
    search_at_once(world, [world.user, *others], 60, 10)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_server_with_hardly_a_thread(world, threads, monkeypatch):
    monkeypatch.setattr(admission_module, "WAIT", 0.02)
    search_at_once(world, [world.user], 16, threads)


def test_few_run_at_the_same_time(world, monkeypatch):
    lock, now, most = threading.Lock(), {1: 0, 2: 0, 3: 0}, []
    for i, server in world.deployment.servers.items():

        def spied(*args, i=i, real=server.scheme.fill):
            with lock:
                now[i] += 1
                most.append(now[i])
            time.sleep(0.02)
            try:
                return real(*args)
            finally:
                with lock:
                    now[i] -= 1

        monkeypatch.setattr(server.scheme, "fill", spied)
    search_at_once(world, [world.user], 24, 24)
    assert 1 < max(most) <= RUNNING


def test_an_honest_user_retries_while_servers_are_busy(world, monkeypatch):
    limit(world, monkeypatch, per_user=3)
    search_at_once(world, [world.user], 12, 10)


# --- one server alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [1, 2, 3])
def test_a_query_at_one_server_alone_computes_nothing(world, direct, monkeypatch, server):
    """It used to compute the answers and to hold them and a thread for a minute."""
    monkeypatch.setattr(rendezvous_module, "GATHER_LIMIT", 0.3)
    world.owners[0].grant(world.user.id, quota=5)
    asked = direct.prepare()
    assert isinstance(direct.send(asked, server)[server], m.Pending)
    assert not any(t.name == "mipp ranking" for t in threading.enumerate())
    error = direct.outcome(asked, server)
    others = " and ".join(str(s) for s in (1, 2, 3) if s != server)
    assert isinstance(error, ProtocolError) and f"did not reach server {others} " in str(error)
    assert direct.computed == direct.counted == [] and used(world) == [0, 0, 0]
    with pytest.raises(NotFoundError):  # an error is handed out once, too
        direct.collect(asked, server)
    assert direct.open == {1: 0, 2: 0, 3: 0}
    world.check(k=3, ranking="server")


def test_what_nobody_comes_for_leaves_by_itself(world, direct, monkeypatch):
    """Without another request: the query's memory, then the error, then the thread that looks after them."""
    monkeypatch.setattr(rendezvous_module, "GATHER_LIMIT", 0.1)
    limit(world, monkeypatch, keep_seconds=0.1)
    direct.send(direct.prepare(), 1, 2)
    direct.wait(lambda: not any(direct.open.values()))
    direct.wait(lambda: not any(s.admission._keeper for s in direct.servers.values()))


def test_a_late_third_server(world, direct):
    asked = direct.prepare()
    replies = direct.send(asked, 2, 1)
    assert all(isinstance(r, m.Pending) for r in replies.values())
    assert not direct.computed
    replies |= direct.send(asked, 3)
    replies = world.user._querier.collect(asked, replies)
    direct.check(asked, replies)
    assert sorted(direct.computed) == sorted(direct.counted) == [1, 2, 3]
    for server in (1, 2, 3):  # a result is handed out once
        with pytest.raises(NotFoundError, match="handed out"):
            direct.collect(asked, server)
    assert direct.open == {1: 0, 2: 0, 3: 0}


def test_a_result_that_nobody_collects_is_dropped(world, direct, monkeypatch):
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    direct.send(asked, 3)
    assert isinstance(direct.outcome(asked, 1), m.Ranked)
    assert direct.open[2] == 1
    limit(world, monkeypatch, keep_seconds=0)
    direct.wait(lambda: not any(direct.open.values()))
    with pytest.raises(NotFoundError):
        direct.collect(asked, 2)


def test_the_user_gives_up_on_servers_that_never_finish(world, direct, monkeypatch):
    monkeypatch.setattr(retry_module, "PATIENCE", 0.1)
    asked = direct.prepare()
    with pytest.raises(ProtocolError, match="did not finish"):
        world.user._querier.collect(asked, direct.send(asked, 1))


def test_only_a_few_request_threads_wait(world, direct, monkeypatch):
    """Two wait for their peers; the third request is answered at once, whatever the time limit of waiting."""
    monkeypatch.setattr(admission_module, "WAIT", 2 * SOON)
    monkeypatch.setattr(admission_module, "WAITING", 2)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(direct.send, direct.prepare(), 1) for _ in range(2)]
        direct.wait(lambda: direct.servers[1].admission._waiting == 2)
        began = time.monotonic()
        assert isinstance(direct.send(direct.prepare(), 1)[1], m.Pending)
        assert time.monotonic() - began < SOON
        monkeypatch.setattr(rendezvous_module, "GATHER_LIMIT", 0)
        for job in jobs:  # what nobody comes for ends in a waiting thread, too
            with pytest.raises(ProtocolError, match="did not reach"):
                job.result(SOON)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusing", [1, 2, 3])
@pytest.mark.parametrize("last", [True, False])
def test_a_refusal_reaches_the_others_at_once(world, direct, refusing, last):
    """With its own type, also at servers that get the query after the refusal."""
    asked = direct.prepare()
    direct.servers[refusing].store.catalog.all("DELETE FROM grants")
    others = [s for s in (1, 2, 3) if s != refusing]
    for server in [*others, refusing] if last else [refusing, *others]:
        if last and server != refusing:
            assert isinstance(direct.send(asked, server)[server], m.Pending)
            continue
        assert isinstance(direct.refused(asked, server), AccessDeniedError)
    for server in others if last else []:
        error = direct.outcome(asked, server)
        assert isinstance(error, AccessDeniedError) and f"server {refusing} refused" in str(error)
    assert direct.computed == direct.counted == []
    assert direct.open == {1: 0, 2: 0, 3: 0}
    rendezvous = direct.servers[3].admission._rendezvous  # over a network that of the key centre, told by notes
    direct.wait(lambda: not rendezvous._refusals and not rendezvous._gathering)


def test_refusals_while_the_others_wait(world, monkeypatch):
    """Limits too are checked before a query is parked: the waiting request threads end with the same error."""
    monkeypatch.setattr(admission_module, "WAIT", SOON)
    asked = Direct(world, monkeypatch)
    prepared = asked.prepare(k=61)
    began = time.monotonic()
    with pytest.raises(AccessDeniedError, match="more than the 60 images"):
        asked.send(prepared, 1, 2, 3)
    assert time.monotonic() - began < SOON / 2


def test_a_quota_is_charged_at_the_start_and_its_refusal_told(world, direct):
    """Server 2 alone has no queries left. Nothing is charged while the query is parked."""
    world.owners[0].grant(world.user.id, quota=2)
    direct.servers[2].store.catalog.all("UPDATE grants SET used=2")
    asked = direct.prepare()
    replies = direct.send(asked, 1, 2)
    assert used(world) == [0, 2, 0]
    with pytest.raises(AccessDeniedError, match="quota"):
        world.user._querier.collect(asked, replies | direct.send(asked, 3))
    with pytest.raises(AccessDeniedError, match="quota"):
        world.user.search(QUERY, 3, owners=world.owners)


def test_what_changes_while_a_query_is_parked_is_checked_at_its_start(world, direct):
    world.owners[0].grant(world.user.id, quota=2)
    asked, other = direct.prepare(), direct.prepare()
    for waiting in (asked, other):
        direct.send(waiting, 1, 2)
    world.owners[1].delete([(world.owners[1].batches()[0].id, 0)])
    with pytest.raises(StaleSnapshotError):
        direct.send(asked, 3)
    assert isinstance(direct.outcome(asked, 1), StaleSnapshotError)
    world.owners[1].revoke(world.user.id)
    with pytest.raises(AccessDeniedError):
        direct.send(other, 3)
    assert isinstance(direct.outcome(other, 2), AccessDeniedError)
    assert direct.computed == [] and used(world) == [0, 0, 0]


def test_a_grant_that_ends_after_the_third_server_checked(world, direct):
    """A ranking that starts in a worker thread is checked there once more."""
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    for server in (1, 2):
        direct.servers[server].store.catalog.all("DELETE FROM grants")
    with pytest.raises(AccessDeniedError):
        world.user._querier.collect(asked, direct.send(asked, 3))
    assert set(direct.computed) <= {3}


def test_a_breakdown_in_a_worker_thread(world, direct, monkeypatch):
    monkeypatch.setattr(direct.servers[1].scheme, "fill", lambda *args: 1 / 0)
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    with pytest.raises(MippError):
        direct.send(asked, 3)
    assert "internal error" in str(direct.outcome(asked, 1))
    assert isinstance(direct.outcome(asked, 2), MippError)
    assert direct.open == {1: 0, 2: 0, 3: 0}


def test_a_server_without_a_thread_left(world, direct, monkeypatch):
    """The ranking ends with a typed error everywhere, and the next one runs."""
    monkeypatch.setattr(ranking_module, "TIMEOUT", 0.5)
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    real = threading.Thread.start

    def start(thread):
        if thread.name == "mipp ranking":
            raise RuntimeError("can't start new thread")
        real(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(ProtocolError):
            direct.send(asked, 3)
    assert isinstance(direct.outcome(asked, 1), BusyError)
    assert isinstance(direct.outcome(asked, 2), BusyError)
    world.check(k=3, ranking="server")


# --- the same header, other users ---------------------------------------------------------------------------------


def test_a_repeat_joins_the_parked_query(world, direct):
    asked = direct.prepare()
    for _ in range(3):
        for server in (1, 2):
            assert isinstance(direct.send(asked, server)[server], m.Pending)
    assert direct.open == {1: 1, 2: 1, 3: 0}
    replies = direct.send(asked, 1, 2) | direct.send(asked, 3)
    direct.check(asked, world.user._querier.collect(asked, replies))
    assert sorted(direct.computed) == sorted(direct.counted) == [1, 2, 3]


def test_a_repeat_of_a_running_query_is_refused(world, direct, monkeypatch):
    running, go_on = threading.Event(), threading.Event()
    real = direct.servers[1].scheme.fill

    def slow(*args):
        running.set()
        assert go_on.wait(SOON)
        return real(*args)

    monkeypatch.setattr(direct.servers[1].scheme, "fill", slow)
    asked = direct.prepare()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(direct.send, asked, 1, 2, 3)
        assert running.wait(SOON)
        with pytest.raises(BusyError, match="being ranked"):
            direct.send(asked, 1)
        assert isinstance(direct.collect(asked, 1), m.Pending)
        go_on.set()
        replies = world.user._querier.collect(asked, job.result())
    direct.check(asked, replies)
    assert sorted(direct.computed) == [1, 2, 3]


def test_a_repeat_of_an_ended_query_is_a_new_attempt(world, direct):
    """Also where the first outcome was not collected: no part of it is mixed with parts of the new one."""
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    first = direct.send(asked, 3)[3]
    assert isinstance(first, m.Ranked)
    assert isinstance(direct.outcome(asked, 1), m.Ranked)
    direct.wait(lambda: all(e.outcome for e in direct.servers[2].admission._open.values()))
    assert direct.open[2] == 1
    replies = world.user._querier.collect(asked, direct.send(asked, 1, 2, 3))
    direct.check(asked, replies)
    assert len({r.session for r in replies.values()} | {first.session}) == 2
    assert direct.open == {1: 0, 2: 0, 3: 0}


def test_another_user_neither_collects_nor_joins_nor_ends_a_query(world, direct):
    other = world.deployment.create_user("otto")
    for owner in world.owners:
        owner.grant(other.id)
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    for server in (1, 2, 3):
        with pytest.raises(AuthenticationError):
            direct.send(asked, server, user=other)
        with pytest.raises(NotFoundError):
            direct.collect(asked, server, user=other)
    replies = direct.send(asked, 3)
    with pytest.raises(NotFoundError):
        direct.collect(asked, 1, user=other)
    replies = {s: replies.get(s) or direct.outcome(asked, s) for s in (1, 2, 3)}
    direct.check(asked, replies)


def test_an_unknown_query_and_servers_that_do_not_rank(world, direct, monkeypatch):
    for name in (b"", b"x" * 32, b"x" * 1000):
        with pytest.raises(NotFoundError):
            world.user.ask({1: m.CollectRanking(name)})
    monkeypatch.setattr(direct.servers[1], "admission", None)
    with pytest.raises(ParameterError, match="do not compare"):
        world.user.ask({1: m.CollectRanking(b"x" * 32)})


# --- bounds -------------------------------------------------------------------------------------------------------


def test_a_user_parks_a_bounded_number(world, direct, monkeypatch):
    """A user could open any number of rankings. Refused before the checks; other users are not affected."""
    limit(world, monkeypatch, per_user=3)
    other = world.deployment.create_user("otto")
    for owner in world.owners:
        owner.grant(other.id)
    parked = [direct.prepare() for _ in range(3)]
    for asked in parked:
        direct.send(asked, 1)
    with monkeypatch.context() as patch:
        patch.setattr(direct.servers[1].queries, "_authorise", lambda *_: 1 / 0)
        for _ in range(3):
            with pytest.raises(BusyError, match="this user"):
                direct.send(direct.prepare(), 1)
    assert direct.open[1] == 3
    monkeypatch.setattr(retry_module, "BUSY_PATIENCE", 0.2)
    with pytest.raises(BusyError):
        world.user.search(QUERY, 3)
    assert len(other.search(QUERY, 3).hits) == 3
    monkeypatch.setattr(rendezvous_module, "GATHER_LIMIT", 0)
    for asked in parked:
        assert isinstance(direct.outcome(asked, 1), ProtocolError)
    world.check(k=3, ranking="server")


def test_uncollected_results_count_and_errors_are_few(world, direct, monkeypatch):
    limit(world, monkeypatch, per_user=2)
    asked = [direct.prepare() for _ in range(2)]
    for one in asked:
        direct.send(one, 1, 2)
        direct.send(one, 3)
    for one in asked:  # both have ended at servers 1 and 2
        assert isinstance(direct.outcome(one, 2), m.Ranked)
    direct.wait(lambda: all(e.outcome for e in direct.servers[1].admission._open.values()))
    with pytest.raises(BusyError):
        direct.send(direct.prepare(), 1)
    assert isinstance(direct.outcome(asked[0], 1), m.Ranked)
    assert isinstance(direct.send(direct.prepare(), 1)[1], m.Pending)
    direct.outcome(asked[1], 1)
    monkeypatch.setattr(rendezvous_module, "GATHER_LIMIT", 0)
    for _ in range(6):
        with contextlib.suppress(MippError):
            direct.send(direct.prepare(), 1)
        time.sleep(0.1)
    assert direct.open[1] <= 4


def test_all_users_together_park_a_bounded_number(world, direct, monkeypatch):
    limit(world, monkeypatch, in_all=2)
    asked = [direct.prepare() for _ in range(2)]
    for one in asked:
        direct.send(one, 1)
    with pytest.raises(BusyError, match="the server"):
        direct.send(direct.prepare(), 1)
    # another user comes in: the newest of the one who has most gives way
    other = world.deployment.create_user("otto")
    world.owners[0].grant(other.id)
    direct.send(direct.prepare(other), 1, user=other)
    assert len(direct.servers[1].admission._open) <= 3
    ended = direct.outcome(asked[1], 1)
    assert isinstance(ended, BusyError) and "come first" in str(ended)


def test_parked_bytes_are_bounded(world, direct, monkeypatch):
    limit(world, monkeypatch, bytes_per_user=1)
    assert isinstance(direct.send(direct.prepare(), 1)[1], m.Pending)  # one alone is always admitted
    with pytest.raises(BusyError):
        direct.send(direct.prepare(), 1)
    limit(world, monkeypatch, bytes_per_user=1 << 30, bytes_in_all=1)
    with pytest.raises(BusyError):
        direct.send(direct.prepare(), 1)


def test_closing_a_server_ends_what_is_parked(world, direct):
    asked = direct.prepare()
    direct.send(asked, 1, 2)
    direct.servers[2].admission.close()
    assert isinstance(direct.outcome(asked, 1), BusyError)
    with pytest.raises(BusyError, match="server 2 stops"):
        direct.send(direct.prepare(), 2)
