"""Products of slots on workers: bit for bit those of this process, of all groups and batches in one go."""

import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mipp.backends import CpuBackend, Segment, Slots, tasks
from mipp.backends import dask as dask_module
from mipp.backends import slots as slots_module
from mipp.backends.pool import Pool, local_cluster
from mipp.errors import MessageError
from mipp.params import Params
from tests.backends.rows import (
    DIM,
    KEYS,
    Index,
    backend_of,
    keystreams,
    kill_in_the_middle,
    stored,
    words_of,
    zero_share,
)

GROUPS, SIZE = 5, 3
#: slots of a group by batch, and rows of a batch that follow those
SLOTS, REST = (200, 7, 90, 1, 140), (11, 0, 5, 2, 9)
ROWS = [GROUPS * SIZE * slots + rest for slots, rest in zip(SLOTS, REST, strict=True)]
STARTS = np.concatenate([[0], np.cumsum(ROWS)]).tolist()


class Here:
    """Computes tasks in this process, in any order, as workers do: sealed, and from what a task says alone."""

    def __init__(self):
        self.runs, self.session, key = [], secrets.token_bytes(16), secrets.token_bytes(32)
        self.sealed = []
        self.key = AESGCM(key)
        tasks.take_session(self.session, tasks.sealed_session(tasks.hello()[0], self.session, key))

    def run(self, given, take):
        given = list(given)
        self.runs.append(given)
        for n in np.random.default_rng(1).permutation(len(given)):
            self.sealed.append(given[n].seal(self.session, self.key))
            reply = tasks.compute(self.sealed[-1])
            assert reply.what == "done", reply
            take(given[n], reply.value)


@pytest.fixture
def here():
    made = Here()
    yield made
    tasks.drop_session(made.session)


