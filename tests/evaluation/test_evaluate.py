"""Evaluations: float, quantised and encrypted side by side, reports, learnt weights."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from mipp import Encoding, features
from mipp.client.user import User
from mipp.demo.render import render_collection
from mipp.encoding import tune
from mipp.errors import DTypeError, EncodingError, MippError, MissingExtraError, ParameterError, ShapeError
from mipp.evaluation import evaluate, metrics
from mipp.evaluation.evaluate import evaluate_images, evaluate_labelled, evaluate_neighbours, float_scores, plain_scores
from mipp.evaluation.learning import learn_weights
from mipp.evaluation.report import SCHEMA, save_report


def clusters(count: int, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    return rng.gamma(1.0, 10.0, (5, dim))[labels] + rng.random((count, dim)) * 25, labels


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine", "hellinger", "l1", "hamming"])
@pytest.mark.parametrize("ring", [16, 32])
def test_labelled(metric, ring):
    x, labels = clusters(60)
    if metric == "l1":
        x = np.clip(x / 8, 0, 7).astype(int)
        encoding = Encoding("l1", 12, levels=8, ring_bits=ring)
    elif metric == "hamming":
        x = (x > 20).astype(int)
        encoding = Encoding("hamming", 12, ring_bits=ring)
    else:
        encoding = tune(metric, x, ring_bits=ring).encoding
    result = evaluate_labelled(x, labels, encoding, queries=20)
    assert result["identical"] and result["quantised"] == result["encrypted"]
    assert result["queries"] == 20 and result["images"] == 60 and result["ring"] == ring
    own = np.arange(20) * 3
    scores = float_scores(metric, x, x[own])
    expected = metrics.summary(scores, labels, own)
    assert {name: result["float"][name] for name in expected} == expected and result["float"]["recall10"] == 1.0
    if metric in ("l1", "hamming"):
        assert np.array_equal(scores, -np.abs(x[own][:, None] - x[None]).sum(2))
        assert result["float"] == result["encrypted"]  # exact, ties broken alike
    else:
        assert result["encrypted"]["recall10"] > 0.9
    for kind in ("float", "encrypted"):
        assert len(result["curves"][kind]["precision"]) == 101


def test_neighbours(monkeypatch):
    x, _ = clusters(300)
    q, _ = clusters(20, seed=0)
    rows = x[20:]
    encoding = tune("l2", rows).encoding
    result = evaluate_neighbours(rows, q, encoding)
    assert result["identical"] and set(result["float"]) == {"recall1", "recall10", "recall100"}
    assert result["float"]["recall10"] == 1.0 and result["encrypted"]["recall10"] > 0.97
    monkeypatch.setattr(evaluate, "_CELLS", 900)  # three queries at a time
    done = []
    assert evaluate_neighbours(rows, q, encoding, progress=done.append) == result
    assert sum(done) == 20 and len(done) == 7
    wrong = np.tile(np.arange(10), (20, 1))
    other = evaluate_neighbours(rows, q, encoding, truth=wrong)
    assert set(other["float"]) == {"recall1", "recall10"} and other["encrypted"]["recall10"] < 0.5
    with pytest.raises(ShapeError):
        evaluate_neighbours(rows, q, encoding, truth=wrong[:3])
    with pytest.raises(ParameterError):
        evaluate_neighbours(rows, q, encoding, truth=wrong + 1000)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_nearest_breaks_ties_by_row(k):
    scores = np.random.default_rng(k).integers(-2, 2, (50, 8))
    assert np.array_equal(metrics.nearest_rows(scores, k), metrics.ranking_from_scores(scores)[:, :k])
    assert np.array_equal(metrics.nearest_rows(scores / 3, k), metrics.ranking_from_scores(scores)[:, :k])


def test_what_differs_is_said(monkeypatch):
    """One score of the encrypted path off by one, and `identical` is false."""
    x, labels = clusters(30)
    encoding = tune("l2", x).encoding
    true = User.scores

    def wrong(self, queries):
        index, scores = true(self, queries)
        scores[3, 7] += 1
        return index, scores

    monkeypatch.setattr(User, "scores", wrong)
    assert evaluate_labelled(x, labels, encoding)["identical"] is False
    assert evaluate_neighbours(x, x[:5], encoding)["identical"] is False


def test_plain_scores_are_those_of_the_ring():
    x, _ = clusters(40)
    for ring in (16, 32, 64):
        encoding = tune("l2", x, ring_bits=ring).encoding
        a, b = encoding.encode_rows(x), encoding.encode_queries(x[:3])
        exact = b.astype(object) @ a.astype(object).T
        low, high = encoding.score_range
        got = plain_scores(encoding, x, x[:3])
        assert ((got - exact) % (1 << ring) == 0).all() and got.min() >= low and got.max() <= high


@pytest.fixture
def pictures(tmp_path):
    items = []
    for name, label, pixels in render_collection(3, 4, (64, 64)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        items.append((tmp_path / f"{name}.png", label))
    return items


def test_images_and_report(pictures, tmp_path):
    result = evaluate_images(pictures, "csd32+cld", queries=5)
    assert result["descriptor"] == "csd32+cld" and result["dim"] == 45 and result["bytes"] == 192
    files = save_report(result, tmp_path / "new" / "report")
    assert [f.name for f in files] == ["evaluation.json", "precision_recall.png", "rank_hits.png"]
    read = json.loads(files[0].read_text())
    assert read["schema"] == SCHEMA and read["encrypted"] == result["encrypted"] and read["curves"] == result["curves"]
    for file in files[1:]:
        with Image.open(file) as plot:
            assert plot.size[0] > 300
    again = save_report(result, tmp_path / "new" / "report", plots=False)
    assert [f.name for f in again] == ["evaluation.json"]


def test_report_without_matplotlib(pictures, tmp_path, monkeypatch):
    result = evaluate_images(pictures, "cld", queries=2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"mipp-retrieval\[plot\]"):
        save_report(result, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert save_report(result, tmp_path / "r", plots=False)


def test_learnt_weights_find_the_part_that_tells():
    """Labels that only one part can tell: its weight rises; the in-sample figure is that of the descriptor returned."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    layout = rng.integers(0, 32, (40, 12))
    shares = rng.dirichlet(np.ones(59), 4)[labels] * 0.4 + rng.dirichlet(np.ones(59), 40) * 0.6
    parts = [features.get("cld"), features.get("lbp")]
    fused, figure = learn_weights(parts, [layout, shares], labels)
    values = np.concatenate([layout, shares], axis=1)
    own = np.arange(40)
    assert figure == pytest.approx(metrics.summary(-fused.distance(values, values), labels, own)["map"])
    equal = features.get("cld+lbp")
    assert figure > metrics.summary(-equal.distance(values, values), labels, own)["map"] + 0.05
    assert features.get(fused.name).name == fused.name
    again, _ = learn_weights(parts, [layout, shares], labels)
    assert again.name == fused.name


