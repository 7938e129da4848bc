"""Kernels without a usable cache, with a damaged one, with another user's; compilation ahead and its notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mipp import features
from mipp.errors import DTypeError, NotFoundError
from mipp.features._kernels import _compile

ROOT = Path(__file__).resolve().parents[2]
# no user, root neither, can make folders below a device
NOWHERE = "/dev/null/none"
PROGRAM = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
import numpy as np
from mipp import features
image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
print(features.get("lbp").extract(image).astype(float).tolist())
from mipp.features._kernels import _compile
print(_compile.compilations())
"""


def run(root: Path = ROOT, **environment: str) -> tuple[list[float], int, str]:
    """Features, number of compilations, and log of a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    settings = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=False, env=inherited | settings
    )
    assert done.returncode == 0, done.stderr
    values, compiled = done.stdout.splitlines()
    return [float(v) for v in values.strip("[]").split(",")], int(compiled), done.stderr


@pytest.fixture(scope="module")
def expected() -> list[float]:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return features.get("lbp").extract(image).astype(float).tolist()


@pytest.fixture
def read_only(tmp_path) -> Path:
    """A copy of the program in which compiled functions find no place."""
    shutil.copytree(ROOT / "mipp", tmp_path / "mipp", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mipp" / "features" / "_kernels" / "__pycache__").write_bytes(b"")
    return tmp_path


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A cache that one process has filled."""
    folder = tmp_path_factory.mktemp("filled")
    _, compiled, log = run(NUMBA_CACHE_DIR=str(folder))
    assert compiled == 2 and "INFO compiling" in log
    return folder


@pytest.fixture
def cache(tmp_path, filled) -> Path:
    """A copy of that, to be damaged."""
    return shutil.copytree(filled, tmp_path / "cache")


def test_a_read_only_program_without_a_home_computes(read_only, expected):
    got, compiled, log = run(read_only, HOME=NOWHERE, XDG_CACHE_HOME=NOWHERE, NUMBA_CACHE_DIR=NOWHERE)
    assert got == expected and compiled == 2
    assert log.count("INFO compiling") == 1 and log.count("WARNING compiled functions cannot be kept") == 1


def test_a_filled_cache_is_used_in_silence(filled, expected):
    assert run(NUMBA_CACHE_DIR=str(filled)) == (expected, 0, "")


def _cut(content: bytes) -> bytes:
    return content[:50]


def _changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(b ^ 255 for b in content[middle : middle + 64]) + content[middle + 64 :]


def _emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "damages"), [("*.nbi", (_cut, _changed)), ("*.nbc", (_changed, _emptied))])
def test_a_damaged_cache_is_made_again(cache, expected, pattern, damages):
    """Two kernels at once, each damaged in another way."""
    files = sorted(cache.rglob(pattern))
    for path, damage in zip(files, damages, strict=True):
        path.write_bytes(damage(path.read_bytes()))
    got, compiled, log = run(NUMBA_CACHE_DIR=str(cache))
    assert got == expected and compiled == 2 and "WARNING" not in log
    assert run(NUMBA_CACHE_DIR=str(cache)) == (expected, 0, "")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no owners here")
def test_a_cache_that_others_can_write_to_is_not_read(cache, expected):
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    folder.chmod(0o777)
    got, compiled, log = run(NUMBA_CACHE_DIR=str(cache))
    assert got == expected and compiled == 2 and "cannot be kept" in log


def test_a_cache_of_another_user_is_not_trusted(tmp_path, monkeypatch):
    owner = os.stat(tmp_path).st_uid
    source = str(tmp_path)
    assert _compile._trusted(str(tmp_path), source) and _compile._trusted(str(tmp_path / "none"), source)
    if owner != 0:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        assert not _compile._trusted(str(tmp_path), _compile.__file__) or os.stat(_compile.__file__).st_uid == owner


@pytest.mark.parametrize("spec", [name for name in features.names() if ":" not in name][:12])
def test_extraction_after_warm_up_compiles_nothing(spec):
    features.warm_up(spec)
    before = _compile.compilations()
    rng = np.random.default_rng(1)
    for shape in ((96, 80, 3), (20, 30, 3), (1, 1, 3), (300, 9, 3)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        features.get(spec).extract(image)
        image.flags.writeable = False
        features.get(spec).extract(image)
        features.get(spec).extract(np.asfortranarray(image)[:, ::-1])
    assert _compile.compilations() == before
    assert features.warm_up(spec) == 0


def test_warm_up_of_what_is_no_descriptor():
    with pytest.raises(NotFoundError):
        features.warm_up("nothing")
    with pytest.raises(DTypeError):
        features.warm_up(7)
