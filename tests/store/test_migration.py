"""A deployment of format 1 opens and works: the old files are made from today's, by the old format's description."""

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import msgpack
import numpy as np
import pytest

import mipp
from mipp.crypto.keyfile import load_key_file
from mipp.deployment import migrate
from mipp.deployment.sessions import Session
from mipp.errors import AccessDeniedError, DeploymentError, NonceReuseError, NotFoundError
from mipp.rpc import messages as m
from mipp.rpc.wire import decode, unpack_frames
from mipp.store.catalog import NAME
from tests.conftest import ALL_RANKINGS, DIM, finite_sharing, vectors
from tests.store.killing import run_in_child

pytestmark = pytest.mark.slow  # stores of earlier versions, at every step

QUERY = vectors(1, 99)[0]
SERVERS = (1, 2, 3)
OLD_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE owners (id BLOB PRIMARY KEY, name TEXT NOT NULL, sign_key BLOB NOT NULL, registration BLOB NOT NULL,
    sealed BLOB NOT NULL, revision INTEGER NOT NULL DEFAULT 0, forget BLOB);
CREATE TABLE users (id BLOB PRIMARY KEY, name TEXT NOT NULL, sign_key BLOB NOT NULL, box_key BLOB NOT NULL);
CREATE TABLE paillier_keys (user BLOB PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE grants (owner BLOB NOT NULL, user BLOB NOT NULL, version INTEGER NOT NULL, id BLOB NOT NULL,
    frames BLOB NOT NULL, used INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (owner, user));
CREATE TABLE nonces (owner BLOB NOT NULL, nonce BLOB NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (owner, nonce))
    WITHOUT ROWID;
CREATE TABLE batches (id BLOB PRIMARY KEY, owner BLOB NOT NULL, seq INTEGER NOT NULL, rows INTEGER NOT NULL,
    dim INTEGER NOT NULL, stored INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 0, committed INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL, tombstones BLOB NOT NULL DEFAULT x'',
    origin_batch BLOB NOT NULL DEFAULT x'', origin_row BLOB NOT NULL DEFAULT x'');
CREATE INDEX batches_by_owner ON batches (owner, seq, id);
CREATE TABLE packs (id BLOB PRIMARY KEY, owner BLOB NOT NULL, rows INTEGER NOT NULL, generation INTEGER NOT NULL,
    size INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE INDEX packs_by_owner ON packs (owner);
CREATE TABLE ops (id BLOB PRIMARY KEY, owner BLOB NOT NULL, kind TEXT NOT NULL, session BLOB NOT NULL,
    exclusive INTEGER NOT NULL, record BLOB NOT NULL, committed BLOB);
"""


# --- today's format to the old one ---------------------------------------------------------------------------------


def old_grant(frames: bytes) -> bytes:
    """A grant as it was signed in format 1: no epoch, and an envelope without receiver and time."""
    signed = decode(unpack_frames(frames), m.Signed)
    g = decode([f.data for f in signed.frames], m.Grant)
    fields = [g.owner, g.user, g.version, g.expiry, g.rankings, g.max_k, g.scores, g.quota, g.min_rows, g.revoked]
    return old_signed(signed, "Grant", fields)


def old_forget(frames: bytes) -> bytes:
    signed = decode(unpack_frames(frames), m.Signed)
    forget = decode([f.data for f in signed.frames], m.ForgetOwner)
    return old_signed(signed, "ForgetOwner", [forget.owner, forget.registration])


def old_signed(signed: m.Signed, kind: str, fields: list) -> bytes:
    content = b"MIPP\x01" + msgpack.packb([kind, fields])
    array = msgpack.ExtType(1, msgpack.packb(["|u1", [len(content)], 1]))
    head = b"MIPP\x01" + msgpack.packb(["Signed", [signed.deployment, signed.signer, bytes(64), [array]]])
    return bytes(msgpack.packb([head, content]))


def rows_of(home: Path, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(home / NAME)) as db:
        return db.execute(sql).fetchall()


def place(home: Path, old: Path, room: str, batch: bytes, generation: int, name: str) -> None:
    to = old / room / batch.hex()[:2]
    to.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copy(home / name, to / f"{batch.hex()}.{generation}")


def put_batches(db: sqlite3.Connection, home: Path, old: Path, cloud: bool, only: set[bytes], committed: int) -> None:
    """Batches and packs of a catalog of today, those in ``only``, into an old one."""
    for row in rows_of(
        home,
        "SELECT id, owner, position, rows, dim, stored, generation, size, digest, tombstones, origin_batch, "
        "origin_row, file FROM batches",
    ):
        if row[0] in only:
            values = (*row[:7], committed, *row[7:12])
            db.execute(f"INSERT OR REPLACE INTO batches VALUES ({', '.join('?' * 13)})", values)
            if cloud:
                place(home, old, "shares", row[0], row[6], row[12])
    for batch, owner, rows, generation, size, digest, name in rows_of(
        home, "SELECT id, owner, rows, generation, size, digest, file FROM packs"
    ):
        # a pack belongs to a batch, or outlives it because a merged one shows its images
        db.execute(
            "INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?)", (batch, owner, rows, generation, size, digest)
        )
        place(home, old, "images", batch, generation, name)


def to_old_server(home: Path, old: Path, cloud: bool, done: bool, after: Path | None, op: tuple | None) -> None:
    """One server's folder in format 1.

    ``home`` is today's folder before the change ``op`` (id, owner, kind, record) and ``after`` the one after it;
    ``done``: whether this server committed it already, else it is only prepared.
    """
    old.mkdir(mode=0o700)
    for room in ("shares", "images"):
        (old / room).mkdir(mode=0o700)
    shutil.copy(home / "server.key", old / "server.key")
    with contextlib.closing(sqlite3.connect(old / "catalog.sqlite")) as db:
        db.executescript(OLD_SCHEMA)
        meta = {**dict(rows_of(home, "SELECT name, value FROM meta")), "format": b"\x01"}
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        owners = rows_of(home, "SELECT id, name, sign_key, registration, sealed, revision, forget FROM owners")
        owners = [(*o[:6], o[6] and old_forget(o[6])) for o in owners]
        db.executemany("INSERT INTO owners VALUES (?, ?, ?, ?, ?, ?, ?)", owners)
        db.executemany(
            "INSERT INTO users VALUES (?, ?, ?, ?)", rows_of(home, "SELECT id, name, sign_key, box_key FROM users")
        )
        grants = rows_of(home, "SELECT owner, user, version, id, frames, used FROM grants")
        db.executemany(
            "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?)", [(*g[:4], old_grant(g[4]), g[5]) for g in grants]
        )
        source = after if done and after is not None else home
        put_batches(db, source, old, cloud, {r[0] for r in rows_of(source, "SELECT id FROM batches")}, 1)
        taken = rows_of(after or home, "SELECT owner, op, digest FROM changes WHERE kind<>'delete'")
        db.executemany("INSERT INTO nonces VALUES (?, ?, ?)", taken)
        if op is not None:
            name, owner, kind, record = op
            if not done and kind == "upload":
                put_batches(db, after, old, cloud, {name}, 0)
            db.execute(
                "INSERT INTO ops VALUES (?, ?, ?, ?, 1, ?, ?)",
                (
                    name,
                    owner,
                    kind,
                    bytes(16),
                    b"" if done else msgpack.packb(record),
                    b"signed commit" if done else None,
                ),
            )
        db.commit()


def to_old(folder, target, *, after=None, op=None, done=()):
    """The deployment ``folder`` of today as one of format 1 in ``target``."""
    target.mkdir(mode=0o700)
    for name in ("owners", "users"):
        shutil.copytree(folder / name, target / name)
    (target / "sessions").mkdir(mode=0o700)
    (target / "servers").mkdir(mode=0o700)
    for i in SERVERS:
        to_old_server(
            folder / "servers" / str(i), target / "servers" / str(i), i != 3, i in done,
            after / "servers" / str(i) if after is not None else None, op,
        )  # fmt: skip
    data = json.loads((folder / "deployment.json").read_text())
    data["version"] = 1
    for keys in data["servers"].values():
        del keys["sign"]
    (target / "deployment.json").write_text(json.dumps(data))
    return target


# --- what is in it -------------------------------------------------------------------------------------------------


def make(folder):
    """Merged batches with images, a rewritten one, tombstones; grants of all kinds; a forgotten owner."""
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM), threads=1) as d:
        users = {name: d.create_user(name) for name in ("ulla", "vera", "willi")}
        for seed, name in ((1, "anna"), (2, "berta")):
            owner = d.create_owner(name)
            owner.grant(users["ulla"].id, rankings=ALL_RANKINGS)
            files = [(f"{name}{i}.png", bytes([seed, i]) * 30) for i in range(5)]
            for part in (slice(0, 2), slice(2, 5)):
                owner.add_vectors(vectors(5, seed)[part], files[part])
            owner.compact()  # images keep the ids of the batches that are gone
            ids = owner.add_vectors(vectors(8, 10 + seed), [(f"{i}", bytes([seed, 100 + i]) * 9) for i in range(8)])
            owner.delete(ids[2:4])
            owner.compact(merge_below=1)  # the file is rewritten
            owner.delete(ids[5:6])
        berta = d.owner("berta")
        berta.grant(users["vera"].id, rankings=ALL_RANKINGS, quota=3)
        berta.grant(users["willi"].id, rankings=ALL_RANKINGS)
        berta.revoke(users["willi"].id)
        users["vera"].search(QUERY, 1, ranking="user", verify=False)
        carla = d.create_owner("carla")
        carla.add_vectors(vectors(2, 5))
        carla.forget()


def seen(deployment):
    """All hits with scores and images, and each owner's batches."""
    user = deployment.user("ulla")
    hits = user.search(QUERY, user.index().total, ranking="user").hits
    images = [(f.name, f.content, type(f.error)) for f in user.fetch(hits)]
    scores = sorted((h.owner_name, h.score, image[0], image[1]) for h, image in zip(hits, images, strict=True))
    batches = {n: [(b.rows, b.live, b.generation) for b in deployment.owner(n).batches()] for n in ("anna", "berta")}
    return scores, batches


def check_works(deployment):
    """Owners and users work as before, and nothing is left over."""
    assert deployment.status()["servers_agree"]
    assert deployment.verify()["problems"] == []
    vera = deployment.user("vera")
    for _ in range(2):
        vera.search(QUERY, 1, ranking="user", verify=False)
    with pytest.raises(AccessDeniedError, match="used up"):
        vera.search(QUERY, 1, ranking="user", verify=False)
    with pytest.raises(AccessDeniedError):
        deployment.user("willi").search(QUERY, 1, ranking="user", verify=False)
    with pytest.raises(NotFoundError, match="forgotten"):
        deployment.owner("carla")
    anna, user = deployment.owner("anna"), deployment.user("ulla")
    total = user.index().total
    ids = anna.add_vectors(vectors(4, 61), [("new", b"n" * 20)] * 4)
    anna.delete(ids[:1])
    anna.compact()
    assert user.index().total == total + 3
    assert {len(deployment.owner(n).batches()) for n in ("anna",)} == {1}
    anna.grant(deployment.user_id("willi"), rankings=ALL_RANKINGS)
    assert deployment.user("willi").index().total > 0
    anna.revoke(deployment.user_id("willi"))
    assert deployment.status()["servers_agree"] and deployment.verify()["problems"] == []
    for server in deployment.servers.values():
        server.store.sweep()
        with server.store.catalog.transaction() as db:
            named = sorted(server.store._files(db))
        there = sorted(
            str(p.relative_to(server.store.folder)) for r in ("shares", "images")
            for p in (server.store.folder / r).glob("*/*")
        )  # fmt: skip
        assert there == named


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    folder = tmp_path_factory.mktemp("migration") / "today"
    with finite_sharing():  # the only form then
        make(folder)
    return folder


@pytest.fixture(scope="module")
def expected(today):
    with mipp.Deployment.open(today, threads=1) as deployment:
        return seen(deployment)


def test_everything_survives(today, expected, tmp_path):
    old = to_old(today, tmp_path / "old")
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert seen(deployment) == expected
        check_works(deployment)
    for i in SERVERS:
        home = old / "servers" / str(i)
        assert not list(home.glob("catalog.sqlite*")) and (home / NAME).is_file()
        assert set(load_key_file(home / "identity.key", "server")[1]) == {"sign"}
        assert (home / "identity.key").stat().st_mode & 0o777 == 0o600
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert deployment.status()["servers_agree"]


def test_ids_stay_taken(today, tmp_path):
    """Also those of batches that a merge replaced."""
    gone = rows_of(today / "servers/1", "SELECT owner, op FROM changes WHERE kind='upload'")
    live = {r[0] for r in rows_of(today / "servers/1", "SELECT id FROM batches")}
    gone = [(owner, op) for owner, op in gone if op not in live]
    assert gone
    old = to_old(today, tmp_path / "old")
    with mipp.Deployment.open(old, threads=1) as deployment:
        store = deployment.servers[3].store
        for owner, op in gone:
            with pytest.raises(NonceReuseError):
                store.prepare_upload(
                    owner, op, bytes(32), rows=1, dim=DIM, replaces=[], share=None, share_hash=bytes(32),
                    images=np.empty(0, np.uint8), offsets=np.zeros(2, "<i8"), origin=(b"", b""),
                )  # fmt: skip


def change(folder, kind):
    """Make one change of anna on a copy; what it would have been in the old protocol."""
    with mipp.Deployment.open(folder, threads=1) as deployment:
        anna = deployment.owner("anna")
        before = [b.id for b in anna.batches()]
        if kind == "delete":
            anna.delete([(before[0], 1), (before[1], 0)])
            return os.urandom(16), anna.id, "delete", {"dead": {before[0]: [1], before[1]: [0]}}
        if kind == "upload":
            ids = anna.add_vectors(vectors(3, 71), [("a", b"a" * 9), None, ("c", b"c" * 9)])
            return ids[0][0], anna.id, "upload", {"replaces": []}
        anna.compact()
        (new,) = {b.id for b in anna.batches()} - set(before)
        return new, anna.id, "upload", {"replaces": before}


@pytest.mark.parametrize("done", [(), (1,), (3,), (1, 2), (2, 3), SERVERS], ids=str)
@pytest.mark.parametrize("kind", ["upload", "delete", "merge"])
def test_half_done_changes_are_completed_or_undone(today, expected, tmp_path, kind, done):
    """Committed at one server: it is on all. Only prepared: it is on none, and leaves nothing."""
    shutil.copytree(today, tmp_path / "after")
    op = change(tmp_path / "after", kind)
    with mipp.Deployment.open(tmp_path / "after", threads=1) as deployment:
        after = seen(deployment)
    old = to_old(today, tmp_path / "old", after=tmp_path / "after", op=op, done=done)
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert seen(deployment) == (after if done else expected)
        check_works(deployment)


def test_a_half_done_forget_is_completed(today, tmp_path):
    """One server forgot an owner when the process died; the others must, too."""
    old = to_old(today, tmp_path / "old")
    home = old / "servers" / "1"
    with contextlib.closing(sqlite3.connect(home / "catalog.sqlite")) as db:
        (owner,) = db.execute("SELECT id FROM owners WHERE name='berta'").fetchone()
        db.execute("UPDATE owners SET sealed=x'', forget=x'01' WHERE id=?", (owner,))
        for table in ("batches", "packs", "grants"):
            db.execute(f"DELETE FROM {table} WHERE owner=?", (owner,))
        db.commit()
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert deployment.status()["servers_agree"] and deployment.verify()["problems"] == []
        with pytest.raises(NotFoundError, match="forgotten"):
            deployment.owner("berta")
        for server in deployment.servers.values():
            assert server.store.catalog.all("SELECT sealed FROM owners WHERE id=?", owner) == [(b"",)]


# --- interrupted ---------------------------------------------------------------------------------------------------


def in_child(folder, kill_at):
    """Open in a child that kills itself at a traced line of the migration; how many lines there were."""
    watched = ("migrate.py", "catalog.py", "keyfile.py")
    lines, _ = run_in_child(
        lambda: folder, lambda old: mipp.Deployment.open(old, threads=1), lambda name: name.endswith(watched), kill_at
    )
    return lines


@pytest.mark.slow
def test_a_killed_migration_starts_again(today, expected, tmp_path):
    old = to_old(today, tmp_path / "old")
    shutil.copytree(old, tmp_path / "dry")
    lines = in_child(tmp_path / "dry", 0)
    assert lines > 500
    for kill_at in np.unique(np.linspace(1, lines, 24).astype(int)):
        folder = tmp_path / str(kill_at)
        shutil.copytree(old, folder)
        in_child(folder, int(kill_at))
        with mipp.Deployment.open(folder, threads=1) as deployment:
            assert seen(deployment) == expected, kill_at
            assert deployment.status()["servers_agree"]
        shutil.rmtree(folder)


@pytest.mark.parametrize("point", ["_chains", "_write", "_describe", "remove_old", "save_key_file"])
def test_an_exception_in_a_migration_changes_nothing(today, expected, tmp_path, point, monkeypatch):
    old = to_old(today, tmp_path / "old")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(migrate, point, fail)
    with pytest.raises(OSError):
        mipp.Deployment.open(old, threads=1)
    monkeypatch.undo()
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert seen(deployment) == expected
        check_works(deployment)


def test_a_deployment_in_use_is_refused(today, expected, tmp_path):
    old = to_old(today, tmp_path / "old")
    other = Session(old / "sessions")
    other.ready()
    with pytest.raises(DeploymentError, match="in use by another process"):
        mipp.Deployment.open(old, threads=1)
    other.close()
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert seen(deployment) == expected


def test_a_server_is_restored_after_a_migration(today, expected, tmp_path):
    """Changes of before the migration have no COMMIT, and ids that are only taken have no position."""
    old = to_old(today, tmp_path / "old")
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert seen(deployment) == expected
    shutil.copytree(old / "servers/2", tmp_path / "backup")
    with mipp.Deployment.open(old, threads=1) as deployment:
        (new,) = deployment.owner("anna").add_vectors(vectors(1, 81))
    shutil.rmtree(old / "servers/2")
    shutil.copytree(tmp_path / "backup", old / "servers/2")
    with mipp.Deployment.open(old, threads=1) as deployment:
        assert deployment.status()["servers_agree"]
        assert [bytes(x.batch) for x in deployment.user("ulla").index().left_out] == [new[0]]
        assert seen(deployment)[0] == expected[0]
        deployment.owner("anna").add_vectors(vectors(1, 82))
