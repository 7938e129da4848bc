"""Every program of docs/examples runs by itself, leaves nothing behind, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mipp

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
PROGRAMS = sorted(FOLDER.glob("*.py"))
#: lines that a reader takes in at once
MOST_LINES = 60


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_example_runs(program, tmp_path):
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir(), temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(mipp.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", program],
        cwd=work, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not list(work.iterdir()) and not list(temporary.iterdir())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_example_is_short(program):
    assert len(program.read_text().splitlines()) < MOST_LINES


def test_examples_are_there():
    if not FOLDER.is_dir():
        pytest.skip("no docs beside the tests")
    assert len(PROGRAMS) == 8
