"""The calls of faiss: each is here and gives the same, or differs by intent, for a reason that is written down."""

import json
import os
import stat
import subprocess
import sys

import faiss as real
import numpy as np
import pytest

import mipp.compat.faiss as ours
from mipp.errors import DeploymentError, DTypeError, MippError, NotFoundError, ParameterError, ShapeError

D = 8


def whole(rows, seed=0, d=D):
    return np.random.default_rng(seed).integers(-20, 21, (rows, d)).astype(np.float32)


def both(kind="IndexFlatL2", rows=30):
    made = [getattr(m, kind)(D) for m in (ours, real)]
    for index in made:
        index.add(whole(rows))
    return made


#: names of faiss's indexes and modules that are not here, or not the same, and why
BY_INTENT = {
    # an index
    **dict.fromkeys(
        ["codes", "get_xb", "sa_encode", "sa_decode", "add_sa_codes", "get_CodePacker"], "rows are encrypted"
    ),
    **dict.fromkeys(
        ["get_distance_computer", "get_FlatCodesDistanceComputer", "compute_distance_subset", "search_subset"],
        "servers compute distances, over all rows; a selector limits a search",
    ),
    **dict.fromkeys(
        ["cached_l2norms", "clear_l2norms", "sync_l2norms", "permute_entries", "search1", "train_with_queries"],
        "inside of faiss",
    ),
    **dict.fromkeys(["compute_residual", "compute_residual_n"], "takes pointers of C"),
    **dict.fromkeys(["thisown", "own_fields", "check_consistency", "construct_rev_map", "rev_map"], "of its C++"),
}
#: variants of calls in other number types or for pointers
SUFFIXES = ("_c", "_ex")


@pytest.mark.parametrize("kind", ["IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexIDMap", "IndexIDMap2"])
def test_every_name_of_an_index_is_here_or_left_out_for_a_reason(kind):
    theirs = {n for n in dir(getattr(real, kind)) if not n.startswith("_") and not n.endswith(SUFFIXES)}
    flat = ours.IndexFlatL2(D)
    made = getattr(ours, kind)(flat if "Map" in kind else D)
    missing = {n for n in theirs if not hasattr(made, n)}
    assert missing <= set(BY_INTENT), sorted(missing - set(BY_INTENT))
    with pytest.raises(AttributeError, match="encrypted"):
        made.codes  # noqa: B018
    assert json.dumps(made.ntotal) == "0"


def test_names_of_the_module_that_clients_use():
    """Of LangChain, ann-benchmarks, datasets, txtai, Haystack and the tutorials; others say that they are not here."""
    for name in [*ours.__all__, "__version__"]:
        if name == "open_index":  # of ours alone
            continue
        assert hasattr(real, name) and hasattr(ours, name), name
        if name.isupper() or name.startswith(("IO", "METRIC")):
            assert getattr(ours, name) == getattr(real, name)
    clients = """IndexFlat IndexFlatIP IndexFlatL2 IndexIDMap IndexIDMap2 clone_index index_factory knn normalize_L2
        omp_set_num_threads read_index write_index serialize_index deserialize_index vector_to_array IDSelectorBatch
        IDSelectorRange IDSelectorArray IDSelectorBitmap IDSelectorAnd IDSelectorOr IDSelectorNot SearchParameters
        BufferedIOReader BufferedIOWriter METRIC_L2 METRIC_INNER_PRODUCT"""
    assert set(clients.split()) <= set(ours.__all__)
    with pytest.raises(AttributeError, match="no IndexIVFFlat"):
        ours.IndexIVFFlat  # noqa: B018


def test_kinds_are_siblings():
    for module in (ours, real):
        flat = module.IndexFlatL2(D)
        mapped = module.IndexIDMap2(flat)
        assert not isinstance(flat, module.IndexFlatIP)
        assert not isinstance(module.IndexFlatIP(D), module.IndexFlatL2)
        assert isinstance(flat, module.IndexFlat) and isinstance(flat, module.Index)
        assert isinstance(mapped, module.Index) and not isinstance(mapped, module.IndexFlat)
        assert mapped.index.ntotal == 0


def test_a_map_leaves_the_ids_of_its_index_alone():
    x, q = whole(10), whole(3, 1)
    found = []
    for module in (ours, real):
        flat = module.IndexFlatL2(D)
        mapped = module.IndexIDMap(flat)
        mapped.add_with_ids(x, np.arange(10) * 7 + 1000)
        found.append([flat.search(q, 10), mapped.search(q, 10), module.vector_to_array(mapped.id_map)])
        assert flat.ntotal == mapped.ntotal == 10
        with pytest.raises((ParameterError, RuntimeError)):
            mapped.add(x)
        with pytest.raises((ParameterError, RuntimeError)):
            flat.add_with_ids(x, np.arange(10))
        with pytest.raises((ParameterError, RuntimeError)):
            module.IndexIDMap(flat)
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(found[0][0][1].ravel()) == set(range(10))


