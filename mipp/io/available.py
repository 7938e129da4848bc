"""Memory that this process may use: of the machine, and of the control groups that it is in."""

from __future__ import annotations

import functools
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["available_bytes", "memory_bytes"]

_PROC = Path("/proc")
#: names of a group's files in versions 1 and 2: its limits, what it uses, and fields of pages that can be given up
_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    2: (("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file")),
}


class _Group(NamedTuple):
    """A control group with a limit, in bytes: the limit, and that which is never passed (the other one only slows the
    group down); what is used, and how much of that are pages of files."""

    limit: float
    hard: float
    used: float
    files: float


def memory_bytes(proc: Path | None = None) -> float:
    """Memory that this process can have: the machine's, or the least limit of a control group that it is in.

    Parameters
    ----------
    proc : Path, optional
        Where the system tells of processes. Default its own place, which is read again after a second at the earliest:
        servers ask for each ranking.

    Returns
    -------
    float
        Bytes; infinite where the system does not tell.

    Examples
    --------
    >>> from mipp.io.available import memory_bytes
    >>> memory_bytes() > 0
    True
    """
    return _memory(proc) if proc is not None else _memory_about(int(time.monotonic()))


def _memory(proc: Path) -> float:
    return min([_machine(), *(group.hard for group in _groups(proc))])


@functools.lru_cache(maxsize=1)
def _memory_about(second: int) -> float:
    """What is told in one second of the monotonic clock."""
    return _memory(_PROC)


def available_bytes(proc: Path = _PROC) -> float:
    """Memory that this process can take now without any being swapped out; pages of files count as free.

    Parameters
    ----------
    proc : Path
        Where the system tells of processes.

    Returns
    -------
    float
        Bytes, of the machine or of the tightest control group; infinite where the system does not tell.

    Examples
    --------
    >>> from mipp.io.available import available_bytes, memory_bytes
    >>> available_bytes() <= memory_bytes()
    True
    """
    told = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    machine = 1024.0 * int(told[1]) if told else _machine()
    return max(0.0, min([machine, *(group.limit - group.used + group.files for group in _groups(proc))]))


def _machine() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (OSError, ValueError):  # ValueError: what was told is no path
        return ""


def _groups(proc: Path) -> Iterator[_Group]:
    """The control groups that this process is in, of both versions, up to the outermost that can be seen."""
    named = [line.split(":", 2) for line in _text(proc / "self/cgroup").splitlines() if line.count(":") >= 2]
    for version, root, top in _mounts(proc):
        for _, controllers, name in named:
            if ("memory" in controllers.split(",")) if version == 1 else not controllers:
                # in a container the mount may begin at the process's own group, whose name is the host's
                inside = name[len(root.rstrip("/")) :] if (name + "/").startswith(root.rstrip("/") + "/") else ""
                folder = top / inside.strip("/")
                for one in (folder, *folder.parents):
                    found = _group(one, version)
                    if found is not None:
                        yield found
                    if one == top:
                        break


def _mounts(proc: Path) -> Iterator[tuple[int, str, Path]]:
    """Version, root and place of each mount of control groups that may limit memory."""
    for line in _text(proc / "self/mountinfo").splitlines():
        place, _, kind = line.partition(" - ")
        fields, kinds = place.split(" "), kind.split(" ")
        if len(fields) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == "cgroup2" or (kinds[0] == "cgroup" and "memory" in kinds[2].split(",")):
            root, top = (re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field) for field in fields[3:5])
            yield 2 if kinds[0] == "cgroup2" else 1, root, Path(top)


def _group(folder: Path, version: int) -> _Group | None:
    limits, used, fields = _FILES[version]
    given = [_number(_text(folder / name)) for name in limits]
    if min(given) == math.inf:
        return None
    use = _number(_text(folder / used))
    stat = dict(line.split(" ", 1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    files = sum(float(stat[name]) for name in fields if _number(stat.get(name, "")) < math.inf)
    # without a word of what is used, all may be
    return _Group(min(given), given[0], *((use, files) if use < math.inf else (0.0, 0.0)))


def _number(text: str) -> float:
    """A number of bytes; infinite for anything else, as "max"."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdigit() else math.inf
