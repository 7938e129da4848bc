"""Descriptors on one core: images per second in memory, and beside scikit-image and OpenCV; with decoding on all cores.

``pytest benchmarks/features --benchmark-only``. Images are 16 of Corel-1k, 256x256, decoded, from the folder that
MIPP_DATASETS names (default: ``shared/datasets`` beside the repository), else rendered ones. The peers come with
``pip install -e '.[bench]'``; without them their benchmarks are skipped. Ratios are medians of pairs measured in turn.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.common import paired, seconds
from mipp import features
from mipp.demo.render import render_collection
from mipp.io.images import find_images, load_image

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("MIPP_DATASETS", ROOT.parent / "shared" / "datasets"))
QUICK = "MIPP_BENCH_ROWS" in os.environ
ROUNDS = 5 if QUICK else 40
COUNT = 20 if QUICK else 200
#: least images per second, where there is a limit
LIMITS = {"cld+ehd": 1000, "csd64": 300, "scd256": 300}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = DATASETS / "corel1k" / "images"
    if folder.is_dir():
        # spread over the classes
        found = find_images(folder)
        return found[:: len(found) // COUNT][:COUNT]
    target = tmp_path_factory.mktemp("images")
    for name, _, pixels in render_collection(10, COUNT // 10, (256, 256)):
        Image.fromarray(pixels).save(target / f"{name}.jpg", quality=90)
    return find_images(target)


@pytest.fixture(scope="module")
def images(files) -> list[np.ndarray]:
    return [load_image(path) for path in files[:: len(files) // 16][:16]]


def each(call, images) -> None:
    for image in images:
        call(image)


def compare(benchmark, call, peer, images, limit):
    """Times of both over all images, in turn; how many times as fast as the peer."""
    each(call, images[:1]), each(peer, images[:1])
    pairs = paired(
        benchmark, lambda: each(call, images), lambda: seconds(lambda: each(peer, images)), rounds=ROUNDS
    )  # fmt: skip
    ours, theirs = pairs.medians(1e6 / len(images), 1)
    benchmark.extra_info |= {"us": ours, "peer_us": theirs, "times_as_fast": pairs.times, "limit": limit}


@pytest.mark.parametrize("spec", [*features.names(), "cld+ehd", features.DEFAULT])
def bench_in_memory(benchmark, images, spec):
    extract = features.get(spec).extract
    extract(images[0])
    benchmark.pedantic(lambda: each(extract, images), rounds=max(3, ROUNDS // 4), warmup_rounds=1)
    benchmark.extra_info["images_per_second"] = round(len(images) / benchmark.stats["median"])
    if spec in LIMITS:
        benchmark.extra_info["limit"] = LIMITS[spec]


@pytest.mark.parametrize("spec", features.names())
def bench_cost_per_pixel(benchmark, images, spec):
    """Cost is linear in pixels: nanoseconds per pixel at 16 times the pixels over those at 256x256."""
    extract = features.get(spec).extract
    small = images[0]
    large = np.ascontiguousarray(np.tile(small, (4, 4, 1)))
    extract(large)
    pairs = paired(
        benchmark, lambda: extract(large), lambda: seconds(lambda: extract(small)), rounds=max(3, ROUNDS // 4)
    )
    benchmark.extra_info |= {
        "ns_per_pixel": pairs.medians(1e9 / (large.shape[0] * large.shape[1]))[0],
        "over_256x256": round(pairs.ratio / 16, 2),
    }


def bench_lbp(benchmark, images):
    """Against scikit-image: gray, patterns and a histogram, at least 3 times as fast."""
    skimage = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    colour = pytest.importorskip("skimage.color")

    def peer(image):
        gray = (colour.rgb2gray(image) * 255).astype(np.uint8)
        return np.bincount(skimage.local_binary_pattern(gray, 8, 1, "nri_uniform").astype(int).ravel(), minlength=59)

    compare(benchmark, features.lbp, peer, images, 3)


@pytest.mark.parametrize("shrunk", [False, True], ids=["with-resizing", "gradients-alone"])
def bench_hog(benchmark, images, shrunk):
    """Against scikit-image, from the image or from the same 64x64 array: at least 3 times as fast."""
    skimage = pytest.importorskip("skimage.feature", reason="scikit-image is not installed")
    colour = pytest.importorskip("skimage.color")
    transform = pytest.importorskip("skimage.transform")
    from mipp.features._kernels import texture

    options = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}

    def peer(image):
        return skimage.hog(transform.resize(colour.rgb2gray(image), (64, 64), anti_aliasing=True), **options)

    if not shrunk:
        compare(benchmark, features.hog, peer, images, 3)
        return
    grays = []
    for image in images:
        grays.append(np.empty((64, 64)))
        texture.shrink_kernel(image, grays[-1])
    out = np.empty(1764, np.float32)
    for gray in grays:
        texture.hog_kernel(gray, 8, 9, out)
        assert np.allclose(out, skimage.hog(gray, **options), atol=1e-5)
    compare(benchmark, lambda g: texture.hog_kernel(g, 8, 9, out), lambda g: skimage.hog(g, **options), grays, 3)


def bench_hsv_histogram(benchmark, images):
    """Against OpenCV's conversion and histogram of the same numbers of bins, on one thread: at least as fast."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    cv2.setNumThreads(1)

    def peer(image):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
        return cv2.calcHist([hsv], [0, 1, 2], None, [16, 4, 4], [0, 256, 0, 256, 0, 256])

    compare(benchmark, features.hsv_histogram, peer, images, 1)


def bench_decoding_alone(benchmark, files):
    benchmark.extra_info["images"] = len(files)
    benchmark.pedantic(lambda: [load_image(path) for path in files], rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("workers", [1, None], ids=["one-thread", "all-threads"])
@pytest.mark.parametrize("spec", ["cld+ehd", features.DEFAULT])
def bench_with_decoding(benchmark, files, workers, spec):
    got = benchmark.pedantic(features.extract, (files, spec), {"workers": workers}, rounds=3, warmup_rounds=1)
    benchmark.extra_info["images_per_second"] = round(len(files) / benchmark.stats["median"])
    assert not got.errors
