"""Files and catalog: damage is found and named, a full disk loses nothing, processes do not disturb each other."""

import errno
import hashlib
import os
import time

import numpy as np
import pytest

import mipp
from mipp.errors import DeploymentError, IntegrityError, StoreError
from mipp.server.settling import settle
from mipp.store import files
from tests.conftest import DIM, embedded_only, over_network, reopened, shut, vectors


def share_files(world, server=1):
    return sorted((world.home(server) / "shares").glob("*/*"))


def flip(path, position):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0x10
    path.write_bytes(raw)


@pytest.mark.parametrize("position", [0, 9, 40, 70, 100, 255, 256, 400, -33, -32, -1])
def test_a_flipped_byte_is_detected_and_named(world, position):
    path = share_files(world)[2]
    flip(path, position)
    report = world.deployment.verify()
    assert len(report["problems"]) == 1 and path.name in report["problems"][0]
    world.reopen()
    user, batch = world.user, path.name.split(".")[0]
    with pytest.raises(IntegrityError, match=batch):
        user.search(vectors(1)[0], strict=True)
    result = user.search(vectors(1)[0], 45)  # the others
    assert [(left.batch.hex(), left.server) for left in result.left_out] == [(batch, 1)]
    assert "damaged" in result.left_out[0].reason and str(world.home(1)) not in str(result.left_out[0])


def test_truncated_missing_and_foreign_files_are_named(world):
    one, two, three = share_files(world)[:3]
    one.write_bytes(one.read_bytes()[:-5])
    two.unlink()
    three.write_bytes(share_files(world, 2)[2].read_bytes())  # the other cloud's: well-formed, but not this one's
    problems = world.deployment.verify()["problems"]
    assert len(problems) == 3
    for path in (one, two, three):
        assert any(path.name in p for p in problems)


def test_damaged_image_packs_are_named(world):
    path = next((world.home(2) / "images").glob("*/*"))
    flip(path, 700)
    assert path.name in world.deployment.verify()["problems"][0]


def test_layout_of_a_share_file(world):
    """Magic, version, little-endian words, 64-byte aligned: another implementation can read it."""
    owner = world.owners[0]
    batch = owner.batches()[0].id
    raw = next(p for p in share_files(world) if p.name.startswith(batch.hex())).read_bytes()
    assert raw[:8] == b"mippshr1" and raw[8:12] == b"\2\0\0\0"
    assert raw[64:96] == world.deployment.config.params_hash
    assert raw[96:112] == owner.id and raw[112:128] == batch
    assert raw[-32:] == hashlib.sha256(raw[:256] + hashlib.sha256(raw[256:-32]).digest()).digest()
    words = np.frombuffer(raw[256:-32], "<u4").reshape(15, DIM)
    assert np.array_equal(words, world.deployment.servers[1].store.view(owner.id).batches[0].words)


@embedded_only
def test_share_files_of_version_1_are_read(world):
    """Those of earlier releases, whose checksum is that of all bytes; a flipped byte is found as in new ones."""
    catalog = world.deployment.servers[1].store.catalog
    for path in share_files(world):
        raw = bytearray(path.read_bytes())
        raw[8] = 1
        raw[-32:] = hashlib.sha256(raw[:-32]).digest()
        path.write_bytes(raw)
        with catalog.transaction() as db:
            name = str(path.relative_to(world.home(1)))
            db.execute("UPDATE batches SET digest=? WHERE file=?", (bytes(raw[-32:]), name))
    assert not world.deployment.verify()["problems"]
    world.reopen()
    world.check(k=60)
    flip(path, 300)
    assert path.name in world.deployment.verify()["problems"][0]
    raw[8], raw[-32:] = 3, bytes(32)
    path.write_bytes(raw)
    assert path.name in world.deployment.verify()["problems"][0]


