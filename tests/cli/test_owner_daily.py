"""An owner's daily work on the command line: what is there, what goes, who may search it."""

import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import mipp

from .conftest import picture


@pytest.fixture
def world(mipp_command, pictures):
    """An index with eight pictures of anna's."""
    assert mipp_command("init", "--descriptor", "cld")[0] == 0
    assert mipp_command("owner", "create", "anna")[0] == 0
    assert mipp_command("owner", "add", "anna", pictures[0].parent)[0] == 0
    return mipp_command


def said(call, *args, code=0):
    """Standard output of a command that ends with ``code``, read as JSON."""
    got, out, err = call(*args, "--json")
    assert got == code, err
    return json.loads(out)


def listed(call, *patterns):
    return said(call, "owner", "list", "anna", *patterns)["images"]


def names(call, *patterns):
    return [Path(i["file"]).name for i in listed(call, *patterns)]


# --- list -----------------------------------------------------------------------------------------------------------


def test_images_are_listed_with_lasting_ids_times_and_paths(world, pictures, tmp_path):
    before = listed(world)
    assert [Path(i["file"]) for i in before] == pictures and all(abs(i["added"] - time.time()) < 60 for i in before)
    assert [i["id"] for i in before] == [f"{i['batch']}:{i['row']}" for i in before]
    assert world("owner", "delete", "anna", before[0]["id"])[0] == 0
    assert said(world, "owner", "compact", "anna")["batches"] == 1
    after = listed(world)
    assert [(i["id"], i["file"], i["added"]) for i in after] == [(i["id"], i["file"], i["added"]) for i in before[1:]]
    assert after[0]["batch"] != before[1]["batch"]
    # records of images by ids from before the merge
    ids = [i["id"] for i in before[1:3]]
    assert [r["path"] for r in said(world, "owner", "records", "anna", *ids)["records"]] == ["p1.png", "p2.png"]
    assert said(world, "owner", "annotate", "anna", ids[0], "--set", "caption=one")["annotated"] == 1
    for command in (("annotate", "anna", "zzz", "--set", "a=b"), ("records", "anna", "zzz")):
        code, out, err = world("owner", *command)
        assert (
            code == 1 and not out and err == "mipp: error: zzz is no image id (batch:row); mipp owner list shows ids\n"
        )
    (batch,) = said(world, "owner", "list", "anna", "--batches")["batches"]
    assert (batch["rows"], batch["live"], batch["refused"]) == (7, 7, "") and batch["added"] >= before[0]["added"]


def test_the_list_as_text_and_csv_and_under_its_earlier_name(world, pictures, monkeypatch):
    code, out, _ = world("owner", "list", "anna")
    lines = out.splitlines()
    assert code == 0 and re.fullmatch(r"id +row +added +file", lines[0]) and len(lines) == 9
    assert re.fullmatch(rf"[0-9a-f]{{32}}:0  0 +\d+-\d+-\d+ .* UTC  {re.escape(str(pictures[0]))}", lines[1])
    rows = list(csv.DictReader(io.StringIO(world("owner", "list", "anna", "--csv")[1])))
    assert [row["file"] for row in rows] == [str(p) for p in pictures]
    assert said(world, "owner", "images", "anna") == said(world, "owner", "list", "anna")
    assert world("owner", "list", "anna", "--csv", "--json")[0] == 2
    assert world("owner", "list", "anna", "--batches", "x")[0] == 2
    assert "rows" in world("owner", "list", "anna", "--batches")[1]


def test_patterns_choose_files(world, pictures, monkeypatch, tmp_path):
    inner = pictures[0].parent / "inner"
    inner.mkdir()
    picture(inner / "a[1].png", 70)
    world("owner", "add", "anna", pictures[0].parent)
    monkeypatch.chdir(pictures[0].parent)
    assert names(world, "p[01].png") == ["p0.png", "p1.png"]
    assert names(world, "*.png") == [p.name for p in pictures]
    assert names(world, "**/*.png") == [*(p.name for p in pictures), "a[1].png"]
    assert names(world, "inner/a[1].png") == ["a[1].png"]
    assert names(world, str(tmp_path / "*/inner/*"), "p3.png") == ["p3.png", "a[1].png"]
    assert names(world, "/**/p7.*") == ["p7.png"] and names(world, "*.jpg") == []


