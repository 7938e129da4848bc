"""What hostile owners and servers tried on a deployment of three clouds, over a network."""

import contextlib
import dataclasses

import numpy as np
import pytest

from mipp.client import encrypting
from mipp.deployment import serving
from mipp.errors import BusyError, IntegrityError, LimitError, MippError, StoreError
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.chain import Content, facts_hash, next_view
from mipp.rpc.wire import encode, pack_frames
from mipp.server import peers
from mipp.server.following import follow
from mipp.server.handed_chains import chain_message, read_chain
from tests.clouds.test_away import Lying, agree, heads, network, until, world
from tests.conftest import vectors

__all__ = ["network", "world"]
pytestmark = pytest.mark.slow


def prepared(owner, rows):
    """An upload that is prepared and tested, and not committed: its id, hashes and head."""
    changes, sent = owner._changes, []

    def catch(kind, op, content, contents, named, head):
        sent.append((op, contents, named, head))
        raise KeyboardInterrupt

    real, changes._commit = changes._commit, catch
    with pytest.raises(KeyboardInterrupt):
        owner.add_vectors(rows)
    changes._commit = real
    return sent[0]


def commit_of(owner, made, servers, rows):
    op, contents, named, head = made
    content = Content(rows, owner.config.encoding.encoded_dim)
    listed = [contents[s] for s in servers]
    view = next_view(owner.id, head.position + 1, head.view, op, facts_hash("upload", content, servers, listed, named))
    return m.CommitOp(op, "upload", head.position + 1, head.view, view, servers, listed, named)


def committed(owner, msg):
    """Have the servers of a COMMIT make it."""
    votes = owner.ask_all(msg, [3, *(s for s in msg.servers if s != 3)])
    packed = [pack_frames(encode(v)) for v in votes.values()]
    outcomes = owner.ask_all(m.Certify(owner.id, msg.op, packed), msg.servers)
    assert {o.state for o in outcomes.values()} == {"committed"}


@pytest.fixture
def only_when_told(monkeypatch):
    """Clouds follow when a test has them do so."""
    monkeypatch.setattr(serving, "follow", lambda server, channel: 0)


def test_rows_that_nobody_tested_do_not_become_certified(world, network, monkeypatch):
    """Prepared at a cloud, tested and committed without it: it rebuilds its share from the others instead."""
    real, tested = encrypting.share_rows, type(world.anna._changes)._tested

    def wrong(rows, *given, **options):
        shared = real(rows, *given, **options)
        shared.shares[4][:] += np.uint32(0x3FFFFFFF)
        return shared

    monkeypatch.setattr(encrypting, "share_rows", wrong)
    monkeypatch.setattr(type(world.anna._changes), "_tested", lambda self, op, among: tested(self, op, [1, 2, 3]))
    made = prepared(world.anna, world.x[30:33])
    monkeypatch.undo()
    made = (made[0], made[1], made[2], made[3])
    committed(world.anna, commit_of(world.anna, made, [1, 2, 3], 3))
    agree(network)
    server = network.processes[4].server
    (lost,) = server.store.repairs.lost_batches()
    assert lost.id == made[0]
    # it names a wrong hash of the share, so that this is the last that happens to it; others' rows are searched
    done, problems = network.processes[4].repairer.repair()
    assert done == 0 and "share that the owner sent" in problems[0]
    for _ in range(3):
        found = world.ulla.nearest(world.x[:1], 1)
        assert found.rows[0, 0] == 0 and found.index.servers == (1, 2, 3)


def test_a_promise_that_the_others_broke_is_given_up(world, network):
    """Two COMMITs of one change: one for all at a cloud, one without it at the others."""
    made = prepared(world.anna, world.x[30:33])
    everyone, others = (commit_of(world.anna, made, servers, 3) for servers in ([1, 2, 3, 4], [1, 2, 3]))
    assert world.anna.ask_all(everyone, [4])[4].commit
    committed(world.anna, others)
    until(lambda: follow(network.processes[4].server, network.processes[4].channel) or True)
    agree(network)
    assert network.processes[4].server.store.changes.state(world.anna.id, made[0]) == "committed"
    assert not network.processes[4].server.store.repairs.lost_batches()  # this file was tested with it
    world.anna.add_vectors(world.x[40:42])
    agree(network)