def test_rows_of_an_owner_who_comes_after_a_search_are_found():
    for ranking in ("user", "server"):
        index, other = ours.IndexFlatIP(D, ranking=ranking), real.IndexFlatIP(D)
        for i in range(3):
            index.add(whole(5, i) * (i + 1), owner=f"o{i}")
            other.add(whole(5, i) * (i + 1))
            np.testing.assert_array_equal(index.search(whole(4, 9), 3)[0], other.search(whole(4, 9), 3)[0])
        assert index.ntotal == other.ntotal == 15


def test_search_and_reconstruct():
    a, b = both()
    for found, expected in zip(
        a.search_and_reconstruct(whole(4, 1), 33), b.search_and_reconstruct(whole(4, 1), 33), strict=True
    ):
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))
    assert (a.code_size, a.sa_code_size()) == (b.code_size, b.sa_code_size())


def test_merging():
    results = []
    for module in (ours, real):
        a, b = module.IndexFlatL2(D), module.IndexFlatL2(D)
        a.add(whole(5))
        b.add(whole(6, 1) * 100)
        a.check_compatible_for_merge(b)
        a.merge_from(b)
        maps = [module.IndexIDMap2(module.IndexFlatL2(D)) for _ in range(2)]
        for i, one in enumerate(maps):
            one.add_with_ids(whole(4, i), np.arange(4) + 10 * i)
        maps[0].merge_from(maps[1], 100)
        results.append(
            [a.ntotal, b.ntotal, a.reconstruct_n(), np.sort(module.vector_to_array(maps[0].id_map)), maps[1].ntotal]
        )
        for bad in (module.IndexFlatIP(D), module.IndexFlatL2(D + 1)):
            with pytest.raises((ParameterError, RuntimeError)):
                a.merge_from(bad)
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    a = both()[0]
    for bad in (a, 3):
        with pytest.raises(ParameterError):
            a.merge_from(bad)


def test_factory():
    for text, metric in (("Flat", 1), ("Flat", 0), ("IDMap,Flat", 1), ("IDMap2, Flat", 0)):
        mine, theirs = ours.index_factory(D, text, metric), real.index_factory(D, text.replace(" ", ""), metric)
        assert type(mine).__name__ == type(theirs).__name__ or isinstance(mine, ours.IndexFlat)
        assert (mine.d, mine.metric_type) == (theirs.d, theirs.metric_type)
    assert type(ours.index_factory(D, "Flat", ours.METRIC_L2)) is ours.IndexFlatL2
    for text, error in (("IVF10,Flat", ParameterError), ("HNSW32", ParameterError), (3, DTypeError)):
        with pytest.raises(error):
            ours.index_factory(D, text)
    with pytest.raises(ParameterError):
        ours.index_factory(D, "Flat", 2)


