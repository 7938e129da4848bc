"""``mipp owner sync``: images follow a folder exactly once, whatever the folder, servers or the process do."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mipp
from mipp.client.syncing import FolderFollower
from mipp.errors import NotFoundError, ParameterError, UnreachableError

from .conftest import picture

RUN = [sys.executable, "-c", "from mipp.cli import main; main()"]


@pytest.fixture
def folder(mipp_command, tmp_path):
    """An index, its owner anna, and a folder with three pictures in two folders."""
    assert mipp_command("init", "--descriptor", "cld")[0] == 0
    assert mipp_command("owner", "create", "anna")[0] == 0
    made = tmp_path / "photos"
    (made / "inner").mkdir(parents=True)
    for n, name in enumerate(["a.png", "b.png", "inner/c.png"]):
        picture(made / name, n)
    return made


@pytest.fixture
def sync(mipp_command):
    def call(folder, *options, code=0):
        got, out, err = mipp_command("owner", "sync", "anna", folder, "--settle", "0", *options, "--json")
        assert got == code, err
        return json.loads(out) if code == 0 else err

    return call


def counts(report):
    return report["added"], report["replaced"], report["deleted"], report["kept"]


def files(mipp_command):
    listed = json.loads(mipp_command("owner", "list", "anna", "--json")[1])["images"]
    return [Path(i["file"]).name if i["file"] else None for i in listed]


def test_additions_changes_moves_and_deletions_follow(sync, folder, mipp_command):
    assert counts(sync(folder)) == (3, 0, 0, 0) and counts(sync(folder)) == (0, 0, 0, 0)
    picture(folder / "d.png", 9)
    picture(folder / "b.png", 10)
    (folder / "a.png").rename(folder / "inner" / "moved.png")
    (folder / "inner" / "c.png").unlink()
    assert counts(sync(folder)) == (2, 1, 1, 0)
    assert sorted(files(mipp_command)) == ["b.png", "d.png", "moved.png"] and counts(sync(folder)) == (0, 0, 0, 0)
    records = json.loads(mipp_command("owner", "list", "anna", f"{folder}/**", "--json")[1])["images"]
    ids = [i["id"] for i in records]
    assert {r["path"] for r in json.loads(mipp_command("owner", "records", "anna", *ids, "--json")[1])["records"]} == {
        "a.png", "b.png", "d.png",
    }  # fmt: skip


def test_only_images_of_the_folder_are_deleted(sync, folder, mipp_command, tmp_path):
    outside, copy = picture(tmp_path / "outside.png", 50), tmp_path / "copy.png"
    shutil.copy(folder / "a.png", copy)
    mipp_command("owner", "add", "anna", outside, copy)
    assert counts(sync(folder)) == (2, 0, 0, 0)
    outside.unlink()
    (folder / "a.png").unlink()
    assert counts(sync(folder)) == (0, 0, 0, 1), "copy.png holds the content, and outside.png is none of the folder's"
    copy.unlink()
    assert counts(sync(folder)) == (0, 0, 0, 0) and len(files(mipp_command)) == 4
    # the same name in a folder beside it, whose name begins alike
    beside = tmp_path / "photos-2"
    beside.mkdir()
    picture(beside / "b.png", 60)
    assert counts(sync(beside)) == (1, 0, 0, 0)
    shutil.rmtree(beside)
    assert counts(sync(folder)) == (0, 0, 0, 0) and len(files(mipp_command)) == 5


def test_a_folder_that_vanished_deletes_nothing(sync, folder, mipp_command, tmp_path):
    sync(folder)
    away = folder.rename(tmp_path / "away")
    assert "is it mounted?" in sync(folder, code=1)
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    error = sync(folder, code=1)
    assert "holds no images" in error and "the 3 files" in error and error.count("\n") == 1
    assert len(files(mipp_command)) == 3
    shutil.rmtree(folder)
    away.rename(folder)
    assert counts(sync(folder)) == (0, 0, 0, 0)
    shutil.rmtree(folder)
    assert counts(sync(folder, "--allow-empty")) == (0, 0, 3, 0) and files(mipp_command) == []
    assert counts(sync(folder, "--allow-empty")) == (0, 0, 0, 0)
    folder.mkdir()
    assert counts(sync(folder)) == (0, 0, 0, 0)  # nothing there, nothing known


def test_another_disk_deletes_nothing(sync, folder, mipp_command, tmp_path):
    """Whatever else is there: one picture, one that is indexed elsewhere, one of the folder's own, more than it had."""
    sync(folder)
    away = folder.rename(tmp_path / "away")
    for others in (1, 4):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for n in range(others):
            picture(folder / f"other{n}.png", 100 + n)
        if others > 1:
            shutil.copy(away / "a.png", folder / "same.png")
        error = sync(folder, code=1)
        assert "holds other images" in error and "is it mounted?" in error and "the 3 files" in error
        assert len(files(mipp_command)) == 3, "nothing is added from it, either"
    shutil.rmtree(folder)
    folder.mkdir()
    for n, path in enumerate(sorted(away.rglob("*.png"))):  # all renamed: nothing would be deleted
        shutil.copy(path, folder / f"renamed{n}.png")
    assert counts(sync(folder)) == (0, 0, 0, 0) and len(files(mipp_command)) == 3
    shutil.rmtree(folder)
    folder.mkdir()
    picture(folder / "other.png", 100)
    assert counts(sync(folder, "--allow-empty")) == (1, 0, 3, 0)


