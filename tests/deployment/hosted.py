"""Servers of a test in processes of their own, which the test kills, stops for a while and starts again.

The processes are forked from one that imported everything, so a start takes a fraction of a second. In them, and
nowhere in mipp, the steps of a server are counted: begins and ends of transactions, synced files, requests and peers'
calls. A server dies at the step that the test names.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from collections import Counter

import numpy as np
import pytest

from mipp.errors import MippError
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.channel import request
from mipp.rpc.local_socket import OperatorChannel
from mipp.rpc.wire import decode, kind_of, unpack_frames
from tests.conftest import vectors
from tests.network import Network

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["mipp.deployment.serving", "mipp.deployment", "tests.deployment.hosted"])


def some(values, *first):
    """Parameters of a slow test: the first ones in CI, the others at night."""
    return [v if v in first else pytest.param(v, marks=pytest.mark.nightly) for v in values]


#: seconds after the return of the last server by which all agree
AGREE = 10.0


# --- in the server's process ----------------------------------------------------------------------------------------


class Steps:
    """Counts a server's steps, and kills it at one of them, or lets its disk be full from there on."""

    #: whether syncs fail on a full disk, too: some file systems look for room only then
    late = True

    def __init__(self):
        self.count, self.kill_at, self.full, self.filled = 0, 0, False, False
        self._lock = threading.Lock()

    def step(self):
        with self._lock:
            self.count += 1
            if self.count != self.kill_at:
                return
            self.filled = self.full
            if self.full:
                limit_files(0)
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def arm(self, kill_at, full=False):
        limit_files(resource.RLIM_INFINITY)
        with self._lock:
            self.count, self.kill_at, self.full, self.filled = 0, kill_at, full, False

    def around(self, owner, name, *, writes=False):
        """Count a step before and one after each call of a function, which fails on a full disk if it ``writes``."""
        real = getattr(owner, name)

        def counted(*args, **options):
            self.step()
            try:
                if writes and self.filled and self.late:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **options)
            finally:
                self.step()

        setattr(owner, name, counted)

    def watch(self):
        from mipp.server.server import Server
        from mipp.store.catalog import Catalog

        real = Catalog.transaction

        @contextlib.contextmanager
        def transaction(catalog, **options):
            self.step()
            with real(catalog, **options) as db:
                yield db
                self.step()
            self.step()

        Catalog.transaction = transaction
        for name in ("fsync", "posix_fallocate"):
            self.around(os, name, writes=True)
        for name in ("handle", "operate"):
            self.around(Server, name)


def limit_files(size):
    """No file of this process can grow beyond a size; what it writes there fails, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _run(folder, pipe, options):
    """A server's process, until it is told to stop."""
    logging.basicConfig(
        filename=folder / "log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s", force=True
    )
    steps = Steps()
    steps.arm(options.get("kill_at", 0))
    steps.watch()
    if "prepare" in options:
        options["prepare"](**options.get("given", {}))
    from mipp.deployment.serving import ServerProcess

    process = ServerProcess(folder)
    if "clock" in options:
        ahead = options["clock"]
        process.server.clock = process.server._log._clock = lambda: time.time() + ahead
        process.server._log._started += 1000 * ahead
    process.start()
    pipe.send("started")
    with contextlib.suppress(EOFError):
        while True:
            what, *given = pipe.recv()
            if what == "stop":
                break
            if what == "arm":
                steps.arm(*given)
                pipe.send(None)
            if what == "count":
                pipe.send(steps.count)
            if what == "call":
                pipe.send(given[0](process, *given[1:]))
    process.stop(5)


# --- in the test's process ------------------------------------------------------------------------------------------