class Laid:
    """Batches with clusters, of a cloud or a key centre: in files, compacted ones, in memory, with deleted rows."""

    def __init__(self, folder, dtype, queries, files=(0, 2, 4)):
        self.dtype, self.total = np.dtype(dtype), STARTS[-1]
        self.params = Params(3, 1, 8 * self.dtype.itemsize)
        rng = np.random.default_rng(4)
        self.words = words_of(self.total, dtype, 3)
        self.segments, self.given, self.dead = [], [], []
        for n, (slots, rows, first) in enumerate(zip(SLOTS, ROWS, STARTS[:-1], strict=True)):
            inside = slots * GROUPS * SIZE
            dead = np.flatnonzero(rng.random(inside) < 0.2) if n in (0, 2, 3) else np.empty(0, np.int64)
            if n == 2:
                dead = np.union1d(dead, np.arange(200, 330))  # whole slots
            self.given.append(Slots(first, SIZE, slots, 0, GROUPS * slots, dead))
            words, ordinals = self.words[first : first + rows], None
            if n == 2:  # some are compacted away, others deleted later
                ordinals = np.setdiff1d(np.arange(rows), dead[: len(dead) // 2])
                words = np.ascontiguousarray(words[ordinals])
            if n in files:
                mapped, file = stored(folder, words, ordinals)
                self.segments.append(Segment(mapped, first, ordinals, file))
            else:
                self.segments.append(Segment(words, first, ordinals))
        self.zero = zero_share(rng.integers(0, 256, (len(ROWS), 16), np.uint8), ROWS)
        self.keys = keystreams([ROWS[:2], ROWS[2:]], dtype)[0]
        info = np.iinfo(dtype)
        self.shares = rng.integers(0, info.max, (queries, GROUPS, SIZE * DIM), dtype, endpoint=True)

    def rows(self, backend, kind):
        return backend.load(self.segments, self.total) if kind == "cloud" else backend.load_keys(self.keys)

    def slots(self, backend, kind, given=None):
        given = self.given if given is None else given
        out = np.zeros((len(self.shares), sum(some.count for some in given)), self.dtype)
        self.rows(backend, kind).slots(self.shares, given, self.zero, out)
        return out

    def expected(self, kind):
        """By the definition, one slot after the other, and masks as of the first rows of each group."""
        words = self.words.copy()
        if kind == "key centre":  # which tells minus its keystream
            words = np.negative(self.rows(CpuBackend(self.params, 1), kind).words(DIM))
        columns = []
        for some in self.given:
            words[some.start + some.dead] = 0
            for group in range(GROUPS):
                a = some.start + group * some.group * SIZE
                b = a + some.group * SIZE
                rows = words[a:b].reshape(some.group, 1, -1)
                scores = (rows * self.shares[:, group]).sum(axis=2, dtype=self.dtype).T.copy()
                self.zero.add(scores, a, a + some.group, 1)
                columns.append(scores)
        return np.concatenate(columns, axis=1)


@pytest.fixture
def small(monkeypatch):
    """Tasks of few slots, so that they cut groups and reach from one batch into the next."""
    monkeypatch.setattr(dask_module, "_TASK_BYTES", 37 * SIZE * DIM * 4)
    monkeypatch.setattr(dask_module._KeystreamRows, "_few", 0)
    monkeypatch.setattr(slots_module, "WINDOW_BYTES", 20 * SIZE * DIM * 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["cloud", "key centre"])
@pytest.mark.parametrize(("queries", "cost"), [(1, 0), (3, 1 << 30)], ids=["subtracted", "copied"])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_equal_to_this_process_and_to_the_definition(here, tmp_path, dtype, queries, cost, kind, monkeypatch):
    """By both ways: deleted rows are taken out of products, or rows are copied without them."""
    monkeypatch.setattr(slots_module, "_SUBTRACTED", cost)
    laid = Laid(tmp_path, dtype, queries)
    expected = laid.expected(kind)
    assert np.array_equal(laid.slots(CpuBackend(laid.params, 1), kind), expected)
    assert np.array_equal(laid.slots(backend_of(here, dtype), kind), expected)
    (run,) = here.runs  # all groups of all batches at once
    there = [0, 2, 4] if kind == "cloud" else range(5)
    slots = sum(SLOTS[n] * GROUPS for n in there)
    step = backend_of(here, dtype).step(queries, SIZE * DIM * laid.dtype.itemsize, laid.dtype.itemsize)
    assert len(run) == -(-slots // step) > 10
    assert sum(task.stop - task.start for task in run) == slots * SIZE
    assert all(bool(task.files) == (kind == "cloud") for task in run)


@pytest.mark.usefixtures("small")
def test_only_some_batches(here, tmp_path):
    """All in memory: nothing is sent; and batches that are not all there are."""
    laid = Laid(tmp_path, np.uint32, 2)
    for which in ([1, 3], [0, 4], [2], []):
        given = [laid.given[n] for n in which]
        expected = laid.slots(CpuBackend(laid.params, 1), "cloud", given)
        assert np.array_equal(laid.slots(backend_of(here), "cloud", given), expected)
    assert len(here.runs) == 2


def test_few_rows_of_keys_are_made_here(here, tmp_path):
    laid = Laid(tmp_path, np.uint32, 2)
    assert np.array_equal(laid.slots(backend_of(here), "key centre"), laid.expected("key centre")) and not here.runs


def test_batches_that_lie_joined_in_memory(here, tmp_path):
    laid = Laid(tmp_path, np.uint32, 2, files=(4,))
    laid.segments[0:2] = [Segment(laid.words[: STARTS[2]], 0)]
    assert np.array_equal(laid.slots(backend_of(here), "cloud"), laid.expected("cloud"))
    ((task,),) = here.runs
    assert task.start == STARTS[4]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["cloud", "key centre"])
def test_a_task_has_the_query_shares_of_its_groups_alone(here, tmp_path, monkeypatch, kind):
    laid, sent = Laid(tmp_path, np.uint32, 2), []
    real = dask_module.sealed_task
    monkeypatch.setattr(dask_module, "sealed_task", lambda *given: sent.append(given[2:]) or real(*given))
    laid.slots(backend_of(here), kind)
    counts = []
    for asked, parts in sent:
        groups = set()
        for part in parts[::2]:
            groups |= set(range(part.first // part.group, (part.first + part.count - 1) // part.group + 1))
        shares = asked.query_share.reshape(len(groups), 2, -1)
        assert np.array_equal(shares, laid.shares[:, sorted(groups)].transpose(1, 0, 2))
        counts.append(len(groups))
    assert min(counts) == 1 and len(sent) > 10
    # whoever carries tasks sees none of it
    secrets_ = [*KEYS.values(), laid.zero.header, *(share.tobytes()[:8] for share in laid.shares.reshape(-1, DIM))]
    assert not [s for s in secrets_ for one in here.sealed if s in one]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["cloud", "key centre"])
def test_runs_of_rows_are_put_together(here, tmp_path, kind):
    """The rest of each batch: one task for several, whose masks are each batch's own."""
    laid = Laid(tmp_path, np.uint32, 2, files=range(5))
    runs = [(STARTS[n + 1] - rest, STARTS[n + 1]) for n, rest in enumerate(REST) if rest]
    runs += [(STARTS[0] + 5, STARTS[0] + 300), (STARTS[1], STARTS[1] + 3), (STARTS[3] - 4, STARTS[4] + 1)]
    query = laid.shares[:, 0, :DIM].copy()
    results = []
    for backend in (CpuBackend(laid.params, 1), backend_of(here)):
        out = np.empty((2, sum(stop - start for start, stop in runs)), np.uint32)
        laid.rows(backend, kind).scores(query, runs, laid.zero, out)
        results.append(out)
    assert np.array_equal(*results)
    (run,) = here.runs
    step = backend_of(here).step(2, DIM * 4, 4)
    assert len(run) == -(-results[0].shape[1] // step) < len(runs)
    # and each run has the scores that it has alone
    at = 0
    for start, stop in runs:
        out = np.empty((2, stop - start), np.uint32)
        laid.rows(CpuBackend(laid.params, 1), kind).scores(query, [(start, stop)], laid.zero, out)
        assert np.array_equal(out, results[0][:, at : at + stop - start])
        at += stop - start


def test_cuts_of_slots():
    """Of every part: rows, deleted rows, groups and masks are those of the whole."""
    dead = np.array([0, 5, 6, 17, 40, 41, 89])
    whole = Slots(1000, 3, 6, 0, 30, dead)
    masks = [row for start, stop in whole.masked() for row in range(start, stop)]
    assert masks == [1000 + group * 18 + j for group in range(5) for j in range(6)]
    for first in range(30):
        for stop in range(first + 1, 31):
            cut = whole.cut(first, stop)
            assert cut.rows == (1000 + 3 * first, 1000 + 3 * stop)
            assert (cut.dead + 3 * first).tolist() == [d for d in dead.tolist() if 3 * first <= d < 3 * stop]
            assert [row for a, b in cut.masked() for row in range(a, b)] == masks[first:stop]
            groups = [g for g, (a, b) in enumerate(cut.groups(), cut.first_group) for _ in range(a, b)]
            assert groups == [slot // 6 for slot in range(first, stop)] and groups[-1] == cut.last_group
            again = cut.cut(first, stop)
            assert (again.first, again.count, again.dead.tolist()) == (cut.first, cut.count, cut.dead.tolist())


@pytest.mark.parametrize("queries", [1, 4096])
def test_sizes_of_tasks(here, queries):
    """Rows of 128 MiB or results of 16 MiB; of wide slots less than a line of results."""
    step = backend_of(here).step
    for row in (64, 512, 4096, 1 << 22, 1 << 28):
        most = step(queries, row, 4)
        assert most >= 1 and (most == 1 or most * row <= 128 << 20) and most * queries * 4 <= 16 << 20
        assert 2 * most * row > 128 << 20 or 2 * most * queries * 4 > 16 << 20


def test_parts_that_a_worker_refuses(here, tmp_path):
    laid = Laid(tmp_path, np.uint32, 1)
    asked, (part,) = backend_of(here).slots_asked(laid.shares, laid.zero, [laid.given[0]])
    file = laid.segments[0].file
    beyond = tasks.StoredPart(file.digest, str(file.path), file.size, file.offset, 0, ROWS[0] + 1, 0, -1)
    for parts, text in (
        ([part, part], "another kind"),
        ([part], "another kind"),
        ([part, beyond], "outside of its file"),
    ):
        reply = tasks.compute(tasks.sealed_task(here.session, here.key, asked, parts))
        assert reply.what == "failed" and text in reply.value and MessageError.__name__ in reply.value


@pytest.mark.slow  # processes
def test_a_task_that_reads_many_files_of_which_a_worker_has_none(tmp_path, monkeypatch):
    """Runs of many batches: more files than a task has tries."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setenv(tasks.FILES, str(tmp_path / "there"))
    real = dask_module.StoredPart
    monkeypatch.setattr(dask_module, "StoredPart", lambda digest, path, *rest: real(digest, "/nowhere", *rest))
    index, pool = Index(tmp_path, rows=(1100,) * 12), Pool(local_cluster(1))
    try:
        index.check(backend_of(pool), index.query(1))
        (counts,) = pool.counts.values()
        assert counts.tasks == 1 and counts.failed <= 2  # without the session's key, without the files
        assert len(list((tmp_path / "there").iterdir())) == 12
    finally:
        pool.close()


@pytest.mark.slow  # processes
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["cloud", "key centre"])
def test_on_workers_of_which_one_is_killed_in_the_middle(tmp_path, kind):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    pool = Pool(local_cluster(2))
    try:
        laid, backend = Laid(tmp_path, np.uint32, 2), backend_of(pool)
        expected = laid.expected(kind)
        assert np.array_equal(laid.slots(backend, kind), expected)
        before = sum(c.tasks for c in pool.counts.values())
        killed = kill_in_the_middle(pool)
        assert np.array_equal(laid.slots(backend, kind), expected) and killed
        assert sum(c.tasks for c in pool.counts.values()) - before <= before + 3
    finally:
        pool.close()
