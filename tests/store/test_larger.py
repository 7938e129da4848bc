"""Rows and records of files that memory cannot hold: their pages are given up after use, and results are the same."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp import pir
from mipp.io import memory
from mipp.io.memory import ahead, map_file, mapping_of, soon
from mipp.server.plan import Plan
from tests.conftest import ALL_RANKINGS, vectors

WIDE, ROWS, WINDOW = 128, 64_000, 4 << 20
#: large pages of the system
LARGE = 2 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells which pages are mapped")


def resident(path):
    """Bytes of a file that are in this process's page tables."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.fixture
def has(monkeypatch):
    """Says how much memory is available, in bytes, from now on; windows are small."""

    def tell(size):
        monkeypatch.setattr(memory, "available_bytes", lambda: size)
        monkeypatch.setattr(memory, "_ASKED", [-memory._HOLDS, 0.0])

    for module in ("mipp.io.memory", "mipp.backends.cpu", "mipp.pir"):
        monkeypatch.setattr(f"{module}.WINDOW_BYTES", WINDOW)
    monkeypatch.setattr(memory, "_IN_FLIGHT", 0)
    for mapping in memory._MAPPED.values():  # of other tests
        mapping.used = -memory._RECENT
    return tell


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A deployment with a file of 31 MiB at each cloud, and one array of small batches."""
    with mipp.Deployment.create(
        tmp_path_factory.mktemp("larger") / "d", mipp.Encoding("cosine", WIDE), threads=1
    ) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(vectors(ROWS, 1, WIDE))
        for seed in (2, 3):
            owner.add_vectors(vectors(40, seed, WIDE))
        owner.grant(user, rankings=ALL_RANKINGS)
        yield deployment


def use(pieces):
    """Read pieces, ahead of their use; a copy."""
    return np.concatenate([piece.copy() for piece in ahead(pieces)])


def files(deployment, server=1):
    return [p for p in (deployment.folder / f"servers/{server}/shares").glob("*/*") if p.stat().st_size > 1 << 20]


def product(deployment, start=0, stop=None):
    server = deployment.servers[1]
    view = server.store.view(deployment.owner("o").id)
    plan = Plan([view], view.ids)
    stop = plan.total if stop is None else stop
    share = np.random.default_rng(5).integers(0, 1 << 32, (2, WIDE), np.uint32)
    out = np.zeros((2, stop - start), np.uint32)
    server.rows(plan).product(share, start, stop, out)
    return out


def test_used_pages_are_given_up_where_memory_holds_a_part(large, has):
    (path,) = files(large)
    size = path.stat().st_size
    has(100 * size)
    whole = product(large)
    assert resident(path) > size - LARGE, "what fits stays"
    has(size / 2)
    for _ in range(2):
        assert np.array_equal(product(large), whole)
        assert 0.45 * size - WINDOW - LARGE < resident(path) < 0.45 * size + LARGE, "the first part stays"
    has(0)
    assert np.array_equal(product(large), whole), "and arrays of small batches keep what they hold"
    assert resident(path) <= LARGE
    has(100 * size)
    assert np.array_equal(product(large), whole)
    assert resident(path) > size - LARGE


@pytest.mark.parametrize("rows", [2500, 20_000])
def test_blocks_of_rows_are_read_before_they_are_asked_for(large, has, rows):
    (path,) = files(large)
    whole = product(large)
    has(0)
    product(large)
    assert resident(path) <= LARGE
    for start in range(0, ROWS + 80, rows):
        stop = min(start + rows, ROWS + 80)
        assert np.array_equal(product(large, start, stop), whole[:, start:stop])
        if stop + rows < ROWS:
            until = time.monotonic() + 10
            wanted = min(rows * 4 * WIDE, 2 * WINDOW)
            while resident(path) < 0.9 * wanted and time.monotonic() < until:
                time.sleep(0.002)
            assert 0.9 * wanted < resident(path) <= wanted + WINDOW + 2 * LARGE, "the next block, and nothing behind it"


def test_a_search_of_rows_larger_than_memory_finds_the_same(large, has, monkeypatch):
    for name in ("BLOCK_BYTES", "FEW_BYTES"):
        monkeypatch.setattr(f"mipp.schemes.shares.{name}", 1)
    user, queries = large.user("u"), vectors(3, 9, WIDE)
    expected = user.nearest(queries, 5, ranking="user")
    has(0)
    found = user.nearest(queries, 5, ranking="user")
    assert np.array_equal(found.rows, expected.rows) and np.array_equal(found.scores, expected.scores)
    for server in (1, 2):
        (path,) = files(large, server)
        assert resident(path) <= 2 * WINDOW + 2 * LARGE


def test_searches_at_once_find_the_same(large, has, monkeypatch):
    """Whatever one gives up while another reads it."""
    for name in ("BLOCK_BYTES", "FEW_BYTES"):
        monkeypatch.setattr(f"mipp.schemes.shares.{name}", 1)
    user, queries = large.user("u"), vectors(4, 9, WIDE)
    expected = [user.nearest(query[None], 5, ranking="user").scores for query in queries]
    has(0)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda query: user.nearest(query[None], 5, ranking="user").scores, queries))
    assert np.array_equal(found, expected)


def test_the_checksum_at_first_use_keeps_what_fits(large, has):
    (path,) = files(large)
    view = large.servers[1].store.views
    large.servers[1].queries.close()  # plans keep files mapped
    for available, least, most in ((0, 0, LARGE), (1 << 30, 31 << 20, 32 << 20)):
        view.clear()
        has(available)
        large.servers[1].store.view(large.owner("o").id)
        assert least <= resident(path) <= most


def test_the_memory_is_shared_by_all_files_in_use(tmp_path, has, monkeypatch):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(bytes(4 * WINDOW))
    arrays = []
    for path in paths:
        with open(path, "rb") as file:
            arrays.append(map_file(file.fileno(), path))
    pieces = [[a[i : i + WINDOW] for i in range(0, len(a), WINDOW)] for a in arrays]
    has(5 * WINDOW)
    use(pieces[0])
    assert resident(paths[0]) == 4 * WINDOW, "one alone fits"
    use(pieces[1])
    use(pieces[0])
    assert [resident(path) // WINDOW for path in paths] == [2, 2]
    late = time.monotonic() + memory._RECENT
    monkeypatch.setattr("mipp.io.memory.time.monotonic", lambda: late)
    use(pieces[1])
    assert resident(paths[1]) == 4 * WINDOW, "the other was not used for long"
    del arrays, pieces
    assert not [m for m in memory._MAPPED.values() if m.path in paths]


def test_giving_up_touches_nothing_but_whole_pages_of_files(tmp_path, has):
    has(0)
    path = tmp_path / "f"
    content = np.random.default_rng(0).integers(0, 256, WINDOW + 77, np.uint8)
    content.tofile(path)
    with open(path, "rb") as file:
        data = map_file(file.fileno(), path)
    own = content.copy()  # of this process: to give it up would lose it
    assert mapping_of(own) is None and mapping_of(data[3:][::2]) is mapping_of(data) is not None
    pieces = [part for i in range(0, len(own), 9999) for part in (data[i : i + 9999], own[i : i + 9999])]
    assert np.array_equal(use(pieces[::2]), content) and np.array_equal(use(pieces[1::2]), content)
    assert np.array_equal(use(pieces), np.concatenate([piece.copy() for piece in pieces]))
    assert np.array_equal(own, content) and np.array_equal(data, content)
    data[:1].copy()
    path.unlink()  # a batch that was merged meanwhile
    list(ahead([data[:WINDOW], data[WINDOW:]]))
    assert np.array_equal(data, content)
    os.mkfifo(path)  # opening it would wait for a writer
    list(ahead([data[:WINDOW], data[WINDOW:]]))
    assert np.array_equal(data, content)
    with closing(ahead([data[i : i + 1000] for i in range(0, len(data), 1000)])) as read:
        next(read)
    assert threading.active_count() < 50 and np.array_equal(data, content)


def test_nothing_is_read_soon_that_stays(tmp_path, has, monkeypatch):
    path = tmp_path / "f"
    path.write_bytes(bytes(8 * WINDOW))
    with open(path, "rb") as file:
        data = map_file(file.fileno(), path)
    pieces, seen = [data[i : i + WINDOW] for i in range(0, len(data), WINDOW)], []
    monkeypatch.setattr(memory, "read_in", lambda piece: seen.append(piece))
    has(1 << 40)
    soon(iter(pieces))
    soon(iter([]))
    soon(iter([np.ones(5)]))
    time.sleep(0.05)
    assert not seen
    has(0)
    soon(iter(pieces))
    until = time.monotonic() + 10
    while len(seen) < 2 and time.monotonic() < until:
        time.sleep(0.002)
    assert [piece.ctypes.data for piece in seen] == [piece.ctypes.data for piece in pieces[:2]]


def test_records_of_a_private_fetch_are_given_up(tmp_path, has):
    path = tmp_path / "f"
    np.random.default_rng(0).integers(0, 256, 4 * WINDOW, np.uint8).tofile(path)
    with open(path, "rb") as file:
        records = map_file(file.fileno(), path).reshape(-1, 1024)
    selections = np.random.default_rng(1).integers(0, 1 << 63, (2, len(records) // 64), np.uint64)
    expected = pir.scan(np.array(records), selections, threads=1)
    has(1 << 40)
    assert np.array_equal(pir.scan(records, selections, threads=1), expected) and resident(path) == 4 * WINDOW
    has(0)
    assert np.array_equal(pir.scan(records, selections, threads=1), expected) and resident(path) <= LARGE
