"""What a worker of a server's cluster does: parts of products, as pure functions of what they are given.

What a task needs comes sealed under a session key of the server's process. The worker got that key sealed to a key pair
that it made itself, so whoever carries tasks (a scheduler unpickles all arguments) learns sizes and no more. A task's
result is masked by a zero share. Owner keys, pair keys and query shares are dropped when a task ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .. import pir, ring
from ..crypto import box, schedule
from ..errors import MessageError, MippError
from ..io.file_hash import FileHash
from ..io.memory import WINDOW_BYTES, ahead, aligned_words, map_file
from ..rpc.wire import array, decode, encode, kind_of, message, pack_frames, unpack_frames
from ..sharing import Run, add_zero_share, batch_schedules, key_centre_product
from .base import Slots
from .slots import key_centre_slots, stored_slots

__all__ = [
    "FILES",
    "Asked",
    "KeystreamPart",
    "Reply",
    "ScanAsked",
    "SlotsPart",
    "StoredPart",
    "compute",
    "drop_session",
    "hello",
    "keep_only",
    "keep_piece",
    "sealed_session",
    "sealed_task",
    "take_session",
]

#: environment variable with folders, separated as in PATH, where files of rows are, named by their SHA-256 in hex; the
#: first one takes those that the server sends
FILES = "MIPP_WORKER_FILES"
_INFO = b"mipp v1 worker session "
_DIGEST, _CHUNK, _NONCE = 32, 1 << 22, 12
#: names in the folder for files that the server sent: whole ones, and those that are coming
_NAME = re.compile(r"([0-9a-f]{64})(\.[0-9a-f]{16}\.part)?")
#: bytes that stay free on a worker's disk
_FREE = 1 << 28


@message
class Asked:
    """What is the same for all parts of a task: the query share, and what masks the result. Secret.

    ``pair_keys``: this server's keys with ``others``; the rest as of :func:`mipp.sharing.add_zero_share`, for runs of
    rows. ``first``: by batch; where one begins after its first row, a new run begins. ``query_share``: of ``queries``
    queries; for slots, those of one group after those of another.
    """

    server: int
    servers: list[int]
    others: list[int]
    pair_keys: list[bytes]
    header: bytes
    threads: int
    queries: int
    query_share: np.ndarray = array("u2", "u4", "u8", ndim=2)
    nonces: np.ndarray = array("u1", ndim=2)
    rows: np.ndarray = array("i8")
    first: np.ndarray = array("i8")


@message
class StoredPart:
    """Rows of a file: ``count`` from row ``first`` on, whose products come at ``place`` of the result.

    The file's words begin at byte ``offset``. ``ordinals_at``: byte where the numbers of its rows begin, or -1; then
    the product of a row comes at its number less ``place``. For slots places count their rows.
    """

    digest: bytes
    path: str
    size: int
    offset: int
    first: int
    count: int
    place: int
    ordinals_at: int


@message
class KeystreamPart:
    """Rows that are made from an owner's key (secret): ranges of its batches, whose products come from ``place`` on."""

    key: bytes
    place: int
    batches: np.ndarray = array("u1", ndim=2)
    dims: np.ndarray = array("i8")
    rows: np.ndarray = array("i8")
    index: np.ndarray = array("i8")
    first_row: np.ndarray = array("i8")
    count: np.ndarray = array("i8")


@message
class SlotsPart:
    """Slots (:class:`mipp.backends.Slots`) whose rows are those of the part that follows; public facts.

    Their products come from ``place`` on. ``share``: the first of their groups among the task's query shares.
    """

    size: int
    group: int
    first: int
    count: int
    place: int
    share: int
    dead: np.ndarray = array("i8")


@message
class ScanAsked:
    """Records of a private fetch: ``count`` of ``width`` bytes from record ``first`` on, of rows from ``row`` on.

    The keys are secret. ``live``: rows that count, 64 a word, from row ``row // 64 * 64`` on.
    """

    digest: bytes
    path: str
    size: int
    offset: int
    width: int
    first: int
    count: int
    row: int
    rows: int
    threads: int
    keys: list[bytes]
    live: np.ndarray = array("u8")


class Reply(NamedTuple):
    """Of a task: ``what`` is ``done`` and ``value`` the masked products, or what the worker lacks.

    ``session``: the key of the server's process; ``files``: ``value`` is their digests; ``failed``: ``value`` says
    why. ``worker``: the address of who replies.
    """

    what: str
    value: Any
    seconds: float = 0.0
    worker: str = ""


