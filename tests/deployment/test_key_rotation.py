"""New box and pair keys of real servers, epoch by epoch, while owners, users and peers go on."""

import dataclasses
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from mipp.cli.main import cli
from mipp.crypto import box
from mipp.deployment import checks
from mipp.deployment.backups import back_up_server, replace_server
from mipp.deployment.rotation import rotate_server
from mipp.deployment.servers import CARD_NAME, CONFIG_NAME, IDENTITY_NAME, key_files, key_pairs, public_pair
from mipp.errors import DeploymentError, IntegrityError, MippError, ParameterError, StaleKeysError
from mipp.rpc import peer_messages as pm
from mipp.rpc.associated_data import owner_seal_info
from mipp.rpc.key_sets import KeySet
from mipp.rpc.wire import decode, encode, unpack_frames
from mipp.server.sealing import reseal
from tests.deployment.test_rotation import Work, all_know, book, connected, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


def server_of(network, server):
    return network.processes[server].server


def in_use(network, server, epoch):
    """Wait until a server uses its keys of an epoch, and the others count with them."""
    until(lambda: server_of(network, server).keys.epoch == epoch)
    until(lambda: len({p.server.keys.current for p in network.processes.values()}) == 1)


def seals(network, server):
    """Which (owner, server) a server has sealed secrets of, with the epoch."""
    found = [decode(unpack_frames(f), pm.Resealed) for f in server_of(network, server).store.seals.frames()]
    return {(s.owner, s.server): s.epoch for s in found}


def ranked_too(work):
    """Searches that the user ranks, that the servers rank, and of a threshold."""
    work.again()
    work.anna.grant(work.ulla.id, rankings=["server", "user", "threshold"])
    query = next(iter(work.rows.values()))
    one = work.ulla.search(query, 3, ranking="user")
    two = work.ulla.search(query, 3, ranking="server")
    assert [h.row for h in one.hits] == [h.row for h in two.hits]
    assert len(work.ulla.range_search(query, one.hits[-1].value)) >= 3


def test_each_server_in_turn(network):
    """New keys at each server while an owner and a user work, and the end of the earlier ones."""
    network.start().ready()
    shutil.copytree(network.folder / "client", network.folder / "before")
    fingerprint = network.config.fingerprint
    with network.connect():
        work = Work(network)
        ranked_too(work)
        for server in network.names:
            done = rotate_server(network.home(server), new_keys=True)
            assert (done.server, done.version, done.epochs, done.lost) == (server, 1, (1, 0), [])
            work.again()  # with either keys
            in_use(network, server, 1)
            ranked_too(work)
            assert work.client.channel.book.key_set().servers[server].epoch == 1
        until(lambda: all(len(seals(network, i)) == 3 for i in network.names))
        for server in network.names:
            done = rotate_server(network.home(server), finish=True)
            assert (done.epochs, done.lost) == ((1,), [])
            assert [p.name for p in key_files(network.home(server))] == ["server-1.key"]
            problems, facts = checks.check_server(network.home(server))
            assert not [p for p in problems if "free" not in p] and "box and pair keys of epoch 1" in facts
        all_know(network, {1: 2, 2: 2, 3: 2})
        with pytest.raises(ParameterError, match="nothing is to be done"):
            rotate_server(network.home(1), finish=True)
        ranked_too(work)
        assert work.client.config.fingerprint == fingerprint
        image = work.anna.add_vectors(np.eye(8, network.config.encoding.dim)[:1], [("a.png", b"abc")])[0]
        hit = next(h for h in work.ulla.search(np.eye(8, network.config.encoding.dim)[0], 1).hits)
        assert (hit.batch, hit.row) == image and work.ulla.fetch([hit])[0].content == b"abc"
    # restarted: each has the secrets that it sealed again, and its newest keys alone
    network.stop()
    network.start().ready()
    work.again()
    # a client that was away all the time seals its secrets to keys that are gone, and asks with them, once
    with type(work.client).open(network.folder / "before") as late:
        late.network = network
        uwe = late.create_user("uwe")
        bert = late.create_owner("bert")
        rows = bert.add_vectors(np.eye(8, network.config.encoding.dim))
        bert.grant(uwe.id)
        assert len(uwe.search(np.ones(network.config.encoding.dim), 3).hits) == 3 and len(rows) == 8


def test_a_query_names_keys_that_end_or_are_not_known(network):
    """Servers refuse other key sets by a typed error; an ended epoch counts no more."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        first, real = KeySet.first(network.config), work.ulla.key_set
        rotate_server(network.home(2), new_keys=True, finish=True)
        in_use(network, 2, 1)
        for index in network.names:
            ring = server_of(network, index).keys
            with pytest.raises(StaleKeysError):
                ring.pair_keys(b"x" * 32)
            with pytest.raises(StaleKeysError):
                ring.pair_keys(first.id)
            assert set(ring.pair_keys(ring.current)) == set(network.names) - {index}
        work.ulla.key_set = lambda: first
        with pytest.raises(StaleKeysError, match="keys changed"):
            work.ulla._querier._sent(
                work.ulla.index(), np.ones((1, network.config.encoding.encoded_dim), int), 1, "user"
            )
        work.ulla.key_set = real
        ranked_too(work)
        keys = {i: server_of(network, i).keys for i in network.names}
        for i, ring in keys.items():  # both of a pair have the same
            for j, key in ring.pair_keys(ring.current).items():
                assert keys[j].pair_keys(ring.current)[i] == key and len(key) == 32


def test_repair_and_tests_of_rows_with_new_keys(network):
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        rotate_server(network.home(1), new_keys=True)
        rotate_server(network.home(3), new_keys=True, finish=True)
        in_use(network, 1, 1), in_use(network, 3, 1)
        work.again()
        store = server_of(network, 2).store
        paths = list((store.folder / "shares").glob("*/*"))
        before = {p: p.read_bytes() for p in paths}
        for path in paths:
            path.unlink()
        assert network.processes[2].repairer.repair() == (len(paths), [])
        assert {p: p.read_bytes() for p in (store.folder / "shares").glob("*/*")} != {} and len(before) == len(paths)
        ranked_too(work)


@pytest.mark.parametrize("server", [pytest.param(1, marks=pytest.mark.nightly), 3])
def test_a_disk_is_lost_after_the_keys_changed(network, tmp_path, server):
    """A new machine with the newest keys alone finds again what the lost server had sealed to them."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        rotate_server(network.home(server), new_keys=True)
        in_use(network, server, 1)
        until(lambda: all((work.anna.id, server) in seals(network, i) for i in network.names))
        rotate_server(network.home(server), finish=True)
        all_know(network, {i: 2 * (i == server) for i in network.names})
        back_up_server(network.home(server), tmp_path / "keys", keys_only=True)
        network.stop(server)
        shutil.rmtree(network.home(server))
        assert replace_server(tmp_path / "keys", network.home(server)) == server
        network.start(server).ready()
        connected(network)
        network.processes[server].repairer.repair()
        ranked_too(work)


