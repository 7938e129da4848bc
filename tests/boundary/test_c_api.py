"""The C API as others use it: a module compiled against ``mipp.get_include()`` alone, every entry against Python's."""

import importlib.util
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp import cpu, ring, sharing
from mipp._native import _core
from mipp.params import Params
from mipp.sharing import constants

OK, BAD, UNSUPPORTED = 0, 2, 3
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
HEADER = Path(mipp.get_include()) / "mipp" / "mipp.h"
KEY = bytes(range(32))
DTYPES = (np.uint16, np.uint32, np.uint64)


def compiler(*names):
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no compiler: {' '.join(names)}")
    return found


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """The compiled module, with its table loaded."""
    cc = compiler("cc", "gcc", "clang")
    python = Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").exists():
        pytest.skip("no Python.h")
    out = tmp_path_factory.mktemp("c_api") / f"c_api_user{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = Path(__file__).with_name("c_api_user.c")
    platform = sysconfig.get_paths()["platinclude"]
    run(cc, "-std=c99", *STRICT, "-O1", "-shared", "-fPIC", "-I", mipp.get_include(), "-isystem", python, "-isystem",
        platform, source, "-o", out)  # fmt: skip
    spec = importlib.util.spec_from_file_location("c_api_user", out)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    version, size, wanted = module.load()
    assert version == 1 and size == wanted
    return module


def at(a):
    return a.ctypes.data


def pointers(*arrays):
    return np.array([at(a) for a in arrays], np.uintp)


