"""Rows in memory: once, joined or mapped, whatever is added, merged and deleted; and read ahead."""

import contextlib
import gc
import mmap
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest

import mipp
from mipp.errors import IntegrityError, ParameterError
from mipp.io import memory
from mipp.io.memory import ahead, aligned_words, read_in
from mipp.server.cloud import _segments
from mipp.server.plan import Plan
from mipp.store import rows
from tests.conftest import ALL_RANKINGS, vectors

WIDE = 128


def homes(view):
    return {id(b.home): b.home for b in view.batches}


def stored_bytes(view):
    return sum(b.words.nbytes for b in view.batches)


def held_bytes(view):
    """Of the arrays that batches lie in."""
    return sum(h.nbytes for h in homes(view).values())


@pytest.fixture
def wide(tmp_path, monkeypatch):
    """A deployment of vectors of 128 words, whose files are not synced one by one."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", WIDE), threads=1) as deployment:
        yield deployment


@pytest.mark.slow
def test_many_small_batches_are_in_memory_once(wide):
    """All that a cloud holds for its plans, objects included, is at most 1.1 times the rows."""
    owner, user = wide.create_owner("o"), wide.create_user("u")
    for i in range(250):
        owner.add_vectors(vectors(12, i, WIDE))
    owner.grant(user.id, rankings=ALL_RANKINGS)
    server = wide.servers[1]
    server.store.views.clear()
    tracemalloc.start()
    view = server.store.view(owner.id)
    plans = [Plan([view], view.ids[start:]) for start in (0, 1, 7, 100)]
    plans += [Plan([view], view.ids[::2]), Plan([view], view.ids[5:50])]
    segments = [_segments(plan) for plan in plans]
    gc.collect()  # else the interpreter's free lists count, which keep the catalog's row tuples for reuse
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = 250 * 12 * WIDE * 4
    assert stored_bytes(view) == size == held_bytes(view)
    assert [len(s) for s in segments] == [1, 1, 1, 1, 125, 1]
    assert all(one.words.base is not None for s in segments for one in s)
    public = sum(p.starts.nbytes + p.nonces.nbytes + 4 * 8 * len(p.rows) for p in plans)  # 5 plans more than one
    assert size < held < 1.1 * size + public
    query = vectors(1, 3, WIDE)[0]
    assert user.search(query, 5, ranking="user").hits[0].score > 0


def test_batches_that_come_one_by_one_are_joined_in_few_arrays(wide):
    owner, user = wide.create_owner("o"), wide.create_user("u")
    owner.grant(user.id, rankings=ALL_RANKINGS)
    store, copied = wide.servers[1].store, 0
    plain = []
    before = {}
    for i in range(70):
        x = vectors(1 + i % 3, i, WIDE)
        plain.append(x)
        owner.add_vectors(x)
        view = store.view(owner.id)
        now = homes(view)
        copied += sum(h.nbytes for key, h in now.items() if key not in before)
        before = now
        assert held_bytes(view) == stored_bytes(view)
        assert len(now) <= 8
    assert copied < 8 * stored_bytes(view)  # about log2(70) times
    encoding = wide.config.encoding
    queries = vectors(3, 99, WIDE)
    expected = encoding.encode_queries(queries).astype(int) @ encoding.encode_rows(np.concatenate(plain)).astype(int).T
    assert np.array_equal(user.scores(queries)[1], expected)


def test_rows_of_batches_that_are_gone_leave_memory(wide):
    owner, user = wide.create_owner("o"), wide.create_user("u")
    owner.grant(user.id, rankings=ALL_RANKINGS)
    x = [vectors(5 if 3 <= i < 15 else 20, i, WIDE) for i in range(20)]
    ids = [owner.add_vectors(some) for some in x]
    query = vectors(1, 5, WIDE)[0]
    user.search(query, 5, ranking="user")
    store = wide.servers[1].store
    assert len(homes(store.view(owner.id))) == 1
    assert owner.compact(merge_below=10) > 0
    user.search(query, 5, ranking="user")
    view = store.view(owner.id)
    assert sorted(b.rows for b in view.batches) == [20] * 8 + [60] and held_bytes(view) <= stored_bytes(view) * 1.06
    # one batch in the middle is rewritten: its neighbours stay, or are joined again, without it
    owner.delete(ids[17][:3])
    owner.compact(merge_below=1)
    user.search(query, 5, ranking="user")
    view = store.view(owner.id)
    assert sum(b.generation for b in view.batches) == 1
    assert held_bytes(view) <= stored_bytes(view) * 1.06
    x[17] = x[17][3:]
    encoding = wide.config.encoding
    scores = encoding.encode_queries(query[None]).astype(int) @ encoding.encode_rows(np.concatenate(x)).astype(int).T
    assert np.array_equal(np.sort(user.scores(query[None])[1]), np.sort(scores))


def test_plans_of_an_older_state_are_dropped(wide):
    """They answer nothing any more, and would keep the arrays of their time."""
    owner, other, user = wide.create_owner("o"), wide.create_owner("p"), wide.create_user("u")
    for o in (owner, other):
        o.add_vectors(vectors(10, 1, WIDE))
        o.grant(user.id, rankings=ALL_RANKINGS)
    query = vectors(1, 5, WIDE)[0]
    user.search(query, 1, owners=[other.id], ranking="user")
    for i in range(5):
        owner.add_vectors(vectors(10, i, WIDE))
        user.search(query, 5, ranking="user")
        user.search(query, 5, owners=[owner.id], ranking="user")
    for server in wide.servers.values():
        assert len(server.queries._plans) == 3
        views = {id(p.view) for plan in server.queries._plans.values() for p in plan.parts}
        assert views == {id(server.store.view(o.id)) for o in (owner, other)}


def test_joined_arrays_are_not_too_large(wide, monkeypatch):
    monkeypatch.setattr(rows, "_JOINED_BYTES", 30 * WIDE * 4)
    owner, user = wide.create_owner("o"), wide.create_user("u")
    owner.grant(user.id, rankings=ALL_RANKINGS)
    x = [vectors(7, i, WIDE) for i in range(20)]
    for some in x:
        owner.add_vectors(some)
    store = wide.servers[2].store
    for _ in range(2):
        view = store.view(owner.id)
        assert max(len(h) for h in homes(view).values()) <= 30 and held_bytes(view) == stored_bytes(view)
        queries = vectors(2, 50, WIDE)
        encoding = wide.config.encoding
        scores = encoding.encode_queries(queries).astype(int) @ encoding.encode_rows(np.concatenate(x)).astype(int).T
        assert np.array_equal(user.scores(queries)[1], scores)
        for server in wide.servers.values():
            server.store.views.clear()  # as after a restart: all new


def mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) else array


def test_large_batches_are_mapped_not_read(wide):
    owner, user = wide.create_owner("o"), wide.create_user("u")
    x = vectors(5000, 1, WIDE)
    owner.add_vectors(x[:10])
    owner.add_vectors(x[10:4990])
    owner.add_vectors(x[4990:])
    owner.grant(user.id, rankings=ALL_RANKINGS)
    wide.servers[1].store.views.clear()
    tracemalloc.start()
    view = wide.servers[1].store.view(owner.id)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000 < stored_bytes(view)
    assert isinstance(mapped(view.batches[1].home), mmap.mmap)
    assert not isinstance(mapped(view.batches[0].home), mmap.mmap)
    found = user.nearest(x[[3, 2000, 4995]], 1, ranking="user")
    assert found.rows[:, 0].tolist() == [3, 2000, 4995]


@pytest.mark.parametrize("position", [10, 300, 2_000_000, -40, -1])
def test_damage_of_a_mapped_file_is_found_at_its_first_use(wide, position):
    owner, user = wide.create_owner("o"), wide.create_user("u")
    owner.add_vectors(vectors(5000, 1, WIDE))
    owner.grant(user.id, rankings=ALL_RANKINGS)
    path = next((wide.folder / "servers/1/shares").glob("*/*"))
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)
    batch, good = path.name.split(".")[0], bytearray(raw)
    good[position] ^= 1
    for content in (raw, raw[:-1], None):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(IntegrityError, match=batch):
            user.search(vectors(1, 1, WIDE)[0], 1, ranking="user", strict=True)
        with pytest.raises(ParameterError, match="left out"):
            user.search(vectors(1, 1, WIDE)[0], 1, ranking="user")
    path.write_bytes(good)  # brought back: found without a restart
    assert user.search(vectors(1, 1, WIDE)[0], 1, ranking="user", strict=True).hits


@pytest.mark.parametrize("window", [1 << 30, 4096, 1])
def test_windows_and_reading_ahead_change_nothing(wide, monkeypatch, window):
    for module in ("mipp.io.memory", "mipp.backends.cpu"):
        monkeypatch.setattr(f"{module}.WINDOW_BYTES", window)
    owner, user = wide.create_owner("o"), wide.create_user("u")
    x = vectors(3000, 1, WIDE)
    for a, b in ((0, 5), (5, 2500), (2500, 2999), (2999, 3000)):
        owner.add_vectors(x[a:b])
    batch = owner.batches()[1]
    owner.delete([(batch.id, r) for r in range(100, 500)])
    owner.compact(merge_below=1)
    owner.grant(user.id, rankings=ALL_RANKINGS)
    kept = np.delete(x, np.arange(105, 505), axis=0)
    encoding = wide.config.encoding
    queries = vectors(2, 9, WIDE)
    scores = encoding.encode_queries(queries).astype(int) @ encoding.encode_rows(kept).astype(int).T
    assert np.array_equal(user.scores(queries)[1], scores)


# --- memory -------------------------------------------------------------------------------------------------------


def test_pieces_come_in_order_and_the_thread_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "WINDOW_BYTES", 1)
    path = tmp_path / "f"
    content = np.random.default_rng(0).integers(0, 256, 1_000_003, np.uint8)
    content.tofile(path)
    with open(path, "rb") as file:
        data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    pieces = [data[i : i + 10_007] for i in range(0, len(data), 10_007)]
    before = threading.active_count()
    assert np.array_equal(np.concatenate(list(ahead(pieces))), content)
    assert threading.active_count() == before
    with contextlib.closing(ahead(pieces)) as read:
        assert next(read) is pieces[0] and next(read) is pieces[1]
    assert threading.active_count() == before
    assert list(ahead([])) == []


def test_what_is_read_ahead_is_what_comes_next(monkeypatch):
    monkeypatch.setattr(memory, "WINDOW_BYTES", 1)
    pieces = [np.full(10, i) for i in range(6)]
    seen = []
    monkeypatch.setattr(memory, "read_in", lambda piece: seen.append(int(piece[0])))
    with contextlib.closing(ahead(pieces)) as read:
        for i, _ in enumerate(read):
            until = time.monotonic() + 10
            while len(seen) < min(i + 2, 6) and time.monotonic() < until:
                time.sleep(0.001)
            assert seen == list(range(min(i + 2, 6)))
    assert seen == list(range(6))


def test_read_in_of_anything(monkeypatch):
    for array in (np.empty(0), np.ones(3), np.ones((700, 300))[::2], aligned_words(3, 5, np.dtype(np.uint16))):
        read_in(np.ascontiguousarray(array))
    monkeypatch.setattr(memory, "_ADVISE", None)  # not Linux
    read_in(np.ones(3))
    pieces = [np.ones(1), np.ones(2)]
    assert all(a is b for a, b in zip(ahead(pieces), pieces, strict=True))
