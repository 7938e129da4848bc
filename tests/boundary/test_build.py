"""How the project is built and what it is called: compilers that are too old, the distribution, versions of Python."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mipp
from mipp.errors import DISTRIBUTION, missing_extra

ROOT = Path(__file__).resolve().parents[2]
needs_checkout = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in a checkout")

# gcc 10 refuses the flag; a compiler of our own time that calls itself gcc 10 takes it
OLD = """#!/bin/sh
if [ "$1" = --version ]; then echo "g++ (Somewhere) 10.2.1"; exit 0; fi
echo "cc1plus: error: bad value ('x86-64-v2') for '-march=' switch" >&2; exit 1
"""
SAYS_OLD = """#!/bin/sh
if [ "$1" = --version ]; then echo "g++ (Somewhere) 10.2.1"; exit 0; fi
exec g++ -U__GNUC__ -D__GNUC__=10 "$@"
"""


@needs_checkout
@pytest.mark.parametrize("script", [OLD, SAYS_OLD])
def test_an_old_compiler_is_refused_in_one_sentence_before_anything_is_compiled(tmp_path, script):
    pytest.importorskip("Cython")
    pytest.importorskip("pybind11")
    pytest.importorskip("setuptools")
    (tmp_path / "g++").write_text(script)
    (tmp_path / "g++").chmod(0o755)
    old = str(tmp_path / "g++")
    run = subprocess.run(
        [sys.executable, "setup.py", "build_clib", "--build-temp", str(tmp_path / "made"), "build_ext",
         "--build-temp", str(tmp_path / "made"), "--build-lib", str(tmp_path / "made")],
        cwd=ROOT, env={**os.environ, "CC": old, "CXX": old}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode, run.stdout
    said = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "gcc 11 or clang 12" in said[0] and "10.2.1" in said[0] and "Traceback" not in run.stderr
    assert not list(tmp_path.rglob("*.o"))


def test_the_distribution_is_not_called_as_another_project_on_the_package_index():
    assert DISTRIBUTION == "mipp-retrieval"
    assert str(missing_extra("plots need matplotlib", "plot")).endswith(
        "pip install 'mipp-retrieval[plot]', or '.[plot]' in a checkout"
    )
    try:
        assert importlib.metadata.version(DISTRIBUTION) == mipp.__version__
    except importlib.metadata.PackageNotFoundError:
        assert (ROOT / "setup.py").exists(), "used without being installed: a checkout"


@needs_checkout
def test_no_file_names_an_extra_of_the_other_project():
    wrong = [
        str(path.relative_to(ROOT))
        for path in subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split(
            "\0"
        )
        for path in [ROOT / path]
        if path.suffix in (".py", ".md", ".toml", ".yml", ".txt", "")
        and path.is_file()
        and path.name != "test_build.py"
        if re.search(r"\bmipp\\?\[|pip3? install (-\S+ )*'?mipp(?!-retrieval)\b|^mipp[=>]=", path.read_text(), re.M)
    ]
    assert not wrong


@needs_checkout
def test_project_file_workflows_and_tools_name_the_same_versions_of_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [c.rsplit(" ", 1)[1] for c in project["project"]["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert project["project"]["name"] == DISTRIBUTION and project["project"]["requires-python"] == f">={named[0]}"
    assert project["tool"]["ruff"]["target-version"] == "py" + named[0].replace(".", "")
    assert project["tool"]["mypy"]["python_version"] == named[0]
    assert project["tool"]["cibuildwheel"]["build"].split() == [f"cp{v.replace('.', '')}-*" for v in named]
    assert f"Python {named[0]}-{named[-1]}" in (ROOT / "README.md").read_text()
    workflow = ROOT / ".github/workflows/ci.yml"
    if workflow.exists():
        assert ", ".join(f'"{v}"' for v in named) in workflow.read_text()


def test_the_package_runs_as_a_module():
    out = subprocess.run([sys.executable, "-m", "mipp", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout == f"mipp, version {mipp.__version__}\n"
