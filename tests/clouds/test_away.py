"""Changes while one of three clouds is away, over a network: written to the others, and taken over when it is back."""

import dataclasses
import time

import numpy as np
import pytest

from mipp.deployment import serving
from mipp.errors import ConflictError, MippError, OutOfRangeError, StoreError, UnreachableError
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.chain import Content, facts_hash, next_view
from mipp.rpc.channel import LocalChannel
from mipp.rpc.wire import encode, pack_frames
from mipp.server.following import follow
from mipp.server.handed_chains import chain_message, read_chain
from tests.conftest import ALL_RANKINGS, vectors
from tests.network import Network

pytestmark = pytest.mark.slow


@pytest.fixture
def network(tmp_path, encoding):
    made = Network(tmp_path, encoding, clouds=3)
    yield made.start().ready()
    made.stop()


@pytest.fixture
def world(network):
    with network.connect() as client:
        client.anna, client.ulla = client.create_owner("anna"), client.create_user("ulla")
        client.x = vectors(90)
        client.ids = client.anna.add_vectors(client.x[:30], [("a.png", b"...")] * 30)
        client.anna.grant(client.ulla.id, rankings=ALL_RANKINGS)
        yield client


def until(good, seconds=20):
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end
        time.sleep(0.02)


def heads(network):
    return {i: p.server.store.chains.heads() for i, p in network.processes.items()}


def agree(network):
    until(lambda: len({str(h) for h in heads(network).values()}) == 1)


def exact(world, owner, rows):
    """Both rankings find each row nearest to itself, at every set that the user asks."""
    for _ in range(3):
        for ranking in ("user", "server"):
            found = world.ulla.nearest(world.x[rows], 1, ranking=ranking)
            at = [found.index.ids()[row] for row in found.rows[:, 0]]
            assert at == [world.ids[row] for row in rows] and not found.left_out and not found.suspects


def forget_silence(world):
    world.ulla.away._until.clear()
    world.anna.away._until.clear()


def test_changes_without_a_cloud(world, network):
    for cloud in (2, 4, 1):
        network.stop(cloud)
        first = len(world.ids)
        world.ids += world.anna.add_vectors(world.x[first : first + 20], [("b.png", bytes([cloud]))] * 20)
        gone = world.ids[first]
        world.anna.delete([gone])
        bob = world.create_owner(f"bob{cloud}")
        bob.add_vectors(vectors(3, cloud))
        world.anna.revoke(world.ulla.id)
        with pytest.raises(MippError):
            world.ulla.nearest(world.x[:1], 1, owners="anna")
        world.anna.grant(world.ulla.id, rankings=ALL_RANKINGS)
        exact(world, world.anna, [0, first + 1, first + 19])
        assert world.ulla.fetch(world.ids[first + 1 : first + 2])[0].content == bytes([cloud])
        forget_silence(world)
        network.start(cloud).ready()
        agree(network)
        exact(world, world.anna, [0, first + 1, first + 19])  # its files are not there yet
        assert network.processes[cloud].repairer.repair() == (3, [])  # shares of two owners, and images
        assert not network.processes[cloud].server.store.repairs.lost_batches(read=True)
        forget_silence(world)
        exact(world, world.anna, [0, first + 1, first + 19])
        used = {world.ulla.nearest(world.x[:1], 1, ranking="user").index.servers for _ in range(3)}
        assert used == {(1, 2, 3), (1, 3, 4), (2, 3, 4)}


def test_what_a_cloud_rebuilt_is_what_its_owner_would_have_sent(world, network):
    network.stop(4)
    added = world.anna.add_vectors(world.x[30:40])
    network.start(4).ready()
    agree(network)
    (lost,) = network.processes[4].server.store.repairs.lost_batches()
    assert lost.id == added[0][0] and len(lost.share_hash) == 32  # of its share, in the owner's COMMIT
    network.stop(1)  # another cloud than the first one gives its part
    until(lambda: not network.processes[4].mesh.there(1))
    assert network.processes[4].repairer.repair() == (1, [])
    view = network.processes[4].server.store.view(world.anna.id)
    assert view.batches[-1].certified and not view.batches[-1].problem


def test_merges_and_compaction_without_a_cloud(world, network):
    world.ids += world.anna.add_vectors(world.x[30:35])
    network.stop(2)
    world.anna.delete(world.ids[:3])
    assert world.anna.compact() == 1 and len(world.anna.batches()) == 1
    assert np.array_equal(
        np.sort(world.anna.rows_of(world.anna.batches()[0])[1], axis=0),
        np.sort(world.anna.config.encoding.decode_rows(world.anna.config.encoding.encode_rows(world.x[3:35])), axis=0),
    )
    network.start(2).ready()
    agree(network)
    network.processes[2].repairer.repair()
    assert not network.processes[2].server.store.repairs.lost_batches(read=True)


