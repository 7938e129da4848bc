"""Clusters of rows around public centroids, dealt to groups: how rows lie in a batch, and what a query chooses.

Centroids come from public rows. A batch that is large enough is laid out: each cluster gets the same number of rows,
its *slots*, and the rows that lie far from every cluster with room follow as the *rest*. No row is added, so sizes tell
nothing. Rows go to the nearest centroid with room; those that lose least by moving move first. Clusters are dealt to
groups so that clusters which are near the same row lie in different groups: a query chooses one in each.

Row ``(g * slots + j) * size + i`` is the j-th row of cluster i of group g (:class:`mipp.mpc.probes.Layout`).
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import itertools
from typing import Any

import numpy as np

from ..errors import ParameterError
from .assigning import deal, laid_out, train
from .encoding import Encoding
from .numbers import integer, matrix, said
from .quantise import quantise

__all__ = ["LEAST", "Clusters"]

#: bounds of an index
MAX_CLUSTERS, MAX_BYTES = 1 << 14, 1 << 26
#: one row in so many belongs to the rest
REST = 32
#: rows of a cluster from which a batch is laid out, unless the index says otherwise
LEAST = 64
_VERSION = 1
#: whole steps of the largest coordinate, where coordinates have scales or weights of their own
_STEPS = 64
#: steps of a centroid between two integers, for metrics whose rows are bits
_BIT_STEPS = 16
#: whole numbers below this are exact as float64, and a distance is at most four times the longest squared length
_EXACT = 1 << 53
#: rows whose lengths are computed at a time
_AT_ONCE = 1 << 14


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Centroids of an index, and how they are dealt to groups. Public, immutable, part of the description of an index.

    Distances are those of encoded integers, weighted as the metric does, and exact: the same rows are laid out the same
    way everywhere.

    Parameters
    ----------
    groups : int
        Groups; a query chooses one cluster in each.
    words : int
        Integers of a centroid: those of an encoded row, without the extra coordinate of ``l2``.
    data : bytes
        Centroids, group by group: little-endian int32, at most 16384 centroids and 64 MiB.
    least : int
        Rows of a cluster from which a batch is laid out, 1 to 65535; smaller batches have no clusters.

    Raises
    ------
    ParameterError
        Sizes that do not fit together, or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.encoding.clusters import Clusters
    >>> encoding = Encoding("cosine", 2)
    >>> clusters = Clusters.of(encoding, np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]]), 2, least=1)
    >>> clusters.count, clusters.size, clusters.slots(9)
    (4, 2, 2)
    >>> points = clusters.points(encoding, np.array([[1, 0]]))
    >>> clusters.chosen(points).shape  # a query looks at one cluster in each group
    (1, 2)
    """

    groups: int
    words: int
    data: bytes = dataclasses.field(repr=False)
    least: int = LEAST

    def __post_init__(self) -> None:
        integer(self.groups, 1, MAX_CLUSTERS, "groups of clusters")
        integer(self.words, 1, MAX_BYTES // 4, "words of a centroid")
        integer(self.least, 1, (1 << 16) - 1, "rows of a cluster")
        if not isinstance(self.data, bytes) or not 0 < len(self.data) <= MAX_BYTES or len(self.data) % (4 * self.words):
            raise ParameterError("clusters: data must be one int32 for each word of each centroid, at most 64 MiB")
        if self.count > MAX_CLUSTERS or self.count % self.groups or self.size < 2:
            raise ParameterError(
                f"clusters are at most {MAX_CLUSTERS}, at least two for each group, and as many in each; "
                f"{self.count} and {self.groups} groups are not"
            )

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.data) // (4 * self.words)

    @property
    def size(self) -> int:
        """Clusters of a group."""
        return self.count // self.groups

    @functools.cached_property
    def centroids(self) -> np.ndarray:
        """Centroids, group by group: float64 whole numbers, (count, words)."""
        return np.frombuffer(self.data, "<i4").reshape(self.count, self.words).astype(np.float64)

    @functools.cached_property
    def hash(self) -> bytes:
        """SHA-256 of groups, sizes and centroids: 32 bytes."""
        head = f"mipp clusters {_VERSION} {self.groups} {self.words} {self.least} {REST} "
        return hashlib.sha256(head.encode() + self.data).digest()

    # --- rows and queries --------------------------------------------------------------------------------------

    def slots(self, rows: int) -> int:
        """Rows of each cluster in a batch of so many rows; 0 if the batch has no clusters.

        Parameters
        ----------
        rows : int
            Rows of a batch as it was uploaded.

        Returns
        -------
        int
            Rows of each cluster.
        """
        slots = (rows - rows // REST) // self.count
        return slots if slots >= self.least else 0

    @functools.cached_property
    def fewest_rows(self) -> int:
        """Rows of the smallest batch that has clusters."""
        rows = self.least * self.count
        while not self.slots(rows):
            # rows - rows // REST grows by one or stays
            rows += max(1, self.least * self.count - (rows - rows // REST))
        return rows

    def order(self, encoding: Encoding, rows: np.ndarray) -> np.ndarray | None:
        """Order in which the rows of a batch are stored.

        Parameters
        ----------
        encoding : Encoding
            Of the index.
        rows : ndarray of int, (N, encoded_dim)
            Encoded rows. Secret.

        Returns
        -------
        ndarray of int64, (N,), or None
            Number of the row that comes first, second and so on; None for a batch that has no clusters. Secret.
        """
        slots = self.slots(len(rows))
        if not slots:
            return None
        x, centroids = self._exact(rows[:, : self.words], _factors(encoding))
        cluster = laid_out(x, centroids, slots)
        # rows of a cluster keep their order; the rest comes last
        order = np.argsort(np.where(cluster < 0, self.count, cluster), kind="stable")
        inside = order[: self.count * slots].reshape(self.groups, self.size, slots).transpose(0, 2, 1)
        return np.concatenate([inside.reshape(-1), order[self.count * slots :]])

    def points(self, encoding: Encoding, vectors: np.ndarray) -> np.ndarray:
        """Compute the points of feature vectors among centroids.

        Parameters
        ----------
        encoding : Encoding
            Of the index.
        vectors : array_like, (N, dim)
            Features of queries or rows. Secret.

        Returns
        -------
        ndarray of int64, (N, words)
            Points. Secret.

        Raises
        ------
        DTypeError, ShapeError, EncodingError
            As :meth:`mipp.Encoding.encode_queries`.
        """
        return _points(encoding, vectors)

    def chosen(self, points: np.ndarray) -> np.ndarray:
        """Choose the nearest cluster of each group.

        Parameters
        ----------
        points : ndarray of int, (B, words)
            From :meth:`points`. Secret.

        Returns
        -------
        ndarray of int64, (B, groups)
            Numbers of clusters within their groups. Secret.
        """
        x, centroids = self._exact(points, np.ones(self.words, np.int64))
        distances = (centroids * centroids).sum(axis=1) - 2 * (x @ centroids.T)
        return distances.reshape(len(x), self.groups, self.size).argmin(axis=2)

    def _exact(self, words: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points, words times factors, and centroids as floats whose products are exact; narrow ones where they are."""
        wide = factors.astype(np.float64)
        parts = (words[at : at + _AT_ONCE] * wide for at in range(0, len(words), _AT_ONCE))
        longest = max(
            float(np.einsum("ij,ij->i", some, some).max()) for some in itertools.chain([self.centroids], parts)
        )
        dtype = np.float32 if 4 * longest < 1 << 24 else np.float64
        x = words.astype(dtype)
        if (factors != 1).any():
            x = x * factors.astype(dtype)
        return x, self.centroids.astype(dtype)

    # --- made ---------------------------------------------------------------------------------------------------

    @classmethod
    def of(
        cls, encoding: Encoding, centroids: np.ndarray, groups: int, *, sample: np.ndarray | None = None,
        least: int = LEAST,
    ) -> Clusters:  # fmt: skip
        """Make clusters of centroids.

        Parameters
        ----------
        encoding : Encoding
            Of the index; any metric but ``ip``.
        centroids : array_like, (C, dim)
            **Public** feature vectors.
        groups : int
            Number of groups, a divisor of C, at most C / 2.
        sample : array_like, (N, dim), optional
            **Public** feature vectors; clusters near the same one are dealt to different groups. Default: centroids.
        least : int
            As of the class.

        Returns
        -------
        Clusters
            The clusters.

        Raises
        ------
        ParameterError
            Numbers that do not fit together, centroids of which two are equal once they are encoded, or an encoding
            without clusters.
        DTypeError, ShapeError, EncodingError
            Vectors that the encoding refuses.
        """
        made = _points(encoding, centroids)
        return cls._dealt(made, groups, made if sample is None else _points(encoding, sample), least)

    @classmethod
    def fit(cls, encoding: Encoding, sample: np.ndarray, count: int, groups: int, *, least: int = LEAST) -> Clusters:
        """Find centroids of a **public** sample, and deal them.

        Parameters
        ----------
        encoding : Encoding
            Of the index; any metric but ``ip``.
        sample : array_like, (N, dim)
            **Public** feature vectors, at least as many as clusters. Everybody sees means of them.
        count : int
            Number C of clusters.
        groups : int
            Number of groups, a divisor of C, at most C / 2.
        least : int
            As of the class.

        Returns
        -------
        Clusters
            The clusters.

        Raises
        ------
        ParameterError
            Numbers that do not fit together, fewer rows than clusters, rows too alike for so many clusters, or an
            encoding without clusters.
        DTypeError, ShapeError, EncodingError
            Vectors that the encoding refuses.

        Examples
        --------
        >>> import numpy as np
        >>> from mipp.encoding import Encoding
        >>> from mipp.encoding.clusters import Clusters
        >>> sample = np.random.default_rng(0).normal(size=(200, 4))
        >>> clusters = Clusters.fit(Encoding("cosine", 4), sample, 8, 4)
        >>> clusters.count, clusters.groups
        (8, 4)
        """
        integer(count, 2, MAX_CLUSTERS, "the number of clusters")
        integer(groups, 1, count // 2, f"groups of {count} clusters")
        points = _points(encoding, sample)
        if len(points) < count:
            raise ParameterError(f"{count} clusters need at least {count} public rows, not {len(points)}")
        if count % groups:
            raise ParameterError(f"{count} clusters cannot be dealt to {groups} groups of one size")
        return cls._dealt(np.rint(train(points.astype(np.float32), count)), groups, points, least)

    @classmethod
    def _dealt(cls, centroids: np.ndarray, groups: int, sample: np.ndarray, least: int) -> Clusters:
        data = np.ascontiguousarray(centroids, "<i4")
        different = len(np.unique(data, axis=0))
        if different < len(data):
            raise ParameterError(
                f"only {different} of {len(data)} centroids differ once they are encoded: use fewer clusters, or "
                "public vectors that are less alike and in the encoding's range"
            )
        checked = cls(groups, data.shape[1], data.tobytes(), least)  # sizes, before the work
        group = deal(checked.centroids.astype(np.float32), groups, sample.astype(np.float32))
        return cls(groups, data.shape[1], data[np.argsort(group, kind="stable")].tobytes(), least)

    def check(self, encoding: Encoding) -> None:
        """Refuse clusters that are not of an encoding.

        Parameters
        ----------
        encoding : Encoding
            Of the index.

        Raises
        ------
        ParameterError
            Another number of words, centroids whose distances would not be exact, or an encoding without clusters.
        """
        _require(encoding)
        if self.words != len(_factors(encoding)):
            raise ParameterError(f"centroids of {self.words} words are not of this encoding")
        if 4 * np.einsum("ij,ij->i", self.centroids, self.centroids).max() >= _EXACT:
            raise ParameterError("centroids are too long to be compared exactly with rows")

    def to_dict(self) -> dict[str, Any]:
        """Serialise the clusters.

        Returns
        -------
        dict
            Values that JSON holds; :meth:`from_dict` reads them.
        """
        return {
            "layout": _VERSION, "groups": self.groups, "words": self.words, "least": self.least,
            "centroids": base64.b64encode(self.data).decode(),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Clusters:
        """Read clusters that :meth:`to_dict` wrote.

        Parameters
        ----------
        data : dict
            The serialised clusters.

        Returns
        -------
        Clusters
            The clusters.

        Raises
        ------
        ParameterError
            Another version, or anything else than serialised clusters.
        """
        if not isinstance(data, dict) or set(data) != {"layout", "groups", "words", "least", "centroids"}:
            raise ParameterError("not clusters of an index")
        if type(data["layout"]) is not int or data["layout"] != _VERSION:
            raise ParameterError(f"clusters are of layout {said(data['layout'])}, which this program does not know")
        try:
            raw = base64.b64decode(data["centroids"], validate=True)
        except (TypeError, ValueError):
            raise ParameterError("not clusters of an index: centroids are not base64 text") from None
        return cls(data["groups"], data["words"], raw, data["least"])


def _require(encoding: Encoding) -> None:
    """ParameterError for an encoding whose rows have no clusters."""
    if encoding.metric == "ip":
        raise ParameterError("clusters are for metrics that are distances; ip is none")
    if encoding.bits > 16 and encoding.metric not in ("l1", "hamming"):
        raise ParameterError(f"clusters are for rows of at most 16 bits, not {encoding.bits}")


def _factors(encoding: Encoding) -> np.ndarray:
    """Whole numbers, one for each word of a point: encoded words times these have the distances of the metric."""
    if encoding.metric in ("l1", "hamming"):
        return np.full(encoding.encoded_dim, _BIT_STEPS)
    each = encoding.scales * np.sqrt(encoding.integer_weights)
    if (each == each[0]).all():
        return np.ones(len(each), np.int64)
    steps = _STEPS
    while steps > 1 and 4 * len(each) * (encoding.clip * steps) ** 2 >= _EXACT:
        steps //= 2
    return np.maximum(1, np.rint(each / each.max() * steps)).astype(np.int64)


def _points(encoding: Encoding, vectors: np.ndarray) -> np.ndarray:
    _require(encoding)
    factors = _factors(encoding)
    if encoding.metric in ("l1", "hamming"):
        return encoding.encode_rows(vectors) * factors
    x = matrix(vectors, encoding.dim, "vectors")
    if not len(x):
        raise ParameterError("there are no vectors to make clusters of")
    # longer ones than the encoding allows have a nearest centroid, too
    return quantise(encoding, x, query=False) * factors
