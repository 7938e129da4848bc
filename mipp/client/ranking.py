"""From queries to the nearest rows, for one state of the index: ranked by the user, or by the servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..mpc.comparison import combine_matches
from ..mpc.probed import PROBE, ProbedRows
from ..mpc.topk import combine_top_k
from ..sharing import RunningTopK, reconstruct, top_k
from .index import Index
from .query import Probe, Querier, Verification

__all__ = ["DROPPED", "Ranked", "all_scores", "nearest", "reaching", "within"]

#: score of empty places, where no row in range is left; below every encoding's range
DROPPED = np.iinfo(np.int64).min


class Ranked(NamedTuple):
    """The k nearest rows of B queries: rows (B, k), scores (B, k) if the grants give them, seconds spent."""

    rows: np.ndarray
    scores: np.ndarray | None
    seconds: dict[str, float]


def nearest(
    querier: Querier, index: Index, encoded: np.ndarray, k: int, ranking: str, threads: int | None, *,
    verification: Verification | None = None, chosen: np.ndarray | None = None,
) -> Ranked:  # fmt: skip
    """Find the k nearest rows to each query.

    Parameters
    ----------
    querier : Querier
        Hides, sends and opens.
    index : Index
        The state to search; the servers answer for no other.
    encoded : ndarray of int, (B, encoded_dim)
        Encoded queries. Secret.
    k : int
        1 to ``index.total``.
    ranking : str
        ``user`` or ``server``.
    threads : int or None
        Native threads; None for all cores.
    verification : Verification, optional
        Have the servers' answers checked, where the user ranks and the scheme can.
    chosen : ndarray of int, (B, groups), optional
        With ranking ``server``: the cluster of each group that each query looks at. Secret.

    Returns
    -------
    Ranked
        Rows, scores and times.
    """
    if ranking == "server":
        return _by_servers(querier, index, encoded, k, chosen)
    if querier.scheme.by_rows:
        return _by_user_in_blocks(querier, index, encoded, k, threads, verification)
    return _by_user(querier, index, encoded, k, threads)


def _by_user_in_blocks(
    querier: Querier, index: Index, encoded: np.ndarray, k: int, threads: int | None,
    verification: Verification | None,
) -> Ranked:  # fmt: skip
    """Keep the best rows while score shares of some rows at a time arrive: memory does not grow with the rows."""
    low, high = querier.config.encoding.score_range
    best: list[RunningTopK] = []
    began, ranking = time.perf_counter(), 0.0
    for some in querier.scheme.header_blocks(len(encoded)):
        best.append(RunningTopK(len(encoded[some]), k, low=low, high=high))
        # the first header asks whether the state is the newest; the others are about the same state
        state = index.asking(b"") if some.start else index
        for rows, words, width in querier.blocks(state, encoded[some], k, verification=verification, threads=threads):
            start = time.perf_counter()
            best[-1].add(words, threads=threads, width=width, rows=len(rows))
            del words  # before the next request, so that its memory is reused
            ranking += time.perf_counter() - start
    seconds = {"score": time.perf_counter() - began - ranking, "rank": ranking}
    return Ranked(np.concatenate([b.rows for b in best]), np.concatenate([b.scores for b in best]), seconds)


def _by_user(querier: Querier, index: Index, encoded: np.ndarray, k: int, threads: int | None) -> Ranked:
    """Rank the scores of all rows, for as many queries at a time as fit."""
    low, high = querier.config.encoding.score_range
    parts, scoring, ranking = [], 0.0, 0.0
    for asked, some in _portions(querier, index, encoded, "user", k):
        began = time.perf_counter()
        words = querier.score_words(asked, some, k)
        opened = time.perf_counter()
        parts.append(top_k(words, k, low=low, high=high, threads=threads))
        scoring, ranking = scoring + opened - began, ranking + time.perf_counter() - opened
    seconds = {"score": scoring, "rank": ranking}
    return Ranked(np.concatenate([rows for rows, _ in parts]), np.concatenate([s for _, s in parts]), seconds)


def _by_servers(
    querier: Querier, index: Index, encoded: np.ndarray, k: int, chosen: np.ndarray | None = None
) -> Ranked:
    """The servers find the k nearest, of all rows or of chosen clusters; scores only if all grants give them."""
    rows, scores, scoring, ranking = [], [], 0.0, 0.0
    probed = None
    if chosen is not None and querier.config.clusters is not None:
        probed = index.probed(querier.config.clusters)
        probed.require(k)
    done = 0
    for asked, some in _portions(querier, index, encoded, "server", k, probed):
        began = time.perf_counter()
        probe = None if probed is None or chosen is None else Probe(probed, chosen[done : done + len(some)])
        done += len(some)
        parts, public = querier.ranked(asked, some, k, "server" if probe is None else PROBE, probe=probe)
        came = time.perf_counter()
        found, given = combine_top_k(parts, public, scores=index.gives_scores)
        rows.append(found if probe is None else index.live_numbers(probe.rows.originals(found, probe.chosen)))
        scores += [] if given is None else [given]
        scoring, ranking = scoring + came - began, ranking + time.perf_counter() - came
    seconds = {"score": scoring, "rank": ranking}
    return Ranked(np.concatenate(rows), np.concatenate(scores) if scores else None, seconds)


def within(querier: Querier, index: Index, encoded: np.ndarray, theta: int) -> np.ndarray:
    """Rows whose score with one encoded query reaches ``theta``, compared by the servers; in order."""
    parts, _ = querier.ranked(index, encoded, 0, "threshold", theta)
    return np.flatnonzero(combine_matches(parts)[0])


def all_scores(
    querier: Querier,
    index: Index,
    encoded: np.ndarray,
    threads: int | None,
    *,
    verification: Verification | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """All scores (B, N) int64, and the rows that have one out of the encoding's range; such scores are replaced."""
    low, high = querier.config.encoding.score_range
    out = np.empty((len(encoded), index.total), np.int64)
    dropped = []
    if querier.scheme.by_rows:
        for some, rows, found, gone in _score_blocks(querier, index, encoded, threads, verification):
            dropped.append(gone)
            out[some, rows.start : rows.stop] = found
            del found
    else:
        parts = [
            reconstruct(querier.score_words(asked, some, 1), threads=threads)
            for asked, some in _portions(querier, index, encoded, "user", 1)
        ]
        out[:] = np.concatenate(parts)
        dropped.append(_drop(out, low, high))
    return out, np.unique(np.concatenate(dropped))


