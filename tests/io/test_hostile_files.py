"""Files made to harm: names that are no files, damaged headers, sizes that are not there, numbers of other files."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from mipp.errors import DTypeError, EncodingError, ImageError, MippError, NotFoundError, ParameterError, ShapeError
from mipp.io.benchmark import load_benchmark
from mipp.io.images import load_image
from mipp.io.labels import load_labels, load_row_labels
from mipp.io.streams import open_rows
from mipp.io.vectors import load_vector, load_vectors, save_fvecs

DATA = np.arange(45, dtype=np.float32).reshape(9, 5)
LOADERS = [load_vectors, load_vector, load_benchmark, load_labels, load_row_labels, load_image]
SUFFIXES = [".npy", ".fvecs", ".bvecs", ".ivecs", ".hdf5", ".h5", ".csv", ".png", ""]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", LOADERS)
@pytest.mark.parametrize("name", [None, 7, 1.5, [], object()])
def test_a_name_is_text_or_a_path(read, name):
    with pytest.raises(DTypeError):
        read(name)


@pytest.mark.parametrize("read", LOADERS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_no_system_takes(tmp_path, read, suffix):
    for name in ("a" * 5000 + suffix, f"{tmp_path}/a\0b{suffix}", "/".join(["a" * 100] * 90) + suffix):
        with pytest.raises(MippError) as caught:
            read(name)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("read", LOADERS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_regular_file_does_not_hang(tmp_path, read, suffix):
    pipe, folder, link = tmp_path / f"pipe{suffix}", tmp_path / f"folder{suffix}", tmp_path / f"device{suffix}"
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("/dev/zero")
    for path in (pipe, folder, link):
        with pytest.raises((ParameterError, ImageError), match=r"not a file|vectors come as"):
            read(path)
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    with pytest.raises((ParameterError, ImageError)):
        read(tmp_path / f"loop{suffix}")
    with pytest.raises(NotFoundError):
        read(tmp_path / f"missing{suffix}")


@pytest.mark.parametrize("read", LOADERS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_files(tmp_path, read, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"")
    with pytest.raises(MippError, match=r"a(\.|:|,)"):
        read(tmp_path / f"a{suffix}")


def test_a_label_may_name_no_impossible_file(tmp_path):
    for name in ("a" * 5000, "a\0b"):
        (tmp_path / "labels.csv").write_text(f"path,label\n{name},x\n")
        with pytest.raises((NotFoundError, ParameterError)) as caught:
            load_labels(tmp_path / "labels.csv")
        assert len(str(caught.value)) < 500


# --- .npy and vecs ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_npy_with_changed_bytes_gives_typed_errors_or_all_numbers(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, DATA)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    # the header alone, so that most changes reach its parser
    for start, tries in ((0, 250), (10, 750)):
        for _ in range(tries):
            content = bytearray(whole)
            for position in rng.choice(np.arange(start, 128), rng.integers(1, 9), replace=False):
                content[position] = rng.integers(256)
            path.write_bytes(content)
            try:
                got = load_vectors(path)
            except MippError:
                continue
            assert got.ndim == 2 and got.nbytes == DATA.nbytes


@pytest.mark.parametrize(
    "shape", [(7, 5), (9, 4), (10, 5), (10**9, 5), (1 << 62, 5), (10**9, 0), (0, 5), (-9, -5), (9, True)]
)
def test_npy_shapes_that_do_not_fit_the_file(tmp_path, shape):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(DATA.tobytes())
    with pytest.raises((ParameterError, ShapeError)):
        load_vectors(path)


def test_a_header_that_is_not_there_takes_no_memory(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 200)
    tracemalloc.start()
    with pytest.raises(ParameterError):
        load_vectors(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, {"descr": "<f4", "fortran_order": False, "shape": DATA.shape})
        file.write(DATA.tobytes())
    assert np.array_equal(load_vectors(path), DATA)


def test_npy_by_columns_and_of_one_vector(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(DATA))
    assert np.array_equal(load_vectors(tmp_path / "a.npy"), DATA)
    np.save(tmp_path / "b.npy", DATA[3])
    assert np.array_equal(load_vector(tmp_path / "b.npy"), DATA[3])


@pytest.mark.parametrize("suffix", [".fvecs", ".bvecs", ".ivecs"])
def test_vecs_with_changed_bytes_give_typed_errors_or_vectors(tmp_path, suffix):
    item = {".fvecs": np.float32, ".bvecs": np.uint8, ".ivecs": np.int32}[suffix]
    whole = b"".join(np.int32(5).tobytes() + row.tobytes() for row in DATA.astype(item))
    rng = np.random.default_rng(1)
    path = tmp_path / f"a{suffix}"
    for _ in range(500):
        content = bytearray(whole)
        for position in rng.choice(len(content), rng.integers(1, 9), replace=False):
            content[position] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content) + 1)])
        try:
            got = load_vectors(path)
        except MippError:
            continue
        assert got.ndim == 2 and got.size


@pytest.mark.parametrize("value", [1e200, -1e39, np.finfo(np.float64).max])
def test_saved_numbers_do_not_become_infinite(tmp_path, value):
    data = DATA.astype(np.float64)
    data[6, 1] = value
    with pytest.raises(EncodingError, match="vector 6"):
        save_fvecs(tmp_path / "a.fvecs", data)
    assert not (tmp_path / "a.fvecs").exists()


def test_where_nothing_can_be_written(tmp_path):
    for path in (tmp_path / "none" / "a.fvecs", tmp_path):
        with pytest.raises(ParameterError):
            save_fvecs(path, DATA)
    with pytest.raises(DTypeError):
        save_fvecs(None, DATA)


# --- HDF5 -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path) -> Path:
    """Another file of the user, as raw bytes; and an HDF5 file beside it."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train"] = DATA
    path = tmp_path / "secret.bin"
    path.write_bytes(DATA.tobytes())
    return path


