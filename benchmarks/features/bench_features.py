"""Descriptors: images per second of one core, in memory at 256x256, and of all cores with decoding.

Run with ``pytest benchmarks/features/bench_features.py --benchmark-enable``. The decoding part takes 200 images of
Corel-1k from the folder that MIPP_DATASETS names (default: ``shared/datasets`` beside the repository), else JPEG files
of rendered images. The column OPS is calls per second: of one image in memory, of 200 with decoding.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipp import features
from mipp.demo.render import render_collection
from mipp.io.images import find_images, load_image

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("MIPP_DATASETS", ROOT.parent / "shared" / "datasets"))
COUNT = 200


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return render_collection(9, 1, (256, 256))[-1][2]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = DATASETS / "corel1k" / "images"
    if folder.is_dir():
        return find_images(folder)[:COUNT]
    target = tmp_path_factory.mktemp("images")
    for name, _, pixels in render_collection(10, COUNT // 10, (256, 256)):
        Image.fromarray(pixels).save(target / f"{name}.jpg", quality=90)
    return find_images(target)


@pytest.mark.parametrize("spec", features.names())
def bench_in_memory(benchmark, image, spec):
    extract = features.get(spec).extract
    extract(image)
    benchmark.extra_info["megapixel"] = image.shape[0] * image.shape[1] / 1e6
    benchmark(extract, image)


def bench_decoding_alone(benchmark, files):
    benchmark.extra_info["images"] = len(files)
    benchmark.pedantic(lambda: [load_image(path) for path in files], rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("workers", [1, None], ids=["one-thread", "all-threads"])
def bench_with_decoding(benchmark, files, workers):
    benchmark.extra_info["images"] = len(files)
    got = benchmark.pedantic(features.extract, (files, "cld+ehd"), {"workers": workers}, rounds=3, warmup_rounds=1)
    assert not got.errors