def full_disk(monkeypatch, after):
    """Writes fail with ENOSPC after so many; as many bytes as fit are written first, as on a real disk."""
    left = [after]
    real = files.write_all

    def write(fd, view):
        if left[0] == 0:
            os.write(fd, view[: len(view) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(fd, view)

    monkeypatch.setattr(files, "write_all", write)


@pytest.mark.parametrize("after", range(12))
def test_full_disk_while_uploading(world, monkeypatch, after):
    names = [p.name for server in (1, 2) for p in share_files(world, server)]
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        with pytest.raises(StoreError, match="No space left"):
            world.owners[0].add_vectors(vectors(3), [("n", b"x" * 1000)] * 3)
    assert [p.name for server in (1, 2) for p in share_files(world, server)] == names
    assert not [p for server in (1, 2, 3) for p in world.home(server).rglob("*.tmp*")]
    world.check(k=60)
    world.plain |= dict(zip(world.owners[0].add_vectors(vectors(3)), vectors(3), strict=True))
    world.check(k=63)
    assert world.deployment.status()["servers_agree"]


@pytest.mark.parametrize("after", range(3))
def test_full_disk_while_compacting(world, monkeypatch, after):
    owner = world.owners[0]
    batch = owner.batches()[1].id
    owner.delete([(batch, 1)])
    del world.plain[batch, 1]
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        with pytest.raises(StoreError):
            owner.compact(merge_below=1)
    world.check(k=59)
    owner.compact(merge_below=1)
    world.check(k=59)
    assert world.deployment.verify()["problems"] == []


@pytest.mark.parametrize("server", [1, 2, 3])
def test_full_disk_under_a_catalog(world, server):
    catalog = world.deployment.servers[server].store.catalog
    pages = catalog.one("PRAGMA page_count")[0]
    failed = 0
    catalog.one(f"PRAGMA max_page_count={pages}")
    for _ in range(200):
        try:
            ids = world.owners[0].add_vectors(vectors(1))
        except StoreError as error:
            assert "full" in str(error)
            failed += 1
            break
        world.plain[ids[0]] = vectors(1)[0]
    assert failed
    try:
        world.user.search(vectors(1)[0], 1)
    except StoreError as error:  # one server has the change, one cannot take it: said, not hidden
        assert "full" in str(error)
    catalog.one("PRAGMA max_page_count=1000000")
    settle(world.deployment.operators)
    world.user.search(vectors(1)[0], 1)
    for image in set(world.user.index().ids()) - set(world.plain):  # all there or not at all
        world.plain[image] = vectors(1)[0]
    world.check(k=len(world.plain))
    world.plain |= dict(zip(world.owners[0].add_vectors(vectors(1)), vectors(1), strict=True))
    world.check(k=len(world.plain))
    assert world.deployment.status()["servers_agree"]


def test_a_forget_on_a_full_disk(world, monkeypatch):
    """It is done, and its secrets leave the write-ahead log when there is room again."""
    catalog, operators = world.deployment.servers[1].store.catalog, world.deployment.operators
    real = catalog.all

    def full(sql, *args):
        if "wal_checkpoint" in sql:
            raise StoreError("database or disk is full")
        return real(sql, *args)

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "all", full)
        world.owners[0].forget()
        settle(operators)
        assert "write-ahead log" in world.deployment.verify()["problems"][0]
    settle(operators)
    assert world.deployment.verify()["problems"] == []


@embedded_only
def test_folders_that_are_no_deployment(tmp_path, world):
    with pytest.raises(DeploymentError, match="mipp init"):
        mipp.Deployment.open(tmp_path / "nothing")
    (tmp_path / "deployment.json").write_text("{}")
    with pytest.raises(DeploymentError):
        mipp.Deployment.open(tmp_path)
    folder = world.deployment.folder
    with pytest.raises(DeploymentError, match="already"):
        mipp.Deployment.create(folder, world.deployment.config.encoding)
    config = folder / "deployment.json"
    good = config.read_text()
    for bad in ("", "[]", good.replace('"version": 2', '"version": 3'), good.replace('"n": 3', '"n": 4'), good[:-30]):
        config.write_text(bad)
        with pytest.raises(DeploymentError):
            mipp.Deployment.open(folder)
    config.write_text(good.replace('"query_bits": 8', '"query_bits": 9'))
    with pytest.raises(DeploymentError, match="another deployment"):
        mipp.Deployment.open(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(DeploymentError):
        mipp.Deployment.create(tmp_path / "file", world.deployment.config.encoding)


def test_a_server_folder_of_another_server_is_refused(world):
    shut(world.deployment)
    one, two = world.home(1), world.home(2)
    one.rename(one.parent / "x")
    two.rename(one)
    (one.parent / "x").rename(two)
    if over_network(world.deployment):  # the folder holds its keys and its address, too: it is that server
        opened = reopened(world.deployment)
        assert {i: s.index for i, s in opened.servers.items()} == {1: 2, 2: 1, 3: 3}
        assert len(opened.user("ulla").search(vectors(1)[0], 60, strict=True).hits) == 60
        return
    with pytest.raises(DeploymentError):
        mipp.Deployment.open(world.deployment.folder)


def child(act):
    """Run ``act`` in a forked process; its exit code must be 0."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return pid


def wait(pids):
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


@embedded_only
def test_processes_add_and_search_at_once(world):
    """Two processes add, one deletes, one searches: no error, every answer exact, nothing lost."""
    folder = world.deployment.folder
    quiet = world.deployment.create_owner("quiet")
    x = vectors(20, 33)
    quiet.add_vectors(x)
    quiet.grant(world.user.id)
    world.deployment.close()
    encoding = world.deployment.config.encoding
    query = vectors(1, 7)[0]
    expected = sorted((encoding.encode_rows(x).astype(int) @ encoding.encode_queries(query)[0].astype(int)).tolist())

    def add(name, seed):
        with mipp.Deployment.open(folder, threads=1) as deployment:
            owner = deployment.owner(name)
            for i in range(8):
                owner.add_vectors(vectors(2, seed=seed + i))

    def delete():
        with mipp.Deployment.open(folder, threads=1) as deployment:
            owner = deployment.owner("anna")
            batch = owner.batches()[0].id
            for row in range(6):
                owner.delete([(batch, row)])

    def search():
        with mipp.Deployment.open(folder, threads=1) as deployment:
            user = deployment.user("ulla")
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                hits = user.search(query, 20, owners=[quiet.id]).hits
                assert sorted(h.score for h in hits) == expected
                scores = [h.score for h in user.search(query, 50).hits]
                assert scores == sorted(scores, reverse=True)

    wait([child(lambda: add("anna", 100)), child(lambda: add("berta", 200)), child(delete), child(search)])
    with mipp.Deployment.open(folder) as deployment:
        status = deployment.status()
        assert status["servers_agree"] and status["images"] == 60 + 20 + 32 - 6
        assert deployment.verify()["problems"] == []


@embedded_only
def test_the_same_owner_adds_in_two_processes(world):
    folder = world.deployment.folder
    world.deployment.close()

    def add(seed):
        with mipp.Deployment.open(folder, threads=1) as deployment:
            owner = deployment.owner("anna")
            for i in range(6):
                owner.add_vectors(vectors(2, seed=seed + i))

    wait([child(lambda: add(300)), child(lambda: add(400))])
    with mipp.Deployment.open(folder) as deployment:
        assert deployment.status()["images"] == 60 + 24
        assert deployment.status()["servers_agree"]