def _external(file: h5py.File, secret: Path) -> None:
    file.create_dataset("train", DATA.shape, "f4", external=[(str(secret), 0, DATA.nbytes)])


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout(DATA.shape, "f4")
    layout[:] = h5py.VirtualSource(secret.with_name("other.h5"), "train", DATA.shape)
    file.create_virtual_dataset("train", layout)


def _endless_virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((9, 5), "f4", maxshape=(None, 5))
    source = h5py.VirtualSource(secret.with_name("other.h5"), "train", (9, 5), maxshape=(None, 5))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("train", layout)


def _link(file: h5py.File, secret: Path) -> None:
    file["train"] = h5py.ExternalLink(secret.with_name("other.h5"), "train")


def _link_to_link(file: h5py.File, secret: Path) -> None:
    file["a"] = h5py.ExternalLink(secret.with_name("other.h5"), "/")
    file["train"] = h5py.SoftLink("/a/train")


def _link_and_list(file: h5py.File, secret: Path) -> None:
    file["other"] = h5py.ExternalLink(secret.with_name("other.h5"), "train")


@pytest.mark.parametrize("read", [load_vectors, load_benchmark])
@pytest.mark.parametrize(
    "make", [_external, _virtual, _endless_virtual, _link, _link_to_link, _link_and_list], ids=lambda f: f.__name__[1:]
)
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
def test_no_other_file_is_read_or_even_opened(tmp_path, secret, read, make, pipe):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "euclidean"
        make(file, secret)
    if pipe:  # opened, it would hang the test
        for name in ("other.h5", "secret.bin"):
            (tmp_path / name).unlink()
            os.mkfifo(tmp_path / name)
    with pytest.raises(ParameterError, match=r"not read|no dataset 'train'; datasets there: none"):
        read(path)


def test_neighbours_in_another_file_are_refused(tmp_path, secret):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["distance"] = "euclidean"
        file["train"], file["test"] = DATA, DATA
        file["neighbors"] = h5py.ExternalLink(secret.with_name("other.h5"), "train")
    with pytest.raises(ParameterError, match="another file"):
        load_benchmark(path)


def test_links_within_a_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/data"] = DATA
        file["g/near"] = h5py.SoftLink("./data")
        file["train"] = h5py.SoftLink("/g/near")
    assert np.array_equal(load_vectors(tmp_path / "a.h5"), DATA)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["train"] = h5py.SoftLink("/train")
    with pytest.raises(ParameterError, match="links"):
        load_vectors(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["train"] = h5py.SoftLink("/nothing/there")
    with pytest.raises(ParameterError, match="no dataset"):
        load_vectors(tmp_path / "c.h5")


def test_named_types_references_and_odd_types(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train"] = np.dtype("f4")
    with pytest.raises(ParameterError, match="no dataset"):
        load_vectors(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kind"] = np.dtype("f4")
        file.create_dataset("train", data=DATA, dtype=file["kind"])
    assert np.array_equal(load_vectors(tmp_path / "b.h5"), DATA)
    for kind in (h5py.ref_dtype, h5py.regionref_dtype, h5py.string_dtype(), h5py.vlen_dtype("f4"), "c16", "V8",
                 [("a", "f4")], ("f4", (2,))):  # fmt: skip
        with h5py.File(tmp_path / "c.h5", "w") as file:
            file.create_dataset("train", (3, 2), kind)
        with pytest.raises((DTypeError, ParameterError, ShapeError)):
            load_vectors(tmp_path / "c.h5")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["train"] = h5py.Empty("f4")
    with pytest.raises(ShapeError):
        load_vectors(tmp_path / "d.h5")


HUGE = [
    {"shape": (1 << 40, 9), "dtype": "f4"},
    {"shape": (10**9, 5), "dtype": "f4", "chunks": (1000, 5)},
    {"shape": (10**9, 5), "dtype": "f4", "chunks": (1000, 5), "compression": "gzip"},
    {"shape": (1 << 30, 1), "dtype": "u1", "chunks": (1 << 30, 1), "compression": "gzip"},
    {"shape": (4, 4), "dtype": "f8"},
    {"shape": (4, 4), "dtype": "f8", "chunks": (2, 2)},
    {"shape": (4, 4), "dtype": "f8", "chunks": (2, 2), "fillvalue": 7.0},
    {"shape": (1000, 1000), "dtype": "f8", "maxshape": (None, None), "chunks": (5000, 5000), "compression": "lzf"},
]


@pytest.mark.parametrize("options", HUGE, ids=range(len(HUGE)))
def test_rows_that_were_never_written_are_no_vectors(tmp_path, options):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("train", **options)
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    with pytest.raises(ParameterError, match=r"written|holds"):
        load_vectors(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_rows_written_in_part_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        made = file.create_dataset("train", (10, 5), "f4", chunks=(5, 5))
        made[:5] = DATA[:5]
    with pytest.raises(ParameterError, match="2 parts and 1 of them"):
        load_vectors(tmp_path / "a.hdf5")


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (4, 2)}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}, {"fletcher32": True},
     {"chunks": (2, 5), "maxshape": (None, 5), "compression": "gzip", "compression_opts": 9}],
)  # fmt: skip
def test_whole_datasets_of_every_layout_are_read(tmp_path, options):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("train", data=DATA, **options)
    assert np.array_equal(load_vectors(tmp_path / "a.hdf5"), DATA)


