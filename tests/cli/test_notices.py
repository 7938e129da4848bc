"""What the command line says on stderr of files left out, and the command that compiles ahead."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mipp.cli.main import cli


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "IM0001"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(images / name, "PNG")
    (images / "notes.txt").write_text("no image")
    return tmp_path


def test_add_names_what_it_leaves_out(folder):
    where = ["--deployment", str(folder / "deployment")]
    runner = CliRunner()
    assert runner.invoke(cli, ["init", "--descriptor", "lbp", *where]).exit_code == 0
    assert runner.invoke(cli, ["owner", "create", "anna", *where]).exit_code == 0
    done = runner.invoke(cli, ["owner", "add", "anna", str(folder / "images"), "--json", *where])
    assert done.exit_code == 0 and json.loads(done.stdout)["added"] == 2
    assert done.stderr.count("1 other file left out, no images: notes.txt") == 1


def test_the_first_compilation_is_announced(tmp_path):
    command = [sys.executable, "-c", "from mipp.cli import main; main()", "warm-up", "--descriptor", "lbp"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    cold, warm = (subprocess.run(command, capture_output=True, text=True, check=True, env=environment) for _ in "ab")
    assert "lbp: 2 functions compiled" in cold.stdout and cold.stderr.count("mipp: compiling") == 1
    assert "lbp: 0 functions compiled" in warm.stdout and not warm.stderr


def test_warm_up():
    done = CliRunner().invoke(cli, ["warm-up", "--descriptor", "lbp", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["descriptor"] == "lbp"
    assert json.loads(CliRunner().invoke(cli, ["warm-up", "--descriptor", "lbp", "--json"]).stdout)["compiled"] == 0
    assert CliRunner().invoke(cli, ["warm-up", "--descriptor", "nothing"]).exit_code != 0
