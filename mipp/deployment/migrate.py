"""Migrates an embedded deployment from format 1 to format 2: chains of changes, names by owner, servers' identities.

New catalogs are written beside the old ones, from the old catalogs of all servers together. Then the description is
replaced, which makes all new catalogs valid at once, and the old ones are removed. An interrupted migration starts
again. Share files and image packs stay in place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from ..crypto import schedule, signing
from ..crypto.keyfile import save_key_file
from ..errors import DeploymentError, MippError, StoreError
from ..io.durable import replace_file
from ..rpc import messages as m
from ..rpc.chain import Content, facts_hash, first_view, next_view
from ..rpc.description import DeploymentConfig, ServerKeys
from ..rpc.wire import encode, pack_frames
from ..store.catalog import NAME, Catalog
from ..store.files import FileInfo, ImagePack

__all__ = ["migrate", "remove_old"]

_log = logging.getLogger("mipp.deployment")
OLD_NAME = "catalog.sqlite"


def migrate(path: Path, text: str, *, alone: bool) -> None:
    """Migrate a deployment.

    Parameters
    ----------
    path : Path
        Its folder.
    text : str
        Its description.
    alone : bool
        Whether no other process has it open.

    Raises
    ------
    DeploymentError
        Another process has it open; a catalog is missing.
    StoreError
        A catalog cannot be read.
    """
    if not alone:
        raise DeploymentError(
            f"{path} is of an earlier format and in use by another process; close it there, then open it again"
        )
    config = DeploymentConfig.from_json(text, version=1)
    homes = {i: path / "servers" / str(i) for i in config.servers}
    old = {i: _Old(home / OLD_NAME) for i, home in homes.items()}
    try:
        for name in {op for one in old.values() for op in one.committed}:
            for one in old.values():
                one.complete(name)
        # owners whose forgetting some servers missed: they could not check its old signature later
        gone = {row[0]: row[5] for one in old.values() for row in one.owners() if row[5] is not None}
        for one in old.values():
            one.gone = gone
        chains = _chains(old)
        public = {}
        for i, home in homes.items():
            for leftover in (*home.glob(f"{NAME}*"), home / "identity.key"):
                leftover.unlink(missing_ok=True)
            seed = schedule.random_bytes(32)
            save_key_file(home / "identity.key", "server", {"server": str(i)}, {"sign": seed})
            public[i] = dataclasses.replace(config.servers[i], sign=signing.sign_public(seed))
            _write(config, i, home, old[i], chains)
    finally:
        for one in old.values():
            one.db.close()
    _describe(path, config, public)
    for home in homes.values():
        remove_old(home)


def remove_old(home: Path) -> None:
    """Remove a server's catalog of format 1."""
    for name in (OLD_NAME, f"{OLD_NAME}-wal", f"{OLD_NAME}-shm"):
        (home / name).unlink(missing_ok=True)


def _describe(path: Path, config: DeploymentConfig, servers: dict[int, ServerKeys]) -> None:
    replace_file(path / "deployment.json", dataclasses.replace(config, servers=servers).to_json().encode())