def test_files_of_vectors_are_listed(mipp_command, tmp_path, monkeypatch):
    mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 4)).close()
    mipp_command("owner", "create", "anna")
    for name, rows in ("a.npy", 5), ("b.npy", 3):
        np.save(tmp_path / name, np.random.default_rng(rows).normal(size=(rows, 4)))
        assert mipp_command("owner", "add", "anna", "--vectors", tmp_path / name)[0] == 0
    found = said(mipp_command, "owner", "list", "anna")["vectors"]
    assert [(Path(f["file"]).name, f["rows"], len(f["batches"])) for f in found] == [("a.npy", 5, 1), ("b.npy", 3, 1)]
    assert mipp_command("owner", "list", "anna", str(tmp_path / "b*"))[1].splitlines()[1].endswith("b.npy")
    plan = said(mipp_command, "owner", "delete", "anna", tmp_path / "a.npy", "--dry-run")
    assert plan["rows"] == 5 and plan["files"] == [str(tmp_path / "a.npy")]
    out = mipp_command("owner", "delete", "anna", tmp_path / "a.npy", tmp_path / "b.npy", "--dry-run")[1]
    assert out.splitlines()[-1] == "8 rows of 2 files in all"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, _, err = mipp_command("owner", "delete", "anna", tmp_path / "a.npy")
    assert code == 1 and "Delete 5 rows of 1 file of owner anna?" in err
    assert [f["rows"] for f in said(mipp_command, "owner", "list", "anna")["vectors"]] == [5, 3]
    code, out, err = mipp_command("owner", "delete", "anna", tmp_path / "a.npy", "--yes")
    assert out == "5 deleted\n" and "a.npy is still on the disk: adding or syncing brings it back" in err
    assert [f["rows"] for f in said(mipp_command, "owner", "list", "anna")["vectors"]] == [3]


def test_hostile_names_of_files_stay_text(world, pictures, capsys):
    name = "=1+1\x1b[31m\n[bold]x.png"
    picture(pictures[0].parent / name, 55)
    world("owner", "add", "anna", pictures[0].parent)
    out = world("owner", "list", "anna")[1]
    assert "\x1b" not in out and r"\x1b[31m\n[bold]x.png" in out
    (row,) = [r for r in csv.DictReader(io.StringIO(world("owner", "list", "anna", "--csv")[1])) if "bold" in r["file"]]
    assert "\x1b" not in row["file"]
    code, out, err = world("owner", "delete", "anna", pictures[0].parent / name, "--dry-run")
    assert code == 0 and "\x1b" not in out + err


def test_links_that_go_round_are_no_files(world, tmp_path, monkeypatch):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for target in ("loop/a.png", "loop/*.png", "", ".."):
        monkeypatch.chdir(tmp_path)
        code, out, err = world("owner", "delete", "anna", target)
        assert code == 1 and out == "" and err.count("\n") == 1, target
        assert said(world, "owner", "list", "anna", "loop/*.png")["images"] == []


# --- delete ---------------------------------------------------------------------------------------------------------


def test_files_are_deleted_by_path_and_pattern(world, pictures, monkeypatch):
    folder = pictures[0].parent
    assert said(world, "owner", "delete", "anna", pictures[0])["deleted"] == 1
    os.unlink(pictures[1])  # need not be there
    assert said(world, "owner", "delete", "anna", pictures[1])["deleted"] == 1
    plan = said(world, "owner", "delete", "anna", f"{folder}/p[2-4]*", "--dry-run")
    assert plan["files"] == [str(p) for p in pictures[2:5]] and len(listed(world)) == 6
    monkeypatch.chdir(folder)
    ids = [i["id"] for i in listed(world)]
    assert said(world, "owner", "delete", "anna", "p[2-4]*", ids[-1], "--yes")["deleted"] == 4
    assert names(world) == ["p5.png", "p6.png"]
    assert said(world, "owner", "delete", "anna", ids[-1]) == {
        "owner": "anna", "deleted": 0, "already_gone": 1, "kept": 0,
    }  # fmt: skip


def test_a_target_that_names_nothing_deletes_nothing(world, pictures):
    folder = pictures[0].parent
    first = listed(world)[0]["id"]
    for bad in (f"{folder}/*.gif", folder / "q.png", f"{'0' * 32}:1"):
        code, out, err = world("owner", "delete", "anna", first, pictures[1], bad, "--yes")
        assert code == 1 and out == "" and err.count("\n") == 1, bad
    code, _, err = world("owner", "delete", "anna", folder)
    assert code == 1 and f"{folder} is a folder with 8 files" in err and f"'{folder}/**'" in err
    assert len(listed(world)) == 8
    assert world("owner", "delete", "anna", f"{folder}/**", "--yes")[0] == 0 and listed(world) == []


def test_a_file_whose_name_is_a_pattern_stands_for_itself(world, pictures):
    """Deleting ``a[1].png`` deleted ``a1.png``, without a question."""
    folder = pictures[0].parent
    for name in ("p[1].png", "p*.png"):
        shutil.copy(pictures[0], folder / name)
        code, _, err = world("owner", "delete", "anna", folder / name, "--yes")
        assert code == 1 and "names no file" in err
    assert len(listed(world)) == 8
    assert listed(world, str(folder / "p*.png")) == []
    os.unlink(folder / "p[1].png")
    assert said(world, "owner", "delete", "anna", folder / "p[1].png")["deleted"] == 1


