"""``mipp owner add --vectors``: every format, its report, and refusals that send nothing."""

import csv
import json
import os

import h5py
import numpy as np
import pytest

import mipp
from mipp.cli import owner_images
from mipp.client import row_ids
from mipp.encoding.clusters import Clusters
from mipp.io.vectors import save_fvecs

X = np.random.default_rng(0).integers(0, 200, (120, 8)).astype(np.uint8)


def written(path, x=X):
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".fvecs":
        save_fvecs(path, x)
    elif path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = {"id": range(len(x)), "v": x.tolist(), "w": [[1, 2]] * len(x)}
        parquet.write_table(pytest.importorskip("pyarrow").table(table), path, row_group_size=33)
    elif path.suffix == ".hdf5":
        with h5py.File(path, "w") as file:
            file.create_dataset("train", data=x, chunks=(7, 3), compression="gzip")
    else:
        head = np.array(x.shape, "<u4").tobytes()
        if path.suffix == ".bvecs":
            records = np.empty(len(x), [("dim", "<i4"), ("values", "u1", (8,))])
            records["dim"], records["values"], head = 8, x, b""
            x = records
        path.write_bytes(head + (x.astype("<f4") if path.suffix == ".fbin" else x).tobytes())
    return path


@pytest.fixture
def add(mipp_command, tmp_path, monkeypatch):
    """``mipp owner add o --vectors FILE``: exit code, output, errors; batches of 50 rows."""
    monkeypatch.setattr(row_ids, "BATCH_BYTES", 50 * 48)
    assert mipp_command("init", "--fit", written(tmp_path / "sample.npy"), "--metric", "l2")[0] == 0
    mipp_command("owner", "create", "o")
    return lambda *given: mipp_command("owner", "add", "o", "--vectors", *given)


def rows(mipp_command):
    return json.loads(mipp_command("status", "--json")[1])["images"]


@pytest.mark.parametrize("name", ["x.npy", "x.fvecs", "x.bvecs", "x.fbin", "x.u8bin", "x.hdf5", "x.parquet"])
def test_formats_and_the_report(add, mipp_command, tmp_path, name):
    path = written(tmp_path / name)
    column = ["--column", "v"] if path.suffix == ".parquet" else []
    code, out, err = add(path, "--json", *column)
    report = json.loads(out)
    assert code == 0 and report["added"] == 120 and len(report["ids"]) == 120, err
    assert [(b["rows"], b["file_row"], b["first"]) for b in report["batches"]] == [
        (50, 0, 0),
        (50, 50, 0),
        (20, 100, 0),
    ]
    assert report["ids"][60] == {"file": f"{path}:60", "id": f"{report['batches'][1]['id']}:10"}
    assert min(report["seconds"], report["rows_per_second"]) > 0 <= report["mib_per_second"]
    code, out, _ = add(path, *column)
    assert code == 0 and out.startswith("0 added, 120 already there, 0 left out (") and "rows/s" in out
    assert rows(mipp_command) == 120
    assert mipp_command("owner", "list", "o", "--csv")[1].splitlines()[1].startswith('"120",')


def test_ids_of_many_rows_are_not_listed_one_by_one(add, tmp_path, monkeypatch):
    monkeypatch.setattr(owner_images, "_LISTED", 100)
    report = json.loads(add(written(tmp_path / "x.npy"), "--json")[1])
    assert report["ids"] == [] and report["added"] == sum(b["rows"] for b in report["batches"]) == 120


