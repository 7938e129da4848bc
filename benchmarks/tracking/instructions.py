"""Instructions of a call, counted by valgrind's callgrind: the same at every run, on a busy machine too.

valgrind 3.19 cannot run AVX-512, so tiers are forced: portable and avx2. Counting starts and stops at the call, by
valgrind's own requests through a library of a few lines that is compiled here (valgrind's header, a C compiler).
Instructions are not time: they miss caches, latency and the AVX-512 tier; they catch work that was added.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .builds import Build
from .sampling import WORKER, WORKLOADS

TIERS = ("portable", "avx2")
THRESHOLD = 0.03

REQUESTS = r"""
#include <valgrind/callgrind.h>
void count_begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void count_end(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


class CountError(RuntimeError):
    """valgrind, its header or a compiler is missing, or the run failed."""


def missing() -> str | None:
    """Tools that counting needs and this machine lacks."""
    if not shutil.which("valgrind"):
        return "valgrind is not installed"
    if not Path("/usr/include/valgrind/callgrind.h").exists():
        return "valgrind's header valgrind/callgrind.h is not installed"
    return None if shutil.which(_compiler()) else f"no C compiler {_compiler()}"


def _compiler() -> str:
    return os.environ.get("CC", "cc")


def count(
    build: Build, tier: str, names: Sequence[str], *, workloads: Path = WORKLOADS, package: str = "mipp"
) -> dict[str, int]:
    """Instructions of one call of each workload that this build and tier can run.

    Raises
    ------
    CountError
        Something is missing, or valgrind failed.
    """
    if lacking := missing():
        raise CountError(lacking)
    with tempfile.TemporaryDirectory(prefix="mipp-count-") as folder:
        library = Path(folder, "requests.so")
        source = library.with_suffix(".c")
        source.write_text(REQUESTS)
        compiled = subprocess.run(
            [_compiler(), "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], capture_output=True, text=True
        )
        if compiled.returncode:
            raise CountError(compiled.stderr)
        out = Path(folder, "out")
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        command += [
            sys.executable,
            str(WORKER),
            str(build.path),
            str(workloads),
            package,
            "count",
            str(library),
            *names,
        ]
        environment = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "PYTHONHOME")}
        environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MIPP_NUM_THREADS"), "1")
        environment |= {"MIPP_CPU": tier, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        if done.returncode:
            raise CountError(f"valgrind ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
        left_out = {json.loads(line)["name"] for line in done.stdout.splitlines() if line.startswith('{"name"')}
        counts = parse(Path(folder))
        if lost := set(names) - left_out - set(counts):
            raise CountError(f"valgrind wrote no count of {', '.join(sorted(lost))}")
        return counts


def parse(folder: Path) -> dict[str, int]:
    """Totals of callgrind's dumps, by the name each was made with."""
    found = {}
    for path in folder.glob("out.*"):
        text = path.read_text(errors="replace")
        name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.M)
        total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
        if name and total:
            found[name[1].strip()] = int(total[1])
    return found
