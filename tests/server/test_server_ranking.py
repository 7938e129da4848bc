"""Ranking by the servers, through the roles: exact, quick to refuse, and no more for the user than was granted."""

import dataclasses
import time

import numpy as np
import pytest

import mipp
from mipp.client import retry
from mipp.errors import (
    AccessDeniedError,
    BusyError,
    LimitError,
    MippError,
    ParameterError,
    ProtocolError,
    ScoreRangeError,
)
from mipp.rpc import messages as m
from mipp.rpc.wire import decode
from mipp.server import admission as admission_module
from mipp.server import ranking as ranking_module
from mipp.server import rendezvous as rendezvous_module
from tests.adversary.grants import store_old_grant
from tests.conftest import ALL_RANKINGS, DIM, vectors

QUERY = vectors(1, 7)[0]


def test_deleted_merged_and_compacted_rows(world):
    owner = world.owners[0]
    batch = owner.batches()[0].id
    for row in (0, 4, 9):
        owner.delete([(batch, row)])
        del world.plain[batch, row]
    world.check(k=57, ranking="server")
    owner.compact(merge_below=1)
    world.check(k=57, ranking="server")
    with pytest.raises(ParameterError, match="57 images"):
        world.user.search(QUERY, 58)


def test_scores_only_when_all_owners_grant_them(world):
    full = world.user.search(QUERY, 20)
    assert all(h.score is not None and h.value is not None for h in full.hits)
    world.owners[0].grant(world.user.id, rankings=("server",), scores=False)
    bare = world.user.search(QUERY, 20)
    assert [h.id for h in bare.hits] == [h.id for h in full.hits]
    assert {(h.score, h.value) for h in bare.hits} == {(None, None)}
    alone = world.user.search(QUERY, 5, owners=[world.owners[1].id])
    assert all(h.score is not None for h in alone.hits)


@pytest.mark.parametrize(
    ("metric", "options"),
    [("cosine", {}), ("ip", {"ring_bits": 64}), ("l2", {"query_bits": 10}), ("l1", {"levels": 5}), ("hamming", {})],
)
def test_matches_of_a_threshold(tmp_path, metric, options):
    rng = np.random.default_rng(4)
    high = {"l1": 5, "hamming": 2}.get(metric)
    x = rng.integers(0, high, (70, DIM)) if high else rng.normal(size=(70, DIM)) * 3
    encoding = mipp.Encoding(metric, DIM, **options)
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(x)
        owner.grant(user.id, rankings=ALL_RANKINGS)
        ranked = user.search(x[3], 70, ranking="user").hits
        for cut in (0, 9, 69):
            value = ranked[cut].value
            expected = {h.id for h in ranked if h.score >= ranked[cut].score}
            found = user.range_search(x[3], value)
            assert {h.id for h in found} == expected and {h.score for h in found} == {None}
            assert [h.row for h in found] == sorted(h.row for h in found)
        for out_of_range in (1e9, -1e9, float("nan"), float("inf")):
            with pytest.raises(ParameterError):
                user.range_search(x[3], out_of_range)


def test_a_threshold_does_not_get_around_a_largest_k(world):
    world.owners[0].grant(world.user.id, max_k=3)
    with pytest.raises(AccessDeniedError, match="threshold"):
        world.user.range_search(QUERY, 0.1, owners="anna")
    store_old_grant(world, world.owners[0], rankings=["threshold"], max_k=3)
    with pytest.raises(AccessDeniedError, match="threshold has no such limit"):
        world.user.range_search(QUERY, 0.1, owners="anna")


def test_one_refusing_server_ends_it_at_once(world):
    """A server that refuses tells its peers: nobody waits for a time limit, and the user sees the refusal."""
    world.user.search(QUERY, 3)
    world.deployment.servers[2].store.catalog.all("DELETE FROM grants")
    began = time.monotonic()
    with pytest.raises(AccessDeniedError):
        world.user.search(QUERY, 3)
    assert time.monotonic() - began < ranking_module.TIMEOUT / 3


@pytest.mark.parametrize("server", [1, 2, 3])
def test_a_server_that_breaks_down_midway(world, server, monkeypatch):
    """Every other server gets an error soon, the user no partial result, and the next search works."""
    broken = world.deployment.servers[server]
    real = broken.scheme.fill
    monkeypatch.setattr(broken.scheme, "fill", lambda *args: 1 / 0)
    began = time.monotonic()
    with pytest.raises(MippError):
        world.user.search(QUERY, 3)
    assert time.monotonic() - began < ranking_module.TIMEOUT / 3
    monkeypatch.setattr(broken.scheme, "fill", real)
    world.check(k=3, ranking="server")


def test_a_k_of_millions_is_refused_where_servers_would_sort_for_hours(world):
    scheme, encoded = world.deployment.servers[1].scheme, world.user.config.encoding.encode_queries(QUERY[None])
    frames = world.user._querier.hide(world.user.index(), encoded, 3, "server").header
    asked = decode([frame.data for frame in frames], m.QueryHeader)
    scheme.check_size(dataclasses.replace(asked, k=1 << 20), 1 << 20)
    scheme.check_size(dataclasses.replace(asked, k=10), 10**9)
    for k, rows in ((1 << 22, 1 << 22), (1 << 22, 10**7), ((1 << 21) + 1, 10**8)):
        with pytest.raises(LimitError, match="use a smaller k, or ranking='user'"):
            scheme.check_size(dataclasses.replace(asked, k=k), rows)


