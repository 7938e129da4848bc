"""Retrieval accuracy of a descriptor or of vectors: float, quantised and encrypted, over the same queries."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import features
from ..deployment import DEFAULT_BITS, Deployment
from ..encoding import Encoding
from ..encoding.numbers import matrix
from ..errors import DTypeError, EncodingError, ParameterError, ShapeError
from ..features.encoding import descriptor_encoding
from . import metrics
from .details import KINDS, array_digest, best_and_worst, listed, text_digest, with_intervals

__all__ = ["evaluate_images", "evaluate_labelled", "evaluate_neighbours", "float_scores", "plain_scores"]

_CHUNK = 256
#: queries that are searched at a time in schemes that gain nothing from more, so that progress is seen
_AT_ONCE = 5
_DEPTHS = (1, 10, 100)
_CELLS = 1 << 25


def plain_scores(encoding: Encoding, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Compute scores of the quantised plaintext by numpy, independently of the encrypted path.

    Parameters
    ----------
    encoding : Encoding
        Encoding of the rows and queries.
    rows, queries : ndarray
        (N, dim) and (B, dim) real numbers, in the clear.

    Returns
    -------
    ndarray
        int64 (B, N); larger is nearer.

    Raises
    ------
    DTypeError, ShapeError, EncodingError
        As :meth:`mipp.Encoding.encode_rows`.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.evaluation.evaluate import plain_scores
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> plain_scores(Encoding("cosine", 2), rows, rows[:1]).argmax(axis=1).tolist()
    [0]
    """
    a, b = encoding.encode_rows(rows).astype(np.int64), encoding.encode_queries(queries).astype(np.int64)
    largest = int(np.abs(a).max(initial=1)) * int(np.abs(b).max(initial=1)) * encoding.encoded_dim
    # float64 holds integers up to 2^53 exactly and multiplies faster than numpy's int64
    fast = largest < 1 << 53
    return np.rint(b.astype(np.float64) @ a.astype(np.float64).T).astype(np.int64) if fast else b @ a.T


