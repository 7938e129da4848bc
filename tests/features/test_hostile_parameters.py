"""Parameters of codes, descriptors and fused descriptors that are no numbers, or at the ends of float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mipp import features
from mipp.errors import DTypeError, MippError
from mipp.features import Code, codes, fuse, scale_weights

pytestmark = pytest.mark.filterwarnings("error")

VALUES = [
    1e200, -1e200, 1.7e308, 5e-324, np.nan, np.inf, None, "a", b"x", 1j, [1], 10**400, True, 0, -1, 1e154, 1e-200,
    np.datetime64("2020"), "9" * 5000, 10**5000,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_codes(value):
    makers = [
        lambda: codes.power((0.0,), (1.0,), value), lambda: codes.ramps((0.0,), (1.0,), (value, value)),
        lambda: codes.ramps((0.0,), (value,), (0, 1)), lambda: codes.sine(3, value, 2),
        lambda: codes.sine(value, 1.0, 2),
        lambda: codes.thermometer(3, value), lambda: codes.thermometer(value, 3), lambda: codes.hellinger(value),
        lambda: codes.weighted((0.0,), (1.0,), (value,)), lambda: codes.l2((value,), (value,)),
        lambda: codes.l2(value, value), lambda: codes.l2((0.0,), (1.0,), unit=value),
    ]  # fmt: skip
    for field in ("low", "high", "centre", "weights", "unit", "radius", "dim", "levels", "metric"):
        for given in (value, (value, value)):
            data = {
                "name": "x",
                "metric": "l2",
                "dim": 2,
                "low": (0.0, 0.0),
                "high": (1.0, 1.0),
                "embed_fn": lambda x: x,
            }
            makers.append(lambda data=data, field=field, given=given: Code(**{**data, field: given}))
    for make in makers:
        try:
            code = make()
        except MippError:
            continue
        assert all(map(math.isfinite, (*code.low, *code.high, *code.centre, code.radius, code.unit)))


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_weights_values_and_options(value):
    csd, ehd, moments = (features.get(name) for name in ("csd64", "ehd", "moments"))
    rows = np.zeros((4, moments.dim), object)
    rows[:] = 0.0
    rows[1, 2] = value
    image = np.zeros((9, 9, 3), np.uint8)
    text = "1e5000" if value == 10**5000 else str(value)
    for call in (
        lambda: fuse([csd, ehd], [1.0, value]), lambda: fuse([csd, value]), lambda: fuse([csd, ehd], value),
        lambda: moments.embed(rows), lambda: moments.embed(value), lambda: moments.distance(value, value),
        lambda: scale_weights([moments], [rows]), lambda: features.ehd_bins(value), lambda: features.cld(image, value),
        lambda: features.cld(value), lambda: features.hog(image, value), lambda: features.extract(value, "lbp"),
        lambda: features.extract([image], value), lambda: features.extract([image], "lbp", workers=value),
        lambda: features.extract([image], "lbp", window=(0, value)), lambda: features.get(f"{text}*csd64+ehd"),
        lambda: features.get(f"scd{text}"), lambda: moments.embed([[1], [2, 3]]),
    ):  # fmt: skip
        try:
            made = call()
        except MippError as error:
            assert len(str(error)) < 500
            continue
        assert made is not None


def test_values_that_no_float64_holds():
    rows = np.full((2, 144), np.longdouble("1e4000"))
    with pytest.raises(MippError):
        features.get("moments").embed(rows)
    with pytest.raises(DTypeError):
        features.get("moments").embed(np.zeros((2, 144), complex))
