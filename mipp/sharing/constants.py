"""Constants of the sharing, derived from its definition with exact integers. All of them are public.

Each server has a point of the projective line over the Galois ring R. A finite point is the element of R whose
coefficients are the binary digits of its number (:meth:`mipp.params.Params.point_number`). In the form ``infinity`` the
key centre has the point at infinity, where the value of a polynomial is its leading coefficient. All points and 0
differ pairwise by units. The words of a row form groups of m, each an element x = sum_b x_b X^b of R. The words of a
query form groups of m, each an element q = sum_b q_b e_b, e being the dual basis: trace(e_b X^c) = [b = c].

* Rows: g has degree t, g(0) = x, and the value of g at a key centre's point is that key centre's keystream. Cloud i
  stores g(point(i)).
* Queries: h has degree t, h(0) = q, and random other coefficients. Server i of the 2t+1 servers S of a query gets the
  words u_i[b] = trace(lambda_i h(point(i)) X^b), lambda_i being the Lagrange weight of point(i) at 0 among the points
  of S, for degree 2t.
* Scores: the products of stored words and u_i, added over S, are trace(sum_i lambda_i g(point(i)) h(point(i))) =
  trace(g(0) h(0)) = sum_b x_b q_b, because g h has degree 2t.

With the key centre at infinity, n=3 and clouds at a and b: g(Z) = x + P Z, P being the keystream, h(Z) = q + r Z, and
the weights are b/(b-a), a/(a-b) and a b. A cloud's words do not depend on how many clouds there are.

Each of these maps is linear, so each is a few matrices over the integers modulo 2^ring_bits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ..params import Params
from .galois import GaloisRing, Point

__all__ = [
    "completion_matrix",
    "galois_ring",
    "query_degree_matrices",
    "query_matrices",
    "query_parts",
    "row_degree_matrices",
    "row_matrices",
    "row_weights",
    "server_point",
]


def galois_ring(params: Params) -> GaloisRing:
    """The Galois ring of a deployment that shares rows between clouds.

    Parameters
    ----------
    params : Params
        Parameters of the deployment, of the scheme ``shares``.

    Returns
    -------
    GaloisRing
        R with ``ring_bits`` bits and degree ``m``.
    """
    return GaloisRing(params.ring_bits, params.m)


def server_point(params: Params, server: int) -> Point:
    """The evaluation point of a server.

    Parameters
    ----------
    params : Params
        Parameters of the deployment, of the scheme ``shares``.
    server : int
        Number of the server.

    Returns
    -------
    tuple of tuple of int
        Homogeneous coordinates, (1, a) or, for a key centre in the form ``infinity``, (0, 1).
    """
    ring, number = galois_ring(params), params.point_number(server)
    return ring.point(number) if number else ring.infinity


@functools.lru_cache(maxsize=64)
def row_matrices(params: Params) -> np.ndarray:
    """Constants of row sharing.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.

    Returns
    -------
    ndarray, shape (n-t, 1+t, m, m), dtype of the ring
        ``[i, 0]`` multiplies the features and ``[i, 1+j]`` the keystream of the j-th key centre, for the i-th cloud.
    """
    ring = galois_ring(params)
    nodes = [ring.point(0)] + [server_point(params, s) for s in params.key_centres]
    weights = [ring.lagrange(nodes, server_point(params, i)) for i in params.clouds]
    return _constant(np.array([[ring.matrix(w) for w in row] for row in weights], params.dtype))


def completion_matrix(params: Params, server: int, holders: Sequence[int], target: int) -> np.ndarray:
    """Weight by which a server's words of a row enter the words of another server.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.
    server : int
        One of the holders.
    holders : sequence of int
        t+1 servers.
    target : int
        Another server.

    Returns
    -------
    ndarray, shape (m, m), dtype of the ring
        The products of all holders' words and matrices add up to the words of the target.
    """
    ring = galois_ring(params)
    weights = ring.lagrange([server_point(params, s) for s in holders], server_point(params, target))
    return _constant(np.array(ring.matrix(weights[list(holders).index(server)]), params.dtype))


def query_matrices(params: Params, servers: Sequence[int]) -> np.ndarray:
    """Constants of query sharing.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.
    servers : sequence of int
        All key centres and t+1 clouds.

    Returns
    -------
    ndarray, shape (2t+1, 1+t, m, m), dtype of the ring
        ``[i, 0]`` multiplies the query words and ``[i, 1+j]`` the j-th random words, for the i-th of the sorted
        servers: dual basis, Shamir polynomial, Lagrange weight at 0 and trace in one linear map.
    """
    return _query_matrices(params, params.check_servers(servers))


@functools.lru_cache(maxsize=256)
def _query_matrices(params: Params, servers: tuple[int, ...]) -> np.ndarray:
    ring = galois_ring(params)
    dual, points = ring.dual_basis(), [server_point(params, s) for s in servers]
    out = np.empty((len(servers), 1 + params.t, ring.m, ring.m), params.dtype)
    for row, (point, lam) in enumerate(zip(points, ring.lagrange(points, ring.point(0)), strict=True)):
        for col in range(1 + params.t):
            power = lam  # times the coordinates' monomial u^(t-col) v^col
            for coordinate in [point[1]] * col + [point[0]] * (params.t - col):
                power = ring.mul(power, coordinate)
            inputs = dual if col == 0 else [ring.monomial(c) for c in range(ring.m)]
            for c, element in enumerate(inputs):
                lifted = ring.mul(power, element)
                for b in range(ring.m):
                    out[row, col, b, c] = ring.trace(ring.mul(lifted, ring.monomial(b)))
    return _constant(out)


def query_parts(params: Params, servers: Sequence[int] | None = None) -> tuple[int, ...]:
    """Servers whose query shares add up to the padded query, where t=1.

    A query's polynomial of degree 1 is one of degree 2 without its leading coefficient, so its value at 0 is the sum of
    the weighted values at the finite points.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.
    servers : sequence of int, optional
        The query's servers; default the first set of :attr:`mipp.params.Params.server_sets`.

    Returns
    -------
    tuple of int
        All three servers, or the two clouds in the form ``infinity``.
    """
    infinity = galois_ring(params).infinity
    return tuple(i for i in params.parties(servers) if server_point(params, i) != infinity)


def row_weights(params: Params, servers: Sequence[int] | None = None) -> np.ndarray:
    """Weights by which the words of two clouds add up to the features, where t=1.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.
    servers : sequence of int, optional
        A query's servers, with these two clouds; default as of :func:`query_parts`.

    Returns
    -------
    ndarray, shape (2, m, m), dtype of the ring
        One matrix for each cloud, in the order of :meth:`mipp.params.Params.parties`.
    """
    return _row_weights(params, params.parties(servers))


@functools.lru_cache(maxsize=64)
def _row_weights(params: Params, parties: tuple[int, ...]) -> np.ndarray:
    ring = galois_ring(params)
    nodes = [server_point(params, i) for i in parties[:2]]
    return _constant(np.array([ring.matrix(w) for w in ring.lagrange(nodes, ring.point(0))], params.dtype))


def row_degree_matrices(params: Params, servers: Sequence[int] | None = None) -> np.ndarray:
    """Matrices that test the degree of row shares, where t=1.

    Each server applies its matrix to its words of a row. The results add to zero exactly when the words lie on a line:
    the shares of a row are values of a polynomial of degree 1. Of the polynomial of degree 2 through three finite
    points p_i, they add to the coefficient of X^2 times the unit p_1 p_2 p_3: the value at 0 of X times the polynomial.
    With the key centre at infinity, they add to a b times (the key centre's words less the slope of the line through
    the clouds' words), for clouds at the units a and b.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.
    servers : sequence of int, optional
        Two clouds and the key centre; default as of :func:`query_parts`.

    Returns
    -------
    ndarray, shape (3, m, m), dtype of the ring
        One matrix for each server, in the order of :meth:`mipp.params.Params.parties`.
    """
    return _degree_matrices(params, params.parties(servers))[0]


def query_degree_matrices(params: Params, servers: Sequence[int] | None = None) -> np.ndarray:
    """Matrices that test the degree of query shares, where t=1: as :func:`row_degree_matrices`.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.
    servers : sequence of int, optional
        The query's servers; default the first set of :attr:`mipp.params.Params.server_sets`.

    Returns
    -------
    ndarray, shape (3, m, m), dtype of the ring
        One matrix for each server, in the order of :meth:`mipp.params.Params.parties`.
    """
    return _degree_matrices(params, params.parties(servers))[1]


@functools.lru_cache(maxsize=64)
def _degree_matrices(params: Params, parties: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    ring = galois_ring(params)
    points = [server_point(params, i) for i in parties]
    rows, queries = [], []
    for (_, v), weight in zip(points, ring.lagrange(points, ring.point(0)), strict=True):
        rows.append(ring.matrix(ring.mul(weight, v)))
        # a query share holds u[b] = trace(z X^b) of the weighted value z, so z = sum_b u[b] e_b
        images = [ring.mul(v, e) for e in ring.dual_basis()]
        queries.append([[image[b] for image in images] for b in range(ring.m)])
    return _constant(np.array(rows, params.dtype)), _constant(np.array(queries, params.dtype))


def _constant(matrices: np.ndarray) -> np.ndarray:
    matrices.flags.writeable = False
    return matrices
