"""Samples of two builds in turn: two processes pinned to one core, asked alternately for some milliseconds of work.

Pairs are nearly simultaneous and only one process runs at a time, so a neighbour or a clock that changes meets both.
See :mod:`.stats` for what is made of the samples.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import stats
from .builds import Build

WORKER = Path(__file__).with_name("worker.py")
SHORTEST_RUN = 0.3e-3
#: seconds of making a workload that every pair is worth: new memory each time, some places are slower than others
CHEAP = 0.05
WORKLOADS = Path(__file__).with_name("workloads.py")


class WorkerError(RuntimeError):
    """A worker could not carry out a request."""


@dataclass(frozen=True)
class Plan:
    """Amounts of measurement."""

    launches: int = 8
    #: while the verdict is unclear, more, up to this
    most_launches: int = 24
    pairs: int = 8
    sample_ms: float = 10
    threshold: float = stats.THRESHOLD
    confidence: float = stats.CONFIDENCE


@dataclass
class Result:
    """Recorded launches of one workload, and what follows from them."""

    name: str
    launches: list[list[tuple[float, float]]] = field(default_factory=list)
    #: a first alarm, measured again by fresh processes
    confirmed: list[list[tuple[float, float]]] = field(default_factory=list)
    error: str | None = None
    plan: Plan = Plan()

    @property
    def interval(self) -> stats.Interval:
        return stats.interval(self.launches, confidence=self.plan.confidence)

    @property
    def verdict(self) -> str:
        """Slower only if fresh processes confirm it."""
        if self.error:
            return "error"
        first = stats.verdict(self.interval, self.plan.threshold)
        if first != stats.SLOWER or not self.confirmed:
            return first
        again = stats.verdict(stats.interval(self.confirmed, confidence=self.plan.confidence), self.plan.threshold)
        return stats.SLOWER if again == stats.SLOWER else stats.UNCLEAR


class Worker:
    """A process with one build loaded; ends with the context."""

    def __init__(self, build: Build, workloads: Path, package: str, core: int | None, folder: str) -> None:
        environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME")}
        environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MIPP_NUM_THREADS"), "1")
        command = [sys.executable, str(WORKER), str(build.path), str(workloads), package]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def ask(self, do: str, **what: object) -> dict:
        """Reply of the worker; WorkerError if it has none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"a worker ended with code {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def close(self) -> None:
        """Asks it to end, so that it releases what it holds; ends it after a while."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(20)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def workers(builds: Sequence[Build], workloads: Path, package: str) -> Iterator[list[Worker]]:
    """One worker for each build, all on one core: the idlest of a moment ago."""
    core = idlest_core()
    made: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="mipp-compare-") as folder:
        try:
            for build in builds:
                made.append(Worker(build, workloads, package, core, folder))
            yield made
        finally:
            for worker in made:
                worker.close()


def idlest_core() -> int | None:
    """The core of this process's that idled most during a tenth of a second; None where cores cannot be chosen."""
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/stat").exists():
        return None
    before = _idle()
    time.sleep(0.1)
    after = _idle()
    mine = os.sched_getaffinity(0)
    return max(sorted(mine), key=lambda core: after.get(core, 0) - before.get(core, 0))


def _idle() -> dict[int, int]:
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    return {int(w[0][3:]): int(w[4]) for w in lines if w[0].startswith("cpu") and w[0] != "cpu"}


def names_of(builds: Sequence[Build], workloads: Path = WORKLOADS, package: str = "mipp") -> dict:
    """Workloads of a file, those that can be counted, the level of kernels in force and all levels."""
    with workers(builds[:1], workloads, package) as (worker,):
        return worker.ask("list")


def launch(
    builds: Sequence[Build], wanted: Sequence[str], plan: Plan, workloads: Path, package: str
) -> dict[str, list[tuple[float, float]] | str]:
    """One launch: pairs of each workload by two fresh processes, or what went wrong."""
    found: dict[str, list[tuple[float, float]] | str] = {}
    with workers(builds, workloads, package) as sides:
        for name in wanted:
            slowest, making, failed = 0.0, 0.0, ""
            for side, worker in zip(("base", "head"), sides, strict=True):
                try:
                    made = worker.ask("prepare", name=name)
                    slowest, making = max(slowest, made["seconds"]), max(making, made["made"])
                except WorkerError as error:
                    failed = failed or f"{side}: {error}"
            if failed:
                found[name] = failed
                continue
            # a run is long beside the clock's own cost, and short beside a time slice
            calls = max(1, round(SHORTEST_RUN / slowest))
            runs = max(2, round(plan.sample_ms / 1e3 / (calls * slowest)))
            size = {"runs": runs, "calls": calls, "warm": int(runs > 2)}
            pairs = []
            for turn in range(plan.pairs):
                spent = [0.0, 0.0]
                for worker in sides if turn and making < CHEAP else ():
                    worker.ask("prepare", name=name)
                for side in (0, 1) if turn % 2 == 0 else (1, 0):
                    spent[side] = sides[side].ask("sample", **size)["seconds"]
                pairs.append((spent[0], spent[1]))
            for worker in sides:
                worker.ask("drop")
            found[name] = pairs
    return found


def measure(
    builds: Sequence[Build],
    wanted: Sequence[str],
    plan: Plan,
    *,
    workloads: Path = WORKLOADS,
    package: str = "mipp",
    say: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """All workloads wanted: first ``plan.launches``, more where unclear; an alarm is measured again from the start."""
    results = {name: Result(name, plan=plan) for name in wanted}

    def add(names: list[str], to: str) -> None:
        for name, pairs in launch(builds, names, plan, workloads, package).items():
            if isinstance(pairs, str):
                results[name].error = pairs
            else:
                getattr(results[name], to).append(pairs)

    def those(verdict: str) -> list[str]:
        return [r.name for r in results.values() if not r.error and r.verdict == verdict]

    for turn in range(plan.launches):
        say(f"launch {turn + 1}: {len(wanted)} workloads")
        add([r.name for r in results.values() if not r.error], "launches")
    for turn in range(plan.launches, plan.most_launches):
        if not (unclear := those(stats.UNCLEAR)):
            break
        say(f"launch {turn + 1}: {', '.join(unclear)}")
        add(unclear, "launches")
    if alarms := those(stats.SLOWER):
        say(f"measured again: {', '.join(alarms)}")
        for _ in range(max(plan.launches, 2)):
            add([name for name in alarms if not results[name].error], "confirmed")
    return list(results.values())
