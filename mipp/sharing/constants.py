"""Constants of the sharing, derived from its definition with exact integers. All of them are public.

Server i of 1..n sits at the point of the Galois ring R whose coefficients are the binary digits of i. These points and
0 differ pairwise by units. The words of a row form groups of m, each an element x = sum_b x_b X^b of R. The words of a
query form groups of m, each an element q = sum_b q_b e_b, e being the dual basis: trace(e_b X^c) = [b = c].

* Rows: g has degree t, g(0) = x, and g(point(j)) = keystream of key centre j. Cloud i stores g(point(i)).
* Queries: h has degree t, h(0) = q, and random other coefficients. Server i of the 2t+1 servers S of a query gets the
  words u_i[b] = trace(lambda_i h(point(i)) X^b), lambda_i being the Lagrange weight of point(i) at 0 among the points
  of S.
* Scores: the products of stored words and u_i, added over S, are trace(sum_i lambda_i g(point(i)) h(point(i))) =
  trace(g(0) h(0)) = sum_b x_b q_b, because g h has degree 2t.

Each of these maps is linear, so each is a few matrices over the integers modulo 2^ring_bits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ..params import Params
from .galois import GaloisRing

__all__ = [
    "galois_ring",
    "query_degree_matrices",
    "query_matrices",
    "row_degree_matrices",
    "row_matrices",
    "row_weights",
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
        ``[i-1, 0]`` multiplies the features and ``[i-1, 1+j]`` the keystream of key centre n-t+1+j, for cloud i.
    """
    ring = galois_ring(params)
    nodes = [ring.zero] + [ring.point(s) for s in params.key_centres]
    out = np.empty((len(params.clouds), 1 + params.t, ring.m, ring.m), params.dtype)
    for row, i in enumerate(params.clouds):
        for col, w in enumerate(ring.lagrange(nodes, ring.point(i))):
            out[row, col] = ring.matrix(w)
    return _constant(out)


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
    dual = ring.dual_basis()
    out = np.empty((len(servers), 1 + params.t, ring.m, ring.m), params.dtype)
    for row, (i, lam) in enumerate(
        zip(servers, ring.lagrange([ring.point(s) for s in servers], ring.zero), strict=True)
    ):
        power = lam
        for col in range(1 + params.t):
            inputs = dual if col == 0 else [ring.monomial(c) for c in range(ring.m)]
            for c, element in enumerate(inputs):
                lifted = ring.mul(power, element)
                for b in range(ring.m):
                    out[row, col, b, c] = ring.trace(ring.mul(lifted, ring.monomial(b)))
            power = ring.mul(power, ring.point(i))
    return _constant(out)


@functools.lru_cache(maxsize=64)
def row_weights(params: Params) -> np.ndarray:
    """Weights by which the words of the two clouds of n=3, t=1 add up to the features.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.

    Returns
    -------
    ndarray, shape (2, m, m), dtype of the ring
        One matrix for each cloud.
    """
    ring = galois_ring(params)
    nodes = [ring.point(i) for i in (1, 2)]
    return _constant(np.array([ring.matrix(w) for w in ring.lagrange(nodes, ring.zero)], params.dtype))


def row_degree_matrices(params: Params) -> np.ndarray:
    """Matrices that test the degree of row shares, for n=3 and t=1.

    Each server applies its matrix to its words of a row. The results add to zero exactly when the words lie on a line:
    the shares of a row are values of a polynomial of degree 1, and the value at 0 of X times the polynomial of degree 2
    through three points p_i is its coefficient of X^2 times the unit p_1 p_2 p_3.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.

    Returns
    -------
    ndarray, shape (3, m, m), dtype of the ring
        One matrix for each server.
    """
    return _degree_matrices(params)[0]


def query_degree_matrices(params: Params) -> np.ndarray:
    """Matrices that test the degree of query shares, for n=3 and t=1: as :func:`row_degree_matrices`.

    Parameters
    ----------
    params : Params
        Parameters of the deployment.

    Returns
    -------
    ndarray, shape (3, m, m), dtype of the ring
        One matrix for each server.
    """
    return _degree_matrices(params)[1]


@functools.lru_cache(maxsize=64)
def _degree_matrices(params: Params) -> tuple[np.ndarray, np.ndarray]:
    ring = galois_ring(params)
    points = [ring.point(i) for i in (1, 2, 3)]
    rows, queries = [], []
    for point, weight in zip(points, ring.lagrange(points, ring.zero), strict=True):
        rows.append(ring.matrix(ring.mul(weight, point)))
        # a query share holds u[b] = trace(v X^b) of the weighted value v, so v = sum_b u[b] e_b
        images = [ring.mul(point, e) for e in ring.dual_basis()]
        queries.append([[image[b] for image in images] for b in range(ring.m)])
    return _constant(np.array(rows, params.dtype)), _constant(np.array(queries, params.dtype))


def _constant(matrices: np.ndarray) -> np.ndarray:
    matrices.flags.writeable = False
    return matrices