def test_an_owner_that_cannot_be_followed_holds_up_no_other(world, network, only_when_told, monkeypatch):
    monkeypatch.setattr(peers, "FOLLOWED", 1)
    owners = [world.anna, *(world.create_owner(f"owner{i}") for i in range(3))]
    network.stop(4)
    for owner in owners:
        owner.add_vectors(world.x[40:43])
    network.start(4).ready()
    server, bad = network.processes[4].server, min(owner.id for owner in owners)
    real = server.store.chains.adopt

    def adopt(chain, **options):
        if chain.owner == bad:
            raise MemoryError
        real(chain, **options)

    monkeypatch.setattr(server.store.chains, "adopt", lambda c, **o: None if c.owner == bad else real(c, **o))
    follow(server, network.processes[4].channel)
    behind = {o for o in heads(network)[3] if heads(network)[4].get(o) != heads(network)[3][o]}
    assert behind == {bad}


def test_what_one_cloud_says_of_a_history_is_not_believed(world, network, only_when_told):
    network.stop(4)
    world.ids += world.anna.add_vectors(world.x[30:40], [("i", b"...")] * 10)
    network.start(4).ready()
    process = network.processes[4]

    def longer(chain):
        object.__setattr__(chain, "refused", [b"r" * 16])
        return chain

    changes = {
        "floor": lambda c: dataclasses.replace(c, floor=1 << 60),
        "ops": lambda c: dataclasses.replace(c, ops=[]),
        "more ops": lambda c: dataclasses.replace(c, ops=[*c.ops, (b"x" * 16, "upload", 9, bytes(32), bytes(32))]),
        "refused": longer,
        "images": lambda c: dataclasses.replace(c, batches=[(*b[:-1], b"") for b in c.batches]),
    }
    for change in changes.values():
        before = process.server.store.chains.heads()
        follow(process.server, Lying(network, 1, change))
        after = process.server.store.chains.all({world.anna.id})[0]
        truth = network.processes[2].server.store.chains.all({world.anna.id})[0]
        assert (after.floor, sorted(after.ops), after.refused) == (truth.floor, sorted(truth.ops), truth.refused)
        assert [b[-1] for b in after.batches] == [b[-1] for b in truth.batches]
        assert before is not None
    assert process.repairer.repair() == (2, [])


def test_histories_that_do_not_fit_together_hold_up_nothing(world, network, only_when_told):
    network.stop(4)
    world.anna.add_vectors(world.x[30:40])
    network.start(4).ready()
    process = network.processes[4]

    class Broken(Lying):
        def gather(self, requests, *, together=False, spare=False):
            replies = super().gather(requests)
            if 1 in replies and isinstance(replies[1], pm.Followed):
                made = read_chain(replies[1].chains[0])
                made = dataclasses.replace(made, batches=made.batches[:1], ops=[(*op[:4], op[4]) for op in made.ops])
                msg = chain_message(made)
                replies[1] = pm.Followed([msg[:-1]])
            return replies

    assert follow(process.server, Broken(network, 0, None)) == 1
    agree(network)


@pytest.mark.parametrize("lie", [BusyError("no"), IntegrityError("no"), m.Ok(), "shape", "words"])
def test_a_holder_that_lies_does_not_stop_a_rebuild(world, network, lie):
    network.stop(4)
    world.anna.add_vectors(world.x[30:40])
    network.start(4).ready()
    agree(network)
    process = network.processes[4]
    process.repairer._channel = Answering(network, 1, lie)
    assert process.repairer.repair() == (1, [])
    assert not process.server.store.repairs.lost_batches(read=True)


@pytest.mark.parametrize("liar", [1, 2])
def test_a_lie_in_a_rebuild_without_a_hash_is_noticed(world, network, liar):
    """Of a compacted batch the owner signed no hash: both other clouds' parts must give the same share."""
    world.anna.delete(world.ids[:10])
    world.anna.compact(merge_below=1)
    process = network.processes[4]
    for path in (network.home(4) / "shares").glob("*/*"):
        path.unlink()
    process.repairer._channel = Answering(network, liar, "words")
    done, problems = process.repairer.repair()
    assert done == 0 and "two different shares" in problems[0]
    process.repairer._channel = process.channel
    process.repairer._failed.clear()
    assert process.repairer.repair() == (1, [])


