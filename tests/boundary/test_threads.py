"""Threads: the pool under a thread sanitizer, two callers at once, fork, the interpreter lock, the environment."""

import os
import shutil
import subprocess
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from mipp import cpu, ring
from mipp._native import _core
from mipp.errors import DTypeError, ParameterError
from mipp.paillier import decrypt, encrypt, generate_keypair
from tests.boundary.test_cpu import python

ROOT = Path(__file__).resolve().parents[2]


def problem(seed, n=30_000, dim=64, b=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (n, dim), np.uint32), rng.integers(0, 2**32, (b, dim), np.uint32)


@pytest.mark.parametrize("sanitizer", ["none", "thread"])
def test_pool_by_itself(tmp_path, sanitizer):
    compiler = os.environ.get("CXX", "g++")
    source = ROOT / "csrc" / "common" / "pool.cpp"
    if shutil.which(compiler) is None or not source.exists():
        pytest.skip("needs a compiler and the sources")
    build = [compiler, "-std=c++17", "-O1", "-g", "-pthread", ROOT / "tests/boundary/pool_check.cpp", source]
    flags = [] if sanitizer == "none" else [f"-fsanitize={sanitizer}"]
    plain = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "MIPP_NUM_THREADS")}
    made = subprocess.run([*build, *flags, "-o", tmp_path / "pool"], env=plain, capture_output=True, text=True)
    if made.returncode != 0 and flags:
        pytest.skip("the compiler has no thread sanitizer")
    assert made.returncode == 0, made.stderr
    done = subprocess.run([tmp_path / "pool"], env=plain, capture_output=True, text=True, timeout=120)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run under this kernel")
    assert done.returncode == 0, done.stderr


def test_two_callers_at_once():
    problems = [problem(seed, n=9_000 + seed) for seed in range(3)]
    wanted = [ring.matmul(rows, columns, threads=1) for rows, columns in problems]
    wrong = []

    def work(i):
        for _ in range(60):
            if not np.array_equal(ring.matmul(*problems[i], threads=2), wanted[i]):
                wrong.append(i)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(60)
    assert not any(t.is_alive() for t in callers)
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("busy", [False, True])
def test_forked_child_has_its_own_pool(busy):
    rows, columns = problem(1)
    wanted = ring.matmul(rows, columns, threads=2)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            ring.matmul(rows, columns, threads=2)

    other = threading.Thread(target=work)
    if busy:
        other.start()
    try:
        for _ in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0:
                same = all(np.array_equal(ring.matmul(rows, columns, threads=2), wanted) for _ in range(3))
                os._exit(0 if same else 1)
            deadline = time.monotonic() + 30
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.002)
            if ended == (0, 0):
                os.kill(child, 9)
                os.waitpid(child, 0)
                pytest.fail("the child hangs")
            assert os.waitstatus_to_exitcode(ended[1]) == 0
    finally:
        stop.set()
        if busy:
            other.join(30)
    assert np.array_equal(ring.matmul(rows, columns, threads=2), wanted)


def product_of_words():
    rows, columns = problem(2, n=20_000, dim=128, b=64)
    return lambda: ring.matmul(rows, columns, threads=1)


def powers():
    modulus = _core.Modulus(np.full(16, 2**64 - 1, np.uint64), True)
    base = np.full((40, 32), 7, np.uint64)
    return lambda: modulus.pow(base, np.full((1, 4), 5, np.uint64), 256, threads=1)


def shared_powers():
    modulus = _core.Modulus(np.full(16, 2**64 - 1, np.uint64), True)
    base = np.full((30, 32), 7, np.uint64)
    return lambda: modulus.multi_pow(base, np.full((200, 1, 30), 9, np.uint8), 8, 8, threads=1)


def decryption():
    key = generate_keypair(1024, insecure=True)
    array = encrypt(key.public, np.arange(60))
    return lambda: decrypt(key, array, threads=1)


