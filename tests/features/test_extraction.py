"""Extraction of many images: order, broken files, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mipp import features
from mipp.errors import DTypeError, NotFoundError, ParameterError


def arrays(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (80, 90, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_order_and_broken_files(tmp_path, workers):
    images = arrays(6)
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[i])
    paths[2].write_bytes(b"no image")
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    paths.append(tmp_path / "missing.png")
    steps = []
    got = features.extract(paths, "CLD+ehd", workers=workers, progress=steps.append)
    assert got.kept.tolist() == [0, 1, 3, 5] and steps == [1] * 7
    assert [(i, path) for i, path, _ in got.errors] == [(i, str(paths[i])) for i in (2, 4, 6)]
    assert all(path in text for _, path, text in got.errors)
    for row, index in zip(got.values, got.kept, strict=True):
        assert row.tolist() == features.cld(images[index]).tolist() + features.ehd(images[index]).tolist()


def test_arrays():
    images = arrays(3)
    got = features.extract([images[0], images[1].astype(float), images[2]], features.get("ehd"))
    assert got.kept.tolist() == [0, 2] and got.errors[0][:2] == (1, "image 1")
    stacked = features.extract(np.stack(images), "ehd")
    assert stacked.values[[0, 2]].tolist() == got.values.tolist()


def test_nothing():
    got = features.extract([], "cld")
    assert got.values.shape == (0, 12) and got.values.dtype == np.uint8 and got.kept.shape == (0,) and not got.errors


def test_bad_arguments(tmp_path):
    with pytest.raises(DTypeError):
        features.extract(str(tmp_path), "cld")
    with pytest.raises(DTypeError):
        features.extract([3], "cld")
    with pytest.raises(DTypeError):
        features.extract([], None)
    with pytest.raises(NotFoundError):
        features.extract([], "sift")
    for workers in (0, -1, 1.5, True):
        with pytest.raises(ParameterError):
            features.extract([], "cld", workers=workers)


def test_an_interrupt_in_progress_stops():
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.extract(arrays(20), "cld", workers=2, progress=stop)
