"""Details of an evaluation beside its means: each query's figures, intervals, classes, the best and worst queries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import metrics
from .intervals import intervals, less

__all__ = ["KINDS", "PAIRS", "array_digest", "best_and_worst", "by_class", "listed", "text_digest", "with_intervals"]

#: how queries are ranked: by unquantised numbers, by quantised ones in the clear, by the encrypted index
KINDS = ("float", "quantised", "encrypted")
#: differences that are reported: the second less the first
PAIRS = (("float", "quantised"), ("quantised", "encrypted"), ("float", "encrypted"))
#: queries shown as the best ones, and as the worst; hits of each
SHOWN, HITS = 6, 8


def array_digest(*parts: npt.NDArray[Any]) -> str:
    """Compute the SHA-256 of an array's type, shape and numbers.

    Parameters
    ----------
    *parts : ndarray
        The array, or pieces of it along the first axis; pieces give the digest of the whole.

    Returns
    -------
    str
        64 hexadecimal digits. Whoever has the digest can tell whether an array is this one.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation.details import array_digest
    >>> array_digest(np.eye(3)) == array_digest(np.eye(3)[:1], np.eye(3)[1:]) != array_digest(np.eye(3) * 2)
    True
    """
    shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
    found = hashlib.sha256(f"{parts[0].dtype.str} {shape}".encode())
    for part in parts:
        for start in range(0, len(part), 1 << 14):  # a mapped file is read piece by piece
            found.update(np.ascontiguousarray(part[start : start + (1 << 14)]).tobytes())
    return found.hexdigest()


def text_digest(texts: Sequence[object]) -> str:
    """Compute the SHA-256 of a list of texts: of their JSON.

    Parameters
    ----------
    texts : sequence
        Labels or names; each is taken as its text.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> from mipp.evaluation.details import text_digest
    >>> text_digest(["a", "bc"]) == text_digest(["ab", "c"])
    False
    """
    return hashlib.sha256(json.dumps([str(text) for text in texts]).encode()).hexdigest()


def listed(values: npt.NDArray[np.float64]) -> list[float | None]:
    """List the values of queries as JSON takes them.

    Parameters
    ----------
    values : ndarray
        float64 (B,); NaN where a query does not count.

    Returns
    -------
    list
        None for NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation.details import listed
    >>> listed(np.array([0.5, np.nan]))
    [0.5, None]
    """
    return [None if value != value else value for value in values.tolist()]


def with_intervals(per_query: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the intervals of all figures, and of their paired differences.

    Parameters
    ----------
    per_query : mapping
        ``float``, ``quantised`` and ``encrypted`` to measures, each a list with a value for each query.

    Returns
    -------
    dict
        ``per_query`` itself; ``intervals``, by kind and measure [low, high]; ``differences``, by ``"quantised -
        float"`` and the like and measure [mean difference, low, high].

    Examples
    --------
    >>> from mipp.evaluation.details import with_intervals
    >>> same = {"recall1": [1.0, 1.0]}
    >>> with_intervals({"float": same, "quantised": same, "encrypted": same})["intervals"]["encrypted"]
    {'recall1': [1.0, 1.0]}
    """
    columns = {(kind, name): values for kind in KINDS for name, values in per_query[kind].items()}
    for a, b in PAIRS:
        columns |= {(f"{b} - {a}", name): values for name, values in less(per_query[a], per_query[b]).items()}
    # all of them on the same draws, which are most of the work
    found = intervals(columns)
    return {
        "per_query": dict(per_query),
        "intervals": {kind: {name: found[kind, name][1:] for name in per_query[kind]} for kind in KINDS},
        "differences": {
            pair: {name: value for (of, name), value in found.items() if of == pair}
            for pair in (f"{b} - {a}" for a, b in PAIRS)
        },
    }


