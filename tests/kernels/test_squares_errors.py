"""Every error of the sums of squares."""

import numpy as np
import pytest

from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.test_compare_errors import fails, read_only, u64, wrong_out, wrong_words

HINTS = ("carry", "msb", "delta")
SHAPE = (3, 8)


def zeros(dtype, *shape):
    return np.zeros(shape or SHAPE, dtype)


def wrong_pair(name, other):
    """What neither array of words may be."""
    both = zeros(np.uint32, 3, 16)
    return [
        (DTypeError, {name: None}),
        (DTypeError, {name: zeros(np.int32)}),
        (DTypeError, {name: zeros(np.uint8)}),
        (DTypeError, {name: zeros(">u4")}),
        (DTypeError, {name: zeros(np.uint16)}),
        (DTypeError, {other: zeros(np.uint16)}),
        (ShapeError, {name: zeros(np.uint32, 24)}),
        (ShapeError, {name: zeros(np.uint32, 3, 9)}),
        (ShapeError, {name: zeros(np.uint32, 4, 8)}),
        (ShapeError, {name: both[:, ::2]}),
        (ShapeError, {name: zeros(np.uint32, 8, 3).T}),
    ]


def wrong_hints(names):
    cases = []
    for name in names:
        cases += [
            (ParameterError, {name: None}),
            (DTypeError, {name: [[0] * 8] * 3}),
            (DTypeError, {name: zeros(np.int8)}),
            (DTypeError, {name: zeros(np.bool_)}),
            (DTypeError, {name: zeros(np.uint16)}),
            (DTypeError, dict.fromkeys(HINTS, zeros(np.uint64))),
            (DTypeError, dict.fromkeys(HINTS, zeros(">u2"))),
            (ShapeError, {name: zeros(np.uint8, 24)}),
            (ShapeError, {name: zeros(np.uint8, 3, 7)}),
            (ShapeError, {name: zeros(np.uint8, 3, 16)[:, ::2]}),
            (ShapeError, {name: zeros(np.uint8, 8, 3).T}),
        ]
    return cases


def wrong_sums(words):
    """Weights, outputs and overlaps."""
    x = u64(20)
    of_words = x[:12].view(np.uint32).reshape(SHAPE)
    of_hints = x[:3].view(np.uint8).reshape(SHAPE)
    cases = [*wrong_words("weights", (8,)), *wrong_out("out", (3,))]
    cases += [(ParameterError, {name: of_words, "out": x[11:14]}) for name in words]
    cases += [(ParameterError, {name: of_hints, "out": x[2:5]}) for name in HINTS]
    return [*cases, (ParameterError, {"weights": x[:8], "out": x[7:10]})]


def good(words):
    return {
        **{name: zeros(np.uint32) for name in words},
        "weights": u64(8),
        "out": u64(3),
        **{name: zeros(np.uint8) for name in HINTS},
        "threads": 1,
    }


def long_words(words):
    """Which have no hints."""
    return {name: zeros(np.uint64) for name in words}


def test_dealer_errors():
    words = ("r1", "r2")
    x = u64(20)
    of_words, of_hints = x[:12].view(np.uint32).reshape(SHAPE), x[9:12].view(np.uint8).reshape(SHAPE)
    cases = [*wrong_pair("r1", "r2"), *wrong_pair("r2", "r1"), *wrong_hints(HINTS), *wrong_sums(words)]
    cases += [(ParameterError, long_words(words))]
    for name in HINTS:
        cases += [(ShapeError, {name: read_only(zeros(np.uint8))})]
        cases += [(ParameterError, {word: of_words, name: of_hints}) for word in words]
        cases += [(ParameterError, {"weights": x[2:10], name: of_hints})]
        cases += [(ParameterError, {name: of_hints, other: of_hints}) for other in HINTS if other != name]
    fails(_core.square_dealer, good(words), cases)
    none = dict.fromkeys(HINTS)
    _core.square_dealer(**{**good(words), **long_words(words), **none})
    _core.square_dealer(**{**good(words), **none})


def test_share_errors():
    words = ("m", "r")
    cases = [*wrong_pair("m", "r"), *wrong_pair("r", "m"), *wrong_hints(HINTS), *wrong_sums(words)]
    cases += [(ParameterError, long_words(words))]
    cases += [(DTypeError, {"first": 1}), (DTypeError, {"first": None})]
    fails(_core.square_share, {**good(words), "first": True}, cases)
    for first in (True, False):
        _core.square_share(**{**good(words), **long_words(words), **dict.fromkeys(HINTS), "first": first})


def test_a_cloud_may_read_what_it_may_not_write():
    given = {**good(("m", "r")), "first": False}
    for name in ("m", "r", "weights", *HINTS):
        given[name] = read_only(given[name])
    _core.square_share(**given)


def test_unaligned():
    memory = np.zeros(200, np.uint8)
    for name in HINTS:
        hints = {h: zeros(np.uint16) for h in HINTS}
        hints[name] = memory[1:49].view(np.uint16).reshape(SHAPE)
        with pytest.raises(ShapeError):
            _core.square_dealer(**{**good(("r1", "r2")), **hints})
