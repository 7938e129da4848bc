"""``mipp owner add --vectors``: every format, its report, and refusals that send nothing."""

import json

import h5py
import numpy as np
import pytest

from mipp.cli import owner_images
from mipp.client import row_ids
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