def float_scores(metric: str, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Compute scores of a metric of encodings, unquantised, in float64.

    Parameters
    ----------
    metric : str
        ``cosine``, ``hamming``, ``hellinger``, ``ip``, ``l1`` or ``l2``.
    rows, queries : ndarray
        (N, dim) and (B, dim) real numbers, in the clear.

    Returns
    -------
    ndarray
        float64 (B, N); larger is nearer.

    Raises
    ------
    DTypeError, ShapeError
        Not matrices of real numbers.
    EncodingError
        Numbers whose score float64 does not hold.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation.evaluate import float_scores
    >>> float_scores("l1", np.array([[1.0, 2.0], [4.0, 4.0]]), np.array([[1.0, 1.0]])).tolist()
    [[-1.0, -6.0]]
    """
    a, b = (matrix(v, None, what).astype(np.float64) for v, what in ((rows, "rows"), (queries, "queries")))
    with np.errstate(over="ignore", invalid="ignore"):
        scores = _float_scores(metric, a, b)
    if not np.isfinite(scores).all():
        raise EncodingError("rows or queries hold numbers that have no score in float arithmetic")
    return scores


def _float_scores(metric: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if metric == "hellinger":
        a, b = np.sqrt(a), np.sqrt(b)
    if metric in ("cosine", "hellinger"):
        # by powers of two, exactly, so that squares neither overflow nor vanish
        a, b = (np.ldexp(v, -np.frexp(np.abs(v).max(axis=1, keepdims=True, initial=0))[1]) for v in (a, b))
        a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300) for v in (a, b))
    if metric in ("l1", "hamming"):
        return -np.array([np.abs(a - q).sum(axis=1) for q in b]).reshape(len(b), len(a))
    scores = b @ a.T
    return np.asarray(2 * scores - (a * a).sum(axis=1) if metric == "l2" else scores)


def evaluate_images(
    items: Sequence[tuple[Path, str]],
    descriptor: str,
    *,
    bits: int = 8,
    query_bits: int = 8,
    ring_bits: int = 32,
    scheme: str = "shares",
    key_bits: int = DEFAULT_BITS,
    queries: int = 0,
    window: tuple[float, float] | None = None,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a descriptor on labelled images: each image, or some evenly spread ones, is a query.

    A query leaves its own ranking. The images are decoded, extracted, encrypted and searched in this process.

    Parameters
    ----------
    items : sequence of tuple
        (path, label) of each image.
    descriptor : str
        Spec, e.g. ``csd64+ehd``.
    bits, query_bits, ring_bits : int
        Of the encoding: bits of a row's and of a query's values, bits of a ring element.
    scheme : str
        ``"shares"``, ``"lattice"`` or ``"paillier"``.
    key_bits : int
        Bits of the user's Paillier key.
    queries : int
        Number of queries, 0 for every image; all figures are of the same queries.
    window : tuple of float, optional
        (low, high) for deep gray images.
    folder : path, optional
        Where to make the embedded deployment; default a temporary folder.
    progress : callable, optional
        Called with the number of images that were extracted since the last call, then with that of queries that were
        searched.

    Returns
    -------
    dict
        As :func:`evaluate_labelled`, with ``descriptor`` and ``errors`` (path, reason); ``float`` is the descriptor's
        own distance; ``examples`` have the ``path`` of each image, ``dataset`` the digest of the names of all files.

    Raises
    ------
    ParameterError, NotFoundError
        Fewer than two readable images; another parameter out of range; an unknown descriptor.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from mipp.evaluation.evaluate import evaluate_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     items = []
    ...     for i, colour in enumerate(["red", "red", "blue", "blue"]):
    ...         path = pathlib.Path(folder, f"{i}.png")
    ...         Image.new("RGB", (16, 16), colour).save(path)
    ...         items.append((path, colour))
    ...     result = evaluate_images(items, "cld")
    >>> result["encrypted"]["map"], result["identical"]
    (1.0, True)
    """
    d = features.get(descriptor)
    values, labels, errors, paths = [], [], [], []
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        got = features.extract([path for path, _ in part], d, window=window)
        errors += [(str(part[i][0]), text) for i, _, text in got.errors]
        labels += [part[int(i)][1] for i in got.kept]
        paths += [part[int(i)][0] for i in got.kept]
        if len(got.kept):
            values.append(got.values)
        if progress is not None:
            progress(len(part))
    if len(labels) < 2:
        why = "".join(f"; {text}" for _, text in errors[:3])
        raise ParameterError(f"evaluation needs at least two readable images with labels{why}")
    x = np.concatenate(values)
    own = _own(len(x), queries)
    native = np.concatenate([-d.distance(x[own[i : i + _CHUNK]], x) for i in range(0, len(own), _CHUNK)])
    encoding = descriptor_encoding(descriptor, ring_bits=ring_bits, bits=bits, query_bits=query_bits)
    options: dict[str, Any] = {"scheme": scheme, "key_bits": key_bits, "folder": folder, "progress": progress}
    result = evaluate_labelled(d.embed(x), np.array(labels), encoding, scores=native, queries=queries, **options)
    # digests of names, not of paths: a collection that was moved stays the same one
    del result["dataset"]["vectors_sha256"]
    result["dataset"]["names_sha256"] = text_digest([path.name for path in paths])
    for query in result["examples"]["best"] + result["examples"]["worst"]:
        for image in (query, *query["hits"]):
            image["path"] = str(paths[image["row"]])
    return {"descriptor": d.name, "errors": errors} | result


def evaluate_labelled(
    vectors: np.ndarray,
    labels: np.ndarray,
    encoding: Encoding,
    *,
    scores: np.ndarray | None = None,
    queries: int = 0,
    scheme: str = "shares",
    key_bits: int = DEFAULT_BITS,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate labelled vectors, leave-one-out: float, quantised and encrypted.

    Parameters
    ----------
    vectors : ndarray
        (N, dim) real numbers, N at least 2.
    labels : ndarray
        (N,).
    encoding : Encoding
        Encoding of the vectors.
    scores : ndarray, optional
        (B, N) scores that count as ``float``, larger is nearer; default those of the encoding's metric, unquantised.
    queries : int
        Number of queries B, 0 for every vector.
    scheme : str
        ``"shares"``, ``"lattice"`` or ``"paillier"``.
    key_bits : int
        Bits of the user's Paillier key.
    folder : path, optional
        Where to make the embedded deployment; default a temporary folder.
    progress : callable, optional
        Called with the number of queries that were searched since the last call.

    Returns
    -------
    dict
        ``dim`` (stored words a row before padding), ``bytes`` (a row on each cloud, padded), ``images``, ``queries``,
        ``scheme``, ``ring``; for each of ``float``, ``quantised``, ``encrypted`` the figures of :func:`metrics.summary`
        and ``recall10``, the share of the float ranking's first 10 among its first 10; ``curves`` of ``float`` and
        ``encrypted`` as :func:`metrics.curves`; ``identical``: whether every encrypted score equals the quantised
        one; ``per_query``: row numbers and labels of the queries, and their figures; ``intervals`` and
        ``differences`` as :func:`mipp.evaluation.details.with_intervals`; ``examples`` as
        :func:`mipp.evaluation.details.best_and_worst`; and ``dataset``: number of classes, digests of labels and
        vectors. Labels are in it in the clear.

    Raises
    ------
    ShapeError, ParameterError
        Vectors and labels that do not fit; fewer than two; more queries than vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.evaluation.evaluate import evaluate_labelled
    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> result = evaluate_labelled(vectors, np.array(["a", "a", "b", "b"]), Encoding("cosine", 2))
    >>> result["encrypted"]["map"], result["identical"]
    (1.0, True)
    """
    if len(vectors) != len(labels):
        raise ShapeError(f"{len(vectors)} vectors and {len(labels)} labels do not fit")
    if len(vectors) < 2:
        raise ParameterError("evaluation needs at least two vectors with labels")
    own = _own(len(vectors), queries)
    exact = float_scores(encoding.metric, vectors, vectors[own]) if scores is None else scores
    quantised = plain_scores(encoding, vectors, vectors[own])
    with _index(vectors, encoding, scheme, key_bits, folder) as (search, facts):
        encrypted = search(vectors[own], progress)
    result: dict[str, Any] = facts | {"images": len(vectors), "queries": len(own)}
    depth = min(10, len(vectors) - 1)
    true = metrics.ranking_from_scores(exact, own)[:, :depth]
    per_query: dict[str, Any] = {"rows": own.tolist(), "labels": [str(labels[row]) for row in own]}
    for kind, found in zip(KINDS, (exact, quantised, encrypted), strict=True):
        nearest = metrics.ranking_from_scores(found, own)[:, :depth]
        values = metrics.per_query(found, labels, own) | {"recall10": metrics.neighbour_recall(nearest, true, depth)}
        result[kind] = {name: metrics.mean(value) for name, value in values.items()}
        per_query[kind] = {name: listed(value) for name, value in values.items()}
    result["identical"] = bool(np.array_equal(quantised, encrypted))
    result["curves"] = {
        "float": metrics.curves(exact, labels, own),
        "encrypted": metrics.curves(encrypted, labels, own),
    }
    result["examples"] = best_and_worst(encrypted, labels, own, values["map"])
    result["dataset"] = {
        "classes": len(np.unique(labels)),
        "labels_sha256": text_digest(labels.tolist()),
        "vectors_sha256": array_digest(vectors),
    }
    return result | with_intervals(per_query)


def evaluate_neighbours(
    rows: np.ndarray,
    queries: np.ndarray,
    encoding: Encoding,
    *,
    truth: np.ndarray | None = None,
    scheme: str = "shares",
    key_bits: int = DEFAULT_BITS,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate the recall of search in vectors against the true neighbours of queries.

    Parameters
    ----------
    rows, queries : ndarray
        (N, dim) and (B, dim) real numbers.
    encoding : Encoding
        Encoding of both.
    truth : ndarray of int, optional
        (B, >= 1) row numbers, nearest first; default the nearest in float.
    scheme : str
        ``"shares"``, ``"lattice"`` or ``"paillier"``.
    key_bits : int
        Bits of the user's Paillier key.
    folder : path, optional
        Where to make the embedded deployment; default a temporary folder.
    progress : callable, optional
        Called with the number of queries that were searched since the last call.

    Returns
    -------
    dict
        ``dim``, ``bytes``, ``images`` (rows), ``queries``, ``scheme``, ``ring``; for each of ``float``, ``quantised``,
        ``encrypted`` the recalls ``recall1``, ``recall10``, ``recall100`` as far as the truth and the rows go;
        ``identical``; ``per_query``, ``intervals`` and ``differences`` as :func:`evaluate_labelled`, without labels;
        and ``dataset``: digests of rows, queries and true neighbours.

    Raises
    ------
    ShapeError, DTypeError, ParameterError
        Arrays that do not fit each other or the encoding; a truth that is not of row numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.evaluation.evaluate import evaluate_neighbours
    >>> rows = np.eye(4)
    >>> evaluate_neighbours(rows, rows[:2] + 0.1, Encoding("cosine", 4))["encrypted"]
    {'recall1': 1.0}
    """
    if rows.ndim != 2 or queries.ndim != 2 or not rows.shape[1] == queries.shape[1] == encoding.dim:
        raise ShapeError(f"rows {rows.shape}, queries {queries.shape} and an encoding of {encoding.dim} do not fit")
    if not len(rows) or not len(queries):
        raise ShapeError("there must be rows and queries")
    if truth is not None and truth.dtype.kind not in "iu":
        raise DTypeError(f"true neighbours must be row numbers, not {truth.dtype}")
    if truth is not None and len(truth) != len(queries):
        raise ShapeError(f"{len(queries)} queries and {len(truth)} lists of true neighbours do not fit")
    if truth is not None and (truth.ndim != 2 or truth.min(initial=0) < 0 or truth.max(initial=0) >= len(rows)):
        raise ParameterError(f"true neighbours must be row numbers below {len(rows)}")
    most = min(len(rows), max(_DEPTHS)) if truth is None else min(len(rows), truth.shape[1])
    depths = [k for k in _DEPTHS if k <= most]
    recalls: dict[str, dict[int, list[np.ndarray]]] = {kind: {k: [] for k in depths} for kind in KINDS}
    identical = True
    truths: list[np.ndarray] = []
    # so many queries at a time that a score of each row and query fits into memory
    step = max(1, _CELLS // len(rows))
    with _index(rows, encoding, scheme, key_bits, folder) as (search, facts):
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            quantised, encrypted = plain_scores(encoding, rows, part), search(part, progress)
            identical &= bool(np.array_equal(quantised, encrypted))
            exact = float_scores(encoding.metric, rows, part)
            nearest = [metrics.nearest_rows(scores, most) for scores in (exact, quantised, encrypted)]
            true = nearest[0] if truth is None else truth[start : start + step]
            truths.append(np.asarray(true[:, : depths[-1]], np.int64))
            for kind, found in zip(KINDS, nearest, strict=True):
                for k in depths:
                    recalls[kind][k].append(metrics.neighbour_recall(found, true, k))
    result: dict[str, Any] = facts | {"images": len(rows), "queries": len(queries)}
    per_query: dict[str, Any] = {"rows": list(range(len(queries)))}
    for kind in KINDS:
        values = {f"recall{k}": np.concatenate(recalls[kind][k]) for k in depths}
        result[kind] = {name: float(value.mean()) for name, value in values.items()}
        per_query[kind] = {name: listed(value) for name, value in values.items()}
    result["identical"] = identical
    result["dataset"] = {
        "vectors_sha256": array_digest(rows),
        "queries_sha256": array_digest(queries),
        "truth_sha256": array_digest(*truths),
    }
    return result | with_intervals(per_query)


def _own(count: int, queries: int) -> np.ndarray:
    if not 0 <= queries <= count:
        raise ParameterError(f"queries must be 1 to {count}, the number of images, or 0 for all")
    return np.arange(count) if not queries else np.arange(queries) * count // queries


@contextlib.contextmanager
def _index(
    rows: np.ndarray, encoding: Encoding, scheme: str, key_bits: int, folder: Path | None
) -> Iterator[tuple[Callable[[np.ndarray, Callable[[int], None] | None], np.ndarray], dict[str, Any]]]:
    """An encrypted index of ``rows``: a function from queries (B, dim) to scores (B, N), and facts of the index."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        Deployment.create(folder or Path(temporary) / "d", encoding, scheme=scheme, rankings=["user"]) as deployment,
    ):
        owner, user = deployment.create_owner("owner"), deployment.create_user("user", key_bits=key_bits)
        owner.add_vectors(rows)
        owner.grant(user.id, rankings=["user"])

        def search(queries: np.ndarray, progress: Callable[[int], None] | None) -> np.ndarray:
            at_once = len(queries) if user.scheme.by_rows else _AT_ONCE
            parts = []
            for start in range(0, len(queries), at_once):
                index, scores = user.scores(queries[start : start + at_once])
                order = np.array([row for _, row in index.ids()])
                parts.append(np.empty_like(scores))
                parts[-1][:, order] = scores
                if progress is not None:
                    progress(len(scores))
            return np.concatenate(parts)

        yield (
            search,
            {
                "metric": encoding.metric,
                "dim": encoding.encoded_dim,
                "bytes": deployment.config.params.padded(encoding.encoded_dim) * encoding.ring_bits // 8,
                "ring": encoding.ring_bits,
                "scheme": scheme,
            },
        )
