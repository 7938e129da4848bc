"""Part of the nearest rows that a search of chosen clusters finds, for an index's own features; in the clear."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..encoding import Encoding
from ..encoding.clusters import Clusters
from ..errors import ParameterError
from . import metrics
from .evaluate import plain_scores

__all__ = ["evaluate_clusters"]

#: scores that are computed together
_CELLS = 1 << 25


def evaluate_clusters(
    rows: np.ndarray, queries: np.ndarray, encoding: Encoding, clusters: Clusters, k: int = 10
) -> dict[str, Any]:
    """Measure what a search with ``probe=True`` finds of what a search of all rows finds.

    Parameters
    ----------
    rows, queries : ndarray
        (N, dim) and (B, dim) real numbers, in the clear. The rows are laid out as one batch.
    encoding : Encoding
        Encoding of both.
    clusters : Clusters
        Of the index.
    k : int
        Number of nearest rows, 1 to N.

    Returns
    -------
    dict
        ``clusters``, ``groups``; ``recall``: mean part of the k nearest rows that is found, and ``least``, that of the
        worst query; ``ranked``: scores that servers rank, over rows. Recall is 1 where the rows are too few for
        clusters.

    Raises
    ------
    ParameterError
        k out of range, or clusters of another encoding.
    DTypeError, ShapeError, EncodingError, ScoreRangeError
        As :meth:`mipp.Encoding.encode_rows`.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.encoding.clusters import Clusters
    >>> from mipp.evaluation.clusters import evaluate_clusters
    >>> rows, encoding = np.random.default_rng(0).normal(size=(400, 4)), Encoding("cosine", 4)
    >>> clusters = Clusters.fit(encoding, rows, 16, 8, least=8)
    >>> evaluate_clusters(rows, rows[:20], encoding, clusters)["recall"] > 0.8
    True
    """
    clusters.check(encoding)
    if not 1 <= k <= len(rows):
        raise ParameterError(f"k must be from 1 to {len(rows)}, the number of rows, not {k}")
    order = clusters.order(encoding, encoding.encode_rows(rows))
    slots = clusters.slots(len(rows))
    inside = slots * clusters.count
    cluster = np.full(len(rows), -1)
    if order is not None:
        group, place = np.divmod(np.arange(inside), slots * clusters.size)
        cluster[order[:inside]] = group * clusters.size + place % clusters.size
    found: list[np.ndarray] = []
    for start in range(0, len(queries), max(1, _CELLS // len(rows))):
        some = queries[start : start + max(1, _CELLS // len(rows))]
        nearest = metrics.nearest_rows(plain_scores(encoding, rows, some), k)
        chosen = clusters.chosen(clusters.points(encoding, some)) + np.arange(clusters.groups) * clusters.size
        there = (cluster[nearest][:, :, None] == chosen[:, None, :]).any(axis=2) | (cluster[nearest] < 0)
        found.append(there.mean(axis=1))
    values = np.concatenate(found)
    return {
        "clusters": clusters.count,
        "groups": clusters.groups,
        "k": k,
        "recall": float(values.mean()),
        "least": float(values.min()),
        "ranked": (slots * clusters.groups + len(rows) - inside) / len(rows),
    }