def test_normalising_in_place():
    for scale in (1, 1e-25, 1e30):
        x = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32) * np.float32(scale)
        x[2] = 0
        y = x.copy()
        assert ours.normalize_L2(x) is None
        if scale == 1:
            real.normalize_L2(y)
            np.testing.assert_allclose(x, y, rtol=1e-6)
        lengths = np.linalg.norm(x.astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, [1, 1, 0, 1, 1], rtol=1e-6)
    for bad, error in (
        (x.astype(np.float64), DTypeError), (x[0], ShapeError), (x[:, ::2], ShapeError), ([[1.0]], DTypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            ours.normalize_L2(bad)


def test_knn_of_arrays():
    x, q = whole(20), whole(4, 1)
    for metric in (0, 1):
        found, expected = ours.knn(q, x, 5, metric=metric), real.knn(q, x, 5, metric=metric)
        np.testing.assert_array_equal(found[0], expected[0])
    with pytest.raises(ShapeError):
        ours.knn(q, x[0], 3)


def test_copies_and_bytes():
    for made in (both()[0], ours.IndexIDMap(ours.IndexFlatIP(D)), ours.IndexIDMap2(ours.IndexFlatIP(D))):
        if not made.ntotal:
            made.add_with_ids(whole(9), np.arange(9) + 50)
        before = made.search(whole(3, 1), 5)
        for copy in (ours.clone_index(made), ours.deserialize_index(ours.serialize_index(made))):
            assert isinstance(copy, ours.Index) and copy.home.folder != made.home.folder
            np.testing.assert_array_equal(copy.search(whole(3, 1), 5)[1], before[1])
            copy.remove_ids(copy.search(whole(1, 1), 1)[1][0])
            assert (copy.ntotal, made.ntotal) == (made.ntotal - 1, made.ntotal)
        assert type(ours.clone_index(made)) is type(made)
    for bad, error in ((np.zeros(9, np.uint8), DeploymentError), (np.zeros(9), DTypeError)):
        with pytest.raises(error):
            ours.deserialize_index(bad)


def test_threads():
    try:
        ours.omp_set_num_threads(3)
        assert ours.omp_get_max_threads() == 3 and ours.IndexFlatL2(D).home.threads == 3
        assert ours.IndexFlatL2(D, threads=1).home.threads == 1
        for bad, error in ((0, ParameterError), (1.5, DTypeError), (True, DTypeError)):
            with pytest.raises(error):
                ours.omp_set_num_threads(bad)
    finally:
        sys.modules["mipp.compat.faiss.home"].Defaults.threads = None
    assert ours.omp_get_max_threads() >= 1


def test_readers_and_writers_are_refused_in_a_sentence(tmp_path):
    for call in (
        lambda: ours.BufferedIOWriter(3),
        lambda: ours.BufferedIOReader(3),
        lambda: ours.write_index(both()[0], 3),
        lambda: ours.read_index(3),
    ):
        with pytest.raises(ParameterError, match="0600"):
            call()
    with pytest.raises(DTypeError):
        ours.read_index(tmp_path / "x", "r")
    path = tmp_path / "index"
    ours.write_index(both()[0], path)
    for flags in (0, ours.IO_FLAG_MMAP, ours.IO_FLAG_READ_ONLY):
        assert ours.read_index(str(path), flags).ntotal == 30


def test_selectors_by_bits_and_of_two():
    a, b = both()
    q = whole(3, 1)
    bits = np.array([0b10110, 0b1000_0001, 0xFF], np.uint8)
    selectors = []
    for module in (ours, real):
        bitmap, some = module.IDSelectorBitmap(bits), module.IDSelectorArray(np.arange(3, 12))
        selectors.append(
            [
                bitmap, some, module.IDSelectorAnd(bitmap, some), module.IDSelectorOr(bitmap, some),
                module.IDSelectorXOr(bitmap, some),
                module.IDSelectorNot(module.IDSelectorOr(bitmap, some)),
            ]
        )  # fmt: skip
    for mine, theirs in zip(*selectors, strict=True):
        expected = b.search(q, 30, params=real.SearchParameters(sel=theirs))
        found = a.search(q, 30, params=ours.SearchParameters(sel=mine))
        np.testing.assert_array_equal(found[0], expected[0])
        assert [mine.is_member(i) for i in range(-2, 40)] == [theirs.is_member(i) for i in range(-2, 40)]
    # ours and faiss's together
    assert a.remove_ids(ours.IDSelectorAnd(real.IDSelectorRange(0, 9), ours.IDSelectorRange(5, 20))) == 4
    for bad, error in ((np.zeros(3), DTypeError), (np.zeros((2, 2), np.uint8), ShapeError)):
        with pytest.raises(error):
            ours.IDSelectorBitmap(bad)


def test_writing_follows_links_and_writes_over_files_only(tmp_path):
    index = both()[0]
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "index", tmp_path / "link"
    for before in (None, "old"):
        target.unlink(missing_ok=True)
        if before:
            target.write_text(before)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        ours.write_index(index, link)
        assert link.is_symlink() and not target.is_symlink()
        assert ours.read_index(target).ntotal == 30 and ours.read_index(link).ntotal == 30
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for other in (pipe, tmp_path, "/dev/null"):
        was = os.stat(other).st_mode
        with pytest.raises(ParameterError, match="not a regular file"):
            ours.write_index(index, other)
        assert os.stat(other).st_mode == was
    with pytest.raises(NotFoundError):  # and does not wait for a writer
        ours.read_index(pipe)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe", "there"]


def test_a_file_that_is_longer_than_its_index_is_refused(tmp_path):
    path = tmp_path / "index"
    ours.write_index(both()[0], path)
    good = path.read_bytes()
    cut = good.index(b"PK\x03\x04", 4)
    for bad in (
        good + b"\0", good + bytes(1 << 20), b"\0" + good, good + good, good[:-2] + b"\5\0hello",
        good[:cut] + b"between" + good[cut:],
    ):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(MippError):
            ours.read_index(path)
    path.write_bytes(good)
    assert ours.read_index(path).ntotal == 30


def test_a_forked_childs_add_does_not_reach_its_parent():
    index = both()[0]
    before = index.search(whole(3, 1), 5)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            index.add(whole(2, 7), owner="child")
        except DeploymentError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(index.search(whole(3, 1), 5)[1], before[1])
    index.add(whole(2, 7))
    assert index.ntotal == 32 and index.search(whole(2, 7), 1)[0].max() == 0


def test_other_byte_orders_and_layouts_give_the_same():
    x = whole(10)
    for form in (x.astype(">f4"), x.astype(">i2"), x.astype("<f8"), np.repeat(x, 2, axis=0)[::2], x[::-1][::-1]):
        index = ours.IndexFlatL2(D)
        index.add(form)
        np.testing.assert_array_equal(index.reconstruct_n(), x)
        assert (index.search(form, 1)[0] == 0).all()
    mapped = ours.IndexIDMap(ours.IndexFlatL2(D))
    mapped.add_with_ids(x, np.arange(10).astype(">i8") + 256)
    assert sorted(mapped.id_map) == list(range(256, 266))
    assert mapped.remove_ids(np.array([257], ">i4")) == 1


def test_the_room_needs_nothing_of_faiss():
    code = "import sys, mipp.compat.faiss as f; f.IndexFlatL2(3); assert 'faiss' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
