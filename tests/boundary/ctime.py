"""Checks that kernels take the same way whatever their secrets: ``python -m tests.boundary.ctime [BUILD_FOLDER]``.

Two ways, on the libraries that a build made: valgrind with secrets marked undefined (portable tier), and the trace of
instructions, single-stepped, for several secrets (every tier of this machine; valgrind cannot run AVX-512). Each has a
control that leaks on purpose and must be caught. Needs a C++ compiler and, for the first, valgrind with its header.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mipp import cpu

from .check_nm import libraries

ROOT = Path(__file__).resolve().parents[2]
CASES = ["pow", "fixed_pow", "multi_pow", "decrypt", "modulus", "pair", "squares_deal", "squares_share"]
CONTROL = "leaky"


def build(folder, target):
    """The program, linked with the tier libraries under ``folder``; whether valgrind can be asked."""
    found = {p.stem.removeprefix("libmipp_"): p for p in libraries(folder)}
    marks = shutil.which("valgrind") is not None and Path("/usr/include/valgrind/memcheck.h").exists()
    command = ["g++", "-std=c++17", "-O2", "-g", "-DMIPP_X86=1", f"-I{ROOT / 'csrc'}"]
    command += [ROOT / "tests/boundary/ctime.cpp"]
    command += ["-DMIPP_VALGRIND"] * marks + ["-DMIPP_AVX512"] * ("avx512" in found)
    command += [found[tier] for tier in ("portable", "avx512") if tier in found]
    subprocess.run([*command, "-o", target], check=True)
    return marks


def undefined(program, case):
    """Whether valgrind saw a branch or an address that depends on a secret."""
    command = ["valgrind", "-q", "--error-exitcode=9", program, "mark", "portable", case]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 9):
        raise RuntimeError(f"{case}: exit code {done.returncode}\n{done.stderr}")
    return done.returncode == 9, done.stderr


def main(folder="build"):
    if not libraries(folder):
        print(f"no tier libraries under {folder}: build first", file=sys.stderr)
        return 2
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary) / "ctime"
        if build(folder, program):
            for case in [*CASES, CONTROL]:
                leaks, text = undefined(program, case)
                print(f"valgrind, portable: {case:13} {'leaks' if leaks else 'depends on no secret'}")
                if leaks != (case == CONTROL):
                    print(text, file=sys.stderr)
                    wrong = 1
        else:
            print("valgrind or its header is not installed: that part was left out")
            wrong = 1
        for tier in ("portable", "avx512"):
            if tier in cpu.levels():
                print(f"traces, {tier}:", flush=True)
                wrong |= subprocess.run([program, "trace", tier]).returncode
    return wrong


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
