"""Hostile servers and owners, and unlucky moments, while servers change their box and pair keys."""

import contextlib
import shutil
import time

import pytest

from mipp.crypto import box, signing
from mipp.deployment import rotation
from mipp.deployment.backups import back_up_server, replace_server, restore_server
from mipp.deployment.rotation import rotate_server
from mipp.deployment.servers import key_files, save_pair
from mipp.deployment.serving import ServerProcess
from mipp.errors import AccessDeniedError, AuthenticationError, RegistrationError, StaleKeysError, StoreError
from mipp.rpc import address_exchange
from mipp.rpc import messages as m
from mipp.rpc.address_updates import signed_update
from mipp.rpc.associated_data import owner_seal_info, owner_secret_commitment
from mipp.rpc.wire import pack_frames
from mipp.server import sealing
from tests.conftest import vectors
from tests.deployment.test_key_rotation import in_use, ranked_too, seals, server_of
from tests.deployment.test_rotation import Work, all_know, book, connected, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


@pytest.fixture
def work(network):
    network.start().ready()
    with network.connect():
        made = Work(network)
        made.again()
        yield made


def registration(owner, *, secrets=None, commitments=None, keys=None):
    """A registration of an owner's, with other secrets (by server), commitments or keys than its own program takes."""
    key_part, cloud_part = owner.image_parts()
    sealed, committed = [], []
    for server, known in sorted((keys or owner.key_set().servers).items()):
        secret = owner.keys.server_key(server) + key_part if server == 3 else cloud_part
        committed.append(owner_secret_commitment(owner.config.id, owner.id, server, secret))
        secret = (secrets or {}).get(server, secret)
        sealed.append(box.seal(known.box, secret, owner_seal_info(owner.config.id, owner.id, server)))
    public = signing.sign_public(owner._seed)
    return m.RegisterOwner(
        owner.name, public, owner.keys.registration, sealed, owner._invitation,
        committed if commitments is None else commitments,
    )  # fmt: skip


def test_an_owner_never_changes_its_secrets(work):
    """Else its rows would be others than those that the servers tested, and searches of all owners would fail."""
    anna, other = work.anna, bytes(64)
    committed = registration(anna).commitments
    changed = owner_secret_commitment(anna.config.id, anna.id, 3, other)
    for msg, error in (
        (registration(anna, secrets={3: other}), AuthenticationError),
        (registration(anna, secrets={3: other}, commitments=[*committed[:2], changed]), AccessDeniedError),
        (registration(anna, secrets={3: other}, commitments=[]), AccessDeniedError),
    ):
        with pytest.raises(error):
            anna.register_with_all(msg)
        for server in (1, 2, 3):  # and by way of another server
            with contextlib.suppress(AccessDeniedError):
                server_of(work.client.network, server).pass_on(pack_frames(anna.sign(msg)))
    for server in work.client.network.names:
        held = server_of(work.client.network, server)
        held.drop_secret(anna.id)
        secret = held.owner_secret(anna.id)
        assert owner_secret_commitment(anna.config.id, anna.id, server, secret) == held.commitment(anna.id)
    work.anna.delete([next(iter(work.rows))])  # key schedules are made anew
    del work.rows[next(iter(work.rows))]
    ranked_too(work)


def test_what_does_not_open_replaces_nothing(work):
    """Registrations that another server passes on are kept, and what opens stays in use."""
    network, anna = work.client.network, work.anna
    before = dict(anna.key_set().servers)
    rotate_server(network.home(3), new_keys=True, finish=True)
    in_use(network, 3, 1)
    old = registration(anna, keys=before)
    with pytest.raises((StaleKeysError, RegistrationError)):
        anna.register_with_all(old)
    for server in network.names:
        server_of(network, server).pass_on(pack_frames(anna.sign(old)))
        server_of(network, server).drop_secret(anna.id)
        assert server_of(network, server).owner_secret(anna.id)
    until(lambda: all((anna.id, 3) in seals(network, i) for i in network.names))
    ranked_too(work)


