"""Vector files: round trips, and wrong files of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from mipp.errors import DTypeError, EncodingError, NotFoundError, ParameterError, ShapeError
from mipp.io.vectors import load_vectors, save_fvecs

DATA = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)


def vecs(data: np.ndarray) -> bytes:
    return b"".join(np.int32(len(row)).tobytes() + row.tobytes() for row in data)


def test_fvecs(tmp_path):
    save_fvecs(tmp_path / "a.fvecs", DATA)
    assert (tmp_path / "a.fvecs").read_bytes() == vecs(DATA)
    got = load_vectors(str(tmp_path / "a.fvecs"))
    assert got.dtype == np.float32 and np.array_equal(got, DATA)
    assert np.array_equal(got[3:5], DATA[3:5])


@pytest.mark.parametrize(("suffix", "dtype"), [(".bvecs", np.uint8), (".ivecs", np.int32), (".BVECS", np.uint8)])
def test_integer_vecs(tmp_path, suffix, dtype):
    data = np.random.default_rng(1).integers(0, 200, (6, 7)).astype(dtype)
    (tmp_path / f"a{suffix}").write_bytes(vecs(data))
    got = load_vectors(tmp_path / f"a{suffix}")
    assert got.dtype == dtype and np.array_equal(got, data)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8, np.uint16])
def test_npy(tmp_path, dtype):
    data = (DATA * 10).astype(np.int64).clip(0, 100).astype(dtype)
    np.save(tmp_path / "a.npy", data)
    got = load_vectors(tmp_path / "a.npy")
    assert got.dtype == dtype and np.array_equal(got, data)


def test_missing_and_strange_files(tmp_path):
    with pytest.raises(NotFoundError):
        load_vectors(tmp_path / "a.npy")
    with pytest.raises(ParameterError, match="not a file"):
        load_vectors(tmp_path)
    for name in ("a.csv", "a"):
        (tmp_path / name).write_bytes(b"1")
        with pytest.raises(ParameterError, match="vectors come as"):
            load_vectors(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [
    ("empty.fvecs", b""), ("short.fvecs", vecs(DATA)[:3]), ("cut.fvecs", vecs(DATA)[:-1]), ("zero.fvecs", bytes(8)),
    ("negative.ivecs", np.array([-1, 5], np.int32).tobytes()),
    ("huge.ivecs", np.array([1 << 30, 5], np.int32).tobytes()),
    ("mixed.fvecs", vecs(DATA[:4]) + vecs(np.ones((1, 2), np.float32)) + vecs(np.ones((1, 2), np.float32))),
    ("other.fvecs", vecs(DATA[:1]) + np.int32(4).tobytes() + DATA[1].tobytes()),
])  # fmt: skip
def test_bad_vecs(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ShapeError, match=name):
        load_vectors(tmp_path / name)


def test_bad_npy(tmp_path):
    path = tmp_path / "a.npy"
    for shape in ((5,), (2, 3, 4), (0, 4), (4, 0)):
        np.save(path, np.zeros(shape))
        with pytest.raises(ShapeError):
            load_vectors(path)
    for data in (np.array([["a"]]), np.zeros((2, 2), complex), np.zeros((2, 2), bool), np.array([[{}]], object)):
        np.save(path, data, allow_pickle=True)
        with pytest.raises(DTypeError):
            load_vectors(path)
    np.save(path, DATA)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:20], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(ParameterError):
            load_vectors(path)
    with path.open("wb") as stream:
        np.savez(stream, DATA)
    with pytest.raises(ParameterError, match="archive"):
        load_vectors(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, bad):
    data = DATA.copy()
    data[6, 2] = bad
    save_fvecs(tmp_path / "a.fvecs", data)
    np.save(tmp_path / "a.npy", data)
    for name in ("a.fvecs", "a.npy"):
        with pytest.raises(EncodingError, match="vector 6"):
            load_vectors(tmp_path / name)


def test_bad_save(tmp_path):
    with pytest.raises(DTypeError):
        save_fvecs(tmp_path / "a.fvecs", [["a"]])
    for bad in (np.zeros(4), np.zeros((3, 0))):
        with pytest.raises(ShapeError):
            save_fvecs(tmp_path / "a.fvecs", bad)
