"""The figures of the page on four parties follow from its formulas, and from today's cost."""

import re
from pathlib import Path

import pytest

from mipp.mpc.cost import comparison_cost, top_k_cost
from mipp.mpc.session import Public

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "active-security.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="no docs beside the tests")
CALLS, COMPARISONS, ROWS, KEY_BITS = 4, 1.13, 1_000_000, 43


def log2(n):
    return (n - 1).bit_length()


def four(v):
    """Bytes over all servers, and rounds, of one comparison: inputs S and T, six bits a gate, four opened bits."""
    gates = 3 * v - 5 - log2(v - 1)
    return (2 * v + 6 * gates + 4) / 8, 3 + log2(v - 1)


def numbers(line):
    return [float(cell) for cell in re.findall(r"\| *([\d.]+) *(?=\|)", line)]


def lines(start):
    return next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| {start} |"))


@pytest.mark.parametrize("v", [16, 32, 43])
def test_comparison(v):
    n = 3 * 512 * 100
    now, then = comparison_cost(n, v), four(v)
    expected = [v, sum(now.payload.values()) / n, now.rounds, *then]
    assert numbers(lines(v)) == pytest.approx(expected, abs=0.051)


def test_top_k():
    comparisons, shuffle = COMPARISONS * four(KEY_BITS)[0], 12 * KEY_BITS / 8
    total = comparisons + shuffle + 32
    assert numbers(lines("comparisons"))[1] == pytest.approx(comparisons, abs=0.06)
    assert numbers(lines("shuffle")) == pytest.approx([5 * KEY_BITS / 8, shuffle], abs=0.06)
    assert numbers(lines("over all servers"))[1] == pytest.approx(total, abs=0.06)
    assert numbers(lines("each server sends"))[1] == pytest.approx(total / 4, abs=0.06)
    rounds = 1 + 2 + 4 + CALLS * four(KEY_BITS)[1] + 2
    public = Public(b"h" * 32, b"s" * 32, ROWS, 32, 0, (1 << 22) - 1)
    assert public.key_bits == KEY_BITS
    now = top_k_cost(public, 1, 10).typical
    assert numbers(lines("rounds")) == [now.rounds, rounds]
    each = sum(now.payload.values()) / 3 / 1e6
    assert numbers(lines("each server sends"))[0] == pytest.approx(each, abs=0.06)
    assert numbers(lines("over all servers"))[0] == pytest.approx(3 * each, abs=0.06)
    assert numbers(lines("comparisons"))[0] == pytest.approx(3 * each - 5 * KEY_BITS / 8, abs=0.06)
