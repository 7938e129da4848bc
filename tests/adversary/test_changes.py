"""Changes by hostile owners, racing processes and a lying server: one history for all; only their own is at stake."""

import contextlib
import dataclasses

import numpy as np
import pytest

from mipp.crypto import signing
from mipp.errors import AuthenticationError, ConflictError, MippError, NotFoundError, StoreError
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.channel import request
from mipp.rpc.wire import decode, encode, pack_frames, unpack_frames
from mipp.server.settling import settle
from tests.adversary.forge import SERVERS, Change
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]


@pytest.fixture
def mallory(world):
    made = world.deployment.create_owner("mallory")
    made.add_vectors(vectors(3, 20))
    made.grant(world.user.id, rankings=("user", "server"))  # nobody asked for it
    return made


def unharmed(world, mallory):
    """Searches over the others work in both rankings, with the grant that nobody asked for in place."""
    for ranking in ("user", "server"):
        result = world.user.search(QUERY, 60, ranking=ranking, owners=world.owners)
        assert len(result.hits) == 60 and not result.left_out
        everything = world.user.search(QUERY, 60, ranking=ranking)
        assert len(everything.hits) == 60
        assert {o.owner for o in everything.left_out} <= {mallory.id}
    assert all(i.error is None for i in world.user.fetch([(world.owners[0].batches()[0].id, row) for row in range(15)]))
    world.owners[1].add_vectors(vectors(1, 21))
    assert world.user.index(world.owners).total == 61


def test_different_uploads_at_different_servers(world, mallory):
    one, other = (Change(mallory, b"e" * 16, images=images) for images in (b"a" * 50, b"b" * 50))
    one.prepare([1, 3])
    other.prepare([2])
    votes = one.commit([1, 3]) + other.commit([2])
    assert all(decode(unpack_frames(v), m.VoteMessage).commit for v in votes)  # but not for the same
    for change in (one, other):
        assert change.certify(votes) == ["accepted"] * 3
    settle(world.deployment.operators)
    status = world.deployment.status()
    assert status["servers_agree"] and next(o for o in status["owners"] if o["name"] == "mallory")["rows"] == 3
    with pytest.raises(MippError):  # only its own chain has stopped
        mallory.add_vectors(vectors(1))
    unharmed(world, mallory)


def test_different_commits_at_different_servers(world, mallory):
    """Two changes for one place: each server takes one of them, so none gets a certificate, and both are undone."""
    one, other = Change(mallory, b"e" * 16), Change(mallory, b"f" * 16, rows=3)
    one.prepare()
    other.prepare()
    head = mallory.ask({1: m.HeadRequest(mallory.id)})[1]
    a, b = one.commit([1], head=head), other.commit([2, 3], head=head)
    assert all(decode(unpack_frames(v), m.VoteMessage).commit for v in a + b)
    refused = one.commit([2, 3], head=head) + other.commit([1], head=head)
    assert not any(decode(unpack_frames(v), m.VoteMessage).commit for v in refused)
    settle(world.deployment.operators)
    assert {
        s.store.changes.state(mallory.id, op) for s in world.deployment.servers.values() for op in (one.op, other.op)
    } == {"aborted"}
    mallory.add_vectors(vectors(1))
    unharmed(world, mallory)


def test_a_change_that_never_ends(world, mallory):
    """Accepted at one server, refused at the others: it is settled, and blocks nobody meanwhile."""
    change = Change(mallory, b"e" * 16)
    change.prepare()
    change.ask_certificate()
    mallory.ask_all(m.AbortOp(change.op), [1, 2])
    change.commit([3])
    unharmed(world, mallory)
    settle(world.deployment.operators)
    assert world.deployment.servers[3].store.changes.state(mallory.id, change.op) == "aborted"
    with pytest.raises(StoreError):
        change.prepare()
    mallory.add_vectors(vectors(1))


def test_commits_of_what_is_not_there(world, mallory):
    change = Change(mallory, b"e" * 16)
    for server in SERVERS:
        with pytest.raises(NotFoundError):
            change.commit([server])
    op = b"d" * 16
    first = mallory.batches()[0].id
    delete = m.DeleteOp(op, np.frombuffer(first, np.uint8)[None], np.array([0], "<i8"))
    mallory.ask_all(delete)
    mallory.ask_all(m.AbortOp(op))
    for server in SERVERS:
        vote = mallory.ask_all(change.commit_message(op=op, kind="delete"), [server])[server]
        assert vote.commit == b""
    assert mallory.batches()[0].live == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"position": 5}, {"position": 1}, {"position": 0}, {"position": 1 << 62}, {"parent": b"p" * 32},
        {"view": b"v" * 32}, {"kind": "merge"}, {"kind": "delete"}, {"contents": [b"c" * 32] * 3},
        {"shares": [b"c" * 32] * 3}, {"contents": []}, {"servers": [3]}, {"servers": [1, 2]}, {"servers": [1, 2, 4]},
        {"servers": [3, 2, 1]},
    ],
)  # fmt: skip
def test_commits_that_say_something_else(world, mallory, changes):
    change = Change(mallory, b"e" * 16)
    change.prepare()
    with pytest.raises(MippError):
        if not any(decode(unpack_frames(v), m.VoteMessage).commit for v in change.commit(**changes)):
            raise StoreError("refused for ever")
    assert world.deployment.status()["servers_agree"]
    unharmed(world, mallory)


