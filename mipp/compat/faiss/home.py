"""The folder of one index: a deployment, and the ids of each batch. Whoever reads the folder has all keys and rows.

``index.sqlite`` has one row of facts and one row per batch, in the order of adding. The row of a batch is written
before the upload and completed after it: if a crash comes between, opening the folder completes the row.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...client.index import Index
from ...client.owner import ImageOwner
from ...client.user import User
from ...crypto.schedule import random_bytes
from ...deployment import Deployment
from ...encoding import Encoding
from ...errors import DeploymentError, MippError, ParameterError, StoreError

__all__ = ["Defaults", "Home", "Settings", "temporary_folder"]

#: faiss's numbers of metrics; each is a place in METRICS, the names of mipp
METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1
METRICS = ("ip", "l2")
FORMAT, VERSION = "mipp faiss index", 1
DATABASE, DEPLOYMENT, LOCK = "index.sqlite", "deployment", "lock"
USER = "user"
#: folders of deployments: the first, and those that took its place
_DEPLOYMENTS = re.compile(r"deployment(-[0-9a-f]{8})?")
_GONE = ".gone-"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (one INTEGER PRIMARY KEY CHECK (one = 1), text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (seq INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, rows INTEGER NOT NULL,
    batch BLOB UNIQUE, ids BLOB);
"""


