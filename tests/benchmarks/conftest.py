"""A project of one Python file in git, so that builds take a second."""

import subprocess

import pytest

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tiny"
version = "{version}"
[tool.setuptools]
py-modules = ["tiny"]
"""
# work(): loops that nothing can leave out
MODULE = """
def work():
    total = 0
    for i in range({loops}):
        total += i * i
    return total
"""
WORKLOADS = """
import tiny

def bench_work(small=False):
    return tiny.work

def bench_broken():
    raise KeyError("no such kernel")

def bench_cleaned(small=False):
    import pathlib
    yield tiny.work
    pathlib.Path({marker!r}).write_text("cleaned")

def helper():
    raise AssertionError("no workload")
"""


class Project:
    """Revisions ``one`` (1,000 loops), ``two`` (1,200 loops), ``docs`` (as two, and a README)."""

    def __init__(self, folder):
        self.folder = folder
        self.marker = folder.parent / "marker"
        self.workloads = folder.parent / "work.py"
        self.workloads.write_text(WORKLOADS.format(marker=str(self.marker)))
        folder.mkdir()
        self.git("init", "-q")
        (folder / "pyproject.toml").write_text(PYPROJECT.format(version="1"))
        self.write(1_000)
        self.commit("one")
        self.write(1_200)
        self.commit("two")
        (folder / "README.md").write_text("Words.\n")
        self.commit("docs")

    def git(self, *arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", self.folder, *who, *arguments], check=True, capture_output=True)

    def write(self, loops):
        (self.folder / "tiny.py").write_text(MODULE.format(loops=loops))

    def commit(self, tag):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", tag)
        self.git("tag", tag)

    def installed(self, loops):
        """A folder as ``pip install --target`` leaves it."""
        made = self.folder.parent / f"installed{loops}"
        made.mkdir(exist_ok=True)
        (made / "tiny.py").write_text(MODULE.format(loops=loops))
        return made


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")
