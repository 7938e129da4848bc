"""Owners, users and grants in a server's catalog, and the counters of queries."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import AccessDeniedError, LimitError, NotFoundError, ParameterError, UnknownNameError
from ..rpc.chain import first_view
from ..rpc.invitations import Invitation
from ..rpc.limits import MAX_EVALUATION_KEYS_BYTES
from .catalog import Catalog

__all__ = ["Parties", "check_free", "is_registered", "party_keys"]


class Parties:
    """The tables of owners, users and grants of one server.

    Grants of one owner to one user are ordered by (epoch, version, revoked, id): whatever order servers meet them in,
    all end with the same one, and a revocation wins over a grant of its version.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    # --- owners -------------------------------------------------------------------------------------------------

    def add_owner(
        self, owner: bytes, name: str, sign_key: bytes, registration: bytes, sealed: bytes, frames: bytes,
        issued: int, commitments: bytes, keep: Callable[[bytes], bool], invitation: Invitation | None = None,
    ) -> None:  # fmt: skip
        """Register an owner; again with the same secrets is fine.

        NotFoundError: forgotten; ParameterError: name taken; AccessDeniedError: other secrets than before.

        ``frames``: the signed registration, for servers that miss it; of several the one that was ``issued`` (in
        milliseconds) last is kept. ``commitments``: to the secrets of all servers. ``keep``: whether the sealed secrets
        that are here stay, rather than ``sealed``, which came later or not. ``invitation``: used up by this, for ever;
        AccessDeniedError if another party used it.
        """
        with self.catalog.transaction() as db:
            row = db.execute(
                "SELECT registration, forget, name, commitments, issued, frames, sealed FROM owners WHERE id=?",
                (owner,),
            ).fetchone()
            if row is not None:
                if row[1] is not None:
                    raise NotFoundError("this owner was forgotten; create one with another name")
                if row[0] != registration:
                    raise ParameterError("this owner is registered with another registration nonce")
                if row[2] != name or not row[3]:  # of an earlier version, which had no later ones
                    return
                if not commitments.startswith(row[3]):  # to those of a cloud that joined, too
                    raise AccessDeniedError("this owner is registered with other secrets, which never change")
                if len(commitments) > len(row[3]):
                    db.execute("UPDATE owners SET commitments=? WHERE id=?", (commitments, owner))
                if (issued, frames) > (row[4], row[5]):
                    db.execute("UPDATE owners SET frames=?, issued=? WHERE id=?", (frames, issued, owner))
                    self.catalog.raise_counter(db)
                if not keep(row[6]):
                    db.execute("UPDATE owners SET sealed=? WHERE id=?", (sealed, owner))
                    self.catalog.raise_counter(db)
                return
            check_free(db, "owners", name)
            _use(db, invitation, owner)
            view = first_view(owner, registration)
            db.execute(
                "INSERT INTO owners (id, name, sign_key, registration, sealed, frames, position, view, floor, "
                "floor_view, issued, commitments) VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?, ?)",
                (owner, name, sign_key, registration, sealed, frames, view, view, issued, commitments),
            )
            self.catalog.raise_counter(db)

    def gone_owners(self) -> list[tuple[bytes, str, bytes, bytes]]:
        """Id, name, signing key and registration nonce of owners that were forgotten."""
        rows = self.catalog.all(
            "SELECT id, name, sign_key, registration FROM owners WHERE forget IS NOT NULL ORDER BY id"
        )
        return [(r[0], r[1], r[2], r[3]) for r in rows]

    def add_gone_owner(self, owner: bytes, name: str, sign_key: bytes, registration: bytes) -> None:
        """Know an owner so far that its forget can be checked; its name is no longer anybody's."""
        view = first_view(owner, registration)
        with self.catalog.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO owners (id, name, sign_key, registration, sealed, frames, position, view, "
                "floor, floor_view) VALUES (?, ?, ?, ?, x'', x'', 0, ?, 0, ?)",
                (owner, name, sign_key, registration, view, view),
            )

    def owner(self, owner: bytes) -> tuple[str, bytes, bytes]:
        """Name, signing key and sealed secrets of a registered owner; NotFoundError if unknown or forgotten."""
        row = self.catalog.one("SELECT name, sign_key, sealed, forget FROM owners WHERE id=?", owner)
        if row is None:
            raise NotFoundError(f"unknown owner {owner.hex()}")
        if row[3] is not None:
            raise NotFoundError(f"owner {row[0]} was forgotten")
        return row[0], row[1], row[2]

    def commitments(self, owner: bytes) -> bytes:
        """Commitments to an owner's secrets for each server, one after the other; empty if it gave none."""
        row = self.catalog.one("SELECT commitments FROM owners WHERE id=?", owner)
        return b"" if row is None else bytes(row[0])

    def user_named(self, name: str) -> tuple[str, bytes, bytes]:
        """Name, signing key and X25519 key of the user that is called so; UnknownNameError."""
        row = self.catalog.one("SELECT name, sign_key, box_key FROM users WHERE name=?", name)
        if row is None:
            raise UnknownNameError("the servers know no user with this name")
        return row[0], row[1], row[2]

    def registration(self, owner: bytes) -> tuple[bytes, bytes]:
        """Registration nonce and signing key of an owner, also of one that was forgotten."""
        row = self.catalog.one("SELECT registration, sign_key FROM owners WHERE id=?", owner)
        if row is None:
            raise NotFoundError(f"unknown owner {owner.hex()}")
        return row[0], row[1]

    def forgotten(self) -> list[bytes]:
        """Signed forgets, to pass on to servers that missed them."""
        return [row[0] for row in self.catalog.all("SELECT forget FROM owners WHERE forget IS NOT NULL")]

    def forgotten_ids(self) -> list[bytes]:
        """Owners that were forgotten."""
        return [row[0] for row in self.catalog.all("SELECT id FROM owners WHERE forget IS NOT NULL")]

    def registration_frames(self, owner: bytes) -> bytes:
        """Newest signed registration of an owner; empty if it is not here."""
        row = self.catalog.one("SELECT frames FROM owners WHERE id=? AND forget IS NULL", owner)
        return b"" if row is None else row[0]

    def registrations(self) -> list[bytes]:
        """Signed registrations of owners and users, to pass on to servers that missed them."""
        rows = self.catalog.all("SELECT frames FROM owners WHERE frames<>x'' AND forget IS NULL")
        rows += self.catalog.all("SELECT frames FROM users WHERE frames<>x''")
        return [row[0] for row in rows]

    # --- users --------------------------------------------------------------------------------------------------

    def add_user(
        self, user: bytes, name: str, sign_key: bytes, box_key: bytes, scheme_key: bytes, frames: bytes,
        invitation: Invitation | None = None,
    ) -> None:  # fmt: skip
        """Register a user; again is fine, but not with another key of the scheme. ParameterError: name taken.

        ``invitation``: as of :meth:`add_owner`.
        """
        known = self.catalog.one("SELECT 1 FROM users WHERE id=? AND frames<>x''", user)
        if known is not None and not scheme_key:
            return  # the id is a hash of the keys: nothing can differ
        with self.catalog.transaction() as db:
            if not db.execute("SELECT 1 FROM users WHERE id=?", (user,)).fetchone():
                check_free(db, "users", name)
                _use(db, invitation, user)
            db.execute(
                "INSERT INTO users (id, name, sign_key, box_key, frames) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET frames=excluded.frames "
                "WHERE users.frames=x''", (user, name, sign_key, box_key, frames),
            )  # fmt: skip
            if scheme_key:
                db.execute("INSERT OR IGNORE INTO paillier_keys VALUES (?, ?)", (user, scheme_key))
                kept = db.execute("SELECT key FROM paillier_keys WHERE user=?", (user,)).fetchone()
                if kept[0] != scheme_key:
                    raise ParameterError("this user is registered with another key of the scheme")

    def note_out_of_range(self, user: bytes) -> int:
        """Count a query that was out of the encoding's range: its user bypasses its client. How many so far."""
        with self.catalog.transaction() as db:
            db.execute("UPDATE users SET out_of_range=out_of_range+1 WHERE id=?", (user,))
            row = db.execute("SELECT out_of_range FROM users WHERE id=?", (user,)).fetchone()
        return int(row[0]) if row else 0

    def scheme_key(self, user: bytes) -> bytes:
        """The public key of the scheme that a user registered, or its evaluation key; NotFoundError.

        A damaged evaluation key is dropped, so that the user's next search brings another one.
        """
        row = self.catalog.one("SELECT key FROM paillier_keys WHERE user=?", user)
        key = self._evaluation_key(user) if row is None else bytes(row[0])
        if key is None:
            raise NotFoundError(f"unknown user {user.hex()}, or one without a key of the scheme")
        return key

    def _evaluation_key(self, user: bytes) -> bytes | None:
        """A user's evaluation key; None if it is not here, or was damaged and is not here any more."""
        row = self.catalog.one("SELECT key, digest FROM evaluation_keys WHERE user=?", user)
        if row is None or hashlib.sha256(row[0]).digest() == row[1]:
            return None if row is None else bytes(row[0])
        with self.catalog.transaction() as db:  # another process may have a whole one by now, with another digest
            db.execute("DELETE FROM evaluation_keys WHERE user=? AND digest=?", (user, row[1]))
        return None

    def has_evaluation_key(self, user: bytes) -> bool:
        """Whether a user's evaluation key is here. That it is whole is seen when it is read: it has megabytes."""
        return self.catalog.one("SELECT 1 FROM evaluation_keys WHERE user=?", user) is not None

    def damaged_evaluation_keys(self) -> list[bytes]:
        """Users whose evaluation keys are not as they were written. Reads all of them."""
        read, damaged = "SELECT key, digest FROM evaluation_keys WHERE user=?", []
        for (user,) in self.catalog.all("SELECT user FROM evaluation_keys"):
            row = self.catalog.one(read, user)
            if row is not None and hashlib.sha256(row[0]).digest() != row[1]:
                damaged.append(user)
        return damaged

    def add_evaluation_key(self, user: bytes, key: bytes, granted: Callable[[bytes], bool]) -> None:
        """Keep a user's evaluation key, unless there is one; LimitError if there is no room.

        ``granted``: whether a user has a grant in force. Keys of others give way: they bring them again.
        """
        with self.catalog.transaction() as db:
            if self.has_evaluation_key(user):
                return
            size = "SELECT coalesce(sum(length(key)), 0) FROM evaluation_keys"
            if db.execute(size).fetchone()[0] + len(key) > MAX_EVALUATION_KEYS_BYTES:
                kept = db.execute("SELECT user FROM evaluation_keys").fetchall()
                idle = [row for row in kept if not granted(row[0])]
                db.executemany("DELETE FROM evaluation_keys WHERE user=?", idle)
                if db.execute(size).fetchone()[0] + len(key) > MAX_EVALUATION_KEYS_BYTES:
                    raise LimitError("this server has no room for another user's evaluation key; ask its operator")
            db.execute("INSERT INTO evaluation_keys VALUES (?, ?, ?)", (user, key, hashlib.sha256(key).digest()))

    def user(self, user: bytes) -> tuple[str, bytes, bytes]:
        """Name, signing key and X25519 key of a registered user."""
        row = self.catalog.one("SELECT name, sign_key, box_key FROM users WHERE id=?", user)
        if row is None:
            raise NotFoundError(f"unknown user {user.hex()}")
        return row[0], row[1], row[2]

    def invited_limits(self, party: bytes) -> tuple[int | None, int | None, int | None]:
        """Rows, bytes and requests a minute of the invitation that a party registered with; None: it sets no limit."""
        row = self.catalog.one("SELECT rows, bytes, requests FROM invitations WHERE party=?", party)
        return (None, None, None) if row is None else (row[0], row[1], row[2])

    def gone_invitations(self) -> list[tuple[bytes, bytes]]:
        """Invitations of owners that were forgotten, and these owners: nobody uses them again."""
        return self.catalog.all(
            "SELECT i.id, i.party FROM invitations i JOIN owners o ON o.id = i.party WHERE o.forget IS NOT NULL"
        )

    def add_gone_invitations(self, used: Iterable[tuple[bytes, bytes]]) -> None:
        """Know invitations that owners used who are forgotten here."""
        with self.catalog.transaction() as db:
            for invitation, owner in used:
                db.execute(
                    "INSERT OR IGNORE INTO invitations SELECT ?, id, NULL, NULL, NULL FROM owners "
                    "WHERE id=? AND forget IS NOT NULL", (invitation, owner),
                )  # fmt: skip

    # --- grants -------------------------------------------------------------------------------------------------

    def put_grant(self, owner: bytes, user: bytes, order: tuple[int, int, bool], grant: bytes, frames: bytes) -> None:
        """Keep a grant if it is newer than what is here; an older one is refused, the same one is fine.

        ``order``: epoch, version, whether it revokes. A new grant's queries are counted from nothing.
        """
        epoch, version, revoked = order
        with self.catalog.transaction() as db:
            if db.execute("SELECT 1 FROM owners WHERE id=? AND forget IS NULL", (owner,)).fetchone() is None:
                raise NotFoundError("this owner is unknown or was forgotten")
            row = db.execute(
                "SELECT epoch, version, revoked, id FROM grants WHERE owner=? AND user=?", (owner, user)
            ).fetchone()
            new = (epoch, version, int(revoked), grant)
            if row is not None and tuple(row) == new:
                return
            if row is not None and new < tuple(row):
                raise AccessDeniedError(f"a grant of version {row[1]} is in force; version {version} is too old")
            db.execute(
                "INSERT OR REPLACE INTO grants (owner, user, version, revoked, id, frames, epoch) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)", (owner, user, version, int(revoked), grant, frames, epoch),
            )  # fmt: skip
            self.catalog.raise_counter(db)

    def grants(self, *, owner: bytes | None = None, user: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """(id, signed frames) of grants of an owner, or in force to a user, sorted by the other.

        Those of an earlier epoch are suspended: not in force until their owner signs them again.
        """
        if owner is not None:
            rows = self.catalog.all("SELECT id, frames FROM grants WHERE owner=? ORDER BY user", owner)
        else:
            rows = self.catalog.all(
                "SELECT id, frames FROM grants WHERE user=? AND epoch=(SELECT value FROM counters WHERE name='epoch') "
                "ORDER BY owner", user,
            )  # fmt: skip
        return [(row[0], row[1]) for row in rows]

    def all_grants(self) -> list[bytes]:
        """Signed grants of this epoch, to pass on to servers that missed them."""
        epoch = self.catalog.counter("epoch")
        return [row[0] for row in self.catalog.all("SELECT frames FROM grants WHERE epoch=?", epoch)]

    def suspended(self, user: bytes) -> int:
        """How many grants to a user are of an earlier epoch."""
        row = self.catalog.one(
            "SELECT count(*) FROM grants WHERE user=? AND revoked=0 AND "
            "epoch<(SELECT value FROM counters WHERE name='epoch')", user,
        )  # fmt: skip
        return 0 if row is None else int(row[0])

    def count_queries(self, user: bytes, used: list[tuple[bytes, bytes, int]], queries: int) -> None:
        """Add ``queries`` to each (owner, grant, quota), all or none; AccessDeniedError if one is used up."""
        self._count("used", user, used, queries, "the quota of queries of a grant is used up")

    def _count(self, column: str, user: bytes, used: list[tuple[bytes, bytes, int]], more: int, refusal: str) -> None:
        limited = [one for one in used if one[2]]
        if not limited:
            return
        with self.catalog.transaction() as db:
            for owner, grant, quota in limited:
                done = db.execute(
                    f"UPDATE grants SET {column}={column}+? WHERE owner=? AND user=? AND id=? AND {column}+?<=?",
                    (more, owner, user, grant, more, quota),
                )
                if done.rowcount != 1:
                    raise AccessDeniedError(refusal)
            self.catalog.raise_counter(db)

    def count_fetched(self, user: bytes, fetched: list[tuple[bytes, bytes, int]], records: int) -> None:
        """Add ``records`` to each (owner, grant, limit), all or none; AccessDeniedError if one is used up."""
        self._count("fetched", user, fetched, records, "the records that a grant lets this user fetch are used up")

    def queries_left(self, owner: bytes, user: bytes, grant: bytes, quota: int) -> int:
        """How many queries a grant's quota still allows, -1 without one."""
        if not quota:
            return -1
        row = self.catalog.one("SELECT used FROM grants WHERE owner=? AND user=? AND id=?", owner, user, grant)
        return max(0, quota - (row[0] if row else 0))

    def ahead(self) -> dict[bytes, int]:
        """Latest times of issue (milliseconds) of requests whose signers' clocks were ahead of this server's."""
        return {r[0]: r[1] for r in self.catalog.all("SELECT signer, issued FROM ahead")}

    def note_ahead(self, signer: bytes, issued: int) -> None:
        """Note durably that requests up to a time of issue were served."""
        with self.catalog.transaction() as db:
            db.execute("INSERT OR REPLACE INTO ahead VALUES (?, ?)", (signer, issued))

    def take_epoch(self, epoch: int) -> None:
        """Know the epoch of the others' grants."""
        with self.catalog.transaction() as db:
            self.catalog.set_counter(db, "epoch", epoch)

    def begin_epoch(self, epoch: int, counter: int) -> None:
        """Take an epoch of grants, and go on from a counter that was seen before a restore, which ends."""
        with self.catalog.transaction() as db:
            self.catalog.set_counter(db, "epoch", epoch)
            self.catalog.set_counter(db, "restoring", 0)
            db.execute("UPDATE counters SET value=max(value, ?) WHERE name='counter'", (counter,))
            self.catalog.raise_counter(db)

    def used(self) -> list[tuple[bytes, bytes, int]]:
        """(owner, grant, queries counted) of all grants that were used."""
        rows = self.catalog.all("SELECT owner, id, used FROM grants WHERE used>0")
        return [(r[0], r[1], r[2]) for r in rows]

    def fetched(self) -> list[tuple[bytes, bytes, int]]:
        """(owner, grant, records counted) of all grants that records were fetched by."""
        rows = self.catalog.all("SELECT owner, id, fetched FROM grants WHERE fetched>0")
        return [(r[0], r[1], r[2]) for r in rows]

    def adopt_used(self, used: list[tuple[bytes, bytes, int]], fetched: list[tuple[bytes, bytes, int]]) -> None:
        """Raise counts to what a peer counted (after a restore from a backup)."""
        with self.catalog.transaction() as db:
            for column, counts in (("used", used), ("fetched", fetched)):
                for owner, grant, count in counts:
                    db.execute(
                        f"UPDATE grants SET {column}=max({column}, ?) WHERE owner=? AND id=?", (count, owner, grant)
                    )

    def _drop_owner(self, db: Any, owner: bytes, frames: bytes) -> None:
        # all servers show the same of a forgotten owner, whatever each had last
        row = db.execute("SELECT registration FROM owners WHERE id=?", (owner,)).fetchone()
        view = first_view(owner, row[0] if row else b"")
        db.execute(
            "UPDATE owners SET sealed=x'', frames=x'', forget=coalesce(forget, ?), position=0, view=?, floor=0, "
            "floor_view=?, revision=revision+1 WHERE id=?",
            (frames, view, view, owner),
        )
        db.execute("DELETE FROM grants WHERE owner=?", (owner,))
        self.catalog.raise_counter(db)


def check_free(db: sqlite3.Connection, table: str, name: str) -> None:
    """ParameterError if a registered party of ``table`` has this name, upper and lower case taken as one.

    The name of a forgotten owner is free again.
    """
    where = " WHERE forget IS NULL" if table == "owners" else ""
    if name.casefold() in {row[0].casefold() for row in db.execute(f"SELECT name FROM {table}{where}")}:
        raise ParameterError(f"the name {name!r} is taken; choose another")


def _use(db: sqlite3.Connection, invitation: Invitation | None, party: bytes) -> None:
    """Inside a transaction: note that a new party used its invitation; AccessDeniedError if another one did before."""
    if invitation is None:
        return
    if db.execute("SELECT 1 FROM invitations WHERE id=?", (invitation.id,)).fetchone():
        raise AccessDeniedError("this invitation was used by another party; ask the registrar for a new one")
    db.execute(
        "INSERT INTO invitations VALUES (?, ?, ?, ?, ?)",
        (invitation.id, party, invitation.max_rows, invitation.max_bytes, invitation.requests),
    )


def is_registered(catalog: Catalog, party: bytes) -> bool:
    """Whether an owner (also a forgotten one) or a user has this id."""
    return catalog.one("SELECT 1 FROM owners WHERE id=? UNION SELECT 1 FROM users WHERE id=?", party, party) is not None


def party_keys(catalog: Catalog, party: bytes) -> tuple[str, bytes, bytes]:
    """Name, signing key, and an owner's registration or a user's X25519 key; NotFoundError if there is no such party.

    The id of a party is the hash of the latter two.
    """
    row = catalog.one("SELECT name, sign_key, registration FROM owners WHERE id=?", party)
    row = row or catalog.one("SELECT name, sign_key, box_key FROM users WHERE id=?", party)
    if row is None:
        raise NotFoundError(f"unknown party {party.hex()}")
    return row[0], row[1], row[2]
