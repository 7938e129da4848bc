"""Servers start in every order, late, never, and are killed in the middle of it: nobody wedges, and pages tell why."""

import itertools
import json
import os
import signal
import time
import types

import pytest

from mipp.deployment import serving
from mipp.errors import MippError, ProtocolError
from mipp.rpc import peer_messages as pm
from mipp.rpc.wire import decode, encode
from tests.conftest import vectors
from tests.deployment.hosted import PROCESSES, QUERY, found, some
from tests.network import Network

pytestmark = pytest.mark.slow


def state_of(client, server):
    status, body = client.channel.get(server, "/readyz")
    told = json.loads(body)
    assert (status == 200) == told["ready"] == (not told["reasons"])
    return told


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))), ids=lambda o: "".join(map(str, o)))
def test_started_in_every_order(net, parties, order):
    _, user, plain = parties
    net.kill(1, 2, 3)
    for server in order:
        net.start(server)
        time.sleep(0.1)
    net.agreed()
    assert found(user) == plain.scores(QUERY)
    assert found(user, "server", k=3) == plain.scores(QUERY)[:3]


@pytest.mark.parametrize("away", [1, 2, 3])
def test_one_never_starts(net, parties, away):
    """The other two serve what two can serve, say how they stand, and refuse changes with a typed error."""
    owner, user, plain = parties
    net.kill(1, 2, 3)
    there = [s for s in (1, 2, 3) if s != away]
    net.start(there[0])
    client = net.connect()
    told = state_of(client, there[0])
    assert not told["ready"] and "waits to hear another server" in told["reasons"][0]
    net.start(there[1])
    until = time.monotonic() + 5
    while not all(state_of(client, s)["ready"] for s in there):
        assert time.monotonic() < until
        time.sleep(0.05)
    for server in there:
        report = net.ask(server, pm.ServerReportRequest())
        assert not report.votes and sum(map(bool, report.problems)) == 1
    begun = time.monotonic()
    with pytest.raises(MippError):
        owner.add_vectors(vectors(1, 3))
    with pytest.raises(MippError):
        found(user)
    assert time.monotonic() - begun < 5
    net.start(away)
    net.agreed()
    assert found(user) == plain.scores(QUERY)
    client.close()


@pytest.mark.parametrize("step", some([1, 2, 3, 5, 8, 13, 21], 2, 8, 21))
def test_all_are_killed_while_they_start(net, parties, step):
    _, user, plain = parties
    net.kill(1, 2, 3)
    net.start(wait=False, kill_at=step)
    for server in (1, 2, 3):
        net.died(server, 2)
    net.kill(1, 2, 3)
    net.start()
    net.agreed()
    assert found(user) == plain.scores(QUERY)


def poison(process, kinds, notes):
    """From now on the handlers of these kinds of calls fail in a way that nobody foresaw; so do the next notes."""
    from mipp.server import peers

    def fails(server, msg):
        raise RuntimeError("poison")

    for kind in kinds:
        peers.HANDLERS[getattr(pm, kind)] = fails
    real, left = process.mesh._note, iter(range(notes))

    def note(peer, data):
        if next(left, None) is not None:
            raise RuntimeError("poison")
        real(peer, data)

    process.mesh._note = note


def test_poison_leaves_the_servers_serving(net, parties):
    """Calls of peers that fail in an unforeseen way, and one note: everything else goes on at all servers."""
    owner, user, plain = parties
    net.tell(2, "call", poison, ["SettleRequest", "PassedOn", "Standing", "PeerRequest"], 0)
    x = vectors(1, 40)
    plain.rows |= dict(zip(owner.add_vectors(x), x, strict=True))
    assert found(user) == plain.scores(QUERY)
    assert found(user, "server", k=3) == plain.scores(QUERY)[:3]
    net.kill(3)
    net.start(3)  # asks server 2, which cannot answer
    time.sleep(1)
    assert "poison" in net.log(2)
    net.kill(2)
    net.start(2)
    net.agreed()
    assert found(user, "server", k=3) == plain.scores(QUERY)[:3]


@pytest.mark.nightly
def test_a_poison_note_ends_one_ranking(net, parties):
    """With a typed error, after the 60 s that servers wait for each other's messages."""
    _, user, plain = parties
    net.tell(2, "call", poison, [], 1)
    with pytest.raises(ProtocolError, match="silent"):
        found(user, "server", k=3)
    assert found(user, "server", k=3) == plain.scores(QUERY)[:3]
    assert "poison" in net.log(2)


def test_an_operator_asks_as_soon_as_it_can(tmp_path, encoding, monkeypatch):
    """The socket is there a moment before the server is made: what is asked then is answered, too."""
    told, change = [], types.SimpleNamespace(owner=b"o" * 16, op=b"c" * 16, state="accepted", servers=[2])

    class Eager(serving.OperatorSocket):
        def __init__(self, folder, serve):
            super().__init__(folder, serve)
            told.append(decode(serve(encode(pm.WaitingChangesRequest()))))

    monkeypatch.setattr(serving, "OperatorSocket", Eager)
    monkeypatch.setattr(serving, "waiting", lambda changes: [change])
    serving.ServerProcess(Network(tmp_path / "net", encoding).home(1)).stop()
    assert told[0].waits == ["server 2"] and told[0].seconds == [0]


def _interrupted(folder, at, started):
    """A client's process: an upload of an owner, ended by Ctrl-C at one of its requests."""
    from mipp.deployment import ConnectedDeployment
    from mipp.rpc.http_channel import HttpChannel

    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what runs in the background
    real, count = HttpChannel._exchange, itertools.count(1)

    def exchange(self, *args):
        if next(count) == at:
            started.set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        return real(self, *args)

    with ConnectedDeployment.open(folder, threads=1) as client:
        owner = client.owner("anna")
        HttpChannel._exchange = exchange
        try:
            owner.add_vectors(vectors(3, 71))
        except KeyboardInterrupt:
            os._exit(7)
    os._exit(0)


@pytest.mark.parametrize("at", some([1, 2, 3, 4, 7, 9, 11], 2, 7, 11))
def test_ctrl_c_in_an_upload(net, parties, at):
    """Nothing of it is visible, or all; the next upload works at once."""
    owner, user, plain = parties
    before = found(user)
    begun = PROCESSES.Event()
    process = PROCESSES.Process(target=_interrupted, args=(net.folder / "client", at, begun))
    process.start()
    process.join(20)
    assert process.exitcode == (7 if begun.is_set() else 0)
    x = vectors(2, 80 + at)
    plain.rows |= dict(zip(owner.add_vectors(x), x, strict=True))
    net.agreed()
    after = sorted(before + plain.scores(QUERY, dict(enumerate(x))), reverse=True)
    whole = sorted(after + plain.scores(QUERY, dict(enumerate(vectors(3, 71)))), reverse=True)
    seen = found(user)
    assert seen == (after if len(seen) == len(after) else whole)
    if len(seen) > len(after):
        batch = next(b for b in owner.batches() if b.rows == 3 and b.id not in {i[0] for i in plain.rows})
        plain.rows |= {(batch.id, n): row for n, row in enumerate(vectors(3, 71))}
