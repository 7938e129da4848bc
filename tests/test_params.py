"""Constants of the Galois rings: proved for every n, t and k that is offered."""

import copy
import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from mipp.errors import ParameterError
from mipp.params import Params
from mipp.sharing import constants
from mipp.sharing.galois import GaloisRing, solve_mod_2k

ALL = [(n, t, "finite") for n in range(3, 8) for t in range(1, 4) if n >= 2 * t + 1]
ALL += [(3, 1, "infinity"), (4, 1, "infinity")]


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("k", [1, 2])
def test_tiny_rings_exhaustively(m, k):
    """Every element of (Z/2^k)[X]/(f_m): units are exactly those that have an inverse; the inverse is right."""
    ring = GaloisRing(k, m)
    elements = list(itertools.product(range(1 << k), repeat=m))
    for a in elements:
        partners = [b for b in elements if ring.mul(a, b) == ring.one]
        assert bool(partners) == ring.is_unit(a)
        if partners:
            assert partners == [ring.inv(a)]


@pytest.mark.parametrize(("n", "t", "form"), ALL)
def test_points_differ_by_units(n, t, form):
    p = Params(n, t, 64, sharing=form)
    ring = constants.galois_ring(p)
    points = [ring.point(0)] + [constants.server_point(p, i) for i in range(1, n + 1)]
    for a, b in itertools.combinations(points, 2):
        assert ring.is_unit(ring.difference(a, b))
    for a in points:
        assert ring.difference(a, a) == ring.zero


@pytest.mark.parametrize("k", [2, 64])
def test_interpolation_on_the_projective_line(k):
    """Weights give the value at any point, of polynomials of every degree, from any points, infinity among them."""
    ring, rng = GaloisRing(k, 3), np.random.default_rng(5)
    line = [ring.point(i) for i in range(8)] + [ring.infinity]

    def value(coefficients, point):
        total = ring.zero
        for i, c in enumerate(coefficients):
            for coordinate in [point[0]] * (len(coefficients) - 1 - i) + [point[1]] * i:
                c = ring.mul(c, coordinate)
            total = ring.add(total, c)
        return total

    for count in range(1, 8):
        g = [tuple(int(v) & ring.mask for v in rng.integers(0, 1 << 62, 3)) for _ in range(count)]
        assert value(g, ring.infinity) == g[-1] and value(g, ring.point(0)) == g[0]
        nodes = [line[i] for i in rng.choice(9, count, replace=False)]
        for at in line:
            total = ring.zero
            for w, node in zip(ring.lagrange(nodes, at), nodes, strict=True):
                total = ring.add(total, ring.mul(w, value(g, node)))
            assert total == value(g, at)


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("k", [16, 32, 64])
def test_dual_basis(m, k):
    ring = GaloisRing(k, m)
    for b, e in enumerate(ring.dual_basis()):
        for c in range(m):
            assert ring.trace(ring.mul(e, ring.monomial(c))) == (b == c)


def _invertible(matrix, k):
    size = len(matrix)
    try:
        solve_mod_2k([[int(v) for v in row] + [int(i == j) for j in range(size)] for i, row in enumerate(matrix)], k)
    except ParameterError:
        return False
    return True


@pytest.mark.parametrize(("n", "t", "form"), ALL)
def test_views_of_t_servers_are_independent_of_the_features(n, t, form):
    """What any t servers hold is an invertible map of the t keystream words, whatever the row is."""
    p = Params(n, t, 32, sharing=form)
    m, rows = p.m, constants.row_matrices(p)

    def masks(server):
        """This server's value as a matrix of the keystream words of all key centres, (m, t m)."""
        out = np.zeros((m, t * m), np.uint32)
        if server in p.key_centres:
            j = p.key_centres.index(server)
            out[:, j * m : (j + 1) * m] = np.eye(m, dtype=np.uint32)
        else:
            for j in range(t):
                out[:, j * m : (j + 1) * m] = rows[p.clouds.index(server), 1 + j]
        return out

    for group in itertools.combinations(range(1, n + 1), t):
        assert _invertible(np.concatenate([masks(s) for s in group]), 32), group