class _Worker:
    """What this process keeps: its key pair, session keys, and mapped files."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.private = schedule.random_bytes(32)
        self.sessions: dict[bytes, AESGCM] = {}
        #: by digest: where, which file that was then, and its bytes
        self.files: dict[bytes, tuple[Path, tuple[int, ...], np.ndarray]] = {}
        #: files that are coming: where their pieces are written
        self.coming: dict[bytes, Path] = {}
        #: of Dask, for this process
        self.directory: Path | None = None

    def __reduce__(self) -> str:
        raise TypeError("a worker holds keys and does not pickle")


_worker = _Worker()


def hello(dask_worker: Any = None) -> tuple[bytes, int, int]:
    """This process's public key, its number of processors, and its process id. Dask passes its object for it."""
    if dask_worker is not None:
        _worker.directory = Path(dask_worker.local_directory)
    return box.box_private(_worker.private).public_key().public_bytes_raw(), os.cpu_count() or 1, os.getpid()


def take_session(session: bytes, sealed: bytes) -> None:
    """Take the key of a server's process, sealed to this process's public key."""
    key = box.open_sealed(_worker.private, sealed, _INFO + session)
    with _worker.lock:
        _worker.sessions[session] = AESGCM(key)


def sealed_session(public: bytes, session: bytes, key: bytes) -> bytes:
    """The server's side of :func:`take_session`."""
    return box.seal(public, key, _INFO + session)


def drop_session(session: bytes) -> None:
    """Forget the key of a server's process, and close all files."""
    with _worker.lock:
        _worker.sessions.pop(session, None)
        _worker.files.clear()


def sealed_task(
    session: bytes, key: AESGCM, asked: Asked | ScanAsked,
    parts: Sequence[StoredPart | KeystreamPart | SlotsPart] = (),
) -> bytes:  # fmt: skip
    """A task, sealed under a session's key."""
    plain = pack_frames([pack_frames(encode(one)) for one in (asked, *parts)])
    nonce = schedule.random_bytes(_NONCE)
    return session + nonce + key.encrypt(nonce, plain, session)


def compute(task: bytes) -> Reply:
    """Masked products of a task, (B, rows) words."""
    return _computed(task)._replace(worker=getattr(_this_worker(), "address", ""))


def _this_worker() -> Any:
    """Dask's object for this process; None outside of a worker."""
    try:
        from distributed import get_worker

        return get_worker()
    except (ImportError, ValueError):
        return None


def _computed(task: bytes) -> Reply:
    began = time.perf_counter()
    session, nonce, sealed = task[:16], task[16 : 16 + _NONCE], task[16 + _NONCE :]
    key = _worker.sessions.get(session)
    if key is None:
        return Reply("session", session)
    try:
        plain = unpack_frames(key.decrypt(nonce, sealed, session))
        if kind_of(unpack_frames(bytes(plain[0]))) == ScanAsked.__name__:
            scan = decode(unpack_frames(bytes(plain[0])), ScanAsked)
            return Reply("done", _selected(scan), time.perf_counter() - began)
        asked = decode(unpack_frames(bytes(plain[0])), Asked)
        parts: list[Any] = [decode(unpack_frames(bytes(one))) for one in plain[1:]]
        if lacking_files := _lacking(parts):
            return Reply("files", lacking_files)
        return Reply("done", _products(asked, parts), time.perf_counter() - began)
    except _LackingFile as lacking:
        return Reply("files", [lacking.digest])
    except InvalidTag:
        return Reply("failed", "a task was not sealed by this server's process")
    except (MippError, OSError) as error:
        return Reply("failed", f"{type(error).__name__}: {error}")


