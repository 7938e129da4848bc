"""An owner's whole visible state as one value: to hand over to a restored server, and to adopt there."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import numpy as np

from ..errors import NotFoundError
from ..rpc.records import count_places
from . import changes as rules
from .catalog import Catalog
from .ledger import Ledger, record_files
from .records import RecordPacks
from .views import CERTIFICATE_BYTES

__all__ = ["Chain", "Chains"]


@dataclass(frozen=True)
class Chain:
    """History and state of one owner at a server.

    batches : (position, rows, dim, id, tombstones, origin_batch, origin_row, origins of records, hashes of all servers'
        shares, range certificate, which rows have images) each, in row order; a key centre does not know the latter
    ops : (op, kind, position, view, hash of the COMMIT) of each committed change; position 0: an id that is taken
    refused : ids of changes that the server refused for ever
    accepted : id of the change that is accepted there and not decided, and hash of its COMMIT; or empty
    packs : (id, rows, album, hash) of the record packs that live rows need
    """

    owner: bytes
    position: int
    view: bytes
    floor: int
    floor_view: bytes
    batches: list[tuple[Any, ...]]
    ops: list[tuple[Any, ...]]
    refused: list[bytes]
    accepted: bytes = b""
    packs: list[tuple[Any, ...]] = field(default_factory=list)

    def begins(self, other: Chain) -> bool:
        """Whether this history is a beginning of another's."""
        return self.position == 0 or (self.position, self.view) in {(op[2], op[3]) for op in other.ops}