def test_rankings_at_once_share_the_memory(world, monkeypatch):
    """The second is busy, whatever becomes of the first, and neither waits for the other."""
    monkeypatch.setattr(ranking_module, "memory_bytes", lambda: 100)
    budget = ranking_module.MemoryBudget()
    with budget.held(60), budget.held(40), pytest.raises(BusyError, match="other rankings"), budget.held(1):
        raise AssertionError("too much is held")
    with pytest.raises(ZeroDivisionError), budget.held(90):
        1 / 0  # noqa: B018
    with budget.held(100):  # given back
        pass
    monkeypatch.undo()
    monkeypatch.setattr(retry, "BUSY_PATIENCE", 0.2)
    memory = world.deployment.servers[2].queries._memory
    with memory.held(1 << 60), pytest.raises(BusyError):
        world.user.search(QUERY, 3)
    world.check(k=3, ranking="server")


@pytest.mark.parametrize("ranking", ["server", "threshold"])
def test_a_ranking_that_takes_more_memory_than_there_is(world, ranking, monkeypatch):
    """Refused before anything is computed or counted, with a way out."""
    computed = []
    for server in world.deployment.servers.values():
        monkeypatch.setattr(server.scheme, "fill", lambda *args: computed.append(args))
        monkeypatch.setattr(server.queries, "_charge", lambda *args: computed.append(args))
    monkeypatch.setattr(ranking_module, "memory_bytes", lambda: 1 << 20)
    with pytest.raises(LimitError, match=r"takes \d+ MiB at each server, .* use ranking='user'"):
        if ranking == "server":
            world.user.search(QUERY, 3)
        else:
            world.user.range_search(QUERY, 0.1)
    assert not computed
    monkeypatch.undo()
    world.check(k=3)


def test_a_silent_server_ends_in_a_time_limit(world, monkeypatch):
    """The user sees which server did not get the query, and no server has computed or counted anything."""
    monkeypatch.setattr(rendezvous_module, "GATHER_LIMIT", 0.5)
    world.owners[0].grant(world.user.id, quota=5)
    computed = []
    for server in world.deployment.servers.values():
        monkeypatch.setattr(server.scheme, "fill", lambda *args: computed.append(args))
        monkeypatch.setattr(server.queries, "_charge", lambda *args: computed.append(args))
    index = world.user.index()
    encoded = world.user.config.encoding.encode_queries(QUERY[None])
    real = world.user.channel.gather

    class TwoOnly:
        servers = (1, 2, 3)

        def gather(self, requests, *, together=False, spare=False):
            return real({s: r for s, r in requests.items() if s != 3}, together=together)

    world.user.channel = TwoOnly()
    began = time.monotonic()
    with pytest.raises(ProtocolError, match="did not reach server 3"):
        world.user._querier._sent(index, encoded, 3, "server")
    assert time.monotonic() - began < 10
    assert not computed


@pytest.mark.parametrize("silent", [1, 2, 3])
def test_a_server_that_falls_silent_midway_ends_in_a_time_limit(world, monkeypatch, silent):
    """It has the query and starts, but its peers never hear of it: each message is waited for in a time limit."""
    monkeypatch.setattr(ranking_module, "TIMEOUT", 0.5)

    def sleep(entry):
        time.sleep(1.5)
        raise ProtocolError("it was silent")

    monkeypatch.setattr(world.deployment.servers[silent].admission, "_run", sleep)
    began = time.monotonic()
    with pytest.raises(ProtocolError, match="silent"):
        world.user.search(QUERY, 3)
    assert time.monotonic() - began < 10


def test_encodings_whose_differences_could_wrap(tmp_path):
    encoding = mipp.Encoding("ip", 4, bits=8, query_bits=8, ring_bits=16, row_norm2=127**2, query_norm2=257**2)
    assert not encoding.allows_server_ranking
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(np.eye(4))
        owner.grant(user.id, rankings=ALL_RANKINGS)
        user.search(np.ones(4), 2, ranking="user")
        with pytest.raises(ScoreRangeError, match="leave the ring; rank as the user"):
            user.search(np.ones(4), 2)


def test_bad_requests(world):
    for bad in ({"ranking": "nobody"}, {"k": 0}, {"k": True}, {"k": 1.5}, {"k": 61}):
        with pytest.raises(ParameterError):
            world.user.search(QUERY, **bad)
    for bad in ({"ranking": "nobody"}, {"k": 0}, {"k": 61}):
        with pytest.raises(ParameterError):
            world.user.cost(**bad)


def test_cost_before_it_runs(world):
    user = world.user.cost(5, ranking="user", verify=False)
    server, threshold = world.user.cost(5), world.user.cost(ranking="threshold")
    assert user["user"]["received"] == 60 * (2 if world.deployment.channel.remote else 4) and "servers" not in user
    assert server["user"]["received"] == 5 * 8 and server["servers"]["bound"]["rounds"] >= server["servers"]["rounds"]
    assert threshold["servers"]["rounds"] > 5 and max(threshold["servers"]["bytes"].values()) > 60 * 4


def test_the_user_receives_k_words_and_no_scores(world, monkeypatch):
    monkeypatch.setattr(admission_module, "WAIT", 60)  # else a slow machine may answer Pending first
    channel = world.deployment.channel
    world.user.search(QUERY, 2)
    channel.bytes_sent.clear()
    world.user.search(QUERY, 2)
    assert set(channel.bytes_sent) == {"Query", "Ranked"}
    assert channel.bytes_sent["Ranked"] < 3 * (2 * 8 + 200)
