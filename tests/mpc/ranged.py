"""Rows and queries of many encodings, shared as owners and users share them, for the tests of ranges."""

import numpy as np

from mipp._native import _core
from mipp.encoding import Encoding
from mipp.encoding.bounds import query_rule, row_rule
from mipp.mpc import query_proof
from mipp.mpc.certificate import Batch, certify_rows
from mipp.mpc.query_proof import check_relations, prove, relations
from mipp.params import Params
from mipp.sharing import OwnerKeys, batch_schedules, query_shares, share_rows
from tests.mpc.parties import HEADER, SNAPSHOT, run

ENCODINGS = {
    "cosine": Encoding("cosine", 16),
    "cosine, 16 bits": Encoding("cosine", 30, bits=5, query_bits=6, ring_bits=16),
    "cosine, 64 bits": Encoding("cosine", 16, ring_bits=64),
    "hellinger": Encoding("hellinger", 13),
    "ip": Encoding("ip", 40, row_norm2=98308, query_norm2=98308),
    "ip, long rows": Encoding("ip", 3, bits=13, query_bits=2, ring_bits=16, row_norm2=4000**2, query_norm2=1),
    "l2": Encoding("l2", 15),
    "l2, weights": Encoding("l2", 8, weights=(1, 2, 3, 4, 5, 6, 7, 800)),
    "l2, 64 bits": Encoding("l2", 20, ring_bits=64, bits=10, query_bits=12),
    "l2, steps": Encoding("l2", 10, bits=5, query_bits=8, scale=0.25, query_scale=0.5),
    "l2, steps and weights": Encoding(
        "l2", 4, bits=5, query_bits=8, scale=(0.25, 0.5, 1.0, 0.1), query_scale=0.5, weights=(1, 2, 3, 40)
    ),
    "l2, fine steps": Encoding("l2", 6, bits=6, query_bits=8, scale=8.0, query_scale=0.25),
    "l2, steps, 64 bits": Encoding("l2", 10, bits=5, query_bits=8, ring_bits=64, scale=0.25, query_scale=0.5),
    "l1": Encoding("l1", 6, levels=9),
    "hamming": Encoding("hamming", 30, ring_bits=16),
}
#: encodings with rows and queries shared in the form of old deployments, too
FINITE = {f"{name}, finite": ENCODINGS[name] for name in ("cosine", "cosine, 16 bits", "cosine, 64 bits", "l2, steps")}


def ranged(name):
    """The world of a name in :data:`ENCODINGS` or :data:`FINITE`."""
    return Ranged(FINITE[name], "finite") if name in FINITE else Ranged(ENCODINGS[name])


class Ranged:
    """One encoding's rules, and parties that test rows and queries by them."""

    def __init__(self, encoding, sharing="infinity"):
        self.encoding = encoding
        self.params = Params(3, 1, encoding.ring_bits, sharing=sharing)
        self.width = self.params.padded(encoding.encoded_dim)
        self.rows, self.queries = row_rule(encoding, self.width), query_rule(encoding, self.width)
        self.half = 1 << (encoding.ring_bits - 1)

    def features(self, count, rng):
        """Random features within the bounds, some at them."""
        e = self.encoding
        if e.metric == "l1":
            return rng.integers(0, e.levels, (count, e.dim))
        if e.metric == "hamming":
            return rng.integers(0, 2, (count, e.dim))
        x = rng.normal(size=(count, e.dim))
        if e.metric == "hellinger":
            return abs(x)
        if e.metric == "ip":
            return x / np.linalg.norm(x, axis=1, keepdims=True) * np.sqrt(min(e.row_norm2, e.query_norm2)) * 0.97
        return np.clip(x, -3, 3) * (1 if e.stepped else 30)

    def share(self, rows):
        """Words (N, D) of each server for encoded rows (N, encoded_dim); any integers of the ring."""
        keys = OwnerKeys(bytes(range(32)), b"d" * 16, b"r" * 16, self.params)
        shared = share_rows(rows, keys)
        schedules = batch_schedules(
            keys.server_key(3), [shared.nonce], [rows.shape[1]], [len(rows)], self.params.ring_bits
        )
        stream = np.empty((len(rows), self.width), self.params.dtype)
        _core.keystream_words(schedules, 0, 0, stream.reshape(-1))
        return {1: shared.shares[1], 2: shared.shares[2], 3: stream}

    def task(self, words, rule=None, progress=None):
        """One party's part of a certificate."""
        batch = Batch(HEADER, SNAPSHOT, len(words[1]), rule or self.rows, self.params)
        return lambda party: certify_rows(party, lambda a, b: words[party.index][a:b], batch, progress)

    def certify(self, words, rule=None, **options):
        """Rows that the three parties refuse."""
        found = run(self.task(words, rule), **options)
        assert all(np.array_equal(f, found[0]) for f in found)
        return found[0].tolist()

    def padded(self, rows):
        """Encoded rows or queries with their padding, int64."""
        out = np.zeros((len(rows), self.width), np.int64)
        out[:, : rows.shape[1]] = rows
        return out

    def relations(self, server, proof, columns, thetas=None):
        """One server's shares of what must be zero."""
        mine = {number: proof[number] for number in (1, 2, 3) if number != server}
        theta = np.empty(0, self.params.dtype) if thetas is None else thetas[server]
        return relations(self.queries, self.params, server, mine, columns[server], theta, 1)

    def check_task(self, proof, columns, thetas=None):
        def task(party):
            zero = self.relations(party.index, proof, columns, thetas)
            with party.attempt():
                party.hello(HEADER, b"p" * 32, SNAPSHOT)
                check_relations(party, zero)
                party.confirm()

        return task

    def prove(self, queries, thetas=None):
        return prove(self.queries, queries, thetas)

    def prove_anything(self, queries, thetas=None):
        """What a user's own program proves of queries that break the rule: bits of the nearest that it can say."""
        real = query_proof._sizes_wrong
        query_proof._sizes_wrong = lambda *_: False
        try:
            return prove(self.queries, queries, thetas)
        finally:
            query_proof._sizes_wrong = real

    def columns(self, queries):
        return query_shares(queries, self.params)

    def theta_shares(self, thetas, rng):
        dtype = self.params.dtype
        words = np.array([t % (2 * self.half) for t in thetas], dtype)
        a, b = (rng.integers(0, 1 << 15, len(thetas)).astype(dtype) for _ in range(2))
        return {1: a, 2: b, 3: words - a - b}
