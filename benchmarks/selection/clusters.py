"""Clusters of equal size, groups of them, and how many of the ten nearest rows they find.

Centroids come from public data. Each row goes to its nearest centroid that has room, the rows that lose least by moving
move first. Groups are dealt so that clusters that are near the same query lie in different groups.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mipp.encoding.assigning import STEP, deal, nearest, train
from mipp.encoding.assigning import assign_all as assign

DIM, K = 128, 10
#: of the formula: components, exponent of their sizes, least and largest spread
COMPONENTS, ZIPF, SPREAD = 1000, 0.8, 0.8
DATASETS = Path(os.environ.get("MIPP_DATASETS", Path(__file__).resolve().parents[3] / "shared" / "datasets"))


@dataclass(frozen=True)
class Set:
    """Rows that are stored, queries that are not among them, and public rows that centroids are made of."""

    name: str
    rows: np.ndarray
    queries: np.ndarray
    public: np.ndarray
    #: rows that are public rows, too, as a slice
    seen: slice | None = None


@dataclass(frozen=True)
class Figure:
    """What clusters find: clusters, the nearest first, that hold 95 of 100 nearest rows; by groups, the part found."""

    set: str
    rows: int
    clusters: int
    #: stored rows over rows
    padded: float
    #: share of rows that are not in one of their nearest clusters
    spilled: float
    probes: int
    found: dict[int, float]
    #: the same, of those nearest rows alone that no centroid was made of
    unseen: dict[int, float]


def mixture(count: int, seed: int) -> np.ndarray:
    """Rows with the structure of features: x = m_g + s_g n, with unequal components and a decaying spectrum.

    Component g of 1000 has weight 1 / (g + 1)^0.8; m_g and n are normal with variance 1 / i in coordinate i (some 18
    dimensions count); s_g is log-normal around 0.8, so components overlap.
    """
    shape = np.random.default_rng(7)
    deviations = (np.arange(1, DIM + 1) ** -0.5).astype(np.float32)
    means = shape.normal(size=(COMPONENTS, DIM)).astype(np.float32) * deviations
    scales = np.exp(shape.normal(size=COMPONENTS) * 0.25).astype(np.float32) * np.float32(SPREAD)
    weights = np.arange(1, COMPONENTS + 1) ** -ZIPF
    rng = np.random.default_rng(seed)
    component = rng.choice(COMPONENTS, count, p=weights / weights.sum())
    x = rng.standard_normal((count, DIM), np.float32)
    x *= deviations
    x *= scales[component][:, None]
    x += means[component]
    return x


def narrow(count: int, seed: int) -> np.ndarray:
    """Rows of an owner whose images are alike: those of :func:`mixture` near one of its rows, one in twenty."""
    x = mixture(20 * count, seed)
    return x[np.argpartition(((x - x[0]) ** 2).sum(axis=1), count)[:count]]


def noise(count: int, seed: int) -> np.ndarray:
    """Rows without structure: uniform."""
    return np.random.default_rng(seed).random((count, DIM), np.float32)


def sift() -> Set | None:
    """10,000 real SIFT features where the folder is there (``MIPP_DATASETS``); centroids are of every second row."""
    folder = DATASETS / "vectors"
    if not (folder / "sift10k_ukbench_base.fvecs").exists():
        return None
    rows, queries = (
        np.fromfile(folder / f"sift10k_ukbench_{part}.fvecs", np.float32).reshape(-1, DIM + 1)[:, 1:].copy()
        for part in ("base", "query")
    )
    return Set("SIFT", rows, queries, rows[::2], slice(0, None, 2))


# --- clusters --------------------------------------------------------------------------------------------------------


# --- what they find --------------------------------------------------------------------------------------------------


def exact(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The K nearest rows of each query, (B, K)."""
    squares = (rows * rows).sum(axis=1)
    values, places = [], []
    for start in range(0, len(rows), 5 * STEP):
        d = squares[start : start + 5 * STEP] - 2 * (queries @ rows[start : start + 5 * STEP].T)
        some = np.argpartition(d, K, axis=1)[:, :K]
        values.append(np.take_along_axis(d, some, 1))
        places.append(some + start)
    order = np.argsort(np.concatenate(values, axis=1), axis=1)[:, :K]
    return np.take_along_axis(np.concatenate(places, axis=1), order, 1)


def probes_needed(at: np.ndarray, ranks: np.ndarray, truth: np.ndarray, part: float = 0.95) -> int:
    """Nearest clusters of a query that hold ``part`` of the nearest rows of all queries."""
    found = np.sort(np.take_along_axis(ranks, at[truth], 1).ravel())
    return int(found[int(np.ceil(part * len(found))) - 1]) + 1


def found_by_groups(at: np.ndarray, ranks: np.ndarray, group: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Which of the nearest rows lie in the nearest cluster of a group, (B, K)."""
    hit = np.zeros(ranks.shape, bool)
    for g in range(int(group.max()) + 1):
        members = np.flatnonzero(group == g)
        hit[np.arange(len(ranks)), members[ranks[:, members].argmin(axis=1)]] = True
    return np.take_along_axis(hit, at[truth], 1)


def figures(of: Set, clusters: Sequence[int], padded: Sequence[float], groups: Sequence[int]) -> Iterator[Figure]:
    """One figure for each number of clusters and each share of padding."""
    truth = exact(of.rows, of.queries)
    fresh = np.ones(len(of.rows), bool)
    if of.seen is not None:
        fresh[of.seen] = False
    for count in clusters:
        centroids = train(of.public, count)
        order, _ = nearest(of.queries, centroids, count)
        ranks = np.argsort(order, axis=1)
        near = nearest(of.rows, centroids, min(8, count))
        dealt = {g: deal(centroids, g, of.public) for g in groups if count % g == 0 and g < count}
        for share in padded:
            slots = -(-int(share * len(of.rows)) // count)
            at, spilled = assign(*near, count, slots)
            hits = {g: found_by_groups(at, ranks, group, truth) for g, group in dealt.items()}
            found = {g: round(float(hit.mean()), 4) for g, hit in hits.items()}
            unseen = {g: round(float(hit[fresh[truth]].mean()), 4) for g, hit in hits.items()}
            part, needed = round(spilled / len(of.rows), 4), probes_needed(at, ranks, truth)
            yield Figure(of.name, len(of.rows), count, share, part, needed, found, unseen)


def room_needed(rows: np.ndarray, public: np.ndarray, clusters: int, spilled: float = 0.01) -> float:
    """Stored rows over rows such that at most a part ``spilled`` is in none of its two nearest clusters."""
    near = nearest(rows, train(public, clusters), 2)
    share = 1.05
    while assign(*near, clusters, -(-int(share * len(rows)) // clusters))[1] > spilled * len(rows):
        share *= 1.1
    return round(share, 2)


def as_rows(found: Sequence[Figure]) -> list[dict[str, object]]:
    """For JSON."""
    return [asdict(f) for f in found]