def best_and_worst(
    scores: npt.NDArray[Any], labels: npt.NDArray[Any], own: npt.NDArray[np.int64], precision: npt.NDArray[np.float64]
) -> dict[str, list[dict[str, Any]]]:
    """Choose the queries with the highest and the lowest average precision, with what they found first.

    Parameters
    ----------
    scores : ndarray
        (B, N), larger is nearer.
    labels : ndarray
        (N,) labels of rows.
    own : ndarray
        int64 (B,) the row that each query is.
    precision : ndarray
        float64 (B,) average precision; queries with NaN are not chosen.

    Returns
    -------
    dict
        ``best`` and ``worst``, at most six queries each, none in both: ``row``, ``label``, ``map``, and ``hits``, at
        most eight: ``row``, ``label``, ``right``.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.evaluation.details import best_and_worst
    >>> found = best_and_worst(np.eye(3), np.array(["a", "a", "b"]), np.arange(2), np.array([1.0, 0.5]))
    >>> [(query["row"], query["map"]) for query in found["worst"]]
    [(1, 0.5)]
    """
    counted = np.flatnonzero(~np.isnan(precision))
    order = counted[np.argsort(-precision[counted], kind="stable")]
    few = min(SHOWN, -(-len(order) // 2))
    worst = order[::-1][: min(SHOWN, len(order) - few)]
    return {"best": _queries(order[:few], scores, labels, own, precision),
            "worst": _queries(worst, scores, labels, own, precision)}  # fmt: skip


def _queries(
    chosen: npt.NDArray[np.int64], scores: npt.NDArray[Any], labels: npt.NDArray[Any], own: npt.NDArray[np.int64],
    precision: npt.NDArray[np.float64],
) -> list[dict[str, Any]]:  # fmt: skip
    found = metrics.ranking_from_scores(scores[chosen], own[chosen])[:, :HITS]
    return [
        {
            "row": int(own[query]), "label": str(labels[own[query]]), "map": float(precision[query]),
            "hits": [
                {"row": int(row), "label": str(labels[row]), "right": bool(labels[row] == labels[own[query]])}
                for row in rows
            ],
        }
        for query, rows in zip(chosen.tolist(), found, strict=True)
    ]  # fmt: skip


def by_class(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compute the accuracy of each class: means over the queries that have its label.

    Parameters
    ----------
    result : mapping
        Of :func:`mipp.evaluation.evaluate.evaluate_labelled`.

    Returns
    -------
    list of dict
        ``label``, ``queries``, and of ``float``, ``quantised`` and ``encrypted`` each measure's mean, None where no
        query counts; ``interval`` of the encrypted ``map``. Highest encrypted ``map`` first. Empty without labels.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.evaluation.details import by_class
    >>> from mipp.evaluation.evaluate import evaluate_labelled
    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> result = evaluate_labelled(vectors, np.array(["a", "a", "b", "b"]), Encoding("cosine", 2))
    >>> [(found["label"], found["encrypted"]["map"]) for found in by_class(result)]
    [('a', 1.0), ('b', 1.0)]
    """
    per_query = result.get("per_query", {})
    members: dict[str, list[int]] = {}
    for i, label in enumerate(per_query.get("labels", ())):
        members.setdefault(label, []).append(i)
    found: list[dict[str, Any]] = []
    for label, rows in members.items():
        of = {k: {name: [v[i] for i in rows] for name, v in per_query[k].items()} for k in KINDS}
        means = {kind: {name: _mean(values) for name, values in measures.items()} for kind, measures in of.items()}
        spread = intervals({"map": of["encrypted"]["map"]})["map"][1:]
        found.append({"label": label, "queries": len(rows), **means, "interval": spread})
    return sorted(found, key=lambda c: (-(c["encrypted"]["map"] or 0.0), c["label"]))


def _mean(values: Sequence[float | None]) -> float | None:
    counted = [value for value in values if value is not None]
    return metrics.mean(np.array(counted)) if counted else None
