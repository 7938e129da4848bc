"""Work that the page started: runs in threads of its own, tells how far it is, can be cancelled."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import LimitError, MippError, NotFoundError
from ..io.display import shown

__all__ = ["Cancelled", "Job", "Jobs"]

_log = logging.getLogger("mipp.app")

#: jobs that run or wait at a time; ended ones that are remembered
MOST_RUNNING, MOST_ENDED = 32, 64
_SENTENCE = 2000
#: seconds that a file is kept which nobody fetches
FILE_SECONDS = 60.0


class Cancelled(Exception):
    """Ends the work of a job that was cancelled, at the next step it takes."""


class Job:
    """One piece of work.

    Parameters
    ----------
    what : str
        What is done, for a person.
    cancellable : bool
        Whether the work itself ends soon after it was cancelled. Work that does not is left to end by itself; its
        result is dropped.

    Attributes
    ----------
    state : str
        ``waiting`` for other work of the same party, ``running``, ``done``, ``failed`` or ``cancelled``.
    done, total : int
        How far the work is; a total of 0 is not known.
    text : str
        One sentence: why it failed, or what it is at.
    result : object
        What is ready, also before the end.
    file : tuple of (str, str, bytes), or None
        Name, media type and content of a file that was made, until it is fetched, replaced or too old
        (:meth:`Jobs.making_file`). Secret.
    """

    def __init__(self, what: str, cancellable: bool = True) -> None:
        self.id = secrets.token_hex(8)
        self.what, self.cancellable = what, cancellable
        self.state, self.text, self.done, self.total = "waiting", "", 0, 0
        self.result: Any = None
        self.file: tuple[str, str, bytes] | None = None
        self.began = time.monotonic()
        self.seconds = 0.0
        self.thread: threading.Thread | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    def step(self, count: int = 1, total: int = 0) -> None:
        """Note progress; raises :class:`Cancelled` once the job was cancelled."""
        self.check()
        self.done += count
        self.total = total or self.total

    def check(self) -> None:
        """Raise :class:`Cancelled` once the job was cancelled."""
        if self.state == "cancelled":
            raise Cancelled

    def told(self) -> dict[str, Any]:
        """The job for the page."""
        seconds = self.seconds if self.ended else time.monotonic() - self.began
        return {
            "id": self.id, "what": self.what, "state": self.state, "text": self.text, "done": self.done,
            "total": self.total, "result": self.result, "file": None if self.file is None else self.file[0],
            "seconds": round(seconds, 3),
        }  # fmt: skip


class Jobs:
    """All jobs of a page."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._making = threading.Lock()
        # the only job that has a file, and what drops it
        self._filed: Job | None = None
        self._dropping: threading.Timer | None = None

    def start(
        self,
        what: str,
        work: Callable[[Job], Any],
        turn: threading.Lock | None = None,
        *,
        cancellable: bool = True,
    ) -> Job:
        """Begin some work.

        Parameters
        ----------
        what : str
            What is done, for a person.
        work : callable
            Does it, called with the job; what it returns is the result.
        turn : lock, optional
            Held while it works: one piece of work of a party at a time.
        cancellable : bool
            As of :class:`Job`.

        Returns
        -------
        Job
            Waiting or running.

        Raises
        ------
        LimitError
            Too many jobs run.
        """
        job = Job(what, cancellable)
        with self._lock:
            if sum(not j.ended for j in self._jobs.values()) >= MOST_RUNNING:
                raise LimitError(f"{MOST_RUNNING} actions are under way; wait for some to end")
            for old in [j for j in self._jobs.values() if j.ended][:-MOST_ENDED]:
                del self._jobs[old.id]
            self._jobs[job.id] = job
        job.thread = threading.Thread(target=self._run, args=(job, work, turn), name="mipp app job", daemon=True)
        job.thread.start()
        return job

    def _run(self, job: Job, work: Callable[[Job], Any], turn: threading.Lock | None) -> None:
        try:
            with _held(turn, job):
                if self._change(job, "running"):
                    job.result = work(job)
                    self._change(job, "done")
        except Cancelled:
            pass
        except (MippError, OSError) as error:
            self._change(job, "failed", shown(str(error), _SENTENCE))
        except Exception as error:
            # a fault of this program: its kind alone, as its text may hold anything
            _log.error("an action of the page failed: %s", type(error).__name__)
            self._change(job, "failed", f"this program failed ({type(error).__name__}); please report it")
        finally:
            if job.state == "cancelled":
                job.result = job.file = None
            job.seconds = time.monotonic() - job.began

    def _change(self, job: Job, state: str, text: str = "") -> bool:
        """Whether the job was in another state than cancelled, which stays."""
        with self._lock:
            if job.state == "cancelled":
                return False
            job.state, job.text = state, text or job.text
            return True

    def get(self, identity: str) -> Job:
        """The job of an id; NotFoundError if there is none."""
        job = self._jobs.get(identity)
        if job is None:
            raise NotFoundError("this action is not known any more")
        return job

    def cancel(self, identity: str) -> Job:
        """Cancel a job; one that ended stays as it is."""
        job = self.get(identity)
        with self._lock:
            if not job.ended:
                job.state, job.result, job.file = "cancelled", None, None
                job.text = "cancelled" if job.cancellable else "cancelled; what was sent already ends by itself"
                job.seconds = time.monotonic() - job.began
        return job

    @contextlib.contextmanager
    def making_file(self, job: Job) -> Iterator[None]:
        """Make a job's ``file``, the only one of all jobs: an earlier one is dropped, and this one after a minute.

        Parameters
        ----------
        job : Job
            Gets its file inside the ``with`` statement.

        Raises
        ------
        LimitError
            Another file is being made.
        """
        if not self._making.acquire(blocking=False):
            raise LimitError("another export is under way; wait for its end")
        try:
            self._drop_file()
            yield
            with self._lock:
                self._filed, self._dropping = job, threading.Timer(FILE_SECONDS, self._drop_file, (job,))
                self._dropping.daemon = True
                self._dropping.start()
        finally:
            self._making.release()

    def _drop_file(self, only: Job | None = None) -> None:
        """Drop the file that is kept, or that of one job."""
        with self._lock:
            if self._filed is None or only not in (None, self._filed):
                return
            self._filed.file, self._filed = None, None
            if self._dropping is not None:
                self._dropping.cancel()
                self._dropping = None

    def take_file(self, identity: str) -> tuple[str, str, bytes]:
        """The file of a job, once; NotFoundError if there is none any more."""
        job = self.get(identity)
        file = job.file
        self._drop_file(job)
        if file is None:
            raise NotFoundError("this file is not kept any more; export again")
        return file

    def running(self) -> list[Job]:
        """Jobs that did not end, oldest first."""
        with self._lock:
            return [job for job in self._jobs.values() if not job.ended]

    def close(self, seconds: float) -> None:
        """Cancel all jobs and wait so long for their threads."""
        for job in self.running():
            self.cancel(job.id)
        self._drop_file()
        until = time.monotonic() + seconds
        for job in list(self._jobs.values()):
            if job.thread is not None and job.thread is not threading.current_thread():
                job.thread.join(max(0.0, until - time.monotonic()))


@contextlib.contextmanager
def _held(turn: threading.Lock | None, job: Job) -> Iterator[None]:
    """Hold a party's turn; a job that is cancelled waits for it no longer."""
    if turn is None:
        yield
        return
    while not turn.acquire(timeout=0.05):
        job.check()
    try:
        yield
    finally:
        turn.release()
