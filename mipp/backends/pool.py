"""The workers of a server: a Dask cluster inside its operator's trust (extra ``dask``).

Workers belong to the operator: whoever has a certificate of the cluster's authority runs code there. So a cluster is
reached over mutual TLS only, and is never shared by two operators. Tasks are sealed (``tasks.py``): the scheduler, its
logs and its dashboard see sizes and times.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import mmap
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import BusyError, IntegrityError, ParameterError, missing_extra
from . import tasks
from .base import StoredFile

__all__ = ["Pool", "Task", "WorkerCounts", "local_cluster", "operators_cluster"]

_log = logging.getLogger("mipp.server")
#: tasks in flight for each worker: one is computed while the reply of another one is on its way
_EACH = 2
#: how often a task is given out when workers die or lack something
_TRIES = 6
#: seconds to wait for a worker when there is none, and for one reply of the cluster
_PATIENCE, _LONGEST = 30.0, 600.0
#: seconds after which a task is given to another worker: its first use of a file may read all of it
_SLOW = 60.0
#: seconds after which workers are looked for, when no task ends
_LOOK = 2.0
#: seconds for a result, which is there, to come
_FETCH = 10.0
#: seconds for a connection to a worker or scheduler
_CONNECT = 5.0
_PIECE = 32 << 20
#: workers whose counts are kept
_MOST_COUNTS = 4096


@dataclass(eq=False, repr=False)
class Task:
    """Rows ``start`` to ``stop`` of a product.

    ``seal`` makes the sealed task when it is sent; ``files`` are those that it reads, of which the first says where it
    is computed by preference.
    """

    start: int
    stop: int
    seal: Callable[[bytes, AESGCM], bytes]
    files: dict[bytes, StoredFile] = field(default_factory=dict)
    tries: int = 0
    #: workers that could not compute it
    avoid: set[str] = field(default_factory=set)


@dataclass
class WorkerCounts:
    """What one worker has done for this server: tasks, rows, seconds of computing, tasks that it failed."""

    tasks: int = 0
    rows: int = 0
    seconds: float = 0.0
    failed: int = 0


class _Flying(NamedTuple):
    """A task that was sent, and the workers of which one should compute it."""

    future: Any
    task: Task
    wanted: frozenset[str]
    at: float


class Pool:
    """Gives tasks to workers.

    Parameters
    ----------
    connect : callable
        Makes a ``distributed.Client``; called again when the scheduler was lost.
    live : callable, optional
        SHA-256 of all files of this server: workers remove others that it sent them.
    """

    def __init__(self, connect: Callable[[], Any], live: Callable[[], Iterable[bytes]] | None = None) -> None:
        self._distributed, self._connect, self.live = _distributed(), connect, live
        self._session, key = secrets.token_bytes(16), secrets.token_bytes(32)
        self._key, self._aead = key, AESGCM(key)
        self._lock, self._known = threading.RLock(), set[str]()
        #: held while a file is sent; when each worker got each file
        self._sending, self._sent = threading.Lock(), dict[tuple[str, bytes], float]()
        self._client: Any = None
        #: workers that were there when they were last asked for
        self._there = frozenset[str]()
        self.counts: dict[str, WorkerCounts] = {}

    def __reduce__(self) -> str:
        raise TypeError("a pool holds keys and does not pickle")

    # --- the cluster --------------------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """The cluster's client; BusyError while the scheduler is away."""
        with self._lock:
            if self._client is not None and self._client.status != "running":
                self._drop_client()
            if self._client is None:
                try:
                    self._client = self._connect()
                except Exception as error:  # Dask raises almost any type, also where no thread begins in time
                    raise BusyError(f"the scheduler of this server's workers does not answer: {error}") from None
                threading.Thread(target=self._watch, args=(self._client,), name="mipp workers", daemon=True).start()
            return self._client

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        self._known.clear()
        with contextlib.suppress(Exception):
            client.close(timeout=2)

    def close(self) -> None:
        """Have the workers forget the session's key, and leave the cluster."""
        with self._lock:
            if self._client is None:
                return
            with contextlib.suppress(Exception):
                self._client.run(tasks.drop_session, self._session, on_error="ignore")
            self._drop_client()

    def workers(self) -> list[str]:
        """Addresses of the workers that are there."""
        return self._looked(self.client)

    def _watch(self, client: Any) -> None:
        """Note workers that are lost while nobody asks for products."""
        while client.status == "running":
            time.sleep(_LOOK)
            with contextlib.suppress(Exception):
                if client.status == "running":
                    self._looked(client)

    def _looked(self, client: Any) -> list[str]:
        there = frozenset(client.scheduler_info(n_workers=-1)["workers"])
        with self._lock:
            before, self._there = self._there, there
        for worker in sorted(before - there):
            _log.warning("worker %s was lost", worker)
        for worker in sorted(there - before):
            _log.info("worker %s is there", worker)
        return sorted(there)

    @property
    def reason(self) -> str:
        """Why no task can run, in a sentence; empty if one can."""
        try:
            return "" if self.workers() else "none of this server's workers is there"
        except BusyError as error:
            return str(error)

    def prune(self) -> None:
        """Have workers remove files that this server has no more; those that are away do so when they are met."""
        if self.live is not None and self._client is not None:
            with contextlib.suppress(Exception):
                self._client.run(tasks.keep_only, list(self.live()), on_error="ignore")

    def _meet(self, worker: str) -> None:
        """Give a worker the key of this session, sealed to its own."""
        client = self.client
        public, _, _ = client.run(tasks.hello, workers=[worker])[worker]
        sealed = tasks.sealed_session(public, self._session, self._key)
        client.run(tasks.take_session, self._session, sealed, workers=[worker])
        if self.live is not None:
            client.run(tasks.keep_only, list(self.live()), workers=[worker])
        with self._lock:
            self._known.add(worker)

    def _present(self) -> list[str]:
        """Workers that are there, met; waits for one."""
        end = time.monotonic() + _PATIENCE
        while True:
            there = self.workers()
            for worker in there:
                if worker not in self._known:
                    with contextlib.suppress(KeyError, OSError, self._distributed.comm.CommClosedError):
                        self._meet(worker)
            there = [worker for worker in there if worker in self._known]
            if there:
                return there
            if time.monotonic() > end:
                raise self._nobody()
            time.sleep(0.2)

    def _nobody(self) -> BusyError:
        """An error; the next product meets the cluster anew, since workers of this machine may have been given up."""
        with self._lock:
            if self._client is not None:
                self._drop_client()
        return BusyError("none of this server's workers is there")

    # --- tasks --------------------------------------------------------------------------------------------------

    def run(self, given: Iterable[Task], take: Callable[[Task, np.ndarray], None]) -> None:
        """Have tasks computed; ``take`` gets the masked products of each, in any order, in this thread.

        Two tasks are in flight for each worker, so neither here nor there do more results wait.

        Raises
        ------
        BusyError
            No worker or scheduler is there, or workers died again and again.
        IntegrityError
            A worker found a file damaged, and so did this server.
        """
        waiting, left = iter(given), list[Task]()
        flying: dict[str, _Flying] = {}
        done: queue.SimpleQueue[str] = queue.SimpleQueue()

        def again(tasks_: Iterable[Task]) -> None:
            for task in tasks_:
                task.tries += 1
                if task.tries >= _TRIES:
                    raise BusyError("workers of this server fail or die; its log says more")
                left.append(task)

        try:
            there, moved = self._present(), time.monotonic()
            while True:
                while len(flying) < _EACH * len(there):
                    task = left.pop() if left else next(waiting, None)
                    if task is None:
                        break
                    sent = self._submit(task, there)
                    flying[sent.future.key] = sent
                    sent.future.add_done_callback(lambda ended: done.put(ended.key))
                if not flying:
                    return
                try:
                    sent_ = flying.pop(done.get(timeout=_LOOK), None)
                except queue.Empty:
                    # a scheduler keeps tasks for a worker that died, also where others may take them
                    there = self._present()
                    lost = [key for key, sent in flying.items() if not sent.wanted.intersection(there)]
                    # nor does a worker that stands still say anything
                    slow = [
                        key for key, sent in flying.items() if time.monotonic() - sent.at > _SLOW and key not in lost
                    ]
                    for key in slow:
                        flying[key].task.avoid.update(flying[key].wanted)
                    again(self._cancelled(flying.pop(key)) for key in (*lost, *slow))
                    if time.monotonic() - moved > _LONGEST:
                        text = f"this server's workers took more than {_LONGEST:g} s for a part of a product"
                        raise BusyError(text) from None
                    continue
                moved = time.monotonic()
                if sent_ is not None and not self._taken(sent_, take):
                    again([sent_.task])
                    there = self._present()
        except (TimeoutError, OSError, self._distributed.comm.CommClosedError) as error:
            raise BusyError(f"this server's workers do not answer: {error}") from None
        finally:
            for sent in flying.values():
                self._cancelled(sent)

    def _cancelled(self, sent: _Flying) -> Task:
        with contextlib.suppress(Exception):
            sent.future.cancel()
        return sent.task

    def _submit(self, task: Task, there: Sequence[str]) -> _Flying:
        """Send a task; by preference always to the same worker, which has the file in its memory."""
        name = next(iter(task.files), b"") + task.start.to_bytes(8, "big")
        others = [worker for worker in there if worker not in task.avoid]
        if others and task.avoid:
            wanted = others
        elif task.files:
            wanted = [max(there, key=lambda w: hashlib.sha256(w.encode() + name).digest())]
        else:
            wanted = [there[secrets.randbelow(len(there))]]
        future = self.client.submit(
            tasks.compute, task.seal(self._session, self._aead), key=f"mipp-{secrets.token_hex(8)}", pure=False,
            workers=wanted, allow_other_workers=True, retries=0,
        )  # fmt: skip
        return _Flying(future, task, frozenset(wanted), time.monotonic())

    def _taken(self, sent: _Flying, take: Callable[[Task, np.ndarray], None]) -> bool:
        """Take a result; False if the task must be given out again."""
        future, task = sent.future, sent.task
        try:
            # straight from the worker; a result whose worker died would be waited for, for ever
            reply = future.result(timeout=_FETCH)
        except TimeoutError:
            _log.warning("a worker was lost: its result does not come")
            return False
        except (self._distributed.scheduler.KilledWorker, self._distributed.client.FutureCancelledError) as error:
            _log.warning("a worker was lost: %s", type(error).__name__)
            return False
        except Exception as error:  # of a worker with other programs than this server's, or without memory
            _log.warning("a worker failed: %s", str(error)[:300])
            return False
        finally:
            future.release()
        worker = reply.worker
        if len(self.counts) > _MOST_COUNTS:  # each start of a worker has an address of its own
            del self.counts[next(iter(self.counts))]
        counts = self.counts.setdefault(worker, WorkerCounts())
        if reply.what == "done":
            counts.tasks, counts.rows = counts.tasks + 1, counts.rows + task.stop - task.start
            counts.seconds += reply.seconds
            take(task, reply.value)
            return True
        counts.failed += 1
        why = ""
        if reply.what == "session":
            self._meet(worker)
        elif reply.what == "files" and set(reply.value) <= set(task.files):
            for digest in reply.value:
                why = why or self._send_file(worker, task.files[digest], sent.at)
        else:
            why = str(reply.value)
        if why:
            _log.warning("worker %s could not compute: %s", worker, why)
            task.avoid.add(worker)
        return False

    def _send_file(self, worker: str, file: StoredFile, since: float) -> str:
        """Send a file of rows to a worker, straight and in pieces; why that failed, or nothing.

        Not if the worker got it ``since`` the task that lacks it was sent: several searches may want the same.
        """
        client = self.client
        with self._sending:
            if self._sent.get((worker, file.digest), -1.0) > since:
                return ""
            for at, piece in _pieces(file):
                (sent,) = client.scatter([piece], workers=[worker], direct=True, hash=False)
                try:
                    why: str = client.submit(
                        tasks.keep_piece, sent, file.digest, file.size, at, workers=[worker], pure=False,
                        key=f"mipp-{secrets.token_hex(8)}",
                    ).result(timeout=_LONGEST)  # fmt: skip
                except Exception as error:
                    return str(error)[:300]
                finally:
                    sent.release()
                if why:
                    return why
            self._sent[worker, file.digest] = time.monotonic()
        return ""