@pytest.mark.parametrize("make", [product_of_words, powers, shared_powers, decryption])
def test_interpreter_lock_is_released(make):
    call = make()
    span = []

    def work():
        with cpu.force("portable"):
            begin = time.perf_counter()
            call()
            span.extend((begin, time.perf_counter()))

    ticks = []
    other = threading.Thread(target=work)
    other.start()
    while other.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.0005)
    other.join()
    begin, end = span
    margin = (end - begin) / 5
    assert sum(begin + margin < t < end - margin for t in ticks) >= 3


def test_default_threads():
    assert python("from mipp import cpu; print(cpu.threads())", MIPP_NUM_THREADS="3") == "3"
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processors = min(processors, _core.quota_processors("") or processors)
    assert python("from mipp import cpu; print(cpu.threads())", MIPP_NUM_THREADS="") == str(processors)


@pytest.mark.parametrize(
    ("groups", "files", "processors"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 0),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "800000 100000"}, 1),
        ("0::/host/only", {"cpu.max": "400000 100000"}, 4),
        ("3:cpu,cpuacct:/c\n2:memory:/c", {"cpu,cpuacct/c/cpu.cfs_quota_us": "50000"}, 1),
        ("3:cpu:/c", {"cpu/cpu.cfs_quota_us": "250000"}, 3),
        ("3:cpu:/c", {"cpu/cpu.cfs_quota_us": "-1"}, 0),
        ("0::/../x", {"cpu.max": "100000 100000"}, 0),
        ("0::/", {"cpu.max": "nonsense"}, 0),
        ("0::/", {"cpu.max": "-5 0"}, 0),
        ("nonsense", {}, 0),
    ],
)
def test_the_cpu_quota_of_a_container_bounds_the_threads(tmp_path, groups, files, processors):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        if path.name == "cpu.cfs_quota_us":
            path.with_name("cpu.cfs_period_us").write_text("100000\n")
    assert _core.quota_processors(str(tmp_path)) == processors


@pytest.mark.parametrize("value", ["0", "-1", "1025", "two", "2.5", "99999999999999999999"])
def test_environment_with_a_bad_number_of_threads(value):
    code = """
import numpy as np
from mipp import cpu, ring
from mipp.errors import ParameterError
ones = np.ones((2, 3), np.uint16)
for call in (cpu.threads, lambda: ring.matmul(ones, ones)):
    try:
        call()
    except ParameterError as error:
        print(error)
assert (ring.matmul(ones, ones, threads=1) == 3).all()
"""
    assert (
        python(code, MIPP_NUM_THREADS=value).splitlines() == ["MIPP_NUM_THREADS must be an integer from 1 to 1024"] * 2
    )


ONES = np.ones((2, 8), np.uint32)
BY_FAMILY = {
    "ring": lambda threads: _core.ring_matmul(ONES, ONES, None, threads),
    "prf": lambda threads: _core.hkdf_expand_batch(bytes(32), np.zeros((1, 3), np.uint8), threads),
    "galois": lambda threads: _core.reconstruct([ONES], np.zeros((2, 8), np.int64), threads),
    "compare": lambda threads: _core.prf_words(bytes(32), np.zeros(8, np.uint64), threads),
    "bigint": lambda threads: _core.Modulus(np.array([7], np.uint64)).mul(*np.ones((2, 1, 1), np.uint64), threads),
}


@pytest.mark.parametrize("family", BY_FAMILY)
def test_every_family_takes_the_same_numbers_of_threads(family):
    """None and 0 are the default, as in the C interface."""
    call = BY_FAMILY[family]
    for threads in (None, 0, 1, 2, 1024, np.int64(3)):
        call(threads)
    for error, wrong in ((ParameterError, (-1, 1025, 2**70)), (DTypeError, (True, "2", 1.0))):
        for threads in wrong:
            with pytest.raises(error):
                call(threads)
