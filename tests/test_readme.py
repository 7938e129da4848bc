"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import pytest


def test_python_example(tmp_path, monkeypatch, capsys):
    readme = Path(__file__).parents[1] / "README.md"
    if not readme.is_file():
        pytest.skip("no README beside the tests")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    assert blocks and all(len(b.splitlines()) <= 24 for b in blocks)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("berta 100 ")


@pytest.mark.parametrize(
    "room",
    [
        "mipp/paillier",
        "mipp/features",
        *(
            f"mipp/compat/{name}"
            for name in ("ann_benchmarks", "big_ann_benchmarks", "faiss", "langchain", "phe", "sklearn")
        ),
    ],
)
def test_examples_of_rooms(room, tmp_path, monkeypatch):
    if room.endswith("langchain"):
        pytest.importorskip("langchain_core", reason="langchain-core (extra langchain) is not installed")
    readme = Path(__file__).parents[1] / room / "README.md"
    if not readme.is_file():
        pytest.skip("no README beside the tests")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, str(readme), "exec"), {})