@dataclass
class Settings:
    """Facts of an index.

    ``fixed_ids``: ids are the caller's, also while the index is empty; ``declared``: the encoding is the caller's and
    stays; ``place``: name of the deployment's folder.
    """

    metric: int
    d: int
    ring_bits: int
    ranking: str
    fixed_ids: bool = False
    encoding: Encoding | None = None
    declared: bool = False
    place: str = DEPLOYMENT

    @property
    def rankings(self) -> list[str]:
        """Rankings of the deployment. Servers that rank also compare with thresholds, for searches by radius."""
        return ["server", "threshold"] if self.ranking == "server" else [self.ranking]

    def to_json(self) -> str:
        encoding = None if self.encoding is None else self.encoding.to_dict()
        data = {**vars(self), "encoding": encoding}
        # later fields are left out where they say nothing, so that earlier releases read the index
        for name in ("declared", "place"):
            if data[name] == getattr(type(self), name):
                del data[name]
        return json.dumps({"format": FORMAT, "version": VERSION, **data})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Inverse of :meth:`to_json`; DeploymentError for anything else."""
        try:
            data: Any = json.loads(text)
            if (data.pop("format"), data.pop("version")) != (FORMAT, VERSION):
                raise DeploymentError("the index is of another format version")
            encoding = data.pop("encoding")
            found = cls(**data, encoding=None if encoding is None else Encoding.from_dict(encoding))
            counts = found.metric, found.d, found.ring_bits
            known = found.metric in (0, 1) and found.d > 0 and found.ring_bits in (0, 16, 32, 64)
            known = known and type(found.declared) is type(found.fixed_ids) is bool
            known = known and _DEPLOYMENTS.fullmatch(found.place) is not None
            if not known or found.ranking not in ("user", "server") or any(type(c) is not int for c in counts):
                raise ValueError
            return found
        except DeploymentError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DeploymentError("the description of the index is corrupt") from None


class Defaults:
    """``threads``: native threads of indexes that are opened without a number of them; None: all cores."""

    threads: int | None = None


@dataclass(frozen=True)
class _Batch:
    owner: str
    place: int
    ids: npt.NDArray[np.int64] | None


class _Parts:
    """Open files of a home, apart from it so that they are closed when it is collected."""

    def __init__(self, folder: Path, temporary: bool) -> None:
        self.folder, self.temporary, self.process = folder, temporary, os.getpid()
        self.deployment: Deployment | None = None
        self.database: sqlite3.Connection | None = None
        self.lock = -1

    def close(self) -> None:
        if os.getpid() != self.process:
            return  # a forked child ends; the folder is its parent's
        if self.deployment is not None:
            self.deployment.close()
        if self.database is not None:
            self.database.close()
        if self.lock >= 0:
            os.close(self.lock)
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


class Home:
    """One index on disk, open in this process only.

    Parameters
    ----------
    folder : made if missing
    settings : of a new index; None to open one
    temporary : the folder is deleted with this object

    Raises
    ------
    DeploymentError
        The folder holds an index already, or none; it is open elsewhere; it is of another format.
    """

    def __init__(
        self, folder: Path, settings: Settings | None, *, temporary: bool = False, threads: int | None = None
    ) -> None:
        self.folder, self.threads = folder, Defaults.threads if threads is None else threads
        #: held by whoever changes or reads the index
        self.lock = threading.RLock()
        self._parts = _Parts(folder, temporary)
        self._finalizer = weakref.finalize(self, self._parts.close)
        self._batches: dict[bytes, _Batch] = {}
        self._owners: dict[str, ImageOwner] = {}
        self._user: User | None = None
        self._labels: tuple[Index, bool, npt.NDArray[np.int64]] | None = None
        self.live = 0
        #: rows that the encoding was judged by, and the shortest of them; as if there were none when a home is opened
        self.judged, self.shortest = 0, float("inf")
        try:
            if settings is None and not (folder / DATABASE).is_file():
                raise DeploymentError(f"{folder} holds no index")
            self._take_lock()
            if settings is not None and (folder / DATABASE).exists():
                raise DeploymentError(f"{folder} already holds an index; open it with open_index")
            self._open_database(settings)
            for gone in folder.glob(f"{_GONE}*"):
                shutil.rmtree(gone)
            for path in folder.iterdir():  # a new encoding was cut off, or the end of an old one
                if _DEPLOYMENTS.fullmatch(path.name) and path.name != self.settings.place:
                    self._delete(path)
            if (self._place / "deployment.json").is_file():
                self._open_deployment(Deployment.open(self._place, threads=self.threads))
            else:  # none yet; or a reset, or making one, was cut off
                self.reset()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise DeploymentError(f"{self.folder} is no folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._parts.lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._parts.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeploymentError(f"the index in {self.folder} is open elsewhere") from None
        except OSError as error:
            raise StoreError(f"cannot open {self.folder}: {error.strerror}") from None

    def _open_database(self, settings: Settings | None) -> None:
        path = self.folder / DATABASE
        try:
            if settings is not None:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            db = self._parts.database = sqlite3.connect(path, timeout=60, check_same_thread=False)
            if settings is not None:
                with db:
                    db.executescript(_SCHEMA)
                    db.execute("INSERT INTO facts VALUES (1, ?)", (settings.to_json(),))
            row = db.execute("SELECT text FROM facts").fetchone()
            if row is None:
                raise DeploymentError(f"{self.folder} holds no index")
            self.settings = Settings.from_json(row[0])
            for seq, owner, batch, ids in db.execute("SELECT seq, owner, batch, ids FROM batches ORDER BY seq"):
                if batch is not None:
                    self._batches[batch] = _Batch(owner, seq, _ids_of(ids))
        except sqlite3.Error as error:
            raise DeploymentError(f"{path} is damaged: {error}") from None

    def _open_deployment(self, deployment: Deployment) -> None:
        self._parts.deployment = deployment
        if deployment.config.encoding != self.settings.encoding:
            raise DeploymentError(f"{self.folder}: the deployment is of another encoding than the index")
        known = USER in deployment.users()
        self._user = deployment.user(USER) if known else deployment.create_user(USER)
        for name in deployment.owners():
            self._settle(self.owner(name))
        self.live = self._user.index().total if self._owners else 0

    # --- state --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all files; a temporary folder is deleted."""
        self._finalizer()

    @property
    def _db(self) -> sqlite3.Connection:
        if not self._finalizer.alive or self._parts.database is None:
            raise DeploymentError("the index is closed")
        if os.getpid() != self._parts.process:
            raise DeploymentError("the index was opened before a fork, and only that process uses it")
        return self._parts.database

    def _write(self, sql: str, *values: object) -> int:
        try:
            with self._db as db:
                return int(db.execute(sql, values).lastrowid or 0)
        except sqlite3.Error as error:
            raise StoreError(f"cannot write {self.folder / DATABASE}: {error}") from None

    def save(self) -> None:
        """Write changed settings."""
        self._write("UPDATE facts SET text=?", self.settings.to_json())

    @property
    def ids(self) -> str:
        """ "flat" where ids are places, "map" where they are the caller's, "" while that is open."""
        if self.settings.fixed_ids:
            return "map"
        first = next(iter(self._batches.values()), None)
        return "" if first is None else "flat" if first.ids is None else "map"

    @property
    def deployment(self) -> Deployment:
        """The deployment, made when it is first needed: the encoding must be fixed by then."""
        self._db  # noqa: B018  (raises if closed)
        if self._parts.deployment is None:
            if self.settings.encoding is None:
                raise ParameterError("the index has no encoding yet: train it or add to it first")
            made = self._made(self._place, self.settings.encoding)
            self._open_deployment(made)
        assert self._parts.deployment is not None
        return self._parts.deployment

    def _made(self, folder: Path, encoding: Encoding) -> Deployment:
        return Deployment.create(folder, encoding, rankings=self.settings.rankings, threads=self.threads)

    @property
    def _place(self) -> Path:
        return self.folder / self.settings.place

    @property
    def user(self) -> User:
        self.deployment  # noqa: B018  (makes the user)
        assert self._user is not None
        return self._user

    def owner(self, name: str) -> ImageOwner:
        """The owner called ``name``, made and granting to the user if new."""
        if name not in self._owners:
            deployment = self.deployment
            self._owners[name] = self._owner_of(deployment, self.user, name)
        return self._owners[name]

    def _owner_of(self, deployment: Deployment, user: User, name: str) -> ImageOwner:
        owner = deployment.owner(name) if name in deployment.owners() else deployment.create_owner(name)
        if not owner.grants():
            owner.grant(user.id, rankings=deployment.config.offered)
        return owner

    # --- rows ---------------------------------------------------------------------------------------------------

    def add(self, x: np.ndarray, ids: npt.NDArray[np.int64] | None, name: str) -> None:
        """Upload one batch of an owner: all rows or none."""
        owner = self.owner(name)
        place = self._write("INSERT INTO batches (owner, rows, ids) VALUES (?, ?, ?)", name, len(x), _bytes_of(ids))
        try:
            batch = owner.add_vectors(x)[0][0]
        except BaseException:
            with contextlib.suppress(MippError):
                self._settle(owner)
            raise
        self._batches[batch] = _Batch(name, place, ids)
        self.live += len(x)
        self._write("UPDATE batches SET batch=? WHERE seq=?", batch, place)

    def _settle(self, owner: ImageOwner) -> None:
        """Complete or drop the line of an upload that was cut off."""
        open_lines = self._db.execute(
            "SELECT seq, rows, ids FROM batches WHERE batch IS NULL AND owner=? ORDER BY seq", (owner.name,)
        ).fetchall()
        unknown = [b for b in owner.batches() if b.id not in self._batches]
        for seq, rows, ids in open_lines:
            if unknown and unknown[0].rows == rows:
                batch = unknown.pop(0)
                self._write("UPDATE batches SET batch=? WHERE seq=?", batch.id, seq)
                self._batches[batch.id] = _Batch(owner.name, seq, _ids_of(ids))
                self.live += batch.live
            else:
                self._write("DELETE FROM batches WHERE seq=?", seq)
        if unknown:
            raise DeploymentError(f"the deployment holds rows of {owner.name} that were not added by this index")

    def encode_again(self, encoding: Encoding) -> None:
        """Decrypt all rows, encode them by another encoding and encrypt them under new keys of all parties.

        All of it, or nothing changes: the new deployment is complete on disk before one transaction puts it in the
        place of the old one.
        """
        settings = replace(self.settings, encoding=encoding, place=f"{DEPLOYMENT}-{random_bytes(4).hex()}")
        made = self._made(self.folder / settings.place, encoding)
        try:
            user, owners, batches = made.create_user(USER), {}, {}
            for batch, rows in self.parts():
                if batch.owner not in owners:
                    owners[batch.owner] = self._owner_of(made, user, batch.owner)
                batches[owners[batch.owner].add_vectors(rows)[0][0]] = batch, len(rows)
            try:
                with self._db as db:
                    db.execute("DELETE FROM batches")
                    db.executemany(
                        "INSERT INTO batches (seq, owner, rows, batch, ids) VALUES (?, ?, ?, ?, ?)",
                        [(b.place, b.owner, count, new, _bytes_of(b.ids)) for new, (b, count) in batches.items()],
                    )
                    db.execute("UPDATE facts SET text=?", (settings.to_json(),))
            except sqlite3.Error as error:
                raise StoreError(f"cannot write {self.folder / DATABASE}: {error}") from None
        except BaseException:
            made.close()
            shutil.rmtree(self.folder / settings.place, ignore_errors=True)
            raise
        old, before = self._parts.deployment, self._place
        self.settings, self._parts.deployment, self._user, self._owners = settings, made, user, owners
        self._batches, self._labels = {new: batch for new, (batch, _) in batches.items()}, None
        if old is not None:
            old.close()
        if before.is_dir():
            self._delete(before)

    def _live_batches(self) -> list[bytes]:
        """Batches that have rows left, in the order of adding."""
        if not self.live:
            return []
        index = self.user.index()
        self.labels(index, mapped=False)  # raises for batches of others
        found = np.unique(index.locate(np.arange(index.total))[0])
        return sorted((index.batches[b].tobytes() for b in found), key=lambda raw: self._batches[raw].place)

    def parts(self) -> Iterator[tuple[_Batch, np.ndarray]]:
        """Each batch that has rows left, in the order of adding, with the ids and features of those."""
        for raw in self._live_batches():
            batch = self._batches[raw]
            numbers, rows = self.owner(batch.owner).rows_of(raw)
            yield replace(batch, ids=None if batch.ids is None else batch.ids[numbers]), rows

    def all_rows(self) -> np.ndarray:
        """(live, d) features of all rows, decrypted by their owners."""
        return np.concatenate([*(rows for _, rows in self.parts()), np.empty((0, self.settings.d))])

    def labels(self, index: Index, mapped: bool) -> npt.NDArray[np.int64]:
        """(total,) ids of the live rows of ``index`` in its order: the caller's if ``mapped``, else places."""
        if self._labels is None or self._labels[0] is not index or self._labels[1] is not mapped:
            try:
                batches = [self._batches[b.tobytes()] for b in index.batches]
            except KeyError:
                raise DeploymentError("the deployment holds rows that were not added by this index") from None
            batch, row = index.locate(np.arange(index.total))
            if mapped:
                parts = [b.ids for b in batches if b.ids is not None]
                starts = np.concatenate([[0], np.cumsum([len(p) for p in parts])])
                labels = np.concatenate([*parts, np.empty(0, np.int64)])[starts[batch] + row]
            else:
                # ids are places among the rows that are left, in the order of adding
                order = np.argsort(np.array([b.place for b in batches], np.int64)[batch], kind="stable")
                labels = np.empty(index.total, np.int64)
                labels[order] = np.arange(index.total)
            self._labels = index, mapped, labels
        return self._labels[2]

    def remove(self, index: Index, positions: npt.NDArray[np.int64]) -> None:
        """Delete live rows of ``index``, each by its owner."""
        batch, row = index.locate(positions)
        by_owner: dict[str, list[tuple[bytes, int]]] = {}
        for b, r in zip(batch.tolist(), row.tolist(), strict=True):
            raw = index.batches[b].tobytes()
            by_owner.setdefault(self._batches[raw].owner, []).append((raw, r))
        for name, pairs in by_owner.items():
            self.owner(name).delete(pairs)
            self.live -= len(pairs)

    def rows(self, index: Index, positions: npt.NDArray[np.int64]) -> np.ndarray:
        """Features (N, d) of live rows of ``index``, fetched and decrypted by their owners."""
        out = np.empty((len(positions), self.settings.d))
        batch, row = index.locate(positions)
        for b in np.unique(batch):
            raw = index.batches[b].tobytes()
            numbers, features = self.owner(self._batches[raw].owner).rows_of(raw)
            here = batch == b
            out[here] = features[np.searchsorted(numbers, row[here])]
        return out

    def reset(self) -> None:
        """Delete the deployment with all keys and rows; settings stay."""
        if self._parts.deployment is not None:
            self._parts.deployment.close()
            self._parts.deployment = self._user = self._labels = None
            self._owners.clear()
        try:
            if self._place.is_dir():
                self._delete(self._place)
        except OSError as error:
            raise StoreError(f"cannot delete the rows in {self.folder}: {error.strerror}") from None
        self._forget_batches()

    def _delete(self, deployment: Path) -> None:
        """Delete a folder under another name, so that half of a deployment is never taken for a whole one."""
        gone = Path(tempfile.mkdtemp(prefix=_GONE, dir=self.folder))
        os.rename(deployment, gone / DEPLOYMENT)
        shutil.rmtree(gone)

    def _forget_batches(self) -> None:
        self._write("DELETE FROM batches")
        self._batches.clear()
        self.live, self.judged, self.shortest = 0, 0, float("inf")


def temporary_folder() -> Path:
    """A new one, for this user only; StoreError if there is no room for it."""
    try:
        return Path(tempfile.mkdtemp(prefix="mipp-index-"))
    except OSError as error:
        raise StoreError(f"cannot make a folder for the index: {error.strerror}") from None


def _bytes_of(ids: npt.NDArray[np.int64] | None) -> bytes | None:
    return None if ids is None else ids.astype("<i8").tobytes()


def _ids_of(raw: bytes | None) -> npt.NDArray[np.int64] | None:
    return None if raw is None else np.frombuffer(raw, "<i8").astype(np.int64)
