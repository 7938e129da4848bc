"""Fills an embedded deployment with very many small batches, faster than uploads do.

An upload is synced to disk for every batch on every server: hours for 100,000 of them. Here the owner's batches are
shared one by one as in an upload (own nonce, own keystream), the share files are written by the store's own function,
with ``os.fsync`` left out, and all catalog rows go in by one transaction per server. What a search finds afterwards is
what uploads would have left.
"""

import os
from unittest import mock

from mipp.sharing import share_rows
from mipp.store.files import FileInfo, write_share


def add_small_batches(deployment, owner, vectors, size):
    """Store ``vectors`` as committed batches of ``size`` rows each."""
    config = deployment.config
    encoded = config.encoding.encode_rows(vectors)
    dim = config.encoding.encoded_dim
    width = config.params.padded(dim)
    batches = {server: [] for server in deployment.servers}
    with mock.patch("os.fsync"):
        for seq, start in enumerate(range(0, len(encoded), size)):
            rows = encoded[start : start + size]
            shared = share_rows(rows, owner.keys, config.encoding.hash, threads=1)
            info = FileInfo(
                config.params_hash, owner.id, shared.nonce, config.params.k, dim, width, 0, len(rows), len(rows)
            )
            for server, store in ((s, deployment.servers[s].store) for s in deployment.servers):
                written = 0, b""
                if server in shared.shares:
                    name = shared.nonce.hex()
                    path = store.folder / "shares" / name[:2] / f"{name}.0"
                    written = write_share(path, info, shared.shares[server], None)
                batches[server].append((shared.nonce, owner.id, seq, len(rows), dim, len(rows), *written))
    for server, rows in batches.items():
        with deployment.servers[server].store.catalog.transaction() as db:
            db.executemany("INSERT INTO nonces VALUES (?, ?, ?)", [(b[1], b[0], os.urandom(32)) for b in rows])
            db.executemany(
                "INSERT INTO batches (id, owner, seq, rows, dim, stored, committed, size, digest) "
                "VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)",
                rows,
            )
            db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (owner.id,))