def test_two_clouds_away_are_too_many(world, network):
    network.stop(2, 4)
    with pytest.raises((UnreachableError, StoreError)):
        world.anna.add_vectors(world.x[30:40])
    with pytest.raises(UnreachableError):
        world.ulla.nearest(world.x[:1], 1)
    network.start(2, 4).ready()
    forget_silence(world)
    world.ids += world.anna.add_vectors(world.x[30:40])
    exact(world, world.anna, [0, 35])


def test_without_the_key_centre_nothing_changes(world, network):
    network.stop(3)
    with pytest.raises((UnreachableError, StoreError)):
        world.anna.add_vectors(world.x[30:40])


# --- what a hostile owner or server does with it --------------------------------------------------------------------


def commit(world, servers, shares=4):
    """A COMMIT of an upload that names these servers, and what one server says to it."""
    changes = world.anna._changes
    sent = []

    def catch(kind, op, content, contents, named, head):
        sent.append((op, contents, named, head))
        raise KeyboardInterrupt

    real, changes._commit = changes._commit, catch
    with pytest.raises(KeyboardInterrupt):
        world.anna.add_vectors(world.x[30:33])
    changes._commit = real
    ((op, contents, named, head),) = sent
    content = Content(3, world.config.encoding.encoded_dim)
    listed = [contents[s] for s in servers]
    facts = facts_hash("upload", content, servers, listed, named[:shares])
    view = next_view(world.anna.id, head.position + 1, head.view, op, facts)
    return op, m.CommitOp(op, "upload", head.position + 1, head.view, view, servers, listed, named[:shares])


@pytest.mark.parametrize(("servers", "shares"), [
    ([1, 2, 4], 4), ([1, 3], 4), ([3, 4], 4), ([1], 4), ([1, 3, 4], 3), ([1, 2, 3, 4], 3), ([1, 3, 4], 2),
])  # fmt: skip
def test_commits_to_too_few_servers_are_refused(world, servers, shares):
    _, msg = commit(world, servers, shares)
    with pytest.raises(MippError):
        world.anna.ask_all(msg, [servers[0]])
    assert len(world.anna.batches()) == 1


def test_a_commit_that_is_not_written_to_a_server(world, network):
    """It neither votes for it nor against it: the others decide, and it follows them."""
    op, msg = commit(world, [1, 2, 3])
    with pytest.raises(ConflictError, match="not written to this server"):
        world.anna.ask_all(msg, [4])
    votes = world.anna.ask_all(msg, [3, 1, 2])
    outcomes = world.anna.ask_all(
        m.Certify(world.anna.id, op, [pack_frames(encode(v)) for v in votes.values()]), [1, 2, 3]
    )
    assert {o.state for o in outcomes.values()} == {"committed"}
    for process in network.processes.values():
        process.ask_settle()
    follow(network.processes[4].server, network.processes[4].channel)
    agree(network)
    # its own file was prepared: it has the share
    assert not network.processes[4].server.store.repairs.lost_batches(read=True)


def test_rows_that_two_clouds_tested_are_not_written_to_three(world):
    changes = world.anna._changes
    real = type(changes)._tested
    type(changes)._tested = lambda self, op, among: real(self, op, [1, 2, 3])
    try:
        with pytest.raises(OutOfRangeError, match="not checked"):
            world.anna.add_vectors(world.x[30:33])
    finally:
        type(changes)._tested = real


class Lying(LocalChannel):
    """To servers of which one shows another history."""

    def __init__(self, network, liar, change):
        self.liar, self.change = liar, change
        super().__init__({i: p.server.operate for i, p in network.processes.items()})

    def gather(self, requests, *, together=False, spare=False):
        replies = super().gather(requests)
        for server, reply in replies.items():
            if server == self.liar and isinstance(reply, pm.Followed):
                chains = [chain_message(self.change(read_chain(packed))) for packed in reply.chains]
                replies[server] = pm.Followed(chains)
        return replies


@pytest.mark.parametrize("liar", [1, 3])
def test_one_server_alone_makes_a_cloud_believe_nothing(world, network, liar, monkeypatch):
    monkeypatch.setattr(serving, "follow", lambda server, channel: 0)
    network.stop(4)
    world.anna.add_vectors(world.x[30:40])
    network.start(4).ready()
    server = network.processes[4].server

    def made_up(chain):
        return dataclasses.replace(chain, position=chain.position + 1, view=bytes(32))

    def other_rows(chain):
        return dataclasses.replace(chain, batches=[(b[0], b[1] + 1, *b[2:]) for b in chain.batches])

    def fewer(chain):
        return dataclasses.replace(chain, batches=chain.batches[1:])

    before = server.store.chains.heads()
    for change in (made_up, other_rows, fewer):
        # a cloud's lie does not hold up the truth of the key centre and the other cloud
        assert follow(server, Lying(network, liar, change)) == (1 if liar == 1 and change is made_up else 0)
    assert (server.store.chains.heads() == before) == (liar == 3)
    assert follow(server, network.processes[4].channel) == (liar == 3)
    monkeypatch.undo()
    agree(network)
