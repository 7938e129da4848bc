"""Backups of a server that runs; a server that begins anew with its keys alone; lost files that come back."""

import contextlib
import shutil
import threading
import time

import pytest

from mipp.deployment.backups import back_up_server, replace_server, restore_server
from mipp.deployment.rotation import rotate_server
from mipp.deployment.serving import ServerProcess
from mipp.errors import AccessDeniedError, DeploymentError, MippError, StoreError
from tests.conftest import World, home, over_network, vectors
from tests.deployment.hosted import Plain
from tests.network import Network

pytestmark = pytest.mark.slow

QUERY = vectors(1, 99)[0]


@pytest.fixture
def net(tmp_path, encoding):
    network = Network(tmp_path / "network", encoding, settings="")
    yield network.start().ready()
    network.stop()


@pytest.fixture
def world(net):
    with net.connect() as deployment:
        yield World(deployment)


def put(net, server, make):
    """Replace a server's folder, while it is stopped, by what ``make`` makes under its name."""
    if server in net.processes:
        net.stop(server)
    old = net.home(server).rename(net.folder / f"old{server}")
    make(old, net.home(server))
    net.start(server).ready()
    return old


def whole(world, seconds=45):
    """Wait until every server has all files, and all agree: what one missed is passed on to it within 30 seconds."""
    until = time.monotonic() + seconds
    while (told := world.deployment.verify())["problems"]:
        assert time.monotonic() < until, (told, {i: s.store.summary(b"") for i, s in world.deployment.servers.items()})
        time.sleep(0.05)


def check(world):
    """Both rankings find every row that there should be, with the plaintext's scores."""
    plain = Plain(world.deployment.config.encoding)
    expected = plain.scores(QUERY, world.plain)
    for ranking in ("server", "user"):
        result = world.user.search(QUERY, len(expected), ranking=ranking)
        assert not result.left_out and [h.score for h in result.hits] == expected
    return result.hits


