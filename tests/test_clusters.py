"""Clusters of an index: places against plain twins, the same everywhere, and whatever is no description of them."""

import json

import numpy as np
import pytest

from mipp.encoding import Encoding, pca
from mipp.encoding.assigning import assign, deal, laid_out, nearest, train
from mipp.encoding.clusters import REST, Clusters
from mipp.errors import DTypeError, EncodingError, MippError, ParameterError, ShapeError

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


def test_rows_that_are_alike_are_laid_out_all_the_same():
    """No row is stored twice, and none is lost: those far from a cluster fill it."""
    x, centroids = np.zeros((100, 3)) + RNG.normal(size=3) / 100, RNG.normal(size=(10, 3))
    assert np.bincount(laid_out(x, centroids, 10)).tolist() == [10] * 10


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