def test_an_owner_of_garbage_is_left_out_alone(network, work):
    """One whose secrets one server cannot open, by way of the others: its rows are left out, with the reason."""
    eve = work.client.create_owner("eve")
    eve.add_vectors(vectors(5, 7))
    eve.grant(work.ulla.id)
    held = server_of(network, 3)
    with held.store.catalog.transaction() as db:
        db.execute("UPDATE owners SET sealed=? WHERE id=?", (b"x" * 96, eve.id))
    held.drop_secret(eve.id)
    result = work.ulla.search(next(iter(work.rows.values())), 3)
    assert len(result.hits) == 3 and {one.owner_name for one in result.left_out} == {"eve"}
    eve.register()
    assert not work.ulla.search(next(iter(work.rows.values())), 3).left_out


def test_keys_of_others_block_nobody(network, work):
    """A server that names another's new keys as its own keeps no other server from taking that one's update."""
    rotate_server(network.home(2), new_keys=True, new_certificate=True)
    in_use(network, 2, 1)
    theirs, tls = book(network, 2).keys(2), book(network, 1).certificates(1)
    proofs = rotation._proof(network.home(1), network.config, 1, tls[0], None, None)
    key = signing.private_key(rotation.load_identity(network.home(1)))
    stolen = signed_update(network.config, 1, 1, book(network, 1).address(1).url, [(tls[0], proofs)], key, theirs[:1])
    assert book(network, 3).take([stolen]).changed == {1}
    rotate_server(network.home(2), new_keys=True)
    until(lambda: book(network, 3).version(2) == 2)


def test_registration_while_keys_end(network, work, monkeypatch):
    """An owner that knows the earlier keys registers at the moment when they end: nothing is lost, or it is told."""
    shutil.copytree(network.folder / "client", network.folder / "before")
    rotate_server(network.home(3), new_keys=True)
    in_use(network, 3, 1)
    with type(work.client).open(network.folder / "before") as late:
        late.network, made, real = network, [], rotation._sealed_anew

        def between(*args):
            lost = real(*args)
            if not made:
                made.append(late.create_owner("bert"))
            return lost

        monkeypatch.setattr(rotation, "_sealed_anew", between)
        assert rotate_server(network.home(3), finish=True).lost == []
        (bert,) = made
        bert.add_vectors(vectors(5, 9))
        bert.grant(work.ulla.id)
        network.stop(3)
        network.start(3).ready()
        connected(network)
        assert not work.ulla.search(next(iter(work.rows.values())), 3).left_out


def test_the_end_at_once_leaves_nothing(network, work):
    """After a theft: the earlier keys are gone from the folder, from memory, and open nothing new."""
    before = dict(work.anna.key_set().servers)
    assert rotate_server(network.home(3), new_keys=True, finish=True).epochs == (1,)
    assert [p.name for p in key_files(network.home(3))] == ["server-1.key"]
    assert len(server_of(network, 3).keys._boxes) == 1
    with pytest.raises(StaleKeysError):
        server_of(network, 3).keys.pair_keys(b"")
    with pytest.raises((StaleKeysError, RegistrationError)):
        work.anna.register_with_all(registration(work.anna, keys=before))
    ranked_too(work)


@pytest.mark.parametrize("way", ["restored", "replaced"])
@pytest.mark.parametrize("server", [1, 3])
def test_a_backup_from_before_the_keys_changed(network, work, tmp_path, monkeypatch, way, server):
    """Owners that registered since are not lost: the server waits for new keys before it catches up."""
    take, taken = ServerProcess._take_keys, set()

    def take_slowly(running):
        if running in taken:  # it heard of new keys since its start, and may use them only a while later
            time.sleep(1.5)
        taken.add(running)
        take(running)

    monkeypatch.setattr(ServerProcess, "_take_keys", take_slowly)
    back_up_server(network.home(server), tmp_path / "backup")
    rotate_server(network.home(server), new_keys=True, finish=True)
    in_use(network, server, 1)
    bert = work.client.create_owner("bert")
    bert.add_vectors(vectors(5, 9))
    bert.grant(work.ulla.id)
    network.stop(server)
    shutil.rmtree(network.home(server))
    (restore_server if way == "restored" else replace_server)(tmp_path / "backup", network.home(server))
    network.start(server)
    until(lambda: "are not in its folder" in " ".join(network.processes[server].reasons()))
    assert not server_of(network, server).voting
    rotate_server(network.home(server), new_keys=True, finish=True)
    network.ready(20)
    connected(network)
    for owner in (work.anna, bert):
        owner.register()
    network.processes[server].repairer.repair()
    bert.add_vectors(vectors(5, 10))
    heads = {i: server_of(network, i).store.view(bert.id).hash for i in network.names}
    assert len(set(heads.values())) == 1
    assert not work.ulla.search(next(iter(work.rows.values())), 3).left_out
    assert {h.owner_name for h in work.ulla.search(vectors(5, 9)[0], 1).hits} == {"bert"}


