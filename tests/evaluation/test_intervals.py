"""Bootstrap intervals: against their slow twin, and whether they cover the truth as often as they say."""

import numpy as np
import pytest

from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.evaluation import intervals
from mipp.evaluation.intervals import bootstrap, differences
from tests.reference.bootstrap import bootstrap as slow


@pytest.mark.parametrize("size", [2, 7, 60])
@pytest.mark.parametrize(("confidence", "seed"), [(0.95, 0), (0.5, 9)])
def test_equal_to_the_slow_twin(size, confidence, seed):
    values = np.random.default_rng(size).beta(2, 1, (size, 3))
    values[:2, 1] = [0.25, np.nan] if size > 2 else [0.25, 0.5]
    found = bootstrap(values, confidence=confidence, resamples=300, seed=seed)
    for column in range(3):
        expected = slow(values[:, column].tolist(), confidence=confidence, resamples=300, seed=seed)
        assert found[column] == pytest.approx(expected, abs=1e-12)


def test_pieces_change_nothing(monkeypatch):
    values = np.random.default_rng(1).random((50, 2))
    whole = bootstrap(values)
    monkeypatch.setattr(intervals, "_CELLS", 1234)
    assert np.array_equal(bootstrap(values), whole)


@pytest.mark.parametrize("kind", ["precision", "share", "difference"])
def test_intervals_cover_the_truth(kind):
    """300 collections of 100 queries: 95 % intervals hold the true mean in 92 to 98 % of them."""
    rng = np.random.default_rng(5)
    shape = (100, 300)
    if kind == "precision":
        values, truth = rng.beta(2, 1, shape), 2 / 3
    elif kind == "share":
        values, truth = rng.binomial(10, 0.7, shape) / 10, 0.7
    else:  # paired: both sides of a query are easy or hard together
        hard = rng.random(shape)
        values = (hard + rng.normal(0.05, 0.2, shape)) - (hard + rng.normal(0, 0.2, shape))
        truth = 0.05
    found = bootstrap(values)
    covered = np.mean((found[:, 1] <= truth) & (truth <= found[:, 2]))
    assert 0.92 <= covered <= 0.98
    # an interval half as wide would not
    half = (found[:, 2] - found[:, 1]) / 4
    assert np.mean(np.abs(found[:, 0] - truth) <= half) < 0.8


def test_pairs_are_of_the_same_queries():
    hard = np.random.default_rng(2).random(200)
    a, b = {"map": hard.tolist()}, {"map": (hard + 0.01).tolist()}
    assert differences(a, b)["map"] == pytest.approx([0.01] * 3), "each query is better by as much"
    assert differences(a, {"map": (hard[::-1] + 0.01).tolist()})["map"][1] < 0


def test_queries_that_do_not_count():
    found = intervals.intervals({"map": [0.5, None, 1.0], "p10": [1.0, 1.0, 1.0], "anmrr": [None, None, 0.5]})
    assert found["map"][0] == 0.75 and found["anmrr"] == [0.5, None, None] and found["p10"] == [1.0, 1.0, 1.0]
    assert intervals.intervals({"map": [None, None]})["map"] == [None, None, None]
    assert intervals.intervals({}) == {} and differences({"a": [1.0]}, {"b": [1.0]}) == {}
    assert differences({"map": [0.5, None, 1.0]}, {"map": [1.0, 1.0, None]})["map"] == [0.5, None, None]
    assert bootstrap(np.ones((1, 1))).tolist()[0][0] == 1.0 and np.isnan(bootstrap(np.ones((1, 1)))[0, 1])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: bootstrap(np.ones(3)), ShapeError),
        (lambda: bootstrap(np.ones((0, 2))), ShapeError),
        (lambda: bootstrap(np.ones((3, 2), complex)), DTypeError),
        (lambda: bootstrap(np.ones((3, 2)), confidence=1.0), ParameterError),
        (lambda: bootstrap(np.ones((3, 2)), resamples=0), ParameterError),
        (lambda: intervals.intervals({"a": [1.0], "b": [1.0, 2.0]}), ShapeError),
        (lambda: differences({"a": [1.0]}, {"a": [1.0, 2.0]}), ShapeError),
    ],
)
def test_bad_arguments(call, error):
    with pytest.raises(error):
        call()
