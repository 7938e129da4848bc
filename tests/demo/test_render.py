"""Rendered images and contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mipp import features
from mipp.demo.render import CLASSES, render_collection
from mipp.errors import ParameterError
from mipp.evaluation import metrics
from mipp.io.sheet import contact_sheet


def test_deterministic_and_distinct():
    first, again = render_collection(12, 3, (64, 48)), render_collection(12, 3, (64, 48))
    assert [(n, l) for n, l, _ in first] == [(f"{l}_{i:03d}", l) for l in CLASSES for i in range(3)]
    assert all(np.array_equal(a, b) for (*_, a), (*_, b) in zip(first, again, strict=True))
    assert all(p.shape == (48, 64, 3) and p.dtype == np.uint8 and p.std() > 5 for *_, p in first)
    assert len({p.tobytes() for *_, p in first}) == 36
    other = render_collection(12, 3, (64, 48), seed=2)
    assert not any(np.array_equal(a, b) for (*_, a), (*_, b) in zip(first, other, strict=True))
    more = render_collection(12, 4, (64, 48))
    assert np.array_equal(more[0][2], first[0][2])


def test_retrieval_is_good_but_not_trivial():
    images = render_collection(10, 20)
    labels = np.array([label for _, label, _ in images])
    result = {}
    for spec in ("cld", "ehd150", "cld+ehd"):
        d = features.get(spec)
        values = features.extract([p for *_, p in images], d).values
        result[spec] = metrics.summary(-d.distance(values, values), labels, np.arange(len(values)))["p10"]
    assert 0.8 < result["cld+ehd"] < 0.99
    assert max(result["cld"], result["ehd150"]) < result["cld+ehd"] - 0.05


@pytest.mark.parametrize("bad", [
    {"classes": 0}, {"classes": 13}, {"per_class": 0}, {"size": (15, 64)}, {"size": (64, 15)}, {"seed": -1},
])  # fmt: skip
def test_render_arguments(bad):
    with pytest.raises(ParameterError):
        render_collection(**bad)


def test_contact_sheet(tmp_path):
    image = np.full((40, 80, 3), 120, np.uint8)
    tall = np.full((90, 30, 3), 200, np.uint8)
    path = tmp_path / "sheet.png"
    cells = [(image, ["owner1", "score 12"], True), (tall, ["a very long owner name indeed, 山", "\n"], False)]
    contact_sheet([(image, cells), (tall, [(image, [], None)]), (tall, [])], path, title="a title", tile=(64, 48))
    with Image.open(path) as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB"
        pixels = np.asarray(sheet)
    assert (pixels == 120).all(axis=2).sum() > 1000 and (pixels == 200).all(axis=2).sum() > 300
    with pytest.raises(ParameterError):
        contact_sheet([], path)
    with pytest.raises(ParameterError):
        contact_sheet([(image, [])], path, tile=(31, 64))
