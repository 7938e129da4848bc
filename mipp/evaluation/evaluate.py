"""Leave-one-out retrieval accuracy of a descriptor: float, quantised and encrypted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import features
from ..deployment import DEFAULT_BITS, Deployment
from ..deployment.ingest import descriptor_encoding
from ..encoding import Encoding
from ..errors import ParameterError
from . import metrics

__all__ = ["evaluate_images", "evaluate_vectors", "plain_scores"]

_CHUNK = 256


def plain_scores(encoding: Encoding, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Scores (B, N) int64 of the quantised plaintext by numpy, independent of the encrypted path."""
    a, b = encoding.encode_rows(rows).astype(np.int64), encoding.encode_queries(queries).astype(np.int64)
    # float64 holds integers up to 2^53 exactly and multiplies faster than numpy's int64
    if max(abs(v) for v in encoding.score_range) < 1 << 52:
        largest = int(np.abs(a).max(initial=1)) * int(np.abs(b).max(initial=1)) * encoding.encoded_dim
        if largest < 1 << 53:
            return np.asarray(np.rint(b.astype(np.float64) @ a.astype(np.float64).T), np.int64)
    return np.asarray(b @ a.T)


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
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Every image is a query, or some evenly spread ones are, and leaves its own ranking.

    Parameters
    ----------
    items : (path, label) of each image
    descriptor : spec, e.g. ``cld+ehd``
    bits, query_bits, ring_bits : of the encoding
    scheme, key_bits : of the deployment, and of the user's Paillier key in the homomorphic scheme
    queries : number of queries, 0 for every image; all figures are of the same queries
    folder : where to make the embedded deployment, default a temporary folder
    progress : called with the number of images extracted, step by step

    Returns
    -------
    dict
        ``descriptor``, ``dim`` (stored words per image before padding), ``images``, ``queries``, ``scheme``, ``errors``
        (path, reason), and
        ``float`` (the descriptor's own distance), ``quantised``, ``encrypted``: each ``map``, ``p10``, ``p20``,
        ``nn_error``; and
        ``identical``: whether encrypted scores equal the quantised ones, all of them.
    """
    d = features.get(descriptor)
    values, labels, errors = [], [], []
    for start in range(0, len(items), _CHUNK):
        part = items[start : start + _CHUNK]
        got = features.extract([path for path, _ in part], d)
        errors += [(str(part[i][0]), text) for i, _, text in got.errors]
        labels += [part[int(i)][1] for i in got.kept]
        if len(got.kept):
            values.append(got.values)
        if progress is not None:
            progress(len(part))
    if len(labels) < 2:
        raise ParameterError("evaluation needs at least two readable images with labels")
    x = np.concatenate(values)
    embedded = d.embed(x)
    if not 0 <= queries <= len(x):
        raise ParameterError(f"queries must be 1 to {len(x)}, the number of images, or 0 for all")
    own = np.arange(len(x)) if not queries else np.arange(queries) * len(x) // queries
    native = np.concatenate([-d.distance(x[own[i : i + _CHUNK]], x) for i in range(0, len(own), _CHUNK)])
    encoding = descriptor_encoding(descriptor, ring_bits=ring_bits, bits=bits, query_bits=query_bits)
    result = {
        "descriptor": d.name,
        "dim": encoding.encoded_dim,
        "images": len(x),
        "queries": len(own),
        "scheme": scheme,
    }
    options: dict[str, Any] = {"scheme": scheme, "key_bits": key_bits, "folder": folder}
    return result | {"errors": errors} | evaluate_vectors(embedded, np.array(labels), encoding, native, own, **options)


def evaluate_vectors(
    vectors: np.ndarray,
    labels: np.ndarray,
    encoding: Encoding,
    float_scores: np.ndarray,
    own: np.ndarray,
    *,
    scheme: str = "shares",
    key_bits: int = DEFAULT_BITS,
    folder: Path | None = None,
) -> dict[str, Any]:
    """As :func:`evaluate_images`, for vectors (N, dim) with labels (N,).

    ``own`` (B,): which rows are the queries; ``float_scores`` (B, N) of them, larger is nearer.
    """
    quantised = plain_scores(encoding, vectors, vectors[own])
    with (
        tempfile.TemporaryDirectory() as temporary,
        Deployment.create(folder or Path(temporary) / "d", encoding, scheme=scheme) as deployment,
    ):
        encrypted = _encrypted_scores(vectors, vectors[own], deployment, key_bits)
    return {
        "float": metrics.summary(float_scores, labels, own),
        "quantised": metrics.summary(quantised, labels, own),
        "encrypted": metrics.summary(encrypted, labels, own),
        "identical": bool(np.array_equal(quantised, encrypted)),
    }


def _encrypted_scores(vectors: np.ndarray, queries: np.ndarray, deployment: Deployment, key_bits: int) -> np.ndarray:
    owner, user = deployment.create_owner("owner"), deployment.create_user("user", key_bits=key_bits)
    owner.add_vectors(vectors)
    owner.grant(user.id)
    index, scores = user.scores(queries)
    order = np.array([row for _, row in index.ids()])
    out = np.empty_like(scores)
    out[:, order] = scores
    return out
