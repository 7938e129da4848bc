"""Extraction of many images: order, broken files, arguments."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mipp import features
from mipp.errors import DTypeError, NotFoundError, ParameterError
from mipp.io.images import find_images


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


def test_a_folder_of_every_kind_of_file(tmp_path):
    """Nothing stops half-way: each image is converted as documented, or reported with a reason."""
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 256, (90, 100, 3), dtype=np.uint8))
    good = {
        "gray.png": rgb.convert("L"),
        "palette.gif": rgb.convert("P"),
        "rgba.png": rgb.convert("RGBA"),
        "deep.png": Image.fromarray(rng.integers(0, 65536, (90, 100), dtype=np.uint16)),
        "cmyk.jpg": rgb.convert("CMYK"),
        "one.png": rgb.crop((0, 0, 1, 1)),
        "eight.png": rgb.crop((0, 0, 8, 8)),
        "long.png": Image.fromarray(rng.integers(0, 256, (10, 20000, 3), dtype=np.uint8)),
        "rgb.png": rgb,
    }
    for name, image in good.items():
        image.save(tmp_path / name)
    rgb.save(tmp_path / "animated.gif", save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "cmyk.jpg").read_bytes()[:400])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(rng.integers(0, 256, (1, 30000, 3), dtype=np.uint8)).save(tmp_path / "thread.png")
    paths = find_images(tmp_path)
    assert len(paths) == len(good) + 5
    got = features.extract(paths, features.DEFAULT)
    bad = {"broken.jpg", "empty.png", "text.jpg", "thread.png"}
    assert {paths[int(i)].name for i in got.kept} == {*good, "animated.gif"}
    assert {paths[i].name: bool(text) for i, _, text in got.errors} == dict.fromkeys(bad, True)
    vectors = features.get(features.DEFAULT).embed(got.values)
    assert np.isfinite(vectors).all()
    by_name = dict(zip((paths[int(i)].name for i in got.kept), got.values, strict=True))
    assert not np.array_equal(by_name["animated.gif"], by_name["long.png"])


def test_window_of_deep_images(tmp_path):
    """One window for all: values within it decide, values beyond it do not."""
    rng = np.random.default_rng(2)
    narrow = rng.integers(1000, 1256, (90, 90), dtype=np.uint16)
    bright = narrow.copy()
    bright[narrow > 1250] = 60000
    for name, image in (("a.png", narrow), ("b.png", bright)):
        Image.fromarray(image).save(tmp_path / name)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    plain = features.extract(paths, "ehd").values
    assert not plain[0].any()  # 256 of 65536 levels: flat in 8 bits
    seen = features.extract(paths, "ehd", window=(1000, 1250)).values
    assert seen[0].any() and np.array_equal(seen[0], seen[1])
    with pytest.raises(ParameterError, match="window"):
        features.extract(paths, "ehd", window=(5, 5))
