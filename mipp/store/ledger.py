"""Changes of owners at one server: reserved, prepared, accepted, committed or aborted, each step one transaction.

The rules are in ``changes.py``; here they meet the catalog and the files. Everything is keyed by (owner, name): what
one owner names never touches another's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from ..errors import BusyError, ConflictError, NonceReuseError, NotFoundError, OutOfRangeError, StoreError
from ..rpc.chain import Vote, next_view, pack_votes, unpack_dead, unpack_votes
from ..rpc.records import unpack_places
from . import changes as rules
from .attempts import Attempts
from .catalog import Catalog

__all__ = ["Commit", "Ledger", "OpenChange", "record_files"]

#: changes of one owner that may be under way at a server
OPEN_CHANGES = 64
#: seconds that a prepared change waits for its commit
LEASE_SECONDS = 15 * 60.0
Files = dict[str, Callable[[Path], tuple[int, bytes]]]


@dataclass(frozen=True)
class Commit:
    """A COMMIT, as its owner signed it for all servers (``frames``).

    ``servers``: all that the change is written to; ``contents``: hash of what each was given, in their order;
    ``shares``: hash of the share of every server of the deployment.
    """

    owner: bytes
    op: bytes
    kind: str
    position: int
    parent: bytes
    view: bytes
    servers: tuple[int, ...]
    contents: tuple[bytes, ...]
    shares: tuple[bytes, ...]
    hash: bytes
    frames: bytes


@dataclass(frozen=True)
class OpenChange:
    """A change whose outcome is open at this server. ``commit``: signed frames of the COMMIT that it accepted."""

    owner: bytes
    op: bytes
    state: str
    commit: bytes


class Ledger(Attempts):
    """The chain of changes of each owner at one server.

    Parameters
    ----------
    catalog, folder : of the server
    server : its number
    apply : makes a change visible, inside the transaction given; returns files to remove when that is done
    holder : names this process; a change that it reserved waits for its commit while it lives
    alive : whether the process with a name still runs
    """

    def __init__(
        self, catalog: Catalog, folder: Path, server: int, apply: Callable[[Any, Commit, dict[str, Any]], list[str]],
        *, holder: bytes, alive: Callable[[bytes], bool],
    ) -> None:  # fmt: skip
        super().__init__(catalog, folder, holder)
        self.server, self._apply, self._alive = server, apply, alive
        self._deadlines: dict[tuple[bytes, bytes], float] = {}
        self._lock = threading.Lock()

    @property
    def incarnation(self) -> int:
        return self.catalog.counter("incarnation")

    # --- prepare ------------------------------------------------------------------------------------------------

    def prepare(
        self, owner: bytes, op: bytes, kind: str, digest: bytes, record: dict[str, Any],
        check: Callable[[Any], None], files: dict[str, tuple[str, Callable[[Path], tuple[int, bytes]]]] | None = None,
    ) -> None:  # fmt: skip
        """Reserve a change's name, then write its files, then note it as prepared. Nothing is visible yet.

        Parameters
        ----------
        digest : hash of what the owner sent; the same again is fine, also while the first attempt runs
        record : what the commit needs; gets ``file``, ``size`` and ``digest`` of each file under its name in ``files``
        check : raises, inside the transaction, what is wrong with the change at this moment
        files : name in ``record`` -> folder, and a function that writes the file and gives its size and SHA-256

        Raises
        ------
        NonceReuseError
            This owner used the name before, for something else or for what is not there any more.
        StoreError
            The change was rolled back, or the server cannot write.
        """
        wanted = {key: self.attempt_name(room, owner, f"{op.hex()}.0") for key, (room, _) in (files or {}).items()}
        with self.catalog.transaction(sync=False) as db:
            if self._again(db, owner, op, digest, record):
                return
            check(db)
            (under_way,) = db.execute(
                "SELECT count(*) FROM changes WHERE owner=? AND op<>? "
                "AND state IN ('reserved', 'prepared', 'accepted')",
                (owner, op),
            ).fetchone()
            if under_way >= OPEN_CHANGES:
                raise BusyError(f"this owner has {under_way} changes under way; commit or abort them first")
            db.execute(
                "INSERT INTO changes (owner, op, kind, state, digest, holder, record) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET holder=excluded.holder",
                (owner, op, kind, rules.RESERVED, digest, self.holder, msgpack.packb(record)),
            )  # fmt: skip
            self.note(db, owner, wanted.values())
            if not wanted:
                self._prepared(db, owner, op, record)
        self._renew(owner, op)
        if not wanted:
            return
        try:
            for key, name in wanted.items():
                size, sha = (files or {})[key][1](self.folder / name)
                record[key] = {"file": name, "size": size, "digest": sha}
            with self.catalog.transaction(sync=False) as db:
                mine = not self._again(db, owner, op, digest, record)
                if mine:
                    self._prepared(db, owner, op, record)
                    self.keep(db, wanted.values())
        except BaseException:
            self.drop(wanted.values())
            raise
        if not mine:  # another attempt of the same upload was faster; its files are used
            self.drop(wanted.values())
        self._renew(owner, op)

    def _again(self, db: Any, owner: bytes, op: bytes, digest: bytes, record: dict[str, Any]) -> bool:
        """Whether the same change is prepared, or further, already; raises if the name cannot be used."""
        row = db.execute("SELECT state, digest FROM changes WHERE owner=? AND op=?", (owner, op)).fetchone()
        if row is None:
            if self._taken(db, owner, op):
                raise NonceReuseError("another owner used this id before; encrypt again under a new one")
            return False
        state, known = row
        if known != digest and known:
            raise NonceReuseError("this id was used before, for another change; encrypt again under a new one")
        if state == rules.ABORTED:
            raise StoreError("this change was rolled back; upload again under a new id")
        if state == rules.COMMITTED and "rows" in record:
            live = db.execute("SELECT 1 FROM batches WHERE owner=? AND id=?", (owner, op)).fetchone()
            if live is None:
                raise NonceReuseError("this batch id was used before; encrypt again under a new one")
        return state != rules.RESERVED

    def _taken(self, db: Any, owner: bytes, op: bytes) -> bool:
        """Whether another owner made a change of this name, ever: what a user saved would name this owner's rows."""
        return db.execute(
            "SELECT 1 FROM changes WHERE op=? AND owner<>? AND state IN (?, ?)",
            (op, owner, rules.ACCEPTED, rules.COMMITTED),
        ).fetchone() is not None  # fmt: skip

    def _prepared(self, db: Any, owner: bytes, op: bytes, record: dict[str, Any]) -> None:
        db.execute(
            "UPDATE changes SET state=?, record=?, holder=? WHERE owner=? AND op=?",
            (rules.PREPARED, msgpack.packb(record), self.holder, owner, op),
        )

    def _renew(self, owner: bytes, op: bytes) -> None:
        with self._lock:
            self._deadlines[owner, op] = time.monotonic() + LEASE_SECONDS

    # --- votes --------------------------------------------------------------------------------------------------

    def head(self, owner: bytes) -> tuple[int, bytes]:
        """Position and view of the owner's last committed change here."""
        row = self.catalog.one("SELECT position, view FROM owners WHERE id=? AND forget IS NULL", owner)
        if row is None:
            raise NotFoundError(f"unknown or forgotten owner {owner.hex()}")
        return int(row[0]), bytes(row[1])

    def commit(
        self, commit: Commit, content: Callable[[str, bytes, dict[str, Any]], bytes], *, by_peer: bool = False
    ) -> tuple[Vote, int]:
        """Vote on a COMMIT, durably; this server's vote and its counter.

        Parameters
        ----------
        content : facts hash of this server's record of the change (kind, digest, record); what the view must hold
        by_peer : passed on by a server that accepted it: then what is unknown here is refused for ever

        Raises
        ------
        NotFoundError
            Nothing was prepared under this name.
        ConflictError
            Changes before this one are missing here, or another COMMIT of the same change was accepted.
        """
        with self.catalog.transaction() as db:
            row = self._row(db, commit.owner, commit.op)
            head = db.execute(
                "SELECT position, view FROM owners WHERE id=? AND forget IS NULL", (commit.owner,)
            ).fetchone()
            if head is None:
                raise NotFoundError("this owner is unknown or was forgotten")
            rival = db.execute(
                "SELECT 1 FROM changes WHERE owner=? AND state=? AND op<>?", (commit.owner, rules.ACCEPTED, commit.op)
            ).fetchone()
            act = rules.at_commit(
                row.state, row.commit_hash, commit.hash, commit.position, commit.parent, tuple(head), rival is not None
            )
            if act == "unknown":
                if not by_peer:
                    raise NotFoundError("nothing is prepared under this id; prepare the change first")
                act = "never"
            if act == "conflict":
                raise ConflictError("another commit of this change was accepted")
            if act == "behind":
                raise ConflictError("changes before this one are missing at this server; try again when they are there")
            if act == "accept":
                record = msgpack.unpackb(row.record, strict_map_key=False)
                # among fewer servers than the change is written to they were not tested
                tested = record.get("tested") or commit.servers
                certified = record.get("certificate") and set(commit.servers).issubset(tested)
                if self.certified_only and "rows" in record and not certified:
                    if not by_peer:
                        raise OutOfRangeError("the servers have not checked the range of these rows; ask them first")
                    act = "never"
                elif self._taken(db, commit.owner, commit.op) or not self._fits(db, commit, row, record, content):
                    act = "never"
            if act == "accept":
                counter = self.catalog.raise_counter(db)
                mine = Vote(self.server, self.incarnation, commit.hash)
                db.execute(
                    "UPDATE changes SET state=?, position=?, view=?, commit_hash=?, commit_frames=?, votes=? "
                    "WHERE owner=? AND op=?",
                    (rules.ACCEPTED, commit.position, commit.view, commit.hash, commit.frames, pack_votes([mine]),
                     commit.owner, commit.op),
                )  # fmt: skip
                return mine, counter
            if act == "never":
                gone = self._abort(db, commit.owner, commit.op, row)
                vote = Vote(self.server, self.incarnation, b"")
            else:
                gone = []
                vote = Vote(self.server, self.incarnation, row.commit_hash if row.state != rules.ABORTED else b"")
            counter = self.catalog.counter("counter")
        self.drop(gone)
        return vote, counter

    def _fits(
        self, db: Any, commit: Commit, row: _Row, record: dict[str, Any],
        content: Callable[[str, bytes, dict[str, Any]], bytes],
    ) -> bool:  # fmt: skip
        """Whether the COMMIT says of this change what was prepared here."""
        if commit.kind != row.kind or self.server not in commit.servers or len(commit.contents) != len(commit.servers):
            return False
        if commit.contents[commit.servers.index(self.server)] != row.digest:
            return False
        facts = content(row.kind, row.digest, record)
        if commit.view != next_view(commit.owner, commit.position, commit.parent, commit.op, facts):
            return False
        named = {**unpack_dead(record.get("dead", b"")), **unpack_places(record.get("places", b""))}
        for batch, rows in named.items():
            found = db.execute("SELECT rows FROM batches WHERE owner=? AND id=?", (commit.owner, batch)).fetchone()
            if found is None or int(rows.max()) >= found[0]:
                return False
        replaces, moved = record.get("replaces", []), np.frombuffer(record.get("moved", b""), "<i8").reshape(-1, 2)
        for number, batch in enumerate(replaces):
            found = db.execute(
                "SELECT rows, tombstones FROM batches WHERE owner=? AND id=?", (commit.owner, batch)
            ).fetchone()
            rows = moved[moved[:, 0] == number, 1]
            # a record of a deleted row may be gone at one cloud
            if found is None or (len(rows) and int(rows.max()) >= found[0]):
                return False
            if np.isin(rows, np.frombuffer(found[1], "<i8")).any():
                return False
        return True

    def never(self, owner: bytes, op: bytes) -> tuple[Vote, int]:
        """Refuse a change for ever; ConflictError if this server accepted it."""
        with self.catalog.transaction() as db:
            row = self._row(db, owner, op)
            if row.state != rules.ABORTED and not rules.may_refuse(row.state):
                raise ConflictError("this change was accepted; the other servers' votes decide")
            gone = self._abort(db, owner, op, row) if row.state != rules.ABORTED else []
            vote, counter = Vote(self.server, self.incarnation, b""), self.catalog.counter("counter")
        self.drop(gone)
        return vote, counter

    def certify(
        self, owner: bytes, op: bytes, votes: Iterable[tuple[Vote, int]], proofs: Mapping[int, bytes] | None = None
    ) -> str:
        """Note other servers' (verified) votes and their counters; the change's state after that.

        ``proofs``: signed frames of a vote of each server; the newest shows later how far it had come.
        """
        given, proofs = list(votes), proofs or {}
        with self.catalog.transaction() as db:
            row = self._row(db, owner, op)
            if row.state not in rules.OPEN:
                return row.state
            seen = self._incarnations(db)
            for vote, counter in given:
                self._meet(db, vote.server, vote.incarnation, counter, proofs.get(vote.server, b""))
                seen[vote.server] = max(seen.get(vote.server, 0), vote.incarnation)
            known = {*unpack_votes(row.votes), *(v for v, _ in given)}
            if row.state != rules.ACCEPTED:
                # a peer that refused for ever decides, whatever is missing here
                if not rules.refusals(known, seen):
                    raise ConflictError("this server has not accepted the change")
                gone = self._abort(db, owner, op, row)
                state = rules.ABORTED
            else:
                commit = self.parse(row.commit_frames)
                state = rules.outcome(row.commit_hash, commit.servers, known, seen) or rules.ACCEPTED
                gone = []
                if state == rules.COMMITTED:
                    gone = self._apply(db, commit, msgpack.unpackb(row.record, strict_map_key=False))
                    db.execute(
                        "UPDATE changes SET state=?, record=x'', votes=? WHERE owner=? AND op=?",
                        (state, pack_votes(known), owner, op),
                    )
                    # the newest certificate proves what came before it
                    db.execute(
                        "UPDATE changes SET commit_frames=NULL, votes=x'' WHERE owner=? AND position=?",
                        (owner, commit.position - 1),
                    )
                    self.catalog.raise_counter(db)
                elif state == rules.ABORTED:
                    gone = self._abort(db, owner, op, row)
                else:
                    db.execute("UPDATE changes SET votes=? WHERE owner=? AND op=?", (pack_votes(known), owner, op))
        with self._lock:
            self._deadlines.pop((owner, op), None)
        self.drop(gone)
        return state

    def state(self, owner: bytes, op: bytes) -> str:
        """State of a change."""
        row = self.catalog.one("SELECT state FROM changes WHERE owner=? AND op=?", owner, op)
        return rules.NONE if row is None else str(row[0])

    def open(self) -> list[OpenChange]:
        """All changes whose outcome is open here."""
        rows = self.catalog.all(
            "SELECT owner, op, state, commit_frames FROM changes WHERE state NOT IN ('committed', 'aborted')"
        )
        return [OpenChange(r[0], r[1], r[2], r[3] or b"") for r in rows]

    def end_leases(self) -> None:
        """Refuse what nobody will commit any more: its process is gone, or its time is over."""
        now = time.monotonic()
        for owner, op, holder in self.catalog.all(
            "SELECT owner, op, holder FROM changes WHERE state IN ('reserved', 'prepared')"
        ):
            with self._lock:
                end = self._deadlines.setdefault((owner, op), now + LEASE_SECONDS) if holder == self.holder else now
            if now > end or not self._alive(holder):
                with contextlib.suppress(ConflictError):  # it went on meanwhile
                    self._end(owner, op, holder)

    def take_prepared(self) -> None:
        """Take over what an earlier process of this server prepared; its leases begin anew."""
        with self.catalog.transaction() as db:
            db.execute("UPDATE changes SET holder=? WHERE state=?", (self.holder, rules.PREPARED))

    def _end(self, owner: bytes, op: bytes, holder: bytes) -> None:
        with self.catalog.transaction() as db:
            row = self._row(db, owner, op)
            if row.holder != holder or row.state not in (rules.RESERVED, rules.PREPARED):
                return
            gone = self._abort(db, owner, op, row)
        self.drop(gone)

    # --- restored from a backup ---------------------------------------------------------------------------------

    def meet_peer(
        self, server: int, incarnation: int, counter: int = 0, *, proof: bytes = b"", restart: bytes = b""
    ) -> None:
        """Note how far a peer has come; what it voted at earlier incarnations, and is open here, counts no more.

        ``proof``: signed frames in which it says so. ``restart``: those in which it says that it was restored.
        """
        with self.catalog.transaction() as db:
            self._meet(db, server, incarnation, counter, proof)
            if restart:
                db.execute(
                    "UPDATE peers SET restart=? WHERE server=? AND incarnation=?", (restart, server, incarnation)
                )
            for owner, op, votes in db.execute(
                "SELECT owner, op, votes FROM changes WHERE state='accepted' AND votes<>x''"
            ).fetchall():
                left = rules.valid_after_restore(unpack_votes(votes), server, incarnation)
                db.execute("UPDATE changes SET votes=? WHERE owner=? AND op=?", (pack_votes(left), owner, op))

    def peers(self) -> dict[int, tuple[int, int]]:
        """Highest incarnation and counter known of each peer."""
        return {r[0]: (r[1], r[2]) for r in self.catalog.all("SELECT server, incarnation, counter FROM peers")}

    def proofs(self) -> list[bytes]:
        """Signed frames in which peers said how far they had come."""
        return [p for row in self.catalog.all("SELECT proof, restart FROM peers ORDER BY server") for p in row if p]

    def restored(self, incarnation: int) -> None:
        """Begin again after a restore, at a new incarnation. What is open here is refused, unless all were restored.

        What is taken over raises the counter, so the counter alone would not show a restore that was interrupted.
        """
        with self.catalog.transaction() as db:
            self._begin(db, incarnation)
            self.catalog.set_counter(db, "restoring", 1)

    def begin_empty(self) -> None:
        """This store is empty and its server is not new: it promises nothing before it heard all others."""
        with self.catalog.transaction() as db:
            self.catalog.set_counter(db, "restoring", 1)

    def started(self) -> None:
        """Begin again after a start: a new incarnation, at which this server promises again what it accepted.

        What it voted before counts no more at the peers, once they noted the incarnation: a restored backup of which
        they cannot know may lack some of it.
        """
        with self.catalog.transaction() as db:
            self._begin(db, self.incarnation + 1)
            self.catalog.raise_counter(db)

    def _begin(self, db: Any, incarnation: int) -> None:
        """Inside a transaction: begin an incarnation; what is accepted here is promised at it, too."""
        self.catalog.set_counter(db, "incarnation", incarnation)
        for owner, op, hash_, votes in db.execute(
            "SELECT owner, op, commit_hash, votes FROM changes WHERE state=?", (rules.ACCEPTED,)
        ).fetchall():
            known = rules.valid_after_restore(unpack_votes(votes), self.server, incarnation)
            known.append(Vote(self.server, incarnation, hash_))
            db.execute("UPDATE changes SET votes=? WHERE owner=? AND op=?", (pack_votes(known), owner, op))

    def settle_restored(self, owner: bytes, op: bytes) -> None:
        """A change that is open here and unknown or aborted at all peers: refuse it."""
        with self.catalog.transaction() as db:
            gone = self.refuse_open(db, owner, op)
        self.drop(gone)

    def refuse_open(self, db: Any, owner: bytes, op: bytes) -> list[str]:
        """Inside a transaction, after a restore: refuse what is open here, or unknown; files to be removed after."""
        row = self._row(db, owner, op)
        return self._abort(db, owner, op, row) if row.state == rules.NONE or row.state in rules.OPEN else []

    # --- small parts --------------------------------------------------------------------------------------------

    def _incarnations(self, db: Any) -> dict[int, int]:
        known = dict(db.execute("SELECT server, incarnation FROM peers").fetchall())
        known[self.server] = self.incarnation
        return known

    def _meet(self, db: Any, server: int, incarnation: int, counter: int, proof: bytes = b"") -> None:
        if server != self.server:
            db.execute(
                "INSERT INTO peers (server, incarnation, counter, proof) VALUES (?, ?, ?, ?) ON CONFLICT (server) "
                "DO UPDATE SET incarnation=max(incarnation, excluded.incarnation), "
                "proof=iif(excluded.counter>counter AND excluded.proof<>x'', excluded.proof, proof), "
                "counter=max(counter, excluded.counter)", (server, incarnation, counter, proof),
            )  # fmt: skip

    def _row(self, db: Any, owner: bytes, op: bytes) -> _Row:
        row = db.execute(
            "SELECT kind, state, digest, record, holder, commit_hash, commit_frames, votes FROM changes "
            "WHERE owner=? AND op=?", (owner, op),
        ).fetchone()  # fmt: skip
        if row is None:
            return _Row("", rules.NONE, b"", b"", b"", b"", b"", b"")
        return _Row(row[0], row[1], *(c or b"" for c in row[2:]))

    #: whether rows must be certified before their COMMIT is accepted; set by the server
    certified_only = False
    #: reads signed frames of a COMMIT; set by the server, which knows the wire
    parse: Callable[[bytes], Commit]

    def _abort(self, db: Any, owner: bytes, op: bytes, row: _Row) -> list[str]:
        """Inside a transaction: the change is aborted for ever; files of it, to be removed after."""
        db.execute(
            "INSERT INTO changes (owner, op, kind, state, digest) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "state=excluded.state, record=x'', position=NULL, commit_frames=NULL, votes=x''",
            (owner, op, row.kind, rules.ABORTED, row.digest),
        )
        self.catalog.raise_counter(db)
        with self._lock:
            self._deadlines.pop((owner, op), None)
        return record_files(msgpack.unpackb(row.record, strict_map_key=False)) if row.record else []


@dataclass(frozen=True)
class _Row:
    kind: str
    state: str
    digest: bytes
    record: bytes
    holder: bytes
    commit_hash: bytes
    commit_frames: bytes
    votes: bytes


def record_files(record: dict[str, Any]) -> list[str]:
    """Files that a prepared change's record names."""
    return [record[key]["file"] for key in ("share", "pack", "records") if record.get(key)]
