"""Runs tests with address and undefined-behaviour checks: ``python -m tests.boundary.sanitize [PYTEST ARGUMENTS]``.

Builds a copy of the package under ``build/sanitized`` (the one in place stays as it is) and runs pytest, by default on
the kernel tests, with the compiler's runtime libraries loaded first.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "build" / "sanitized"

RUN = """
import sys
sys.path[0] = sys.argv[1]
import mipp._native
assert mipp.__file__.startswith(sys.argv[1])
import pytest
sys.exit(pytest.main(sys.argv[2:]))
"""


def runtime(name):
    """Path of a runtime library of the compiler."""
    compiler = os.environ.get("CXX", "g++")
    done = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main(arguments):
    environment = {**os.environ, "MIPP_SANITIZE": "1"}
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", BASE, "--build-lib", BASE / "lib"]
    subprocess.run(build, cwd=ROOT, env=environment, check=True)
    environment |= {
        "LD_PRELOAD": f"{runtime('libasan.so')}:{runtime('libubsan.so')}",
        # the interpreter keeps much of its memory until it ends
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }
    run = [sys.executable, "-c", RUN, BASE / "lib", "--capture=sys", *(arguments or ["tests/kernels"])]
    return subprocess.run(run, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
