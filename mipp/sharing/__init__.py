"""Secret sharing: rows to shares, queries to query shares, score shares to scores.

For programs with roles of their own; the roles of this package use the same functions. Of n servers, t are key centres,
which hold keys only, and the others are clouds (:class:`mipp.params.Params`):

* An owner shares rows with :func:`share_rows`. Cloud i gets g(point(i)) for a polynomial g whose value at 0 is the row,
  and whose values at the key centres' points are their keystream. For up to three clouds and one key centre, the key
  centre's point is infinity: its share is the polynomial's leading coefficient, and a cloud's share does not depend on
  how many clouds there are. A key centre gets nothing but a key of 32 bytes, once.
* A user shares queries with :func:`query_shares`: one uniformly random query share for each server.
* A cloud computes its score shares with :func:`mipp.ring.matmul`, a key centre with :func:`key_centre_product`. Each
  adds its zero share (:func:`add_zero_share`).
* Where every score is known to fit fewer bits, a server sends the low bits of its score shares
  (:func:`pack_score_shares`).
* The user adds the score shares up, with :func:`reconstruct`, :func:`top_k`, or :class:`RunningTopK` some rows at a
  time.
* Check columns (:mod:`mipp.sharing.checks`) beside the queries let the user notice score shares that are wrong.
* A share that a cloud lost, or that a new cloud needs, is rebuilt by other servers: each computes its masked part with
  :func:`completion_part`, and the cloud adds the parts up with :func:`complete_share`.

With ``Params(2, 1, ring_bits, "lattice")``, or ``"paillier"``, the one cloud stores the row plus the key centre's
keystream.

Servers are semi-honest: any t of them learn nothing. t+1 clouds together, or fewer with enough key centres to make t+1
servers, learn all rows. The formulas are in :mod:`mipp.sharing.constants`.

Examples
--------
Two clouds (1, 2) and a key centre (3) compute the scores of a query; zero shares are left out:

>>> import os
>>> import numpy as np
>>> from mipp import ring
>>> from mipp.params import Params
>>> from mipp.sharing import OwnerKeys, Run, batch_schedules, key_centre_product, query_shares, reconstruct, share_rows
>>> params = Params(n=3, t=1, ring_bits=32)
>>> keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), params)
>>> rows, query = np.array([[1, 2, 3], [-4, 5, 6]]), np.array([[10, 0, -1]])
>>> shared = share_rows(rows, keys)
>>> asked = query_shares(query, params)
>>> score_shares = [ring.matmul(shared.shares[i], asked[i]) for i in params.clouds]
>>> schedules = batch_schedules(keys.server_key(3), [shared.nonce], [3], [2], 32)
>>> score_shares.append(np.empty((1, 2), params.dtype))
>>> key_centre_product(schedules, Run(np.array([0]), np.array([0]), np.array([2])), asked[3], score_shares[2])
>>> reconstruct(score_shares)
array([[  7, -46]])
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from . import _deprecated  # noqa: F401  (keeps names that moved here from mipp.params)
from .completion import complete_share, completion_part
from .key_centre import Run, batch_schedules, key_centre_product, key_centre_rows, key_centre_words, keystream_words
from .queries import query_shares
from .rows import MAX_BLOCKS, OwnerKeys, SharedRows, convert_share, open_share, share_rows
from .scores import RunningTopK, add_zero_share, pack_score_shares, packed_words, reconstruct, top_k

__all__ = [
    "MAX_BLOCKS",
    "OwnerKeys",
    "Run",
    "RunningTopK",
    "SharedRows",
    "add_zero_share",
    "batch_schedules",
    "complete_share",
    "completion_part",
    "convert_share",
    "key_centre_product",
    "key_centre_rows",
    "key_centre_words",
    "keystream_words",
    "open_share",
    "pack_score_shares",
    "packed_words",
    "query_shares",
    "reconstruct",
    "share_rows",
    "top_k",
]

_RENAMED = {
    "query_columns": "query_shares",
    "key_server_product": "key_centre_product",
    "key_server_rows": "key_centre_rows",
    "key_server_words": "key_centre_words",
}

if TYPE_CHECKING:
    query_columns = query_shares
    key_server_product, key_server_rows, key_server_words = key_centre_product, key_centre_rows, key_centre_words
else:

    def __getattr__(name: str) -> Any:
        """Old names, for one release."""
        if name in _RENAMED:
            text = f"mipp.sharing.{name} becomes mipp.sharing.{_RENAMED[name]}"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return globals()[_RENAMED[name]]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
