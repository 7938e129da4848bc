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
from mipp.evaluation.evaluate import plain_scores
from mipp.features.encoding import descriptor_encoding
from mipp.io.images import load_image
from tests.features.golden import golden, images

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("MIPP_DATASETS", ROOT.parent / "shared" / "datasets"))
GOLDEN = golden()
#: name of the values in the golden file, file of the reference's values on Corel-1k, our spec
REFERENCES = [
    ("cld6_3", "xm_CLD_6_3", "cld"),
    ("cld28_28", "xm_CLD_28_28", "cld28_28"),
    ("scd256", "xm_SCD256", "scd256"),
    ("csd32", "xm_CSD32", "csd32"),
    ("csd64", "xm_CSD64", "csd64"),
    ("csd128", "xm_CSD128", "csd128"),
    ("csd256", "xm_CSD256", "csd256"),
    ("ehd", "xm_EHD", "ehd"),
    ("cedd", "lire_CEDD", "cedd"),
]


@pytest.fixture(scope="module")
def pictures():
    return images()


@pytest.mark.parametrize("name", GOLDEN)
def test_synthetic(pictures, name):
    image, expected = pictures[name], GOLDEN[name]
    assert hashlib.sha256(image.tobytes()).hexdigest() == expected["pixels_sha256"]
    for column, _, spec in REFERENCES:
        got = features.get(spec).extract(image)
        assert got.tolist() == [int(v) for v in expected[column].split()], spec


def _table(path: Path) -> dict[str, list[str]]:
    text = path.read_bytes()
    if path.suffix == ".gz":
        text = gzip.decompress(text)
    return {row[0]: row[1:] for row in list(csv.reader(text.decode().splitlines()))[1:]}


@pytest.fixture(scope="module")
def corel():
    """Images of Corel-1k, names, labels, and which of them decode to the reference's pixels."""
    if not (DATASETS / "corel1k" / "labels.csv").is_file():
        pytest.skip("Corel-1k is not here; MIPP_DATASETS names the folder that has it")
    labels = _table(DATASETS / "corel1k" / "labels.csv")
    digests = _table(DATASETS / "golden" / "corel1k" / "pixels_sha256.csv")
    decoded = [load_image(DATASETS / "corel1k" / name) for name in labels]
    same = np.array([
        hashlib.sha256(image.tobytes()).hexdigest() == digests[name][2]
        for name, image in zip(labels, decoded, strict=True)
    ])  # fmt: skip
    return decoded, list(labels), np.array([row[0] for row in labels.values()]), same


@pytest.fixture(scope="module")
def values(corel):
    """Values of Corel-1k by descriptor, extracted once."""
    found = {}

    def extracted(spec):
        if spec not in found:
            got = features.extract(corel[0], spec)
            assert not got.errors
            found[spec] = got.values
        return found[spec]

    return extracted


@pytest.mark.parametrize(("file", "spec"), [reference[1:] for reference in REFERENCES])
def test_corel_equals_the_reference(corel, values, file, spec):
    _, names, _, same = corel
    if not same.any():
        pytest.skip("this JPEG decoder gives other pixels than the reference's")
    table = _table(DATASETS / "golden" / "corel1k" / f"{file}.csv.gz")
    reference = np.array([table[name] for name in names], float).astype(int)
    assert np.array_equal(values(spec)[same], reference[same])


@pytest.mark.parametrize(
    ("spec", "map_", "p10", "anmrr", "ns"),
    [
        ("cld", 0.4211, 0.5772, 0.4816, 2.851), ("csd64", 0.5020, 0.7188, 0.4109, 3.325),
        ("csd256", 0.4884, 0.7185, 0.4285, 3.373), ("scd256", 0.5081, 0.7331, 0.4063, 3.370),
        ("scd64", 0.4861, 0.7029, 0.4234, 3.310), ("ehd", 0.3708, 0.5223, 0.5435, 2.723),
        ("ehd150", 0.3864, 0.5515, 0.5303, 2.830), ("cedd", 0.4933, 0.6959, 0.4198, 3.302),
    ],
)  # fmt: skip
def test_native_distances_have_the_reference_accuracy(corel, values, spec, map_, p10, anmrr, ns):
    """Figures of the reference implementations on the same images: distances, not only values, are theirs."""
    _, _, labels, same = corel
    data = values(spec)
    result = metrics.summary(-features.get(spec).distance(data, data), labels, np.arange(len(data)))
    tolerance = 2e-4 if same.all() else 5e-3
    assert abs(result["map"] - map_) < tolerance
    assert abs(result["p10"] - p10) < tolerance
    assert abs(result["anmrr"] - anmrr) < tolerance
    assert abs(result["ns"] - ns) < 10 * tolerance


@pytest.mark.parametrize("ring", [32, 16])
@pytest.mark.parametrize(
    ("spec", "map_"),
    [("cld", 0.4211), ("csd64", 0.5020), ("scd256", 0.5081), ("scd128:ramps", 0.4990), ("scd64:ramps", 0.4861),
     ("ehd", 0.3708), ("cedd", 0.4933)],
)  # fmt: skip
def test_quantised_accuracy_is_within_a_hundredth_of_the_reference(corel, values, spec, map_, ring):
    data, labels = values(spec.partition(":")[0]), corel[2]
    vectors = features.get(spec).embed(data)
    scores = plain_scores(descriptor_encoding(spec, ring_bits=ring), vectors, vectors)
    assert metrics.summary(scores, labels, np.arange(len(data)))["map"] > map_ - 0.01


def test_default_descriptor_reaches_its_figures(corel):
    """Encrypted scores equal these; better than the best fused figure of the reference, .577 / .782."""
    vectors = features.get(features.DEFAULT).embed(features.extract(corel[0], features.DEFAULT).values)
    encoding = descriptor_encoding(features.DEFAULT)
    assert encoding.encoded_dim <= 700 and encoding.allows_server_ranking
    result = metrics.summary(plain_scores(encoding, vectors, vectors), corel[2], np.arange(len(vectors)))
    assert result["map"] >= 0.577 and result["p10"] >= 0.782
