"""Clusters of an index: places against plain twins, the same everywhere, and whatever is no description of them."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from mipp.client.row_ids import batch_rows
from mipp.encoding import Encoding, assigning, pca
from mipp.encoding import clusters as clusters_module
from mipp.encoding.assigning import assign, deal, laid_out, nearest, train
from mipp.encoding.clusters import REST, Clusters
from mipp.errors import DTypeError, EncodingError, MippError, ParameterError, ShapeError
from mipp.params import Params

RNG = np.random.default_rng(5)
SAMPLE = RNG.normal(size=(300, 6))
COSINE = Encoding("cosine", 6)


def test_every_cluster_gets_its_slots():
    x, centroids = RNG.normal(size=(200, 3)), RNG.normal(size=(8, 3))
    cluster = laid_out(x, centroids, 20)
    assert np.bincount(cluster[cluster >= 0], minlength=8).tolist() == [20] * 8 and (cluster < 0).sum() == 40
    plain = ((x[:, None] - centroids) ** 2).sum(axis=2)
    inside = cluster >= 0
    assert plain[inside, cluster[inside]].mean() < plain[inside].mean() / 1.5
    # with room for all, each row is at its nearest
    assert np.array_equal(assign(*nearest(x, centroids, 1), 8, 200), plain.argmin(axis=1))


def test_prices_bring_rows_nearer_to_their_centroids(monkeypatch):
    """Room that is scarce goes to the rows that need it most, also where that takes a chain of moves."""
    rng = np.random.default_rng(4)
    x, centroids = np.rint(rng.normal(size=(3000, 6)) * 50), np.rint(rng.normal(size=(60, 6)) * 60)

    def apart():
        cluster = laid_out(x, centroids, 48)
        inside = cluster >= 0
        assert np.bincount(cluster[inside]).tolist() == [48] * 60
        return ((x[inside] - centroids[cluster[inside]]) ** 2).sum(axis=1).mean()

    priced = apart()
    monkeypatch.setattr(assigning, "_BIDS", 0)
    assert priced < 0.97 * apart()


def test_rows_that_are_alike_are_laid_out_all_the_same():
    """No row is stored twice, and none is lost: those far from a cluster fill it."""
    x, centroids = np.zeros((100, 3)) + RNG.normal(size=3) / 100, RNG.normal(size=(10, 3))
    assert np.bincount(laid_out(x, centroids, 10)).tolist() == [10] * 10


def test_rows_that_are_alike_take_few_products(monkeypatch):
    """One product with all centroids for each cluster that is filled would take an owner minutes."""
    rng, made = np.random.default_rng(0), []
    x, centroids = rng.normal(size=(4000, 3)), rng.normal(size=(200, 3))
    x[:2000] = x[0]
    honest = assigning.nearest
    monkeypatch.setattr(assigning, "nearest", lambda *given: made.append(1) or honest(*given))
    for rows in (x, x * 0 + x[0]):
        assert np.bincount(laid_out(rows, centroids, 20)).tolist() == [20] * 200
    # centroids on a line: for all rows in the same order
    assert np.bincount(laid_out(x, np.outer(np.arange(1, 201) * 1000, np.ones(3)), 20)).tolist() == [20] * 200
    assert len(made) < 45


def test_distances_of_few_rows_are_in_memory_at_a_time():
    centroids, x = np.random.default_rng(0).normal(size=(4096, 2)), np.zeros((6000, 2))
    tracemalloc.start()
    nearest(x, centroids, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 8 * assigning._DISTANCES < 8 * len(x) * len(centroids)


#: SHA-256 of orders of 1500 rows whose distances are often equal: the same on every machine. An order that changes is a
#: new version of the layout (``clusters._VERSION``), for what was added before would be added again
ORDERS = {
    "hamming": "284ab6678bb472b245d98f35b185abbd877131dbd9397c7fa50a16dfd4cb28b3",
    "l1": "1fe68198c953f7dc59abd55f83db565fc7cc2d26f3c5c1a1f23cf0db7c57aba4",
    "l2": "667bd24e3d2a1f2c8ef7a2aa9dc13b60b0d31dd6750152eb760401dc56fcb64e",
}


def orders():
    """Orders of rows that are made by formula."""
    n = np.arange(1500 * 16).reshape(1500, 16)
    mixed = (n * n * 7 + n // 3 * 11 + n % 1009 * (n % 31)) >> 3
    found = {}
    for encoding, levels in (
        (Encoding("hamming", 16), 2), (Encoding("l1", 16, levels=4), 4), (Encoding("l2", 16, bits=4, query_bits=4), 7),
    ):  # fmt: skip
        rows = encoding.encode_rows(mixed % levels)
        words = encoding.inner_dim if encoding.metric == "l2" else encoding.encoded_dim
        centroids = rows[:1500:47, :words] * (1 if encoding.metric == "l2" else 16)
        clusters = Clusters(8, words, np.ascontiguousarray(centroids, "<i4").tobytes(), least=3)
        order = clusters.order(encoding, rows)
        found[encoding.metric] = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    return found


def test_order_does_not_depend_on_the_machine():
    """Else a file that is added again elsewhere is there twice: a batch is known by its rows in their order."""
    assert orders() == ORDERS
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    off = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    code = "from tests.test_clusters import ORDERS, orders; assert orders() == ORDERS"
    env = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(off)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    "encoding",
    [
        COSINE, Encoding("l2", 6, bits=6, query_bits=7),
        Encoding("l2", 6, bits=6, query_bits=7, weights=(1, 2, 9, 1, 1, 4)), Encoding("hellinger", 6),
        Encoding("l1", 6, levels=4), Encoding("hamming", 6), Encoding("cosine", 6, ring_bits=64),
        Encoding("cosine", 6, scale=(0.1, 0.2, 0.1, 0.1, 0.3, 0.1)), Encoding("cosine", 6, projection=pca(SAMPLE, 3)),
    ],
    ids=lambda e: f"{e.metric}{e.ring_bits}{'w' if e.weights else ''}{len(e.scale)}",
)  # fmt: skip
def test_order(encoding):
    x = {"l1": RNG.integers(0, 4, (150, 6)), "hamming": RNG.integers(0, 2, (150, 6))}.get(
        encoding.metric, np.abs(RNG.normal(size=(150, 6))) * 5
    )
    clusters = Clusters.fit(encoding, x, 8, 4, least=5)
    clusters.check(encoding)
    rows = encoding.encode_rows(x)
    order, slots = clusters.order(encoding, rows), clusters.slots(150)
    assert slots == (150 - 150 // REST) // 8 and sorted(order.tolist()) == list(range(150))
    # a row lies in a cluster of its group: near its own query's choice more often than not
    chosen = clusters.chosen(clusters.points(encoding, x))
    place = np.argsort(order)
    inside = place < slots * 8
    group = place // (slots * clusters.size)
    hit = chosen[np.flatnonzero(inside), group[inside]] == place[inside] % clusters.size
    assert hit.mean() > 0.6
    # the same rows in parts of other sizes and other memory: the same order, as the batch is known by its content
    again = clusters.order(encoding, np.asfortranarray(rows))
    assert np.array_equal(order, again)
    assert clusters.order(encoding, rows[:39]) is None
    assert Clusters.from_dict(json.loads(json.dumps(clusters.to_dict()))) == clusters


def test_distances_are_those_of_the_metric():
    encoding = Encoding("l2", 6, bits=6, query_bits=7, weights=(1, 4, 9, 1, 1, 4))
    x = np.rint(RNG.normal(size=(40, 6)) * 8)
    clusters = Clusters.of(encoding, x[:8], 2)
    plain = (((x[8:, None] - x[:8]) ** 2) * np.array(encoding.weights)).sum(axis=2)
    points = clusters.points(encoding, x).astype(float)
    ours = ((points[8:, None] - points[:8]) ** 2).sum(axis=2)
    # factors are square roots of weights, in whole steps
    assert np.allclose(ours / ours.max(), plain / plain.max(), atol=0.02)


@pytest.mark.parametrize(("count", "least"), [(8, 1), (8, 5), (62, 1), (33, 64), (512, 64)])
def test_rows_of_the_smallest_batch_with_clusters(count, least):
    clusters = Clusters(1, 1, bytes(4 * count), least)
    fewest = clusters.fewest_rows
    assert clusters.slots(fewest) == least and not clusters.slots(fewest - 1)


@pytest.mark.parametrize(
    ("dim", "record", "count", "fits"),
    [(128, 0, 512, True), (1024, 0, 512, True), (128, 4096, 512, True), (2048, 0, 256, True), (2048, 0, 1024, False)],
)
def test_batches_of_streams_are_large_enough(dim, record, count, fits):
    """Where memory allows: else no batch of vectors would have clusters before it is merged."""
    encoding, clusters = Encoding("cosine", dim), Clusters(count // 8, dim, bytes(4 * count * dim))
    config = SimpleNamespace(
        params=Params(ring_bits=encoding.ring_bits), encoding=encoding, record_bytes=record, clusters=clusters
    )
    assert bool(clusters.slots(batch_rows(config))) == fits
    config.clusters = None
    assert batch_rows(config) * (dim * encoding.ring_bits // 8 + record) <= 1 << 26


def test_distances_are_exact():
    """Also those of the longest rows that an encoding gives, with scales of their own."""
    scale = tuple(np.linspace(1, 9, 700))
    for encoding in (Encoding("cosine", 700, ring_bits=64, bits=16, scale=scale), COSINE):
        words = len(clusters_module._factors(encoding))
        rows = np.full((2, words), encoding.clip) * np.array([[1], [-1]])
        # float64 holds whole numbers up to 2^53; a distance is at most four times the longest row's length
        longest = ((rows * clusters_module._factors(encoding)).astype(object) ** 2).sum(axis=1).max()
        assert 4 * longest < 1 << 53
    assert len(set(clusters_module._factors(Encoding("cosine", 6, scale=scale[:6])).tolist())) > 1


def test_centroids_named_by_the_operator():
    clusters = Clusters.of(COSINE, SAMPLE[:16], 4, sample=SAMPLE)
    assert clusters.count == 16 and clusters.size == 4 and "data" not in repr(clusters)
    there = {tuple(row) for row in clusters.centroids.astype(int).tolist()}
    assert there == {tuple(row) for row in COSINE.encode_rows(SAMPLE[:16]).tolist()}
    assert clusters.hash != Clusters.of(COSINE, SAMPLE[:16], 2, sample=SAMPLE).hash


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Clusters.fit(Encoding("ip", 6), SAMPLE, 8, 4), ParameterError, "ip is none"),
        (lambda: Clusters.fit(COSINE, SAMPLE, 301, 7), ParameterError, "at least 301 public rows"),
        (lambda: Clusters.fit(COSINE, SAMPLE, 9, 4), ParameterError, "groups of one size"),
        (lambda: Clusters.fit(COSINE, SAMPLE, 8, 8), ParameterError, "groups of 8 clusters"),
        (lambda: Clusters.fit(COSINE, SAMPLE, 1, 1), ParameterError, "number of clusters"),
        (lambda: Clusters.fit(COSINE, SAMPLE, True, 1), MippError, "number of clusters"),
        (lambda: Clusters.fit(COSINE, SAMPLE, 8, 4, least=0), ParameterError, "rows of a cluster"),
        (lambda: Clusters.fit(COSINE, SAMPLE[:, :5], 8, 4), ShapeError, "6"),
        (lambda: Clusters.fit(COSINE, SAMPLE * np.nan, 8, 4), EncodingError, "NaN|finite"),
        (lambda: Clusters.fit(COSINE, np.array([["a"] * 6] * 20), 8, 4), DTypeError, "numbers"),
        (lambda: Clusters.of(COSINE, SAMPLE[:0], 1), ParameterError, "no vectors"),
        (lambda: Clusters.of(COSINE, SAMPLE[:7], 2), ParameterError, "at least two for each group"),
        (lambda: Clusters(2, 6, b"12345678"), ParameterError, "one int32 for each word"),
        (lambda: Clusters(2, 6, "text"), ParameterError, "one int32 for each word"),
        (lambda: Clusters(1, 1, bytes(4 << 15)), ParameterError, "at most 16384"),
        (lambda: Clusters.of(COSINE, SAMPLE[:8], 2).check(Encoding("cosine", 7)), ParameterError, "this encoding"),
        (
            lambda: Clusters(2, 6, np.full((8, 6), 1 << 30, "<i4").tobytes()).check(COSINE), ParameterError,
            "too long to be compared exactly",
        ),
        (lambda: Clusters.fit(Encoding("cosine", 6, ring_bits=64, bits=20), SAMPLE, 8, 2), ParameterError, "16 bits"),
    ],
)  # fmt: skip
def test_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(
    "change",
    [
        {"layout": 2}, {"layout": True}, {"layout": None}, {"groups": 0}, {"groups": 3}, {"groups": "4"}, {"words": 5},
        {"words": 1 << 40}, {"least": -1}, {"least": 2.5}, {"centroids": "####"}, {"centroids": 7}, {"centroids": ""},
        {"more": 1},
    ],
)  # fmt: skip
def test_what_is_no_clusters(change):
    data = Clusters.of(COSINE, SAMPLE[:8], 4).to_dict() | change
    with pytest.raises(MippError):
        Clusters.from_dict(data)
    for other in (None, [], "x", {}):
        with pytest.raises(ParameterError):
            Clusters.from_dict(other)


def test_training_and_dealing_repeat():
    a = train(SAMPLE.astype(np.float32), 8)
    assert np.array_equal(a, train(SAMPLE.astype(np.float32), 8))
    assert np.bincount(deal(a, 4, SAMPLE.astype(np.float32))).tolist() == [2] * 4


def test_equal_centroids_are_refused():
    """They would be clusters that no query chooses."""
    with pytest.raises(ParameterError, match="only 2 of 4 centroids differ"):
        Clusters.of(COSINE, np.repeat(np.eye(6)[:2], 2, axis=0), 2)
    far = np.random.default_rng(1).normal(size=(8, 6)) * 1e3 + 5000
    with pytest.raises(ParameterError, match="in the encoding's range"):
        Clusters.of(Encoding("l2", 6, bits=6, query_bits=7), far, 2)
    with pytest.raises(ParameterError, match="less alike"):
        Clusters.fit(COSINE, np.ones((50, 6)), 8, 2)


def test_dealing_to_many_groups_takes_no_longer_than_to_few(monkeypatch):
    """Pairs of a row's nearest clusters are as many as the square of their number."""
    counted = []
    monkeypatch.setattr(
        assigning,
        "nearest",
        lambda x, centroids, count: counted.append(count) or (np.zeros((len(x), count), int), None),
    )
    for groups in (32, 512):
        deal(np.eye(1024, 4), groups, np.eye(20, 4))
    assert counted == [22, 64]