def test_only_a_regular_file_holds_content(sync, folder, mipp_command, tmp_path):
    """A link that leads nowhere, and a folder that has the file's name now, hold nothing."""
    os.symlink("a.png", folder / "alias.png")
    os.symlink("b.png", folder / "other.png")
    os.symlink("loop.png", folder / "loop.png")
    sync(folder, code=1)  # the loop is left out
    (folder / "loop.png").unlink()
    (folder / "a.png").unlink()
    os.symlink("a.png", folder / "a.png")
    (folder / "inner" / "c.png").unlink()
    (folder / "inner" / "c.png").mkdir()
    mipp_command("owner", "sync", "anna", folder, "--settle", "0")
    assert sorted(files(mipp_command)) == ["b.png", "other.png"]  # one image, two paths
    (folder / "b.png").rename(folder / "moved.png")  # and its link leads nowhere
    mipp_command("owner", "sync", "anna", folder, "--settle", "0")
    assert files(mipp_command) == ["moved.png"]


def test_a_file_elsewhere_that_a_link_names_is_never_deleted(sync, folder, mipp_command, tmp_path):
    elsewhere = picture(tmp_path / "elsewhere.png", 70)
    os.symlink(elsewhere, folder / "link.png")
    assert counts(sync(folder, "--follow-links")) == (4, 0, 0, 0)
    elsewhere.rename(tmp_path / "hidden.png")  # its disk is not mounted
    mipp_command("owner", "sync", "anna", folder, "--settle", "0", "--follow-links")
    assert len(files(mipp_command)) == 4
    (folder / "link.png").unlink()
    assert counts(sync(folder)) == (0, 0, 1, 0)


def test_a_disk_that_goes_in_the_middle_deletes_nothing(folder, tmp_path):
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        owner = deployment.owner("anna")
        follower = FolderFollower(owner, folder, settle=0)
        follower.step(follower.look())
        (folder / "a.png").unlink()
        look = follower.look()
        folder.rename(tmp_path / "away")
        with pytest.raises(NotFoundError, match="are gone; is it mounted"):
            follower.step(look)
        assert len(owner.images()) == 3
        (tmp_path / "away").rename(folder)
        assert follower.step(follower.look()).deleted == 1


def test_what_cannot_be_read_stays(sync, folder, mipp_command, tmp_path):
    sync(folder)
    (folder / "a.png").write_bytes(b"broken")
    got, out, _ = mipp_command("owner", "sync", "anna", folder, "--settle", "0", "--json")
    assert got == 1 and json.loads(out)["errors"][0]["file"] == str(folder / "a.png")
    assert len(files(mipp_command)) == 3, "the content before is not deleted for a broken one"
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(tmp_path / "nowhere.png")
    mipp_command("owner", "sync", "anna", folder, "--settle", "0", "--json")
    assert len(files(mipp_command)) == 3


def test_wrong_arguments(mipp_command, sync, folder):
    assert "is no folder" in sync(folder / "a.png", code=1)
    assert mipp_command("owner", "sync", "anna", folder, "--interval", "0")[0] == 2
    assert mipp_command("owner", "sync", "berta", folder)[0] == 1


def test_an_index_of_vectors_is_refused(tmp_path, folder):
    with mipp.Deployment.create(tmp_path / "v", mipp.Encoding("cosine", 4)) as deployment:
        owner = deployment.create_owner("anna")
        follower = FolderFollower(owner, folder, settle=0)
        with pytest.raises(ParameterError):
            follower.step(follower.look())
        owner.journal = None
        with pytest.raises(ParameterError, match="no journal"):
            FolderFollower(owner, folder)


def test_files_that_are_still_written_wait(folder, tmp_path, monkeypatch):
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        follower = FolderFollower(deployment.owner("anna"), folder, settle=0.5)
        for path in folder.rglob("*.png"):
            os.utime(path, (1, 1))
        content = (folder / "b.png").read_bytes()
        writes = iter([content[:50], content])

        def writing(seconds):
            (folder / "b.png").write_bytes(next(writes))

        monkeypatch.setattr("mipp.client.syncing.time.sleep", writing)
        look = follower.look()
        assert look.waiting == [folder / "b.png"] and len(look.ready) == 2
        assert len(follower.step(look).report.added) == 2
        look = follower.look()
        assert look.waiting == [folder / "b.png"] and not look.ready
        monkeypatch.setattr("mipp.client.syncing.time.sleep", lambda seconds: None)
        look = follower.look()
        assert look.ready == [folder / "b.png"] and follower.step(look).report.errors == []
        assert follower.look().ready == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pass_that_dies_at_any_change_is_made_up_for(folder, tmp_path, when):
    """Every change to the index once: nothing twice, nothing lost."""
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        follower = FolderFollower(deployment.owner("anna"), folder, settle=0)
        follower.step(follower.look())
    picture(folder / "b.png", 10)
    picture(folder / "new.png", 11)
    (folder / "a.png").unlink()
    for deadly in range(1, 5):
        with mipp.Deployment.open(tmp_path / "d") as deployment:
            owner = deployment.owner("anna")
            make, made = owner._changes.make, []

            def dies(*args, make=make, made=made, deadly=deadly):
                made.append(args[0])
                if len(made) == deadly and when == "before":
                    raise KeyboardInterrupt
                make(*args)
                if len(made) == deadly:
                    raise KeyboardInterrupt

            owner._changes.make = dies
            follower = FolderFollower(owner, folder, settle=0)
            with contextlib.suppress(KeyboardInterrupt):
                follower.step(follower.look())
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        owner = deployment.owner("anna")
        follower = FolderFollower(owner, folder, settle=0)
        follower.step(follower.look())
        assert sorted(i.path.name for i in owner.images()) == ["b.png", "c.png", "new.png"]
        assert sum(b.live for b in owner.batches()) == 3


