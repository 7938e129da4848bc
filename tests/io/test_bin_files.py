"""Files of billion-scale benchmarks: vectors, crops and true neighbours; wrong headers of every kind."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mipp.errors import EncodingError, MippError, ParameterError, ShapeError
from mipp.io.benchmark import load_truth
from mipp.io.streams import open_rows
from mipp.io.vectors import load_queries, load_vector, load_vectors

ITEMS = {".fbin": np.float32, ".u8bin": np.uint8, ".i8bin": np.int8}


def packed(data, rows=None, dim=None):
    header = np.array([len(data) if rows is None else rows, data.shape[1] if dim is None else dim], "<u4")
    return header.tobytes() + data.tobytes()


def made(suffix, rows=9, dim=5):
    return (np.random.default_rng(0).normal(size=(rows, dim)) * 50).astype(np.int8).astype(ITEMS[suffix])


@pytest.mark.parametrize("suffix", ITEMS)
@pytest.mark.parametrize("name", ["a{}", "base.1B{}.crop_nb_9"])
def test_all_numbers_come_back(tmp_path, suffix, name):
    data, path = made(suffix), tmp_path / name.format(suffix)
    path.write_bytes(packed(data))
    for read in (load_vectors, load_queries):
        got = read(path)
        assert got.dtype == ITEMS[suffix] and np.array_equal(got, data)
    with open_rows(path) as stream:
        assert (stream.rows, stream.dim, stream.size) == (9, 5, path.stat().st_size)
        assert np.array_equal(np.concatenate(list(stream.blocks(4))), data)
    path.write_bytes(packed(data[:1]))
    assert np.array_equal(load_vector(path), data[0])


@pytest.mark.parametrize("suffix", ITEMS)
@pytest.mark.parametrize(
    ("rows", "dim"),
    [
        (0, 5),
        (9, 0),
        (8, 5),
        (10, 5),
        (9, 4),
        (9, 6),
        (5, 9 * 5),
        (2**32 - 1, 2**20),
        (2**32 - 1, 2**32 - 1),
        (1, 2**31),
    ],
)
def test_headers_that_do_not_fit_the_file(tmp_path, suffix, rows, dim):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed(made(suffix), rows, dim))
    tracemalloc.start()
    with pytest.raises(ShapeError, match=f"a{suffix}"):
        load_vectors(path)
    with pytest.raises(ShapeError, match=f"a{suffix}"), open_rows(path):
        pass
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"1234567", packed(made(".fbin"))[:-1], packed(made(".fbin")) + b"x"])
def test_cut_files(tmp_path, content):
    (tmp_path / "a.fbin").write_bytes(content)
    with pytest.raises(ShapeError):
        load_vectors(tmp_path / "a.fbin")


def test_a_crop_with_the_header_of_the_larger_file_is_refused(tmp_path):
    path = tmp_path / "base.1B.u8bin.crop_nb_9"
    path.write_bytes(packed(made(".u8bin"), rows=10**9))
    with pytest.raises(ShapeError, match="crop"):
        load_vectors(path)


def test_not_finite(tmp_path):
    data = made(".fbin")
    data[6, 2] = np.inf
    (tmp_path / "a.fbin").write_bytes(packed(data))
    with pytest.raises(EncodingError, match="vector 6"):
        load_vectors(tmp_path / "a.fbin")


@pytest.mark.parametrize("suffix", [*ITEMS, ".ibin"])
def test_changed_bytes_give_typed_errors_or_numbers(tmp_path, suffix):
    data = np.arange(45, dtype="<u4").reshape(9, 5) if suffix == ".ibin" else made(suffix)
    read = load_truth if suffix == ".ibin" else load_vectors
    whole, rng, path = packed(data), np.random.default_rng(1), tmp_path / f"a{suffix}"
    for _ in range(300):
        content = bytearray(whole)
        for position in rng.choice(12, rng.integers(1, 9), replace=False):
            content[position] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content) + 1)] if rng.integers(2) else content)
        try:
            read(path)
        except MippError:
            continue


def test_true_neighbours_with_and_without_distances(tmp_path):
    ids, far = np.arange(12, dtype="<u4").reshape(3, 4), np.linspace(0, 1, 12, dtype="<f4").reshape(3, 4)
    path = tmp_path / "gt.ibin"
    path.write_bytes(packed(ids) + far.tobytes())
    got = load_truth(path)
    assert np.array_equal(got.neighbours, ids) and np.array_equal(got.distances, far)
    path.write_bytes(packed(ids))
    got = load_truth(path)
    assert np.array_equal(got.neighbours, ids) and got.distances is None
    for content in (
        packed(ids) + far.tobytes()[:-4],
        packed(ids)[:-1],
        packed(ids, rows=2**32 - 1),
        packed(ids, rows=0),
    ):
        path.write_bytes(content)
        with pytest.raises(ShapeError, match=r"gt\.ibin"):
            load_truth(path)
    np.save(tmp_path / "gt.npy", ids)
    assert np.array_equal(load_truth(tmp_path / "gt.npy").neighbours, ids)
    with pytest.raises(ParameterError, match="vectors come as"):
        load_vectors(path)