def test_votes_are_signed_by_servers(world, mallory):
    change = Change(mallory, b"e" * 16)
    change.prepare()
    votes = change.commit([1, 2])
    good = decode(unpack_frames(votes[0]), m.VoteMessage)
    key = signing.private_key(b"m" * 32)
    forged = [
        dataclasses.replace(good, server=3),
        dataclasses.replace(good, server=3, signature=signing.sign_raw(key, b"x")),
        dataclasses.replace(good, commit=b""),
        dataclasses.replace(good, incarnation=7),
        dataclasses.replace(good, counter=1 << 40),
        dataclasses.replace(good, op=b"f" * 16),
        dataclasses.replace(good, owner=world.owners[0].id),
        dataclasses.replace(good, server=9),
    ]
    for vote in forged:
        for server in SERVERS:
            if (server, vote.op, vote.owner) == (vote.server, good.op, good.owner):
                # a server knows its own votes, and does not look at what others say of them
                with contextlib.suppress(ConflictError):
                    assert change.certify([*votes, pack_frames(encode(vote))], [server]) == ["accepted"]
                continue
            with pytest.raises(AuthenticationError):
                change.certify([*votes, pack_frames(encode(vote))], [server])
    # two of three are not enough, however often
    for server in (1, 2):
        assert change.certify(votes * 2, [server]) == ["accepted"]
    assert len(mallory.batches()) == 1
    assert set(change.certify(votes + change.commit([3]))) == {"committed"}


def test_only_the_owner_aborts_and_only_before_acceptance(world, mallory):
    anna = world.owners[0]
    change = Change(anna, b"e" * 16)
    change.prepare()
    for server in SERVERS:
        with pytest.raises(AuthenticationError, match="signed"):
            world.deployment.channel.gather({server: encode(m.AbortOp(change.op))})
    mallory.ask_all(m.AbortOp(change.op))
    votes = change.commit()
    with pytest.raises(ConflictError):
        anna.ask_all(m.AbortOp(change.op))
    assert set(change.certify(votes)) == {"committed"}


def test_a_delete_between_the_fetch_and_the_upload_of_a_merge(world):
    """The merge replaces the state that it was made from; deleted rows do not come back."""
    anna = world.owners[0]
    batch = anna.batches()[0].id
    best = world.user.search(world.plain[batch, 3], 1, ranking="user").hits[0]
    assert (best.batch, best.row) == (batch, 3)
    real, done = anna._upload, []

    def upload(rows, **options):
        if not done:
            done.append(True)
            anna.delete([(batch, 3)])
        return real(rows, **options)

    anna._upload = upload
    anna.compact()
    assert sum(b.live for b in anna.batches()) == 29 and len(anna.batches()) == 1
    hits = world.user.search(world.plain[batch, 3], 59, ranking="user").hits
    assert len(hits) == 59 and hits[0].score < best.score
    # by hand, with the new state's head but the old rows' numbers
    change = Change(anna, b"m" * 16, replaces=[anna.batches()[0].id])
    old = anna.ask({1: m.HeadRequest(anna.id)})[1]
    change.prepare()
    anna.delete([(anna.batches()[0].id, 0)])
    votes = change.commit(head=old)
    assert not any(decode(unpack_frames(v), m.VoteMessage).commit for v in votes)
    assert sum(b.live for b in anna.batches()) == 28


def test_two_processes_sign_the_same_version_of_a_grant(world):
    """Servers that meet them in different orders end with the same one."""
    anna, user = world.owners[0], world.user
    epoch, version = anna._next_version(user.id)
    one = m.Grant(anna.id, user.id, epoch, version, 0, ["server"], 3, True, 0, 0, False)
    other = dataclasses.replace(one, max_k=7)
    for order, server in (((one, other), 1), ((other, one), 2), ((one, other), 3)):
        for grant in order:
            try:
                anna.ask_all(grant, [server])
            except MippError as error:
                assert "too old" in str(error)
    stores = [s.store for s in world.deployment.servers.values()]
    assert len({s.grants(owner=anna.id)[0][0] for s in stores}) == 1
    # a revocation of the same version wins, in whichever order
    revoked = m.Grant(anna.id, user.id, epoch, version, 0, [], 0, False, 0, 0, True)
    anna.ask_all(revoked)
    for grant in (one, other):
        with pytest.raises(MippError, match="too old"):
            anna.ask_all(grant)
    assert {h.owner for h in user.search(QUERY, 30).hits} == {world.owners[1].id}


def test_messages_between_servers_do_not_reach_owners_and_users(world):
    for msg in (
        pm.SettleRequest(), pm.PassedOn(b""), pm.PeerRequest(), pm.PeerRestored(1, 99, b"s" * 64),
        pm.StatusRequest(b""), pm.VerifyRequest(), pm.KeysRequest(world.user.id),
    ):  # fmt: skip
        for server in SERVERS:
            with pytest.raises(AuthenticationError, match="signed"):
                world.deployment.channel.gather({server: encode(msg)})
            for party in (world.owners[0], world.user):
                with pytest.raises(MippError):
                    party.ask({server: msg})


def test_what_servers_pass_on_is_checked(world, mallory):
    """A server that lies to another can pass on signed messages only, and old ones change nothing."""
    anna, user = world.owners[0], world.user
    grant = world.deployment.servers[1].store.grants(owner=anna.id)[0][1]
    anna.revoke(user.id)
    forget = anna.sign(m.ForgetOwner(anna.id, b"other nonce 16by"))
    query = user.sign(m.SnapshotRequest([], b"", False), 2)
    bad = decode(mallory.sign(m.AbortOp(b"a" * 16)), m.Signed)
    stolen = encode(dataclasses.replace(bad, signer=anna.id))
    for frames in (grant, pack_frames(forget), pack_frames(query), pack_frames(stolen)):
        with pytest.raises(MippError):
            request(world.deployment.operators, 2, pm.PassedOn(frames))
    assert {h.owner for h in user.search(QUERY, 30).hits} >= {world.owners[1].id}
    assert anna.id not in {h.owner for h in user.search(QUERY, 30).hits}
