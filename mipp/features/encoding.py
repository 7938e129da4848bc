"""The encoding that realises a descriptor's distance over integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..encoding import Encoding, tune
from ..encoding.bounds import ranking_problem
from ..errors import ScoreRangeError
from .base import Code
from .registry import get

__all__ = ["descriptor_encoding"]


def descriptor_encoding(
    spec: str,
    *,
    ring_bits: int = 32,
    bits: int = 8,
    query_bits: int = 8,
    sample: np.ndarray | None = None,
    tuned: bool = False,
    server_ranking: bool = False,
) -> Encoding:
    """The encoding that realises a descriptor's distance.

    Scales come from the descriptor's declared value range, or from ``sample``, embedded features (N, dim) of public
    images. Codes of integers are held exactly, with more than ``bits`` where they need them. In a ring of 16 bits,
    where eight-bit features do not fit, ``l2`` scores come in steps, as fine as the declared range, or better the
    sample, lets them be. ``server_ranking`` leaves the room that servers need to rank, or raises ScoreRangeError.
    """
    found = _descriptor_encoding(
        spec, ring_bits=ring_bits, bits=bits, query_bits=query_bits, sample=sample, tuned=tuned, server=server_ranking
    )
    if server_ranking and (problem := ranking_problem(found)):
        raise ScoreRangeError(f"{problem}, so servers cannot rank: use a larger ring or fewer bits, or let users rank")
    return found


def _descriptor_encoding(
    spec: str, *, ring_bits: int, bits: int, query_bits: int, sample: np.ndarray | None, tuned: bool, server: bool
) -> Encoding:
    d = get(spec)
    code = d.code
    low, high = np.array(code.low), np.array(code.high)
    if code.metric == "l1":
        return Encoding("l1", code.dim, levels=code.levels, ring_bits=ring_bits)
    if code.metric == "hamming":
        return Encoding("hamming", code.dim, ring_bits=ring_bits)
    options: dict[str, Any] = {"ring_bits": ring_bits, "bits": bits, "query_bits": query_bits}
    if sample is not None:
        if ring_bits == 16 or tuned:
            return tune(code.metric, sample, ring_bits=ring_bits, server_ranking=server).encoding
        if not code.whole:
            center = code.metric == "l2"
            return Encoding.fit(code.metric, sample, center=center, server_ranking=server, **options)
    if code.metric in ("cosine", "hellinger"):
        return Encoding(code.metric, code.dim, **options)
    half = float(np.max((high - low) / 2 if code.metric == "l2" else np.maximum(abs(low), abs(high))))
    if code.metric != "l2":
        return Encoding(code.metric, code.dim, scale=(half / ((1 << (bits - 1)) - 1),), **options)
    options["offset"] = tuple((np.floor((low + high) / 2) if code.whole else (low + high) / 2).tolist())
    if code.whole:
        options["bits"] = max(bits, math.ceil(half).bit_length() + 1)
        options["query_bits"] = max(query_bits, options["bits"])
        options |= {"scale": (1.0,), "weights": code.weights}
    else:
        options["scale"] = (half / ((1 << (bits - 1)) - 1),)
    try:
        return Encoding("l2", code.dim, **options)
    except ScoreRangeError:
        if ring_bits != 16:
            raise
    return _stepped(code, server)


def _stepped(code: Code, server: bool) -> Encoding:
    """An l2 encoding in 16 bits for vectors within the code's radius, which servers can rank if ``server``."""
    w = np.array(code.weights) if code.weights else np.ones(code.dim)
    # a little more, for the last digit of float arithmetic
    radius = code.radius * (1 + 1e-9)
    t = radius**2 / (1 << (14 - server))
    while True:
        # a row step of about root(t) balances the roundings of rows and of scores
        scale = 0.7 * math.sqrt(t)
        stored = radius + scale / 2 * math.sqrt(float(w.sum()))
        asked = radius + t / (4 * scale) * math.sqrt(float((1 / w).sum()))
        try:
            found = Encoding(
                "l2", code.dim, bits=12, query_bits=20, ring_bits=16, scale=(scale,), query_scale=t, offset=code.centre,
                row_norm2=math.ceil(stored**2 / t), query_norm2=math.ceil(asked**2 / t), weights=code.weights,
            )  # fmt: skip
            # steps of so few bits are the last that are tried
            if not server or found.allows_server_ranking or t > radius**2:
                return found
        except ScoreRangeError:
            pass
        t *= 1.05
