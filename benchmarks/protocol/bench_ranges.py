"""Costs of enforced ranges: certificates of rows, and the check of a query in a whole search.

``pytest benchmarks/protocol/bench_ranges.py --benchmark-enable``. ``MIPP_BENCH_ROWS`` sets another largest number of
rows. A search with the check is paired with one without, in turn, in one process.
"""

import contextlib
import os
from unittest import mock

import numpy as np
import pytest

import mipp
from benchmarks.common import paired, seconds
from mipp._native import _core
from mipp.client.query import Querier
from mipp.encoding import Encoding
from mipp.encoding.bounds import row_rule
from mipp.mpc.certificate import Batch, certify_rows
from mipp.mpc.cost import certificate_cost
from mipp.mpc.session import run_local
from mipp.params import Params
from mipp.server.queries import Queries
from mipp.sharing import OwnerKeys, batch_schedules, share_rows

ROWS = int(os.environ.get("MIPP_BENCH_ROWS", "1000000"))
PAIRS = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
KEYS = {i: {j: PAIRS[min(i, j), max(i, j)] for j in (1, 2, 3) if j != i} for i in (1, 2, 3)}
CASES = {
    "cosine 128": (Encoding("cosine", 128), ROWS),
    "cosine 128, 16 bits": (Encoding("cosine", 128, bits=5, query_bits=6, ring_bits=16), ROWS // 10),
    "l2 481 (the default descriptor's words)": (Encoding("l2", 481), ROWS // 100),
}


def words_of(encoding, rows):
    """Each server's words of random rows; those of the key centre are keystream."""
    params = Params(3, 1, encoding.ring_bits)
    features = np.random.default_rng(0).normal(size=(rows, encoding.dim)).astype(np.float32) * 30
    keys = OwnerKeys(bytes(32), b"d" * 16, b"r" * 16, params)
    shared = share_rows(encoding.encode_rows(features), keys)
    schedules = batch_schedules(keys.server_key(3), [shared.nonce], [encoding.encoded_dim], [rows], params.ring_bits)
    blocks = params.padded(encoding.encoded_dim) * params.ring_bits // 128

    def keystream(start, stop):
        out = np.empty((stop - start, params.padded(encoding.encoded_dim)), params.dtype)
        _core.keystream_words(schedules, 0, start * blocks, out.reshape(-1))
        return out

    stored = shared.shares
    return params, {
        1: lambda a, b: stored[1][a:b], 2: lambda a, b: stored[2][a:b], 3: keystream,
    }  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def bench_certificate(benchmark, case):
    encoding, rows = CASES[case]
    params, words = words_of(encoding, rows)
    rule = row_rule(encoding, params.padded(encoding.encoded_dim))
    batch = Batch(b"h" * 32, b"s" * 32, rows, rule, params)

    def certify():
        found = run_local(lambda p: certify_rows(p, words[p.index], batch), KEYS, threads=2)
        assert not any(len(bad) for bad in found.values())

    benchmark.pedantic(certify, rounds=3, warmup_rounds=1)
    benchmark.group = "certificate"
    cost = certificate_cost(rule, rows)
    benchmark.extra_info["rounds"] = cost.rounds
    benchmark.extra_info["bytes a row, largest server"] = round(max(cost.payload.values()) / rows, 1)


@contextlib.contextmanager
def unchecked():
    """Searches as before: no proof, nothing checked."""
    with (
        mock.patch.object(Querier, "_range_proof", lambda *_: ([], {})),
        mock.patch.object(Queries, "_check_provable", lambda *_: None),
        mock.patch.object(Queries, "_relations", lambda *_: None),
    ):  # fmt: skip
        yield


@pytest.mark.parametrize("kind", ["search", "range search"])
@pytest.mark.parametrize("rows", [ROWS // 100, ROWS])
def bench_checked_query(benchmark, tmp_path, rows, kind):
    rng = np.random.default_rng(1)
    rounds = 100 if rows < 100_000 else 10
    with mipp.Deployment.create(tmp_path / "d", Encoding("cosine", 128), threads=2) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(rng.normal(size=(rows, 128)).astype(np.float32))
        owner.grant(user.id, rankings=("server", "threshold"))
        queries = iter(rng.normal(size=(10 * rounds + 100, 128)))

        def ask():
            query = next(queries)
            return user.search(query, 10) if kind == "search" else user.range_search(query, 0.4)

        def unproven():
            with unchecked():
                return seconds(ask)

        paired(benchmark, ask, unproven, rounds=rounds)
    benchmark.group = f"checked {kind}"
