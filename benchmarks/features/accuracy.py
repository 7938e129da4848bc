"""Accuracy of the descriptors on Corel-1k: the user guide's table, and weights on classes they were not learnt on.

``python -m benchmarks.features.accuracy`` prints Markdown. Every image is a query and left out of its own ranking.
Scores are those of the quantised plaintext, which encrypted scores equal (``mipp evaluate`` checks that, all of them).
The images are Corel-1k's from the folder that MIPP_DATASETS names (default: ``shared/datasets`` beside the repository).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from mipp import features
from mipp.evaluation import metrics
from mipp.evaluation.evaluate import plain_scores
from mipp.evaluation.learning import learn_weights
from mipp.features.base import squared
from mipp.features.encoding import descriptor_encoding
from mipp.io.images import load_image
from mipp.io.labels import load_labels
from mipp.params import Params

ROOT = Path(__file__).resolve().parents[2]
DATASETS = Path(os.environ.get("MIPP_DATASETS", ROOT.parent / "shared" / "datasets"))
FUSED = ("cld+ehd", "csd64+ehd", "csd64+cld10_6+ehd+lbp", "scd256+csd64+cld+ehd", features.DEFAULT)
OTHER_CODES = ("scd64:ramps", "scd128:ramps", "csd64:hellinger", "csd64:sine2", "csd64:l1", "ehd:groups")


class Collection:
    """Values of each descriptor, extracted once, and the time that took."""

    def __init__(self) -> None:
        items = load_labels(DATASETS / "corel1k" / "labels.csv")
        self.images = [load_image(path) for path, _ in items]
        self.labels = np.array([label for _, label in items])
        self._values: dict[str, np.ndarray] = {}
        self._milliseconds: dict[str, float] = {}

    def values(self, name: str) -> np.ndarray:
        if name not in self._values:
            d = features.get(name)
            d.extract(self.images[0])
            times = []
            out = []
            for image in self.images:
                start = time.perf_counter()
                out.append(d.extract(image))
                times.append(time.perf_counter() - start)
            self._values[name], self._milliseconds[name] = np.stack(out), float(np.median(times)) * 1e3
        return self._values[name]

    def of(self, spec: str) -> tuple[np.ndarray, float]:
        """Values (N, dim) of a spec and milliseconds per image."""
        names = [part.rpartition("*")[2].partition(":")[0] for part in features.get(spec).name.split("+")]
        values = [self.values(name) for name in names]
        return np.concatenate(values, axis=1), sum(self._milliseconds[name] for name in names)


def accuracy(spec: str, values: np.ndarray, labels: np.ndarray, ring: int) -> tuple[dict[str, float], int]:
    """Figures of the quantised ranking, and stored words."""
    vectors = features.get(spec).embed(values)
    encoding = descriptor_encoding(spec, ring_bits=ring)
    scores = np.concatenate([
        plain_scores(encoding, vectors, vectors[i : i + 100]) for i in range(0, len(vectors), 100)
    ])  # fmt: skip
    return metrics.summary(scores, labels, np.arange(len(labels))), encoding.encoded_dim


def table(data: Collection) -> None:
    own = np.arange(len(data.labels))
    print("| descriptor | words | bytes k=32 / 16 | own distance | encrypted, k=32 | k=16 | ms |")
    print("|---|---|---|---|---|---|---|")
    for spec in (*features.names(), *OTHER_CODES, *FUSED):
        values, ms = data.of(spec)
        d = features.get(spec)
        native = metrics.summary(-d.distance(values, values), data.labels, own)
        cells = []
        for ring in (32, 16):
            found, words = accuracy(spec, values, data.labels, ring)
            cells.append(f"{found['map']:.3f} / {found['p10']:.3f}")
        stored = [Params(3, 1, ring).padded(words) * ring // 8 for ring in (32, 16)]
        print(
            f"| `{d.name}` | {words} | {stored[0]} / {stored[1]} | {native['map']:.3f} / {native['p10']:.3f} | "
            f"{cells[0]} | {cells[1]} | {ms:.2f} |"
        )


def halves(data: Collection) -> None:
    """Learn weights on five classes, measure on the other five, both ways."""
    classes = np.unique(data.labels)
    parts = [features.get(name) for name in features.DEFAULT.split("+")]
    print("| measured on | equal weights | weights learnt on the other five classes | learnt on these (in-sample) |")
    print("|---|---|---|---|")
    specs = {}
    for first in (0, 1):
        chosen = np.isin(data.labels, classes[first::2])
        learnt, _ = learn_weights(parts, [data.values(p.name)[chosen] for p in parts], data.labels[chosen])
        specs[first] = learnt.name
    for first in (0, 1):
        chosen = np.isin(data.labels, classes[first::2])
        cells = []
        for spec in (features.DEFAULT, specs[1 - first], specs[first]):
            found, _ = accuracy(spec, data.of(spec)[0][chosen], data.labels[chosen], 32)
            cells.append(f"{found['map']:.3f} / {found['p10']:.3f}")
        print(f"| {', '.join(classes[first::2])} | " + " | ".join(cells) + " |")
    print()
    for first in (0, 1):
        print(f"learnt on {', '.join(classes[first::2])}: `{specs[first]}`")


def exponents(data: Collection) -> None:
    """Choose the exponent of a ``power`` code on five classes, measure on the other five, both ways."""
    classes = np.unique(data.labels)
    print("| descriptor, measured on | own distance | default exponent | exponent chosen on the other five classes |")
    print("|---|---|---|---|")
    for name, choices in (("scd256", (0.3, 0.4, 0.5, 0.7, 1.0)), ("csd64", (0.5, 0.6, 0.75, 0.9, 1.0))):
        d, values = features.get(name), data.values(name)
        for first in (0, 1):
            best: dict[int, tuple[float, float]] = {}
            for half in (0, 1):
                chosen = np.isin(data.labels, classes[half::2])
                figures = []
                for p in choices:
                    e = features.codes.power(d.low, d.high, p).embed_fn(values[chosen].astype(float))
                    found = metrics.summary(-squared(e, e), data.labels[chosen], np.arange(len(e)))
                    figures.append((found["map"], p))
                best[half] = max(figures)
                if half == first:
                    here = {p: figure for figure, p in figures}
            chosen = np.isin(data.labels, classes[first::2])
            native = metrics.summary(
                -d.distance(values[chosen], values[chosen]), data.labels[chosen], np.arange(chosen.sum())
            )
            default, _ = accuracy(name, values[chosen], data.labels[chosen], 32)
            p = best[1 - first][1]
            print(
                f"| `{name}`, {', '.join(classes[first::2])} | {native['map']:.3f} | {default['map']:.3f} | "
                f"{here[p]:.3f} (p = {p}) |"
            )


def main() -> None:
    if not (DATASETS / "corel1k" / "labels.csv").is_file():
        sys.exit("Corel-1k is not here; MIPP_DATASETS names the folder that has it")
    data = Collection()
    table(data)
    print()
    halves(data)
    print()
    exponents(data)


if __name__ == "__main__":
    main()