class _Old:
    """One server's catalog of format 1: visible batches; changes that other servers committed are completed."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise DeploymentError(f"{path.parent} holds no {OLD_NAME}; is this a mipp server's folder?")
        try:
            self.db = sqlite3.connect(path, timeout=60)
            columns = (
                "id, owner, seq, rows, dim, stored, generation, size, digest, tombstones, origin_batch, origin_row"
            )
            rows = self.db.execute(f"SELECT {columns}, committed FROM batches").fetchall()
            names = columns.split(", ")
            every = {r[0]: dict(zip(names, r, strict=False)) | {"visible": bool(r[-1])} for r in rows}
            self._every: dict[bytes, dict[str, Any]] = every
            ops = self.db.execute("SELECT id, owner, kind, record, committed FROM ops").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {path}: {error}") from None
        self.gone: dict[bytes, bytes] = {}
        self.committed = {r[0] for r in ops if r[4] is not None}
        self._open = {r[0]: (r[1], r[2], msgpack.unpackb(r[3], strict_map_key=False)) for r in ops if r[4] is None}

    def complete(self, op: bytes) -> None:
        """Commit a change that another server has committed."""
        _, kind, record = self._open.pop(op, (b"", "", {}))
        if kind == "upload":
            self._every[op]["visible"] = True
            for batch in record["replaces"]:
                self._every.pop(batch, None)
        elif kind == "delete":
            for batch, rows in record["dead"].items():
                if batch in self._every:
                    old = np.frombuffer(self._every[batch]["tombstones"], "<i8")
                    self._every[batch]["tombstones"] = np.union1d(old, np.array(rows, "<i8")).astype("<i8").tobytes()

    def batches(self, owner: bytes) -> dict[bytes, dict[str, Any]]:
        return {i: b for i, b in self._every.items() if b["visible"] and b["owner"] == owner}

    def owners(self) -> list[tuple[Any, ...]]:
        """Rows of owners; those that any server forgot are forgotten."""
        rows = self.db.execute("SELECT id, name, sign_key, registration, sealed, forget FROM owners").fetchall()
        return [(*r[:4], b"", self.gone[r[0]]) if r[0] in self.gone else r for r in rows]


@dataclasses.dataclass
class _Chain:
    """An owner's batches in order, the same on all servers, with their new positions and views."""

    batches: list[bytes]
    dead: dict[bytes, bytes]
    views: list[bytes]
    start: bytes

    @property
    def head(self) -> bytes:
        return self.views[-1] if self.views else self.start


def _chains(old: dict[int, _Old]) -> dict[bytes, _Chain]:
    """One chain for each owner. Where servers differ, the first one's order of batches and all deletions hold."""
    chains = {}
    first = next(iter(old.values()))
    for owner, _, _, registration, _, forget in first.owners():
        if forget is not None:
            continue
        held = [one.batches(owner) for one in old.values()]
        common = set.intersection(*(set(h) for h in held))
        for lost in set.union(*(set(h) for h in held)) - common:
            _log.warning("batch %s of owner %s is not on all servers and was left out", lost.hex(), owner.hex())
        ordered = sorted(common, key=lambda b: (held[0][b]["seq"], b))
        dead = {}
        for batch in ordered:
            gone = np.unique(np.concatenate([np.frombuffer(h[batch]["tombstones"], "<i8") for h in held]))
            dead[batch] = gone.astype("<i8").tobytes()
        start = view = first_view(owner, registration)
        views = []
        for position, batch in enumerate(ordered, 1):
            facts = facts_hash(
                "adopted", Content(held[0][batch]["rows"], held[0][batch]["dim"], (), dead[batch]), [], [], []
            )
            view = next_view(owner, position, view, batch, facts)
            views.append(view)
        chains[owner] = _Chain(ordered, dead, views, start)
    return chains


def _write(config: DeploymentConfig, server: int, home: Path, old: _Old, chains: dict[bytes, _Chain]) -> None:
    meta = {"params": config.params_hash, "server": bytes([server])}
    catalog = Catalog(home, meta, create=True)
    with contextlib.closing(catalog), catalog.transaction() as db:
        for owner, name, sign_key, registration, sealed, forget in old.owners():
            chain = chains.get(owner, _Chain([], {}, [], first_view(owner, registration)))
            position = len(chain.batches)
            db.execute(
                "INSERT INTO owners VALUES (?, ?, ?, ?, ?, x'', ?, ?, ?, ?, 0, ?, 0, x'')",
                (owner, name, sign_key, registration, sealed, position, chain.head, position, chain.head, forget),
            )
            if forget is None:
                _write_batches(db, config, server, home, old, owner, chain)
        db.executemany(
            "INSERT INTO users (id, name, sign_key, box_key, frames) VALUES (?, ?, ?, ?, x'')",
            old.db.execute("SELECT id, name, sign_key, box_key FROM users"),
        )
        if old.db.execute("SELECT 1 FROM sqlite_master WHERE name='paillier_keys'").fetchone():
            db.executemany("INSERT INTO paillier_keys VALUES (?, ?)", old.db.execute("SELECT * FROM paillier_keys"))
        db.executemany("INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0)", _grants(config, old))
        # ids stay taken for ever, also those of batches that are gone
        db.executemany(
            "INSERT INTO changes (owner, op, kind, state, digest) VALUES (?, ?, 'upload', 'committed', ?) "
            "ON CONFLICT DO NOTHING", old.db.execute("SELECT owner, nonce, digest FROM nonces"),
        )  # fmt: skip