def _products(asked: Asked, parts: Sequence[Any]) -> np.ndarray:
    query, threads = asked.query_share, asked.threads or None
    out = aligned_words(asked.queries, int(asked.rows.sum()), query.dtype)
    if any(isinstance(p, StoredPart) and p.ordinals_at >= 0 for p in parts):
        out[:] = 0  # places of rows that were compacted away
    left = iter(parts)
    for part in left:
        if isinstance(part, SlotsPart):
            _slots(part, next(left, None), asked, out, threads)
        elif isinstance(part, StoredPart):
            _stored(part, query, out, threads)
        elif isinstance(part, KeystreamPart):
            into = out[:, part.place : part.place + int(part.count.sum())]
            key_centre_product(_schedules(part, query.dtype, threads), _run(part), query, into, threads=threads)
        else:
            raise MessageError("a task with a part of another kind")
    keys = dict(zip(asked.others, asked.pair_keys, strict=True))
    at, begins = 0, [0, *(np.flatnonzero(asked.first[1:]) + 1).tolist(), len(asked.rows)]
    for begin, end in pairwise(begins):
        rows = asked.rows[begin:end]
        into = out[:, at : at + int(rows.sum())]
        add_zero_share(
            into, asked.server, asked.servers, keys, asked.header, asked.nonces[begin:end], rows,
            first=int(asked.first[begin]), threads=threads,
        )  # fmt: skip
        at += into.shape[1]
    return out


def _schedules(part: KeystreamPart, dtype: np.dtype, threads: int | None) -> Any:
    ids = [b.tobytes() for b in part.batches]
    bits = 8 * dtype.itemsize
    return batch_schedules(part.key, ids, part.dims.tolist(), part.rows.tolist(), bits, threads=threads)


def _run(part: KeystreamPart) -> Run:
    return Run(part.index, part.first_row, part.count)


