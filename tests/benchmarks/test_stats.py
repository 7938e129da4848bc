"""Verdicts on recorded timings of real kernels, and on noise made by formula."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.tracking import sampling, stats

RECORDED = Path(__file__).parent / "recorded"
RUN = sampling.Plan.launches


def recorded(name):
    """Launches of pairs by workload, as benchmarks.compare would have measured them."""
    return json.loads((RECORDED / f"{name}.json").read_text())["nanoseconds"]


def compared(monkeypatch, launches, turned=False):
    """Verdicts of whole comparisons, more launches and confirmation included, from each recorded launch on."""
    found = []
    if turned:
        launches = [[(b, a) for a, b in launch] for launch in launches]
    for start in range(len(launches)):
        replay = itertools.cycle(launches[start:] + launches[:start])
        monkeypatch.setattr(sampling, "launch", lambda pair, names, *_, replay=replay: {names[0]: next(replay)})
        (result,) = sampling.measure([None, None], ["x"], sampling.Plan())
        found.append(result.verdict)
    assert len(found) >= 20
    return found


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", recorded("equal"))
def test_equal_builds_never_alarm(monkeypatch, name, turned):
    found = compared(monkeypatch, recorded("equal")[name], turned)
    assert stats.SLOWER not in found and stats.FASTER not in found


@pytest.mark.parametrize("name", recorded("slower"))
def test_a_kernel_a_tenth_slower_always_alarms(monkeypatch, name):
    assert set(compared(monkeypatch, recorded("slower")[name])) == {stats.SLOWER}


@pytest.mark.parametrize("name", recorded("slower"))
def test_a_recorded_slowdown_seen_from_the_other_side_is_no_alarm(monkeypatch, name):
    found = compared(monkeypatch, recorded("slower")[name], turned=True)
    assert set(found) <= {stats.FASTER, stats.SAME} and stats.FASTER in found


def made(ratio, seed, *, noise=0.005, launch_noise=0.01, pairs=8, launches=RUN):
    """Launches of log-normal noise around a ratio; (launches, pairs, 2) seconds."""
    rng = np.random.default_rng(seed)
    seconds = np.exp(noise * rng.normal(size=(launches, pairs, 2))) * 1e-3
    seconds[..., 1] *= ratio * np.exp(launch_noise * rng.normal(size=(launches, 1)))
    return seconds


def drift(seconds, rng):
    """The machine becomes half as fast over the run: samples follow each other, in the order they are taken."""
    count = seconds.shape[0] * seconds.shape[1]
    first = 1 + np.arange(0, 2 * count, 2).reshape(seconds.shape[:2]) / (2 * count)
    second = first + 1 / (2 * count)
    even = (np.arange(seconds.shape[1]) % 2 == 0)[None]
    seconds[..., 0] *= np.where(even, first, second)
    seconds[..., 1] *= np.where(even, second, first)


def outliers(seconds, rng):
    """One sample of eight takes up to ten times as long."""
    seconds *= np.where(rng.random(seconds.shape) < 1 / 8, rng.uniform(1, 10, seconds.shape), 1)


def bimodal(seconds, rng):
    """Two speeds, 30 % apart, that last for some samples: a neighbour comes and goes."""
    flat = seconds.reshape(-1)
    slow = np.cumsum(rng.random(flat.size) < 0.15) % 2 == 1
    flat *= np.where(slow, 1.3, 1)


@pytest.mark.parametrize("trouble", [drift, outliers, bimodal])
@pytest.mark.parametrize(("ratio", "expected"), [(1.0, {stats.SAME, stats.UNCLEAR}), (1.10, {stats.SLOWER})])
def test_trouble_neither_makes_nor_hides_an_alarm(trouble, ratio, expected):
    for seed in range(20):
        seconds = made(ratio, seed)
        trouble(seconds, np.random.default_rng(100 + seed))
        assert stats.verdict(stats.interval(seconds.tolist())) in expected


def test_the_trouble_would_fool_a_comparison_of_two_runs():
    """Control: all of the base first, then all of the head, by means. Drift alone looks like a slowdown."""
    seconds = made(1.0, 0)
    speed = np.linspace(1, 1.5, seconds.size).reshape(2, *seconds.shape[:2])
    base, head = seconds[..., 0] * speed[0], seconds[..., 1] * speed[1]
    assert head.mean() / base.mean() > 1.2


def test_noise_wider_than_the_slowdown_is_unclear():
    seconds = made(1.05, 3, noise=0.2, launch_noise=0.1)
    assert stats.verdict(stats.interval(seconds.tolist())) == stats.UNCLEAR


def test_launches_count_not_pairs():
    """Many pairs of two lopsided processes give no false certainty: the interval covers what launches differ by."""
    one, other = np.full((200, 2), 1e-3), np.full((200, 2), 1e-3)
    one[:, 1] *= 1.08
    found = stats.interval([one.tolist(), other.tolist()])
    assert found.low < 1.001 and found.high > 1.079
    assert stats.verdict(found) == stats.UNCLEAR


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((1.10, 1.06, 1.14), stats.SLOWER),
        ((1.10, 1.05, 1.14), stats.UNCLEAR),  # the bound itself is not beyond
        ((1.06, 1.04, 1.07), stats.UNCLEAR),
        ((1.00, 0.97, 1.05), stats.SAME),
        ((0.90, 0.88, 0.92), stats.FASTER),
        ((0.96, 0.94, 0.99), stats.SAME),
    ],
)
def test_verdict(interval, expected):
    assert stats.verdict(stats.Interval(*interval)) == expected


def test_a_larger_threshold_forgives():
    found = stats.interval(recorded("slower")["ring_u32"][:RUN])
    assert stats.verdict(found, 0.05) == stats.SLOWER
    assert stats.verdict(found, 0.25) == stats.SAME


def test_interval_is_reproducible_and_covers_its_median():
    launches = recorded("equal")["ring_u32"][:RUN]
    found = stats.interval(launches)
    assert found == stats.interval(launches)
    assert found.low <= found.ratio <= found.high
    wide = stats.interval(launches, confidence=0.999)
    assert wide.low <= found.low and wide.high >= found.high


@pytest.mark.parametrize(
    "launches",
    [
        [[(1, 1)]],
        [[(1, 1)], []],
        [[(1, 1)], [(1, 0)]],
        [[(1, 1)], [(1, float("nan"))]],
        [[(1, 1)], [(-1, 1)]],
        [[(1, 1)], [(1, 1, 1)]],
    ],
)
def test_bad_launches(launches):
    with pytest.raises(ValueError):
        stats.interval(launches)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_bad_confidence(confidence):
    with pytest.raises(ValueError, match="confidence"):
        stats.interval([[(1, 1)], [(1, 1)]], confidence=confidence)


@pytest.mark.parametrize("threshold", [0, -0.1])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match="threshold"):
        stats.verdict(stats.Interval(1, 1, 1), threshold)


class TestResult:
    """A first alarm counts only if fresh processes alarm, too."""

    def result(self, first, again=None):
        made = sampling.Result("x", recorded(first)["ring_u32"][:RUN])
        if again:
            made.confirmed = recorded(again)["ring_u32"][RUN : 2 * RUN]
        return made.verdict

    def test_confirmed(self):
        assert self.result("slower", "slower") == stats.SLOWER

    def test_not_confirmed(self):
        assert self.result("slower", "equal") == stats.UNCLEAR

    def test_no_alarm_needs_none(self):
        assert self.result("equal") == stats.SAME

    def test_error(self):
        assert sampling.Result("x", error="head: KeyError").verdict == "error"