def add(world, count, seed):
    x = vectors(count, seed)
    world.plain |= dict(zip(world.owners[0].add_vectors(x), x, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("server", [1, pytest.param(2, marks=pytest.mark.nightly), 3])
def test_a_backup_of_a_running_server_is_of_one_moment(net, world, tmp_path, server):
    """Owners add, compact and forget meanwhile; what came later is taken over and rebuilt after a restore."""
    stop, target = threading.Event(), tmp_path / "backup"
    gone = world.deployment.create_owner("gone")
    gone.add_vectors(vectors(5, 7))

    def work():
        for seed in range(100, 200):
            if stop.is_set():
                return
            add(world, 2, seed)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        files, missing = back_up_server(net.home(server), target)
    finally:
        stop.set()
        thread.join()
    assert not missing and (files >= 7 if server < 3 else files == 0)
    gone.forget()
    put(net, server, lambda old, new: restore_server(target, new))
    whole(world)
    check(world)
    add(world, 2, 300)
    check(world)


@pytest.mark.slow
@pytest.mark.parametrize("server", [1, pytest.param(2, marks=pytest.mark.nightly), 3])
def test_what_comes_before_the_others_were_heard_hides_no_restore(net, world, tmp_path, server):
    """Grants and forgets that are passed on to a server that has just started count as if it had come as far."""
    back_up_server(net.home(server), tmp_path / "backup")
    add(world, 2, 100)
    net.stop(server)
    net.home(server).rename(net.folder / "old")
    restore_server(tmp_path / "backup", net.home(server))
    process = net.processes[server] = ServerProcess(net.home(server))
    catalog = process.server.store.catalog
    for _ in range(10):
        with catalog.transaction() as db:
            catalog.raise_counter(db)
    process.start()
    net.ready()
    whole(world)
    check(world)
    add(world, 2, 101)
    check(world)


@pytest.mark.slow
@pytest.mark.parametrize("server", [1, pytest.param(2, marks=pytest.mark.nightly), 3])
def test_a_server_begins_anew_with_its_keys(net, world, tmp_path, server):
    net.stop(server)
    back_up_server(net.home(server), tmp_path / "keys", keys_only=True)
    net.start(server).ready()
    quota = world.deployment.create_user("quota")
    world.owners[0].grant(quota.id, rankings=("user",), quota=3)
    quota.search(QUERY, 1, ranking="user", verify=False)
    refused = world.deployment.create_user("refused")
    world.owners[0].grant(refused.id)
    world.owners[0].revoke(refused.id)
    add(world, 3, 200)  # after the backup
    before = check(world)
    image = next(h for h in before if h.row < 15)
    put(net, server, lambda old, new: (shutil.rmtree(old), replace_server(tmp_path / "keys", new)))
    whole(world)
    assert [(h.id, h.score) for h in check(world)] == [(h.id, h.score) for h in before]
    assert world.user.fetch([image])[0].content
    with pytest.raises(AccessDeniedError):
        refused.search(QUERY, 1)
    quota.search(QUERY, 1, ranking="user", verify=False)
    with pytest.raises(AccessDeniedError):  # the first one is counted still
        for _ in range(2):
            quota.search(QUERY, 1, ranking="user", verify=False)
    add(world, 2, 201)
    check(world)
    (net.folder / "client" / "owners" / "anna.key").unlink()
    with pytest.raises(MippError, match="taken"):  # names are not free again
        world.deployment.create_owner("anna")


@pytest.mark.slow
def test_lost_files_come_back_by_themselves(net, world):
    """Nobody asks for it: files that went while the server was down, and a damaged one once a search met it."""
    net.stop(1)
    for path in (net.home(1) / "shares").glob("*/*"):
        path.unlink()
    net.start(1).ready()
    with contextlib.suppress(MippError):  # nothing is left to search until the first batch is back
        world.user.search(QUERY, 1, ranking="user")
    whole(world)
    check(world)


def test_what_a_backup_names_stays_until_it_is_linked(world, tmp_path, monkeypatch):
    store, owner = world.deployment.servers[1].store, world.owners[0]
    real = store.catalog.copy_to

    def copy_to(path):
        real(path)
        world.owners[1].forget()
        owner.delete([i for i in world.plain if i[0] == owner.batches()[0].id][:2])
        store.compact(owner.id)

    monkeypatch.setattr(store.catalog, "copy_to", copy_to)
    (tmp_path / "copy").mkdir()
    files, missing = store.back_up(tmp_path / "copy")
    assert files == 6 and not missing  # two batches and a pack of each owner
    assert (
        len(list((home(world.deployment, 1) / "shares").glob("*/*"))) == 2
    )  # what went meanwhile is removed when the backup is done
    assert not store.changes._due and not store.changes._holding


def test_wrong_use_makes_nothing(net, world, tmp_path):
    running = net.home(1)
    for target, make in (
        (tmp_path / "a", lambda t: restore_server(running, t)),
        (tmp_path / "b", lambda t: replace_server(running, t)),
        (running / "inside", lambda t: back_up_server(running, t)),
        (tmp_path / "c", lambda t: back_up_server(net.folder / "client", t)),
        (tmp_path / "d", lambda t: restore_server(tmp_path, t)),
    ):
        with pytest.raises(DeploymentError):
            make(target)
        assert not target.exists()
    back_up_server(running, tmp_path / "keys", keys_only=True)
    for make in (lambda t: back_up_server(running, t), lambda t: restore_server(tmp_path / "keys", t)):
        with pytest.raises(DeploymentError):
            make(tmp_path / "keys")
    with pytest.raises(DeploymentError, match="no store"):
        restore_server(tmp_path / "keys", tmp_path / "e")
    for path in (tmp_path / "keys").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert over_network(world.deployment) and not (tmp_path / "e").exists()


@pytest.mark.slow
@pytest.mark.nightly
def test_two_servers_that_began_anew_wait_for_the_third(net, world, tmp_path):
    """Else a used invitation would let somebody take a name, at two servers that forgot it."""
    used = net.invitation("owner", "gone")
    gone = world.deployment.create_owner("gone", invitation=used)
    gone.forget()
    (net.folder / "client" / "owners" / "gone.key").unlink()
    for server in (1, 2, 3):
        back_up_server(net.home(server), tmp_path / f"keys{server}", keys_only=True)
    net.stop()
    for server in (1, 3):
        net.home(server).rename(tmp_path / f"old{server}")
        replace_server(tmp_path / f"keys{server}", net.home(server))
    net.start(1, 3)
    time.sleep(2)
    assert not any(net.processes[s].server.ready or net.processes[s].server.voting for s in (1, 3))
    net.start(2).ready()
    whole(world)
    check(world)
    net.stop(2)  # and now the last that knew of the owner from its own time
    put(net, 2, lambda old, new: replace_server(tmp_path / "keys2", new))
    whole(world)
    with pytest.raises(AccessDeniedError, match="used"):
        world.deployment.create_owner("gone", invitation=used)
    check(world)


def test_a_restored_server_has_its_own_keys(net, tmp_path):
    for server in (1, 2):
        back_up_server(net.home(server), tmp_path / str(server))
    backup = tmp_path / "1"
    for name in ("identity.key", "server.key"):
        own = (backup / name).read_bytes()
        (backup / name).write_bytes((tmp_path / "2" / name).read_bytes())
        with pytest.raises(DeploymentError, match="not those that the description names"):
            restore_server(backup, tmp_path / "new")
        (backup / name).write_bytes(own)
    (backup / "server.toml").write_text("threads = -1\n")
    for make in (restore_server, replace_server):
        with pytest.raises(DeploymentError, match="threads"):
            make(backup, tmp_path / "new")
    (backup / "server.toml").write_text("")
    for folder in (backup, *(p for p in backup.rglob("*") if p.is_dir())):
        assert folder.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "new").exists() and restore_server(backup, tmp_path / "new") == []


def test_a_rotated_certificate_is_in_a_backup(net, world, tmp_path):
    rotate_server(net.home(1), new_certificate=True, finish=True)
    back_up_server(net.home(1), tmp_path / "keys", keys_only=True)
    assert (tmp_path / "keys" / "addresses.json").exists() and not (tmp_path / "keys" / "tls.key").exists()
    put(net, 1, lambda old, new: replace_server(tmp_path / "keys", new))
    whole(world)
    check(world)
    for path in (tmp_path / "keys").glob("tls*.key"):
        path.write_text("no key")
    for make in (restore_server, replace_server):
        with pytest.raises(DeploymentError):
            make(tmp_path / "keys", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_backup_ends_when_its_folder_goes(world, tmp_path):
    store, target = world.deployment.servers[1].store, tmp_path / "copy"
    target.mkdir()
    real = store.catalog.copy_to

    def copy_to(path):
        real(path)
        shutil.rmtree(target / "shares")

    store.catalog.copy_to = copy_to
    with pytest.raises(StoreError):
        store.back_up(target)
    assert not (target / "shares").exists() and not store.changes._holding
