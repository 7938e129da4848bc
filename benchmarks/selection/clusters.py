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

DIM, K = 128, 10
#: of the formula: components, exponent of their sizes, least and largest spread
COMPONENTS, ZIPF, SPREAD = 1000, 0.8, 0.8
#: rows at a time of a product with centroids
STEP = 20_000
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


def nearest(x: np.ndarray, centroids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` nearest centroids of each row, nearest first, and their squared distances less the row's norm."""
    index, distance = np.empty((len(x), count), np.int32), np.empty((len(x), count), np.float32)
    squares = (centroids * centroids).sum(axis=1)
    for start in range(0, len(x), STEP):
        d = squares - 2 * (x[start : start + STEP] @ centroids.T)
        some = np.argpartition(d, count - 1, axis=1)[:, :count]
        some = np.take_along_axis(some, np.argsort(np.take_along_axis(d, some, 1), axis=1), 1)
        index[start : start + STEP], distance[start : start + STEP] = some, np.take_along_axis(d, some, 1)
    return index, distance


def train(public: np.ndarray, clusters: int, rounds: int = 10) -> np.ndarray:
    """Centroids of clusters that are about equally large: k-means, then with room for a tenth more than the mean."""
    rng = np.random.default_rng(1)
    centroids = public[rng.choice(len(public), clusters, replace=False)].copy()
    for turn in range(6 + rounds):
        if turn < 6:
            at = nearest(public, centroids, 1)[0][:, 0]
        else:
            at, _ = assign(
                *nearest(public, centroids, min(12, clusters)), clusters, -(-11 * len(public) // (10 * clusters))
            )
        order, sizes = np.argsort(at, kind="stable"), np.bincount(at, minlength=clusters)
        starts = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(public[order], np.minimum(starts, len(public) - 1), axis=0)
        used = sizes > 0
        centroids[used] = sums[used] / sizes[used][:, None]
        centroids[~used] = public[rng.choice(len(public), int((~used).sum()))]
    return centroids


def assign(index: np.ndarray, distance: np.ndarray, clusters: int, slots: int) -> tuple[np.ndarray, int]:
    """A cluster for each row, at most ``slots`` rows in each, and how many rows found room in none of their nearest.

    A row asks its nearest centroid; a cluster that is asked by too many keeps those that would lose most by moving.
    """
    rows, choices = index.shape
    at = np.zeros(rows, np.int32)
    now, asking = index[:, 0].copy(), np.arange(rows)
    while len(asking):
        sizes = np.bincount(now[now >= 0], minlength=clusters)
        full = np.flatnonzero((now >= 0) & (sizes[now] > slots))
        after = np.minimum(at[full] + 1, choices - 1)
        loss = distance[full, after] - distance[full, at[full]]
        order = full[np.lexsort((-loss, now[full]))]
        place = np.arange(len(order)) - np.searchsorted(now[order], now[order])
        asking = order[place >= slots]
        at[asking] += 1
        now[asking] = np.where(at[asking] < choices, index[asking, np.minimum(at[asking], choices - 1)], -1)
    left = np.flatnonzero(now < 0)
    room = np.repeat(np.arange(clusters, dtype=np.int32), slots - np.bincount(now[now >= 0], minlength=clusters))
    now[left] = np.random.default_rng(0).permutation(room)[: len(left)]
    return now, len(left)


def deal(centroids: np.ndarray, groups: int, public: np.ndarray) -> np.ndarray:
    """A group for each cluster, all of one size, such that clusters near the same public row lie in different groups.

    Greedy, then by swaps. The weight of a pair is how often both are among the nearest, less for the farther ones.
    """
    clusters, rng = len(centroids), np.random.default_rng(0)
    top, _ = nearest(public[:STEP], centroids, min(clusters, max(4, 7 * groups // 10)))
    weight = np.zeros((clusters, clusters), np.float32)
    for i in range(1, top.shape[1]):
        for j in range(i):
            np.add.at(weight, (top[:, i], top[:, j]), 1 / (1 + i))
    weight += weight.T
    group, room = np.full(clusters, -1), np.full(groups, clusters // groups)
    cost = np.zeros((clusters, groups), np.float32)
    for c in np.argsort(-weight.sum(axis=1)):
        g = int((cost[c] + np.where(room > 0, 0, np.inf) + 1e-3 * rng.random(groups)).argmin())
        group[c], room[g] = g, room[g] - 1
        cost[:, g] += weight[:, c]
    for _ in range(6):
        for c in rng.permutation(clusters):
            g = group[c]
            change = cost[c, group] - cost[c, g] + cost[:, g] - cost[np.arange(clusters), group] - 2 * weight[c]
            change[group == g] = 0
            other = int(change.argmin())
            if change[other] < -1e-6:
                h = group[other]
                cost[:, g] += weight[:, other] - weight[:, c]
                cost[:, h] += weight[:, c] - weight[:, other]
                group[c], group[other] = h, g
    return group


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
