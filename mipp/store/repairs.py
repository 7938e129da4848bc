"""Files that a cloud lost: which they are, and writing them anew when other servers bring their contents."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ConflictError, IntegrityError, LimitError, NotFoundError, StoreError
from ..params import Params
from .catalog import NAME, Catalog
from .files import FileInfo, ImagePack, check_file, is_lost, write_body, write_share_pieces
from .ledger import Ledger
from .packs import Packs
from .views import CERTIFICATE_BYTES

__all__ = ["Agreed", "LostBatch", "Repairs", "lost_files"]

#: bytes that stay free on the disk when image packs are brought back
RESERVE = 1 << 30
#: rows of a batch that was merged away, whose number nobody notes; clients merge smaller ones only
MERGED_ROWS = 1 << 18


@dataclass(frozen=True)
class LostBatch:
    """A visible batch whose share file is missing or damaged here.

    ``share_hash``: of this server's share as its owner sent it, empty if it is not known. ``file``: what the catalog
    names, empty if the batch came without one.
    """

    owner: bytes
    id: bytes
    rows: int
    dim: int
    generation: int
    share_hash: bytes
    file: str


@dataclass(frozen=True)
class Agreed:
    """What the other servers agree on about a batch: hashes of all servers' shares, and its range certificate."""

    shares: bytes
    certificate: bytes


def lost_files(folder: Path) -> int:
    """Count the batches with live rows whose share file is not in a cloud's folder, or has another size.

    The server may run or not. Its catalog is opened for reading alone.

    Raises
    ------
    StoreError
        The catalog cannot be read.
    """
    path = folder / NAME
    # without a log of changes nobody writes; SQLite would make one, and a reader never removes it
    mode = "mode=ro" if path.with_name(f"{NAME}-wal").exists() else "immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as db:
            known = db.execute(
                "SELECT b.file, b.size FROM batches b JOIN owners o ON o.id = b.owner "
                "WHERE o.forget IS NULL AND length(b.tombstones)/8 < b.rows"
            ).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read the catalog in {folder}: {error}") from None
    return sum(not file or is_lost(folder / file, size) for file, size in known)


