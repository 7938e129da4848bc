"""Three servers by hand: secret sharing with `mipp.sharing`, for programs that bring their own roles and network.

Two clouds store one share of the rows each. The key centre stores 32 bytes of key and makes its share when it needs it.
"""

import os

import numpy as np

from mipp import ring
from mipp.params import Params
from mipp.sharing import (
    OwnerKeys,
    Run,
    add_zero_share,
    batch_schedules,
    key_centre_product,
    query_shares,
    share_rows,
    top_k,
)

rng = np.random.default_rng(0)
rows = rng.integers(-127, 128, (1000, 64))  # secret: one row of quantised features an image
query = rng.integers(-127, 128, (1, 64))  # secret
params = Params(n=3, t=1, ring_bits=32)  # servers 1 and 2 are clouds, server 3 is the key centre

# The owner: one share for each cloud, one key for the key centre.
owner = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), params)
shared = share_rows(rows, owner)
key = owner.server_key(3)

# The user: one query share for each server. Each is uniformly random.
asked = query_shares(query, params)

# Each server: one matrix product modulo 2^32.
score_shares = {cloud: ring.matmul(shared.shares[cloud], asked[cloud]) for cloud in params.clouds}
schedules = batch_schedules(key, [shared.nonce], [64], [1000], params.ring_bits)
score_shares[3] = np.empty((1, 1000), params.dtype)
all_rows = Run(np.array([0]), np.array([0]), np.array([1000]))
key_centre_product(schedules, all_rows, asked[3], score_shares[3])

# Each server: its part of a zero share, from keys that it has with each other server, bound to this query.
header_hash = os.urandom(32)  # all servers know it; a hash of what identifies the query
pair = {frozenset(p): os.urandom(32) for p in [(1, 2), (1, 3), (2, 3)]}
batch, count = np.frombuffer(shared.nonce, np.uint8).reshape(1, 16), np.array([1000])
for server, share in score_shares.items():
    pair_keys = {other: pair[frozenset((server, other))] for other in (1, 2, 3) if other != server}
    add_zero_share(share, server, (1, 2, 3), pair_keys, header_hash, batch, count)

# The user: adds the three score shares up and ranks.
nearest, scores = top_k(list(score_shares.values()), 10)
true = (rows @ query[0]).astype(np.int64)
assert (nearest[0] == np.argsort(-true, kind="stable")[:10]).all() and (scores[0] == true[nearest[0]]).all()