class Chains:
    """Reads and adopts whole chains of one store."""

    def __init__(
        self, catalog: Catalog, ledger: Ledger, records: RecordPacks, *, has_shares: bool, spare: bool = False
    ) -> None:  # fmt: skip
        self._catalog, self._ledger, self._records, self._has_shares = catalog, ledger, records, has_shares
        #: whether changes may be written without this server
        self._spare = spare

    def heads(self) -> dict[bytes, tuple[int, bytes]]:
        """Position and view of the last change of each owner that is registered."""
        rows = self._catalog.all("SELECT id, position, view FROM owners WHERE forget IS NULL ORDER BY id")
        return {owner: (position, view) for owner, position, view in rows}

    def accepted(self, owner: bytes) -> tuple[int, bytes] | None:
        """Position and COMMIT's hash of the change of this owner that is accepted here and not decided."""
        return self._catalog.one(
            "SELECT position, commit_hash FROM changes WHERE owner=? AND state='accepted'", owner
        )  # fmt: skip

    def all(self, owners: Container[bytes] | None = None) -> list[Chain]:
        """Chains of all owners that are registered, or of these, in order."""
        found = []
        for owner, position, view, floor, floor_view in self._catalog.all(
            "SELECT id, position, view, floor, floor_view FROM owners WHERE forget IS NULL ORDER BY id"
        ):
            if owners is not None and owner not in owners:
                continue
            batches = self._catalog.all(
                "SELECT position, rows, dim, id, tombstones, origin_batch, origin_row, records, shares, "
                "iif(length(certificate)=?, certificate, x''), imaged FROM batches WHERE owner=? ORDER BY position",
                CERTIFICATE_BYTES, owner,
            )  # fmt: skip
            ops = self._catalog.all(
                "SELECT op, kind, coalesce(position, 0), coalesce(view, x''), coalesce(commit_hash, x'') FROM changes "
                "WHERE owner=? AND state='committed' ORDER BY op", owner,
            )  # fmt: skip
            refused = self._catalog.all("SELECT op FROM changes WHERE owner=? AND state='aborted'", owner)
            accepted = self._catalog.one(
                "SELECT op, commit_hash FROM changes WHERE owner=? AND state='accepted'", owner
            )
            chain = Chain(owner, position, view, floor, floor_view, batches, ops, sorted(row[0] for row in refused))
            chain = chain if accepted is None else replace(chain, accepted=accepted[0] + accepted[1])
            with self._catalog.reading() as db:
                found.append(replace(chain, packs=self._records.facts(db, owner)))
        return found

    def adopt(self, chain: Chain, *, beaten: bool = False) -> None:
        """Bring this server's state of an owner to a peer's, in one transaction.

        ``beaten``: what is accepted here lost its place in the chain, and is refused.

        What is here already keeps its files. A batch that is not here has no file: it cannot be searched at this server
        until it is brought back. What the peer refused is refused here. A history here that goes on from the peer's,
        with nothing that was refused, stays: the peer will follow it.
        """
        with self._catalog.transaction() as db:
            row = db.execute("SELECT position FROM owners WHERE id=? AND forget IS NULL", (chain.owner,)).fetchone()
            if row is None:
                raise NotFoundError("a chain of an owner who is not registered here, or was forgotten")
            committed = {c[0] for c in chain.ops}
            mine = db.execute(
                "SELECT op, position, view FROM changes WHERE owner=? AND state='committed' AND position>0",
                (chain.owner,),
            ).fetchall()
            ahead = row[0] > chain.position and (
                chain.position == 0 or (chain.position, chain.view) in {(p, v) for _, p, v in mine}
            )
            if ahead and not {op for op, _, _ in mine} & set(chain.refused):
                gone = self._refuse(db, chain, [])
            else:
                # also changes that this server shows and that all others gave up after an earlier restore
                lost = [op for op, _, _ in mine if op not in committed]
                if beaten:
                    rows = db.execute("SELECT op FROM changes WHERE owner=? AND state='accepted'", (chain.owner,))
                    lost += [op for (op,) in rows.fetchall() if op not in committed]
                gone = self._refuse(db, chain, lost)
                gone += self._replace(db, chain)
        self._ledger.drop(gone)

    def _refuse(self, db: Any, chain: Chain, shown: list[bytes]) -> list[str]:
        """Refuse what the peer refused, and what is shown here alone; files that are needed no more."""
        gone = [file for op in chain.refused for file in self._ledger.refuse_open(db, chain.owner, op)]
        db.executemany(
            "UPDATE changes SET state='aborted', record=x'', position=NULL, commit_frames=NULL, votes=x'' "
            "WHERE owner=? AND op=?", [(chain.owner, op) for op in shown],
        )  # fmt: skip
        return gone

    def _replace(self, db: Any, chain: Chain) -> list[str]:
        """Show what the peer shows; files that are needed no more."""
        here = {
            r[0]: r[1:] for r in db.execute(
                "SELECT id, file, size, digest, share_hash, stored, generation, imaged, certificate, tombstones, "
                "shares FROM batches WHERE owner=?",
                (chain.owner,),
            )
        }  # fmt: skip
        gone = self._prepared_files(db, chain, here)
        gone += [v[0] for k, v in here.items() if k not in {b[3] for b in chain.batches} and v[0]]
        db.execute("DELETE FROM batches WHERE owner=?", (chain.owner,))
        for position, rows, dim, batch, dead, *origins, shares, tested, has in chain.batches:
            file, size, digest, share_hash, stored, generation, imaged, certificate, *known = here.get(
                batch, ("", 0, b"", self._share_hash(shares), rows, 0, has if self._has_shares else b"", tested)
            )
            if known and known[0]:  # a deletion that is known here is undone by nobody
                both = np.union1d(np.frombuffer(known[0], "<i8"), np.frombuffer(dead, "<i8"))
                dead = both.astype("<i8").tobytes()
            certificate = certificate or tested  # of what was prepared here and tested after the backup
            if known and known[1]:  # noted from the owner's COMMIT
                shares = known[1]
            db.execute(
                "INSERT INTO batches (owner, id, position, rows, dim, stored, generation, file, size, digest, "
                "share_hash, tombstones, imaged, origin_batch, origin_row, records, certificate, shares) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (chain.owner, batch, position, rows, dim, stored, generation, file, size, digest, share_hash, dead,
                 imaged, *origins, certificate, shares),
            )  # fmt: skip
        for pack, rows, album, hash_ in chain.packs:  # those that are here keep their files
            db.execute(
                "INSERT OR IGNORE INTO record_packs VALUES (?, ?, ?, ?, ?, 0, ?, '', 0, x'')",
                (chain.owner, pack, rows, album, hash_, rows),
            )
        for op, kind, position, view, hash_ in chain.ops:
            # the COMMIT's hash, so that this server can confirm it to a peer that only accepted it yet
            db.execute(
                "INSERT INTO changes (owner, op, kind, state, digest, position, view, commit_hash) "
                "VALUES (?, ?, ?, ?, x'', nullif(?, 0), nullif(?, x''), nullif(?, x'')) "
                "ON CONFLICT DO UPDATE SET state=excluded.state, position=excluded.position, view=excluded.view, "
                "commit_hash=excluded.commit_hash, record=x'', votes=x''",
                (chain.owner, op, kind, rules.COMMITTED, position, view, hash_),
            )  # fmt: skip
        db.execute(
            "UPDATE owners SET position=?, view=?, floor=?, floor_view=?, revision=revision+1 WHERE id=?",
            (chain.position, chain.view, chain.floor, chain.floor_view, chain.owner),
        )
        return gone

    def _share_hash(self, shares: bytes) -> bytes:
        """Hash of this server's share, from those of all servers; empty if they are not known."""
        at = 32 * (self._ledger.server - 1)
        return shares[at : at + 32]

    def _prepared_files(self, db: Any, chain: Chain, here: dict[bytes, tuple[Any, ...]]) -> list[str]:
        """Take files of changes that are open here, and that are visible at the peers; those that cannot be used.

        A change may have been written without this server, so that nobody tested what its owner prepared here. Then a
        share counts only if this server's own record says that it was tested, else it is rebuilt; records count only if
        the peers name their hash; images come from another cloud where fetches are private.
        """
        unused: list[str] = []
        packs = {pack[0]: pack for pack in chain.packs}
        for op, record in db.execute(
            "SELECT op, record FROM changes WHERE owner=? AND state IN ('prepared', 'accepted') AND record<>x''",
            (chain.owner,),
        ).fetchall():
            known = msgpack.unpackb(record, strict_map_key=False)
            if op in here or op not in {c[0] for c in chain.ops}:
                continue
            files = set(record_files(known))
            if known.get("records"):  # their hash was compared when they came: they are those of the others, or others
                count = known["rows"] if "rows" in known else count_places(known["places"])
                if packs.get(op) == (op, count, known["album"], known["record_hash"]):
                    self._records.add(db, chain.owner, op, count, known)
                    files.discard(known["records"]["file"])
            tested = bool(known.get("certificate")) and self._ledger.server in known.get("tested", ())
            if "rows" in known and (tested or not self._spare):
                share = known.get("share") or {"file": "", "size": 0, "digest": b""}
                pack = known.get("pack")
                # nobody compared images with what the others have, and private fetches read all of them
                vouched = not (self._spare and self._records.record_bytes)
                told = next((batch[-1] for batch in chain.batches if batch[3] == op), b"")
                imaged = known["imaged"] if vouched else told
                here[op] = (
                    share["file"], share["size"], share["digest"], known["share_hash"], known["rows"], 0, imaged,
                    known.get("certificate", b""),
                )  # fmt: skip
                files.discard(share["file"])
                if pack and vouched:
                    db.execute(
                        "INSERT OR IGNORE INTO packs VALUES (?, ?, ?, 0, ?, ?, ?)",
                        (chain.owner, op, known["rows"], pack["file"], pack["size"], pack["digest"]),
                    )
                    files.discard(pack["file"])
            unused += files
        return unused
