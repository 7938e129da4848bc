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
from mipp.features import codes, registry
from mipp.features.base import euclidean, squared
from mipp.features.edge_histogram import GROUP_WEIGHT, block_size, enlarged_shape, groups
from tests.reference import colour_descriptors as slow
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
    from mipp.features._kernels import layout as _kernels

    for i in range(256):
        assert _kernels._quantise_y_dc(i) == oracle._y_dc(i)
        assert _kernels._quantise_c_dc(i) == oracle._c_dc(i)
    for i in range(-2100, 2100):
        assert _kernels._quantise_ac(i) == oracle._ac(i)


@settings(max_examples=10, deadline=None)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**32))
def test_colour_equals_oracle(height, width, seed):
    image = picture(height, width, seed)
    pixels = image.tolist()
    counts = slow.hsv_counts(pixels)
    assert (features.hsv_histogram(image) * (height * width)).round().astype(int).tolist() == counts
    assert features.csd(image, 256).tolist() == slow.csd256(pixels, 1)
    assert np.allclose(features.lbp(image), [float(v) for v in slow.lbp(pixels)], atol=1e-6)
    assert np.allclose(features.moments(image), slow.moments(pixels, 4), atol=1e-5)


def test_hsv_bins_of_every_difference():
    """Every pair of lower components under every top, in all orders: all ties and all borders of bins."""
    from mipp.features._kernels.colour import hsv_bins_kernel

    rng = np.random.default_rng(0)
    for top in (1, 2, 63, 64, 85, 128, 170, 200, 254, 255):
        low = rng.integers(0, top + 1, (400, 2))
        low[:6] = [[0, 0], [top, top], [0, top], [top, 0], [top // 2, top // 2], [0, top // 3]]
        for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
            colours = np.stack([np.full(400, top), low[:, 0], low[:, 1]], axis=1)[:, order].astype(np.uint8)
            for colour in colours:
                counts = np.zeros(256, np.int64)
                hsv_bins_kernel(np.ascontiguousarray(colour).reshape(1, 1, 3), counts)
                assert counts[slow.hsv_bin(*(int(v) for v in colour))] == 1


def test_scd_is_the_haar_transform_of_the_levels():
    """Undo the transform: with no coefficient clipped, the levels must come back."""
    from mipp.features._tables import SCD_OFFSETS
    from mipp.features.scalable_colour import _plan

    image = picture(60, 50, 8)
    first, second, cells, table = _plan()
    wide = table.copy()
    wide[:, 1] = 1 << 14
    from mipp.features._kernels import colour

    levels = np.array(slow.scd_levels(image.tolist()))
    out = np.empty(256, np.int16)
    colour.haar_kernel(levels.copy(), first, second, cells, wide, out)
    bins = np.zeros(256)
    bins[cells] = out + np.array(SCD_OFFSETS)
    for a, b in reversed(list(zip(first, second, strict=True))):
        bins[a], bins[b] = (bins[a] - bins[b]) / 2, (bins[a] + bins[b]) / 2
    assert np.array_equal(bins, levels)
    limits = table[:, 1]
    assert features.scd(image).tolist() == np.clip(out, -limits, limits).tolist()
    for count in (16, 32, 64, 128):
        assert features.scd(image, count).tolist() == features.scd(image)[:count].tolist()


def test_csd_of_a_large_image_spreads_its_element():
    image = picture(520, 530, 2)  # the element is spread over every second pixel
    image[::2, ::2] = picture(260, 265, 4)
    assert features.csd(image, 256).tolist() == features.csd(image[::2, ::2][:260, :265], 256).tolist()
    small = picture(30, 40, 3)
    assert features.csd(small, 256).tolist() == slow.csd256(small.tolist(), 1)


@pytest.mark.parametrize("cell", [8, 16])
def test_hog_equals_oracle(cell):
    image = picture(64, 64, 11)
    gray = image @ np.array([0.299, 0.587, 0.114])
    assert np.allclose(features.hog(image, cell), slow.hog(gray.tolist(), cell), atol=1e-6)


def test_shrinking_takes_true_means():
    from mipp.features._kernels.texture import shrink_kernel

    image = picture(96, 130, 6)
    gray = image @ np.array([0.299, 0.587, 0.114])
    out = np.empty((64, 64))
    shrink_kernel(image, out)
    fine = np.repeat(np.repeat(gray, 64, axis=0), 64, axis=1)
    assert np.allclose(out, fine.reshape(64, 96, 64, 130).mean(axis=(1, 3)))


@pytest.mark.parametrize(("count", "error"), [(17, ParameterError), (0, ParameterError), ("64", ParameterError)])
def test_bad_counts(count, error):
    image = picture(20, 20, 0)
    for call in (lambda: features.scd(image, count), lambda: features.csd(image, count), lambda: features.hog(image,
                 count), lambda: features.cld(image, count), lambda: features.cld(image, 6, count)):  # fmt: skip
        with pytest.raises(error):
            call()


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


@pytest.mark.parametrize("name", [*features.names(), features.DEFAULT])
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
        for spec in features.names():
            d = features.get(spec)
            assert d.extract(view).tolist() == d.extract(view.copy(order="C")).tolist()


def values_of(spec: str, count: int, seed: int = 0) -> np.ndarray:
    d = features.get(spec)
    rng = np.random.default_rng(seed)
    if d.dtype.kind == "f":
        return (np.array(d.low) + rng.random((count, d.dim)) ** 3 * (np.array(d.high) - np.array(d.low))).astype(
            d.dtype
        )
    return rng.integers(d.low, np.array(d.high) + 1, (count, d.dim)).astype(d.dtype)


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


def test_edge_groups_cost_no_dimension():
    """The code's squared distance is that of local and semi-global indices together."""
    d = features.get("ehd:groups")
    a, b = values_of("ehd", 4), values_of("ehd", 6, 1)
    edges = (a[:, None].astype(float) - b[None]).reshape(4, 6, 16, 5)
    grouped = np.einsum("gp,abpk->abgk", groups(), edges)
    want = (edges**2).sum((2, 3)) + GROUP_WEIGHT**2 * (grouped**2).sum((2, 3))
    assert np.allclose(squared(d.embed(a), d.embed(b)), want, rtol=5e-3)


def test_edge_bins():
    a = values_of("ehd", 5)
    bins = features.ehd_bins(a)
    assert bins.shape == (5, 150) and np.allclose(bins[:, 80:85], bins[:, :80].reshape(5, 16, 5).mean(axis=1))
    # the first group is the first column of parts
    assert np.allclose(bins[:, 85:90], bins[:, :80].reshape(5, 4, 4, 5)[:, :, 0].mean(axis=1))
    with pytest.raises(ShapeError):
        features.ehd_bins(a[:, :79])


def test_cedd_distance():
    d = features.get("cedd")
    a = np.zeros((3, 144))
    a[0, 0], a[1, :2] = 5, 3
    # sum 1: (1, 0) and (.5, .5): common .5, union 1 + .5 - .5
    assert np.allclose(d.distance(a, a), [[0, 50, 100], [50, 0, 100], [100, 100, 0]])


@pytest.mark.parametrize("name", features.names())
def test_codes(name):
    d = features.get(name)
    corners = np.stack([np.array(d.low), np.array(d.high)])
    for code in d.codes:
        coded = d.with_code(code.name)
        assert coded.code is code and features.get(coded.name).code.name == code.name
        for values in (values_of(name, 50), corners):
            vectors = coded.embed(values)
            assert vectors.dtype == np.float64 and vectors.shape == (len(values), coded.embed_dim)
            assert (vectors >= np.array(code.low) - 1e-9).all() and (vectors <= np.array(code.high) + 1e-9).all()
            if code.whole:
                assert np.array_equal(vectors, np.rint(vectors))
            away = (vectors - np.array(code.centre)) * np.sqrt(np.array(code.weights or [1.0]))
            assert np.linalg.norm(away, axis=1).max() <= code.radius * (1 + 1e-9)
        if code.exact:
            values, others = values_of(name, 20), values_of(name, 30, 1)
            order = 1 if code.metric == "l1" else 2
            direct = np.linalg.norm(coded.embed(values)[:, None] - coded.embed(others)[None], ord=order, axis=2)
            assert np.allclose(d.distance(values, others), direct, rtol=1e-6)


def test_sine_code_approaches_l1():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 7, (30, 5)), rng.uniform(0, 7, (40, 5))
    want = np.abs(a[:, None] - b[None]).sum(2)
    errors = []
    for terms in (1, 2, 8, 200):
        code = codes.sine(5, 7.0, terms)
        errors.append(np.abs(squared(code.embed_fn(a), code.embed_fn(b)) - want).mean() / want.mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.01


def test_ramps_are_l1_across_segments():
    code = codes.ramps((-10.0,), (10.0,), (-10, -2, 0, 2, 10))
    # from one knot to another, whole segments apart
    a, b = code.embed_fn(np.array([[-2.0], [0.0]])), code.embed_fn(np.array([[2.0], [10.0], [0.0]]))
    assert np.allclose(squared(a, b), [[4, 12, 2], [2, 10, 0]])


def test_hellinger_code():
    code = codes.hellinger(3)
    v = code.embed_fn(np.array([[4.0, 0.0, 12.0], [0.0, 0.0, 0.0]]))
    assert np.allclose(v, [[0.5, 0, math.sqrt(0.75)], [0, 0, 0]])


def test_fused():
    """Squared distance: the parts', over their units, times the weights."""
    parts = [features.get("cld"), features.get("csd64"), features.get("ehd:groups")]
    d = features.fuse([features.get("cld"), features.get("csd64"), features.get("ehd")], [2.0, 0.5, 1.0])
    assert d.name == "2*cld+0.5*csd64+ehd" and d.dim == 12 + 64 + 80 and d.embed_dim == 156
    a, b = ([values_of(p.name.partition(":")[0], n, n) for p in parts] for n in (4, 6))
    want = 0
    for part, x, y, weight in zip(parts, a, b, (2.0, 0.5, 1.0), strict=True):
        roots = np.sqrt(np.array(part.code.weights or [1] * part.code.dim))
        want = want + weight / part.code.unit * squared(part.embed(x) * roots, part.embed(y) * roots)
    assert np.allclose(d.distance(np.concatenate(a, 1), np.concatenate(b, 1)) ** 2, want)
    low, high = np.array(d.code.low), np.array(d.code.high)
    vectors = d.embed(np.concatenate(a, 1))
    assert (vectors >= low - 1e-9).all() and (vectors <= high + 1e-9).all()
    assert np.linalg.norm(vectors - np.array(d.code.centre), axis=1).max() <= d.code.radius
    assert (
        d.extract(picture(40, 50, 0)).tolist()
        == np.concatenate([features.get(n).extract(picture(40, 50, 0)) for n in ("cld", "csd64", "ehd")]).tolist()
    )


def test_units_of_other_codes_are_their_own():
    """A part counts alike by whichever code: mean squared distances over the units are about one."""
    from mipp.demo.render import render_collection

    images = [pixels for *_, pixels in render_collection(10, 4, (96, 96))]
    for spec in ("csd64", "csd64:hellinger", "csd64:sine2", "scd64:ramps", "ehd:l2", "cld6_6", "cld15_10"):
        single = features.get(spec)
        e = single.embed(features.extract(images, spec.partition(":")[0]).values)
        e = e * np.sqrt(np.array(single.code.weights or [1.0]))
        code = next(code for code in single.codes if code.name == (single.fuse or single.code.name))
        e = e if code is single.code else code.embed_fn(features.extract(images, spec).values.astype(float))
        assert 0.2 < squared(e, e).sum() / (40 * 39) / code.unit < 5, spec


def test_scale_weights_equalise():
    parts = [features.get("cld"), features.get("lbp")]
    rng = np.random.default_rng(3)
    values = [values_of("cld", 50), rng.dirichlet(np.ones(59), 50)]
    weights = features.scale_weights(parts, values)
    means = []
    for part, v, w in zip(parts, values, weights, strict=True):
        single = features.fuse([part, features.get("ehd")], [w, 1e-9])
        e = single.embed(np.concatenate([v, np.zeros((50, 80))], axis=1))
        means.append(squared(e, e).sum() / (50 * 49))
    assert np.allclose(means, 1.0, rtol=0.01)
    for bad in ([values[0]], [values[0], values[1][:1]], [np.zeros((5, 12)), values[1]]):
        with pytest.raises(ParameterError):
            features.scale_weights(parts, bad)


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
    assert {"cld", "ehd", "scd256", "csd64", "cedd", "lbp", "hog", "hsv", "moments"} <= set(features.names())
    for spec in ("CLD+EHD", "ehd+cld", " Cld + eHd "):
        assert features.get(spec).name == "cld+ehd"
    assert features.get("ehd + 2*CSD64 + scd256").name == "scd256+2*csd64+ehd"
    assert features.get("scd16").dim == 16 and features.get("cld15_10").dim == 35
    assert features.get("csd64:hellinger+cld").embed_dim == 76
    for spec in ("", "sift", "cld+", "scd17", "csd16", "cld7_7", "cld:nothing", "a b", "*cld"):
        with pytest.raises(NotFoundError, match="there are"):
            features.get(spec)
    for spec in ("cld+cld", "cld+ehd+ehd", "0*cld+ehd", "1e9*cld+ehd", "1.2.3*cld+ehd", "ehd:l1+cld"):
        with pytest.raises(ParameterError):
            features.get(spec)
    with pytest.raises(DTypeError):
        features.get(3)
    d = features.get("cld")
    for name in ("cld", "scd32", "Cld", "", "a+", "a b", "2*a", "a:b"):
        with pytest.raises(ParameterError):
            features.register(dataclasses.replace(d, name=name))
    with pytest.raises(ParameterError):
        dataclasses.replace(d.code, metric="chi2")
    with pytest.raises(ParameterError):
        dataclasses.replace(d, low=(0,))
    with pytest.raises(ParameterError):
        dataclasses.replace(d, fuse="l1")
    assert "cld+ehd" in repr(features.get("cld+ehd")) and len(repr(d)) < 200


def test_own_descriptor():
    """As a user adds one: a function, bounds and a code."""
    low, high = (0.0,) * 3, (255.0,) * 3
    mine = features.Descriptor(
        name="mean-colour", version=1, dim=3, dtype=np.dtype(np.float32), low=low, high=high, native="L2",
        codes=(features.codes.l2(low, high, exact=True, unit=5000.0),), fuse="l2",
        extract_fn=lambda image: image.reshape(-1, 3).mean(axis=0).astype(np.float32), distance_fn=euclidean,
    )  # fmt: skip
    try:
        assert features.register(mine) is mine and "mean-colour" in features.names()
        got = features.extract([picture(20, 30, i) for i in range(3)], "cld+mean-colour")
        assert got.values.shape == (3, 15) and got.values.dtype == np.float32
        assert features.get("cld+3*mean-colour").embed(got.values).shape == (3, 15)
    finally:
        registry._REGISTRY.pop("mean-colour")
        registry.get.cache_clear()


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
        "print([features.get(n).extract(image).tolist() for n in features.names()])"
    )
    assert _python(code, NUMBA_DISABLE_JIT="1") == _python(code, NUMBA_DISABLE_JIT="0")
