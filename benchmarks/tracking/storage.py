"""Results as pytest-benchmark stores them: one JSON file a run, which its own tools read, too."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pytest_benchmark import __version__
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_machine_id

from benchmarks import machine

from . import sampling
from .builds import Build, BuildError, git

DEFAULT = Path(".benchmarks")
#: of ``extra_info``, beside ``sizes``: what figures depend on
SETTINGS = ("threads", "tier", "device", "clock")
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError)


@dataclass(frozen=True)
class Point:
    """One figure of one run."""

    name: str
    fingerprint: str
    #: the instant, in UTC
    when: datetime
    commit: str
    seconds: float
    #: what :mod:`benchmarks.compare` found beside it: ratio, interval, verdict, instructions
    found: dict
    machine: str
    #: sizes, threads and the like, as one text: figures of different settings are not compared
    setting: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for figures that may be compared."""
        return self.name, self.fingerprint, self.setting


def save(
    folder: Path,
    results: Sequence[sampling.Result],
    builds: Sequence[Build],
    counts: dict[str, dict[str, tuple[int, int]]],
    facts: dict,
    repository: Path,
) -> Path:
    """Append a run: HEAD's samples as the figures, other results in ``extra_info``; the file's path.

    ``counts``: instructions of (base, head) by workload and tier.
    """
    base, head = builds
    carried = {"machine": {"fingerprint": machine.fingerprint(facts), **facts}, "tier": facts["level"]}
    names = sorted({r.name for r in results if not r.error} | set(counts))
    by_name = {r.name: r for r in results if not r.error}
    content = {
        "machine_info": {**pytest_benchmark_generate_machine_info(), "mipp": carried["machine"]},
        "commit_info": commit_info(repository, head),
        "benchmarks": [_entry(n, by_name.get(n), base, counts.get(n, {}), carried) for n in names if n in by_name],
        "instructions": counts,
        "datetime": datetime.now(UTC).isoformat(),
        "version": __version__,
    }
    place = folder / get_machine_id()
    place.mkdir(parents=True, exist_ok=True)
    numbers = [int(p.name[:4]) for p in folder.glob("*/[0-9][0-9][0-9][0-9]_*.json")]
    name = f"{max(numbers, default=0) + 1:04}_compare_{re.sub('[^0-9a-zA-Z]+', '-', head.commit)[:12]}.json"
    (place / name).write_text(json.dumps(content, indent=1))
    return place / name


def _entry(name: str, result: sampling.Result, base: Build, counts: dict, carried: dict) -> dict:
    stats = Stats()
    for launch in result.launches + result.confirmed:
        for _, seconds in launch:
            stats.update(seconds)
    found = result.interval
    extra = {
        **carried,
        "base": base.commit,
        "baseline": {"name": "the base's build, in turn", "ratio": found.ratio},
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "verdict": result.verdict,
        "threshold": result.plan.threshold,
        "clock": "processor time",
    }
    if counts:
        extra["instructions"] = {tier: head for tier, (_, head) in counts.items()}
        extra["instructions_ratio"] = {tier: head / max(1, was) for tier, (was, head) in counts.items()}
    return {
        "group": "compare",
        "name": name,
        "fullname": f"benchmarks/tracking/workloads.py::{name}",
        "params": None,
        "param": None,
        "extra_info": extra,
        "options": {"timer": "process_time", "rounds": stats.rounds, "warmup": True, "disable_gc": True},
        "stats": {**stats.as_dict(), "data": stats.data, "iterations": 1},
    }


def commit_info(repository: Path, build: Build) -> dict:
    """As pytest-benchmark has it, of the build that was measured."""
    known = {"id": build.commit, "time": None, "author_time": None, "dirty": build.commit.endswith("+")}
    known |= {"project": repository.resolve().name, "branch": "(unknown)"}
    try:
        times = git(repository, "show", "-s", "--format=%cI %aI", build.commit.rstrip("+")).decode().split()
        known["time"], known["author_time"] = times
        known["branch"] = git(repository, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
    except BuildError:  # a folder was measured
        pass
    return known


def read(folder: Path, say: Callable[[str], None] | None = None) -> list[Point]:
    """All figures stored under a folder, oldest first, pytest-benchmark's own runs included; each once.

    Parameters
    ----------
    say : told of each file and figure that cannot be read, and the rest goes on; without it the first one is an error

    Raises
    ------
    ValueError
        A file that is no run of pytest-benchmark, or a figure in it that is no time.
    """

    def wrong(text: str, error: Exception) -> None:
        if say is None:
            raise ValueError(text) from error
        say(text)

    points: dict[tuple, Point] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            run = json.loads(path.read_text())
            mine, benchmarks = run["machine_info"].get("mipp"), list(run["benchmarks"])
            when, commit = instant(run["datetime"]), str(run["commit_info"]["id"])
        except (*_MALFORMED, OSError, UnicodeDecodeError) as error:
            wrong(f"{path} is no run of pytest-benchmark: {type(error).__name__}: {error}", error)
            continue
        for number, bench in enumerate(benchmarks):
            try:
                found = bench.get("extra_info") or {}
                facts = found.get("machine") or mine or foreign(run["machine_info"])
                described = machine.line(facts) if "level" in facts else f"machine {facts['fingerprint']}"
                name = bench["fullname"] if bench["group"] != "compare" else bench["name"]
                seconds = float(bench["stats"]["median"])
                if not math.isfinite(seconds) or seconds < 0:
                    raise ValueError(f"a median of {seconds}")
                point = Point(str(name), facts["fingerprint"], when, commit, seconds, found, described, setting(found))
                # a run that was stored twice, say by a cache that was restored, is one run
                points.setdefault((point.key, when, commit, seconds), point)
            except _MALFORMED as error:
                wrong(f"{path}: figure {number + 1} cannot be read: {type(error).__name__}: {error}", error)
    return sorted(points.values(), key=lambda p: p.when)


def instant(text: str) -> datetime:
    """A time as pytest-benchmark writes it; one without an offset is in UTC."""
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def setting(found: dict) -> str:
    """Settings that a figure depends on, beside the machine: sizes, threads, tier, device, clock."""
    sizes = found.get("sizes") or {}
    said = {f"{name}": value for name, value in sorted(sizes.items())} if isinstance(sizes, dict) else {"sizes": sizes}
    said |= {name: found[name] for name in SETTINGS if found.get(name) is not None}
    return ", ".join(f"{name}={value}" for name, value in said.items())


def foreign(info: dict) -> dict:
    """Facts of a run that carries none of ours: processor, machine and versions as pytest-benchmark has them."""
    cpu = info.get("cpu") or {}
    facts = {
        "architecture": info.get("machine"),
        "cpu": cpu.get("brand_raw") or info.get("processor"),
        "cores": cpu.get("count"),
        "python": info.get("python_version"),
    }
    return {"fingerprint": machine.fingerprint(facts), **facts}


def lines(points: Sequence[Point]) -> dict[tuple[str, str, str], list[Point]]:
    """Figures that may be compared: by name, machine and setting, oldest first. Anything else starts a new line."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for point in sorted(points, key=lambda p: p.when):
        found.setdefault(point.key, []).append(point)
    return found
