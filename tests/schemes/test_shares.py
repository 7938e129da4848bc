"""The scheme ``shares`` at a server: score shares are those of the known answers, zero share and all."""

from types import SimpleNamespace

import numpy as np
import pytest

from mipp import ring
from mipp.schemes.shares import SharesScheme
from mipp.sharing import Run, batch_schedules, key_centre_words
from tests.test_sharing import load_vectors

VECTORS = [v for v in load_vectors() if v["params"].n <= 4 and v["params"].t == 1]


def held(v, server):
    """What a server multiplies."""
    p, rows = v["params"], len(v["features"])
    if server in p.clouds:
        return np.array(v["shares"][str(p.point_number(server))], p.dtype)
    key, nonce = bytes.fromhex(v["key_centre_keys"][server]), bytes.fromhex(v["batch_nonce"])
    schedules = batch_schedules(key, [nonce], [v["dim"]], [rows], p.ring_bits)
    return key_centre_words(schedules, Run(np.array([0]), np.array([0]), np.array([rows])), p, v["dim"])


@pytest.mark.parametrize("number", range(len(VECTORS)))
def test_known_answer(number):
    """Servers name each other by number, and zero shares name them by point."""
    v, p = VECTORS[number], VECTORS[number]["params"]
    point, rows = p.point_number, len(v["features"])
    pairs = {tuple(map(int, name.split(","))): bytes.fromhex(key) for name, key in v["pair_keys"].items()}
    nonces = np.frombuffer(bytes.fromhex(v["batch_nonce"]), np.uint8)[None]
    plan = SimpleNamespace(
        spans=lambda rows: [(slice(0, len(rows)), rows.start, rows.stop, None)],
        masks=lambda start, stop: (nonces, np.array([stop - start]), start),
    )
    header = SimpleNamespace(servers=tuple(v["servers"]), keys=b"a set")
    for server in v["servers"]:
        others = [i for i in range(1, p.n + 1) if i != server]
        keys = {i: pairs[min(point(i), point(server)), max(point(i), point(server))] for i in others}
        side = SharesScheme().for_server(
            SimpleNamespace(params=p), server, {b"a set": keys}.__getitem__, 1, lambda user: b"", bytes(32)
        )
        words = held(v, server)
        stored = SimpleNamespace(
            scores=lambda q, runs, zero, out, words=words: [
                (ring.matmul(words[start:stop], q, out=out), zero.add(out, start, stop, 1)) for start, stop in runs
            ]
        )
        query_share = np.array([v["columns"][str(point(server))]], p.dtype)
        got = side.answer(header, bytes.fromhex(v["header"]), plan, stored, query_share, range(rows))
        assert got[0].tolist() == v["answers"][str(point(server))]