class Answering(Lying):
    """To servers of which one answers completions wrongly."""

    def __init__(self, network, liar, lie):
        super().__init__(network, 0, None)
        self.by, self.lie = liar, lie

    def gather(self, requests, *, together=False, spare=False):
        if self.by in requests and isinstance(self.lie, MippError):
            raise self.lie
        replies = super().gather(requests)
        reply = replies.get(self.by)
        if isinstance(reply, pm.Completion) and self.lie in ("shape", "words"):
            words = reply.words.copy()
            words[0, 0] += 1
            replies[self.by] = pm.Completion(words if self.lie == "words" else words[:-1])
        elif self.by in replies and not isinstance(self.lie, str):
            replies[self.by] = self.lie
        return replies


def test_a_cloud_that_refuses_is_passed_over(world, network):
    """Whatever it says: its disk is full, it is busy, it knows no grant."""
    server = network.processes[2].server
    handlers = server._handlers
    for error in (BusyError("no"), StoreError("the disk is full"), LimitError("no")):

        def refuse(request, error=error):
            raise error

        real = {kind: handlers[kind] for kind in (m.Query, m.UploadOp, m.SnapshotRequest)}
        handlers = server._handlers = {**handlers, **dict.fromkeys(real, refuse)}
        for ranking in ("user", "server"):
            for _ in range(3):
                assert world.ulla.nearest(world.x[:1], 1, ranking=ranking).rows[0, 0] == 0
        world.ids += world.anna.add_vectors(world.x[30:32])
        handlers = server._handlers = {**handlers, **real}
        world.anna.away._until.clear()
        world.ulla.away._until.clear()


def test_a_liar_that_refuses_then_is_still_suspected(world, network):
    scheme = network.processes[1].server.scheme
    real, asked = type(scheme).answer.__get__(scheme), []

    def answer(header, *rest):
        asked.append(header.servers)
        if len(asked) > 1:
            raise BusyError("not now")
        words = real(header, *rest)
        words[0, 5] += words.dtype.type(1)
        return words

    scheme.answer = answer
    world.ulla.sets._turn = 0
    found = world.ulla.nearest(world.x[:1], 1, ranking="user")
    assert found.suspects == (1, 2, 3) and found.index.servers == (2, 3, 4)


def test_a_cloud_cancels_no_attempt_of_others(world, network):
    """Only a server of the query's set can refuse it."""
    centre = network.processes[3]._tables["rankings"]
    real = centre.have

    def have(key, server, ticket):
        centre.told(4, "refuse", [*key, "BusyError", "no"])
        real(key, server, ticket)
        with contextlib.suppress(MippError):
            centre.told(4, "refuse", [*key, "BusyError", "no"])

    centre.have = have
    world.ulla.sets.sets = ((1, 2, 3),)
    for _ in range(3):
        assert world.ulla.nearest(world.x[:1], 1, ranking="server").rows[0, 0] == 0


def test_quotas_after_a_restore_of_the_key_centre(world, network):
    uwe = world.create_user("uwe")
    world.anna.grant(uwe.id, rankings=["user"], quota=12)
    (grant,) = network.processes[3].server.granted(uwe.id)
    for _ in range(3):
        uwe.nearest(world.x[:1], 1, ranking="user")
    used = network.processes[3].server.store.used()
    told = [
        peers.peer_restored(network.processes[i].server, peers.restart(network.processes[3].server, 9))
        for i in (1, 2, 4)
    ]
    counts = [list(zip(h.used_owner, h.used_grant, h.used, strict=True)) for h in told]
    found = {(o, g): c for o, g, c in peers._by_all(network.processes[3].server, counts)}
    true = {(o, g): c for o, g, c in used}
    assert found[world.anna.id, grant] == true[world.anna.id, grant]


def test_an_owner_that_blocks_a_cloud_hides_no_rows_of_others(world, network, only_when_told):
    """The set that is preferred is the one with most rows of newest states."""
    evil = world.create_owner("evil")
    evil.grant(world.ulla.id, rankings=["server", "user"])
    evil.add_vectors(vectors(5, 3))
    network.stop(4)
    evil.add_vectors(vectors(1, 4))
    network.start(4).ready()  # behind with evil's rows, and with nothing else
    for path in (network.home(2) / "shares" / world.anna.id.hex()).glob("*"):
        path.write_bytes(path.read_bytes()[:-8])
    network.stop(2)
    network.start(2).ready()
    world.ulla.away._until.clear()
    for _ in range(3):
        found = world.ulla.nearest(world.x[:1], 1, ranking="user")
        assert found.index.total >= 35 and found.index.ids()[found.rows[0, 0]] == world.ids[0]
