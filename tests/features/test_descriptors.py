"""The descriptors against a slow oracle, their errors, distances and embeddings."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import features
from mipp.errors import DTypeError, NotFoundError, ParameterError, ShapeError
from mipp.features.edge_histogram import block_size, enlarged_shape
from mipp.features.fused import EDGE_WEIGHT, GROUP_WEIGHT, groups
from tests.reference import descriptors as oracle


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Noise on a few flat rectangles: edges, ties and flat blocks."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width, 3), np.int64) + rng.integers(0, 256, 3)
    for _ in range(6):
        y, x = rng.integers(0, height), rng.integers(0, width)
        out[y : y + height // 2 + 1, x : x + width // 2 + 1] = rng.integers(0, 256, 3)
    return np.clip(out + rng.integers(-int(rng.integers(1, 60)), 60, out.shape), 0, 255).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(0, 2**32))
def test_cld_equals_oracle(height, width, seed):
    image = picture(height, width, seed)
    assert features.cld(image).tolist() == oracle.cld(image.tolist())


@settings(max_examples=12, deadline=None)
@given(st.integers(6, 110), st.integers(6, 110), st.integers(0, 2**32))
def test_ehd_equals_oracle(height, width, seed):
    image = picture(height, width, seed)
    assert features.ehd(image).tolist() == oracle.ehd(image.tolist())


def test_quantisers_equal_oracle():
    from mipp.features import _kernels

    for i in range(256):
        assert _kernels._quantise_y_dc(i) == oracle._y_dc(i)
        assert _kernels._quantise_c_dc(i) == oracle._c_dc(i)
    for i in range(-2100, 2100):
        assert _kernels._quantise_ac(i) == oracle._ac(i)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (2, 4), (4, 1), (8, 8)])
def test_cld_of_a_small_image_repeats_its_pixels(shape):
    image = picture(*shape, 3)
    large = np.repeat(np.repeat(image, 8, axis=0), 8, axis=1)
    assert features.cld(image).tolist() == features.cld(large).tolist()


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (69, 71), (20000, 10), (10, 20000), (2, 3), (70, 70)])
def test_any_size(shape):
    image = picture(*shape, 5)
    for spec in features.names():
        d = features.get(spec)
        values = d.extract(image)
        assert values.shape == (d.dim,) and values.dtype == d.dtype
        assert (values >= d.low).all() and (values <= d.high).all()


def test_too_elongated():
    image = np.zeros((1, 20000, 3), np.uint8)
    assert features.cld(image).shape == (12,)
    with pytest.raises(ShapeError, match="20000 x 1"):
        features.ehd(image)


def test_every_part_has_blocks():
    for long in (70, 100, 1000, 5000, 7000, 20000):
        for short in (1, 3, 10, 70, 75, 200):
            if max(long, short) * 70 / min(long, short) * 70 > 1 << 25:
                continue
            height, width = enlarged_shape(short, long)
            block = block_size(height, width)
            for side in (height, width):
                parts = {4 * start // side for start in range(0, side - block + 1, block)}
                assert parts == {0, 1, 2, 3}
            if max(height, width) <= 20 * min(height, width):
                assert block == max(2, int(math.sqrt(height * width / 1100) / 2) * 2)


@pytest.mark.parametrize("name", ["cld", "ehd", "cld+ehd"])
def test_bad_images(name):
    function = features.get(name).extract
    for bad in ([[1, 2]], None, np.zeros((4, 4, 3)), np.zeros((4, 4, 3), np.int16)):
        with pytest.raises(DTypeError):
            function(bad)
    for shape in ((4, 4), (4, 4, 4), (0, 4, 3), (4, 0, 3), (2, 4, 4, 3)):
        with pytest.raises(ShapeError):
            function(np.zeros(shape, np.uint8))


def test_strided_images():
    image = picture(160, 200, 1)
    for view in (image[::2, ::-1], np.asfortranarray(image)):
        assert features.cld(view).tolist() == features.cld(view.copy(order="C")).tolist()
        assert features.ehd(view).tolist() == features.ehd(view.copy(order="C")).tolist()


def values_of(spec: str, count: int, seed: int = 0) -> np.ndarray:
    d = features.get(spec)
    return np.random.default_rng(seed).integers(d.low, np.array(d.high) + 1, (count, d.dim)).astype(d.dtype)


def test_distance_of_cld():
    a, b = values_of("cld", 5).astype(float), values_of("cld", 7, 1).astype(float)
    weights = np.array([2, 2, 2, 1, 1, 1, 2, 1, 1, 4, 2, 2])
    squares = weights * (a[:, None] - b[None]) ** 2
    want = sum(np.sqrt(squares[:, :, s:e].sum(2)) for s, e in ((0, 6), (6, 9), (9, 12)))
    assert np.allclose(features.get("cld").distance(a, b), want)


def test_distance_of_ehd_is_l1():
    a, b = values_of("ehd", 5), values_of("ehd", 7, 1)
    want = np.abs(a[:, None].astype(int) - b[None]).sum(2)
    assert np.array_equal(features.get("ehd").distance(a, b), want)


def test_distance_of_fused():
    """Weighted colour, local and semi-global edge differences, from their definitions."""
    d = features.get("cld+ehd")
    a, b = values_of("cld+ehd", 4), values_of("cld+ehd", 6, 1)
    diff = a[:, None].astype(float) - b[None]
    colour = (np.array(features.get("cld").weights) * diff[:, :, :12] ** 2).sum(2)
    edges = diff[:, :, 12:].reshape(4, 6, 16, 5)
    grouped = np.einsum("gp,abpk->abgk", groups(), edges)
    want = colour + EDGE_WEIGHT**2 * ((edges**2).sum((2, 3)) + GROUP_WEIGHT**2 * (grouped**2).sum((2, 3)))
    assert np.allclose(d.distance(a, b) ** 2, want, rtol=5e-3)


@pytest.mark.parametrize("spec", ["cld", "ehd", "cld+ehd"])
def test_embedding(spec):
    d = features.get(spec)
    corners = np.stack([np.array(d.low), np.array(d.high)])
    for values in (values_of(spec, 50), corners):
        vectors = d.embed(values)
        assert vectors.dtype == np.float64 and vectors.shape == (len(values), d.embed_dim)
        assert (vectors >= d.embed_low).all() and (vectors <= d.embed_high).all()
    if d.exact:
        a, b = d.embed(values_of(spec, 20)), d.embed(values_of(spec, 30, 1))
        order = 1 if d.metric == "l1" else 2
        direct = np.linalg.norm(a[:, None] - b[None], ord=order, axis=2)
        assert np.allclose(d.distance(values_of(spec, 20), values_of(spec, 30, 1)), direct)


@pytest.mark.parametrize("method", ["embed", "distance"])
def test_bad_values(method):
    d = features.get("ehd")
    call = d.embed if method == "embed" else lambda v: d.distance(v, v)
    with pytest.raises(DTypeError):
        call(np.zeros((2, 80), complex))
    for shape in ((80,), (2, 79), (1, 2, 80)):
        with pytest.raises(ShapeError):
            call(np.zeros(shape))
    for bad in (-1, 8, np.nan, np.inf):
        with pytest.raises(ParameterError):
            call(np.full((1, 80), bad))


def test_registry():
    assert features.names()[:3] == ["cld", "ehd", "cld+ehd"]
    for spec in ("CLD+EHD", "ehd+cld", " Cld + eHd "):
        assert features.get(spec).name == "cld+ehd"
    for spec in ("", "sift", "cld+", "cld+cld", "cld+ehd+ehd"):
        with pytest.raises(NotFoundError, match=r"cld, ehd, cld\+ehd"):
            features.get(spec)
    with pytest.raises(DTypeError):
        features.get(3)
    d = features.get("cld+ehd")
    for name in ("cld+ehd", "ehd+cld", "Cld", "", "a+", "a b"):
        with pytest.raises(ParameterError):
            features.register(dataclasses.replace(d, name=name))
    with pytest.raises(ParameterError):
        dataclasses.replace(d, metric="chi2")
    with pytest.raises(ParameterError):
        dataclasses.replace(d, low=(0,))
    assert "cld+ehd" in repr(d) and len(repr(d)) < 200


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_does_not_load_numba():
    assert _python("import sys, mipp.features; print('numba' in sys.modules)").strip() == "False"


def test_same_without_jit():
    code = (
        "import numpy as np\nfrom mipp import features\n"
        "image = (np.arange(8 * 9 * 3).reshape(8, 9, 3) ** 2 % 251).astype(np.uint8)\n"
        "print(features.cld(image).tolist(), features.ehd(image).tolist())"
    )
    assert _python(code, NUMBA_DISABLE_JIT="1") == _python(code, NUMBA_DISABLE_JIT="0")