def test_lost_keys_and_owners_that_seal_anew(network):
    """The identity alone is left: new keys at once, and each owner seals its secrets to them."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        home = network.home(3)
        network.stop(3)
        for path in key_files(home):
            path.unlink()
        with pytest.raises(DeploymentError, match=r"are not in|not those"):
            network.start(3)
        done = rotate_server(home, new_keys=True, finish=True)
        assert (done.epochs, done.lost) == ((1,), ["anna"])
        network.start(3).ready()
        in_use(network, 3, 1)
        connected(network)
        assert reseal(server_of(network, 3)) == ["anna"]
        with pytest.raises(IntegrityError, match="its owner seals them anew"):
            server_of(network, 3).owner_secret(work.anna.id)
        with pytest.raises((IntegrityError, ParameterError), match="seals them anew"):
            work.ulla.search(next(iter(work.rows.values())), 3)
        folder = str(network.folder / "client")
        done = CliRunner().invoke(cli, ["owner", "reseal", "anna", "--deployment", folder])
        assert done.exit_code == 0 and "newest keys (epochs 0, 0, 1)" in done.output
        assert reseal(server_of(network, 3)) == []
        ranked_too(work)
        # all servers keep the newest registration, so that it is found again
        frames = [server_of(network, i).store.registrations() for i in network.names]
        assert frames[0] == frames[1] == frames[2]


def test_a_rotation_that_dies_leaves_what_was_valid(network, monkeypatch):
    network.start().ready()
    home = network.home(1)

    def dies(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mipp.rpc.address_book.AddressBook.take", dies)
    with pytest.raises(KeyboardInterrupt):
        rotate_server(home, new_keys=True)
    monkeypatch.undo()
    assert len(key_pairs(home)) == 2  # one that nobody heard of
    with network.connect():
        Work(network).again()
        assert server_of(network, 1).keys.epoch == 0
        done = rotate_server(home, new_keys=True)
        assert done.epochs == (1, 0) and len(key_pairs(home)) == 2
        in_use(network, 1, 1)
        names = {public_pair(pair) for pair in key_pairs(home).values()}
        assert names == {keys[1:] for keys in book(network, 1).keys(1)}


def test_what_servers_seal_again_is_checked(network):
    """A server keeps what another one signed for itself, of owners that it knows, the later epoch first."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        rotate_server(network.home(2), new_keys=True)
        in_use(network, 2, 1)
        until(lambda: (work.anna.id, 2) in seals(network, 1))
        (frames,) = server_of(network, 1).store.seals.frames()
        good = decode(unpack_frames(frames), pm.Resealed)
        one = server_of(network, 1)
        forged = box.seal(network.config.servers[2].box, bytes(32), owner_seal_info(network.config.id, good.owner, 2))
        changes = [
            {"epoch": 2}, {"epoch": 1 << 63}, {"key": bytes(32)}, {"key": b""}, {"sealed": forged}, {"server": 9},
            {"sealed": bytes(257)}, {"server": 1}, {"owner": bytes(16)}, {"owner": b""}, {"signature": b""},
        ]  # fmt: skip
        bad = [dataclasses.replace(good, **changed) for changed in changes]
        for msg in bad:
            with pytest.raises(MippError):
                one._operated(encode(msg), peer=2)
        one._operated(encode(good), peer=2)
        assert one.store.seals.frames() == [frames]
        work.anna.forget()
        until(lambda: not any(server_of(network, i).store.seals.frames() for i in network.names))
        one._operated(encode(good), peer=2)  # an echo of before brings nothing back
        assert not one.store.seals.frames()


@pytest.mark.parametrize("server", [1, 3])
def test_a_server_of_which_the_identity_is_left(network, tmp_path, server):
    """With its identity, card and the description a server begins anew; owners seal their secrets to its new keys."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        network.stop(server)
        keys = tmp_path / "keys"
        keys.mkdir(mode=0o700)
        for name in (IDENTITY_NAME, CARD_NAME, CONFIG_NAME):
            shutil.copy2(network.home(server) / name, keys)
        shutil.rmtree(network.home(server))
        with pytest.raises(DeploymentError, match="--new-keys --finish"):
            replace_server(keys, network.home(server))
        rotate_server(keys, new_keys=True, new_certificate=True, finish=True)
        assert replace_server(keys, network.home(server)) == server
        network.start(server).ready()
        connected(network)
        in_use(network, server, 1)
        work.anna.register()
        assert network.processes[server].repairer.repair()[1] == []
        ranked_too(work)
