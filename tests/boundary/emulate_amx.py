"""Runs tests of the amx tier on a machine without AMX: ``python -m tests.boundary.emulate_amx [PYTEST ARGUMENTS]``.

Builds the emulator of tile instructions (amx_emulator.cpp), loads it first and runs pytest, by default on the kernels
that have an amx tier. The machine must have AVX-512, which that tier also uses.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mipp import cpu

ROOT = Path(__file__).resolve().parents[2]
# its handler of invalid instructions would come before the emulator's
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:faulthandler"]
DEFAULT = ["-q", "-p", "no:cacheprovider", "tests/kernels/test_ring.py", "tests/kernels/test_batch.py", "-k", "amx"]


def build(folder):
    """The emulator, as a library to load first."""
    target = Path(folder) / "amx_emulator.so"
    compiler = os.environ.get("CXX", "g++")
    source = ROOT / "tests/boundary/amx_emulator.cpp"
    subprocess.run([compiler, "-std=c++17", "-O3", "-mavx2", "-shared", "-fPIC", source, "-o", target], check=True)
    return target


def run(command, **options):
    """Runs a command with the emulator and level amx."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"LD_PRELOAD": str(build(folder)), "MIPP_CPU": "amx"}
        return subprocess.run(command, cwd=ROOT, env=environment, **options)


def main(arguments):
    if "amx" in cpu.levels() or "avx512" not in cpu.levels():
        print(f"nothing to emulate on a machine of levels {', '.join(cpu.levels())}")
        return 0
    return run([*PYTEST, *(arguments or DEFAULT)]).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