@pytest.mark.parametrize(("n", "t", "form"), ALL)
def test_query_shares_of_t_servers_are_independent_of_the_query(n, t, form):
    p = Params(n, t, 32, sharing=form)
    for clouds in itertools.combinations(p.clouds, t + 1):
        servers = clouds + p.key_centres
        matrices = constants.query_matrices(p, servers)
        blocks = [np.concatenate([matrices[i, 1 + j] for j in range(t)], axis=1) for i in range(len(servers))]
        for group in itertools.combinations(range(len(servers)), t):
            assert _invertible(np.concatenate([blocks[i] for i in group]), 32)


@pytest.mark.parametrize(
    "bad",
    [(2, 1, 32), (8, 1, 32), (4, 2, 32), (7, 4, 32), (3, 0, 32), (3, 1, 8), (3, 1, 33), (3.0, 1, 32), (True, 1, 32)],
)
def test_bad_parameters(bad):
    with pytest.raises(ParameterError):
        Params(*bad)


def test_servers_of_a_query():
    p = Params(5, 2, 32)
    assert p.check_servers([5, 4, 3, 1, 2]) == (1, 2, 3, 4, 5)
    q = Params(4, 1, 32, sharing="finite")
    assert q.check_servers([3, 1, 4]) == (1, 3, 4)
    for bad in ([1, 2, 3], [1, 2], [1, 2, 4, 4], [1, 2, 3, 4], [1, 4], [0, 1, 4]):
        with pytest.raises(ParameterError):
            q.check_servers(bad)


def test_a_cloud_joins_and_nothing_else_changes():
    """Numbers, width and keys of the first three servers stay, and rows are bound to the same sizes."""
    two, three = Params(3, 1, 32), Params(4, 1, 32)
    assert (two.sharing, two.clouds, two.key_centres, two.m) == ("infinity", (1, 2), (3,), 2)
    assert (three.sharing, three.clouds, three.key_centres, three.m) == ("infinity", (1, 2, 4), (3,), 2)
    assert two.layout == three.layout == (2, 1) and two.padded(93) == three.padded(93)
    assert [two.point_number(i) for i in (1, 2, 3)] == [three.point_number(i) for i in (1, 2, 3)] == [1, 2, 0]
    assert three.point_number(4) == 3
    rows = constants.row_matrices(three)
    assert np.array_equal(rows[:2], constants.row_matrices(two))
    assert np.array_equal(constants.query_matrices(two, [1, 2, 3]), constants.query_matrices(three, [1, 2, 3]))
    for pair in ([1, 2], [1, 4], [2, 4]):
        assert three.check_servers([3, *pair]) == tuple(sorted([3, *pair]))
    for bad in ([1, 2, 4], [1, 3], [1, 2, 3, 4], [1, 3, 3], [2, 3, 5]):
        with pytest.raises(ParameterError):
            three.check_servers(bad)
    for bad in (0, 5, -1):
        with pytest.raises(ParameterError, match="no server"):
            three.point_number(bad)


def test_forms_of_sharing():
    assert [Params(n, t).sharing for n, t in ((3, 1), (4, 1), (5, 1), (5, 2), (7, 3))] == (
        ["infinity"] * 2 + ["finite"] * 3
    )
    assert Params(2, 1, 32, "paillier").sharing == Params(2, 1, 32, "lattice").sharing == "masked"
    finite, infinity = Params(sharing="finite"), Params()
    assert finite != infinity and hash(finite) != hash(infinity)
    assert "sharing='finite'" in repr(finite) and "sharing='infinity'" in repr(infinity)
    assert dataclasses.replace(finite, ring_bits=64).sharing == "finite"
    assert finite.layout == (3, 1) and [finite.point_number(i) for i in (1, 2, 3)] == [1, 2, 3]
    assert not np.array_equal(constants.row_matrices(finite), constants.row_matrices(infinity))
    for bad in (
        {"n": 5, "t": 2, "sharing": "infinity"}, {"n": 5, "sharing": "infinity"}, {"sharing": "masked"},
        {"sharing": "other"}, {"sharing": ""}, {"sharing": 1}, {"sharing": ["finite"]},
        {"n": 2, "scheme": "paillier", "sharing": "finite"},
    ):  # fmt: skip
        with pytest.raises(ParameterError, match="sharing="):
            Params(**bad)


