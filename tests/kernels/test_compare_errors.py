"""Every error of the comparison and shuffle kernels."""

import numpy as np
import pytest

from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.kernels.test_compare import KEYS


def read_only(a):
    a.flags.writeable = False
    return a


def u64(*shape):
    return np.zeros(shape, np.uint64)


def fails(function, good, cases):
    function(**good)
    for error, change in [*cases, (ParameterError, {"threads": -1}), (ParameterError, {"threads": 1025}),
                          (DTypeError, {"threads": 1.5}), (DTypeError, {"threads": True})]:  # fmt: skip
        with pytest.raises(error):
            function(**{**good, **change})


def wrong_words(name, shape):
    """What no uint64 argument of this shape may be."""
    return [
        (DTypeError, {name: None}),
        (DTypeError, {name: np.zeros(shape, np.int64)}),
        (DTypeError, {name: np.zeros(shape, np.uint32)}),
        (DTypeError, {name: np.zeros(shape, ">u8")}),
        (ShapeError, {name: u64(*shape, 1)}),
        (ShapeError, {name: u64(*shape[:-1], 2 * shape[-1])[..., ::2]}),
        (ShapeError, {name: u64(*shape[:-1], shape[-1] + 8)}),
    ]


def wrong_out(name, shape):
    return [*wrong_words(name, shape), (ShapeError, {name: read_only(u64(*shape))})]


def wrong_key(name):
    return [
        (DTypeError, {name: "k" * 32}),
        (DTypeError, {name: bytearray(32)}),
        (ParameterError, {name: bytes(31)}),
        (ParameterError, {name: bytes(33)}),
    ]


def test_plane_errors():
    shape = (10, 8)
    both = u64(10, 512)
    fails(_core.slice_bits, {"words": u64(70), "first_bit": 54, "planes": u64(*shape), "threads": 1}, [
        *wrong_out("planes", shape),
        (DTypeError, {"words": np.zeros(70)}),
        (DTypeError, {"words": np.zeros(70, np.uint8)}),
        (ShapeError, {"words": u64(7, 10)}),
        (ShapeError, {"words": u64(140)[::2]}),
        (ShapeError, {"words": u64(513)}),
        (ShapeError, {"words": u64(0)}),
        (ParameterError, {"words": np.zeros(70, np.uint32)}),
        (ParameterError, {"first_bit": 55}),
        (ParameterError, {"first_bit": -1}),
        (ParameterError, {"first_bit": 2**70}),
        (DTypeError, {"first_bit": 1.0}),
        (ShapeError, {"planes": u64(0, 8)}),
        (ShapeError, {"planes": u64(65, 8), "first_bit": 0}),
        (ShapeError, {"planes": u64(10, 7)}),
        (ParameterError, {"words": both[0], "planes": both[:, :8].copy().reshape(10, 8), "first_bit": 60}),
        (ParameterError, {"words": both.reshape(-1)[:512], "planes": both.reshape(-1)[:80].reshape(10, 8)}),
    ])  # fmt: skip


def test_stream_errors():
    fails(_core.prf_words, {"key": KEYS[0], "out": u64(5), "threads": 1}, [
        *wrong_key("key"),
        *[c for c in wrong_out("out", (5,)) if c[0] is DTypeError],
        (ShapeError, {"out": u64(2, 2, 2)}),
        (ShapeError, {"out": u64(8)[::2]}),
        (ShapeError, {"out": read_only(u64(8))}),
    ])  # fmt: skip
    fails(_core.prf_xor, {"key": KEYS[0], "inout": u64(5), "threads": 1}, [
        *wrong_key("key"),
        (DTypeError, {"inout": np.zeros(5, np.uint32)}),
        (ShapeError, {"inout": u64(2, 2, 2)}),
        (ShapeError, {"inout": read_only(u64(5))}),
    ])  # fmt: skip
    fails(_core.prf_add, {"key": KEYS[0], "inout": u64(5), "negate": True, "threads": 1}, [
        *wrong_key("key"),
        (DTypeError, {"inout": np.zeros(5, np.int64)}),
        (ShapeError, {"inout": u64(5, 1)}),
        (ShapeError, {"inout": read_only(u64(5))}),
        (DTypeError, {"negate": 1}),
        (DTypeError, {"negate": None}),
    ])  # fmt: skip