def test_watching_adds_waits_and_ends(folder, tmp_path, mipp_command, monkeypatch):
    """One pass after the other in this process: what happens between passes is done by the pause."""
    sync_folder, real = [], FolderFollower.step
    failing = iter([UnreachableError("server 2 cannot be reached"), UnreachableError("server 2 cannot be reached")])
    waits = []

    def step(self, look, progress=None):
        if len(sync_folder) in (2, 3):
            sync_folder.append("fails")
            raise next(failing)
        sync_folder.append("pass")
        return real(self, look, progress)

    def pause(seconds):
        waits.append(seconds)
        turn = len(waits)
        if turn == 1:
            picture(folder / "new.png", 31)
        elif turn == 4:
            (folder / "new.png").unlink()
        elif turn == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(FolderFollower, "step", step)
    monkeypatch.setattr("mipp.cli.owner_sync.time.sleep", pause)
    code, out, err = mipp_command(
        "owner", "sync", "anna", folder, "--settle", "0", "--watch", "--interval", "5", "--json"
    )
    assert code == 0 and waits == [5, 5, 10, 20, 5, 5, 5]
    assert [counts(json.loads(line)) for line in out.splitlines()] == [(3, 0, 0, 0), (1, 0, 0, 0), (0, 0, 1, 0)]
    assert err.count("server 2 cannot be reached; trying again in") == 2 and "stopped" in err


def run(tmp_path, *args, **options):
    return subprocess.Popen(
        [*RUN, *map(str, args)], env=os.environ | {"MIPP_DEPLOYMENT": str(tmp_path / "d")}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.mark.slow  # starts a process for each kill
def test_killed_at_random_moments(folder, tmp_path, mipp_command):
    rng = random.Random(5)
    number = 100
    for turn in range(8):
        for n in range(12):
            picture(folder / f"t{turn}-{n}.png", number + n)
        number += 12
        for path in rng.sample(sorted(folder.rglob("*.png")), 4 if turn else 1):
            action = rng.choice(["delete", "move", "change"])
            if action == "delete":
                path.unlink()
            elif action == "move":
                path.rename(folder / "inner" / f"m{number}.png")
            else:
                picture(path, number)
            number += 1
        process = run(tmp_path, "owner", "sync", "anna", folder, "--settle", "0")
        time.sleep(rng.uniform(0.8, 3.0))
        process.kill()
        process.communicate()
    process = run(tmp_path, "owner", "sync", "anna", folder, "--settle", "0", "--json")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(files(mipp_command)) == sorted(p.name for p in folder.rglob("*.png"))
    live = json.loads(mipp_command("owner", "list", "anna", "--batches", "--json")[1])["batches"]
    assert sum(b["live"] for b in live) == len(list(folder.rglob("*.png")))
    assert counts(json.loads(mipp_command("owner", "sync", "anna", folder, "--settle", "0", "--json")[1])) == (0,) * 4


@pytest.mark.slow  # starts processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watch_ends_at_a_signal(folder, tmp_path, mipp_command, number):
    process = run(tmp_path, "owner", "sync", "anna", folder, "--watch", "--interval", "0.2", "--settle", "0.1")
    until = time.monotonic() + 60
    while time.monotonic() < until and len(files(mipp_command)) < 3:
        time.sleep(0.3)
    picture(folder / "late.png", 77)
    while time.monotonic() < until and len(files(mipp_command)) < 4:
        time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and "stopped" in err and "Traceback" not in err
    assert "3 added" in out and "1 added" in out


@pytest.mark.slow  # starts two processes
def test_two_processes_follow_one_folder(folder, tmp_path, mipp_command):
    for n in range(20):
        picture(folder / f"x{n}.png", 200 + n)
    both = [run(tmp_path, "owner", "sync", "anna", folder, "--settle", "0", "--json") for _ in range(2)]
    done = [json.loads(p.communicate(timeout=120)[0]) for p in both]
    assert sum(d["added"] for d in done) == 23 and len(files(mipp_command)) == 23
