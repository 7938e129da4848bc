"""Builds an index from a data set's rows, in the memory of two batches, and opens it again.

A folder holds ``index.json`` (facts), ``lock`` and ``deployment`` (all parties, **all secret keys**). The facts are
written first, and say at the end that the index is complete. A build that was cut off goes on: batches whose content is
in the index are skipped.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...deployment import Deployment
from ...encoding import Encoding
from ...encoding.finest import finest, finest_unit
from ...errors import DeploymentError, EncodingError, ParameterError, StoreError
from ...io.durable import replace_file
from ...io.files import system_text
from ..ann_benchmarks.common import prepared
from ..faiss.fitting import encoding_for
from .dataset import blocks_of

__all__ = ["METRICS", "Facts", "build", "open_index", "remove"]

#: metrics of big-ann-benchmarks, and those of encodings
METRICS = {"euclidean": "l2", "ip": "ip", "angular": "ip"}
OWNER, USER = "owner", "user"
_FACTS, _DEPLOYMENT, _LOCK, _DESCRIPTION = "index.json", "deployment", "lock", "deployment.json"
_FORMAT, _VERSION = "mipp big-ann-benchmarks index", 1
_MOST_FACTS = 1 << 16


@dataclass(frozen=True)
class Facts:
    """An index is opened for the same facts only."""

    dataset: str
    rows: int
    dim: int
    metric: str
    ring_bits: int
    rankings: tuple[str, ...]

    @property
    def ranked_by_servers(self) -> bool:
        return "server" in self.rankings


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Descriptor that locks a folder for this process; closed if the block fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open {folder}: {system_text(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError:
        os.close(lock)
        raise DeploymentError(f"the index in {folder} is open elsewhere") from None
    except BaseException:
        os.close(lock)
        raise


def _read(folder: Path) -> dict[str, Any] | None:
    """What the facts' file says; None if there is none."""
    try:
        with open(folder / _FACTS, "rb") as file:
            said = json.loads(file.read(_MOST_FACTS))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or (said.get("format"), said.get("version")) != (_FORMAT, _VERSION):
        raise DeploymentError(f"{folder}: the facts of the index are damaged, or of another version")
    return said


def _write(folder: Path, facts: Facts, first: str, complete: bool) -> None:
    said = {"format": _FORMAT, "version": _VERSION, **asdict(facts), "first": first, "complete": complete}
    replace_file(folder / _FACTS, json.dumps(said).encode())


def _require_same(folder: Path, said: dict[str, Any], facts: Facts) -> None:
    for name, value in asdict(facts).items():
        there = said.get(name)
        if there != (list(value) if isinstance(value, tuple) else value):
            raise DeploymentError(f"{folder} holds an index of another {name}: {str(there)[:100]}, not {value}")


def open_index(folder: Path, facts: Facts, threads: int | None) -> tuple[Deployment, int] | None:
    """The deployment and the lock of a complete index; None if there is none. DeploymentError for other facts."""
    if not (folder / _FACTS).exists():
        return None
    with _locked(folder) as lock:
        said = _read(folder)
        if said is None or not said.get("complete"):
            os.close(lock)
            return None
        _require_same(folder, said, facts)
        deployment = Deployment.open(folder / _DEPLOYMENT, threads=threads)
        try:
            _require_whole(folder, deployment, facts)
        except BaseException:
            deployment.close()
            raise
        return deployment, lock


