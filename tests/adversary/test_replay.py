"""A signed request is for one server, soon, once: whoever has it can do nothing else with it."""

import contextlib
import dataclasses
import time

import numpy as np
import pytest

from mipp.crypto import box
from mipp.crypto.signing import Statement
from mipp.errors import AuthenticationError, MippError, NotFoundError
from mipp.rpc import messages as m
from mipp.rpc.wire import decode, encode, frames_hash
from mipp.server.freshness import RequestLog
from tests.adversary.forge import SERVERS
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]


@pytest.fixture
def wire(world):
    """All (server, request, reply) that pass, as a server or somebody on its link sees them."""
    seen = []
    real = world.deployment.channel._request

    def tapped(server, frames, *call):
        kept = [bytes(f) for f in frames]
        reply = real(server, frames, *call)
        seen.append((server, kept, reply))
        return reply

    world.deployment.channel._request = tapped
    yield seen
    del world.deployment.channel._request


def kind_of(frames):
    signed = decode(frames, m.Signed)
    return type(decode([f.data for f in signed.frames]))


def test_fetched_shares_open_for_their_owner_alone(world, wire):
    """Cloud 1 replayed an owner's request at cloud 2 and had both shares, which are the features."""
    anna = world.owners[0]
    numbers, _ = anna.rows_of(anna.batches()[0].id)
    assert len(numbers) == 15
    server, frames, reply = next(w for w in wire if kind_of(w[1]) is m.FetchShares)
    for other in SERVERS:
        if other != server:
            with pytest.raises(AuthenticationError, match=f"signed for server {server}"):
                world.deployment.channel.gather({other: frames})
    again = world.deployment.channel.gather({server: frames})[server]  # harmless: sealed to a key of the owner's
    words = world.deployment.servers[server].store.view(anna.id).batches[0].words.tobytes()
    for got in (reply, again):
        assert isinstance(got, m.SealedShares) and words[:64] not in got.sealed
        with pytest.raises(AuthenticationError):
            box.open_sealed(b"k" * 32, got.sealed, b"")


def test_every_request_is_for_one_server(world, wire):
    anna, user = world.owners[0], world.user
    ids = anna.add_vectors(vectors(2, 30), [("a", b"a"), None])
    user.search(QUERY, 5)
    user.search(QUERY, 5, ranking="user")
    user.fetch(ids[:1])
    anna.rows_of(ids[0][0])
    anna.delete(ids)
    anna.compact()
    anna.grants()
    kinds = set()
    for server, frames, _ in list(wire):
        kind = kind_of(frames)
        kinds.add(kind)
        if kind in m.FOR_ALL:
            continue
        for other in SERVERS:
            if other != server:
                with pytest.raises(AuthenticationError):
                    world.deployment.channel.gather({other: frames})
    assert {m.Query, m.UploadOp, m.DeleteOp, m.FetchShares, m.FetchImages, m.SnapshotRequest, m.Compact} <= kinds
    # what is for all is the same wherever and however often it comes
    state = world.deployment.status()
    for _, frames, _ in list(wire):
        if kind_of(frames) in m.FOR_ALL:
            for server in SERVERS:
                with contextlib.suppress(MippError):
                    world.deployment.channel.gather({server: frames})
    assert world.deployment.status() == state and state["servers_agree"]
    assert len(user.search(QUERY, 60, strict=True).hits) == 60


def test_queries_are_served_once(world, wire):
    world.owners[0].grant(world.user.id, rankings=("user", "server"), quota=100)
    for ranking in ("user", "server"):
        world.user.search(QUERY, 5, ranking=ranking)
    queries = [w for w in wire if kind_of(w[1]) is m.Query]
    assert len(queries) == 6
    for server, frames, _ in queries:
        with pytest.raises(AuthenticationError, match="sent before"):
            world.deployment.channel.gather({server: frames})
    used = [s.store.catalog.one("SELECT sum(used) FROM grants")[0] for s in world.deployment.servers.values()]
    assert used == [3, 3, 3]  # and the check columns of the search that the user ranked