def reaching(
    querier: Querier, index: Index, encoded: np.ndarray, theta: int, threads: int | None, *,
    verification: Verification | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Rows whose score with one encoded query reaches ``theta``, in order, their scores, and rows out of range.

    The user compares. Where servers answer for some rows at a time, memory grows with the rows found alone.
    """
    if not querier.scheme.by_rows:
        scores, gone = all_scores(querier, index, encoded, threads)
        rows = np.flatnonzero(scores[0] >= theta)
        return rows, scores[0, rows], gone
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _, block, found, gone in _score_blocks(querier, index, encoded, threads, verification):
        there = np.flatnonzero(found[0] >= theta)
        parts.append((block.start + there, found[0, there], gone))
        del found
    rows, scores, gone = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, scores, gone


def _score_blocks(
    querier: Querier, index: Index, encoded: np.ndarray, threads: int | None, verification: Verification | None
) -> Iterator[tuple[slice, range, np.ndarray, np.ndarray]]:
    """Scores (B, rows) of some queries and some rows at a time: which, and the rows out of range.

    Use nothing before the iterator has ended, since answers are verified then.
    """
    low, high = querier.config.encoding.score_range
    for some in querier.scheme.header_blocks(len(encoded)):
        state = index.asking(b"") if some.start else index
        for rows, words, width in querier.blocks(state, encoded[some], 1, verification=verification, threads=threads):
            found = reconstruct(words, threads=threads, width=width, rows=len(rows))
            del words
            yield some, rows, found, rows.start + _drop(found, low, high)
            del found  # before the next request, so that its memory is reused


def _drop(scores: np.ndarray, low: int, high: int) -> np.ndarray:
    """Replace scores out of the encoding's range in (B, N) ``scores``; the rows that have one."""
    if low <= scores.min() and scores.max() <= high:
        return np.empty(0, np.int64)
    wrong = (scores < low) | (scores > high)
    scores[wrong] = low - 1
    return np.flatnonzero(wrong.any(axis=0))


def _portions(
    querier: Querier, index: Index, encoded: np.ndarray, ranking: str, k: int, probed: ProbedRows | None = None
) -> Iterator[tuple[Index, np.ndarray]]:
    """As many queries at a time as go under one header; the first one asks whether the state is the newest."""
    if probed is None:
        step = querier.scheme.portion(index.total, ranking, k)
    else:
        step = querier.scheme.portion(probed.scores, ranking, k, choice=probed.clusters.count)
    for start in range(0, len(encoded), step):
        yield index.asking(b"") if start else index, encoded[start : start + step]