def build(folder: Path, facts: Facts, dataset: Any, sample: int, threads: int | None) -> tuple[Deployment, int]:
    """The deployment and the lock of an index with all rows of a data set; goes on with one that was cut off."""
    with _locked(folder) as lock:
        first = hashlib.sha256(np.ascontiguousarray(next(blocks_of(dataset, facts.dataset))).tobytes()).hexdigest()
        said = _read(folder)
        if said is None:
            if any(path.name != _LOCK for path in folder.iterdir()):
                raise DeploymentError(f"{folder} holds other files; name a new folder")
        else:
            _require_same(folder, said, facts)
            if said.get("first") != first:
                raise DeploymentError(f"{folder} holds an index of other rows of that name; name a new folder")
        place = folder / _DEPLOYMENT
        if said is None or not (place / _DESCRIPTION).is_file():
            # fitted before anything is written: this pass finds what no encoding takes
            encoding = _fitted(facts, dataset, sample)
            _write(folder, facts, first, False)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(place)  # making it was cut off
            rankings = (*facts.rankings, "threshold") if facts.ranked_by_servers else facts.rankings
            deployment = Deployment.create(place, encoding, rankings=rankings, threads=threads)
        else:
            deployment = Deployment.open(place, threads=threads)
        try:
            owners, users = deployment.owners(), deployment.users()
            owner = deployment.owner(OWNER) if OWNER in owners else deployment.create_owner(OWNER)
            user = deployment.user(USER) if USER in users else deployment.create_user(USER)
            if not owner.grants():
                owner.grant(user.id, rankings=deployment.config.offered)
            owner.add_stream(_prepared_blocks(facts, dataset))
            _require_whole(folder, deployment, facts)
            if facts.ranked_by_servers:
                deployment.wait_certified()
            _write(folder, facts, first, True)
        except BaseException:
            deployment.close()
            raise
        return deployment, lock


def remove(folder: Path) -> None:
    """Delete the folder of an index, if there is one; DeploymentError for a folder of other files."""
    if not folder.exists():
        return
    if _read(folder) is None:
        raise DeploymentError(f"{folder} holds no index, so it is not deleted")
    with _locked(folder) as lock:
        shutil.rmtree(folder)
        os.close(lock)


def _require_whole(folder: Path, deployment: Deployment, facts: Facts) -> None:
    """Row numbers of the index are those of the data set: one owner adds all rows, in order."""
    total = deployment.user(USER).index().total
    if total != facts.rows:
        raise DeploymentError(
            f"{folder} holds {total} rows, and data set {facts.dataset} has {facts.rows}: delete the folder"
        )


def _prepared_blocks(facts: Facts, dataset: Any) -> Iterator[npt.NDArray[Any]]:
    for block in blocks_of(dataset, facts.dataset):
        yield prepared(facts.metric, block) if facts.metric == "angular" else block


def _fitted(facts: Facts, dataset: Any, sample: int) -> Encoding:
    metric, server = METRICS[facts.metric], facts.ranked_by_servers
    if facts.metric == "angular" and facts.ring_bits != 16:
        return finest_unit(metric, facts.dim, ring_bits=facts.ring_bits or 32, server_ranking=server)
    dtype = np.asarray(next(blocks_of(dataset, facts.dataset))).dtype
    if facts.metric != "angular" and dtype in (np.uint8, np.int8):
        # the longest vector of the type: an encoding that shows nothing of the rows, and refuses none
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        extreme = np.full((1, facts.dim), least if -least > most else most, np.float64)
        found = (
            finest(metric, extreme, ring_bits=facts.ring_bits, server_ranking=server) if facts.ring_bits != 16 else None
        )
        if found is not None and found.scale == (1.0,) and not found.offset:
            return found
    return encoding_for(metric, _sample(facts, dataset, sample), ring_bits=facts.ring_bits, server_ranking=server)


def _sample(facts: Facts, dataset: Any, size: int) -> npt.NDArray[np.float32]:
    """Rows evenly spread over the data set, and its longest: one pass, in the memory of a block and the sample."""
    step, at, kept = max(1, -(-facts.rows // size)), 0, []
    longest, far = -1.0, np.empty((0, facts.dim), np.float32)
    for block in _prepared_blocks(facts, dataset):
        wide = np.asarray(block, np.float32)
        lengths = np.einsum("ij,ij->i", wide, wide, dtype=np.float64)
        if not np.isfinite(lengths).all():
            row = at + int(np.argmin(np.isfinite(lengths)))
            raise EncodingError(f"data set {facts.dataset}, row {row}: NaN, infinity or a number too large")
        if lengths.max() > longest:
            longest, far = float(lengths.max()), wide[[lengths.argmax()]].copy()
        kept.append(wide[-at % step :: step].copy())
        at += len(block)
    if not kept:
        raise ParameterError(f"data set {facts.dataset} has no rows")
    return np.concatenate([*kept, far])