class Repairs:
    """Finds and replaces lost files of one cloud's store.

    Parameters
    ----------
    catalog, ledger, packs, folder, params, params_hash : of the store
    """

    def __init__(
        self, catalog: Catalog, ledger: Ledger, packs: Packs, folder: Path, params: Params, params_hash: bytes
    ) -> None:  # fmt: skip
        self._catalog, self._ledger, self._packs, self._folder = catalog, ledger, packs, folder
        self._params, self._hash = params, params_hash

    def gone_batches(self, owner: bytes, suspects: Container[bytes] = (), *, read: bool = False) -> list[bytes]:
        """Ids of an owner's batches with live rows whose file is certainly lost (:func:`mipp.store.files.is_lost`).

        Their owner may delete them on this word, so nothing is believed that was noted before: files of ``suspects``,
        or if ``read`` all files, are read now, of others the size is looked at.
        """
        found = []
        for batch, file, size, digest in self._catalog.all(
            "SELECT b.id, b.file, b.size, b.digest FROM batches b JOIN owners o ON o.id = b.owner "
            "WHERE b.owner=? AND o.forget IS NULL AND length(b.tombstones)/8 < b.rows ORDER BY b.position", owner,
        ):  # fmt: skip
            full = read or batch in suspects
            # a compaction or a merge may have replaced it meanwhile
            if (not file or is_lost(self._folder / file, size, digest if full else None)) and (file,) == (
                self._catalog.one("SELECT file FROM batches WHERE owner=? AND id=?", owner, batch)
            ):
                found.append(batch)
        return found

    def lost_batches(
        self, damaged: Iterable[tuple[bytes, bytes]] = (), *, read: bool = False, owner: bytes = b""
    ) -> list[LostBatch]:
        """Visible batches with live rows, and without a usable file: none, one of another size, and ``damaged`` ones.

        Nobody needs the file of a batch whose rows are all deleted. ``damaged``: owner and id of each. ``read``: read
        all files to find them. ``owner``: those of this owner alone.
        """
        known, found = set(damaged), []
        where, args = (" AND b.owner=?", (owner,)) if owner else ("", ())
        for owner, batch, rows, dim, generation, hash_, file, size, digest in self._catalog.all(
            "SELECT b.owner, b.id, b.rows, b.dim, b.generation, b.share_hash, b.file, b.size, b.digest "
            "FROM batches b JOIN owners o ON o.id = b.owner WHERE o.forget IS NULL AND length(b.tombstones)/8 < b.rows"
            f"{where} ORDER BY b.owner, b.position", *args,
        ):  # fmt: skip
            gone = not file or (owner, batch) in known or not _there(self._folder / file, size)
            if gone or (read and check_file(self._folder / file, size, digest)):
                found.append(LostBatch(owner, batch, rows, dim, generation, hash_, file))
        return found

    def lost_packs(self, *, read: bool = False) -> list[tuple[bytes, bytes]]:
        """Owner and id of each image pack that live rows need and that is not here whole.

        Found are those that are not here and those that somebody met damaged; if all are ``read``, those that are
        damaged or lack the image of a row, too.
        """
        found = []
        for (owner,) in self._catalog.all("SELECT id FROM owners WHERE forget IS NULL ORDER BY id"):
            here = {
                batch: (file, size, digest) for batch, file, size, digest in self._catalog.all(
                    "SELECT id, file, size, digest FROM packs WHERE owner=?", owner
                )
            }  # fmt: skip
            for batch, rows in self._packs.needed(owner).items():
                gone = batch not in here or not _there(self._folder / here[batch][0], here[batch][1])
                if (
                    gone
                    or (owner, batch) in self._packs.damaged
                    or (
                        read
                        and (
                            check_file(self._folder / here[batch][0], *here[batch][1:])
                            or _lacks(self._packs.whole(owner, batch)[1], rows)
                        )
                    )
                ):
                    found.append((owner, batch))
        return found

    def rows_of_pack(self, owner: bytes, batch: bytes) -> tuple[int, int]:
        """Least and largest number of rows that an image pack can have which live rows need."""
        row = self._catalog.one("SELECT rows FROM batches WHERE owner=? AND id=? AND origin_row=x''", owner, batch)
        if row is not None:
            return row[0], row[0]
        needed = self._packs.needed(owner).get(batch)
        return (0, 0) if needed is None else (int(needed.max()) + 1, max(int(needed.max()) + 1, MERGED_ROWS))

    def put_share(
        self, lost: LostBatch, ordinals: np.ndarray | None, pieces: Iterator[np.ndarray], share_hash: bytes,
        agreed: Agreed,
    ) -> None:  # fmt: skip
        """Write a batch's share file from its words, row after row, and use it from now on.

        Parameters
        ----------
        ordinals : (stored,) original row numbers, or None for all rows
        pieces : (n, D) words each; secret
        share_hash : SHA-256 of all words as the owner sent them, or empty where nothing is to compare

        Raises
        ------
        ConflictError
            The batch went, or a row that is left out is not deleted here.
        IntegrityError
            The words are not those that the owner sent.
        """
        rows, width = lost.rows, self._params.padded(lost.dim)
        stored, generation = (rows, 0) if ordinals is None else (len(ordinals), lost.generation + 1)
        info = FileInfo(
            self._hash, lost.owner, lost.id, self._params.ring_bits, lost.dim, width, generation, rows, stored
        )
        name = self._ledger.attempt_name("shares", lost.owner, f"{lost.id.hex()}.{generation}")
        found = hashlib.sha256()
        with self._ledger.attempt(lost.owner, [name]):
            size, digest = write_share_pieces(self._folder / name, info, _hashed(pieces, found), ordinals)
            if share_hash and ordinals is None and found.digest() != share_hash:
                raise IntegrityError("the other servers' parts do not give the share that the owner sent")
            with self._catalog.transaction() as db:
                row = db.execute(
                    "SELECT tombstones FROM batches WHERE owner=? AND id=? AND file=?", (lost.owner, lost.id, lost.file)
                ).fetchone()
                if row is None:
                    raise ConflictError("the batch was replaced meanwhile")
                if ordinals is not None:
                    absent = np.setdiff1d(np.arange(rows), ordinals, assume_unique=True)
                    if len(np.setdiff1d(absent, np.frombuffer(row[0], "<i8"), assume_unique=True)):
                        raise ConflictError("the other cloud dropped rows that are not deleted here yet")
                db.execute(  # what is known here is never replaced by what others say, or do not say
                    "UPDATE batches SET file=?, size=?, digest=?, generation=?, stored=?, rebuilt=rebuilt+1, "
                    "share_hash=iif(share_hash<>x'', share_hash, ?), shares=iif(shares<>x'', shares, ?), "
                    "certificate=iif(length(certificate)=?, certificate, ?) WHERE owner=? AND id=?",
                    (name, size, digest, generation, stored, share_hash, agreed.shares, CERTIFICATE_BYTES,
                     agreed.certificate, lost.owner, lost.id),
                )  # fmt: skip
                db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (lost.owner,))
                self._ledger.keep(db, [name])
        if lost.file:
            self._ledger.drop([lost.file])

    def put_pack(self, owner: bytes, batch: bytes, rows: int, size: int, pieces: Iterator[np.ndarray]) -> None:
        """Write an image pack from its body (offsets and files), and use it from now on.

        Raises
        ------
        LimitError
            There is no room for ``size`` bytes.
        IntegrityError
            It is no body of a pack of this batch, or lacks an image.
        ConflictError
            No live row needs it any more.
        """
        least, most = self.rows_of_pack(owner, batch)
        if not least <= rows <= most or not 8 * (rows + 1) <= size:
            raise IntegrityError("what the other cloud has is not the image pack of this batch")
        if shutil.disk_usage(self._folder).free - size < RESERVE:
            raise LimitError(f"the disk has no room for an image pack of {size} bytes")
        row = self._catalog.one("SELECT generation, file FROM packs WHERE owner=? AND id=?", owner, batch)
        generation, old = (row[0] + 1, row[1]) if row is not None else (0, "")
        info = self._packs.info(owner, batch, rows, generation)
        name = self._ledger.attempt_name("images", owner, f"{batch.hex()}.{generation}")
        with self._ledger.attempt(owner, [name]):
            written = write_body(self._folder / name, info, pieces)
            try:
                pack = ImagePack(self._folder / name, info, *written, check=False)
            except (IndexError, ValueError):
                raise IntegrityError("what the other cloud sent is no image pack") from None
            with self._catalog.transaction() as db:
                needed = self._packs.needed(owner).get(batch)
                if needed is None:
                    raise ConflictError("no row needs these images any more")
                if _lacks(pack, needed):
                    raise IntegrityError("the other cloud lacks images of some rows, too")
                db.execute(
                    "INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET rows=excluded.rows, "
                    "generation=excluded.generation, file=excluded.file, size=excluded.size, digest=excluded.digest",
                    (owner, batch, rows, generation, name, *written),
                )
                self._ledger.keep(db, [name])
            self._packs.damaged.discard((owner, batch))
        if old:
            self._ledger.drop([old])

    def known(self, owner: bytes, batch: bytes) -> tuple[bytes, bytes]:
        """Hashes of all servers' shares of a visible batch (empty if unknown), and its range certificate."""
        row = self._catalog.one("SELECT shares, certificate FROM batches WHERE owner=? AND id=?", owner, batch)
        if row is None:
            raise NotFoundError(f"this owner has no batch {batch.hex()}")
        return row[0], row[1] if len(row[1]) == CERTIFICATE_BYTES else b""


def _there(path: Path, size: int) -> bool:
    """Whether a file is there, whole as far as its size tells."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _lacks(pack: ImagePack, rows: np.ndarray) -> bool:
    """Whether a pack has no image of one of these rows."""
    return bool((pack.offsets[rows + 1] == pack.offsets[rows]).any())


def _hashed(pieces: Iterable[np.ndarray], digest: hashlib._Hash) -> Iterator[np.ndarray]:
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
        yield piece