def test_a_compressed_file_of_zeros_is_no_bomb(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("train", data=np.zeros((2000, 50), np.float32), compression="gzip", chunks=(2000, 50))
    assert load_vectors(tmp_path / "a.hdf5").shape == (2000, 50)


@pytest.mark.parametrize("read", [load_vectors, load_benchmark])
def test_hdf5_with_changed_bytes_gives_typed_errors_or_vectors(tmp_path, read):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w", libver="v110") as file:
        file.attrs["distance"] = "euclidean"
        file["train"], file["test"] = DATA, DATA[:2]
        file.create_dataset("neighbors", data=np.zeros((2, 3), np.int32), chunks=(1, 3), compression="gzip")
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(400):
        content = bytearray(whole)
        for position in rng.choice(len(content), rng.integers(1, 9), replace=False):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            read(path)
        except MippError:
            continue


def test_written_vectors_are_whole_or_not_there(tmp_path):
    """A full disk is an error, and leaves what was there; links are followed, and only files written over."""
    save_fvecs(tmp_path / "a.fvecs", np.ones((9, 100)))
    assert (tmp_path / "a.fvecs").stat().st_size == 9 * 404
    (tmp_path / "link").symlink_to("a.fvecs")
    save_fvecs(tmp_path / "link", np.ones((2, 3)))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a.fvecs").stat().st_size == 2 * 16
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for bad in (
        "/dev/full",
        "/dev/null",
        "/",
        tmp_path,
        tmp_path / "pipe",
        tmp_path / "no" / "x.fvecs",
        "a\0b",
        tmp_path / "loop",
    ):
        with pytest.raises(ParameterError):
            save_fvecs(bad, np.ones((9, 100)))
    with pytest.raises(ShapeError):
        save_fvecs(tmp_path / "a.fvecs", [[1.0], [2.0, 3.0]])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fvecs", "link", "loop", "pipe"]


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch):
    save_fvecs(tmp_path / "a.fvecs", np.ones((9, 100)))
    before = (tmp_path / "a.fvecs").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ParameterError, match="No space"):
        save_fvecs(tmp_path / "a.fvecs", np.zeros((9, 100)))
    assert (tmp_path / "a.fvecs").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_true_is_no_number_of_rows(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (True, 24), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(192))
    with pytest.raises(MippError):
        load_vectors(tmp_path / "a.npy")


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,label\na.png,x,y\n")
    for read in (load_labels, load_row_labels):
        with pytest.raises(ParameterError, match="several columns"):
            read(tmp_path / "labels.csv")


@pytest.mark.parametrize("head", ["-" * 9000 + "1", "[" * 9000, "(" * 200 + ")" * 200])
def test_a_deep_header_of_an_npy_file(tmp_path, head):
    """numpy parses it as Python text, which takes a deep one for too much memory."""
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(64))
    with pytest.raises(ParameterError, match="not a complete"):
        load_vectors(path)


@pytest.mark.parametrize("chunks", [None, (100, 8)])
def test_an_hdf5_file_that_is_cut_while_it_is_read(tmp_path, chunks):
    """HDF5 gives zeros for what is behind the end of its file."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("train", data=np.ones((20_000, 8), np.float32), chunks=chunks)
    with open_rows(path) as stream:
        blocks = stream.blocks(2000)
        assert next(blocks).all()
        os.truncate(path, 200_000)
        with pytest.raises(ParameterError, match="became shorter"):
            for block in blocks:
                assert block.all()
