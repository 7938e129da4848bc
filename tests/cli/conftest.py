"""``mipp_command``: the command line as a person calls it; ``pictures``: a few small ones."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mipp.cli import main as entry


@pytest.fixture
def mipp_command(monkeypatch, capsys, tmp_path):
    """Call ``mipp ARGS`` in the deployment folder of the test: (exit code, output, errors)."""
    monkeypatch.setenv("MIPP_DEPLOYMENT", str(tmp_path / "d"))

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["mipp", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            entry()
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return call


def picture(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    base = np.linspace(0, 255, 64)[None, :, None] * rng.uniform(0.2, 1, 3)
    Image.fromarray(np.clip(base + rng.normal(0, 20, (48, 64, 3)), 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return [picture(folder / f"p{i}.png", i) for i in range(8)]
