"""The planted slowdown fits the sources, and the proof counts right."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import proof
from benchmarks.tracking import builds, sampling
from tests.benchmarks.test_stats import RUN, recorded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path):
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    return tmp_path


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_the_planted_slowdown_compiles(source):
    before = (source / proof.SOURCE).read_text()
    proof.slow_down(source)
    after = (source / proof.SOURCE).read_text()
    assert "row_count / 10" in after and before.count("ring_matmul(") < after.count("ring_matmul")
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", source / proof.SOURCE]
    subprocess.run(command, check=True, cwd=source)


def test_sources_that_it_does_not_fit_are_refused(source):
    (source / proof.SOURCE).write_text("int other;\n")
    with pytest.raises(builds.BuildError, match="cannot be planted"):
        proof.slow_down(source)


@pytest.mark.parametrize(
    ("slow", "same", "code", "words"),
    [
        ("slower", "equal", 0, "caught in 3 of 3 runs; unchanged: alarmed in 0 of 3"),
        ("equal", "equal", 1, "caught in 0 of 3 runs; unchanged: alarmed in 0 of 3"),
        ("slower", "slower", 1, "caught in 3 of 3 runs; unchanged: alarmed in 3 of 3"),
    ],
)
def test_counts(monkeypatch, capsys, slow, same, code, words):
    made = {None: "base", proof.change_nothing: "same", proof.slow_down: "slow"}
    monkeypatch.setattr(
        builds, "build", lambda repository, revision, cache, edit: builds.Build(made[edit], "", made[edit], Path())
    )
    monkeypatch.setattr(sampling, "names_of", lambda pair: {"names": ["ring_u32", "slice_bits"]})

    def measure(pair, names, plan):
        assert names == ["ring_u32"]
        first = recorded({"slow": slow, "same": same}[pair[1].name])["ring_u32"]
        return [sampling.Result("ring_u32", first[:RUN], first[RUN : 2 * RUN])]

    monkeypatch.setattr(sampling, "measure", measure)
    assert proof.main(["--runs", "3"]) == code
    assert words in capsys.readouterr().out