def _distributed() -> Any:
    """The module, which has no types; MissingExtraError without it."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise missing_extra("workers on a cluster need Dask", "dask") from None
    # a worker that died does not hold others up for long
    importlib.import_module("dask").config.set({"distributed.comm.timeouts.connect": f"{_CONNECT:g}s"})
    return distributed


def _pieces(file: StoredFile) -> Iterator[tuple[int, np.ndarray]]:
    try:
        with open(file.path, "rb") as opened:
            if os.fstat(opened.fileno()).st_size != file.size:
                raise IntegrityError("a file of rows has another size than its catalog says")
            data = np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as error:
        raise IntegrityError(f"a file of rows cannot be read: {error.strerror}") from None
    for at in range(0, file.size, _PIECE):
        yield at, data[at : at + _PIECE]


def operators_cluster(scheduler: str, authority: Path, certificate: Path, key: Path) -> Callable[[], Any]:
    """Connect to the operator's own cluster, over mutual TLS.

    Parameters
    ----------
    scheduler : its address, ``tls://HOST:PORT``
    authority, certificate, key : files in PEM: the certificate of the cluster's authority, and this server's own

    Raises
    ------
    ParameterError
        The address is not of TLS.
    """
    if not scheduler.startswith("tls://"):
        raise ParameterError(f"a scheduler is reached over TLS, as tls://HOST:PORT, not {scheduler!r}")

    distributed = _distributed()

    def connect() -> Any:
        security = distributed.Security(
            tls_ca_file=str(authority), tls_client_cert=str(certificate), tls_client_key=str(key),
            require_encryption=True,
        )  # fmt: skip
        return distributed.Client(
            scheduler, security=security, timeout=10, name="mipp", set_as_default=False, direct_to_workers=True
        )

    return connect


def _deaf_to_interrupts() -> None:
    """Ctrl-C reaches workers too, and the server ends them: threads and processes inherit what their parent blocks."""
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def local_cluster(workers: int, folder: Path | None = None) -> Callable[[], Any]:
    """Start worker processes on this machine, with TLS keys of their own: others of this machine cannot reach them.

    Parameters
    ----------
    workers : processes
    folder : for what Dask writes, made with mode 0700; default a temporary folder of its own choice
    """

    distributed, config = _distributed(), importlib.import_module("dask").config

    def connect() -> Any:
        # no pages over HTTP, which know no certificates
        quiet: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
        if folder is not None:
            folder.mkdir(mode=0o700, exist_ok=True)
        # a thread of its own: the signals of this one stay as they are
        with config.set(quiet), ThreadPoolExecutor(1, initializer=_deaf_to_interrupts) as starter:
            made = starter.submit(
                distributed.LocalCluster, n_workers=workers, threads_per_worker=1, processes=True,
                security=distributed.Security.temporary(), protocol="tls://", host="127.0.0.1", memory_limit=0,
                silence_logs=logging.CRITICAL, local_directory=None if folder is None else str(folder),
                dashboard_address=None, worker_dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            )  # fmt: skip
            cluster = made.result()
        client = distributed.Client(cluster, name="mipp", set_as_default=False, direct_to_workers=True)

        def close_both(*args: Any, **options: Any) -> None:
            # once: a client closes itself again when it is collected, which may be while Dask starts another one, and
            # ending a cluster then would wait for that for ever
            del client.close
            client.close(*args, **options)
            cluster.close(timeout=5)

        client.close = close_both
        return client

    return connect
