"""Descriptors against the reference implementation: on images made by formula, and on Corel-1k where it is at hand."""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from mipp import features
from mipp.evaluation import metrics
from mipp.io.images import load_image
from tests.features.golden import GOLDEN, images

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("MIPP_DATASETS", ROOT.parent / "shared" / "datasets"))


@pytest.fixture(scope="module")
def pictures():
    return images()


@pytest.mark.parametrize("name", GOLDEN)
def test_synthetic(pictures, name):
    digest, cld, ehd = GOLDEN[name]
    image = pictures[name]
    assert hashlib.sha256(image.tobytes()).hexdigest() == digest
    assert features.cld(image).tolist() == list(cld)
    assert "".join(map(str, features.ehd(image))) == ehd.replace(" ", "")


def _table(path: Path) -> dict[str, list[str]]:
    text = path.read_bytes()
    if path.suffix == ".gz":
        text = gzip.decompress(text)
    return {row[0]: row[1:] for row in list(csv.reader(text.decode().splitlines()))[1:]}


@pytest.fixture(scope="module")
def corel():
    """Values (1000, 92) of Corel-1k, the reference's, the labels, and which images decode to the reference's pixels."""
    if not (DATASETS / "corel1k" / "labels.csv").is_file():
        pytest.skip("Corel-1k is not here; MIPP_DATASETS names the folder that has it")
    golden = DATASETS / "golden" / "corel1k"
    labels, digests = _table(DATASETS / "corel1k" / "labels.csv"), _table(golden / "pixels_sha256.csv")
    cld, ehd = _table(golden / "xm_CLD_6_3.csv.gz"), _table(golden / "xm_EHD.csv.gz")
    decoded = [load_image(DATASETS / "corel1k" / name) for name in labels]
    same = np.array([
        hashlib.sha256(image.tobytes()).hexdigest() == digests[name][2]
        for name, image in zip(labels, decoded, strict=True)
    ])  # fmt: skip
    got = features.extract(decoded, "cld+ehd")
    assert not got.errors
    reference = np.array([cld[name] + ehd[name] for name in labels], int)
    return got.values, reference, np.array([row[0] for row in labels.values()]), same


def test_corel_equals_the_reference(corel):
    values, reference, _, same = corel
    if not same.any():
        pytest.skip("this JPEG decoder gives other pixels than the reference's")
    assert np.array_equal(values[same], reference[same])


@pytest.mark.parametrize(
    ("spec", "columns", "map_", "p10"),
    [
        ("cld", slice(0, 12), 0.4211, 0.5772),
        ("ehd", slice(12, 92), 0.3708, 0.5223),
        ("cld+ehd", slice(0, 92), 0.4898, 0.6917),
    ],
)
def test_corel_accuracy(corel, spec, columns, map_, p10):
    """The first two figures are the reference implementation's, the third is ours."""
    values, _, labels, same = corel
    descriptor = features.get(spec)
    scores = -descriptor.distance(values[:, columns], values[:, columns])
    result = metrics.summary(scores, labels, np.arange(len(values)))
    tolerance = 2e-4 if same.all() else 5e-3
    assert abs(result["map"] - map_) < tolerance
    assert abs(result["p10"] - p10) < tolerance


def test_corel_accuracy_at_8_bits(corel):
    """The constants of the fused descriptor hold what they promise at 8 bits and one scale."""
    values, _, labels, same = corel
    descriptor = features.get("cld+ehd")
    low, high = np.array(descriptor.embed_low), np.array(descriptor.embed_high)
    step = ((high - low) / 2).max() / 127
    rows = np.rint((descriptor.embed(values) - (low + high) / 2) / step).astype(np.int64)
    scores = 2 * rows @ rows.T - (rows**2).sum(1)[None]
    result = metrics.summary(scores, labels, np.arange(len(values)))
    assert abs(result["map"] - 0.4896) < (5e-4 if same.all() else 5e-3)