@pytest.mark.parametrize("form", ["finite", "infinity"])
def test_which_query_shares_add_up_to_the_query(form):
    p = Params(3, 1, 32, sharing=form)
    matrices = constants.query_matrices(p, [1, 2, 3])
    total = sum(matrices[i - 1] for i in constants.query_parts(p))
    assert np.array_equal(total, [np.eye(2), np.zeros((2, 2))])
    assert constants.query_parts(p) == ((1, 2) if form == "infinity" else (1, 2, 3))


@pytest.mark.parametrize("form", ["finite", "infinity"])
def test_degree_matrices(form):
    """They cancel on shares of rows and of queries, and each alone is invertible: one word changed is seen."""
    p = Params(3, 1, 32, sharing=form)
    words = np.stack([*constants.row_matrices(p), np.array([np.zeros((2, 2)), np.eye(2)], p.dtype)])
    for degree, shares in (
        (constants.row_degree_matrices(p), words),
        (constants.query_degree_matrices(p), constants.query_matrices(p, [1, 2, 3])),
    ):
        assert not sum(d @ s for d, s in zip(degree, shares.transpose(1, 0, 2, 3)[0], strict=True)).any()
        assert not sum(d @ s for d, s in zip(degree, shares.transpose(1, 0, 2, 3)[1], strict=True)).any()
        assert all(_invertible(d, 32) for d in degree)


@pytest.mark.parametrize("form", ["finite", "infinity"])
def test_query_shares_cannot_be_changed_at_two_servers(form):
    """The same at two servers, with opposite signs, changes the query that shares add up to, or breaks the degree."""
    p = Params(3, 1, 32, sharing=form)
    degree, parts = constants.query_degree_matrices(p), constants.query_parts(p)
    for a, b in itertools.combinations((1, 2, 3), 2):
        assert (a in parts) != (b in parts) or _invertible(degree[a - 1] - degree[b - 1], 32)


def test_padding():
    assert Params(3, 1, 32).padded(92) == 92
    assert Params(3, 1, 32).padded(93) == 96
    assert Params(3, 1, 16).padded(1) == 8
    assert Params(7, 3, 64).padded(1) == 6
    with pytest.raises(ParameterError):
        Params().padded(0)


def test_the_paillier_scheme_has_one_cloud():
    p = Params(2, 1, 32, "homomorphic")
    assert (p.clouds, p.key_centres, p.m) == ((1,), (2,), 1)
    assert p.check_servers([2, 1]) == (1, 2)
    for bad in ([1], [2], [1, 1], [1, 2, 3], []):
        with pytest.raises(ParameterError):
            p.check_servers(bad)


def test_old_names_go_on_for_one_release():
    with pytest.warns(DeprecationWarning, match="ring_bits"):
        p = Params(3, 1, k=16)
    assert p == Params(3, 1, 16) and p.ring_bits == 16
    with pytest.warns(DeprecationWarning), pytest.raises(ParameterError):
        Params(k=None)
    for old, value in (("k", 16), ("storage_servers", (1, 2)), ("key_servers", (3,))):
        with pytest.warns(DeprecationWarning, match=f"Params.{old}"):
            assert getattr(p, old) == value
    with pytest.warns(DeprecationWarning, match="galois_ring"):
        assert p.ring.one == (1, 0)
    for old, new in (
        ("row_matrices", constants.row_matrices), ("row_weights", constants.row_weights),
        ("row_degree_matrices", constants.row_degree_matrices),
        ("column_degree_matrices", constants.query_degree_matrices),
    ):  # fmt: skip
        with pytest.warns(DeprecationWarning, match=old):
            assert getattr(p, old)() is new(p)
    with pytest.warns(DeprecationWarning, match="query_matrices"):
        assert p.column_matrices([3, 1, 2]) is constants.query_matrices(p, [1, 2, 3])
    with pytest.warns(DeprecationWarning, match="GaloisRing"):
        from mipp.params import GaloisRing as Moved
    assert Moved is GaloisRing


def test_parameters_cannot_be_changed_and_are_equal_by_value():
    p = Params()
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.n = 4
    assert dataclasses.replace(p, ring_bits=64) == Params(3, 1, 64) and hash(p) == hash(Params(3, 1, 32))
    assert copy.copy(p) == pickle.loads(pickle.dumps(p)) == p and repr(p).startswith("Params(n=3, t=1, ring_bits=32")
