"""Levels: what is there, what is forced, what is refused; and status codes as typed errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp import cpu, errors, ring
from mipp._native import _core

ORDER = ("portable", "avx2", "avx512", "amx")
HOME = Path(mipp.__file__).resolve().parents[1]

USE = "import numpy as np\nfrom mipp import ring\none = np.ones((1, 1), np.uint32)\ntry:\n ring.matmul(one, one)\n"


def python(code, **environment):
    """Runs code in a fresh interpreter that sees the same mipp; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, cwd=HOME, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_levels_are_a_prefix_and_contain_the_one_in_force():
    assert cpu.levels() == ORDER[: len(cpu.levels())]
    assert cpu.level() in cpu.levels()


def test_features_fit_the_levels():
    assert ("avx2" in cpu.levels()) <= {"avx2", "bmi2", "aes", "pclmul", "fma"}.issubset(cpu.features())
    assert ("avx512" in cpu.levels()) <= {"avx512vnni", "avx512ifma", "vaes"}.issubset(cpu.features())
    assert ("amx" in cpu.levels()) <= {"amx_tile", "amx_int8"}.issubset(cpu.features())


def test_families_take_their_highest_tier_at_or_below_the_level():
    for level in cpu.levels():
        with cpu.force(level):
            assert cpu.level() == level
            for tier in cpu.active().values():
                assert ORDER.index(tier) <= ORDER.index(level)
            assert cpu.active()["ring"] == level
            assert cpu.active()["bigint"] == ("avx512" if level in ("avx512", "amx") else "portable")


def test_force_restores_also_after_an_error():
    before = cpu.level()
    with pytest.raises(KeyError), cpu.force("portable"):
        raise KeyError
    assert cpu.level() == before
    with cpu.force("portable"), cpu.force(before):
        assert cpu.level() == before
    assert cpu.level() == before


def test_force_as_a_function():
    before = cpu.level()
    cpu.force("portable")
    assert cpu.level() == "portable"
    cpu.force(before)
    assert cpu.level() == before


@pytest.mark.parametrize("name", ["", "sse2", "AVX2", "avx512 "])
def test_unknown_level(name):
    before = cpu.level()
    with pytest.raises(errors.CpuError):
        cpu.force(name)
    assert cpu.level() == before


@pytest.mark.parametrize("name", [None, 1, b"avx2"])
def test_level_of_a_wrong_type(name):
    with pytest.raises(errors.DTypeError):
        cpu.force(name)


def test_level_that_the_machine_lacks():
    missing = ORDER[len(cpu.levels()) :]
    if not missing:
        pytest.skip("this machine has every level")
    with pytest.raises(errors.CpuError):
        cpu.force(missing[0])
    assert "CpuError" in python(USE + "except Exception as e: print(type(e).__name__)", MIPP_CPU=missing[0])


def test_environment_sets_the_level():
    assert python("from mipp import cpu; print(cpu.level())", MIPP_CPU="portable") == "portable"
    assert python("from mipp import cpu; print(cpu.level())", MIPP_CPU="") == cpu.levels()[-1]


def test_environment_with_an_unknown_level():
    code = USE + "except Exception as e: print(type(e).__name__, e)"
    assert python(code, MIPP_CPU="fast") == "CpuError MIPP_CPU must be one of portable, avx2, avx512, amx"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (1, errors.NativeMemoryError),
        (2, errors.NativeError),
        (3, errors.CpuError),
        (4, errors.NativeError),
        (5, errors.NativeError),
        (99, errors.NativeError),
    ],
)
def test_status_codes_become_typed_errors(status, error):
    with pytest.raises(error):
        _core.throw_status(status)


def test_ok_is_no_error():
    assert _core.throw_status(0) is None


def test_levels_agree():
    rng = np.random.default_rng(3)
    rows, columns = rng.integers(0, 2**32, (50, 70), np.uint32), rng.integers(0, 2**32, (3, 70), np.uint32)
    results = []
    for level in cpu.levels():
        with cpu.force(level):
            results.append(ring.matmul(rows, columns))
    assert all(np.array_equal(r, results[0]) for r in results)
