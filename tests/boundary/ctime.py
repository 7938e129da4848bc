"""Checks that the kernels' time depends on no secret: ``python -m tests.boundary.ctime [BUILD_FOLDER]``.

Two ways, on the libraries that a build made: valgrind with secrets marked undefined (tiers portable and avx2; valgrind
knows no AVX-512), and the addresses of all instructions, single-stepped, for two secrets (every tier of this machine up
to avx512). Each family has controls that leak on purpose and must be caught (``ctime.cpp``). Needs an x86-64 Linux, a
C++ compiler and, for the first way, valgrind with its header.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mipp import cpu

from .check_nm import libraries

HERE = Path(__file__).resolve().parent
TIERS = ("portable", "avx2", "avx512")


def build(folder, target):
    """The program, linked with the tier libraries under ``folder``; whether valgrind can be asked."""
    found = {p.stem.removeprefix("libmipp_"): p for p in libraries(folder)}
    marks = shutil.which("valgrind") is not None and Path("/usr/include/valgrind/memcheck.h").exists()
    command = ["g++", "-std=c++17", "-O1", "-g", "-DMIPP_X86=1", f"-I{HERE.parents[1] / 'csrc'}"]
    command += ["-DMIPP_VALGRIND"] * marks
    command += [
        HERE / name
        for name in ("ctime.cpp", "ctime_bigint.cpp", "ctime_lattice.cpp", "ctime_pir.cpp", "ctime_words.cpp")
    ]
    # no tier's code: the hash of a key before all derivations; digits, packing, audits, private retrieval and lattices
    # around their kernels, the choice of a tier, and the pool that they use
    untiered = (
        "prf/hkdf", "prf/prf", "ring/ring", "compare/digits", "audit/audit", "pir/pir", "pir/pir_key", "pir/scan",
        "lattice/lattice", "lattice/tables", "lattice/samples", "lattice/switch", "lattice/expand", "cpu/cpu",
        "common/pool",
    )  # fmt: skip
    command += [found["portable"].parent / f"csrc/{name}.o" for name in untiered]
    subprocess.run([*command, *(found[tier] for tier in TIERS), found["amx"], "-o", target], check=True)
    return marks


def run(command):
    """The findings of all cases of one way and tier, and whether one is wrong."""
    done = subprocess.run(command, capture_output=True, text=True)
    found = f"{command[-2]}, {command[-1]}:\n{done.stdout}"
    return found + done.stderr * (done.returncode != 0), done.returncode != 0


def main(folder="build"):
    if not libraries(folder):
        print(f"no tier libraries under {folder}: build first", file=sys.stderr)
        return 2
    here = [tier for tier in TIERS if tier in cpu.levels()]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(os.cpu_count()) as pool:
        program = Path(temporary) / "ctime"
        wrong = not build(folder, program)
        if wrong:
            print("valgrind or its header is not installed: that part was left out")
        ways = [[program, "trace", tier] for tier in here]
        if not wrong:
            ways += [["valgrind", "-q", program, "mark", tier] for tier in here if tier != "avx512"]
        for found, bad in pool.map(run, ways):
            print(found, flush=True)
            wrong |= bad
    return wrong


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
