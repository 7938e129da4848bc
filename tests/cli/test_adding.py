"""Adding again: content is the key, whatever the file's name, the journal, or other processes do."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp.client.ingest import add_images, add_vectors

from .conftest import picture

RUN = [sys.executable, "-c", "from mipp.cli import main; main()"]


@pytest.fixture
def add(mipp_command, tmp_path):
    """``mipp owner add anna PATHS`` as JSON, without the exit code."""
    mipp_command("init", "--descriptor", "cld")
    mipp_command("owner", "create", "anna")
    return lambda *paths: json.loads(mipp_command("owner", "add", "anna", *paths, "--json")[1])


def images(mipp_command):
    return json.loads(mipp_command("status", "--json")[1])["images"]


def counts(report):
    return report["added"], report["skipped"], report["replaced"]


def test_moved_copied_and_linked_files_are_there_already(add, mipp_command, pictures, tmp_path):
    folder = pictures[0].parent
    assert counts(add(folder)) == (8, 0, 0)
    shutil.copytree(folder, tmp_path / "copy")
    folder.rename(tmp_path / "moved")
    assert counts(add(tmp_path / "moved", tmp_path / "copy")) == (0, 16, 0)
    (tmp_path / "moved" / "twin.png").symlink_to(tmp_path / "moved" / "p0.png")
    assert counts(add(tmp_path / "moved")) == (0, 9, 0) and images(mipp_command) == 8
    picture(tmp_path / "moved" / "p1.png", 99)
    assert counts(add(tmp_path / "moved")) == (1, 8, 0), "the copy holds what was there before"


def test_a_file_changed_in_place_replaces_its_row(add, mipp_command, pictures):
    first = {i["file"]: i["id"] for i in add(*pictures)["ids"]}
    picture(pictures[3], 77)
    report = add(*pictures)
    assert counts(report) == (1, 7, 1) and images(mipp_command) == 8
    assert json.loads(mipp_command("owner", "delete", "anna", first[str(pictures[3])], "--json")[1])["deleted"] == 0
    # contents that change places are all still there
    a, b = pictures[0].read_bytes(), pictures[1].read_bytes()
    pictures[0].write_bytes(b)
    pictures[1].write_bytes(a)
    assert counts(add(*pictures)) == (0, 8, 0) and images(mipp_command) == 8
    # a file that is broken now has nothing to replace its row with
    pictures[2].write_bytes(b"broken")
    assert counts(add(*pictures)) == (0, 7, 0) and images(mipp_command) == 8


def test_a_moved_file_that_changed_replaces_its_row(add, mipp_command, pictures, tmp_path):
    add(*pictures)
    pictures[0].parent.rename(tmp_path / "moved")
    add(tmp_path / "moved")
    picture(tmp_path / "moved" / "p1.png", 99)
    assert counts(add(tmp_path / "moved")) == (1, 7, 1) and images(mipp_command) == 8


@pytest.mark.parametrize("merged", [False, True])
def test_a_lost_journal_is_read_back_from_the_servers(add, mipp_command, pictures, tmp_path, merged):
    add(*pictures[:5])
    add(*pictures[5:])
    if merged:
        mipp_command("owner", "compact", "anna")
    (tmp_path / "d/owners/anna.journal").unlink()
    picture(pictures[0], 55)
    assert counts(add(*pictures)) == (1, 7, 0) and images(mipp_command) == 9
    assert counts(add(*pictures)) == (0, 8, 0)


def test_reading_back_splits_what_is_too_large_and_asks_the_other_cloud(
    add, mipp_command, pictures, tmp_path, monkeypatch
):
    from mipp.server import images as serving_images

    add(*pictures[:4])
    add(*pictures[4:])
    (tmp_path / "d/owners/anna.journal").unlink()
    next((tmp_path / "d/servers/1/images").glob("*/*")).unlink()
    monkeypatch.setattr(serving_images, "FETCH_BYTES", 2 * pictures[0].stat().st_size)
    assert counts(add(*pictures)) == (0, 8, 0)


def test_what_no_cloud_can_read_back_does_not_end_an_upload(add, mipp_command, pictures, tmp_path):
    add(*pictures[:4])
    (tmp_path / "d/owners/anna.journal").unlink()
    for server in (1, 2):
        next((tmp_path / f"d/servers/{server}/shares").glob("*/*")).unlink()
    assert counts(add(*pictures[4:])) == (4, 0, 0)


def test_an_older_journal_follows_the_servers(add, mipp_command, pictures, tmp_path):
    journal = tmp_path / "d/owners/anna.journal"
    ids = [i["id"] for i in add(*pictures[:4])["ids"]]
    kept = journal.read_bytes()
    add(*pictures[4:])
    mipp_command("owner", "delete", "anna", ids[0])
    journal.write_bytes(kept)
    assert counts(add(*pictures)) == (1, 7, 0) and images(mipp_command) == 8, "what was deleted can be added again"


def test_vectors_of_a_lost_journal(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 9)).astype(np.float32)
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding.fit("l2", x)) as deployment:
        add_vectors(deployment.create_owner("o"), tmp_path / "x.npy", x)
    (tmp_path / "d/owners/o.journal").unlink()
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        owner = deployment.owner("o")
        assert add_vectors(owner, tmp_path / "y.npy", x).skipped == 60
        report = add_vectors(owner, tmp_path / "y.npy", x[:50])
        assert (len(report.added), report.replaced) == (50, 60)
        assert deployment.status()["images"] == 50


def test_equal_parts_of_a_file_of_vectors_are_all_kept(tmp_path, monkeypatch):
    from mipp.client import row_ids

    x = np.tile(np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32), (3, 1))
    monkeypatch.setattr(row_ids, "BATCH_BYTES", 4 * 64)
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding.fit("l2", x)) as deployment:
        owner = deployment.create_owner("o")
        assert len(add_vectors(owner, tmp_path / "x.npy", x).added) == 12 and len(owner.batches()) == 3
        assert add_vectors(owner, tmp_path / "x.npy", x).skipped == 12


def test_deleting_again_says_so(add, mipp_command, pictures):
    ids = [i["id"] for i in add(*pictures)["ids"]]
    assert mipp_command("owner", "delete", "anna", ids[0], ids[0])[1] == "1 deleted\n"
    code, out, _ = mipp_command("owner", "delete", "anna", ids[0], ids[1], "--yes")
    assert code == 0 and out == "1 deleted, 1 already gone\n" and images(mipp_command) == 6


def test_a_single_image_that_was_deleted_can_be_added_again(add, mipp_command, pictures):
    for _ in range(2):
        report = add(pictures[0])
        assert counts(report) == (1, 0, 0)
        mipp_command("owner", "delete", "anna", report["ids"][0]["id"])


def test_two_processes_add_the_same_files(add, mipp_command, pictures, tmp_path):
    for i in range(8, 40):
        picture(pictures[0].parent / f"p{i}.png", i)
    both = [
        subprocess.Popen([*RUN, "owner", "add", "anna", str(pictures[0].parent), "--json"], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    reports = [json.loads(process.communicate()[0]) for process in both]
    assert [p.returncode for p in both] == [0, 0] and sorted(r["added"] for r in reports) == [0, 40]
    assert images(mipp_command) == 40


def test_who_waits_for_another_process_says_so(add, pictures, tmp_path):
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        owner = deployment.owner("anna")
        with owner.adding:
            waiting = subprocess.Popen(
                [*RUN, "owner", "add", "anna", str(pictures[0])],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert "waiting" in waiting.stderr.readline()
        assert "1 added" in waiting.communicate()[0]


def test_a_kill_between_a_merge_and_the_journal(add, mipp_command, pictures, tmp_path, monkeypatch):
    """The new ids are noted before the merge happens, so a process that dies right after it leaves no doubles."""
    add(*pictures[:4])
    add(*pictures[4:])
    child = os.fork()
    if child == 0:
        with mipp.Deployment.open(tmp_path / "d") as deployment:
            owner = deployment.owner("anna")
            make = owner._changes.make

            def die(*args):
                make(*args)
                os.kill(os.getpid(), signal.SIGKILL)

            owner._changes.make = die
            owner.compact()
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert counts(add(*pictures)) == (0, 8, 0) and images(mipp_command) == 8


def test_a_kill_between_new_and_old_row_loses_neither(add, mipp_command, pictures, tmp_path):
    add(*pictures)
    picture(pictures[0], 44)
    child = os.fork()
    if child == 0:
        with mipp.Deployment.open(tmp_path / "d") as deployment:
            owner = deployment.owner("anna")
            owner.delete = lambda ids: os.kill(os.getpid(), signal.SIGKILL)
            add_images(owner, pictures)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert images(mipp_command) == 9
    assert counts(add(*pictures)) == (0, 8, 1) and images(mipp_command) == 8


def test_a_kill_between_a_delete_and_the_journal(add, mipp_command, pictures, tmp_path):
    ids = [i["id"] for i in add(*pictures)["ids"]]
    child = os.fork()
    if child == 0:
        with mipp.Deployment.open(tmp_path / "d") as deployment:
            owner = deployment.owner("anna")
            owner.journal.deleted = lambda ids: os.kill(os.getpid(), signal.SIGKILL)
            owner.delete(ids[:2])
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert counts(add(*pictures)) == (2, 6, 0), "not said to be there when it is not"


def clear_journal(path: Path, rows):
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE items (label TEXT NOT NULL, batch BLOB NOT NULL, row INTEGER NOT NULL, "
            "whole INTEGER NOT NULL, PRIMARY KEY (label, batch, row))"
        )
        db.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
    db.close()


def _files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_clear_journal_of_an_earlier_version_is_sealed(add, mipp_command, pictures, tmp_path):
    import hashlib

    report = add(*pictures)
    path = tmp_path / "d/owners/anna.journal"
    rows = []
    for entry in report["ids"]:
        batch, row = entry["id"].split(":")
        digest = hashlib.sha256(Path(entry["file"]).read_bytes()).hexdigest()
        rows.append((f"{entry['file']} {digest}", bytes.fromhex(batch), int(row), 0))
    clear_journal(path, rows)
    held = os.open(path, os.O_RDONLY)
    assert b"p3.png" in path.read_bytes()
    picture(pictures[0], 33)
    assert counts(add(*pictures)) == (1, 7, 1), "the paths are known, too"
    assert os.read(held, 1 << 20) == b"", "the clear pages are gone, not only their name"
    os.close(held)
    for file in _files(tmp_path / "d/owners"):
        content = file.read_bytes()
        assert b".png" not in content and str(tmp_path).encode() not in content
        assert file.stat().st_mode & 0o077 == 0
        assert all(e["file"].encode() not in content for e in report["ids"])


def test_a_new_passphrase_seals_a_clear_journal_of_an_earlier_version(add, mipp_command, tmp_path, monkeypatch):
    path = tmp_path / "d/owners/anna.journal"
    clear_journal(path, [("/home/anna/secret.png " + "0" * 64, bytes(16), 0, 0)])
    assert b"secret.png" in path.read_bytes()
    monkeypatch.setenv("MIPP_NEW_PASSPHRASE", "new")
    assert mipp_command("owner", "passphrase", "anna")[0] == 0
    assert all(b"secret" not in file.read_bytes() for file in _files(tmp_path / "d/owners"))


def test_a_journal_that_is_damaged_or_anothers(add, mipp_command, pictures, tmp_path):
    mipp_command("owner", "create", "berta")
    path = tmp_path / "d/owners/anna.journal"
    path.write_bytes((tmp_path / "d/owners/berta.journal").read_bytes())
    code, _, err = mipp_command("owner", "add", "anna", pictures[0])
    assert code == 1 and "not this owner's" in err
    path.write_bytes(b"no database at all" * 100)
    code, _, err = mipp_command("owner", "add", "anna", pictures[0])
    assert code == 1 and "remove the file" in err and len(err.splitlines()) == 1


def test_two_processes_delete_the_same_images(add, mipp_command, pictures):
    ids = [i["id"] for i in add(*pictures)["ids"]]
    both = [
        subprocess.Popen([*RUN, "owner", "delete", "anna", *ids[:5], "--yes", "--json"], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    reports = [json.loads(process.communicate()[0]) for process in both]
    assert [p.returncode for p in both] == [0, 0] and sorted(r["deleted"] for r in reports) == [0, 5]
    assert images(mipp_command) == 3