def words(rng, shape, dtype):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def key():
    return np.frombuffer(KEY, np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(params=DTYPES, ids=lambda d: np.dtype(d).name)
def dtype(request):
    return np.dtype(request.param)


# --- the header and the table -------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["c99", "c11", "c++11", "c++17"])
@pytest.mark.parametrize("python", [False, True])
def test_the_header_is_clean(tmp_path, language, python):
    cxx = "++" in language
    cc = compiler(*(("c++", "g++", "clang++") if cxx else ("cc", "gcc", "clang")))
    source = tmp_path / ("use.cpp" if cxx else "use.c")
    body = "const mipp_api *get(void);\nconst mipp_api *get(void) { return mipp_import(); }\n" if python else ""
    source.write_text(("#include <Python.h>\n" if python else "") + "#include <mipp/mipp.h>\n#include <mipp/mipp.h>\n"
                      "extern int size;\nint size = (int)sizeof(mipp_api);\n" + body)  # fmt: skip
    if python and not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        pytest.skip("no Python.h")
    run(cc, f"-std={language}", *STRICT, "-c", "-I", mipp.get_include(), "-isystem", sysconfig.get_paths()["include"],
        source, "-o", tmp_path / "use.o")  # fmt: skip


def test_another_version_or_a_smaller_table_is_refused(user, monkeypatch):
    version, size, _ = user.load()
    for bad in ((version + 1, size), (version - 1, size), (version, size - 1), (version, 0)):
        monkeypatch.setattr(_core, "_C_API", user.fake(*bad))
        with pytest.raises(ImportError, match="C API version"):
            user.load()
    monkeypatch.setattr(_core, "_C_API", user.fake(version, size + 64))  # a later module has more entries
    assert user.load()[1] == size + 64
    monkeypatch.undo()
    assert user.load()[0] == version
    monkeypatch.setattr(_core, "_C_API", object())
    with pytest.raises((AttributeError, ImportError)):
        user.load()


def test_every_entry_is_called_here(user):
    """A new entry of the table needs a function of the test module, so a test."""
    entries = re.findall(r"\(\*(\w+)\)\(", HEADER.read_text())
    used = Path(__file__).with_name("c_api_user.c").read_text()
    assert 16 + 8 * len(entries) == user.load()[1]  # version, size, then pointers
    assert all(f"mipp->{e}(" in used for e in entries)


def test_statuses_have_texts(user):
    texts = [user.status_text(s) for s in range(-1, 7)]
    assert texts[1] == "ok" and len(set(texts)) == 7 and texts[0] == texts[-1]


def test_levels(user):
    names = [user.level_name(i) for i in range(4)]
    assert names == ["portable", "avx2", "avx512", "amx"] and user.level_name(4) is user.level_name(-1) is None
    before, best = user.levels()
    assert names[before] == cpu.level() and names[: best + 1] == list(cpu.levels())
    try:
        for level in range(best + 1):
            assert user.set_level(level) == OK
            assert cpu.level() == names[level] and user.levels()[0] == level
            for family in ("ring", "prf", "galois"):
                assert names[user.active(family)] == cpu.active()[family]
        assert user.set_level(4) == user.set_level(-1) == BAD
        if best < 3:
            assert user.set_level(3) == UNSUPPORTED
    finally:
        assert user.set_level(before) == OK
    assert user.active("nothing") == user.active(None) == -1


# --- the kernels --------------------------------------------------------------------------------------------------


def test_ring_matmul(user, rng, dtype):
    bits = 8 * dtype.itemsize
    rows, columns = words(rng, (100, 24), dtype), words(rng, (3, 24), dtype)
    out = np.full((3, 128), 9, dtype)
    good = [bits, at(rows), 100, 24, at(columns), 3, at(out), 128, 2]
    assert user.ring_matmul(*good) == OK
    assert np.array_equal(out[:, :100], ring.matmul(rows, columns)) and (out[:, 100:] == 9).all()
    out[:] = 9
    for place, value in ((0, 8), (0, 0), (1, 0), (1, at(rows) + 1), (2, -1), (3, 0), (3, 2**62), (4, 0), (6, 0),
                         (7, 99), (8, -1), (8, 1025)):  # fmt: skip
        assert user.ring_matmul(*good[:place], value, *good[place + 1 :]) == BAD
    assert (out == 9).all()
    assert user.ring_matmul(bits, 0, 0, 24, at(columns), 3, 0, 0, 0) == OK
    assert user.ring_matmul(bits, at(rows), 100, 24, 0, 0, 0, 100, 0) == OK


def test_keys_and_keystream(user, rng, dtype):
    bits = 8 * dtype.itemsize
    infos = rng.integers(0, 256, (70, 33), np.uint8)
    out = np.zeros((70, 32), np.uint8)
    assert user.hkdf_expand(at(key()), at(infos), 33, 70, at(out), 2) == OK
    assert np.array_equal(out, _core.hkdf_expand_batch(KEY, infos))
    status, made = user.schedules_new(at(key()), at(infos), 33, 70, 2)
    assert status == OK and user.schedules_count(made) == 70
    try:
        schedules = _core.KeySchedules(KEY, infos)
        for first, count in ((0, 1), (3, 77), (2**32 - 1, 128 // bits)):
            got, expected = np.zeros(count, dtype), np.zeros(count, dtype)
            assert user.keystream_words(made, 69, first, bits, at(got), count) == OK
            _core.keystream_words(schedules, 69, first, expected)
            assert np.array_equal(got, expected)
        width = 128 // bits * 3
        columns = words(rng, (2, width), dtype)
        runs = np.array([[5, 0, 9], [69, 100, 1], [5, 7, 0], [0, 3, 40]], np.uintp)
        got, expected = np.zeros((2, 64), dtype), np.zeros((2, 50), dtype)
        good = [made, at(runs), 4, bits, at(columns), 2, width, at(got), 64, 2]
        assert user.keystream_matmul(*good) == OK
        signed = runs.astype(np.int64)
        _core.keystream_matmul(schedules, *(np.ascontiguousarray(signed[:, i]) for i in range(3)), columns, expected)
        assert np.array_equal(got[:, :50], expected) and not got[:, 50:].any()
        for place, value in ((0, 0), (1, 0), (3, 24), (4, 0), (6, width - 1), (6, 0), (7, 0), (8, 49), (9, 2000)):
            assert user.keystream_matmul(*good[:place], value, *good[place + 1 :]) == BAD
        for bad in ([70, 0, 1], [0, 2**32, 1], [0, 0, 2**33]):
            runs[1] = bad
            assert user.keystream_matmul(*good) == BAD
        for bad in ((made, 70, 0, bits, at(got), 1), (0, 0, 0, bits, at(got), 1), (made, 0, 2**32, bits, at(got), 1),
                    (made, 0, 2**64 - 1, bits, at(got), 1), (made, 0, 0, 7, at(got), 1), (made, 0, 0, bits, 0, 1),
                    (made, 0, 0, bits, at(got) + 1, 1)):  # fmt: skip
            assert user.keystream_words(*bad) == BAD
    finally:
        user.schedules_free(made)
    user.schedules_free(0)
    assert user.schedules_count(0) == 0
    assert user.hkdf_expand(0, at(infos), 33, 70, at(out), 2) == BAD
    for bad in ((at(key()), at(infos), 257, 1, 1), (at(key()), 0, 33, 1, 1), (0, at(infos), 33, 1, 1),
                (at(key()), at(infos), 33, 1, -1)):  # fmt: skip
        assert user.schedules_new(*bad) == (BAD, 0)


def test_zero_share_add(user, rng, dtype):
    bits = 8 * dtype.itemsize
    infos = rng.integers(0, 256, (6, 20), np.uint8)
    lengths = np.array([5, 0, 70], np.int64)
    for first in (0, 3):
        for negate in (False, True):
            out, expected = (np.full((2, 80), 7, dtype) for _ in range(2))
            given = lengths.astype(np.uintp)
            good = [bits, at(out), 2, 80, at(key()), at(infos), 20, at(given), 3, first, int(negate), 1]
            assert user.zero_share_add(*good) == OK
            _core.zero_share_add(expected[:, :75], KEY, infos, lengths, negate, 1, first)
            assert np.array_equal(out, expected)
    before = out.copy()
    for place, value in ((0, 1), (1, 0), (3, 74), (4, 0), (5, 0), (6, 300), (7, 0), (9, 2**40), (9, -1), (11, -1)):
        assert user.zero_share_add(*good[:place], value, *good[place + 1 :]) == BAD
    given[2] = 2**40
    assert user.zero_share_add(*good) == BAD
    assert np.array_equal(out, before)
    assert user.zero_share_add(bits, 0, 0, 0, at(key()), 0, 20, 0, 0, 0, 0, 0) == OK


@pytest.mark.parametrize("n", [3, 7])
def test_shares(user, rng, dtype, n):
    p = Params(n, 1 if n == 3 else 2, 8 * dtype.itemsize)
    dim, width = 11, p.padded(11)
    rows = words(rng, (40, dim), dtype)
    infos = rng.integers(0, 256, (3, 10), np.uint8)
    made = [user.schedules_new(at(key()), at(infos), 10, 3, 1)[1] for _ in range(p.t)]
    try:
        matrices = constants.row_matrices(p)
        outs = [np.zeros((40, width), dtype) for _ in p.clouds]
        expected = [np.zeros((40, width), dtype) for _ in p.clouds]
        numbers = np.arange(p.t, dtype=np.uintp)
        handles, into = np.array(made, np.uintp), pointers(*outs)
        good = [
            p.ring_bits,
            at(matrices),
            len(outs),
            p.m,
            at(rows),
            40,
            dim,
            width,
            at(handles),
            at(numbers),
            p.t,
            6,
            at(into),
            2,
        ]
        assert user.share_rows(*good) == OK
        _core.share_rows(rows, [_core.KeySchedules(KEY, infos)] * p.t, list(range(p.t)), 6, matrices, expected)
        assert all(np.array_equal(a, b) for a, b in zip(outs, expected, strict=True))
        for place, value in ((0, 9), (1, 0), (2, 0), (2, 9), (3, 4), (4, 0), (6, 0), (7, dim - 1), (7, width + 1),
                             (8, 0), (9, 0), (10, 4), (11, 2**33), (12, 0), (13, -1)):  # fmt: skip
            assert user.share_rows(*good[:place], value, *good[place + 1 :]) == BAD
        numbers[0] = 3
        assert user.share_rows(*good) == BAD
    finally:
        for one in made:
            user.schedules_free(one)
    # columns: the linear map over whole arrays
    inputs = [words(rng, (2, width), dtype) for _ in range(1 + p.t)]
    servers = p.check_servers(p.clouds[: p.t + 1] + p.key_centres)
    matrices = constants.query_matrices(p, servers)
    outs, expected = ([np.zeros((2, width), dtype) for _ in servers] for _ in range(2))
    sources, into = pointers(*inputs), pointers(*outs)
    good = [p.ring_bits, at(matrices), len(outs), len(inputs), p.m, at(sources), at(into), 2 * width, 1]
    assert user.combine(*good) == OK
    _core.combine(inputs, matrices, expected, 1)
    assert all(np.array_equal(a, b) for a, b in zip(outs, expected, strict=True))
    for place, value in ((0, 3), (1, 0), (2, 9), (3, 5), (3, 0), (4, 1), (5, 0), (6, 0), (7, 2 * width + 1), (8, 2000)):
        assert user.combine(*good[:place], value, *good[place + 1 :]) == BAD


def test_answers(user, rng, dtype):
    bits = 8 * dtype.itemsize
    answers = [words(rng, (3, 500), dtype) for _ in range(3)]
    given, out = pointers(*answers), np.zeros((3, 500), np.int64)
    assert user.answers_add(bits, at(given), 3, 1500, at(out), 2) == OK
    assert np.array_equal(out, sharing.reconstruct(answers))
    for bad in ((5, at(given), 3, 1500, at(out), 2), (bits, 0, 3, 1500, at(out), 2),
                (bits, at(given), 0, 1500, at(out), 2),
                (bits, at(given), 9, 1500, at(out), 2), (bits, at(given), 3, 1500, 0, 2),
                (bits, at(given), 3, 2**62, at(out), 2), (bits, at(given), 3, 1500, at(out), 1025)):  # fmt: skip
        assert user.answers_add(*bad) == BAD
    rows, scores = np.zeros((3, 20), np.int64), np.zeros((3, 20), np.int64)
    for first, last in ((0, 7), (7, 300), (300, 500)):
        parts = [np.ascontiguousarray(a[:, first:last]) for a in answers]
        some = pointers(*parts)
        good = [bits, at(some), 3, 3, last - first, 20, first, at(rows), at(scores), 1]
        assert user.answers_top_k_var(*good) == OK
    expected = sharing.top_k(answers, 20)
    assert np.array_equal(rows, expected[0]) and np.array_equal(scores, expected[1])
    for place, value in (
        (0, 1),
        (1, 0),
        (2, 0),
        (2, 9),
        (4, 2**62),
        (5, 0),
        (6, -1),
        (7, 0),
        (8, at(scores) + 4),
        (9, -1),
    ):
        assert user.answers_top_k_var(*good[:place], value, *good[place + 1 :]) == BAD


def test_calls_from_many_threads(user, rng):
    rows, columns = words(rng, (5000, 64), np.uint32), words(rng, (4, 64), np.uint32)
    expected = ring.matmul(rows, columns)

    def one(_):
        out = np.zeros((4, 5000), np.uint32)
        assert user.ring_matmul(32, at(rows), 5000, 64, at(columns), 4, at(out), 5000, 2) == OK
        return np.array_equal(out, expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(40)))