class Hosted(Network):
    """A new deployment whose servers run in processes of their own."""

    def __init__(self, folder, encoding, **options):
        super().__init__(folder, encoding, **options)
        self._pipes = {}
        self.killed = Counter()

    def start(self, *servers, wait=True, **options):
        for server in servers or self.names:
            self._pipes[server], theirs = PROCESSES.Pipe()
            process = PROCESSES.Process(target=_run, args=(self.home(server), theirs, options), daemon=True)
            process.start()
            theirs.close()
            self.processes[server] = process
        for server in (servers or list(self.processes)) if wait else ():
            self.answer(server)
        return self

    def answer(self, server, seconds=30):
        assert self._pipes[server].poll(seconds), f"server {server} says nothing: {self.log(server)[-2000:]}"
        return self._pipes[server].recv()

    def tell(self, server, *words):
        self._pipes[server].send(words)
        return self.answer(server)

    def log(self, server):
        path = self.home(server) / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, *servers):
        for server in servers:
            self.processes[server].kill()
        for server in servers:
            self.processes.pop(server).join()
            self._pipes.pop(server).close()

    def signal(self, server, number):
        os.kill(self.processes[server].pid, number)

    def stop(self, *servers):
        for server in servers or list(self.processes):
            with contextlib.suppress(OSError):
                self._pipes[server].send(("stop",))
        for server in servers or list(self.processes):
            process = self.processes.pop(server)
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
            self._pipes.pop(server).close()

    def died(self, server, seconds=5):
        """Whether a server's process ended by itself."""
        self.processes[server].join(seconds)
        return not self.processes[server].is_alive()

    # --- backups ------------------------------------------------------------------------------------------------

    def save(self, server, name="backup"):
        """Copy the folder of a server that does not run."""
        assert server not in self.processes
        to = self.folder / f"{name}-{server}"
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.home(server), to, ignore=shutil.ignore_patterns("*.sock", "log"))

    def restore(self, server, name="backup"):
        assert server not in self.processes
        shutil.rmtree(self.home(server))
        shutil.copytree(self.folder / f"{name}-{server}", self.home(server))

    # --- what servers say ---------------------------------------------------------------------------------------

    def ask(self, server, msg):
        return request(OperatorChannel(self.home(server), server), server, msg)

    def state(self, server):
        """All that servers must agree on."""
        s = self.ask(server, pm.StatusRequest(b""))
        owners = dict(zip(s.owners, zip(s.names, s.forgotten, s.positions, s.views, strict=True), strict=True))
        numbers = zip(s.batch_owner, s.batches, s.rows, s.live, strict=True)
        batches = {(s.owners[n], b.tobytes()): (int(r), int(live)) for n, b, r, live in numbers}
        signed = sorted(map(_essence, self.ask(server, pm.SettleRequest()).signed))
        return {"owners": owners, "users": sorted(s.users), "batches": batches, "signed": signed}

    def problems(self):
        """Why servers are not all there and of one state; empty if they are."""
        try:
            for server in self.processes:
                report = self.ask(server, pm.ServerReportRequest())
                if report.reasons or not report.votes or any(report.problems):
                    return f"server {server}: {report}"
            for server in self.processes:
                waiting = self.ask(server, pm.WaitingChangesRequest())
                if "accepted" in waiting.states:
                    return f"server {server} waits: {waiting}"
            states = {server: self.state(server) for server in self.processes}
        except (MippError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        first = next(iter(states.values()))
        if any(state != first for state in states.values()):
            different = {
                p: [s[p] for s in states.values()] for p in first if any(s[p] != first[p] for s in states.values())
            }
            return f"states differ: {repr(different)[:3000]}"
        return ""

    def agreed(self, seconds=AGREE):
        """Wait until all servers are there and of one state; seconds that it took."""
        begun = time.monotonic()
        while problem := self.problems():
            if time.monotonic() - begun > seconds:
                logs = "".join(f"\n--- {n}\n{self.log(n)[-3000:]}" for n in self.processes)
                raise AssertionError(f"no agreement after {seconds} s: {problem}{logs}")
            time.sleep(0.02)
        return time.monotonic() - begun


def _essence(packed):
    """What a signed forget, registration or grant says; an owner may have signed its registration twice."""
    signed = decode(unpack_frames(packed), m.Signed)
    kind = kind_of([f.data for f in signed.frames])
    return signed.signer, kind, b"" if kind.startswith("Register") else b"".join(f.tobytes() for f in signed.frames)


@contextlib.contextmanager
def running(net):
    """Its servers run and agree until the end of the block."""
    net.start()
    try:
        net.agreed()
        yield net
    finally:
        net.stop()


class Plain:
    """The plaintext of what owners stored, and what a search over it gives."""

    def __init__(self, encoding):
        self.encoding = encoding
        self.rows = {}

    def scores(self, query, rows=None):
        rows = self.rows if rows is None else rows
        if not rows:
            return []
        x = self.encoding.encode_rows(np.array(list(rows.values()))).astype(np.int64)
        return sorted((x @ self.encoding.encode_queries(query[None])[0].astype(np.int64)).tolist(), reverse=True)


QUERY = vectors(1, 99)[0]


def found(user, ranking="user", query=QUERY, k=None):
    """Scores of a search, best first; all of them without ``k``."""
    k = user.index().total if k is None else k
    return [hit.score for hit in user.search(query, k, ranking=ranking).hits]
