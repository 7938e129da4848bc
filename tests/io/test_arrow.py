"""Parquet and Arrow files: every form of vectors comes back; hostile and unfit files give typed errors."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from mipp.errors import DTypeError, EncodingError, MippError, ParameterError, ShapeError
from mipp.io import arrow
from mipp.io.streams import open_rows
from mipp.io.vectors import load_queries, load_vector, load_vectors

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

X = np.random.default_rng(0).normal(size=(57, 6)).astype(np.float32)
KINDS = [".parquet", ".arrow", ".feather"]


def lists(data=X, item=None, size=True):
    values = pa.array(data.ravel(), item)
    if size:
        return pa.FixedSizeListArray.from_arrays(values, data.shape[1])
    return pa.ListArray.from_arrays(pa.array(np.arange(0, data.size + 1, data.shape[1]), pa.int32()), values)


def written(path, table, rows=10, compression=None):
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=rows, compression=compression or "snappy")
    else:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_lists(tmp_path, kind, size, compression):
    table = pa.table({"id": np.arange(57), "name": ["x"] * 57, "vector": lists(size=size)})
    path = written(tmp_path / f"a{kind}", table, compression=compression)
    for read in (load_vectors, load_queries):
        got = read(path)
        assert got.dtype == np.float32 and np.array_equal(got, X)
    assert np.array_equal(load_vectors(path, ["vector"]), X)
    assert np.array_equal(load_vectors(path, ["id"]), np.arange(57)[:, None])
    with open_rows(path) as stream:
        blocks = list(stream.blocks(8))
        assert (stream.rows, stream.dim, stream.size) == (57, 6, path.stat().st_size)
        assert [len(block) for block in blocks] == [8] * 7 + [1] and np.array_equal(np.concatenate(blocks), X)
    assert np.array_equal(load_vector(written(path, table.slice(3, 1))), X[3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("item", [pa.float16(), pa.float64(), pa.int8(), pa.uint8(), pa.int64()])
def test_kinds_of_numbers(tmp_path, kind, item):
    data = np.arange(60).reshape(10, 6).astype(item.to_pandas_dtype())
    path = written(tmp_path / f"a{kind}", pa.table({"v": lists(data, item)}))
    assert load_vectors(path).dtype == data.dtype and np.array_equal(load_vectors(path), data)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_numbers(tmp_path, kind):
    path = written(tmp_path / f"a{kind}", pa.table({f"x{n}": X[:, n] for n in range(6)}))
    assert np.array_equal(load_vectors(path), X)
    assert np.array_equal(load_vectors(path, ["x4", "x1"]), X[:, [4, 1]])


@pytest.mark.parametrize("kind", KINDS)
def test_which_column(tmp_path, kind):
    path = written(tmp_path / f"a{kind}", pa.table({"a": lists(), "b": lists(-X), "s": ["x"] * 57}))
    with pytest.raises(ParameterError, match=r"several columns of lists \('a', 'b'\)"):
        load_vectors(path)
    assert np.array_equal(load_vectors(path, ["b"]), -X)
    with pytest.raises(ParameterError, match="no one column 'c'"):
        load_vectors(path, ["c"])
    for names in (["s"], ["a", "b"]):
        with pytest.raises(DTypeError):
            load_vectors(path, names)
    np.save(tmp_path / "a.npy", X)
    for read in (load_vectors, lambda *given: open_rows(*given).__enter__()):
        with pytest.raises(ParameterError, match="no columns to choose"):
            read(tmp_path / "a.npy", ["a"])


def tables():
    ragged = [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]]
    null_rows = [[1.0, 2.0], None, [3.0, 4.0]]
    null_items = [[1.0, 2.0], [3.0, None], [5.0, 6.0]]
    one_list = pa.list_(pa.float32())
    yield "ragged", pa.array(ragged, one_list), ShapeError
    yield "empty", pa.array([[], []], one_list), ShapeError
    yield "null", pa.array(null_rows, one_list), (EncodingError, ShapeError)
    yield "null fixed", pa.array(null_rows, pa.list_(pa.float32(), 2)), (EncodingError, ShapeError)
    yield "null item", pa.array(null_items, one_list), EncodingError
    yield "all null", pa.array([None, None], one_list), (EncodingError, ShapeError)
    yield "null type", pa.nulls(3), DTypeError
    yield "null numbers", pa.array([1.0, None]), EncodingError
    yield "nested", pa.array([[[1.0]], [[2.0]]]), DTypeError
    yield "struct", pa.array([{"a": 1.0}]), DTypeError
    yield "text", pa.array(["a"]), DTypeError
    yield "bool", pa.array([True]), DTypeError
    yield "lists of text", pa.array([["a"]]), DTypeError
    yield "no rows", pa.array([], one_list), ShapeError
    yield "infinite", pa.array([[1.0, np.inf]]), EncodingError
    yield "dictionary", pa.array(["a", "b"]).dictionary_encode(), (DTypeError, ParameterError)
    yield (
        "wide",
        pa.FixedSizeListArray.from_arrays(pa.array(np.zeros((1 << 20) + 1, np.int8)), (1 << 20) + 1),
        ShapeError,
    )


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
@pytest.mark.parametrize(("what", "column", "error"), list(tables()))
def test_what_is_no_vectors(tmp_path, kind, what, column, error):
    path = written(tmp_path / f"a{kind}", pa.table({"v": column}))
    with pytest.raises(error, match=rf"a{kind}"):
        load_vectors(path)


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_no_columns_and_twins(tmp_path, kind):
    with pytest.raises(MippError):
        load_vectors(written(tmp_path / f"a{kind}", pa.table({})))
    twins = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], ["x", "x"])
    with pytest.raises(ParameterError):
        load_vectors(written(tmp_path / f"b{kind}", twins))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_changed_bytes_give_typed_errors_or_numbers(tmp_path, kind, compression):
    path = written(tmp_path / f"a{kind}", pa.table({"v": lists(size=False)}), compression=compression)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for turn in range(250):
        content = bytearray(whole)
        for position in rng.choice(len(content), rng.integers(1, 5), replace=False):
            content[position] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content) + 1)] if turn % 4 == 0 else content)
        try:
            got = load_vectors(path)
        except (MippError, MemoryError):
            continue
        assert got.ndim == 2 and got.size


@pytest.mark.parametrize("kind", KINDS)
def test_other_and_missing_files(tmp_path, kind):
    for content in (b"", b"PAR1", b"ARROW1\0\0", b"x" * 1000, b"PAR1" + b"\xff" * 4 + b"PAR1"):
        (tmp_path / f"a{kind}").write_bytes(content)
        with pytest.raises(ParameterError):
            load_vectors(tmp_path / f"a{kind}")
    with pytest.raises(MippError):
        load_vectors(tmp_path / f"none{kind}")


def test_an_arrow_file_that_declares_more_than_it_holds_takes_no_memory(tmp_path):
    path = written(tmp_path / "a.arrow", pa.table({"v": lists(np.zeros((4096, 6), np.float32))}), 4096, "zstd")
    whole = path.read_bytes()
    plain = struct.pack("<q", 4096 * 6 * 4)
    assert whole.count(plain) == 1
    for declared in (1 << 28, 1 << 40, (1 << 63) - 1):
        path.write_bytes(whole.replace(plain, struct.pack("<q", declared)))
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        with pytest.raises(ParameterError, match="more than compression reaches"):
            load_vectors(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22 and pa.total_allocated_bytes() - before < 1 << 22
        tracemalloc.stop()


def test_offsets_that_lead_out_of_an_arrow_file(tmp_path):
    """Arrow ends the whole process where it uses such offsets: here in another one."""
    path = written(tmp_path / "a.arrow", pa.table({"x": lists(size=False)}), rows=100)
    raw = bytearray(path.read_bytes())
    offsets = np.arange(0, X.size + 1, X.shape[1], dtype="<i4").tobytes()
    assert raw.count(offsets[:40]) == 1
    at = raw.index(offsets[:40])
    for values in ([0, -5], [7, 3], [1 << 30, 1 << 30], [-(1 << 31), 6]):
        raw[at : at + 8] = np.array(values, "<i4").tobytes()
        path.write_bytes(raw)
        code = f"from mipp.io.vectors import load_vectors\nload_vectors({str(path)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "mipp.errors." in done.stderr.splitlines()[-1]


def test_batches_of_an_arrow_file_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "_MOST_BATCH", 1000)
    path = written(tmp_path / "a.arrow", pa.table({"v": lists()}), 57)
    with pytest.raises(ParameterError, match="fewer rows"):
        load_vectors(path)
    path = written(tmp_path / "a.arrow", pa.table({"v": lists(np.zeros((57, 6), np.float32))}), 57, "lz4")
    with pytest.raises(ParameterError, match="than is read"):
        load_vectors(path)


def test_many_equal_rows_are_read_in_pieces(tmp_path):
    """Parquet keeps equal values once, so a small file may have many rows."""
    path = tmp_path / "a.parquet"
    same = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1_000_000 * 8, np.float32)), 8)
    with parquet.ParquetWriter(path, pa.schema({"v": same.type}), compression="zstd") as writer:
        for _ in range(3):
            writer.write_table(pa.table({"v": same}))
    assert path.stat().st_size < 1 << 17
    with open_rows(path) as stream:
        before, rows = pa.total_allocated_bytes(), 0
        for block in stream.blocks(1000):
            rows += len(block)
            assert pa.total_allocated_bytes() - before < 64 << 20
            if rows > 100_000:
                break
        assert stream.rows == 3_000_000


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    from mipp.errors import MissingExtraError

    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"\[arrow\]"):
        load_vectors(tmp_path / "a.parquet")