def test_more_than_one_is_asked_for(world, pictures, monkeypatch):
    answers = ["n\n", "y\n"]
    monkeypatch.setattr("sys.stdin", io.StringIO(answers[0]))
    code, _, err = world("owner", "delete", "anna", *pictures[:2])
    assert code == 1 and "nothing was changed" in err and str(pictures[0]) in err and len(listed(world)) == 8
    monkeypatch.setattr("sys.stdin", io.StringIO(answers[1]))
    assert world("owner", "delete", "anna", *pictures[:2])[0] == 0 and len(listed(world)) == 6


def test_content_that_another_file_holds_stays(world, pictures, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(pictures[0], copy)
    world("owner", "add", "anna", copy)
    out = said(world, "owner", "delete", "anna", pictures[0])
    assert (out["deleted"], out["kept"]) == (0, 1) and str(copy) in [i["file"] for i in listed(world)]
    assert said(world, "owner", "delete", "anna", copy)["deleted"] == 1 and len(listed(world)) == 7


def test_a_deletion_that_was_interrupted_goes_on(world, pictures, tmp_path, monkeypatch):
    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mipp.client.owner.ImageOwner.delete", dies)
        assert world("owner", "delete", "anna", pictures[0])[0] == 130
    assert len(listed(world)) == 8
    assert said(world, "owner", "delete", "anna", pictures[0])["deleted"] == 1 and len(listed(world)) == 7


# --- grants ---------------------------------------------------------------------------------------------------------


def test_grants_are_listed(world, tmp_path):
    assert world("owner", "grants", "anna")[1] == "owner anna grants nobody anything\n"
    for user in ("ulla", "vera", "wim"):
        world("user", "create", user)
    world("owner", "grant", "anna", "ulla", "--quota", "100", "--max-k", "5", "--expiry", "2099-01-31", "--no-scores")
    world("owner", "grant", "anna", "vera")
    world("owner", "grant", "anna", "wim")
    world("owner", "revoke", "anna", "wim")
    (tmp_path / "d" / "users" / "vera.key").rename(tmp_path / "vera.key")
    found = {g["user"]: g for g in said(world, "owner", "grants", "anna")["grants"]}
    assert set(found) == {"ulla", None, "wim"}
    ulla = found["ulla"]
    assert (ulla["quota"], ulla["max_k"], ulla["scores"], ulla["state"]) == (100, 5, False, "valid")
    assert found["wim"]["state"] == "revoked" and found[None]["state"] == "valid"
    out = world("owner", "grants", "anna")[1]
    assert "2099-01-31 00:00:00 UTC" in out and "revoked" in out and found[None]["id"] in out
    rows = list(csv.DictReader(io.StringIO(world("owner", "grants", "anna", "--csv")[1])))
    assert {row["user"]: row["max k"] for row in rows} == {"ulla": "5", "": "", "wim": ""}
    assert world("owner", "grants", "anna", "--csv", "--json")[0] == 2


# --- passphrases ----------------------------------------------------------------------------------------------------


def test_every_command_of_an_owner_takes_a_passphrase_file():
    from mipp.cli.owner import owner_group

    options = {name: {o for p in c.params for o in p.opts} for name, c in owner_group.commands.items()}
    assert {name for name, known in options.items() if "--passphrase-file" not in known} == set()


# --- reencode -------------------------------------------------------------------------------------------------------


@pytest.fixture
def second(world, tmp_path, monkeypatch):
    """Another index, of another descriptor, with an owner anna; the folder of the first."""
    monkeypatch.setenv("MIPP_DEPLOYMENT", str(tmp_path / "e"))
    assert world("init", "--descriptor", "ehd")[0] == 0 and world("owner", "create", "anna")[0] == 0
    return tmp_path / "d"


def test_an_index_is_made_of_another(world, second, pictures):
    for picture_path in pictures:
        picture_path.rename(picture_path.with_suffix(".away"))
    out = said(world, "owner", "reencode", "anna", "--from", second, "--workers", "1")
    assert (out["added"], out["skipped"], out["left_out"], out["quantised_twice"]) == (8, 0, [], False)
    assert names(world) == [p.name for p in pictures]
    assert world("owner", "reencode", "anna", "--from", second)[1] == "0 added, 8 already there, 0 left out\n"


def test_files_that_are_missing_among_originals_are_named(world, second, pictures):
    pictures[0].unlink()
    out = said(world, "owner", "reencode", "anna", "--from", second, "--originals", pictures[0].parent, code=1)
    assert out["added"] == 7 and len(out["left_out"]) == 1


def test_wrong_arguments_of_reencode(world, second, tmp_path, monkeypatch):
    assert world("owner", "reencode", "anna")[0] == 2
    for old in (tmp_path / "e", tmp_path / "nowhere", tmp_path):
        code, out, err = world("owner", "reencode", "anna", "--from", old)
        assert code == 1 and out == "" and err.count("\n") == 1, old
    assert world("owner", "reencode", "berta", "--from", second)[0] == 1
    assert world("owner", "reencode", "anna", "--from", second, "--originals", tmp_path / "nowhere")[0] == 2


def test_both_key_files_have_passphrases(world, second, tmp_path, monkeypatch):
    line = tmp_path / "line"
    line.write_text("one\n")
    line.chmod(0o600)
    for folder in (second, tmp_path / "e"):
        args = ("owner", "passphrase", "anna", "--new-passphrase-file", line, "--deployment", folder)
        assert world(*args)[0] == 0
    assert "needs its passphrase" in world("owner", "reencode", "anna", "--from", second)[2]
    args = ("owner", "reencode", "anna", "--from", second, "--workers", "1", "--passphrase-file", line)
    assert said(world, *args)["added"] == 8


# --- killed processes -----------------------------------------------------------------------------------------------

RUN = [sys.executable, "-c", "from mipp.cli import main; main()"]


def killed(folder, seconds, *args):
    """A command in a process of its own, killed after some time."""
    env = os.environ | {"MIPP_DEPLOYMENT": str(folder)}
    process = subprocess.Popen([*RUN, *map(str, args)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


@pytest.mark.slow  # starts a process for each kill
def test_ids_name_their_images_through_merges_that_are_killed(world, pictures, tmp_path):
    rng = random.Random(3)
    known = {i["id"]: i["file"] for i in listed(world)}
    for turn in range(8):
        picture(pictures[0].parent / f"new{turn}.png", 100 + turn)
        assert world("owner", "add", "anna", pictures[0].parent)[0] == 0
        killed(tmp_path / "d", rng.uniform(0.5, 1.6), "owner", "compact", "anna")
        if turn == 4:
            (tmp_path / "d" / "owners" / "anna.journal").unlink()
            world("owner", "add", "anna", pictures[0].parent)
        now = {i["id"]: i["file"] for i in listed(world)}
        assert now.items() >= known.items() and len(now) == len(known) + 1, turn
        known = now
        ids = list(known)
        shown = said(world, "owner", "records", "anna", *ids)["records"]
        assert [r["path"] for r in shown] == [Path(known[i]).name for i in ids]


@pytest.mark.slow  # starts a process for each kill
def test_reencoding_that_is_killed(world, second, pictures, tmp_path):
    rng = random.Random(4)
    for n in range(120):
        picture(pictures[0].parent / f"more{n}.png", 200 + n)
    assert world("owner", "add", "anna", pictures[0].parent, "--deployment", second)[0] == 0
    for turn in range(6):
        killed(tmp_path / "e", rng.uniform(1.0, 2.5), "owner", "reencode", "anna", "--from", second, "--workers", "1")
        if turn == 3:
            world("owner", "compact", "anna", "--deployment", second)
    out = said(world, "owner", "reencode", "anna", "--from", second)
    assert out["added"] + out["skipped"] == 128 and len(listed(world)) == 128
    assert sum(b["live"] for b in said(world, "owner", "list", "anna", "--batches")["batches"]) == 128


# --- what a newcomer met --------------------------------------------------------------------------------------------


def test_metadata_of_other_files_is_said_and_the_rest_goes_on(mipp_command, pictures, tmp_path):
    """One table for a whole archive serves for each new file; a table that names none of the files is refused."""
    mipp_command("init", "--descriptor", "cld", "--preview-size", 1024)
    mipp_command("owner", "create", "anna")
    (tmp_path / "all.csv").write_text("path,caption\np0.png,first\np1.png,second\np2.png,third\n")
    code, out, err = mipp_command("owner", "add", "anna", pictures[0], "--metadata", tmp_path / "all.csv")
    assert code == 0 and "1 added" in out and "p1.png" in err and "1 more" in err
    code, _, err = mipp_command("owner", "add", "anna", pictures[5], "--metadata", tmp_path / "all.csv")
    assert code == 1 and "not among the files" in err


def test_lists_and_deletions_say_what_a_person_may_miss(world, pictures):
    code, out, err = world("owner", "list", "anna", "nowhere/*")
    assert (code, out) == (0, "") and "no file nowhere/*" in err
    code, _, err = world("owner", "delete", "anna", str(pictures[0]))
    assert code == 0 and "still on the disk" in err
    pictures[1].unlink()
    code, _, err = world("owner", "delete", "anna", str(pictures[1]))
    assert code == 0 and err == ""
