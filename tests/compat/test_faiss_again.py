"""Indexes whose encoding is fitted again, as rows or queries come that it did not foresee: results stay faiss's own."""

import sys

import faiss as real
import numpy as np
import pytest

import mipp.compat.faiss as ours
from mipp.errors import EncodingError, ScoreRangeError
from tests.compat.test_faiss import KINDS, D, check_equal, exact_path, pair, real_numbers, whole

__all__ = ["exact_path"]  # a fixture that pytest uses by itself


@pytest.mark.parametrize("ranking", ["user", "server"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["zeros", "one-hot", "short", "whole", "few"])
def test_rows_that_a_first_add_did_not_foresee(kind, ranking, first):
    """The encoding is fitted again, and all rows are found as faiss finds them."""
    x, q = real_numbers(1100), real_numbers(20, 1)
    start = {
        "zeros": np.zeros((1, D), np.float32),
        "one-hot": np.eye(D, dtype=np.float32)[:1],
        "short": real_numbers(1050, 2) / 10,
        "whole": whole(40, 3),
        "few": real_numbers(3, 3),
    }[first]
    a, b = pair(kind, start, ranking=ranking)
    before = a.home.settings.place
    for part in (x[:500], x[500:]):
        a.add(part, owner="berta")
        b.add(part)
    found, expected = a.search(q, 10), b.search(q, 10)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(a.reconstruct_n(), np.concatenate([start, x]), atol=2e-3)
    assert a.home.settings.place != before or first == "few"
    assert a.home.deployment.owners() == ["berta", "owner"]
    assert [p.name for p in a.home.folder.glob("deployment*")] == [a.home.settings.place]


def test_ids_and_deletions_outlive_another_encoding(tmp_path):
    a, b = ours.IndexIDMap(ours.IndexFlatL2(D, folder=tmp_path / "i", threads=1)), real.IndexIDMap2(real.IndexFlatL2(D))
    for i in range(3):
        ids = np.arange(10) * 3 + 100 * i
        a.add_with_ids(whole(10, i), ids, owner=f"o{i}")
        b.add_with_ids(whole(10, i), ids)
    gone = np.array([0, 3, 100, *range(200, 230, 3)])
    assert a.remove_ids(gone) == b.remove_ids(gone) == 13
    more = real_numbers(5) * 1000
    a.add_with_ids(more, np.arange(5) + 1000)
    b.add_with_ids(more, np.arange(5) + 1000)
    for _ in range(2):
        found, expected = a.search(whole(4, 9), 22), b.search(whole(4, 9), 22)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(np.sort(a.id_map), np.sort(real.vector_to_array(b.id_map)))
        a.close()
        a = ours.open_index(tmp_path / "i")
    a.close()


@pytest.mark.parametrize("stop", ["create", "upload", "write"])
def test_another_encoding_that_is_cut_off_changes_nothing(tmp_path, monkeypatch, stop):
    a = ours.IndexFlatL2(D, folder=tmp_path / "i", threads=1)
    a.add(whole(10))
    a.add(whole(10, 1), owner="berta")
    place, before = a.home.settings.place, a.search(whole(3, 2), 20)
    home = sys.modules["mipp.compat.faiss.home"]
    with monkeypatch.context() as patch:
        if stop == "create":
            patch.setattr(home.Deployment, "create", _stop)
        elif stop == "upload":
            patch.setattr(home.ImageOwner, "grant", _stop)
        else:
            patch.setattr(home.Settings, "to_json", _stop)
        with pytest.raises(KeyboardInterrupt):
            a.add(real_numbers(5))
    for _ in range(2):
        assert a.home.settings.place == place and a.ntotal == 20
        np.testing.assert_array_equal(a.search(whole(3, 2), 20)[0], before[0])
        a.close()
        # a process that died left half of a new one
        (tmp_path / "i" / "deployment-0123abcd").mkdir(exist_ok=True)
        (tmp_path / "i" / "deployment-of-mine").mkdir(exist_ok=True)
        a = ours.open_index(tmp_path / "i")
        assert not (tmp_path / "i" / "deployment-0123abcd").exists()
        assert (tmp_path / "i" / "deployment-of-mine").exists()
    a.add(real_numbers(5))
    assert a.ntotal == 25 and not (tmp_path / "i" / place).exists()
    a.close()


def _stop(*_, **__):
    raise KeyboardInterrupt


def test_queries_that_no_row_foresaw():
    for scale in (100, 1000):
        a, b = pair("IndexFlatL2", real_numbers(30))
        q = real_numbers(3, 1) * scale
        found, expected = a.search(q, 5), b.search(q, 5)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
        q[0] *= 1000
        lims = a.range_search(q[:1], np.inf)[0]
        assert lims.tolist() == [0, 30]


def test_what_was_declared_stays_and_refuses_rows_whole():
    x = real_numbers(30)
    for kind in KINDS:
        fitted = pair(kind, x)[0].encoding
        a, _ = pair(kind, x, encoding=fitted)
        before = a.search(x[:2], 3)
        for long in (x[:1] * 100, np.eye(D, dtype=np.float32) * 1e4, -np.eye(D, dtype=np.float32) * 1e30):
            with pytest.raises(ScoreRangeError, match="declare"):
                a.add(np.concatenate([x, long]))
        assert a.ntotal == 30 and a.encoding == fitted
        np.testing.assert_array_equal(before[0], a.search(x[:2], 3)[0])
        a.add(x * 1.2)
        assert a.ntotal == 60
        a, _ = pair(kind, whole(5), encoding=pair(kind, whole(5))[0].encoding)
        with pytest.raises(EncodingError, match="whole"):
            a.add(x)
        assert a.ntotal == 5
    a, _ = pair("IndexFlatL2", x, encoding=pair("IndexFlatL2", x)[0].encoding)
    with pytest.raises(ScoreRangeError):
        a.search(x * 1000, 1)


def test_rows_of_which_no_encoding_keeps_the_nearest_are_refused():
    x = real_numbers(200)
    for kind in KINDS:
        far = np.concatenate([x, np.full((1, D), 1e30, np.float32)])
        with pytest.raises(EncodingError, match="longest"):
            pair(kind, far)
        a, b = pair(kind, x)
        with pytest.raises(EncodingError, match="longest"):
            a.add(far)
        assert a.ntotal == 200
        np.testing.assert_array_equal(a.search(x[:9], 10)[1], b.search(x[:9], 10)[1])
    with pytest.raises(EncodingError, match="ring_bits=64"):
        pair("IndexFlatL2", np.concatenate([x, np.full((1, D), 1e6, np.float32)]), ring_bits=32)


def test_the_tutorial_finds_what_faiss_finds():
    """faiss's tutorial: 64 random dimensions, the first plus i / 1000, and one row that is far away."""
    rng = np.random.RandomState(1234)
    x, q = rng.random((20_000, 64)).astype(np.float32), rng.random((200, 64)).astype(np.float32)
    x[:, 0] += np.arange(20_000) / 1000.0
    q[:, 0] += np.arange(200) / 1000.0
    for outlier, least in ((0.0, 0.999), (1e6, 0.99)):
        x[5, 0] += outlier
        a, b = ours.IndexFlatL2(64, threads=1), real.IndexFlatL2(64)
        a.add(x)
        b.add(x)
        (near, found), (true, expected) = a.search(q, 10), b.search(q, 10)
        assert np.mean([len(np.intersect1d(f, e)) for f, e in zip(found, expected, strict=True)]) >= 10 * least
        np.testing.assert_allclose(near, true, rtol=1e-5 if not outlier else 4e-3)


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_shorter_rows_that_come_later_are_kept_as_finely(ranking):
    """Many of them or a few, after an add or a training on longer ones, by any way into the index."""
    x = real_numbers(2000, 4)
    for first, rest in ((x[:1000] * 1e3, x[1000:]), (x[:1000] * 1e3, x[1000:1100]), (None, x)):
        a, b = pair("IndexFlatL2", first, ranking=ranking)
        if first is None:
            a.train(x * 1e3)
        a.add(rest)
        b.add(rest)
        found, expected = a.search(rest[:40], 10)[1], b.search(rest[:40], 10)[1]
        recall = np.mean([len(np.intersect1d(f, e)) for f, e in zip(found, expected, strict=True)]) / 10
        assert recall >= (0.99 if ranking == "server" else 1.0)
        a.close()


def test_fractional_queries_between_rows_of_small_whole_numbers():
    rows = np.random.default_rng(5).integers(0, 2, (3000, D)).astype(np.float32)
    q = np.random.default_rng(6).random((50, D)).astype(np.float32)
    a, b = pair("IndexFlatL2", rows)
    check_equal("IndexFlatL2", a.search(rows[:4], 9), b.search(rows[:4], 9), rows, rows[:4])
    assert a.encoding.ring_bits == 32
    for scale in (1, 1e-3):
        np.testing.assert_allclose(a.search(q * scale, 10)[0], b.search(q * scale, 10)[0], rtol=1e-4)
    assert a.encoding.ring_bits == 64
    # whole numbers are as exact as before
    check_equal("IndexFlatL2", a.search(rows[:4], 9), b.search(rows[:4], 9), rows, rows[:4])
    kept, _ = pair("IndexFlatL2", rows, ring_bits=32)
    kept.search(q, 10)
    assert kept.encoding.ring_bits == 32


def test_rows_that_come_one_by_one_are_kept_as_if_they_came_together():
    x = (1e6 + real_numbers(600, 3)).astype(np.float32)
    a, b = pair("IndexFlatL2")
    for start, stop in ((0, 1), (1, 5), (5, 50), (50, 600)):
        a.add(x[start:stop])
        b.add(x[start:stop])
    np.testing.assert_allclose(a.search(x[:30], 10)[0], b.search(x[:30], 10)[0], rtol=0.02, atol=1e-2)