def test_gate_errors():
    shape = (4, 8)
    x = u64(4, 8)
    names = ("x_lo", "x_hi", "y_lo", "y_hi")
    good = {n: u64(*shape) for n in names} | {"key_a": KEYS[0], "key_b": KEYS[1], "out": u64(*shape), "threads": 1}
    cases = [*wrong_key("key_a"), *wrong_key("key_b"), *wrong_out("out", shape)]
    for name in names:
        cases += [*wrong_words(name, shape), (ParameterError, {name: x, "out": x}), (ShapeError, {name: u64(3, 8)})]
    cases += [(ShapeError, {n: u64(4, 7) for n in (*names, "out")})]
    fails(_core.and_layer, good, cases)

    names = ("g_lo", "g_hi", "p_lo", "p_hi")
    good = {n: u64(*shape) for n in names} | {"key_a": KEYS[0], "key_b": KEYS[1], "out": u64(3, 8), "threads": 1}
    cases = [*wrong_key("key_a"), *wrong_key("key_b"), *wrong_out("out", (3, 8)), (ShapeError, {"out": u64(4, 8)})]
    for name in names:
        cases += [*wrong_words(name, shape), (ParameterError, {name: x, "out": x[:3]}), (ShapeError, {name: u64(5, 8)})]
    fails(_core.tree_layer, good, cases)

    good = {"g": u64(5, 8), "p": u64(5, 8), "z": u64(3, 8), "out_g": u64(3, 8), "out_p": u64(3, 8), "threads": 1}
    y = u64(5, 8)
    cases = [*wrong_words("g", (5, 8)), *wrong_words("p", (5, 8)), *wrong_words("z", (3, 8))]
    cases += [*wrong_out("out_g", (3, 8)), *wrong_out("out_p", (3, 8))]
    cases += [
        (ShapeError, {"p": u64(4, 8)}),
        (ShapeError, {"z": u64(4, 8)}),
        (ShapeError, {"out_g": u64(2, 8)}),
        (ShapeError, {"g": u64(0, 8), "p": u64(0, 8), "z": u64(0, 8), "out_g": u64(0, 8), "out_p": u64(0, 8)}),
        (ParameterError, {"g": y, "out_g": y[1:4]}),
        (ParameterError, {"p": y, "out_p": y[1:4]}),
        (ParameterError, {"p": y, "out_g": y[:3]}),
        (ParameterError, {"g": y, "out_p": y[:3]}),
        (ParameterError, {"z": y[:3], "out_p": y[2:]}),
        (ParameterError, {"z": y[:3], "out_g": y[:3]}),
        (ParameterError, {"out_g": y[:3], "out_p": y[2:]}),
    ]
    fails(_core.tree_combine, good, cases)


def test_shuffle_errors():
    for error, change in [
        *wrong_key("key"),
        (ParameterError, {"n": -1}),
        (ParameterError, {"n": 2**31 + 1}),
        (DTypeError, {"n": 2.0}),
        (DTypeError, {"n": True}),
    ]:
        with pytest.raises(error):
            _core.permutation(**{"key": KEYS[0], "n": 3, **change})

    def index(*values):
        return np.array(values, np.uint32)

    wrong_index = [
        (DTypeError, {"perm": [0, 1]}),
        (DTypeError, {"perm": np.arange(6)}),
        (DTypeError, {"perm": np.arange(6, dtype=np.int32)}),
        (ShapeError, {"perm": np.zeros((6, 1), np.uint32)}),
        (ShapeError, {"perm": np.zeros(12, np.uint32)[::2]}),
        (ParameterError, {"perm": index(0, 1, 2, 3, 4, 6)}),
        (ParameterError, {"perm": index(0, 1, 2**32 - 1, 3, 4, 5)}),
    ]
    x = u64(6)
    overlaps = [
        (ParameterError, {"out": x, "perm": x.view(np.uint32)[3:9]}),
    ]
    good = {"x": u64(6), "perm": index(*range(6)), "key": KEYS[1], "sign": -1, "out": u64(6), "threads": 1}
    fails(_core.shuffle_pass, good, [
        *wrong_words("x", (6,)),
        *wrong_out("out", (6,)),
        *wrong_index,
        *overlaps,
        (ShapeError, {"perm": index(0, 1, 2)}),
        *wrong_key("key"),
        (ParameterError, {"sign": 0}),
        (ParameterError, {"sign": 2}),
        (ParameterError, {"sign": -2, "key": None}),
        (DTypeError, {"sign": True}),
        (DTypeError, {"sign": 1.0}),
        (ParameterError, {"x": x, "out": x}),
    ])  # fmt: skip
