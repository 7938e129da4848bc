"""The sharing: known answers in every tier, round trips, and distributions of what each party sees."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp import ring
from mipp.crypto import schedule
from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.params import Params
from mipp.sharing import (
    OwnerKeys,
    Run,
    RunningTopK,
    add_zero_share,
    batch_schedules,
    constants,
    key_centre_product,
    open_share,
    query_shares,
    reconstruct,
    share_rows,
    top_k,
)
from mipp.sharing.galois import solve_mod_2k
from mipp.sharing.queries import _query_shares
from mipp.sharing.rows import _share_rows
from mipp.sharing.words import as_words

from .kernels.conftest import tier  # noqa: F401  (a fixture)

FOLDER = Path(__file__).parent / "vectors"
FINITE = Path(os.environ.get("MIPP_VECTORS", FOLDER / "galois_shamir.json"))
INFINITY = Path(os.environ.get("MIPP_VECTORS_INFINITY", FOLDER / "galois_infinity.json"))
FORMS = [(n, t, "finite") for n, t in ((3, 1), (4, 1), (5, 1), (5, 2), (6, 2), (7, 3))]
FORMS += [(3, 1, "infinity"), (4, 1, "infinity")]
ALL = [Params(n, t, k, sharing=form) for k in (16, 32, 64) for n, t, form in FORMS]


def load_vectors():
    """All vectors, with ``params``, ``servers`` and ``key_centre_keys`` by number of the server in both forms."""
    vectors = []
    for v in json.loads(FINITE.read_text()):
        keys = {int(s): key for s, key in v["server_keys"].items()}
        vectors.append(v | {"params": Params(v["n"], v["t"], v["k"], sharing="finite"), "key_centre_keys": keys})
    for v in json.loads(INFINITY.read_text()):
        p = Params(1 + len(v["clouds"]), 1, v["k"], sharing="infinity")
        servers = [i for i in range(1, p.n + 1) if p.point_number(i) in (0, *v["pair"])]
        vectors.append(v | {"params": p, "servers": servers, "key_centre_keys": {3: v["key_centre_key"]}})
    return vectors


def solve_randomness(vector, params, servers):
    """Random words (t, 1, D) from which the query shares of the first t servers were made."""
    p, m, t = params, params.m, params.t
    d = p.padded(vector["dim"])
    q = [v % (1 << p.ring_bits) for v in vector["query"]] + [0] * (d - vector["dim"])
    matrices = constants.query_matrices(p, servers).astype(object)
    random = np.zeros((t, 1, d), p.dtype)
    for g in range(d // m):
        group = slice(g * m, g * m + m)
        augmented = []
        for i in range(t):
            column = np.array(vector["columns"][str(p.point_number(servers[i]))][group], object)
            right = column - matrices[i, 0] @ np.array(q[group], object)
            for b in range(m):
                augmented.append([int(matrices[i, 1 + j, b, c]) for j in range(t) for c in range(m)] + [int(right[b])])
        solved = solve_mod_2k(augmented, p.ring_bits)
        for j in range(t):
            random[j, 0, group] = [solved[j * m + c][-1] for c in range(m)]
    return random


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("number", range(len(load_vectors())))
def test_known_answer(number):
    """Server keys, shares, query shares, zero and score shares and scores, bit for bit, through the native kernels."""
    v = load_vectors()[number]
    p, point = v["params"], v["params"].point_number
    keys = OwnerKeys(*(bytes.fromhex(v[name]) for name in ("owner_root", "deployment", "registration")), p)
    assert {s: keys.server_key(s).hex() for s in p.key_centres} == v["key_centre_keys"]

    nonce, header = bytes.fromhex(v["batch_nonce"]), bytes.fromhex(v["header"])
    rows = np.array(v["features"], np.int64)
    shared = _share_rows(as_words(rows, p, "rows"), keys, nonce, None)
    assert {str(point(i)): s.tolist() for i, s in shared.shares.items()} == v["shares"]

    servers = tuple(v["servers"])
    query = as_words(np.array([v["query"]], np.int64), p, "query")
    asked = _query_shares(query, solve_randomness(v, p, servers), p, servers)
    assert {str(point(i)): c[0].tolist() for i, c in asked.items()} == v["columns"]

    pairs = {tuple(map(int, name.split(","))): bytes.fromhex(key) for name, key in v["pair_keys"].items()}
    score_shares = {}
    for i in servers:
        out = np.empty((1, len(rows)), p.dtype)
        if i in shared.shares:
            ring.matmul(shared.shares[i], asked[i], out=out)
        else:
            schedules = batch_schedules(keys.server_key(i), [nonce], [v["dim"]], [len(rows)], p.ring_bits)
            run = Run(np.array([0]), np.array([0]), np.array([len(rows)]))
            key_centre_product(schedules, run, asked[i], out)
        me, points = point(i), [point(j) for j in servers]
        mine = {j: pairs[min(me, j), max(me, j)] for j in points if j != me}
        add_zero_share(out, me, points, mine, header, np.frombuffer(nonce, np.uint8)[None], np.array([len(rows)]))
        score_shares[str(me)] = out[0].tolist()
    assert score_shares == v["answers"]

    stacked = [np.array([a], p.dtype) for a in score_shares.values()]
    assert reconstruct(stacked)[0].tolist() == v["scores"]
    best = sorted(range(len(rows)), key=lambda r: (-v["scores"][r], r))
    assert top_k(stacked, len(rows))[0][0].tolist() == best
    for i, share in shared.shares.items():
        assert np.array_equal(open_share(share, i, nonce, v["dim"], keys), rows)


def test_there_are_known_answers_of_both_forms():
    assert {v["params"].sharing for v in load_vectors()} == {"finite", "infinity"}


def fresh_keys(params, seed=0):
    raw = np.random.default_rng(seed).bytes(64)
    return OwnerKeys(raw[:32], raw[32:48], raw[48:64], params)


@given(st.sampled_from(ALL), st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_scores_come_back(params, dim, rows, queries, seed):
    """Any parameters, any admissible set of servers: the score shares add up to the inner products mod 2^k."""
    rng = np.random.default_rng(seed)
    x, q = (rng.integers(0, 1 << 62, (count, dim)).astype(params.dtype) for count in (rows, queries))
    keys = fresh_keys(params, seed)
    shared = share_rows(x, keys)
    clouds = rng.choice(params.clouds, params.t + 1, replace=False).tolist()
    chosen = tuple(sorted([*clouds, *params.key_centres]))
    asked = query_shares(q, params, chosen)
    score_shares = []
    for i in chosen:
        out = np.zeros((queries, rows), params.dtype)
        if i in shared.shares:
            ring.matmul(shared.shares[i], asked[i], out=out)
        else:
            schedules = batch_schedules(keys.server_key(i), [shared.nonce], [dim], [rows], params.ring_bits)
            key_centre_product(schedules, Run(np.array([0]), np.array([0]), np.array([rows])), asked[i], out)
        score_shares.append(out)
    expected = (q @ x.T).view(f"i{params.ring_bits // 8}")
    assert np.array_equal(reconstruct(score_shares), expected)


def test_zero_shares_cancel_over_all_and_only_all():
    servers, header = (1, 2, 3), b"h" * 32
    pairs = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
    nonces, rows = np.arange(48, dtype=np.uint8).reshape(3, 16), np.array([5, 1, 70])
    shares = []
    for i in servers:
        out = np.zeros((2, 76), np.uint32)
        add_zero_share(
            out, i, servers, {j: pairs[min(i, j), max(i, j)] for j in servers if j != i}, header, nonces, rows
        )
        shares.append(out)
    assert not sum(shares).any()
    assert (shares[0] + shares[1]).all(axis=None) and len(np.unique(shares[0])) > 140


def test_zero_shares_of_many_queries_are_made_in_parts(monkeypatch):
    header, nonces, rows = b"h" * 32, np.arange(48, dtype=np.uint8).reshape(3, 16), np.array([5, 1, 7])

    def share():
        out = np.zeros((9, 13), np.uint32)
        add_zero_share(out, 1, (1, 2, 3), {2: b"a" * 32, 3: b"b" * 32}, header, nonces, rows)
        return out

    whole = share()
    monkeypatch.setattr("mipp.sharing.scores._INFOS_AT_ONCE", 6)
    assert np.array_equal(whole, share())


def test_the_zero_share_of_some_rows_is_that_part_of_the_whole(monkeypatch):
    header, nonces, rows = b"h" * 32, np.arange(48, dtype=np.uint8).reshape(3, 16), np.array([50, 1, 70])

    def share(nonces, rows, first=0):
        out = np.zeros((5, int(rows.sum())), np.uint32)
        add_zero_share(out, 1, (1, 2, 3), {2: b"a" * 32, 3: b"b" * 32}, header, nonces, rows, first=first)
        return out

    whole = share(nonces, rows)
    monkeypatch.setattr("mipp.sharing.scores._INFOS_AT_ONCE", 6)
    assert np.array_equal(share(nonces, np.array([7, 1, 70]), 43), whole[:, 43:])
    assert np.array_equal(share(nonces[2:], np.array([9]), 61), whole[:, 112:])
    assert np.array_equal(share(nonces[:2], np.array([49, 1]), 1), whole[:, 1:51])


def test_running_top_k_equals_top_k():
    rng = np.random.default_rng(0)
    score_shares = [rng.integers(0, 2**16, (4, 900)).astype(np.uint16) for _ in range(3)]
    for k in (1, 10, 900):
        running = RunningTopK(4, k)
        for a, b in ((0, 3), (3, 3), (3, 500), (500, 900)):
            running.add([x[:, a:b].copy() for x in score_shares])
            assert running.seen == b
        rows, scores = top_k(score_shares, k)
        assert np.array_equal(running.rows, rows) and np.array_equal(running.scores, scores)
        bounded = RunningTopK(4, k, low=-9000, high=9000)
        bounded.add([x[:, :450].copy() for x in score_shares])
        bounded.add([x[:, 450:].copy() for x in score_shares])
        rows, scores = top_k(score_shares, k, low=-9000, high=9000)
        assert np.array_equal(bounded.rows, rows) and np.array_equal(bounded.scores, scores)
        there = scores > -(2**63)
        assert np.abs(scores[there]).max() <= 9000 and there.all() == (k < 900)
    for bad in ((-1, 3), (3, 0)):
        with pytest.raises(ParameterError):
            RunningTopK(*bad)
    with pytest.raises(ShapeError):
        RunningTopK(2, 3).add([np.zeros((3, 4), np.uint32)])


def test_zero_shares_are_bound_to_header_batch_and_query():
    seen = set()
    for header, nonce in ((b"h" * 32, 0), (b"g" * 32, 0), (b"h" * 32, 1)):
        out = np.zeros((2, 8), np.uint64)
        add_zero_share(out, 1, (1, 2), {2: b"k" * 32}, header, np.full((1, 16), nonce, np.uint8), np.array([8]))
        seen |= set(out.reshape(-1).tolist())
    assert len(seen) == 3 * 16


# --- distributions ------------------------------------------------------------------------------------------------


def chi_square(words):
    """Chi-square statistic of the bytes of ``words`` against uniform, 255 degrees of freedom."""
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(-1)
    expected = len(raw) / 256
    return float(((np.bincount(raw, minlength=256) - expected) ** 2 / expected).sum())


def looks_uniform(words):
    """Chi-square within 255 +- 6.5 standard deviations of its distribution (one in 10^10)."""
    return 255 - 6.5 * 22.6 < chi_square(words) < 255 + 6.5 * 22.6


def test_the_distribution_test_can_fail():
    """A zero mask, a constant, small values, a share that is the row itself: all are caught."""
    rows = np.random.default_rng(0).integers(-127, 128, (4000, 16)).astype(np.uint32)
    for bad in (np.zeros(5000, np.uint32), np.full(5000, 7, np.uint32), rows, np.arange(5000, dtype=np.uint32)):
        assert not looks_uniform(bad)
    assert looks_uniform(np.frombuffer(np.random.default_rng(0).bytes(80_000), np.uint32))


INPUTS = {
    "zeros": np.zeros((2000, 16), np.int64), "ones": np.ones((2000, 16), np.int64),
    "ramp": np.arange(32000).reshape(2000, 16) % 251 - 125,
}  # fmt: skip


UNIFORM = [Params(3, 1, k, sharing=form) for k in (16, 32) for form in ("finite", "infinity")]
UNIFORM += [Params(4, 1, 64), Params(5, 2, 32), Params(7, 3, 64)]


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("params", UNIFORM, ids=str)
def test_stored_shares_are_uniform_and_independent_of_the_rows(params, name):
    x = INPUTS[name]
    keys = fresh_keys(params, 1)
    nonce = b"fixed for a test"
    shared = _share_rows(as_words(x, params, "rows"), keys, nonce, None)
    for share in shared.shares.values():
        assert looks_uniform(share)
    # t servers' words together, and differences of neighbours, show nothing either
    first = shared.shares[1]
    assert looks_uniform(first[1:] - first[:-1])
    if params.t > 1:
        assert looks_uniform(first + params.dtype.type(3) * shared.shares[2])
    # the plaintext test of the test: without keystream the same statistic fails
    words = np.pad(as_words(x, params, "rows"), ((0, 0), (0, params.padded(16) - 16)))
    planted = words.reshape(len(x), -1, params.m) @ constants.row_matrices(params)[0, 0].T
    assert not looks_uniform(planted)


@pytest.mark.parametrize("params", UNIFORM, ids=str)
def test_query_shares_are_uniform_and_independent_of_the_query(params, monkeypatch):
    rng = np.random.default_rng(2)
    monkeypatch.setattr(schedule, "random_bytes", rng.bytes)
    for value in (0, 1, -7):
        asked = query_shares(np.full((2000, 15), value), params)
        for share in asked.values():
            assert looks_uniform(share)
        assert looks_uniform(asked[1][:, 15:]), "padding is random too"
    monkeypatch.setattr(schedule, "random_bytes", lambda n: b"\0" * n)
    planted = query_shares(np.full((2000, 15), 1), params)
    assert not looks_uniform(planted[1])


def test_score_shares_are_uniform_without_the_others():
    """If rows and queries are all zero, a score share is its zero share."""
    header, nonces, rows = b"h" * 32, np.zeros((1, 16), np.uint8), np.array([20_000])
    pairs = {2: b"x" * 32, 3: b"y" * 32}
    score_share = np.zeros((1, 20_000), np.uint32)
    assert not looks_uniform(score_share)
    add_zero_share(score_share, 1, (1, 2, 3), pairs, header, nonces, rows)
    assert looks_uniform(score_share)
    two = score_share.copy()
    add_zero_share(two, 2, (1, 2, 3), {1: b"x" * 32, 3: b"z" * 32}, header, nonces, rows)
    assert looks_uniform(two)


def test_fresh_randomness_by_default():
    p = Params()
    keys = fresh_keys(p)
    a, b = (share_rows(np.ones((3, 4), np.int32), keys) for _ in range(2))
    assert a.nonce != b.nonce and not np.array_equal(a.shares[1], b.shares[1])
    c, d = (query_shares(np.ones((1, 4), np.int32), p) for _ in range(2))
    assert not np.array_equal(c[1], d[1])


def test_bad_input():
    p, keys = Params(), fresh_keys(Params())
    for bad, error in [
        (np.ones((2, 3)), DTypeError), (np.ones(3, int), ShapeError), (np.ones((0, 3), int), ShapeError),
        (np.ones((2, 0), int), ShapeError), (np.full((2, 3), 1 << 40), ParameterError),
    ]:  # fmt: skip
        with pytest.raises(error):
            share_rows(bad, keys)
    with pytest.raises(ParameterError):
        query_shares(np.ones((1, 3), int), p, [1, 2])
    with pytest.raises(ParameterError):
        open_share(np.ones((1, 4), np.uint32), 3, b"n" * 16, 4, keys)
    with pytest.raises(ShapeError):
        open_share(np.ones((1, 8), np.uint32), 1, b"n" * 16, 4, keys)
    with pytest.raises(ParameterError):
        top_k([np.ones((1, 3), np.uint32)] * 3, 4)
    with pytest.raises(ParameterError):
        top_k([np.ones((1, 3), np.uint32)] * 3, 0)


def test_open_share_with_gaps():
    p = Params(5, 2, 32)
    keys = fresh_keys(p)
    x = np.arange(60, dtype=np.int32).reshape(10, 6)
    shared = share_rows(x, keys)
    left = np.array([0, 3, 9])
    got = open_share(shared.shares[2][left], 2, shared.nonce, 6, keys, rows=10, ordinals=left)
    assert np.array_equal(got, x[left])


def test_old_names_go_on_for_one_release():
    from mipp import sharing

    for old, new in (
        ("query_columns", "query_shares"), ("key_server_product", "key_centre_product"),
        ("key_server_rows", "key_centre_rows"), ("key_server_words", "key_centre_words"),
    ):  # fmt: skip
        with pytest.warns(DeprecationWarning, match=new):
            assert getattr(sharing, old) is getattr(sharing, new)
    with pytest.raises(AttributeError):
        sharing.query_rows  # noqa: B018
    shares = [np.ones((1, 3), np.uint32)] * 3
    with pytest.warns(DeprecationWarning, match="score_shares"):
        assert reconstruct(answers=shares).tolist() == [[3, 3, 3]]
    with pytest.warns(DeprecationWarning, match="ring_bits"):
        assert len(batch_schedules(bytes(32), [bytes(16)], [8], [1], k=32)) == 1
    with pytest.raises(TypeError):
        reconstruct(shares, columns=1)