@pytest.mark.parametrize(
    "make",
    [
        lambda x: learn_weights([features.get("cld")], [x], np.arange(10) % 2),
        lambda x: learn_weights([features.get("cld")] * 2, [x], np.arange(10) % 2),
        lambda x: learn_weights([features.get("cld"), features.get("ehd")], [x, np.zeros((10, 80))], np.arange(10)),
        lambda x: learn_weights([features.get("cld"), features.get("ehd")], [x, np.zeros((9, 80))], np.arange(10) % 2),
        lambda x: evaluate_labelled(x, np.arange(9), Encoding("l2", 12)),
        lambda x: evaluate_labelled(x[:1], np.arange(1), Encoding("l2", 12)),
        lambda x: evaluate_labelled(x, np.arange(10), Encoding("l2", 12), queries=11),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(MippError):
        make(np.random.default_rng(0).integers(0, 32, (10, 12)))


@pytest.mark.filterwarnings("error")
def test_float_scores_at_the_ends_of_float64():
    rows, queries = np.array([[1.0, 2.0], [2.0, -1.0]]), np.array([[1.0, 2.0]])
    for factor in (1e200, 1e-200, 1e300, 1e-300):
        got = float_scores("cosine", rows * factor, queries * factor)
        assert np.allclose(got, [[1.0, 0.0]])
    for metric in ("ip", "l2", "l1"):
        for bad in (np.full((2, 2), 1.7e308), rows * np.nan):
            with pytest.raises(EncodingError):
                float_scores(metric, bad, -np.full((1, 2), 1.7e308))
    with pytest.raises(DTypeError):
        float_scores("ip", rows.astype(complex), queries)


@pytest.mark.parametrize(("scheme", "parts"), [("shares", [12]), ("lattice", [5, 5, 2])])
def test_progress_counts_queries(scheme, parts):
    """Where a batch is no faster than its queries one by one, it is searched some at a time; results are the same."""
    x = np.random.default_rng(0).normal(size=(12, 4))
    labels, told = np.arange(12) % 3, []
    result = evaluate_labelled(x, labels, Encoding("cosine", 4), scheme=scheme, progress=told.append)
    assert told == parts and result["identical"] is True
    told.clear()
    assert evaluate_neighbours(x, x, Encoding("cosine", 4), scheme=scheme, progress=told.append)["identical"] is True
    assert told == parts
