"""One server lies to the others about restores and states: it proves what it says, or it is not believed."""

import dataclasses

import numpy as np
import pytest

import mipp.server.peers as peering
from mipp.crypto import signing
from mipp.errors import AuthenticationError, MippError, ParameterError
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.chain import restart_bytes
from mipp.rpc.channel import request
from mipp.rpc.wire import decode, encode, pack_frames, unpack_frames
from tests.conftest import answer, over_network, reopened, shut, vectors

QUERY = vectors(1, 7)[0]


def test_only_a_server_itself_says_that_it_was_restored(world):
    """Else one message would void all votes of another server, and stop every owner."""
    anna = world.owners[0]
    key = signing.private_key(b"x" * 32)
    for incarnation in (1, 1 << 61, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -1, 0):
        try:
            forged = signing.sign_raw(key, restart_bytes(world.deployment.config.id, 1, incarnation))
        except OverflowError:
            forged = b"f" * 64
        for signature in (b"", b"s" * 64, forged):
            with pytest.raises((AuthenticationError, ParameterError)):
                request(world.deployment.operators, 3, pm.PeerRestored(1, incarnation, signature))
    # its own word for another one
    own = world.deployment.servers[2].sign(restart_bytes(world.deployment.config.id, 1, 5))
    with pytest.raises(AuthenticationError):
        request(world.deployment.operators, 3, pm.PeerRestored(1, 5, own))
    anna.add_vectors(vectors(2, 50))
    assert world.deployment.servers[3].store.changes.peers()[1][0] <= 1  # over a network each start begins a new one


def test_a_server_that_invents_what_others_did(world, monkeypatch):
    """It says that the other two were restored, and hands over histories without the deletions."""
    anna = world.owners[0]
    gone = (anna.batches()[0].id, 3)
    anna.delete([gone])
    shut(world.deployment)
    real = dict(peering.HANDLERS)

    def state(server, msg):
        told = real[pm.PeerRequest](server, msg)
        if server.index != 2:
            return told
        vote = m.VoteMessage(anna.id, b"o" * 16, 1, 0, 1 << 60, b"c" * 32, server.sign(b"anything"))
        restart = pm.PeerRestored(3, 1 << 60, server.sign(b"anything"))
        return dataclasses.replace(told, proofs=[pack_frames(encode(x)) for x in (vote, restart)])

    def restored(server, msg):
        told = real[pm.PeerRestored](server, msg)
        if server.index != 2:
            return told
        chains = [decode(unpack_frames(packed), pm.ChainState) for packed in told.chains]
        bare = [dataclasses.replace(c, dead=[b""] * len(c.dead)) for c in chains]
        return dataclasses.replace(told, chains=[pack_frames(encode(c)) for c in bare])

    monkeypatch.setitem(peering.HANDLERS, pm.PeerRequest, state)
    monkeypatch.setitem(peering.HANDLERS, pm.PeerRestored, restored)
    with reopened(world.deployment) as deployment:
        assert deployment.notes == []
        for server in deployment.servers.values():
            assert server.store.catalog.counter("incarnation") <= 2  # over a network each start begins a new one
        user = deployment.user("ulla")
        assert user.index().total == 59 and gone not in user.index().ids()


def test_a_restored_server_keeps_the_deletions_that_it_knows(world, monkeypatch, tmp_path, caplog):
    """Whatever peers hand over; and two peers that say different things are not believed at all."""
    import shutil

    anna = world.owners[0]
    gone = (anna.batches()[0].id, 3)
    anna.delete([gone])
    shut(world.deployment)
    folder = world.home(1)
    shutil.copytree(folder, tmp_path / "backup")
    with reopened(world.deployment) as deployment:
        deployment.owner("anna").add_vectors(vectors(2, 60))
        shut(deployment)
    shutil.rmtree(folder)
    (tmp_path / "backup").rename(folder)
    real, liars = dict(peering.HANDLERS), [2]

    def restored(server, msg):
        told = real[pm.PeerRestored](server, msg)
        if server.index not in liars:
            return told
        chains = [decode(unpack_frames(packed), pm.ChainState) for packed in told.chains]
        bare = [dataclasses.replace(c, dead=[b""] * len(c.dead)) for c in chains]
        return dataclasses.replace(told, chains=[pack_frames(encode(c)) for c in bare])

    monkeypatch.setitem(peering.HANDLERS, pm.PeerRestored, restored)
    if over_network(world.deployment):  # it goes on asking, and answers nobody
        network = world.deployment.network.start()
        with pytest.raises(AssertionError, match="waits for all other servers"):
            network.ready(2)
        assert not network.processes[1].server.ready and "different histories" in caplog.text
        network.stop()
    else:
        with pytest.raises(MippError, match="different histories"):
            reopened(world.deployment)
    liars.append(3)
    with reopened(world.deployment) as deployment:
        store = deployment.servers[1].store
        assert 3 in store.batch(anna.id, gone[0])[1] and store.catalog.counter("incarnation")
        assert deployment.notes or over_network(deployment)


def test_texts_of_other_parties_are_plain(world):
    """No control or direction characters of a hostile server reach a terminal."""
    server = world.deployment.servers[1]
    real = server.handle
    evil = "\x1b[2J\x1b]0;owned\x07\u202e../../etc\n" + "x" * 5000
    answer(world.deployment, 1, lambda frames: encode(m.Failure("StoreError", evil)))
    with pytest.raises(MippError) as caught:
        world.user.index()
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 500

    def snapshot(frames):
        reply = decode(real(frames))
        if not isinstance(reply, m.Snapshot) or reply.unchanged:
            return encode(reply)
        owners = [decode(unpack_frames(o), m.OwnerSnapshot) for o in reply.owners]
        owners = [dataclasses.replace(o, damaged=[o.batches[0].tobytes()], reasons=[evil]) for o in owners]
        return encode(dataclasses.replace(reply, owners=[pack_frames(encode(o)) for o in owners]))

    answer(world.deployment, 1, snapshot)
    world.user._known.clear()
    left_out = world.user.search(QUERY, 5).left_out
    assert len(left_out) == 2 and all(str(o).isprintable() for o in left_out)


def test_a_small_message_that_unpacks_to_much(world):
    """Nobody's 8 MB of nested lists are unpacked: the first frame is bounded before, and signatures come first."""
    import tracemalloc

    bomb = b"MIPP\x01" + b"\x92" + b"\xa6Signed" + b"\xdd" + (8 << 20).to_bytes(4, "big") + b"\x90" * (8 << 20)
    inner = b"MIPP\x01" + b"\x92" + b"\xa7Certify" + b"\xdd" + (7 << 20).to_bytes(4, "big") + b"\x90" * (7 << 20)
    signed = decode(world.owners[0].sign(m.HeadRequest(world.owners[0].id), 1), m.Signed)
    forged = encode(dataclasses.replace(signed, frames=[np.frombuffer(inner, np.uint8)]))
    for frames in ([bomb], forged):
        tracemalloc.start()
        assert isinstance(decode(world.deployment.servers[1].handle(frames)), m.Failure)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40 << 20
