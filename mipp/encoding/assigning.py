"""Rows to clusters: nearest centroids, clusters of bounded and of equal size, training, dealing to groups."""

from __future__ import annotations

import numpy as np

__all__ = ["assign", "assign_all", "deal", "laid_out", "nearest", "train"]

#: public rows of which pairs of clusters are counted, at most
STEP = 20_000
#: distances to centroids that are in memory at a time
_DISTANCES = 1 << 22
#: nearest centroids that are found one after the other; more are sorted
_FEW = 16
#: times that rows of large clusters are offered to clusters with room, and nearest ones that each row asks then
_ROUNDS, _CHOICES = 12, 8
#: nearest clusters of a public row of which pairs are counted
_PAIRED = 64
#: times that prices of clusters change, rows that they are made for, and nearest centroids of these
_BIDS, _BIDDERS, _WATCHED = 60, 1 << 17, 16


def nearest(
    x: np.ndarray, centroids: np.ndarray, count: int, prices: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest centroids of rows.

    Parameters
    ----------
    x, centroids : ndarray of float, (N, D) and (C, D)
        Rows (secret) and centroids (public), of the same dtype.
    count : int
        Number of centroids for each row.
    prices : ndarray of float, (C,), optional
        What is added to the distance of each centroid, of the same dtype.

    Returns
    -------
    index, distance : ndarray, (N, count)
        Centroids, nearest first and of equally near ones the first, and squared Euclidean distances less the row's
        squared norm. Where distances are exact they are the same on every machine. Secret.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding.assigning import nearest
    >>> nearest(np.array([[1.0]]), np.array([[5.0], [0.0], [2.5]]), 2)[0].tolist()
    [[1, 2]]
    """
    index, distance = np.empty((len(x), count), np.int32), np.empty((len(x), count), x.dtype)
    squares = (centroids * centroids).sum(axis=1)
    if prices is not None:
        squares += prices
    step = max(1, _DISTANCES // len(centroids))
    for start in range(0, len(x), step):
        d = x[start : start + step] @ centroids.T
        d *= -2
        d += squares
        here = slice(start, start + len(d))
        # neither argpartition nor an argsort that is not stable has one order of equal distances on all processors
        if count > _FEW:
            index[here] = np.argsort(d, axis=1, kind="stable")[:, :count]
            distance[here] = np.take_along_axis(d, index[here], 1)
            continue
        rows = np.arange(len(d))
        for n in range(count):
            some = d.argmin(axis=1)
            index[here, n], distance[here, n] = some, d[rows, some]
            d[rows, some] = np.inf
    return index, distance


def assign(index: np.ndarray, distance: np.ndarray, clusters: int, slots: int) -> np.ndarray:
    """Give each row one of its nearest clusters, at most ``slots`` rows to each.

    A row asks its nearest centroid; a cluster that is asked by too many keeps those that would lose most by moving.

    Parameters
    ----------
    index, distance : ndarray, (N, choices)
        As of :func:`nearest`. Secret.
    clusters : int
        Number of clusters.
    slots : int
        Most rows of a cluster.

    Returns
    -------
    ndarray of int32, (N,)
        Cluster of each row, -1 where none of its nearest has room. Secret.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding.assigning import assign
    >>> assign(np.array([[0, 1], [0, 1], [0, 1]]), np.array([[0, 9], [0, 2], [1, 2]]), 2, 2).tolist()
    [0, 0, 1]
    """
    rows, choices = index.shape
    at = np.zeros(rows, np.int32)
    now, asking = index[:, 0].astype(np.int32), np.arange(rows)
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
    return now


def assign_all(index: np.ndarray, distance: np.ndarray, clusters: int, slots: int) -> tuple[np.ndarray, int]:
    """Give each row a cluster, at most ``slots`` rows to each: as :func:`assign`, and at random where none has room.

    Parameters
    ----------
    index, distance, clusters, slots :
        As of :func:`assign`; there is room for all rows.

    Returns
    -------
    cluster : ndarray of int32, (N,)
        Cluster of each row. Secret.
    far : int
        Number of rows that none of their nearest had room for.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding.assigning import assign_all
    >>> cluster, far = assign_all(np.array([[0], [0]]), np.array([[1], [2]]), 2, 1)
    >>> sorted(cluster.tolist()), far
    ([0, 1], 1)
    """
    now = assign(index, distance, clusters, slots)
    left = np.flatnonzero(now < 0)
    room = np.repeat(np.arange(clusters, dtype=np.int32), slots - np.bincount(now[now >= 0], minlength=clusters))
    now[left] = np.random.default_rng(0).permutation(room)[: len(left)]
    return now, len(left)


def laid_out(x: np.ndarray, centroids: np.ndarray, slots: int) -> np.ndarray:
    """Give each cluster exactly ``slots`` rows; the other rows belong to none.

    Clusters that many rows ask for get a price, which is added to their distances, until about as many rows ask for
    each (dual ascent of the transportation problem). Then clusters with too many rows offer those that lose least by
    moving to the nearest clusters with room. The number of products with centroids is bounded: where rows are so alike
    that it does not suffice, the rest of the room is filled in the order of the rows.

    Parameters
    ----------
    x, centroids : ndarray of float, (N, D) and (C, D)
        As of :func:`nearest`; N is at least C times ``slots``.
    slots : int
        Rows of a cluster.

    Returns
    -------
    ndarray of int32, (N,)
        Cluster of each row, -1 for the rest. Secret.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding.assigning import laid_out
    >>> laid_out(np.array([[0.0], [1.0], [2.0], [9.0], [50.0]]), np.array([[0.0], [9.0]]), 2).tolist()
    [0, 0, -1, 1, 1]
    """
    prices = _prices(x, centroids)
    index, distance = nearest(x, centroids, 1, prices)
    now, own = index[:, 0], distance[:, 0]
    for _ in range(_ROUNDS):
        room, excess = _room(now, len(centroids), slots)
        if not room.any():
            break
        _offer(x, centroids, prices, now, own, slots)
    room, excess = _room(now, len(centroids), slots)
    # alike rows: whichever of them, to whichever cluster
    left = np.flatnonzero(excess[now])
    left = left[_first(now[left], left, excess)]
    free = np.repeat(np.arange(len(centroids), dtype=now.dtype), room)
    now[left[: len(free)]] = free
    # the rest: of what is too much, the rows that are farthest from their centroid
    excess = _room(now, len(centroids), slots)[1]
    now[_first(now, -own - np.einsum("ij,ij->i", x, x), excess)] = -1
    return now


def _room(now: np.ndarray, clusters: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that each cluster has room for, and rows that it has too many."""
    sizes = np.bincount(now, minlength=clusters)
    return np.maximum(slots - sizes, 0), np.maximum(sizes - slots, 0)


def _prices(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Prices of centroids at which about as many rows ask for each: whole numbers, so sums with distances are exact."""
    count = len(centroids)
    bidders = x[:: -(-len(x) // _BIDDERS)]
    index, distance = nearest(bidders, centroids, min(_WATCHED, count))
    # a price is at most the longest squared length: then sums are no longer than distances between two rows are
    most = max(float(np.einsum("ij,ij->i", some, some).max()) for some in (centroids, bidders))
    mean, rows = len(bidders) / count, np.arange(len(bidders))
    step = float(np.median(distance[:, min(1, count - 1)] - distance[:, 0])) / 2
    prices = np.zeros(count, x.dtype)
    best, fewest = prices, float(len(bidders) + 1)
    for _ in range(_BIDS):
        asked = index[rows, (distance + prices[index]).argmin(axis=1)]
        more = np.bincount(asked, minlength=count) - mean
        excess = float(np.maximum(more, 0).sum())
        if excess < fewest:
            best, fewest = prices, excess
        # smaller steps by and by, as too long ones swing about the price
        prices = np.clip(np.rint(prices + step * (more / mean)), -most, most).astype(x.dtype)
        step *= 0.97
    return best


def _offer(
    x: np.ndarray, centroids: np.ndarray, prices: np.ndarray, now: np.ndarray, own: np.ndarray, slots: int
) -> None:
    """Move rows of clusters with too many to their nearest clusters with room; ``now`` and ``own`` change."""
    room, excess = _room(now, len(centroids), slots)
    rows, there = np.flatnonzero(excess[now]), np.flatnonzero(room)
    index, distance = nearest(x[rows], centroids[there], min(_CHOICES, len(there)), prices[there])
    for _ in range(index.shape[1]):
        # the nearest with room, of those that a row asks
        to = there[index]
        has, asking = room[to] > 0, excess[now[rows]] > 0
        some = np.flatnonzero(has.any(axis=1) & asking)
        # a row that none of these has room for may lose less elsewhere than another one here
        if not len(some) or len(some) < np.count_nonzero(asking):
            return
        choice = has[some].argmax(axis=1)
        target, near = to[some, choice], distance[some, choice]
        moving = rows[some]
        loss = near - own[moving]
        offered = _first(now[moving], loss, excess)
        taken = offered[_first(target[offered], loss[offered], room)]
        now[moving[taken]], own[moving[taken]] = target[taken], near[taken]
        room, excess = _room(now, len(centroids), slots)
        stay = np.ones(len(rows), bool)
        stay[some[taken]] = False
        rows, index, distance = rows[stay], index[stay], distance[stay]


def _first(cluster: np.ndarray, key: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the rows of each cluster those with the least keys, as many as its count says."""
    order = np.lexsort((key, cluster))
    clusters = cluster[order]
    place = np.arange(len(order)) - np.searchsorted(clusters, clusters)
    return np.asarray(order[place < counts[clusters]])


def train(public: np.ndarray, clusters: int, rounds: int = 10) -> np.ndarray:
    """Find centroids of clusters that are about equally large: k-means, then with little room above the mean.

    Parameters
    ----------
    public : ndarray of float, (N, D)
        **Public** rows, at least as many as clusters. Everybody sees their means.
    clusters : int
        Number C of centroids.
    rounds : int
        Rounds with bounded room, after six without.

    Returns
    -------
    ndarray, (C, D)
        Centroids, the same for the same rows.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding.assigning import train
    >>> sorted(train(np.array([[0.0], [1.0], [10.0], [11.0]]), 2)[:, 0].tolist())
    [0.5, 10.5]
    """
    rng = np.random.default_rng(1)
    centroids = public[rng.choice(len(public), clusters, replace=False)].copy()
    for turn in range(6 + rounds):
        if turn < 6:
            at = nearest(public, centroids, 1)[0][:, 0]
        else:
            # rows that are far from room, placed at random, draw centroids to where there are many rows
            near = nearest(public, centroids, min(12, clusters))
            at, _ = assign_all(*near, clusters, -(-11 * len(public) // (10 * clusters)))
        order, sizes = np.argsort(at, kind="stable"), np.bincount(at, minlength=clusters)
        starts = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(public[order], np.minimum(starts, len(public) - 1), axis=0)
        used = sizes > 0
        centroids[used] = sums[used] / sizes[used][:, None]
        centroids[~used] = public[rng.choice(len(public), int((~used).sum()))]
    return centroids


def deal(centroids: np.ndarray, groups: int, public: np.ndarray) -> np.ndarray:
    """Deal clusters to groups of one size, so that clusters near the same public row lie in different groups.

    Greedy, then by swaps. The weight of a pair is how often both are among the nearest, less for the farther ones.

    Parameters
    ----------
    centroids, public : ndarray of float, (C, D) and (N, D)
        Public.
    groups : int
        Number of groups, a divisor of C.

    Returns
    -------
    ndarray of int, (C,)
        Group of each cluster.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding.assigning import deal
    >>> centroids = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> group = deal(centroids, 2, centroids)
    >>> bool(group[0] != group[1]), bool(group[2] != group[3])
    (True, True)
    """
    clusters, rng = len(centroids), np.random.default_rng(0)
    top, _ = nearest(public[:STEP], centroids, min(clusters, _PAIRED, max(4, 7 * groups // 10)))
    weight = np.zeros((clusters, clusters), np.float32)
    for i in range(1, top.shape[1]):
        for j in range(i):
            np.add.at(weight, (top[:, i], top[:, j]), 1 / (1 + i))
    weight += weight.T
    group, room = np.full(clusters, -1), np.full(groups, clusters // groups)
    cost = np.zeros((clusters, groups), np.float32)
    for c in np.argsort(-weight.sum(axis=1), kind="stable"):
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
