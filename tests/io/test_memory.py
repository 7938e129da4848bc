"""Memory that is used again: only once nobody refers to it."""

import numpy as np
import pytest

from mipp.io.memory import SpareArrays

WORDS = np.dtype(np.uint32)


def place(array):
    return array.ctypes.data


@pytest.mark.parametrize(
    "hold",
    [lambda a: a, lambda a: a[3:5], lambda a: memoryview(a).cast("B"), lambda a: np.frombuffer(a.data, np.uint8),
     lambda a: a.view(np.uint8).reshape(-1)[:1], lambda a: [{"deep": a.T}]],
)  # fmt: skip
def test_what_somebody_holds_is_not_used_again(hold):
    spare = SpareArrays()
    first = spare.take((50, 8), WORDS)
    at, held = place(first), hold(first)
    del first
    second = spare.take((50, 8), WORDS)
    assert place(second) != at
    del held
    assert place(spare.take((50, 8), WORDS)) == at


def test_two_arrays_serve_a_stream_of_them():
    spare, places = SpareArrays(), set()
    waiting = spare.take((100, 4), WORDS)
    for rows in (100, 100, 30, 100):
        following = spare.take((rows, 4), WORDS)
        assert following.shape == (rows, 4) and following.flags.c_contiguous and place(following) % 64 == 0
        places.add(place(following))
        waiting = following
    del waiting
    assert len(places) == 2


def test_larger_arrays_are_made_anew_and_smaller_ones_give_way():
    spare = SpareArrays()
    spare.take((10, 4), WORDS)
    assert spare.take((1000, 4), WORDS).size == 4000
    assert len(spare._all) == 1
    held = spare.take((1000, 4), WORDS)
    assert place(spare.take((10, 4), WORDS)) != place(held) and len(spare._all) == 2
    assert spare.take((0, 4), WORDS).size == 0


def test_the_smallest_that_fits_is_used():
    spare = SpareArrays()
    large, small = spare.take((1000, 4), WORDS), spare.take((10, 4), WORDS)
    at = place(large), place(small)
    del large, small
    again = spare.take((10, 4), WORDS)
    assert place(again) == at[1] and place(spare.take((900, 4), WORDS)) == at[0]