def _write_batches(
    db: Any, config: DeploymentConfig, server: int, home: Path, old: _Old, owner: bytes, chain: _Chain
) -> None:
    held = old.batches(owner)
    shares = server in config.params.clouds
    packs = old.db.execute("SELECT id, rows, generation, size, digest FROM packs WHERE owner=?", (owner,)).fetchall()
    sizes = {p[0]: _sizes(config, home, owner, p) for p in packs} if shares else {}
    for position, batch in enumerate(chain.batches, 1):
        b = held[batch]
        file = f"shares/{batch.hex()[:2]}/{batch.hex()}.{b['generation']}" if shares else ""
        imaged = _imaged(batch, b, sizes)
        db.execute(
            "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, x'', ?, ?, ?, ?, x'', x'', 0, x'')",
            (owner, batch, position, b["rows"], b["dim"], b["stored"], b["generation"], file, b["size"], b["digest"],
             chain.dead[batch], imaged, b["origin_batch"], b["origin_row"]),
        )  # fmt: skip
        nonce = old.db.execute("SELECT digest FROM nonces WHERE owner=? AND nonce=?", (owner, batch)).fetchone()
        db.execute(
            "INSERT INTO changes (owner, op, kind, state, digest, position, view) "
            "VALUES (?, ?, 'upload', 'committed', ?, ?, ?)",
            (owner, batch, nonce[0] if nonce else b"", position, chain.views[position - 1]),
        )
    db.executemany(
        "INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(owner, p[0], p[1], p[2], f"images/{p[0].hex()[:2]}/{p[0].hex()}.{p[2]}", p[3], p[4]) for p in packs],
    )


def _sizes(config: DeploymentConfig, home: Path, owner: bytes, pack: tuple[Any, ...]) -> np.ndarray:
    """Bytes of each file of an image pack; zeros if it cannot be read, and then verify names the pack."""
    batch, rows, generation, size, digest = pack
    info = FileInfo(config.params_hash, owner, batch, config.params.ring_bits, 0, 0, generation, rows, rows)
    path = home / "images" / batch.hex()[:2] / f"{batch.hex()}.{generation}"
    try:
        return np.diff(ImagePack(path, info, size, digest, check=False).offsets)
    except MippError:
        return np.zeros(rows, np.int64)


def _imaged(batch: bytes, b: dict[str, Any], sizes: dict[bytes, np.ndarray]) -> bytes:
    has = np.zeros(b["rows"], bool)
    if b["origin_row"]:
        ids = np.frombuffer(b["origin_batch"], np.uint8).reshape(-1, 16)
        for i, (origin, row) in enumerate(zip(ids, np.frombuffer(b["origin_row"], "<i8"), strict=True)):
            of = sizes.get(origin.tobytes())
            has[i] = of is not None and row < len(of) and of[row] > 0
    elif batch in sizes:
        has = sizes[batch] > 0
    return np.packbits(has).tobytes() if has.any() else b""


def _grants(config: DeploymentConfig, old: _Old) -> Iterable[tuple[Any, ...]]:
    """Grants in format 2, without signatures: this server checked the old ones when it got them."""
    for owner, user, version, grant, frames, used in old.db.execute(
        "SELECT owner, user, version, id, frames, used FROM grants"
    ):
        if owner in old.gone:
            continue
        _, fields = msgpack.unpackb(msgpack.unpackb(frames)[1][5:])
        content = encode(m.Grant(fields[0], fields[1], 0, *fields[2:]))
        signed = m.Signed(
            config.id, owner, m.ALL_SERVERS, 0, bytes(16), b"", [np.frombuffer(f, np.uint8) for f in content]
        )
        yield owner, user, version, int(fields[-1]), grant, pack_frames(encode(signed)), used
