"""Indexes on disk: one file, a folder, crashes, and refused files."""

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
import zipfile

import numpy as np
import pytest

import mipp.compat.faiss as faiss
from mipp.compat.faiss import home as home_module
from mipp.crypto.keyfile import load_key_file
from mipp.errors import (
    DeploymentError,
    IntegrityError,
    KeyFileError,
    MippError,
    NotFoundError,
    ParameterError,
    StoreError,
)

D = 8


def rows(count, seed=0):
    return np.random.default_rng(seed).integers(-50, 51, (count, D)).astype(np.float32)


def made(kind=faiss.IndexFlatL2, **options):
    """An index of two owners with a few deletions."""
    index = kind(D, threads=1, **options)
    index.add(rows(20), owner="anna")
    index.add(rows(10, 1), owner="berta")
    index.remove_ids(np.array([3, 25]))
    return index


def same(a, b):
    for found, expected in zip(a.search(rows(4, 9), 28), b.search(rows(4, 9), 28), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(a.reconstruct_n(), b.reconstruct_n())
    assert (a.ntotal, a.d, a.metric_type, type(a), a.encoding) == (b.ntotal, b.d, b.metric_type, type(b), b.encoding)


@pytest.mark.parametrize("kind", [faiss.IndexFlatL2, faiss.IndexFlatIP])
def test_written_and_read(kind, tmp_path):
    index = made(kind)
    path = tmp_path / "index.mipp"
    faiss.write_index(index, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["index.mipp"]  # no temporary file is left
    copied = faiss.read_index(str(path))
    same(copied, index)
    # both go on, each for itself, and with keys of all parties
    index.add(rows(3, 4), owner="anna")
    copied.add(rows(5, 5), owner="berta")
    assert (index.ntotal, copied.ntotal) == (31, 33)
    np.testing.assert_array_equal(copied.reconstruct_n(28, 5), rows(5, 5))
    faiss.write_index(copied, path)  # over the old one
    same(faiss.read_index(path), copied)
    in_folder = faiss.read_index(path, folder=tmp_path / "kept")
    in_folder.close()
    same(faiss.open_index(tmp_path / "kept"), copied)
    with pytest.raises(StoreError):
        faiss.read_index(path, folder=tmp_path / "kept")
    assert (tmp_path / "kept" / "index.sqlite").is_file()


def test_empty_and_mapped_indexes_are_kept(tmp_path):
    path = tmp_path / "index"
    faiss.write_index(faiss.IndexFlatIP(D, ranking="server"), path)
    empty = faiss.read_index(path)
    assert (empty.ntotal, empty.encoding) == (0, None)
    empty.add(rows(5))
    assert not empty.encoding.score_range[1] - empty.encoding.score_range[0] >= 1 << 31  # room for ranking="server"
    mapped = faiss.IndexIDMap(faiss.IndexFlatL2(D))
    mapped.add_with_ids(rows(3), np.array([-9, 4, 2**50]))
    mapped.remove_ids(np.array([4]))
    faiss.write_index(mapped, path)
    again = faiss.read_index(path)
    np.testing.assert_array_equal(again.reconstruct_batch([2**50, -9]), rows(3)[[2, 0]])
    assert sorted(again.search(rows(1), 2)[1][0].tolist()) == [-9, 2**50]
    with pytest.raises(ParameterError):
        again.add(rows(1))


def repacked(path, change):
    """The file with its entries changed: ``change`` gets and gives a list of (name, bytes)."""
    with zipfile.ZipFile(path) as archive:
        entries = [(i.filename, archive.read(i)) for i in archive.infolist()]
    out = path.with_name("changed")
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are there twice
        for name, data in change(entries):
            archive.writestr(name, data)
    out.chmod(0o600)
    return out


def manifest(**changes):
    def change(entries):
        return [(entries[0][0], json.dumps({**json.loads(entries[0][1]), **changes})), *entries[1:]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        manifest(version=2),
        manifest(format="other"),
        lambda e: e[1:],
        lambda e: [],
        lambda e: e[:1],
        lambda e: [*e, ("../outside", b"x")],
        lambda e: [*e, ("/outside", b"x")],
        lambda e: [*e, ("a/../../outside", b"x")],
        lambda e: [*e, ("folder/", b"")],
        lambda e: [*e, ("index.sqlite", b"twice")],
        lambda e: [(e[0][0], b"[1]"), *e[1:]],
        lambda e: [(e[0][0], b"{"), *e[1:]],
        lambda e: [(n, b"{}" if n.endswith("deployment.json") else d) for n, d in e],
        lambda e: [(n, b"no database" if n == "index.sqlite" else d) for n, d in e],
    ],
)
def test_unknown_content_is_refused(change, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    os.mkdir(tmp_path / "temporary")
    index = made()
    path = tmp_path / "index"
    faiss.write_index(index, path)
    index.close()
    with pytest.raises(DeploymentError):
        faiss.read_index(repacked(path, change))
    assert sorted(os.listdir(tmp_path)) == ["changed", "index", "temporary"]
    assert os.listdir(tmp_path / "temporary") == []


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "index"
    faiss.write_index(made(), path)
    good = path.read_bytes()
    middle = bytearray(good)
    middle[len(good) // 2] ^= 1
    path.write_bytes(middle)
    with pytest.raises((IntegrityError, DeploymentError)):
        faiss.read_index(path)
    for bad in (b"", b"IxF2" + bytes(100), good[: len(good) // 2]):
        path.write_bytes(bad)
        with pytest.raises(DeploymentError, match="not an index written by mipp"):
            faiss.read_index(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("mipp-index.json"), json.dumps({"format": "mipp faiss index", "version": 1}))
        archive.writestr("index.sqlite", bytes(10_000_000))
    with pytest.raises(DeploymentError, match="no index has"):
        faiss.read_index(path)
    with pytest.raises(NotFoundError):
        faiss.read_index(tmp_path / "nothing")
    path.write_bytes(good)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="readable by others"):
        faiss.read_index(path)


def test_what_cannot_be_written(tmp_path):
    index = made()
    with pytest.raises(StoreError):
        faiss.write_index(index, tmp_path / "no" / "folder")
    with pytest.raises(ParameterError):
        faiss.write_index(object(), tmp_path / "index")
    index.close()
    with pytest.raises(DeploymentError, match="closed"):
        faiss.write_index(index, tmp_path / "index")
    assert os.listdir(tmp_path) == []


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_of_the_callers(tmp_path):
    index = made(folder=tmp_path / "home")
    for attempt in (faiss.open_index, lambda folder: faiss.IndexFlatL2(D, folder=folder)):
        with pytest.raises(DeploymentError, match="open elsewhere"):
            attempt(tmp_path / "home")
    expected = index.search(rows(4, 9), 28)
    index.close()
    with pytest.raises(DeploymentError, match="already holds"):
        faiss.IndexFlatL2(D, folder=tmp_path / "home")
    again = faiss.open_index(tmp_path / "home")
    for found, before in zip(again.search(rows(4, 9), 28), expected, strict=True):
        np.testing.assert_array_equal(found, before)
    again.add(rows(2, 7), owner="anna")
    assert again.ntotal == 30
    again.reset()
    assert not (tmp_path / "home" / "deployment").exists()
    again.add(rows(2, 7), owner="anna")
    again.close()
    assert faiss.open_index(tmp_path / "home").ntotal == 2
    with pytest.raises(DeploymentError, match="no index"):
        faiss.open_index(tmp_path)
    with pytest.raises(StoreError):
        faiss.IndexFlatL2(D, folder="/dev/null/here")


@pytest.mark.parametrize("explicit", [False, True])
def test_an_upload_cut_off_before_its_line_is_completed(explicit, tmp_path, monkeypatch):
    index = faiss.IndexFlatL2(D, folder=tmp_path / "home")

    def add(x, first):
        if explicit:
            index.add_with_ids(x, np.arange(first, first + len(x)) * 10)
        else:
            index.add(x)

    add(rows(5), 0)
    write = home_module.Home._write

    def die(self, sql, *values):
        if "SET batch" in sql:
            raise KeyboardInterrupt
        return write(self, sql, *values)

    with monkeypatch.context() as patch:
        patch.setattr(home_module.Home, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            add(rows(3, 1), 5)
    index.close()
    index = faiss.open_index(tmp_path / "home")
    assert index.ntotal == 8
    found = index.search(rows(3, 1), 1)
    assert (found[0] == 0).all()
    assert found[1][:, 0].tolist() == ([50, 60, 70] if explicit else [5, 6, 7])


def test_a_line_whose_upload_never_came_is_dropped(tmp_path, monkeypatch):
    index = made(folder=tmp_path / "home")

    def die(self, *args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mipp.client.owner.ImageOwner.add_vectors", die)
        patch.setattr(home_module.Home, "_settle", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            index.add(rows(3, 1))
    assert index.ntotal == 28
    index.close()
    index = faiss.open_index(tmp_path / "home")
    index.add(rows(3, 1))
    assert index.ntotal == 31
    np.testing.assert_array_equal(index.reconstruct_n(28), rows(3, 1))


def test_rows_added_past_the_index_are_noticed(tmp_path):
    index = made(folder=tmp_path / "home")
    index.home.deployment.owner("anna").add_vectors(rows(2))
    with pytest.raises(DeploymentError, match="not added by this index"):
        index.search(rows(1), 1)
    index.close()
    with pytest.raises(DeploymentError, match="not added by this index"):
        faiss.open_index(tmp_path / "home")


def test_temporary_folders_go(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    index = made()
    assert len(os.listdir(tmp_path)) == 1
    index.close()
    index.close()
    assert os.listdir(tmp_path) == []
    index = made()
    del index
    gc.collect()
    assert os.listdir(tmp_path) == []
    code = "import numpy, mipp.compat.faiss as f; i = f.IndexFlatL2(2); i.add(numpy.eye(2)); print(i.ntotal)"
    out = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert out.stdout == "2\n" and not out.stderr
    assert os.listdir(tmp_path) == []


# --- secrets, imports, threads --------------------------------------------------------------------------------------


def test_secrets_stay_where_they_belong():
    index = made()
    folder = index.home.deployment.folder
    secrets = [s for path in folder.glob("owners/*.key") for s in load_key_file(path, "owner")[1].values()]
    assert len(secrets) == 4
    text = repr(index) + str(vars(index)) + repr(index.home)
    assert not any(s.hex() in text or repr(s)[2:-1] in text for s in secrets)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret keys"):
            attempt(index)


def test_importing_it_loads_neither_faiss_nor_scikit_learn():
    code = "import sys, mipp.compat.faiss; print([m for m in ('faiss', 'sklearn', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_threads_take_turns():
    index = faiss.IndexFlatL2(D, threads=1)
    index.add(rows(50))
    wrong = []

    def search():
        for _ in range(5):
            distances, labels = index.search(rows(50)[:4], 1)
            if (distances != 0).any() or (labels[:, 0] != np.arange(4)).any():
                wrong.append(labels)

    def add(seed):
        for i in range(3):
            index.add(rows(4, 100 + 10 * seed + i), owner=f"owner{seed}")

    threads = [threading.Thread(target=search) for _ in range(3)]
    threads += [threading.Thread(target=add, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and index.ntotal == 74


def test_a_deployment_that_was_not_finished_is_made_again(tmp_path):
    faiss.IndexFlatL2(D, folder=tmp_path / "home").close()
    (tmp_path / "home" / "deployment" / "servers").mkdir(parents=True)
    index = faiss.open_index(tmp_path / "home")
    index.add(rows(3))
    assert index.ntotal == 3


def test_a_refused_first_add_decides_nothing():
    index = faiss.IndexFlatL2(D, encoding=made().encoding)
    with pytest.raises(MippError):
        index.add(rows(9) * 100)
    index.add_with_ids(rows(2), np.array([5, 6]))
    assert sorted(index.search(rows(1), 2)[1][0].tolist()) == [5, 6]


def test_any_damage_is_a_typed_error(tmp_path):
    path = tmp_path / "index"
    faiss.write_index(made(), path)
    good = path.read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for trial in range(60):
        bad = bytearray(good)
        # the directory of the archive at its end, and anywhere
        start = len(good) - 3000 if trial % 2 else 0
        for _ in range(3):
            bad[int(rng.integers(start, len(good)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad[: int(rng.integers(len(good)))] if trial % 10 == 9 else bad)
        try:
            with faiss.read_index(path) as index:
                assert index.ntotal == 28
        except MippError:
            refused += 1
    assert refused > 40
