"""Several processes over one deployment: what one forgot, the others drop; what is noted, a restore shows."""

import sqlite3

import pytest

from mipp.errors import AccessDeniedError, MippError, NotFoundError
from mipp.server.settling import settle
from tests.conftest import again, over_network, vectors

QUERY = vectors(1, 7)[0]


@pytest.fixture
def other(world):
    """The same folder, open a second time, as another process has it; over a network the servers are the same."""
    with again(world.deployment) as opened:
        yield opened


def kept(deployment, owner):
    """Whether any server of a process still has secrets, key schedules or plans of an owner in memory."""
    found = []
    for server in deployment.servers.values():
        found += [owner in server._secrets, owner in getattr(server, "_schedules", {})]
        found += [p.view.owner == owner for plan in server.queries._plans.values() for p in plan.parts]
        found += [p.view.owner == owner for _, _, plan in server.queries._headers._open.values() for p in plan.parts]
    return any(found)


def test_another_process_drops_what_was_forgotten(world, other):
    anna, berta = world.owners
    user = other.user("ulla")
    user.search(QUERY, 60, ranking="user")
    user.search(QUERY, 60, ranking="server")
    assert kept(other, anna.id)
    anna.forget()
    assert {h.owner for h in user.search(QUERY, 30, ranking="user").hits} == {berta.id}
    assert not kept(other, anna.id) and kept(other, berta.id)
    assert not kept(world.deployment, anna.id)
    with pytest.raises((AccessDeniedError, NotFoundError)):
        user.search(QUERY, 1, owners=[anna.id])


def test_a_busy_checkpoint_is_done_later(world, monkeypatch):
    """A reader keeps the write-ahead log in use while an owner is forgotten; its secrets leave the files later."""
    anna = world.owners[0]
    server = world.deployment.servers[3]
    sealed = server.store.owner(anna.id)[2]
    folder = world.home(3)
    reader = sqlite3.connect(next(folder.glob("catalog-2.sqlite")))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM owners").fetchone()
    real = server.store.catalog.checkpoint
    monkeypatch.setattr(server.store.catalog, "checkpoint", lambda patience=0.2: real(patience))
    anna.forget()
    assert any(sealed in p.read_bytes() for p in folder.glob("catalog*"))
    assert any("write-ahead log" in p for p in world.deployment.verify()["problems"])
    reader.close()
    settle(world.deployment.operators)
    assert not any(sealed in p.read_bytes() for p in folder.glob("catalog*"))
    assert world.deployment.verify()["problems"] == []


def test_sweeps_leave_the_files_of_other_processes(world, other, monkeypatch):
    """A sweep between the writing of a file and its commit."""
    from mipp.store import store as store_module

    anna = world.owners[0]
    real, swept = store_module.write_share, []

    def write(path, *rest):
        out = real(path, *rest)
        swept.extend(s.store.sweep() for s in other.servers.values())
        return out

    monkeypatch.setattr(store_module, "write_share", write)
    ids = anna.add_vectors(vectors(3, 40), [("x", b"y" * 40)] * 3)
    anna.delete(ids[:1])
    anna.compact(merge_below=1)
    # servers over a network work at the same time: one may have replaced a file that it is about to remove
    assert swept and (over_network(world.deployment) or set(swept) == {0})
    assert world.deployment.verify()["problems"] == []
    images = world.user.fetch(ids[1:])
    assert [i.content for i in images] == [b"y" * 40] * 2


def test_lost_images_are_reported(world):
    """Rows that came with an image whose pack is not in the catalog any more."""
    anna = world.owners[0]
    for server in (1, 2):
        with world.deployment.servers[server].store.catalog.transaction() as db:
            db.execute("DELETE FROM packs WHERE owner=?", (anna.id,))
    problems = world.deployment.verify()["problems"]
    assert len(problems) == 2 and all("images of 15 rows are missing" in p for p in problems)


def test_an_owner_in_two_processes(world, other):
    """They take turns: nothing is lost, no id is used twice, the chain is one."""
    import threading

    errors = []

    def work(deployment, seed):
        try:
            owner = deployment.owner("anna")
            for i in range(4):
                ids = owner.add_vectors(vectors(2, seed + i))
                if i % 2:
                    owner.delete(ids[:1])
        except MippError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(d, s)) for d, s in ((world.deployment, 100), (other, 200))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert world.deployment.status()["images"] == 60 + 16 - 4 == other.status()["images"]
    assert world.deployment.status()["servers_agree"]


def test_the_same_files_added_by_two_processes_at_once(world, other, tmp_path):
    """Each file is added once."""
    import threading

    from mipp.client.ingest import add_vectors

    path, data, reports = tmp_path / "v.npy", vectors(40, 77), []

    def add(deployment):
        reports.append(add_vectors(deployment.owner("anna"), path, data))

    threads = [threading.Thread(target=add, args=(d,)) for d in (world.deployment, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(r.added) for r in reports) == [0, 40] and sum(r.skipped for r in reports) == 40
    assert world.deployment.status()["images"] == 100


def test_a_key_file_under_another_name(world):
    folder = world.deployment.folder / "owners"
    (folder / "carla.key").write_bytes((folder / "berta.key").read_bytes())
    (folder / "carla.key").chmod(0o600)
    with pytest.raises(MippError, match="that of 'berta'"):
        world.deployment.owner("carla")


def test_suspended_grants_say_so(world):
    for server in world.deployment.servers.values():
        server.store.begin_epoch(1, 0)
    with pytest.raises(AccessDeniedError, match="owners must grant again"):
        world.user.search(QUERY, 1)
    world.owners[0].grant(world.user.id)
    assert world.user.search(QUERY, 5).hits
