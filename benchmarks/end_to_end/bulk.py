"""Fills an embedded deployment with very many small batches, faster than uploads do.

An upload is synced to disk for every batch on every server: hours for 100,000 of them. Here the owner's batches are
shared one by one as in an upload (own nonce, own keystream), the share files are written by the store's own function,
with ``os.fsync`` left out, and all catalog rows go in by one transaction per server. What a search finds afterwards is
what uploads would have left.
"""

import os
from unittest import mock

from mipp.rpc.chain import next_view
from mipp.sharing import share_rows
from mipp.store.files import FileInfo, write_share


def add_small_batches(deployment, owner, vectors, size):
    """Store ``vectors`` as committed batches of ``size`` rows each."""
    config = deployment.config
    encoded = config.encoding.encode_rows(vectors)
    dim = config.encoding.encoded_dim
    width = config.params.padded(dim)
    batches = {server: [] for server in deployment.servers}
    changes = []
    position, view = deployment.servers[1].store.changes.head(owner.id)
    with mock.patch("os.fsync"):
        for start in range(0, len(encoded), size):
            rows = encoded[start : start + size]
            shared = share_rows(rows, owner.keys, config.encoding.hash, threads=1)
            info = FileInfo(
                config.params_hash, owner.id, shared.nonce, config.params.ring_bits, dim, width, 0, len(rows), len(rows)
            )
            position += 1
            view = next_view(owner.id, position, view, shared.nonce, bytes(32))
            changes.append((owner.id, shared.nonce, os.urandom(32), position, view))
            for server, store in ((s, deployment.servers[s].store) for s in deployment.servers):
                name, written = "", (0, b"")
                if server in shared.shares:
                    name = store.changes.attempt_name("shares", owner.id, f"{shared.nonce.hex()}.0")
                    written = write_share(store.folder / name, info, shared.shares[server], None)
                batches[server].append((owner.id, shared.nonce, position, len(rows), dim, len(rows), name, *written))
    for server, rows in batches.items():
        with deployment.servers[server].store.catalog.transaction() as db:
            db.executemany(
                "INSERT INTO changes (owner, op, kind, state, digest, position, view) "
                "VALUES (?, ?, 'upload', 'committed', ?, ?, ?)",
                changes,
            )
            db.executemany(
                "INSERT INTO batches (owner, id, position, rows, dim, stored, file, size, digest, share_hash) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, x'')",
                rows,
            )
            db.execute(
                "UPDATE owners SET position=?, view=?, revision=revision+1 WHERE id=?", (position, view, owner.id)
            )
