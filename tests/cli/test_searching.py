"""``mipp search`` with many queries, with stored images, and for some owners only."""

import csv
import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import mipp
from mipp.cli import search_batch
from mipp.cli.batch_outputs import Found
from mipp.client.results import Hits
from mipp.client.user import User

HOSTILE = "=cmd|' /C calc'!A0\x1b[31m[red]"


@pytest.fixture
def images(mipp_command, pictures):
    """An index of images: six of anna's, two of berta's; ulla may search both."""
    assert mipp_command("init", "--descriptor", "cld", "--preview-size", 1024)[0] == 0
    for name, some in (("anna", pictures[:6]), ("berta", pictures[6:])):
        assert mipp_command("owner", "create", name)[0] == 0
        assert mipp_command("owner", "add", name, *some)[0] == 0
    assert mipp_command("user", "create", "ulla")[0] == 0
    for name in ("anna", "berta"):
        assert mipp_command("owner", "grant", name, "ulla", "--ranking", "server", "--ranking", "user")[0] == 0
    return pictures


@pytest.fixture
def vectors(mipp_command, tmp_path):
    """An index of vectors: 30 of anna's, 10 of berta's; all rows and a file of 25 queries."""
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(40, 12)).astype(np.float32), rng.normal(size=(25, 12)).astype(np.float32)
    encoding = mipp.Encoding.fit("cosine", rows, server_ranking=True)
    with mipp.Deployment.create(tmp_path / "d", encoding, preview_size=512) as deployment:
        anna, berta, user = (
            deployment.create_owner("anna"), deployment.create_owner("berta"), deployment.create_user("ulla")
        )  # fmt: skip
        anna.add_vectors(rows[:30], metadata=[{"caption": HOSTILE} for _ in range(30)])
        berta.add_vectors(rows[30:])
        for owner in (anna, berta):
            owner.grant(user, rankings=["server", "user"])
    np.save(tmp_path / "q.npy", queries)
    return rows, queries, tmp_path / "q.npy"