def listed(path):
    with open(path, newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["row", "id"] and os.stat(path).st_mode & 0o777 == 0o600
    return {int(row): name for row, name in lines}


@pytest.mark.parametrize("clusters", [False, True])
def test_ids_of_any_number_of_rows(mipp_command, tmp_path, monkeypatch, clusters):
    """A file tells the id of each row, whether it is added now or was there, merged, or a neighbour was deleted."""
    monkeypatch.setattr(owner_images, "_LISTED", 30)
    monkeypatch.setattr(row_ids, "BATCH_BYTES", 50 * 48)
    ids, rng, encoding = tmp_path / "ids.csv", np.random.default_rng(1), mipp.Encoding("cosine", 8)
    vectors = rng.normal(size=(120, 8))
    x = written(tmp_path / "x.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    made = Clusters.fit(encoding, rng.normal(size=(60, 8)), 12, 3, least=2) if clusters else None
    with mipp.Deployment.create(tmp_path / "d", encoding, clusters=made):
        assert mipp_command("owner", "create", "o")[0] == 0

    def add():
        code, out, err = mipp_command("owner", "add", "o", "--vectors", x, "--ids", ids, "--json")
        report = json.loads(out)
        assert code == 0 and report["ids"] == [], err
        for batch in report["batches"]:
            laid_out = made is not None and batch["rows"] >= made.fewest_rows
            assert batch["laid_out"] is laid_out and batch["first"] == (None if laid_out else 0)
        return report, listed(ids)

    def rows_at(found):
        """Each id names its row of the file."""
        with mipp.Deployment.open(tmp_path / "d") as deployment:
            owner = deployment.owner("o")
            pairs = [(bytes.fromhex(name[:32]), int(name[33:])) for name in found.values()]
            stored = {b.id: dict(zip(*owner.rows_of(b.id), strict=True)) for b in owner.batches()}
            at = np.array([stored[batch][row] for batch, row in owner.places_now(pairs)])
            assert np.abs(at - np.load(x)[list(found)]).max() < 0.02

    report, first = add()
    assert report["added"] == 120 and list(first) == list(range(120)) and len(set(first.values())) == 120
    rows_at(first)
    report, again = add()
    assert report["skipped"] == 120 and again == first
    gone = [first[3], first[70]]
    assert mipp_command("owner", "delete", "o", *gone, "--yes")[0] == 0
    left = {row: name for row, name in first.items() if name not in gone}
    assert add()[1] == left
    assert mipp_command("owner", "compact", "o")[0] == 0
    report, found = add()
    assert report["skipped"] == 120 and found == left
    rows_at(left)


def test_ids_after_a_lost_journal(add, tmp_path):
    x, ids = written(tmp_path / "x.npy"), tmp_path / "ids.csv"
    assert add(x, "--ids", ids)[0] == 0
    first = listed(ids)
    (journal,) = tmp_path.rglob("o.journal")
    journal.unlink()
    assert add(x, "--ids", ids)[1].startswith("0 added, 120 already there") and listed(ids) == first


def test_a_file_of_ids_is_written_whole_or_not_at_all(add, mipp_command, tmp_path, pictures):
    x, ids, about = written(tmp_path / "x.npy"), tmp_path / "ids.csv", tmp_path / "about.csv"
    about.write_text("caption\r\n" + "a\r\n" * 120)
    for given, said in (
        ((x, "--ids", tmp_path / "ids.npy"), "written as .csv"),
        ((x, "--ids", tmp_path / "none" / "ids.csv"), "there is no folder"),
        ((x, "--ids", about, "--metadata", about), "is read by this command"),
    ):  # fmt: skip
        code, _, err = add(*given)
        assert code == 1 and said in err and err.count("\n") == 1
    assert mipp_command("owner", "add", "o", *pictures[:1], "--ids", ids)[0] == 2
    assert rows(mipp_command) == 0
    ids.write_text("earlier")
    bad = X.astype(np.float32)
    bad[77, 3] = np.nan
    assert add(written(x, bad), "--ids", ids)[0] == 1 and ids.read_text() == "earlier" and rows(mipp_command) == 50
    assert add(written(x), "--ids", ids)[0] == 0 and len(listed(ids)) == 120
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".ids")]


@pytest.mark.parametrize("checked", [True, False])
def test_a_bad_row(add, mipp_command, tmp_path, checked):
    bad = X.astype(np.float32)
    bad[77, 3] = np.nan
    path = tmp_path / "x.npy"
    np.save(path, bad)
    code, out, err = add(path, *(["--check"] if checked else []))
    assert code == 1 and not out and "row 77" in err and "Traceback" not in err
    assert ("50 rows before" in err) is not checked
    assert rows(mipp_command) == (0 if checked else 50)


def test_refusals(add, mipp_command, tmp_path, pictures):
    wrong = written(tmp_path / "wrong.npy", X[:, :5])
    short = tmp_path / "short.fbin"
    short.write_bytes(written(tmp_path / "x.fbin").read_bytes()[:-1])
    (tmp_path / "x.csv").write_text("1,2\n")
    for path, said in ((wrong, "(rows, 8)"), (short, "truncated"), (tmp_path / "x.csv", "vectors come as")):
        code, _, err = add(path)
        assert code == 1 and said in err and err.count("\n") == 1
    assert add(tmp_path / "none.npy")[0] == 2
    code, _, err = add(written(tmp_path / "x.parquet"))
    assert code == 1 and "name the one with the vectors" in err
    assert add(wrong, "--column", "v")[0] == 1
    assert mipp_command("owner", "add", "o", "--check", *pictures[:1])[0] == 2
    fields = tmp_path / "m.jsonl"
    fields.write_text('{"a": 1}\n')
    assert add(written(tmp_path / "x.npy"), "--metadata", fields)[0] == 1
    assert rows(mipp_command) == 0


def test_progress_shows_rows_and_bytes_a_second(monkeypatch, capsys):
    from mipp.cli import common

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with common.progress("add", 1000, False, 1 << 20) as advance:
        for _ in range(10):
            advance(100)
    assert "rows/s" in capsys.readouterr().err
