"""Facts of the machine that figures were measured on, and a fingerprint of those that comparisons need."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

#: Figures are of one line only while these stay: the kernel's release and numpy's BLAS move no kernel of ours.
COMPARED = ("architecture", "cpu", "cores", "level", "memory_gib", "python", "numpy")


def facts() -> dict[str, str | int | None]:
    """Processor, cores this process may use, level of kernels in force, memory, versions, numpy's BLAS kernel."""
    return _fixed() | {"cores": cores(), "level": _level(), "blas": _blas()}


@cache
def _fixed() -> dict[str, str | int | None]:
    return {
        "architecture": platform.machine(),
        "cpu": _cpu(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": ".".join(metadata.version("numpy").split(".")[:2]),
    }


def fingerprint(of: dict[str, str | int | None] | None = None) -> str:
    """Eight hexadecimal digits; equal where figures may be compared."""
    of = facts() if of is None else of
    kept = json.dumps({name: of.get(name) for name in COMPARED}, sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()[:8]


def line(of: dict[str, str | int | None]) -> str:
    """One line for printing."""
    return (
        f"machine {fingerprint(of)}: {of['cpu']}, {of['cores']} cores, level {of['level']}, {of['memory_gib']} GiB, "
        f"Linux {of['kernel']}, Python {of['python']}, numpy {of['numpy']}, BLAS {of['blas'] or 'unknown'}"
    )


def busy() -> str | None:
    """A warning where other work runs now: ratios of two threads, and of long calls, then mean little."""
    load = os.getloadavg()[0]
    return f"busy: a load of {load:.1f} on {cores()} cores before the start" if load > 0.5 * cores() else None


def head(schema: str, *, quick: bool, busy: str | None) -> dict[str, object]:
    """Head of a file of results."""
    now = datetime.now(UTC).isoformat()
    of = facts()
    known = {"fingerprint": fingerprint(of), **of}
    return {"schema": schema, "datetime": now, "quick": quick, "busy": busy, "machine": known}


def cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    """Model's name with its numbers: hypervisors often give several processors one name."""
    known = {}
    path = Path("/proc/cpuinfo")
    for text in path.read_text().splitlines() if path.exists() else ():
        name, _, value = text.partition(":")
        known.setdefault(name.strip(), value.strip())
    name = known.get("model name") or known.get("CPU part") or platform.processor() or "unknown"
    numbers = [known[key] for key in ("cpu family", "model", "stepping") if key in known]
    return f"{name} ({'-'.join(numbers)})" if numbers else name


def _level() -> str | None:
    try:
        from mipp import cpu
    except ImportError:  # not built here: other builds are compared
        return None
    return cpu.level()


def _blas() -> str | None:
    """Kernel that numpy's BLAS chose, and its version; needs threadpoolctl."""
    try:
        import numpy as np
        from threadpoolctl import threadpool_info
    except ImportError:
        return None
    home = str(Path(np.__file__).parent)
    for pool in threadpool_info():
        if pool.get("user_api") == "blas" and pool.get("filepath", "").startswith(home):
            return f"{pool['internal_api']} {pool.get('version')} {pool.get('architecture')}"
    return None
