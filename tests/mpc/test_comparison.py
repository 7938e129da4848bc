"""Less-than and threshold against integers and the ideal functionality; counted bytes and rounds."""

import numpy as np
import pytest

from mipp.errors import DTypeError, MessageError, ParameterError, ProtocolError, ScoreRangeError, ShapeError
from mipp.mpc import comparison, ideal
from mipp.mpc.comparison import CIRCUITS, combine_matches, less_than, threshold
from mipp.mpc.replicated import UserShare, reshare_words
from tests.mpc.parties import bits_of, in_session, public, run, share

RNG = np.random.default_rng(7)


def compare(d, width, circuit, dtype=np.uint64):
    shares = share(d, dtype, RNG)
    return run(in_session(lambda p: less_than(p, reshare_words(p, shares[p.index]), width, circuit)))


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("width", [2, 3, 4, 5, 9, 16, 32, 33, 43, 64])
def test_sign_of_every_width(width, circuit):
    half = 1 << (width - 1)
    d = np.concatenate([RNG.integers(-half, half, 700), [0, -1, 1 - half, half - 1, -half]])
    for bits, _ in compare(d, width, circuit):
        assert np.array_equal(bits_of(bits, len(d)), d < 0)


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_all_small_differences(circuit, monkeypatch):
    """Every value of five bits under many sharings, and blocks split by all three parties."""
    monkeypatch.setattr(comparison, "_SPLIT_GROUPS", 12)
    d = np.tile(np.arange(-16, 16), 400)
    for bits, _ in compare(d, 5, circuit, np.uint16):
        assert np.array_equal(bits_of(bits, len(d)), d < 0)


@pytest.mark.parametrize(
    "width, circuit, bytes_each, rounds",
    [(32, "tree", 6.95, 6), (32, "ripple", 5.4, 32), (16, "tree", 3.05, 5), (16, "ripple", 2.8, 16)],
)
def test_bytes_and_rounds_of_a_comparison(width, circuit, bytes_each, rounds):
    """Per comparison and server, the opened bit included, the resharing not."""
    n = 100_000
    results = compare(np.zeros(n, np.int64), width, circuit, np.dtype(f"u{width // 8}"))
    counters = [c for _, c in results]
    for c in counters:
        assert c.rounds == rounds + 4  # hello, resharing, confirm, done
        assert c.payload["reshare"] == n * width // 8
    sent = [sum(c.payload[kind] for kind in ("split", "generate", "and", "open")) for c in counters]
    assert sum(sent) / 3 / n <= bytes_each
    assert max(sent) - min(sent) <= 0.02 * max(sent)


def test_bad_widths_and_circuits():
    for width, circuit in ((1, "tree"), (65, "tree"), (8, "oak")):
        with pytest.raises(ParameterError):
            compare(np.zeros(4, np.int64), width, circuit)
    with pytest.raises(ParameterError):
        compare(np.zeros(4, np.int64), 17, "tree", np.uint16)


# --- threshold ------------------------------------------------------------------------------------------------------

INPUTS = {
    "random": lambda n: RNG.integers(-100, 101, n), "constant": lambda n: np.full(n, 3),
    "zeros": lambda n: np.zeros(n, np.int64), "extremes": lambda n: np.where(RNG.integers(0, 2, n) == 1, 100, -100),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("rows", [1, 5, 513])
@pytest.mark.parametrize("ring_bits", [16, 32, 64])
def test_threshold_is_the_ideal_one(ring_bits, rows, name):
    pub, dtype = public(rows, ring_bits=ring_bits), np.dtype(f"u{ring_bits // 8}")
    scores = np.stack([INPUTS[name](rows) for _ in range(2)])
    shares = share(scores, dtype, RNG)
    for theta in (3, -100, 101, [0, 100]):
        got = combine_matches(run(lambda p, theta=theta: threshold(p, shares[p.index], pub, theta)))
        assert np.array_equal(got, ideal.matches(list(shares.values()), theta, pub))
        assert np.array_equal(got, scores >= np.reshape(theta, (-1, 1)))


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_shared_threshold(circuit):
    pub = public(700, -(1 << 14), (1 << 14) - 1, ring_bits=16)
    scores, theta = RNG.integers(-(1 << 14), 1 << 14, (3, 700)), RNG.integers(-(1 << 14), 1 << 14, 3)
    scores[:, 0] = theta
    shares, secret = share(scores, np.uint16, RNG), share(theta, np.uint16, RNG)
    got = combine_matches(
        run(lambda p: threshold(p, shares[p.index], pub, theta_shares=secret[p.index], circuit=circuit))
    )
    assert np.array_equal(got, scores >= theta[:, None])


def test_one_dimensional_shares_are_one_query():
    pub, shares = public(9), share(np.arange(9), np.uint32, RNG)
    got = combine_matches(run(lambda p: threshold(p, shares[p.index], pub, 4)))
    assert got.tolist() == [[False] * 4 + [True] * 5]


@pytest.mark.parametrize(
    "arguments, error",
    [({"theta": 1 << 40}, ScoreRangeError), ({"theta": -(1 << 31)}, ScoreRangeError), ({}, ParameterError),
     ({"theta": [1, 2, 3]}, ShapeError), ({"theta": []}, ShapeError),
     ({"theta_shares": np.zeros(1, np.uint16)}, DTypeError),
     ({"theta_shares": [1]}, DTypeError), ({"theta_shares": np.zeros(3, np.uint32)}, ShapeError),
     ({"theta_shares": np.zeros(1, np.uint32), "theta": 1}, ParameterError),
     ({"theta_shares": np.zeros(1, np.uint32), "theta_range": (3, 1)}, ParameterError),
     ({"theta": 1.5}, ParameterError), ({"theta": 1, "circuit": "oak"}, ParameterError)],
)  # fmt: skip
def test_bad_thresholds_are_refused_before_the_first_round(arguments, error):
    pub, counters = public(5), []

    def task(party):
        counters.append(party.counters)
        return threshold(party, np.zeros(5, np.uint32), pub, **arguments)

    with pytest.raises(error):
        run(task)
    assert not any(c.rounds for c in counters)


def test_partial_or_mixed_results_do_not_combine():
    pub, shares = public(9), share(np.arange(9), np.uint32, RNG)
    one, two = (run(lambda p: threshold(p, shares[p.index], pub, 4)) for _ in range(2))
    for bad in (one[:2], [one[0], one[0], one[2]], [one[0], two[1], one[2]], []):
        with pytest.raises(ProtocolError):
            combine_matches(bad)
    with pytest.raises(MessageError):
        combine_matches([UserShare(s.server, s.session, s.parameters, 1, 9, np.zeros(3, np.uint64)) for s in one])
    assert "hidden" in repr(one[0])
