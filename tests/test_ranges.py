"""Values lie in the metric's range, and thresholds beyond it are refused, in every metric and ring."""

import numpy as np
import pytest

import mipp
from mipp.encoding import Encoding, fit, recall, tune
from mipp.encoding.ranges import value_range
from mipp.errors import ParameterError, ScoreRangeError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 8))
H = RNG.gamma(1.0, 1.0, (60, 8))
WHOLE = RNG.integers(0, 5, (60, 8))
BITS = RNG.integers(0, 2, (60, 8))
CASES = {
    "cosine": (Encoding("cosine", 8), X), "coarse cosine": (Encoding("cosine", 8, bits=4, query_bits=5), X),
    "hellinger": (Encoding("hellinger", 8), H), "l2": (fit("l2", X, bits=5, query_bits=8), X),
    "l2 in steps": (tune("l2", X, ring_bits=16, server_ranking=True).encoding, X),
    "l1": (Encoding("l1", 8, levels=5), WHOLE), "hamming": (Encoding("hamming", 8), BITS),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_lie_in_the_metrics_range(name):
    encoding, x = CASES[name]
    scores = encoding.encode_queries(x).astype(np.int64) @ encoding.encode_rows(x).astype(np.int64).T
    values = encoding.values(scores, x)
    low, high = value_range(encoding)
    assert values.min() >= low and values.max() <= high and not np.signbit(values[values == 0]).any()
    nearest = 1.0 if encoding.metric in ("cosine", "hellinger") else 0.0
    assert np.abs(np.diag(values) - nearest).max() < 0.35 * np.ptp(values)


def test_the_ranges_are_needed():
    """Without them rounding gives a row a cosine above 1 with itself, and negative squared distances."""
    encoding, x = CASES["coarse cosine"]
    scores = np.einsum("ij,ij->i", encoding.encode_queries(x).astype(int), encoding.encode_rows(x).astype(int))
    assert (scores * encoding.query_scale).max() > 1.001


@pytest.mark.parametrize("name", CASES)
def test_thresholds_beyond_the_metrics_range_are_refused(name):
    encoding, x = CASES[name]
    low, high = value_range(encoding)
    wrong = [low - 1e-3, low - 1, float("nan"), float("inf"), -float("inf"), "1", None, True, [1.0]]
    for value in (*wrong, *([high + 1e-3, high + 1] if np.isfinite(high) else [1e12])):
        with pytest.raises(ParameterError, match="threshold"):
            encoding.score_threshold(value, x[0])
    for value in (np.float32(0.75), np.int64(1), 1):
        assert isinstance(encoding.score_threshold(value, x[0]), int)


@pytest.mark.parametrize("scheme", ["shares", "lattice", "paillier"])
def test_users_are_told_of_thresholds_beyond_the_range(tmp_path, scheme):
    with mipp.Deployment.create(tmp_path / "d", Encoding("cosine", 8), scheme=scheme) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u", key_bits=2048)
        owner.add_vectors(X)
        owner.grant(user, rankings=["server", "user", "threshold"] if scheme == "shares" else ["user"])
        rounds = deployment.channel.rounds
        for value in (1.01, -1.01, float("nan"), None, "0.5"):
            with pytest.raises(ParameterError, match="threshold"):
                user.range_search(X[0], value)
        assert deployment.channel.rounds == rounds
        found = user.range_search(X[0], np.float32(0.9))
        assert found and found.searched == 60
        assert user.search(X[0], 1).hits[0].value <= 1.0


@pytest.mark.parametrize("metric", ["cosine", "hellinger", "ip", "l2"])
@pytest.mark.parametrize("ring", [16, 32, 64])
@pytest.mark.parametrize("server", [False, True])
def test_there_is_a_tuned_encoding_for_every_ring_and_ranking(metric, ring, server):
    x = np.abs(np.random.default_rng(1).normal(size=(120, 300)))
    tuned = tune(metric, x, ring_bits=ring, server_ranking=server)
    assert tuned.encoding.allows_server_ranking or not server
    assert tuned.recall == pytest.approx(recall(tuned.encoding, x)) and tuned.recall > 0.5


def test_fit_leaves_room_for_servers_or_says_that_it_cannot():
    x = np.random.default_rng(2).normal(size=(50, 8))
    options = {"ring_bits": 16, "bits": 7, "query_bits": 7}
    assert not fit("ip", x, **options).allows_server_ranking
    assert fit("ip", x, ring_bits=16, bits=6, query_bits=6, server_ranking=True).allows_server_ranking
    with pytest.raises(ScoreRangeError, match=r"servers cannot rank|16-bit ring"):
        fit("ip", x, ring_bits=16, bits=9, query_bits=9, server_ranking=True)
