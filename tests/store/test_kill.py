"""SIGKILL at points spread over every change: acknowledged work is whole, a change is there wholly or not at all."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp.errors import MippError
from tests.conftest import DIM, vectors
from tests.store.killing import run_in_child

QUERY = vectors(1, 99)[0]
POINTS = 16
PACKAGE = str(Path(mipp.__file__).parent)
WATCHED = tuple(os.path.join(PACKAGE, part) for part in ("store", "roles", "protocol", "deployment"))


def make(folder):
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM), threads=1) as deployment:
        user = deployment.create_user("u")
        for number, name in enumerate(("a", "b")):
            owner = deployment.create_owner(name)
            owner.grant(user.id)
            images = [(f"{i}", bytes(40)) for i in range(6)]
            owner.add_vectors(vectors(6, seed=number), images)
            owner.add_vectors(vectors(9, seed=10 + number))
        deployment.owner("a").delete([(deployment.owner("a").batches()[0].id, 2)])


def upload(deployment):
    deployment.owner("a").add_vectors(vectors(4, seed=50), [("n", b"x" * 30)] * 4)


def delete(deployment):
    owner = deployment.owner("a")
    owner.delete([(owner.batches()[0].id, 0), (owner.batches()[1].id, 5)])


def merge(deployment):
    deployment.owner("a").compact()


def compact_in_place(deployment):
    deployment.owner("a").compact(merge_below=1)


def forget(deployment):
    deployment.owner("a").forget()


def revoke(deployment):
    deployment.owner("a").revoke(deployment.user_id("u"))


def create_owner(deployment):
    deployment.create_owner("c")


def seen(folder):
    """All scores a user gets, and proof that the servers agree and every file is whole."""
    with mipp.Deployment.open(folder, threads=1) as deployment:
        status = deployment.status()
        assert status["servers_agree"]
        assert deployment.verify()["problems"] == []
        user = deployment.user("u")
        total = user.index().total
        scores = sorted(h.score for h in user.search(QUERY, total).hits)
        return scores, {o["name"]: o["live"] for o in status["owners"] if not o["forgotten"]}


def in_child(folder, change, kill_at):
    """Run ``change`` in a child that kills itself at the kill_at-th traced line; (lines counted, acknowledged)."""
    return run_in_child(
        lambda: mipp.Deployment.open(folder, threads=1), change, lambda name: name.startswith(WATCHED), kill_at
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill") / "prepared"
    make(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [upload, delete, merge, compact_in_place, forget, revoke, create_owner], ids=lambda f: f.__name__
)
def test_killed_at_any_point(prepared, tmp_path, change):
    before = seen(prepared)
    shutil.copytree(prepared, tmp_path / "dry")
    lines, done = in_child(tmp_path / "dry", change, 0)
    assert done and lines > POINTS
    after = seen(tmp_path / "dry")
    if change not in (merge, compact_in_place, create_owner):
        assert after[0] != before[0]
    outcomes = set()
    for kill_at in np.unique(np.linspace(1, lines, POINTS).astype(int)):
        folder = tmp_path / str(kill_at)
        shutil.copytree(prepared, folder)
        _, acknowledged = in_child(folder, change, int(kill_at))
        now = seen(folder)
        assert now[0] in ((after[0],) if acknowledged else (before[0], after[0])), kill_at
        outcomes.add(now[0] == after[0])
        if change is create_owner:
            with mipp.Deployment.open(folder, threads=1) as deployment:
                made = deployment.owner("c") if "c" in deployment.owners() else deployment.create_owner("c")
                assert len(made.add_vectors(vectors(1))) == 1
                assert all("c" in r["name"] for r in deployment.status()["owners"] if r["batches"] == 1)
        if change is upload:
            # nothing of the dead process is in the way, and no file of it is left
            with mipp.Deployment.open(folder, threads=1) as deployment:
                owner = deployment.owner("a")
                ids = owner.add_vectors(vectors(2, seed=51))
                owner.delete(ids)
                owner.compact()
                names = {b.id.hex() for o in ("a", "b") for b in deployment.owner(o).batches()}
                for server in (1, 2):
                    files = list((folder / f"servers/{server}/shares").glob("*/*"))
                    assert {p.name.split(".")[0] for p in files} == names and len(files) == len(names)
        shutil.rmtree(folder)
    if change not in (merge, compact_in_place, create_owner):
        assert outcomes == {True, False}, "the points cover both sides of the commit"


def test_an_acknowledged_upload_survives_a_kill_right_after(prepared, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(prepared, folder)
    before = seen(folder)

    def upload_and_die(deployment):
        upload(deployment)
        os.kill(os.getpid(), signal.SIGKILL)

    in_child(folder, upload_and_die, 0)
    assert seen(folder)[1]["a"] == before[1]["a"] + 4


@pytest.mark.slow
def test_a_killed_add_is_resumed_without_doubles(prepared, tmp_path):
    """The owner's journal and the servers agree after any kill: adding the same files again adds what is missing."""
    folder = tmp_path / "d"
    rows = vectors(6, seed=60)

    def add(deployment):
        owner = deployment.owner("b")
        for i in range(6):
            if not owner.journal.has(f"file {i}"):
                owner.add_vectors(rows[i : i + 1], labels=[f"file {i}"])

    shutil.copytree(prepared, folder)
    lines, _ = in_child(folder, add, 0)
    complete = seen(folder)
    for kill_at in np.linspace(lines // 10, lines - 1, 8).astype(int):
        shutil.rmtree(folder)
        shutil.copytree(prepared, folder)
        in_child(folder, add, int(kill_at))
        with mipp.Deployment.open(folder, threads=1) as deployment:
            add(deployment)
        assert seen(folder) == complete


def before_commit(owner, act):
    """Call ``act(op)`` between preparing and committing a change of this owner."""
    real = owner._changes._commit

    def commit(kind, op, *rest):
        act(op)
        return real(kind, op, *rest)

    owner._changes._commit = commit


def test_the_prepared_upload_of_a_living_process_is_left_alone(prepared, tmp_path):
    """Opening the deployment elsewhere must not roll back what another process is just doing."""
    folder = tmp_path / "d"
    shutil.copytree(prepared, folder)
    with mipp.Deployment.open(folder, threads=1) as one:
        held = []

        def hold(op):
            held.append(op)
            with mipp.Deployment.open(folder, threads=1) as two:
                assert two.status()["images"] == 29
                two.servers[1].store.sweep()

        owner = one.owner("a")
        before_commit(owner, hold)
        owner.add_vectors(vectors(1))
        assert len(held) == 1
    assert seen(folder)[1]["a"] == 15


def test_commit_of_a_rolled_back_upload_fails_loudly(prepared, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(prepared, folder)
    with mipp.Deployment.open(folder, threads=1) as deployment:
        owner = deployment.owner("a")

        def roll_back(op):
            for server in deployment.servers.values():
                server.store.changes.never(owner.id, op)

        before_commit(owner, roll_back)
        with pytest.raises(MippError, match="rolled back"):
            owner.add_vectors(vectors(1))
    assert seen(folder)[1]["a"] == 14