def test_an_epoch_that_is_used_twice(network, work):
    """Entries for keys of the same epoch that are gone do not win over those that open."""
    network.stop(3)
    home = network.home(3)
    shutil.copytree(home, network.folder / "aside")
    rotate_server(home, new_keys=True, finish=True)
    network.start(3).ready()
    in_use(network, 3, 1)
    until(lambda: all((work.anna.id, 3) in seals(network, i) for i in network.names))
    network.stop(3)
    shutil.rmtree(home)
    shutil.copytree(network.folder / "aside", home)
    rotate_server(home, new_keys=True, finish=True)  # before it could hear that it had done so
    network.start(3)
    until(lambda: server_of(network, 3).keys.problem or network.processes[3].transport.heard(1))
    rotate_server(home, new_keys=True, finish=True)
    network.ready(20)
    connected(network)
    all_know(network, {1: 0, 2: 0, 3: 2})
    server_of(network, 3).drop_secret(work.anna.id)
    assert server_of(network, 3).owner_secret(work.anna.id)
    ranked_too(work)


def test_clocks_of_owners(network, work, monkeypatch):
    """A registration of an earlier time, by a clock that is wrong, still seals secrets anew."""
    network.stop(3)
    for path in key_files(network.home(3)):
        path.unlink()
    assert rotate_server(network.home(3), new_keys=True, finish=True).lost == ["anna"]
    network.start(3).ready()
    connected(network)
    address_exchange.exchange(work.client.channel.book, 3)
    monkeypatch.setattr("mipp.client.client.time.time", lambda: 1_000_000_000.0)
    work.anna.register_with_all(registration(work.anna))
    monkeypatch.undo()
    assert server_of(network, 3).owner_secret(work.anna.id)
    ranked_too(work)


def test_an_owner_gives_up(work, monkeypatch):
    """A server that changes its keys again at each refusal holds no owner for ever."""
    asked = []

    def refuse(msg):
        asked.append(msg)
        real = work.anna.key_set()
        work.anna.key_set = lambda: of_another_epoch(real, len(asked))
        raise StaleKeysError("no")

    monkeypatch.setattr(work.anna, "register_with_all", refuse)
    with pytest.raises(StaleKeysError):
        work.anna.register()
    assert len(asked) == 3


def of_another_epoch(key_set, number):
    servers = {**key_set.servers, 1: key_set.servers[1]._replace(epoch=number)}
    return type(key_set)(key_set.deployment, servers)


def test_sealing_that_fails_is_done_later(network, work, monkeypatch):
    """A full disk while a server seals again: its operator is told, and it goes on by itself."""
    real, fails = sealing.reseal_one, [True]

    def full(server, owner):
        if fails:
            raise StoreError("no room")
        return real(server, owner)

    monkeypatch.setattr(sealing, "reseal_one", full)
    with pytest.raises(StoreError, match="no room"):
        rotate_server(network.home(3), new_keys=True)
    assert (work.anna.id, 3) not in seals(network, 3)
    fails.clear()
    until(lambda: (work.anna.id, 3) in seals(network, 3))
    assert rotate_server(network.home(3), finish=True).lost == []


def test_other_key_files_are_left_alone(network):
    (network.home(3) / "server.example.org.key").write_text("an operator's own")
    save_pair(network.home(3), 7, (bytes(range(32)), bytes(range(1, 33))))
    network.start().ready()
    rotate_server(network.home(3), new_keys=True, finish=True)
    assert sorted(p.name for p in key_files(network.home(3))) == ["server-1.key"]
    assert (network.home(3) / "server.example.org.key").exists()