def expected(tmp_path, queries, k, **options):
    """Rows (query, rank, id, owner, score) as ``search_batch`` of the library gives them."""
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        results = deployment.user("ulla").search_batch(queries, k, **options)
    return [
        (q, rank, hit.id, hit.owner_name, hit.score)
        for q, result in enumerate(results)
        for rank, hit in enumerate(result.hits, 1)
    ]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def same(rows):
    return [(row["query"], row["rank"], row["id"], row["owner"], row["score"]) for row in rows]


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_every_output_holds_the_hits_of_the_library(mipp_command, tmp_path, vectors, monkeypatch, ranking):
    monkeypatch.setattr(search_batch, "BLOCK", {"user": 10, "server": 10})  # so that there are three blocks
    _, queries, file = vectors
    wanted = expected(tmp_path, queries, 4, ranking=ranking)
    args = ("search", "ulla", "--vectors", file, "-k", 4, "--ranking", ranking)
    code, out, _ = mipp_command(*args, "--json")
    assert code == 0 and same(lines(out)) == wanted and set(lines(out)[0]) == {
        "query", "rank", "id", "owner", "score", "value"
    }  # fmt: skip
    for suffix in ("csv", "jsonl", "npz"):
        path = tmp_path / f"hits.{suffix}"
        code, out, _ = mipp_command(*args, "--out", path, "--json")
        told = json.loads(out)
        assert code == 0 and (told["queries"], told["hits"], told["failed"]) == (25, 100, [])
        assert told["verified"] == (ranking == "user") and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same(lines((tmp_path / "hits.jsonl").read_text())) == wanted
    with open(tmp_path / "hits.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(int(r["query"]), int(r["rank"]), r["id"], r["owner"], int(r["score"])) for r in rows] == wanted
    with np.load(tmp_path / "hits.npz", allow_pickle=False) as arrays:
        assert arrays["batch"].shape == (25, 4, 16) and arrays["batch"].dtype == np.uint8
        assert arrays["row"].shape == (25, 4) and arrays["row"].dtype == np.int64
        assert arrays["query"].tolist() == list(range(25)) and str(arrays["metric"]) == "cosine"
        assert bool(str(arrays["unverified"])) == (ranking == "server")
        owners = arrays["owners"][arrays["owner"]]
        found = [
            (q, r + 1, f"{arrays['batch'][q, r].tobytes().hex()}:{arrays['row'][q, r]}", str(owners[q, r]),
             int(arrays["score"][q, r]))
            for q in range(25) for r in range(4)
        ]  # fmt: skip
        assert found == wanted
        assert arrays["value"].ravel().tolist() == [float(r["value"]) for r in rows]


def test_arrays_are_written_without_an_object_for_each_hit(mipp_command, tmp_path, vectors, monkeypatch):
    def made(*args, **options):
        raise AssertionError("an object for each hit")

    monkeypatch.setattr(Hits, "at", made)
    monkeypatch.setattr(Found, "hits", made)
    assert mipp_command("search", "ulla", "--vectors", vectors[2], "--out", tmp_path / "hits.npz")[0] == 0


def test_lines_for_a_person_name_each_query(mipp_command, vectors):
    code, out, _ = mipp_command("search", "ulla", "--vectors", vectors[2], "-k", 2)
    shown = out.splitlines()
    assert code == 0 and len(shown) == 75 and shown[0] == "query 0" and shown[3] == "query 1"
    assert shown[1].startswith("  1  ") and "score" in shown[1]


def test_formats_of_query_files(mipp_command, tmp_path, vectors):
    h5py = pytest.importorskip("h5py")
    from mipp.io.vectors import save_fvecs

    _, queries, file = vectors
    save_fvecs(tmp_path / "q.fvecs", queries)
    with h5py.File(tmp_path / "both.hdf5", "w") as made:
        made["train"], made["test"] = np.zeros((3, 12)), queries
    with h5py.File(tmp_path / "one.h5", "w") as made:
        made["train"] = queries
    np.save(tmp_path / "one.npy", queries[3])
    outputs = [
        mipp_command("search", "ulla", "--vectors", path, "-k", 3, "--json")
        for path in (file, tmp_path / "q.fvecs", tmp_path / "both.hdf5", tmp_path / "one.h5")
    ]
    assert all(code == 0 and out == outputs[0][1] for code, out, _ in outputs)
    code, _, _ = mipp_command(
        "search", "ulla", "--vector", tmp_path / "one.npy", "-k", 3, "--out", tmp_path / "o.jsonl"
    )
    found = lines((tmp_path / "o.jsonl").read_text())
    assert code == 0 and [row["id"] for row in found] == [r["id"] for r in lines(outputs[0][1]) if r["query"] == 3]


def test_a_broken_image_among_many_is_said_and_the_others_go_on(mipp_command, images, tmp_path, monkeypatch):
    monkeypatch.setattr(search_batch, "_EXTRACTED", 2)
    broken, odd = tmp_path / "broken.png", tmp_path / "odd\x1b\n.png"
    broken.write_bytes(b"no image")
    odd.write_bytes(images[6].read_bytes())
    given = [images[0], broken, odd, images[7]]
    code, out, err = mipp_command("search", "ulla", *given, "-k", 1, "--json")
    found = lines(out)
    assert code == 1 and [row["query"] for row in found] == [str(images[0]), str(odd), str(images[7])]
    assert [row["owner"] for row in found] == ["anna", "berta", "berta"]
    assert f"left out query {broken}" in err and "1 of 4 queries" in err and "\x1b" not in err
    for suffix in ("csv", "npz"):
        code, out, err = mipp_command("search", "ulla", *given, "-k", 1, "--out", tmp_path / f"o.{suffix}", "--json")
        told = json.loads(out)
        assert code == 1 and told["queries"] == 3 and [f["query"] for f in told["failed"]] == [str(broken)]
    with np.load(tmp_path / "o.npz") as arrays:
        assert arrays["query"].tolist() == [str(images[0]), str(odd), str(images[7])]
    assert "\x1b" not in (tmp_path / "o.csv").read_text() and len((tmp_path / "o.csv").read_text().splitlines()) == 4
    code, _, err = mipp_command("search", "ulla", broken, broken, "--out", tmp_path / "none.csv")
    assert code == 1 and "none of the queries" in err and not (tmp_path / "none.csv").exists()


def test_names_of_files_may_be_any_bytes(mipp_command, images, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.png")
    os.link(images[6], odd)
    for suffix in ("csv", "jsonl", "npz"):
        code, _, err = mipp_command("search", "ulla", odd, images[0], "-k", 1, "--out", tmp_path / f"o.{suffix}")
        assert code == 0, err
    assert "\\xff\\n.png" in (tmp_path / "o.csv").read_text()
    assert lines((tmp_path / "o.jsonl").read_text())[0]["query"] == odd
    with np.load(tmp_path / "o.npz") as arrays:
        assert arrays["query"].tolist() == [odd, str(images[0])]
    code, out, _ = mipp_command("search", "ulla", odd, images[0], "-k", 1)
    assert code == 0 and out.startswith("query ") and out.splitlines()[0].endswith("\\xff\\n.png")


def test_a_vector_that_the_encoding_refuses_is_left_out(mipp_command, tmp_path, vectors):
    _, queries, _ = vectors
    queries[7] = 0  # no direction
    np.save(tmp_path / "z.npy", queries)
    code, out, err = mipp_command("search", "ulla", "--vectors", tmp_path / "z.npy", "-k", 1, "--json")
    assert code == 1 and [row["query"] for row in lines(out)] == [q for q in range(25) if q != 7]
    assert "left out query 7: " in err
    np.save(tmp_path / "wide.npy", np.ones((3, 13)))
    code, _, err = mipp_command("search", "ulla", "--vectors", tmp_path / "wide.npy")
    assert code == 1 and "13 features" in err and "takes 12" in err
    np.save(tmp_path / "nan.npy", np.full((3, 12), np.nan))
    code, _, err = mipp_command("search", "ulla", "--vectors", tmp_path / "nan.npy")
    assert code == 1 and "NaN" in err


def test_names_and_captions_of_a_batch_come_where_they_are_asked_for(mipp_command, tmp_path, vectors, monkeypatch):
    monkeypatch.setattr(search_batch, "_PREVIEWED", 8)
    asked = []
    preview = User.preview
    monkeypatch.setattr(User, "preview", lambda self, hits, **o: asked.append(o["pad"]) or preview(self, hits, **o))
    args = ("search", "ulla", "--vectors", vectors[2], "-k", 2, "--owner", "anna")
    code, out, _ = mipp_command(*args, "--json")
    assert code == 0 and "caption" not in lines(out)[0] and not asked
    code, out, _ = mipp_command(*args, "--previews", "--json")
    assert code == 0 and {row["caption"] for row in lines(out)} == {HOSTILE} and asked == [8] * 6 + [2]
    code, _, _ = mipp_command(*args, "--previews", "--out", tmp_path / "o.csv")
    text = (tmp_path / "o.csv").read_text()
    assert code == 0 and "\x1b" not in text and "\"'=cmd" in text and text.splitlines()[0].endswith('"metadata"')
    assert "\x1b" not in mipp_command(*args, "--previews")[1]
    code, _, err = mipp_command(*args, "--previews", "--out", tmp_path / "o.npz")
    assert code == 1 and "no names" in err


def test_names_that_cannot_be_fetched_stop_no_batch(mipp_command, tmp_path, vectors, monkeypatch):
    def refused(self, hits, **options):
        raise mipp.errors.AccessDeniedError("used up")

    monkeypatch.setattr(User, "preview", refused)
    code, out, err = mipp_command("search", "ulla", "--vectors", vectors[2], "-k", 2, "--previews", "--json")
    assert code == 0 and len(lines(out)) == 50 and lines(out)[0]["caption"] == "" and "used up" in err


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_owners_are_chosen_by_name_and_id(mipp_command, tmp_path, vectors, ranking):
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        berta = deployment.owner("berta").id.hex()
    args = ("search", "ulla", "--vectors", vectors[2], "-k", 3, "--ranking", ranking, "--json")
    for chosen in (["--owner", "berta"], ["--owner", berta]):
        code, out, _ = mipp_command(*args, *chosen)
        assert code == 0 and {row["owner"] for row in lines(out)} == {"berta"}
    code, out, _ = mipp_command(*args, "--owner", "anna", "--owner", berta)
    assert code == 0 and out == mipp_command(*args)[1]
    code, _, err = mipp_command(*args, "--owner", "nobody")
    assert code == 1 and "unknown owner 'nobody'" in err


def test_what_does_not_go_with_many_queries_is_wrong_usage(mipp_command, vectors):
    for args, text in (
        (["--fetch", "f"], "--fetch is for one query"),
        (["--sheet", "s.png"], "--sheet is for one query"),
        (["--csv", "h.csv"], "--out FILE.csv"),
        (["--threshold", 0.5], "--threshold is for one query"),
        (["--no-preview"], "--previews"),
        (["--openly"], "--openly is for one query"),
        (["--vector", vectors[2]], "give either IMAGE"),
        (["--id", "00:1"], "give either IMAGE"),
        (["--of", "anna"], "--id BATCH:ROW goes with --of OWNER"),
    ):
        code, _, err = mipp_command("search", "ulla", "--vectors", vectors[2], *args)
        assert code == 2 and text in err, args
    assert mipp_command("search", "ulla", "--vector", vectors[2], "--previews", "--no-preview")[0] == 2


def test_outputs_are_checked_before_the_search(mipp_command, vectors, tmp_path, monkeypatch):
    def searched(*args, **options):
        raise AssertionError("the search began")

    monkeypatch.setattr(User, "nearest", searched)
    (tmp_path / "folder.csv").mkdir()
    jsonl = tmp_path / "q.jsonl"
    os.link(vectors[2], jsonl)
    for out, text in (
        ("hits.txt", ".csv, .jsonl, .npz"), ("none/hits.csv", "no folder"), ("q.jsonl", "holds queries"),
        ("hits", ".csv, .jsonl, .npz"),
    ):  # fmt: skip
        code, _, err = mipp_command("search", "ulla", "--vectors", vectors[2], "--out", tmp_path / out)
        assert code == 1 and text in err and len(err.splitlines()) == 1, out
    assert mipp_command("search", "ulla", "--vectors", vectors[2], "--out", tmp_path / "folder.csv")[0] == 2


def test_a_search_that_fails_leaves_the_earlier_file(mipp_command, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(search_batch, "BLOCK", {"user": 10, "server": 10})
    nearest, calls = User.nearest, []

    def failing(self, *args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise mipp.errors.BusyError("too many rankings")
        return nearest(self, *args, **options)

    monkeypatch.setattr(User, "nearest", failing)
    before = set(tmp_path.iterdir())
    for suffix in ("csv", "jsonl", "npz"):
        out = tmp_path / f"hits.{suffix}"
        out.write_text("earlier")
        calls.clear()
        code, _, err = mipp_command("search", "ulla", "--vectors", vectors[2], "--out", out)
        assert code == 1 and "too many" in err and out.read_text() == "earlier"
        out.unlink()
    assert set(tmp_path.iterdir()) == before, "no temporary file stays"


def test_a_quota_that_ends_before_the_batch_is_said_first(mipp_command, vectors, tmp_path):
    assert mipp_command("owner", "grant", "berta", "ulla", "--quota", 20)[0] == 0
    args = ("search", "ulla", "--vectors", vectors[2], "-k", 2, "--json")
    code, out, err = mipp_command(*args, "--owner", "anna", "--owner", "berta")
    assert code == 1 and not out and "owner berta allows 20 more queries; this batch counts as 25" in err
    code, out, err = mipp_command(*args)
    assert code == 0 and "allows 20 more" in err and "left out owner berta" in err
    assert {row["owner"] for row in lines(out)} == {"anna"}
    assert json.loads(mipp_command("user", "grants", "ulla", "--json")[1])["grants"][1]["left"] == 20


def test_an_index_that_shrinks_between_blocks(mipp_command, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr(search_batch, "BLOCK", {"user": 10, "server": 10})
    nearest, calls = User.nearest, []

    def shrinking(self, queries, k, **options):
        calls.append(1)
        return nearest(self, queries, 5 if len(calls) == 1 else 3 if len(calls) == 2 else 6, **options)

    monkeypatch.setattr(User, "nearest", shrinking)
    assert mipp_command("search", "ulla", "--vectors", vectors[2], "--out", tmp_path / "h.npz")[0] == 0
    with np.load(tmp_path / "h.npz") as arrays:
        assert arrays["row"].shape == arrays["owner"].shape == (25, 5)
        empty = arrays["row"] < 0
        assert empty[10:20, 3:].all() and empty.sum() == 20 and (arrays["owner"][empty] == -1).all()
        assert not arrays["batch"][empty].any()


def test_grants_without_scores_leave_them_out(mipp_command, vectors, tmp_path):
    assert mipp_command("owner", "grant", "anna", "ulla", "--no-scores")[0] == 0
    args = ("search", "ulla", "--vectors", vectors[2], "-k", 2)
    assert mipp_command(*args, "--out", tmp_path / "h.npz")[0] == 0
    with np.load(tmp_path / "h.npz") as arrays:
        assert not {"score", "value"} & set(arrays) and arrays["row"].shape == (25, 2)
    assert lines(mipp_command(*args, "--json")[1])[0]["score"] is None
    code, out, _ = mipp_command(*args)
    assert code == 0 and "score" not in out
    assert mipp_command(*args, "--out", tmp_path / "h.csv")[0] == 0
    assert (tmp_path / "h.csv").read_text().splitlines()[1].endswith('"",""')


def test_an_empty_index_and_a_user_without_grants(mipp_command, tmp_path):
    assert mipp_command("init", "--vectors", 12)[0] == 0
    np.save(tmp_path / "q.npy", np.ones((3, 12)))
    for kind, name in (("owner", "anna"), ("user", "ulla")):
        mipp_command(kind, "create", name)
    code, _, err = mipp_command("search", "ulla", "--vectors", tmp_path / "q.npy", "--out", tmp_path / "o.csv")
    assert code == 1 and "no owner grants" in err
    mipp_command("owner", "grant", "anna", "ulla")
    code, _, err = mipp_command("search", "ulla", "--vectors", tmp_path / "q.npy", "--out", tmp_path / "o.csv")
    assert code == 1 and "0 images" in err and not (tmp_path / "o.csv").exists()


def test_images_are_refused_in_an_index_of_vectors(mipp_command, vectors, pictures):
    code, _, err = mipp_command("search", "ulla", pictures[0], pictures[1])
    assert code == 1 and "vectors" in err


def test_cost_of_a_batch(mipp_command, vectors):
    one = json.loads(mipp_command("search", "ulla", "--explain-cost", "--ranking", "user", "--json")[1])
    args = ("search", "ulla", "--vectors", vectors[2], "--explain-cost", "--ranking", "user", "--json")
    many = json.loads(mipp_command(*args)[1])
    assert many["user"]["sent"] > 5 * one["user"]["sent"] and "preview" not in many
    assert many["memory"]["read"] == one["memory"]["read"] > 0, "rows are read once for all queries"
    assert many["memory"]["server"] > one["memory"]["server"] and many["memory"]["user"] > one["memory"]["user"]
    assert json.loads(mipp_command(*args, "--previews", "-k", 4)[1])["preview"]["records"] == 100


# --- stored images as queries -------------------------------------------------------------------------------------


def test_a_stored_image_finds_itself_first(mipp_command, images):
    added = json.loads(mipp_command("owner", "images", "anna", "--json")[1])["images"]
    names = {one["id"] for one in added}
    for ranking in ("server", "user"):
        for name in names:
            args = ("search", "ulla", "--id", name, "--of", "anna", "-k", 3, "--ranking", ranking, "--json")
            code, out, _ = mipp_command(*args)
            assert code == 0 and json.loads(out)["hits"][0]["id"] == name
    code, out, _ = mipp_command("search", "ulla", *(p for n in names for p in ("--id", n)), "--of", "anna", "--json")
    first = [row for row in lines(out) if row["rank"] == 1]
    assert code == 0 and [row["query"] for row in first] == [row["id"] for row in first] == list(names)


def test_stored_images_that_cannot_be_queries(mipp_command, images, tmp_path):
    name = json.loads(mipp_command("owner", "images", "anna", "--json")[1])["images"][0]["id"]
    for args, text in (
        (["--id", name, "--of", "nobody"], "key file"),
        (["--id", name, "--of", "berta"], "batch"),
        (["--id", name.split(":")[0] + ":99", "--of", "anna"], "row 99"),
        (["--id", "xyz", "--of", "anna"], "an image id is"),
        (["--id", name, "--of", "anna", "--sheet", tmp_path / "s.png"], "needs a query image"),
    ):
        code, _, err = mipp_command("search", "ulla", *args)
        assert code == 1 and text in err and len(err.splitlines()) == 1, args
    assert mipp_command("owner", "delete", "anna", name)[0] == 0
    code, _, err = mipp_command("search", "ulla", "--id", name, "--of", "anna")
    assert code == 1 and "was deleted" in err


def test_both_key_files_may_have_a_passphrase(mipp_command, vectors, tmp_path, monkeypatch):
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        name = deployment.user("ulla").search(vectors[1][0], 1, owners="anna").hits[0].id
    monkeypatch.setenv("MIPP_NEW_PASSPHRASE", "secret")
    for kind, party in (("owner", "anna"), ("user", "ulla")):
        assert mipp_command(kind, "passphrase", party)[0] == 0
    monkeypatch.setenv("MIPP_PASSPHRASE", "secret")
    code, out, err = mipp_command("search", "ulla", "--id", name, "--of", "anna", "-k", 1, "--json")
    assert code == 0 and json.loads(out)["hits"][0]["id"] == name and "secret" not in out + err
    monkeypatch.setenv("MIPP_PASSPHRASE", "other")
    assert mipp_command("search", "ulla", "--id", name, "--of", "anna")[0] == 1


def test_one_image_gives_the_sheet_and_the_fetch_that_it_gave(mipp_command, images, tmp_path):
    args = ("search", "ulla", images[0], "-k", 2, "--fetch", tmp_path / "f", "--sheet", tmp_path / "s.png")
    code, out, _ = mipp_command(*args)
    assert code == 0 and len(out.splitlines()) == 2 and "p0.png" in out and len(list((tmp_path / "f").iterdir())) == 2
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.slow  # three servers on loopback TLS, and a process that is interrupted
def test_over_three_servers(mipp_command, tmp_path):
    from tests.network import searched

    rows = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    np.save(tmp_path / "q.npy", rows[:5])
    with searched(tmp_path / "net") as client:
        to = ("--deployment", client.folder)
        code, out, _ = mipp_command("search", "ulla", "--vectors", tmp_path / "q.npy", "-k", 2, "--json", *to)
        found = [row for row in lines(out) if row["rank"] == 1]
        assert code == 0 and [row["id"].split(":")[1] for row in found] == list("01234")
        code, out, _ = mipp_command("search", "ulla", "--id", found[3]["id"], "--of", "anna", "--json", *to)
        assert code == 0 and json.loads(out)["hits"][0]["id"] == found[3]["id"]
        code, out, _ = mipp_command("user", "grants", "ulla", "--json", *to)
        (grant,) = json.loads(out)["grants"]
        assert code == 0 and (grant["owner"], grant["state"], grant["rows"]) == ("anna", "in force", 20)
        code, out, _ = mipp_command("deployment", "info", "--json", *to)
        info = json.loads(out)
        assert code == 0 and info["kind"] == "connected" and info["owners"] == ["anna"] and info["users"] == ["ulla"]
        assert all(s["url"].startswith("https://") for s in info["servers"].values()) and len(info["servers"]) == 3
        # interrupted while it searches: nothing is written
        np.save(tmp_path / "many.npy", np.tile(rows, (2000, 1)))
        many, out = tmp_path / "many.npy", tmp_path / "many.csv"
        command = [sys.executable, "-m", "mipp", "search", "ulla", "--vectors", many, "--out", out, *to]
        running = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        until = time.monotonic() + 30
        while not list(tmp_path.glob(".many.csv.*")):
            assert time.monotonic() < until and running.poll() is None
            time.sleep(0.02)
        running.send_signal(2)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130 and err.decode().strip() == "mipp: interrupted"
        assert not out.exists() and not list(tmp_path.glob(".many.csv.*"))


def test_a_missing_image_of_a_batch_is_left_out(mipp_command, images, tmp_path):
    """As one that cannot be read is; one alone is wrong usage."""
    code, out, err = mipp_command("search", "ulla", images[0], tmp_path / "nowhere.png", tmp_path, "-k", 1, "--json")
    assert code == 1 and [line["query"] for line in lines(out)] == [str(images[0])]
    assert err.count("nowhere.png") == 1 and "Traceback" not in err
    assert mipp_command("search", "ulla", tmp_path / "nowhere.png")[0] == 2


def test_an_id_from_before_a_merge_is_the_query(mipp_command, images):
    """Owners list ids that last: they are taken as queries after any number of merges."""
    listed = json.loads(mipp_command("owner", "list", "anna", "--json")[1])["images"]
    mipp_command("owner", "add", "anna", *images[6:])
    mipp_command("owner", "compact", "anna")
    code, out, err = mipp_command("search", "ulla", "--id", listed[2]["id"], "--of", "anna", "-k", 1, "--json")
    assert code == 0, err
    assert json.loads(out)["hits"][0]["value"] == 0


def test_a_vector_that_is_not_finite_is_left_out(mipp_command, vectors, tmp_path):
    queries = vectors[1].copy()
    queries[7, 3] = np.nan
    np.save(tmp_path / "nan.npy", queries)
    code, out, err = mipp_command("search", "ulla", "--vectors", tmp_path / "nan.npy", "-k", 1, "--json")
    assert code == 1 and "left out query 7" in err and "1 of 25 queries were left out" in err
    assert [row["query"] for row in lines(out)] == [n for n in range(25) if n != 7]
    np.save(tmp_path / "one.npy", queries[7])
    assert "NaN or infinity" in mipp_command("search", "ulla", "--vector", tmp_path / "one.npy")[2]


def test_a_batch_that_no_quota_allows_is_refused_before_it_is_sent(mipp_command, vectors):
    for name, quota in ("anna", 1), ("berta", 3):
        assert mipp_command("owner", "grant", name, "ulla", "--quota", quota)[0] == 0
    code, out, err = mipp_command("search", "ulla", "--vectors", vectors[2], "-k", 2)
    assert (
        code == 1 and not out and "of owner berta allows 3 more queries; this batch counts as 25, and no other" in err
    )
    left = [g["left"] for g in json.loads(mipp_command("user", "grants", "ulla", "--json")[1])["grants"]]
    assert sorted(left) == [1, 3]


def test_a_refusal_names_the_owner_and_the_way_out(mipp_command, vectors, tmp_path):
    np.save(tmp_path / "one.npy", vectors[1][0])
    one = ("search", "ulla", "--vector", tmp_path / "one.npy")
    code, _, err = mipp_command(*one, "--threshold", 0.5, "--owner", "anna")
    assert code == 1 and "owner anna: its grant does not allow ranking 'threshold'" in err
    assert "--ranking server --ranking user --ranking threshold" in err
    assert mipp_command("owner", "grant", "anna", "ulla", "--quota", 1)[0] == 0
    assert mipp_command(*one, "--owner", "anna")[0] == 0
    code, _, err = mipp_command(*one, "--owner", "anna")
    assert code == 1 and "owner anna: the quota of queries of its grant is used up" in err


def test_hits_within_a_threshold_are_numbered_by_nearness_or_not_at_all(mipp_command, vectors, tmp_path):
    for name in ("anna", "berta"):
        rankings = [word for ranking in ("server", "user", "threshold") for word in ("--ranking", ranking)]
        assert mipp_command("owner", "grant", name, "ulla", *rankings)[0] == 0
    np.save(tmp_path / "one.npy", vectors[1][0])
    within = ("search", "ulla", "--vector", tmp_path / "one.npy", "--threshold", 0.1)
    by_user = json.loads(mipp_command(*within, "--ranking", "user", "--json")[1])["hits"]
    scores = [hit["score"] for hit in by_user]
    assert len(scores) > 3 and scores == sorted(scores, reverse=True)
    nearest = json.loads(mipp_command(*within[:4], "-k", len(scores), "--ranking", "user", "--json")[1])["hits"]
    assert [hit["id"] for hit in nearest] == [hit["id"] for hit in by_user]
    assert mipp_command(*within, "--ranking", "user")[1].startswith("  1  ")
    out = mipp_command(*within)[1].splitlines()
    assert len(out) == len(scores) and all(line.startswith("  -  ") for line in out)


def test_a_cost_is_told_of_searches_that_are_possible(mipp_command, vectors, tmp_path):
    np.save(tmp_path / "bad.npy", np.ones(5))
    np.save(tmp_path / "bads.npy", np.ones((4, 5)))
    for given in (["--vector", tmp_path / "bad.npy"], ["--vectors", tmp_path / "bads.npy"]):
        code, out, err = mipp_command("search", "ulla", *given, "--explain-cost")
        assert code == 1 and not out and "5 features; this index takes 12" in err
    code, out, err = mipp_command("search", "ulla", "--threshold", 5, "--explain-cost")
    assert code == 1 and not out and "threshold" in err
    assert ", 25 queries" in mipp_command("search", "ulla", "--vectors", vectors[2], "--explain-cost")[1]
    out = mipp_command("search", "ulla", "--explain-cost", "--fetch", tmp_path / "f", "--openly")[1]
    assert "each image, openly" in out and "privately" not in out
    out = mipp_command("search", "ulla", "--explain-cost", "--fetch", tmp_path / "f")[1]
    assert "each image, privately" in out and "openly" not in out
