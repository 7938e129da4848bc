"""Our side of the comparison with SPU, and a connection to its process: both share the scores, compute and open."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from mipp._native import _core
from mipp.mpc.comparison import combine_matches, threshold
from mipp.mpc.session import Public, run_local
from mipp.mpc.topk import combine_top_k, top_k

THETA, K, BOUND = 15_000, 10, 20_000
KEYS = {1: {2: b"c" * 32, 3: b"b" * 32}, 2: {1: b"c" * 32, 3: b"a" * 32}, 3: {1: b"b" * 32, 2: b"a" * 32}}


def scores_of(rows: int) -> np.ndarray:
    """int32 scores within ±BOUND."""
    return np.random.default_rng(0).integers(-BOUND, BOUND + 1, rows).astype(np.int32)


def shared(scores):
    """Additive shares of the scores, as a user would make them."""
    words = np.empty(len(scores), np.uint64)
    _core.prf_words(os.urandom(32), words)
    one, two = words.view(np.uint32).reshape(2, -1)
    return {1: one, 2: two, 3: scores.view(np.uint32) - one - two}


def public_of(scores):
    return Public(b"h" * 32, b"s" * 32, len(scores), 32, -BOUND, BOUND)


def our_threshold(scores):
    """Bits of ``score >= THETA``."""
    parts, public = shared(scores), public_of(scores)
    out = run_local(lambda party: threshold(party, parts[party.index], public, THETA), KEYS)
    return combine_matches(list(out.values()))[0]


def our_top_k(scores):
    """Rows of the K largest, ties by smaller row."""
    parts, public = shared(scores), public_of(scores)
    out = run_local(lambda party: top_k(party, parts[party.index], K, public), KEYS)
    return combine_top_k(list(out.values()), public)[0][0]


#: by SPU's names: our function, and what it must give
WORKS = {
    "threshold": (our_threshold, lambda s: s >= THETA),
    "top_k": (our_top_k, lambda s: np.argsort(-s, kind="stable")[:K]),
}


class Peer:
    """SPU's process, asked for one work at a time; it ends with the context."""

    def __init__(self, python: str, scores: np.ndarray, folder: Path) -> None:
        path = folder / "scores.npy"
        np.save(path, scores)
        script = Path(__file__).with_name("spu_peer.py")
        self._log = folder / "spu.log"
        self._process = subprocess.Popen(
            [python, script, path, str(K), str(THETA)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log.open("w"), text=True, cwd=folder,
        )  # fmt: skip
        self.version = self._line()["spu"]

    def _line(self) -> dict:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # it logs there, too
                return json.loads(line)
        said = self._log.read_text().strip().splitlines()[-1:]
        raise RuntimeError(f"SPU's process ended with code {self._process.wait()}: {' '.join(said)}")

    def seconds(self, work: str) -> float:
        """Seconds of one call, e.g. of ``"top_k_fm32"``; its first call compiles before."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{work}\n")
        self._process.stdin.flush()
        reply = self._line()
        if not reply["exact"]:
            raise RuntimeError(f"SPU's result of {work} is wrong")
        return reply["seconds"]

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