@pytest.mark.parametrize(("shift", "text"), [(-301, "before"), (301, "after"), (-86400, "86400 s"), (1e9, "clocks")])
def test_old_and_future_requests(world, monkeypatch, shift, text):
    """Refused with the difference of the clocks and the server's time; what is for all has no time."""
    real = time.time
    monkeypatch.setattr("mipp.client.client.time.time", lambda: real() + shift)
    monkeypatch.setattr(world.user, "ahead", lambda server: 0.0)  # it does not look at the server's clock
    with pytest.raises(AuthenticationError, match=text):
        world.user.index()
    monkeypatch.undo()
    world.check(k=5)


def test_what_was_signed_before_a_server_started(world):
    frames = world.user.sign(m.SnapshotRequest([], b"", False), 1)
    server = world.deployment.servers[1]
    server._log = RequestLog(lambda: server.clock() + 1)
    with pytest.raises(AuthenticationError, match="before this server started"):
        world.deployment.channel.gather({1: frames})


def test_nothing_of_the_envelope_can_be_changed(world):
    signed = decode(world.user.sign(m.SnapshotRequest([], b"", False), 1), m.Signed)
    content = encode(m.SnapshotRequest([world.owners[0].id], b"", False))
    for change in (
        {"receiver": 2}, {"receiver": 0}, {"issued": signed.issued + 1}, {"random": b"r" * 16}, {"random": b""},
        {"deployment": b"d" * 16}, {"signer": world.owners[0].id}, {"receiver": 256}, {"receiver": -1}, {"issued": -1},
        {"frames": [np.frombuffer(f, np.uint8) for f in content]},
    ):  # fmt: skip
        for server in SERVERS:
            with pytest.raises((NotFoundError, AuthenticationError) if "signer" in change else AuthenticationError):
                world.deployment.channel.gather({server: encode(dataclasses.replace(signed, **change))})


def test_the_log_of_requests_is_bounded():
    now = [1000.0]
    log = RequestLog(lambda: now[0], per_signer=10)

    def say(i, *, at=None, repeatable=True, content=b"c" * 32):
        random = i.to_bytes(16, "big")
        issued = int(1000 * (now[0] if at is None else at))
        log.check(b"s" * 16, Statement(b"d" * 16, 1, "Query", content, issued, random), repeatable=repeatable)

    for i in range(10):
        say(i)
    say(3)  # the same again
    with pytest.raises(AuthenticationError):
        say(3, repeatable=False)
    with pytest.raises(AuthenticationError):
        say(3, content=b"e" * 32)
    now[0] += 1
    for i in range(10, 200):
        now[0] += 0.002
        say(i)
    assert len(log._seen[b"s" * 16]) == 10
    with pytest.raises(AuthenticationError):  # forgotten, so refused by its time
        say(0, at=1000)
    with pytest.raises(AuthenticationError):
        say(199, repeatable=False)
    now[0] += 400
    say(200)
    assert len(log._seen[b"s" * 16]) == 1
    log.check(b"o" * 16, Statement(b"d" * 16, 1, "Query", b"c" * 32, int(1000 * now[0]), bytes(16)), repeatable=False)
    assert frames_hash([b"a", b"b"]) != frames_hash([b"ab"])


def test_a_clock_that_is_ahead_opens_no_gap_at_a_restart(world, monkeypatch):
    """A request of such a clock is younger than the start of the server that was restarted after it."""
    user = world.user
    real = time.time
    monkeypatch.setattr("mipp.client.client.time.time", lambda: real() + 120)
    prepared = user._querier.hide(user.index(), user.config.encoding.encode_queries(QUERY), 1, "user")
    frames = user.sign(m.Query(prepared.header, *prepared.servers[1]), 1)
    monkeypatch.undo()
    channel = world.deployment.channel
    channel.gather({1: frames})
    with pytest.raises(AuthenticationError):
        channel.gather({1: frames})
    server = world.deployment.servers[1]
    server._log = RequestLog(server.clock, served=server.store.ahead(), keep=server.store.note_ahead)  # a restart
    with pytest.raises(AuthenticationError, match="before this server started"):
        channel.gather({1: frames})
    # others are not concerned, and the clock of this one is set right some day
    world.owners[0].ask({1: m.HeadRequest(world.owners[0].id)})