def _slots(given: SlotsPart, part: Any, asked: Asked, out: np.ndarray, threads: int | None) -> None:
    """Products of slots whose rows are those of ``part``."""
    slots = Slots(0, given.size, given.group, given.first, given.count, given.dead)
    query = asked.query_share
    shares = query.reshape(-1, asked.queries, query.shape[1])[given.share :]
    into = out[:, given.place : given.place + given.count]
    if isinstance(part, StoredPart):
        words, places = _rows(part, query.shape[1] // given.size, query.dtype)
        stored_slots(slots, words, places, shares, into, threads)
    elif isinstance(part, KeystreamPart):
        key_centre_slots(slots, _schedules(part, query.dtype, threads), _run(part), shares, into, threads)
    else:
        raise MessageError("a task with a part of another kind")


def _rows(part: StoredPart, width: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of a part, and their places if some are missing."""
    data, row = _file(part), width * dtype.itemsize
    begin, end = part.offset + part.first * row, part.offset + (part.first + part.count) * row
    if not 0 <= part.offset <= begin <= end <= part.size - _DIGEST:
        raise MessageError("a part of a task lies outside of its file")
    words = data[begin:end].view(dtype).reshape(part.count, width)
    if part.ordinals_at < 0:
        return words, None
    at = part.ordinals_at + 8 * part.first
    return words, data[at : at + 8 * part.count].view("<i8") - part.place


def _stored(part: StoredPart, query: np.ndarray, out: np.ndarray, threads: int | None) -> None:
    words, places = _rows(part, query.shape[1], query.dtype)
    step = max(64, WINDOW_BYTES // (query.shape[1] * query.itemsize) // 64 * 64)
    cuts = [slice(a, min(a + step, part.count)) for a in range(0, part.count, step)]
    with closing(ahead([words[cut] for cut in cuts])) as read:
        for some, cut in zip(read, cuts, strict=True):
            if places is None:
                into = out[:, part.place + cut.start : part.place + cut.stop]
                ring.matmul(some, query, out=into, threads=threads)
            else:
                out[:, places[cut]] = ring.matmul(some, query, threads=threads)


def _selected(asked: ScanAsked) -> np.ndarray:
    """XOR of the records that each key selects, (Q, width) bytes: without the other server's they look random."""
    data = _file(asked)
    begin = asked.offset + asked.first * asked.width
    end = begin + asked.count * asked.width
    if not 0 <= asked.offset <= begin <= end <= asked.size - _DIGEST:
        raise MessageError("a part of a task lies outside of its file")
    records = data[begin:end].reshape(asked.count, asked.width)
    word, threads = asked.row // 64, asked.threads or None
    selections = np.empty((len(asked.keys), len(asked.live)), np.uint64)
    for key, into in zip(asked.keys, selections, strict=True):
        into[:] = pir.expand(key, rows=asked.rows, threads=threads)[word : word + len(asked.live)]
    selections &= asked.live
    out = np.zeros((len(asked.keys), asked.width), np.uint8)
    return pir.scan(records, selections, first_row=asked.row - 64 * word, out=out, threads=threads)


# --- files ----------------------------------------------------------------------------------------------------------


class _LackingFile(Exception):
    def __init__(self, digest: bytes) -> None:
        super().__init__()
        self.digest = digest


def _lacking(parts: Sequence[Any]) -> list[bytes]:
    """Digests of files that this worker does not have: it gets all of them before the task comes again."""
    digests = dict[bytes, None]()
    for part in parts:
        try:
            if isinstance(part, StoredPart) and part.digest not in digests:
                _file(part)
        except _LackingFile as lacking:
            digests[lacking.digest] = None
    return list(digests)


def _folders() -> list[Path]:
    """Folders with files by hash: those of the environment, else one of this worker's own."""
    named = [Path(p) for p in os.environ.get(FILES, "").split(os.pathsep) if p]
    if named:
        return named
    return [] if _worker.directory is None else [_worker.directory / "mipp-files"]


def _candidates(part: StoredPart | ScanAsked) -> Iterator[Path]:
    yield Path(part.path)  # of the server: where its disk is this worker's, too
    for folder in _folders():
        yield folder / part.digest.hex()


def _file(part: StoredPart | ScanAsked) -> np.ndarray:
    """The file of a part, mapped; its hash is compared when this process first uses it, and when it is another one."""
    with _worker.lock:
        known = _worker.files.get(part.digest)
    if known is not None:
        with contextlib.suppress(OSError):
            if _state(os.stat(known[0])) == known[1]:
                return known[2]
        with _worker.lock:
            _worker.files.pop(part.digest, None)
    for path in _candidates(part):
        found = _checked(path, part.size, part.digest)
        if found is not None:
            with _worker.lock:
                _worker.files[part.digest] = path, *found
            return found[1]
    raise _LackingFile(part.digest)


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _checked(path: Path, size: int, digest: bytes) -> tuple[tuple[int, ...], np.ndarray] | None:
    """A file mapped, if it has this size and hash, and which one it is."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for ever
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size or size < _DIGEST:
                return None
            view = map_file(fd, path)
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return None
    hashed = FileHash()
    end = size - _DIGEST
    for piece in ahead([view[i : min(i + _CHUNK, end)] for i in range(0, end, _CHUNK)]):
        hashed.update(piece.data)
    if not hashed.digest() == digest == view[end:].tobytes():
        return None
    return _state(found), view


def keep_piece(piece: np.ndarray, digest: bytes, size: int, at: int) -> str:
    """Keep a piece of a file that the server sends, the first one first; why that failed, or nothing.

    The hash is compared when the last one came.
    """
    try:
        _keep_piece(np.ascontiguousarray(piece).data.cast("B"), digest, size, at)
    except OSError as error:
        _worker.coming.pop(digest, None)
        return f"a file of rows cannot be kept: {error.strerror or error}"
    return ""


def _keep_piece(view: memoryview, digest: bytes, size: int, at: int) -> None:
    folders = _folders()
    if not folders:
        raise OSError("this worker has no folder for files")
    if at == 0:
        folders[0].mkdir(parents=True, exist_ok=True)
        space = os.statvfs(folders[0])
        if space.f_bavail * space.f_frsize < size + _FREE:
            raise OSError(errno.ENOSPC, f"no room for {size} bytes")
        # a name that nobody knows before: what is there already may be a link to somewhere else
        _worker.coming[digest] = folders[0] / f"{digest.hex()}.{schedule.random_bytes(8).hex()}.part"
    part = _worker.coming.get(digest)
    if part is None:
        raise OSError("this worker did not get the file's beginning")
    flags = os.O_CREAT | os.O_EXCL if at == 0 else 0
    fd = os.open(part, flags | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while view:
            count = os.pwrite(fd, view, at)
            view, at = view[count:], at + count
    finally:
        os.close(fd)
    if at >= size:
        del _worker.coming[digest]
        if _checked(part, size, digest) is None:
            part.unlink()
            raise OSError("it came damaged")
        os.replace(part, folders[0] / digest.hex())


def keep_only(digests: Sequence[bytes]) -> int:
    """Remove files that the server has no more from the folder for files that it sent; how many."""
    folders, live, coming, removed = _folders(), set(digests), set(_worker.coming.values()), 0
    with _worker.lock:
        for digest in _worker.files.keys() - live:
            del _worker.files[digest]
    for path in folders[0].glob("*") if folders else ():
        found = _NAME.fullmatch(path.name)
        if found is not None and path not in coming and (found[2] or bytes.fromhex(found[1]) not in live):
            with contextlib.suppress(OSError):
                path.unlink()
                removed += 1
    return removed
