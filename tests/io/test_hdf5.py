"""HDF5 files: vectors, and benchmarks with their true neighbours."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mipp.errors import DTypeError, EncodingError, MissingExtraError, NotFoundError, ParameterError, ShapeError
from mipp.io.benchmark import load_benchmark
from mipp.io.vectors import load_vector, load_vectors

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("MIPP_DATASETS", ROOT.parent / "shared" / "datasets"))
TRAIN = np.arange(40, dtype=np.float32).reshape(10, 4)
TEST = TRAIN[:3] + 1
NEAR = np.tile(np.arange(5, dtype=np.int32), (3, 1))


def write(path: Path, distance: object = "euclidean", **datasets: object) -> Path:
    with h5py.File(path, "w") as file:
        if distance is not None:
            file.attrs["distance"] = distance
        for name, data in ({"train": TRAIN, "test": TEST, "neighbors": NEAR} | datasets).items():
            if data is not None:
                file[name] = data
    return path


@pytest.mark.parametrize("suffix", [".hdf5", ".h5", ".HDF5"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64])
def test_vectors(tmp_path, suffix, dtype):
    path = write(tmp_path / f"a{suffix}", train=TRAIN.astype(dtype))
    got = load_vectors(path)
    assert got.dtype == dtype and np.array_equal(got, TRAIN.astype(dtype))
    assert np.array_equal(load_vector(write(tmp_path / "one.h5", train=TRAIN[:1])), TRAIN[0])
    with pytest.raises(ShapeError):
        load_vector(path)


def test_bits_are_integers(tmp_path):
    got = load_vectors(write(tmp_path / "a.h5", train=TRAIN > 7))
    assert got.dtype == np.uint8 and np.array_equal(got, TRAIN > 7)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (TRAIN[0], ShapeError), (TRAIN[None], ShapeError), (TRAIN[:0], ShapeError), (TRAIN[:, :0], ShapeError),
        (TRAIN.astype(complex), DTypeError), (np.full((2, 2), b"text"), DTypeError), (None, ParameterError),
        (np.where(TRAIN == 13, np.nan, TRAIN), EncodingError),
    ],
)  # fmt: skip
def test_bad_vectors(tmp_path, data, error):
    path = write(tmp_path / "a.hdf5", train=data)
    with pytest.raises(error, match=r"a\.hdf5"):
        load_vectors(path)
    with pytest.raises(error):
        load_benchmark(path)


def test_messages_name_what_is_there(tmp_path):
    with pytest.raises(ParameterError, match="neighbors, test"):
        load_vectors(write(tmp_path / "a.hdf5", train=None))
    with pytest.raises(EncodingError, match="vector 3 "):
        load_vectors(write(tmp_path / "b.hdf5", train=np.where(TRAIN == 13, np.inf, TRAIN)))
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file.create_group("train")
    with pytest.raises(ParameterError, match="none"):
        load_vectors(tmp_path / "c.hdf5")


@pytest.mark.parametrize("read", [load_vectors, load_benchmark])
def test_damaged_files(tmp_path, read):
    whole = write(tmp_path / "a.hdf5").read_bytes()
    for i, content in enumerate((b"", b"no HDF5", whole[:100], whole[: len(whole) // 2], whole[:-50])):
        path = tmp_path / f"{i}.hdf5"
        path.write_bytes(content)
        with pytest.raises(ParameterError, match=f"{i}.hdf5"):
            read(path)
    with pytest.raises(NotFoundError):
        read(tmp_path / "missing.hdf5")


@pytest.mark.parametrize("read", [load_vectors, load_benchmark])
def test_without_h5py(tmp_path, monkeypatch, read):
    path = write(tmp_path / "a.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"mipp-retrieval\[hdf5\]"):
        read(path)


@pytest.mark.parametrize(
    ("distance", "metric"),
    [("euclidean", "l2"), ("angular", "cosine"), (np.bytes_(b"hamming"), "hamming"), ("dot", "ip"), ("ip", "ip")],
)
def test_benchmark(tmp_path, distance, metric):
    got = load_benchmark(write(tmp_path / "a.hdf5", distance))
    assert np.array_equal(got.train, TRAIN) and np.array_equal(got.test, TEST) and got.metric == metric
    assert got.neighbours.dtype == np.int64 and np.array_equal(got.neighbours, NEAR)
    assert load_benchmark(write(tmp_path / "b.hdf5", distance, neighbors=None)).neighbours is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"distance": "jaccard"}, ParameterError), ({"distance": None}, ParameterError), ({"distance": 3},
        ParameterError), ({"test": TEST[:, :3]}, ShapeError), ({"test": None}, ParameterError), ({"test": TEST *
        np.nan}, EncodingError), ({"neighbors": NEAR[:2]}, ShapeError), ({"neighbors": NEAR + 6}, ParameterError),
        ({"neighbors": NEAR - 1}, ParameterError), ({"neighbors": NEAR * 0.5}, DTypeError),
        ({"neighbors": NEAR[0]}, ShapeError),
    ],
)  # fmt: skip
def test_bad_benchmarks(tmp_path, options, error):
    with pytest.raises(error):
        load_benchmark(write(tmp_path / "a.hdf5", **options))


def test_real_files_agree():
    """The same collection as .hdf5 and as .fvecs and .ivecs."""
    folder = DATASETS / "vectors"
    if not (folder / "sift10k_ukbench-euclidean.hdf5").is_file():
        pytest.skip("the vectors are not here; MIPP_DATASETS names the folder that has them")
    got = load_benchmark(folder / "sift10k_ukbench-euclidean.hdf5")
    assert np.array_equal(got.train, load_vectors(folder / "sift10k_ukbench_base.fvecs"))
    assert np.array_equal(got.test, load_vectors(folder / "sift10k_ukbench_query.fvecs"))
    assert np.array_equal(got.neighbours, load_vectors(folder / "sift10k_ukbench_groundtruth.ivecs"))
    assert got.metric == "l2"
